//! The log: structured lines on standard error.
//!
//! Standard output belongs to what a command prints. On a terminal lines are for eyes, elsewhere they are JSON, one object
//! per line, for whatever collects them.
//!
//! Invariant: the configured level is for the daemon's own lines; its dependencies are heard from `warn` on, unless
//! `RUST_LOG` asks for more.

use std::io::{self, IsTerminal};

use tracing_subscriber::util::TryInitError;
use tracing_subscriber::{EnvFilter, Registry, fmt, prelude::*, reload};

use crate::config::{Environment, LogFormat, LogLevel};

/// The packages whose lines are the daemon's own.
const OWN_TARGETS: [&str; 3] = ["quaild", "quail_core", "quail_protocol"];

/// The log could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum LoggingError {
    /// `RUST_LOG` is not in the form of filters. Whoever set it is to blame.
    #[error("RUST_LOG = {value:?} is no log filter: {reason}")]
    Filter {
        /// Its value.
        value: String,
        /// What is wrong with it.
        reason: String,
    },
    /// This process has a log already. The program is to blame.
    #[error("set up the log")]
    Installed(#[from] TryInitError),
}

/// The log of this process, for who changes its level.
#[derive(Clone)]
pub struct LogHandle {
    filter: reload::Handle<EnvFilter, Registry>,
    /// `RUST_LOG` was set at the start and decides.
    is_fixed: bool,
}

/// Sets up the log of this process.
///
/// # Errors
/// See [`LoggingError`].
pub fn install(
    level: LogLevel,
    format: LogFormat,
    environment: &dyn Environment,
) -> Result<LogHandle, LoggingError> {
    let is_fixed = rust_log(environment).is_some();
    let (filter, handle) = reload::Layer::new(filter(level, environment)?);
    let is_terminal = io::stderr().is_terminal();
    let is_human = match format {
        LogFormat::Human => true,
        LogFormat::Json => false,
        LogFormat::Auto => is_terminal,
    };
    // no-color.org: set and not empty means no.
    let is_plain = environment.get("NO_COLOR").is_some_and(|value| !value.is_empty());
    let layer = fmt::layer().with_writer(io::stderr).with_ansi(is_terminal && !is_plain);
    let registry = tracing_subscriber::registry().with(filter);
    if is_human {
        registry.with(layer.compact()).try_init()?;
    } else {
        registry.with(layer.json().flatten_event(true)).try_init()?;
    }
    Ok(LogHandle { filter: handle, is_fixed })
}

impl LogHandle {
    /// Changes the level, unless `RUST_LOG` decides.
    pub fn set_level(&self, level: LogLevel) {
        if self.is_fixed {
            return;
        }
        // The directives are ours and the log lives as long as the process, so neither fails; if one did, the log would go
        // on as it is.
        let changed = parse(&default_directives(level)).map(|filter| self.filter.reload(filter));
        if !matches!(changed, Ok(Ok(()))) {
            tracing::error!("the log level could not be changed");
        }
    }
}

fn rust_log(environment: &dyn Environment) -> Option<std::ffi::OsString> {
    environment.get("RUST_LOG").filter(|value| !value.is_empty())
}

fn filter(level: LogLevel, environment: &dyn Environment) -> Result<EnvFilter, LoggingError> {
    let Some(directives) = rust_log(environment) else {
        return parse(&default_directives(level));
    };
    parse(&directives.to_string_lossy())
}

fn parse(directives: &str) -> Result<EnvFilter, LoggingError> {
    EnvFilter::builder()
        .parse(directives)
        .map_err(|error| LoggingError::Filter { value: directives.to_owned(), reason: error.to_string() })
}

/// quinn, sqlx and sled tell about every packet, statement and page.
fn default_directives(level: LogLevel) -> String {
    let others = if level == LogLevel::Error { LogLevel::Error } else { LogLevel::Warn };
    let own = OWN_TARGETS.map(|target| format!(",{target}={}", level.as_str()));
    format!("{}{}", others.as_str(), own.concat())
}

impl LoggingError {
    /// Returns the operator's next step.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Filter { .. } => "unset RUST_LOG, or write filters as in RUST_LOG=info,quinn=debug",
            Self::Installed(_) => "this is a mistake in quaild: please report it",
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn environment(rust_log: &str) -> BTreeMap<String, String> {
        BTreeMap::from([("RUST_LOG".to_owned(), rust_log.to_owned())])
    }

    #[test]
    fn dependencies_are_quieter_than_the_daemon() {
        assert_eq!(
            default_directives(LogLevel::Debug),
            "warn,quaild=debug,quail_core=debug,quail_protocol=debug"
        );
        assert!(default_directives(LogLevel::Error).starts_with("error,"));
    }

    #[test]
    fn the_level_follows_unless_rust_log_decides() {
        for is_fixed in [false, true] {
            let (filter, handle) = reload::Layer::new(parse(&default_directives(LogLevel::Info)).unwrap());
            let _subscriber = Registry::default().with(filter);
            let log = LogHandle { filter: handle.clone(), is_fixed };
            log.set_level(LogLevel::Trace);
            let directives = handle.with_current(ToString::to_string).unwrap();
            assert_eq!(directives.contains("quaild=trace"), !is_fixed, "{directives}");
        }
    }

    #[test]
    fn rust_log_decides_where_it_is_set() {
        let text = |rust_log| filter(LogLevel::Info, &environment(rust_log)).unwrap().to_string();
        assert_eq!(text("quinn=trace"), "quinn=trace");
        assert!(text("").contains("quaild=info"));
        let error = filter(LogLevel::Info, &environment("quinn=loud")).unwrap_err();
        assert!(error.to_string().starts_with("RUST_LOG = \"quinn=loud\" is no log filter"), "{error}");
        assert!(error.hint().contains("RUST_LOG"));
    }
}

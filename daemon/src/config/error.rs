//! What can be wrong with a configuration. The operator is to blame for all of it but [`ConfigError::Defaults`], so each
//! message says where the mistake stands and what to write instead.

use std::fmt;
use std::io;
use std::path::PathBuf;

use super::{Source, UnknownKey};

/// One mistake.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("read the configuration file {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file is no TOML.
    #[error("{place}: not valid TOML: {message}")]
    Syntax {
        /// The file and line.
        place: Source,
        /// What the parser said.
        message: String,
    },
    /// A setting has a value of a wrong type.
    #[error("{key} in {place} is of type {found}: write {wants}")]
    Type {
        /// The setting.
        key: &'static str,
        /// Where it stands.
        place: Source,
        /// The type that was found.
        found: &'static str,
        /// What to write instead.
        wants: &'static str,
    },
    /// A setting has a value that it cannot have.
    #[error("{key} = {value:?} from {place}: write {wants}")]
    Value {
        /// The setting.
        key: &'static str,
        /// Its value.
        value: String,
        /// Where it stands.
        place: Source,
        /// What to write instead.
        wants: &'static str,
    },
    /// Of certificate and key only one is given.
    #[error("{given} from {place} is set, {missing} is not: set both or none")]
    HalfCertificate {
        /// The setting that is there.
        given: &'static str,
        /// Where it stands.
        place: Source,
        /// The setting that is not.
        missing: &'static str,
    },
    /// The data directory is left open, and nothing says where it could be.
    #[error(
        "no data directory: none is configured, and none of STATE_DIRECTORY, XDG_DATA_HOME and HOME is set"
    )]
    NoDataDirectory,
    /// The embedded configuration lacks a setting. A mistake in this program.
    #[error("the built-in configuration has no {key}")]
    Defaults {
        /// The setting.
        key: &'static str,
    },
}

/// All that is wrong with a configuration.
#[derive(Debug, Default)]
pub struct ConfigErrors {
    /// The mistakes, in the order in which they were found.
    pub errors: Vec<ConfigError>,
    /// Keys that no setting has: by themselves no reason not to start, but often the other half of a mistake.
    pub unknown: Vec<UnknownKey>,
}

impl ConfigErrors {
    /// Returns the operator's next step.
    pub fn hint(&self) -> &'static str {
        match self.errors.first() {
            Some(ConfigError::Read { .. }) => {
                "name an existing file with --config; `quaild default-config` prints one to begin with"
            }
            Some(ConfigError::NoDataDirectory) => {
                "name one with --data, QUAIL_DATA_DIRECTORY or `directory` in the section [data]"
            }
            _ => {
                "`quaild default-config` prints every setting with its meaning, `quaild check-config` checks a file"
            }
        }
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let errors = self.errors.iter().map(|error| error as &dyn fmt::Display);
        let unknown = self.unknown.iter().map(|key| key as &dyn fmt::Display);
        for (index, line) in errors.chain(unknown).enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{line}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}

//! Settings that change while the daemon runs: SIGHUP has the configuration and the certificates read again.
//!
//! Each part that can follow brings an [`Applier`]. A reload first has every applier get its change ready, which is where a
//! bad file shows, and makes the changes only if all of them could. What cannot change in a running daemon is named in the
//! log and keeps its old value.
//!
//! Invariants: a reload happens whole or not at all; what a reload refuses is logged, every error of it, and the daemon
//! goes on as before.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use quail_protocol::address::Pin;
use quinn::Endpoint;

use super::{DataPaths, serve};
use crate::config::{Config, ConfigErrors, Loaded, Setting};
use crate::directory::DirectoryService;
use crate::gateway::Rates;
use crate::net::identity::Identity;
use crate::net::server_config;
use crate::ops::logging::LogHandle;
use crate::ops::metrics::{Metrics, ReloadLabel};

/// The settings that a reload can change. All others need a restart.
const RELOADED: [&str; 16] = [
    "server.drain",
    "tls.certificate_file",
    "tls.key_file",
    "tls.early_data",
    "accounts.sign_up",
    "rates.handshake",
    "rates.sign_up",
    "rates.log_in",
    "rates.password",
    "rates.password_anywhere",
    "rates.look_up",
    "rates.unknown",
    "rates.request",
    "rates.send",
    "rates.signal",
    "log.level",
];

/// A change that is ready to be made and cannot fail any more.
pub(super) type Change = Box<dyn FnOnce() + Send>;

/// Gets ready what a configuration asks of one part of the daemon, without changing anything yet.
pub(super) type Applier = Box<dyn Fn(&Config) -> anyhow::Result<Change> + Send>;

/// Reads the configuration again, from where it was read at the start.
pub(super) type Source = Box<dyn Fn() -> Result<Loaded, ConfigErrors> + Send>;

/// The pin of the certificate in use.
#[derive(Clone, Debug)]
pub(super) struct CurrentPin(Arc<Mutex<Pin>>);

/// What a reload needs.
pub(super) struct Reload {
    source: Source,
    /// The values that are in force.
    settings: Vec<Setting>,
    drain: Duration,
    appliers: Vec<Applier>,
}

/// What a reload did.
#[derive(Debug, Default, PartialEq, Eq)]
struct Reloaded {
    /// The settings whose values are other than before.
    changed: Vec<&'static str>,
    /// The settings whose values are other than those in force, and stay so.
    needs_restart: Vec<&'static str>,
}

impl Reload {
    /// Returns a reload of what was loaded at the start.
    pub(super) fn new(source: Source, loaded: &Loaded, appliers: Vec<Applier>) -> Self {
        let (settings, drain) = (loaded.settings.clone(), loaded.config.server.drain);
        Self { source, settings, drain, appliers }
    }

    /// Reloads, and logs and counts what came of it.
    pub(super) fn run(&mut self, metrics: &Metrics) {
        let reloaded = self.reload();
        let result = if reloaded.is_ok() { "taken" } else { "refused" };
        metrics.reloads.get_or_create(&ReloadLabel { result }).inc();
        match reloaded {
            Ok(Reloaded { changed, needs_restart }) => {
                for setting in needs_restart {
                    tracing::warn!(setting, "changed, but needs a restart to take effect");
                }
                tracing::info!(changed = changed.join(" "), "configuration and certificates reloaded");
            }
            Err(errors) => {
                for error in &errors {
                    tracing::error!(error = format!("{error:#}"), "cannot reload");
                }
                tracing::error!(errors = errors.len(), "nothing was reloaded, the daemon goes on as before");
            }
        }
    }

    /// Returns how long a drain may take.
    pub(super) fn drain(&self) -> Duration {
        self.drain
    }

    fn reload(&mut self) -> Result<Reloaded, Vec<anyhow::Error>> {
        let loaded = (self.source)()
            .map_err(|errors| errors.errors.into_iter().map(anyhow::Error::new).collect::<Vec<_>>())?;
        for key in &loaded.unknown {
            tracing::warn!("{key}");
        }
        let (mut changes, mut errors) = (Vec::new(), Vec::new());
        for applier in &self.appliers {
            match applier(&loaded.config) {
                Ok(change) => changes.push(change),
                Err(error) => errors.push(error),
            }
        }
        if !errors.is_empty() {
            return Err(errors);
        }
        changes.into_iter().for_each(|change| change());
        self.drain = loaded.config.server.drain;
        Ok(self.take_over(&loaded.settings))
    }

    /// Notes the new values as in force where they are, and returns what is different.
    fn take_over(&mut self, new: &[Setting]) -> Reloaded {
        let mut reloaded = Reloaded::default();
        for setting in &mut self.settings {
            let Some(new) = new.iter().find(|new| new.key == setting.key && new.value != setting.value)
            else {
                continue;
            };
            if RELOADED.contains(&setting.key) {
                reloaded.changed.push(setting.key);
                *setting = new.clone();
            } else {
                reloaded.needs_restart.push(setting.key);
            }
        }
        reloaded
    }
}

/// Lets others sign up, or no longer.
pub(super) fn sign_up(service: DirectoryService) -> Applier {
    Box::new(move |config| {
        let (service, policy) = (service.clone(), serve::policy(config.accounts.sign_up));
        Ok(Box::new(move || service.set_policy(policy)))
    })
}

/// Logs more, or less.
pub(super) fn log_level(log: LogHandle) -> Applier {
    Box::new(move |config| {
        let (log, level) = (log.clone(), config.log.level);
        Ok(Box::new(move || log.set_level(level)))
    })
}

/// Lets strangers, accounts and devices try more, or less.
pub(super) fn rates(rates: Arc<Rates>) -> Applier {
    Box::new(move |config| {
        let (rates, table) = (rates.clone(), config.rates);
        Ok(Box::new(move || rates.set(&table)))
    })
}

/// Reads the certificate and its key again. Connections that are open keep theirs; the daemon's own
/// certificate is for the host name in force, whatever the configuration says now.
pub(super) fn certificates(certificates: Certificates) -> Applier {
    Box::new(move |config| {
        let certificates = certificates.clone();
        let identity: Identity = serve::identity(&config.tls, &certificates.paths, &certificates.name)?;
        let (tls, early_data) = (identity.server_config()?, config.tls.early_data);
        let settings = server_config(tls, &certificates.reset_key, early_data, &certificates.metrics)?;
        Ok(Box::new(move || {
            certificates.endpoint.set_server_config(Some(settings));
            certificates.pin.set(identity.pin());
            certificates.metrics.certificate_expiry.set(identity.expiry());
        }))
    })
}

/// What takes part when certificates change.
#[derive(Clone)]
pub(super) struct Certificates {
    pub(super) endpoint: Endpoint,
    pub(super) paths: DataPaths,
    /// The host name in force.
    pub(super) name: String,
    pub(super) reset_key: [u8; 32],
    pub(super) pin: CurrentPin,
    pub(super) metrics: Arc<Metrics>,
}

impl CurrentPin {
    /// Returns the pin of a first certificate.
    pub(super) fn new(pin: Pin) -> Self {
        Self(Arc::new(Mutex::new(pin)))
    }

    /// Returns the pin.
    pub(super) fn get(&self) -> Pin {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, pin: Pin) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = pin;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;
    use crate::config::{self, Flags};

    fn load(variables: &[(&str, &str)]) -> Result<Loaded, ConfigErrors> {
        let home = [("HOME", "/home/ada")];
        let all = home.iter().chain(variables);
        let environment: BTreeMap<_, _> =
            all.map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        config::load(None, &environment, &Flags::default())
    }

    /// A reload that finds one configuration after the other, and the count of changes that were made.
    fn reload(
        configurations: Vec<&'static [(&'static str, &'static str)]>,
        refuses: bool,
    ) -> (Reload, Arc<AtomicU32>) {
        let made = Arc::new(AtomicU32::new(0));
        let count = made.clone();
        let counting: Applier = Box::new(move |_| {
            let count = count.clone();
            Ok(Box::new(move || {
                count.fetch_add(1, Ordering::SeqCst);
            }))
        });
        let refusing: Applier = Box::new(move |_| {
            anyhow::ensure!(!refuses, "no");
            Ok(Box::new(|| ()))
        });
        let next = AtomicU32::new(0);
        let source = Box::new(move || load(configurations[next.fetch_add(1, Ordering::SeqCst) as usize]));
        let refusing_too: Applier = Box::new(move |_| {
            anyhow::ensure!(!refuses, "nor this");
            Ok(Box::new(|| ()))
        });
        let appliers = vec![counting, refusing, refusing_too];
        (Reload::new(source, &load(&[]).unwrap(), appliers), made)
    }

    #[test]
    fn what_changed_is_told_from_what_needs_a_restart() {
        let (mut reload, made) = reload(
            vec![
                &[("QUAIL_LOG_LEVEL", "debug"), ("QUAIL_SERVER_NAME", "chat.example")],
                &[("QUAIL_SERVER_NAME", "chat.example"), ("QUAIL_SERVER_DRAIN", "1s")],
                &[("QUAIL_SERVER_DRAIN", "1s")],
            ],
            false,
        );
        let told = |changed: &[&'static str], needs_restart: &[&'static str]| Reloaded {
            changed: changed.to_vec(),
            needs_restart: needs_restart.to_vec(),
        };
        assert_eq!(reload.reload().unwrap(), told(&["log.level"], &["server.name"]));
        // Said again until the daemon is restarted, or the setting is as it was.
        assert_eq!(reload.reload().unwrap(), told(&["server.drain", "log.level"], &["server.name"]));
        assert_eq!(reload.drain(), Duration::from_secs(1));
        assert_eq!(reload.reload().unwrap(), told(&[], &[]));
        assert_eq!(made.load(Ordering::SeqCst), 3);
    }

    #[test]
    fn a_reload_that_one_part_refuses_changes_nothing() {
        let (mut reload, made) = reload(vec![&[("QUAIL_SERVER_DRAIN", "1s")]], true);
        let errors = reload.reload().unwrap_err();
        assert_eq!(errors.iter().map(ToString::to_string).collect::<Vec<_>>(), ["no", "nor this"]);
        assert_eq!((made.load(Ordering::SeqCst), reload.drain()), (0, Duration::from_secs(5)));
    }

    #[test]
    fn every_mistake_of_a_bad_configuration_is_told() {
        let bad = &[("QUAIL_SERVER_DRAIN", "soon"), ("QUAIL_LOG_LEVEL", "loud")];
        let (mut reload, made) = reload(vec![bad], false);
        assert_eq!(reload.reload().unwrap_err().len(), 2);
        assert_eq!(made.load(Ordering::SeqCst), 0);
    }

    #[test]
    fn every_setting_that_is_reloaded_exists() {
        let settings = load(&[]).unwrap().settings;
        assert!(RELOADED.iter().all(|key| settings.iter().any(|setting| setting.key == *key)));
    }
}

//! Looking through a settled store without serving from it.

use std::path::Path;

use quail_core::ports::outbox::Stretch;
use quail_protocol::id::Position;

use super::{OpenSettledError, SettledOptions, SettledStore};
use crate::adapters::outbox::types::{Lost, Mark};

/// What a check of a settled store found.
#[derive(Clone, Debug, Default)]
pub struct SettledReport {
    /// How far it is.
    pub mark: Mark,
    /// Events that wait.
    pub events: u64,
    /// Chunks they lie in.
    pub chunks: u64,
    /// Devices that have a record.
    pub devices: u64,
    /// Accepted sends that are remembered.
    pub sends: u64,
    /// What was mended to look at it.
    pub repaired: Vec<String>,
    /// What is damaged.
    pub lost: Vec<Lost>,
}

impl SettledStore {
    /// Opens the store in a directory and reads every event in it.
    ///
    /// # Errors
    /// [`OpenSettledError`], above all if it is damaged beyond mending.
    pub fn check(path: &Path) -> Result<SettledReport, OpenSettledError> {
        let (store, found) = Self::open(path, SettledOptions::default())?;
        let mut report = SettledReport {
            mark: found.mark,
            chunks: store.held.accounts.values().map(|account| u64::from(account.chunks)).sum(),
            devices: found.recovered.devices.len() as u64,
            sends: found.recovered.sends.len() as u64,
            repaired: found.repaired,
            lost: found.lost,
            ..SettledReport::default()
        };
        let reader = store.reader();
        for account in store.held.accounts.keys() {
            let mut after = Position::ZERO;
            loop {
                let stretch =
                    Stretch { after, upto: found.mark.last_position, events_max: 256, bytes_max: usize::MAX };
                let read = reader.read(*account, stretch).map_err(|error| OpenSettledError::Unusable {
                    path: path.to_owned(),
                    reason: error.to_string(),
                })?;
                report.events += read.events.len() as u64;
                let last_lost = read.lost.last().map(|lost| lost.upto);
                report.lost.extend(read.lost);
                let last = read.events.last().map(|event| event.position).max(last_lost);
                match last.filter(|_| read.more) {
                    Some(last) => after = last,
                    None => break,
                }
            }
        }
        Ok(report)
    }
}

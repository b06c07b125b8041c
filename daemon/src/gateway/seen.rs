//! When devices were last seen: noted in memory, and written to the directory now and then.
//!
//! People look at it to find the telephone they lost; nothing is decided on it. So it is no part of any message's way: a
//! connection is noted as its session begins, and one task looks every few seconds who is still there, and writes in batches
//! what the directory does not know.
//!
//! Invariants: a device that stays connected is written at most once every [`SEEN_EVERY`], and each is written soon after
//! its last connection ends; a daemon that is killed loses no more than that. What the directory cannot take now is tried
//! again. Who is connected only `delivery` knows, so nothing here can be left over of a connection.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use quail_protocol::id::DeviceId;
use tokio_util::sync::CancellationToken;

use super::Gateway;

/// How old the record of a connected device may grow.
const SEEN_EVERY: Duration = Duration::from_secs(60);

/// How often is looked who is still there. Short, so that devices that connected at different times are written at different
/// times, and commands of the directory do not wait for all of them at once.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// Most devices that are written in one transaction: some milliseconds, in which commands of the directory wait.
const BATCH_MAX: usize = 500;

/// Most devices that are noted: those that are connected, and those that are gone and not written yet. Beyond it none is
/// noted, and its last minutes are lost; it takes a directory that was away for long while very many came and went.
const NOTED_MAX: usize = 262_144;

/// When devices were last seen, as far as the directory does not know.
#[derive(Default)]
pub(super) struct Seen {
    devices: Mutex<HashMap<DeviceId, Noted>>,
}

#[derive(Default)]
struct Noted {
    /// Until when the device was connected, once it was found to be gone.
    gone_ms: Option<u64>,
    /// What the directory was told last; zero if nothing.
    written_ms: u64,
}

impl Seen {
    /// Notes that a device has a connection.
    pub(super) fn note(&self, device: DeviceId) {
        let mut devices = self.lock();
        if let Some(noted) = devices.get_mut(&device) {
            noted.gone_ms = None;
        } else if devices.len() < NOTED_MAX {
            devices.insert(device, Noted::default());
        }
    }

    /// Returns when a device without a connection was seen, if that may be later than the directory knows.
    fn gone_ms(&self, device: DeviceId, now_ms: u64) -> Option<u64> {
        // Who is gone and was not found to be yet was there a moment ago.
        self.lock().get(&device).map(|noted| noted.gone_ms.unwrap_or(now_ms))
    }

    /// Takes a batch of what is to be written. It counts as written: what could not be is given [back](Self::give_back).
    fn take(&self, now_ms: u64, is_connected: impl Fn(DeviceId) -> bool) -> Vec<(DeviceId, u64)> {
        let due_ms = now_ms.saturating_sub(SEEN_EVERY.as_millis() as u64);
        let mut batch = Vec::new();
        self.lock().retain(|device, noted| {
            if batch.len() >= BATCH_MAX {
                return true;
            }
            if !is_connected(*device) {
                batch.push((*device, noted.gone_ms.unwrap_or(now_ms)));
                return false;
            }
            if noted.written_ms <= due_ms {
                noted.written_ms = now_ms;
                batch.push((*device, now_ms));
            }
            true
        });
        batch
    }

    fn give_back(&self, batch: Vec<(DeviceId, u64)>) {
        let mut devices = self.lock();
        for (device, seen_ms) in batch {
            if let Some(noted) = devices.get_mut(&device) {
                noted.written_ms = 0;
            } else if devices.len() < NOTED_MAX {
                devices.insert(device, Noted { gone_ms: Some(seen_ms), written_ms: 0 });
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<DeviceId, Noted>> {
        // The map is whole between two operations, so a panic elsewhere does not spoil it.
        self.devices.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Gateway {
    /// Returns when a device was last seen: what the directory has recorded, or what it has yet to be told.
    pub fn last_seen_ms(&self, device: DeviceId, recorded_ms: u64) -> u64 {
        let now_ms = self.now_ms();
        let is_connected = self.delivery.is_bound(device);
        let seen_ms = if is_connected { Some(now_ms) } else { self.seen.gone_ms(device, now_ms) };
        seen_ms.map_or(recorded_ms, |seen_ms| seen_ms.max(recorded_ms))
    }

    /// Writes down now and then when devices were last seen, until it is cancelled. What the last connections leave is for
    /// [`record_seen`](Self::record_seen) once they are gone.
    pub async fn record_seen_until(&self, cancelled: CancellationToken) {
        loop {
            tokio::select! {
                () = tokio::time::sleep(LOOK_EVERY) => self.record_seen().await,
                () = cancelled.cancelled() => return,
            }
        }
    }

    /// Writes down when devices were last seen, as far as that is due. Gives up when the directory cannot take it now.
    pub async fn record_seen(&self) {
        loop {
            let batch = self.seen.take(self.now_ms(), |device| self.delivery.is_bound(device));
            if batch.is_empty() {
                return;
            }
            if let Err(error) = self.reads.record_seen(batch.clone()).await {
                tracing::info!(%error, devices = batch.len(), "when devices were last seen was not recorded");
                return self.seen.give_back(batch);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW_MS: u64 = 1_720_000_000_000;
    const MINUTE_MS: u64 = SEEN_EVERY.as_millis() as u64;

    fn device(number: u128) -> DeviceId {
        DeviceId(number.to_be_bytes())
    }

    fn all(_: DeviceId) -> bool {
        true
    }

    fn none(_: DeviceId) -> bool {
        false
    }

    #[test]
    fn a_connected_device_is_written_once_a_minute_and_when_it_is_gone() {
        let seen = Seen::default();
        seen.note(device(1));
        assert_eq!(seen.take(NOW_MS, all), [(device(1), NOW_MS)]);
        assert_eq!(seen.take(NOW_MS + MINUTE_MS - 1, all), []);
        seen.note(device(1));
        assert_eq!(seen.take(NOW_MS + MINUTE_MS - 1, all), [], "another connection is nothing new");
        assert_eq!(seen.take(NOW_MS + MINUTE_MS, all), [(device(1), NOW_MS + MINUTE_MS)]);
        assert_eq!(seen.take(NOW_MS + MINUTE_MS + 4, none), [(device(1), NOW_MS + MINUTE_MS + 4)]);
        assert_eq!(seen.take(NOW_MS + 9 * MINUTE_MS, none), []);
        assert!(seen.lock().is_empty());
    }

    #[test]
    fn who_went_before_it_could_be_written_was_seen_when_it_went() {
        let seen = Seen::default();
        assert_eq!(seen.gone_ms(device(1), NOW_MS), None, "the directory knows");
        seen.note(device(1));
        assert_eq!(seen.gone_ms(device(1), NOW_MS), Some(NOW_MS));
        let batch = seen.take(NOW_MS, none);
        seen.give_back(batch);
        assert_eq!(seen.gone_ms(device(1), NOW_MS + 7), Some(NOW_MS));
        assert_eq!(seen.take(NOW_MS + 8, none), [(device(1), NOW_MS)]);
        assert_eq!(seen.gone_ms(device(1), NOW_MS + 9), None);
    }

    #[test]
    fn what_could_not_be_written_is_taken_again_also_from_who_came_back() {
        let seen = Seen::default();
        seen.note(device(1));
        seen.note(device(2));
        let batch = seen.take(NOW_MS, |number| number == device(1));
        seen.give_back(batch);
        seen.note(device(2));
        let mut again = seen.take(NOW_MS + 5, all);
        again.sort_unstable();
        assert_eq!(again, [(device(1), NOW_MS + 5), (device(2), NOW_MS + 5)]);
    }

    #[test]
    fn batches_and_notes_are_bounded() {
        let seen = Seen::default();
        for number in 0..NOTED_MAX as u128 + 10 {
            seen.note(device(number));
        }
        seen.give_back(vec![(device(u128::MAX), NOW_MS)]);
        assert_eq!(seen.lock().len(), NOTED_MAX);
        let mut written = 0;
        loop {
            let batch = seen.take(NOW_MS, all);
            assert!(batch.len() <= BATCH_MAX);
            written += batch.len();
            // The rest of so many would only take the test's time.
            if batch.is_empty() || written > 3 * BATCH_MAX {
                break;
            }
        }
        assert_eq!(written, 4 * BATCH_MAX);
    }
}

//! What the daemon remembers of TLS sessions, so that a client that was here before may speak in its first packets.
//!
//! A ticket is a name and no more: the keys lie here, in memory, and are taken out when the ticket is used. So a ticket is good
//! once. Whoever records a first flight and sends it again finds the ticket gone, and what it carries cannot even be decrypted; after a restart
//! all tickets are gone.
//!
//! Invariant: at most [`TICKETS_MAX`] are remembered; the oldest makes room.

use std::sync::Arc;

use rustls::server::{ServerSessionMemoryCache, StoresServerSessions};

use crate::ops::metrics::{EarlyDataLabel, Metrics};

/// Most tickets that are remembered, of some 400 bytes each. A connection is given two, so this is for 32,768 devices; whose
/// ticket had to make room needs one round trip more.
const TICKETS_MAX: usize = 65_536;

/// The tickets that are good.
#[derive(Debug)]
pub(super) struct Tickets {
    remembered: Arc<ServerSessionMemoryCache>,
    metrics: Arc<Metrics>,
}

impl Tickets {
    pub(super) fn new(metrics: Arc<Metrics>) -> Self {
        Self { remembered: ServerSessionMemoryCache::new(TICKETS_MAX), metrics }
    }
}

impl StoresServerSessions for Tickets {
    fn put(&self, key: Vec<u8>, value: Vec<u8>) -> bool {
        self.remembered.put(key, value)
    }

    fn get(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.remembered.get(key)
    }

    fn take(&self, key: &[u8]) -> Option<Vec<u8>> {
        let taken = self.remembered.take(key);
        if taken.is_none() {
            // What comes with it is not understood; the client says it again after the handshake.
            self.metrics.early_data.get_or_create(&EarlyDataLabel { result: "rejected" }).inc();
        }
        taken
    }

    fn can_cache(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ticket_is_good_once_and_the_oldest_makes_room() {
        let metrics = Arc::new(Metrics::new());
        let rejected = || metrics.early_data.get_or_create(&EarlyDataLabel { result: "rejected" }).get();
        let tickets = Tickets::new(metrics.clone());
        let name = |number: usize| number.to_be_bytes().to_vec();
        for number in 0..=TICKETS_MAX {
            assert!(tickets.put(name(number), vec![1]));
        }
        assert_eq!(tickets.take(&name(1)), Some(vec![1]));
        assert_eq!(rejected(), 0);
        assert_eq!(tickets.take(&name(1)), None);
        assert_eq!(tickets.take(&name(0)), None, "it had to make room");
        assert_eq!(rejected(), 2);
    }
}

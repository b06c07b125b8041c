//! Where the peer of a connection is, for what is counted by address.
//!
//! A connection may move to another address (RFC 9000, section 9): a telephone changes networks, a router forgets a port. QUIC
//! takes the new address with the first packet from there and only then asks whether the peer receives at it; if no answer comes it
//! goes back. A peer can write any address on a packet, so until the question must have been answered the tries of this connection
//! are counted where they were counted before: nobody uses up the rate of an address that is not theirs, and nobody gets a fresh
//! rate by moving.
//!
//! Invariant: an address counts after the connection has stood there for [`SETTLED_AFTER`].

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::time::Instant;

use crate::gateway::Prefix;
use crate::ops::metrics::Metrics;

/// How long a connection stands at an address before it counts. QUIC asks for three probe timeouts whether the peer receives
/// there, about three seconds where the round trip is not known yet, and goes back if it does not.
const SETTLED_AFTER: Duration = Duration::from_secs(10);

/// Where a peer is, and where it counts.
pub(super) struct Whereabouts {
    counted: IpAddr,
    now: SocketAddr,
    since: Instant,
}

impl Whereabouts {
    /// Begins with the address of the handshake.
    pub(super) fn new(address: SocketAddr, now: Instant) -> Self {
        Self { counted: address.ip(), now: address, since: now }
    }

    /// Takes note of where the peer is, and counts a move.
    pub(super) fn look(&mut self, quic: &quinn::Connection, metrics: &Metrics) {
        if self.moved(quic.remote_address(), Instant::now()) {
            metrics.migrations.inc();
        }
    }

    /// Returns what the tries of the peer are counted for.
    pub(super) fn prefix(&mut self, quic: &quinn::Connection, metrics: &Metrics) -> Prefix {
        self.look(quic, metrics);
        Prefix::of(self.counted_at(Instant::now()))
    }

    /// Returns whether the address is another one than before.
    fn moved(&mut self, address: SocketAddr, now: Instant) -> bool {
        if address == self.now {
            return false;
        }
        // Another port of the same address is no news for what is counted by address.
        if address.ip() != self.now.ip() {
            self.counted = self.counted_at(now);
            self.since = now;
        }
        self.now = address;
        true
    }

    fn counted_at(&self, now: Instant) -> IpAddr {
        if now.duration_since(self.since) >= SETTLED_AFTER { self.now.ip() } else { self.counted }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(address: &str) -> SocketAddr {
        address.parse().unwrap()
    }

    #[test]
    fn a_new_address_counts_when_the_connection_has_stood_there_for_a_while() {
        let began = Instant::now();
        let mut peer = Whereabouts::new(at("192.0.2.1:5"), began);
        let (home, away) = (at("192.0.2.1:5").ip(), at("198.51.100.9:5").ip());
        assert_eq!(peer.counted_at(began), home);
        let moved = began + SETTLED_AFTER * 6;
        assert!(peer.moved(at("198.51.100.9:5"), moved));
        assert!(!peer.moved(at("198.51.100.9:5"), moved));
        assert_eq!(peer.counted_at(moved), home);
        assert_eq!(peer.counted_at(moved + SETTLED_AFTER), away);
    }

    #[test]
    fn who_goes_from_address_to_address_is_counted_where_it_was() {
        let began = Instant::now();
        let mut peer = Whereabouts::new(at("192.0.2.1:5"), began);
        for step in 1..100 {
            let now = began + SETTLED_AFTER / 2 * step;
            assert!(peer.moved(at(&format!("198.51.100.{step}:5")), now));
            assert_eq!(peer.counted_at(now), at("192.0.2.1:5").ip());
        }
    }

    #[test]
    fn another_port_of_the_same_address_is_a_move_and_changes_nothing() {
        let began = Instant::now();
        let mut peer = Whereabouts::new(at("192.0.2.1:5"), began);
        assert!(peer.moved(at("192.0.2.1:6"), began));
        assert_eq!(peer.counted_at(began), at("192.0.2.1:5").ip());
    }
}

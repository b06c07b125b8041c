//! TLS tickets of one server: what lets a later connection speak in its first packets.
//!
//! A ticket is good once and only for the server that gave it, under the same check of who it is. So they are kept for each
//! client on its own, in memory, and only connections that mean to send early data take one: every connection collects, few spend.
//!
//! Invariant: at most [`TICKETS_MAX`]; the oldest makes room, because the server forgets the oldest first too.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustls::NamedGroup;
use rustls::client::{ClientSessionStore, Tls12ClientSessionValue, Tls13ClientSessionValue};
use rustls::pki_types::ServerName;

/// Most tickets that are kept: a server gives two per connection.
const TICKETS_MAX: usize = 4;

/// The tickets of one server.
#[derive(Debug, Default)]
pub(super) struct Tickets {
    kept: Mutex<VecDeque<Tls13ClientSessionValue>>,
    key_exchange: Mutex<Option<NamedGroup>>,
}

impl Tickets {
    /// Returns whether there is one to spend.
    pub(super) fn any(&self) -> bool {
        !self.lock().is_empty()
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Tls13ClientSessionValue>> {
        // The list is whole between two operations, so a panic elsewhere does not spoil it.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The tickets as a connection sees them.
#[derive(Debug)]
pub(super) struct TicketStore {
    pub(super) tickets: Arc<Tickets>,
    /// Whether this connection may take one.
    pub(super) spends: bool,
}

impl ClientSessionStore for TicketStore {
    fn set_kx_hint(&self, _: ServerName<'static>, group: NamedGroup) {
        *self.tickets.key_exchange.lock().unwrap_or_else(PoisonError::into_inner) = Some(group);
    }

    fn kx_hint(&self, _: &ServerName<'_>) -> Option<NamedGroup> {
        *self.tickets.key_exchange.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set_tls12_session(&self, _: ServerName<'static>, _: Tls12ClientSessionValue) {}

    fn tls12_session(&self, _: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        None
    }

    fn remove_tls12_session(&self, _: &ServerName<'static>) {}

    fn insert_tls13_ticket(&self, _: ServerName<'static>, ticket: Tls13ClientSessionValue) {
        let mut kept = self.tickets.lock();
        if kept.len() >= TICKETS_MAX {
            kept.pop_front();
        }
        kept.push_back(ticket);
    }

    fn take_tls13_ticket(&self, _: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        if self.spends { self.tickets.lock().pop_back() } else { None }
    }
}

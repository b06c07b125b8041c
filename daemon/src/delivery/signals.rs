//! Signals that wait for a connection to write them.
//!
//! They do not lie in the mailbox, whose overflow ends the connection: a signal is dropped instead.
//!
//! Invariants: of one device and kind only the newest waits; at most [`SIGNALS_WAITING_MAX`] do, and the oldest makes room.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use quail_core::SignalOut;
use tokio::sync::Notify;

/// Most signals that wait for one connection.
pub const SIGNALS_WAITING_MAX: usize = 64;

/// The signals that wait for one connection.
#[derive(Default)]
pub struct SignalBox {
    waiting: Mutex<VecDeque<SignalOut>>,
    due: Notify,
}

impl SignalBox {
    /// Takes a signal and returns whether another one was dropped for it. One that is older than what waits is dropped itself,
    /// which nobody misses.
    pub(super) fn push(&self, signal: SignalOut) -> bool {
        let mut waiting = self.lock();
        if let Some(other) = waiting.iter_mut().find(|other| is_same(other, &signal)) {
            if other.signal.counter < signal.signal.counter || other.feed != signal.feed {
                *other = signal;
            }
            return false;
        }
        let is_full = waiting.len() >= SIGNALS_WAITING_MAX;
        if is_full {
            waiting.pop_front();
        }
        waiting.push_back(signal);
        drop(waiting);
        self.due.notify_one();
        is_full
    }

    /// Waits until there may be something to take. Cancel safe.
    pub async fn due(&self) {
        self.due.notified().await;
    }

    /// Takes all that wait, the oldest first.
    pub fn take(&self) -> VecDeque<SignalOut> {
        std::mem::take(&mut *self.lock())
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<SignalOut>> {
        // No change under this lock is left half done.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether two are of one device and kind.
fn is_same(one: &SignalOut, other: &SignalOut) -> bool {
    let kind = |signal: &SignalOut| signal.signal.body.as_ref().map(std::mem::discriminant);
    one.from == other.from && kind(one) == kind(other)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use quail_core::{ConnectionId, FeedId};
    use quail_protocol::id::DeviceId;
    use quail_protocol::v1;

    use super::*;

    fn signal(from: u8, counter: u64) -> SignalOut {
        let body = Some(v1::signal::Body::Typing(v1::Typing { state: 1 }));
        let signal = v1::Signal { counter, body, ..Default::default() };
        let feed = FeedId { connection: ConnectionId(1), number: 1 };
        SignalOut { feed, from: DeviceId([from; 16]), signal: Arc::new(signal) }
    }

    #[test]
    fn only_the_newest_of_a_device_waits() {
        let waiting = SignalBox::default();
        for (from, counter) in [(1, 5), (2, 1), (1, 7), (1, 6)] {
            assert!(!waiting.push(signal(from, counter)));
        }
        let taken: Vec<_> = waiting.take().iter().map(|out| (out.from.0[0], out.signal.counter)).collect();
        assert_eq!(taken, [(1, 7), (2, 1)]);
        assert!(waiting.take().is_empty());
    }

    #[test]
    fn the_oldest_makes_room() {
        let waiting = SignalBox::default();
        let dropped = (0..=SIGNALS_WAITING_MAX as u8).filter(|from| waiting.push(signal(*from, 1))).count();
        assert_eq!(dropped, 1);
        let taken = waiting.take();
        assert_eq!((taken.len(), taken[0].from.0[0]), (SIGNALS_WAITING_MAX, 1));
    }
}

//! Mailboxes: what a connection has to write, one push per turn of the sequencer.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use quail_core::ConnectionId;
use quail_protocol::limits::{FEED_WINDOW_EVENTS, SENDS_UNANSWERED_MAX};

use super::{Delivery, Down, SignalBox};

/// Most pushes a mailbox holds. Each carries at least one answer, event, or word on a stall, and the windows bound those: the
/// events of a window are written once and acknowledged once. The rest is for gaps, ends and closes.
pub const MAILBOX_PUSHES_MAX: usize = SENDS_UNANSWERED_MAX + 2 * FEED_WINDOW_EVENTS + 64;

/// For how many pushes an empty mailbox keeps room.
const PUSHES_KEPT: usize = 16;

/// What both ends share. A connection that waits has nothing in it, so it takes no memory before the first push.
#[derive(Default)]
struct Pushes {
    waiting: VecDeque<Vec<Down>>,
    /// Set by the first push without room, for good.
    overflowed: bool,
    /// Whom to wake with the next push.
    reader: Option<Waker>,
}

impl Pushes {
    /// Takes the next push, unless the mailbox overflowed.
    fn take(&mut self) -> Option<Vec<Down>> {
        let push = self.waiting.pop_front().filter(|_| !self.overflowed);
        if self.waiting.is_empty() && self.waiting.capacity() > PUSHES_KEPT {
            self.waiting = VecDeque::new();
        }
        push
    }
}

pub(super) struct Sender {
    pushes: Arc<Mutex<Pushes>>,
}

impl Sender {
    /// Returns whether there was room. After the first push without room the mailbox is closed for good.
    pub(super) fn push(&self, downs: Vec<Down>) -> bool {
        let mut pushes = lock(&self.pushes);
        if pushes.overflowed {
            return true;
        }
        if pushes.waiting.len() >= MAILBOX_PUSHES_MAX {
            // The owner has a full mailbox to empty, so it comes by and sees this without being woken.
            pushes.overflowed = true;
            return false;
        }
        pushes.waiting.push_back(downs);
        let reader = pushes.reader.take();
        drop(pushes);
        if let Some(reader) = reader {
            reader.wake();
        }
        true
    }
}

/// A connection's end of its mailbox.
pub struct Mailbox {
    connection: ConnectionId,
    delivery: Arc<Delivery>,
    pushes: Arc<Mutex<Pushes>>,
    signals: Arc<SignalBox>,
}

impl Mailbox {
    /// Returns where signals for the connection wait.
    pub fn signals(&self) -> Arc<SignalBox> {
        self.signals.clone()
    }

    /// Returns the next push, or `None` when the mailbox overflowed and the connection must end. Cancel safe.
    pub async fn receive(&mut self) -> Option<Vec<Down>> {
        poll_fn(|context| self.poll_receive(context)).await
    }

    fn poll_receive(&self, context: &Context<'_>) -> Poll<Option<Vec<Down>>> {
        let mut pushes = lock(&self.pushes);
        if pushes.overflowed {
            return Poll::Ready(None);
        }
        if let Some(push) = pushes.take() {
            return Poll::Ready(Some(push));
        }
        if !pushes.reader.as_ref().is_some_and(|reader| reader.will_wake(context.waker())) {
            pushes.reader = Some(context.waker().clone());
        }
        Poll::Pending
    }

    /// Returns another push if one is there already.
    pub fn try_receive(&mut self) -> Option<Vec<Down>> {
        lock(&self.pushes).take()
    }
}

impl Drop for Mailbox {
    fn drop(&mut self) {
        self.delivery.close(self.connection);
    }
}

pub(super) fn open(connection: ConnectionId, delivery: Arc<Delivery>) -> (Sender, Mailbox) {
    let pushes: Arc<Mutex<Pushes>> = Arc::default();
    (Sender { pushes: pushes.clone() }, Mailbox { connection, delivery, pushes, signals: Arc::default() })
}

fn lock(pushes: &Mutex<Pushes>) -> MutexGuard<'_, Pushes> {
    // No change under this lock is left half done.
    pushes.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn push(number: u64) -> Vec<Down> {
        vec![Down::Refused { number, error: quail_protocol::v1::Reason::Limit.error() }]
    }

    #[tokio::test]
    async fn who_waits_is_woken_by_a_push_and_gets_all_in_order() {
        let delivery = Arc::new(Delivery::default());
        let (sender, mut mailbox) = open(ConnectionId(1), delivery);
        let (received, ()) = tokio::join!(mailbox.receive(), async {
            for number in 1..4 {
                assert!(sender.push(push(number)));
            }
        });
        assert_eq!(received, Some(push(1)));
        assert_eq!(mailbox.receive().await, Some(push(2)));
        assert_eq!((mailbox.try_receive(), mailbox.try_receive()), (Some(push(3)), None));
    }

    #[tokio::test]
    async fn an_empty_mailbox_gives_back_what_a_burst_took() {
        let (sender, mut mailbox) = open(ConnectionId(1), Arc::new(Delivery::default()));
        for number in 0..MAILBOX_PUSHES_MAX as u64 {
            assert!(sender.push(push(number)));
        }
        assert!(lock(&mailbox.pushes).waiting.capacity() >= MAILBOX_PUSHES_MAX);
        while mailbox.try_receive().is_some() {}
        assert_eq!(lock(&mailbox.pushes).waiting.capacity(), 0);
        assert!(!lock(&mailbox.pushes).overflowed);
    }
}

//! Mailboxes: what a connection has to write, one push per turn of the sequencer.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use quail_core::ConnectionId;
use quail_protocol::limits::{FEED_WINDOW_EVENTS, SENDS_UNANSWERED_MAX};
use tokio::sync::mpsc;

use super::{Delivery, Down, SignalBox};

/// Most pushes a mailbox holds. Each carries at least one answer, event, or word on a stall, and the windows bound those: the
/// events of a window are written once and acknowledged once. The rest is for gaps, ends and closes.
pub const MAILBOX_PUSHES_MAX: usize = SENDS_UNANSWERED_MAX + 2 * FEED_WINDOW_EVENTS + 64;

pub(super) struct Sender {
    pushes: mpsc::Sender<Vec<Down>>,
    overflow: Arc<AtomicBool>,
}

impl Sender {
    /// Returns whether there was room. After the first push without room the mailbox is closed for good.
    pub(super) fn push(&self, downs: Vec<Down>) -> bool {
        if self.overflow.load(Ordering::Relaxed) {
            return true;
        }
        let has_room = !matches!(self.pushes.try_send(downs), Err(mpsc::error::TrySendError::Full(_)));
        // The owner has a full mailbox to empty, so it comes by and sees this without being woken.
        self.overflow.store(!has_room, Ordering::Release);
        has_room
    }
}

/// A connection's end of its mailbox.
pub struct Mailbox {
    connection: ConnectionId,
    delivery: Arc<Delivery>,
    pushes: mpsc::Receiver<Vec<Down>>,
    overflow: Arc<AtomicBool>,
    signals: Arc<SignalBox>,
}

impl Mailbox {
    /// Returns where signals for the connection wait.
    pub fn signals(&self) -> Arc<SignalBox> {
        self.signals.clone()
    }

    /// Returns the next push, or `None` when the mailbox overflowed and the connection must end. Cancel safe.
    pub async fn receive(&mut self) -> Option<Vec<Down>> {
        if self.overflow.load(Ordering::Acquire) {
            return None;
        }
        let downs = self.pushes.recv().await;
        downs.filter(|_| !self.overflow.load(Ordering::Acquire))
    }

    /// Returns another push if one is there already.
    pub fn try_receive(&mut self) -> Option<Vec<Down>> {
        self.pushes.try_recv().ok()
    }
}

impl Drop for Mailbox {
    fn drop(&mut self) {
        self.delivery.close(self.connection);
    }
}

pub(super) fn open(connection: ConnectionId, delivery: Arc<Delivery>) -> (Sender, Mailbox) {
    let (sender, pushes) = mpsc::channel(MAILBOX_PUSHES_MAX);
    let overflow = Arc::new(AtomicBool::new(false));
    (
        Sender { pushes: sender, overflow: overflow.clone() },
        Mailbox { connection, delivery, pushes, overflow, signals: Arc::default() },
    )
}

//! Mailboxes: what a connection has to write, one push per turn of the sequencer.

use std::sync::Arc;

use quail_core::ConnectionId;
use quail_protocol::limits::{FEED_WINDOW_EVENTS, SENDS_UNANSWERED_MAX};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{Delivery, Down, SignalBox};

/// Most pushes a mailbox holds. Each carries at least one answer, event, or word on a stall, and the windows bound those: the
/// events of a window are written once and acknowledged once. The rest is for gaps, ends and closes.
pub const MAILBOX_PUSHES_MAX: usize = SENDS_UNANSWERED_MAX + 2 * FEED_WINDOW_EVENTS + 64;

pub(super) struct Sender {
    pushes: mpsc::Sender<Vec<Down>>,
    overflow: CancellationToken,
}

impl Sender {
    /// Returns whether there was room. After the first push without room the mailbox is closed for good.
    pub(super) fn push(&self, downs: Vec<Down>) -> bool {
        if self.overflow.is_cancelled() {
            return true;
        }
        let has_room = !matches!(self.pushes.try_send(downs), Err(mpsc::error::TrySendError::Full(_)));
        if !has_room {
            self.overflow.cancel();
        }
        has_room
    }
}

/// A connection's end of its mailbox.
pub struct Mailbox {
    connection: ConnectionId,
    delivery: Arc<Delivery>,
    pushes: mpsc::Receiver<Vec<Down>>,
    overflow: CancellationToken,
    signals: Arc<SignalBox>,
}

impl Mailbox {
    /// Returns where signals for the connection wait.
    pub fn signals(&self) -> Arc<SignalBox> {
        self.signals.clone()
    }

    /// Returns the next push, or `None` when the mailbox overflowed and the connection must end. Cancel safe.
    pub async fn receive(&mut self) -> Option<Vec<Down>> {
        tokio::select! {
            biased;
            () = self.overflow.cancelled() => None,
            downs = self.pushes.recv() => downs,
        }
    }
}

impl Drop for Mailbox {
    fn drop(&mut self) {
        self.delivery.close(self.connection);
    }
}

pub(super) fn open(connection: ConnectionId, delivery: Arc<Delivery>) -> (Sender, Mailbox) {
    let (sender, pushes) = mpsc::channel(MAILBOX_PUSHES_MAX);
    let overflow = CancellationToken::new();
    (
        Sender { pushes: sender, overflow: overflow.clone() },
        Mailbox { connection, delivery, pushes, overflow, signals: Arc::default() },
    )
}

//! Reads of backlogs, on a thread of their own, so that neither the sequencer nor the runtime waits for a disk.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use quail_core::ports::outbox::{BacklogReader, Stretch};
use quail_core::{Command, FeedId};
use quail_protocol::id::{AccountId, DeviceId};
use quail_protocol::v1::Reason;

use super::{Delivery, Down};

/// A stretch of an outbox that a feed needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadRequest {
    /// The feed lane it is for.
    pub feed: FeedId,
    /// The account.
    pub account: AccountId,
    /// The device.
    pub device: DeviceId,
    /// Which events.
    pub stretch: Stretch,
}

/// The queue of reads. The core asks for one read per feed at a time, so it is never longer than there are feeds.
#[derive(Clone, Default)]
pub struct Reads {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    queue: Mutex<(VecDeque<ReadRequest>, bool)>,
    changed: Condvar,
}

impl Reads {
    /// Queues a read.
    pub fn push(&self, request: ReadRequest) {
        self.with(|(queue, _)| queue.push_back(request));
    }

    /// Returns how many reads wait.
    pub(super) fn len(&self) -> usize {
        self.shared.queue.lock().unwrap_or_else(PoisonError::into_inner).0.len()
    }

    /// Ends the thread that serves the queue; what waits is dropped, its feeds are gone.
    pub fn stop(&self) {
        self.with(|(queue, stopped)| {
            queue.clear();
            *stopped = true;
        });
    }

    fn with(&self, change: impl FnOnce(&mut (VecDeque<ReadRequest>, bool))) {
        change(&mut self.shared.queue.lock().unwrap_or_else(PoisonError::into_inner));
        self.shared.changed.notify_one();
    }

    fn next(&self) -> Option<ReadRequest> {
        let mut guard = self.shared.queue.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if guard.1 {
                return None;
            }
            if let Some(request) = guard.0.pop_front() {
                return Some(request);
            }
            guard = self.shared.changed.wait(guard).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// Gives a command back to who decides, and returns whether anybody still does.
pub type HandBack = Box<dyn Fn(Command) -> bool + Send>;

/// What serves the queue.
pub struct BacklogThread {
    /// The queue.
    pub reads: Reads,
    /// Where events are read.
    pub reader: Arc<dyn BacklogReader>,
    /// Where they go; waits for room there.
    pub hand_back: HandBack,
    /// Where a connection is closed whose outbox cannot be read.
    pub delivery: Arc<Delivery>,
}

impl BacklogThread {
    /// Serves reads until [`Reads::stop`] or the end of the sequencer. Runs on a thread of its own.
    pub fn run(self) {
        while let Some(request) = self.reads.next() {
            let ReadRequest { feed, account, device, stretch } = request;
            match self.reader.read(account, stretch) {
                Ok(events) => {
                    let backlog = Command::Backlog { feed, account, device, events };
                    if !(self.hand_back)(backlog) {
                        return;
                    }
                }
                Err(error) => {
                    // The device comes back and asks again; the event that cannot be read is named for the operator.
                    tracing::error!(%account, after = %stretch.after, %error, "cannot read a backlog");
                    self.delivery
                        .push([(feed.connection, vec![Down::Close(Reason::Internal)])].into_iter().collect());
                }
            }
        }
    }
}

//! The sending half of a client: what stands between [`Client::send`](crate::Client::send), the store and the publish lane.
//!
//! ```text
//! send ──> queue ──> pending changes ──commit──> store      (many sends, answers and tries share one commit)
//!                                        │
//!                     lane <── fill ─────┴── what is committed as tried
//!                     lane ── answers ──> queue ──> pending changes
//! ```
//!
//! The decisions are in [`queue`] and [`verdict`]; here is the waiting. Commits are made one at a time: by the driver where
//! the store may block, else at once.
//!
//! Invariants: the lock is never held across an await; room that was taken is given back exactly when its send leaves
//! the queue; numbers are given out under the lock under which the queue and the pending changes grow, so all three are in
//! their order; what was taken out of the pending changes is committed, or the client ends.

mod answers;
pub(crate) mod changes;
mod commit;
pub(crate) mod queue;
pub(crate) mod verdict;
mod wire;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use quail_protocol::id::{MessageId, Stamp};
use tokio::sync::{Notify, Semaphore, watch};

use crate::error::Refusal;
use crate::ids::IdMap;
use crate::sending::Ticket;
use crate::store::{Owner, PublishChange, QueuedSend, RefusedSend, Store};
use crate::{Accepted, Error, SendError};
pub(crate) use answers::{Answer, Answered, Decided};
pub(crate) use queue::Outgoing as Sent;
use queue::{Filled, Next, Outgoing, Queue, Queued};

/// Most messages without an answer that a client holds. [`Client::send`](crate::Client::send) waits for room.
pub const QUEUED_MESSAGES_MAX: usize = 4096;

/// Most bytes of messages without an answer that a client holds.
pub const QUEUED_BYTES_MAX: usize = 32 * 1024 * 1024;

/// What a message costs besides its body.
const ENTRY_BYTES: usize = 256;

/// One budget keeps both limits: no message is charged less than its share of the bytes.
const CHARGE_MIN: usize = QUEUED_BYTES_MAX / QUEUED_MESSAGES_MAX;

type Waiter = Weak<Ticket>;

/// The sending half.
pub(crate) struct Publish {
    store: Arc<dyn Store>,
    owner: Owner,
    inner: Mutex<Inner>,
    /// Bytes of room; see [`CHARGE_MIN`].
    room: Semaphore,
    /// Held while the store is read for the first time.
    loading: tokio::sync::Mutex<()>,
    /// Something can be written.
    wake: Notify,
    /// Something can be committed.
    commit_due: Notify,
    /// Changes up to this one are committed.
    committed: watch::Sender<u64>,
    /// Every send up to this number is decided.
    decided_upto: watch::Sender<u64>,
}

#[derive(Debug)]
struct Inner {
    queue: Queue<Waiter>,
    loaded: bool,
    next_number: u64,
    seen: Stamp,
    /// A lane writes what is committed as tried.
    lane_open: bool,
    pending: Vec<PublishChange>,
    /// How many answers are among the pending changes.
    pending_answers: usize,
    /// Up to where the pending changes make sends count as tried that a lane did not ask for.
    pending_tried: Option<u64>,
    /// Counts changes, those that are committed included.
    changes: u64,
    answered: IdMap<MessageId, ([u8; 16], Accepted)>,
    /// Oldest first.
    answered_order: VecDeque<MessageId>,
    refused: VecDeque<RefusedSend>,
    closed: Option<Error>,
    /// Why a commit failed that was made at once.
    failed: Option<Error>,
}

impl Publish {
    pub(crate) fn new(store: Arc<dyn Store>, owner: Owner) -> Self {
        let inner = Inner {
            queue: Queue::new(),
            loaded: false,
            next_number: 1,
            seen: Stamp::default(),
            lane_open: false,
            pending: Vec::new(),
            pending_answers: 0,
            pending_tried: None,
            changes: 0,
            answered: IdMap::default(),
            answered_order: VecDeque::new(),
            refused: VecDeque::new(),
            closed: None,
            failed: None,
        };
        Self {
            store,
            owner,
            inner: Mutex::new(inner),
            room: Semaphore::new(QUEUED_BYTES_MAX),
            loading: tokio::sync::Mutex::new(()),
            wake: Notify::new(),
            commit_due: Notify::new(),
            committed: watch::Sender::new(0),
            decided_upto: watch::Sender::new(0),
        }
    }

    /// Queues a message as soon as there is room. Returns its number, its ticket, and what to wait for until it is
    /// committed ([`Publish::committed`]). One whose id is known already is not queued again.
    ///
    /// Dropping the future before it is done leaves nothing behind.
    pub(crate) async fn queue(
        &self,
        message: Outgoing,
        is_new: bool,
    ) -> Result<(u64, Arc<Ticket>, u64), Error> {
        self.load().await?;
        let charge = charge(message.len()) as u32;
        let room = match self.room.try_acquire_many(charge) {
            Ok(room) => room,
            Err(_) => {
                // One that is known needs no room.
                if !is_new && let Some(known) = self.lock().known(&message)? {
                    return Ok(known);
                }
                let Ok(room) = self.room.acquire_many(charge).await else {
                    return Err(self.lock().closed.clone().unwrap_or(Error::Closed));
                };
                room
            }
        };
        let ticket = Arc::new(Ticket::default());
        let (number, change) = {
            let inner = &mut *self.lock();
            if let Some(error) = &inner.closed {
                return Err(error.clone());
            }
            // Somebody else may have sent it a moment ago. What was acquired is given back by being dropped.
            if !is_new && let Some(known) = inner.known(&message)? {
                return Ok(known);
            }
            let number = inner.take_number();
            let change = inner.change(PublishChange::Queued(message.to_stored(number)));
            inner.queue.push(number, message, Arc::downgrade(&ticket));
            self.changed(inner);
            (number, change)
        };
        // Given back when the send leaves the queue.
        room.forget();
        self.wake.notify_one();
        Ok((number, ticket, change))
    }

    /// A new lane writes from the front.
    pub(crate) fn lane_opened(&self) {
        let inner = &mut *self.lock();
        inner.queue.lane_opened();
        inner.lane_open = true;
        self.changed(inner);
    }

    /// No lane writes any more.
    pub(crate) fn lane_closed(&self) {
        self.lock().lane_open = false;
    }

    /// Takes over the server's limit of unanswered sends.
    pub(crate) fn limit_window(&self, sends: usize) {
        self.lock().queue.limit_window(sends);
    }

    /// Appends to `buffer` what may be written now.
    pub(crate) fn fill(&self, buffer: &mut BytesMut, bytes_max: usize, seen: u64) -> (Filled, Next) {
        self.lock().queue.fill(buffer, bytes_max, seen, Instant::now())
    }

    /// Waits until there may be something to write.
    pub(crate) async fn writable(&self) {
        self.wake.notified().await;
    }

    /// Takes in the answers that arrived together.
    pub(crate) fn answered(&self, answers: impl IntoIterator<Item = Answer>) -> Answered {
        let mut all = Answered { decided: Vec::new(), forget_seen: false, session_ended: None, fits: Ok(()) };
        let mut room = 0;
        let inner = &mut *self.lock();
        let fits = answers.into_iter().try_for_each(|answer| inner.answer(answer, &mut all, &mut room));
        all.fits = fits.map_err(|error| Error::protocol(error.to_string()));
        self.changed(inner);
        let wake = inner.queue.has_unwritten();
        self.room.add_permits(room);
        if wake {
            self.wake.notify_one();
        }
        all
    }

    /// Lets those go on who wait in [`Publish::flushed`]; to be called when everybody else knows what was decided.
    pub(crate) fn announce(&self) {
        let inner = self.lock();
        let last = inner.next_number.saturating_sub(1);
        let upto = inner.queue.first_number().map_or(last, |first| first - 1);
        drop(inner);
        self.decided_upto.send_if_modified(|decided| std::mem::replace(decided, upto) != upto);
    }

    /// Waits until every send that is queued now is decided.
    pub(crate) async fn flushed(&self) {
        let target = {
            let inner = self.lock();
            if inner.loaded { inner.next_number.saturating_sub(1) } else { 0 }
        };
        // The sender lives as long as `self`, so this cannot fail.
        let _ = self.decided_upto.subscribe().wait_for(|decided| *decided >= target).await;
    }

    /// Returns how many sends have no answer.
    pub(crate) fn unanswered(&self) -> usize {
        self.lock().queue.len()
    }

    /// Takes no more messages; those that are queued stay.
    pub(crate) fn close(&self, reason: Error) {
        self.lock().closed.get_or_insert(reason);
        self.room.close();
    }

    /// Takes no more messages and gives up waiting for those that are queued; they stay in the store.
    pub(crate) fn end(&self, reason: &Error) {
        self.close(reason.clone());
        let queued = self.lock().queue.drain();
        for ticket in queued.iter().filter_map(|queued| queued.waiter.upgrade()) {
            ticket.decide(Err(SendError::Stopped(reason.clone())));
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Nothing under this lock panics half way through a change; if it did, order checks would catch it.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// Finds a message that was sent before under the same id.
    fn known(&mut self, message: &Outgoing) -> Result<Option<(u64, Arc<Ticket>, u64)>, Error> {
        let changes = self.changes;
        // Only where one is known is there anything to compare.
        let is_same = |other: [u8; 16]| {
            if other == message.to_stored(0).digest() { Ok(()) } else { Err(Error::IdTaken(message.id)) }
        };
        if let Some(queued) = self.queue.find(message.id) {
            is_same(queued.message.to_stored(0).digest())?;
            return Ok(Some((queued.number, ticket_of(queued), changes)));
        }
        if let Some((known, accepted)) = self.answered.get(&message.id) {
            is_same(*known)?;
            return Ok(Some((0, Ticket::accepted_before(*accepted), changes)));
        }
        if let Some(refused) = self.refused.iter().find(|refused| refused.send.id == message.id) {
            is_same(refused.send.digest())?;
            let error = SendError::Refused(Refusal::from_store(refused));
            return Ok(Some((refused.send.number, Ticket::refused_before(error), changes)));
        }
        Ok(None)
    }

    fn take_number(&mut self) -> u64 {
        let number = self.next_number;
        self.next_number += 1;
        number
    }

    /// Notes a change to be committed and returns its count.
    fn change(&mut self, change: PublishChange) -> u64 {
        self.pending.push(change);
        self.changes += 1;
        self.changes
    }
}

impl Outgoing {
    fn to_stored(&self, number: u64) -> QueuedSend {
        let Self { id, recipient, kind, ref body, ref extra } = *self;
        QueuedSend { number, id, recipient, kind, body: Bytes::clone(body), extra: Bytes::clone(extra) }
    }

    fn from_stored(send: QueuedSend) -> Self {
        let QueuedSend { number: _, id, recipient, kind, body, extra } = send;
        Self { id, recipient, kind, body, extra }
    }
}

/// Returns the ticket of a queued message, and makes one if nobody holds it any more.
fn ticket_of(queued: &mut Queued<Waiter>) -> Arc<Ticket> {
    queued.waiter.upgrade().unwrap_or_else(|| {
        let ticket = Arc::new(Ticket::default());
        queued.waiter = Arc::downgrade(&ticket);
        ticket
    })
}

fn charge(body_len: usize) -> usize {
    (body_len + ENTRY_BYTES).max(CHARGE_MIN)
}

impl std::fmt::Debug for Publish {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Publish").field("unanswered", &self.unanswered()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;

//! The sending half of a client: what stands between [`Client::send`](crate::Client::send) and the publish lane.
//!
//! The application's tasks wait here for room and for numbers and leave their message in the queue; the lane takes
//! frames out and brings answers in. The decisions are in [`queue`] and [`numbers`]; here is the waiting.
//!
//! Invariants: the lock is never held across an await; room that was taken is given back exactly when its send leaves
//! the queue; numbers are given out under the same lock that appends to the queue, so the queue is in their order.

mod numbers;
pub(crate) mod queue;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Instant;

use bytes::BytesMut;
use quail_protocol::id::{AccountId, MessageId};
use tokio::sync::{Notify, Semaphore, watch};

use crate::backoff::chance;
use crate::error::Refusal;
use crate::sending::Ticket;
use crate::shared::blocking;
use crate::store::{PublishState, Store};
use crate::{Accepted, Body, Error, SendError};
use numbers::{NUMBERS_PER_BLOCK, Numbers};
use queue::{Filled, Next, OutOfOrder, Outgoing, Queue};

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
#[derive(Debug)]
pub(crate) struct Publish {
    inner: Mutex<Inner>,
    /// Bytes of room; see [`CHARGE_MIN`].
    room: Semaphore,
    /// Held while a block of numbers is reserved, so that one disk sync serves all who wait.
    reserving: tokio::sync::Mutex<()>,
    /// Something can be written.
    wake: Notify,
    /// Every send up to this number is decided.
    decided_upto: watch::Sender<u64>,
}

#[derive(Debug)]
struct Inner {
    queue: Queue<Waiter>,
    numbers: Numbers,
    last_number: u64,
    closed: Option<Error>,
}

/// An answer to a send, as the lane reads it.
#[derive(Debug)]
pub(crate) enum Answer {
    Accepted(u64, Accepted),
    /// For good.
    Refused(u64, SendError),
    ForNow(u64, Refusal),
}

/// A send that has left the queue, with its fate.
#[derive(Debug)]
pub(crate) struct Decided {
    pub(crate) ticket: Option<Arc<Ticket>>,
    pub(crate) recipient: AccountId,
    pub(crate) outcome: Result<Accepted, SendError>,
}

impl Publish {
    pub(crate) fn new() -> Self {
        let inner = Inner { queue: Queue::new(), numbers: Numbers::default(), last_number: 0, closed: None };
        Self {
            inner: Mutex::new(inner),
            room: Semaphore::new(QUEUED_BYTES_MAX),
            reserving: tokio::sync::Mutex::new(()),
            wake: Notify::new(),
            decided_upto: watch::Sender::new(0),
        }
    }

    /// Queues a message as soon as there is room and returns its number.
    ///
    /// Dropping the future before it is done leaves nothing behind.
    pub(crate) async fn send(
        &self,
        store: &Arc<dyn Store>,
        id: MessageId,
        recipient: AccountId,
        body: Body,
        ticket: &Arc<Ticket>,
    ) -> Result<u64, Error> {
        let (kind, body) = body.into_wire()?;
        let charge = charge(body.len());
        let message = Outgoing { id, recipient, kind, body };
        let Ok(room) = self.room.acquire_many(charge as u32).await else {
            return Err(self.lock().closed.clone().unwrap_or(Error::Closed));
        };
        let number = loop {
            {
                let inner = &mut *self.lock();
                if let Some(error) = &inner.closed {
                    return Err(error.clone());
                }
                if let Some(number) = inner.numbers.take() {
                    inner.queue.push(number, message, Arc::downgrade(ticket));
                    inner.last_number = number;
                    break number;
                }
            }
            self.reserve_numbers(store).await?;
        };
        // Given back when the send leaves the queue.
        room.forget();
        self.wake.notify_one();
        Ok(number)
    }

    async fn reserve_numbers(&self, store: &Arc<dyn Store>) -> Result<(), Error> {
        let _guard = self.reserving.lock().await;
        let numbers = self.lock().numbers;
        if !numbers.is_empty() {
            return Ok(());
        }
        let start = match numbers.end() {
            Some(end) => end,
            None => blocking(store, |store| store.load_publish()).await?.next_number.max(1),
        };
        let end = start.saturating_add(NUMBERS_PER_BLOCK);
        blocking(store, move |store| store.save_publish(PublishState { next_number: end })).await?;
        self.lock().numbers.add_block(start, end);
        Ok(())
    }

    /// A new lane writes from the front.
    pub(crate) fn lane_opened(&self) {
        self.lock().queue.lane_opened();
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

    /// Takes in the answers that arrived together. Returns the sends that they decide, and what is wrong with the first
    /// answer that does not fit; those behind it are not looked at.
    pub(crate) fn answered(
        &self,
        answers: impl IntoIterator<Item = Answer>,
    ) -> (Vec<Decided>, Result<(), Error>) {
        let mut all_decided = Vec::new();
        let mut room = 0;
        let mut inner = self.lock();
        let fits = answers.into_iter().try_for_each(|answer| {
            let (number, outcome) = match answer {
                Answer::Accepted(number, accepted) => (number, Ok(accepted)),
                Answer::Refused(number, error) => (number, Err(error)),
                Answer::ForNow(number, refusal) => {
                    let now = Instant::now();
                    return inner.queue.refused_for_now(number, refusal.retry_after, now, chance());
                }
            };
            let queued = inner.queue.decided(number)?;
            room += charge(queued.message.body.len());
            let (ticket, recipient) = (queued.waiter.upgrade(), queued.message.recipient);
            all_decided.push(Decided { ticket, recipient, outcome });
            Ok(())
        });
        let wake = inner.queue.has_unwritten();
        drop(inner);
        self.room.add_permits(room);
        if wake {
            self.wake.notify_one();
        }
        (all_decided, fits.map_err(|error: OutOfOrder| Error::protocol(error.to_string())))
    }

    /// Lets those go on who wait in [`Publish::flushed`]; to be called when everybody else knows what was decided.
    pub(crate) fn announce(&self) {
        let inner = self.lock();
        let upto = inner.queue.first_number().map_or(inner.last_number, |first| first - 1);
        drop(inner);
        self.decided_upto.send_if_modified(|decided| std::mem::replace(decided, upto) != upto);
    }

    /// Waits until every send that is queued now is decided.
    pub(crate) async fn flushed(&self) {
        let target = self.lock().last_number;
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

    /// Takes no more messages and gives up those that are queued.
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

fn charge(body_len: usize) -> usize {
    (body_len + ENTRY_BYTES).max(CHARGE_MIN)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::MemoryStore;

    fn publish() -> (Publish, Arc<dyn Store>, Arc<Ticket>) {
        (Publish::new(), Arc::new(MemoryStore::new()), Arc::new(Ticket::default()))
    }

    async fn send(
        publish: &Publish,
        store: &Arc<dyn Store>,
        ticket: &Arc<Ticket>,
        text: &str,
    ) -> Result<u64, Error> {
        publish.send(store, crate::new_message_id(), AccountId([1; 16]), text.into(), ticket).await
    }

    #[tokio::test]
    async fn numbers_are_saved_as_used_before_they_are() {
        let (publish, store, ticket) = publish();
        assert_eq!(send(&publish, &store, &ticket, "a").await, Ok(1));
        assert_eq!(send(&publish, &store, &ticket, "b").await, Ok(2));
        assert_eq!(store.load_publish().unwrap().next_number, 1 + NUMBERS_PER_BLOCK);
        let (publish, _, _) = self::publish();
        assert_eq!(send(&publish, &store, &ticket, "c").await, Ok(1 + NUMBERS_PER_BLOCK));
    }

    #[tokio::test]
    async fn a_full_queue_makes_senders_wait_until_an_answer_makes_room() {
        let (publish, store, ticket) = publish();
        for _ in 0..QUEUED_MESSAGES_MAX {
            send(&publish, &store, &ticket, "x").await.unwrap();
        }
        let next = send(&publish, &store, &ticket, "one too many");
        tokio::pin!(next);
        assert!(
            std::future::poll_fn(|context| std::task::Poll::Ready(next.as_mut().poll(context).is_pending()))
                .await
        );
        publish.fill(&mut BytesMut::new(), 100, 0);
        let refused = Answer::Refused(1, SendError::OutcomeUnknown);
        assert_eq!(publish.answered([refused]).0.len(), 1);
        assert_eq!(next.await, Ok(1 + QUEUED_MESSAGES_MAX as u64));
    }

    #[tokio::test]
    async fn answers_before_one_that_does_not_fit_still_count() {
        let (publish, store, ticket) = publish();
        send(&publish, &store, &ticket, "x").await.unwrap();
        publish.fill(&mut BytesMut::new(), 100, 0);
        let answer = |number| Answer::Refused(number, SendError::OutcomeUnknown);
        let (decided, fits) = publish.answered([answer(1), answer(7)]);
        assert_eq!(decided.len(), 1);
        assert!(matches!(fits, Err(Error::Protocol { .. })));
        assert_eq!((publish.unanswered(), publish.room.available_permits()), (0, QUEUED_BYTES_MAX));
        publish.announce();
        publish.flushed().await;
    }

    #[tokio::test]
    async fn the_end_reaches_those_who_wait_and_those_who_come() {
        let (publish, store, ticket) = publish();
        send(&publish, &store, &ticket, "x").await.unwrap();
        publish.end(&Error::LoggedOut);
        assert_eq!(ticket.accepted().await, Err(SendError::Stopped(Error::LoggedOut)));
        assert_eq!(send(&publish, &store, &ticket, "y").await, Err(Error::LoggedOut));
    }
}

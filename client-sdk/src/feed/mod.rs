//! The receiving half of a client: what stands between the feed lane and the application.
//!
//! The lane hands in what arrives; the application takes events and acknowledges them; the lane takes acknowledgements
//! and the driver commits changes, one commit at a time, or they are committed at once where the store does not block. The
//! decisions are in [`inbox`], [`hands`], [`shown`] and [`receipts`]; here is the waiting.
//!
//! Invariants: locks are never held across an await; an attach number is used, an event handed out, and a cursor
//! acknowledged only after it was committed; what was taken out of the pending changes is committed, or the client ends.

mod arriving;
mod commit;
pub(crate) mod hands;
pub(crate) mod inbox;
pub(crate) mod receipts;
mod shown;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::Instant;

use quail_protocol::id::{AccountId, Origin, Position, Stamp};
use quail_protocol::limits::FEED_WINDOW_EVENTS;
use tokio::sync::{Notify, mpsc, watch};

use crate::sending::{Progress, Ticket};
use crate::store::{Mark, Owner, Place, Store};
use crate::{Accepted, Delivery, Error, SendError};
use arriving::Arriving;
use inbox::{Arrival, Attaching, Inbox};
use receipts::{Receipts, Watch};

pub(crate) use hands::SUSPECT_FOR;
pub use receipts::TRACKED_MESSAGES_MAX;

/// What the feed is wanted for.
#[derive(Clone, Debug, Default)]
pub(crate) struct Wanted {
    /// Where events go, once somebody reads them.
    pub(crate) events: Option<mpsc::Sender<Delivery>>,
    /// Receipts are wanted also while nobody reads events.
    pub(crate) receipts: bool,
}

impl Wanted {
    /// Returns whether there is a reason to attach.
    pub(crate) fn anything(&self) -> bool {
        self.receipts || self.events.is_some()
    }
}

/// The receiving half.
pub(crate) struct Feed {
    store: Arc<dyn Store>,
    owner: Owner,
    inbox: Mutex<Inbox>,
    receipts: Mutex<Tracked>,
    wanted: watch::Sender<Wanted>,
    taken: AtomicBool,
    /// Whether the state was loaded; held while it is.
    loaded: tokio::sync::Mutex<bool>,
    ack_due: Notify,
    commit_due: Notify,
    /// Changes up to this one are committed.
    committed: watch::Sender<u64>,
    /// Why a commit failed that was made at once.
    failed: OnceLock<Error>,
}

#[derive(Debug)]
struct Tracked {
    delivered: Receipts<Weak<Ticket>>,
    read: Receipts<Weak<Ticket>>,
    ended: Option<Error>,
}

impl Feed {
    pub(crate) fn new(store: Arc<dyn Store>, owner: Owner) -> Self {
        Self {
            store,
            owner,
            inbox: Mutex::new(Inbox::default()),
            receipts: Mutex::new(Tracked { delivered: Receipts::new(), read: Receipts::new(), ended: None }),
            wanted: watch::Sender::new(Wanted::default()),
            taken: AtomicBool::new(false),
            loaded: tokio::sync::Mutex::new(false),
            ack_due: Notify::new(),
            commit_due: Notify::new(),
            committed: watch::Sender::new(0),
            failed: OnceLock::new(),
        }
    }

    // What the application does.

    /// Makes the client attach for events and returns where they come out. Works once.
    pub(crate) async fn take_events(&self) -> Result<mpsc::Receiver<Delivery>, Error> {
        self.load().await?;
        if self.taken.swap(true, Ordering::Relaxed) {
            return Err(Error::EventsTaken);
        }
        let (sender, receiver) = mpsc::channel(FEED_WINDOW_EVENTS);
        self.want(|wanted| wanted.events = Some(sender))?;
        Ok(receiver)
    }

    /// Makes the client attach for receipts.
    pub(crate) async fn watch_receipts(&self) -> Result<(), Error> {
        if self.wanted.borrow().receipts {
            return Ok(());
        }
        self.load().await?;
        self.want(|wanted| wanted.receipts = true)
    }

    /// The application is done with an event.
    pub(crate) fn acknowledge(&self, place: Place) {
        if self.inbox().acknowledge(place) {
            // Programs acknowledge one by one what they took together. Committed in the background, it is one commit.
            self.commit_due.notify_one();
        }
    }

    /// The application let go of an event.
    pub(crate) fn release(&self, place: Place) {
        let inbox = &mut *self.inbox();
        inbox.release(place);
        self.changed(inbox);
    }

    /// The application is about to be given an event that another process died with. Returns the change to wait for.
    pub(crate) fn take_in_hand(&self, place: Place) -> u64 {
        let inbox = &mut *self.inbox();
        let change = inbox.take_in_hand(place, Instant::now());
        self.changed(inbox);
        change
    }

    /// Returns whether a change is committed.
    pub(crate) fn is_committed(&self, change: u64) -> bool {
        *self.committed.borrow() >= change
    }

    /// Waits until everything that was acknowledged is committed.
    pub(crate) async fn settled(&self) {
        let last = self.inbox().last_with_cursors();
        self.committed(last).await;
    }

    /// Waits until a change is committed; for ever, if the client ends first.
    pub(crate) async fn committed(&self, change: u64) {
        if self.is_committed(change) {
            return;
        }
        // Cannot fail: the sender lives as long as `self`.
        let _ = self.committed.subscribe().wait_for(|committed| *committed >= change).await;
    }

    // What the lane does.

    /// Returns what the feed is wanted for, and changes of it.
    pub(crate) fn wanted(&self) -> watch::Receiver<Wanted> {
        self.wanted.subscribe()
    }

    /// The application dropped its [`Events`](crate::Events).
    pub(crate) fn events_dropped(&self) {
        self.wanted.send_modify(|wanted| wanted.events = None);
    }

    /// Commits a new attach number and returns what the attach says.
    pub(crate) async fn attach(&self, reading: bool) -> Attaching {
        let change = {
            let inbox = &mut *self.inbox();
            if reading {
                inbox.forget_held();
            }
            let change = inbox.attach();
            self.changed(inbox);
            change
        };
        self.committed(change).await;
        self.inbox().attaching()
    }

    /// Commits that these are about to be handed out, as far as they are.
    pub(crate) async fn prepare(&self, arrivals: impl IntoIterator<Item = (Place, Arrival)>, hold: bool) {
        let change = {
            let inbox = &mut *self.inbox();
            let now = Instant::now();
            arrivals.into_iter().for_each(|(place, arrival)| inbox.prepare(place, arrival, hold, now));
            self.changed(inbox);
            inbox.last_change()
        };
        self.committed(change).await;
    }

    /// Begins to take in what arrived together.
    pub(crate) fn arriving(&self) -> Arriving<'_> {
        Arriving::new(self)
    }

    /// Returns the largest stamp that was shown.
    pub(crate) fn seen(&self) -> Stamp {
        self.inbox().seen()
    }

    /// The largest stamp that was shown was from a wrong clock.
    pub(crate) fn forget_seen(&self) {
        self.inbox().forget_seen();
    }

    /// Waits until there may be acknowledgements to write.
    pub(crate) async fn ack_due(&self) {
        self.ack_due.notified().await;
    }

    /// Takes the cursors that the server has not been told, and what of that was given up.
    pub(crate) fn take_acks(&self) -> (Vec<Place>, Vec<Place>) {
        self.inbox().take_acks()
    }

    // Receipts.

    /// Watches an accepted message for its receipts.
    pub(crate) fn watch(&self, ticket: &Arc<Ticket>, recipient: AccountId, accepted: &Accepted) {
        let mut tracked = self.tracked();
        if let Some(error) = &tracked.ended {
            return ticket.end(error);
        }
        let Accepted { origin, position, .. } = *accepted;
        let delivered = tracked.delivered.watch(recipient, origin, position, Arc::downgrade(ticket));
        let read = tracked.read.watch(recipient, origin, position, Arc::downgrade(ticket));
        drop(tracked);
        for (watch, progress) in [(delivered, Progress::Delivered), (read, Progress::Read)] {
            match watch {
                Watch::Delivered(_) => ticket.receive(progress, Ok(())),
                Watch::Waiting { evicted } => {
                    if let Some(evicted) = evicted.and_then(|evicted| evicted.upgrade()) {
                        evicted.receive(progress, Err(SendError::Unwatched));
                    }
                }
            }
        }
    }

    /// Takes in a receipt for messages of this account. What was read was delivered.
    pub(crate) fn receipt(
        &self,
        progress: Progress,
        recipient: AccountId,
        origin: Origin,
        (after, upto): (Position, Position),
    ) {
        let mut tracked = self.tracked();
        let delivered = tracked.delivered.receipt(recipient, origin, after, upto);
        let read = match progress {
            Progress::Delivered => Vec::new(),
            Progress::Read => tracked.read.receipt(recipient, origin, after, upto),
        };
        drop(tracked);
        for (tickets, progress) in [(delivered, Progress::Delivered), (read, Progress::Read)] {
            for ticket in tickets.iter().filter_map(Weak::upgrade) {
                ticket.receive(progress, Ok(()));
            }
        }
    }

    /// Returns up to where the server was told of an origin that everything is acknowledged.
    pub(crate) fn told(&self, origin: Origin) -> Position {
        self.inbox().told(origin)
    }

    // What was read.

    /// Takes the marks that earlier clients left.
    pub(crate) async fn take_marks(&self) -> Result<Vec<Mark>, Error> {
        self.load().await?;
        Ok(self.inbox().take_marks())
    }

    /// Commits all marks, or what was said of them before; returns the change to wait for.
    pub(crate) fn keep_marks(&self, marks: Option<Vec<Mark>>) -> u64 {
        let inbox = &mut *self.inbox();
        if let Some(marks) = marks {
            inbox.keep_marks(marks);
            self.changed(inbox);
        }
        inbox.last_change()
    }

    // The end.

    /// What the application has held for long is not what the process dies of. To be called now and then.
    pub(crate) fn release_old(&self) {
        let inbox = &mut *self.inbox();
        inbox.release_old(Instant::now());
        self.changed(inbox);
    }

    /// The client ends in good order: its end is no event's doing.
    pub(crate) fn release_all(&self) {
        let inbox = &mut *self.inbox();
        inbox.release_all();
        self.changed(inbox);
    }

    /// No event and no receipt comes any more.
    pub(crate) fn end(&self, reason: &Error) {
        let mut tracked = self.tracked();
        if tracked.ended.is_some() {
            return;
        }
        tracked.ended = Some(reason.clone());
        // Drops the sender, so that the reader comes to the end.
        self.wanted.send_modify(|wanted| *wanted = Wanted::default());
        let mut waiting = tracked.delivered.drain();
        waiting.extend(tracked.read.drain());
        drop(tracked);
        for ticket in waiting.iter().filter_map(Weak::upgrade) {
            ticket.end(reason);
        }
    }

    /// Returns why the feed ended, if it has.
    pub(crate) fn ended(&self) -> Option<Error> {
        self.tracked().ended.clone()
    }

    fn want(&self, change: impl FnOnce(&mut Wanted)) -> Result<(), Error> {
        // Under the lock of the end, so that nothing is wanted after it.
        let tracked = self.tracked();
        if let Some(error) = &tracked.ended {
            return Err(error.clone());
        }
        self.wanted.send_modify(change);
        Ok(())
    }

    fn inbox(&self) -> MutexGuard<'_, Inbox> {
        // As with the publish queue: no change under this lock is left half done.
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tracked(&self) -> MutexGuard<'_, Tracked> {
        self.receipts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Feed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Feed").field("wanted", &self.wanted.borrow().anything()).finish_non_exhaustive()
    }
}

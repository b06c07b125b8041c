//! The receiving half of a client: what stands between the feed lane and the application.
//!
//! The lane hands in what arrives; the application takes events and acknowledges them; the lane takes acknowledgements
//! and the saver takes cursors. The decisions are in [`inbox`] and [`receipts`]; here is the waiting.
//!
//! Invariants: locks are never held across an await; an attach number is used only after it was saved; states are saved
//! one at a time, each taken when its turn comes, so an older one never overwrites a newer.

pub(crate) mod inbox;
pub(crate) mod receipts;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use quail_protocol::id::{AccountId, Origin, Position};
use quail_protocol::limits::FEED_WINDOW_EVENTS;
use tokio::sync::{Notify, mpsc, watch};

use crate::sending::{Progress, Ticket};
use crate::shared::blocking;
use crate::store::{FeedState, Store};
use crate::{Accepted, Delivery, Error, SendError};
use inbox::{Arrival, Inbox, TooManyPending, Verdict};
use receipts::{Receipts, Watch};

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
#[derive(Debug)]
pub(crate) struct Feed {
    inbox: Mutex<Inbox>,
    receipts: Mutex<Tracked>,
    wanted: watch::Sender<Wanted>,
    taken: AtomicBool,
    /// Whether the state was loaded; held while it is.
    loaded: tokio::sync::Mutex<bool>,
    /// Held while the state is saved.
    saving: tokio::sync::Mutex<()>,
    ack_due: Notify,
    save_due: Notify,
}

#[derive(Debug)]
struct Tracked {
    delivered: Receipts<Weak<Ticket>>,
    read: Receipts<Weak<Ticket>>,
    ended: Option<Error>,
}

impl Feed {
    pub(crate) fn new() -> Self {
        Self {
            inbox: Mutex::new(Inbox::default()),
            receipts: Mutex::new(Tracked { delivered: Receipts::new(), read: Receipts::new(), ended: None }),
            wanted: watch::Sender::new(Wanted::default()),
            taken: AtomicBool::new(false),
            loaded: tokio::sync::Mutex::new(false),
            saving: tokio::sync::Mutex::new(()),
            ack_due: Notify::new(),
            save_due: Notify::new(),
        }
    }

    // What the application does.

    /// Makes the client attach for events and returns where they come out. Works once.
    pub(crate) async fn take_events(
        &self,
        store: &Arc<dyn Store>,
    ) -> Result<mpsc::Receiver<Delivery>, Error> {
        self.load(store).await?;
        if self.taken.swap(true, Ordering::Relaxed) {
            return Err(Error::EventsTaken);
        }
        let (sender, receiver) = mpsc::channel(FEED_WINDOW_EVENTS);
        self.want(|wanted| wanted.events = Some(sender))?;
        Ok(receiver)
    }

    /// Makes the client attach for receipts.
    pub(crate) async fn watch_receipts(&self, store: &Arc<dyn Store>) -> Result<(), Error> {
        if self.wanted.borrow().receipts {
            return Ok(());
        }
        self.load(store).await?;
        self.want(|wanted| wanted.receipts = true)
    }

    /// The application is done with an event.
    pub(crate) fn acknowledge(&self, origin: Origin, position: Position) {
        if self.inbox().acknowledge(origin, position) {
            self.cursors_moved();
        }
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

    /// Saves a new attach number and returns it with the cursors.
    pub(crate) async fn attach(&self, store: &Arc<dyn Store>, reading: bool) -> Result<FeedState, Error> {
        {
            let mut inbox = self.inbox();
            if reading {
                inbox.forget_held();
            }
            inbox.attach();
        }
        self.save(store).await?;
        Ok(self.inbox().state())
    }

    /// Decides what to do with something that arrived.
    pub(crate) fn arrive(
        &self,
        origin: Origin,
        position: Position,
        arrival: Arrival,
        hold: bool,
    ) -> Result<Verdict, TooManyPending> {
        let mut inbox = self.inbox();
        let verdict = inbox.arrive(origin, position, arrival, hold)?;
        drop(inbox);
        if matches!(verdict, Verdict::Done | Verdict::Duplicate | Verdict::Again) {
            self.cursors_moved();
        }
        Ok(verdict)
    }

    /// Waits until there may be acknowledgements to write.
    pub(crate) async fn ack_due(&self) {
        self.ack_due.notified().await;
    }

    /// Takes the cursors that the server has not been told.
    pub(crate) fn take_acks(&self) -> Vec<(Origin, Position)> {
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

    /// Returns up to where everything of an origin is acknowledged, or about to be.
    pub(crate) fn acknowledged(&self, origin: Origin) -> Position {
        self.inbox().cursor(origin)
    }

    // Saving and the end.

    /// Waits until there may be something to save.
    pub(crate) async fn save_due(&self) {
        self.save_due.notified().await;
    }

    /// Saves what is not saved.
    pub(crate) async fn save(&self, store: &Arc<dyn Store>) -> Result<(), Error> {
        let _guard = self.saving.lock().await;
        let Some(state) = self.inbox().take_unsaved() else {
            return Ok(());
        };
        let saved = blocking(store, move |store| store.save_feed(&state)).await;
        if saved.is_err() {
            self.inbox().not_saved();
        }
        saved
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

    async fn load(&self, store: &Arc<dyn Store>) -> Result<(), Error> {
        let mut loaded = self.loaded.lock().await;
        if !*loaded {
            let state = blocking(store, |store| store.load_feed()).await?;
            *self.inbox() = Inbox::restore(&state);
            *loaded = true;
        }
        Ok(())
    }

    fn cursors_moved(&self) {
        self.ack_due.notify_one();
        self.save_due.notify_one();
    }

    fn inbox(&self) -> MutexGuard<'_, Inbox> {
        // As with the publish queue: no change under this lock is left half done.
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tracked(&self) -> MutexGuard<'_, Tracked> {
        self.receipts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

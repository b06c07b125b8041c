//! What this device has read: marks on their way to the server.
//!
//! The application says what was read; the feed lane writes it and takes the answers. The decisions are in [`marks`] and
//! [`runs`]; here is the waiting and the saving.
//!
//! Invariants: locks are never held across an await, and that of the feed is taken after that of the marks; a mark is saved before [`Client::read`](crate::Client::read) returns
//! and until it is answered.

mod marks;
mod runs;

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use bytes::BytesMut;
use quail_protocol::frame;
use quail_protocol::id::{AccountId, Origin, Position};
use quail_protocol::v1::{self, feed_up};
use tokio::sync::Notify;

use crate::Error;
use crate::backoff::chance;
use crate::error::Refusal;
use crate::feed::Feed;
use crate::store::Mark;
pub use marks::MARKS_MAX;
use marks::Marks;
use runs::Runs;

/// What this device has read.
#[derive(Debug)]
pub(crate) struct Reads {
    inner: Mutex<Inner>,
    /// Whether the marks of earlier clients were loaded; held while they are.
    loaded: tokio::sync::Mutex<bool>,
    /// Something can be written or forgotten.
    due: Notify,
    /// There is room for another mark.
    room: Notify,
}

#[derive(Debug)]
struct Inner {
    marks: Marks,
    runs: Runs,
    unsaved: bool,
}

impl Reads {
    pub(crate) fn new() -> Self {
        let inner = Inner { marks: Marks::new(), runs: Runs::default(), unsaved: false };
        Self {
            inner: Mutex::new(inner),
            loaded: tokio::sync::Mutex::new(false),
            due: Notify::new(),
            room: Notify::new(),
        }
    }

    /// Takes marks, as soon as there is room, and saves them.
    pub(crate) async fn mark(&self, feed: &Feed, marks: impl Iterator<Item = Mark>) -> Result<(), Error> {
        self.load(feed).await?;
        for mark in marks {
            loop {
                // Made before looking, so that room made in between is not missed.
                let room = self.room.notified();
                {
                    let mut inner = self.lock();
                    if inner.marks.has_room() {
                        inner.marks.add(mark);
                        inner.unsaved = true;
                        break;
                    }
                }
                self.due.notify_one();
                room.await;
            }
        }
        let change = self.save(feed);
        self.due.notify_one();
        feed.committed(change).await;
        Ok(())
    }

    /// Reads what earlier clients of the device left unanswered.
    pub(crate) async fn load(&self, feed: &Feed) -> Result<(), Error> {
        let mut loaded = self.loaded.lock().await;
        if !*loaded {
            let marks = feed.take_marks().await?;
            let mut inner = self.lock();
            marks.into_iter().for_each(|mark| inner.marks.add(mark));
            *loaded = true;
        }
        Ok(())
    }

    /// Has saved what is not saved; returns the change of the feed's part that all of it is in.
    pub(crate) fn save(&self, feed: &Feed) -> u64 {
        let mut inner = self.lock();
        let marks = std::mem::take(&mut inner.unsaved).then(|| inner.marks.all());
        // Under the lock, so that a later list is not overtaken by an earlier one.
        feed.keep_marks(marks)
    }

    /// A message is handed out; returns where a mark of it begins.
    pub(crate) fn handed_out(&self, sender: AccountId, origin: Origin, position: Position) -> Position {
        self.lock().runs.handed_out(sender, origin, position)
    }

    /// Something of this origin was missed.
    pub(crate) fn missed(&self, origin: Origin) {
        self.lock().runs.missed(origin);
    }

    /// A new lane writes from the front.
    pub(crate) fn lane_opened(&self) {
        self.lock().marks.lane_opened();
    }

    /// Appends to `buffer` what may be written now, as far as it is `acknowledged`, and returns until when the rest waits in any
    /// case.
    pub(crate) fn fill(
        &self,
        buffer: &mut BytesMut,
        acknowledged: impl Fn(Origin) -> Position,
    ) -> Option<Instant> {
        let mut inner = self.lock();
        while let Some(read) = inner.marks.next(Instant::now(), &acknowledged) {
            frame::encode(&v1::FeedUp { frame: Some(feed_up::Frame::Read(read)) }, buffer);
        }
        inner.marks.pause_until()
    }

    /// Waits until there may be something to write or to forget.
    pub(crate) async fn due(&self, pause: Option<Instant>) {
        let paused = async {
            match pause {
                Some(until) => tokio::time::sleep_until(until.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = self.due.notified() => {}
            () = paused => {}
        }
    }

    /// Takes in the answer to the oldest mark without one.
    pub(crate) fn answered(&self, answer: v1::ReadAnswer) -> Result<(), Error> {
        let mut inner = self.lock();
        let fits = match answer.error.map(Refusal::from_wire) {
            Some(refusal) if refusal.temporary => {
                inner.marks.refused_for_now(refusal.retry_after, Instant::now(), chance())
            }
            refused => {
                if let Some(refusal) = refused {
                    // Nothing to be done about it: what was read stays read here, and nobody is told.
                    tracing::debug!(%refusal, "a mark of what was read was refused");
                }
                inner.unsaved = true;
                inner.marks.decided()
            }
        };
        drop(inner);
        self.due.notify_one();
        self.room.notify_one();
        fits.map_err(|error| Error::protocol(error.to_string()))
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // No change under this lock is left half done.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

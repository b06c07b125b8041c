//! Events as the application takes and acknowledges them.
//!
//! Invariants: an event is on its way to the application, with it, or acknowledged; the server keeps it until the
//! acknowledgement, so nothing is lost whatever ends first. One that another process died with is given to the application
//! only after it was committed that this one has it in hand.

use std::sync::Arc;

use tokio::sync::mpsc;

use crate::shared::Shared;
use crate::store::Place;
use crate::{Error, Event};

/// The events of a client, in the order in which the server wrote them.
///
/// At most 256 events are on their way to the application at once; while it does not take and acknowledge them, the rest
/// waits at the server. Dropping this value detaches the feed; what was not acknowledged stays at the server.
///
/// ```no_run
/// # use quail_client::{Client, Event};
/// # async fn example(client: Client) -> Result<(), quail_client::Error> {
/// let mut events = client.events().await?;
/// loop {
///     let delivery = events.next().await?;
///     if let Event::Message(message) = &delivery.event {
///         println!("{}: {:?}", message.sender, message.body);
///     }
///     // After the message is safe in this program's own storage.
///     delivery.acknowledge();
/// }
/// # }
/// ```
#[derive(Debug)]
pub struct Events {
    receiver: mpsc::Receiver<Delivery>,
    /// Taken out, and not to be given to the application before the change is committed.
    next: Option<(Delivery, u64)>,
    shared: Arc<Shared>,
}

impl Events {
    pub(crate) fn new(receiver: mpsc::Receiver<Delivery>, shared: Arc<Shared>) -> Self {
        Self { receiver, next: None, shared }
    }

    /// Waits for the next event. Dropping the future loses nothing.
    ///
    /// # Errors
    /// Why no event comes any more: [`Error::Replaced`], or what ended the client. Connections that are lost and found
    /// again do not show here.
    pub async fn next(&mut self) -> Result<Delivery, Error> {
        if self.next.is_none() {
            tokio::select! {
                delivery = self.receiver.recv() => match delivery {
                    Some(delivery) => self.hold(delivery),
                    None => return Err(self.shared.feed.ended().unwrap_or(Error::Closed)),
                },
                event = self.shared.signals.next() => {
                    return Ok(Delivery::new(event, None, 1, &self.shared));
                }
            }
        }
        if let Some((_, change)) = self.next {
            tokio::select! {
                () = self.shared.feed.committed(change) => {}
                // Nothing is committed any more; what was released by the end counts for nobody.
                () = self.shared.over.cancelled() => {}
            }
        }
        self.next.take().map(|(delivery, _)| delivery).ok_or(Error::Closed)
    }

    /// Returns the next event if it is here already. One that another process died with is here a moment later, and counts as
    /// in hand from the first call on: call again soon, or it is blamed for what the program does meanwhile.
    pub fn try_next(&mut self) -> Option<Delivery> {
        if self.next.is_none() {
            let delivery = self.receiver.try_recv().ok()?;
            self.hold(delivery);
        }
        let is_ready = |(_, change): &mut (Delivery, u64)| {
            self.shared.feed.is_committed(*change) || self.shared.over.is_cancelled()
        };
        self.next.take_if(is_ready).map(|(delivery, _)| delivery)
    }

    fn hold(&mut self, delivery: Delivery) {
        let change = match delivery.acknowledgement.place {
            Some(place) if delivery.is_careful => self.shared.feed.take_in_hand(place),
            _ => 0,
        };
        self.next = Some((delivery, change));
    }
}

/// An event together with the duty to acknowledge it.
#[derive(Debug)]
#[must_use = "an event that is not acknowledged comes again"]
pub struct Delivery {
    /// What happened.
    pub event: Event,
    attempt: u32,
    is_careful: bool,
    acknowledgement: Acknowledgement,
}

impl Delivery {
    pub(crate) fn new(
        event: Event,
        place: Option<(Place, bool)>,
        attempt: u32,
        shared: &Arc<Shared>,
    ) -> Self {
        let is_careful = place.is_some_and(|(_, is_careful)| is_careful);
        let place = place.map(|(place, _)| place);
        let acknowledgement = Acknowledgement { place, shared: shared.clone() };
        Self { event, attempt, is_careful, acknowledgement }
    }

    /// Returns how often this event was handed out, this time included. At 1 no program of this device was given it before.
    /// Above, one may have been, and ended before its acknowledgement was safe: a program that must not do twice what the
    /// event is about looks into its own storage first. The count is committed before the event is handed out, so a program
    /// that ended in between may never have seen it.
    pub fn attempt(&self) -> u32 {
        self.attempt
    }

    /// Acknowledges the event and returns it; see [`Acknowledgement::acknowledge`].
    pub fn acknowledge(self) -> Event {
        self.acknowledgement.acknowledge();
        self.event
    }

    /// Separates the event from the duty, for programs that process on one task and acknowledge on another.
    pub fn into_parts(self) -> (Event, Acknowledgement) {
        (self.event, self.acknowledgement)
    }
}

/// The duty to acknowledge one event.
///
/// Dropping it lets go of the event: it is not acknowledged, and if the process dies later, that is not held against the
/// event. A panic does not let go.
#[derive(Debug)]
#[must_use = "an event that is not acknowledged comes again"]
pub struct Acknowledgement {
    /// Nothing for what has no place in the feed, and once it is acknowledged.
    place: Option<Place>,
    shared: Arc<Shared>,
}

impl Acknowledgement {
    /// Acknowledges: the event has been taken for good and need not come again.
    ///
    /// That is committed to the store, and then the server is told, in the background. Acknowledgements may come in any
    /// order; since the server counts "everything up to here", it is told only as far as everything before is acknowledged
    /// too. So an event that is dropped without acknowledgement holds back all behind it: this client is not shown it
    /// again, and a later client of the device gets it, but of those behind it only what was not acknowledged.
    pub fn acknowledge(mut self) {
        if let Some(place) = self.place.take() {
            self.shared.feed.acknowledge(place);
        }
    }
}

impl Drop for Acknowledgement {
    fn drop(&mut self) {
        // A program that panics over an event has died of it, whatever is unwound on the way.
        if let Some(place) = self.place.take().filter(|_| !std::thread::panicking()) {
            self.shared.feed.release(place);
        }
    }
}

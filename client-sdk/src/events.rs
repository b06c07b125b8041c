//! Events as the application takes and acknowledges them.
//!
//! Invariants: an event is on its way to the application, with it, or acknowledged; the server keeps it until the
//! acknowledgement, so nothing is lost whatever ends first.

use std::sync::Arc;

use quail_protocol::id::{Origin, Position};
use tokio::sync::mpsc;

use crate::shared::Shared;
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
    shared: Arc<Shared>,
}

impl Events {
    pub(crate) fn new(receiver: mpsc::Receiver<Delivery>, shared: Arc<Shared>) -> Self {
        Self { receiver, shared }
    }

    /// Waits for the next event. Dropping the future loses nothing.
    ///
    /// # Errors
    /// Why no event comes any more: [`Error::Replaced`], or what ended the client. Connections that are lost and found
    /// again do not show here.
    pub async fn next(&mut self) -> Result<Delivery, Error> {
        tokio::select! {
            delivery = self.receiver.recv() => {
                delivery.ok_or_else(|| self.shared.feed.ended().unwrap_or(Error::Closed))
            }
            typing = self.shared.signals.next() => {
                Ok(Delivery::new(Event::Typing(typing), None, &self.shared))
            }
        }
    }

    /// Returns the next event if it is here already.
    pub fn try_next(&mut self) -> Option<Delivery> {
        self.receiver.try_recv().ok()
    }
}

/// An event together with the duty to acknowledge it.
#[derive(Debug)]
#[must_use = "an event that is not acknowledged comes again"]
pub struct Delivery {
    /// What happened.
    pub event: Event,
    acknowledgement: Acknowledgement,
}

impl Delivery {
    pub(crate) fn new(event: Event, place: Option<(Origin, Position)>, shared: &Arc<Shared>) -> Self {
        Self { event, acknowledgement: Acknowledgement { place, shared: shared.clone() } }
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
#[derive(Debug)]
#[must_use = "an event that is not acknowledged comes again"]
pub struct Acknowledgement {
    /// Nothing for what has no place in the feed.
    place: Option<(Origin, Position)>,
    shared: Arc<Shared>,
}

impl Acknowledgement {
    /// Acknowledges: the event has been taken for good and need not come again.
    ///
    /// The server is told in the background. Acknowledgements may come in any order; since the server counts "everything
    /// up to here", it is told only as far as everything before is acknowledged too. So an event that is dropped without
    /// acknowledgement holds back all behind it: this client is not shown it again, and a later client of the device
    /// gets it and all behind it.
    pub fn acknowledge(self) {
        if let Some((origin, position)) = self.place {
            self.shared.feed.acknowledge(origin, position);
        }
    }
}

//! What the feed lane brings: understanding it, and taking in together what arrived together.
//!
//! Under load a wake-up brings many events. The inbox is locked once for all of them, and what they change of what the
//! device remembers is one commit.
//!
//! Invariants: nothing here waits; what is handed out was given a place by the caller before.

use std::collections::VecDeque;
use std::sync::Arc;

use quail_protocol::id::{AccountId, Origin, Position, Stamp};
use quail_protocol::v1::{self, ReceiptKind, event, feed_down};

use crate::error::Refusal;
use crate::feed::hands::Offer;
use crate::feed::inbox::{Arrival, Verdict};
use crate::sending::Progress;
use crate::shared::Shared;
use crate::state::Counters;
use crate::store::Place;
use crate::{Changed, Delivery, Error, Event, HistoryMessage, Message, ReadReceipt};

/// Something that arrived, understood.
pub(super) enum Arrived {
    Message(Message),
    Changed(Changed),
    Receipt(Place, Receipt),
    /// A message that cannot be read, or what may be one.
    Unreadable(Place),
    /// A receipt or a change of a kind that this version does not know.
    Unknown(Place),
    Gap(Origin, Position, Position),
    CaughtUp,
    Ended(Error),
}

/// A receipt, understood.
pub(super) struct Receipt {
    progress: Progress,
    content: ReadReceipt,
    /// Whether the application is shown it.
    is_shown: bool,
}

impl Arrived {
    /// What the inbox needs to know, if it is about this.
    pub(super) fn for_inbox(&self) -> Option<(Place, Arrival)> {
        match self {
            Self::Message(message) => {
                let key = (message.sender, message.id);
                Some(((message.origin, message.position), Arrival::Message(key)))
            }
            Self::Changed(changed) => {
                let key = (changed.sender, changed.id);
                Some(((changed.origin, changed.position), Arrival::Message(key)))
            }
            Self::Receipt(place, Receipt { is_shown: true, .. }) => Some((*place, Arrival::Passing)),
            Self::Receipt(place, _) | Self::Unreadable(place) | Self::Unknown(place) => {
                Some((*place, Arrival::Internal))
            }
            Self::Gap(origin, _, upto) => Some(((*origin, *upto), Arrival::Gap)),
            Self::CaughtUp | Self::Ended(_) => None,
        }
    }

    /// The stamp of what somebody said, if it is that.
    fn said_at(&self) -> Option<Stamp> {
        match self {
            Self::Message(message) => Some(message.stamp),
            Self::Changed(changed) => Some(changed.stamp),
            _ => None,
        }
    }

    /// Understands a frame; sees at once to what stands in no order with events.
    pub(super) fn read(shared: &Shared, down: v1::FeedDown) -> Result<Option<Self>, Error> {
        Ok(match down.frame {
            Some(feed_down::Frame::Ended(error)) => {
                Some(Self::Ended(Error::refused(Refusal::from_wire(error))))
            }
            Some(feed_down::Frame::CaughtUp(_)) => Some(Self::CaughtUp),
            Some(feed_down::Frame::Gap(gap)) => {
                Some(Self::Gap(Origin(gap.origin), Position(gap.from), Position(gap.upto)))
            }
            Some(feed_down::Frame::Event(event)) => {
                Some(Self::read_event(shared.credentials.account, &event))
            }
            Some(feed_down::Frame::Read(answer)) => {
                shared.reads.answered(answer)?;
                None
            }
            Some(feed_down::Frame::Signal(signal)) => {
                shared.signals.arrived(&signal);
                None
            }
            // A later version may say more.
            None => None,
        })
    }

    fn read_event(own: AccountId, event: &v1::Event) -> Self {
        let place = (Origin(event.origin), Position(event.position));
        match &event.body {
            Some(event::Body::Message(message)) => match Message::from_wire(event, message) {
                Ok(message) => Self::Message(message),
                Err(error) => {
                    // Unreadable today is unreadable tomorrow: waiting for a better copy would stop the feed for ever.
                    let (origin, position) = (event.origin, event.position);
                    tracing::warn!(%error, origin, position, "pass over an event");
                    Self::Unreadable(place)
                }
            },
            Some(event::Body::Changed(changed)) => {
                match Changed::from_wire(event, changed) {
                    Some(changed) if changed.is_for(own) => Self::Changed(changed),
                    Some(_) => Self::Unknown(place),
                    // A person may have been meant to see it, so nothing over it counts as read.
                    None => Self::Unreadable(place),
                }
            }
            Some(event::Body::Receipt(receipt)) => match Receipt::read(own, receipt) {
                Some(receipt) => Self::Receipt(place, receipt),
                None => Self::Unknown(place),
            },
            // Whatever a later version says here, it may be what a person reads.
            None => Self::Unreadable(place),
        }
    }
}

impl Receipt {
    fn read(own: AccountId, receipt: &v1::Receipt) -> Option<Self> {
        let reader = AccountId::try_from(receipt.account.as_ref()).ok()?;
        let sender = match receipt.sender.is_empty() {
            true => own,
            false => AccountId::try_from(receipt.sender.as_ref()).ok()?,
        };
        let (origin, after, upto) = (Origin(receipt.origin), Position(receipt.after), Position(receipt.upto));
        // A kind that a later version may add is at least the greatest one below it.
        let progress = match receipt.kind {
            kind if kind >= ReceiptKind::Read as i32 => Progress::Read,
            kind if kind >= ReceiptKind::Delivered as i32 => Progress::Delivered,
            _ => return None,
        };
        let is_shown = progress == Progress::Read && upto > after && (sender == own || reader == own);
        Some(Self { progress, content: ReadReceipt { sender, reader, origin, after, upto }, is_shown })
    }
}

/// Takes in what arrived, in order, until as many events as there is `room` for are to be handed out, and hands those out.
/// Returns the server's word if it ended the lane; nothing behind that counts.
pub(super) fn take_in(
    shared: &Arc<Shared>,
    arrived: &mut VecDeque<Arrived>,
    hold: bool,
    room: usize,
    mut hand_out: impl FnMut(Delivery),
) -> Result<Option<Error>, Error> {
    let mut judged = Vec::with_capacity(arrived.len().min(room));
    let (mut room, mut outcome) = (room, Ok(None));
    let mut arriving = shared.feed.arriving();
    while room > 0
        && let Some(one) = arrived.pop_front()
    {
        let judgement = match (&one, one.for_inbox()) {
            (_, Some((place, arrival))) => match arriving.arrive(place, arrival, hold) {
                Ok((verdict, offer)) => Some((place, verdict, offer)),
                Err(error) => {
                    outcome = Err(Error::protocol(error.to_string()));
                    break;
                }
            },
            (Arrived::Ended(error), None) => {
                outcome = Ok(Some(error.clone()));
                break;
            }
            (_, None) => {
                arriving.caught_up();
                None
            }
        };
        if let (Some(stamp), Some((_, Verdict::HandOut, offer))) = (one.said_at(), &judgement)
            && !offer.gives_up
        {
            arriving.saw(stamp);
        }
        room -= usize::from(judgement.as_ref().is_none_or(|(_, verdict, _)| *verdict == Verdict::HandOut));
        judged.push((one, judgement));
    }
    drop(arriving);
    for (one, judgement) in judged {
        if let Some(delivery) = delivery(shared, one, judgement) {
            hand_out(delivery);
        }
    }
    outcome
}

/// Returns what the application is to be handed of something that was judged.
fn delivery(
    shared: &Arc<Shared>,
    arrived: Arrived,
    judgement: Option<(Place, Verdict, Offer)>,
) -> Option<Delivery> {
    let Some((place, verdict, offer)) = judgement else {
        return Some(Delivery::new(Event::CaughtUp, None, 1, shared));
    };
    note(shared, &arrived);
    if verdict != Verdict::HandOut {
        let is_repeated = matches!(verdict, Verdict::Duplicate | Verdict::Again);
        if is_repeated && arrived.said_at().is_some() {
            Counters::add(&shared.counters.duplicates_dropped, 1);
        }
        return None;
    }
    let (origin, position) = place;
    let event = match arrived {
        Arrived::Message(message) if offer.gives_up => {
            tracing::error!(id = %message.id, %position, "too many processes died with this message; set it aside");
            shared.reads.missed(origin);
            Event::SetAside { origin, position, message: Some((message.sender, message.id)) }
        }
        Arrived::Message(mut message) => {
            shared.saw(message.stamp);
            if message.recipient == shared.credentials.account {
                message.after = shared.reads.handed_out(message.sender, origin, position);
            }
            shared.recent.note(place, || HistoryMessage::handed_out(&message));
            Event::Message(message)
        }
        Arrived::Changed(changed) if offer.gives_up => {
            tracing::error!(id = %changed.id, %position, "too many processes died with this change; set it aside");
            shared.reads.missed(origin);
            Event::SetAside { origin, position, message: Some((changed.sender, changed.id)) }
        }
        Arrived::Changed(changed) => {
            shared.saw(changed.stamp);
            shared.recent.changed(&changed);
            Event::Changed(changed)
        }
        _ if offer.gives_up => Event::SetAside { origin, position, message: None },
        Arrived::Gap(origin, from, upto) => Event::Gap { origin, from, upto },
        Arrived::Receipt(_, receipt) => Event::Read(receipt.content),
        // Never handed out.
        Arrived::Unreadable(_) | Arrived::Unknown(_) | Arrived::CaughtUp | Arrived::Ended(_) => return None,
    };
    Counters::add(&shared.counters.handed_out, 1);
    let careful = offer.is_careful;
    Some(Delivery::new(event, Some((place, careful)), offer.attempt, shared))
}

/// Takes note of what arrived, whether or not the application is handed it.
fn note(shared: &Shared, arrived: &Arrived) {
    match arrived {
        Arrived::Receipt(_, Receipt { progress, content, .. })
            if content.sender == shared.credentials.account =>
        {
            let ReadReceipt { reader, origin, after, upto, .. } = *content;
            shared.feed.receipt(*progress, reader, origin, (after, upto));
        }
        Arrived::Unreadable((origin, _)) | Arrived::Gap(origin, ..) => shared.reads.missed(*origin),
        _ => {}
    }
}

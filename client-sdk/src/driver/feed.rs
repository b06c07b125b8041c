//! The feed lane: events down, acknowledgements up.
//!
//! The lane is attached while somebody wants events or receipts. The server takes the newest attach of a device for the
//! real one, so a lane that changes its purpose is simply attached again.
//!
//! What arrived together is prepared together: one commit says of all of it that it is about to be handed out.
//!
//! Invariants: an event is handed out only after that commit, and marked as handed out only when its place in the
//! application's queue is reserved, so a lane that is cut off in between loses nothing; a replaced feed is never attached
//! again.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use quail_protocol::frame;
use quail_protocol::id::{AccountId, Origin, Position};
use quail_protocol::limits::FEED_WINDOW_EVENTS;
use quail_protocol::v1::{self, Reason, ReceiptKind, event, feed_down, feed_up, open};
use quinn::SendStream;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::{advice, finish_lane};
use crate::backoff::{Backoff, chance};
use crate::error::Refusal;
use crate::feed::Wanted;
use crate::feed::inbox::{Arrival, Verdict};
use crate::frames::{self, FrameReader, write_error};
use crate::link::Link;
use crate::sending::Progress;
use crate::shared::Shared;
use crate::state::Counters;
use crate::store::Place;
use crate::{Delivery, Error, Event, Message, ReadReceipt};

/// Upper ends of the pauses after the server ended the lane for now.
const REATTACH_PAUSE_MIN: Duration = Duration::from_millis(100);
const REATTACH_PAUSE_MAX: Duration = Duration::from_secs(30);

/// Most that is prepared together: a window.
const TOGETHER_MAX: usize = FEED_WINDOW_EVENTS;

/// Why a lane ended, where that does not end the connection.
enum LaneEnd {
    /// The client is to end.
    Finished,
    /// The feed is wanted for something else now, or no longer.
    Changed,
    /// The server ended it.
    Ended(Error),
}

/// Runs the lane, whenever it is wanted, until it fails or the client is to end.
pub(super) async fn run(shared: &Arc<Shared>, link: &Link) -> Result<(), Error> {
    let mut wanted = shared.feed.wanted();
    let mut backoff = Backoff::new(REATTACH_PAUSE_MIN, REATTACH_PAUSE_MAX);
    loop {
        let events = tokio::select! {
            () = shared.finish.cancelled() => return Ok(()),
            wanted = wanted.wait_for(Wanted::anything) => wanted.map(|wanted| wanted.events.clone()),
        };
        // Cannot fail: the sender lives as long as `shared`.
        let events = events.map_err(|_| Error::Closed)?;
        let error = match attached(shared, link, events, &mut wanted, &mut backoff).await {
            Ok(LaneEnd::Finished) => return Ok(()),
            Ok(LaneEnd::Changed) => continue,
            Ok(LaneEnd::Ended(error)) | Err(error) if error.reason() == Some(Reason::Replaced) => {
                shared.replaced();
                continue;
            }
            Ok(LaneEnd::Ended(error)) if error.is_temporary() => error,
            Ok(LaneEnd::Ended(error)) | Err(error) => return Err(error),
        };
        let pause = backoff.pause(chance()).max(advice(&error));
        tracing::debug!(%error, ?pause, "feed ended for now");
        tokio::select! {
            () = shared.finish.cancelled() => return Ok(()),
            () = tokio::time::sleep(pause) => {}
        }
    }
}

async fn attached(
    shared: &Arc<Shared>,
    link: &Link,
    events: Option<mpsc::Sender<Delivery>>,
    wanted: &mut watch::Receiver<Wanted>,
    backoff: &mut Backoff,
) -> Result<LaneEnd, Error> {
    let reading = events.is_some();
    shared.reads.load(&shared.feed).await?;
    let attaching = shared.feed.attach(reading).await;
    let (cursors, set_aside) = (cursors(attaching.cursors), cursors(attaching.set_aside));
    let attach = v1::Attach { number: attaching.number, cursors, set_aside };
    let (stream, reader) = frames::open(link, open::Stream::Feed(attach)).await?;
    shared.reads.lane_opened();
    let changed = wanted.wait_for(|wanted| wanted.events.is_some() != reading || !wanted.anything());
    let leaving = shared.finish.child_token();
    let mut writing = pin!(write(shared, stream, &leaving));
    let dropped = tokio::select! {
        ended = &mut writing => return ended.map(|()| LaneEnd::Finished),
        ended = read(shared, reader, events.as_ref(), backoff) => return ended,
        _ = changed => false,
        () = dropped(events.as_ref()) => true,
    };
    // What the application acknowledged before it lost interest still goes out.
    leaving.cancel();
    writing.await?;
    if dropped {
        shared.feed.events_dropped();
    }
    Ok(LaneEnd::Changed)
}

async fn dropped(events: Option<&mpsc::Sender<Delivery>>) {
    match events {
        Some(events) => events.closed().await,
        None => std::future::pending().await,
    }
}

async fn write(shared: &Shared, mut stream: SendStream, leaving: &CancellationToken) -> Result<(), Error> {
    let mut finish = pin!(leaving.cancelled());
    let mut buffer = BytesMut::new();
    loop {
        let finishing = leaving.is_cancelled();
        if finishing {
            // What the application acknowledged last is told as well, and that is possible once it is committed.
            shared.feed.settled().await;
        }
        loop {
            let (acks, set_aside) = shared.feed.take_acks();
            if acks.is_empty() {
                break;
            }
            let ack = feed_up::Frame::Ack(v1::Ack { upto: cursors(acks), set_aside: cursors(set_aside) });
            frame::encode(&v1::FeedUp { frame: Some(ack) }, &mut buffer);
            Counters::add(&shared.counters.acks_written, 1);
        }
        // Behind the acknowledgements: the server takes as read only what it knows to be acknowledged.
        let pause = shared.reads.fill(&mut buffer, |origin| shared.feed.told(origin));
        if shared.signals.is_by_feed() {
            for signal in shared.signals.take() {
                let signal = feed_up::Frame::Signal(signal);
                frame::encode(&v1::FeedUp { frame: Some(signal) }, &mut buffer);
            }
        }
        if !buffer.is_empty() {
            stream.write_all(&buffer).await.map_err(write_error)?;
            buffer.clear();
        }
        // Nobody waits for it: a mark that is made again changes nothing.
        shared.reads.save(&shared.feed);
        if finishing {
            finish_lane(stream).await;
            return Ok(());
        }
        tokio::select! {
            () = &mut finish => {}
            () = shared.feed.ack_due() => {}
            () = shared.reads.due(pause) => {}
            () = shared.signals.feed_due() => {}
        }
    }
}

/// Something that arrived, understood.
enum Arrived {
    Message(Message),
    Receipt(Place, Receipt),
    /// A message that cannot be read, or what may be one.
    Unreadable(Place),
    /// A receipt of a kind that this version does not know.
    Unknown(Place),
    Gap(Origin, Position, Position),
    CaughtUp,
    Ended(Error),
}

/// A receipt, understood.
struct Receipt {
    progress: Progress,
    content: ReadReceipt,
    /// Whether the application is shown it.
    is_shown: bool,
}

impl Arrived {
    /// What the inbox needs to know, if it is about this.
    fn for_inbox(&self) -> Option<(Place, Arrival)> {
        match self {
            Self::Message(message) => {
                let key = (message.sender, message.id);
                Some(((message.origin, message.position), Arrival::Message(key)))
            }
            Self::Receipt(place, Receipt { is_shown: true, .. }) => Some((*place, Arrival::Passing)),
            Self::Receipt(place, _) | Self::Unreadable(place) | Self::Unknown(place) => {
                Some((*place, Arrival::Internal))
            }
            Self::Gap(origin, _, upto) => Some(((*origin, *upto), Arrival::Gap)),
            Self::CaughtUp | Self::Ended(_) => None,
        }
    }

    /// Understands a frame; sees at once to what stands in no order with events.
    fn read(shared: &Shared, down: v1::FeedDown) -> Result<Option<Self>, Error> {
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

async fn read(
    shared: &Arc<Shared>,
    mut reader: FrameReader,
    events: Option<&mpsc::Sender<Delivery>>,
    backoff: &mut Backoff,
) -> Result<LaneEnd, Error> {
    let hold = events.is_none();
    loop {
        let Some(first): Option<v1::FeedDown> = reader.next().await? else {
            return Ok(LaneEnd::Ended(Error::lost("the server ended the feed lane")));
        };
        let mut arrived: Vec<_> = Arrived::read(shared, first)?.into_iter().collect();
        while arrived.len() < TOGETHER_MAX
            && let Some(down) = reader.ready()?
        {
            arrived.extend(Arrived::read(shared, down)?);
        }
        // A commit that fails ends the client.
        shared.feed.prepare(arrived.iter().filter_map(Arrived::for_inbox), hold).await;
        for one in arrived {
            let permit = match events.map(mpsc::Sender::reserve) {
                Some(reserving) => match reserving.await {
                    Ok(permit) => Some(permit),
                    // The application has dropped its end; `attached` sees that as well and ends the lane.
                    Err(_) => std::future::pending().await,
                },
                None => None,
            };
            let delivery = match one {
                Arrived::Ended(error) => return Ok(LaneEnd::Ended(error)),
                other => take(shared, other, hold)?,
            };
            backoff.reset();
            if let (Some(permit), Some(delivery)) = (permit, delivery) {
                permit.send(delivery);
            }
        }
    }
}

/// Takes in what arrived and returns what the application is to be handed.
fn take(shared: &Arc<Shared>, arrived: Arrived, hold: bool) -> Result<Option<Delivery>, Error> {
    let Some((place, arrival)) = arrived.for_inbox() else {
        shared.feed.caught_up();
        return Ok(Some(Delivery::new(Event::CaughtUp, None, 1, shared)));
    };
    note(shared, &arrived);
    let taken = shared.feed.arrive(place, arrival, hold);
    let (verdict, offer) = taken.map_err(|error| Error::protocol(error.to_string()))?;
    if verdict != Verdict::HandOut {
        let is_repeated = matches!(verdict, Verdict::Duplicate | Verdict::Again);
        let is_message = matches!(arrived, Arrived::Message(_));
        Counters::add(&shared.counters.duplicates_dropped, (is_repeated && is_message).into());
        return Ok(None);
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
            shared.feed.saw(message.stamp);
            if message.recipient == shared.credentials.account {
                message.after = shared.reads.handed_out(message.sender, origin, position);
            }
            Event::Message(message)
        }
        _ if offer.gives_up => Event::SetAside { origin, position, message: None },
        Arrived::Gap(origin, from, upto) => Event::Gap { origin, from, upto },
        Arrived::Receipt(_, receipt) => Event::Read(receipt.content),
        // Never handed out.
        Arrived::Unreadable(_) | Arrived::Unknown(_) | Arrived::CaughtUp | Arrived::Ended(_) => {
            return Ok(None);
        }
    };
    Counters::add(&shared.counters.handed_out, 1);
    let careful = offer.is_careful;
    Ok(Some(Delivery::new(event, Some((place, careful)), offer.attempt, shared)))
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

fn cursors(cursors: Vec<(Origin, Position)>) -> Vec<v1::Cursor> {
    cursors
        .into_iter()
        .map(|(origin, position)| v1::Cursor { origin: origin.0, position: position.0 })
        .collect()
}

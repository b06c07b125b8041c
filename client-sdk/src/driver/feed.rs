//! The feed lane: events down, acknowledgements up.
//!
//! The lane is attached while somebody wants events or receipts. The server takes the newest attach of a device for the
//! real one, so a lane that changes its purpose is simply attached again.
//!
//! Invariants: an event is marked as handed out only when its place in the application's queue is reserved, so a lane
//! that is cut off in between loses nothing; a replaced feed is never attached again.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use quail_protocol::frame;
use quail_protocol::id::{AccountId, Origin, Position};
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
use crate::shared::Shared;
use crate::state::Counters;
use crate::{Delivery, Error, Event, Message};

/// Upper ends of the pauses after the server ended the lane for now.
const REATTACH_PAUSE_MIN: Duration = Duration::from_millis(100);
const REATTACH_PAUSE_MAX: Duration = Duration::from_secs(30);

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
    let state = shared.feed.attach(&shared.store, reading).await?;
    let attach = v1::Attach { number: state.attach_number, cursors: cursors(state.cursors) };
    let (stream, reader) = frames::open(link, open::Stream::Feed(attach)).await?;
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
        loop {
            let acks = shared.feed.take_acks();
            if acks.is_empty() {
                break;
            }
            let ack = feed_up::Frame::Ack(v1::Ack { upto: cursors(acks) });
            frame::encode(&v1::FeedUp { frame: Some(ack) }, &mut buffer);
            Counters::add(&shared.counters.acks_written, 1);
        }
        if !buffer.is_empty() {
            stream.write_all(&buffer).await.map_err(write_error)?;
            buffer.clear();
        }
        if finishing {
            finish_lane(stream).await;
            return Ok(());
        }
        tokio::select! {
            () = &mut finish => {}
            () = shared.feed.ack_due() => {}
        }
    }
}

async fn read(
    shared: &Arc<Shared>,
    mut reader: FrameReader,
    events: Option<&mpsc::Sender<Delivery>>,
    backoff: &mut Backoff,
) -> Result<LaneEnd, Error> {
    loop {
        let permit = match events.map(mpsc::Sender::reserve) {
            Some(reserving) => match reserving.await {
                Ok(permit) => Some(permit),
                // The application has dropped its end; `attached` sees that as well and ends the lane.
                Err(_) => std::future::pending().await,
            },
            None => None,
        };
        let delivery = loop {
            let Some(down): Option<v1::FeedDown> = reader.next().await? else {
                return Ok(LaneEnd::Ended(Error::lost("the server ended the feed lane")));
            };
            let delivery = match down.frame {
                Some(feed_down::Frame::Ended(error)) => {
                    return Ok(LaneEnd::Ended(Error::refused(Refusal::from_wire(error))));
                }
                Some(feed_down::Frame::Event(event)) => arrived(shared, &event, permit.is_none())?,
                Some(feed_down::Frame::Gap(gap)) => gap_arrived(shared, &gap, permit.is_none())?,
                Some(feed_down::Frame::CaughtUp(_)) => Some(Delivery::new(Event::CaughtUp, None, shared)),
                // A later version may say more.
                None => None,
            };
            backoff.reset();
            if let Some(delivery) = delivery {
                break delivery;
            }
        };
        if let Some(permit) = permit {
            permit.send(delivery);
        }
    }
}

fn arrived(shared: &Arc<Shared>, event: &v1::Event, hold: bool) -> Result<Option<Delivery>, Error> {
    let message = match &event.body {
        Some(event::Body::Message(message)) => match Message::from_wire(event, message) {
            Ok(message) => Some(message),
            Err(error) => {
                // Unreadable today is unreadable tomorrow: waiting for a better copy would stop the feed for ever.
                tracing::warn!(%error, origin = event.origin, position = event.position, "pass over an event");
                None
            }
        },
        Some(event::Body::Receipt(receipt)) => {
            receipt_arrived(shared, receipt);
            None
        }
        None => None,
    };
    let (origin, position) = (Origin(event.origin), Position(event.position));
    let arrival = match &message {
        Some(message) => Arrival::Message((message.sender, message.id)),
        None => Arrival::Internal,
    };
    let verdict = arrive(shared, origin, position, arrival, hold)?;
    let Some(message) = message.filter(|_| verdict == Verdict::HandOut) else {
        let repeated = matches!(verdict, Verdict::Duplicate | Verdict::Again) && arrival != Arrival::Internal;
        Counters::add(&shared.counters.duplicates_dropped, repeated.into());
        return Ok(None);
    };
    shared.saw(message.stamp);
    Counters::add(&shared.counters.handed_out, 1);
    Ok(Some(Delivery::new(Event::Message(message), Some((origin, position)), shared)))
}

fn gap_arrived(shared: &Arc<Shared>, gap: &v1::Gap, hold: bool) -> Result<Option<Delivery>, Error> {
    let (origin, from, upto) = (Origin(gap.origin), Position(gap.from), Position(gap.upto));
    let verdict = arrive(shared, origin, upto, Arrival::Gap, hold)?;
    if verdict != Verdict::HandOut {
        return Ok(None);
    }
    Counters::add(&shared.counters.handed_out, 1);
    Ok(Some(Delivery::new(Event::Gap { origin, from, upto }, Some((origin, upto)), shared)))
}

fn arrive(
    shared: &Shared,
    origin: Origin,
    position: Position,
    arrival: Arrival,
    hold: bool,
) -> Result<Verdict, Error> {
    let verdict = shared.feed.arrive(origin, position, arrival, hold);
    verdict.map_err(|error| Error::protocol(error.to_string()))
}

fn receipt_arrived(shared: &Shared, receipt: &v1::Receipt) {
    // Every kind that a later version may add lies further along the way than delivered.
    let Ok(account) = AccountId::try_from(receipt.account.as_ref()) else {
        return;
    };
    if receipt.kind >= ReceiptKind::Delivered as i32 {
        let (after, upto) = (Position(receipt.after), Position(receipt.upto));
        shared.feed.receipt(account, Origin(receipt.origin), after, upto);
    }
}

fn cursors(cursors: Vec<(Origin, Position)>) -> Vec<v1::Cursor> {
    cursors
        .into_iter()
        .map(|(origin, position)| v1::Cursor { origin: origin.0, position: position.0 })
        .collect()
}

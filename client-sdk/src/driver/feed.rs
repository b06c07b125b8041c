//! The feed lane: events down, acknowledgements up.
//!
//! The lane is attached while somebody wants events or receipts. The server takes the newest attach of a device for the
//! real one, so a lane that changes its purpose is simply attached again.
//!
//! What arrived together is prepared together: one commit says of all of it that it is about to be handed out. It is taken
//! in together too (`arrivals.rs`), as far as the application has room.
//!
//! Invariants: an event is handed out only after that commit, and marked as handed out only when its place in the
//! application's queue is reserved, so a lane that is cut off in between loses nothing; a replaced feed is never attached
//! again.

use std::collections::VecDeque;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use quail_protocol::frame;
use quail_protocol::id::{Origin, Position};
use quail_protocol::limits::FEED_WINDOW_EVENTS;
use quail_protocol::v1::{self, Reason, feed_up, open};
use quinn::SendStream;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::arrivals::{Arrived, take_in};
use super::part::Part;
use super::{advice, finish_lane};
use crate::backoff::{Backoff, chance};
use crate::feed::Wanted;
use crate::frames::{self, FrameReader, write_error};
use crate::link::Link;
use crate::shared::Shared;
use crate::state::Counters;
use crate::{Delivery, Error};

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
    let changed =
        Part::new(wanted.wait_for(|wanted| wanted.events.is_some() != reading || !wanted.anything()));
    let leaving = shared.finish.child_token();
    let mut writing = Part::new(write(shared, stream, &leaving));
    let dropped = tokio::select! {
        ended = &mut writing => return ended.map(|()| LaneEnd::Finished),
        ended = Part::new(read(shared, reader, events.as_ref(), backoff)) => return ended,
        _ = changed => false,
        () = Part::new(dropped(events.as_ref())) => true,
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
        let mut arrived: VecDeque<_> = Arrived::read(shared, first)?.into_iter().collect();
        while arrived.len() < TOGETHER_MAX
            && let Some(down) = reader.ready()?
        {
            arrived.extend(Arrived::read(shared, down)?);
        }
        // A commit that fails ends the client.
        shared.feed.prepare(arrived.iter().filter_map(Arrived::for_inbox), hold).await;
        while !arrived.is_empty() {
            let Some(events) = events else {
                if let Some(ended) = take_in(shared, &mut arrived, hold, usize::MAX, drop)? {
                    return Ok(LaneEnd::Ended(ended));
                }
                continue;
            };
            // As many places as are free, so that the application need not take much before it is given more.
            let room = events.capacity().clamp(1, arrived.len());
            let Ok(mut places) = events.reserve_many(room).await else {
                // The application has dropped its end; `attached` sees that as well and ends the lane.
                return std::future::pending().await;
            };
            let hand_out = |delivery| {
                if let Some(place) = places.next() {
                    place.send(delivery);
                }
            };
            let ended = take_in(shared, &mut arrived, hold, room, hand_out)?;
            backoff.reset();
            if let Some(ended) = ended {
                return Ok(LaneEnd::Ended(ended));
            }
        }
    }
}

fn cursors(cursors: Vec<(Origin, Position)>) -> Vec<v1::Cursor> {
    cursors
        .into_iter()
        .map(|(origin, position)| v1::Cursor { origin: origin.0, position: position.0 })
        .collect()
}

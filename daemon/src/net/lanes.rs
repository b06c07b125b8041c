//! The two lanes of a connection: what waits on them, what may still be read, how they end.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use quail_core::Command;
use quail_protocol::id::{Origin, Position};
use quail_protocol::limits::{
    FEED_WINDOW_BYTES, FRAME_BYTES_MAX, OPEN_BYTES_MAX, READS_UNANSWERED_MAX, SENDS_UNANSWERED_MAX,
};
use quail_protocol::v1::{self, feed_down, feed_up, publish_down};
use quail_protocol::{frame, v1::Reason};
use quinn::WriteError;
use tokio::time::Instant;

use super::hold::unless_held;
use super::lane::{LaneReader, LaneWriter, ReadLaneError};
use crate::delivery::{Down, FeedItem};
use crate::gateway::BATCH_COMMANDS_MAX;
use crate::ops::metrics::Held;

/// Most bytes that wait to be written to a feed whose client reads it: a full window and one event more.
const FEED_WAITING_MAX: usize = FEED_WINDOW_BYTES + FRAME_BYTES_MAX;

/// A lane; at most one of each kind per connection.
pub(super) struct Lane {
    reader: Option<LaneReader>,
    writer: Option<LaneWriter>,
    /// Counts the lane while it is open.
    _held: Held,
}

/// The lanes of one connection.
#[derive(Default)]
pub(super) struct Lanes {
    publish: Option<Lane>,
    feed: Option<Lane>,
    /// The attach number of the feed lane; what is for another one is dropped.
    feed_number: u64,
    /// Since when the feed waits for an acknowledgement, without which nothing more is written to it.
    feed_stalled_since: Option<Instant>,
    /// Sends handed over and not yet answered.
    unanswered: usize,
    /// Marks of what was read that were handed over on this feed and not yet answered.
    reads_unanswered: usize,
}

/// Frames that came up a lane; empty at its end.
pub(super) enum Up {
    Publish(Vec<v1::PublishUp>),
    Feed(Vec<v1::FeedUp>),
}

impl Up {
    /// Returns whether the client has finished its side of the lane.
    pub(super) fn is_end(&self) -> bool {
        match self {
            Self::Publish(frames) => frames.is_empty(),
            Self::Feed(frames) => frames.is_empty(),
        }
    }
}

impl Lanes {
    pub(super) fn has_publish(&self) -> bool {
        self.publish.is_some()
    }

    pub(super) fn open_publish(&mut self, reader: LaneReader, writer: LaneWriter, held: Held) {
        self.publish = Some(Lane { reader: Some(reader), writer: Some(writer), _held: held });
    }

    /// Opens the feed lane and returns the writer of the one it replaces, with its last frame waiting.
    pub(super) fn open_feed(
        &mut self,
        number: u64,
        reader: LaneReader,
        writer: LaneWriter,
        held: Held,
    ) -> Option<LaneWriter> {
        self.end_feed(Reason::Replaced.error());
        (self.feed_number, self.reads_unanswered) = (number, 0);
        let newer = Lane { reader: Some(reader), writer: Some(writer), _held: held };
        self.feed.replace(newer).and_then(|older| older.writer)
    }

    /// Returns the attach number of the feed lane.
    pub(super) fn feed_number(&self) -> u64 {
        self.feed_number
    }

    /// Waits until frames came up a lane or what waited on one is written. Sends are read only as far as their answers have
    /// room, and not at all while `holds` says so. Cancel safe.
    pub(super) async fn turn(&mut self, holds: impl FnMut() -> bool) -> Result<Option<Up>, ReadLaneError> {
        let room = SENDS_UNANSWERED_MAX.saturating_sub(self.unanswered).min(BATCH_COMMANDS_MAX);
        let (mut publish_reader, publish_writer) = split(&mut self.publish);
        let (feed_reader, feed_writer) = split(&mut self.feed);
        if room == 0 || publish_writer.as_ref().is_some_and(|writer| writer.is_backed_up()) {
            publish_reader = None;
        }
        let may_publish = publish_reader.is_some();
        let written = tokio::select! {
            // What is written makes room for what is read; and acknowledgements, which make room too, come before sends.
            biased;
            written = flush(publish_writer) => (written, &mut self.publish),
            written = flush(feed_writer) => (written, &mut self.feed),
            frames = frames(feed_reader, BATCH_COMMANDS_MAX, OPEN_BYTES_MAX) => {
                return frames.map(|frames| Some(Up::Feed(frames)));
            }
            frames = unless_held(holds, frames(publish_reader, room, FRAME_BYTES_MAX)), if may_publish => {
                return frames.map(|frames| Some(Up::Publish(frames)));
            }
        };
        if let (Err(_), Some(lane)) = written {
            // The peer reset this half: it wants nothing more of it.
            lane.writer = None;
        }
        Ok(None)
    }

    /// Writes what there is room for now, without waiting.
    pub(super) async fn try_flush(&mut self) {
        for lane in [&mut self.publish, &mut self.feed] {
            let (_, writer) = split(lane);
            // A failed write is found again, and dealt with, when the lane is waited for.
            tokio::select! {
                biased;
                _ = flush(writer) => {}
                () = std::future::ready(()) => {}
            }
        }
    }

    /// Returns since when something waits on a lane without any progress: bytes of which the peer took none, or a feed of which
    /// it acknowledged nothing.
    pub(super) fn stuck_since(&mut self) -> Option<Instant> {
        let writers = [&mut self.publish, &mut self.feed].into_iter().flatten();
        let stuck = writers.filter_map(|lane| lane.writer.as_mut()?.stuck_since());
        stuck.chain(self.feed_stalled_since).min()
    }

    /// Takes note of sends that are handed over.
    pub(super) fn handed_over(&mut self, commands: &[Command]) {
        self.unanswered += commands.iter().filter(|command| matches!(command, Command::Send(_))).count();
    }

    /// Takes note of marks that are about to be handed over, or returns why they cannot be: too many are without an answer, or
    /// the peer does not read the answers.
    pub(super) fn count_reads(&mut self, frames: &[v1::FeedUp]) -> Result<(), Reason> {
        let is_read = |up: &&v1::FeedUp| matches!(up.frame, Some(feed_up::Frame::Read(_)));
        let reads = frames.iter().filter(is_read).count();
        self.reads_unanswered += reads;
        let (_, writer) = split(&mut self.feed);
        let is_unread = reads > 0 && writer.is_some_and(|writer| writer.waiting_bytes() > FEED_WAITING_MAX);
        if self.reads_unanswered > READS_UNANSWERED_MAX || is_unread { Err(Reason::Limit) } else { Ok(()) }
    }

    pub(super) fn unanswered(&self) -> usize {
        self.unanswered
    }

    /// Queues what one push of the mailbox brought, or returns the reason to close the connection.
    pub(super) fn push(&mut self, downs: Vec<Down>, origin: Origin) -> Result<(), Reason> {
        let (mut answers, mut small) = (BytesMut::new(), BytesMut::new());
        for down in downs {
            match down {
                Down::Accepted(accepted) => {
                    self.unanswered = self.unanswered.saturating_sub(1);
                    let accepted = v1::Accepted {
                        number: accepted.number,
                        origin: accepted.origin.0,
                        position: accepted.position.0,
                        stamp: accepted.stamp.0,
                    };
                    let answer = v1::PublishDown { frame: Some(publish_down::Frame::Accepted(accepted)) };
                    frame::encode(&answer, &mut answers);
                }
                Down::Refused { number, error } => {
                    self.unanswered = self.unanswered.saturating_sub(1);
                    let refused = v1::Refused { number, error: Some(error) };
                    let answer = v1::PublishDown { frame: Some(publish_down::Frame::Refused(refused)) };
                    frame::encode(&answer, &mut answers);
                }
                Down::Feed(number, item) if number == self.feed_number => {
                    self.push_feed(item, origin, &mut small);
                }
                // The connection has attached anew since.
                Down::Feed(..) => {}
                Down::Close(reason) => return Err(reason),
            }
        }
        put(&mut self.publish, answers.freeze());
        put(&mut self.feed, small.freeze());
        Ok(())
    }

    /// Queues a signal, unless bytes wait already that the peer does not take, and returns whether it did.
    pub(super) fn push_signal(&mut self, signal: v1::Signal) -> bool {
        let (_, writer) = split(&mut self.feed);
        let has_room = writer.is_some_and(|writer| !writer.is_backed_up());
        if has_room {
            let down = v1::FeedDown { frame: Some(feed_down::Frame::Signal(signal)) };
            put(&mut self.feed, frame::to_bytes(&down));
        }
        has_room
    }

    /// Small frames gather in `small`; an event goes out as the bytes that everybody shares.
    fn push_feed(&mut self, item: FeedItem, origin: Origin, small: &mut BytesMut) {
        let down = match item {
            FeedItem::Event(event) => {
                put(&mut self.feed, small.split().freeze());
                return put(&mut self.feed, event.frame.clone());
            }
            FeedItem::Gap { from, upto } => {
                feed_down::Frame::Gap(v1::Gap { origin: origin.0, from: from.0, upto: upto.0 })
            }
            FeedItem::OriginGone { origin, from } => {
                feed_down::Frame::Gap(v1::Gap { origin: origin.0, from: from.0, upto: Position::END.0 })
            }
            FeedItem::CaughtUp => feed_down::Frame::CaughtUp(v1::CaughtUp {}),
            FeedItem::Stalled(stalled) => {
                self.feed_stalled_since = stalled.then(Instant::now);
                return;
            }
            FeedItem::ReadAnswer(error) => {
                self.reads_unanswered = self.reads_unanswered.saturating_sub(1);
                feed_down::Frame::Read(v1::ReadAnswer { error })
            }
            FeedItem::Ended(error) => {
                put(&mut self.feed, small.split().freeze());
                return self.end_feed(error);
            }
        };
        frame::encode(&v1::FeedDown { frame: Some(down) }, small);
    }

    /// Ends the feed with its last frame; nothing more is read from it or written to it.
    pub(super) fn end_feed(&mut self, error: v1::Error) {
        self.feed_stalled_since = None;
        let reason = error.reason();
        let ended = v1::FeedDown { frame: Some(feed_down::Frame::Ended(error)) };
        put(&mut self.feed, frame::to_bytes(&ended));
        if let Some(lane) = &mut self.feed {
            if let Some(mut reader) = lane.reader.take() {
                reader.stop(reason);
            }
            if let Some(writer) = &mut lane.writer {
                writer.finish_when_written();
            }
        }
    }

    /// Takes note that the client has finished its side of a lane. Its answers still go out.
    pub(super) fn close_reader(&mut self, up: &Up) {
        let lane = match up {
            Up::Publish(_) => &mut self.publish,
            Up::Feed(_) => &mut self.feed,
        };
        if let Some(lane) = lane {
            lane.reader = None;
        }
    }

    /// Reads no more and writes out what waits, until the peer has it or `patience` is over.
    pub(super) async fn finish(self, patience: Duration) {
        let writers = [self.publish, self.feed].map(|lane| lane.and_then(|lane| lane.writer));
        let [publish, feed] = writers.map(async |writer| {
            if let Some(writer) = writer {
                writer.finish(patience).await;
            }
        });
        tokio::join!(publish, feed);
    }
}

fn split(lane: &mut Option<Lane>) -> (Option<&mut LaneReader>, Option<&mut LaneWriter>) {
    match lane {
        Some(lane) => (lane.reader.as_mut(), lane.writer.as_mut()),
        None => (None, None),
    }
}

fn put(lane: &mut Option<Lane>, bytes: Bytes) {
    if let Some(writer) = lane.as_mut().and_then(|lane| lane.writer.as_mut()).filter(|_| !bytes.is_empty()) {
        writer.push(bytes);
    }
}

async fn frames<M: prost::Message + Default>(
    reader: Option<&mut LaneReader>,
    frames_max: usize,
    bytes_max: usize,
) -> Result<Vec<M>, ReadLaneError> {
    match reader {
        Some(reader) => reader.frames(frames_max, bytes_max).await,
        None => std::future::pending().await,
    }
}

async fn flush(writer: Option<&mut LaneWriter>) -> Result<(), WriteError> {
    match writer.filter(|writer| writer.has_waiting()) {
        Some(writer) => writer.flush().await,
        None => std::future::pending().await,
    }
}

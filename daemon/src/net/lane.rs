//! Reading frames from a stream and writing bytes to one, without ever blocking the connection's task on either.
//!
//! Both sides are cancel safe: what was read or is still to be written lies in the struct, not in the future, so the task
//! can wait for many things at once and drop the waits that lost.

use std::collections::VecDeque;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use prost::Message;
use quail_protocol::error::close;
use quail_protocol::frame::{self, FrameError};
use quail_protocol::limits::FRAME_TIMEOUT;
use quail_protocol::v1::Reason;
use quinn::{ReadError, RecvStream, SendStream, VarInt, WriteError};
use tokio::time::Instant;

/// Most bytes taken from a stream at once.
const READ_BYTES_MAX: usize = 64 * 1024;

/// Most chunks, of a packet each, taken from a stream after the first one. With that many there is enough to do.
const MORE_CHUNKS_MAX: usize = 31;

/// Most chunks handed to quinn in one write.
const WRITE_CHUNKS_MAX: usize = 64;

/// The receiving half of a stream, as frames.
pub(super) struct LaneReader {
    stream: RecvStream,
    buffer: BytesMut,
    /// When the first bytes of an unfinished frame arrived.
    unfinished_since: Option<Instant>,
}

/// Why no more frames come.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReadLaneError {
    /// The peer sent what is no frame of this stream.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// The peer let a frame hang.
    #[error("a frame did not arrive within {} s", FRAME_TIMEOUT.as_secs())]
    Timeout,
    /// The stream or its connection is gone.
    #[error(transparent)]
    Gone(#[from] ReadError),
}

impl ReadLaneError {
    /// Returns what the peer is told.
    pub(super) fn reason(&self) -> Reason {
        match self {
            Self::Frame(FrameError::TooLarge { .. }) => Reason::FrameTooLarge,
            Self::Frame(
                FrameError::OverlongPrefix | FrameError::TooManyFields | FrameError::Malformed(_),
            ) => Reason::Malformed,
            Self::Timeout => Reason::FrameTimeout,
            Self::Gone(_) => Reason::Internal,
        }
    }
}

impl LaneReader {
    pub(super) fn new(stream: RecvStream) -> Self {
        Self { stream, buffer: BytesMut::new(), unfinished_since: None }
    }

    /// Waits for frames and returns all that are there, at most `frames_max`; none at the clean end of the stream.
    /// Cancel safe.
    pub(super) async fn frames<M: Message + Default>(
        &mut self,
        frames_max: usize,
        bytes_max: usize,
    ) -> Result<Vec<M>, ReadLaneError> {
        loop {
            let mut frames = Vec::new();
            while frames.len() < frames_max {
                let Some(message) = frame::decode(&mut self.buffer, bytes_max)? else { break };
                frames.push(message);
            }
            if self.buffer.is_empty() || !frames.is_empty() {
                self.unfinished_since = None;
            }
            if !frames.is_empty() {
                return Ok(frames);
            }
            if !self.fill().await? {
                return Ok(frames);
            }
        }
    }

    /// Tells the peer why nothing more is read.
    pub(super) fn stop(&mut self, reason: Reason) {
        // Fails only if the stream is gone already.
        let _ = self.stream.stop(VarInt::from_u32(close::code(reason)));
    }

    /// Returns whether bytes came.
    async fn fill(&mut self) -> Result<bool, ReadLaneError> {
        let chunk = if self.buffer.is_empty() {
            self.stream.read_chunk(READ_BYTES_MAX, true).await?
        } else {
            let since = *self.unfinished_since.get_or_insert_with(Instant::now);
            let read = self.stream.read_chunk(READ_BYTES_MAX, true);
            tokio::time::timeout_at(since + FRAME_TIMEOUT, read)
                .await
                .map_err(|_| ReadLaneError::Timeout)??
        };
        let Some(chunk) = chunk else { return Ok(false) };
        self.buffer.extend_from_slice(&chunk.bytes);
        self.take_more();
        Ok(true)
    }

    /// Takes what else has arrived, so that what came in many packets is handed on as one batch. An end or an error among it
    /// is met again by the next read.
    fn take_more(&mut self) {
        let mut chunks = [const { Bytes::new() }; MORE_CHUNKS_MAX];
        let read = {
            let read = pin!(self.stream.read_chunks(&mut chunks));
            // Nobody is woken for what is not there yet: the next read asks for that.
            read.poll(&mut Context::from_waker(Waker::noop()))
        };
        if let Poll::Ready(Ok(Some(read))) = read {
            let chunks = &chunks[..read.min(MORE_CHUNKS_MAX)];
            self.buffer.reserve(chunks.iter().map(Bytes::len).sum());
            chunks.iter().for_each(|chunk| self.buffer.extend_from_slice(chunk));
        }
    }
}

/// The sending half of a stream, with what waits to be written.
///
/// Who fills it bounds it: the feed by the window of unacknowledged events, the publish lane by reading no further sends
/// while [`is_backed_up`](Self::is_backed_up).
pub(super) struct LaneWriter {
    stream: SendStream,
    waiting: VecDeque<Bytes>,
    waiting_bytes: usize,
    /// Since when none of what waits could be written, as far as anybody asked.
    stuck_since: Option<Instant>,
    finish: bool,
}

/// From how many waiting bytes on a lane takes no more commands that would be answered on it.
const BACKED_UP_BYTES: usize = 16 * 1024;

impl LaneWriter {
    pub(super) fn new(stream: SendStream) -> Self {
        Self { stream, waiting: VecDeque::new(), waiting_bytes: 0, stuck_since: None, finish: false }
    }

    /// Queues bytes, unless the last ones are queued already.
    pub(super) fn push(&mut self, bytes: Bytes) {
        if self.finish {
            return;
        }
        self.waiting_bytes += bytes.len();
        self.waiting.push_back(bytes);
    }

    pub(super) fn has_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    pub(super) fn waiting_bytes(&self) -> usize {
        self.waiting_bytes
    }

    /// Ends the stream once everything that waits is written.
    pub(super) fn finish_when_written(&mut self) {
        self.finish = true;
    }

    pub(super) fn is_backed_up(&self) -> bool {
        self.waiting_bytes > BACKED_UP_BYTES
    }

    /// Returns since when something waits of which nothing could be written. What is found waiting for the first time waits
    /// since now, so that the clock is left alone while everything is written at once.
    pub(super) fn stuck_since(&mut self) -> Option<Instant> {
        self.has_waiting().then(|| *self.stuck_since.get_or_insert_with(Instant::now))
    }

    /// Writes until nothing waits. Cancel safe.
    pub(super) async fn flush(&mut self) -> Result<(), WriteError> {
        while !self.waiting.is_empty() {
            let chunks = self.waiting.make_contiguous();
            let batch = chunks.len().min(WRITE_CHUNKS_MAX);
            let written = self.stream.write_chunks(&mut chunks[..batch]).await?;
            self.waiting_bytes -= written.bytes;
            self.waiting.drain(..written.chunks);
            self.stuck_since = self.has_waiting().then(Instant::now);
        }
        if self.finish {
            // Fails only if the stream has ended already.
            let _ = self.stream.finish();
        }
        Ok(())
    }

    /// Drops what waits and ends the stream with a reason as its code.
    pub(super) fn reset(mut self, reason: Reason) {
        // Fails only if the stream is gone already.
        let _ = self.stream.reset(VarInt::from_u32(close::code(reason)));
    }

    /// Writes what waits, ends the stream and waits until the peer has it all, at most `patience`.
    pub(super) async fn finish(mut self, patience: Duration) {
        let finished = async {
            self.finish = true;
            if self.flush().await.is_ok() {
                // Whatever comes back, the peer has it or is gone.
                let _ = self.stream.stopped().await;
            }
        };
        // A peer that does not take it in time gets it again: what was not acknowledged is never forgotten.
        let _ = tokio::time::timeout(patience, finished).await;
    }
}

//! Frames on QUIC streams: typed reads and writes, and what the errors of streams mean.
//!
//! Invariants: no frame longer than [`FRAME_BYTES_MAX`] is reserved for; reading is cancel-safe, because bytes that
//! arrived stay in the reader's buffer; after an error a stream is finished with.

use bytes::BytesMut;
use prost::Message;
use quail_protocol::error::close;
use quail_protocol::frame::{self, FrameError};
use quail_protocol::limits::{FRAME_BYTES_MAX, OPEN_BYTES_MAX};
use quail_protocol::v1::{self, open};
use quinn::{ConnectionError, ReadError, RecvStream, SendStream, VarInt, WriteError};

use crate::Error;
use crate::error::Refusal;
use crate::link::Link;

/// Longest piece taken from a stream at once, in bytes.
const READ_BYTES_MAX: usize = 64 * 1024;

/// Reads the frames of one stream.
#[derive(Debug)]
pub(crate) struct FrameReader {
    stream: RecvStream,
    buffer: BytesMut,
}

impl FrameReader {
    pub(crate) fn new(stream: RecvStream) -> Self {
        Self { stream, buffer: BytesMut::new() }
    }

    /// Waits for the next frame; `None` after the last one.
    pub(crate) async fn next<M: Message + Default>(&mut self) -> Result<Option<M>, Error> {
        loop {
            if let Some(message) = self.ready()? {
                return Ok(Some(message));
            }
            let Some(chunk) = self.stream.read_chunk(READ_BYTES_MAX, true).await.map_err(read_error)? else {
                return match self.buffer.is_empty() {
                    true => Ok(None),
                    false => Err(Error::protocol("a stream ended inside a frame")),
                };
            };
            self.buffer.extend_from_slice(&chunk.bytes);
        }
    }

    /// Returns the next frame if all of it has been read already.
    pub(crate) fn ready<M: Message + Default>(&mut self) -> Result<Option<M>, Error> {
        frame::decode(&mut self.buffer, FRAME_BYTES_MAX).map_err(|error| frame_error(&error))
    }

    /// Waits for the only frame of a stream.
    pub(crate) async fn only<M: Message + Default>(&mut self) -> Result<M, Error> {
        self.next().await?.ok_or_else(|| Error::protocol("a stream ended without an answer"))
    }
}

/// Opens a stream and writes the frame that says what it is.
pub(crate) async fn open(link: &Link, stream: open::Stream) -> Result<(SendStream, FrameReader), Error> {
    let first = v1::Open { stream: Some(stream) };
    let len = first.encoded_len();
    if len > OPEN_BYTES_MAX {
        return Err(Error::RequestTooLarge { len, max: OPEN_BYTES_MAX });
    }
    let (mut send, receive) = link.open_bi().await.map_err(|error| connection_error(&error))?;
    send.write_all(&frame::to_bytes(&first)).await.map_err(write_error)?;
    Ok((send, FrameReader::new(receive)))
}

/// Opens a stream, writes its only frame and finishes this side of it.
pub(crate) async fn open_and_finish(link: &Link, stream: open::Stream) -> Result<FrameReader, Error> {
    let (mut send, reader) = open(link, stream).await?;
    finish(&mut send);
    Ok(reader)
}

/// Says that nothing more will be written.
pub(crate) fn finish(stream: &mut SendStream) {
    // Fails only if the stream is finished or reset already, and then there is nothing to say.
    let _ = stream.finish();
}

/// Reads the meaning out of the end of a connection.
pub(crate) fn connection_error(error: &ConnectionError) -> Error {
    match error {
        ConnectionError::ApplicationClosed(closed) => match close::reason(closed.error_code.into_inner()) {
            Some(reason) => Error::refused(Refusal::from_close(reason, &closed.reason)),
            None => Error::lost("the server closed it"),
        },
        other => Error::lost(other.to_string()),
    }
}

/// Reads the meaning out of a failed write.
pub(crate) fn write_error(error: WriteError) -> Error {
    match error {
        WriteError::ConnectionLost(error) => connection_error(&error),
        WriteError::Stopped(code) => stream_code(code, "the server stopped a stream"),
        other => Error::lost(other.to_string()),
    }
}

fn read_error(error: ReadError) -> Error {
    match error {
        ReadError::ConnectionLost(error) => connection_error(&error),
        ReadError::Reset(code) => stream_code(code, "the server reset a stream"),
        other => Error::lost(other.to_string()),
    }
}

fn stream_code(code: VarInt, what: &str) -> Error {
    match close::reason(code.into_inner()) {
        Some(reason) => Error::refused(Refusal::from_close(reason, &[])),
        None => Error::lost(what),
    }
}

fn frame_error(error: &FrameError) -> Error {
    Error::protocol(error.to_string())
}

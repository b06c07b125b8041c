//! How a stream begins, and the two kinds that end with one answer: hello and request.

use std::sync::Arc;
use std::time::Duration;

use quail_core::ConnectionId;
use quail_core::ports::directory::SessionFacts;
use quail_protocol::v1::{self, Reason, open::Stream};
use quail_protocol::{frame, limits};
use quinn::{RecvStream, SendStream};
use tokio::sync::mpsc;

use super::lane::{LaneReader, LaneWriter, ReadLaneError};
use super::requests::RequestStep;
use crate::gateway::{Gateway, Prefix, SessionChange};
use crate::ops::metrics::Held;

/// How long an answer may take to be taken by the peer.
const ANSWER_PATIENCE: Duration = Duration::from_secs(10);

/// A stream after its first frame.
pub(super) struct Opened {
    pub(super) stream: Stream,
    pub(super) reader: LaneReader,
    pub(super) writer: LaneWriter,
}

/// What frames the client of a stream reads.
#[derive(Clone, Copy, Debug)]
pub(super) enum Shape {
    Hello,
    Publish,
    Feed,
    Request,
}

impl Opened {
    /// Tells the client in the frames of this stream why it is of no use.
    pub(super) fn refuse(self, reason: Reason) -> impl Future<Output = ()> + Send + 'static {
        let shape = match self.stream {
            Stream::Hello(_) => Shape::Hello,
            Stream::Publish(_) => Shape::Publish,
            Stream::Feed(_) => Shape::Feed,
            Stream::Request(_) => Shape::Request,
        };
        shape.refuse(self.reader, self.writer, reason.error())
    }
}

impl Shape {
    /// Ends a stream with an error in the frames that its client expects.
    pub(super) async fn refuse(self, mut reader: LaneReader, mut writer: LaneWriter, error: v1::Error) {
        reader.stop(error.reason());
        writer.push(match self {
            Self::Hello => {
                frame::to_bytes(&v1::HelloReply { result: Some(v1::hello_reply::Result::Error(error)) })
            }
            Self::Publish => {
                let refused = v1::Refused { number: 0, error: Some(error) };
                frame::to_bytes(&v1::PublishDown { frame: Some(v1::publish_down::Frame::Refused(refused)) })
            }
            Self::Feed => frame::to_bytes(&v1::FeedDown { frame: Some(v1::feed_down::Frame::Ended(error)) }),
            Self::Request => {
                frame::to_bytes(&v1::Response { result: Some(v1::response::Result::Error(error)) })
            }
        });
        writer.finish(ANSWER_PATIENCE).await;
    }
}

/// Returns whether the refusal of a request is taken from the budget of its connection: what a client that keeps to its
/// limits and knows its password does not meet again and again. What is wrong with a handle or an id is for people to try.
fn is_charged(refused: Reason) -> bool {
    matches!(
        refused,
        Reason::RateLimited
            | Reason::WrongCredentials
            | Reason::WrongFrame
            | Reason::Unauthenticated
            | Reason::Malformed
    )
}

/// Reads the first frame of a stream.
///
/// # Errors
/// The stream is of no use. It has been reset, with the reason as its code, because nobody knows what frames its client
/// would understand.
pub(super) async fn open(send: SendStream, recv: RecvStream) -> Result<Opened, Reason> {
    let (mut reader, writer) = (LaneReader::new(recv), LaneWriter::new(send));
    let first =
        tokio::time::timeout(limits::FRAME_TIMEOUT, reader.frames::<v1::Open>(1, limits::OPEN_BYTES_MAX))
            .await;
    let reason = match first.unwrap_or(Err(ReadLaneError::Timeout)) {
        Ok(mut frames) => match frames.pop().and_then(|open| open.stream) {
            Some(stream) => return Ok(Opened { stream, reader, writer }),
            None => Reason::WrongFrame,
        },
        Err(error) => {
            tracing::debug!(%error, "stream did not open");
            error.reason()
        }
    };
    reader.stop(reason);
    writer.reset(reason);
    Err(reason)
}

/// Answers a hello and returns the session it opened, if any.
///
/// # Errors
/// The reason to close the connection; the client has been told.
pub(super) async fn hello(
    gateway: &Gateway,
    hello: &v1::Hello,
    mut writer: LaneWriter,
) -> Result<Option<SessionFacts>, Reason> {
    let (result, decided) = match gateway.hello(hello).await {
        Ok((welcome, session)) => (v1::hello_reply::Result::Welcome(welcome), Ok(session)),
        Err(error) => {
            let reason = error.reason();
            tracing::debug!(reason = reason.as_str_name(), "hello refused");
            (v1::hello_reply::Result::Error(error), Err(reason))
        }
    };
    writer.push(frame::to_bytes(&v1::HelloReply { result: Some(result) }));
    if decided.is_err() {
        writer.finish(ANSWER_PATIENCE).await;
        return decided;
    }
    // After a welcome there is nothing to wait for: the client goes on when it likes. One with very small windows takes it
    // bit by bit.
    writer.finish_when_written();
    let written = tokio::select! {
        biased;
        _ = writer.flush() => true,
        () = std::future::ready(()) => false,
    };
    if !written {
        gateway.requests().spawn(writer.finish(ANSWER_PATIENCE));
    }
    decided
}

/// Carries out a request on a task that outlives the connection, and tells the connection of its steps.
pub(super) fn request(
    gateway: &Arc<Gateway>,
    (connection, prefix): (ConnectionId, Prefix),
    request: v1::Request,
    session: Option<SessionFacts>,
    (reader, mut writer): (LaneReader, LaneWriter),
    steps: mpsc::Sender<RequestStep>,
) {
    let tracker = gateway.requests().clone();
    let gateway = gateway.clone();
    let held = Held::new(&gateway.metrics().requests);
    tracker.spawn(async move {
        let _held = held;
        let refused = match request.command {
            Some(asked) => {
                let requested = gateway.request(connection, asked, session, prefix).await;
                let refused = requested.refused();
                if let SessionChange::Opened(session) = requested.change {
                    // A connection that is gone needs no session.
                    let _ = steps.send(RequestStep::Opened(Box::new(session))).await;
                }
                let _ = steps.send(RequestStep::Decided).await;
                writer.push(frame::to_bytes(&requested.response));
                writer.finish(ANSWER_PATIENCE).await;
                drop(reader);
                refused
            }
            None => {
                gateway.refusals().count(Reason::WrongFrame);
                let _ = steps.send(RequestStep::Decided).await;
                Shape::Request.refuse(reader, writer, Reason::WrongFrame.error()).await;
                Some(Reason::WrongFrame)
            }
        };
        let _ = steps.send(RequestStep::Answered { charged: refused.is_some_and(is_charged) }).await;
    });
}

//! The publish lane: messages up, answers down.
//!
//! All that is queued when the lane gets to write leaves in one write; all answers that arrived together are taken in
//! together. So under load the work per message is encoding and decoding, not waking up.
//!
//! Invariant: what may be written when is decided by the queue; this file only moves bytes.

use std::pin::pin;
use std::sync::Arc;

use bytes::BytesMut;
use quail_protocol::id::{Origin, Position, Stamp};
use quail_protocol::v1::{self, Reason, open, publish_down};
use quinn::SendStream;

use super::finish_lane;
use super::part::Part;
use crate::error::Refusal;
use crate::frames::{self, FrameReader, write_error};
use crate::link::Link;
use crate::publish::queue::Next;
use crate::publish::{Answer, Decided};
use crate::shared::Shared;
use crate::state::Counters;
use crate::{Accepted, Error};

/// How many bytes of messages are gathered for one write; one message more may go over it.
const WRITE_BYTES: usize = 64 * 1024;

/// Runs the lane until it fails or the client is to end.
pub(super) async fn run(shared: &Arc<Shared>, link: &Link) -> Result<(), Error> {
    let _open = Open::new(shared);
    let (stream, reader) = frames::open(link, open::Stream::Publish(v1::OpenPublish {})).await?;
    tokio::select! {
        ended = Part::new(write(shared, stream)) => ended,
        ended = Part::new(read(shared, reader)) => ended,
    }
}

/// While it lives, what is queued is committed as tried, and written.
struct Open<'a>(&'a Shared);

impl<'a> Open<'a> {
    fn new(shared: &'a Shared) -> Self {
        shared.publish.lane_opened();
        Self(shared)
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.publish.lane_closed();
    }
}

async fn write(shared: &Shared, mut stream: SendStream) -> Result<(), Error> {
    let mut finishing = pin!(shared.finish.cancelled());
    let mut buffer = BytesMut::new();
    loop {
        let (filled, next) = shared.publish.fill(&mut buffer, WRITE_BYTES, shared.seen());
        if !buffer.is_empty() {
            Counters::add(&shared.counters.publish_writes, 1);
            Counters::add(&shared.counters.resent, filled.resent as u64);
            stream.write_all(&buffer).await.map_err(write_error)?;
            buffer.clear();
        }
        tokio::select! {
            biased;
            () = &mut finishing => break,
            () = ready(shared, next) => {}
        }
    }
    finish_lane(stream).await;
    Ok(())
}

/// Waits until there may be something to write.
async fn ready(shared: &Shared, next: Next) {
    match next {
        Next::Write => {}
        Next::Wait => shared.publish.writable().await,
        Next::Pause(until) => tokio::select! {
            () = shared.publish.writable() => {}
            () = tokio::time::sleep_until(until.into()) => {}
        },
    }
}

async fn read(shared: &Shared, mut reader: FrameReader) -> Result<(), Error> {
    loop {
        let mut next: Option<v1::PublishDown> = reader.next().await?;
        if next.is_none() {
            return Err(Error::lost("the server ended the publish lane"));
        }
        let mut answers = Vec::new();
        while let Some(down) = next {
            match down.frame {
                Some(publish_down::Frame::Accepted(accepted)) => answers.push(accepted_answer(&accepted)),
                // Number zero is the lane itself.
                Some(publish_down::Frame::Refused(refused)) if refused.number == 0 => {
                    return Err(Error::refused(refusal(refused).of_connection()));
                }
                Some(publish_down::Frame::Refused(refused)) => {
                    let number = refused.number;
                    answers.push(Answer::Refused(number, refusal(refused)));
                }
                // A later version may say more.
                None => {}
            }
            next = reader.ready()?;
        }
        let answered = shared.publish.answered(answers);
        if answered.forget_seen {
            shared.forget_seen();
        }
        answered.decided.into_iter().for_each(|decided| settle(shared, decided));
        shared.publish.announce();
        answered.fits?;
        if let Some(refusal) = answered.session_ended {
            return Err(Error::Refused(refusal));
        }
    }
}

fn accepted_answer(accepted: &v1::Accepted) -> Answer {
    let v1::Accepted { number, origin, position, stamp } = *accepted;
    Answer::Accepted(
        number,
        Accepted { origin: Origin(origin), position: Position(position), stamp: Stamp(stamp) },
    )
}

fn refusal(refused: v1::Refused) -> Refusal {
    Refusal::from_wire(refused.error.unwrap_or_else(|| Reason::Internal.error()))
}

fn settle(shared: &Shared, decided: Decided) {
    if let Ok(accepted) = &decided.outcome {
        Counters::add(&shared.counters.accepted, 1);
        shared.saw(accepted.stamp);
        shared.recent.accepted_as(shared.credentials.account, &decided.sent, *accepted);
    }
    // Without a handle nobody asks what became of it.
    let Some(ticket) = decided.ticket else { return };
    if let Ok(accepted) = &decided.outcome {
        match decided.recipient {
            Some(recipient) => shared.feed.watch(&ticket, recipient, accepted),
            None => ticket.unwatched(),
        }
    }
    ticket.decide(decided.outcome);
}

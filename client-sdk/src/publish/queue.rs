//! The queue of sends that have no answer yet: a state machine without IO.
//!
//! A send stays here, in the order of its number, until the server has accepted or refused it for good. The lane reads
//! frames to write out of it and tells it the answers. What makes it more than a list:
//!
//! - Nothing is written that was not committed as tried before: what is behind may still be edited and cancelled. Answers
//!   that were not committed count as unanswered, so that whatever is sent again after a crash is in the server's window.
//! - A new lane begins from the front: everything unanswered is written again under the same number and id.
//! - After a temporary refusal the server refuses all that was written behind it. Once these answers are in and the
//!   pause is over, a `Restart` is written and the queue goes on from the refused send.
//!
//! Invariants: at most `window` sends are written and their answers not committed; answers come in the order of the writes, anything
//! else is the server's fault; a send leaves the queue exactly once.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use quail_protocol::frame;
use quail_protocol::id::{AccountId, MessageId};
use quail_protocol::limits::SENDS_UNANSWERED_MAX;
use quail_protocol::v1::{self, publish_up};

use super::wire;
use crate::backoff::Backoff;
use crate::ids::IdMap;

/// Upper end of the first and of the longest pause after temporary refusals that come without advice.
const REFUSAL_PAUSE_MIN: Duration = Duration::from_millis(100);
const REFUSAL_PAUSE_MAX: Duration = Duration::from_secs(10);

/// Longest advice that is followed. A server that says more is wrong about itself.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(300);

/// A message to be sent.
#[derive(Clone, Debug)]
pub(crate) struct Outgoing {
    pub(crate) id: MessageId,
    pub(crate) recipient: AccountId,
    pub(crate) kind: i32,
    pub(crate) body: Bytes,
    /// The fields of the send behind its body, as they travel; nothing for most messages.
    pub(crate) extra: Bytes,
}

impl Outgoing {
    /// How many bytes it has that somebody wrote.
    pub(crate) fn len(&self) -> usize {
        self.body.len() + self.extra.len()
    }
}

/// A send in the queue; `T` is whatever waits for its answer.
#[derive(Debug)]
pub(crate) struct Queued<T> {
    pub(crate) number: u64,
    pub(crate) message: Outgoing,
    pub(crate) waiter: T,
    /// The number under which it came into the queue.
    original: u64,
    /// How often it got a new one.
    pub(crate) renumbered: u32,
    written_before: bool,
}

/// What the server did that it must not.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("answer to send {got}, expected {expected:?}")]
pub(crate) struct OutOfOrder {
    expected: Option<u64>,
    got: u64,
}

/// What the lane may do after a [`Queue::fill`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// More can be written at once.
    Write,
    /// Nothing can be written before a push or an answer.
    Wait,
    /// Nothing can be written before this time, whatever happens on this lane.
    Pause(Instant),
}

/// What a [`Queue::fill`] put into the buffer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Filled {
    pub(crate) sends: usize,
    pub(crate) resent: usize,
}

/// The sends without an answer.
#[derive(Debug)]
pub(crate) struct Queue<T> {
    /// By rising number.
    entries: VecDeque<Queued<T>>,
    /// The number of each message.
    numbers: IdMap<MessageId, u64>,
    /// How many from the front are written on this lane and count as such: since the last restart.
    written: usize,
    /// Index of the send whose answer comes next. Above zero only while `refused`.
    expected: usize,
    /// A send was refused temporarily and no restart was written yet.
    refused: bool,
    /// Nothing is written before.
    pause_until: Option<Instant>,
    backoff: Backoff,
    window: usize,
    /// Sends up to this number may be written.
    tried_upto: u64,
    /// Sends up to this number may be written soon: nobody can edit them any more.
    trying_upto: u64,
    /// Answered, and that is not committed.
    settling: usize,
    /// How many in the queue have another number than the one they came with.
    renumbered: usize,
}

/// Why a message in the queue cannot be changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fixed {
    /// There is none of this id.
    Unknown,
    /// It may have been written to a connection.
    OnItsWay,
}

impl<T> Queue<T> {
    pub(crate) fn new() -> Self {
        Self {
            entries: VecDeque::new(),
            numbers: IdMap::default(),
            written: 0,
            expected: 0,
            refused: false,
            pause_until: None,
            backoff: Backoff::new(REFUSAL_PAUSE_MIN, REFUSAL_PAUSE_MAX),
            window: SENDS_UNANSWERED_MAX,
            tried_upto: 0,
            trying_upto: 0,
            settling: 0,
            renumbered: 0,
        }
    }

    /// Appends a send. Numbers must rise.
    pub(crate) fn push(&mut self, number: u64, message: Outgoing, waiter: T) {
        debug_assert!(self.entries.back().is_none_or(|last| last.number < number));
        let (original, renumbered, written_before) = (number, 0, false);
        self.numbers.insert(message.id, number);
        self.entries.push_back(Queued { number, message, waiter, original, renumbered, written_before });
    }

    /// Takes back a send that was refused because of its number, at the end and under a new one.
    pub(crate) fn push_again(&mut self, number: u64, queued: Queued<T>) {
        // Nobody can edit it any more, nor what is before it.
        self.trying_upto = self.trying_upto.max(number);
        self.renumbered += usize::from(queued.renumbered == 0);
        let renumbered = queued.renumbered + 1;
        self.numbers.insert(queued.message.id, number);
        self.entries.push_back(Queued { number, renumbered, ..queued });
    }

    /// Returns up to which number sends are to be committed as tried, if that is news: two windows, so that there is something
    /// to write while the next commit is under way.
    pub(crate) fn try_more(&mut self) -> Option<u64> {
        let ahead = self.entries.len().min(2 * self.window).checked_sub(1)?;
        let upto = self.entries.get(ahead)?.number;
        let is_news = upto > self.trying_upto;
        self.trying_upto = self.trying_upto.max(upto);
        is_news.then_some(upto)
    }

    /// Sends up to this number may be written: that they may be is committed.
    pub(crate) fn tried(&mut self, upto: u64) {
        self.tried_upto = self.tried_upto.max(upto);
        self.trying_upto = self.trying_upto.max(upto);
    }

    /// So many answers are about to be committed.
    pub(crate) fn settling(&mut self, count: usize) {
        self.settling += count;
    }

    /// So many answers were committed.
    pub(crate) fn settled(&mut self, count: usize) {
        self.settling = self.settling.saturating_sub(count);
    }

    /// Returns the sends in the queue with whether each may be on its way.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&Queued<T>, bool)> {
        self.entries.iter().map(|entry| (entry, entry.number <= self.trying_upto))
    }

    /// Finds a message by its id.
    pub(crate) fn find(&mut self, id: MessageId) -> Option<&mut Queued<T>> {
        let at = self.position(*self.numbers.get(&id)?)?;
        self.entries.get_mut(at)
    }

    /// Returns a message that was not written yet and will not be before the caller is done with it.
    pub(crate) fn unwritten(&mut self, id: MessageId) -> Result<&mut Queued<T>, Fixed> {
        let trying_upto = self.trying_upto;
        let entry = self.find(id).ok_or(Fixed::Unknown)?;
        if entry.number > trying_upto { Ok(entry) } else { Err(Fixed::OnItsWay) }
    }

    /// Takes out a message that was not written yet.
    pub(crate) fn cancel(&mut self, id: MessageId) -> Result<Queued<T>, Fixed> {
        let number = self.unwritten(id)?.number;
        let at = self.position(number).ok_or(Fixed::Unknown)?;
        let cancelled = self.entries.remove(at).ok_or(Fixed::Unknown)?;
        self.renumbered -= usize::from(cancelled.renumbered > 0);
        self.numbers.remove(&id);
        Ok(cancelled)
    }

    /// A new lane: nothing is written yet, and the server holds no refusal against it. A pause goes on, so that a
    /// reconnect is no way around it.
    pub(crate) fn lane_opened(&mut self) {
        self.written = 0;
        self.expected = 0;
        self.refused = false;
        self.window = SENDS_UNANSWERED_MAX;
    }

    /// Takes over the server's limit where it is lower than ours.
    pub(crate) fn limit_window(&mut self, sends: usize) {
        self.window = sends.clamp(1, SENDS_UNANSWERED_MAX);
    }

    /// Appends to `buffer` the frames that may be written now, until it holds `bytes_max` or more.
    pub(crate) fn fill(
        &mut self,
        buffer: &mut BytesMut,
        bytes_max: usize,
        seen: u64,
        now: Instant,
    ) -> (Filled, Next) {
        let mut filled = Filled::default();
        if self.refused && self.expected < self.written {
            return (filled, Next::Wait);
        }
        match self.pause_until {
            Some(until) if until > now && !self.entries.is_empty() => return (filled, Next::Pause(until)),
            Some(until) if until > now => return (filled, Next::Wait),
            _ => self.pause_until = None,
        }
        if self.refused {
            self.refused = false;
            self.written = 0;
            self.expected = 0;
            let restart = publish_up::Frame::Restart(v1::Restart {});
            frame::encode(&v1::PublishUp { frame: Some(restart) }, buffer);
        }
        while self.written + self.settling < self.window {
            let Some(entry) = self.entries.get_mut(self.written) else { break };
            if entry.number > self.tried_upto {
                break;
            }
            if buffer.len() >= bytes_max {
                return (filled, Next::Write);
            }
            wire::encode(entry.number, &entry.message, seen, buffer);
            filled.sends += 1;
            filled.resent += usize::from(entry.written_before);
            entry.written_before = true;
            self.written += 1;
        }
        (filled, Next::Wait)
    }

    /// Takes out the send that the server has decided, accepted or refused for good.
    pub(crate) fn decided(&mut self, number: u64) -> Result<Queued<T>, OutOfOrder> {
        self.check_order(number)?;
        if !self.refused {
            self.backoff.reset();
        }
        self.written -= 1;
        let decided = self.entries.remove(self.expected);
        let decided = decided.ok_or(OutOfOrder { expected: None, got: number })?;
        self.renumbered -= usize::from(decided.renumbered > 0);
        self.numbers.remove(&decided.message.id);
        Ok(decided)
    }

    /// Notes that the server refused a send for now, and with it all that was written behind it.
    pub(crate) fn refused_for_now(
        &mut self,
        number: u64,
        retry_after: Option<Duration>,
        now: Instant,
        chance: f64,
    ) -> Result<(), OutOfOrder> {
        self.check_order(number)?;
        self.expected += 1;
        let pause = match retry_after {
            // A little more than the advice, so that those who were refused together do not return together.
            Some(advice) => {
                let advice = advice.min(RETRY_AFTER_MAX);
                advice + advice.mul_f64(chance / 4.0)
            }
            None if self.refused => Duration::ZERO,
            None => self.backoff.pause(chance),
        };
        self.refused = true;
        self.pause_until = self.pause_until.max(Some(now + pause));
        Ok(())
    }

    /// Takes everything out, for the end of the client.
    pub(crate) fn drain(&mut self) -> Vec<Queued<T>> {
        self.lane_opened();
        self.renumbered = 0;
        self.numbers.clear();
        self.entries.drain(..).collect()
    }

    /// Returns how many sends have no answer.
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Returns whether a lane could write something now or later that it has not written.
    pub(crate) fn has_unwritten(&self) -> bool {
        self.refused || self.written < self.entries.len()
    }

    /// Returns the least number under which a send without an answer came into the queue.
    pub(crate) fn first_number(&self) -> Option<u64> {
        if self.renumbered == 0 {
            return self.entries.front().map(|entry| entry.number);
        }
        self.entries.iter().map(|entry| entry.original).min()
    }

    fn position(&self, number: u64) -> Option<usize> {
        self.entries.binary_search_by_key(&number, |entry| entry.number).ok()
    }

    fn check_order(&self, number: u64) -> Result<(), OutOfOrder> {
        let expected = (self.expected < self.written).then(|| self.entries[self.expected].number);
        if expected == Some(number) { Ok(()) } else { Err(OutOfOrder { expected, got: number }) }
    }
}

#[cfg(test)]
#[path = "queue_tests.rs"]
mod tests;

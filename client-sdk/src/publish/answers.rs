//! What answers do to the queue.
//!
//! Invariant: an answer that takes a send out of the queue is committed before more is written than the server remembers.

use std::sync::Arc;
use std::time::Instant;

use quail_protocol::id::Stamp;

use super::queue::{OutOfOrder, Outgoing, Queued};
use super::verdict::{Verdict, verdict};
use super::{Inner, Waiter, charge};
use crate::backoff::chance;
use crate::content;
use crate::error::Refusal;
use crate::sending::Ticket;
use crate::store::{ANSWERS_KEPT_MAX, AnsweredSend, PublishChange, REFUSALS_KEPT_MAX, RefusedSend};
use crate::{Accepted, Error, SendError};

/// How often a message gets a new number. The second `NUMBER_PASSED` would be followed by a third.
const RENUMBER_MAX: u32 = 1;

/// An answer to a send, as the lane reads it.
#[derive(Debug)]
pub(crate) enum Answer {
    Accepted(u64, Accepted),
    Refused(u64, Refusal),
}

/// A send that has left the queue, with its fate.
#[derive(Debug)]
pub(crate) struct Decided {
    pub(crate) ticket: Option<Arc<Ticket>>,
    pub(crate) sent: Outgoing,
    /// Whose receipts there will be; nobody's, if it is for the own devices alone.
    pub(crate) recipient: Option<quail_protocol::id::AccountId>,
    pub(crate) outcome: Result<Accepted, SendError>,
}

/// What a bunch of answers came to.
#[derive(Debug)]
pub(crate) struct Answered {
    pub(crate) decided: Vec<Decided>,
    /// The largest stamp seen was from a wrong clock.
    pub(crate) forget_seen: bool,
    /// The session has ended.
    pub(crate) session_ended: Option<Refusal>,
    /// What is wrong with the first answer that does not fit; those behind it were not looked at.
    pub(crate) fits: Result<(), Error>,
}

impl Inner {
    pub(super) fn answer(
        &mut self,
        answer: Answer,
        all: &mut Answered,
        room: &mut usize,
    ) -> Result<(), OutOfOrder> {
        match answer {
            Answer::Accepted(number, accepted) => {
                let queued = self.queue.decided(number)?;
                let stored = queued.message.to_stored(number);
                let answer = AnsweredSend { number, id: stored.id, digest: stored.digest(), accepted };
                self.remember(&answer);
                self.change(PublishChange::Accepted(answer));
                self.leave(&queued, Ok(accepted), all, room);
            }
            Answer::Refused(number, refusal) => match verdict(refusal.reason, refusal.temporary) {
                Verdict::Again => self.refused_for_now(number, &refusal)?,
                Verdict::SessionEnded => {
                    self.refused_for_now(number, &refusal)?;
                    all.session_ended.get_or_insert(refusal);
                }
                Verdict::AgainUnseen => {
                    all.forget_seen = true;
                    self.seen = Stamp::default();
                    self.change(PublishChange::Seen(Stamp::default()));
                    self.refused_for_now(number, &refusal)?;
                }
                Verdict::NewNumber => {
                    let queued = self.queue.decided(number)?;
                    if queued.renumbered < RENUMBER_MAX {
                        let new = self.take_number();
                        self.change(PublishChange::Renumbered(number, new));
                        // It may have been accepted long ago, so it is no longer to be changed, by later processes neither.
                        self.pending_tried = Some(new);
                        self.queue.push_again(new, queued);
                    } else {
                        self.refuse(&queued, refusal, all, room);
                    }
                }
                Verdict::Final => {
                    let queued = self.queue.decided(number)?;
                    self.refuse(&queued, refusal, all, room);
                }
            },
        }
        Ok(())
    }

    fn refused_for_now(&mut self, number: u64, refusal: &Refusal) -> Result<(), OutOfOrder> {
        self.queue.refused_for_now(number, refusal.retry_after, Instant::now(), chance())
    }

    fn refuse(&mut self, queued: &Queued<Waiter>, refusal: Refusal, all: &mut Answered, room: &mut usize) {
        let send = queued.message.to_stored(queued.number);
        let refused = RefusedSend { send, reason: refusal.reason as i32, text: refusal.text.clone() };
        if self.refused.len() >= REFUSALS_KEPT_MAX {
            let lost = self.refused.pop_front();
            tracing::warn!(id = ?lost.map(|lost| lost.send.id), "forget a refusal that nobody took note of");
        }
        self.refused.push_back(refused.clone());
        self.change(PublishChange::Refused(refused));
        self.leave(queued, Err(SendError::Refused(refusal)), all, room);
    }

    fn leave(
        &mut self,
        queued: &Queued<Waiter>,
        outcome: Result<Accepted, SendError>,
        all: &mut Answered,
        room: &mut usize,
    ) {
        self.pending_answers += 1;
        self.queue.settling(1);
        *room += charge(queued.message.len());
        let (ticket, sent) = (queued.waiter.upgrade(), queued.message.clone());
        let recipient =
            Some(queued.message.recipient).filter(|_| !content::is_private(&queued.message.extra));
        all.decided.push(Decided { ticket, sent, recipient, outcome });
    }

    pub(super) fn remember(&mut self, answer: &AnsweredSend) {
        self.seen = self.seen.max(answer.accepted.stamp);
        if self.answered.insert(answer.id, (answer.digest, answer.accepted)).is_none() {
            self.answered_order.push_back(answer.id);
        }
        if self.answered_order.len() > ANSWERS_KEPT_MAX
            && let Some(oldest) = self.answered_order.pop_front()
        {
            self.answered.remove(&oldest);
        }
    }
}

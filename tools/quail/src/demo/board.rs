//! Where the tasks of the demo write down what they see.
//!
//! Invariants: counts only grow; a line is counted as accepted before it is counted as settled; the first problem stays.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use quail_checker::{Entry, Key, Place, ReceiptKind, What, fingerprint};
use quail_client::{AccountId, Credentials, DeviceId, Event, MessageId};
use quail_protocol::id::{Origin, Position, Stamp};
use tokio::sync::watch;

use super::report::{Confirm, Counts};

/// Stands for a body that is no text: bytes that no text has.
const NO_TEXT: &[u8] = &[0xff];

/// An account and its one device.
type Person = (AccountId, DeviceId);

/// Shared by the tasks and whoever waits for them.
#[derive(Debug)]
pub(super) struct Board {
    sender: Person,
    recipient: Person,
    counts: watch::Sender<Counts>,
    notes: Mutex<Notes>,
}

/// As long as the text, which has a limit.
#[derive(Debug, Default)]
struct Notes {
    confirmed: Vec<Duration>,
    /// What the two devices did and saw, for the checker.
    log: Vec<Entry>,
    problem: Option<String>,
}

impl Board {
    /// Begins with two devices, of the one who sends and of the one who receives.
    pub(super) fn new(sender: &Credentials, recipient: &Credentials) -> Self {
        Self::of((sender.account, sender.device), (recipient.account, recipient.device))
    }

    fn of(sender: Person, recipient: Person) -> Self {
        let board = Self { sender, recipient, counts: Default::default(), notes: Default::default() };
        for person in [sender, recipient] {
            board.note(person, What::Joined { account: person.0 });
        }
        board
    }

    fn note(&self, (_, device): Person, what: What) {
        self.notes().log.push(Entry { device, what });
    }

    /// A line is about to be sent.
    pub(super) fn sends(&self, id: MessageId, line: &str) {
        let (to, body) = (vec![self.recipient.0], fingerprint(line.as_bytes()));
        self.note(self.sender, What::Sent { id, to, body });
    }

    /// The recipient's program begins anew.
    pub(super) fn opened(&self) {
        self.note(self.recipient, What::Opened);
    }

    /// Returns how far the messages have come, and changes of it.
    pub(super) fn counts(&self) -> watch::Receiver<Counts> {
        self.counts.subscribe()
    }

    /// A message was accepted.
    pub(super) fn accepted(&self, id: MessageId, place: Place, took: Duration) {
        self.note(self.sender, What::Accepted { id, place });
        self.notes().confirmed.push(took);
        self.counts.send_modify(|counts| counts.accepted += 1);
    }

    /// A message was refused for good.
    pub(super) fn refused(&self, id: MessageId, why: &impl ToString) {
        self.note(self.sender, What::Refused { id });
        self.problem(format!("a message was not accepted: {}", why.to_string()));
        self.counts.send_modify(|counts| counts.refused += 1);
    }

    /// The receipt of an accepted message came, or can no longer come.
    pub(super) fn settled<E: ToString>(&self, id: MessageId, delivered: &Result<(), E>) {
        let (reader, kind) = (self.recipient.0, ReceiptKind::Delivered);
        match delivered {
            Ok(()) => self.note(self.sender, What::Receipt { id, reader, kind }),
            Err(error) => self.problem(format!("a receipt did not come: {}", error.to_string())),
        }
        self.counts.send_modify(|counts| {
            counts.settled += 1;
            counts.delivered += usize::from(delivered.is_ok());
        });
    }

    /// The recipient is shown something, which it will acknowledge.
    pub(super) fn shown(&self, event: &Event) {
        match event {
            Event::Message(message) => {
                let body = fingerprint(message.body.as_text().map_or(NO_TEXT, str::as_bytes));
                let place = place(message.origin, message.position, message.stamp);
                let message = Key { sender: message.sender, id: message.id };
                self.note(self.recipient, What::Shown { message, body, place });
                self.note(self.recipient, What::Acknowledged { message });
                self.counts.send_modify(|counts| counts.shown += 1);
            }
            Event::Gap { origin, from, upto } => {
                self.note(self.recipient, What::Gap { origin: *origin, from: *from, upto: *upto });
                self.problem("the server no longer held messages for the recipient".to_owned());
            }
            _ => {}
        }
    }

    /// Something went wrong that no count shows.
    pub(super) fn problem(&self, text: String) {
        self.notes().problem.get_or_insert(text);
    }

    /// Takes everything that was done and seen.
    pub(super) fn take_log(&self) -> Vec<Entry> {
        std::mem::take(&mut self.notes().log)
    }

    /// Returns the first problem.
    pub(super) fn first_problem(&self) -> Option<String> {
        self.notes().problem.clone()
    }

    /// Returns how long accepting took.
    pub(super) fn confirm(&self) -> Confirm {
        let mut sorted = self.notes().confirmed.clone();
        sorted.sort_unstable();
        let at = |percent: usize| {
            let rank = (sorted.len() * percent).div_ceil(100);
            sorted.get(rank.saturating_sub(1)).copied().unwrap_or_default()
        };
        Confirm { p50: at(50), p99: at(99), max: at(100) }
    }

    fn notes(&self) -> MutexGuard<'_, Notes> {
        // Nothing under this lock leaves a change half done.
        self.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Says where a message stands.
pub(super) fn place(origin: Origin, position: Position, stamp: Stamp) -> Place {
    Place { origin, position, stamp }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn board() -> Board {
        Board::of((AccountId([1; 16]), DeviceId([1; 16])), (AccountId([2; 16]), DeviceId([2; 16])))
    }

    const ID: MessageId = MessageId([7; 16]);

    #[test]
    fn percentiles_are_times_that_were_seen() {
        let board = board();
        assert_eq!(board.confirm(), Confirm::default());
        (1..=200).rev().for_each(|number| board.accepted(ID, Place::UNSEEN, Duration::from_millis(number)));
        let milliseconds = Duration::from_millis;
        let expected = Confirm { p50: milliseconds(100), p99: milliseconds(198), max: milliseconds(200) };
        assert_eq!(board.confirm(), expected);
    }

    #[test]
    fn the_first_problem_stays() {
        let board = board();
        board.refused(ID, &"full");
        board.settled(ID, &Err("gone"));
        assert_eq!(board.first_problem().unwrap(), "a message was not accepted: full");
        let counts = *board.counts().borrow();
        assert_eq!((counts.refused, counts.settled, counts.delivered), (1, 1, 0));
    }
}

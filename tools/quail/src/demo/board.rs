//! Where the tasks of the demo write down what they see.
//!
//! Invariants: counts only grow; a line is counted as accepted before it is counted as settled; the first problem stays.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use quail_client::Message;
use tokio::sync::watch;

use super::report::{Confirm, Counts};
use super::verdict::Shown;

/// Shared by the tasks and whoever waits for them.
#[derive(Debug, Default)]
pub(super) struct Board {
    counts: watch::Sender<Counts>,
    notes: Mutex<Notes>,
}

/// As long as the text, which has a limit.
#[derive(Debug, Default)]
struct Notes {
    confirmed: Vec<Duration>,
    shown: Vec<Shown>,
    problem: Option<String>,
}

impl Board {
    /// Returns how far the messages have come, and changes of it.
    pub(super) fn counts(&self) -> watch::Receiver<Counts> {
        self.counts.subscribe()
    }

    /// A message was accepted.
    pub(super) fn accepted(&self, took: Duration) {
        self.notes().confirmed.push(took);
        self.counts.send_modify(|counts| counts.accepted += 1);
    }

    /// A message was refused for good.
    pub(super) fn refused(&self, why: &impl ToString) {
        self.problem(format!("a message was not accepted: {}", why.to_string()));
        self.counts.send_modify(|counts| counts.refused += 1);
    }

    /// The receipt of an accepted message came, or can no longer come.
    pub(super) fn settled<E: ToString>(&self, delivered: &Result<(), E>) {
        if let Err(error) = delivered {
            self.problem(format!("a receipt did not come: {}", error.to_string()));
        }
        self.counts.send_modify(|counts| {
            counts.settled += 1;
            counts.delivered += usize::from(delivered.is_ok());
        });
    }

    /// A message was shown to the recipient.
    pub(super) fn shown(&self, message: &Message) {
        let text = message.body.as_text().map(str::to_owned);
        self.notes().shown.push(Shown { id: message.id, text });
        self.counts.send_modify(|counts| counts.shown += 1);
    }

    /// Something went wrong that no count shows.
    pub(super) fn problem(&self, text: String) {
        self.notes().problem.get_or_insert(text);
    }

    /// Takes everything that was shown.
    pub(super) fn take_shown(&self) -> Vec<Shown> {
        std::mem::take(&mut self.notes().shown)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_times_that_were_seen() {
        let board = Board::default();
        assert_eq!(board.confirm(), Confirm::default());
        (1..=200).rev().for_each(|number| board.accepted(Duration::from_millis(number)));
        let milliseconds = Duration::from_millis;
        let expected = Confirm { p50: milliseconds(100), p99: milliseconds(198), max: milliseconds(200) };
        assert_eq!(board.confirm(), expected);
    }

    #[test]
    fn the_first_problem_stays() {
        let board = Board::default();
        board.refused(&"full");
        board.settled(&Err("gone"));
        assert_eq!(board.first_problem().unwrap(), "a message was not accepted: full");
        let counts = *board.counts().borrow();
        assert_eq!((counts.refused, counts.settled, counts.delivered), (1, 1, 0));
    }
}

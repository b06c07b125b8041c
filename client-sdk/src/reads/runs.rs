//! What lay before a message: so that a mark of it covers nothing that was missed.
//!
//! Between two messages of a sender other events have their positions. A mark of the second may begin at the first, because
//! nothing of that sender lies between, unless something was missed there; then it begins right before the second.
//!
//! Invariant: bounded; what is forgotten makes stretches shorter, never longer.

use quail_protocol::id::{AccountId, Origin, Position};

use crate::ids::IdMap;

/// Most senders and origins of which the last message is remembered.
const RUNS_MAX: usize = 4096;

/// The last message of each sender, since something was missed.
#[derive(Debug, Default)]
pub(super) struct Runs(IdMap<(AccountId, Origin), Position>);

impl Runs {
    /// A message is handed out; returns where its stretch begins.
    pub(super) fn handed_out(&mut self, sender: AccountId, origin: Origin, position: Position) -> Position {
        let right_before = Position(position.0.saturating_sub(1));
        if self.0.len() >= RUNS_MAX && !self.0.contains_key(&(sender, origin)) {
            self.0.clear();
        }
        let before = self.0.insert((sender, origin), position);
        before.filter(|before| *before < position).unwrap_or(right_before)
    }

    /// Something of this origin was missed.
    pub(super) fn missed(&mut self, origin: Origin) {
        self.0.retain(|(_, of), _| *of != origin);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stretch_begins_at_the_message_before_unless_something_was_missed() {
        let mut runs = Runs::default();
        let mut next = |sender: u8, origin, position| {
            runs.handed_out(AccountId([sender; 16]), Origin(origin), Position(position)).0
        };
        assert_eq!(next(1, 1, 5), 4);
        assert_eq!(next(2, 1, 7), 6);
        assert_eq!(next(1, 1, 9), 5);
        assert_eq!(next(1, 2, 9), 8);
        runs.missed(Origin(1));
        let mut next = |sender: u8, origin, position| {
            runs.handed_out(AccountId([sender; 16]), Origin(origin), Position(position)).0
        };
        assert_eq!(next(1, 1, 12), 11);
        assert_eq!(next(1, 2, 12), 9);
        assert_eq!(next(1, 1, 11), 10, "what goes back begins anew");
    }
}

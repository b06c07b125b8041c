//! When the daemon is killed: a plan without chance and without clock.
//!
//! Kills are tied to progress, so that a fast and a slow machine are killed at the same places. They cut the text into
//! equal stretches; a kill comes once everything before its point is accepted, while what follows is on its way.
//!
//! Invariants: there are as many points as kills, in order, none behind the last line; what is sent ahead of a kill never
//! takes the last line before the next one, as long as there are lines enough.

use std::num::NonZero;

use quail_protocol::limits::SENDS_UNANSWERED_MAX;

/// Most lines that are sent ahead of a kill's point: as many as a device may have without an answer.
const AHEAD_MAX: usize = SENDS_UNANSWERED_MAX;

/// One kill.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Kill {
    /// The number of the kill, from 1.
    pub(super) number: usize,
    /// The kill comes once so many lines are accepted.
    pub(super) point: usize,
    /// How many lines are sent before the point is waited for.
    pub(super) ahead: usize,
    /// Until where may be sent before the kill, so that the next one finds something to interrupt.
    pub(super) limit: usize,
}

/// Spreads kills over the lines.
pub(super) fn kills(lines: usize, count: usize) -> impl Iterator<Item = Kill> {
    let stretches = NonZero::<usize>::MIN.saturating_add(count);
    let point = move |number: usize| lines.saturating_mul(number) / stretches;
    (1..=count).map(move |number| {
        let limit = point(number + 1);
        let ahead = ((limit - point(number)) / 3).min(AHEAD_MAX);
        Kill {
            number,
            point: point(number),
            ahead: point(number) + ahead,
            limit: limit.min(point(number) + ahead + AHEAD_MAX),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kills_cut_the_lines_into_equal_stretches() {
        let points: Vec<_> = kills(5000, 3).map(|kill| kill.point).collect();
        assert_eq!(points, [1250, 2500, 3750]);
        assert_eq!(kills(5000, 0).count(), 0);
    }

    #[test]
    fn every_kill_finds_a_line_to_interrupt_while_there_are_enough() {
        for (lines, count) in [(3, 2), (2, 1), (216, 2), (100, 99), (5000, 3)] {
            let mut sent = 0;
            for kill in kills(lines, count) {
                assert!(kill.point <= kill.ahead && kill.ahead <= kill.limit, "{kill:?}");
                assert!(kill.point >= sent.min(kill.point) && kill.limit > kill.point, "{kill:?}");
                assert!(kill.limit > sent, "{kill:?} of {lines}");
                sent = kill.limit;
            }
            assert!(sent <= lines);
        }
    }

    #[test]
    fn more_kills_than_lines_share_points() {
        let points: Vec<_> = kills(1, 3).map(|kill| (kill.point, kill.limit)).collect();
        assert_eq!(points, [(0, 0), (0, 0), (0, 1)]);
        let empty: Vec<_> = kills(0, 2).map(|kill| (kill.point, kill.limit)).collect();
        assert_eq!(empty, [(0, 0), (0, 0)]);
    }
}

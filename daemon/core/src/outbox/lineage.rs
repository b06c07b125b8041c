//! Lineage: the origins that a data directory had before, and what a device's cursors of them mean now.
//!
//! A data directory that was restored from an older copy, or lost its store, must not give positions again under the name of
//! its origin: devices have acknowledged them. It becomes a new origin and keeps counting where what it still holds ends. What
//! it inherited keeps its positions, so a cursor of the ancestor says how much of that a device has taken. What the ancestor
//! had beyond is not here: each device that knows the ancestor is told of one gap, from its cursor to the end.

use quail_protocol::id::{Origin, Position};

/// An origin that this one carries on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ancestor {
    /// Its number.
    pub origin: Origin,
    /// Up to where this origin still has its events. Zero: it has none.
    pub inherited: Position,
}

impl Ancestor {
    /// Returns the ancestor of this number, if it is one.
    fn find(ancestors: &[Self], origin: Origin) -> Option<Self> {
        ancestors.iter().find(|ancestor| ancestor.origin == origin).copied()
    }
}

/// Returns what of the positions above `after` and up to `upto` of some origin this one has, under the same positions; `None`
/// where that is nothing. What lies beyond what this origin gave itself is left as it is: whether that is an error is for the
/// caller to say.
pub(crate) fn held(
    (of, after, upto): (Origin, Position, Position),
    origin: Origin,
    ancestors: &[Ancestor],
) -> Option<(Position, Position)> {
    if of == origin {
        return Some((after, upto));
    }
    // The end of an origin is acknowledged like a position, and says nothing of what was taken before it.
    let ancestor = Ancestor::find(ancestors, of).filter(|_| upto < Position::END)?;
    (after < ancestor.inherited).then(|| (after, upto.min(ancestor.inherited)))
}

/// What a device's cursors say of this origin.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Claim {
    /// The device has taken everything up to here.
    pub(crate) taken: Position,
    /// So much of that it says by what it had of ancestors.
    pub(crate) inherited: Position,
    /// The device was told that an ancestor ended and remembers nothing else of it: up to here this origin's own record counts.
    pub(crate) closed: Position,
    /// Gaps to tell: the ancestor and the first position that is missing.
    pub(crate) gone: Vec<(Origin, Position)>,
}

impl Claim {
    /// Reads cursors. A position that this origin never gave comes from another life of its data and says nothing.
    pub(crate) fn of(
        cursors: &[(Origin, Position)],
        (origin, last_position): (Origin, Position),
        ancestors: &[Ancestor],
    ) -> Self {
        let mut claim = Self::default();
        for (of, position) in cursors {
            if *of == origin && *position <= last_position {
                claim.taken = claim.taken.max(*position);
            }
            let Some(ancestor) = Ancestor::find(ancestors, *of) else { continue };
            if *position >= Position::END {
                claim.closed = claim.closed.max(ancestor.inherited);
            } else {
                claim.inherited = claim.inherited.max(ancestor.inherited.min(*position));
                claim.gone.push((ancestor.origin, ancestor.inherited.max(*position).next()));
            }
        }
        claim.taken = claim.taken.max(claim.inherited);
        claim
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SELF: (Origin, Position) = (Origin(9), Position(700));
    const ANCESTORS: [Ancestor; 1] = [Ancestor { origin: Origin(7), inherited: Position(500) }];

    fn claim(cursors: &[(u32, u64)]) -> Claim {
        let cursors: Vec<_> = cursors.iter().map(|(o, p)| (Origin(*o), Position(*p))).collect();
        Claim::of(&cursors, SELF, &ANCESTORS)
    }

    #[test]
    fn a_cursor_of_an_ancestor_counts_as_far_as_its_events_are_here() {
        assert_eq!(claim(&[(7, 400)]).taken, Position(400));
        assert_eq!(claim(&[(7, 400)]).gone, [(Origin(7), Position(501))]);
        assert_eq!(claim(&[(7, 1_000)]).taken, Position(500));
        assert_eq!(claim(&[(7, 1_000)]).gone, [(Origin(7), Position(1_001))]);
        assert_eq!(claim(&[(7, 1_000), (9, 600)]).taken, Position(600));
        assert_eq!(claim(&[(7, 1_000), (9, 600)]).inherited, Position(500));
    }

    #[test]
    fn an_ancestor_that_was_told_to_have_ended_is_told_no_more() {
        let told = claim(&[(7, Position::END.0)]);
        assert_eq!(told, Claim { closed: Position(500), ..Claim::default() });
    }

    #[test]
    fn what_is_named_of_an_ancestor_is_meant_as_far_as_it_is_here() {
        let held = |of, after, upto| {
            let held = held((Origin(of), Position(after), Position(upto)), SELF.0, &ANCESTORS);
            held.map(|(after, upto)| (after.0, upto.0))
        };
        assert_eq!(held(9, 600, 900), Some((600, 900)));
        assert_eq!(held(7, 400, 450), Some((400, 450)));
        assert_eq!(held(7, 400, 600), Some((400, 500)));
        assert_eq!(held(7, 500, 600), None);
        assert_eq!(held(7, 0, Position::END.0), None);
        assert_eq!(held(3, 0, 10), None);
    }

    #[test]
    fn cursors_of_strangers_and_from_another_life_say_nothing() {
        assert_eq!(claim(&[(3, 10), (9, 701)]), Claim::default());
    }
}

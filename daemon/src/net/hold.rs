//! Back-pressure: while too much waits to be written to disk, publish lanes are left unread for a while before their sends are
//! refused. Most of the time that is enough, and the client notices nothing but a slower answer.

use std::time::Duration;

use tokio::time::Instant;

/// How long a publish lane is left unread before its sends are read and refused.
const HOLD_MAX: Duration = Duration::from_secs(2);

/// How often a connection looks whether it may read again.
pub(super) const HOLD_LOOK: Duration = Duration::from_millis(50);

/// Whether a publish lane is read.
#[derive(Debug, Default)]
pub(super) struct Hold {
    since: Option<Instant>,
}

impl Hold {
    /// Returns whether to leave the publish lane unread now.
    pub(super) fn holds(&mut self, is_backed_up: bool, now: Instant) -> bool {
        if !is_backed_up {
            self.since = None;
            return false;
        }
        now.duration_since(*self.since.get_or_insert(now)) < HOLD_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lane_is_left_unread_for_two_seconds_and_anew_after_there_was_room() {
        let (mut hold, now) = (Hold::default(), Instant::now());
        let after = |ms| now + Duration::from_millis(ms);
        assert!(!hold.holds(false, now));
        assert!(hold.holds(true, now));
        assert!(hold.holds(true, after(1_999)));
        assert!(!hold.holds(true, after(2_000)));
        assert!(!hold.holds(true, after(9_000)));
        assert!(!hold.holds(false, after(9_001)));
        assert!(hold.holds(true, after(9_002)));
    }
}

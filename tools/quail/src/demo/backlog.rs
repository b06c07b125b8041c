//! How far the sender may run ahead of what was shown.
//!
//! A server holds a limited number of events back for one who is offline or slow; of what goes over it, the recipient
//! learns only that it was there (a gap). That is not what the demo is about, so it stays well below.
//!
//! Invariant: the messages sent and not shown are never more, nor longer, than the limits, except one that is longer by
//! itself.

/// Most messages that are sent and not shown: half of what a server holds back for an account.
const AHEAD_LINES_MAX: usize = 5_000;

/// Most bytes of such messages: half of what a server holds back for an account.
const AHEAD_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Knows how long the lines are.
#[derive(Debug)]
pub(super) struct Backlog {
    /// For each line the number of bytes up to its end.
    ends: Vec<usize>,
}

impl Backlog {
    pub(super) fn new(lines: &[String]) -> Self {
        let ends = lines.iter().scan(0, |end: &mut usize, line| {
            *end += line.len();
            Some(*end)
        });
        Self { ends: ends.collect() }
    }

    /// Returns how many lines must have been shown before the line with this index is sent.
    pub(super) fn shown_before(&self, index: usize) -> usize {
        let end = self.ends.get(index).copied().unwrap_or_default();
        let by_bytes = self.ends.partition_point(|shown_end| shown_end + AHEAD_BYTES_MAX < end);
        // Those that end before the stretch of allowed bytes, and the one that reaches into it.
        let by_bytes = if end > AHEAD_BYTES_MAX { by_bytes + 1 } else { 0 };
        let by_lines = (index + 1).saturating_sub(AHEAD_LINES_MAX);
        by_bytes.max(by_lines).min(index)
    }

    /// Returns how many lines can be sent while nobody is there to be shown them: half of all, if that fits.
    pub(super) fn offline(&self) -> usize {
        let half = self.ends.len().div_ceil(2);
        (0..half).take_while(|&index| self.shown_before(index) == 0).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn backlog(count: usize, length: usize) -> Backlog {
        Backlog::new(&vec!["x".repeat(length); count])
    }

    #[test]
    fn half_is_sent_offline_unless_that_is_too_much() {
        assert_eq!(backlog(0, 1).offline(), 0);
        assert_eq!(backlog(1, 1).offline(), 1);
        assert_eq!(backlog(5_001, 1).offline(), 2_501);
        assert_eq!(backlog(50_000, 1).offline(), AHEAD_LINES_MAX);
        assert_eq!(backlog(1_000, 32 * 1024).offline(), 500);
        assert_eq!(backlog(2_000, 32 * 1024).offline(), 512);
    }

    #[test]
    fn the_lines_that_are_ahead_fit_the_limits_exactly() {
        let short = backlog(50_000, 0);
        assert_eq!(short.shown_before(4_999), 0);
        assert_eq!(short.shown_before(5_000), 1);
        assert_eq!(short.shown_before(49_999), 45_000);
        // 512 of these fill the limit of bytes.
        let long = backlog(2_000, 32 * 1024);
        assert_eq!(long.shown_before(511), 0);
        assert_eq!(long.shown_before(512), 1);
        assert_eq!(long.shown_before(1_999), 2_000 - 512);
    }

    #[test]
    fn a_line_never_waits_for_itself() {
        let huge = backlog(3, 2 * AHEAD_BYTES_MAX);
        assert_eq!((huge.shown_before(0), huge.shown_before(1), huge.shown_before(2)), (0, 1, 2));
    }
}

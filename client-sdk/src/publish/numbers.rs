//! Send numbers, taken from blocks that were reserved on disk.
//!
//! A number must never be used for two messages, not even after a crash. Saving each number would cost a disk sync per
//! message, so a whole block is saved at once and used up in memory; what a crash leaves over is skipped. Servers allow
//! holes.
//!
//! Invariant: every number given out is below the `next_number` that was saved last.

/// How many numbers one disk sync reserves.
pub(crate) const NUMBERS_PER_BLOCK: u64 = 4096;

/// The numbers that may be used.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Numbers {
    next: u64,
    end: u64,
}

impl Numbers {
    /// Gives out the next number, or `None` if a block must be reserved first.
    pub(crate) fn take(&mut self) -> Option<u64> {
        let number = (self.next < self.end).then_some(self.next)?;
        self.next += 1;
        Some(number)
    }

    /// Returns whether there is a number to take.
    pub(crate) fn is_empty(&self) -> bool {
        self.next >= self.end
    }

    /// Returns where the last block ended, or `None` before the first.
    pub(crate) fn end(&self) -> Option<u64> {
        (self.end > 0).then_some(self.end)
    }

    /// Adds a block that was saved as reserved.
    pub(crate) fn add_block(&mut self, start: u64, end: u64) {
        *self = Self { next: start.max(self.next), end };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_rise_and_end_with_the_block() {
        let mut numbers = Numbers::default();
        assert!(numbers.is_empty() && numbers.end().is_none());
        numbers.add_block(1, 3);
        assert_eq!([numbers.take(), numbers.take(), numbers.take()], [Some(1), Some(2), None]);
        numbers.add_block(3, 4);
        assert_eq!([numbers.take(), numbers.take()], [Some(3), None]);
        assert_eq!(numbers.end(), Some(4));
    }
}

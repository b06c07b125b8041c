//! Which messages were accepted and which arrived: the comparison, without IO.
//!
//! Invariant: every message is one bit, so a measurement of millions is checked whole.

use super::message::NUMBER_MAX;

/// A set of message numbers.
#[derive(Clone, Debug, Default)]
pub(super) struct Numbers {
    words: Vec<u64>,
    len: u64,
}

impl Numbers {
    /// Adds a number; returns whether it was not there before. Numbers above [`NUMBER_MAX`] are not taken.
    pub(super) fn insert(&mut self, number: u64) -> bool {
        if number > NUMBER_MAX {
            return false;
        }
        let (word, bit) = ((number / 64) as usize, 1 << (number % 64));
        if word >= self.words.len() {
            self.words.resize(word + 1, 0);
        }
        let is_new = self.words[word] & bit == 0;
        self.words[word] |= bit;
        self.len += u64::from(is_new);
        is_new
    }

    /// Returns how many numbers are in it.
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// Returns how many of these numbers are not in `other`.
    pub(super) fn missing_in(&self, other: &Self) -> u64 {
        let others = other.words.iter().copied().chain(std::iter::repeat(0));
        self.words.iter().zip(others).map(|(own, other)| u64::from((own & !other).count_ones())).sum()
    }
}

/// What one recipient was shown.
#[derive(Clone, Debug, Default)]
pub(super) struct Arrivals {
    seen: Numbers,
    /// Messages that were shown again.
    pub(super) duplicates: u64,
    /// Messages that are not what they say they are, or from somebody else.
    pub(super) altered: u64,
}

impl Arrivals {
    /// Notes a message of the one sender that this recipient has.
    pub(super) fn arrived(&mut self, number: u64) {
        self.duplicates += u64::from(!self.seen.insert(number));
    }

    /// Returns how many different messages arrived.
    pub(super) fn len(&self) -> u64 {
        self.seen.len()
    }

    /// Returns how many of the messages that were accepted from the sender did not arrive.
    pub(super) fn missing(&self, accepted: &Numbers) -> u64 {
        accepted.missing_in(&self.seen)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_arrives_twice_or_never_is_counted() {
        let mut accepted = Numbers::default();
        let mut arrivals = Arrivals::default();
        for number in 0..200 {
            accepted.insert(number);
            if number != 3 && number < 190 {
                arrivals.arrived(number);
            }
        }
        arrivals.arrived(7);
        assert_eq!((arrivals.missing(&accepted), arrivals.duplicates, arrivals.len()), (11, 1, 189));
    }

    #[test]
    fn what_arrives_without_its_acceptance_being_known_is_not_missing() {
        let mut arrivals = Arrivals::default();
        arrivals.arrived(64);
        assert_eq!(arrivals.missing(&Numbers::default()), 0);
        assert_eq!(Arrivals::default().missing(&Numbers::default()), 0);
    }

    #[test]
    fn numbers_that_nobody_can_have_sent_take_no_memory() {
        let mut numbers = Numbers::default();
        assert!(!numbers.insert(u64::MAX));
        assert!(numbers.words.is_empty());
    }
}

//! Going through a tree around its damaged pages.
//!
//! sled's iterators end at a page they cannot read and do not say where it ends. Every key inside of it is as unreadable as
//! the first, so its end is found by probing: ever larger steps until a probe succeeds, then halves.

use super::fault::{Fault, guarded};

/// A stretch of keys that could not be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Hole {
    /// The keys above this one; `None` is from the first.
    pub after: Option<Vec<u8>>,
    /// The keys below this one; `None` is to the last.
    pub before: Option<Vec<u8>>,
    /// What sled said.
    pub what: String,
}

/// Calls `visit` with every row of a tree whose keys have `width` bytes that can be read, in order, and returns the holes
/// between them.
pub(super) fn walk(
    tree: &sled::Tree,
    width: usize,
    mut visit: impl FnMut(&[u8], &[u8]) -> Result<(), Fault>,
) -> Result<Vec<Hole>, Fault> {
    let mut holes = Vec::new();
    let mut last: Option<Vec<u8>> = None;
    let mut from = vec![0; width];
    'resumed: loop {
        // A fresh one after a panic: the old one's place is not to be trusted.
        let mut rows = tree.range(from.as_slice()..);
        loop {
            match guarded(|| rows.next().transpose()) {
                Ok(Some((key, value))) => {
                    visit(&key, &value)?;
                    last = Some(key.to_vec());
                    from.clear();
                    from.extend_from_slice(&key);
                }
                Ok(None) => return Ok(holes),
                Err(Fault::Damaged(what)) => {
                    // The row after the last one read is the first that cannot be.
                    let begin = match &last {
                        Some(last) if *last >= from => successor(last),
                        _ => Some(from.clone()),
                    };
                    let end = begin.and_then(|begin| end_of_hole(tree, &begin));
                    holes.push(Hole { after: last.clone(), before: end.clone(), what });
                    match end {
                        Some(end) => from = end,
                        None => return Ok(holes),
                    }
                    continue 'resumed;
                }
                Err(other) => return Err(other),
            }
        }
    }
}

/// Returns the first key that can be read again, as near as it can be found; `None` if there is none.
fn end_of_hole(tree: &sled::Tree, begin: &[u8]) -> Option<Vec<u8>> {
    let is_readable = |key: &[u8]| guarded(|| tree.range(key..).next().transpose()).is_ok();
    let mut low = begin.to_vec();
    let mut high = None;
    for bit in 0..begin.len() * 8 {
        let probe = plus_power(begin, bit)?;
        if is_readable(&probe) {
            high = Some(probe);
            break;
        }
        low = probe;
    }
    let mut high = high?;
    loop {
        let middle = middle(&low, &high);
        if middle == low {
            return Some(high);
        }
        if is_readable(&middle) {
            high = middle;
        } else {
            low = middle;
        }
    }
}

fn successor(key: &[u8]) -> Option<Vec<u8>> {
    plus_power(key, 0)
}

/// Returns a key, taken as a number, plus two to the power of `bit`; `None` if it would not fit.
fn plus_power(key: &[u8], bit: usize) -> Option<Vec<u8>> {
    let mut sum = key.to_vec();
    let mut carry = 1u16 << (bit % 8);
    for byte in sum.iter_mut().rev().skip(bit / 8) {
        let digit = u16::from(*byte) + carry;
        *byte = digit as u8;
        carry = digit >> 8;
        if carry == 0 {
            return Some(sum);
        }
    }
    None
}

/// Returns the middle of two keys of one width, taken as numbers; it is `low` if there is none between them.
fn middle(low: &[u8], high: &[u8]) -> Vec<u8> {
    let mut sum = vec![0u8; low.len()];
    let mut carry = 0u16;
    for ((digit, low), high) in sum.iter_mut().zip(low).zip(high).rev() {
        let total = u16::from(*low) + u16::from(*high) + carry;
        *digit = total as u8;
        carry = total >> 8;
    }
    for digit in &mut sum {
        let next = u16::from(*digit & 1) << 8;
        *digit = ((u16::from(*digit) | carry << 8) >> 1) as u8;
        carry = next >> 8;
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_added_and_halved_as_numbers() {
        assert_eq!(successor(&[0, 255]), Some(vec![1, 0]));
        assert_eq!(successor(&[255, 255]), None);
        assert_eq!(plus_power(&[0, 0, 1], 9), Some(vec![0, 2, 1]));
        assert_eq!(middle(&[0, 0], &[1, 0]), [0, 128]);
        assert_eq!(middle(&[255, 0], &[255, 254]), [255, 127]);
        assert_eq!(middle(&[255, 255], &[255, 255]), [255, 255]);
        assert_eq!(middle(&[3, 7], &[3, 8]), [3, 7]);
    }
}

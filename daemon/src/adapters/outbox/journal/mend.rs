//! Finding the one bit by which bytes differ from what their CRC32 was taken of.
//!
//! Why: rot flips single bits, a torn write never does only that. So a single bit tells rot from a tear where nothing else
//! can, in what was written last; and what is small and would cost everybody something is put right by it.
//!
//! Invariant: of `n` bytes damaged in any other way, `8 n` in 2^32 are taken for a flip. So only heads, tables and headers
//! are put right, which have other things that must fit; a frame never is.

/// The polynomial of CRC32 (IEEE 802.3), reflected: what flipping the last bit of all does to a checksum.
const POLYNOMIAL: u32 = 0xedb8_8320;

/// Returns the index (byte, bit) of the one bit whose flip turns `bytes` into what `wanted` is the CRC32 of.
pub(super) fn one_bit(bytes: &[u8], wanted: u32) -> Option<(usize, u8)> {
    let difference = crc32fast::hash(bytes) ^ wanted;
    let mut syndrome = POLYNOMIAL;
    for index in (0..bytes.len()).rev() {
        for bit in (0..8).rev() {
            if syndrome == difference {
                return Some((index, bit));
            }
            syndrome = (syndrome >> 1) ^ if syndrome & 1 == 1 { POLYNOMIAL } else { 0 };
        }
    }
    None
}

/// Flips back the one bit by which `bytes` differ from what `wanted` is the CRC32 of. False if that is not all.
pub(super) fn mend(bytes: &mut [u8], wanted: u32) -> bool {
    let found = one_bit(bytes, wanted);
    if let Some((index, bit)) = found
        && let Some(byte) = bytes.get_mut(index)
    {
        *byte ^= 1 << bit;
    }
    found.is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_single_bit_is_found_and_two_are_not() {
        let bytes: Vec<u8> = (0..100_u8).map(|n| n.wrapping_mul(7)).collect();
        let wanted = crc32fast::hash(&bytes);
        assert_eq!(one_bit(&bytes, wanted), None);
        for (index, bit) in (0..100).flat_map(|index| (0..8).map(move |bit| (index, bit))) {
            let mut flipped = bytes.clone();
            flipped[index] ^= 1 << bit;
            assert_eq!(one_bit(&flipped, wanted), Some((index, bit)));
            flipped[(index + 1) % 100] ^= 1;
            assert!(!mend(&mut flipped, wanted));
            flipped[(index + 1) % 100] ^= 1;
            assert!(mend(&mut flipped, wanted));
            assert_eq!(flipped, bytes);
        }
    }
}

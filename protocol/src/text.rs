//! The rules for handles, passwords and names, in one place for daemon and clients.

use crate::limits::{HANDLE_CHARS, PASSWORD_BYTES, PLATFORM_BYTES_MAX};

/// Returns whether `handle` is of the form `[a-z0-9_.]{3,32}`.
pub fn is_handle(handle: &str) -> bool {
    HANDLE_CHARS.contains(&handle.len())
        && handle.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'.'))
}

/// Returns whether `password` has an allowed length. Nothing else is asked of a password (NIST SP 800-63B).
pub fn is_password(password: &str) -> bool {
    PASSWORD_BYTES.contains(&password.len())
}

/// Returns whether `platform` may stand in a list of devices: up to [`PLATFORM_BYTES_MAX`] bytes without control
/// characters; possibly empty, from who does not say.
pub fn is_platform(platform: &str) -> bool {
    platform.len() <= PLATFORM_BYTES_MAX && !platform.chars().any(char::is_control)
}

/// Returns `name` cut to at most `bytes_max` bytes at a character border.
pub fn cut(name: &str, bytes_max: usize) -> &str {
    let mut end = name.len().min(bytes_max);
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    &name[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn handles_are_short_and_plain() {
        for good in ["ada", "a.b_9", &"x".repeat(32)] {
            assert!(is_handle(good), "{good}");
        }
        for bad in ["", "ab", "Ada", "a b", "ädä", "a/b", &"x".repeat(33)] {
            assert!(!is_handle(bad), "{bad}");
        }
    }

    #[test]
    fn platforms_are_short_and_without_control_characters() {
        for good in ["", "linux", "android 15", "ä", &"x".repeat(32)] {
            assert!(is_platform(good), "{good}");
        }
        for bad in [&"x".repeat(33)[..], "a\nb", "\u{1b}[2J", "a\0", "\u{9b}2J", &"ä".repeat(17)] {
            assert!(!is_platform(bad), "{bad:?}");
        }
    }

    #[test]
    fn a_cut_never_splits_a_character() {
        assert_eq!(cut("äöü", 3), "ä");
        assert_eq!(cut("abc", 64), "abc");
    }
}

//! Input as messages: one line, one message.
//!
//! What is sent must arrive byte for byte, so the rules are few and nothing is repaired: a line ends at LF and only
//! there, CR is text like any other, an empty line is an empty message, and a last line without LF is a line. What no
//! message may contain is refused with its place, before anything of the input is sent.
//!
//! Invariant: the lines, joined by LF, are the input again (but for an LF at its end).

use std::io::Read;

use quail_protocol::limits::BODY_BYTES_MAX;

/// Most bytes of input that are taken at once: everything is checked before the first message leaves.
pub const INPUT_BYTES_MAX: usize = 256 * 1024 * 1024;

/// Why an input cannot be sent. Lines count from 1, offsets are bytes from the beginning of the input, from 0.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TextError {
    /// A byte that no UTF-8 text has there.
    #[error("line {line} is not UTF-8: byte 0x{byte:02x} at offset {offset}")]
    NotUtf8 {
        /// The line.
        line: usize,
        /// Where the byte is.
        offset: usize,
        /// The byte.
        byte: u8,
    },
    /// A NUL character, which no message may contain.
    #[error("line {line} contains NUL at offset {offset}")]
    Nul {
        /// The line.
        line: usize,
        /// Where it is.
        offset: usize,
    },
    /// More bytes than a message may have.
    #[error("line {line}, at offset {offset}, has {len} bytes; a message has at most {BODY_BYTES_MAX}")]
    TooLong {
        /// The line.
        line: usize,
        /// Where the line begins.
        offset: usize,
        /// Its length in bytes.
        len: usize,
    },
    /// More input than is taken at once.
    #[error("the input has more than {INPUT_BYTES_MAX} bytes")]
    TooMuch,
    /// The input cannot be read.
    #[error("read the input")]
    Read(#[from] std::io::Error),
}

/// Reads an input to its end.
///
/// # Errors
/// [`TextError::TooMuch`], [`TextError::Read`].
pub fn read(input: impl Read) -> Result<Vec<u8>, TextError> {
    let mut bytes = Vec::new();
    input.take(INPUT_BYTES_MAX as u64 + 1).read_to_end(&mut bytes)?;
    if bytes.len() > INPUT_BYTES_MAX {
        return Err(TextError::TooMuch);
    }
    Ok(bytes)
}

/// Cuts an input into its lines and checks that each can be a message.
///
/// # Errors
/// The first thing in the input that no message may contain.
pub fn lines(input: &[u8]) -> Result<Vec<&str>, TextError> {
    if input.is_empty() {
        return Ok(Vec::new());
    }
    let input = input.strip_suffix(b"\n").unwrap_or(input);
    let mut offset = 0;
    let numbered = input.split(|&byte| byte == b'\n').zip(1..);
    let checked = numbered.map(|(bytes, line)| {
        let text = message(bytes, line, offset)?;
        offset += bytes.len() + 1;
        Ok(text)
    });
    checked.collect()
}

/// Checks that one text, which may have many lines, can be a message.
///
/// # Errors
/// As [`lines`]; the line is that of the text.
pub fn whole(text: &str) -> Result<&str, TextError> {
    message(text.as_bytes(), 1, 0)
}

fn message(bytes: &[u8], line: usize, start: usize) -> Result<&str, TextError> {
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let at = error.valid_up_to();
        TextError::NotUtf8 { line, offset: start + at, byte: bytes.get(at).copied().unwrap_or_default() }
    })?;
    if let Some(at) = bytes.iter().position(|&byte| byte == 0) {
        let lines_before = bytes[..at].iter().filter(|&&byte| byte == b'\n').count();
        return Err(TextError::Nul { line: line + lines_before, offset: start + at });
    }
    if bytes.len() > BODY_BYTES_MAX {
        return Err(TextError::TooLong { line, offset: start, len: bytes.len() });
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(input: &[u8]) -> String {
        lines(input).unwrap_err().to_string()
    }

    #[test]
    fn a_line_ends_at_lf_only() {
        assert_eq!(lines(b"a\nb\n").unwrap(), ["a", "b"]);
        assert_eq!(lines(b"a\r\nb\rc\r\n").unwrap(), ["a\r", "b\rc\r"]);
        assert_eq!(lines("a\u{2028}b\u{85}c\n".as_bytes()).unwrap(), ["a\u{2028}b\u{85}c"]);
    }

    #[test]
    fn a_last_line_without_lf_is_a_line() {
        assert_eq!(lines(b"a\nb").unwrap(), ["a", "b"]);
        assert_eq!(lines(b"a").unwrap(), ["a"]);
    }

    #[test]
    fn empty_lines_are_messages_and_an_empty_input_has_none() {
        assert_eq!(lines(b"").unwrap(), [""; 0]);
        assert_eq!(lines(b"\n").unwrap(), [""]);
        assert_eq!(lines(b"\n\na\n\n").unwrap(), ["", "", "a", ""]);
    }

    #[test]
    fn bytes_that_are_no_text_are_refused_with_their_place() {
        assert_eq!(error(b"ok\nab\xff\n"), "line 2 is not UTF-8: byte 0xff at offset 5");
        assert_eq!(error(b"\xe2\x82"), "line 1 is not UTF-8: byte 0xe2 at offset 0");
        assert_eq!(error(b"a\xc3\nb"), "line 1 is not UTF-8: byte 0xc3 at offset 1");
        assert_eq!(error(b"\n\na\0b"), "line 3 contains NUL at offset 3");
    }

    #[test]
    fn a_line_of_the_full_length_passes_and_one_byte_more_does_not() {
        let full = "ä".repeat(BODY_BYTES_MAX / 2);
        assert_eq!(lines(full.as_bytes()).unwrap(), [full.as_str()]);
        let long = format!("a\n{full}x\nb");
        assert_eq!(
            error(long.as_bytes()),
            "line 2, at offset 2, has 61441 bytes; a message has at most 61440"
        );
    }

    #[test]
    fn one_text_is_one_message() {
        assert_eq!(whole("a\nb\n").unwrap(), "a\nb\n");
        assert_eq!(whole("").unwrap(), "");
        assert_eq!(whole("a\n\0").unwrap_err().to_string(), "line 2 contains NUL at offset 2");
    }
}

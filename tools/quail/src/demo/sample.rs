//! The text that the demo sends unless it is given another one.
//!
//! Chapter I of "Alice's Adventures in Wonderland" by Lewis Carroll (London: Macmillan, 1865), in the public domain. A
//! real text has empty lines, long and short ones, and characters of more than one byte.

/// The text, in lines.
pub const TEXT: &str = include_str!("text.txt");

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text;

    #[test]
    fn every_line_can_be_a_message() {
        let lines = text::lines(TEXT.as_bytes()).unwrap();
        assert!((200..400).contains(&lines.len()), "{}", lines.len());
        assert!(lines.contains(&"") && !TEXT.is_ascii());
    }
}

//! Text of strangers on a terminal.
//!
//! A message may contain bytes that move the cursor, rewrite what was printed before, or make text read in another order
//! than it has. On a terminal they are shown, not obeyed; in a pipe they are data and pass as they are.
//!
//! Invariant: what comes out is one line, and holds no character that a terminal acts on but tab.

use std::borrow::Cow;
use std::fmt::Write;

/// Returns a text with everything escaped that a terminal would act on: C0 controls but tab, DEL, C1 controls, line
/// and paragraph separators, and what overrides or isolates the direction of text (Unicode Standard Annex 9).
pub fn escape(text: &str) -> Cow<'_, str> {
    if !text.contains(acts_on_terminals) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len() + 16);
    for char in text.chars() {
        // Writing to a string cannot fail.
        let _ = match char {
            '\n' => escaped.write_str("\\n"),
            '\r' => escaped.write_str("\\r"),
            char if acts_on_terminals(char) => write!(escaped, "\\u{{{:x}}}", u32::from(char)),
            char => escaped.write_char(char),
        };
    }
    Cow::Owned(escaped)
}

fn acts_on_terminals(char: char) -> bool {
    // `is_control` is C0, DEL and C1.
    (char.is_control() && char != '\t') || matches!(char, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_text_of_any_script_passes() {
        for text in ["", "a\tb", "ä“—”", "שלום", "👩‍👩‍👧", "\u{200e}\u{200f}"] {
            assert_eq!(escape(text), text);
            assert!(matches!(escape(text), Cow::Borrowed(_)));
        }
    }

    #[test]
    fn what_a_terminal_acts_on_is_shown() {
        assert_eq!(escape("\x1b[2Jgone"), "\\u{1b}[2Jgone");
        assert_eq!(escape("a\nb\r\x07\x7f"), "a\\nb\\r\\u{7}\\u{7f}");
        assert_eq!(escape("\u{9b}31m"), "\\u{9b}31m");
        assert_eq!(escape("\u{202e}cba\u{202c}"), "\\u{202e}cba\\u{202c}");
        assert_eq!(escape("\u{2066}x\u{2069}\u{2028}"), "\\u{2066}x\\u{2069}\\u{2028}");
    }

    #[test]
    fn nothing_that_acts_is_left() {
        let all: String = (0..0x3000).filter_map(char::from_u32).collect();
        assert!(!escape(&all).contains(acts_on_terminals));
    }
}

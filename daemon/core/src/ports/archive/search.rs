//! What people write to search: words, `prefix*`, `"a phrase"`, `from:handle`, `before:2026-11-21`, `after:2026-11-01`.
//!
//! Why a parser of our own: the languages of full-text engines have operators that somebody who types a question does not mean,
//! and errors for what is not one. Here every text has a meaning, and an engine only ever gets words that it must quote.
//!
//! Invariants: no text is an error; a term holds no NUL and at least one letter or digit; terms and bytes are bounded; a beginning of
//! a word has enough characters, since an engine puts together the messages of all words that begin so, whosoever they are.

use quail_protocol::id::Stamp;

use super::words;
pub use quail_protocol::limits::{SEARCH_PREFIX_MIN, SEARCH_TEXT_BYTES_MAX};

/// Most terms that count.
pub const SEARCH_TERMS_MAX: usize = 16;

/// Milliseconds of a day.
const DAY_MS: u64 = 86_400_000;

/// What must stand in a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Term {
    /// A word, or words next to each other.
    Phrase(String),
    /// A word, or the last of words next to each other, that begins so.
    Prefix(String),
}

impl Term {
    /// Returns its text.
    pub fn text(&self) -> &str {
        match self {
            Self::Phrase(text) | Self::Prefix(text) => text,
        }
    }
}

/// A search text, understood.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SearchText {
    /// What must stand in a message.
    pub terms: Vec<Term>,
    /// The handle after `from:`, in lower case.
    pub from: Option<String>,
    /// Not before this: the day after `after:`.
    pub since: Option<Stamp>,
    /// Before this: the day after `before:`.
    pub until: Option<Stamp>,
}

impl SearchText {
    /// Understands a text. What is beyond the limits does not count.
    pub fn parse(text: &str) -> Self {
        let mut parsed = Self::default();
        let mut rest = cut(text);
        loop {
            rest = rest.trim_start_matches(is_blank);
            let Some(first) = rest.chars().next() else { return parsed };
            if first == '"' {
                let inner = &rest[1..];
                let (phrase, behind) = inner.split_once('"').unwrap_or((inner, ""));
                let (is_prefix, behind) = match behind.strip_prefix('*') {
                    Some(behind) => (true, behind),
                    None => (false, behind),
                };
                parsed.term(phrase, is_prefix);
                rest = behind;
            } else {
                let end = rest.find(|char| is_blank(char) || char == '"').unwrap_or(rest.len());
                let (word, behind) = rest.split_at(end);
                parsed.word(word);
                rest = behind;
            }
        }
    }

    fn word(&mut self, word: &str) {
        if let Some((key, value)) = word.split_once(':') {
            match key.to_ascii_lowercase().as_str() {
                "from" if !value.is_empty() => {
                    return self.from = Some(value.trim_start_matches('@').to_lowercase());
                }
                "before" if let Some(stamp) = day(value) => return self.until = Some(stamp),
                "after" if let Some(stamp) = day(value) => return self.since = Some(stamp),
                _ => {}
            }
        }
        self.term(word.trim_end_matches('*'), word.ends_with('*'));
    }

    fn term(&mut self, text: &str, is_prefix: bool) {
        if self.terms.len() >= SEARCH_TERMS_MAX || !text.chars().any(char::is_alphanumeric) {
            return;
        }
        let text: String = text.chars().map(|char| if char == '\0' { ' ' } else { char }).collect();
        let last = words(&text).pop().and_then(|(range, _)| text.get(range));
        let is_prefix = is_prefix && last.is_some_and(|last| last.chars().count() >= SEARCH_PREFIX_MIN);
        self.terms.push(if is_prefix { Term::Prefix(text) } else { Term::Phrase(text) });
    }
}

fn is_blank(char: char) -> bool {
    char.is_whitespace() || char == '\0'
}

fn cut(text: &str) -> &str {
    let mut end = text.len().min(SEARCH_TEXT_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// Reads a day, `2026-11-21`, and returns its first stamp in UTC; `None` if it is none.
fn day(text: &str) -> Option<Stamp> {
    let mut parts = text.splitn(3, '-').map(|part| part.parse::<u64>().ok());
    let (year, month, day) = (parts.next()??, parts.next()??, parts.next()??);
    if !(1970..=9999).contains(&year) || !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    // Years begin in March here, so that the leap day is their last.
    let (year, month) = if month <= 2 { (year - 1, month + 9) } else { (year, month - 3) };
    let days = 365 * year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day - 1;
    Some(Stamp::from_ms(days.checked_sub(719_468)? * DAY_MS))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn phrase(text: &str) -> Term {
        Term::Phrase(text.to_owned())
    }

    #[test]
    fn every_form_has_its_meaning() {
        let parsed = SearchText::parse("see \"at eight\" map* from:@Ada before:2026-11-21 after:1970-01-02");
        assert_eq!(parsed.terms, [phrase("see"), phrase("at eight"), Term::Prefix("map".to_owned())]);
        assert_eq!(parsed.from.as_deref(), Some("ada"));
        assert_eq!(parsed.since, Some(Stamp::from_ms(86_400_000)));
        assert_eq!(parsed.until, Some(Stamp::from_ms(1_795_219_200_000)));
    }

    #[test]
    fn a_beginning_that_is_too_short_is_a_whole_word() {
        let parsed = SearchText::parse("ma* \u{fc}be* \u{fc}b* \"at ei\"* \"at eig\"* -map- c++* ab-c*");
        let prefix = |text: &str| Term::Prefix(text.to_owned());
        let expected = [
            phrase("ma"),
            prefix("\u{fc}be"),
            phrase("\u{fc}b"),
            phrase("at ei"),
            prefix("at eig"),
            phrase("-map-"),
            phrase("c++"),
            phrase("ab-c"),
        ];
        assert_eq!(parsed.terms, expected);
    }

    #[test]
    fn operators_of_engines_are_words_or_nothing() {
        let parsed = SearchText::parse("a AND b OR NOT (c) NEAR/2 -d ^e {f}: * \" ** before:soon x:y");
        let texts: Vec<_> = parsed.terms.iter().map(Term::text).collect();
        assert_eq!(texts[..8], ["a", "AND", "b", "OR", "NOT", "(c)", "NEAR/2", "-d"]);
        assert!(texts.contains(&" ** before:soon x:y"), "a quote that is never closed: {texts:?}");
        assert_eq!(SearchText::parse("* \"\" -- \0").terms, []);
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn no_text_is_an_error_and_terms_are_bounded(text in any::<String>()) {
            let parsed = SearchText::parse(&text);
            prop_assert!(parsed.terms.len() <= SEARCH_TERMS_MAX);
            for term in &parsed.terms {
                prop_assert!(!term.text().contains('\0') && term.text().len() <= SEARCH_TEXT_BYTES_MAX);
                prop_assert!(term.text().chars().any(char::is_alphanumeric));
            }
        }
    }
}

//! The words of a text, for archives that have no engine of their own to find them.
//!
//! Invariants: a word is letters and digits next to each other, and nothing else; an accent is a part of its letter; ranges rise
//! and lie on the borders of characters.

use std::ops::Range;

use super::Term;

/// Returns the words of a text, in lower case, with where they stand.
pub fn words(text: &str) -> Vec<(Range<usize>, String)> {
    let mut words: Vec<(Range<usize>, String)> = Vec::new();
    for (at, char) in text.char_indices().filter(|(_, char)| char.is_alphanumeric()) {
        let end = at + char.len_utf8();
        match words.last_mut() {
            Some((range, word)) if range.end == at => {
                range.end = end;
                word.extend(char.to_lowercase());
            }
            _ => words.push((at..end, char.to_lowercase().collect())),
        }
    }
    words
}

/// Returns where a term stands.
pub fn hits(among: &[(Range<usize>, String)], term: &Term) -> Vec<Range<usize>> {
    let wanted: Vec<_> = words(term.text()).into_iter().map(|(_, word)| word).collect();
    if wanted.is_empty() {
        return Vec::new();
    }
    let is_hit = |window: &&[(Range<usize>, String)]| {
        let pairs = window.iter().zip(&wanted).enumerate();
        let mut pairs = pairs.map(|(at, ((_, word), wanted))| match term {
            Term::Prefix(_) if at + 1 == window.len() => word.starts_with(wanted.as_str()),
            _ => word == wanted,
        });
        pairs.all(|is_same| is_same)
    };
    let hits = among.windows(wanted.len()).filter(is_hit);
    hits.filter_map(|window| Some(window.first()?.0.start..window.last()?.0.end)).collect()
}

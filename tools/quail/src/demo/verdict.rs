//! What was sent against what was shown: a comparison without IO.
//!
//! Invariant: messages are told apart by their id, never by their text, because a text may have the same line twice.

use std::collections::HashMap;

use quail_client::MessageId;

/// A message that was shown, in the order of showing.
#[derive(Clone, Debug)]
pub(super) struct Shown {
    pub(super) id: MessageId,
    /// Nothing if it was no text.
    pub(super) text: Option<String>,
}

/// What is wrong with what was shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Verdict {
    /// Messages that were shown again.
    pub(super) duplicates: usize,
    /// Lines that were never shown.
    pub(super) missing: usize,
    /// Lines that were shown after a later one.
    pub(super) out_of_order: usize,
    /// Messages whose text differs from its line, and messages that nobody sent.
    pub(super) altered: usize,
}

/// Compares. `ids` are those of the lines that were sent; lines beyond them were not.
pub(super) fn judge(lines: &[String], ids: &[MessageId], shown: &[Shown]) -> Verdict {
    let numbers: HashMap<_, _> = ids.iter().enumerate().map(|(number, id)| (*id, number)).collect();
    let mut verdict = Verdict::default();
    let mut seen = vec![false; lines.len()];
    let mut last = None;
    for message in shown {
        let Some(&number) = numbers.get(&message.id).filter(|&&number| number < lines.len()) else {
            verdict.altered += 1;
            continue;
        };
        if std::mem::replace(&mut seen[number], true) {
            verdict.duplicates += 1;
            continue;
        }
        if message.text.as_deref() != Some(lines[number].as_str()) {
            verdict.altered += 1;
        }
        if last.is_some_and(|last| number < last) {
            verdict.out_of_order += 1;
        }
        last = last.max(Some(number));
    }
    verdict.missing = seen.iter().filter(|seen| !**seen).count();
    verdict
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINES: [&str; 4] = ["a", "", "a", "b"];

    fn id(number: u8) -> MessageId {
        MessageId([number; 16])
    }

    /// Judges messages given as number of the line and text.
    fn check(shown: &[(u8, &str)], expected: Verdict) {
        let lines = LINES.map(str::to_owned);
        let ids: Vec<_> = (0..4).map(id).collect();
        let shown: Vec<_> = shown
            .iter()
            .map(|(number, text)| Shown { id: id(*number), text: Some((*text).to_owned()) })
            .collect();
        assert_eq!(judge(&lines, &ids, &shown), expected);
    }

    #[test]
    fn all_once_in_order_is_flawless() {
        check(&[(0, "a"), (1, ""), (2, "a"), (3, "b")], Verdict::default());
    }

    #[test]
    fn each_flaw_is_counted_as_what_it_is() {
        let none = Verdict::default();
        check(&[(0, "a"), (1, ""), (2, "a"), (2, "a"), (3, "b")], Verdict { duplicates: 1, ..none });
        check(&[(0, "a"), (3, "b")], Verdict { missing: 2, ..none });
        check(&[(0, "a"), (2, "a"), (1, ""), (3, "b")], Verdict { out_of_order: 1, ..none });
        check(&[(0, "a"), (1, " "), (2, "a"), (3, "b"), (9, "x")], Verdict { altered: 2, ..none });
        check(&[], Verdict { missing: 4, ..none });
    }

    #[test]
    fn a_message_that_is_no_text_is_altered() {
        let shown = [Shown { id: id(0), text: None }];
        let verdict = judge(&["a".to_owned()], &[id(0)], &shown);
        assert_eq!(verdict, Verdict { altered: 1, ..Verdict::default() });
    }
}

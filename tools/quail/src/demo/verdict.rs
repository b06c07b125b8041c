//! What the checker found, in the words of the demo's report.
//!
//! Invariant: whatever the checker names shows: in a count, or as a problem.

use std::collections::HashSet;

use quail_checker::{Entry, Terms, Violation, What, judge};

/// Every receipt is waited for, and an outbox never has to hold more than it may.
const TERMS: Terms = Terms { gaps: false, receipts: true };

/// What is wrong with what was shown.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Verdict {
    /// Messages that were shown again.
    pub(super) duplicates: usize,
    /// Lines that never came: lost, refused, without an answer, or not sent.
    pub(super) missing: usize,
    /// Messages that arrived or sort in another order than that of their lines.
    pub(super) out_of_order: usize,
    /// Messages whose text differs from its line, and messages that nobody sent.
    pub(super) altered: usize,
    /// What has no count of its own.
    pub(super) other: Option<String>,
}

/// Lets the checker judge what was done and seen with a text of so many lines.
pub(super) fn verdict(lines: usize, log: &[Entry]) -> Verdict {
    let (mut sent, mut missing) = (HashSet::new(), HashSet::new());
    for entry in log {
        match &entry.what {
            What::Sent { id, .. } => sent.extend([*id]),
            What::Refused { id } => missing.extend([*id]),
            _ => {}
        }
    }
    let mut verdict = Verdict::default();
    for violation in judge(log, TERMS) {
        match violation {
            Violation::Lost { message, .. } | Violation::Unanswered { message } => {
                missing.insert(message.id);
            }
            Violation::ShownTwice { .. } => verdict.duplicates += 1,
            Violation::ArrivalOrder { .. } | Violation::SenderOrder { .. } => verdict.out_of_order += 1,
            Violation::Altered { .. } | Violation::Unsent { .. } => verdict.altered += 1,
            other => drop(verdict.other.get_or_insert(format!("a promise was broken: {other:?}"))),
        }
    }
    verdict.missing = missing.len() + lines.saturating_sub(sent.len());
    verdict
}

#[cfg(test)]
mod tests {
    use quail_checker::{Key, Place, ReceiptKind, fingerprint};
    use quail_client::{AccountId, DeviceId, MessageId};
    use quail_protocol::id::{Origin, Position, Stamp};

    use super::*;

    const LINES: [&str; 4] = ["a", "", "a", "b"];
    const SENDER: (AccountId, DeviceId) = (AccountId([1; 16]), DeviceId([1; 16]));
    const RECIPIENT: (AccountId, DeviceId) = (AccountId([2; 16]), DeviceId([2; 16]));

    fn id(number: u8) -> MessageId {
        MessageId([number; 16])
    }

    /// Sends all lines, shows messages given as number of the line and text, and tells of those that are due.
    fn log(shown: &[(u8, &str)]) -> Vec<Entry> {
        let mut log = Vec::new();
        let mut note = |(_, device): (AccountId, DeviceId), what| log.push(Entry { device, what });
        let place = |number: u8| Place {
            origin: Origin(1),
            position: Position(u64::from(number) + 1),
            stamp: Stamp(u64::from(number) + 1),
        };
        for person in [SENDER, RECIPIENT] {
            note(person, What::Joined { account: person.0 });
        }
        for (number, line) in (0..).zip(LINES) {
            let (id, to, body) = (id(number), vec![RECIPIENT.0], fingerprint(line.as_bytes()));
            note(SENDER, What::Sent { id, to, body });
            note(SENDER, What::Accepted { id, place: place(number) });
        }
        for (number, text) in shown {
            let (message, body) = (Key { sender: SENDER.0, id: id(*number) }, fingerprint(text.as_bytes()));
            note(RECIPIENT, What::Shown { message, body, place: place(*number) });
            note(RECIPIENT, What::Acknowledged { message });
            if *number < LINES.len() as u8 {
                let (reader, kind) = (RECIPIENT.0, ReceiptKind::Delivered);
                note(SENDER, What::Receipt { id: id(*number), reader, kind });
            }
        }
        log
    }

    #[track_caller]
    fn check(shown: &[(u8, &str)], expected: &Verdict) {
        assert_eq!(&verdict(LINES.len(), &log(shown)), expected);
    }

    #[test]
    fn all_once_in_order_is_flawless() {
        check(&[(0, "a"), (1, ""), (2, "a"), (3, "b")], &Verdict::default());
    }

    #[test]
    fn each_flaw_is_counted_as_what_it_is() {
        let none = Verdict::default;
        check(&[(0, "a"), (1, ""), (2, "a"), (2, "a"), (3, "b")], &Verdict { duplicates: 1, ..none() });
        check(&[(0, "a"), (3, "b")], &Verdict { missing: 2, ..none() });
        check(&[(0, "a"), (2, "a"), (1, ""), (3, "b")], &Verdict { out_of_order: 1, ..none() });
        check(&[(0, "a"), (1, " "), (2, "a"), (3, "b"), (9, "x")], &Verdict { altered: 2, ..none() });
        check(&[], &Verdict { missing: 4, ..none() });
    }

    #[test]
    fn lines_that_were_not_sent_are_missing_and_what_has_no_count_is_told() {
        let mut log = log(&[(0, "a"), (1, ""), (2, "a"), (3, "b")]);
        assert_eq!(verdict(6, &log), Verdict { missing: 2, ..Verdict::default() });
        log.pop();
        let found = verdict(4, &log);
        assert!(found.other.as_ref().is_some_and(|other| other.contains("MissingReceipt")), "{found:?}");
    }
}

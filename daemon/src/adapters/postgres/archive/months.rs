//! The tables of the months: making them before messages come, and knowing which of them a stretch of time can be in.
//!
//! A message lies in the month of its id, and is looked for by its stamp. Ids are at most 60 days older than the moment at which an
//! origin takes them, but its clock may have been wrong, so nothing is derived from that: of each month the database knows between which
//! stamps its messages are, and looks into no other.
//!
//! Invariants: what is known of a month is widened, by whole days, and committed before a message outside of it is written; it is never
//! narrowed. What a daemon remembers of it may be narrower than what is there, and only costs a statement.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use quail_core::ports::archive::ArchiveBatch;
use quail_protocol::id::{MessageId, Stamp};
use sqlx::{PgConnection, Row};

use super::fault::Fault;
use super::rows::{bound, month};

/// Stamps of a day.
const DAY: i64 = 86_400_000 << 16;

/// How far ahead a month's table is made: before the first message of the month, whose batch would wait for it.
const AHEAD_MS: u64 = 7 * 86_400_000;

/// The first stretch of time that is looked through for a page; each further one is four times as long.
const STRETCH: i64 = 31 * DAY;

/// Between which stamps the messages of a month are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) month: i32,
    pub(super) low: i64,
    pub(super) high: i64,
}

/// What this process remembers of the months. At most one entry for each month there can be.
#[derive(Default)]
pub(super) struct Months(Mutex<BTreeMap<i32, (i64, i64)>>);

impl Months {
    /// Returns what has to be widened before a batch is written, by whole days, and the month that begins soon.
    pub(super) fn missing(&self, batch: &ArchiveBatch) -> Vec<Span> {
        let messages = batch.messages.iter().map(|new| (new.message.id, new.stamp));
        // The message of a change may not be there yet, and needs its table. What is awaited is in no list, and the time of a change,
        // perhaps years later, would only make lists look into that table, too.
        let changes = batch.changes.iter().map(|change| {
            let id = change.message.id;
            let minted = id.unix_ms().filter(|_| month(&id) != 0);
            (id, minted.map_or(change.stamp, Stamp::from_ms))
        });
        let soon = batch.messages.iter().map(|new| new.stamp.unix_ms()).max();
        let soon = soon
            .map(|newest| newest.saturating_add(AHEAD_MS))
            .map(|soon| (minted(soon), Stamp::from_ms(soon)));
        let mut needed: BTreeMap<i32, (i64, i64)> = BTreeMap::new();
        for (id, stamp) in messages.chain(changes).chain(soon) {
            let stamp = bound(stamp.0);
            let (low, high) = needed.entry(month(&id)).or_insert((stamp, stamp));
            (*low, *high) = ((*low).min(stamp), (*high).max(stamp));
        }
        let known = self.lock();
        let rounded = needed.into_iter().map(|(month, (low, high))| Span {
            month,
            low: low - low.rem_euclid(DAY),
            high: (high - high.rem_euclid(DAY)).saturating_add(DAY),
        });
        let is_missing = |span: &Span| {
            known.get(&span.month).is_none_or(|(low, high)| span.low < *low || span.high > *high)
        };
        rounded.filter(is_missing).collect()
    }

    /// Takes note of what was widened.
    pub(super) fn learn(&self, span: Span) {
        let mut known = self.lock();
        let (low, high) = known.entry(span.month).or_insert((span.low, span.high));
        (*low, *high) = ((*low).min(span.low), (*high).max(span.high));
    }

    /// Forgets everything: somebody has removed a table.
    pub(super) fn forget(&self) {
        self.lock().clear();
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<i32, (i64, i64)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn minted(unix_ms: u64) -> MessageId {
    let mut id = [0; 16];
    for (byte, of) in id.iter_mut().zip(unix_ms.to_be_bytes().into_iter().skip(2)) {
        *byte = of;
    }
    (id[6], id[8]) = (0x70, 0x80);
    MessageId(id)
}

/// Makes the table of a month, where there is none, and widens what is known of it.
pub(super) async fn widen(connection: &mut PgConnection, span: Span) -> Result<(), Fault> {
    sqlx::query("SELECT archive_month($1, $2, $3)")
        .bind(span.month)
        .bind(span.low)
        .bind(span.high)
        .execute(connection)
        .await?;
    Ok(())
}

/// Returns what is known of all months.
pub(super) async fn spans(connection: &mut PgConnection) -> Result<Vec<Span>, Fault> {
    let rows = sqlx::query("SELECT month, low, high FROM months").fetch_all(connection).await?;
    let span = |row: &sqlx::postgres::PgRow| {
        Ok(Span { month: row.try_get("month")?, low: row.try_get("low")?, high: row.try_get("high")? })
    };
    rows.iter().map(span).collect()
}

/// A stretch of stamps, both ends within, and the months in which its messages can be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stretch {
    pub(super) low: i64,
    pub(super) high: i64,
    pub(super) months: (i32, i32),
}

/// Stretches of time one behind the other, from one end of what is asked for to the other, each in as few months as can be.
pub(super) struct Stretches {
    spans: Vec<Span>,
    /// What is left of what is asked for.
    rest: (i64, i64),
    is_down: bool,
    length: i64,
}

impl Stretches {
    /// From the newest to the oldest, within these stamps.
    pub(super) fn down(spans: Vec<Span>, low: i64, high: i64) -> Self {
        Self { spans, rest: (low, high), is_down: true, length: STRETCH }
    }

    /// From the oldest to the newest.
    pub(super) fn up(spans: Vec<Span>, low: i64, high: i64) -> Self {
        Self { spans, rest: (low, high), is_down: false, length: STRETCH }
    }

    fn overlapping(&self, low: i64, high: i64) -> impl Iterator<Item = &Span> {
        self.spans.iter().filter(move |span| span.low <= high && span.high >= low)
    }
}

impl Iterator for Stretches {
    type Item = Stretch;

    fn next(&mut self) -> Option<Stretch> {
        let (low, high) = self.rest;
        if low > high {
            return None;
        }
        // Where nothing is, nothing is looked for.
        let (low, high) = if self.is_down {
            let newest = self.overlapping(low, high).map(|span| span.high.min(high)).max()?;
            (newest.saturating_sub(self.length).max(low), newest)
        } else {
            let oldest = self.overlapping(low, high).map(|span| span.low.max(low)).min()?;
            (oldest, oldest.saturating_add(self.length).min(high))
        };
        self.length = self.length.saturating_mul(4);
        if self.is_down {
            self.rest.1 = low.saturating_sub(1);
        } else {
            self.rest.0 = high.saturating_add(1);
        }
        let months = self.overlapping(low, high).map(|span| span.month);
        let months =
            months.fold((i32::MAX, i32::MIN), |(first, last), month| (first.min(month), last.max(month)));
        if low == i64::MIN || high == i64::MAX {
            // There is no stamp beyond.
            self.rest = (1, 0);
        }
        Some(Stretch { low, high, months })
    }
}

#[cfg(test)]
mod tests {
    use quail_core::ports::archive::{Change, ChangeKind, MessageRef, NewMessage};
    use quail_protocol::id::{AccountId, DeviceId, Origin, Position};

    use super::*;

    fn spans() -> Vec<Span> {
        (1..=12)
            .map(|month| {
                let low = i64::from(month) * 30 * DAY;
                // Some come late.
                Span { month: 202_600 + month, low, high: low + 50 * DAY }
            })
            .collect()
    }

    /// Fails unless the stretches cover what is asked for, once, in order, and name every month that can have something.
    fn covers(stretches: Stretches, low: i64, high: i64) {
        let is_down = stretches.is_down;
        let mut all: Vec<_> = stretches.collect();
        if is_down {
            all.reverse();
        }
        assert!(all.windows(2).all(|pair| pair[0].high < pair[1].low), "{all:?}");
        for span in spans() {
            for stamp in
                (span.low..=span.high).step_by(DAY as usize).filter(|stamp| (low..=high).contains(stamp))
            {
                let found = all.iter().filter(|one| (one.low..=one.high).contains(&stamp));
                let found: Vec<_> = found.collect();
                assert_eq!(found.len(), 1, "{stamp} in {all:?}");
                assert!((found[0].months.0..=found[0].months.1).contains(&span.month));
            }
        }
    }

    #[test]
    fn stretches_cover_what_is_asked_for_once() {
        for (low, high) in
            [(0, i64::MAX), (i64::MIN, i64::MAX), (100 * DAY, 200 * DAY), (40 * DAY, 40 * DAY), (9, 8)]
        {
            covers(Stretches::down(spans(), low, high), low, high);
            covers(Stretches::up(spans(), low, high), low, high);
        }
        assert_eq!(Stretches::down(Vec::new(), 0, i64::MAX).next(), None);
        let first = Stretches::down(spans(), 0, i64::MAX).next().unwrap();
        assert!(first.months.1 - first.months.0 <= 3, "the newest are in few months: {first:?}");
        // A month by itself, years before all others.
        let lonely = Span { month: 202_101, low: -99_999 * DAY, high: -99_990 * DAY };
        let all = [spans(), vec![lonely]].concat();
        assert!(Stretches::down(all.clone(), i64::MIN, i64::MAX).count() < 8, "what is empty is jumped over");
        assert_eq!(Stretches::up(all, i64::MIN, i64::MAX).next().unwrap().months, (202_101, 202_101));
    }

    #[test]
    fn what_is_known_is_not_asked_for_again_within_a_day() {
        let months = Months::default();
        // The 21st of a month.
        let now_ms = 1_795_219_200_000;
        let day_ms = 86_400_000;
        let batch = |stamp_ms| ArchiveBatch {
            messages: vec![NewMessage {
                message: MessageRef { sender: AccountId([1; 16]), id: minted(now_ms) },
                device: DeviceId([1; 16]),
                recipient: AccountId([2; 16]),
                origin: Origin(1),
                position: Position(1),
                stamp: Stamp::from_ms(stamp_ms),
                kind: 1,
                body: "x".into(),
                reply: None,
            }],
            ..ArchiveBatch::default()
        };
        let of = |missing: &[Span]| missing.iter().map(|span| span.month).collect::<Vec<_>>();
        let missing = months.missing(&batch(now_ms));
        assert_eq!(of(&missing), [202_611]);
        missing.into_iter().for_each(|span| months.learn(span));
        assert_eq!(months.missing(&batch(now_ms + 1_000)), []);
        assert_eq!(of(&months.missing(&batch(now_ms - day_ms))), [202_611], "before what is known");
        assert_eq!(of(&months.missing(&batch(now_ms + 3 * day_ms))), [202_612], "the next one is near");
        months.forget();
        assert_eq!(of(&months.missing(&batch(now_ms))), [202_611]);
        assert_eq!(months.missing(&ArchiveBatch::default()), [], "nothing to write, nothing to make");
    }

    #[test]
    fn a_change_widens_no_month_beyond_the_day_of_its_message() {
        let (now_ms, year_ms) = (1_795_219_200_000, 365 * 86_400_000);
        let change = |id| Change {
            message: MessageRef { sender: AccountId([1; 16]), id },
            recipient: AccountId([2; 16]),
            origin: Origin(1),
            stamp: Stamp::from_ms(now_ms + year_ms),
            kind: ChangeKind::DeleteForAll,
        };
        let missing = |id| {
            let changes = vec![change(id)];
            Months::default().missing(&ArchiveBatch { changes, ..ArchiveBatch::default() })
        };
        let low = bound(Stamp::from_ms(now_ms).0);
        let low = low - low.rem_euclid(DAY);
        assert_eq!(missing(minted(now_ms)), [Span { month: 202_611, low, high: low + DAY }]);
        let timeless = missing(MessageId([7; 16]));
        assert_eq!(timeless.iter().map(|span| span.month).collect::<Vec<_>>(), [0], "it has a table, too");
    }
}

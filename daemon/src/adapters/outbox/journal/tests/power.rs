//! Power cuts by the thousand: whatever a disk makes of what was not synced, what was synced is there.
//!
//! ```text
//! cargo test -p quaild --lib power                        the cuts of every CI run
//! QUAIL_SEEDS=1000000 cargo test -p quaild --lib power    more of them
//! QUAIL_SEED=17 cargo test -p quaild --lib power          one of them
//! ```

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::Duration;

use super::lying::LyingDisk;
use super::random::Random;
use super::*;
use crate::adapters::outbox::journal::tail::TailedEvent;

/// Seeds of a run where `QUAIL_SEEDS` does not say otherwise.
const SEEDS: u64 = 10_000;

struct Appended {
    generation: u64,
    entries: Vec<Entry>,
    last: u64,
}

/// A journal through several lives, and what must be in it.
struct Life {
    random: Random,
    disk: LyingDisk,
    epoch: u64,
    /// Every batch that counts; the first has number 1.
    appended: Vec<Appended>,
    /// The first of these are durable.
    synced: usize,
    mark: Mark,
    generation: u64,
    last: u64,
    /// Up to where an archive has everything, in a life with an archive.
    archived: Option<u64>,
}

impl Life {
    fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let archived = random.percent(40).then_some(0);
        Self {
            random,
            disk: LyingDisk::default(),
            epoch: 0,
            appended: Vec::new(),
            synced: 0,
            mark: Mark::default(),
            generation: 1,
            last: 0,
            archived,
        }
    }

    fn run(mut self) {
        for _ in 0..1 + self.random.below(3) {
            // Some lives are long: segments are recycled several times.
            let steps = if self.random.percent(15) { 120 } else { 20 };
            if self.random.percent(80) {
                self.disk.cut_at(self.disk.calls() + self.random.below(3 * steps));
            }
            if self.random.percent(10) {
                self.disk.fail_sync_after(self.random.below(10));
            }
            if let Some(mut journal) = self.open() {
                for _ in 0..self.random.below(steps) {
                    if self.step(&mut journal).is_err() {
                        break;
                    }
                }
            }
            // What the power cut leaves depends on the disk; a process that was killed leaves all it wrote.
            self.disk = match self.random.percent(70) {
                true => self.disk.after_power_cut(&mut self.random),
                false => self.disk.after_kill(),
            };
        }
        drop(self.open().expect("there is power"));
        let before = self.appended.len();
        drop(self.open().expect("there is power"));
        assert_eq!(self.appended.len(), before, "recovering twice gives the same");
    }

    fn options(&self) -> JournalOptions {
        JournalOptions {
            segment_bytes: SEGMENT_BYTES,
            spares_max: 2,
            archived: self.archived.map(Position),
            ..JournalOptions::default()
        }
    }

    /// Opens the journal and looks at what is in it; `None` if the power went before it was open.
    fn open(&mut self) -> Option<Journal> {
        self.epoch += 1;
        let mut found = Vec::new();
        let mut visit = |batch| found.push(batch);
        let opened = open_as(self.disk.shared(), &self.options(), self.mark, self.epoch, &mut visit);
        let (journal, opened) = match opened {
            Ok(opened) => opened,
            Err(JournalError::Io { .. }) => return None,
            Err(error) => panic!("{error}"),
        };
        self.look(&opened, &found);
        self.read_along(&journal);
        Some(journal)
    }

    fn look(&mut self, opened: &Opened, found: &[ReplayedBatch]) {
        assert_eq!(opened.damage, [], "a power cut is no damage");
        let count = opened.last_number as usize;
        assert!(count >= self.synced, "batch {} was synced and is gone", self.synced);
        assert!(count <= self.appended.len(), "batch {count} was never appended");
        self.appended.truncate(count);
        let wanted =
            self.appended.iter().zip(1..).filter(|(batch, _)| batch.generation > self.mark.generation);
        let wanted: Vec<_> = wanted.collect();
        assert_eq!(found.len(), wanted.len(), "of {count} batches");
        for ((appended, number), found) in wanted.into_iter().zip(found) {
            whole(number, appended.generation, &appended.entries, appended.last, found);
        }
        let last = self.appended.last().map_or(0, |batch| batch.last);
        assert_eq!(opened.last_position, Position(last), "positions are not given twice");
        self.last = last;
        self.synced = count;
        self.generation = opened.generation.max(self.mark.generation + 1);
    }

    /// Reads as the archive does: everything above what it has.
    fn read_along(&mut self, journal: &Journal) {
        let Some(archived) = self.archived else {
            return;
        };
        let mut tail = journal.keeper().tail(Position(archived));
        let mut found: Vec<TailedEvent> = Vec::new();
        loop {
            let tailed = tail.next(300, Duration::ZERO).unwrap();
            if tailed.events.is_empty() {
                break;
            }
            found.extend(tailed.events);
        }
        let entries = self.appended[..self.synced].iter().flat_map(|batch| &batch.entries);
        let wanted = entries.filter_map(|entry| match entry {
            Entry::Event { event, accounts } if event.position.0 > archived => {
                Some(TailedEvent { event: event.clone(), accounts: accounts.clone() })
            }
            _ => None,
        });
        assert_eq!(found, wanted.collect::<Vec<_>>(), "the archive misses something");
        if self.random.percent(70) {
            let upto = self.appended[..self.synced].last().map_or(0, |batch| batch.last);
            self.archived = Some(archived + self.random.below(upto - archived + 1));
        }
    }

    fn step(&mut self, journal: &mut Journal) -> Result<(), JournalError> {
        match self.random.below(100) {
            0..55 => self.append(journal)?,
            55..80 => {
                journal.syncer().sync()?;
                self.synced = self.appended.len();
            }
            80..88 => self.generation += 1,
            88..94 => self.spill(journal)?,
            94..97 => self.read_along(journal),
            _ => journal.keeper().prepare_spare()?,
        }
        Ok(())
    }

    fn append(&mut self, journal: &mut Journal) -> Result<(), JournalError> {
        let mut entries = Vec::new();
        for _ in 0..self.random.below(4) {
            if self.random.percent(60) {
                self.last += 1;
                entries.push(event(self.last, self.random.below(150) as usize));
            } else {
                let others = others(self.last);
                entries.push(others[self.random.below(others.len() as u64) as usize].clone());
            }
        }
        if self.random.percent(10) {
            self.last += 1;
        }
        journal.append(self.generation, &batch(&entries, self.last))?;
        self.appended.push(Appended { generation: self.generation, entries, last: self.last });
        Ok(())
    }

    /// Settles every generation before the current one, if all of it is durable.
    fn spill(&mut self, journal: &Journal) -> Result<(), JournalError> {
        let settled = self.appended.iter().take_while(|batch| batch.generation < self.generation);
        let (count, last) = settled.fold((0, 0), |(count, _), batch| (count + 1, batch.last));
        if count <= self.synced && count > 0 {
            let generation = self.appended[count - 1].generation;
            self.mark = Mark { generation, last_position: Position(last), last_stamp: Stamp(last * 10) };
            journal.keeper().release(generation, self.archived.map(Position))?;
        }
        Ok(())
    }
}

/// So small that a few batches fill a segment.
const SEGMENT_BYTES: usize = 1536;

fn run(seed: u64) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| Life::new(seed).run())) {
        eprintln!(
            "seed {seed} failed; to see it again:\n    QUAIL_SEED={seed} cargo test -p quaild --lib power"
        );
        resume_unwind(panic);
    }
}

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable}={text} is no number")))
}

#[test]
fn no_power_cut_costs_what_was_synced_or_leaves_a_hole() {
    match number("QUAIL_SEED") {
        Some(seed) => run(seed),
        None => (0..number("QUAIL_SEEDS").unwrap_or(SEEDS)).for_each(run),
    }
}

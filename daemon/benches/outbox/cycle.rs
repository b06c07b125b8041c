//! The accept and acknowledge cycle.
//!
//! Each waiter sends and waits until that is durable. Then the recipient acknowledges, which puts a receipt into the
//! sender's outbox, and the sender takes the receipt of the cycle before and sends again; an acknowledgement needs no sync
//! of its own, it goes with what is sent next. So a cycle is one wait, and seven entries: the message and its number, two
//! device records, two stretches taken out, the receipt. Send numbers, receipts and an archive that reads along are all on. One
//! thread appends, as the sequencer does, another syncs, as the committer does.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use quail_core::ports::outbox::{Batch, Entry, Outbox};
use quail_protocol::id::{Position, Stamp};
use quaild::adapters::outbox::{ArchiveReader, OutboxEngine, OutboxOptions};
use quaild::ops::metrics::Metrics;

use super::Scale;
use super::crowd::Desk;
use super::floor::Bare;
use super::measure::{mib, on_disk, resident};
use super::waiting::{Commit, Log, Rate, named, rate, wait_all};

/// How long the archive is busy with what it has read before it reads again: a short transaction.
const TRANSACTION: Duration = Duration::from_millis(2);

/// How often floor and engine take turns, so that a busy second of the machine hits both. Where cores and disk are shared with others,
/// single rounds differ by a factor of two; the one in the middle of nine does not.
const ROUNDS: usize = 9;

pub(crate) struct Cycle {
    pub(crate) waiters: usize,
}

#[derive(Clone, Copy, Default)]
struct Waiter {
    number: u64,
    message: Option<Position>,
    receipt: Option<Position>,
}

struct Run {
    rate: Rate,
    bytes: f64,
}

impl Cycle {
    pub(crate) fn compare(&self, scale: Scale) {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let seconds = scale.seconds / 3.0;
        let (mut ratios, mut rates, mut floors) = (vec![], vec![], vec![]);
        let (mut cpus, mut floor_cpus, mut bytes) = (vec![], vec![], 0.0);
        for round in 0..ROUNDS {
            let path = directory.path().join(format!("outbox-{round}"));
            let run = self.run(&path, seconds);
            bytes = run.bytes;
            let mut bare = Bare::new(directory.path(), bytes as usize);
            let floor = rate(&mut bare, self.waiters, seconds);
            ratios.push(run.rate.per_second / floor.per_second);
            rates.push(run.rate.per_second);
            floors.push(floor.per_second);
            cpus.push(run.rate.cpu_us);
            floor_cpus.push(floor.cpu_us);
        }
        println!(
            "cycle, {:>3} waiters: {:>9.0} cycles/s, floor {:>9.0}, ratio {:.2} (of {} rounds: {}), {:.2} us CPU (floor {:.2}) and {:.0} bytes per message",
            self.waiters,
            median(&mut rates),
            median(&mut floors),
            median(&mut ratios.clone()),
            ROUNDS,
            ratios.iter().map(|ratio| format!("{ratio:.2}")).collect::<Vec<_>>().join(" "),
            median(&mut cpus),
            median(&mut floor_cpus),
            bytes,
        );
    }

    fn run(&self, path: &Path, seconds: f64) -> Run {
        let metrics = Arc::new(Metrics::new());
        let options = OutboxOptions { archived: Some(Position::ZERO), ..OutboxOptions::default() };
        let engine = OutboxEngine::open(path, &options, metrics.clone()).expect("an outbox").engine;
        let stop = Arc::new(AtomicBool::new(false));
        let archive = engine.archive().expect("opened for an archive");
        let stopped = stop.clone();
        let archiving = named("archive", move || archive_all(archive, &stopped));
        let mut crowd = Crowd::new(engine, self.waiters);
        let rate = rate(&mut crowd, self.waiters, seconds);
        stop.store(true, Ordering::Relaxed);
        let archived = archiving.join().expect("the archive reads");
        assert!(archived > 0, "the archive read nothing");
        Run { rate, bytes: metrics.outbox.journalled_bytes.get() as f64 / crowd.cycles as f64 }
    }
}

/// Everybody who waits, the positions, and the outbox.
struct Crowd {
    engine: OutboxEngine,
    waiters: Vec<Waiter>,
    desk: Desk,
    entries: Vec<Entry>,
    cycles: u64,
}

impl Log for Crowd {
    fn append(&mut self, waiters: &[usize]) {
        for waiter in waiters {
            self.operate(*waiter);
        }
        let (last_position, last_stamp) = (Position(self.desk.last), Stamp(self.desk.last));
        self.engine.append(Batch { entries: &self.entries, last_position, last_stamp }).expect("appended");
        self.entries.clear();
    }

    fn committer(&self) -> Commit {
        let mut syncer = self.engine.syncer();
        Box::new(move || syncer.sync().expect("synced"))
    }

    fn completed(&self) -> u64 {
        self.cycles
    }
}

impl Crowd {
    fn new(engine: OutboxEngine, waiters: usize) -> Self {
        let waiters = vec![Waiter::default(); waiters];
        Self { engine, waiters, desk: Desk::default(), entries: Vec::new(), cycles: 0 }
    }

    /// Ends the cycle of a waiter and begins its next.
    fn operate(&mut self, n: usize) {
        let (sender, recipient) = (2 * n as u64, 2 * n as u64 + 1);
        let (waiter, entries) = (&mut self.waiters[n], &mut self.entries);
        if let Some(receipt) = waiter.receipt.take() {
            self.desk.take(sender, receipt, entries);
        }
        if let Some(message) = waiter.message.take() {
            waiter.receipt = Some(self.desk.acknowledge(sender, recipient, message, entries));
            self.cycles += 1;
        }
        waiter.number += 1;
        waiter.message = Some(self.desk.send_made(sender, recipient, waiter.number, entries));
    }
}

fn archive_all(mut archive: ArchiveReader, stop: &AtomicBool) -> u64 {
    let mut events = 0;
    while !stop.load(Ordering::Relaxed) {
        let read = archive.next(1024 * 1024, Duration::from_millis(50)).expect("read");
        events += read.events.len() as u64;
        archive.archived(read.upto);
        std::thread::sleep(TRANSACTION);
    }
    events
}

/// How many wait in the endless run.
const WAITERS: usize = 256;

/// Ten million cycles: memory and disk must stay where they are.
pub(crate) fn endless(scale: Scale) {
    let cycles = 10_000_000 / scale.divisor;
    let directory = tempfile::tempdir().expect("a temporary directory");
    let opened = OutboxEngine::open(directory.path(), &OutboxOptions::default(), Arc::new(Metrics::new()));
    let mut crowd = Crowd::new(opened.expect("an outbox").engine, WAITERS);
    let began = Instant::now();
    for tenth in 1..=10 {
        wait_all(&mut crowd, WAITERS, |done| done < tenth * cycles / 10);
        let done = crowd.cycles;
        println!(
            "endless, {tenth:>2}/10: {done:>8} cycles in {:>5.1} s, resident {:>6.1} MiB, on disk {:>6.1} MiB",
            began.elapsed().as_secs_f64(),
            mib(resident()),
            mib(on_disk(directory.path())),
        );
    }
}

pub(crate) fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

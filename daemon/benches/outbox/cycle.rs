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
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use quail_core::ports::outbox::{Batch, Entry, Outbox, Syncer};
use quail_protocol::id::{Position, Stamp};
use quaild::adapters::outbox::{ArchiveReader, OutboxEngine, OutboxOptions};
use quaild::ops::metrics::Metrics;

use super::Scale;
use super::crowd::Desk;
use super::floor;
use super::measure::{cpu, mib, on_disk, resident};

/// After so many operations they are handed to the syncing thread, as the sequencer does.
const HAND_OVER: usize = 128;

/// How long the archive is busy with what it has read before it reads again: a short transaction.
const TRANSACTION: Duration = Duration::from_millis(2);

/// How often floor and engine take turns, so that a busy minute of the machine hits both.
const ROUNDS: usize = 3;

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
    cycles: u64,
    bytes: u64,
    elapsed: Duration,
    cpu: Duration,
}

impl Cycle {
    pub(crate) fn compare(&self, scale: Scale) {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let (mut ratios, mut rates, mut floors, mut cpus, mut bytes) = (vec![], vec![], vec![], vec![], 0.0);
        for round in 0..ROUNDS {
            let path = directory.path().join(format!("outbox-{round}"));
            let run = self.run(&path, scale.seconds);
            bytes = run.bytes as f64 / run.cycles as f64;
            let floor = floor::appends(directory.path(), bytes as usize, self.waiters, scale.seconds);
            let rate = run.cycles as f64 / run.elapsed.as_secs_f64();
            ratios.push(rate / floor);
            rates.push(rate);
            floors.push(floor);
            cpus.push(run.cpu.as_secs_f64() * 1e6 / run.cycles as f64);
        }
        println!(
            "cycle, {:>3} waiters: {:>9.0} cycles/s, floor {:>9.0}, ratio {:.2} (of {} rounds: {}), {:.2} us CPU and {:.0} bytes per message",
            self.waiters,
            median(&mut rates),
            median(&mut floors),
            median(&mut ratios.clone()),
            ROUNDS,
            ratios.iter().map(|ratio| format!("{ratio:.2}")).collect::<Vec<_>>().join(" "),
            median(&mut cpus),
            bytes,
        );
    }

    fn run(&self, path: &Path, seconds: f64) -> Run {
        let metrics = Arc::new(Metrics::new());
        let options = OutboxOptions { archived: Some(Position::ZERO), ..OutboxOptions::default() };
        let mut engine = OutboxEngine::open(path, &options, metrics.clone()).expect("an outbox").engine;
        let stop = Arc::new(AtomicBool::new(false));
        let archive = engine.archive().expect("opened for an archive");
        let stopped = stop.clone();
        let archiving = named("archive", move || archive_all(archive, &stopped));
        let mut crowd = Crowd::new(self.waiters);
        let (began, before) = (Instant::now(), cpu());
        let deadline = began + Duration::from_secs_f64(seconds);
        let cycles = crowd.go_on(&mut engine, |_| Instant::now() < deadline);
        let (elapsed, cpu) = (began.elapsed(), cpu() - before);
        stop.store(true, Ordering::Relaxed);
        let archived = archiving.join().expect("the archive reads");
        assert!(archived > 0, "the archive read nothing");
        Run { cycles, bytes: metrics.outbox.journalled_bytes.get(), elapsed, cpu }
    }
}

/// Everybody who waits, and the positions.
struct Crowd {
    waiters: Vec<Waiter>,
    desk: Desk,
}

impl Crowd {
    fn new(waiters: usize) -> Self {
        Self { waiters: vec![Waiter::default(); waiters], desk: Desk::default() }
    }

    /// Cycles as long as `more` of the cycles so far says. Returns how many were completed.
    fn go_on(&mut self, engine: &mut OutboxEngine, more: impl Fn(u64) -> bool) -> u64 {
        let (to_sync, appended) = mpsc::sync_channel::<Vec<usize>>(64);
        let (synced, released) = mpsc::sync_channel(4096);
        let syncer = engine.syncer();
        let committer = named("committer", move || commit(syncer, &appended, &synced));
        let mut cycles = 0;
        let mut ready: Vec<usize> = (0..self.waiters.len()).collect();
        let mut entries = Vec::new();
        while more(cycles) {
            for group in ready.chunks(HAND_OVER) {
                for waiter in group {
                    cycles += self.operate(*waiter, &mut entries);
                }
                let (last_position, last_stamp) = (Position(self.desk.last), Stamp(self.desk.last));
                engine.append(Batch { entries: &entries, last_position, last_stamp }).expect("appended");
                entries.clear();
                to_sync.send(group.to_vec()).expect("the committer lives");
            }
            ready = released.recv().expect("the committer lives");
            ready.extend(released.try_iter().flatten());
        }
        drop(to_sync);
        committer.join().expect("the committer ends");
        cycles
    }

    /// Ends the cycle of a waiter and begins its next; returns how many were completed.
    fn operate(&mut self, n: usize, entries: &mut Vec<Entry>) -> u64 {
        let (sender, recipient) = (2 * n as u64, 2 * n as u64 + 1);
        let waiter = &mut self.waiters[n];
        if let Some(receipt) = waiter.receipt.take() {
            self.desk.take(sender, receipt, entries);
        }
        let delivered = waiter.message.take();
        if let Some(message) = delivered {
            waiter.receipt = Some(self.desk.acknowledge(sender, recipient, message, entries));
        }
        waiter.number += 1;
        waiter.message = Some(self.desk.send(sender, recipient, waiter.number, entries));
        delivered.map_or(0, |_| 1)
    }
}

fn commit(mut syncer: Box<dyn Syncer>, appended: &Receiver<Vec<usize>>, synced: &SyncSender<Vec<usize>>) {
    while let Ok(mut group) = appended.recv() {
        group.extend(appended.try_iter().flatten());
        syncer.sync().expect("synced");
        let _ = synced.send(group);
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

/// Ten million cycles: memory and disk must stay where they are.
pub(crate) fn endless(scale: Scale) {
    let cycles = 10_000_000 / scale.divisor;
    let directory = tempfile::tempdir().expect("a temporary directory");
    let opened = OutboxEngine::open(directory.path(), &OutboxOptions::default(), Arc::new(Metrics::new()));
    let mut engine = opened.expect("an outbox").engine;
    let mut crowd = Crowd::new(256);
    let began = Instant::now();
    let mut done = 0;
    for tenth in 1..=10 {
        let upto = cycles / 10;
        done += crowd.go_on(&mut engine, |cycles| cycles < upto);
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

fn named<T: Send + 'static>(name: &str, run: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
    std::thread::Builder::new().name(name.to_owned()).spawn(run).expect("a thread")
}

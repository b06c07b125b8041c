//! Nobody is online: everything that is sent stays.

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use quail_core::State;
use quail_core::ports::outbox::{Batch, Entry, Note, Outbox, Room, StoredEvent};
use quail_protocol::id::{Origin, Position, Stamp};
use quaild::adapters::outbox::{Opened, OutboxEngine, OutboxOptions};
use quaild::ops::metrics::Metrics;

use super::Scale;
use super::crowd::{Desk, MESSAGE_BYTES, account, device};
use super::cycle::median;
use super::measure::{cpu, mib, on_disk, peak, resident};

/// Messages per second that must be taken.
const RATE: u64 = 200_000;

/// How many recipients they go to.
const RECIPIENTS: u64 = 10_000;

/// Messages in one batch.
const BATCH: u64 = 256;

/// How many people send what stays.
const SENDERS: u64 = 500;

/// The argument that makes this program [`hold`] an outbox.
pub(crate) const HOLD: &str = "--hold";

/// After how long the spill thread has had its first look.
const LOOKED_AROUND: Duration = Duration::from_secs(3);

fn open(path: &Path, metrics: &Arc<Metrics>) -> Opened {
    let began = Instant::now();
    loop {
        match OutboxEngine::open(path, &OutboxOptions::default(), metrics.clone()) {
            // sled gives its lock back a moment after it was dropped.
            Err(error) if error.to_string().contains("in use") && began.elapsed().as_secs() < 10 => {}
            opened => return opened.expect("an outbox"),
        }
    }
}

fn commit(engine: &mut OutboxEngine, desk: &Desk, entries: &mut Vec<Entry>) {
    let (last_position, last_stamp) = (Position(desk.last), Stamp(desk.last));
    engine.commit(Batch { entries, last_position, last_stamp }).expect("committed");
    entries.clear();
}

/// Takes messages at a fixed rate for people who are away, then lets them all come back.
pub(crate) fn sustained(scale: Scale) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let metrics = Arc::new(Metrics::new());
    let mut engine = open(directory.path(), &metrics).engine;
    let (mut desk, mut entries) = (Desk::default(), Vec::new());
    let (mut sent, mut refused, mut unsettled) = (0_u64, 0_u64, 0_u64);
    let (began, before, memory) = (Instant::now(), cpu(), resident());
    while began.elapsed() < Duration::from_secs_f64(4.0 * scale.seconds) {
        let due = (began.elapsed().as_secs_f64() * RATE as f64) as u64;
        if due < sent + BATCH {
            std::thread::sleep(Duration::from_micros(200));
            continue;
        }
        // While it is tight only senders above their share are refused, and here none is.
        if matches!(engine.room(), Room::Full { .. }) {
            refused += BATCH;
            sent += BATCH;
            continue;
        }
        for n in sent..sent + BATCH {
            desk.send(1_000_000 + n % 500, n % RECIPIENTS, n / 500 + 1, &mut entries);
        }
        commit(&mut engine, &desk, &mut entries);
        sent += BATCH;
        unsettled = unsettled.max(engine.unsettled_bytes());
    }
    let seconds = began.elapsed().as_secs_f64();
    println!(
        "offline: {:.0} messages/s for {seconds:.0} s, {refused} not taken, {:.2} us CPU per message, unsettled at most {:.0} MiB, resident +{:.0} MiB, on disk {:.0} MiB",
        (sent - refused) as f64 / seconds,
        (cpu() - before).as_secs_f64() * 1e6 / (sent - refused).max(1) as f64,
        mib(unsettled),
        mib(resident().saturating_sub(memory)),
        mib(on_disk(directory.path())),
    );
    for n in 0..RECIPIENTS {
        desk.take(n, Position(desk.last), &mut entries);
        if entries.len() as u64 >= BATCH {
            commit(&mut engine, &desk, &mut entries);
        }
    }
    commit(&mut engine, &desk, &mut entries);
    engine.settle().expect("settled");
    println!("offline, all taken: on disk {:.0} MiB", mib(on_disk(directory.path())));
}

/// One message for a thousand members: how long the sequencer is held.
pub(crate) fn group(scale: Scale) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let mut engine = open(directory.path(), &Arc::new(Metrics::new())).engine;
    let mut desk = Desk::default();
    let members: Vec<_> = (0..1_000).map(account).collect();
    let mut syncer = engine.syncer();
    let mut times = Vec::new();
    for _ in 0..(2_000 / scale.divisor).max(5) {
        let position = desk.position();
        let note = Note::Message { sender: account(0), device: device(0), recipient: account(1) };
        let event = Arc::new(StoredEvent { position, note, frame: vec![1; MESSAGE_BYTES].into() });
        let entries = [Entry::Event { event, accounts: members.clone() }];
        let (last_position, last_stamp) = (position, Stamp(desk.last));
        let began = Instant::now();
        engine.append(Batch { entries: &entries, last_position, last_stamp }).expect("appended");
        times.push(began.elapsed().as_secs_f64() * 1e3);
        syncer.sync().expect("synced");
    }
    println!(
        "group: one message for 1,000 members holds the sequencer for {:.3} ms (median)",
        median(&mut times)
    );
}

/// A million events that nobody takes: how long a restart is, and what it takes.
pub(crate) fn million(scale: Scale) {
    let (events, accounts) = (1_000_000 / scale.divisor, RECIPIENTS / scale.divisor.min(100));
    let directory = tempfile::tempdir().expect("a temporary directory");
    let (empty, full) = (directory.path().join("empty"), directory.path().join("million"));
    drop(open(&empty, &Arc::new(Metrics::new())));
    {
        let (mut desk, mut entries) = (Desk::default(), Vec::new());
        let mut engine = open(&full, &Arc::new(Metrics::new())).engine;
        for n in (0..accounts).chain(1_000_000..1_000_000 + SENDERS) {
            desk.take(n, Position::ZERO, &mut entries);
        }
        for n in 0..events {
            desk.send(1_000_000 + n % SENDERS, n % accounts, n / SENDERS + 1, &mut entries);
            if n % BATCH == 0 {
                commit(&mut engine, &desk, &mut entries);
            }
        }
        commit(&mut engine, &desk, &mut entries);
        engine.settle().expect("settled");
    }
    let settled = on_disk(&full.join("settled"));
    println!(
        "million: {events} events of {MESSAGE_BYTES} bytes in {accounts} outboxes take {:.0} MiB on disk, {:.2} times their bytes",
        mib(settled),
        settled as f64 / (events * MESSAGE_BYTES as u64) as f64,
    );
    // A restart is another process: what this one has freed must not count.
    let (empty, full) = (restart("empty", &empty), restart("million", &full));
    println!("million: resident {:+.1} MiB over an empty outbox", mib(full) - mib(empty));
}

/// Opens an outbox in a process of its own and returns what is resident there, in bytes.
fn restart(name: &str, path: &Path) -> u64 {
    let exe = std::env::current_exe().expect("the benchmark knows its own path");
    let child = Command::new(exe).arg(HOLD).arg(path).stderr(Stdio::inherit()).output().expect("a process");
    let told = String::from_utf8_lossy(&child.stdout);
    assert!(child.status.success(), "{}: {told}", child.status);
    print!("million, {name}: {told}");
    told.split_whitespace().next().and_then(|bytes| bytes.parse().ok()).expect("a figure")
}

/// What a daemon holds of an outbox after its start: the engine, and the core's state. Tells what is resident.
pub(crate) fn hold(path: &Path) {
    let (began, before) = (Instant::now(), resident());
    let Opened { engine, recovered, .. } = open(path, &Arc::new(Metrics::new()));
    let slots = recovered.slots.len();
    let opened = began.elapsed();
    let state = State::new(Origin(1), recovered);
    let (took, after) = (began.elapsed(), resident());
    // Until the spill thread has looked at everything once.
    std::thread::sleep(LOOKED_AROUND);
    let (later, peak) = (resident(), peak());
    println!(
        "{later} bytes resident, {:.1} MiB ({:.1} before, {:.1} just opened, {:.1} at most); {slots} events open in {:.3} s, with the core's state in {:.3} s",
        mib(later),
        mib(before),
        mib(after),
        mib(peak),
        opened.as_secs_f64(),
        took.as_secs_f64(),
    );
    assert_eq!(state.unresolved(), slots);
    drop((engine, state));
}

//! Nobody is online: everything that is sent stays.

use std::sync::Arc;
use std::time::{Duration, Instant};

use quail_core::ports::outbox::{Batch, Entry, Note, Outbox, Room, StoredEvent};
use quail_protocol::id::{Position, Stamp};
use quaild::adapters::outbox::{Opened, OutboxEngine, OutboxOptions};
use quaild::ops::metrics::Metrics;

use super::Scale;
use super::crowd::{Desk, MESSAGE_BYTES, account, device};
use super::cycle::median;
use super::measure::{cpu, mib, on_disk, resident};

/// Messages per second that must be taken.
const RATE: u64 = 200_000;

/// How many recipients they go to.
const RECIPIENTS: u64 = 10_000;

/// Messages in one batch.
const BATCH: u64 = 256;

fn open(path: &std::path::Path, metrics: &Arc<Metrics>) -> Opened {
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
    let (mut desk, mut entries) = (Desk::default(), Vec::new());
    {
        let mut engine = open(directory.path(), &Arc::new(Metrics::new())).engine;
        for n in 0..events {
            desk.send(1_000_000 + n % 500, n % accounts, n / 500 + 1, &mut entries);
            if n % BATCH == 0 {
                commit(&mut engine, &desk, &mut entries);
            }
        }
        commit(&mut engine, &desk, &mut entries);
        engine.settle().expect("settled");
    }
    // A restart is another process: what this one has freed must not count.
    let settled = on_disk(directory.path());
    let began = Instant::now();
    let before = resident();
    let opened = open(directory.path(), &Arc::new(Metrics::new()));
    println!(
        "million: {} events of {MESSAGE_BYTES} bytes in {accounts} outboxes open in {:.3} s; resident {:.0} MiB before, {:.0} MiB after; on disk {:.0} MiB, {:.2} times their bytes",
        opened.recovered.slots.len(),
        began.elapsed().as_secs_f64(),
        mib(before),
        mib(resident()),
        mib(settled),
        settled as f64 / (events * MESSAGE_BYTES as u64) as f64,
    );
}

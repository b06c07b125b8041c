//! What making durable costs: the outbox store commits turns of different sizes, each with its sync.
//!
//! A turn has what a busy daemon's has: new events, the sends that they came from, and the events of the turn before taken
//! out, so that the store stays as small as it is when everybody is online. The disk is that of the temporary directory.
#![allow(missing_docs, clippy::expect_used)] // Macros of criterion make public items; a benchmark without a disk ends.

use std::sync::Arc;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use quail_core::ports::outbox::{Batch, Entry, Outbox, RecentSend, conformance};
use quail_protocol::id::{DeviceId, MessageId, Position, Stamp};
use quaild::adapters::sled::SledOutbox;

/// Turns with so many sends.
const TURNS: [u64; 3] = [1, 64, 256];

/// Length of an event's frame.
const EVENT_BYTES: usize = 330;

/// How many pairs of people send.
const PAIRS: u64 = 100;

/// A turn that begins behind a position.
struct Turn {
    entries: Vec<Entry>,
    last_position: Position,
}

fn turn(after: u64, sends: u64) -> Turn {
    let mut entries = Vec::new();
    for position in after + 1..=after + sends {
        let pair = (position % PAIRS) as u8;
        let accounts = vec![conformance::account(pair)];
        entries.push(Entry::Event {
            event: conformance::event(position, EVENT_BYTES),
            accounts: accounts.into(),
        });
        let send = RecentSend {
            number: position,
            id: MessageId(u128::from(position).to_be_bytes()),
            digest: [7; 16],
            position: Position(position),
            stamp: Stamp(position),
        };
        entries.push(Entry::Sent { device: DeviceId([pair; 16]), send });
        if let Some(before) = position.checked_sub(sends).filter(|before| *before > 0) {
            let account = conformance::account((before % PAIRS) as u8);
            entries.push(Entry::Resolved { account, upto: Position(before) });
        }
    }
    Turn { entries, last_position: Position(after + sends) }
}

fn commit(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("commit");
    for sends in TURNS {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let (mut outbox, _) =
            SledOutbox::open(&directory.path().join("outbox"), Arc::default()).expect("a store");
        let mut position = 0;
        group.throughput(Throughput::Elements(sends));
        group.bench_function(format!("{sends} sends"), |bencher| {
            let next = || {
                position += sends;
                turn(position - sends, sends)
            };
            let commit = |Turn { entries, last_position }| {
                let last_stamp = Stamp(last_position.0);
                outbox.commit(Batch { entries: &entries, last_position, last_stamp }).expect("a commit");
            };
            bencher.iter_batched(next, commit, BatchSize::PerIteration);
        });
    }
    group.finish();
}

criterion_group!(benches, commit);
criterion_main!(benches);

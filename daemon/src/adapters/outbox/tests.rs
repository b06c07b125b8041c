//! The engine as a whole: the conformance suite with spills in between, and random histories against the direct store.

mod ages;
mod archive;

use std::sync::Arc;
use std::time::Instant;

use quail_core::ports::outbox::conformance::{self, account, device, event};
use quail_core::ports::outbox::{
    BacklogReader, Batch, DeviceRecord, Entry, Note, Outbox, RecentSend, Recovered, StoreError, StoredEvent,
    Stretch, Syncer,
};
use quail_protocol::id::{MessageId, Position, Stamp};
use quail_protocol::v1::{self, event::Body, feed_down::Frame};
use tempfile::TempDir;

use super::*;
use crate::adapters::sled::SledOutbox;
use crate::ops::metrics::Metrics;

/// sled gives its lock back a moment after it was dropped, when its own threads are done.
pub(super) fn open(path: &std::path::Path) -> Opened {
    open_with(path, &OutboxOptions::default(), &Arc::default())
}

fn open_with(path: &std::path::Path, options: &OutboxOptions, metrics: &Arc<Metrics>) -> Opened {
    let began = Instant::now();
    loop {
        match OutboxEngine::open(path, options, metrics.clone()) {
            Err(error)
                if (error.to_string().contains("lock") || error.to_string().contains("in use"))
                    && began.elapsed().as_secs() < 10 =>
            {
                std::thread::yield_now();
            }
            opened => return opened.unwrap(),
        }
    }
}

/// An event as the core encodes it, with a stamp.
pub(super) fn stamped(position: u64, stamp: Stamp) -> Arc<StoredEvent> {
    let message = v1::Message { body: vec![0x5a; 40].into(), ..v1::Message::default() };
    let body = Some(Body::Message(message));
    let event = v1::Event { origin: 1, position, stamp: stamp.0, body };
    let frame = quail_protocol::frame::to_bytes(&v1::FeedDown { frame: Some(Frame::Event(event)) });
    let note = Note::Message { sender: account(1), device: device(1), recipient: account(2) };
    Arc::new(StoredEvent { position: Position(position), note, frame })
}

struct Directory(TempDir);

impl conformance::Fixture for Directory {
    type Store = OutboxEngine;

    fn open(&mut self) -> (OutboxEngine, Recovered) {
        let opened = open(self.0.path());
        (opened.engine, opened.recovered)
    }
}

#[test]
fn the_engine_conforms() {
    conformance::check(|| Directory(TempDir::new().unwrap()));
}

#[test]
fn what_was_replayed_is_settled_though_nothing_new_comes() {
    let directory = TempDir::new().unwrap();
    let mut engine = open(directory.path()).engine;
    let entries = [Entry::Event { event: event(1, 50), accounts: vec![account(1)] }];
    engine.commit(Batch { entries: &entries, last_position: Position(1), last_stamp: Stamp(1) }).unwrap();
    drop(engine);
    let engine = open(directory.path()).engine;
    let (settled, told) = std::sync::mpsc::sync_channel(1);
    std::thread::spawn(move || settled.send(engine.settle()));
    told.recv_timeout(std::time::Duration::from_secs(30))
        .expect("it waits for a sync that does not come")
        .unwrap();
}

#[test]
fn a_page_of_withdrawn_events_is_not_the_end() {
    let directory = TempDir::new().unwrap();
    let mut engine = open(directory.path()).engine;
    let commit = |engine: &mut OutboxEngine, entry: Entry| {
        let batch = Batch { entries: &[entry], last_position: Position(8), last_stamp: Stamp(1) };
        engine.commit(batch).unwrap();
    };
    for position in 1..=8 {
        commit(&mut engine, Entry::Event { event: event(position, 50), accounts: vec![account(1)] });
    }
    engine.settle().unwrap();
    for position in [1, 2, 3, 5] {
        commit(&mut engine, Entry::Withdrawn { account: account(1), position: Position(position) });
    }
    let reader = engine.reader();
    for (events_max, bytes_max, expected) in
        [(3, usize::MAX, &[4, 6, 7][..]), (3, 60, &[4]), (2, 200, &[4, 6]), (9, usize::MAX, &[4, 6, 7, 8])]
    {
        let stretch = Stretch { after: Position::ZERO, upto: Position(8), events_max, bytes_max };
        let read = reader.read(account(1), stretch).unwrap();
        let positions: Vec<_> = read.iter().map(|event| event.position.0).collect();
        assert_eq!(positions, expected, "{events_max} events, {bytes_max} bytes");
    }
}

#[test]
fn a_large_backlog_stays_in_the_settled_store_over_a_restart() {
    let directory = TempDir::new().unwrap();
    let mut engine = open(directory.path()).engine;
    for position in 1..=300 {
        let entries = [Entry::Event { event: event(position, 60_000), accounts: vec![account(1)] }];
        let batch = Batch { entries: &entries, last_position: Position(position), last_stamp: Stamp(1) };
        engine.commit(batch).unwrap();
        if position % 10 == 0 {
            engine.settle().unwrap();
        }
    }
    drop(engine);
    let reopened = open(directory.path());
    assert_eq!(reopened.set_aside, None);
    assert_eq!(reopened.recovered.slots.len(), 300);
}

/// An engine that settles everything after each sync: what is read comes from sled.
struct Settling(OutboxEngine);

impl Outbox for Settling {
    fn append(&mut self, batch: Batch<'_>) -> Result<(), StoreError> {
        self.0.append(batch)
    }

    fn syncer(&self) -> Box<dyn Syncer> {
        self.0.syncer()
    }

    fn reader(&self) -> Arc<dyn BacklogReader> {
        self.0.reader()
    }

    fn commit(&mut self, batch: Batch<'_>) -> Result<(), StoreError> {
        self.0.commit(batch)?;
        self.0.settle()
    }
}

struct SettlingDirectory(TempDir);

impl conformance::Fixture for SettlingDirectory {
    type Store = Settling;

    fn open(&mut self) -> (Settling, Recovered) {
        let opened = open(self.0.path());
        (Settling(opened.engine), opened.recovered)
    }
}

#[test]
fn an_engine_that_settles_at_once_conforms() {
    conformance::check(|| SettlingDirectory(TempDir::new().unwrap()));
}

mod oracle {
    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug)]
    enum Op {
        Put(u8, usize),
        PutForTwo(u8, u8),
        Send(u8),
        Record(u8),
        Gone(u8),
        Resolve(u8, u64),
        Withdraw(u8, u64),
        Collapse(u8, u64),
        Settle,
        Reopen,
        /// The process dies with a batch that was not synced.
        Die(u8),
    }

    fn op() -> impl Strategy<Value = Op> {
        let who = 1..4_u8;
        prop_oneof![
            8 => (who.clone(), 0..400_usize).prop_map(|(n, len)| Op::Put(n, len)),
            2 => (who.clone(), who.clone()).prop_map(|(a, b)| Op::PutForTwo(a, b)),
            3 => who.clone().prop_map(Op::Send),
            2 => who.clone().prop_map(Op::Record),
            1 => who.clone().prop_map(Op::Gone),
            4 => (who.clone(), 0..12_u64).prop_map(|(n, back)| Op::Resolve(n, back)),
            2 => (who.clone(), 0..12_u64).prop_map(|(n, back)| Op::Withdraw(n, back)),
            1 => (who.clone(), 0..12_u64).prop_map(|(n, back)| Op::Collapse(n, back)),
            3 => Just(Op::Settle),
            2 => Just(Op::Reopen),
            1 => who.prop_map(Op::Die),
        ]
    }

    /// Both stores, and what was given so far.
    struct Pair {
        directory: TempDir,
        /// Always there between two operations.
        engine: Option<OutboxEngine>,
        direct: Option<SledOutbox>,
        last: u64,
        sends: u64,
        collapsed: [u64; 4],
        /// Each account's device; one that is gone never comes back, the next one has another id.
        devices: [u8; 4],
    }

    fn open_direct(path: &std::path::Path) -> (SledOutbox, Recovered) {
        loop {
            match SledOutbox::open(path, Arc::default()) {
                Err(error) if error.to_string().contains("lock") => std::thread::yield_now(),
                opened => return opened.unwrap(),
            }
        }
    }

    fn sorted(mut recovered: Recovered) -> Recovered {
        recovered.slots.sort_by_key(|(account, slot)| (*account, slot.position));
        recovered.sends.sort_by_key(|(device, send)| (*device, send.number));
        recovered.devices.sort_by_key(|(_, device, _)| *device);
        recovered.collapsed.retain(|(_, upto)| *upto > Position::ZERO);
        recovered.collapsed.sort();
        recovered
    }

    impl Pair {
        fn new() -> Self {
            let directory = TempDir::new().unwrap();
            let engine = Some(open(&directory.path().join("engine")).engine);
            let direct = Some(open_direct(&directory.path().join("direct")).0);
            Self { directory, engine, direct, last: 0, sends: 0, collapsed: [0; 4], devices: [0, 1, 2, 3] }
        }

        fn batch<'a>(&self, entries: &'a [Entry]) -> Batch<'a> {
            Batch { entries, last_position: Position(self.last), last_stamp: Stamp(self.last) }
        }

        fn commit(&mut self, entry: Entry) {
            let entries = [entry];
            let batch = self.batch(&entries);
            self.engine.as_mut().unwrap().commit(batch).unwrap();
            let batch = self.batch(&entries);
            self.direct.as_mut().unwrap().commit(batch).unwrap();
        }

        fn back(&self, back: u64) -> Position {
            Position(self.last.saturating_sub(back))
        }

        fn do_one(&mut self, op: &Op) {
            match *op {
                Op::Put(n, len) => {
                    self.last += 1;
                    self.commit(Entry::Event { event: event(self.last, len), accounts: vec![account(n)] });
                }
                Op::PutForTwo(a, b) => {
                    self.last += 1;
                    let mut accounts = vec![account(a), account(b)];
                    accounts.dedup();
                    self.commit(Entry::Event { event: event(self.last, 20), accounts });
                }
                Op::Send(n) => {
                    (self.last, self.sends) = (self.last + 1, self.sends + 1);
                    let (position, stamp) = (Position(self.last), Stamp(self.last));
                    let id = MessageId(u128::from(self.sends).to_be_bytes());
                    let send = RecentSend { number: self.sends, id, digest: [n; 16], position, stamp };
                    self.commit(Entry::Sent { device: device(self.devices[usize::from(n)]), send });
                }
                Op::Record(n) => {
                    let cursor = Position(self.last);
                    let record = DeviceRecord { cursor, acked: cursor, attach_number: self.last };
                    let device = device(self.devices[usize::from(n)]);
                    self.commit(Entry::Device { account: account(n), device, record });
                }
                Op::Gone(n) => {
                    let gone = self.devices[usize::from(n)];
                    self.devices[usize::from(n)] = gone.wrapping_add(4);
                    self.commit(Entry::DeviceGone { account: account(n), device: device(gone) });
                }
                Op::Resolve(n, back) => {
                    self.commit(Entry::Resolved { account: account(n), upto: self.back(back) });
                }
                Op::Withdraw(n, back) => {
                    self.commit(Entry::Withdrawn { account: account(n), position: self.back(back) });
                }
                Op::Collapse(n, back) => {
                    // As the core does: never back, and what the gap replaces goes.
                    let collapsed = &mut self.collapsed[usize::from(n)];
                    *collapsed = (*collapsed).max(self.last.saturating_sub(back));
                    let upto = Position(*collapsed);
                    self.commit(Entry::Collapsed { account: account(n), upto });
                    self.commit(Entry::Resolved { account: account(n), upto });
                }
                Op::Settle => self.engine.as_ref().unwrap().settle().unwrap(),
                Op::Reopen => self.reopen(),
                Op::Die(n) => {
                    let entry = Entry::Event { event: event(self.last + 1, 50), accounts: vec![account(n)] };
                    let entries = [entry];
                    let batch = self.batch(&entries);
                    let batch = Batch { last_position: Position(self.last + 1), ..batch };
                    self.engine.as_mut().unwrap().append(batch).unwrap();
                    self.reopen();
                }
            }
        }

        /// Both must come back with the same, whatever was in memory.
        fn reopen(&mut self) {
            drop((self.engine.take(), self.direct.take()));
            let reopened = open(&self.directory.path().join("engine"));
            let (direct, recovered) = open_direct(&self.directory.path().join("direct"));
            (self.engine, self.direct) = (Some(reopened.engine), Some(direct));
            assert_eq!(sorted(reopened.recovered), sorted(recovered));
        }

        fn compare(&self) {
            let (engine, direct) = (self.engine.as_ref().unwrap(), self.direct.as_ref().unwrap());
            let (engine, direct) = (engine.reader(), direct.reader());
            for n in 1..4 {
                for (after, events_max) in [(0, 1_000), (0, 3), (self.last / 2, 5)] {
                    let upto = Position(self.last);
                    let stretch = Stretch { after: Position(after), upto, events_max, bytes_max: 1_000 };
                    assert_eq!(
                        engine.read(account(n), stretch).unwrap(),
                        direct.read(account(n), stretch).unwrap(),
                        "account {n}, {stretch:?}"
                    );
                }
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 32, max_shrink_iters: 60, ..ProptestConfig::default() })]

        #[test]
        fn the_engine_does_what_the_direct_store_does(ops in prop::collection::vec(op(), 1..60)) {
            let mut pair = Pair::new();
            for op in &ops {
                pair.do_one(op);
                pair.compare();
            }
            pair.reopen();
            pair.compare();
        }
    }
}

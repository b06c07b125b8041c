//! What the recorded processes do: the same batches in the same order in every life, by their numbers alone.
//!
//! A batch that was not durable when its process died is made again in the next life. So that it can be told whether what is
//! found is of this life or of one before, the bytes of an event have the number of the life in them, and nothing else has.
//!
//! Invariant: every batch gives a position, so that the last position tells how many batches there were.

use std::sync::Arc;

use bytes::Bytes;
use quail_core::ports::outbox::{
    BacklogReader, Batch, DeviceRecord, Entry, Note, Outbox, RecentSend, Recovered, StoredEvent, Stretch,
    TwinOutbox,
};
use quail_protocol::id::{AccountId, DeviceId, MessageId, Position, Stamp};

use super::Dice;

/// Accounts that have outboxes. Those below [`ONLINE`] acknowledge at once, the others now and then.
const ACCOUNTS: u64 = 9;

/// Accounts that acknowledge at once.
const ONLINE: u64 = 3;

/// Batches after which all behaves differently for as many: heavy, then light.
const PHASE: u64 = 150;

/// The batches, one after the other.
pub(super) struct Script {
    dice: Dice,
    /// Batches made.
    pub(super) made: u64,
    last: u64,
    sends: u64,
    /// Each account's device; one that is gone never comes back, the next one has another id.
    devices: Vec<u64>,
    collapsed: Vec<u64>,
}

/// A batch of its own.
pub(super) struct Made {
    entries: Vec<Entry>,
    last: u64,
}

impl Made {
    pub(super) fn batch(&self) -> Batch<'_> {
        Batch {
            entries: &self.entries,
            last_position: Position(self.last),
            last_stamp: Stamp(self.last * 10),
        }
    }
}

fn account(n: u64) -> AccountId {
    AccountId(id(n))
}

fn id(n: u64) -> [u8; 16] {
    let mut id = [0; 16];
    id[..8].copy_from_slice(&Dice(n).next().to_be_bytes());
    id[8..].copy_from_slice(&Dice(!n).next().to_be_bytes());
    id
}

/// An event; letters, because strace writes them down as they are.
fn event(position: u64, len: usize, life: u64) -> Arc<StoredEvent> {
    let note = match position % 3 {
        0 => Note::Receipt { account: account(1), after: Position(0), upto: Position(position) },
        _ => Note::Message { sender: account(1), device: DeviceId(id(2)), recipient: account(3) },
    };
    let mut dice = Dice(position << 16 | life);
    let mut frame = format!("{life} {position} ").into_bytes();
    while frame.len() < len {
        frame.extend(dice.next().to_be_bytes().map(|byte| b'a' + byte % 26));
    }
    Arc::new(StoredEvent { position: Position(position), note, frame: Bytes::from(frame) })
}

impl Script {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            dice: Dice(seed),
            made: 0,
            last: 0,
            sends: 0,
            devices: (0..ACCOUNTS).map(|n| 100 + n).collect(),
            collapsed: vec![0; ACCOUNTS as usize],
        }
    }

    /// Makes the next batch, in a life.
    pub(super) fn next(&mut self, life: u64) -> Made {
        let is_heavy = self.made / PHASE % 2 == 1;
        self.made += 1;
        let mut entries = Vec::new();
        for _ in 0..1 + self.dice.below(4) {
            self.last += 1;
            let len = match (self.dice.below(40), is_heavy) {
                (0, _) => 40_000,
                (1..4, _) | (_, true) => 1_000 + self.dice.below(24_000),
                _ => self.dice.below(600),
            };
            let first = self.dice.below(ACCOUNTS);
            let second = self.dice.below(ACCOUNTS * 4);
            let mut accounts = vec![account(first)];
            if second < ACCOUNTS && second != first {
                accounts.push(account(second));
            }
            entries.push(Entry::Event { event: event(self.last, len as usize, life), accounts });
            if self.dice.below(2) == 0 {
                self.sent(first, &mut entries);
            }
        }
        for n in 0..ACCOUNTS {
            self.acknowledge(n, &mut entries);
        }
        if self.dice.below(60) == 0 {
            let n = self.dice.below(ACCOUNTS);
            let (account, device) = (account(n), DeviceId(id(self.devices[n as usize])));
            entries.push(Entry::DeviceGone { account, device });
            self.devices[n as usize] += 1_000;
        }
        Made { entries, last: self.last }
    }

    fn sent(&mut self, n: u64, entries: &mut Vec<Entry>) {
        self.sends += 1;
        let send = RecentSend {
            number: self.sends,
            id: MessageId(id(self.sends)),
            digest: id(!self.sends),
            position: Position(self.last),
            stamp: Stamp(self.last * 10),
        };
        entries.push(Entry::Sent { device: DeviceId(id(self.devices[n as usize])), send });
    }

    fn acknowledge(&mut self, n: u64, entries: &mut Vec<Entry>) {
        let account = account(n);
        let often = if n < ONLINE { 2 } else { 40 };
        if self.dice.below(often) == 0 {
            let upto = Position(self.last.saturating_sub(self.dice.below(if n < ONLINE { 5 } else { 200 })));
            let record = DeviceRecord { cursor: upto, acked: upto, attach_number: self.made };
            let device = DeviceId(id(self.devices[n as usize]));
            entries.push(Entry::Device { account, device, record });
            entries.push(Entry::Resolved { account, upto });
        }
        if self.dice.below(30) == 0 {
            let position = Position(self.last.saturating_sub(self.dice.below(300)));
            entries.push(Entry::Withdrawn { account, position });
        }
        if self.dice.below(300) == 0 {
            let upto = self.last.saturating_sub(self.dice.below(50)).max(self.collapsed[n as usize]);
            self.collapsed[n as usize] = upto;
            entries.push(Entry::Collapsed { account, upto: Position(upto) });
        }
    }

    /// Makes batches, which nobody wants, up to a position, and returns whether one of them ends there.
    pub(super) fn skip_to(&mut self, last: Position) -> bool {
        while self.last < last.0 {
            self.next(0);
        }
        self.last == last.0
    }
}

/// Which life each batch was made in: from the batch of a number on, in that life.
pub(super) type Lives = Vec<(u64, u64)>;

/// What an outbox must hold after some batches.
pub(super) struct Model {
    seed: u64,
    script: Script,
    twin: TwinOutbox,
    /// In which life each batch was made.
    lives: Vec<u64>,
}

impl Model {
    pub(super) fn new(seed: u64) -> Self {
        Self { seed, script: Script::new(seed), twin: TwinOutbox::new(), lives: Vec::new() }
    }

    /// Goes to where the last position is this one; returns how many batches that are, `None` if no batch ends there.
    pub(super) fn go_to(&mut self, last: Position, lives: &Lives) -> Option<u64> {
        let life =
            |batch: u64| lives.iter().rev().find(|(from, _)| *from <= batch).map_or(0, |(_, life)| *life);
        let is_so_far = (0..).zip(&self.lives).all(|(batch, of)| life(batch) == *of);
        if !is_so_far || self.script.last > last.0 {
            *self = Self::new(self.seed);
        }
        while self.script.last < last.0 {
            let of = life(self.script.made);
            self.twin.commit(self.script.next(of).batch()).unwrap();
            self.lives.push(of);
        }
        (self.script.last == last.0).then_some(self.script.made)
    }

    /// Fails unless this was recovered, and is read.
    pub(super) fn compare(&self, recovered: Recovered, reader: &dyn BacklogReader) -> Result<(), String> {
        let (expected, found) = (sorted(self.twin.reopen().1), sorted(recovered));
        if expected != found {
            return Err(difference(&expected, &found));
        }
        let all = Stretch {
            after: Position::ZERO,
            upto: Position(self.script.last),
            events_max: usize::MAX,
            bytes_max: usize::MAX,
        };
        for n in 0..ACCOUNTS {
            let expected = self.twin.read(account(n), all).map_err(|error| error.to_string())?;
            let found = reader.read(account(n), all).map_err(|error| error.to_string())?;
            if expected != found {
                let other = expected
                    .iter()
                    .zip(&found)
                    .find(|(one, other)| one != other)
                    .map(|(one, _)| one.position);
                return Err(format!(
                    "account {n}: {} events instead of {}, {other:?} is another",
                    found.len(),
                    expected.len()
                ));
            }
        }
        Ok(())
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

/// Says in one line where two differ.
fn difference(expected: &Recovered, found: &Recovered) -> String {
    fn of<T: PartialEq + std::fmt::Debug>(what: &str, expected: &[T], found: &[T]) -> String {
        let missing: Vec<_> = expected.iter().filter(|one| !found.contains(one)).take(3).collect();
        let more: Vec<_> = found.iter().filter(|one| !expected.contains(one)).take(3).collect();
        match expected == found {
            true => String::new(),
            false => format!(
                "{what}: {} instead of {}, missing {missing:?}, too much {more:?}; ",
                found.len(),
                expected.len()
            ),
        }
    }
    of("slots", &expected.slots, &found.slots)
        + &of("devices", &expected.devices, &found.devices)
        + &of("sends", &expected.sends, &found.sends)
        + &of("collapsed", &expected.collapsed, &found.collapsed)
        + &of(
            "last",
            &[(expected.last_position, expected.last_stamp)],
            &[(found.last_position, found.last_stamp)],
        )
}

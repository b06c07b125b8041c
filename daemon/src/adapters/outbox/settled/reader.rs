//! Reading settled events, from any thread, while the spill thread writes.
//!
//! Invariant: what cannot be read is named as lost. sled answers a damaged page with an error or with a panic; both end here.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, RwLock};

use prost::Message;
use quail_core::ports::outbox::{StoredEvent, Stretch};
use quail_protocol::id::{AccountId, Position, Stamp};
use quail_protocol::v1::{self, feed_down};

use super::format::{EVENT_HEADER, IndexRow};
use super::{Trees, current, format};
use crate::adapters::outbox::types::{Lost, SettledEvents, SettledRead};

pub(super) struct SettledReader {
    trees: Arc<RwLock<Trees>>,
}

impl SettledReader {
    pub(super) fn new(trees: Arc<RwLock<Trees>>) -> Self {
        Self { trees }
    }

    /// Returns the smallest stamp of the first events of accounts.
    pub(super) fn oldest<'a>(&self, accounts: impl Iterator<Item = &'a AccountId>) -> Option<Stamp> {
        // Positions rise with time, so the smallest position is the oldest event.
        let trees = current(&self.trees);
        let firsts = accounts.filter_map(|account| Some((first_position(&trees, *account)?, *account)));
        let (first, account) = firsts.min()?;
        let after = Position(first.0.saturating_sub(1));
        let stretch = Stretch { after, upto: first, events_max: 1, bytes_max: 0 };
        self.read(account, stretch).events.first().and_then(|event| stamp_of(event))
    }

    /// Returns for each account that has older events the position of the last of them.
    pub(super) fn older_than<'a>(
        &self,
        accounts: impl Iterator<Item = &'a AccountId>,
        stamp: Stamp,
    ) -> Vec<(AccountId, Position)> {
        let trees = current(&self.trees);
        accounts.filter_map(|account| Some((*account, older_in(&trees, *account, stamp)?))).collect()
    }
}

/// Walks over the chunks of an account as long as they begin with something older; most begin with nothing that is.
fn older_in(trees: &Trees, account: AccountId, stamp: Stamp) -> Option<Position> {
    let mut found = None;
    let mut after = Position::ZERO;
    loop {
        let stretch = Stretch { after, upto: Position::END, events_max: 256, bytes_max: usize::MAX };
        let events = read(trees, account, stretch).events;
        let older = |event: &&Arc<StoredEvent>| stamp_of(event).is_some_and(|of| of < stamp);
        let last_older = events.iter().take_while(older).last().map(|event| event.position);
        found = last_older.or(found);
        match (events.last(), last_older) {
            (Some(last), Some(older)) if last.position == older => after = older,
            _ => return found,
        }
    }
}

fn first_position(trees: &Trees, account: AccountId) -> Option<Position> {
    let item = trees.index.scan_prefix(account.as_bytes()).keys().next()?.ok()?;
    Some(Position(format::parse_key(&item).ok()?.1))
}

fn stamp_of(event: &StoredEvent) -> Option<Stamp> {
    match v1::FeedDown::decode_length_delimited(&*event.frame).ok()?.frame? {
        feed_down::Frame::Event(inner) => Some(Stamp(inner.stamp)),
        _ => None,
    }
}

impl SettledRead for SettledReader {
    fn read(&self, account: AccountId, stretch: Stretch) -> SettledEvents {
        read(&current(&self.trees), account, stretch)
    }
}

fn read(trees: &Trees, account: AccountId, stretch: Stretch) -> SettledEvents {
    let mut found = SettledEvents::default();
    let mut bytes = 0;
    let stretch = Stretch { after: stretch.after.max(resolved(trees, account)), ..stretch };
    if stretch.upto <= stretch.after {
        return found;
    }
    let rows = match rows(trees, account, stretch) {
        Ok(rows) => rows,
        Err(what) => {
            let (from, upto) = (stretch.after.next(), stretch.upto);
            found.lost.push(Lost { account: Some(account), from, upto, what });
            return found;
        }
    };
    for (key, row) in rows {
        let chunk = caught(|| trees.chunks.get(&key));
        let whole = match &chunk {
            Ok(Some(bytes)) => parse_chunk(bytes, &row),
            _ => vec![None; row.events.len()],
        };
        for ((position, _), event) in row.events.iter().zip(whole) {
            if *position <= stretch.after {
                continue;
            }
            if *position > stretch.upto {
                return found;
            }
            if found.events.len() + found.lost.len() >= stretch.events_max {
                found.more = true;
                return found;
            }
            let Some(event) = event else {
                let what = match &chunk {
                    Err(what) => what.clone(),
                    Ok(None) => "its chunk is missing".to_owned(),
                    Ok(Some(_)) => "its checksum".to_owned(),
                };
                found.lost.push(Lost { account: Some(account), from: *position, upto: *position, what });
                continue;
            };
            bytes += event.frame.len();
            if bytes > stretch.bytes_max && !found.events.is_empty() {
                found.more = true;
                return found;
            }
            found.events.push(event);
        }
    }
    found
}

/// Returns up to where everything of an account is gone; a chunk that is only partly so still has it. A row that cannot be
/// read brings back what a device has taken, which the device passes over.
fn resolved(trees: &Trees, account: AccountId) -> Position {
    let row = caught(|| trees.accounts.get(account.as_bytes())).ok().flatten();
    row.and_then(|row| format::parse_account(&row).ok()).map_or(Position::ZERO, |row| row.resolved)
}

/// Returns the rows of the chunks that a stretch touches, as many as its events can need.
fn rows(trees: &Trees, account: AccountId, stretch: Stretch) -> Result<Vec<(sled::IVec, IndexRow)>, String> {
    let first = format::chunk_key(account, stretch.after.next());
    let begins = caught(|| {
        trees.index.range(format::chunk_key(account, Position::ZERO)..=first).next_back().transpose()
    })?;
    let from = begins.map_or_else(|| sled::IVec::from(&first), |(key, _)| key);
    let last = format::chunk_key(account, stretch.upto);
    let (mut rows, mut events) = (Vec::new(), 0);
    let mut range = trees.index.range(from..=sled::IVec::from(&last));
    while events <= stretch.events_max {
        let Some((key, value)) = caught(|| range.next().transpose())? else { break };
        // A row that cannot be read was named when the store was opened, and stays so until it is removed.
        let Ok(row) = format::parse_index(&value) else { continue };
        events += row.events.iter().filter(|(position, _)| *position > stretch.after).count();
        rows.push((key, row));
    }
    Ok(rows)
}

/// Returns each event of a chunk that is what was written.
pub(super) fn parse_chunk(chunk: &[u8], row: &IndexRow) -> Vec<Option<Arc<StoredEvent>>> {
    let mut at = 1;
    let event = |(position, len): &(Position, u32)| {
        let start = at;
        at += EVENT_HEADER + *len as usize;
        let event = format::parse_event(chunk.get(start..at)?)?;
        (event.position == *position).then(|| Arc::new(event))
    };
    row.events.iter().map(event).collect()
}

/// Asks sled, which may panic where it finds a page that is not what it wrote.
fn caught<T>(ask: impl FnOnce() -> sled::Result<T>) -> Result<T, String> {
    match catch_unwind(AssertUnwindSafe(ask)) {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err("sled panicked over a page".to_owned()),
    }
}

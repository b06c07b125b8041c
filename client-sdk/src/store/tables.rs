//! The tables of the two databases, and what each change does to them.
//!
//! ```text
//! publish.redb   meta      format, next_number, tried_upto, seen
//!                owner     account, device
//!                queue     number -> message
//!                answered  number -> id, digest, where it was accepted
//!                refused   number -> reason, text, message
//! feed.redb      meta      format, attach_number, seen
//!                owner     account, device
//!                places    0: cursors, 1: set aside, 2: marks
//!                shown     rising -> sender, id
//!                hands     origin, position -> attempts, deaths, standing
//! ```
//!
//! Invariant: one commit is one transaction, durable when it returns.

use redb::{
    Database, ReadTransaction, ReadableDatabase, ReadableTable, ReadableTableMetadata, Table, TableDefinition,
};

use quail_protocol::id::{Origin, Position, Stamp};

use super::codec::{self, BadValue};
use super::publish::{ANSWERS_KEPT_MAX, REFUSALS_KEPT_MAX};
use super::{FeedChange, FeedState, Owner, Part, PublishChange, PublishState};

/// The form of the databases that this version writes, and the newest it reads.
pub(super) const FORMAT: u64 = 2;

type Values<K> = TableDefinition<'static, K, &'static [u8]>;
type Numbers<'a> = Table<'a, &'static str, u64>;

const META: TableDefinition<'static, &'static str, u64> = TableDefinition::new("meta");
const OWNER: Values<u8> = Values::new("owner");
const QUEUE: Values<u64> = Values::new("queue");
const ANSWERED: Values<u64> = Values::new("answered");
const REFUSED: Values<u64> = Values::new("refused");
const PLACES: Values<u8> = Values::new("places");
const SHOWN: Values<u64> = Values::new("shown");
const HANDS: Values<(u32, u64)> = Values::new("hands");

/// The one key of the table of owners.
const ONE: u8 = 0;

const CURSORS: u8 = 0;
const SET_ASIDE: u8 = 1;
const MARKS: u8 = 2;

/// Why a database cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum TableError {
    #[error(transparent)]
    Database(redb::Error),
    #[error(transparent)]
    Value(#[from] BadValue),
    #[error("format {0} is newer than this version knows")]
    Newer(u64),
    #[error("{0}")]
    Meta(&'static str),
}

impl<E: Into<redb::Error>> From<E> for TableError {
    fn from(error: E) -> Self {
        Self::Database(error.into())
    }
}

/// Makes all tables of a new database.
pub(super) fn create(database: &Database, part: Part) -> Result<(), TableError> {
    let transaction = database.begin_write()?;
    {
        transaction.open_table(META)?.insert("format", FORMAT)?;
        transaction.open_table(OWNER)?;
        match part {
            Part::Publish => {
                transaction.open_table(META)?.insert("next_number", 1)?;
                transaction.open_table(QUEUE)?;
                transaction.open_table(ANSWERED)?;
                transaction.open_table(REFUSED)?;
            }
            Part::Feed => {
                transaction.open_table(PLACES)?;
                transaction.open_table(SHOWN)?;
                transaction.open_table(HANDS)?;
            }
        }
    }
    Ok(transaction.commit()?)
}

/// Raises the count of sends, for a state that was written in another form.
pub(super) fn begin_at(database: &Database, next_number: u64) -> Result<(), TableError> {
    let transaction = database.begin_write()?;
    transaction.open_table(META)?.insert("next_number", next_number)?;
    Ok(transaction.commit()?)
}

/// Checks that this version knows the form.
pub(super) fn check(database: &Database) -> Result<(), TableError> {
    let meta = database.begin_read()?.open_table(META)?;
    match meta.get("format")?.map(|value| value.value()) {
        Some(FORMAT) => Ok(()),
        Some(format) if format > FORMAT => Err(TableError::Newer(format)),
        _ => Err(TableError::Meta("it says no format")),
    }
}

/// Returns how many bytes of the database are data.
pub(super) fn stored_bytes(database: &Database) -> Result<u64, TableError> {
    let transaction = database.begin_write()?;
    let bytes = transaction.stats()?.stored_bytes();
    transaction.abort()?;
    Ok(bytes)
}

fn load_owner(transaction: &ReadTransaction) -> Result<Option<Owner>, TableError> {
    match transaction.open_table(OWNER)?.get(ONE)? {
        Some(value) => Ok(Some(codec::read_owner(value.value())?)),
        None => Ok(None),
    }
}

pub(super) fn load_publish(database: &Database) -> Result<PublishState, TableError> {
    let transaction = database.begin_read()?;
    let meta = transaction.open_table(META)?;
    let number = |name| Ok::<_, TableError>(meta.get(name)?.map_or(0, |value| value.value()));
    let mut state = PublishState {
        owner: load_owner(&transaction)?,
        next_number: number("next_number")?,
        tried_upto: number("tried_upto")?,
        seen: Stamp(number("seen")?),
        ..PublishState::default()
    };
    for entry in transaction.open_table(QUEUE)?.iter()? {
        let (number, value) = entry?;
        state.queue.push_back(codec::read_send(number.value(), value.value())?);
    }
    for entry in transaction.open_table(ANSWERED)?.iter()? {
        state.answered.push_back(codec::read_answer(entry?.1.value())?);
    }
    for entry in transaction.open_table(REFUSED)?.iter()? {
        state.refused.push_back(codec::read_refused(entry?.1.value())?);
    }
    if state.next_number <= state.queue.back().map_or(0, |send| send.number) {
        return Err(TableError::Meta("its next number was used"));
    }
    Ok(state)
}

pub(super) fn commit_publish(database: &Database, changes: &[PublishChange]) -> Result<(), TableError> {
    let transaction = database.begin_write()?;
    {
        let mut tables = PublishTables {
            meta: transaction.open_table(META)?,
            owner: transaction.open_table(OWNER)?,
            queue: transaction.open_table(QUEUE)?,
            answered: transaction.open_table(ANSWERED)?,
            refused: transaction.open_table(REFUSED)?,
        };
        changes.iter().try_for_each(|change| tables.apply(change))?;
    }
    Ok(transaction.commit()?)
}

struct PublishTables<'a> {
    meta: Numbers<'a>,
    owner: Table<'a, u8, &'static [u8]>,
    queue: Table<'a, u64, &'static [u8]>,
    answered: Table<'a, u64, &'static [u8]>,
    refused: Table<'a, u64, &'static [u8]>,
}

impl PublishTables<'_> {
    fn apply(&mut self, change: &PublishChange) -> Result<(), TableError> {
        match change {
            PublishChange::Owner(owner) => drop(self.owner.insert(ONE, &codec::owner_value(owner)[..])?),
            PublishChange::Queued(send) => {
                raise(&mut self.meta, "next_number", send.number.saturating_add(1))?;
                self.queue.insert(send.number, &codec::send_value(send)[..])?;
            }
            PublishChange::Tried(upto) => raise(&mut self.meta, "tried_upto", *upto)?,
            PublishChange::Edited(send) => {
                if self.queue.remove(send.number)?.is_some() {
                    self.queue.insert(send.number, &codec::send_value(send)[..])?;
                }
            }
            PublishChange::Cancelled(number) => drop(self.queue.remove(number)?),
            PublishChange::Renumbered(from, to) => {
                let value = self.queue.remove(from)?.map(|value| value.value().to_vec());
                if let Some(value) = value {
                    raise(&mut self.meta, "next_number", to.saturating_add(1))?;
                    self.queue.insert(to, &value[..])?;
                }
            }
            PublishChange::Accepted(answer) => {
                self.queue.remove(answer.number)?;
                raise(&mut self.meta, "seen", answer.accepted.stamp.0)?;
                self.answered.insert(answer.number, &codec::answer_value(answer)[..])?;
                if self.answered.len()? > ANSWERS_KEPT_MAX as u64 {
                    self.answered.pop_first()?;
                }
            }
            PublishChange::Refused(refused) => {
                self.queue.remove(refused.send.number)?;
                self.refused.insert(refused.send.number, &codec::refused_value(refused)[..])?;
                if self.refused.len()? > REFUSALS_KEPT_MAX as u64 {
                    self.refused.pop_first()?;
                }
            }
            PublishChange::Noted(id) => {
                let is_other =
                    |value: &[u8]| codec::read_refused(value).map_or(true, |refused| refused.send.id != *id);
                self.refused.retain(|_, value| is_other(value))?;
            }
            PublishChange::Seen(stamp) => drop(self.meta.insert("seen", stamp.0)?),
        }
        Ok(())
    }
}

fn raise(meta: &mut Numbers<'_>, name: &str, number: u64) -> Result<(), TableError> {
    let before = meta.get(name)?.map_or(0, |value| value.value());
    if number > before {
        meta.insert(name, number)?;
    }
    Ok(())
}

pub(super) fn load_feed(database: &Database) -> Result<FeedState, TableError> {
    let transaction = database.begin_read()?;
    let meta = transaction.open_table(META)?;
    let number = |name| Ok::<_, TableError>(meta.get(name)?.map_or(0, |value| value.value()));
    let places = transaction.open_table(PLACES)?;
    let list = |key: u8| match places.get(key)? {
        Some(value) => Ok::<_, TableError>(codec::read_places(value.value())?),
        None => Ok(Vec::new()),
    };
    let mut state = FeedState {
        owner: load_owner(&transaction)?,
        attach_number: number("attach_number")?,
        seen: Stamp(number("seen")?),
        cursors: list(CURSORS)?,
        set_aside: list(SET_ASIDE)?,
        ..FeedState::default()
    };
    if let Some(value) = places.get(MARKS)? {
        state.marks = codec::read_marks(value.value())?;
    }
    for entry in transaction.open_table(SHOWN)?.iter()? {
        state.shown.push_back(codec::read_key(entry?.1.value())?);
    }
    for entry in transaction.open_table(HANDS)?.iter()? {
        let (place, value) = entry?;
        let (origin, position) = place.value();
        state.hands.insert((Origin(origin), Position(position)), codec::read_hand(value.value())?);
    }
    Ok(state)
}

pub(super) fn commit_feed(database: &Database, changes: &[FeedChange]) -> Result<(), TableError> {
    let transaction = database.begin_write()?;
    {
        let mut meta = transaction.open_table(META)?;
        let mut owners = transaction.open_table(OWNER)?;
        let mut places = transaction.open_table(PLACES)?;
        let mut shown = transaction.open_table(SHOWN)?;
        let mut hands = transaction.open_table(HANDS)?;
        for change in changes {
            match change {
                FeedChange::Owner(owner) => drop(owners.insert(ONE, &codec::owner_value(owner)[..])?),
                FeedChange::Attached(number) => drop(meta.insert("attach_number", number)?),
                FeedChange::Seen(stamp) => drop(meta.insert("seen", stamp.0)?),
                FeedChange::Cursors(cursors) => {
                    places.insert(CURSORS, &codec::places_value(cursors)[..])?;
                }
                FeedChange::SetAside(aside) => {
                    places.insert(SET_ASIDE, &codec::places_value(aside)[..])?;
                }
                FeedChange::Marks(marks) => drop(places.insert(MARKS, &codec::marks_value(marks)[..])?),
                FeedChange::Shown(key) => {
                    let last = shown.last()?.map_or(0, |(number, _)| number.value());
                    shown.insert(last.saturating_add(1), &codec::key_value(key)[..])?;
                }
                FeedChange::Forgotten(count) => {
                    for _ in 0..*count {
                        shown.pop_first()?;
                    }
                }
                FeedChange::Hand((origin, position), hand) => {
                    hands.insert((origin.0, position.0), &codec::hand_value(hand)[..])?;
                }
                FeedChange::HandGone((origin, position)) => drop(hands.remove((origin.0, position.0))?),
            }
        }
    }
    Ok(transaction.commit()?)
}

//! Stored formats of the settled store: keys and values as bytes.
//!
//! Every value begins with a version byte; a reader that meets a version it does not know says so. A row is bincode of one of
//! the structs below and ends with a CRC32 over its key and what precedes, so that a row is neither taken for another nor read
//! with a flipped bit. The structs are never changed: a new layout is a new struct under a new version. Chunks have a layout of
//! their own (`chunk.rs`).

use bincode::{Decode, Encode};
use quail_core::ports::outbox::{DeviceRecord, RecentSend};
use quail_protocol::id::{AccountId, DeviceId, MessageId, Position, Stamp};

use super::super::types::{Lost, Mark};
use super::fault::Fault;

/// Key of the row in the tree `meta` that says how far the store is.
pub(super) const MARK: &[u8] = b"mark";

/// Key of the row in the tree `meta` that names the generation being written; equal to the mark's when none is.
pub(super) const SPILLING: &[u8] = b"spilling";

/// Key of the row in the tree `meta` that remembers what was found lost until that was told.
pub(super) const LOST: &[u8] = b"lost";

/// The only version so far.
pub(super) const VERSION: u8 = 1;

/// Longest row that is decoded, in bytes: a guard against lengths that make no sense.
const ROW_BYTES_MAX: usize = 1 << 20;

/// A tree's rows in two numbers: what is lost or stale without a trace in sled shows as a difference.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub(super) struct Sum {
    /// How many rows.
    pub count: u64,
    /// Their CRCs, added up.
    pub sum: u64,
}

impl Sum {
    /// Takes note that a row has this value now.
    pub(super) fn add(&mut self, value: &[u8]) {
        self.count = self.count.wrapping_add(1);
        self.sum = self.sum.wrapping_add(u64::from(stored_crc(value)));
    }

    /// Takes note that a row no longer has this value.
    pub(super) fn subtract(&mut self, value: &[u8]) {
        self.count = self.count.wrapping_sub(1);
        self.sum = self.sum.wrapping_sub(u64::from(stored_crc(value)));
    }
}

/// The sums of all trees but `chunks`, whose rows the index accounts for, and `meta`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub(super) struct Sums {
    pub index: Sum,
    pub devices: Sum,
    pub sends: Sum,
    pub accounts: Sum,
}

/// What the row `mark` says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Settled {
    pub mark: Mark,
    /// The number the next row of the tree `chunks` gets.
    pub next_number: u64,
    pub sums: Sums,
}

#[derive(Encode, Decode)]
struct SettledV1 {
    generation: u64,
    last_position: u64,
    last_stamp: u64,
    next_number: u64,
    sums: Sums,
}

/// What the index says of a chunk.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Row {
    /// Number of its first row in the tree `chunks`; zero if it is lost.
    pub number: u64,
    /// In how many rows it lies; zero if it is lost.
    pub pieces: u16,
    /// Position and frame length of each event, in order.
    pub events: Vec<(Position, u32)>,
}

impl Row {
    /// Returns the last position, or `first` if there is none.
    pub(super) fn last(&self, first: Position) -> Position {
        self.events.last().map_or(first, |(position, _)| *position)
    }
}

#[derive(Encode, Decode)]
struct RowV1 {
    number: u64,
    pieces: u16,
    events: Vec<(u64, u32)>,
}

#[derive(Encode, Decode)]
struct DeviceV1 {
    cursor: u64,
    acked: u64,
    attach_number: u64,
}

#[derive(Encode, Decode)]
struct SendsV1 {
    sends: Vec<SendV1>,
}

#[derive(Encode, Decode)]
struct SendV1 {
    number: u64,
    id: [u8; 16],
    digest: [u8; 16],
    position: u64,
    stamp: u64,
}

/// What is kept of an account beside its events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct AccountRow {
    /// Events up to here that still lie in a chunk are gone.
    pub resolved: Position,
    /// Up to where the outbox was collapsed.
    pub collapsed: Option<Position>,
}

#[derive(Encode, Decode)]
struct AccountV1 {
    resolved: u64,
    collapsed: Option<u64>,
}

#[derive(Encode, Decode)]
struct LostListV1 {
    generation: u64,
    lost: Vec<LostV1>,
}

#[derive(Encode, Decode)]
struct LostV1 {
    account: Option<[u8; 16]>,
    from: u64,
    upto: u64,
    what: String,
}

/// Key of a chunk in the index.
pub(super) fn chunk_key(account: AccountId, first: Position) -> [u8; 24] {
    let mut key = [0; 24];
    key[..16].copy_from_slice(account.as_bytes());
    key[16..].copy_from_slice(&first.0.to_be_bytes());
    key
}

pub(super) fn parse_chunk_key(key: &[u8]) -> Result<(AccountId, Position), Fault> {
    split(key).map(|(account, first)| (AccountId(account), Position(first)))
}

/// Key of a device's sends of one generation.
pub(super) fn send_key(device: DeviceId, generation: u64) -> [u8; 24] {
    chunk_key(AccountId(device.0), Position(generation))
}

pub(super) fn parse_send_key(key: &[u8]) -> Result<(DeviceId, u64), Fault> {
    split(key).map(|(device, generation)| (DeviceId(device), generation))
}

fn split(key: &[u8]) -> Result<([u8; 16], u64), Fault> {
    let parsed = key
        .split_at_checked(16)
        .and_then(|(id, number)| Some((id.try_into().ok()?, u64::from_be_bytes(number.try_into().ok()?))));
    parsed.ok_or_else(|| Fault::damaged(format_args!("a key of {} bytes", key.len())))
}

/// Key of a device's record.
pub(super) fn device_key(account: AccountId, device: DeviceId) -> [u8; 32] {
    let mut key = [0; 32];
    key[..16].copy_from_slice(account.as_bytes());
    key[16..].copy_from_slice(device.as_bytes());
    key
}

pub(super) fn parse_device_key(key: &[u8]) -> Result<(AccountId, DeviceId), Fault> {
    let parsed = key
        .split_at_checked(16)
        .and_then(|(account, device)| Some((account.try_into().ok()?, device.try_into().ok()?)));
    parsed.ok_or_else(|| Fault::damaged(format_args!("a device key of {} bytes", key.len())))
}

pub(super) fn row(key: &[u8], first: Position, row: &Row) -> Vec<u8> {
    let mut before = first.0;
    let events = row.events.iter().map(|(position, bytes)| {
        let delta = position.0.saturating_sub(before);
        before = position.0;
        (delta, *bytes)
    });
    seal(key, RowV1 { number: row.number, pieces: row.pieces, events: events.collect() })
}

pub(super) fn parse_row(key: &[u8], value: &[u8]) -> Result<(AccountId, Position, Row), Fault> {
    let (account, first) = parse_chunk_key(key)?;
    let RowV1 { number, pieces, events } = unseal("index row", key, value)?;
    let mut position = first.0;
    let events = events.into_iter().map(|(delta, bytes)| {
        position = position.saturating_add(delta);
        (Position(position), bytes)
    });
    Ok((account, first, Row { number, pieces, events: events.collect() }))
}

pub(super) fn device(key: &[u8], record: &DeviceRecord) -> Vec<u8> {
    let DeviceRecord { cursor, acked, attach_number } = *record;
    seal(key, DeviceV1 { cursor: cursor.0, acked: acked.0, attach_number })
}

pub(super) fn parse_device(key: &[u8], value: &[u8]) -> Result<DeviceRecord, Fault> {
    let DeviceV1 { cursor, acked, attach_number } = unseal("device", key, value)?;
    Ok(DeviceRecord { cursor: Position(cursor), acked: Position(acked), attach_number })
}

pub(super) fn sends(key: &[u8], sends: &[RecentSend]) -> Vec<u8> {
    let sends = sends.iter().map(|send| {
        let RecentSend { number, id, digest, position, stamp } = *send;
        SendV1 { number, id: id.0, digest, position: position.0, stamp: stamp.0 }
    });
    seal(key, SendsV1 { sends: sends.collect() })
}

pub(super) fn parse_sends(key: &[u8], value: &[u8]) -> Result<Vec<RecentSend>, Fault> {
    let SendsV1 { sends } = unseal("sends", key, value)?;
    let sends = sends.into_iter().map(|SendV1 { number, id, digest, position, stamp }| RecentSend {
        number,
        id: MessageId(id),
        digest,
        position: Position(position),
        stamp: Stamp(stamp),
    });
    Ok(sends.collect())
}

pub(super) fn account(key: &[u8], row: &AccountRow) -> Vec<u8> {
    seal(key, AccountV1 { resolved: row.resolved.0, collapsed: row.collapsed.map(|position| position.0) })
}

pub(super) fn parse_account(key: &[u8], value: &[u8]) -> Result<(AccountId, AccountRow), Fault> {
    let account = AccountId::try_from(key).map_err(Fault::damaged)?;
    let AccountV1 { resolved, collapsed } = unseal("account", key, value)?;
    Ok((account, AccountRow { resolved: Position(resolved), collapsed: collapsed.map(Position) }))
}

pub(super) fn settled(settled: &Settled) -> Vec<u8> {
    let Mark { generation, last_position, last_stamp } = settled.mark;
    let Settled { next_number, sums, .. } = *settled;
    let (last_position, last_stamp) = (last_position.0, last_stamp.0);
    seal(MARK, SettledV1 { generation, last_position, last_stamp, next_number, sums })
}

pub(super) fn parse_settled(value: &[u8]) -> Result<Settled, Fault> {
    let SettledV1 { generation, last_position, last_stamp, next_number, sums } = unseal("mark", MARK, value)?;
    let mark = Mark { generation, last_position: Position(last_position), last_stamp: Stamp(last_stamp) };
    Ok(Settled { mark, next_number, sums })
}

pub(super) fn spilling(generation: u64) -> Vec<u8> {
    seal(SPILLING, generation)
}

pub(super) fn parse_spilling(value: &[u8]) -> Result<u64, Fault> {
    unseal("spilling", SPILLING, value)
}

/// `generation` is the mark's when the loss was found.
pub(super) fn lost(generation: u64, lost: &[Lost]) -> Vec<u8> {
    let lost = lost.iter().map(|Lost { account, from, upto, what }| LostV1 {
        account: account.map(|account| account.0),
        from: from.0,
        upto: upto.0,
        what: what.clone(),
    });
    seal(LOST, LostListV1 { generation, lost: lost.collect() })
}

pub(super) fn parse_lost(value: &[u8]) -> Result<(u64, Vec<Lost>), Fault> {
    let LostListV1 { generation, lost } = unseal("lost", LOST, value)?;
    let lost = lost.into_iter().map(|LostV1 { account, from, upto, what }| Lost {
        account: account.map(AccountId),
        from: Position(from),
        upto: Position(upto),
        what,
    });
    Ok((generation, lost.collect()))
}

fn seal(key: &[u8], value: impl Encode) -> Vec<u8> {
    let mut bytes = vec![VERSION];
    // Writing to a Vec cannot fail, and none of the structs above has a part that refuses to be encoded.
    let written = bincode::encode_into_std_write(value, &mut bytes, bincode::config::standard());
    debug_assert!(written.is_ok());
    let crc = crc(key, &bytes);
    bytes.extend_from_slice(&crc.to_le_bytes());
    bytes
}

fn unseal<T: Decode<()>>(what: &str, key: &[u8], value: &[u8]) -> Result<T, Fault> {
    let (body, stored) = value
        .split_last_chunk::<4>()
        .ok_or_else(|| Fault::damaged(format_args!("{what}: {} bytes", value.len())))?;
    // Before the checksum: a later version may end otherwise.
    match body.first() {
        Some(&VERSION) => {}
        Some(version) => return Err(Fault::Newer(format!("{what} of version {version}"))),
        None => return Err(Fault::damaged(format_args!("{what}: empty"))),
    }
    if crc(key, body) != u32::from_le_bytes(*stored) {
        return Err(Fault::damaged(format_args!("{what}: wrong checksum")));
    }
    let limit = bincode::config::standard().with_limit::<ROW_BYTES_MAX>();
    let decoded = bincode::decode_from_slice(body.get(1..).unwrap_or_default(), limit);
    decoded.map(|(decoded, _)| decoded).map_err(|error| Fault::damaged(format_args!("{what}: {error}")))
}

fn crc(key: &[u8], body: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(key);
    hasher.update(body);
    hasher.finalize()
}

/// The checksum a row ends with.
fn stored_crc(value: &[u8]) -> u32 {
    value.split_last_chunk::<4>().map_or(0, |(_, crc)| u32::from_le_bytes(*crc))
}

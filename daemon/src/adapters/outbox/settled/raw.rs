//! The rows of a store whose sled database is damaged, as far as whole messages of its log tell them.
//!
//! A page is its last message "node" and the links behind it, as for sled. The trees are not walked: a row says itself where it
//! belongs, by the length of its key and its checksum. So a damaged inner page costs nothing, a damaged link its row, and a
//! damaged leaf the rows that stood in it. Chunks whose leaf is lost still say whose they are.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use quail_protocol::id::{AccountId, Position};

use super::chunk;
use super::fault::Fault;
use super::format::{self, Row, Rows};
use super::log::{self, Gap, Kind, Message};

/// Where a value lies in the file.
#[derive(Clone, Copy, Debug)]
struct Place {
    offset: u64,
    len: usize,
}

/// A store read without sled.
pub(super) struct RawStore {
    file: File,
    rows: BTreeMap<Rows, BTreeMap<Vec<u8>, Vec<u8>>>,
    chunks: BTreeMap<u64, Place>,
    /// Chunks in one piece whose number is lost with their page.
    adrift: HashMap<(AccountId, Position), Place>,
    /// Where the log is damaged or ends.
    gaps: Vec<Gap>,
    /// Behind its last message.
    end: u64,
}

/// How much of a log is damaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Damage {
    /// Nothing that can be seen in the log.
    None,
    /// One message. That never takes the last trace of an event: its row in the index or its chunk is left.
    OneMessage,
    /// More, or nobody knows how much.
    Much,
}

/// A page in the making: its keys without the part they share, and where their values lie.
#[derive(Default)]
struct Page {
    prefix: Vec<u8>,
    values: BTreeMap<Vec<u8>, (u64, Place)>,
    /// Whether its last message "node" was found.
    is_based: bool,
    is_leaf: bool,
}

/// Key and value of a row, and when it was written.
struct Found {
    lsn: u64,
    key: Vec<u8>,
    place: Place,
}

impl RawStore {
    /// Reads the log in a store's directory. A missing file holds nothing.
    pub(super) fn read(directory: &Path) -> Result<Self, Fault> {
        let file = match File::open(directory.join(log::NAME)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => File::open("/dev/null")?,
            file => file?,
        };
        let mut pages: BTreeMap<u64, Vec<Message>> = BTreeMap::new();
        let (gaps, end) = log::read(&file, |message| {
            if matches!(message.kind, Kind::Node | Kind::Link | Kind::Free) {
                pages.entry(message.page).or_default().push(message);
            }
        })?;
        let mut store =
            Self { file, rows: BTreeMap::new(), chunks: BTreeMap::new(), adrift: HashMap::new(), gaps, end };
        let mut found = Vec::new();
        for (_, mut messages) in pages {
            messages.sort_unstable_by_key(|message| message.lsn);
            let page = store.replay(&messages)?;
            if page.is_based && page.is_leaf {
                found.extend(page.values.into_iter().map(|(suffix, (lsn, place))| Found {
                    lsn,
                    key: [page.prefix.as_slice(), &suffix].concat(),
                    place,
                }));
            } else if !page.is_based {
                for (_, place) in page.values.into_values() {
                    store.set_adrift(place)?;
                }
            }
        }
        // Pages that overlap after damage: what was written last counts.
        found.sort_unstable_by_key(|row| row.lsn);
        for row in found {
            store.sort_in(row)?;
        }
        Ok(store)
    }

    /// Returns what is damaged below an lsn to which all was whole once.
    pub(super) fn damage_below(&self, end: u64) -> Damage {
        let mut gaps = self.gaps.iter().filter(|gap| gap.from < end);
        match (gaps.next(), gaps.next()) {
            _ if self.end < end => Damage::Much,
            (None, _) => Damage::None,
            (Some(gap), None) if gap.is_one => Damage::OneMessage,
            _ => Damage::Much,
        }
    }

    /// Returns the rows of a tree.
    pub(super) fn rows(&self, of: Rows) -> impl Iterator<Item = (&Vec<u8>, &Vec<u8>)> {
        self.rows.get(&of).into_iter().flatten()
    }

    /// Returns the value of a row.
    pub(super) fn get(&self, of: Rows, key: &[u8]) -> Option<&[u8]> {
        self.rows.get(&of)?.get(key).map(Vec::as_slice)
    }

    /// Returns the numbers of the rows of chunks.
    pub(super) fn chunk_numbers(&self) -> impl Iterator<Item = u64> {
        self.chunks.keys().copied()
    }

    /// Reads a row of the chunks.
    pub(super) fn piece(&self, number: u64) -> Result<Option<Vec<u8>>, Fault> {
        self.chunks.get(&number).map(|place| self.value(*place)).transpose()
    }

    /// Reads a chunk.
    pub(super) fn chunk(&self, account: AccountId, first: Position, row: &Row) -> Result<Vec<u8>, Fault> {
        let by_number = chunk::assemble(row, |number| self.piece(number));
        match self.adrift.get(&(account, first)) {
            Some(place) if by_number.is_err() && row.pieces == 1 => {
                chunk::assemble(row, |_| self.value(*place).map(Some))
            }
            _ => by_number,
        }
    }

    fn value(&self, place: Place) -> Result<Vec<u8>, Fault> {
        let mut value = vec![0; place.len];
        self.file.read_exact_at(&mut value, place.offset)?;
        Ok(value)
    }

    /// Applies the messages of one page, oldest first.
    fn replay(&self, messages: &[Message]) -> Result<Page, Fault> {
        let is_base = |message: &Message| message.kind != Kind::Link;
        let begin = messages.iter().rposition(is_base).unwrap_or(0);
        let mut page = Page::default();
        for message in messages.get(begin..).unwrap_or_default() {
            let body = self.value(Place { offset: message.offset, len: message.len })?;
            // What its checksum covers and does not parse is no page of ours.
            let _ = match message.kind {
                Kind::Node => page.begin(message, &body),
                Kind::Link => page.link(message, &body),
                Kind::Free => {
                    page.is_based = true;
                    Some(())
                }
                Kind::Cap | Kind::Other => Some(()),
            };
        }
        Ok(page)
    }

    fn set_adrift(&mut self, place: Place) -> Result<(), Fault> {
        let value = self.value(place)?;
        if let Ok((0, bytes)) = chunk::parse_piece(&value)
            && let Ok(head) = chunk::parse_head(bytes)
        {
            self.adrift.insert((head.account, head.first), place);
        }
        Ok(())
    }

    fn sort_in(&mut self, row: Found) -> Result<(), Fault> {
        // That key is as long as the number of a chunk.
        if row.key != format::SPILLING
            && let Ok(number) = row.key.as_slice().try_into().map(u64::from_be_bytes)
        {
            self.chunks.insert(number, row.place);
            return Ok(());
        }
        let value = self.value(row.place)?;
        if let Some(of) = format::whose(&row.key, &value) {
            self.rows.entry(of).or_default().insert(row.key, value);
        }
        Ok(())
    }
}

impl Page {
    /// Takes in a message "node".
    fn begin(&mut self, message: &Message, body: &[u8]) -> Option<()> {
        let rest = &mut &*body;
        let (_next, _merging_child) = (log::varint(rest)?, log::varint(rest)?);
        let (flags, after) = rest.split_first_chunk::<2>()?;
        *rest = after;
        let (low, _high) = (log::bytes(rest)?, log::bytes(rest)?);
        let (kind, after) = rest.split_first()?;
        *rest = after;
        *self = Self {
            prefix: low.get(..usize::from(flags[1]))?.to_vec(),
            is_based: true,
            is_leaf: *kind == 0,
            ..Self::default()
        };
        if !self.is_leaf {
            return Some(());
        }
        let count = log::varint(rest)?;
        let mut keys = Vec::new();
        for _ in 0..count {
            keys.push(log::bytes(rest)?.to_vec());
        }
        for key in keys {
            let place = place(message, body, log::bytes(rest)?);
            self.values.insert(key, (message.lsn, place));
        }
        Some(())
    }

    /// Takes in a message "link".
    fn link(&mut self, message: &Message, body: &[u8]) -> Option<()> {
        let (kind, mut rest) = body.split_first()?;
        match kind {
            0 => {
                let key = log::bytes(&mut rest)?.to_vec();
                let place = place(message, body, log::bytes(&mut rest)?);
                self.values.insert(key, (message.lsn, place));
            }
            1 => drop(self.values.remove(log::bytes(&mut rest)?)),
            // Merges concern inner pages, and the pages they end are freed.
            _ => {}
        }
        Some(())
    }
}

/// Returns where a part of a message's body lies in the file.
fn place(message: &Message, body: &[u8], part: &[u8]) -> Place {
    let before = part.as_ptr().addr().saturating_sub(body.as_ptr().addr());
    Place { offset: message.offset + before as u64, len: part.len() }
}

//! A power cut: what of all that no sync covers is there, by a way of cutting and a seed.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::Dice;
use super::content::{Content, Directory, What};
use super::disk::Disk;

/// A disk writes these as a whole or not at all, in bytes.
const SECTOR: u64 = 512;

/// What is done with what no sync covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// None of it is there.
    Dropped,
    /// All of it is there.
    Kept,
    /// All is there that was begun before a moment; what was begun then is torn.
    UpTo(u64),
    /// Each write is there, missing or torn.
    Writes,
    /// So many sectors of a hundred are there.
    Sectors(u64),
    /// Each file and directory goes its own way.
    Mixed,
}

/// What is there of one write.
enum Fate {
    All,
    None,
    /// So many sectors from the beginning.
    Begin(u64),
    /// So many of a hundred.
    Some(u64),
}

/// One cut.
pub(super) struct Cut<'a> {
    pub(super) way: Way,
    dice: &'a mut Dice,
    moment: u64,
}

impl<'a> Cut<'a> {
    pub(super) fn new(disk: &Disk, dice: &'a mut Dice) -> Self {
        let moment = disk.moment(dice);
        let way = match dice.below(9) {
            0 => Way::Dropped,
            1 => Way::Kept,
            2 => Way::UpTo(moment),
            3 | 4 => Way::Writes,
            5 => Way::Sectors([5, 50, 95][dice.below(3) as usize]),
            _ => Way::Mixed,
        };
        Self { way, dice, moment }
    }

    /// The way of one file or directory.
    fn way(&mut self) -> Way {
        match self.way {
            Way::Mixed => match self.dice.below(6) {
                0 | 1 => Way::Dropped,
                2 => Way::Kept,
                3 => Way::UpTo(self.moment),
                4 => Way::Writes,
                _ => Way::Sectors(50),
            },
            way => way,
        }
    }

    /// Returns what is in a directory.
    pub(super) fn names(&mut self, directory: &Directory) -> BTreeMap<String, usize> {
        let mut names = directory.durable.clone();
        let way = self.way();
        // Of one name the changes stay in their order: behind one that is missing, all are.
        let mut missing = HashSet::new();
        for (at, change) in &directory.pending {
            let is_there = match way {
                Way::Dropped => false,
                Way::Kept => true,
                Way::UpTo(moment) => *at < moment,
                Way::Writes | Way::Sectors(_) | Way::Mixed => self.dice.below(2) == 0,
            };
            if is_there && change.names().into_iter().all(|name| !missing.contains(name)) {
                change.apply(&mut names);
            } else {
                missing.extend(change.names());
            }
        }
        names
    }

    /// Returns what is in a file.
    pub(super) fn content(&mut self, file: &Content) -> Vec<u8> {
        let way = self.way();
        let mut bytes = file.durable.clone();
        // Of each sector the last change that is there; those before it are, too.
        let mut reached: HashMap<u64, usize> = HashMap::new();
        let mut lengths = vec![bytes.len() as u64];
        let mut spans = Vec::new();
        for (index, change) in file.pending.iter().enumerate() {
            let before = lengths.last().copied().unwrap_or_default();
            let (from, upto) = match &change.what {
                What::Write(at, written) => (*at, at + written.len() as u64),
                What::Length(length) => (*length, before.max(*length)),
            };
            lengths.push(if matches!(change.what, What::Length(_)) { from } else { before.max(upto) });
            spans.push((from, upto));
            let fate = self.fate(way, change.at);
            for sector in from / SECTOR..upto.div_ceil(SECTOR) {
                let is_there = match fate {
                    Fate::All => true,
                    Fate::None => false,
                    Fate::Begin(count) => sector - from / SECTOR < count,
                    Fate::Some(percent) => self.dice.below(100) < percent,
                };
                if is_there {
                    reached.insert(sector, index);
                }
            }
        }
        let longest = lengths.iter().copied().max().unwrap_or_default();
        bytes.resize(longest as usize, 0);
        for (index, (change, (from, upto))) in file.pending.iter().zip(spans).enumerate() {
            for sector in from / SECTOR..upto.div_ceil(SECTOR) {
                if reached.get(&sector).is_none_or(|last| *last < index) {
                    continue;
                }
                let (begin, end) = (from.max(sector * SECTOR), upto.min((sector + 1) * SECTOR));
                let place = &mut bytes[begin as usize..end as usize];
                match &change.what {
                    What::Write(at, written) => {
                        place.copy_from_slice(&written[(begin - at) as usize..(end - at) as usize]);
                    }
                    What::Length(_) => place.fill(0),
                }
            }
        }
        let length = match way {
            Way::Dropped => 0,
            Way::Kept => lengths.len() - 1,
            Way::UpTo(moment) => file.pending.iter().take_while(|change| change.at <= moment).count(),
            Way::Writes | Way::Sectors(_) | Way::Mixed => self.dice.below(lengths.len() as u64) as usize,
        };
        bytes.truncate(lengths[length] as usize);
        bytes
    }

    fn fate(&mut self, way: Way, at: u64) -> Fate {
        // Few writes are longer than this; of a longer one this many sectors are its beginning.
        let begin = 1 << self.dice.below(10);
        match way {
            Way::Dropped => Fate::None,
            Way::Kept => Fate::All,
            Way::UpTo(moment) if at < moment => Fate::All,
            Way::UpTo(moment) if at == moment => Fate::Begin(begin),
            Way::UpTo(_) => Fate::None,
            Way::Sectors(percent) => Fate::Some(percent),
            Way::Writes | Way::Mixed => match self.dice.below(4) {
                0 => Fate::All,
                1 => Fate::None,
                2 => Fate::Begin(begin),
                _ => Fate::Some(50),
            },
        }
    }
}

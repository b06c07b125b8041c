//! Format 1: two files of JSON, which held counters and cursors and no messages.
//!
//! What is in them is carried over when the database of a part is made. Then the old file is replaced by one of format 2
//! with nothing in it, so that an older version of this crate refuses the directory instead of counting from one again.
//!
//! Invariant: an old file is read only while there is no database, and replaced only once there is.

use std::io::ErrorKind;
use std::path::Path;

use quail_protocol::id::{Origin, Position};
use quail_protocol::limits::CURSORS_MAX;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::Part;

/// Longest file that is read. The longest that was written has some 2 KiB.
const FILE_BYTES_MAX: u64 = 64 * 1024;

/// What an older version left, and what says that it was carried over.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Old {
    /// The next send number.
    Publish(u64),
    /// The last attach number and the cursors.
    Feed(u64, Vec<(Origin, Position)>),
}

#[derive(Deserialize)]
struct Format {
    format: u64,
}

#[derive(Deserialize)]
struct PublishFile {
    next_number: u64,
}

#[derive(Deserialize)]
struct FeedFile {
    attach_number: u64,
    cursors: Vec<(u32, u64)>,
}

/// Why there is nothing to carry over.
#[derive(Debug)]
pub(super) enum OldError {
    Io(std::io::Error),
    Newer(u64),
    Damaged(String),
}

/// Reads what an older version left of a part; nothing if there is none.
pub(super) fn read(part: Part, path: &Path) -> Result<Option<Old>, OldError> {
    let bytes = match path.metadata() {
        Ok(metadata) if metadata.len() > FILE_BYTES_MAX => {
            return Err(OldError::Damaged("the file is too long".to_owned()));
        }
        Ok(_) => std::fs::read(path).map_err(OldError::Io)?,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(OldError::Io(error)),
    };
    match parse::<Format>(&bytes)?.format {
        1 => {}
        newer => return Err(OldError::Newer(newer)),
    }
    match part {
        Part::Publish => match parse::<PublishFile>(&bytes)?.next_number {
            0 => Err(OldError::Damaged("send numbers start at 1".to_owned())),
            next_number => Ok(Some(Old::Publish(next_number))),
        },
        Part::Feed => {
            let file = parse::<FeedFile>(&bytes)?;
            if file.cursors.len() > CURSORS_MAX {
                return Err(OldError::Damaged("too many cursors".to_owned()));
            }
            let cursors = file.cursors.into_iter();
            let cursors = cursors.map(|(origin, position)| (Origin(origin), Position(position))).collect();
            Ok(Some(Old::Feed(file.attach_number, cursors)))
        }
    }
}

fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, OldError> {
    serde_json::from_slice(bytes).map_err(|error| OldError::Damaged(error.to_string()))
}

/// What stands in the place of an old file that was carried over.
pub(super) const CARRIED_OVER: &[u8] = br#"{"format":2,"next_number":0,"attach_number":0,"cursors":[]}"#;

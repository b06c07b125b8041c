//! `[messages]`: what people may do with what they said.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::{keys, layers::Layers, values};

/// How old what is deleted for everybody may be at most: as old as an id that is accepted. Zero lets nobody do it.
const DELETE_FOR_ALL_RANGE: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(1440 * 3600);

/// What people may do with what they said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Messages {
    /// How old a message may be that its sender deletes for everybody.
    pub delete_for_all: Duration,
}

/// Parses the section. `None` means that an error was noted.
pub(super) fn parse(layers: &mut Layers) -> Option<Messages> {
    let in_range = |text: &str| values::duration(text).filter(|age| DELETE_FOR_ALL_RANGE.contains(age));
    Some(Messages { delete_for_all: layers.parse(&keys::DELETE_FOR_ALL, in_range)? })
}

//! The outbox: acknowledged delivery at the speed of the disk.
//!
//! A journal stands in front, sled behind it as the settled store of what is not acknowledged soon.

pub mod journal;
pub mod settled;
mod types;

//! The outside world, one port each: nothing here decides anything, and only `app` names what is here.

pub mod outbox;
pub mod postgres;
pub mod sled;
pub mod sql;
pub mod sqlite;

//! The ports: narrow traits through which the daemon's adapters serve the core.
//!
//! Each port has an in-memory twin, for tests and simulation, and one conformance suite that twin and adapters pass.

pub mod archive;
pub mod directory;
pub mod outbox;

//! The wire of Quail: frames, ids, limits, error reasons and the command table.
//!
//! This crate is the one place that knows how bytes on a stream are shaped; the daemon and every client share it and
//! nothing else. It is a pure codec: no IO, no async, no clock, no randomness. The specification in words, for clients
//! in other languages, is `protocol/README.md`; the tests hold both to the same golden vectors.
//!
//! Invariants: a field number or reason number is never reused; unknown fields are passed over; nothing is reserved in
//! memory for a frame before its length has been checked.

pub mod address;
pub mod commands;
pub mod error;
pub mod event_frame;
pub mod frame;
pub mod id;
pub mod limits;
mod secrets;
pub mod text;

/// The messages of protocol version 1, generated from `protocol/proto/quail/v1`.
#[allow(missing_docs, clippy::all, unreachable_pub)]
pub mod v1 {
    include!("generated/quail.v1.rs");
}

/// The ALPN name of the protocol (RFC 7301).
pub const ALPN: &[u8] = b"quail/1";

/// The UDP port a daemon listens on unless told otherwise.
pub const DEFAULT_PORT: u16 = 7824;

/// The lowest protocol version this crate speaks.
pub const VERSION_MIN: u32 = 1;

/// The highest protocol version this crate speaks.
pub const VERSION_MAX: u32 = 1;

//! Clients against a server whose every word is written by the test.

// Helpers of tests may panic as tests do.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../support/mod.rs"]
mod support;

mod changes;
mod connecting;
mod feed;
mod migration;
mod publish;
mod reads;
mod requests;

//! The door: the QUIC endpoint, connections, their streams and lanes.
//!
//! One task per connection owns everything of it: its lanes, its buffers, its mailbox. Bytes become frames here and frames
//! become bytes; what they mean is for the gateway.

mod accept;
mod budget;
mod connection;
mod endpoint;
mod gated;
mod handshake;
mod hold;
pub mod identity;
mod lane;
mod lanes;
mod requests;
mod runtime;
mod segments;
mod stall;
mod streams;
mod tickets;
mod whereabouts;

pub use accept::{Accepting, accept_all};
pub use endpoint::{BindError, bind, server_config};

//! The admin socket: how `quaild admin` talks to the daemon on its machine.
//!
//! One connection is one request, a JSON object on one line, and its answers, one JSON value per line, of which the last is
//! `"done"` or an error. Only the daemon's own user and root can open the socket; the network cannot reach it.
//!
//! [`wire`] has what is said, [`socket`] the daemon's end, [`path`](mod@path) the file. What requests mean is for `app` to say.

pub mod path;
pub mod socket;
pub mod wire;

pub use path::AdminSocketError;
pub use socket::{AdminSocket, Answers, Handler, Peer, PeerGone};
pub use wire::{Answer, Request, Secret};

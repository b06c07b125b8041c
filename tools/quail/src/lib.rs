//! What the `quail` command shares with tests: private daemons, the demo, and the rules of its input, output and files.
//!
//! The commands themselves live in the program (`main.rs`, `cli/`); they are thin: ask the client SDK, print. What more
//! than one program needs is here.
//!
//! - [`launcher`] finds, starts, kills and restarts private `quaild` processes;
//! - [`mod@bench`] measures what a server carries and costs;
//! - [`demo`] sends a text through such a daemon, kills it on the way, and checks what arrived;
//! - [`text`] cuts input into messages; [`output`] prints for people or for programs; [`profile`] keeps credentials.

pub mod bench;
pub mod demo;
pub mod launcher;
pub mod output;
pub mod profile;
pub mod text;

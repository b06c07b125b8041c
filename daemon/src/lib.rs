//! The Quail messaging daemon: the modules in the order a message walks through them.
//!
//! `net` takes bytes from connections, `gateway` turns them into commands and checks who may ask, `sequencer` lets
//! `quail-core` decide and makes the decision durable, `delivery` carries out what follows. `directory` and `query` answer
//! what is not journalled. `archive` reads the journal along and keeps history. `adapters` hold everything that touches disks and databases, and only `app` names them.
//! ARCHITECTURE.md at the top of the repository has the map and the invariants.

pub mod adapters;
pub mod app;
pub mod archive;
pub mod config;
pub mod delivery;
pub mod directory;
pub mod gateway;
pub mod net;
pub mod ops;
pub mod query;
pub mod sequencer;

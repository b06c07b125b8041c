//! What an operator and every other module needs: the clock, files, the log, metrics and health, the admin socket, the
//! version.

pub mod admin;
pub mod clock;
pub mod files;
pub mod http;
pub mod logging;
pub mod metrics;
pub mod version;

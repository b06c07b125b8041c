//! What an operator and every other module needs: the clock, files, the log, metrics and health, the admin socket, the
//! version, and the places at which tests let it die.

pub mod admin;
pub mod clock;
pub mod failpoint;
pub mod files;
pub mod http;
pub mod logging;
pub mod metrics;
pub mod version;

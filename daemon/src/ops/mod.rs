//! What an operator and every other module needs: the clock, files, the log, counts of refusals, the version, the admin
//! socket.

pub mod admin;
pub mod clock;
pub mod files;
pub mod logging;
pub mod refusals;
pub mod version;

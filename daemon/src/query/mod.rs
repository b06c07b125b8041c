//! The reading room: queries, which change nothing.
//!
//! A query reads the ports and answers as read. What is not there and what is not the asker's to see are one answer.

mod get_privacy;
mod history;
mod list_devices;
mod look_up;
mod query_error;

pub use get_privacy::get_privacy;
pub use history::History;
pub use list_devices::list_devices;
pub use look_up::look_up;
pub use query_error::QueryError;

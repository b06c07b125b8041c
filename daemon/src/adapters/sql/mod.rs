//! What the directories in SQLite and in Postgres have in common: what rows mean, what failures are, what migrations are due.
//!
//! The statements themselves are each adapter's own. The two databases lock differently, and a statement that has to suit
//! both would hide that.

pub mod failure;
pub mod rows;
pub mod schema;

//! What can go wrong on the way to the archive's tables, sorted by who is to blame.
//!
//! What Postgres refuses in a value, or cannot keep for its size, is the value's fault: it is set aside and takes nothing else with
//! it. What time, space, an operator or another process can mend is unavailable, and tried again. The rest is damage, or a schema
//! that is none, and waits for an operator.

use std::fmt;

use quail_core::ports::archive::ArchiveError;

use crate::adapters::postgres::pool;
use crate::adapters::sql::failure::{is_connection_lost, is_temporary};

/// Why a call did not do what it was asked.
#[derive(Debug)]
pub(super) enum Fault {
    /// The archive's rules, or what the database holds, speak against it.
    Archive(ArchiveError),
    /// A conversation has to be locked that nobody could know of before.
    Conflict,
    /// The database, or the way to it, failed.
    Sql(sqlx::Error),
}

impl Fault {
    /// Returns whether the table of a month is not there, which somebody has removed since it was made.
    pub(super) fn is_missing_month(&self) -> bool {
        // Postgres says "no partition found for row" with the state of a violated check, but names none.
        matches!(self.state(), Some(state) if state == "23514") && self.constraint().is_none()
    }

    fn state(&self) -> Option<String> {
        let Self::Sql(sqlx::Error::Database(database)) = self else { return None };
        database.code().map(std::borrow::Cow::into_owned)
    }

    fn constraint(&self) -> Option<&str> {
        let Self::Sql(sqlx::Error::Database(database)) = self else { return None };
        database.constraint()
    }
}

impl pool::Fault for Fault {
    fn unavailable(reason: String) -> Self {
        ArchiveError::Unavailable { reason }.into()
    }

    fn is_conflict(&self) -> bool {
        // Two daemons that insert one message at once: the second one finds it when it looks again.
        let is_sql = matches!(self.state().as_deref(), Some("40001" | "40P01" | "23505"));
        is_sql || matches!(self, Self::Conflict)
    }

    fn is_lost_connection(&self) -> bool {
        matches!(self, Self::Sql(error) if is_connection_lost(error))
    }

    fn is_found(&self) -> bool {
        !matches!(self, Self::Sql(_))
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Archive(error) => error.fmt(f),
            Self::Conflict => f.write_str("another daemon came between"),
            Self::Sql(error) => error.fmt(f),
        }
    }
}

impl From<ArchiveError> for Fault {
    fn from(error: ArchiveError) -> Self {
        Self::Archive(error)
    }
}

impl From<sqlx::Error> for Fault {
    fn from(error: sqlx::Error) -> Self {
        Self::Sql(error)
    }
}

impl From<Fault> for ArchiveError {
    fn from(fault: Fault) -> Self {
        use pool::Fault as _;
        let reason = fault.to_string();
        match fault {
            Fault::Archive(error) => error,
            fault if fault.is_conflict() || fault.is_missing_month() => Self::Unavailable { reason },
            Fault::Sql(error) if is_temporary(&error) => Self::Unavailable { reason },
            fault if fault.state().is_some_and(|state| is_refused(&state)) => Self::Refused { reason },
            _ => Self::Damaged { reason },
        }
    }
}

fn is_refused(state: &str) -> bool {
    // Values that have no place in a column; rules of the schema; limits of the program.
    ["22", "23", "54"].contains(&state.get(..2).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_to_blame_for_what_no_retry_mends() {
        // Too long a text, a zero in it, a violated check, too large a row.
        for state in ["22001", "22021", "23514", "54000"] {
            assert!(is_refused(state), "{state}");
        }
        // Restart, full disk, timeout; a missing table, a damaged page.
        for state in ["57P01", "53100", "57014", "42P01", "XX001", ""] {
            assert!(!is_refused(state), "{state}");
        }
    }

    #[test]
    fn what_came_between_is_tried_again() {
        use pool::Fault as _;
        assert!(Fault::Conflict.is_conflict() && Fault::Conflict.is_found());
        assert!(matches!(ArchiveError::from(Fault::Conflict), ArchiveError::Unavailable { .. }));
        let lost = Fault::Sql(sqlx::Error::Io(std::io::ErrorKind::ConnectionReset.into()));
        assert!(lost.is_lost_connection() && !lost.is_conflict() && !lost.is_missing_month());
        assert!(matches!(ArchiveError::from(lost), ArchiveError::Unavailable { .. }));
    }
}

//! Privacy: what the account that asks lets others know.

use quail_core::ports::directory::{Directory, SessionFacts};
use quail_protocol::v1;

use super::QueryError;

/// Returns the privacy of the account of a session.
///
/// # Errors
/// `UNAUTHENTICATED` if the device that asks was removed since its session was opened; `DIRECTORY_UNAVAILABLE`, `INTERNAL`.
pub async fn get_privacy(
    directory: &dyn Directory,
    session: &SessionFacts,
) -> Result<v1::Privacy, QueryError> {
    let facts = directory.facts(session.account).await?;
    let facts = facts.filter(|facts| facts.devices.contains(&session.device));
    let facts = facts.ok_or(QueryError::Unauthenticated)?;
    let switch = if facts.read_receipts { v1::Switch::On } else { v1::Switch::Off };
    Ok(v1::Privacy { read_receipts: switch as i32 })
}

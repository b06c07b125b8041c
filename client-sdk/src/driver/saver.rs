//! Saves cursors now and then.
//!
//! A disk sync per acknowledgement would cost more than the message. A cursor that is lost in a crash only brings the
//! events behind it again, so they are gathered for a moment.

use std::convert::Infallible;
use std::time::Duration;

use crate::shared::Shared;

/// How long moves of cursors are gathered before they are saved.
const SAVE_AFTER: Duration = Duration::from_secs(1);

/// Pause after a save that failed.
const RETRY_AFTER: Duration = Duration::from_secs(10);

/// Saves as long as it is polled. The last save is the driver's.
pub(super) async fn run(shared: &Shared) -> Infallible {
    loop {
        shared.feed.save_due().await;
        tokio::time::sleep(SAVE_AFTER).await;
        while let Err(error) = shared.feed.save(&shared.store).await {
            tracing::warn!(%error, "save cursors; will try again");
            tokio::time::sleep(RETRY_AFTER).await;
        }
    }
}

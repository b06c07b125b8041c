//! Commits what has changed, as long as the client lives.
//!
//! Nothing is waited for: what comes in while a commit is under way shares the next one, so the more there is, the more
//! share one. A commit that fails ends the client, because it may promise nothing any more.
//!
//! Invariant: there is one of these per client, and it is never given up half way.

use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use super::part::Part;
use crate::feed::SUSPECT_FOR;
use crate::shared::Shared;

/// Commits until it is told to stop, and then what is left.
pub(super) async fn run(shared: &Shared, stop: &CancellationToken) {
    tokio::join!(Part::new(publish(shared, stop)), Part::new(feed(shared, stop)));
}

async fn publish(shared: &Shared, stop: &CancellationToken) {
    loop {
        let is_last = tokio::select! {
            () = shared.publish.commit_due() => false,
            () = stop.cancelled() => true,
        };
        if let Err(error) = shared.publish.commit().await {
            tracing::error!(%error, "commit the queue");
            return shared.end(error);
        }
        if is_last {
            return;
        }
    }
}

async fn feed(shared: &Shared, stop: &CancellationToken) {
    let mut looking = tokio::time::interval(SUSPECT_FOR / 2);
    looking.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let is_last = tokio::select! {
            () = shared.feed.commit_due() => false,
            _ = looking.tick() => {
                shared.feed.release_old();
                continue;
            }
            () = stop.cancelled() => true,
        };
        if is_last {
            shared.feed.release_all();
        }
        if let Err(error) = shared.feed.commit().await {
            tracing::error!(%error, "commit what was acknowledged");
            return shared.end(error);
        }
        if is_last {
            return;
        }
    }
}

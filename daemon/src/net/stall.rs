//! How long a connection may hold on to what waits for it without taking any of it.
//!
//! A peer that stops reading, or acknowledges nothing, keeps its windows and buffers filled for as long as it sends keep-alives.
//! After a while the connection is closed: nothing is lost, since what was not acknowledged is written again when the device is
//! back. What counts as stuck is for the lanes to say (`lanes.rs`); this is only the clock.
//!
//! Invariants: at most one timer per connection, set when something is stuck for the first time; progress does not touch it. A
//! timer that finds at its end that there was progress is set once more.

use std::pin::Pin;
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};

/// The one timer of a connection for all that may be stuck on it.
pub(super) struct StallTimer {
    /// How long something may be stuck.
    limit: Duration,
    /// In a box of its own, for most connections never need it.
    timer: Option<Pin<Box<Sleep>>>,
}

impl StallTimer {
    pub(super) fn new(limit: Duration) -> Self {
        Self { limit, timer: None }
    }

    /// Waits until something that is stuck since then would be so for too long; for ever if nothing is. Whether it still is
    /// stuck then is to be asked with [`is_over`](Self::is_over). Cancel safe.
    pub(super) async fn elapsed(&mut self, stuck_since: Option<Instant>) {
        let Some(since) = stuck_since else { return std::future::pending().await };
        let due = since + self.limit;
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(due)));
        loop {
            timer.as_mut().await;
            if Instant::now() >= due {
                return;
            }
            timer.as_mut().reset(due);
        }
    }

    /// Returns whether something that is stuck since then is so for too long.
    pub(super) fn is_over(&self, stuck_since: Option<Instant>) -> bool {
        stuck_since.is_some_and(|since| since.elapsed() >= self.limit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_millis(20);

    /// Returns whether the wait is over right now.
    async fn is_elapsed(timer: &mut StallTimer, since: Option<Instant>) -> bool {
        tokio::select! {
            biased;
            () = timer.elapsed(since) => true,
            () = std::future::ready(()) => false,
        }
    }

    #[tokio::test]
    async fn what_is_stuck_is_over_after_the_limit_and_not_before() {
        let mut timer = StallTimer::new(LIMIT);
        let since = Instant::now();
        timer.elapsed(Some(since)).await;
        assert!(since.elapsed() >= LIMIT && timer.is_over(Some(since)));
        let hour = Duration::from_secs(3600);
        let mut timer = StallTimer::new(hour);
        assert!(!is_elapsed(&mut timer, Some(since)).await && !timer.is_over(Some(since)));
    }

    #[tokio::test]
    async fn progress_moves_the_end_of_a_timer_that_is_set() {
        let mut timer = StallTimer::new(LIMIT);
        let began = Instant::now();
        // Sets the timer; on a slow machine it may be over already.
        is_elapsed(&mut timer, Some(began)).await;
        let progress = began + 3 * LIMIT;
        timer.elapsed(Some(progress)).await;
        assert!(began.elapsed() >= 4 * LIMIT && timer.is_over(Some(progress)));
    }

    #[tokio::test]
    async fn a_timer_that_ended_while_nothing_was_stuck_is_set_anew() {
        let mut timer = StallTimer::new(LIMIT);
        timer.elapsed(Some(Instant::now())).await;
        assert!(!is_elapsed(&mut timer, None).await && !timer.is_over(None));
        let since = Instant::now();
        timer.elapsed(Some(since)).await;
        assert!(since.elapsed() >= LIMIT);
    }
}

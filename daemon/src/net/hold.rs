//! Back-pressure: while too much waits to be written to disk, publish lanes are left unread for a while before their sends are
//! refused. Most of the time that is enough, and the client notices nothing but a slower answer.

use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use tokio::time::Instant;

/// How long a publish lane is left unread before its sends are read and refused.
const HOLD_MAX: Duration = Duration::from_secs(2);

/// How often a connection looks whether it may read again.
const HOLD_LOOK: Duration = Duration::from_millis(50);

/// Whether a publish lane is read.
#[derive(Debug, Default)]
pub(super) struct Hold {
    since: Option<Instant>,
}

impl Hold {
    /// Returns whether to leave the publish lane unread now.
    pub(super) fn holds(&mut self, is_backed_up: bool, now: Instant) -> bool {
        if !is_backed_up {
            self.since = None;
            return false;
        }
        now.duration_since(*self.since.get_or_insert(now)) < HOLD_MAX
    }
}

/// Waits for what is read, and does not look for it while `holds` says so. It is asked whenever something may have come: who
/// was silent when it began to be held is held, too.
pub(super) async fn unless_held<T>(mut holds: impl FnMut() -> bool, read: impl Future<Output = T>) -> T {
    let mut read = pin!(read);
    loop {
        let unheld = poll_fn(
            |context| {
                if holds() { Poll::Ready(None) } else { read.as_mut().poll(context).map(Some) }
            },
        );
        match unheld.await {
            Some(value) => return value,
            None => tokio::time::sleep(HOLD_LOOK).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[test]
    fn a_lane_is_left_unread_for_two_seconds_and_anew_after_there_was_room() {
        let (mut hold, now) = (Hold::default(), Instant::now());
        let after = |ms| now + Duration::from_millis(ms);
        assert!(!hold.holds(false, now));
        assert!(hold.holds(true, now));
        assert!(hold.holds(true, after(1_999)));
        assert!(!hold.holds(true, after(2_000)));
        assert!(!hold.holds(true, after(9_000)));
        assert!(!hold.holds(false, after(9_001)));
        assert!(hold.holds(true, after(9_002)));
    }

    #[tokio::test]
    async fn what_comes_while_it_is_held_is_read_when_that_is_over() {
        let holds = Cell::new(false);
        let (say, said) = tokio::sync::oneshot::channel();
        let mut reading = pin!(unless_held(|| holds.get(), said));
        assert!(is_pending(reading.as_mut()).await);
        // The reader waits already, and learns of it only when something comes.
        holds.set(true);
        say.send(()).unwrap();
        assert!(is_pending(reading.as_mut()).await, "read while it was held");
        holds.set(false);
        assert_eq!(reading.await, Ok(()));
    }

    async fn is_pending(future: impl Future) -> bool {
        tokio::select! {
            biased;
            _ = future => false,
            () = std::future::ready(()) => true,
        }
    }
}

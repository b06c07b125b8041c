//! A part of the driver that is looked at only when something woke it.
//!
//! The driver is one task of many parts: two lanes with a reader and a writer each, two savers, signals, the watch over
//! silence. A task does not know which of its parts it was woken for, and would ask all of them each time: twenty looks
//! under locks for each bunch of messages. A part that is wrapped knows by itself.
//!
//! Invariant: a part that was woken is asked in the next round of the driver.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

/// A future that is asked only when it was woken itself.
pub(super) struct Part<'a, T> {
    future: Pin<Box<dyn Future<Output = T> + Send + 'a>>,
    bell: Arc<Bell>,
    /// Rings it.
    waker: Waker,
}

/// What is rung for one part.
struct Bell {
    is_rung: AtomicBool,
    /// Wakes the task that the part belongs to.
    task: Mutex<Waker>,
}

impl<'a, T> Part<'a, T> {
    pub(super) fn new(future: impl Future<Output = T> + Send + 'a) -> Self {
        let bell = Arc::new(Bell { is_rung: AtomicBool::new(true), task: Mutex::new(Waker::noop().clone()) });
        let waker = Waker::from(bell.clone());
        Self { future: Box::pin(future), bell, waker }
    }
}

impl<T> Future for Part<'_, T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        let this = &mut *self;
        // Before looking: who rings after that wakes this task.
        this.bell.task().clone_from(context.waker());
        if !this.bell.is_rung.swap(false, Ordering::AcqRel) {
            return Poll::Pending;
        }
        this.future.as_mut().poll(&mut Context::from_waker(&this.waker))
    }
}

impl Bell {
    fn task(&self) -> MutexGuard<'_, Waker> {
        // A waker is whole or was not put there.
        self.task.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        // If it was rung already, the task was woken and has not come yet.
        if !self.is_rung.swap(true, Ordering::AcqRel) {
            let task = self.task().clone();
            task.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use tokio::sync::Notify;

    use super::*;

    #[tokio::test]
    async fn a_part_is_asked_when_it_is_woken_and_not_when_another_one_is() {
        let (asked, one, other, over) = (AtomicUsize::new(0), Notify::new(), Notify::new(), Notify::new());
        let counting = std::future::poll_fn(|_| {
            asked.fetch_add(1, Ordering::Relaxed);
            Poll::<()>::Pending
        });
        let mut part = Part::new(async {
            tokio::select! {
                biased;
                () = counting => {}
                () = one.notified() => {}
            }
        });
        let turns = async {
            for _ in 0..10 {
                other.notify_one();
                tokio::task::yield_now().await;
            }
            over.notify_one();
            std::future::pending::<()>().await;
        };
        tokio::select! {
            biased;
            () = &mut part => panic!("nobody woke it"),
            () = async { loop { other.notified().await } } => {}
            () = over.notified() => {}
            () = turns => {}
        }
        assert_eq!(asked.load(Ordering::Relaxed), 1);
        one.notify_one();
        part.await;
        assert_eq!(asked.load(Ordering::Relaxed), 2);
    }

    #[tokio::test]
    async fn a_part_that_moves_to_another_task_is_woken_there() {
        let bell = Arc::new(Notify::new());
        let rung = bell.clone();
        let mut part = Part::new(async move { rung.notified().await });
        let is_pending =
            std::future::poll_fn(|context| Poll::Ready(Pin::new(&mut part).poll(context).is_pending()));
        assert!(is_pending.await);
        let mut tasks = tokio::task::JoinSet::new();
        tasks.spawn(part);
        tokio::task::yield_now().await;
        bell.notify_one();
        tasks.join_next().await.unwrap().unwrap();
    }
}

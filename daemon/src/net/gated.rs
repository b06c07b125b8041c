//! A future that is polled only when it was woken itself.
//!
//! A task that waits for many things at once polls all of them whenever one is ready, and most of them take locks to say that
//! they are not. A connection is woken a hundred times by its lanes before it is once by a new stream, so what comes seldom
//! waits behind a waker of its own.
//!
//! Invariant: no wake is lost: the gate is opened before the task is woken, and shut before the future is polled.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

/// What opens the gate.
struct Gate {
    is_open: AtomicBool,
    /// Whom to wake then. A task keeps its waker, so this changes once.
    task: Mutex<Option<Waker>>,
}

impl Wake for Gate {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.is_open.store(true, Ordering::Release);
        let task = self.task.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(task) = &*task {
            task.wake_by_ref();
        }
    }
}

/// A future behind a gate. One that is ready is not polled again, but replaced.
pub(super) struct Gated<F> {
    gate: Arc<Gate>,
    /// The gate as a waker.
    waker: Waker,
    /// The last waker that the gate was told.
    told: Option<Waker>,
    future: F,
}

impl<F> Gated<F> {
    pub(super) fn new(future: F) -> Self {
        let gate = Arc::new(Gate { is_open: AtomicBool::new(true), task: Mutex::new(None) });
        Self { waker: gate.clone().into(), gate, told: None, future }
    }

    /// Puts another future in the place of this one.
    pub(super) fn replace(&mut self, future: F) {
        self.future = future;
        self.gate.is_open.store(true, Ordering::Release);
    }
}

impl<F: Future + Unpin> Future for Gated<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        if self.told.as_ref().is_none_or(|told| !told.will_wake(context.waker())) {
            let waker = Some(context.waker().clone());
            self.told.clone_from(&waker);
            *self.gate.task.lock().unwrap_or_else(PoisonError::into_inner) = waker;
        }
        if !self.gate.is_open.swap(false, Ordering::AcqRel) {
            return Poll::Pending;
        }
        let Self { waker, future, .. } = &mut *self;
        Pin::new(future).poll(&mut Context::from_waker(waker))
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::future::poll_fn;

    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn it_is_polled_once_and_then_when_it_was_woken() {
        let polls = Cell::new(0);
        let (say, said) = oneshot::channel::<u8>();
        let mut said = Box::pin(said);
        let counted = poll_fn(|context| {
            polls.set(polls.get() + 1);
            said.as_mut().poll(context)
        });
        let mut gated = Gated::new(counted);
        for _ in 0..3 {
            tokio::select! {
                biased;
                _ = &mut gated => unreachable!("nothing was said"),
                () = std::future::ready(()) => {}
            }
        }
        assert_eq!(polls.get(), 1);
        say.send(7).unwrap();
        assert_eq!(gated.await, Ok(7));
        assert_eq!(polls.get(), 2);
    }

    #[tokio::test]
    async fn a_wake_reaches_the_task_that_polled_last() {
        let (say, said) = oneshot::channel::<u8>();
        let mut gated = Gated::new(said);
        // Polled with a waker that wakes nobody, as a future that has moved to another task is.
        assert!(Pin::new(&mut gated).poll(&mut Context::from_waker(Waker::noop())).is_pending());
        let waiting = gated;
        let saying = async { say.send(7).unwrap() };
        let (waited, ()) = tokio::join!(waiting, saying);
        assert_eq!(waited, Ok(7));
    }

    #[tokio::test]
    async fn what_replaces_it_is_polled_at_once() {
        let mut gated =
            Gated::new(Box::pin(std::future::pending()) as Pin<Box<dyn Future<Output = u8> + Send>>);
        assert!(Pin::new(&mut gated).poll(&mut Context::from_waker(Waker::noop())).is_pending());
        gated.replace(Box::pin(std::future::ready(7)));
        assert_eq!(gated.await, 7);
    }
}

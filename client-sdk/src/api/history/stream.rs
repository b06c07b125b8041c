//! A pager as an asynchronous stream, for programs that put streams together.
//!
//! Invariants: a stream asks only while it is polled and has one page under way at most; a page that failed is asked for again, and
//! behind the last page it stays over.

use std::fmt::{self, Debug};
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_core::Stream;

use super::Page;
use crate::Error;

/// A page under way, and the pager that comes back with it.
pub(super) type Asking<P, T> = Pin<Box<dyn Future<Output = (P, Result<Option<Page<T>>, Error>)> + Send>>;

/// The pages of a pager.
pub(super) struct Pages<P, T> {
    /// Between pages; it is away while one is under way.
    pager: Option<P>,
    ask: fn(P) -> Asking<P, T>,
    asking: Option<Asking<P, T>>,
}

impl<P, T> Pages<P, T> {
    /// Makes a stream of a pager and of how that is asked for a page.
    pub(super) fn new(pager: P, ask: fn(P) -> Asking<P, T>) -> Self {
        Self { pager: Some(pager), ask, asking: None }
    }
}

impl<P: Debug, T> Debug for Pages<P, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pages").field("pager", &self.pager).finish_non_exhaustive()
    }
}

impl<P: Unpin, T> Stream for Pages<P, T> {
    type Item = Result<Page<T>, Error>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let mut asking = match (self.asking.take(), self.pager.take()) {
            (Some(asking), _) => asking,
            (None, Some(pager)) => (self.ask)(pager),
            (None, None) => return Poll::Ready(None),
        };
        let Poll::Ready((pager, page)) = asking.as_mut().poll(context) else {
            self.asking = Some(asking);
            return Poll::Pending;
        };
        let page = page.transpose();
        self.pager = page.is_some().then_some(pager);
        Poll::Ready(page)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::future::poll_fn;

    use quail_protocol::id::{Origin, Position};

    use super::super::Archived;
    use super::*;

    /// Answers with the page of a number, or fails.
    type Script = VecDeque<Option<u32>>;

    fn ask(mut script: Script) -> Asking<Script, u32> {
        Box::pin(async move {
            // Not there at once, as over a network.
            tokio::task::yield_now().await;
            let archived = Archived { origin: Origin(1), position: Position(1), behind: false };
            let page = match script.pop_front() {
                Some(Some(number)) => Ok(Some(Page { items: vec![number], archived })),
                Some(None) => Err(Error::protocol("no answer")),
                None => Ok(None),
            };
            (script, page)
        })
    }

    #[tokio::test]
    async fn a_stream_ends_behind_the_last_page_and_goes_on_after_a_failure() {
        let mut stream = Pages::new(Script::from([Some(1), None, Some(2)]), ask);
        let mut told = Vec::new();
        for _ in 0..5 {
            let next = poll_fn(|context| Pin::new(&mut stream).poll_next(context)).await;
            told.push(next.map(|page| page.map(|page| page.items).map_err(drop)));
        }
        assert_eq!(told, [Some(Ok(vec![1])), Some(Err(())), Some(Ok(vec![2])), None, None]);
    }
}

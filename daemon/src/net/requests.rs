//! The requests of one connection that are under way, as the connection sees them.
//!
//! Requests run on tasks of their own, which tell their connection of each step. A request counts towards the limit only until
//! its answer begins to be written: a client that asks the next thing as soon as it has the answer may do so, although the end of
//! the stream is not acknowledged yet. The streams that wait for that are bounded by QUIC's own limit.
//!
//! Invariant: a step is told before what it allows can be seen from outside, so who looks at the steps first, and then at a new
//! stream, is never behind its client.

use quail_core::ports::directory::SessionFacts;
use quail_protocol::limits::REQUESTS_MAX;
use tokio::sync::mpsc;

/// Most steps that are told and not taken note of. A request waits with its next one while it is full.
const STEPS_MAX: usize = 3 * REQUESTS_MAX;

/// What happens to a request.
pub(super) enum RequestStep {
    /// It opened a session.
    Opened(Box<SessionFacts>),
    /// It is decided, and its answer is about to be written.
    Decided,
    /// Its answer was written, or cannot be.
    Answered {
        /// Whether it is a refusal that is taken from the budget of the connection.
        charged: bool,
    },
}

/// The requests under way and what is told of them.
pub(super) struct Requests {
    deciding: usize,
    answering: usize,
    /// There while a request is: most connections wait most of their life without one.
    steps: Option<(mpsc::Sender<RequestStep>, mpsc::Receiver<RequestStep>)>,
}

impl Requests {
    pub(super) fn new() -> Self {
        Self { deciding: 0, answering: 0, steps: None }
    }

    /// Returns whether one more may begin.
    pub(super) fn has_room(&self) -> bool {
        self.deciding < REQUESTS_MAX
    }

    /// Returns how many are not answered to the end.
    pub(super) fn len(&self) -> usize {
        self.deciding + self.answering
    }

    /// Takes note of a new one and returns where its steps are told.
    pub(super) fn begin(&mut self) -> mpsc::Sender<RequestStep> {
        self.deciding += 1;
        let (sender, _) = self.steps.get_or_insert_with(|| mpsc::channel(STEPS_MAX));
        sender.clone()
    }

    /// Waits for the next step. Cancel safe.
    pub(super) async fn next(&mut self) -> RequestStep {
        let step = match &mut self.steps {
            Some((_, steps)) => steps.recv().await,
            None => None,
        };
        match step {
            Some(step) => self.count(step),
            // Without requests there are no steps. With one there is a sender, for one is ours.
            None => std::future::pending().await,
        }
    }

    /// Returns the next step that was told.
    pub(super) fn try_next(&mut self) -> Option<RequestStep> {
        let step = self.steps.as_mut()?.1.try_recv().ok()?;
        Some(self.count(step))
    }

    fn count(&mut self, step: RequestStep) -> RequestStep {
        match step {
            RequestStep::Opened(_) => {}
            RequestStep::Decided => {
                self.deciding = self.deciding.saturating_sub(1);
                self.answering += 1;
            }
            RequestStep::Answered { .. } => self.answering = self.answering.saturating_sub(1),
        }
        if self.len() == 0 {
            // This was the last step of the last one.
            self.steps = None;
        }
        step
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_decided_request_makes_room_and_is_there_until_it_is_answered() {
        let mut requests = Requests::new();
        let steps: Vec<_> = (0..REQUESTS_MAX).map(|_| requests.begin()).collect();
        assert!(!requests.has_room());
        assert!(steps[0].try_send(RequestStep::Decided).is_ok());
        assert!(matches!(requests.try_next(), Some(RequestStep::Decided)) && requests.try_next().is_none());
        assert!(requests.has_room());
        assert_eq!(requests.len(), REQUESTS_MAX);
        assert!(steps[0].try_send(RequestStep::Answered { charged: true }).is_ok());
        assert!(matches!(requests.next().await, RequestStep::Answered { charged: true }));
        assert_eq!(requests.len(), REQUESTS_MAX - 1);
    }

    #[tokio::test]
    async fn what_the_steps_take_is_given_back_with_the_last_one() {
        let mut requests = Requests::new();
        for _ in 0..2 {
            assert!(requests.steps.is_none() && requests.try_next().is_none());
            let steps = requests.begin();
            assert!(steps.try_send(RequestStep::Decided).is_ok());
            assert!(steps.try_send(RequestStep::Answered { charged: false }).is_ok());
            assert!(matches!(requests.next().await, RequestStep::Decided));
            assert!(requests.steps.is_some());
            assert!(matches!(requests.next().await, RequestStep::Answered { charged: false }));
        }
    }
}

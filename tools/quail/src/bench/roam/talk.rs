//! The conversation: two who write at their pace, two who read, and the checker that watches.
//!
//! Invariant: what causes something else is told to the checker before it can have an effect.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use quail_checker::{Entry, Judge, Key, Place, Terms, Violation, What, fingerprint};
use quail_client::{Accepted, Client, Credentials, Event, Events, SendError, Sending, new_message_id};
use tokio::sync::watch;

use super::super::{BenchError, users};
use super::Way;

/// How often each of the two writes.
const PACE: Duration = Duration::from_millis(10);

/// Both devices, before the checker. It is asked while they talk: at their pace that costs nothing, and a conversation may be long.
pub(super) struct Scene(Mutex<Judge>);

impl Scene {
    pub(super) fn new(one: &Credentials, other: &Credentials) -> Self {
        let scene = Self(Mutex::new(Judge::new(Terms { gaps: false, receipts: false })));
        for person in [one, other] {
            scene.note(person, [What::Joined { account: person.account }]);
        }
        scene
    }

    fn note(&self, person: &Credentials, what: impl IntoIterator<Item = What>) {
        let mut judge = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        what.into_iter().for_each(|what| judge.read(&Entry { device: person.device, what }));
        judge.forget_settled();
    }

    pub(super) fn finish(&self) -> Vec<Violation> {
        let mut judge = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::replace(&mut *judge, Judge::new(Terms { gaps: false, receipts: false })).finish()
    }
}

/// One who writes.
pub(super) struct Writer {
    client: Client,
    from: Credentials,
    to: Credentials,
    way: Way,
    scene: Arc<Scene>,
    unanswered: VecDeque<Sending>,
}

impl Writer {
    /// One of two is to write to the other.
    pub(super) fn new(
        client: &Client,
        (from, to): (&Credentials, &Credentials),
        way: &Way,
        scene: &Arc<Scene>,
    ) -> Self {
        Self {
            client: client.clone(),
            from: from.clone(),
            to: to.clone(),
            way: way.clone(),
            scene: scene.clone(),
            unanswered: VecDeque::new(),
        }
    }

    /// Writes at its pace until told to stop, then waits for the answers.
    pub(super) async fn run(mut self, mut stop: watch::Receiver<bool>) -> Result<(), BenchError> {
        let mut pace = tokio::time::interval(PACE);
        loop {
            tokio::select! {
                _ = pace.tick() => {}
                _ = stop.wait_for(|stop| *stop) => break,
            }
            let number = {
                let mut record = self.way.lock();
                record.written.push(Instant::now());
                record.arrived.push(None);
                record.written.len() - 1
            };
            let (id, text) = (new_message_id(), number.to_string());
            let (to, body) = (vec![self.to.account], fingerprint(text.as_bytes()));
            self.scene.note(&self.from, [What::Sent { id, to, body }]);
            let sent = self.client.send_with_id(id, self.to.account, text).await;
            self.unanswered.push_back(sent.map_err(BenchError::client("send"))?);
            while let Some(outcome) =
                self.unanswered.front().and_then(|sending| users::ready(sending.accepted()))
            {
                self.answered(outcome)?;
            }
        }
        while let Some(sending) = self.unanswered.front() {
            let outcome = sending.accepted().await;
            self.answered(outcome)?;
        }
        Ok(())
    }

    fn answered(&mut self, outcome: Result<Accepted, SendError>) -> Result<(), BenchError> {
        let accepted = outcome.map_err(BenchError::Refused)?;
        if let Some(sending) = self.unanswered.pop_front() {
            let Accepted { origin, position, stamp, .. } = accepted;
            let place = Place { origin, position, stamp };
            self.scene.note(&self.from, [What::Accepted { id: sending.id(), place }]);
        }
        Ok(())
    }
}

/// Notes what arrives.
pub(super) async fn read(mut events: Events, person: Credentials, way: Way, scene: Arc<Scene>) {
    while let Ok(delivery) = events.next().await {
        if let Event::Message(message) = &delivery.event {
            let text = message.body.as_text().unwrap_or_default();
            if let Ok(number) = text.parse() {
                way.lock().arrived(number);
            }
            let place = Place { origin: message.origin, position: message.position, stamp: message.stamp };
            let (message, body) =
                (Key { sender: message.sender, id: message.id }, fingerprint(text.as_bytes()));
            scene.note(&person, [What::Shown { message, body, place }, What::Acknowledged { message }]);
        }
        delivery.acknowledge();
    }
}

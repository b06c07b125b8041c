//! One user of a chat: sends, takes what the partner sends, and counts both.
//!
//! One task per user does all of it. It wakes up for whatever comes first and then takes all that is there, so under load
//! the work per message is small, and the clock is read once per wake-up.
//!
//! Invariants: what was sent is watched until its receipt is here or the drain is over; sending stops long before an
//! outbox is full, so a missing message is the server's fault.

use std::collections::VecDeque;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use quail_checker::Key;
use quail_client::{AccountId, Client, Delivery, Event, Events, SendError, Sending};
use tokio::sync::mpsc;

use super::super::check::Track;
use super::super::message::{Stub, Writer};
use super::super::report::Times;
use super::super::users::{User, ready};
use super::super::{BenchError, DRAIN_TIMEOUT};
use super::course::Shared;

/// Most accepted messages of a user whose receipt is not here: a good part of an outbox, which holds 10,000 events.
const UNDELIVERED_MAX: usize = 4096;

/// How long after the last receipt the user still looks for messages that come again.
const LINGER: Duration = Duration::from_millis(100);

/// A message on its way.
#[derive(Debug)]
pub(super) struct Flight {
    number: u64,
    /// When it was sent, or was to be sent.
    due: Duration,
    sending: Sending,
}

/// Makes and sends the messages of one user.
#[derive(Debug)]
pub(super) struct Writing {
    client: Client,
    user: u32,
    partner: AccountId,
    next: u64,
    writer: Writer,
}

impl Writing {
    pub(super) fn new(client: Client, user: u32, partner: AccountId, size: usize) -> Self {
        Self { client, user, partner, next: 0, writer: Writer::new(size) }
    }

    /// Sends the next message.
    pub(super) async fn send(&mut self, due: Duration) -> Result<Flight, BenchError> {
        let stub = Stub { sender: self.user, number: self.next, due };
        let (id, body) = self.writer.write(&stub);
        let sending = self.client.send_with_id(id, self.partner, body).await;
        let sending = sending.map_err(BenchError::client("send"))?;
        self.next += 1;
        Ok(Flight { number: stub.number, due, sending })
    }
}

/// Where a user's messages come from.
#[derive(Debug)]
pub(super) enum Flights {
    /// From the user, whenever there are less than a window without an answer.
    Window { writing: Writing, window: usize },
    /// From the pacer, which has sent them. It ends with the sending.
    Paced(mpsc::Receiver<Flight>),
    /// From nowhere: the user only takes what comes.
    None {
        /// And not even that until the time is over.
        stopped: bool,
    },
}

/// What a user counted.
#[derive(Debug)]
pub(in crate::bench) struct Tally {
    pub(super) user: u32,
    /// Answers that came in the measured time.
    pub(super) accepted_measured: u64,
    /// Receipts that came in the measured time, in messages.
    pub(super) delivered_measured: u64,
    /// Of messages that were due in the measured time.
    pub(super) confirm: Times,
    /// Of messages that were due in the measured time.
    pub(super) receive: Times,
    /// All that this user did and saw, for the checker.
    pub(in crate::bench) track: Track,
    pub(in crate::bench) resent: u64,
    pub(in crate::bench) reconnects: u64,
}

/// One user at work.
#[derive(Debug)]
pub(super) struct Talker {
    client: Client,
    events: Events,
    partner: (u32, AccountId),
    flights: Flights,
    /// The pacer sends no more, or the time is over.
    sent_all: bool,
    /// Without an answer, in the order of sending, which is that of the answers.
    unanswered: VecDeque<Flight>,
    /// Accepted and without a receipt.
    undelivered: VecDeque<Flight>,
    shared: Arc<Shared>,
    users: usize,
    tally: Tally,
}

/// What has come.
enum News {
    Delivery(Delivery),
    /// Something else, which the next look will find.
    Other,
    Flight(Option<Flight>),
    FeedEnded(quail_client::Error),
}

impl Talker {
    /// `partner` is the number and the account of the other one of the pair, `users` how many users there are.
    pub(super) fn new(
        user: User,
        partner: (u32, AccountId),
        flights: Flights,
        shared: Arc<Shared>,
        users: usize,
    ) -> Self {
        let User { client, events } = user;
        let sent_all = matches!(flights, Flights::None { .. });
        let tally = Tally {
            user: partner.0 ^ 1,
            accepted_measured: 0,
            delivered_measured: 0,
            confirm: Times::new(),
            receive: Times::new(),
            track: Track::default(),
            resent: 0,
            reconnects: 0,
        };
        Self {
            client,
            events,
            partner,
            flights,
            sent_all,
            unanswered: VecDeque::new(),
            undelivered: VecDeque::new(),
            shared,
            users,
            tally,
        }
    }

    /// Talks until the time is over and everybody has everything back, or the drain has taken too long.
    pub(super) async fn run(mut self) -> Result<Tally, BenchError> {
        tokio::time::sleep_until(self.shared.zero.into()).await;
        let upto = self.shared.zero + self.shared.plan.upto;
        if let Flights::None { stopped: true } = self.flights {
            tokio::time::sleep_until(upto.into()).await;
        }
        self.talk(upto).await?;
        let deadline = upto + DRAIN_TIMEOUT;
        // What is not back by then is counted as what it is: missing, or without a receipt.
        tokio::time::timeout_at(deadline.into(), self.drain()).await.unwrap_or(Ok(()))?;
        self.take_all()?;
        let stats = self.client.stats();
        (self.tally.resent, self.tally.reconnects) = (stats.resent, stats.reconnects);
        Ok(self.tally)
    }

    /// Sends and takes until the time is over.
    async fn talk(&mut self, upto: Instant) -> Result<(), BenchError> {
        let mut over = pin!(tokio::time::sleep_until(upto.into()));
        // A pacer says itself when it has sent all; until then its messages must be taken, late ones too.
        let by_time = matches!(self.flights, Flights::Window { .. });
        while !self.sent_all {
            self.fill_window(upto).await?;
            tokio::select! {
                biased;
                () = &mut over, if by_time => self.sent_all = true,
                news = self.news() => self.take(news)?,
            }
            self.take_all()?;
        }
        Ok(())
    }

    /// Takes until everybody has everything back.
    async fn drain(&mut self) -> Result<(), BenchError> {
        while !self.unanswered.is_empty() || !self.undelivered.is_empty() {
            let news = self.news().await;
            self.take(news)?;
            self.take_all()?;
        }
        self.shared.settled.send_modify(|settled| *settled += 1);
        let (shared, users) = (self.shared.clone(), self.users);
        let mut settled = shared.settled.subscribe();
        let everybody = async {
            // Cannot fail: the sender lives as long as `shared`.
            let _ = settled.wait_for(|settled| *settled >= users).await;
            tokio::time::sleep(LINGER).await;
        };
        let mut everybody = pin!(everybody);
        loop {
            tokio::select! {
                () = &mut everybody => return Ok(()),
                news = self.news() => self.take(news)?,
            }
        }
    }

    async fn fill_window(&mut self, upto: Instant) -> Result<(), BenchError> {
        let Flights::Window { writing, window } = &mut self.flights else {
            return Ok(());
        };
        while self.unanswered.len() < *window && self.undelivered.len() < UNDELIVERED_MAX {
            let now = Instant::now();
            if now >= upto {
                return Ok(());
            }
            let flight = writing.send(now - self.shared.zero).await?;
            self.tally.track.sent = flight.number + 1;
            self.unanswered.push_back(flight);
        }
        Ok(())
    }

    /// Waits for whatever comes first.
    async fn news(&mut self) -> News {
        let paced = match &mut self.flights {
            Flights::Paced(receiver) if !self.sent_all => Some(receiver),
            _ => None,
        };
        tokio::select! {
            biased;
            delivery = self.events.next() => match delivery {
                Ok(delivery) => News::Delivery(delivery),
                Err(error) => News::FeedEnded(error),
            },
            () = answered(self.unanswered.front()) => News::Other,
            () = delivered(self.undelivered.front()) => News::Other,
            flight = next(paced) => News::Flight(flight),
        }
    }

    fn take(&mut self, news: News) -> Result<(), BenchError> {
        match news {
            News::Delivery(delivery) => self.arrived(delivery, self.shared.now()),
            News::Other => {}
            News::Flight(Some(flight)) => {
                self.tally.track.sent = flight.number + 1;
                self.unanswered.push_back(flight);
            }
            News::Flight(None) => self.sent_all = true,
            News::FeedEnded(source) => return Err(BenchError::Client { action: "receive", source }),
        }
        Ok(())
    }

    /// Takes all that is there without waiting.
    fn take_all(&mut self) -> Result<(), BenchError> {
        let now = self.shared.now();
        let is_measured = self.shared.plan.measures(now);
        while let Some(delivery) = self.events.try_next() {
            self.arrived(delivery, now);
        }
        while let Some(flight) = self.unanswered.front() {
            let Some(outcome) = ready(flight.sending.accepted()) else { break };
            outcome.map_err(BenchError::Refused)?;
            if self.shared.plan.measures(flight.due) {
                self.tally.confirm.record(now.saturating_sub(flight.due));
            }
            if let Some(gauge) = &self.shared.gauge {
                gauge.accepted(now.saturating_sub(flight.due));
            }
            self.tally.accepted_measured += u64::from(is_measured);
            self.tally.track.accepted.push(flight.number);
            self.undelivered.extend(self.unanswered.pop_front());
        }
        while let Some(flight) = self.undelivered.front() {
            let Some(outcome) = ready(flight.sending.delivered()) else { break };
            let number = flight.number;
            self.undelivered.pop_front();
            match outcome {
                Ok(()) => {
                    self.tally.track.delivered.push(number);
                    self.tally.delivered_measured += u64::from(is_measured);
                    if let Some(gauge) = &self.shared.gauge {
                        gauge.delivered();
                    }
                }
                // Its receipt is lost to this client, not the message.
                Err(SendError::Unwatched) => self.tally.track.unwatched.push(number),
                Err(error) => return Err(BenchError::Refused(error)),
            }
        }
        Ok(())
    }

    fn arrived(&mut self, delivery: Delivery, now: Duration) {
        if let Event::Message(message) = &delivery.event {
            match Stub::of(message) {
                Some(stub) if (stub.sender, message.sender) == self.partner => {
                    self.tally.track.shown.push(stub.number);
                    if self.shared.plan.measures(stub.due) {
                        self.tally.receive.record(now.saturating_sub(stub.due));
                    }
                    if let Some(gauge) = &self.shared.gauge {
                        gauge.received(now.saturating_sub(stub.due));
                    }
                }
                _ => self.tally.track.altered(Key { sender: message.sender, id: message.id }),
            }
        }
        delivery.acknowledge();
    }
}

async fn answered(flight: Option<&Flight>) {
    match flight {
        // What the answer is will be looked at with all others.
        Some(flight) => drop(flight.sending.accepted().await),
        None => std::future::pending().await,
    }
}

async fn delivered(flight: Option<&Flight>) {
    match flight {
        Some(flight) => drop(flight.sending.delivered().await),
        None => std::future::pending().await,
    }
}

async fn next(paced: Option<&mut mpsc::Receiver<Flight>>) -> Option<Flight> {
    match paced {
        Some(receiver) => receiver.recv().await,
        None => std::future::pending().await,
    }
}

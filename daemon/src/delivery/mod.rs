//! Delivery: carries out what the core decided, once it is durable. It decides nothing.
//!
//! Effects of a turn are sorted by connection and handed over in one push per connection, so that a connection wakes once.
//! Reads of a backlog go to a thread of their own and come back to the sequencer as commands.
//!
//! Invariants: handing over never waits. A connection's mailbox can only overflow if it was handed more than its windows
//! allow, which is a fault of ours or of the peer; it is closed then, and nothing is lost, because what was not acknowledged
//! is delivered again.

mod mailbox;
mod reads;
mod signals;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use quail_core::ports::outbox::StoredEvent;
use quail_core::{Accepted, ConnectionId, Effect, FeedId, IdMap, SignalOut, Ticket};
use quail_protocol::id::{AccountId, DeviceId, Origin, Position};
use quail_protocol::v1::{self, Reason};
use tokio::sync::oneshot;

use crate::ops::metrics::{CommandLabels, Metrics};

pub use mailbox::{MAILBOX_PUSHES_MAX, Mailbox};
pub use reads::{BacklogThread, HandBack, ReadRequest, Reads};
pub use signals::{SIGNALS_WAITING_MAX, SignalBox};

/// What carries out effects once their entries are durable.
pub trait Release: Send {
    /// Carries out the effects of one turn. Must not wait.
    fn release(&mut self, effects: Vec<Effect>);
}

/// Something for one connection to write.
#[derive(Clone, Debug, PartialEq)]
pub enum Down {
    /// A send was accepted.
    Accepted(Accepted),
    /// A send was refused.
    Refused {
        /// The send's number.
        number: u64,
        /// Why.
        error: v1::Error,
    },
    /// For the feed lane that attached under this number; one that attached since does not get it.
    Feed(u64, FeedItem),
    /// The connection is to be closed.
    Close(Reason),
}

/// Something for a feed lane.
#[derive(Clone, Debug, PartialEq)]
pub enum FeedItem {
    /// An event.
    Event(Arc<StoredEvent>),
    /// A gap.
    Gap {
        /// First position of the stretch.
        from: Position,
        /// Last position of the stretch.
        upto: Position,
    },
    /// An earlier origin of this data has ended.
    OriginGone {
        /// Which one.
        origin: Origin,
        /// First position that is missing.
        from: Position,
    },
    /// The feed has caught up.
    CaughtUp,
    /// Whether the feed waits for an acknowledgement, told anew with each that was not enough. Not written.
    Stalled(bool),
    /// A mark of what was read was taken, or why it was not.
    ReadAnswer(Option<v1::Error>),
    /// The feed ends.
    Ended(v1::Error),
}

/// The connections that may be written to, and those who wait for a command. Shared by all connections.
#[derive(Default)]
pub struct Delivery {
    routes: Mutex<Routes>,
    tickets: Mutex<HashMap<Ticket, oneshot::Sender<()>>>,
    next_ticket: AtomicU64,
    metrics: Arc<Metrics>,
}

/// Bounded by the open connections.
#[derive(Default)]
struct Routes {
    mailboxes: IdMap<ConnectionId, Route>,
    devices: IdMap<DeviceId, Vec<ConnectionId>>,
    /// How many connections watch what is unread, by account.
    watching: IdMap<AccountId, usize>,
}

struct Route {
    sender: mailbox::Sender,
    signals: Arc<SignalBox>,
    device: Option<DeviceId>,
    /// Whose unread counts it is told.
    watches: Option<AccountId>,
}

impl Delivery {
    /// Returns delivery to nobody yet.
    pub fn new(metrics: Arc<Metrics>) -> Self {
        Self { metrics, ..Self::default() }
    }

    /// Opens the mailbox of a connection. It is gone when the returned end is dropped.
    pub fn open(self: &Arc<Self>, connection: ConnectionId) -> Mailbox {
        let (sender, mailbox) = mailbox::open(connection, self.clone());
        let route = Route { sender, signals: mailbox.signals(), device: None, watches: None };
        lock(&self.routes).mailboxes.insert(connection, route);
        mailbox
    }

    /// Takes note that a connection carries the session of a device, so that it can be closed with it.
    pub fn bind(&self, connection: ConnectionId, device: DeviceId) {
        let mut routes = lock(&self.routes);
        if let Some(route) = routes.mailboxes.get_mut(&connection) {
            route.device = Some(device);
            routes.devices.entry(device).or_default().push(connection);
        }
    }

    /// Takes note that a connection wants to know how much its account has not read.
    pub fn watch(&self, connection: ConnectionId, account: AccountId) {
        let mut routes = lock(&self.routes);
        let Some(route) = routes.mailboxes.get_mut(&connection) else { return };
        // A connection has one session in its life, and that one account.
        if route.watches.replace(account).is_none() {
            *routes.watching.entry(account).or_default() += 1;
        }
    }

    /// Returns whether anybody wants to know how much an account has not read.
    pub fn is_watched(&self, account: AccountId) -> bool {
        lock(&self.routes).watching.contains_key(&account)
    }

    /// Returns whether a connection carries the session of a device.
    pub fn is_bound(&self, device: DeviceId) -> bool {
        lock(&self.routes).devices.contains_key(&device)
    }

    /// Returns a ticket and what resolves when the command that carries it has been applied. Dropping the latter is fine.
    pub fn ticket(&self) -> (Ticket, oneshot::Receiver<()>) {
        let ticket = Ticket(self.next_ticket.fetch_add(1, Ordering::Relaxed));
        let (sender, receiver) = oneshot::channel();
        let mut tickets = lock(&self.tickets);
        // Tickets whose command never came (a cancelled request) would stay; they are swept when the map has doubled.
        if tickets.len() >= TICKETS_SWEEP && tickets.len().is_power_of_two() {
            tickets.retain(|_, waiter| !waiter.is_closed());
        }
        tickets.insert(ticket, sender);
        (ticket, receiver)
    }

    fn close(&self, connection: ConnectionId) {
        let mut routes = lock(&self.routes);
        let Some(Route { device, watches, .. }) = routes.mailboxes.remove(&connection) else { return };
        if let Some(account) = watches
            && let Some(count) = routes.watching.get_mut(&account)
        {
            *count -= 1;
            if *count == 0 {
                routes.watching.remove(&account);
            }
        }
        let Some(device) = device else { return };
        if let Some(connections) = routes.devices.get_mut(&device) {
            connections.retain(|other| *other != connection);
            if connections.is_empty() {
                routes.devices.remove(&device);
            }
        }
    }

    /// Hands signals to the connections they are for. Those of connections that are gone are dropped.
    pub fn signal(&self, signals: Vec<SignalOut>) {
        let routes = lock(&self.routes);
        for signal in signals {
            let Some(route) = routes.mailboxes.get(&signal.feed.connection) else { continue };
            let is_unread = matches!(signal.signal.body, Some(v1::signal::Body::Unread(_)));
            if is_unread && route.watches.is_none() {
                continue;
            }
            if route.signals.push(signal) {
                self.metrics.signals_dropped.inc();
            }
        }
    }

    fn push(&self, by_connection: IdMap<ConnectionId, Vec<Down>>) {
        let routes = lock(&self.routes);
        for (connection, downs) in by_connection {
            let Some(route) = routes.mailboxes.get(&connection) else { continue };
            if !route.sender.push(downs) {
                self.metrics.mailbox_overflows.inc();
                tracing::warn!(connection = connection.0, "mailbox overflow, closing the connection");
            }
        }
    }
}

/// From how many open tickets on abandoned ones are looked for.
const TICKETS_SWEEP: usize = 1024;

/// The sequencer's side of delivery.
pub struct Releaser {
    delivery: Arc<Delivery>,
    reads: Reads,
}

impl Releaser {
    /// Returns what the sequencer releases effects to.
    pub fn new(delivery: Arc<Delivery>, reads: Reads) -> Self {
        Self { delivery, reads }
    }

    fn count(&self, command: &'static str, result: &'static str, count: u64) {
        let labels = CommandLabels { command, result };
        self.delivery.metrics.commands.get_or_create(&labels).inc_by(count);
    }

    fn close_device(&self, device: DeviceId, by_connection: &mut IdMap<ConnectionId, Vec<Down>>) {
        let routes = lock(&self.delivery.routes);
        for connection in routes.devices.get(&device).into_iter().flatten() {
            by_connection.entry(*connection).or_default().push(Down::Close(Reason::Unauthenticated));
        }
    }
}

impl Release for Releaser {
    fn release(&mut self, effects: Vec<Effect>) {
        let mut by_connection: IdMap<ConnectionId, Vec<Down>> = IdMap::default();
        let (mut accepted_sends, mut delivered) = (0, 0);
        for effect in effects {
            let (connection, down) = match effect {
                Effect::Accepted { connection, accepted } => {
                    accepted_sends += 1;
                    (connection, Down::Accepted(accepted))
                }
                Effect::Refused { connection, number, error } => {
                    self.count("send", error.reason().meta().name, 1);
                    (connection, Down::Refused { number, error })
                }
                Effect::Deliver { feed, event } => {
                    delivered += 1;
                    feed_item(feed, FeedItem::Event(event))
                }
                Effect::Gap { feed, from, upto } => {
                    self.delivery.metrics.outbox.gaps.inc();
                    feed_item(feed, FeedItem::Gap { from, upto })
                }
                Effect::OriginGone { feed, origin, from } => {
                    self.delivery.metrics.outbox.gaps.inc();
                    feed_item(feed, FeedItem::OriginGone { origin, from })
                }
                Effect::CaughtUp { feed } => feed_item(feed, FeedItem::CaughtUp),
                Effect::Stalled { feed, stalled } => feed_item(feed, FeedItem::Stalled(stalled)),
                Effect::ReadAnswered { feed, error } => {
                    let result = error.as_ref().map_or("OK", |error| error.reason().meta().name);
                    self.count("read", result, 1);
                    feed_item(feed, FeedItem::ReadAnswer(error))
                }
                Effect::Ended { feed, error } => feed_item(feed, FeedItem::Ended(error)),
                Effect::CloseDevice { device } => {
                    self.close_device(device, &mut by_connection);
                    continue;
                }
                Effect::Read { feed, account, device, stretch } => {
                    self.reads.push(ReadRequest { feed, account, device, stretch });
                    continue;
                }
                Effect::Applied { ticket } => {
                    if let Some(waiter) = lock(&self.delivery.tickets).remove(&ticket) {
                        // Whoever asked may have gone away; the command took effect all the same.
                        let _ = waiter.send(());
                    }
                    continue;
                }
            };
            by_connection.entry(connection).or_default().push(down);
        }
        // Before anybody is told, so that whoever was told finds it counted.
        if accepted_sends > 0 {
            self.count("send", "OK", accepted_sends);
        }
        self.delivery.metrics.delivered.inc_by(delivered);
        self.delivery.metrics.backlog_queue.set(self.reads.len() as i64);
        self.delivery.push(by_connection);
    }
}

fn feed_item(feed: FeedId, item: FeedItem) -> (ConnectionId, Down) {
    (feed.connection, Down::Feed(feed.number, item))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // The maps are whole between two operations, so a panic elsewhere does not spoil them.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn feed(connection: u64) -> FeedId {
        FeedId { connection: ConnectionId(connection), number: 3 }
    }

    #[tokio::test]
    async fn one_turn_is_one_push_per_connection_in_order() {
        let delivery = Arc::new(Delivery::default());
        let connection = ConnectionId(1);
        let mut mailbox = delivery.open(connection);
        let mut releaser = Releaser::new(delivery.clone(), Reads::default());
        releaser.release(vec![
            Effect::CaughtUp { feed: feed(1) },
            Effect::CaughtUp { feed: feed(2) },
            Effect::Ended { feed: feed(1), error: Reason::Replaced.error() },
        ]);
        assert_eq!(
            mailbox.receive().await,
            Some(vec![
                Down::Feed(3, FeedItem::CaughtUp),
                Down::Feed(3, FeedItem::Ended(Reason::Replaced.error()))
            ])
        );
    }

    #[tokio::test]
    async fn closing_a_device_reaches_each_of_its_connections() {
        let delivery = Arc::new(Delivery::default());
        let device = DeviceId([1; 16]);
        let mut first = delivery.open(ConnectionId(1));
        let gone = delivery.open(ConnectionId(2));
        delivery.bind(ConnectionId(1), device);
        delivery.bind(ConnectionId(2), device);
        drop(gone);
        Releaser::new(delivery.clone(), Reads::default()).release(vec![Effect::CloseDevice { device }]);
        assert_eq!(first.receive().await, Some(vec![Down::Close(Reason::Unauthenticated)]));
        assert!(delivery.is_bound(device), "until the connection is gone");
        drop(first);
        assert!(!delivery.is_bound(device));
        assert!(lock(&delivery.routes).devices.is_empty());
    }

    #[tokio::test]
    async fn what_is_unread_goes_to_who_watches_until_it_is_gone() {
        let delivery = Arc::new(Delivery::default());
        let (watching, other) = (delivery.open(ConnectionId(1)), delivery.open(ConnectionId(2)));
        let account = AccountId([1; 16]);
        delivery.watch(ConnectionId(1), account);
        delivery.watch(ConnectionId(1), account);
        let body = Some(v1::signal::Body::Unread(v1::Unread { count: 3 }));
        let signal = Arc::new(v1::Signal { body, ..Default::default() });
        let out = |connection| SignalOut {
            feed: feed(connection),
            from: DeviceId([2; 16]),
            signal: signal.clone(),
        };
        delivery.signal(vec![out(1), out(2)]);
        assert_eq!((watching.signals().take().len(), other.signals().take().len()), (1, 0));
        assert!(delivery.is_watched(account));
        drop(watching);
        assert!(!delivery.is_watched(account));
    }

    #[tokio::test]
    async fn a_mailbox_that_overflows_ends_its_connection() {
        let delivery = Arc::new(Delivery::default());
        let connection = ConnectionId(1);
        let mut mailbox = delivery.open(connection);
        let mut releaser = Releaser::new(delivery.clone(), Reads::default());
        for _ in 0..=MAILBOX_PUSHES_MAX {
            releaser.release(vec![Effect::CaughtUp { feed: feed(1) }]);
        }
        assert_eq!(mailbox.receive().await, None);
    }
}

//! Devices that write down what they do and see, for the [checker](crate::checker).
//!
//! A witness is a client of the SDK that acknowledges what it shows; a device that speaks the wire by hand writes into the
//! record itself. All witnesses of a run write into one [`Record`], so what
//! one saw before another did something stands before it there.
//!
//! Invariant: a cause is written down before it can have an effect: a send and an acknowledgement before the SDK hears of
//! them, everything else after the SDK told it.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use quail_client::{AccountId, Client, DeviceId, Event, Events, Mark, SendError, Sending, new_message_id};
use quail_protocol::id::{MessageId, Origin, Position, Stamp};
use quail_protocol::v1::{self, event::Body};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::Person;
use crate::checker::{Entry, Key, Place, ReceiptKind, Terms, What, fingerprint, judge};

/// How long witnesses wait for what must come over a bad network. Nothing waits it out.
const PATIENCE: Duration = Duration::from_secs(180);

/// Most violations that a failing test prints.
const TOLD_MAX: usize = 20;

/// What all devices of a run did and saw.
#[derive(Default)]
pub struct Record(Mutex<Vec<Entry>>);

impl Record {
    /// Begins an empty record.
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Writes something down.
    pub fn note(&self, device: DeviceId, what: What) {
        self.0.lock().expect("unharmed").push(Entry { device, what });
    }

    /// Writes down that a device joins, which may be opened later.
    pub fn joins(&self, person: &Person) {
        self.note(person.credentials.device, What::Joined { account: person.account() });
    }

    /// Writes down what a device that speaks the wire by hand was handed and keeps. To be called before it is acknowledged.
    pub fn event(&self, person: &Person, event: &v1::Event) {
        let device = person.credentials.device;
        match event.body.as_ref().expect("a body") {
            Body::Message(message) => {
                let id = MessageId::try_from(&*message.id).expect("an id");
                let sender = AccountId::try_from(&*message.sender).expect("an id");
                let (message, body) = (Key { sender, id }, fingerprint(&message.body));
                let place = place(event.origin, event.position, event.stamp);
                self.note(device, What::Shown { message, body, place });
                self.note(device, What::Acknowledged { message });
            }
            // A message in all that is judged here.
            Body::Changed(changed) => {
                let id = MessageId::try_from(&*changed.id).expect("an id");
                let sender = AccountId::try_from(&*changed.sender).expect("an id");
                let (message, body) = (Key { sender, id }, fingerprint(b""));
                let place = place(event.origin, event.position, event.stamp);
                self.note(device, What::Shown { message, body, place });
                self.note(device, What::Acknowledged { message });
            }
            Body::Receipt(receipt) => {
                let reader = AccountId::try_from(&*receipt.account).expect("an id");
                let (sender, kind) = match receipt.kind() {
                    v1::ReceiptKind::Read => {
                        let sender = AccountId::try_from(&*receipt.sender).expect("an id");
                        (sender, ReceiptKind::Read)
                    }
                    _ => (person.account(), ReceiptKind::Delivered),
                };
                let stretch = (receipt.origin, receipt.after, receipt.upto);
                for id in self.in_range(sender, reader, stretch) {
                    let is_elsewhere = kind == ReceiptKind::Read && person.account() == reader;
                    let message = Key { sender, id };
                    self.note(
                        device,
                        if is_elsewhere {
                            What::ReadElsewhere { message }
                        } else {
                            What::Receipt { id, reader, kind }
                        },
                    );
                }
            }
        }
    }

    /// Writes down what a device that speaks the wire by hand is about to say of what was read: an origin with a stretch of
    /// positions above the first.
    pub fn reads(&self, person: &Person, sender: AccountId, stretch: (u32, u64, u64)) {
        for id in self.in_range(sender, person.account(), stretch) {
            self.note(person.credentials.device, What::Read { message: Key { sender, id } });
        }
    }

    /// Writes down that the server took the word of such a device on what was read.
    pub fn read_taken(&self, person: &Person, sender: AccountId, stretch: (u32, u64, u64)) {
        for id in self.in_range(sender, person.account(), stretch) {
            self.note(person.credentials.device, What::ReadTaken { message: Key { sender, id } });
        }
    }

    /// Returns the messages of an account to a reader in a stretch, as far as anybody has seen where they stand.
    fn in_range(
        &self,
        account: AccountId,
        reader: AccountId,
        (origin, after, upto): (u32, u64, u64),
    ) -> BTreeSet<MessageId> {
        let entries = self.0.lock().expect("unharmed");
        let of_account = |entry: &&Entry| {
            let joined = What::Joined { account };
            entries.iter().any(|other| other.device == entry.device && other.what == joined)
        };
        let to_reader: BTreeSet<MessageId> = entries
            .iter()
            .filter_map(|entry| match &entry.what {
                What::Sent { id, to, .. } if to.contains(&reader) => Some((entry, *id)),
                _ => None,
            })
            .filter(|(entry, _)| of_account(entry))
            .map(|(_, id)| id)
            .collect();
        let range = after + 1..=upto;
        let seen = entries.iter().filter_map(|entry| match &entry.what {
            What::Accepted { id, place } => Some((*id, *place)),
            What::Shown { message, place, .. } => Some((message.id, *place)),
            _ => None,
        });
        let in_range =
            seen.filter(|(_, place)| place.origin.0 == origin && range.contains(&place.position.0));
        in_range.map(|(id, _)| id).filter(|id| to_reader.contains(id)).collect()
    }

    /// Writes down a send that is about to be written by hand.
    pub fn sends(&self, person: &Person, send: &v1::Send) {
        let id = MessageId::try_from(&*send.id).expect("an id");
        let is_private = matches!(send.change, Some(v1::send::Change::DeleteForMe(_)));
        let to =
            if is_private { Vec::new() } else { vec![AccountId::try_from(&*send.recipient).expect("an id")] };
        self.note(person.credentials.device, What::Sent { id, to, body: fingerprint(&send.body) });
    }

    /// Writes down the answer to a send that was written by hand.
    pub fn accepted(&self, person: &Person, send: &v1::Send, accepted: &v1::Accepted) {
        let id = MessageId::try_from(&*send.id).expect("an id");
        let place = place(accepted.origin, accepted.position, accepted.stamp);
        self.note(person.credentials.device, What::Accepted { id, place });
    }

    /// Fails the test if any promise was broken. Everything must have come to rest.
    pub fn assert_kept(&self, terms: Terms) {
        let entries = self.0.lock().expect("unharmed");
        let found = judge(&entries, terms);
        let told: Vec<_> = found.iter().take(TOLD_MAX).collect();
        assert!(found.is_empty(), "{} violations in {} entries: {told:#?}", found.len(), entries.len());
    }
}

fn place(origin: u32, position: u64, stamp: u64) -> Place {
    Place { origin: Origin(origin), position: Position(position), stamp: Stamp(stamp) }
}

/// How far a witness has come.
#[derive(Clone, Copy, Debug, Default)]
pub struct Progress {
    /// Messages shown.
    pub shown: usize,
    /// Sends answered.
    pub answered: usize,
    /// Sends that came to a receipt.
    pub delivered: usize,
    /// Sends that were read, of those that were followed so far.
    pub read: usize,
    /// Messages that it did not send and was told to be read.
    pub told_read: usize,
}

/// A device that writes down what it does and sees.
pub struct Witness {
    /// Its client.
    pub client: Client,
    /// What it writes into.
    record: Arc<Record>,
    progress: Arc<watch::Sender<Progress>>,
    /// What it has shown, in that order.
    shown: Arc<Mutex<Vec<(Key, Mark)>>>,
    sent: usize,
    tasks: JoinSet<()>,
}

impl Witness {
    /// Lets a device join the run and opens it.
    pub async fn join(person: &Person, record: &Arc<Record>) -> Self {
        record.joins(person);
        Self::open(person, record).await
    }

    /// Opens a device that has joined the run before.
    pub async fn open(person: &Person, record: &Arc<Record>) -> Self {
        let client = person.open().await;
        record.note(client.device(), What::Opened);
        let events = client.events().await.expect("the first to ask");
        let progress = Arc::new(watch::Sender::new(Progress::default()));
        let mut tasks = JoinSet::new();
        let witness = Self {
            client,
            record: record.clone(),
            progress,
            shown: Arc::default(),
            sent: 0,
            tasks: JoinSet::new(),
        };
        let shower = witness.notes();
        tasks.spawn(shower.show(events));
        Self { tasks, ..witness }
    }

    fn notes(&self) -> Notes {
        Notes {
            account: self.client.account(),
            device: self.client.device(),
            shown: self.shown.clone(),
            record: self.record.clone(),
            progress: self.progress.clone(),
        }
    }

    /// Says that its owner has read some of the messages it has shown, which are numbered in that order; `in_secret` if the
    /// account does not want senders to know. Returns when that is saved.
    pub async fn reads(&self, numbers: impl IntoIterator<Item = usize>, in_secret: bool) {
        let shown = self.shown.lock().expect("unharmed").clone();
        let read: Vec<_> = numbers.into_iter().map(|number| shown[number]).collect();
        for (message, _) in &read {
            let message = *message;
            self.record.note(
                self.client.device(),
                if in_secret { What::ReadInSecret { message } } else { What::Read { message } },
            );
        }
        let saved = self.client.read(read.into_iter().map(|(_, mark)| mark));
        self.within("what was read to be saved", saved).await.expect("the client is open");
    }

    /// Sends a message like [`Self::send`], and writes it down too when its recipient has read it.
    pub async fn send_to_be_read(&mut self, to: AccountId, body: &str) {
        let sending = self.sends(to, body).await;
        let notes = self.notes();
        self.tasks.spawn(notes.follow(sending, to, true));
    }

    /// Waits until so many messages that it sent with [`Self::send_to_be_read`] were read.
    pub async fn has_reads(&self, count: usize) {
        self.until("what was sent to be read", |progress| progress.read >= count).await;
    }

    /// Waits until it was told of so many messages that they were read, as a device that did not send them.
    pub async fn is_told_of_reads(&self, count: usize) {
        self.until("to be told of what was read", |progress| progress.told_read >= count).await;
    }

    /// Sends a message and returns its id; the answer and the receipt are written down when they come.
    pub async fn send(&mut self, to: AccountId, body: &str) -> MessageId {
        let sending = self.sends(to, body).await;
        let (id, notes) = (sending.id(), self.notes());
        self.tasks.spawn(notes.follow(sending, to, false));
        while self.tasks.try_join_next().is_some() {}
        id
    }

    async fn sends(&mut self, to: AccountId, body: &str) -> Sending {
        let (id, device) = (new_message_id(), self.client.device());
        self.record.note(device, What::Sent { id, to: vec![to], body: fingerprint(body.as_bytes()) });
        self.sent += 1;
        let sending = self.within("room to send", self.client.send_with_id(id, to, body)).await;
        sending.expect("the client is open")
    }

    /// Waits until it has shown so many messages.
    pub async fn has_shown(&self, count: usize) {
        self.until("messages to be shown", |progress| progress.shown >= count).await;
    }

    /// Waits until so many of its sends are answered.
    pub async fn has_answers(&self, count: usize) {
        self.until("sends to be answered", |progress| progress.answered >= count).await;
    }

    /// Waits until everything that it sent has its receipt.
    pub async fn has_receipts(&self) {
        self.until("receipts", |progress| progress.delivered >= self.sent).await;
    }

    /// Returns how far it has come.
    pub fn progress(&self) -> Progress {
        *self.progress.borrow()
    }

    /// Closes its client, which first says what it has acknowledged.
    pub async fn close(self) {
        self.within("the client to close", self.client.close()).await.expect("nothing is unanswered");
    }

    async fn until(&self, what: &str, done: impl FnMut(&Progress) -> bool) {
        let mut progress = self.progress.subscribe();
        let reached = progress.wait_for(done);
        self.within(what, async { drop(reached.await.expect("the sender is here")) }).await;
    }

    async fn within<T>(&self, what: &str, future: impl Future<Output = T>) -> T {
        match tokio::time::timeout(PATIENCE, future).await {
            Ok(value) => value,
            Err(_) => {
                let (progress, stats) = (self.progress(), self.client.stats());
                let state = self.client.state().borrow().clone();
                panic!("waited in vain for {what}: {progress:?} of {} sent, {state:?}, {stats:?}", self.sent)
            }
        }
    }
}

/// What a task of a witness writes with.
struct Notes {
    account: AccountId,
    device: DeviceId,
    shown: Arc<Mutex<Vec<(Key, Mark)>>>,
    record: Arc<Record>,
    progress: Arc<watch::Sender<Progress>>,
}

impl Notes {
    /// Shows and acknowledges until the feed ends.
    async fn show(self, mut events: Events) {
        while let Ok(delivery) = events.next().await {
            match &delivery.event {
                Event::Message(message) => {
                    let body = fingerprint(message.body.as_text().expect("a text body").as_bytes());
                    let (origin, position, stamp) = (message.origin, message.position, message.stamp);
                    let place = Place { origin, position, stamp };
                    let (mark, id) = (message.mark(), message.id);
                    let message = Key { sender: message.sender, id };
                    self.note(What::Shown { message, body, place });
                    self.note(What::Acknowledged { message });
                    delivery.acknowledge();
                    self.shown.lock().expect("unharmed").push((message, mark));
                    self.progress.send_modify(|progress| progress.shown += 1);
                }
                Event::Gap { origin, from, upto } => {
                    self.note(What::Gap { origin: *origin, from: *from, upto: *upto });
                    delivery.acknowledge();
                }
                Event::Read(read) => {
                    let stretch = (read.origin.0, read.after.0, read.upto.0);
                    for id in self.record.in_range(read.sender, read.reader, stretch) {
                        let (reader, kind) = (read.reader, ReceiptKind::Read);
                        let is_elsewhere = reader == self.account;
                        let message = Key { sender: read.sender, id };
                        self.note(match is_elsewhere {
                            true => What::ReadElsewhere { message },
                            false => What::Receipt { id, reader, kind },
                        });
                        self.progress.send_modify(|progress| progress.told_read += 1);
                    }
                    delivery.acknowledge();
                }
                _ => drop(delivery.acknowledge()),
            }
        }
    }

    /// Follows a message until its receipt, or until it is read.
    async fn follow(self, sending: Sending, reader: AccountId, until_read: bool) {
        let id = sending.id();
        match sending.accepted().await {
            Ok(accepted) => {
                let (origin, position, stamp) = (accepted.origin, accepted.position, accepted.stamp);
                self.note(What::Accepted { id, place: Place { origin, position, stamp } });
            }
            Err(SendError::Refused(_)) => self.note(What::Refused { id }),
            // The client ended first.
            Err(_) => return,
        }
        self.progress.send_modify(|progress| progress.answered += 1);
        if sending.delivered().await.is_ok() {
            self.note(What::Receipt { id, reader, kind: ReceiptKind::Delivered });
            self.progress.send_modify(|progress| progress.delivered += 1);
        }
        if until_read && sending.read().await.is_ok() {
            self.note(What::Receipt { id, reader, kind: ReceiptKind::Read });
            self.progress.send_modify(|progress| progress.read += 1);
        }
    }

    fn note(&self, what: What) {
        self.record.note(self.device, what);
    }
}

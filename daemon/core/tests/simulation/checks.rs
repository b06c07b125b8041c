//! What must hold, looked at from inside: what became durable and what was released. What devices did and saw is written
//! down here too, and judged by the checker that judges real processes.
//!
//! Here stands only what no device can see: that an answer follows what makes it true, that no position is given twice, not
//! even if nobody heard of the first time, and when exactly the core learnt of a device.

use std::collections::{BTreeMap, HashMap, HashSet};

use quail_checker::{Entry as Noted, Key, ReceiptKind, Terms, What, judge};
use quail_core::Accepted;
use quail_core::ports::outbox::{Entry, Note as StoredNote, Recovered};
use quail_protocol::id::{AccountId, MessageId, Position, Stamp};
use quail_protocol::v1::{self, event::Body, feed_down::Frame};

use crate::client::Note;
use crate::coverage::{Coverage, Kind};
use crate::daemon::ORIGIN;
use crate::ids;

/// A message that is durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Message {
    id: MessageId,
    sender: AccountId,
    recipient: AccountId,
}

#[derive(Default)]
pub(crate) struct Checks {
    log: Vec<Noted>,
    pub(crate) coverage: Coverage,
    /// Every message that was ever durable, by position.
    messages: BTreeMap<u64, Message>,
    answers: HashMap<(usize, u64), Accepted>,
    newest: (Position, Stamp),
    /// Live devices of each account, as far as it is durable.
    live: BTreeMap<usize, Vec<usize>>,
    known: Vec<usize>,
    /// Devices with the attach numbers of their feeds.
    opened: HashSet<(usize, u64)>,
    /// Events in the outbox of each account.
    waiting: BTreeMap<AccountId, Vec<u64>>,
    /// Up to where an outbox was collapsed when its account had no device, until the next one is told.
    collapsed_unseen: HashMap<usize, u64>,
    removal_answered: Vec<usize>,
    /// Whether outboxes collapse because events are too old, and not because there are too many.
    expires: bool,
}

impl Checks {
    pub(crate) fn new(expires: bool) -> Self {
        Self { expires, ..Self::default() }
    }

    /// Takes note of what a device did or saw.
    fn note(&mut self, device: usize, what: What) {
        self.log.push(Noted { device: ids::device(device), what });
    }

    /// Takes down what a device wrote down.
    pub(crate) fn notes(&mut self, device: usize, account: usize, notes: Vec<Note>) {
        for note in notes {
            match note {
                Note::What(what) => {
                    if let What::Gap { upto, .. } = &what {
                        self.coverage.count(Kind::GapTold);
                        if self.collapsed_unseen.remove(&account).is_some_and(|unseen| unseen <= upto.0) {
                            self.coverage.count(Kind::GapInherited);
                        }
                    }
                    if what == What::Opened {
                        self.coverage.count(Kind::ClientDied);
                    }
                    self.note(device, what);
                }
                Note::Receipt(receipt) => self.receipt(device, ids::account(account), &receipt),
            }
        }
    }

    /// A receipt is for the messages that its reader has of the account in its range, known to the device or not.
    fn receipt(&mut self, device: usize, sender: AccountId, receipt: &v1::Receipt) {
        assert_eq!((receipt.origin, receipt.kind()), (ORIGIN.0, v1::ReceiptKind::Delivered));
        let reader = AccountId::try_from(&*receipt.account).unwrap();
        let range = self.messages.range(receipt.after + 1..=receipt.upto);
        let is_for = |message: &&Message| message.sender == sender && message.recipient == reader;
        let ids: Vec<_> =
            range.map(|(_, message)| message).filter(is_for).map(|message| message.id).collect();
        assert!(!ids.is_empty(), "a receipt for nothing: {receipt:?}");
        self.coverage.count(Kind::Receipt);
        for id in ids {
            self.note(device, What::Receipt { id, reader, kind: ReceiptKind::Delivered });
        }
    }

    /// Takes note of an entry that is durable now.
    pub(crate) fn durable(&mut self, before: Position, entry: &Entry) {
        match entry {
            Entry::Event { event, accounts } => {
                for account in accounts {
                    self.waiting.entry(*account).or_default().push(event.position.0);
                }
                self.stored(event.position, event.note, &event.frame);
            }
            Entry::Device { account, device, record } => {
                let (account, device) = (ids::account_index(*account), ids::device_index(*device));
                self.opened.insert((device, record.attach_number));
                if !self.live.entry(account).or_default().contains(&device) {
                    self.joined(account, device, before);
                }
            }
            Entry::DeviceGone { account, device } => {
                let waits = self.waiting.get(account).is_some_and(|waiting| !waiting.is_empty());
                let (account, device) = (ids::account_index(*account), ids::device_index(*device));
                let live = self.live.entry(account).or_default();
                live.retain(|other| *other != device);
                if live.is_empty() {
                    self.coverage.count(Kind::LastDeviceRemoved);
                }
                if waits {
                    self.coverage.count(Kind::RemovedWithMail);
                }
                self.note(device, What::Left);
            }
            Entry::Resolved { account, upto } => {
                self.waiting.entry(*account).or_default().retain(|position| *position > upto.0);
            }
            Entry::Withdrawn { account, position } => {
                self.waiting.entry(*account).or_default().retain(|other| *other != position.0);
                self.coverage.count(Kind::ReceiptsMerged);
            }
            Entry::Collapsed { account, upto } => {
                self.coverage.count(if self.expires { Kind::Expiry } else { Kind::Overflow });
                let account = ids::account_index(*account);
                let live = self.live.get(&account).cloned().unwrap_or_default();
                if live.is_empty() {
                    self.collapsed_unseen.insert(account, upto.0);
                }
                for device in live {
                    self.note(device, What::Dropped { origin: ORIGIN, upto: *upto });
                }
            }
            Entry::Sent { .. } => {}
        }
    }

    fn stored(&mut self, position: Position, note: StoredNote, frame: &[u8]) {
        let down: v1::FeedDown = prost::Message::decode_length_delimited(frame).unwrap();
        let Some(Frame::Event(v1::Event { body: Some(body), position: written, .. })) = down.frame else {
            panic!("no event in the frame")
        };
        assert_eq!(written, position.0);
        let (StoredNote::Message { sender, recipient, .. }, Body::Message(message)) = (note, body) else {
            return;
        };
        if self.live.get(&ids::account_index(recipient)).is_none_or(Vec::is_empty) {
            self.coverage.count(Kind::MailWithoutDevice);
        }
        let id = MessageId::try_from(&*message.id).unwrap();
        let first = self.messages.insert(position.0, Message { id, sender, recipient });
        assert_eq!(first, None, "position {position} was given twice");
    }

    fn joined(&mut self, account: usize, device: usize, before: Position) {
        assert!(!self.known.contains(&device), "device {device} came back");
        self.known.push(device);
        let live = self.live.entry(account).or_default();
        let waits = self.waiting.get(&ids::account(account)).is_some_and(|waiting| !waiting.is_empty());
        match (live.is_empty(), waits) {
            (true, true) => self.coverage.count(Kind::Heir),
            (false, true) => self.coverage.count(Kind::NewDevice),
            _ => {}
        }
        live.push(device);
        self.note(device, What::Joined { account: ids::account(account) });
        self.note(device, What::Known { origin: ORIGIN, above: before });
    }

    /// Whether an attach of this number ever won.
    pub(crate) fn was_open(&self, device: usize, number: u64) -> bool {
        self.opened.contains(&(device, number))
    }

    pub(crate) fn is_known(&self, device: usize) -> bool {
        self.known.contains(&device)
    }

    pub(crate) fn removal_answered(&mut self, device: usize) {
        let is_live = self.live.values().any(|live| live.contains(&device));
        assert!(!is_live, "done before it was durable");
        self.removal_answered.push(device);
    }

    /// An answer leaves the daemon. Returns whether it is the first one to this send that does.
    pub(crate) fn accepted(
        &mut self,
        device: usize,
        account: usize,
        answer: Accepted,
        id: MessageId,
    ) -> bool {
        let Accepted { number, position, stamp } = answer;
        let is_first = !self.answers.contains_key(&(device, number));
        let first = *self.answers.entry((device, number)).or_insert(answer);
        assert_eq!(first, answer, "device {device}: the same number got another answer");
        let key = Key { sender: ids::account(account), id };
        let durable =
            self.messages.get(&position.0).map(|message| Key { sender: message.sender, id: message.id });
        assert_eq!(durable, Some(key), "accepted and not durable");
        assert!(self.is_known(device), "accepted from a device that is not durable");
        self.newest = (self.newest.0.max(position), self.newest.1.max(stamp));
        is_first
    }

    /// The same, when it was decided only now.
    pub(crate) fn newly_accepted(&self, device: usize, answer: Accepted, seen: u64) {
        assert!(answer.stamp.0 > seen, "the stamp is not larger than what the sender had seen");
        assert!(!self.removal_answered.contains(&device), "accepted after the removal was answered");
    }

    /// An event leaves the daemon.
    pub(crate) fn delivered(&mut self, event: &v1::Event) {
        let (position, stamp) = (Position(event.position), Stamp(event.stamp));
        self.newest = (self.newest.0.max(position), self.newest.1.max(stamp));
    }

    /// The newest stamp that was released.
    pub(crate) fn newest_stamp(&self) -> Stamp {
        self.newest.1
    }

    /// What a process finds when it starts.
    pub(crate) fn recovered(&self, recovered: &Recovered) {
        assert!(recovered.last_position >= self.newest.0, "positions that were released are forgotten");
        assert!(recovered.last_stamp >= self.newest.1, "stamps that were released are forgotten");
    }

    /// Everything that could happen has happened. `gaps` says whether there may be any.
    pub(crate) fn at_rest(&self, gaps: bool) {
        let found = judge(&self.log, Terms { gaps, receipts: true });
        assert!(found.is_empty(), "{} violations: {:#?}", found.len(), &found[..found.len().min(10)]);
    }
}

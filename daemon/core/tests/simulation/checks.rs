//! What must hold, looked at from outside: what was released, what became durable, and what clients showed.
//!
//! A message is owed to a device if the device was known to the core before the message was accepted, or if the account
//! had no device and this one came next. The only ends of what is owed are the removal of the device and a gap, and a gap is
//! allowed only in worlds that overfill an outbox.

use std::collections::{BTreeMap, HashMap};

use quail_core::Accepted;
use quail_core::ports::outbox::{Entry, Recovered};
use quail_protocol::id::{AccountId, MessageId, Position, Stamp};
use quail_protocol::v1::{self, event::Body};

use crate::client::{Client, Composed};
use crate::ids;

/// An accepted message.
#[derive(Clone, Copy, Debug)]
struct Message {
    device: usize,
    number: u64,
    sender: usize,
    recipient: usize,
    id: MessageId,
    stamp: u64,
}

/// When the core knew a device, by what became durable.
#[derive(Clone, Copy, Debug)]
struct Known {
    account: usize,
    /// The last position before it was added.
    start: u64,
    /// It came to an account without devices; the device that was removed last, and the last position then.
    heir_of: Option<(Option<usize>, u64)>,
    /// What was collapsed before it came is not told to it: it was never behind that gap.
    collapsed: u64,
}

#[derive(Default)]
pub(crate) struct Checks {
    accepted: BTreeMap<u64, Message>,
    answers: HashMap<(usize, u64), Accepted>,
    known: BTreeMap<usize, Known>,
    /// Live devices of each account.
    live: BTreeMap<usize, Vec<usize>>,
    last_removed: BTreeMap<usize, (usize, u64)>,
    /// Up to where outboxes were collapsed.
    collapsed: BTreeMap<usize, u64>,
    removal_answered: Vec<usize>,
    newest_delivered: u64,
    gaps_allowed: bool,
}

impl Checks {
    pub(crate) fn new(gaps_allowed: bool) -> Self {
        Self { gaps_allowed, ..Self::default() }
    }

    /// Takes note of an entry that is durable now.
    pub(crate) fn durable(&mut self, before: Position, entry: &Entry) {
        match entry {
            Entry::Device { account, device, .. } => {
                let (account, device) = (ids::account_index(*account), ids::device_index(*device));
                let live = self.live.entry(account).or_default();
                if live.contains(&device) {
                    return;
                }
                assert!(!self.known.contains_key(&device), "device {device} came back");
                let removed = self.last_removed.get(&account);
                let heir_of = live
                    .is_empty()
                    .then(|| (removed.map(|(device, _)| *device), removed.map_or(0, |(_, at)| *at)));
                let collapsed = self.collapsed.get(&account).copied().unwrap_or(0);
                self.known.insert(device, Known { account, start: before.0, heir_of, collapsed });
                live.push(device);
            }
            Entry::DeviceGone { account, device } => {
                let (account, device) = (ids::account_index(*account), ids::device_index(*device));
                self.live.entry(account).or_default().retain(|other| *other != device);
                self.last_removed.insert(account, (device, before.0));
            }
            Entry::Collapsed { account, upto } => {
                self.collapsed.insert(ids::account_index(*account), upto.0);
            }
            _ => {}
        }
    }

    pub(crate) fn removal_answered(&mut self, device: usize) {
        let account = self.known.get(&device).map(|known| known.account);
        let live = account.and_then(|account| self.live.get(&account));
        assert!(live.is_none_or(|live| !live.contains(&device)), "done before it was durable");
        self.removal_answered.push(device);
    }

    /// An answer leaves the daemon.
    pub(crate) fn accepted(&mut self, device: usize, sender: usize, answer: Accepted, message: &Composed) {
        let Accepted { number, position, stamp } = answer;
        assert!(!message.bad, "a refused message was accepted");
        let first = *self.answers.entry((device, number)).or_insert(answer);
        assert_eq!(first, answer, "device {device}: the same number got another answer");
        let (id, recipient, stamp) = (message.id, message.recipient, stamp.0);
        let message = Message { device, number, sender, recipient, id, stamp };
        let known = *self.accepted.entry(position.0).or_insert(message);
        assert_eq!((known.device, known.number), (device, number), "position {position} was given twice");
        assert!(self.known.contains_key(&device), "accepted from a device that is not durable");
    }

    /// The same, when it was decided only now.
    pub(crate) fn newly_accepted(&self, device: usize, answer: Accepted, seen: u64) {
        assert!(answer.stamp.0 > seen, "the stamp is not larger than what the sender had seen");
        assert!(!self.removal_answered.contains(&device), "accepted after the removal was answered");
    }

    /// An event leaves the daemon.
    pub(crate) fn delivered(&mut self, account: usize, event: &v1::Event, clients: &[Client]) {
        self.newest_delivered = self.newest_delivered.max(event.position);
        match &event.body {
            Some(Body::Receipt(receipt)) => self.receipt_is_true(account, receipt, clients),
            Some(Body::Message(message)) => {
                let sender = ids::account_of(&message.sender);
                let id = MessageId::try_from(&*message.id).unwrap();
                let sent = clients[ids::device_of_message(id)].composed.values().find(|c| c.id == id);
                let sent = sent.expect("a message that nobody sent");
                assert_eq!(clients[ids::device_of_message(id)].account, sender, "sent by somebody else");
                assert!(!sent.bad && sent.body == message.body, "not the message that was sent");
                assert_eq!(ids::account_of(&message.recipient), sent.recipient);
                assert!(account == sent.recipient || account == sender, "delivered to a stranger");
            }
            None => panic!("an event without a body"),
        }
    }

    fn receipt_is_true(&self, sender: usize, receipt: &v1::Receipt, clients: &[Client]) {
        let reader = ids::account_of(&receipt.account);
        for (position, message) in self.accepted.range(receipt.after + 1..=receipt.upto) {
            if message.sender != sender || message.recipient != reader {
                continue;
            }
            let taken = clients.iter().filter(|client| client.account == reader).any(|client| {
                client.ack_sent >= *position && client.shown.iter().any(|event| event.position == *position)
            });
            assert!(
                taken,
                "receipt ({}, {}] of account {reader} covers {position}, which none of its devices acknowledged",
                receipt.after, receipt.upto
            );
        }
    }

    /// The newest stamp that was released.
    pub(crate) fn newest_stamp(&self) -> Stamp {
        Stamp(self.accepted.values().map(|message| message.stamp).max().unwrap_or(0))
    }

    /// What a process finds when it starts.
    pub(crate) fn recovered(&self, recovered: &Recovered, clients: &[Client]) {
        let newest = self.accepted.keys().next_back().copied().unwrap_or(0).max(self.newest_delivered);
        assert!(recovered.last_position.0 >= newest, "positions that were released are forgotten");
        assert!(recovered.last_stamp >= self.newest_stamp(), "stamps that were released are forgotten");
        let mut held: HashMap<AccountId, Vec<u64>> = HashMap::new();
        for (account, slot) in &recovered.slots {
            held.entry(*account).or_default().push(slot.position.0);
        }
        let collapsed: HashMap<_, _> = recovered.collapsed.iter().copied().collect();
        let cursors: HashMap<_, _> =
            recovered.devices.iter().map(|(_, device, record)| (*device, record.cursor.0)).collect();
        for (account, live) in &self.live {
            let id = ids::account(*account);
            let held = held.get(&id).map_or(&[][..], Vec::as_slice);
            let gap = collapsed.get(&id).map_or(0, |upto| upto.0);
            for (device, position) in live.iter().flat_map(|d| self.owed(*d, clients).map(move |p| (*d, p))) {
                if held.binary_search(&position).is_ok() || position <= gap {
                    continue;
                }
                assert!(
                    has_taken(&clients[device], position),
                    "accepted message {position} of device {device} is not there after a restart"
                );
                assert!(
                    cursors.get(&ids::device(device)).is_some_and(|cursor| *cursor >= position),
                    "{position} is gone and device {device} is not past it"
                );
            }
        }
    }

    /// Positions of accepted messages that a device has to get.
    fn owed<'a>(&'a self, device: usize, clients: &'a [Client]) -> impl Iterator<Item = u64> + 'a {
        let is_owed = move |(position, _): &(&u64, &Message)| self.is_owed(device, **position, clients);
        self.accepted.iter().filter(is_owed).map(|(position, _)| *position)
    }

    fn is_owed(&self, device: usize, position: u64, clients: &[Client]) -> bool {
        let Some(known) = self.known.get(&device) else {
            return false;
        };
        let message = &self.accepted[&position];
        let concerns = message.recipient == known.account
            || (message.sender == known.account && message.device != device);
        if !concerns {
            return false;
        }
        if position > known.start {
            return true;
        }
        match known.heir_of {
            Some(_) if position <= known.collapsed => false,
            Some((_, emptied)) if position > emptied => true,
            Some((Some(older), _)) => {
                !has_taken(&clients[older], position) && self.is_owed(older, position, clients)
            }
            _ => false,
        }
    }

    /// Everything that could happen has happened.
    pub(crate) fn at_rest(&self, clients: &[Client], removals: &[usize]) {
        for live in self.live.values() {
            for device in live {
                self.device_has_all(*device, clients);
            }
        }
        for (index, client) in clients.iter().enumerate() {
            let order: Vec<_> = client.shown.iter().map(|event| (event.position, event.stamp)).collect();
            assert!(order.is_sorted_by(|a, b| a.0 < b.0 && a.1 < b.1), "device {index} showed {order:?}");
            assert!(self.gaps_allowed || client.gaps.is_empty(), "device {index}: gaps {:?}", client.gaps);
            assert!(client.gone || !client.waits(), "device {index} has unanswered sends");
            let answers = client.accepted.values();
            assert!(
                answers.is_sorted_by(|a, b| a.position < b.position),
                "device {index}: not in sending order"
            );
        }
        let messages: Vec<_> = self.accepted.values().collect();
        assert!(messages.is_sorted_by(|a, b| a.stamp < b.stamp), "stamps do not rise with positions");
        let mut ids: Vec<_> = messages.iter().map(|message| (message.sender, message.id)).collect();
        ids.sort_unstable();
        assert!(ids.is_sorted_by(|a, b| a < b), "a message was accepted at two positions");
        if !self.gaps_allowed {
            self.senders_were_told(clients, removals);
        }
    }

    fn device_has_all(&self, device: usize, clients: &[Client]) {
        let client = &clients[device];
        for position in self.owed(device, clients) {
            assert!(
                has_taken(client, position),
                "device {device} never got {position}: {:?}",
                self.accepted[&position]
            );
        }
    }

    /// What a device of the recipient acknowledged is known to some device of the sender. Where devices were removed, a
    /// receipt may have gone with them.
    fn senders_were_told(&self, clients: &[Client], removals: &[usize]) {
        for (position, message) in &self.accepted {
            if removals.contains(&message.sender) || removals.contains(&message.recipient) {
                continue;
            }
            let of = |account| clients.iter().filter(move |client| client.account == account);
            let taken = of(message.recipient).any(|client| has_taken(client, *position));
            let reader = ids::account(message.recipient).to_bytes();
            let told = of(message.sender).flat_map(|client| &client.shown).any(|event| match &event.body {
                Some(Body::Receipt(r)) => r.account == reader && (r.after + 1..=r.upto).contains(position),
                _ => false,
            });
            assert!(!taken || told, "no receipt for {position}: {message:?}");
        }
    }
}

fn has_taken(client: &Client, position: u64) -> bool {
    client.shown.binary_search_by_key(&position, |event| event.position).is_ok()
        || client.gaps.iter().any(|(from, upto)| (*from..=*upto).contains(&position))
}

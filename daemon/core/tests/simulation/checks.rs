//! What must hold, looked at from inside: what became durable and what was released. What devices did and saw is written
//! down here too, and judged by the checker that judges real processes.
//!
//! Here stands only what no device can see: that an answer follows what makes it true, that no position is given twice, not
//! even if nobody heard of the first time, and when exactly the core learnt of a device.

use std::collections::{BTreeMap, HashMap, HashSet};

use quail_checker::{Entry as Noted, Key, ReceiptKind, Terms, What, judge};
use quail_core::ports::outbox::{Entry, Note as StoredNote, Recovered};
use quail_core::{Accepted, Ancestor};
use quail_protocol::id::{AccountId, MessageId, Origin, Position, Stamp};
use quail_protocol::v1::{self, feed_down::Frame};

use crate::changes::Said;
use crate::client::Note;
use crate::coverage::{Coverage, Kind};
use crate::daemon::ORIGIN;
use crate::ids;
use crate::reading::{Lie, Mark};

/// With fewer breaks than this the core remembers every stretch that an account acknowledged.
const BREAKS_REMEMBERED: usize = 4;

/// Whom a change is for that is for its sender alone.
const NOBODY: AccountId = AccountId([0; 16]);

/// A message that is durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Message {
    id: MessageId,
    sender: AccountId,
    recipient: AccountId,
}

/// What was said to be read, and what the core may know of it.
#[derive(Default)]
struct Readings {
    /// False marks for what may yet be stored: who read, which mark, whether in secret.
    early: Vec<(usize, usize, Mark, bool)>,
    /// What somebody falsely said to have read.
    lied: HashSet<(AccountId, Key)>,
    acknowledged: HashSet<(AccountId, Key)>,
    /// Who was told that a message was read.
    told: HashSet<(usize, Key)>,
    /// What the daemon heard of being given up.
    asides: HashSet<(usize, (Origin, Position))>,
    /// By account, up to where its devices ever said to have come.
    said: HashMap<AccountId, u64>,
    /// The same, as far as the core may not have seen what was acknowledged.
    unseen: HashMap<AccountId, u64>,
    /// By account, how often a stretch of what it acknowledged may have ended.
    breaks: HashMap<AccountId, usize>,
}

impl Readings {
    /// Whether the core may take a device at its word on a message that it did not see acknowledged: it keeps no record of
    /// what was acknowledged before the process began or was claimed at an attach, and remembers a few stretches only.
    fn is_for_the_device_to_say(&self, reader: AccountId, position: u64) -> bool {
        let is_short = self.breaks.get(&reader).copied().unwrap_or(0) < BREAKS_REMEMBERED;
        let upto = if is_short { &self.unseen } else { &self.said };
        position <= upto.get(&reader).copied().unwrap_or(0)
    }
}

pub(crate) struct Checks {
    log: Vec<Noted>,
    pub(crate) coverage: Coverage,
    origin: Origin,
    /// The origins that the present one carries on, with up to where.
    ancestors: Vec<Ancestor>,
    /// Where devices know messages of theirs to stand.
    places: HashSet<(usize, u32, u64)>,
    /// Receipts for messages of which their devices do not know yet where they stand: device, origin, position, who, and how far.
    unplaced: Vec<(usize, (u32, u64), AccountId, ReceiptKind)>,
    /// Every message that was ever durable, by origin and position.
    messages: BTreeMap<(u32, u64), Message>,
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
    readings: Readings,
    /// Whether outboxes collapse because events are too old, and not because there are too many.
    expires: bool,
}

impl Checks {
    pub(crate) fn new(expires: bool) -> Self {
        Self {
            log: Vec::new(),
            coverage: Coverage::default(),
            origin: ORIGIN,
            ancestors: Vec::new(),
            places: HashSet::new(),
            unplaced: Vec::new(),
            messages: BTreeMap::new(),
            answers: HashMap::new(),
            newest: (Position::ZERO, Stamp(0)),
            live: BTreeMap::new(),
            known: Vec::new(),
            opened: HashSet::new(),
            waiting: BTreeMap::new(),
            collapsed_unseen: HashMap::new(),
            removal_answered: Vec::new(),
            readings: Readings::default(),
            expires,
        }
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
                    let reader = ids::account(account);
                    match &what {
                        What::Opened => self.coverage.count(Kind::ClientDied),
                        What::SetAside { .. } => self.coverage.count(Kind::SetAside),
                        What::Acknowledged { message } => {
                            self.readings.acknowledged.insert((reader, *message));
                        }
                        What::Accepted { id, place } => {
                            let (id, at) = (*id, (place.origin.0, place.position.0));
                            self.note(device, what);
                            self.placed(device, Key { sender: reader, id }, at);
                            continue;
                        }
                        _ => {}
                    }
                    if matches!(what, What::SetAside { .. } | What::Gap { .. }) {
                        *self.readings.breaks.entry(reader).or_default() += 1;
                    }
                    self.note(device, what);
                }
                Note::Receipt(receipt) => self.receipt(device, ids::account(account), &receipt),
            }
        }
    }

    /// The messages that a reader has of a sender in a range of positions, known to any device or not.
    fn in_range(
        &self,
        origin: u32,
        (sender, reader): (AccountId, AccountId),
        after: u64,
        upto: u64,
    ) -> Vec<(u64, Key)> {
        let is_for = |message: &Message| message.sender == sender && message.recipient == reader;
        let range = (origin, after + 1)..=(origin, upto);
        let range = self.messages.range(range).filter(|(_, message)| is_for(message));
        range.map(|((_, position), message)| (*position, Key { sender, id: message.id })).collect()
    }

    fn receipt(&mut self, device: usize, account: AccountId, receipt: &v1::Receipt) {
        assert!((ORIGIN.0..=self.origin.0).contains(&receipt.origin));
        let reader = AccountId::try_from(&*receipt.account).unwrap();
        if receipt.kind() == v1::ReceiptKind::Read {
            return self.read_receipt(device, account, reader, receipt);
        }
        assert_eq!(receipt.kind(), v1::ReceiptKind::Delivered);
        let messages = self.in_range(receipt.origin, (account, reader), receipt.after, receipt.upto);
        // What is told of an ancestor may lie in this origin alone.
        assert!(
            !messages.is_empty() || receipt.origin != self.origin.0,
            "a receipt for nothing: {receipt:?}"
        );
        self.coverage.count(Kind::Receipt);
        for (position, message) in messages {
            self.tell(device, message, (receipt.origin, position), reader, ReceiptKind::Delivered);
        }
    }

    /// A device is told of a message by its place, and understands that once it knows what stands there. Of a message of its own it
    /// does when it has the answer.
    fn tell(
        &mut self,
        device: usize,
        message: Key,
        (origin, position): (u32, u64),
        reader: AccountId,
        kind: ReceiptKind,
    ) {
        let is_own = ids::sending_device(message.id) == device;
        if is_own && !self.places.contains(&(device, origin, position)) {
            return self.unplaced.push((device, (origin, position), reader, kind));
        }
        match kind {
            ReceiptKind::Read => {
                self.readings.told.insert((device, message));
                self.coverage.count(Kind::ReadTold);
            }
            // What was read was delivered. A device shows no less than it knows, and a daemon that was restarted may say so
            // a second time.
            ReceiptKind::Delivered if self.readings.told.contains(&(device, message)) => return,
            ReceiptKind::Delivered => {}
        }
        self.note(device, What::Receipt { id: message.id, reader, kind });
    }

    /// A device learns where a message of its own stands, and so what the receipts were about that came before.
    fn placed(&mut self, device: usize, message: Key, at: (u32, u64)) {
        self.places.insert((device, at.0, at.1));
        let is_it = |unplaced: &mut (usize, (u32, u64), _, _)| (unplaced.0, unplaced.1) == (device, at);
        for (_, _, reader, kind) in self.unplaced.extract_if(.., is_it).collect::<Vec<_>>() {
            self.tell(device, message, at, reader, kind);
        }
    }

    fn read_receipt(&mut self, device: usize, account: AccountId, reader: AccountId, receipt: &v1::Receipt) {
        let sender = AccountId::try_from(&*receipt.sender).unwrap();
        assert!(account == sender || account == reader, "told to a stranger: {receipt:?}");
        for (position, message) in
            self.in_range(receipt.origin, (sender, reader), receipt.after, receipt.upto)
        {
            let readings = &mut self.readings;
            if readings.lied.contains(&(reader, message))
                && !readings.acknowledged.contains(&(reader, message))
                && readings.is_for_the_device_to_say(reader, position)
            {
                self.coverage.count(Kind::TakenAtItsWord);
            } else if account != reader {
                self.tell(device, message, (receipt.origin, position), reader, ReceiptKind::Read);
            } else {
                self.coverage.count(Kind::ReadElsewhere);
                self.note(device, What::ReadElsewhere { message });
            }
        }
    }

    /// A mark reaches the daemon. It is for every message in its stretch, also for what is stored only while it waits.
    pub(crate) fn says_read(&mut self, device: usize, account: usize, mark: Mark, in_secret: bool) {
        let reader = ids::account(account);
        self.coverage.count(match mark.lie {
            // Such a mark is refused as a whole.
            Some(Lie::Beyond) => return self.coverage.count(Kind::FalseReadBeyond),
            Some(Lie::NeverGot) => Kind::FalseReadNeverGot,
            Some(Lie::OverMissing) => Kind::FalseReadOverMissing,
            None => Kind::ReadSaid,
        });
        let Some(upto) = self.held(mark) else { return };
        for (_, message) in self.in_range(mark.origin.0, (mark.sender, reader), mark.after, upto) {
            self.is_read(device, reader, message, mark, in_secret);
        }
        if mark.lie.is_some() {
            self.readings.early.push((device, account, mark, in_secret));
        }
    }

    /// Up to where what a mark names is there, if it is not of an origin that has lost it.
    fn held(&self, mark: Mark) -> Option<u64> {
        if mark.origin == self.origin {
            return Some(mark.upto);
        }
        let ancestor = self.ancestors.iter().find(|ancestor| ancestor.origin == mark.origin)?;
        Some(mark.upto.min(ancestor.inherited.0)).filter(|upto| *upto > mark.after)
    }

    fn is_read(&mut self, device: usize, reader: AccountId, message: Key, mark: Mark, in_secret: bool) {
        if mark.lie.is_some() {
            self.readings.lied.insert((reader, message));
        }
        if in_secret {
            self.coverage.count(Kind::ReadInSecret);
            self.note(device, What::ReadInSecret { message });
        } else {
            self.note(device, What::Read { message });
        }
    }

    /// The daemon hears how far a device has come, at an attach or not.
    pub(crate) fn claims(
        &mut self,
        device: usize,
        account: usize,
        upto: u64,
        asides: &[(Origin, Position)],
        attach: bool,
    ) {
        let account = ids::account(account);
        let raise = |to: &mut HashMap<_, _>| {
            let known: &mut u64 = to.entry(account).or_default();
            *known = upto.max(*known);
        };
        raise(&mut self.readings.said);
        if attach {
            raise(&mut self.readings.unseen);
        }
        for aside in asides {
            if self.readings.asides.insert((device, *aside)) && attach {
                self.coverage.count(Kind::SetAsideAtAttach);
            }
        }
    }

    /// A process starts, which has seen nothing.
    pub(crate) fn starts(&mut self) {
        self.readings.unseen.clone_from(&self.readings.said);
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
                    self.note(device, What::Dropped { origin: self.origin, upto: *upto });
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
        let (StoredNote::Message { sender, .. }, Some(said)) = (note, Said::of(&body)) else {
            return;
        };
        // No receipt is owed for what is for the sender alone, nor may one name it.
        let Said { id, recipient, .. } = said;
        let Some(recipient) = recipient else {
            self.coverage.count(Kind::Private);
            self.messages.insert((self.origin.0, position.0), Message { id, sender, recipient: NOBODY });
            return;
        };
        if self.live.get(&ids::account_index(recipient)).is_none_or(Vec::is_empty) {
            self.coverage.count(Kind::MailWithoutDevice);
        }
        let message = Message { id, sender, recipient };
        if self.origin != ORIGIN && self.messages.values().any(|other| *other == message) {
            self.coverage.count(Kind::StoredAnew);
        }
        let first = self.messages.insert((self.origin.0, position.0), message);
        assert_eq!(first, None, "position {position} was given twice");
        let covers =
            |mark: &Mark| mark.sender == sender && (mark.after + 1..=mark.upto).contains(&position.0);
        let early =
            self.readings.early.iter().filter(|early| ids::account(early.1) == recipient && covers(&early.2));
        for (device, _, mark, in_secret) in early.copied().collect::<Vec<_>>() {
            self.is_read(device, recipient, Key { sender, id }, mark, in_secret);
        }
    }

    fn joined(&mut self, account: usize, device: usize, before: Position) {
        if self.known.contains(&device) {
            assert_ne!(self.origin, ORIGIN, "device {device} came back");
            return self.live.entry(account).or_default().push(device);
        }
        self.known.push(device);
        let live = self.live.entry(account).or_default();
        let waits = self.waiting.get(&ids::account(account)).is_some_and(|waiting| !waiting.is_empty());
        match (live.is_empty(), waits) {
            (true, true) => self.coverage.count(Kind::Heir),
            (false, true) => self.coverage.count(Kind::NewDevice),
            _ => {}
        }
        live.push(device);
        *self.readings.breaks.entry(ids::account(account)).or_default() += 1;
        self.note(device, What::Joined { account: ids::account(account) });
        self.note(device, What::Known { origin: self.origin, above: before });
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
        // A directory that was restored may not have known it.
        if self.is_known(device) {
            self.note(device, What::Left);
        }
    }

    /// An answer leaves the daemon. Returns whether it is the first one to this send that does.
    pub(crate) fn accepted(
        &mut self,
        device: usize,
        account: usize,
        answer: Accepted,
        id: MessageId,
    ) -> bool {
        let Accepted { number, position, stamp, .. } = answer;
        let is_first = !self.answers.contains_key(&(device, number));
        let first = *self.answers.entry((device, number)).or_insert(answer);
        assert_eq!(first, answer, "device {device}: the same number got another answer");
        let key = Key { sender: ids::account(account), id };
        let durable = self
            .messages
            .get(&(self.origin.0, position.0))
            .map(|message| Key { sender: message.sender, id: message.id });
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

    /// The directory is an older one now, and a new origin.
    pub(crate) fn restored(&mut self, by: Origin, recovered: &Recovered, ancestors: &[Ancestor]) {
        let (origin, upto) = (std::mem::replace(&mut self.origin, by), recovered.last_position);
        self.coverage.count(if upto == Position::ZERO { Kind::SetAsideWhole } else { Kind::Restored });
        self.note(0, What::OriginEnded { origin, by, upto });
        self.ancestors = ancestors.to_vec();
        self.readings.early.clear();
        let carried: Vec<_> = self
            .messages
            .range((origin.0, 0)..=(origin.0, upto.0))
            .map(|(at, message)| (at.1, *message))
            .collect();
        self.messages.extend(carried.into_iter().map(|(position, message)| ((by.0, position), message)));
        self.answers.retain(|_, answer| answer.position <= upto);
        self.newest = (upto, recovered.last_stamp);
        let has_spoken = |device| {
            recovered.devices.iter().any(|(_, id, record)| *id == device && record.attach_number > 0)
        };
        for device in self.known.clone() {
            if !has_spoken(ids::device(device)) {
                self.note(device, What::Unproven { origin: by, upto });
            }
        }
        (self.live, self.waiting) = Default::default();
        self.collapsed_unseen.clear();
        for (account, device, _) in &recovered.devices {
            let live = self.live.entry(ids::account_index(*account)).or_default();
            live.push(ids::device_index(*device));
        }
        for (account, slot) in &recovered.slots {
            self.waiting.entry(*account).or_default().push(slot.position.0);
        }
    }

    /// An event leaves the daemon.
    pub(crate) fn delivered(&mut self, event: &v1::Event) {
        if self.ancestors.iter().any(|ancestor| event.position <= ancestor.inherited.0) {
            self.coverage.count(Kind::CarriedOver);
        }
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

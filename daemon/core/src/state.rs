//! The state of the core and the one door to it, [`State::decide`].
//!
//! State is what the outbox store recovered, plus what the directory said, plus which feeds are open. Only the last two
//! are lost in a restart, and both are told again: by the gateway, which asks the directory before it hands over a
//! command, and by the devices, which attach anew.

use std::collections::HashSet;
use std::time::Duration;

use quail_protocol::id::{AccountId, DeviceId, Origin, Position};

use crate::clock::Clock;
use crate::command::{Command, ConnectionId, Effect, Outcome};
use crate::id_map::IdMap;
use crate::messages::Admission;
use crate::outbox::{AccountOutbox, Ancestor, Claim, held};
use crate::ports::outbox::{Batch, Entry, Recovered, Room};

/// How old a message may be that is deleted for everybody, unless the operator says otherwise.
pub const DELETE_FOR_ALL: Duration = Duration::from_secs(48 * 3600);

/// Everything the core knows.
#[derive(Debug)]
pub struct State {
    pub(crate) origin: Origin,
    /// At most [`ANCESTORS_MAX`](crate::ANCESTORS_MAX), the latest first.
    ancestors: Vec<Ancestor>,
    pub(crate) clock: Clock,
    pub(crate) last_position: Position,
    /// One per account that has a device record, undelivered mail or facts. Bounded by the directory's accounts.
    pub(crate) accounts: IdMap<AccountId, AccountOutbox>,
    /// Publish lanes on which everything is refused until `Restart`. Bounded by the open connections.
    pub(crate) refusing: HashSet<ConnectionId>,
    pub(crate) admission: Admission,
    /// How old a message may be that its sender deletes for everybody, by the time in its id.
    pub(crate) delete_for_all_ms: u64,
    /// Events in all outboxes, kept along so that nobody has to count them.
    unresolved: usize,
}

impl State {
    /// Returns the state of an origin whose store held `recovered`.
    pub fn new(origin: Origin, recovered: Recovered) -> Self {
        let mut accounts: IdMap<AccountId, AccountOutbox> = IdMap::default();
        let mut owners: IdMap<DeviceId, AccountId> = IdMap::default();
        for (account, device, record) in recovered.devices {
            owners.insert(device, account);
            accounts.entry(account).or_default().recover_device(device, record);
        }
        for (device, send) in recovered.sends {
            if let Some(outbox) = owners.get(&device).and_then(|account| accounts.get_mut(account)) {
                outbox.recover_send(device, send);
            }
        }
        for (account, slot) in recovered.slots {
            accounts.entry(account).or_default().recover_slot(slot);
        }
        for (account, upto) in recovered.collapsed {
            accounts.entry(account).or_default().recover_collapsed(upto);
        }
        let unresolved = accounts.values().map(AccountOutbox::len).sum();
        Self {
            origin,
            ancestors: Vec::new(),
            clock: Clock::resume(recovered.last_stamp),
            last_position: recovered.last_position,
            accounts,
            refusing: HashSet::new(),
            admission: Admission::default(),
            delete_for_all_ms: DELETE_FOR_ALL.as_millis() as u64,
            unresolved,
        }
    }

    /// Takes note of the origins that this one carries on.
    #[must_use]
    pub fn with_ancestors(mut self, ancestors: Vec<Ancestor>) -> Self {
        self.ancestors = ancestors;
        self
    }

    /// Lets messages be deleted for everybody up to this age; [`DELETE_FOR_ALL`] if it is never said.
    #[must_use]
    pub fn with_delete_for_all(mut self, age: Duration) -> Self {
        self.delete_for_all_ms = u64::try_from(age.as_millis()).unwrap_or(u64::MAX);
        self
    }

    /// Decides one command at the time `now_ms` (milliseconds since the Unix epoch) and adds to `outcome` what it comes to.
    pub fn decide(&mut self, command: Command, now_ms: u64, outcome: &mut Outcome) {
        let (put, resolved) = (outcome.put, outcome.resolved);
        self.carry_out(command, now_ms, outcome);
        self.unresolved += outcome.put - put;
        self.unresolved = self.unresolved.saturating_sub(outcome.resolved - resolved);
    }

    /// Takes note of how much more the store can take in; new sends are admitted by it.
    pub fn set_room(&mut self, room: Room) {
        self.admission.set(room);
    }

    fn carry_out(&mut self, command: Command, now_ms: u64, outcome: &mut Outcome) {
        match command {
            Command::Facts { facts, ticket } => self.learn(&facts, ticket, outcome),
            Command::Probe { ticket } => outcome.after.push(Effect::Applied { ticket }),
            Command::Bound { account, device } => {
                if !self.accounts.get(&account).is_some_and(|outbox| outbox.has_device(device)) {
                    outcome.after.push(Effect::CloseDevice { device });
                }
            }
            Command::Send(send) => self.send(send, now_ms, outcome),
            Command::Restart { connection } => {
                self.refusing.remove(&connection);
            }
            Command::Attach { feed, account, device, cursors, set_aside } => {
                let claim = Claim::of(&cursors, (self.origin, self.last_position), &self.ancestors);
                let set_aside = self.own_positions(&set_aside);
                self.attach(feed, (account, device), claim, set_aside, outcome);
            }
            Command::Ack { feed, account, device, upto, set_aside } => {
                let upto = upto.iter().filter_map(|place| self.held_upto(*place)).max();
                let set_aside = self.own_positions(&set_aside);
                if upto.is_some() || !set_aside.is_empty() {
                    let ack = (upto.unwrap_or(Position::ZERO), &set_aside[..]);
                    self.ack(feed, (account, device), ack, now_ms, outcome);
                }
            }
            Command::Signal(signal) => self.signal(&signal, outcome),
            Command::Unread(unread) => self.unread(unread, outcome),
            Command::Read(read) => self.read(read, now_ms, outcome),
            Command::Disconnected { connection, account, device } => {
                self.refusing.remove(&connection);
                if let Some(outbox) = self.accounts.get_mut(&account) {
                    outbox.detach(device, connection);
                }
            }
            Command::Expire { account, upto } => {
                if let Some(outbox) = self.accounts.get_mut(&account) {
                    outbox.expire(upto.min(self.last_position), account, outcome);
                }
            }
            Command::Backlog { feed, account, device, events } => {
                self.backlog(feed, (account, device), events, now_ms, outcome);
            }
        }
    }

    /// Returns the batch that makes `entries` durable together with the counters as they are now.
    pub fn batch<'a>(&self, entries: &'a [Entry]) -> Batch<'a> {
        Batch { entries, last_position: self.last_position, last_stamp: self.clock.last() }
    }

    /// Returns the largest position given so far.
    pub fn last_position(&self) -> Position {
        self.last_position
    }

    /// Returns how many events lie in all outboxes.
    pub fn unresolved(&self) -> usize {
        self.unresolved
    }

    pub(crate) fn next_position(&mut self) -> Position {
        self.last_position = self.last_position.next();
        self.last_position
    }

    /// Returns what of a stretch of positions of some origin is here. Origins that are no ancestors belong to other nodes.
    pub(crate) fn held(&self, origin: Origin, stretch: (Position, Position)) -> Option<(Position, Position)> {
        held((origin, stretch.0, stretch.1), self.origin, &self.ancestors)
    }

    /// Up to where a device has taken what is here, if it has acknowledged everything of an origin up to `position`.
    fn held_upto(&self, (origin, position): (Origin, Position)) -> Option<Position> {
        self.held(origin, (Position::ZERO, position)).map(|(_, upto)| upto)
    }

    /// Returns the places that are here.
    fn own_positions(&self, places: &[(Origin, Position)]) -> Vec<Position> {
        let before = |position: Position| Position(position.0.saturating_sub(1));
        let own = places.iter().filter_map(|(origin, at)| self.held(*origin, (before(*at), *at)));
        own.map(|(_, position)| position).collect()
    }

    /// Returns which origin gave a position. Who was answered by an ancestor knows the message by its number, and so do the receipts.
    pub(crate) fn given_by(&self, position: Position) -> Origin {
        let older = self.ancestors.iter().rev().find(|ancestor| position <= ancestor.inherited);
        older.map_or(self.origin, |ancestor| ancestor.origin)
    }

    /// Returns what of a stretch of positions of this origin was given by ancestors, and by which.
    pub(crate) fn inherited(
        &self,
        (after, upto): (Position, Position),
    ) -> Vec<(Origin, (Position, Position))> {
        let of = |ancestor: &Ancestor| {
            let upto = upto.min(ancestor.inherited);
            (after < upto).then_some((ancestor.origin, (after, upto)))
        };
        self.ancestors.iter().filter_map(of).collect()
    }
}

//! The daemon's side of the world: starts and crashes, turns, effects on their way, frames at the gateway.

use quail_core::ports::directory::AccountFacts;
use quail_core::{
    Command, ConnectionId, Effect, FeedId, ReadCommand, SendCommand, Ticket, ValidRead, ValidSend,
};
use quail_protocol::id::{Position, Stamp};
use quail_protocol::v1::{self, Reason, feed_down::Frame};

use crate::coverage::Kind;
use crate::daemon::{Fate, Turn};
use crate::ids::{self, BASE_MS};
use crate::link::{Down, Up};
use crate::world::{Answer, Happening, Registered, World};

impl World {
    pub(crate) fn start(&mut self) {
        self.checks.recovered(&self.daemon.store.recover());
        self.checks.starts();
        self.daemon.start();
        self.note(|world| format!("start {}", world.daemon.boot));
        // Whoever asked for a change and got no answer asks again.
        let open: Vec<_> = self.tickets.iter().map(|(ticket, answer)| (*ticket, *answer)).collect();
        for (ticket, answer) in open {
            let account = match answer {
                Answer::LoggedIn(device) | Answer::LoggedOut(device) => self.clients[device].account,
                Answer::Privacy(account, _) => account,
            };
            let facts = self.facts(account);
            let boot = self.daemon.boot;
            self.soon(200, Happening::Facts(boot, facts, Some(Ticket(ticket))));
        }
    }

    pub(crate) fn crash(&mut self) {
        assert!(self.daemon.running.is_some(), "dead already");
        self.note(|_| "crash".to_owned());
        self.daemon.running = None;
        for link in 0..self.links.len() {
            if std::mem::replace(&mut self.links[link].server_open, false) && self.links[link].client_open {
                self.soon(500, Happening::ClientSeesEnd(link));
            }
        }
        self.soon(1000, Happening::Start);
    }

    /// The process dies, and the next one finds an older directory in the place of its own, or none.
    pub(crate) fn restore(&mut self) {
        self.crash();
        let states = self.daemon.store.states() as u64;
        let state = if self.random.per_mille(250) { 0 } else { self.random.below(states + 1) };
        let recovered = self.daemon.restore(state as usize);
        self.note(|world| format!("{:?} begins with {:?}", world.daemon.origin, recovered.last_position));
        self.checks.restored(self.daemon.origin, &recovered, self.daemon.ancestors());
    }

    pub(crate) fn facts(&self, account: usize) -> AccountFacts {
        let Registered { version, devices, hides_since, .. } = &self.directory[account];
        let mut devices: Vec<_> = devices.iter().map(|device| ids::device(*device)).collect();
        devices.sort();
        AccountFacts {
            account: ids::account(account),
            handle: format!("a{account}"),
            version: *version,
            read_receipts: hides_since.is_none(),
            devices,
        }
    }

    pub(crate) fn submit(&mut self, batch: Vec<Command>) {
        let boot = self.daemon.boot;
        let Some(running) = &mut self.daemon.running else { return };
        running.queue.push_back(batch);
        if !std::mem::replace(&mut running.turn_due, true) {
            self.soon(self.plan.turn_ms, Happening::Turn(boot));
        }
    }

    pub(crate) fn turn(&mut self) {
        if self.daemon.running.is_none() {
            return;
        }
        let dies = self.strikes(self.plan.dies / 4);
        let now_ms = (BASE_MS + self.now).saturating_add_signed(self.clock_offset);
        self.daemon.turn(now_ms, dies, &mut self.random);
        if dies {
            return self.dies(Fate::DiesBeforeAppend);
        }
        let boot = self.daemon.boot;
        let Some(running) = &mut self.daemon.running else { return };
        let waits = !running.queue.is_empty();
        if !std::mem::replace(&mut running.sync_due, true) {
            self.soon(self.plan.sync_ms, Happening::Sync(boot));
        }
        if waits {
            self.submit(Vec::new());
        }
    }

    /// The committer's turn: makes durable what was appended, and releases its effects.
    pub(crate) fn sync(&mut self) {
        if self.daemon.running.is_none() {
            return;
        }
        let mut fate = self.fate();
        // A turn that collapses an outbox is rare, so it may ask for a death of its own.
        if self.daemon.holds_collapse() && self.strikes(200) {
            fate = Fate::DiesInSync;
        }
        let turns = self.daemon.sync(fate, &mut self.random);
        if turns.len() > 1 {
            self.checks.coverage.count(Kind::SharedSync);
        }
        for (before, entry) in turns.iter().flat_map(|turn| &turn.entries) {
            self.note(|_| format!("durable {entry:?}"));
            self.checks.durable(*before, entry);
        }
        for Turn { effects, seen, before, .. } in turns {
            for effect in effects {
                self.release(effect, &seen, before);
            }
        }
        if fate != Fate::Lives {
            self.dies(fate);
        }
    }

    fn dies(&mut self, fate: Fate) {
        self.note(|_| format!("{fate:?}"));
        self.checks.coverage.count(match fate {
            Fate::DiesBeforeAppend => Kind::DiesBeforeAppend,
            Fate::DiesBeforeSync => Kind::DiesBeforeSync,
            Fate::DiesInSync => Kind::DiesInSync,
            Fate::DiesBeforeRelease => Kind::DiesBeforeRelease,
            Fate::DiesInRelease | Fate::Lives => Kind::DiesInRelease,
        });
        self.crash();
    }

    fn release(&mut self, effect: Effect, seen: &[(ConnectionId, u64, Stamp)], before: Position) {
        self.note(|_| format!("release {effect:?}"));
        let boot = self.daemon.boot;
        match effect {
            Effect::Accepted { connection, accepted } => {
                let device = self.links[connection.0 as usize - 1].device;
                let client = &self.clients[device];
                let message = &client.composed[&accepted.number];
                assert!(!message.bad, "a refused message was accepted");
                let is_first = self.checks.accepted(device, client.account, accepted, message.id);
                if !is_first || accepted.position <= before {
                    self.checks.coverage.count(Kind::SentAgain);
                } else {
                    let of = |(c, n, _): &&(_, u64, _)| *c == connection && *n == accepted.number;
                    let seen = seen.iter().find(of).map_or(0, |(_, _, stamp)| stamp.0);
                    self.checks.newly_accepted(device, accepted, seen);
                }
                self.answer(connection, Down::Accepted(accepted));
            }
            Effect::Refused { connection, number, error } => {
                let (reason, temporary) = (error.reason(), error.temporary);
                if reason == Reason::AfterRefused {
                    self.checks.coverage.count(Kind::RefusedBehind);
                }
                self.answer(connection, Down::Refused { number, reason, temporary });
            }
            Effect::Deliver { feed, event } => {
                let down: v1::FeedDown =
                    prost::Message::decode_length_delimited(event.frame.clone()).unwrap();
                let Some(Frame::Event(event)) = down.frame else { panic!("no event in the frame") };
                self.checks.delivered(&event);
                self.answer(feed.connection, Down::Event { feed: feed.number, event: Box::new(event) });
            }
            Effect::Gap { feed, from, upto } => {
                self.answer(feed.connection, Down::Gap { feed: feed.number, from: from.0, upto: upto.0 });
            }
            Effect::CaughtUp { feed } => {
                self.caught_up.insert(feed);
                self.answer(feed.connection, Down::CaughtUp { feed: feed.number });
            }
            Effect::Ended { feed, error } => {
                if error.reason() == Reason::Replaced {
                    self.replaced(feed);
                }
                self.answer(feed.connection, Down::Ended { feed: feed.number, reason: error.reason() });
            }
            // A daemon with a clock would end the connection at some time, which links do here by themselves.
            Effect::Stalled { .. } => {}
            Effect::CloseDevice { device } => {
                let device = ids::device_index(device);
                let open = (0..self.links.len()).filter(|l| self.links[*l].device == device);
                for link in open.filter(|l| self.links[*l].server_open).collect::<Vec<_>>() {
                    self.cut(link, 50);
                }
            }
            Effect::ReadAnswered { feed, error } => {
                let error = error.map(|error| (error.reason(), error.temporary));
                match error {
                    None => self.checks.coverage.count(Kind::ReadTaken),
                    Some((Reason::ReadInvalid, _)) => self.checks.coverage.count(Kind::ReadRefused),
                    Some(_) => {}
                }
                self.answer(feed.connection, Down::Read { feed: feed.number, error });
            }
            Effect::OriginGone { feed, origin, from } => {
                let (feed_number, by) = (feed.number, self.daemon.origin);
                let down = Down::OriginGone { feed: feed_number, origin, from: from.0, by };
                self.answer(feed.connection, down);
            }
            Effect::Read { .. } => self.soon(self.plan.read_ms, Happening::Read(boot, effect)),
            Effect::Applied { ticket } => match self.tickets.remove(&ticket.0) {
                Some(Answer::LoggedIn(device)) => {
                    self.soon(100, Happening::Connect(device));
                    self.soon(1_000, Happening::Compose(device));
                }
                Some(Answer::LoggedOut(device)) => self.checks.removal_answered(device),
                Some(Answer::Privacy(account, version)) => {
                    let registered = &mut self.directory[account];
                    registered.is_hidden |= registered.hides_since == Some(version);
                }
                None => {}
            },
        }
    }

    /// Takes note of what kind of race of two feeds that was.
    fn replaced(&mut self, feed: FeedId) {
        let device = self.links[feed.connection.0 as usize - 1].device;
        let was_open = self.checks.was_open(device, feed.number);
        self.checks.coverage.count(match (was_open, self.caught_up.contains(&feed)) {
            (false, _) => Kind::LateAttach,
            (true, true) => Kind::FeedReplaced,
            (true, false) => Kind::FeedReplacedInBacklog,
        });
        self.note(|_| format!("feed {} of device {device} is replaced", feed.number));
    }

    fn answer(&mut self, connection: ConnectionId, down: Down) {
        let index = connection.0 as usize - 1;
        if self.links[index].server_open {
            let earliest = self.now + self.delay();
            let at = self.links[index].down_arrives(&down, earliest);
            self.at(at - self.now, Happening::Returns(index, down));
        }
    }

    pub(crate) fn read(&mut self, boot: u64, read: &Effect) {
        let Effect::Read { feed, account, device, .. } = *read else { return };
        let events = self.daemon.store.read(read, self.daemon.origin);
        let command = Command::Backlog { feed, account, device, events };
        self.soon(self.plan.read_ms, Happening::Backlog(boot, command));
    }

    /// A frame reaches the gateway.
    pub(crate) fn arrives(&mut self, link: usize, up: &Up) {
        if !self.links[link].server_open {
            if matches!(up, Up::Ack { .. }) {
                self.checks.coverage.count(Kind::AckLost);
            }
            return;
        }
        let d = self.links[link].device;
        let connection = ConnectionId(link as u64 + 1);
        let (account, device) = (ids::account(self.clients[d].account), ids::device(d));
        let mut batch = Vec::new();
        match *up {
            Up::Send { number, seen } => {
                let message = self.clients[d].composed[&number].clone();
                let to = message.recipient;
                batch.extend(self.facts_untold(to));
                let recipient = ids::account(to);
                let valid =
                    ValidSend { id: message.id, recipient, content: message.content, seen: Stamp(seen) };
                let send = if message.bad {
                    Err(Reason::BodyInvalid.error())
                } else if self.strikes(self.plan.overloaded) {
                    Err(Reason::Overloaded.error())
                } else {
                    Ok(valid)
                };
                batch.push(Command::Send(SendCommand { connection, account, device, number, send }));
            }
            Up::Restart => batch.push(Command::Restart { connection }),
            Up::Attach { feed, ref cursors, ref set_aside } => {
                let told = cursors.iter().map(|(_, position)| *position).filter(|upto| *upto < Position::END);
                let cursor = told.max().map_or(0, |position| position.0);
                self.checks.claims(d, self.clients[d].account, cursor, set_aside, true);
                let feed = FeedId { connection, number: feed };
                let (cursors, set_aside) = (cursors.clone(), set_aside.clone());
                batch.push(Command::Attach { feed, account, device, cursors, set_aside });
            }
            Up::Ack { feed, origin, upto, ref set_aside } => {
                self.checks.claims(d, self.clients[d].account, upto, set_aside, false);
                let feed = FeedId { connection, number: feed };
                let (upto, set_aside) = (vec![(origin, Position(upto))], set_aside.clone());
                batch.push(Command::Ack { feed, account, device, upto, set_aside });
            }
            Up::Read { feed, mark } => {
                let reader = self.clients[d].account;
                self.checks.says_read(d, reader, mark, self.directory[reader].is_hidden);
                batch.extend(self.facts_untold(ids::account_index(mark.sender)));
                let feed = FeedId { connection, number: feed };
                let stretches = vec![(mark.origin, Position(mark.after), Position(mark.upto))];
                let read = Ok(ValidRead { sender: mark.sender, stretches });
                batch.push(Command::Read(ReadCommand { feed, account, device, read }));
            }
        }
        self.submit(batch);
    }

    /// What the gateway tells the core of an account before it hands over what needs it, unless that gets lost.
    fn facts_untold(&mut self, account: usize) -> Option<Command> {
        let is_told = self.daemon.running.as_ref().is_some_and(|running| running.told.contains(&account));
        if is_told || self.strikes(self.plan.facts_lost) {
            return None;
        }
        if let Some(running) = &mut self.daemon.running {
            running.told.insert(account);
        }
        Some(Command::Facts { facts: self.facts(account), ticket: None })
    }

    pub(crate) fn server_sees_end(&mut self, link: usize) {
        if std::mem::replace(&mut self.links[link].server_open, false) {
            let d = self.links[link].device;
            let (account, device) = (ids::account(self.clients[d].account), ids::device(d));
            let connection = ConnectionId(link as u64 + 1);
            self.submit(vec![Command::Disconnected { connection, account, device }]);
        }
    }
}

//! The daemon's side of the world: starts and crashes, turns, effects on their way, frames at the gateway.

use quail_core::ports::directory::AccountFacts;
use quail_core::{Command, ConnectionId, Effect, FeedId, SendCommand, Ticket, ValidSend};
use quail_protocol::id::{Position, Stamp};
use quail_protocol::v1::{self, Reason, feed_down::Frame};

use crate::daemon::{Fate, ORIGIN, Turn};
use crate::ids::{self, BASE_MS};
use crate::link::{Down, Up};
use crate::world::{Answer, Happening, Registered, World};

impl World {
    pub(crate) fn start(&mut self) {
        self.checks.recovered(&self.daemon.store.recover(), &self.clients);
        self.daemon.start();
        self.note(|world| format!("start {}", world.daemon.boot));
        // Whoever asked for a change and got no answer asks again.
        let open: Vec<_> = self.tickets.iter().map(|(ticket, answer)| (*ticket, *answer)).collect();
        for (ticket, answer) in open {
            let (Answer::LoggedIn(device) | Answer::LoggedOut(device)) = answer;
            let facts = self.facts(self.clients[device].account);
            let boot = self.daemon.boot;
            self.soon(200, Happening::Facts(boot, facts, Some(Ticket(ticket))));
        }
    }

    pub(crate) fn crash(&mut self) {
        self.note(|_| "crash".to_owned());
        self.daemon.running = None;
        for link in 0..self.links.len() {
            if std::mem::replace(&mut self.links[link].server_open, false) && self.links[link].client_open {
                self.soon(500, Happening::ClientSeesEnd(link));
            }
        }
        self.soon(1000, Happening::Start);
    }

    pub(crate) fn facts(&self, account: usize) -> AccountFacts {
        let Registered { version, devices } = &self.directory[account];
        let mut devices: Vec<_> = devices.iter().map(|device| ids::device(*device)).collect();
        devices.sort();
        AccountFacts {
            account: ids::account(account),
            handle: format!("a{account}"),
            version: *version,
            read_receipts: true,
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
        let mut fate = self.fate();
        let tears_collapse = self.strikes(200);
        let now_ms = (BASE_MS + self.now).saturating_add_signed(self.clock_offset);
        let turn = self.daemon.turn(now_ms, &mut fate, tears_collapse, &mut self.random);
        let Some(turn) = turn else { return };
        for (before, entry) in &turn.durable {
            self.note(|_| format!("durable {entry:?}"));
            self.checks.durable(*before, entry);
        }
        let Turn { released, seen, before, .. } = turn;
        for effect in released {
            self.release(effect, &seen, before);
        }
        if fate != Fate::Lives {
            self.note(|_| format!("{fate:?}"));
            self.crash();
        } else if self.daemon.running.as_ref().is_some_and(|running| !running.queue.is_empty()) {
            self.submit(Vec::new());
        }
    }

    fn release(&mut self, effect: Effect, seen: &[(ConnectionId, u64, Stamp)], before: Position) {
        self.note(|_| format!("release {effect:?}"));
        let boot = self.daemon.boot;
        match effect {
            Effect::Accepted { connection, accepted } => {
                let device = self.links[connection.0 as usize - 1].device;
                let client = &self.clients[device];
                self.checks.accepted(device, client.account, accepted, &client.composed[&accepted.number]);
                if accepted.position > before {
                    let of = |(c, n, _): &&(_, u64, _)| *c == connection && *n == accepted.number;
                    let seen = seen.iter().find(of).map_or(0, |(_, _, stamp)| stamp.0);
                    self.checks.newly_accepted(device, accepted, seen);
                }
                self.answer(connection, Down::Accepted(accepted));
            }
            Effect::Refused { connection, number, error } => {
                let (reason, temporary) = (error.reason(), error.temporary);
                self.answer(connection, Down::Refused { number, reason, temporary });
            }
            Effect::Deliver { feed, event } => {
                let down: v1::FeedDown =
                    prost::Message::decode_length_delimited(event.frame.clone()).unwrap();
                let Some(Frame::Event(event)) = down.frame else { panic!("no event in the frame") };
                let account = self.clients[self.links[feed.connection.0 as usize - 1].device].account;
                self.checks.delivered(account, &event, &self.clients);
                self.answer(feed.connection, Down::Event { feed: feed.number, event });
            }
            Effect::Gap { feed, from, upto } => {
                self.answer(feed.connection, Down::Gap { feed: feed.number, from: from.0, upto: upto.0 });
            }
            Effect::CaughtUp { feed } => self.answer(feed.connection, Down::CaughtUp { feed: feed.number }),
            Effect::Ended { feed, error } => {
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
            Effect::ReadAnswered { .. } => unreachable!("nobody says what was read"),
            Effect::OriginGone { .. } => unreachable!("nothing was restored"),
            Effect::Read { .. } => self.soon(self.plan.read_ms, Happening::Read(boot, effect)),
            Effect::Applied { ticket } => match self.tickets.remove(&ticket.0) {
                Some(Answer::LoggedIn(device)) => self.soon(100, Happening::Connect(device)),
                Some(Answer::LoggedOut(device)) => self.checks.removal_answered(device),
                None => {}
            },
        }
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
        let events = self.daemon.store.read(read);
        let command = Command::Backlog { feed, account, device, events };
        self.soon(self.plan.read_ms, Happening::Backlog(boot, command));
    }

    /// A frame reaches the gateway.
    pub(crate) fn arrives(&mut self, link: usize, up: &Up) {
        if !self.links[link].server_open {
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
                let is_told = self.daemon.running.as_ref().is_some_and(|running| running.told.contains(&to));
                if !is_told && !self.strikes(self.plan.facts_lost) {
                    batch.push(Command::Facts { facts: self.facts(to), ticket: None });
                    if let Some(running) = &mut self.daemon.running {
                        running.told.insert(to);
                    }
                }
                let kind = v1::BodyKind::PlainText;
                let recipient = ids::account(to);
                let valid =
                    ValidSend { id: message.id, recipient, kind, body: message.body, seen: Stamp(seen) };
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
            Up::Attach { feed, cursor } => {
                let feed = FeedId { connection, number: feed };
                let cursors = vec![(ORIGIN, Position(cursor))];
                batch.push(Command::Attach { feed, account, device, cursors, set_aside: vec![] });
            }
            Up::Ack { feed, upto } => {
                let feed = FeedId { connection, number: feed };
                batch.push(Command::Ack {
                    feed,
                    account,
                    device,
                    upto: vec![(ORIGIN, Position(upto))],
                    set_aside: vec![],
                });
            }
        }
        self.submit(batch);
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

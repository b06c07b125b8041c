//! The world: one queue of happenings in the order of time, and what each of them does.
//!
//! For a while faults happen; then the links heal, the daemon stays up, and the world must come to rest with everything
//! delivered.

use std::collections::{BTreeMap, HashSet};

use quail_core::ports::directory::AccountFacts;
use quail_core::{Command, Content, Effect, FeedId, Ticket};
use quail_protocol::id::Stamp;

use crate::changes;
use crate::checks::Checks;
use crate::client::{Client, Composed, Wish};
use crate::coverage::{Coverage, Kind};
use crate::daemon::Daemon;
use crate::ids;
use crate::link::{Down, Link, Up};
use crate::plan::Plan;
use crate::random::Random;

/// More happenings than any world needs to come to rest.
const HAPPENINGS_MAX: u64 = 2_000_000;

pub(crate) enum Happening {
    Compose(usize),
    Connect(usize),
    Arrives(usize, Up),
    Returns(usize, Down),
    ServerSeesEnd(usize),
    ClientSeesEnd(usize),
    AckDue(usize),
    ReadDue(usize),
    RestartDue(usize, usize),
    Turn(u64),
    Sync(u64),
    Facts(u64, AccountFacts, Option<Ticket>),
    Read(u64, Effect),
    Backlog(u64, Command),
    Start,
    Trouble,
    Heal,
}

/// An account as the directory has it.
pub(crate) struct Registered {
    pub(crate) version: u64,
    pub(crate) devices: Vec<usize>,
    /// Since which version it hides what it reads, if it does.
    pub(crate) hides_since: Option<u64>,
    /// The core has learnt of that. From then on nothing may come out that is said now.
    pub(crate) is_hidden: bool,
}

/// What a ticket's answer tells.
#[derive(Clone, Copy)]
pub(crate) enum Answer {
    LoggedIn(usize),
    LoggedOut(usize),
    /// The account and the version at which it changed its privacy.
    Privacy(usize, u64),
}

pub(crate) struct World {
    pub(crate) plan: Plan,
    pub(crate) random: Random,
    pub(crate) now: u64,
    order: u64,
    queue: BTreeMap<(u64, u64), Happening>,
    pub(crate) daemon: Daemon,
    pub(crate) clients: Vec<Client>,
    pub(crate) links: Vec<Link>,
    pub(crate) directory: Vec<Registered>,
    pub(crate) tickets: BTreeMap<u64, Answer>,
    pub(crate) checks: Checks,
    /// Feeds that were told that they have caught up.
    pub(crate) caught_up: HashSet<FeedId>,
    pub(crate) clock_offset: i64,
    pub(crate) healing: bool,
    trace: bool,
}

impl World {
    pub(crate) fn new(seed: u64, trace: bool) -> Self {
        let mut random = Random::new(seed);
        let plan = Plan::draw(&mut random, seed);
        let checks = Checks::new(plan.expires);
        let mut registered = || {
            let is_hidden = random.per_mille(200);
            Registered { version: 0, devices: Vec::new(), hides_since: is_hidden.then_some(0), is_hidden }
        };
        let directory = (0..plan.accounts).map(|_| registered()).collect();
        Self {
            plan,
            random,
            now: 0,
            order: 0,
            queue: BTreeMap::new(),
            daemon: Daemon::new(),
            clients: Vec::new(),
            links: Vec::new(),
            directory,
            tickets: BTreeMap::new(),
            checks,
            caught_up: HashSet::new(),
            clock_offset: 0,
            healing: false,
            trace,
        }
    }

    pub(crate) fn run(mut self) -> Coverage {
        self.note(|world| format!("{:?}", world.plan));
        self.start();
        for account in 0..self.plan.accounts {
            for _ in 0..self.random.within(1, self.plan.devices_max) {
                self.log_in(account);
            }
        }
        self.at(self.plan.trouble_every, Happening::Trouble);
        self.at(self.plan.heals_at, Happening::Heal);
        for _ in 0..HAPPENINGS_MAX {
            let Some(((at, _), happening)) = self.queue.pop_first() else {
                self.checks.at_rest(self.plan.has_gaps());
                let left = self.daemon.running.as_ref().map(|running| running.state.unresolved());
                assert_eq!(left, Some(0), "everything was acknowledged, so nothing may be left");
                for client in self.clients.iter().filter(|client| !client.gone) {
                    assert!(client.reading.is_answered(), "what was read is said until it is answered");
                    // Of what was collapsed a daemon that was restarted does not know what was taken.
                    assert!(self.plan.has_gaps() || client.reading.refused == 0, "a true mark was refused");
                }
                return self.checks.coverage;
            };
            self.now = at;
            self.happens(happening);
        }
        panic!("the world does not come to rest");
    }

    pub(crate) fn note(&self, what: impl FnOnce(&Self) -> String) {
        if self.trace {
            println!("{:>8} {}", self.now, what(self));
        }
    }

    pub(crate) fn at(&mut self, after_ms: u64, happening: Happening) {
        self.order += 1;
        self.queue.insert((self.now + after_ms, self.order), happening);
    }

    pub(crate) fn soon(&mut self, within_ms: u64, happening: Happening) {
        let after = self.random.below(within_ms + 1);
        self.at(after, happening);
    }

    fn happens(&mut self, happening: Happening) {
        match happening {
            Happening::Compose(d) => self.compose(d),
            Happening::Connect(d) => self.connect(d),
            Happening::Arrives(link, up) => self.arrives(link, &up),
            Happening::Returns(link, down) => self.returns(link, down),
            Happening::ServerSeesEnd(link) => self.server_sees_end(link),
            Happening::ClientSeesEnd(link) => self.client_sees_end(link),
            Happening::AckDue(d) => {
                // Without a link it is the next attach that tells.
                let ack = self.clients[d].ack();
                self.note_down(d);
                self.write(d, vec![ack]);
                if self.random.per_mille(self.plan.reads) {
                    self.soon(500, Happening::ReadDue(d));
                }
            }
            Happening::ReadDue(d) => self.says_read(d),
            Happening::RestartDue(d, link) => {
                if self.clients[d].link == Some(link) {
                    let frames = self.clients[d].restart();
                    self.write(d, frames);
                }
            }
            Happening::Turn(boot) if boot == self.daemon.boot => self.turn(),
            Happening::Sync(boot) if boot == self.daemon.boot => self.sync(),
            Happening::Facts(boot, facts, ticket) if boot == self.daemon.boot => {
                self.submit(vec![Command::Facts { facts, ticket }]);
            }
            Happening::Read(boot, read) if boot == self.daemon.boot => self.read(boot, &read),
            Happening::Backlog(boot, command) if boot == self.daemon.boot => self.submit(vec![command]),
            // Of a process that is no more.
            Happening::Turn(_)
            | Happening::Sync(_)
            | Happening::Facts(..)
            | Happening::Read(..)
            | Happening::Backlog(..) => {}
            Happening::Start => self.start(),
            Happening::Trouble => self.trouble(),
            Happening::Heal => self.heal(),
        }
    }

    fn connect(&mut self, d: usize) {
        if self.clients[d].gone || self.clients[d].link.is_some() {
            return;
        }
        let account = self.clients[d].account;
        if self.plan.is_away(account) && !self.healing {
            return;
        }
        if self.daemon.running.is_none() {
            return self.soon(500, Happening::Connect(d));
        }
        if !self.directory[account].devices.contains(&d) {
            self.clients[d].gone = true;
            return;
        }
        let link = self.links.len();
        self.links.push(Link::new(d));
        self.note(|_| format!("device {d} connects as {}", link + 1));
        let facts = self.facts(account);
        self.submit(vec![Command::Facts { facts, ticket: None }]);
        let frames = self.clients[d].connected(link);
        self.note_down(d);
        self.write(d, frames);
    }

    /// Writes down what a device did and saw. To be called before anything of it can have an effect.
    pub(crate) fn note_down(&mut self, d: usize) {
        let (account, notes) = (self.clients[d].account, self.clients[d].notes());
        self.checks.notes(d, account, notes);
    }

    pub(crate) fn write(&mut self, d: usize, frames: Vec<Up>) {
        let Some(link) = self.clients[d].link else { return };
        for up in frames {
            let earliest = self.now + self.delay();
            let at = self.links[link].up_arrives(&up, earliest);
            self.at(at - self.now, Happening::Arrives(link, up));
        }
    }

    fn compose(&mut self, d: usize) {
        let client = &self.clients[d];
        if client.gone || self.healing || !self.checks.is_known(d) {
            return;
        }
        let (recipient, length) = self.plan.next_message(client.account, &mut self.random);
        let counter = client.composed.len() as u64;
        let mut body = format!("{d} {counter} ").into_bytes();
        body.resize(body.len().max(length), b'.');
        let bad = self.random.per_mille(self.plan.bad);
        let id = ids::message(self.now, d, counter);
        if !self.plan.restores && self.strikes(50) {
            self.checks.coverage.count(Kind::SeenAhead);
            // It saw something of another node, whose clock is a little ahead.
            let ahead = self.checks.newest_stamp().unix_ms() + self.random.below(10_000);
            self.clients[d].seen = self.clients[d].seen.max(Stamp::from_ms(ahead).0);
        }
        let own = self.clients[d].account;
        // Not the last one, which may be on its way only now.
        let earlier = self.clients[d].composed.values().rev().nth(1).map(|earlier| earlier.id);
        let accounts = (ids::account(own), ids::account(recipient));
        let content = changes::content(id, accounts, earlier, body.into());
        if !matches!(content, Content::Message { reply_to: None, .. }) {
            self.checks.coverage.count(Kind::Change);
        }
        self.clients[d].compose(Composed { id, recipient, content, bad });
        self.note_down(d);
        let frames = self.clients[d].sends();
        self.write(d, frames);
        let pause = self.plan.pause(self.clients[d].account);
        self.soon(pause, Happening::Compose(d));
    }

    fn returns(&mut self, link: usize, down: Down) {
        let d = self.links[link].device;
        if !self.links[link].client_open || self.clients[d].link != Some(link) {
            if matches!(down, Down::Accepted(..)) {
                self.checks.coverage.count(Kind::AnswerLost);
            }
            return;
        }
        self.note(|_| format!("device {d} hears {down:?}"));
        let account = self.clients[d].account;
        let in_directory = self.directory[account].devices.contains(&d);
        let gives_up = matches!(down, Down::Event { .. }) && self.strikes(self.plan.gives_up);
        let (is_end, dropped) = (matches!(down, Down::OriginGone { .. }), self.clients[d].dropped);
        let wish = self.clients[d].hears(down, in_directory, gives_up);
        if is_end {
            self.checks.coverage.count(Kind::EndTold);
        }
        if self.clients[d].dropped > dropped {
            self.checks.coverage.count(Kind::StoredAnewAndKnown);
        }
        self.note_down(d);
        match wish {
            Wish::Nothing => {}
            Wish::Ack => {
                if !std::mem::replace(&mut self.clients[d].ack_due, true) {
                    self.soon(self.plan.ack_ms, Happening::AckDue(d));
                }
            }
            Wish::Read => self.soon(1000, Happening::ReadDue(d)),
            Wish::Restart => self.soon(1000, Happening::RestartDue(d, link)),
            Wish::Leave => {
                self.clients[d].gone = true;
                self.cut(link, 100);
            }
        }
        // An answer makes room for more.
        let frames = self.clients[d].sends();
        self.write(d, frames);
    }

    fn client_sees_end(&mut self, link: usize) {
        let d = self.links[link].device;
        if std::mem::replace(&mut self.links[link].client_open, false) && self.clients[d].link == Some(link) {
            self.clients[d].disconnected();
            let pause = if self.strikes(100) { 10_000 } else { 500 };
            self.soon(pause, Happening::Connect(d));
        }
    }

    /// Cuts a link; its ends learn of it at different times.
    pub(crate) fn cut(&mut self, link: usize, within_ms: u64) {
        self.note(|_| format!("cut {}", link + 1));
        self.soon(within_ms, Happening::ServerSeesEnd(link));
        self.soon(within_ms, Happening::ClientSeesEnd(link));
    }

    pub(crate) fn log_in(&mut self, account: usize) {
        let device = self.clients.len();
        self.clients.push(Client::new(account, self.daemon.origin));
        self.directory[account].devices.push(device);
        self.note(|_| format!("account {account} logs in device {device}"));
        self.changed(account, Answer::LoggedIn(device));
    }

    pub(crate) fn log_out(&mut self, account: usize, device: usize) {
        self.directory[account].devices.retain(|other| *other != device);
        self.note(|_| format!("account {account} logs out device {device}"));
        self.changed(account, Answer::LoggedOut(device));
    }

    /// Somebody reads on a device, or pretends to.
    fn says_read(&mut self, d: usize) {
        if self.strikes(self.plan.lies) {
            let sender = ids::account(self.random.below(self.plan.accounts as u64) as usize);
            let kept = self.clients[d].kept();
            self.clients[d].reading.lie(sender, kept, &mut self.random);
        } else {
            self.clients[d].reading.read_some(&mut self.random);
        }
        let frames = self.clients[d].reads();
        self.write(d, frames);
    }

    /// An account begins or ends to hide what it reads.
    pub(crate) fn change_privacy(&mut self, account: usize) {
        let registered = &mut self.directory[account];
        let version = registered.version + 1;
        registered.hides_since = registered.hides_since.is_none().then_some(version);
        registered.is_hidden = false;
        let hides = registered.hides_since.is_some();
        self.note(|_| format!("account {account} hides what it reads: {hides}"));
        self.changed(account, Answer::Privacy(account, version));
    }

    fn changed(&mut self, account: usize, answer: Answer) {
        self.directory[account].version += 1;
        self.order += 1;
        self.tickets.insert(self.order, answer);
        let (boot, ticket) = (self.daemon.boot, Ticket(self.order));
        let facts = self.facts(account);
        self.soon(300, Happening::Facts(boot, facts, Some(ticket)));
    }
}

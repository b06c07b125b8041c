//! What kind of world a seed makes, and the troubles that visit it.

use quail_core::Command;
use quail_protocol::id::Position;

use crate::daemon::Fate;
use crate::ids;
use crate::random::Random;
use crate::world::{Happening, World};

/// Length of the bodies that overfill an outbox, in bytes.
const LARGE_BODY: usize = 60_000;

/// How a world is. Chances are in a thousand.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) accounts: usize,
    pub(crate) devices_max: u64,
    /// Account 1 stays away and account 0 sends it more than an outbox holds.
    pub(crate) overfills: bool,
    /// Events become too old.
    pub(crate) expires: bool,
    /// The daemon's directory is replaced by an older one now and then. Nobody lies about what was read in such a world.
    pub(crate) restores: bool,
    pub(crate) heals_at: u64,
    pub(crate) trouble_every: u64,
    pub(crate) delay_ms: u64,
    pub(crate) turn_ms: u64,
    pub(crate) sync_ms: u64,
    pub(crate) read_ms: u64,
    pub(crate) ack_ms: u64,
    pause_ms: u64,
    pub(crate) dies: u64,
    pub(crate) facts_lost: u64,
    pub(crate) overloaded: u64,
    pub(crate) bad: u64,
    /// How often a device says what was read after it acknowledged.
    pub(crate) reads: u64,
    pub(crate) lies: u64,
    pub(crate) gives_up: u64,
}

impl Plan {
    pub(crate) fn draw(random: &mut Random, seed: u64) -> Self {
        let overfills = seed % 25 == 7;
        let restores = matches!(seed % 25, 4 | 10 | 16 | 20);
        let mut plan = Self {
            accounts: random.within(2, 4) as usize,
            devices_max: random.within(1, 3),
            overfills,
            expires: matches!(seed % 25, 2 | 12 | 22),
            restores,
            heals_at: random.within(3_000, 20_000),
            trouble_every: random.within(50, 1_500),
            delay_ms: random.within(0, 200),
            turn_ms: random.within(0, 20),
            sync_ms: random.within(0, 40),
            read_ms: random.within(0, 400),
            ack_ms: random.within(0, 1_000),
            pause_ms: random.within(200, 3_000),
            dies: random.below(30),
            facts_lost: random.below(200),
            overloaded: random.below(30),
            bad: random.below(30),
            reads: random.below(600),
            lies: random.below(200),
            gives_up: random.below(30),
        };
        if restores {
            // More is given up than elsewhere, so that a copy finds some of it.
            (plan.lies, plan.gives_up) = (0, plan.gives_up + 100);
        }
        plan
    }

    /// Whether devices may be told of gaps.
    pub(crate) fn has_gaps(&self) -> bool {
        self.overfills || self.expires || self.restores
    }

    pub(crate) fn is_away(&self, account: usize) -> bool {
        self.overfills && account == 1
    }

    pub(crate) fn next_message(&self, account: usize, random: &mut Random) -> (usize, usize) {
        if self.overfills && account == 0 {
            return (1, LARGE_BODY);
        }
        (random.below(self.accounts as u64) as usize, random.below(100) as usize)
    }

    pub(crate) fn pause(&self, account: usize) -> u64 {
        if self.overfills && account == 0 { self.heals_at / 700 } else { self.pause_ms }
    }
}

impl World {
    /// Whether a chance of so many in a thousand comes true; never once the world heals.
    pub(crate) fn strikes(&mut self, per_mille: u64) -> bool {
        !self.healing && self.random.per_mille(per_mille)
    }

    pub(crate) fn delay(&mut self) -> u64 {
        self.random.below(self.plan.delay_ms + 1)
    }

    /// How the next sync ends.
    pub(crate) fn fate(&mut self) -> Fate {
        if !self.strikes(self.plan.dies) {
            return Fate::Lives;
        }
        let fates = [Fate::DiesBeforeSync, Fate::DiesInSync, Fate::DiesBeforeRelease, Fate::DiesInRelease];
        self.random.pick(&fates).unwrap_or(Fate::Lives)
    }

    pub(crate) fn trouble(&mut self) {
        if self.healing {
            return;
        }
        self.soon(2 * self.plan.trouble_every, Happening::Trouble);
        let account = self.random.below(self.plan.accounts as u64) as usize;
        match self.random.below(16) {
            0..=4 => {
                let open: Vec<_> = (0..self.links.len()).filter(|l| self.links[*l].client_open).collect();
                if let Some(link) = self.random.pick(&open) {
                    let within = self.random.pick(&[0, 100, 3_000]).unwrap_or(0);
                    self.cut(link, within);
                }
            }
            5 => {
                let step = self.random.pick(&[3, 1_000, 60_000, 3 * 3_600_000]).unwrap_or(0);
                // A restored directory has forgotten how far ahead its clock was, and what devices have seen is not to be far ahead of it.
                let back = if self.plan.restores { 0 } else { step as i64 };
                let offset = self.random.within(0, 2 * step) as i64 - back;
                // A few steps stay below the day that an id may be ahead.
                self.clock_offset = (self.clock_offset + offset).clamp(-70_000_000, 70_000_000);
                self.note(|world| format!("clock is off by {} ms", world.clock_offset));
            }
            6 | 7 => {
                if let Some(d) = self.random.pick(&self.attached()) {
                    let mut frames = vec![self.clients[d].attach()];
                    frames.extend(self.clients[d].reads());
                    self.note_down(d);
                    self.write(d, frames);
                }
            }
            8 if self.directory[account].devices.len() < 4 && self.clients.len() < 40 => self.log_in(account),
            9 if self.random.per_mille(500) => {
                let devices = self.directory[account].devices.clone();
                if let Some(device) = self.random.pick(&devices) {
                    self.log_out(account, device);
                }
            }
            10 if self.daemon.running.is_some() && self.plan.restores => {
                self.restore();
            }
            10 if self.daemon.running.is_some() => self.crash(),
            11 => {
                if let Some(d) = self.random.pick(&self.attached()) {
                    self.client_dies(d);
                }
            }
            12 | 13 if self.plan.expires => self.expire(account),
            12 | 13 => {
                if let Some(d) = self.random.pick(&self.attached()) {
                    self.overtakes_itself(d);
                }
            }
            14 | 15 => self.change_privacy(account),
            _ => {}
        }
    }

    fn attached(&self) -> Vec<usize> {
        (0..self.clients.len()).filter(|d| self.clients[*d].link.is_some()).collect()
    }

    /// A device attaches anew and gives its connection up at once; the attach arrives when the next connection is there.
    fn overtakes_itself(&mut self, d: usize) {
        let Some(link) = self.clients[d].link else { return };
        let frame = self.clients[d].attach();
        self.note_down(d);
        self.at(2_000, Happening::Arrives(link, frame));
        self.at(3_000, Happening::ServerSeesEnd(link));
        self.links[link].client_open = false;
        self.clients[d].disconnected();
        self.soon(500, Happening::Connect(d));
    }

    /// The process of a device dies and comes back. Its connection may linger for a while.
    fn client_dies(&mut self, d: usize) {
        let Some(link) = self.clients[d].link else { return };
        self.note(|_| format!("the client of device {d} dies"));
        self.clients[d].dies();
        self.note_down(d);
        self.links[link].client_open = false;
        let within = self.random.pick(&[0, 100, 3_000]).unwrap_or(0);
        self.soon(within, Happening::ServerSeesEnd(link));
        self.soon(500, Happening::Connect(d));
    }

    /// Some of what waits for an account is too old now.
    fn expire(&mut self, account: usize) {
        let Some(running) = &self.daemon.running else { return };
        let last = running.state.last_position().0;
        let upto = Position(self.random.within(last.saturating_sub(50), last));
        self.note(|_| format!("what account {account} has up to {upto} is too old"));
        self.submit(vec![Command::Expire { account: ids::account(account), upto }]);
    }

    /// From here on nothing fails any more, and every account has a device.
    pub(crate) fn heal(&mut self) {
        self.note(|_| "heal".to_owned());
        self.healing = true;
        for account in 0..self.plan.accounts {
            if self.directory[account].devices.is_empty() {
                self.log_in(account);
            }
        }
        for d in 0..self.clients.len() {
            self.at(0, Happening::Connect(d));
        }
    }
}

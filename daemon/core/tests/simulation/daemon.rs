//! A simulated daemon: the sequencer's turns around the core, the committer's syncs behind them, and the places where a
//! process can die.
//!
//! As in the daemon, turns are decided while older ones wait for their sync, and one sync covers all that was appended.

use std::collections::{HashSet, VecDeque};

use quail_core::ports::outbox::{Entry, Recovered};
use quail_core::{Ancestor, Command, ConnectionId, Effect, Outcome, State};
use quail_protocol::id::{Origin, Position, Stamp};

use crate::random::Random;
use crate::store::Store;

/// The first origin of every world.
pub(crate) const ORIGIN: Origin = Origin(7);

/// Where a process ends.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Fate {
    Lives,
    DiesBeforeAppend,
    /// What it had appended is gone.
    DiesBeforeSync,
    DiesInSync,
    DiesBeforeRelease,
    /// The process dies when some of the effects are out.
    DiesInRelease,
}

/// A turn, from its decision to its release.
pub(crate) struct Turn {
    /// Entries, each with the last position before its command.
    pub(crate) entries: Vec<(Position, Entry)>,
    /// What may leave the process once they are durable.
    pub(crate) effects: Vec<Effect>,
    /// What the sends of this turn had seen.
    pub(crate) seen: Vec<(ConnectionId, u64, Stamp)>,
    /// The last position before the turn.
    pub(crate) before: Position,
}

/// A process.
pub(crate) struct Running {
    pub(crate) state: State,
    pub(crate) queue: VecDeque<Vec<Command>>,
    pub(crate) turn_due: bool,
    pub(crate) sync_due: bool,
    /// Appended and not synced.
    pub(crate) held: Vec<Turn>,
    /// Accounts of which the gateway has told the core.
    pub(crate) told: HashSet<usize>,
}

pub(crate) struct Daemon {
    pub(crate) store: Store,
    /// What its events are numbered by.
    pub(crate) origin: Origin,
    ancestors: Vec<Ancestor>,
    pub(crate) running: Option<Running>,
    /// Counts starts; what belongs to an older process is dropped by it.
    pub(crate) boot: u64,
}

impl Daemon {
    pub(crate) fn new() -> Self {
        Self { store: Store::default(), origin: ORIGIN, ancestors: Vec::new(), running: None, boot: 0 }
    }

    /// Its directory is an older one from now on, and so a new origin. Returns what that holds, for the next process.
    pub(crate) fn restore(&mut self, state: usize) -> Recovered {
        self.store.restore(state);
        let recovered = self.store.recover();
        let inherited = recovered.last_position;
        for older in &mut self.ancestors {
            older.inherited = older.inherited.min(inherited);
        }
        self.ancestors.insert(0, Ancestor { origin: self.origin, inherited });
        self.origin = Origin(self.origin.0 + 1);
        recovered
    }

    pub(crate) fn ancestors(&self) -> &[Ancestor] {
        &self.ancestors
    }

    pub(crate) fn start(&mut self) {
        let state = State::new(self.origin, self.store.recover());
        let state = state.with_ancestors(self.ancestors.clone());
        let (queue, told, held) = (VecDeque::new(), HashSet::new(), Vec::new());
        self.running = Some(Running { state, queue, turn_due: false, sync_due: false, held, told });
        self.boot += 1;
    }

    /// Decides some of the batches that wait, and appends what that comes to unless the process dies before.
    pub(crate) fn turn(&mut self, now_ms: u64, dies: bool, random: &mut Random) {
        let Some(running) = self.running.as_mut() else { return };
        running.turn_due = false;
        let count = random.within(1, running.queue.len().max(1) as u64) as usize;
        let commands: Vec<Command> =
            running.queue.drain(..count.min(running.queue.len())).flatten().collect();
        let before = running.state.last_position();
        let mut outcome = Outcome::default();
        let (mut seen, mut starts) = (Vec::new(), Vec::new());
        for command in commands {
            if let Command::Send(send) = &command
                && let Ok(valid) = &send.send
            {
                seen.push((send.connection, send.number, valid.seen));
            }
            let start = running.state.last_position();
            running.state.decide(command, now_ms, &mut outcome);
            starts.resize(outcome.entries.len(), start);
        }
        if dies {
            return;
        }
        self.store.append(&running.state, &outcome.entries);
        let entries = starts.into_iter().zip(outcome.entries).collect();
        running.held.push(Turn { entries, effects: outcome.after, seen, before });
    }

    /// Makes durable what was appended. Returns the turns as far as they came: what of their entries is durable, and which
    /// of their effects left the process.
    pub(crate) fn sync(&mut self, fate: Fate, random: &mut Random) -> Vec<Turn> {
        let Some(running) = self.running.as_mut() else { return Vec::new() };
        running.sync_due = false;
        let mut turns = std::mem::take(&mut running.held);
        match fate {
            Fate::DiesBeforeAppend | Fate::DiesBeforeSync => return Vec::new(),
            Fate::DiesInSync => {
                for (turn, survives) in turns.iter_mut().zip(self.store.tear(random)) {
                    let mut survives = survives.into_iter();
                    turn.entries.retain(|_| survives.next().unwrap_or(false));
                }
            }
            Fate::Lives | Fate::DiesBeforeRelease | Fate::DiesInRelease => self.store.sync(),
        }
        let all = turns.iter().map(|turn| turn.effects.len()).sum::<usize>();
        let mut released = match fate {
            Fate::Lives => all,
            Fate::DiesInRelease => random.below(all as u64 + 1) as usize,
            _ => 0,
        };
        for turn in &mut turns {
            turn.effects.truncate(released);
            released -= turn.effects.len();
        }
        turns
    }

    /// Whether a turn that waits for its sync collapses an outbox.
    pub(crate) fn holds_collapse(&self) -> bool {
        let is_collapse = |(_, entry): &(Position, Entry)| matches!(entry, Entry::Collapsed { .. });
        let held = self.running.iter().flat_map(|running| &running.held);
        held.flat_map(|turn| &turn.entries).any(is_collapse)
    }
}

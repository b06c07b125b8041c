//! A simulated daemon: the sequencer's turn around the core, and the places where a process can die.

use std::collections::{HashSet, VecDeque};

use quail_core::ports::outbox::Entry;
use quail_core::{Command, ConnectionId, Effect, Outcome, State};
use quail_protocol::id::{Origin, Position, Stamp};

use crate::random::Random;
use crate::store::Store;

pub(crate) const ORIGIN: Origin = Origin(7);

/// Where a turn ends.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Fate {
    Lives,
    DiesBeforeCommit,
    DiesInCommit,
    DiesAfterCommit,
    /// The process dies when some of the effects are out.
    DiesInRelease,
}

/// What a turn came to.
pub(crate) struct Turn {
    /// Entries that are durable now, each with the last position before its command.
    pub(crate) durable: Vec<(Position, Entry)>,
    /// Effects that left the process.
    pub(crate) released: Vec<Effect>,
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
    /// Accounts of which the gateway has told the core.
    pub(crate) told: HashSet<usize>,
}

#[derive(Default)]
pub(crate) struct Daemon {
    pub(crate) store: Store,
    pub(crate) running: Option<Running>,
    /// Counts starts; what belongs to an older process is dropped by it.
    pub(crate) boot: u64,
}

impl Daemon {
    pub(crate) fn start(&mut self) {
        let state = State::new(ORIGIN, self.store.recover());
        let (queue, told) = (VecDeque::new(), HashSet::new());
        self.running = Some(Running { state, queue, turn_due: false, told });
        self.boot += 1;
    }

    /// Takes some of the batches that wait.
    /// A turn that collapses an outbox is rare, so it may ask for a death of its own.
    pub(crate) fn turn(
        &mut self,
        now_ms: u64,
        fate: &mut Fate,
        tears_collapse: bool,
        random: &mut Random,
    ) -> Option<Turn> {
        let running = self.running.as_mut()?;
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
        let entries = &outcome.entries;
        if tears_collapse && entries.iter().any(|entry| matches!(entry, Entry::Collapsed { .. })) {
            *fate = Fate::DiesInCommit;
        }
        let survives = match *fate {
            _ if entries.is_empty() => Vec::new(),
            Fate::DiesBeforeCommit => vec![false; entries.len()],
            Fate::DiesInCommit => self.store.tear(&running.state, entries, random),
            _ => {
                self.store.commit(&running.state, entries);
                vec![true; entries.len()]
            }
        };
        let durable = starts
            .into_iter()
            .zip(outcome.entries)
            .zip(survives)
            .filter(|(_, is)| *is)
            .map(|(e, _)| e)
            .collect();
        let released = match *fate {
            Fate::Lives => outcome.after.len(),
            Fate::DiesInRelease => random.below(outcome.after.len() as u64 + 1) as usize,
            _ => 0,
        };
        outcome.after.truncate(released);
        Some(Turn { durable, released: outcome.after, seen, before })
    }
}

//! What the sequencer hands to the committer: effects of batches that were appended and are not durable yet.
//!
//! While the committer syncs, the sequencer goes on deciding and fills this up; the committer takes all of it at once. So
//! the next sync covers whatever came in meanwhile, and no timer is needed to form batches.
//!
//! Invariant: effects are put here after their entries were appended, so a sync that begins after they were taken covers them.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use quail_core::Effect;

/// From how many waiting effects on the sequencer waits for the committer.
const WAITING_EFFECTS_MAX: usize = 16 * 1024;

/// Effects of one or more turns.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    pub(super) effects: Vec<Effect>,
    /// Whether entries were appended for them.
    pub(super) to_sync: bool,
}

impl Waiting {
    pub(super) fn is_empty(&self) -> bool {
        self.effects.is_empty() && !self.to_sync
    }
}

#[derive(Default)]
struct Slot {
    waiting: Waiting,
    /// Whether the committer is at work on what it took last.
    is_committing: bool,
    sequencer_ended: bool,
    committer_ended: bool,
}

/// The one place between the two threads.
#[derive(Default)]
struct Shared {
    slot: Mutex<Slot>,
    changed: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Slot> {
        self.slot.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait_while<'a>(
        &'a self,
        slot: MutexGuard<'a, Slot>,
        condition: impl FnMut(&mut Slot) -> bool,
    ) -> MutexGuard<'a, Slot> {
        self.changed.wait_while(slot, condition).unwrap_or_else(PoisonError::into_inner)
    }
}

/// The sequencer's end.
pub(super) struct Giver(Arc<Shared>);

/// The committer's end.
pub(super) struct Taker(Arc<Shared>);

/// Returns both ends.
pub(super) fn handoff() -> (Giver, Taker) {
    let shared = Arc::new(Shared::default());
    (Giver(shared.clone()), Taker(shared))
}

impl Giver {
    /// Hands effects over; waits while too many are waiting. Returns whether anybody takes them.
    pub(super) fn give(&self, Waiting { effects, to_sync }: Waiting) -> bool {
        let full =
            |slot: &mut Slot| !slot.committer_ended && slot.waiting.effects.len() >= WAITING_EFFECTS_MAX;
        let mut slot = self.0.wait_while(self.0.lock(), full);
        if slot.committer_ended {
            return false;
        }
        if slot.waiting.effects.is_empty() {
            slot.waiting.effects = effects;
        } else {
            slot.waiting.effects.extend(effects);
        }
        slot.waiting.to_sync |= to_sync;
        drop(slot);
        self.0.changed.notify_all();
        true
    }
}

impl Giver {
    /// Returns whether all that was given is durable and released, and the committer there to take more. Nothing changes
    /// that but the next [`give`](Self::give), so until then whoever has the giver may do the committer's work.
    pub(super) fn is_idle(&self) -> bool {
        let slot = self.0.lock();
        slot.waiting.is_empty() && !slot.is_committing && !slot.committer_ended
    }
}

impl Drop for Giver {
    fn drop(&mut self) {
        self.0.lock().sequencer_ended = true;
        self.0.changed.notify_all();
    }
}

impl Taker {
    /// Waits for effects and takes all there are; `None` when the sequencer has ended and everything was taken.
    pub(super) fn take(&self) -> Option<Waiting> {
        let nothing = |slot: &mut Slot| slot.waiting.is_empty() && !slot.sequencer_ended;
        let mut slot = self.0.lock();
        slot.is_committing = false;
        let mut slot = self.0.wait_while(slot, nothing);
        let waiting = std::mem::take(&mut slot.waiting);
        slot.is_committing = !waiting.is_empty();
        drop(slot);
        self.0.changed.notify_all();
        (!waiting.is_empty()).then_some(waiting)
    }
}

impl Drop for Taker {
    fn drop(&mut self) {
        self.0.lock().committer_ended = true;
        self.0.changed.notify_all();
    }
}

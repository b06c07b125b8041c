//! What becomes of a packet, decided by chance with a seed.
//!
//! Each flow has dice of its own for each direction, and each packet takes the same number of throws whatever faults are in
//! force. So the fate of the n-th packet of a flow depends on nothing but the seed and the faults of its moment: not on what
//! other flows do, nor on faults that came and went before.

use std::time::Duration;

use super::{Direction, Faults};
use crate::Chance;

/// Throws that a fraction is compared with are below this.
const SIDES: u64 = 1_000_000;

/// Why a packet was dropped on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// By chance.
    Loss,
    /// Nothing came through.
    Blackhole,
}

/// What becomes of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It never arrives.
    Dropped(Cause),
    /// It arrives after so long, and perhaps a second time.
    Passed {
        /// How long it takes.
        after: Duration,
        /// How long its second copy takes, if there is one.
        again: Option<Duration>,
    },
}

/// The chance of one direction of one flow.
pub struct Dice(Chance);

impl Dice {
    /// Makes the dice of a direction of the flow with this number.
    pub fn new(seed: u64, flow: u64, direction: Direction) -> Self {
        // Neighbouring seeds of this generator have nothing in common after one step; this keeps them apart.
        let mut mixed = Chance(seed ^ flow.rotate_left(20) ^ ((direction as u64) << 63));
        Self(Chance(mixed.below(u64::MAX)))
    }

    /// Decides over the next packet.
    pub fn throw(&mut self, faults: &Faults) -> Fate {
        let throws: [u64; 6] = std::array::from_fn(|_| self.0.below(SIDES));
        let [loss, duplication, first, second, first_jitter, second_jitter] = throws;
        if faults.blackhole {
            return Fate::Dropped(Cause::Blackhole);
        }
        if falls_in(loss, faults.loss) {
            return Fate::Dropped(Cause::Loss);
        }
        let again = falls_in(duplication, faults.duplication).then(|| takes(faults, second, second_jitter));
        Fate::Passed { after: takes(faults, first, first_jitter), again }
    }
}

fn takes(faults: &Faults, reorder: u64, jitter: u64) -> Duration {
    let held = if falls_in(reorder, faults.reorder) { faults.reorder_by } else { Duration::ZERO };
    faults.delay + held + faults.jitter.mul_f64(jitter as f64 / SIDES as f64)
}

fn falls_in(throw: u64, fraction: f64) -> bool {
    (throw as f64) < fraction * SIDES as f64
}

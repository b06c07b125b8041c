//! What can be wrong with a network, each direction apart.
//!
//! Plain values that a test sets while traffic flows; `fate.rs` makes decisions of them.

use std::time::Duration;

/// A way through the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From clients to the daemon.
    Up,
    /// From the daemon to clients.
    Down,
}

impl Direction {
    /// Both.
    pub const BOTH: [Self; 2] = [Self::Up, Self::Down];
}

/// The faults of one direction. Fractions are from 0 to 1 and drawn for each packet and each copy of one on its own. The
/// default is a good network.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Faults {
    /// Fraction that is lost.
    pub loss: f64,
    /// Fraction that comes twice.
    pub duplication: f64,
    /// How long every packet takes.
    pub delay: Duration,
    /// How much longer it may take at most, drawn evenly. More than the distance of two packets reorders them.
    pub jitter: Duration,
    /// Fraction that is held back, so that what was sent later comes before it.
    pub reorder: f64,
    /// How long what is held back is held back.
    pub reorder_by: Duration,
    /// Whether nothing comes through at all.
    pub blackhole: bool,
}

impl Faults {
    /// A network that loses this fraction and does nothing else.
    pub fn losing(loss: f64) -> Self {
        Self { loss, ..Self::default() }
    }

    /// A network that takes so long and does nothing else.
    pub fn slow(delay: Duration) -> Self {
        Self { delay, ..Self::default() }
    }
}

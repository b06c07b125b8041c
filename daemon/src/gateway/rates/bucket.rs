//! Buckets of one rate class: the generic cell rate algorithm (ITU-T I.371), one number per key.
//!
//! A key's number is the time at which all it has taken is paid for. A try passes if that lies no further ahead than the
//! burst is worth. A key whose time has passed is as good as new, so forgetting it changes nothing.
//!
//! Why not a library: those at hand keep every key until they are told to sweep, cannot look without taking, and cannot
//! change a rate while they run.
//!
//! Invariant: at most [`KEYS_MAX`] keys. When as many are in debt at once, new ones share one bucket: they may be
//! refused for what others did, but memory does not grow.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::config::Rate;

/// Most keys of a class that are remembered: 2.4 MB.
pub(super) const KEYS_MAX: usize = 100_000;

/// How often a full class is swept at most: a sweep looks at every key.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

/// Whoever is counted, as a number. Random per process, so that nobody can choose to share another's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key(u64);

/// The bucket that new keys share while the class is full.
const SHARED: Key = Key(0);

static HASHER: LazyLock<RandomState> = LazyLock::new(RandomState::new);

impl Key {
    /// Returns the key of whoever is counted.
    pub(super) fn of(whom: &impl Hash) -> Self {
        Self(HASHER.hash_one(whom))
    }
}

/// All buckets of a class.
pub(super) struct Buckets {
    state: Mutex<State>,
}

struct State {
    /// `None`: no limit.
    rate: Option<Rate>,
    /// By key: when what it took is paid for.
    paid_at: HashMap<Key, Instant>,
    swept_at: Option<Instant>,
}

impl Buckets {
    pub(super) fn new(rate: Option<Rate>) -> Self {
        Self { state: Mutex::new(State { rate, paid_at: HashMap::new(), swept_at: None }) }
    }

    pub(super) fn set(&self, rate: Option<Rate>) {
        self.with(|state| state.rate = rate);
    }

    /// Takes `count` tries at once, or none.
    ///
    /// # Errors
    /// The time after which they would pass; for more than a burst they never will, and the time is for one.
    pub(super) fn take(&self, key: Key, count: usize, now: Instant) -> Result<(), Duration> {
        self.with(|state| {
            let Some(rate) = state.rate else { return Ok(()) };
            let key = state.place(key, now);
            let paid_at = state.paid_at.get(&key).copied().unwrap_or(now).max(now);
            let count = u32::try_from(count).unwrap_or(u32::MAX);
            let paid_at = check(rate, paid_at, count, now)?;
            state.paid_at.insert(key, paid_at);
            Ok(())
        })
    }

    /// Counts `count` tries that have passed already, beyond the burst too: later ones wait until they are paid for.
    pub(super) fn owe(&self, key: Key, count: usize, now: Instant) {
        self.with(|state| {
            let Some(rate) = state.rate else { return };
            let key = state.place(key, now);
            let paid_at = state.paid_at.get(&key).copied().unwrap_or(now).max(now);
            let cost = rate.interval().saturating_mul(u32::try_from(count).unwrap_or(u32::MAX));
            state.paid_at.insert(key, paid_at.checked_add(cost).unwrap_or(paid_at));
        });
    }

    /// Says what [`take`](Self::take) of one try would, and takes nothing.
    ///
    /// # Errors
    /// The time after which it would pass.
    pub(super) fn peek(&self, key: Key, now: Instant) -> Result<(), Duration> {
        self.with(|state| {
            let Some(rate) = state.rate else { return Ok(()) };
            let paid_at = state.paid_at.get(&key).copied().unwrap_or(now).max(now);
            check(rate, paid_at, 1, now).map(drop)
        })
    }

    fn with<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        // A number per key is whole whatever happens elsewhere.
        change(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl State {
    /// Returns the key under which a try is counted, after making room for it.
    fn place(&mut self, key: Key, now: Instant) -> Key {
        if self.paid_at.len() < KEYS_MAX || self.paid_at.contains_key(&key) {
            return key;
        }
        if self.swept_at.is_none_or(|at| now >= at + SWEEP_INTERVAL) {
            self.swept_at = Some(now);
            self.paid_at.retain(|_, paid_at| *paid_at > now);
        }
        if self.paid_at.len() < KEYS_MAX { key } else { SHARED }
    }
}

fn check(rate: Rate, paid_at: Instant, count: u32, now: Instant) -> Result<Instant, Duration> {
    let cost = rate.interval().saturating_mul(count);
    let burst = rate.interval().saturating_mul(rate.burst);
    let debt = (paid_at - now).saturating_add(cost);
    if debt <= burst { Ok(now + debt) } else { Err(debt - burst) }
}

//! Rate classes: what a stranger, an account or a device may try how often.
//!
//! A class names what is counted and whom it is counted for. One try may stand in several: a log-in counts for the address
//! it comes from, for the account at that address, and for the account from anywhere. The first that is used up refuses,
//! with the time after which the same try passes.
//!
//! Invariants: a refusal costs a hash and a short lock, never a password hash or a question to the directory; what is
//! remembered is bounded per class; an address counts only once the peer has shown that it receives there.

mod bucket;

use std::net::IpAddr;
use std::time::Duration;

use quail_protocol::id::{AccountId, DeviceId};
use quail_protocol::v1::{self, Reason};
use tokio::time::Instant;

use crate::config::{Class, RateTable};
use crate::ops::metrics::{ClassLabel, Metrics};
use bucket::{Buckets, Key};

/// Bits of an IPv6 address that make up its prefix: the smallest network that a customer is given (RFC 6177).
const PREFIX_BITS_V6: u32 = 56;

/// The tries of everybody.
pub struct Rates {
    buckets: [Buckets; Class::ALL.len()],
}

/// The part of an address that is counted as one: an IPv4 address, or a customer's network of IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Prefix(IpAddr);

impl Prefix {
    /// Returns the prefix of an address.
    pub fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => Self(address.into()),
            IpAddr::V6(address) => {
                let mask = u128::MAX << (u128::BITS - PREFIX_BITS_V6);
                Self(IpAddr::V6((u128::from(address) & mask).into()))
            }
        }
    }
}

impl Rates {
    /// Returns rates of which nothing is used up.
    pub fn new(table: &RateTable) -> Self {
        Self { buckets: Class::ALL.map(|class| Buckets::new(table.get(class))) }
    }

    /// Puts new rates in force. What was used up stays used up.
    pub fn set(&self, table: &RateTable) {
        for class in Class::ALL {
            self.of(class).set(table.get(class));
        }
    }

    /// Counts the opening of a connection.
    ///
    /// # Errors
    /// The time after which it would pass.
    pub fn handshake(&self, prefix: Prefix) -> Result<(), Duration> {
        self.of(Class::Handshake).take(Key::of(&prefix), 1, Instant::now())
    }

    /// Returns whether the opening of a connection would pass, without counting it.
    pub fn may_handshake(&self, prefix: Prefix) -> bool {
        self.of(Class::Handshake).peek(Key::of(&prefix), Instant::now()).is_ok()
    }

    /// Counts a request of a device, or of an address without a session.
    ///
    /// # Errors
    /// `RATE_LIMITED`.
    pub fn request(&self, device: Option<DeviceId>, prefix: Prefix) -> Result<(), Limited> {
        match device {
            Some(device) => self.take(Class::Request, Key::of(&device)),
            None => self.take(Class::Request, Key::of(&prefix)),
        }
    }

    /// Counts a sign-up.
    ///
    /// # Errors
    /// `RATE_LIMITED`.
    pub fn sign_up(&self, prefix: Prefix) -> Result<(), Limited> {
        self.take(Class::SignUp, Key::of(&prefix))
    }

    /// Counts a check of the password of `handle`, whether there is such an account or not.
    ///
    /// # Errors
    /// `RATE_LIMITED`.
    pub fn password(&self, handle: &str, prefix: Prefix) -> Result<(), Limited> {
        self.take(Class::LogIn, Key::of(&prefix))?;
        self.take(Class::Password, Key::of(&(handle, prefix)))?;
        self.take(Class::PasswordAnywhere, Key::of(&handle))
    }

    /// Counts a look-up.
    ///
    /// # Errors
    /// `RATE_LIMITED`; also for whoever has found nobody too often, before it is known whether this one would be found.
    pub fn look_up(&self, account: AccountId) -> Result<(), Limited> {
        self.take(Class::LookUp, Key::of(&account))?;
        let unknown = self.of(Class::Unknown).peek(Key::of(&account), Instant::now());
        unknown.map_err(|wait| Limited { class: Class::Unknown, wait })
    }

    /// Counts a look-up that found nobody. The answer is known already and is given.
    pub fn found_nobody(&self, account: AccountId) {
        // The peek before said that there is room; where two took it at once, one more slips through.
        let _ = self.of(Class::Unknown).take(Key::of(&account), 1, Instant::now());
    }

    /// Counts a question of history.
    ///
    /// # Errors
    /// `RATE_LIMITED`.
    pub fn history(&self, account: AccountId) -> Result<(), Limited> {
        self.take(Class::History, Key::of(&account))
    }

    /// Counts sends of a device and returns how many of them pass, and when the next would.
    pub fn sends(&self, device: DeviceId, count: usize) -> (usize, Duration) {
        let (buckets, key, now) = (self.of(Class::Send), Key::of(&device), Instant::now());
        let mut passed = 0;
        // Mostly all pass at once; else the largest part that does is found in a few steps.
        let mut step = count;
        let mut wait = Duration::ZERO;
        while passed < count && step > 0 {
            match buckets.take(key, step, now) {
                Ok(()) => passed += step,
                Err(until) => {
                    wait = until;
                    step /= 2;
                }
            }
            step = step.min(count - passed);
        }
        (passed, wait)
    }

    /// Counts a mark of what was read, with the sends: it passes if one send would, and then counts for each stretch, since each may
    /// become receipts.
    ///
    /// # Errors
    /// `RATE_LIMITED`.
    pub fn read(&self, device: DeviceId, stretches: usize) -> Result<(), Limited> {
        self.take(Class::Send, Key::of(&device))?;
        self.of(Class::Send).owe(Key::of(&device), stretches.saturating_sub(1), Instant::now());
        Ok(())
    }

    /// Counts a signal of a device.
    ///
    /// # Errors
    /// `RATE_LIMITED`.
    pub fn signal(&self, device: DeviceId) -> Result<(), Limited> {
        self.take(Class::Signal, Key::of(&device))
    }

    fn take(&self, class: Class, key: Key) -> Result<(), Limited> {
        self.of(class).take(key, 1, Instant::now()).map_err(|wait| Limited { class, wait })
    }

    fn of(&self, class: Class) -> &Buckets {
        &self.buckets[class as usize]
    }
}

/// A rate class is used up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limited {
    /// The class.
    pub class: Class,
    /// After which time the same try passes, if nobody else takes the place.
    pub wait: Duration,
}

impl Limited {
    /// Counts the refusal and returns what the peer is told.
    pub fn refuse(self, metrics: &Metrics) -> v1::Error {
        metrics.rate_refusals.get_or_create(&ClassLabel { class: self.class.name() }).inc();
        // Whole milliseconds, and never zero: that would mean "no advice".
        Reason::RateLimited.retry_after(self.wait + Duration::from_millis(1))
    }
}

#[cfg(test)]
mod tests;

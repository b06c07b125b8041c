//! Rate classes as an operator sets them.

use std::time::Duration;

/// Most tries that a burst or a period may have.
const TRIES_MAX: u32 = 1_000_000_000;

/// What tries are counted together, and for whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    /// Connections opened, per address prefix.
    Handshake,
    /// Accounts created, per address prefix.
    SignUp,
    /// Log-ins and password changes, per address prefix.
    LogIn,
    /// Checks of one account's password, per address prefix.
    Password,
    /// Checks of one account's password from anywhere.
    PasswordAnywhere,
    /// Look-ups, per account.
    LookUp,
    /// Look-ups that found nobody, per account.
    Unknown,
    /// Requests of any kind, per device, or per address prefix without a session.
    Request,
    /// Messages, and marks of what was read, per device.
    Send,
    /// Signals, per device.
    Signal,
    /// Questions of history, per account.
    History,
}

impl Class {
    /// Every class, in the order of the default configuration.
    pub const ALL: [Self; 11] = [
        Self::Handshake,
        Self::SignUp,
        Self::LogIn,
        Self::Password,
        Self::PasswordAnywhere,
        Self::LookUp,
        Self::Unknown,
        Self::Request,
        Self::Send,
        Self::Signal,
        Self::History,
    ];

    /// Returns the name of the class in the section `[rates]` and in metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Handshake => "handshake",
            Self::SignUp => "sign_up",
            Self::LogIn => "log_in",
            Self::Password => "password",
            Self::PasswordAnywhere => "password_anywhere",
            Self::LookUp => "look_up",
            Self::Unknown => "unknown",
            Self::Request => "request",
            Self::Send => "send",
            Self::Signal => "signal",
            Self::History => "history",
        }
    }
}

/// How often something may be tried: so many in a period, evenly spread, after a burst that passes at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    count: u32,
    period: Duration,
    /// How many pass at once after a rest.
    pub burst: u32,
}

impl Rate {
    /// Parses `20/s burst 200`, the period being one of `s`, `m`, `h` and `d`. The inner `None` is `off`: no limit.
    pub fn parse(text: &str) -> Option<Option<Self>> {
        if text == "off" {
            return Some(None);
        }
        let (rate, burst) = text.split_once(" burst ")?;
        let (count, period) = rate.split_once('/')?;
        let period = Duration::from_secs(match period {
            "s" => 1,
            "m" => 60,
            "h" => 3_600,
            "d" => 86_400,
            _ => return None,
        });
        Some(Some(Self { count: tries(count)?, period, burst: tries(burst)? }))
    }

    /// Returns the time between two tries that pass when nothing of the burst is left.
    pub fn interval(self) -> Duration {
        // Neither is zero.
        self.period / self.count
    }
}

fn tries(text: &str) -> Option<u32> {
    if !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    text.parse().ok().filter(|tries| (1..=TRIES_MAX).contains(tries))
}

/// The rate of every class.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateTable {
    rates: [Option<Rate>; Class::ALL.len()],
}

impl RateTable {
    /// Returns a table of rates in the order of [`Class::ALL`].
    pub fn new(rates: [Option<Rate>; Class::ALL.len()]) -> Self {
        Self { rates }
    }

    /// Returns the rate of a class; `None` is no limit.
    pub fn get(&self, class: Class) -> Option<Rate> {
        self.rates[class as usize]
    }

    /// Changes the rate of a class.
    pub fn set(&mut self, class: Class, rate: Option<Rate>) {
        self.rates[class as usize] = rate;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_has_a_count_a_period_and_a_burst() {
        let rate = Rate::parse("20/s burst 200").unwrap().unwrap();
        assert_eq!((rate.interval(), rate.burst), (Duration::from_millis(50), 200));
        let rate = Rate::parse("60/h burst 1").unwrap().unwrap();
        assert_eq!(rate.interval(), Duration::from_secs(60));
        assert_eq!(Rate::parse("off"), Some(None));
        let wrong =
            ["", "20", "20/s", "20/s burst", "20/s burst 0", "0/s burst 1", "-1/s burst 1", "20 /s burst 1"];
        for text in
            wrong.into_iter().chain(["20/w burst 1", "20/s  burst 1", "1.5/s burst 2", "Off", "+1/s burst 1"])
        {
            assert_eq!(Rate::parse(text), None, "{text}");
        }
        assert_eq!(Rate::parse("1/s burst 1000000001"), None);
    }

    #[test]
    fn classes_stand_at_their_own_place() {
        for (at, class) in Class::ALL.into_iter().enumerate() {
            assert_eq!(class as usize, at, "{}", class.name());
        }
    }
}

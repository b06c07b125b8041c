//! Tests of rate classes.

use std::net::Ipv4Addr;

use super::bucket::KEYS_MAX;
use super::*;
use crate::config::Rate;

fn rate(text: &str) -> Option<Rate> {
    Rate::parse(text).unwrap()
}

fn buckets(text: &str) -> (Buckets, Instant) {
    (Buckets::new(rate(text)), Instant::now())
}

fn all(text: &str) -> RateTable {
    RateTable::new(Class::ALL.map(|_| rate(text)))
}

fn address(last: u8) -> Prefix {
    Prefix::of(Ipv4Addr::new(192, 0, 2, last).into())
}

#[test]
fn a_burst_passes_and_then_one_per_interval() {
    let (buckets, now) = buckets("10/s burst 3");
    let key = Key::of(&1);
    for _ in 0..3 {
        assert_eq!(buckets.take(key, 1, now), Ok(()));
    }
    let wait = buckets.take(key, 1, now).unwrap_err();
    assert_eq!(wait, Duration::from_millis(100));
    assert_eq!(buckets.peek(key, now), Err(wait), "a refusal costs nothing");
    assert_eq!(buckets.take(key, 1, now + wait), Ok(()));
    assert!(buckets.take(key, 1, now + wait).is_err());
    assert_eq!(buckets.take(key, 3, now + wait + Duration::from_millis(300)), Ok(()));
    assert_eq!(buckets.take(Key::of(&2), 3, now), Ok(()), "another key has its own");
}

#[test]
fn more_than_a_burst_never_passes_at_once() {
    let (buckets, now) = buckets("1/s burst 3");
    assert!(buckets.take(Key::of(&1), 4, now).is_err());
    assert!(buckets.take(Key::of(&1), usize::MAX, now).is_err());
    assert_eq!(buckets.take(Key::of(&1), 3, now), Ok(()));
}

#[test]
fn off_is_no_limit_and_a_new_rate_counts_at_once() {
    let (buckets, now) = buckets("off");
    let key = Key::of(&1);
    assert_eq!(buckets.take(key, 1_000_000, now), Ok(()));
    buckets.set(rate("1/s burst 2"));
    assert_eq!(buckets.take(key, 2, now), Ok(()));
    assert!(buckets.take(key, 1, now).is_err());
    buckets.set(rate("1/s burst 4"));
    assert_eq!(buckets.take(key, 2, now), Ok(()), "what was used up stays used up");
    assert!(buckets.take(key, 1, now).is_err());
}

#[test]
fn a_flood_of_keys_shares_a_bucket_and_forgets_nobody() {
    let (buckets, now) = buckets("1/m burst 1");
    for number in 0..KEYS_MAX {
        assert_eq!(buckets.take(Key::of(&number), 1, now), Ok(()));
    }
    assert_eq!(buckets.take(Key::of(&"one more"), 1, now), Ok(()));
    assert!(buckets.take(Key::of(&"another"), 1, now).is_err(), "they share");
    assert!(buckets.take(Key::of(&0_usize), 1, now).is_err(), "who is known stays known");
    let later = now + Duration::from_secs(60);
    assert_eq!(buckets.take(Key::of(&"another"), 1, later), Ok(()), "all have paid and are forgotten");
}

#[test]
fn an_address_counts_by_its_prefix() {
    let of = |text: &str| Prefix::of(text.parse().unwrap());
    assert_eq!(of("192.0.2.1"), of("::ffff:192.0.2.1"));
    assert_ne!(of("192.0.2.1"), of("192.0.2.2"));
    assert_eq!(of("2001:db8:0:100::1"), of("2001:db8:0:1ff:ffff::"));
    assert_ne!(of("2001:db8:0:100::1"), of("2001:db8:0:200::1"));
}

#[test]
fn guesses_are_counted_for_the_account_at_one_address_and_anywhere() {
    let mut table = all("off");
    table.set(Class::Password, rate("1/h burst 3"));
    table.set(Class::PasswordAnywhere, rate("1/h burst 5"));
    let rates = Rates::new(&table);
    let class = |limited: Result<(), Limited>| limited.unwrap_err().class;
    for _ in 0..3 {
        assert_eq!(rates.password("ada", address(1)), Ok(()));
    }
    assert_eq!(class(rates.password("ada", address(1))), Class::Password);
    assert_eq!(rates.password("ada", address(2)), Ok(()), "the owner elsewhere is not locked out");
    assert_eq!(rates.password("bob", address(1)), Ok(()));
    assert_eq!(rates.password("ada", address(3)), Ok(()));
    assert_eq!(class(rates.password("ada", address(4))), Class::PasswordAnywhere);
}

#[test]
fn who_finds_nobody_too_often_finds_nobody_at_all() {
    let mut table = all("off");
    table.set(Class::Unknown, rate("2/d burst 2"));
    let rates = Rates::new(&table);
    let account = AccountId([1; 16]);
    for _ in 0..2 {
        assert_eq!(rates.look_up(account), Ok(()));
        rates.found_nobody(account);
    }
    assert_eq!(rates.look_up(account).unwrap_err().class, Class::Unknown);
    assert_eq!(rates.look_up(AccountId([2; 16])), Ok(()));
}

#[test]
fn of_a_batch_of_sends_as_many_pass_as_there_is_room_for() {
    let rates = Rates::new(&all("1/h burst 100"));
    let device = DeviceId([1; 16]);
    assert_eq!(rates.sends(device, 60), (60, Duration::ZERO));
    let (passed, wait) = rates.sends(device, 77);
    assert_eq!(passed, 40);
    // The clock went on a little since.
    assert!(wait <= Duration::from_secs(3600) && wait > Duration::from_secs(3500), "{wait:?}");
    assert_eq!(rates.sends(device, 1).0, 0);
    assert_eq!(rates.sends(device, 0), (0, Duration::ZERO));
}

#[test]
fn a_mark_passes_like_a_send_and_counts_for_all_of_its_stretches() {
    let rates = Rates::new(&all("1/h burst 3"));
    let device = DeviceId([1; 16]);
    assert!(rates.read(device, 64).is_ok(), "more than a burst passes, too");
    let refused = rates.read(device, 1).unwrap_err();
    assert!(refused.wait > Duration::from_secs(61 * 3600), "{:?}", refused.wait);
    assert_eq!(rates.sends(device, 1).0, 0);
    assert!(rates.read(DeviceId([2; 16]), 0).is_ok());
}

#[test]
fn a_refusal_is_counted_and_says_when() {
    let metrics = Metrics::new();
    let error = Limited { class: Class::SignUp, wait: Duration::from_micros(10) }.refuse(&metrics);
    assert_eq!((error.reason(), error.retry_after_ms, error.temporary), (Reason::RateLimited, 1, true));
    assert!(metrics.render().unwrap().contains("quail_rate_refusals_total{class=\"sign_up\"} 1"));
}

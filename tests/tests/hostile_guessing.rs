//! Guessing: passwords and handles are tried no faster than the rate classes allow, and their owners are not kept out.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // Test code outside of #[test] functions.

use quail_client::Guest;
use quail_protocol::v1::{self, Reason, request, response};
use quail_tests::hostile::{Bystanders, metric};
use quail_tests::raw::{self, RawClient};
use quail_tests::{PASSWORD, World, options};

/// Guesses of one password that pass at once by default.
const BURST: usize = 10;

fn guess(number: usize) -> request::Command {
    let password = format!("a guess {number:>8}");
    request::Command::LogIn(v1::LogIn {
        handle: "ada".to_owned(),
        password,
        device_name: "mallory".to_owned(),
    })
}

fn reason(answer: response::Result) -> v1::Error {
    match answer {
        response::Result::Error(error) => error,
        other => panic!("expected a refusal, got {other:?}"),
    }
}

/// A client at another address of this machine.
async fn greeted(world: &World, ip: [u8; 4]) -> RawClient {
    let client = RawClient::connect_from(&world.address(), ip).await;
    assert!(matches!(client.hello(raw::hello(b"")).await, v1::hello_reply::Result::Welcome(_)));
    client
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn guesses_end_early_and_neither_owner_nor_others_notice() {
    let world = World::start().await;
    let ada = world.sign_up("ada").await;
    let mut bystanders = Bystanders::join(&world).await;
    let mischief = async {
        let mallory = greeted(&world, [127, 0, 0, 66]).await;
        let mut reasons = Vec::new();
        for number in 0..30 {
            let error = reason(mallory.request(guess(number)).await);
            assert_eq!(error.retry_after_ms > 0, error.reason() == Reason::RateLimited);
            reasons.push(error.reason());
        }
        assert_eq!(reasons[..BURST], [Reason::WrongCredentials; BURST]);
        assert!(reasons[BURST..].iter().all(|reason| *reason == Reason::RateLimited), "{reasons:?}");
        // The right password does not pass there either, or it would show by passing.
        let right = v1::LogIn { handle: "ada".into(), password: PASSWORD.into(), device_name: String::new() };
        let error = reason(mallory.request(request::Command::LogIn(right)).await);
        assert_eq!(error.reason(), Reason::RateLimited);
    };
    let ((), seen) = bystanders.watch(&world, mischief).await;
    seen.assert_undisturbed();
    assert_eq!(metric(&world, "quail_rate_refusals_total{class=\"password\"}").await, 21.0);
    assert_eq!(
        metric(&world, "quail_commands_total{command=\"log_in\",result=\"RATE_LIMITED\"}").await,
        21.0
    );
    // At home the owner gets in, on a new device and on the old one.
    world.log_in("ada").await;
    ada.open().await.close().await.unwrap();
}

#[tokio::test]
async fn one_address_checks_no_more_passwords_than_its_share_whosever_they_are() {
    let world = World::start_with(|options| {
        options.env.push(("QUAIL_RATES_LOG_IN".into(), "1/h burst 3".into()));
    })
    .await;
    let mallory = greeted(&world, [127, 0, 0, 66]).await;
    let mut reasons = Vec::new();
    for number in 0..5 {
        let log_in = v1::LogIn {
            handle: format!("somebody.{number}"),
            password: PASSWORD.to_owned(),
            device_name: String::new(),
        };
        reasons.push(reason(mallory.request(request::Command::LogIn(log_in)).await).reason());
    }
    assert_eq!(reasons[..3], [Reason::WrongCredentials; 3]);
    assert_eq!(reasons[3..], [Reason::RateLimited; 2]);
    // Elsewhere nothing is used up.
    let other = greeted(&world, [127, 0, 0, 67]).await;
    assert_eq!(reason(other.request(guess(0)).await).reason(), Reason::WrongCredentials);
}

#[tokio::test]
async fn accounts_are_created_no_faster_than_an_address_may() {
    let world = World::start_with(|options| {
        options.env.push(("QUAIL_RATES_SIGN_UP".into(), "1/h burst 2".into()));
    })
    .await;
    let guest = async || Guest::connect(&world.address(), options()).await.unwrap();
    for handle in ["one", "two"] {
        guest().await.sign_up(handle, PASSWORD, None).await.unwrap();
    }
    let error = guest().await.sign_up("three", PASSWORD, None).await.unwrap_err();
    assert_eq!(error.reason(), Some(Reason::RateLimited));
    assert_eq!(metric(&world, "quail_rate_refusals_total{class=\"sign_up\"}").await, 1.0);
}

#[tokio::test]
async fn who_looks_for_handles_that_nobody_has_soon_finds_nobody_at_all() {
    let world = World::start_with(|options| {
        options.env.push(("QUAIL_RATES_UNKNOWN".into(), "1/d burst 4".into()));
    })
    .await;
    let mallory = world.sign_up("mallory").await;
    world.sign_up("bob").await;
    world.sign_up("carl").await;
    let client = mallory.open().await;
    for number in 0..4 {
        let error = client.look_up(&format!("nobody.{number}")).await.unwrap_err();
        assert_eq!(error.reason(), Some(Reason::UnknownAccount));
        client.look_up("bob").await.unwrap();
    }
    for handle in ["nobody.5", "carl"] {
        let error = client.look_up(handle).await.unwrap_err();
        assert_eq!(error.reason(), Some(Reason::RateLimited), "{handle}");
    }
    let ada = world.sign_up("ada").await.open().await;
    ada.look_up("bob").await.unwrap();
}

#[tokio::test]
async fn a_device_that_sends_too_fast_is_slowed_and_loses_nothing() {
    let world = World::start_with(|options| {
        options.env.push(("QUAIL_RATES_SEND".into(), "200/s burst 50".into()));
    })
    .await;
    let (ada, bob) = (world.sign_up("ada").await, world.sign_up("bob").await);
    let (sender, receiver) = (ada.open().await, bob.open().await);
    let mut events = receiver.events().await.unwrap();
    let mut sending = Vec::new();
    for number in 0..150 {
        sending.push(sender.send(bob.account(), format!("{number}")).await.unwrap());
    }
    for number in 0..150 {
        assert_eq!(quail_tests::text(&quail_tests::next_message(&mut events).await), format!("{number}"));
    }
    for sending in sending {
        sending.accepted().await.unwrap();
    }
    assert!(metric(&world, "quail_rate_refusals_total{class=\"send\"}").await > 0.0);
}

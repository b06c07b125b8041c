//! Guessing: passwords and handles are tried no faster than the rate classes allow, and their owners are not kept out.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // Test code outside of #[test] functions.

use std::time::Instant;

use quail_client::Guest;
use quail_protocol::v1::{self, Reason, request, response};
use quail_tests::hostile::{Bystanders, closed, metric};
use quail_tests::raw::{self, RawClient};
use quail_tests::{PASSWORD, World, options};

/// Guesses of one password that pass at once by default.
const BURST: usize = 10;

/// Refusals that a connection may meet at once.
const REFUSALS: usize = 32;

fn guess(number: usize) -> request::Command {
    let password = format!("a guess {number:>8}");
    request::Command::LogIn(v1::LogIn {
        handle: "ada".to_owned(),
        password,
        device_name: "mallory".to_owned(),
        ..Default::default()
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
        for number in 0..20 {
            let error = reason(mallory.request(guess(number)).await);
            assert_eq!(error.retry_after_ms > 0, error.reason() == Reason::RateLimited);
            reasons.push(error.reason());
        }
        assert_eq!(reasons[..BURST], [Reason::WrongCredentials; BURST]);
        assert!(reasons[BURST..].iter().all(|reason| *reason == Reason::RateLimited), "{reasons:?}");
        // The right password does not pass there either, or it would show by passing.
        let right = v1::LogIn { handle: "ada".into(), password: PASSWORD.into(), ..Default::default() };
        let error = reason(mallory.request(request::Command::LogIn(right)).await);
        assert_eq!(error.reason(), Reason::RateLimited);
        // Who goes on is closed, long before the time is over that a connection has without a session.
        let mut limited = 20 - BURST + 1;
        while let Some(answer) = mallory.try_request(guess(limited)).await {
            assert_eq!(reason(answer).reason(), Reason::RateLimited);
            limited += 1;
            assert!(limited < 1_000, "guesses are refused to no end");
        }
        assert_eq!(mallory.closed().await, Reason::RateLimited);
        limited as f64
    };
    let (limited, seen) = bystanders.watch(&world, mischief).await;
    seen.assert_undisturbed();
    // The answer to the last one may be overtaken by the end.
    let limited = limited..=limited + 1.0;
    let refused = metric(&world, "quail_rate_refusals_total{class=\"password\"}").await;
    assert!(limited.contains(&refused), "{refused}, not {limited:?}");
    let answered = metric(&world, "quail_commands_total{command=\"log_in\",result=\"RATE_LIMITED\"}").await;
    assert!(limited.contains(&answered), "{answered}, not {limited:?}");
    assert_eq!(closed(&world, Reason::RateLimited).await, 1.0);
    // At home the owner gets in, on a new device and on the old one.
    world.log_in("ada").await;
    ada.open().await.close().await.unwrap();
}

#[tokio::test]
async fn every_guess_counts_towards_the_end_of_a_connection_with_a_session() {
    let world = World::start().await;
    let ada = world.sign_up("ada").await;
    // As somebody would who found her telephone open.
    let client = RawClient::resume(&world.address(), ada.credentials.token.as_bytes()).await;
    let began = Instant::now();
    let change = |number: usize| {
        let (current_password, new_password) = (format!("a guess {number:>8}"), PASSWORD.to_owned());
        request::Command::ChangePassword(v1::ChangePassword { current_password, new_password })
    };
    let mut reasons = Vec::new();
    while let Some(answer) = client.try_request(change(reasons.len())).await {
        reasons.push(reason(answer).reason());
        assert!(reasons.len() < 1_000, "guesses are refused to no end");
    }
    assert_eq!(client.closed().await, Reason::RateLimited);
    assert_eq!(reasons[..BURST], [Reason::WrongCredentials; BURST]);
    assert!(reasons[BURST..].iter().all(|reason| *reason == Reason::RateLimited), "{reasons:?}");
    // The wrong ones were counted as well as those that were not looked at. One a second is forgiven, and what is under way when
    // the budget is used up is still answered.
    let more = began.elapsed().as_secs() as usize + 4;
    assert!(reasons.len() <= REFUSALS + more, "{} guesses, {more} over the budget at most", reasons.len());
    assert_eq!(closed(&world, Reason::RateLimited).await, 1.0);
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
            ..Default::default()
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

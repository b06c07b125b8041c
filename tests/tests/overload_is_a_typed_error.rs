//! Promise: who sends more than the disk takes is told so by a typed error with a time to come back, and nobody else pays for
//! it. Above half of what may wait, senders above their fair share are refused and the others are served; at the end
//! everybody's sends are left unread for up to two seconds and then refused. Whatever makes room goes on all the while, and when there
//! is room the daemon takes messages again by itself. Nothing that was accepted is lost, and nothing arrives that was refused.
//!
//! Nothing is moved into the settled store here while a file is there, so that it stays as full as a test has made it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // Test code outside of #[test] functions.

use std::collections::HashSet;
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use quail_protocol::id::AccountId;
use quail_protocol::v1::event::Body;
use quail_protocol::v1::{self, Reason, feed_down, publish_down};
use quail_tests::raw::{self, RawClient, RawStream};
use quail_tests::{Person, World, expect, next_message, quaild_with, text};
use tempfile::TempDir;
use tokio::task::JoinSet;

/// What may wait: the least that can be configured.
const UNSETTLED_BYTES: u64 = 32 * MIB;

/// The share of a sender once half of it waits: a 64th of the other half.
const SHARE_BYTES: u64 = UNSETTLED_BYTES / 2 / 64;

const MIB: u64 = 1024 * 1024;

/// Size of the messages of who sends much, in bytes.
const BULK_BYTES: usize = 50_000;

/// Senders whose shares together are more than what is left.
const CROWD: u64 = 66;

/// How long a publish lane is left unread at most.
const HOLD: Duration = Duration::from_secs(2);

/// How much longer an answer may take on a busy machine.
const SLACK: Duration = Duration::from_secs(2);

/// How soon a daemon must find that there is room again.
const SOON: Duration = Duration::from_secs(10);

/// A daemon whose events stay in memory until the test lets go.
struct Held {
    world: World,
    _directory: TempDir,
    file: PathBuf,
}

impl Held {
    async fn start() -> Option<Self> {
        let program = quaild_with("failpoints")?;
        let directory = TempDir::new().unwrap();
        let file = directory.path().join("held");
        fs::write(&file, "").unwrap();
        let world = World::start_with(|options| {
            options.quaild = program;
            options.env.push(("QUAIL_SPILL_HELD".into(), file.clone().into()));
            options
                .env
                .push(("QUAIL_LIMITS_UNSETTLED".into(), format!("{}MiB", UNSETTLED_BYTES / MIB).into()));
            for rate in ["SEND", "REQUEST", "SIGN_UP", "HANDSHAKE"] {
                options.env.push((format!("QUAIL_RATES_{rate}").into(), "off".into()));
            }
        });
        Some(Self { world: world.await, _directory: directory, file })
    }

    fn let_go(&self) {
        fs::remove_file(&self.file).unwrap();
    }
}

/// Somebody who sends by hand, one message after the other on one lane.
struct Sender {
    _client: RawClient,
    lane: RawStream,
    number: u64,
    /// Positions of what was accepted.
    accepted: HashSet<u64>,
}

impl Sender {
    async fn connect(world: &World, person: &Person) -> Self {
        let client = RawClient::resume(&world.address(), person.credentials.token.as_bytes()).await;
        let lane = client.publish().await;
        Self { _client: client, lane, number: 0, accepted: HashSet::new() }
    }

    /// Sends a message; returns with which error it was refused, if it was.
    async fn send(&mut self, to: AccountId, body: &str) -> Result<(), v1::Error> {
        self.number += 1;
        match self.lane.say(raw::send(self.number, to, body)).await {
            publish_down::Frame::Accepted(accepted) => {
                assert!(self.accepted.insert(accepted.position));
                Ok(())
            }
            publish_down::Frame::Refused(refused) => {
                // What is refused for now may be sent again, under the same number.
                self.number -= 1;
                let restart = v1::publish_up::Frame::Restart(v1::Restart {});
                self.lane.write(&v1::PublishUp { frame: Some(restart) }).await;
                Err(refused.error.expect("a reason"))
            }
        }
    }

    /// Sends as much as is accepted, and returns why no more was.
    async fn send_all(&mut self, to: AccountId) -> v1::Error {
        let body = "x".repeat(BULK_BYTES);
        loop {
            if let Err(error) = self.send(to, &body).await {
                return error;
            }
        }
    }

    fn bytes(&self) -> u64 {
        self.accepted.len() as u64 * BULK_BYTES as u64
    }
}

fn assert_overloaded(error: &v1::Error) {
    assert_eq!(error.reason(), Reason::Overloaded, "{error:?}");
    assert!(error.temporary, "{error:?}");
    assert!((1..=1_000).contains(&error.retry_after_ms), "{error:?}");
}

/// Sends until it is accepted, as often as the daemon says, and returns how long that took.
async fn accepted_again(sender: &mut Sender, to: AccountId) -> Duration {
    let began = Instant::now();
    while let Err(error) = sender.send(to, "is there room?").await {
        assert_overloaded(&error);
        assert!(began.elapsed() < SOON, "still refused {:?} after there was room", began.elapsed());
        tokio::time::sleep(Duration::from_millis(error.retry_after_ms)).await;
    }
    began.elapsed()
}

/// Takes everything that waits for somebody, and returns the positions of the messages.
async fn take_all(world: &World, person: &Person) -> HashSet<u64> {
    let client = RawClient::resume(&world.address(), person.credentials.token.as_bytes()).await;
    let mut feed = client.attach(1, vec![]).await;
    let mut taken = HashSet::new();
    loop {
        match feed.feed().await {
            feed_down::Frame::Event(event) => {
                feed.ack(event.origin, event.position).await;
                if let Some(Body::Message(_)) = event.body {
                    assert!(taken.insert(event.position), "{} came twice", event.position);
                }
            }
            feed_down::Frame::CaughtUp(_) => return taken,
            other => panic!("unexpected {other:?}"),
        }
    }
}

#[tokio::test]
async fn who_sends_too_much_is_refused_and_everybody_else_is_served() {
    let Some(held) = Held::start().await else { return };
    let world = &held.world;
    let (ada, bob) = (world.sign_up("ada").await, world.sign_up("bob").await);
    let (cyd, dora) = (world.sign_up("cyd").await, world.sign_up("dora").await);
    let mut bulk = Sender::connect(world, &ada).await;
    let error = bulk.send_all(bob.account()).await;
    assert_overloaded(&error);
    println!("refused after {} KiB: {error:?}", bulk.bytes() / 1024);
    let half = UNSETTLED_BYTES / 2;
    let most = half + SHARE_BYTES + 4 * BULK_BYTES as u64;
    assert!((half - MIB..most).contains(&bulk.bytes()), "{} bytes accepted", bulk.bytes());

    let (sender, receiver) = (cyd.open().await, dora.open().await);
    let mut events = receiver.events().await.unwrap();
    for number in 0..50 {
        let sending = sender.send(dora.account(), format!("{number}")).await.unwrap();
        expect("an answer", sending.accepted()).await.unwrap();
        assert_eq!(text(&next_message(&mut events).await), format!("{number}"));
        expect("a receipt", sending.delivered()).await.unwrap();
        if number % 10 == 0 {
            assert_overloaded(&bulk.send(bob.account(), "may I now?").await.unwrap_err());
        }
    }

    // Acknowledgements make room: nothing that is taken needs to be written to the settled store any more.
    assert_eq!(take_all(world, &bob).await, bulk.accepted);
    println!("accepted again after {:?}", accepted_again(&mut bulk, bob.account()).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_nothing_more_fits_everybody_waits_and_is_refused_until_there_is_room() {
    let Some(mut held) = Held::start().await else { return };
    let world = &held.world;
    let away = [world.sign_up("bob").await, world.sign_up("cyd").await];
    let (ada, dora) = (world.sign_up("ada").await, world.sign_up("dora").await);
    let (eve, fay) = (world.sign_up("eve").await, world.sign_up("fay").await);
    // Dora sends now and then, on a lane that was open before.
    let mut now_and_then = Sender::connect(world, &dora).await;
    now_and_then.send(away[0].account(), "hello").await.unwrap();
    // Fay has not looked yet.
    let talker = eve.open().await;
    let mut sendings = Vec::new();
    for number in 0..20 {
        sendings.push(talker.send(fay.account(), format!("{number}")).await.unwrap());
    }
    talker.flush().await.unwrap();

    let mut accepted = fill(world, &away).await;
    let began = Instant::now();
    let error = now_and_then.send(away[0].account(), "and now?").await.unwrap_err();
    let took = began.elapsed();
    assert_overloaded(&error);
    println!("refused after {took:?}: {error:?}");
    assert!(took >= HOLD - Duration::from_millis(100), "refused after {took:?} without having been held");
    assert!(took <= HOLD + SLACK, "held for {took:?}");
    // A client that comes now is held too, and sends by itself when there is room.
    let (late, patient) = (ada.open().await, ada.account());
    let waiting = late.send(patient, "whenever you can").await.unwrap();

    let reader = fay.open().await;
    let mut events = reader.events().await.unwrap();
    for (number, sending) in sendings.iter().enumerate() {
        assert_eq!(text(&next_message(&mut events).await), format!("{number}"));
        expect("a receipt", sending.delivered()).await.unwrap();
    }
    reader.ping().await.unwrap();
    assert_overloaded(&now_and_then.send(away[0].account(), "and now?").await.unwrap_err());
    let is_accepted = tokio::time::timeout(Duration::ZERO, waiting.accepted()).await;
    assert!(is_accepted.is_err(), "accepted although nothing more fits");

    held.let_go();
    println!("accepted again after {:?}", accepted_again(&mut now_and_then, away[0].account()).await);
    expect("the patient client's message", waiting.accepted()).await.unwrap();
    accepted.extend(now_and_then.accepted);
    held.world.kill_and_restart().await;
    let mut taken = HashSet::new();
    for person in &away {
        taken.extend(take_all(&held.world, person).await);
    }
    assert!(taken == accepted, "{} messages were accepted, {} arrived", accepted.len(), taken.len());
}

/// Lets many people send until nothing more fits, and returns the positions of what was accepted.
async fn fill(world: &World, away: &[Person; 2]) -> HashSet<u64> {
    let mut crowd = JoinSet::new();
    for n in 0..CROWD {
        let person = world.sign_up(&format!("crowd{n}")).await;
        let mut sender = Sender::connect(world, &person).await;
        let to = away[(n % 2) as usize].account();
        crowd.spawn(async move {
            let error = sender.send_all(to).await;
            assert_overloaded(&error);
            sender
        });
    }
    let mut accepted = HashSet::new();
    while let Some(sender) = expect("a refusal", crowd.join_next()).await {
        accepted.extend(sender.unwrap().accepted);
    }
    let bytes = accepted.len() as u64 * BULK_BYTES as u64;
    println!("{} KiB were accepted of {CROWD} senders", bytes / 1024);
    let most = UNSETTLED_BYTES + CROWD * BULK_BYTES as u64;
    assert!((UNSETTLED_BYTES - MIB..most).contains(&bytes), "{bytes} bytes were accepted");
    accepted
}

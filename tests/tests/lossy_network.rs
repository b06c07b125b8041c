//! Promise: all of it holds over a bad network: nothing is lost, shown twice, out of order or confirmed untruly, whatever the
//! network loses, doubles, reorders, holds back or forgets.
//!
//! `QUAIL_SEED=17` gives the network the dice of an earlier run, `QUAIL_ROUNDS=100` makes the changing weather last longer.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // Test code outside of #[test] functions.

use std::sync::Arc;
use std::time::{Duration, Instant};

use quail_client::ConnectionState;
use quail_tests::checker::Terms;
use quail_tests::proxy::{Direction, Faults, Proxy};
use quail_tests::witness::{Record, Witness};
use quail_tests::{Chance, Person, World, expect, rounds, seed};

/// A run in which no outbox overflows and everybody waits for the receipts.
const STRICT: Terms = Terms { gaps: false, receipts: true };

/// Messages of each of the two who send, in tests of one fault.
const EACH: usize = 150;

/// Every so many messages their recipient answers one.
const ANSWERED: usize = 10;

/// Two who send much, two who get it and answer now and then, all behind one network.
struct Scene {
    world: World,
    proxy: Proxy,
    record: Arc<Record>,
    people: [Person; 4],
    devices: [Witness; 4],
    /// Messages to each.
    expected: [usize; 4],
    /// Messages of each of the two who send.
    sent: usize,
}

/// Who is who among them.
const SENDERS: [usize; 2] = [0, 1];
const RECIPIENTS: [usize; 2] = [2, 3];

impl Scene {
    async fn begin(seed: u64) -> Self {
        let world = World::start().await;
        let proxy = Proxy::before(&world, seed);
        let record = Record::new();
        let mut people = Vec::new();
        for handle in ["ada", "cyd", "bob", "dora"] {
            people.push(world.sign_up(handle).await.by_way_of(proxy.address(&world)));
        }
        let mut devices = Vec::new();
        for person in &people {
            devices.push(Witness::join(person, &record).await);
        }
        let people = people.try_into().ok().expect("four");
        let devices = devices.try_into().ok().expect("four");
        Self { world, proxy, record, people, devices, expected: [0; 4], sent: 0 }
    }

    /// Everybody sends; the two senders so many messages each, to both recipients in turn.
    async fn talk(&mut self, count: usize) {
        for _ in 0..count {
            // Apart in time, so that they travel in many packets.
            tokio::time::sleep(Duration::from_millis(2)).await;
            self.sent += 1;
            for sender in SENDERS {
                let recipient = RECIPIENTS[(self.sent + sender) % 2];
                self.send(sender, recipient).await;
                if self.sent.is_multiple_of(ANSWERED) {
                    self.send(recipient, sender).await;
                }
            }
        }
    }

    async fn send(&mut self, from: usize, to: usize) {
        let body = format!("{from} to {to}: {} {}", self.sent, "x".repeat(self.sent % 300));
        self.devices[from].send(self.people[to].account(), &body).await;
        self.expected[to] += 1;
    }

    /// Waits until this part of everything sent so far has been shown.
    async fn flows(&self, part: f64) {
        for recipient in RECIPIENTS {
            let count = (self.expected[recipient] as f64 * part) as usize;
            self.devices[recipient].has_shown(count).await;
        }
    }

    fn reconnects(&self) -> u64 {
        self.devices.iter().map(|device| device.client.stats().reconnects).sum()
    }

    /// Waits until everything has come to rest over the network as it is, and judges the run.
    async fn finish(self) {
        for (device, expected) in self.devices.iter().zip(self.expected) {
            device.has_shown(expected).await;
        }
        for device in &self.devices {
            device.has_receipts().await;
        }
        for direction in Direction::BOTH {
            println!("{direction:?} {:?}", self.proxy.counts(direction));
        }
        println!("{} reconnects", self.reconnects());
        self.proxy.heal();
        for device in &self.devices {
            expect("the client to close", device.client.close()).await.expect("nothing is unanswered");
        }
        self.record.assert_kept(STRICT);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_arrives_once_and_in_order_though_three_in_ten_packets_are_lost_both_ways() {
    let mut scene = Scene::begin(seed()).await;
    scene.proxy.set_both(Faults::losing(0.3));
    scene.talk(EACH).await;
    scene.flows(1.0).await;
    for direction in Direction::BOTH {
        let counts = scene.proxy.counts(direction);
        assert!(counts.lost > 0, "the network lost nothing: {counts:?}");
    }
    scene.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn round_trips_of_300_ms_delay_everything_and_hold_nothing_up() {
    let mut scene = Scene::begin(seed()).await;
    let round_trip = Duration::from_millis(300);
    scene.proxy.set_both(Faults::slow(round_trip / 2));
    let report = scene.devices[0].client.ping().await.unwrap();
    assert!(report.round_trip >= round_trip, "{report:?}");
    let began = Instant::now();
    scene.talk(EACH).await;
    scene.flows(1.0).await;
    // One message for each round trip would take four times as long.
    let longest = round_trip * EACH as u32 / 4;
    assert!(began.elapsed() < longest, "{EACH} messages from each took {:?}", began.elapsed());
    scene.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn packets_that_come_twice_or_late_change_nothing() {
    let mut scene = Scene::begin(seed()).await;
    let reorder_by = Duration::from_millis(15);
    scene.proxy.set_both(Faults { duplication: 0.2, reorder: 0.2, reorder_by, ..Faults::default() });
    scene.talk(EACH).await;
    scene.flows(1.0).await;
    for direction in Direction::BOTH {
        let counts = scene.proxy.counts(direction);
        assert!(counts.duplicated > 0 && counts.delayed > 0, "{counts:?}");
    }
    scene.finish().await;
}

/// How often the network forgets everybody's port.
const REBINDS: usize = 8;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_goes_on_when_a_router_on_the_way_forgets_it() {
    let mut scene = Scene::begin(seed()).await;
    for _ in 0..REBINDS {
        scene.talk(EACH / REBINDS).await;
        // Some of it is still on its way.
        scene.flows(0.9).await;
        assert_eq!(scene.proxy.rebind().await, 4, "each device has its flow");
    }
    scene.talk(EACH / REBINDS).await;
    scene.flows(1.0).await;
    assert_eq!(scene.reconnects(), 0);
    scene.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_seconds_in_which_nothing_comes_through_lose_nothing() {
    let mut scene = Scene::begin(seed()).await;
    scene.talk(EACH / 2).await;
    scene.flows(0.5).await;
    scene.proxy.blackhole_both(true);
    scene.talk(EACH / 2).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    scene.proxy.blackhole_both(false);
    let lifted = Instant::now();
    scene.flows(1.0).await;
    println!("flows again after {:?}", lifted.elapsed());
    // QUIC asks ever more seldom, and who had much on the way asks nothing else: so it may take as long again, and the SDK
    // may give the connection up meanwhile, once.
    assert!(scene.devices.iter().all(|device| device.client.stats().reconnects <= 1));
    scene.finish().await;
}

/// A sender and a recipient, one of them behind the network.
struct Pair {
    ada: Witness,
    bob: Witness,
    to: quail_client::AccountId,
    proxy: Proxy,
    record: Arc<Record>,
    _world: World,
}

/// Messages that go before the fault, and while it lasts.
const BEFORE: usize = 20;
const MEANWHILE: usize = 100;

impl Pair {
    /// The message count before the fault has been sent and has come to rest.
    async fn begin(sender_is_behind: bool) -> Self {
        let world = World::start().await;
        let proxy = Proxy::before(&world, seed());
        let record = Record::new();
        let (mut ada, mut bob) = (world.sign_up("ada").await, world.sign_up("bob").await);
        let behind = if sender_is_behind { &mut ada } else { &mut bob };
        *behind = behind.by_way_of(proxy.address(&world));
        let (ada, bob, to) =
            (Witness::join(&ada, &record).await, Witness::join(&bob, &record).await, bob.account());
        let mut pair = Self { ada, bob, to, proxy, record, _world: world };
        pair.send(BEFORE).await;
        pair.bob.has_shown(BEFORE).await;
        pair.ada.has_receipts().await;
        pair
    }

    async fn send(&mut self, count: usize) {
        for number in 0..count {
            self.ada.send(self.to, &format!("message {number}")).await;
        }
    }

    async fn finish(self) {
        self.bob.has_shown(BEFORE + MEANWHILE).await;
        self.ada.has_receipts().await;
        for device in [&self.ada, &self.bob] {
            expect("the client to close", device.client.close()).await.expect("nothing is unanswered");
        }
        assert_eq!(self.bob.client.stats().duplicates_dropped, 0, "nothing is stored twice");
        self.record.assert_kept(STRICT);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_delivered_while_acknowledgements_are_lost_and_everything_after() {
    let mut pair = Pair::begin(false).await;
    pair.proxy.blackhole(Direction::Up, true);
    let dark = Instant::now();
    pair.send(MEANWHILE).await;
    pair.ada.has_answers(BEFORE + MEANWHILE).await;
    pair.bob.has_shown(BEFORE + 1).await;
    tokio::time::sleep_until((dark + Duration::from_secs(2)).into()).await;
    assert_eq!(pair.ada.progress().delivered, BEFORE, "no acknowledgement can have come");
    pair.proxy.blackhole(Direction::Up, false);
    pair.bob.has_shown(BEFORE + MEANWHILE).await;
    pair.ada.has_receipts().await;
    assert_eq!(pair.bob.client.stats().reconnects, 0);
    pair.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_accepted_and_the_answer_lost_is_sent_again_once_and_stored_once() {
    let mut pair = Pair::begin(true).await;
    pair.proxy.blackhole(Direction::Down, true);
    pair.send(MEANWHILE).await;
    // The recipient has it all, so the daemon has accepted it all; the sender knows nothing of that.
    pair.bob.has_shown(BEFORE + MEANWHILE).await;
    assert_eq!(pair.ada.progress().answered, BEFORE, "no answer can have come");
    let mut state = pair.ada.client.state();
    let gives_up = state.wait_for(|state| matches!(state, ConnectionState::Waiting { .. }));
    drop(expect("the client to give the connection up", gives_up).await.unwrap());
    pair.proxy.blackhole(Direction::Down, false);
    pair.ada.has_answers(BEFORE + MEANWHILE).await;
    let stats = pair.ada.client.stats();
    assert_eq!((stats.reconnects, stats.resent), (1, MEANWHILE as u64));
    pair.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_that_are_late_by_two_seconds_make_nobody_send_again() {
    let mut pair = Pair::begin(true).await;
    pair.proxy.blackhole(Direction::Down, true);
    let dark = Instant::now();
    pair.send(MEANWHILE).await;
    pair.bob.has_shown(BEFORE + MEANWHILE).await;
    tokio::time::sleep_until((dark + Duration::from_secs(2)).into()).await;
    assert_eq!(pair.ada.progress().answered, BEFORE, "no answer can have come");
    pair.proxy.blackhole(Direction::Down, false);
    pair.ada.has_answers(BEFORE + MEANWHILE).await;
    let stats = pair.ada.client.stats();
    assert_eq!((stats.reconnects, stats.resent), (0, 0));
    pair.finish().await;
}

/// Draws a bad network of no kind in particular.
fn weather(chance: &mut Chance) -> Faults {
    let mut fraction = |most: u64| chance.below(most) as f64 / 100.0;
    let (loss, duplication, reorder) = (fraction(30), fraction(20), fraction(20));
    let mut millis = |most: u64| Duration::from_millis(chance.below(most));
    let (delay, jitter, reorder_by) = (millis(60), millis(20), millis(30));
    Faults { loss, duplication, delay, jitter, reorder, reorder_by, blackhole: chance.below(12) == 0 }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_promise_holds_in_changing_weather_over_crashes_of_the_daemon() {
    let seed = seed();
    let mut chance = Chance(seed);
    let mut scene = Scene::begin(seed).await;
    for round in 0..rounds(8) {
        for direction in Direction::BOTH {
            scene.proxy.set(direction, weather(&mut chance));
        }
        scene.talk(1 + chance.below(40) as usize).await;
        match chance.below(4) {
            0 => drop(scene.proxy.rebind().await),
            1 => scene.world.kill_and_restart().await,
            _ => {}
        }
        // Sometimes the weather changes before anything is through.
        if chance.below(2) == 0 {
            Direction::BOTH.into_iter().for_each(|direction| scene.proxy.blackhole(direction, false));
            scene.flows(0.9).await;
        }
        println!("round {round}: {} sent by each, {} reconnects", scene.sent, scene.reconnects());
    }
    scene.proxy.blackhole_both(false);
    scene.finish().await;
}

//! The network does what it was told, each fault apart, and the same again with the same seed.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::net::UdpSocket;

use super::late::Late;
use super::{Cause, Counts, Dice, Direction, FLOWS_MAX, Fate, Faults, LATE_PACKETS_MAX, Proxy};
use crate::expect;

const HOLD: Duration = Duration::from_millis(20);

/// Everything at once.
const BAD: Faults = Faults {
    loss: 0.3,
    duplication: 0.2,
    delay: Duration::from_millis(5),
    jitter: Duration::from_millis(10),
    reorder: 0.2,
    reorder_by: HOLD,
    blackhole: false,
};

fn fates(dice: &mut Dice, faults: &Faults, count: usize) -> Vec<Fate> {
    (0..count).map(|_| dice.throw(faults)).collect()
}

#[test]
fn the_same_seed_makes_the_same_decisions_and_another_seed_flow_or_direction_others() {
    let decide = |seed, flow, direction| fates(&mut Dice::new(seed, flow, direction), &BAD, 1000);
    let first = decide(7, 0, Direction::Up);
    assert_eq!(first, decide(7, 0, Direction::Up));
    for other in [decide(8, 0, Direction::Up), decide(7, 1, Direction::Up), decide(7, 0, Direction::Down)] {
        assert_ne!(first, other);
    }
}

#[test]
fn a_fate_does_not_depend_on_faults_that_came_and_went() {
    let (mut calm, mut stormy) = (Dice::new(7, 0, Direction::Up), Dice::new(7, 0, Direction::Up));
    fates(&mut calm, &Faults::default(), 100);
    fates(&mut stormy, &Faults { blackhole: true, ..BAD }, 100);
    assert_eq!(fates(&mut calm, &BAD, 1000), fates(&mut stormy, &BAD, 1000));
}

#[test]
fn fractions_are_those_that_were_asked_for() {
    let fates = fates(&mut Dice::new(7, 0, Direction::Up), &BAD, 100_000);
    let part =
        |of: &dyn Fn(&Fate) -> bool| fates.iter().filter(|fate| of(fate)).count() as f64 / fates.len() as f64;
    let near = |part: f64, wanted: f64| assert!((part - wanted).abs() < 0.01, "{part} instead of {wanted}");
    near(part(&|fate| *fate == Fate::Dropped(Cause::Loss)), 0.3);
    near(part(&|fate| matches!(fate, Fate::Passed { again: Some(_), .. })), 0.7 * 0.2);
    let held = BAD.delay + HOLD;
    near(part(&|fate| matches!(fate, Fate::Passed { after, .. } if *after >= held)), 0.7 * 0.2);
    let within = |after: &Duration| (BAD.delay..held + BAD.jitter).contains(after);
    near(part(&|fate| matches!(fate, Fate::Passed { after, .. } if within(after))), 0.7);
}

#[test]
fn what_is_late_leaves_by_time_and_then_in_the_order_in_which_it_came() {
    let now = Instant::now();
    let mut late = Late::new();
    for (packet, after) in [(1, 2), (2, 1), (3, 2), (4, 1), (5, 9)] {
        assert!(late.push(now + Duration::from_millis(after), packet));
    }
    assert_eq!(late.pop(now), None);
    let then = now + Duration::from_millis(2);
    assert_eq!(std::iter::from_fn(|| late.pop(then)).collect::<Vec<_>>(), [2, 4, 1, 3]);
    assert_eq!(late.next_due(), Some(now + Duration::from_millis(9)));
}

#[test]
fn what_is_late_is_bounded() {
    let now = Instant::now();
    let mut late = Late::new();
    assert!((0..LATE_PACKETS_MAX).all(|packet| late.push(now, packet)));
    assert!(!late.push(now, 0));
    late.pop(now);
    assert!(late.push(now, 0));
}

/// A client and a server with a network between them.
struct Line {
    proxy: Proxy,
    client: UdpSocket,
    server: UdpSocket,
}

impl Line {
    async fn with_seed(seed: u64) -> Self {
        let server = socket().await;
        let proxy = Proxy::start(server.local_addr().unwrap(), seed);
        let client = socket().await;
        client.connect(proxy.front()).await.unwrap();
        Self { proxy, client, server }
    }

    async fn new() -> Self {
        Self::with_seed(1).await
    }

    async fn up(&self, number: u32) {
        self.client.send(&number.to_be_bytes()).await.unwrap();
    }

    /// Returns what the server gets next, and from whom.
    async fn at_server(&self) -> (u32, SocketAddr) {
        let mut buffer = [0; 4];
        let (_, from) = expect("a packet", self.server.recv_from(&mut buffer)).await.unwrap();
        (u32::from_be_bytes(buffer), from)
    }

    async fn at_client(&self) -> u32 {
        let mut buffer = [0; 4];
        expect("a packet", self.client.recv(&mut buffer)).await.unwrap();
        u32::from_be_bytes(buffer)
    }

    /// Sends so many up, few at a time so that no socket overflows, and returns what arrives until all had their fate.
    async fn send_all(&self, count: u32) -> Vec<u32> {
        let mut arrived = Vec::new();
        for number in 0..count {
            self.up(number).await;
            self.until("the network to take a packet", |up| up.received > u64::from(number)).await;
            self.drain(&mut arrived);
        }
        self.until("the network to be empty", |up| up.under_way() == 0).await;
        while arrived.len() as u64 != self.proxy.counts(Direction::Up).forwarded {
            arrived.push(self.at_server().await.0);
        }
        arrived
    }

    /// Waits for what the network counts on the way up.
    async fn until(&self, what: &str, done: impl Fn(Counts) -> bool) {
        expect(what, async {
            while !done(self.proxy.counts(Direction::Up)) {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }

    fn drain(&self, arrived: &mut Vec<u32>) {
        let mut buffer = [0; 4];
        while self.server.try_recv(&mut buffer).is_ok() {
            arrived.push(u32::from_be_bytes(buffer));
        }
    }
}

async fn socket() -> UdpSocket {
    UdpSocket::bind("127.0.0.1:0").await.unwrap()
}

#[tokio::test]
async fn a_good_network_passes_everything_in_order_and_counts_it() {
    let line = Line::new().await;
    assert_eq!(line.send_all(100).await, (0..100).collect::<Vec<_>>());
    line.up(100).await;
    let (_, from) = line.at_server().await;
    line.server.send_to(&7_u32.to_be_bytes(), from).await.unwrap();
    assert_eq!(line.at_client().await, 7);
    // What has arrived is counted a moment later.
    line.until("all to be counted", |up| up.forwarded == 101).await;
    expect("the answer to be counted", async {
        while line.proxy.counts(Direction::Down).forwarded == 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let up = line.proxy.counts(Direction::Up);
    assert_eq!((up.received, up.forwarded, up.lost, up.duplicated, up.delayed), (101, 101, 0, 0, 0));
    assert_eq!(line.proxy.counts(Direction::Down).forwarded, 1);
}

#[tokio::test]
async fn two_networks_with_one_seed_lose_the_same_packets() {
    let mut runs = Vec::new();
    for seed in [5, 5, 6] {
        let line = Line::with_seed(seed).await;
        line.proxy.set(Direction::Up, Faults { loss: 0.3, duplication: 0.2, ..Faults::default() });
        runs.push(line.send_all(300).await);
    }
    assert_eq!(runs[0], runs[1]);
    assert_ne!(runs[0], runs[2]);
}

#[tokio::test]
async fn a_fault_of_one_direction_leaves_the_other_alone() {
    let line = Line::new().await;
    line.up(0).await;
    let (_, from) = line.at_server().await;
    line.proxy.set(Direction::Up, Faults::losing(1.0));
    for number in 0..20 {
        line.up(number).await;
        line.server.send_to(&number.to_be_bytes(), from).await.unwrap();
        assert_eq!(line.at_client().await, number);
    }
    line.until("all to be lost", |up| up.lost == 20).await;
    line.proxy.heal();
    line.up(99).await;
    assert_eq!(line.at_server().await.0, 99);
}

#[tokio::test]
async fn a_delay_holds_every_packet_and_keeps_their_order() {
    let line = Line::new().await;
    line.proxy.set(Direction::Up, Faults::slow(HOLD));
    let began = Instant::now();
    assert_eq!(line.send_all(50).await, (0..50).collect::<Vec<_>>());
    assert!(began.elapsed() >= HOLD);
    assert_eq!(line.proxy.counts(Direction::Up).delayed, 50);
}

#[tokio::test]
async fn what_is_held_back_comes_behind_what_was_sent_later() {
    let line = Line::new().await;
    line.proxy.set(Direction::Up, Faults { reorder: 0.2, reorder_by: HOLD, ..Faults::default() });
    let arrived = line.send_all(200).await;
    assert!(!arrived.is_sorted());
    assert_eq!(arrived.iter().copied().collect::<BTreeSet<_>>().len(), 200, "all came, each once");
}

#[tokio::test]
async fn jitter_reorders_what_is_sent_together() {
    let line = Line::new().await;
    line.proxy.set(Direction::Up, Faults { jitter: HOLD, ..Faults::default() });
    let arrived = line.send_all(200).await;
    assert!(!arrived.is_sorted());
    assert_eq!(arrived.len(), 200);
}

#[tokio::test]
async fn a_doubled_packet_comes_twice() {
    let line = Line::new().await;
    line.proxy.set(Direction::Up, Faults { duplication: 1.0, ..Faults::default() });
    assert_eq!(line.send_all(3).await, [0, 0, 1, 1, 2, 2]);
    assert_eq!(line.proxy.counts(Direction::Up).duplicated, 3);
}

#[tokio::test]
async fn a_blackhole_swallows_also_what_is_under_way_until_it_is_lifted() {
    let line = Line::new().await;
    line.proxy.set(Direction::Up, Faults::slow(HOLD));
    line.up(1).await;
    line.until("the packet to be under way", |up| up.delayed == 1).await;
    line.proxy.blackhole(Direction::Up, true);
    line.up(2).await;
    line.until("both to be gone", |up| up.blackholed == 2).await;
    line.proxy.blackhole(Direction::Up, false);
    line.up(3).await;
    assert_eq!(line.at_server().await.0, 3);
}

#[tokio::test]
async fn after_a_rebind_the_server_sees_another_port_and_what_goes_to_the_old_one_is_lost() {
    let line = Line::new().await;
    line.up(0).await;
    let (_, old) = line.at_server().await;
    assert_eq!(line.proxy.rebind().await, 1);
    line.server.send_to(&1_u32.to_be_bytes(), old).await.unwrap();
    line.up(1).await;
    let (_, new) = line.at_server().await;
    assert_ne!(old, new);
    line.server.send_to(&2_u32.to_be_bytes(), new).await.unwrap();
    assert_eq!(line.at_client().await, 2);
    assert_eq!(line.proxy.counts(Direction::Down).received, 1);
}

#[tokio::test]
async fn every_client_has_its_flow_and_the_one_that_was_idle_longest_makes_room() {
    let line = Line::new().await;
    let mut clients = Vec::new();
    let mut ports = BTreeSet::new();
    for _ in 0..FLOWS_MAX {
        let client = socket().await;
        client.send_to(&[0; 4], line.proxy.front()).await.unwrap();
        ports.insert(line.at_server().await.1.port());
        clients.push(client);
    }
    assert_eq!(ports.len(), FLOWS_MAX);
    clients[0].send_to(&[0; 4], line.proxy.front()).await.unwrap();
    let (_, first) = line.at_server().await;
    // The first spoke again, so it is the second that has been idle longest.
    line.up(0).await;
    line.at_server().await;
    assert_eq!(line.proxy.flows_dropped(), 1);
    for (client, is_new) in [(&clients[0], false), (&clients[1], true)] {
        client.send_to(&[0; 4], line.proxy.front()).await.unwrap();
        let (_, from) = line.at_server().await;
        assert_eq!(!ports.contains(&from.port()), is_new, "first was {first}, now {from}");
    }
}

/// Packets that are on their way at once, so that no socket's buffer overflows.
const WINDOW: u32 = 64;

/// What a debug build forwards on a machine with two busy cores, at its best of a few tries. Far above what tests need.
const RATE_MIN: f64 = 10_000.0;

#[tokio::test]
async fn the_network_is_no_bottleneck() {
    let line = Line::new().await;
    let (mut best, mut number) = (0.0, 0);
    for _ in 0..10 {
        let (began, first) = (Instant::now(), number);
        while number - first < 20_000 {
            for _ in 0..WINDOW {
                line.client.send(&[0; 1200]).await.unwrap();
            }
            number += WINDOW;
            let mut buffer = [0; 1200];
            for _ in 0..WINDOW {
                expect("a packet", line.server.recv(&mut buffer)).await.unwrap();
            }
        }
        best = f64::from(number - first) / began.elapsed().as_secs_f64();
        println!("{best:.0} packets/s");
        if best >= RATE_MIN {
            return;
        }
    }
    panic!("at most {best:.0} packets/s");
}

//! Promise: who was here before resumes without a round trip for the handshake, and whoever records that and sends it again
//! changes nothing.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // Test code outside of #[test] functions.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use quail_client::{Client, ConnectionState, Reason};
use quail_protocol::v1::{self, feed_down, publish_down, request, response};
use quail_tests::checker::Terms;
use quail_tests::hostile::{GROWTH_MAX, closed, memory, metric, refusals};
use quail_tests::proxy::{Faults, Proxy};
use quail_tests::raw::{self, RawClient, RawStream, client_config};
use quail_tests::witness::{Record, Witness};
use quail_tests::{Chance, Person, World, expect, seed};
use tokio::net::UdpSocket;
use tokio::task::JoinSet;

const ACCEPTED: &str = "quail_early_data_total{result=\"accepted\"}";
const REJECTED: &str = "quail_early_data_total{result=\"rejected\"}";

/// So long after its last word a client sends nothing but repetitions. QUIC's timer for them begins with a second (RFC 9002,
/// section 6.2.2).
const REPEATED_AFTER: Duration = Duration::from_millis(400);

/// How often a recorded flight is sent again.
const REPLAYS: usize = 1000;

/// Datagrams, and when they came.
type Recorded = Vec<(Instant, Vec<u8>)>;

/// A wire between clients and a daemon that writes down what goes up.
struct Tap {
    front: SocketAddr,
    recorded: Arc<Mutex<Recorded>>,
    /// Whether what goes up arrives.
    passes: Arc<AtomicBool>,
    /// Whether what comes down does; if not it waits.
    answers: tokio::sync::watch::Sender<bool>,
    _tasks: JoinSet<()>,
}

impl Tap {
    async fn before(world: &World) -> Self {
        let (front, back) = (bound([127, 0, 0, 1]).await, bound([127, 0, 0, 1]).await);
        back.connect(("127.0.0.1", world.address().port)).await.unwrap();
        let (front, back) = (Arc::new(front), Arc::new(back));
        let recorded: Arc<Mutex<Recorded>> = Arc::default();
        let passes = Arc::new(AtomicBool::new(true));
        let client = Arc::new(Mutex::new(None));
        let (answers, mut answered) = tokio::sync::watch::channel(true);
        let address = front.local_addr().unwrap();
        let mut tasks = JoinSet::new();
        let up = (front.clone(), back.clone(), recorded.clone(), passes.clone(), client.clone());
        tasks.spawn(async move {
            let (front, back, recorded, passes, client) = up;
            let mut buffer = vec![0; 65_535];
            loop {
                let Ok((len, from)) = front.recv_from(&mut buffer).await else { continue };
                *client.lock().unwrap() = Some(from);
                recorded.lock().unwrap().push((Instant::now(), buffer[..len].to_vec()));
                if passes.load(Ordering::Relaxed) {
                    // A daemon that is down takes nothing.
                    let _ = back.send(&buffer[..len]).await;
                }
            }
        });
        tasks.spawn(async move {
            let mut buffer = vec![0; 65_535];
            loop {
                let Ok(len) = back.recv(&mut buffer).await else { continue };
                if answered.wait_for(|answers| *answers).await.is_err() {
                    return;
                }
                let to = *client.lock().unwrap();
                if let Some(to) = to {
                    let _ = front.send_to(&buffer[..len], to).await;
                }
            }
        });
        Self { front: address, recorded, passes, answers, _tasks: tasks }
    }

    fn begin(&self) {
        self.recorded.lock().unwrap().clear();
    }

    /// Returns whether a client that said its last at `said`, and that nobody answered, has begun anew: it sent something although it
    /// had nothing new to say.
    fn has_repeats(&self, said: Instant) -> bool {
        let recorded = self.recorded.lock().unwrap();
        recorded.last().is_some_and(|(at, _)| at.saturating_duration_since(said) > REPEATED_AFTER)
    }

    /// Returns what went up before the handshake was complete: everything with a long header.
    fn flight(&self) -> Vec<Vec<u8>> {
        let recorded = self.recorded.lock().unwrap();
        recorded
            .iter()
            .map(|(_, datagram)| datagram)
            .filter(|datagram| datagram.first().is_some_and(|first| first & 0x80 != 0))
            .cloned()
            .collect()
    }
}

async fn bound(ip: [u8; 4]) -> UdpSocket {
    UdpSocket::bind(SocketAddr::from((ip, 0))).await.unwrap()
}

/// Sends flights again and again, from many addresses, each changed by `tamper`.
async fn replay(world: &World, flights: &[Vec<Vec<u8>>], times: usize, mut tamper: impl FnMut(&mut Vec<u8>)) {
    let daemon = ("127.0.0.1", world.address().port);
    for part in 0..2 {
        for time in 0..times / 2 {
            let socket = bound([127, 0, 2, (time % 250) as u8 + 1]).await;
            for datagram in flights.iter().flatten() {
                let mut datagram = datagram.clone();
                tamper(&mut datagram);
                socket.send_to(&datagram, daemon).await.unwrap();
            }
            tokio::task::yield_now().await;
        }
        // What comes while the first copy is looked at belongs to it. So half of them come when it is gone.
        expect("the handshakes to end", async {
            while metric(world, "quail_handshakes_open").await > 0.0 {}
        })
        .await;
        println!(
            "part {part}: accepted {}, rejected {}",
            metric(world, ACCEPTED).await,
            metric(world, REJECTED).await
        );
    }
}

/// Two people: one who sends, over and over, and one who sees what arrives.
struct Scene {
    ada: Person,
    bob: Person,
    /// Ada's device is here all the time.
    living: RawClient,
    lane: RawStream,
    feed: RawStream,
    /// Bob's feed.
    arrives: RawStream,
    _bob: RawClient,
    attached: u64,
    /// Up to where Ada has taken everything.
    taken: Option<v1::Cursor>,
}

impl Scene {
    async fn begin(world: &World) -> Self {
        let (ada, bob) = (world.sign_up("ada").await, world.sign_up("bob").await);
        Self::resume(world, ada, bob, 1, [vec![], vec![]]).await
    }

    async fn resume(
        world: &World,
        ada: Person,
        bob: Person,
        attached: u64,
        cursors: [Vec<v1::Cursor>; 2],
    ) -> Self {
        let [of_ada, of_bob] = cursors;
        let living = RawClient::resume(&world.address(), ada.credentials.token.as_bytes()).await;
        let lane = living.publish().await;
        let feed = caught_up(living.attach(attached, of_ada).await).await;
        let client = RawClient::resume(&world.address(), bob.credentials.token.as_bytes()).await;
        let arrives = caught_up(client.attach(attached, of_bob).await).await;
        Self { ada, bob, living, lane, feed, arrives, _bob: client, attached, taken: None }
    }

    /// Ada's device says something; returns its position.
    async fn says(&mut self, send: v1::Send) -> u64 {
        match self.lane.say(send).await {
            publish_down::Frame::Accepted(accepted) => accepted.position,
            other => panic!("{other:?}"),
        }
    }

    /// Bob gets this next, and nothing before it.
    async fn gets(&mut self, body: &str) -> v1::Cursor {
        let feed_down::Frame::Event(event) = self.arrives.feed().await else { panic!("no event") };
        let Some(v1::event::Body::Message(message)) = &event.body else { panic!("{event:?}") };
        assert_eq!(message.body, body.as_bytes());
        self.arrives.ack(event.origin, event.position).await;
        v1::Cursor { origin: event.origin, position: event.position }
    }

    /// Ada's feed goes on: a receipt is what comes next.
    async fn is_told_of_delivery(&mut self) {
        let feed_down::Frame::Event(event) = self.feed.feed().await else { panic!("her feed has ended") };
        assert!(matches!(event.body, Some(v1::event::Body::Receipt(_))), "{event:?}");
        self.feed.ack(event.origin, event.position).await;
        self.taken = Some(v1::Cursor { origin: event.origin, position: event.position });
    }

    async fn devices(&self) -> usize {
        match self.living.request(request::Command::ListDevices(v1::ListDevices {})).await {
            response::Result::Devices(devices) => devices.devices.len(),
            other => panic!("{other:?}"),
        }
    }
}

async fn caught_up(mut feed: RawStream) -> RawStream {
    loop {
        match feed.feed().await {
            feed_down::Frame::CaughtUp(_) => return feed,
            feed_down::Frame::Event(event) => feed.ack(event.origin, event.position).await,
            other => panic!("{other:?}"),
        }
    }
}

/// Begins a connection in early data and says hello, opens the publish lane and sends.
async fn early(
    server: SocketAddr,
    config: &quinn::ClientConfig,
    token: &[u8],
    send: v1::Send,
) -> (RawClient, quinn::ZeroRttAccepted, RawStream) {
    let (client, accepted) = RawClient::begin_early(server, config);
    let mut hello = client.open(v1::open::Stream::Hello(raw::hello(token))).await;
    hello.send.finish().unwrap();
    let mut lane = client.publish().await;
    lane.write(&v1::PublishUp { frame: Some(v1::publish_up::Frame::Send(send)) }).await;
    (client, accepted, lane)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_recorded_first_flight_changes_nothing_however_often_it_is_sent_again() {
    let mut world = World::start().await;
    let mut scene = Scene::begin(&world).await;
    let second = world.log_in("ada").await;
    let (token, to) = (scene.ada.credentials.token.clone(), scene.bob.account());
    let tap = Tap::before(&world).await;
    // Two tickets, for two flights.
    let config = client_config(quinn::TransportConfig::default());
    let first = RawClient::connect_to(tap.front, &config).await.resumed(token.as_bytes()).await;
    let said = first.publish().await.say(raw::send(1, to, "first")).await;
    assert!(matches!(said, publish_down::Frame::Accepted(_)), "{said:?}");
    scene.gets("first").await;
    scene.is_told_of_delivery().await;

    // One flight arrives and is answered, and somebody has listened.
    tap.begin();
    // A daemon that is busy may find the whole handshake and what came before it together, and then nothing was early: so the
    // client hears nothing before the daemon has acted.
    tap.answers.send_replace(false);
    let (client, accepted, mut lane) =
        early(tap.front, &config, token.as_bytes(), raw::send(2, to, "second")).await;
    expect("early data to be counted", async { while metric(&world, ACCEPTED).await < 1.0 {} }).await;
    tap.answers.send_replace(true);
    let answer = lane.next::<v1::PublishDown>().await;
    assert!(matches!(answer.frame, Some(publish_down::Frame::Accepted(_))), "{answer:?}");
    assert!(expect("the handshake", accepted).await, "the early data was not taken");
    let used = tap.flight();
    client.connection.close(0_u32.into(), b"");
    scene.gets("second").await;
    scene.is_told_of_delivery().await;
    assert_eq!(metric(&world, ACCEPTED).await, 1.0);

    // The other one is held back by who listens. It would also replace the feed and unlink a device.
    tap.begin();
    tap.passes.store(false, Ordering::Relaxed);
    let third = raw::send(3, to, "third");
    let (client, _, _lane) = early(tap.front, &config, token.as_bytes(), third.clone()).await;
    let _feed = client.attach(1_000, vec![]).await;
    let device = second.credentials.device.to_bytes();
    let unlink = request::Command::UnlinkDevice(v1::UnlinkDevice { device });
    let request = v1::open::Stream::Request(v1::Request { command: Some(unlink) });
    let mut request = client.open(request).await;
    request.send.finish().unwrap();
    // No signal: whoever reads it, refuses it.
    client.connection.send_datagram(vec![0xff; 8].into()).unwrap();
    let said = Instant::now();
    // It sends everything again after a while, since nobody answers.
    expect("the flight to be sent again", async {
        while !tap.has_repeats(said) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    let held_back = tap.flight();
    assert!(used.len() >= 2 && held_back.len() >= 2, "{} and {}", used.len(), held_back.len());
    drop((client, _lane, _feed, request));
    // The device sends it again in the usual way.
    let position = scene.says(third.clone()).await;
    scene.gets("third").await;
    scene.is_told_of_delivery().await;

    let flights = [used, held_back];
    let before = memory(world.daemon.pid().unwrap(), "VmRSS");
    replay(&world, &flights, REPLAYS, |_| {}).await;
    assert_eq!(metric(&world, ACCEPTED).await, 2.0, "the flight that was held back was acted upon, once");
    assert!(metric(&world, REJECTED).await >= 1.0, "its ticket is good once");
    assert_eq!(scene.says(third.clone()).await, position, "it was decided once");
    assert_eq!(refusals(&world, Reason::Malformed).await, 0.0, "no datagram was read");
    let mut chance = Chance(seed());
    let tamper = |datagram: &mut Vec<u8>| {
        let at = chance.below(datagram.len() as u64) as usize;
        datagram[at] ^= 1 << chance.below(8);
    };
    replay(&world, &flights, REPLAYS, tamper).await;
    let growth = memory(world.daemon.pid().unwrap(), "VmRSS").saturating_sub(before);
    println!("memory +{} KiB", growth / 1024);
    assert!(growth < GROWTH_MAX, "memory grew by {growth}");
    scene.says(raw::send(4, to, "fourth")).await;
    let cursor = scene.gets("fourth").await;
    scene.is_told_of_delivery().await;
    assert_eq!(scene.devices().await, 2, "no device was unlinked");

    world.kill_and_restart().await;
    let Scene { ada, bob, attached, taken, .. } = scene;
    let cursors = [taken.into_iter().collect(), vec![cursor]];
    let mut scene = Scene::resume(&world, ada, bob, attached + 1, cursors).await;
    replay(&world, &flights, REPLAYS, |_| {}).await;
    assert_eq!(metric(&world, ACCEPTED).await, 0.0, "no ticket outlives the daemon");
    assert_eq!(scene.says(third).await, position);
    scene.says(raw::send(5, to, "fifth")).await;
    scene.gets("fifth").await;
    scene.is_told_of_delivery().await;
    assert_eq!(scene.devices().await, 2);
}

/// Round trips of the network in which they are counted.
const ROUND_TRIP: Duration = Duration::from_millis(100);

/// A machine that is busy may take its time once; it does not do so every time.
const TRIES: usize = 8;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_answer_of_a_resumed_session_comes_after_one_round_trip() {
    let world = World::start().await;
    let proxy = Proxy::before(&world, seed());
    proxy.set_both(Faults::slow(ROUND_TRIP / 2));
    let (ada, bob) = (world.sign_up("ada").await, world.sign_up("bob").await);
    let token = ada.credentials.token.as_bytes();
    let config = client_config(quinn::TransportConfig::default());
    let mut best = Duration::MAX;
    for number in 1..=TRIES as u64 {
        // This one pays for the handshake, and brings the ticket.
        let began = Instant::now();
        let client = RawClient::connect_to(proxy.front(), &config).await.resumed(token).await;
        let said = client.publish().await.say(raw::send(2 * number - 1, bob.account(), "slow")).await;
        assert!(matches!(said, publish_down::Frame::Accepted(_)), "{said:?}");
        assert!(began.elapsed() >= ROUND_TRIP * 2);
        client.connection.close(0_u32.into(), b"");

        let began = Instant::now();
        let send = raw::send(2 * number, bob.account(), "quick");
        let (client, _, mut lane) = early(proxy.front(), &config, token, send).await;
        let answer = lane.next::<v1::PublishDown>().await;
        let took = began.elapsed();
        assert!(matches!(answer.frame, Some(publish_down::Frame::Accepted(_))), "{answer:?}");
        client.connection.close(0_u32.into(), b"");
        println!("accepted after {took:?}");
        best = best.min(took);
        if best < ROUND_TRIP * 3 / 2 {
            break;
        }
    }
    assert!(best < ROUND_TRIP * 3 / 2, "at best {best:?}");
}

/// Makes the daemon close a client's connection, which is well but for that: it asks for what is refused until the daemon has enough.
async fn be_sent_away(world: &World, client: &Client) {
    let mut state = client.state();
    expect("the client", state.wait_for(|state| *state == ConnectionState::Online)).await.unwrap();
    let before = closed(world, Reason::RateLimited).await;
    let mut asking = JoinSet::new();
    for _ in 0..60 {
        let client = client.clone();
        asking.spawn(async move { drop(client.change_password("wrong password", "another password").await) });
    }
    // It may be back before anybody looks, so what is waited for is a change and not a state.
    expect("the end", state.changed()).await.unwrap();
    expect("its reason", async { while closed(world, Reason::RateLimited).await <= before {} }).await;
    asking.shutdown().await;
}

async fn impatient() -> World {
    World::start_with(|options| {
        options.env.push(("QUAIL_RATES_LOG_IN".into(), "1/d burst 1".into()));
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_sdk_resumes_in_early_data_and_nothing_is_lost_or_doubled() {
    let world = impatient().await;
    let record = Record::new();
    let (ada, bob) = (world.sign_up("ada").await, world.sign_up("bob").await);
    let (mut ada, bob) = (Witness::join(&ada, &record).await, Witness::join(&bob, &record).await);
    let to = bob.client.account();
    for round in 0..3 {
        for number in 0..20 {
            ada.send(to, &format!("{round} {number}")).await;
        }
        be_sent_away(&world, &ada.client).await;
    }
    ada.send(to, "last").await;
    bob.has_shown(61).await;
    ada.has_receipts().await;
    let stats = ada.client.stats();
    println!("{stats:?}");
    assert_eq!((stats.reconnects, stats.early), (3, 3));
    assert_eq!(metric(&world, ACCEPTED).await, 3.0);
    for device in [&ada, &bob] {
        device.client.close().await.unwrap();
    }
    record.assert_kept(Terms { gaps: false, receipts: true });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn early_data_that_is_not_taken_is_said_again_once() {
    let mut world = World::start().await;
    let record = Record::new();
    let (ada, bob) = (world.sign_up("ada").await, world.sign_up("bob").await);
    let (mut ada, bob) = (Witness::join(&ada, &record).await, Witness::join(&bob, &record).await);
    let (to, mut rejected) = (bob.client.account(), 0.0);
    for round in 0..4 {
        for number in 0..20 {
            ada.send(to, &format!("{round} {number}")).await;
        }
        world.kill_and_restart().await;
        bob.has_shown(20 * (round + 1)).await;
        rejected += metric(&world, REJECTED).await;
    }
    ada.has_receipts().await;
    let stats = ada.client.stats();
    println!("{stats:?}, {rejected} rejected");
    assert!(rejected >= 1.0, "nobody tried");
    for device in [&ada, &bob] {
        device.client.close().await.unwrap();
    }
    record.assert_kept(Terms { gaps: false, receipts: true });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn early_data_can_be_switched_off_on_either_side() {
    let world = World::start_with(|options| {
        options.env.push(("QUAIL_TLS_EARLY_DATA".into(), "off".into()));
        options.env.push(("QUAIL_RATES_LOG_IN".into(), "1/d burst 1".into()));
    })
    .await;
    resumes_without(&world, &world.sign_up("ada").await).await;
    let world = impatient().await;
    let mut ada = world.sign_up("ada").await;
    ada.options.early_data = false;
    resumes_without(&world, &ada).await;
}

async fn resumes_without(world: &World, person: &Person) {
    let client = person.open().await;
    be_sent_away(world, &client).await;
    let sending = client.send(person.account(), "to myself").await.unwrap();
    expect("an answer", sending.accepted()).await.unwrap();
    assert_eq!((client.stats().reconnects, client.stats().early), (1, 0));
    assert_eq!((metric(world, ACCEPTED).await, metric(world, REJECTED).await), (0.0, 0.0));
}

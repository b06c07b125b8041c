//! Peers that hold on, flood or stop listening: each is told why it is closed, is counted, and costs nobody else anything.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // Test code outside of #[test] functions.

use std::time::{Duration, Instant};

use bytes::{BufMut, Bytes, BytesMut};
use prost::Message;
use quail_client::Client;
use quail_protocol::v1::{self, Reason, feed_down, open::Stream};
use quail_protocol::{frame, limits};
use quail_tests::hostile::{Bystanders, closed, metric, refusals};
use quail_tests::raw::{self, RawClient, RawStream};
use quail_tests::{Person, World, expect};

/// How many connections a hostile peer opens, within what one address may.
const CONNECTIONS: usize = 100;

async fn world() -> (World, Person, Bystanders) {
    let world = World::start().await;
    let mallory = world.sign_up("mallory").await;
    let bystanders = Bystanders::join(&world).await;
    (world, mallory, bystanders)
}

async fn session(world: &World, person: &Person) -> RawClient {
    RawClient::resume(&world.address(), person.credentials.token.as_bytes()).await
}

/// A length prefix that announces `len` bytes.
fn prefix(len: usize) -> Bytes {
    let mut bytes = BytesMut::new();
    frame::put_prefix(len, &mut bytes);
    bytes.freeze()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frames_that_never_end_are_given_up() {
    let (world, mallory, mut bystanders) = world().await;
    let mischief = async {
        let mut slow = Vec::new();
        for _ in 0..CONNECTIONS {
            let client = session(&world, &mallory).await;
            let mut lane = client.publish().await;
            lane.bytes(prefix(limits::FRAME_BYTES_MAX)).await;
            lane.bytes(Bytes::from(vec![0; 1024])).await;
            slow.push((client, lane));
        }
        // One goes on byte by byte: the time is for the whole frame.
        let drip = async {
            let (_, lane) = slow.last_mut().expect("there is one");
            while lane.send.write_all(&[0]).await.is_ok() {
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
        };
        expect("the dripping frame to be given up", drip).await;
        for (client, _) in &slow {
            assert_eq!(client.closed().await, Reason::FrameTimeout);
        }
    };
    let ((), seen) = bystanders.watch(&world, mischief).await;
    seen.assert_undisturbed();
    assert_eq!(metric(&world, "quail_closed_total{reason=\"FRAME_TIMEOUT\"}").await, CONNECTIONS as f64);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_say_nothing_are_closed() {
    let (world, _, mut bystanders) = world().await;
    let mischief = async {
        let mut silent = Vec::new();
        for number in 0..CONNECTIONS {
            let client = RawClient::connect(&world.address()).await;
            if number % 2 == 0 {
                client.hello(raw::hello(b"")).await;
            }
            silent.push(client);
        }
        let mut reasons = Vec::new();
        for client in &silent {
            reasons.push(client.closed().await);
        }
        assert!(reasons.iter().step_by(2).all(|reason| *reason == Reason::Unauthenticated), "{reasons:?}");
        assert!(
            reasons.iter().skip(1).step_by(2).all(|reason| *reason == Reason::FrameTimeout),
            "{reasons:?}"
        );
    };
    let ((), seen) = bystanders.watch(&world, mischief).await;
    seen.assert_undisturbed();
    let half = CONNECTIONS as f64 / 2.0;
    assert_eq!(metric(&world, "quail_closed_total{reason=\"UNAUTHENTICATED\"}").await, half);
    assert_eq!(metric(&world, "quail_closed_total{reason=\"FRAME_TIMEOUT\"}").await, half);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn giant_prefixes_are_refused_before_their_frames() {
    let (world, mallory, mut bystanders) = world().await;
    let giants = [limits::FRAME_BYTES_MAX + 1, (1 << 21) - 1, usize::MAX >> 1];
    let mischief = async {
        for round in 0..CONNECTIONS {
            let client = session(&world, &mallory).await;
            let mut lane = client.publish().await;
            lane.bytes(prefix(giants[round % giants.len()])).await;
            assert_eq!(client.closed().await, Reason::FrameTooLarge);
        }
    };
    let ((), seen) = bystanders.watch(&world, mischief).await;
    seen.assert_undisturbed();
    assert_eq!(refusals(&world, Reason::FrameTooLarge).await, CONNECTIONS as f64);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frames_full_of_empty_messages_are_refused() {
    let (world, mallory, mut bystanders) = world().await;
    // Field 2 of an attach, a cursor without content, as often as a frame holds: two bytes each, many times that decoded.
    let cursors = vec![v1::Cursor::default(); (limits::OPEN_BYTES_MAX - 64) / 2];
    let open = v1::Open { stream: Some(Stream::Feed(v1::Attach { number: 1, cursors, set_aside: vec![] })) };
    assert!(open.encoded_len() <= limits::OPEN_BYTES_MAX);
    // The same where the longest frames are allowed: empty sends, of which the last counts.
    let mut sends = BytesMut::new();
    while sends.len() < limits::FRAME_BYTES_MAX - 2 {
        sends.put_slice(&[0x0a, 0x00]);
    }
    let mischief = async {
        for _ in 0..CONNECTIONS / 2 {
            let client = session(&world, &mallory).await;
            let mut feed = client.stream().await;
            feed.write(&open).await;
            // Too many to be a legal frame: refused as a frame, or by the feed for its cursors.
            if let Some(down) = feed.read::<v1::FeedDown>().await {
                let Some(feed_down::Frame::Ended(error)) = down.frame else { panic!("attached: {down:?}") };
                assert_eq!(error.reason(), Reason::Malformed);
            }
            let mut lane = client.publish().await;
            lane.bytes(prefix(sends.len())).await;
            lane.bytes(sends.clone().freeze()).await;
            assert_eq!(client.closed().await, Reason::Malformed);
        }
    };
    let ((), seen) = bystanders.watch(&world, mischief).await;
    seen.assert_undisturbed();
    assert_eq!(refusals(&world, Reason::Malformed).await, CONNECTIONS as f64);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_streams_ends_its_connection() {
    /// More than any budget.
    const STREAMS: usize = 5_000;
    let (world, mallory, mut bystanders) = world().await;
    let mischief = async {
        let mut most = 0;
        for _ in 0..CONNECTIONS {
            let client = session(&world, &mallory).await;
            let mut number = 0;
            while number < STREAMS {
                let Some(mut stream) = client.try_stream().await else { break };
                match number % 3 {
                    // Whatever comes of it: nobody listens.
                    0 => drop(stream.send.reset(1_u32.into())),
                    1 => drop(stream.try_bytes(Bytes::from_static(&[3, 0xff, 0xff, 0xff])).await),
                    _ => drop(stream.try_bytes(frame::to_bytes(&v1::Open { stream: None })).await),
                }
                number += 1;
            }
            assert_eq!(client.closed().await, Reason::RateLimited);
            most = most.max(number);
        }
        eprintln!("{most} streams at most before the end");
    };
    let ((), seen) = bystanders.watch(&world, mischief).await;
    seen.assert_undisturbed();
    assert_eq!(closed(&world, Reason::RateLimited).await, CONNECTIONS as f64);
    assert!(refusals(&world, Reason::RateLimited).await >= CONNECTIONS as f64);
    // Those that were never begun are not seen by the daemon as anything.
    assert!(refusals(&world, Reason::WrongFrame).await >= CONNECTIONS as f64);
    assert!(refusals(&world, Reason::Malformed).await >= CONNECTIONS as f64);
    // The next connection begins with a budget of its own.
    let client = session(&world, &mallory).await;
    let ping = v1::request::Command::Ping(v1::Ping {});
    assert!(matches!(client.request(ping).await, v1::response::Result::Pong(_)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_asks_on_beyond_the_rate_is_closed() {
    let (world, mallory, mut bystanders) = world().await;
    let mischief = async {
        let client = session(&world, &mallory).await;
        let (mut passed, mut limited) = (0, 0);
        while let Some(answer) = client.try_request(v1::request::Command::Ping(v1::Ping {})).await {
            match answer {
                v1::response::Result::Error(error) => {
                    assert_eq!(error.reason(), Reason::RateLimited);
                    assert!(error.retry_after_ms > 0);
                    limited += 1;
                }
                _ => passed += 1,
            }
            assert!(passed + limited < 5_000, "{limited} of {passed} pings were refused, to no end");
        }
        assert_eq!(client.closed().await, Reason::RateLimited);
        assert!(passed >= 200 && limited >= 32, "{passed} passed, {limited} were refused");
        limited
    };
    let (limited, seen) = bystanders.watch(&world, mischief).await;
    seen.assert_undisturbed();
    // The answer to the last one may be overtaken by the end.
    let counted = metric(&world, "quail_rate_refusals_total{class=\"request\"}").await;
    assert!((f64::from(limited)..=f64::from(limited) + 1.0).contains(&counted), "{counted}, not {limited}");
    assert_eq!(closed(&world, Reason::RateLimited).await, 1.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_keeps_to_eight_requests_at_once_is_never_refused_however_fast_it_asks() {
    let world =
        World::start_with(|options| options.env.push(("QUAIL_RATES_REQUEST".into(), "off".into()))).await;
    let client = world.sign_up("ada").await.open().await;
    // The SDK keeps to the limit by itself: a next request begins as soon as one is answered.
    let mut asking = tokio::task::JoinSet::new();
    for _ in 0..4 * limits::REQUESTS_MAX {
        let client = client.clone();
        asking.spawn(async move {
            for _ in 0..100 {
                expect("an answer", client.ping()).await.expect("a pong");
            }
        });
    }
    while let Some(asked) = asking.join_next().await {
        asked.expect("all were answered");
    }
    assert_eq!(client.stats().reconnects, 0);
    assert_eq!(refusals(&world, Reason::Limit).await, 0.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bombs_on_the_feed_end_their_connection() {
    let (world, mallory, mut bystanders) = world().await;
    let cursors = |count| vec![v1::Cursor { origin: 1, position: 0 }; count];
    // As many as make no frame that is refused by its size or number of fields, and still more than a client may name.
    let too_many = limits::CURSORS_MAX + 1;
    let ack = v1::Ack { upto: cursors(too_many), ..Default::default() };
    let bomb = frame::to_bytes(&v1::FeedUp { frame: Some(v1::feed_up::Frame::Ack(ack)) });
    let mischief = async {
        let mut number = 0;
        for round in 0..CONNECTIONS / 4 {
            let client = session(&world, &mallory).await;
            while let Some(mut feed) = client.try_stream().await {
                number += 1;
                // Where the feed begins, and once it has.
                let cursors = if round % 2 == 0 { cursors(too_many) } else { vec![] };
                let open = v1::Open {
                    stream: Some(Stream::Feed(v1::Attach { number, cursors, set_aside: vec![] })),
                };
                let _ = feed.try_bytes(frame::to_bytes(&open)).await;
                let _ = feed.try_bytes(bomb.clone()).await;
                // To its last word, so that one bomb follows the other.
                while let Some(down) = feed.read::<v1::FeedDown>().await {
                    if let Some(feed_down::Frame::Ended(error)) = down.frame {
                        assert_eq!(error.reason(), Reason::Malformed);
                    }
                }
                assert!(number < 5_000, "bombs are refused to no end");
            }
            assert_eq!(client.closed().await, Reason::RateLimited);
        }
    };
    let ((), seen) = bystanders.watch(&world, mischief).await;
    seen.assert_undisturbed();
    assert_eq!(closed(&world, Reason::RateLimited).await, (CONNECTIONS / 4) as f64);
    assert!(refusals(&world, Reason::Malformed).await >= (CONNECTIONS / 4 * 32) as f64);
}

/// A world in which nothing may be stuck for long, and in which a device may send as fast as it can.
async fn impatient_world() -> World {
    World::start_with(|options| {
        options.env.push(("QUAIL_RATES_SEND".into(), "off".into()));
        options.env.push(("QUAIL_LIMITS_STALL".into(), "2s".into()));
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_stops_is_closed_holds_up_nobody_and_loses_nothing() {
    /// More than its windows hold, so that most of it must wait in the outbox.
    const MESSAGES: usize = 3_000;
    let world = impatient_world().await;
    let (ada, mallory) = (world.sign_up("ada").await, world.sign_up("mallory").await);
    let mut bystanders = Bystanders::join(&world).await;
    // Two who have acknowledged all they got and are idle from then on, for longer than anything may be stuck.
    let (carol, dora) = (world.sign_up("carol").await, world.sign_up("dora").await);
    let idle = carol.open().await;
    let mut events = idle.events().await.expect("the first to ask");
    let paused = session(&world, &dora).await;
    let stopped = session(&world, &mallory).await;
    let mischief = async {
        let sender = ada.open().await;
        sender.send(carol.account(), "hello").await.expect("queued").accepted().await.expect("accepted");
        quail_tests::next_message(&mut events).await;
        // Her feed is stalled for a moment.
        let mut feed_of_dora = paused.attach(1, vec![]).await;
        assert!(matches!(feed_of_dora.feed().await, feed_down::Frame::CaughtUp(_)));
        send_all(&sender, &dora, limits::FEED_WINDOW_EVENTS + 1).await;
        take(&mut feed_of_dora, limits::FEED_WINDOW_EVENTS + 1).await;
        // He reads nothing and acknowledges nothing from here on.
        let mut feed = stopped.attach(1, vec![]).await;
        assert!(matches!(feed.feed().await, feed_down::Frame::CaughtUp(_)));
        send_all(&sender, &mallory, MESSAGES).await;
        sender.close().await.expect("all are answered");
        assert_eq!(stopped.closed().await, Reason::Stalled);
        feed_of_dora
    };
    let (_feed_of_dora, seen) = bystanders.watch(&world, mischief).await;
    seen.assert_undisturbed();
    assert!(metric(&world, "quail_unacknowledged_events").await >= MESSAGES as f64);
    let delivered = metric(&world, "quail_delivered_events_total").await;
    assert!(delivered < MESSAGES as f64 + 2_000.0, "{delivered} events were written to who takes none");
    assert_eq!(closed(&world, Reason::Stalled).await, 1.0);
    assert_eq!(refusals(&world, Reason::Stalled).await, 1.0);
    assert_eq!(idle.stats().reconnects, 0);
    assert!(paused.connection.close_reason().is_none());
    let client = session(&world, &mallory).await;
    take(&mut client.attach(2, vec![]).await, MESSAGES).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_takes_no_byte_of_what_is_written_is_closed_and_loses_nothing() {
    /// Far fewer than a window holds: the feed could go on, but nobody takes what it writes.
    const MESSAGES: usize = 20;
    let world = impatient_world().await;
    let (ada, mallory) = (world.sign_up("ada").await, world.sign_up("mallory").await);
    let mut bystanders = Bystanders::join(&world).await;
    let mut transport = quinn::TransportConfig::default();
    transport.stream_receive_window(1_024_u32.into());
    let stopped = RawClient::connect_with(&world.address(), transport).await;
    let stopped = stopped.resumed(mallory.credentials.token.as_bytes()).await;
    let mischief = async {
        let mut feed = stopped.attach(1, vec![]).await;
        assert!(matches!(feed.feed().await, feed_down::Frame::CaughtUp(_)));
        let sender = ada.open().await;
        send_all(&sender, &mallory, MESSAGES).await;
        sender.close().await.expect("all are answered");
        assert_eq!(stopped.closed().await, Reason::Stalled);
    };
    let ((), seen) = bystanders.watch(&world, mischief).await;
    seen.assert_undisturbed();
    assert_eq!(closed(&world, Reason::Stalled).await, 1.0);
    let client = session(&world, &mallory).await;
    take(&mut client.attach(2, vec![]).await, MESSAGES).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_reader_that_goes_on_acknowledging_is_left_alone() {
    /// One more than its window holds: the last one waits for a quarter of the others to be acknowledged.
    const MESSAGES: usize = limits::FEED_WINDOW_EVENTS + 1;
    let world = impatient_world().await;
    let (ada, bob) = (world.sign_up("ada").await, world.sign_up("bob").await);
    let client = session(&world, &bob).await;
    let mut feed = client.attach(1, vec![]).await;
    assert!(matches!(feed.feed().await, feed_down::Frame::CaughtUp(_)));
    let sender = ada.open().await;
    send_all(&sender, &bob, MESSAGES).await;
    // A step every half second, for twice as long as a feed without any step may be stuck.
    let began = Instant::now();
    let mut taken = 0;
    while taken < MESSAGES {
        let feed_down::Frame::Event(event) = feed.feed().await else { panic!("{taken} is missing") };
        taken += 1;
        feed.ack(event.origin, event.position).await;
        if began.elapsed() < Duration::from_secs(4) {
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }
    assert!(client.connection.close_reason().is_none());
    assert_eq!(closed(&world, Reason::Stalled).await, 0.0);
}

/// Reads and acknowledges messages numbered from zero; not one of them may be missing.
async fn take(feed: &mut RawStream, count: usize) {
    for number in 0..count {
        let feed_down::Frame::Event(event) = feed.feed().await else { panic!("{number} is missing") };
        let Some(v1::event::Body::Message(message)) = event.body else { panic!("no message") };
        assert!(message.body.starts_with(format!("{number} ").as_bytes()), "{number} is missing");
        feed.ack(event.origin, event.position).await;
    }
}

#[tokio::test]
async fn a_client_with_room_for_one_byte_gets_its_whole_answer() {
    let world = World::start().await;
    let ada = world.sign_up("ada").await;
    let mut transport = quinn::TransportConfig::default();
    transport.stream_receive_window(1_u32.into());
    let client = RawClient::connect_with(&world.address(), transport).await;
    let client = client.resumed(ada.credentials.token.as_bytes()).await;
    let ping = client.request(v1::request::Command::Ping(v1::Ping {})).await;
    assert!(matches!(ping, v1::response::Result::Pong(_)), "{ping:?}");
}

async fn send_all(sender: &Client, recipient: &Person, count: usize) {
    let mut answers = Vec::new();
    for number in 0..count {
        let body = format!("{number} {}", "x".repeat(2_000));
        answers.push(sender.send(recipient.account(), body).await.expect("queued"));
    }
    for answer in answers {
        expect("an answer", answer.accepted()).await.expect("accepted");
    }
}

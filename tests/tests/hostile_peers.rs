//! Peers that hold on, flood or stop listening: each is told why it is closed, is counted, and costs nobody else anything.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // Test code outside of #[test] functions.

use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use prost::Message;
use quail_client::Client;
use quail_protocol::v1::{self, Reason, feed_down, open::Stream};
use quail_protocol::{frame, limits};
use quail_tests::hostile::{Bystanders, metric, refusals};
use quail_tests::raw::{self, RawClient};
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
    let open = v1::Open { stream: Some(Stream::Feed(v1::Attach { number: 1, cursors })) };
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
async fn a_flood_of_streams_stays_within_its_limit() {
    const STREAMS: usize = 5_000;
    let (world, mallory, mut bystanders) = world().await;
    let mischief = async {
        let client = session(&world, &mallory).await;
        for number in 0..STREAMS {
            let mut stream = client.stream().await;
            match number % 3 {
                0 => stream.send.reset(1_u32.into()).expect("it is open"),
                // Whatever comes of it: nobody listens.
                1 => stream.bytes(Bytes::from_static(&[3, 0xff, 0xff, 0xff])).await,
                _ => stream.write(&v1::Open { stream: None }).await,
            }
        }
        // Its own requests still pass once its streams are through; some were refused for their rate, none for good.
        let ping = v1::request::Command::Ping(v1::Ping {});
        assert!(matches!(client.request(ping).await, v1::response::Result::Pong(_)));
    };
    let ((), seen) = bystanders.watch(&world, mischief).await;
    seen.assert_undisturbed();
    assert!(refusals(&world, Reason::WrongFrame).await >= (STREAMS / 3) as f64);
    assert!(refusals(&world, Reason::Malformed).await >= (STREAMS / 3) as f64);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_beyond_the_rate_are_refused() {
    let (world, mallory, mut bystanders) = world().await;
    let mischief = async {
        let client = session(&world, &mallory).await;
        let mut limited = 0;
        for _ in 0..400 {
            let answer = client.request(v1::request::Command::Ping(v1::Ping {})).await;
            if let v1::response::Result::Error(error) = answer {
                assert_eq!(error.reason(), Reason::RateLimited);
                assert!(error.retry_after_ms > 0);
                limited += 1;
            }
        }
        assert!(limited > 0, "400 pings at once passed");
        limited
    };
    let (limited, seen) = bystanders.watch(&world, mischief).await;
    seen.assert_undisturbed();
    let counted = metric(&world, "quail_rate_refusals_total{class=\"request\"}").await;
    assert_eq!(counted, f64::from(limited));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_stops_holds_up_nobody_and_loses_nothing() {
    /// More than its windows hold, so that most of it must wait in the outbox.
    const MESSAGES: usize = 3_000;
    let world =
        World::start_with(|options| options.env.push(("QUAIL_RATES_SEND".into(), "off".into()))).await;
    let (ada, mallory) = (world.sign_up("ada").await, world.sign_up("mallory").await);
    let mut bystanders = Bystanders::join(&world).await;
    let stopped = session(&world, &mallory).await;
    let mischief = async {
        let mut feed = stopped.attach(1, vec![]).await;
        assert!(matches!(feed.feed().await, feed_down::Frame::CaughtUp(_)));
        // From here on it reads nothing and acknowledges nothing.
        let sender = ada.open().await;
        send_all(&sender, &mallory, MESSAGES).await;
        sender.close().await.expect("all are answered");
        feed
    };
    let (feed, seen) = bystanders.watch(&world, mischief).await;
    seen.assert_undisturbed();
    assert!(metric(&world, "quail_unacknowledged_events").await >= MESSAGES as f64);
    let delivered = metric(&world, "quail_delivered_events_total").await;
    assert!(delivered < MESSAGES as f64 + 2_000.0, "{delivered} events were written to who takes none");
    drop((feed, stopped));
    // Whoever reads again gets every one.
    let client = session(&world, &mallory).await;
    let mut feed = client.attach(2, vec![]).await;
    let mut number = 0;
    while number < MESSAGES {
        let feed_down::Frame::Event(event) = feed.feed().await else { panic!("{number} is missing") };
        let Some(v1::event::Body::Message(message)) = event.body else { panic!("no message") };
        assert!(message.body.starts_with(format!("{number} ").as_bytes()), "{number} is missing");
        feed.ack(event.origin, event.position).await;
        number += 1;
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

//! What a connection costs in memory at the worst: clients that fill every window and queue they can, all at once, stay below
//! what the architecture page says of one connection, times their number.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // Test code outside of #[test] functions.

use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use quail_protocol::v1::{self, open::Stream};
use quail_protocol::{frame, limits};
use quail_tests::hostile::{memory, metric};
use quail_tests::raw::{self, RawClient};
use quail_tests::{Person, World, expect};
use quinn::TransportConfig;
use tokio::task::JoinSet;

/// The worst case of a connection, as the architecture page states it.
const WITH_SESSION_MAX: u64 = 10 * 1024 * 1024;
const BEFORE_SESSION_MAX: u64 = 1024 * 1024;

/// How many do it at once.
const WITH_SESSION: u64 = 16;
const BEFORE_SESSION: u64 = 100;

/// What each of them makes the daemon hold at least, or it is no hostile client: a feed's window and its windows for what it
/// sends; before a session a part of the latter.
const WITH_SESSION_MIN: u64 = 1024 * 1024;
const BEFORE_SESSION_MIN: u64 = 64 * 1024;

/// How many bytes a client writes to a stream that should have ended: a stream's whole window.
const GARBAGE: usize = 256 * 1024;

/// Messages that wait for each client, and their length: more than a feed's window.
const WAITING: usize = 12;
const BODY: usize = 56 * 1024;

async fn world() -> World {
    World::start_with(|options| {
        for class in ["QUAIL_RATES_REQUEST", "QUAIL_RATES_SEND"] {
            options.env.push((class.into(), "off".into()));
        }
    })
    .await
}

/// Connects a client that takes one byte of each stream unless it wants more.
async fn deaf(world: &World) -> RawClient {
    let mut transport = TransportConfig::default();
    transport.stream_receive_window(1_u32.into());
    RawClient::connect_with(&world.address(), transport).await
}

/// A request, and behind it as much as the daemon lets in.
fn request_and_more() -> Bytes {
    let request = v1::Request { command: Some(v1::request::Command::Ping(v1::Ping {})) };
    let mut bytes =
        BytesMut::from(&frame::to_bytes(&v1::Open { stream: Some(Stream::Request(request)) })[..]);
    bytes.put_bytes(0, GARBAGE);
    bytes.freeze()
}

/// The publish lane with a frame of which the last byte never comes.
fn publish_without_end() -> Bytes {
    let open = v1::Open { stream: Some(Stream::Publish(v1::OpenPublish {})) };
    let mut bytes = BytesMut::from(&frame::to_bytes(&open)[..]);
    frame::put_prefix(limits::FRAME_BYTES_MAX, &mut bytes);
    bytes.put_bytes(0, limits::FRAME_BYTES_MAX - 1);
    bytes.freeze()
}

/// Opens a stream, writes to it as long as it is let, and holds it.
fn pour(client: &RawClient, bytes: Bytes, pouring: &mut JoinSet<()>) {
    let connection = client.connection.clone();
    pouring.spawn(async move {
        let Ok((mut send, _recv)) = connection.open_bi().await else { return };
        // What does not fit waits for room that never comes.
        let _ = send.write_chunk(bytes).await;
        std::future::pending::<()>().await;
    });
}

/// What the daemon took while somebody filled it.
struct Watch {
    pid: u32,
    before: u64,
}

impl Watch {
    fn begin(world: &World) -> Self {
        let pid = world.daemon.pid().expect("the daemon runs");
        // Begins the high-water mark anew (proc(5), clear_refs).
        std::fs::write(format!("/proc/{pid}/clear_refs"), "5").expect("the process is ours");
        Self { pid, before: memory(pid, "VmRSS") }
    }

    /// Waits until the daemon has grown by so much at some moment.
    async fn grown_by(&self, bytes: u64) {
        let grown = async {
            while memory(self.pid, "VmHWM").saturating_sub(self.before) < bytes {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        expect("the clients to fill what they can", grown).await;
    }

    fn assert_at_most(&self, connections: u64, each: u64) {
        let grown = memory(self.pid, "VmHWM").saturating_sub(self.before);
        eprintln!("{connections} connections: {} KiB each at the most", grown / connections / 1024);
        assert!(grown <= connections * each, "{grown} bytes for {connections} connections");
    }
}

/// Has more wait for everybody than a feed's window holds.
async fn write_to(sender: &Person, recipients: &[Person]) {
    let client = sender.open().await;
    let mut answers = Vec::new();
    for recipient in recipients {
        for _ in 0..WAITING {
            answers.push(client.send(recipient.account(), "x".repeat(BODY)).await.expect("queued"));
        }
    }
    for answer in answers {
        expect("an answer", answer.accepted()).await.expect("accepted");
    }
    client.close().await.expect("all are answered");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_that_fill_everything_cost_no_more_than_the_worst_case_each() {
    let world = world().await;
    let sender = world.sign_up("sender").await;
    let people = world.people(WITH_SESSION as usize).await;
    write_to(&sender, &people).await;
    let mut clients = Vec::new();
    for person in &people {
        clients.push(deaf(&world).await.resumed(person.credentials.token.as_bytes()).await);
    }
    let watch = Watch::begin(&world);
    let mut pouring = JoinSet::new();
    for client in &clients {
        let attach = v1::Attach { number: 1, cursors: vec![], set_aside: vec![] };
        pour(client, frame::to_bytes(&v1::Open { stream: Some(Stream::Feed(attach)) }), &mut pouring);
        pour(client, publish_without_end(), &mut pouring);
        for _ in 0..limits::REQUESTS_MAX {
            pour(client, request_and_more(), &mut pouring);
        }
    }
    watch.grown_by(WITH_SESSION * WITH_SESSION_MIN).await;
    // All of them are closed for frames without an end; by then they had the time to do their worst.
    for client in &clients {
        assert_eq!(client.closed().await, v1::Reason::FrameTimeout);
    }
    watch.assert_at_most(WITH_SESSION, WITH_SESSION_MAX);
    assert_eq!(metric(&world, "quail_mailbox_overflows_total").await, 0.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_that_fill_everything_cost_no_more_than_the_worst_case_each() {
    let world = world().await;
    let mut clients = Vec::new();
    for _ in 0..BEFORE_SESSION {
        let client = deaf(&world).await;
        client.hello(raw::hello(b"")).await;
        clients.push(client);
    }
    let watch = Watch::begin(&world);
    let mut pouring = JoinSet::new();
    for client in &clients {
        for _ in 0..limits::REQUESTS_MAX {
            pour(client, request_and_more(), &mut pouring);
        }
    }
    watch.grown_by(BEFORE_SESSION * BEFORE_SESSION_MIN).await;
    for client in &clients {
        assert_eq!(client.closed().await, v1::Reason::Unauthenticated);
    }
    watch.assert_at_most(BEFORE_SESSION, BEFORE_SESSION_MAX);
}

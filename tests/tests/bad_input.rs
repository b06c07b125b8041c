//! Bad input: each kind gets its own typed error, and the daemon goes on serving others.
#![allow(clippy::unwrap_used, clippy::panic)] // Test code outside of #[test] functions.

use bytes::{Bytes, BytesMut};
use quail_client::{Client, Error, Guest, MemoryStore, Pin};
use quail_protocol::error::close;
use quail_protocol::v1::request::Command;
use quail_protocol::v1::response::Result as Answer;
use quail_protocol::v1::{self, Reason, feed_down, hello_reply, open, publish_down};
use quail_protocol::{frame, limits};
use quail_tests::raw::{RawClient, RawStream, hello, send};
use quail_tests::{PASSWORD, World, expect, options};

async fn guest(world: &World) -> RawClient {
    let client = RawClient::connect(&world.address()).await;
    assert!(matches!(client.hello(hello(b"")).await, hello_reply::Result::Welcome(_)));
    client
}

fn reason(answer: Answer) -> Reason {
    match answer {
        Answer::Error(error) => error.reason(),
        other => panic!("expected a refusal, got {other:?}"),
    }
}

fn refused(frame: publish_down::Frame) -> v1::Error {
    match frame {
        publish_down::Frame::Refused(refused) => refused.error.unwrap(),
        publish_down::Frame::Accepted(accepted) => panic!("{accepted:?}"),
    }
}

#[tokio::test]
async fn a_wrong_pin_is_told_with_both_pins() {
    let world = World::start().await;
    let mut address = world.address();
    let right = address.pin.replace(Pin([7; 32])).unwrap();
    match Guest::connect(&address, options()).await {
        Err(Error::WrongPin { expected, got, .. }) => assert_eq!((expected, got), (Pin([7; 32]), right)),
        other => panic!("expected WrongPin, got {:?}", other.err()),
    }
    // Without a pin a self-signed certificate is not trusted.
    address.pin = None;
    let error = Guest::connect(&address, options()).await.err().unwrap();
    assert!(matches!(error, Error::Certificate { .. }), "{error:?}");
}

#[tokio::test]
async fn wrong_password_and_unknown_handle_are_one_answer() {
    let world = World::start().await;
    world.sign_up("ada").await;
    let client = guest(&world).await;
    let log_in = |handle: &str, password: &str| {
        let (handle, password) = (handle.to_owned(), password.to_owned());
        Command::LogIn(v1::LogIn { handle, password, ..Default::default() })
    };
    let wrong = client.request(log_in("ada", "not the password")).await;
    let unknown = client.request(log_in("nobody", PASSWORD)).await;
    assert_eq!(wrong, unknown);
    assert_eq!(reason(wrong), Reason::WrongCredentials);
}

#[tokio::test]
async fn sign_up_says_what_is_wrong() {
    let world = World::start().await;
    world.sign_up("ada").await;
    let client = guest(&world).await;
    let sign_up = |handle: &str, password: &str| {
        let (handle, password) = (handle.to_owned(), password.to_owned());
        Command::SignUp(v1::SignUp { handle, password, ..Default::default() })
    };
    assert_eq!(reason(client.request(sign_up("ada", PASSWORD)).await), Reason::HandleTaken);
    for handle in ["", "ab", "Ada", "a b", "ada\n", &"x".repeat(33)] {
        assert_eq!(reason(client.request(sign_up(handle, PASSWORD)).await), Reason::HandleInvalid);
    }
    for password in ["", "short", &"x".repeat(1025)] {
        assert_eq!(reason(client.request(sign_up("bob", password)).await), Reason::PasswordInvalid);
    }
    assert!(matches!(client.request(sign_up("bob", PASSWORD)).await, Answer::Session(_)));
    let again = client.request(sign_up("cid", PASSWORD)).await;
    assert_eq!(reason(again), Reason::WrongFrame, "the connection has a session already");
}

#[tokio::test]
async fn look_up_of_an_unknown_handle() {
    let world = World::start().await;
    let ada = world.sign_up("ada").await;
    let client = RawClient::resume(&world.address(), ada.credentials.token.as_bytes()).await;
    let look_up = |by| Command::LookUp(v1::LookUp { by });
    let by_handle = |handle: &str| look_up(Some(v1::look_up::By::Handle(handle.to_owned())));
    assert_eq!(reason(client.request(by_handle("nobody")).await), Reason::UnknownAccount);
    assert_eq!(reason(client.request(by_handle("No Handle")).await), Reason::UnknownAccount);
    let by_account = |bytes: Vec<u8>| look_up(Some(v1::look_up::By::Account(bytes.into())));
    assert_eq!(reason(client.request(by_account(vec![1; 16])).await), Reason::UnknownAccount);
    assert_eq!(reason(client.request(by_account(vec![1; 3])).await), Reason::Malformed);
    assert_eq!(reason(client.request(look_up(None)).await), Reason::Malformed);
    assert!(matches!(client.request(by_handle("ada")).await, Answer::Profile(_)));
}

#[tokio::test]
async fn a_client_of_a_future_version_is_told_which_versions_there_are() {
    let world = World::start().await;
    let client = RawClient::connect(&world.address()).await;
    let future = v1::Hello { version_min: 2, version_max: 9, ..hello(b"") };
    let hello_reply::Result::Error(error) = client.hello(future).await else {
        panic!("welcome to the future")
    };
    assert_eq!(error.reason(), Reason::Version);
    assert!(error.text.contains("1 to 1") && error.text.contains("2 to 9"), "{}", error.text);
    assert_eq!(client.closed().await, Reason::Version);
    // One that speaks both goes on with the one in common.
    let client = RawClient::connect(&world.address()).await;
    let both = v1::Hello { version_max: 9, ..hello(b"") };
    let hello_reply::Result::Welcome(welcome) = client.hello(both).await else { panic!("no common version") };
    assert_eq!(welcome.version, 1);
}

/// Returns the code with which the daemon ended a stream.
async fn reset_code(stream: &mut RawStream) -> u64 {
    match expect("the stream to be reset", stream.recv.read_chunk(1, true)).await {
        Err(quinn::ReadError::Reset(code)) => code.into_inner(),
        other => panic!("expected a reset, got {other:?}"),
    }
}

#[tokio::test]
async fn frames_that_are_none_end_their_stream_with_the_reason() {
    let world = World::start().await;
    let client = guest(&world).await;
    let mut oversized = BytesMut::new();
    frame::put_prefix(limits::OPEN_BYTES_MAX + 1, &mut oversized);
    let cases: [(&[u8], Reason); 5] = [
        (&oversized, Reason::FrameTooLarge),
        (&[0xff, 0xff, 0xff], Reason::FrameTooLarge),
        (&[0x81, 0x00, 0x00], Reason::Malformed),
        (&[0x02, 0xff, 0xff], Reason::Malformed),
        (&[0x00], Reason::WrongFrame),
    ];
    for (bytes, reason) in cases {
        let mut stream = client.stream().await;
        stream.bytes(Bytes::copy_from_slice(bytes)).await;
        assert_eq!(reset_code(&mut stream).await, u64::from(close::code(reason)), "{bytes:?}");
    }
    assert!(matches!(client.request(Command::Ping(v1::Ping {})).await, Answer::Pong(_)));
}

#[tokio::test]
async fn a_frame_that_never_ends_is_given_up() {
    let world = World::start().await;
    let ada = world.sign_up("ada").await;
    let client = RawClient::resume(&world.address(), ada.credentials.token.as_bytes()).await;
    let mut begun = client.stream().await;
    begun.bytes(Bytes::from_static(&[0x20, 0x12])).await;
    let mut lane = client.publish().await;
    lane.bytes(Bytes::from_static(&[0x20, 0x0a])).await;
    assert_eq!(client.closed().await, Reason::FrameTimeout);
}

#[tokio::test]
async fn the_first_stream_must_be_the_hello_and_a_hello_comes_once() {
    let world = World::start().await;
    let client = RawClient::connect(&world.address()).await;
    let answer = client.request(Command::Ping(v1::Ping {})).await;
    assert_eq!(reason(answer), Reason::WrongFrame);
    assert_eq!(client.closed().await, Reason::WrongFrame);

    let client = guest(&world).await;
    let hello_reply::Result::Error(error) = client.hello(hello(b"")).await else { panic!("a second hello") };
    assert_eq!(error.reason(), Reason::WrongFrame);
}

#[tokio::test]
async fn a_connection_that_says_nothing_is_closed() {
    let world = World::start().await;
    let client = RawClient::connect(&world.address()).await;
    assert_eq!(client.closed().await, Reason::FrameTimeout);
    let client = guest(&world).await;
    assert_eq!(client.closed().await, Reason::Unauthenticated);
}

#[tokio::test]
async fn each_bad_send_has_its_reason_and_the_lane_goes_on() {
    let world = World::start().await;
    let (ada, bob) = (world.sign_up("ada").await, world.sign_up("bob").await);
    let client = RawClient::resume(&world.address(), ada.credentials.token.as_bytes()).await;
    let mut lane = client.publish().await;
    let good = |number| send(number, bob.account(), "hi");
    let old = {
        let mut id = good(1).id.to_vec();
        id[..6].copy_from_slice(&[0; 6]);
        Bytes::from(id)
    };
    let ahead = {
        let mut id = good(1).id.to_vec();
        id[..6].copy_from_slice(&[0xff; 6]);
        Bytes::from(id)
    };
    let cases = [
        (v1::Send { body: vec![b'x'; limits::BODY_BYTES_MAX + 1].into(), ..good(1) }, Reason::BodyTooLarge),
        (v1::Send { body: Bytes::from_static(b"\xff"), ..good(2) }, Reason::BodyInvalid),
        (v1::Send { body: Bytes::from_static(b"a\0b"), ..good(3) }, Reason::BodyInvalid),
        (v1::Send { kind: 77, ..good(4) }, Reason::BodyInvalid),
        (v1::Send { id: Bytes::from_static(&[1; 16]), ..good(5) }, Reason::IdInvalid),
        (v1::Send { id: Bytes::from_static(&[1; 3]), ..good(6) }, Reason::Malformed),
        (v1::Send { id: old, ..good(7) }, Reason::IdTime),
        (v1::Send { id: ahead, ..good(8) }, Reason::IdTime),
        (v1::Send { recipient: Bytes::from_static(&[9; 16]), ..good(9) }, Reason::UnknownAccount),
        (v1::Send { seen: u64::MAX, ..good(10) }, Reason::Clock),
    ];
    for (bad, reason) in cases {
        let number = bad.number;
        let error = refused(lane.say(bad).await);
        assert_eq!((error.reason(), error.temporary), (reason, false), "send {number}");
    }
    assert!(matches!(lane.say(good(11)).await, publish_down::Frame::Accepted(_)));
    let longest = v1::Send { body: vec![b'x'; limits::BODY_BYTES_MAX].into(), ..good(12) };
    assert!(matches!(lane.say(longest).await, publish_down::Frame::Accepted(_)));
    // A lane frame that is no frame of the lane ends the connection: what follows it cannot be understood.
    lane.write(&v1::PublishUp { frame: Some(v1::publish_up::Frame::Restart(v1::Restart {})) }).await;
    lane.write(&v1::PublishUp { frame: None }).await;
    assert_eq!(client.closed().await, Reason::WrongFrame);
}

#[tokio::test]
async fn one_lane_of_each_kind() {
    let world = World::start().await;
    let ada = world.sign_up("ada").await;
    let client = RawClient::resume(&world.address(), ada.credentials.token.as_bytes()).await;
    let mut first = client.publish().await;
    assert!(matches!(first.say(send(1, ada.account(), "a")).await, publish_down::Frame::Accepted(_)));
    let mut second = client.publish().await;
    let answer = second.next::<v1::PublishDown>().await.frame.unwrap();
    assert_eq!(refused(answer).reason(), Reason::Limit);
    // A newer attach replaces the feed, on the same connection too.
    let mut older = client.attach(1, vec![]).await;
    assert!(matches!(older.feed().await, feed_down::Frame::Event(_)));
    assert!(matches!(older.feed().await, feed_down::Frame::CaughtUp(_)));
    let mut newer = client.attach(2, vec![]).await;
    let feed_down::Frame::Ended(error) = older.feed().await else { panic!("two feeds") };
    assert_eq!(error.reason(), Reason::Replaced);
    assert_eq!(older.read::<v1::FeedDown>().await, None);
    assert!(matches!(newer.feed().await, feed_down::Frame::Event(_)));
}

#[tokio::test]
async fn an_attach_with_impossible_values_is_refused() {
    let world = World::start().await;
    let ada = world.sign_up("ada").await;
    let client = RawClient::resume(&world.address(), ada.credentials.token.as_bytes()).await;
    let cursor = v1::Cursor { origin: 1, position: 1 };
    for (number, cursors) in [(0, vec![]), (1, vec![cursor; limits::CURSORS_MAX + 1])] {
        let open = open::Stream::Feed(v1::Attach { number, cursors, set_aside: vec![] });
        let mut feed = client.open(open).await;
        let feed_down::Frame::Ended(error) = feed.feed().await else { panic!("attached with {number}") };
        assert_eq!(error.reason(), Reason::Malformed);
    }
    // A cursor that this origin never gave says nothing; what waits is delivered.
    let future = v1::Cursor { origin: 1, position: u64::MAX };
    let mut feed = client.attach(1, vec![future]).await;
    assert!(matches!(feed.feed().await, feed_down::Frame::CaughtUp(_)));
}

#[tokio::test]
async fn the_sdk_refuses_what_the_daemon_would_and_tells_a_dead_session() {
    let world = World::start().await;
    let (ada, bob) = (world.sign_up("ada").await, world.sign_up("bob").await);
    let client = ada.open().await;
    let error = client.send(bob.account(), "x".repeat(limits::BODY_BYTES_MAX + 1)).await.err().unwrap();
    assert!(matches!(error, Error::BodyTooLarge { .. }), "{error:?}");
    let error = client.look_up("nobody").await.unwrap_err();
    assert_eq!(error.reason(), Some(Reason::UnknownAccount));
    client.log_out().await.unwrap();
    let opened = Client::open(&world.address(), &ada.credentials, MemoryStore::new(), options()).await;
    let error = opened.err().unwrap();
    assert_eq!(error.reason(), Some(Reason::Unauthenticated));
    assert!(error.is_final());
}

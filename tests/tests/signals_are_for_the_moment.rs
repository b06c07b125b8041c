//! Promise: a signal reaches the devices of its recipient that are there, and nobody else; an older one never takes the place
//! of a newer; it is never stored, and it costs nobody else anything.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // Test code outside of #[test] functions.

use std::time::Duration;

use prost::Message as _;
use quail_client::{AccountId, Client, Event, Events, Typing};
use quail_protocol::v1::{self, Reason, TypingState, feed_down::Frame, signal::Body};
use quail_tests::hostile::metric;
use quail_tests::proxy::{Direction, Faults, Proxy};
use quail_tests::raw::{RawClient, RawStream};
use quail_tests::{Person, World, expect, next_message, options, seed};
use quinn::TransportConfig;

/// Returns the next word on who is typing; what else comes is acknowledged.
async fn next_typing(events: &mut Events) -> Typing {
    loop {
        let delivery = expect("the next event", events.next()).await.unwrap();
        if let Event::Typing(typing) = delivery.acknowledge() {
            return typing;
        }
    }
}

/// A signal as it goes up.
fn typing(to: AccountId, counter: u64, state: TypingState) -> v1::Signal {
    let body = Some(Body::Typing(v1::Typing { state: state as i32 }));
    v1::Signal { account: to.to_bytes(), device: Default::default(), counter, body }
}

/// Attaches by hand and reads until everything that waited is here, so that the daemon has the feed.
async fn attached(client: &RawClient, number: u64) -> RawStream {
    let mut feed = client.attach(number, vec![]).await;
    while !matches!(feed.feed().await, Frame::CaughtUp(_)) {}
    feed
}

async fn raw(world: &World, person: &Person) -> RawClient {
    RawClient::resume(&world.address(), person.credentials.token.as_bytes()).await
}

/// A client that takes no datagrams.
async fn without_datagrams(world: &World, person: &Person) -> RawClient {
    let mut transport = TransportConfig::default();
    transport.datagram_receive_buffer_size(None);
    let client = RawClient::connect_with(&world.address(), transport).await;
    client.resumed(person.credentials.token.as_bytes()).await
}

/// Opens a client whose feed is attached.
async fn online(person: &Person) -> (Client, Events) {
    let client = person.open().await;
    let mut events = client.events().await.unwrap();
    loop {
        let delivery = expect("the feed to be attached", events.next()).await.unwrap();
        if matches!(delivery.acknowledge(), Event::CaughtUp) {
            return (client, events);
        }
    }
}

#[tokio::test]
async fn typing_is_shown_on_every_device_of_the_other_and_ends() {
    let world = World::start().await;
    let (ada, bob) = (world.sign_up("ada").await, world.sign_up("bob").await);
    let (ada_phone, bob_phone) = (world.log_in("ada").await, world.log_in("bob").await);
    let (writer, mut own) = online(&ada).await;
    let (_own_phone, mut own_phone) = online(&ada_phone).await;
    let (reader, mut shown) = online(&bob).await;
    let (_phone, mut shown_phone) = online(&bob_phone).await;
    for active in [true, false] {
        // With every key, and only what is news is sent.
        for _ in 0..100 {
            writer.typing(bob.account(), active);
        }
        for events in [&mut shown, &mut shown_phone] {
            let word = next_typing(events).await;
            assert_eq!((word.from, word.active), (ada.account(), active));
            assert_eq!(word.device, ada.credentials.device);
        }
    }
    // Whoever stops without a word has stopped all the same.
    writer.typing(bob.account(), true);
    assert!(next_typing(&mut shown).await.active);
    writer.close().await.unwrap();
    assert!(!next_typing(&mut shown).await.active);
    // The account that types was told nothing of it: what comes first is the message.
    reader.send(ada.account(), "yes?").await.unwrap();
    let delivery = expect("the next event", own_phone.next()).await.unwrap();
    assert!(matches!(delivery.event, Event::Message(_)), "{:?}", delivery.event);
    assert!(own.try_next().is_none());
    assert_eq!(metric(&world, "quail_signals_dropped_total").await, 0.0);
}

#[tokio::test]
async fn without_datagrams_signals_take_the_feed_lane_in_both_directions() {
    let world = World::start().await;
    let (ada, bob) = (world.sign_up("ada").await, world.sign_up("bob").await);
    let reader = without_datagrams(&world, &bob).await;
    let mut feed = attached(&reader, 1).await;
    let writer = without_datagrams(&world, &ada).await;
    let mut up = attached(&writer, 1).await;
    let signal = typing(bob.account(), 7, TypingState::Started);
    up.write(&v1::FeedUp { frame: Some(v1::feed_up::Frame::Signal(signal)) }).await;
    let Frame::Signal(came) = feed.feed().await else { panic!("no signal") };
    assert_eq!((came.account, came.counter), (ada.account().to_bytes(), 7));
    assert_eq!(came.device, ada.credentials.device.to_bytes());
    // The SDK does the same where it is told to.
    let options = quail_client::Options { datagrams: false, ..options() };
    let store = std::sync::Arc::new(quail_client::MemoryStore::new());
    store_attached(&store);
    let client = Client::open(&world.address(), &ada.credentials, store, options).await.unwrap();
    let mut events = client.events().await.unwrap();
    while !matches!(expect("the feed", events.next()).await.unwrap().acknowledge(), Event::CaughtUp) {}
    let signal = typing(ada.account(), 1, TypingState::Started);
    feed.write(&v1::FeedUp { frame: Some(v1::feed_up::Frame::Signal(signal)) }).await;
    assert!(next_typing(&mut events).await.active);
    client.typing(bob.account(), true);
    let Frame::Signal(came) = feed.feed().await else { panic!("no signal") };
    assert_eq!(came.device, ada.credentials.device.to_bytes());
}

/// The raw client of the device has used the first attach numbers.
fn store_attached(store: &quail_client::MemoryStore) {
    use quail_client::store::{FeedChange, Store};
    store.commit_feed(&[FeedChange::Attached(10)]).unwrap();
}

#[tokio::test]
async fn an_older_word_never_takes_the_place_of_a_newer() {
    let world = World::start().await;
    let (ada, bob) = (world.sign_up("ada").await, world.sign_up("bob").await);
    // The network overtakes as it likes on the way to the reader.
    let proxy = Proxy::before(&world, seed());
    let reorder_by = Duration::from_millis(5);
    proxy.set(Direction::Down, Faults { duplication: 0.3, reorder: 0.5, reorder_by, ..Faults::default() });
    let (_reader, mut events) = online(&bob.by_way_of(proxy.address(&world))).await;
    let writer = raw(&world, &ada).await;
    let send = |counter, state| {
        let signal = typing(bob.account(), counter, state);
        writer.connection.send_datagram(signal.encode_to_vec().into()).unwrap();
    };
    // Said by a client that has them in disorder itself; one at a time, so that each arrives.
    send(5, TypingState::Started);
    assert!(next_typing(&mut events).await.active);
    for counter in [4, 5, 3] {
        send(counter, TypingState::Stopped);
    }
    for round in 1..=10_u64 {
        // A burst in which words overtake one another ends with the newest, whatever is lost on its way.
        send(10 * round, TypingState::Stopped);
        send(10 * round + 1, TypingState::Started);
        send(10 * round + 2, TypingState::Stopped);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let stopped = async {
        let mut last = true;
        while last {
            last = next_typing(&mut events).await.active;
        }
    };
    expect("the last word", stopped).await;
    // Far later than the latest that may be under way, it is still the last.
    send(1_000, TypingState::Started);
    assert!(next_typing(&mut events).await.active);
}

#[tokio::test]
async fn who_is_not_there_is_told_nothing_and_nobody_learns_it() {
    let world = World::start().await;
    let (ada, bob) = (world.sign_up("ada").await, world.sign_up("bob").await);
    let writer = raw(&world, &ada).await;
    let mut up = attached(&writer, 1).await;
    for to in [AccountId([7; 16]), bob.account(), ada.account()] {
        writer.connection.send_datagram(typing(to, 1, TypingState::Started).encode_to_vec().into()).unwrap();
        let signal = typing(to, 2, TypingState::Started);
        up.write(&v1::FeedUp { frame: Some(v1::feed_up::Frame::Signal(signal)) }).await;
    }
    let pong = writer.request(v1::request::Command::Ping(v1::Ping {})).await;
    assert!(matches!(pong, v1::response::Result::Pong(_)));
    // It was not kept for him.
    let reader = raw(&world, &bob).await;
    let _feed = attached(&reader, 1).await;
    let came = tokio::time::timeout(Duration::from_millis(200), reader.connection.read_datagram()).await;
    assert!(came.is_err(), "{came:?}");
}

#[tokio::test]
async fn a_flood_ends_with_its_own_connection_and_costs_no_sync() {
    let world = World::start().await;
    let (ada, bob, eve) =
        (world.sign_up("ada").await, world.sign_up("bob").await, world.sign_up("eve").await);
    let (reader, mut events) = online(&bob).await;
    let flooder = raw(&world, &eve).await;
    let (_writer_feed, syncs) = (online(&ada).await, metric(&world, "quail_commit_seconds_count").await);
    let flood = async {
        let mut counter = 0;
        while flooder.connection.close_reason().is_none() {
            counter += 1;
            let signal = typing(bob.account(), counter, TypingState::Started).encode_to_vec();
            if flooder.connection.send_datagram_wait(signal.into()).await.is_err() {
                break;
            }
        }
    };
    expect("the flood to end", flood).await;
    assert_eq!(flooder.closed().await, Reason::RateLimited);
    assert_eq!(metric(&world, "quail_commit_seconds_count").await, syncs, "a signal is on no disk");
    // Others go on: what is sent arrives, and what is typed too.
    let writer = ada.open().await;
    writer.send(bob.account(), "still here").await.unwrap();
    let mut texts = 0;
    while texts == 0 {
        let delivery = expect("the message", events.next()).await.unwrap();
        texts += usize::from(matches!(delivery.acknowledge(), Event::Message(_)));
    }
    writer.typing(bob.account(), true);
    let from_ada = async { while next_typing(&mut events).await.from != ada.account() {} };
    expect("a word of ada", from_ada).await;
    reader.close().await.unwrap();
}

#[tokio::test]
async fn who_does_not_read_loses_signals_and_no_mail() {
    let world = World::start().await;
    let (ada, bob) = (world.sign_up("ada").await, world.sign_up("bob").await);
    let mut transport = TransportConfig::default();
    transport.datagram_receive_buffer_size(None).stream_receive_window(4096_u32.into());
    let reader = RawClient::connect_with(&world.address(), transport).await;
    let reader = reader.resumed(bob.credentials.token.as_bytes()).await;
    let mut feed = attached(&reader, 1).await;
    let writer = ada.open().await;
    let body = "x".repeat(8 * 1024);
    for _ in 0..8 {
        writer.send(bob.account(), body.clone()).await.unwrap();
    }
    writer.flush().await.unwrap();
    // More lies there than the reader has taken: a signal finds no room behind it.
    let dropped = async {
        let mut active = true;
        while metric(&world, "quail_signals_dropped_total").await == 0.0 {
            writer.typing(bob.account(), active);
            active = !active;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    expect("a signal to be dropped", dropped).await;
    let mut messages = 0;
    while messages < 8 {
        match feed.feed().await {
            Frame::Event(event) => {
                feed.ack(event.origin, event.position).await;
                messages += 1;
            }
            Frame::Signal(_) => {}
            other => panic!("unexpected {other:?}"),
        }
    }
    // Once it reads again, the next signal comes.
    let came = async {
        let mut active = true;
        loop {
            writer.typing(bob.account(), active);
            active = !active;
            let next = tokio::time::timeout(Duration::from_millis(200), feed.feed()).await;
            if let Ok(Frame::Signal(_)) = next {
                return;
            }
        }
    };
    expect("a signal", came).await;
}

#[tokio::test]
async fn what_is_no_signal_is_charged_and_ends_nothing_at_once() {
    let world = World::start().await;
    let (ada, bob) = (world.sign_up("ada").await, world.sign_up("bob").await);
    let writer = raw(&world, &ada).await;
    for wrong in [vec![0xff; 3], vec![0; 300], vec![]] {
        writer.connection.send_datagram(wrong.into()).unwrap();
    }
    let pong = writer.request(v1::request::Command::Ping(v1::Ping {})).await;
    assert!(matches!(pong, v1::response::Result::Pong(_)));
    let mut up = attached(&writer, 1).await;
    let mut signal = typing(bob.account(), 1, TypingState::Started);
    signal.device = vec![0; 300].into();
    up.write(&v1::FeedUp { frame: Some(v1::feed_up::Frame::Signal(signal)) }).await;
    let Frame::Ended(error) = up.feed().await else { panic!("the feed goes on") };
    assert_eq!(error.reason(), Reason::Malformed);
    // Mail is not touched by any of it.
    let reader = bob.open().await;
    let mut events = reader.events().await.unwrap();
    ada.open().await.send(bob.account(), "hi").await.unwrap().accepted().await.unwrap();
    next_message(&mut events).await;
}

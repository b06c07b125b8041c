//! Promise: `delivered` comes after a device of the recipient acknowledged, for exactly what it acknowledged, and always;
//! `read` after a device of the recipient said so, of what it got, and to nobody else if its account does not want that.
#![allow(clippy::unwrap_used, clippy::panic)] // Test code outside of #[test] functions.

use std::collections::VecDeque;
use std::sync::Arc;

use quail_client::AccountId;
use quail_protocol::v1::event::Body;
use quail_protocol::v1::{self, Reason, feed_down::Frame};
use quail_tests::checker::{Terms, What};
use quail_tests::hostile::metric;
use quail_tests::raw::{RawClient, RawStream};
use quail_tests::witness::{Record, Witness};
use quail_tests::{Person, World, expect, next_delivery, next_message};

#[tokio::test]
async fn delivered_follows_the_acknowledgement_and_nothing_else() {
    let world = World::start().await;
    let (ada, bob) = (world.sign_up("ada").await, world.sign_up("bob").await);
    let sender = ada.open().await;
    sender.watch_receipts().await.unwrap();
    let reader = bob.open().await;
    let mut events = reader.events().await.unwrap();
    let mut sendings = Vec::new();
    for number in 0..10 {
        sendings.push(sender.send(bob.account(), format!("{number}")).await.unwrap());
    }
    let mut deliveries = Vec::new();
    for _ in 0..10 {
        deliveries.push(next_delivery(&mut events).await.0);
    }
    // All are written to the device, none is acknowledged. A round trip on both sides later there is still no receipt.
    reader.ping().await.unwrap();
    sender.ping().await.unwrap();
    for sending in &sendings {
        assert!(!is_ready(sending.delivered()).await, "delivered before anybody acknowledged");
    }
    for (number, delivery) in deliveries.into_iter().take(4).enumerate() {
        delivery.acknowledge();
        expect("a receipt", sendings[number].delivered()).await.unwrap();
    }
    for sending in &sendings[4..] {
        assert!(!is_ready(sending.delivered()).await, "delivered though not acknowledged");
    }
}

async fn is_ready(future: impl Future) -> bool {
    tokio::select! {
        biased;
        _ = future => true,
        () = std::future::ready(()) => false,
    }
}

#[tokio::test]
async fn a_receipt_waits_for_a_sender_who_is_away_and_for_a_daemon_that_was_killed() {
    let (mut world, record) = (World::start().await, Record::new());
    let (ada, bob) = (world.sign_up("ada").await, world.sign_up("bob").await);
    record.joins(&bob);
    let mut sender = Witness::join(&ada, &record).await;
    for number in 0..50 {
        sender.send(bob.account(), &format!("{number}")).await;
    }
    sender.has_answers(50).await;
    sender.close().await;
    // Until the daemon has seen that a receipt may still be written to the sender, and then the next one is another.
    expect("the sender to be gone", async { while metric(&world, "quail_connections").await > 0.0 {} }).await;
    let reader = Witness::open(&bob, &record).await;
    reader.has_shown(50).await;
    reader.close().await;
    world.kill_and_restart().await;

    // A stretch covers every message once, and few events do: unseen receipts of one reader become one.
    let client = RawClient::resume(&world.address(), ada.credentials.token.as_bytes()).await;
    let mut feed = client.attach(100, vec![]).await;
    let mut receipts = 0;
    loop {
        match feed.feed().await {
            Frame::Event(event) => {
                assert!(matches!(event.body, Some(Body::Receipt(_))), "{event:?}");
                record.event(&ada, &event);
                receipts += 1;
            }
            Frame::CaughtUp(_) => break,
            other => panic!("unexpected {other:?}"),
        }
    }
    assert_eq!(receipts, 1);
    record.assert_kept(Terms { gaps: false, receipts: true });
}

#[tokio::test]
async fn the_first_of_many_devices_makes_it_delivered_and_the_second_changes_nothing() {
    let world = World::start().await;
    let (ada, bob) = (world.sign_up("ada").await, world.sign_up("bob").await);
    let tablet = world.log_in("bob").await;
    let sender = ada.open().await;
    sender.watch_receipts().await.unwrap();
    let sending = sender.send(bob.account(), "hello").await.unwrap();
    for device in [&tablet, &bob] {
        let client = device.open().await;
        next_message(&mut client.events().await.unwrap()).await;
        client.close().await.unwrap();
        expect("a receipt", sending.delivered()).await.unwrap();
    }
    sender.close().await.unwrap();
    let client = RawClient::resume(&world.address(), ada.credentials.token.as_bytes()).await;
    let mut feed = client.attach(100, vec![]).await;
    // What the SDK took and acknowledged is a gap for this client, which claims to know nothing.
    let (mut gaps, mut receipts) = (0, 0);
    loop {
        match feed.feed().await {
            Frame::Event(v1::Event { body: Some(Body::Receipt(_)), .. }) => receipts += 1,
            Frame::Gap(_) => gaps += 1,
            Frame::CaughtUp(_) => break,
            other => panic!("unexpected {other:?}"),
        }
    }
    assert_eq!(gaps + receipts, 1, "one receipt for one message");
}

#[tokio::test]
async fn a_message_to_oneself_is_delivered_like_any_other() {
    let world = World::start().await;
    let ada = world.sign_up("ada").await;
    let client = ada.open().await;
    let mut events = client.events().await.unwrap();
    let sending = client.send(ada.account(), "buy milk").await.unwrap();
    next_message(&mut events).await;
    expect("a receipt", sending.delivered()).await.unwrap();
}

/// A device that speaks the wire by hand, acknowledges what it gets and writes it down.
struct Raw<'a> {
    client: RawClient,
    feed: RawStream,
    /// What came while it waited for something else.
    came: VecDeque<v1::Event>,
    person: &'a Person,
    record: Arc<Record>,
}

impl<'a> Raw<'a> {
    async fn attach(
        world: &World,
        person: &'a Person,
        record: &Arc<Record>,
        number: u64,
        position: u64,
    ) -> Self {
        let client = RawClient::resume(&world.address(), person.credentials.token.as_bytes()).await;
        let cursors = (position > 0).then_some(v1::Cursor { origin: 1, position });
        let feed = client.attach(number, cursors.into_iter().collect()).await;
        Self { client, feed, came: VecDeque::new(), person, record: record.clone() }
    }

    /// Returns the next event, acknowledged.
    async fn event(&mut self) -> v1::Event {
        let event = loop {
            if let Some(event) = self.came.pop_front() {
                break event;
            }
            match self.feed.feed().await {
                Frame::Event(event) => self.came.push_back(event),
                Frame::CaughtUp(_) | Frame::Gap(_) | Frame::Signal(_) => {}
                other => panic!("unexpected {other:?}"),
            }
        };
        self.record.event(self.person, &event);
        self.feed.ack(event.origin, event.position).await;
        event
    }

    /// Says what was read and returns the answer; what else comes meanwhile waits.
    async fn read(&mut self, sender: AccountId, after: u64, upto: u64) -> Option<Reason> {
        self.record.reads(self.person, sender, (1, after, upto));
        let stretches = vec![v1::ReadStretch { origin: 1, after, upto }];
        let read = v1::Read { sender: sender.to_bytes(), stretches };
        self.feed.write(&v1::FeedUp { frame: Some(v1::feed_up::Frame::Read(read)) }).await;
        loop {
            match self.feed.feed().await {
                Frame::Read(answer) => {
                    if answer.error.is_none() {
                        self.record.read_taken(self.person, sender, (1, after, upto));
                    }
                    return answer.error.map(|error| error.reason());
                }
                Frame::Event(event) => self.came.push_back(event),
                Frame::CaughtUp(_) | Frame::Gap(_) | Frame::Signal(_) => {}
                Frame::Ended(error) => panic!("the feed ended: {error:?}"),
            }
        }
    }

    /// Returns the read receipts up to the next message, which somebody has to send.
    async fn reads_before_a_message(&mut self) -> Vec<v1::Receipt> {
        let mut reads = Vec::new();
        loop {
            match self.event().await.body {
                Some(Body::Receipt(receipt)) if receipt.kind() == v1::ReceiptKind::Read => {
                    reads.push(receipt);
                }
                Some(Body::Receipt(_)) => {}
                Some(Body::Message(_) | Body::Changed(_)) => return reads,
                None => panic!("an event without a body"),
            }
        }
    }
}

#[tokio::test]
async fn read_follows_the_word_of_the_reader_and_nothing_else() {
    let (world, record) = (World::start().await, Record::new());
    let (ada, bob) = (world.sign_up("ada").await, world.sign_up("bob").await);
    let (ada_phone, bob_phone) = (world.log_in("ada").await, world.log_in("bob").await);
    let (mut sender, sender_too) =
        (Witness::join(&ada, &record).await, Witness::join(&ada_phone, &record).await);
    let (mut reader, reader_too) =
        (Witness::join(&bob, &record).await, Witness::join(&bob_phone, &record).await);
    for number in 0..3 {
        sender.send_to_be_read(bob.account(), &format!("{number}")).await;
    }
    for device in [&reader, &reader_too, &sender_too] {
        device.has_shown(3).await;
    }
    sender.has_receipts().await;
    // The second alone: the first was not opened. The checker finds out who is told of more than that.
    reader.reads([1], false).await;
    sender.has_reads(1).await;
    sender_too.is_told_of_reads(1).await;
    reader_too.is_told_of_reads(1).await;
    assert_eq!(sender.progress().read, 1);
    // All at once, with what was said before among it.
    reader.reads(0..3, false).await;
    sender.has_reads(3).await;
    reader.send(ada.account(), "the end").await;
    sender.has_shown(1).await;
    sender_too.has_shown(4).await;
    reader_too.has_shown(4).await;
    reader.has_receipts().await;
    // To the device that said so nobody says it.
    assert_eq!(reader.progress().told_read, 0);
    record.assert_kept(Terms { gaps: false, receipts: true });
}

#[tokio::test]
async fn who_turns_read_receipts_off_is_seen_by_the_own_devices_alone() {
    let (world, record) = (World::start().await, Record::new());
    let (ada, bob) = (world.sign_up("ada").await, world.sign_up("bob").await);
    let bob_phone = world.log_in("bob").await;
    let mut sender = Witness::join(&ada, &record).await;
    let (reader, reader_too) = (Witness::join(&bob, &record).await, Witness::join(&bob_phone, &record).await);
    assert!(reader.client.privacy().await.unwrap().read_receipts);
    reader.client.set_read_receipts(false).await.unwrap();
    assert!(!reader_too.client.privacy().await.unwrap().read_receipts, "it holds for all devices");
    sender.send_to_be_read(bob.account(), "secret").await;
    reader.has_shown(1).await;
    reader_too.has_shown(1).await;
    sender.has_answers(1).await;
    reader.reads([0], true).await;
    reader_too.is_told_of_reads(1).await;
    reader.client.set_read_receipts(true).await.unwrap();
    sender.send_to_be_read(bob.account(), "open").await;
    reader.has_shown(2).await;
    reader_too.has_shown(2).await;
    sender.has_answers(2).await;
    reader.reads([1], false).await;
    sender.has_reads(1).await;
    sender.has_receipts().await;
    // What was read in secret stays so: the checker takes a receipt for it as untrue.
    record.assert_kept(Terms { gaps: false, receipts: true });
}

#[tokio::test]
async fn what_one_never_got_one_cannot_have_read() {
    let (world, record) = (World::start().await, Record::new());
    let (ada, bob, eve) =
        (world.sign_up("ada").await, world.sign_up("bob").await, world.sign_up("eve").await);
    [&bob, &eve].into_iter().for_each(|device| record.joins(device));
    let mut sender = Witness::join(&ada, &record).await;
    sender.send(bob.account(), "for bob").await;
    sender.has_answers(1).await;
    sender.close().await;
    let mut device = Raw::attach(&world, &bob, &record, 1, 0).await;
    let Frame::Event(event) = device.feed.feed().await else { panic!("no message") };
    let position = event.position;
    // Brought, and not acknowledged.
    assert_eq!(device.read(ada.account(), position - 1, position).await, Some(Reason::ReadInvalid));
    assert_eq!(device.read(ada.account(), 0, 1_000_000).await, Some(Reason::ReadInvalid), "never sent");
    assert_eq!(device.read(AccountId([7; 16]), 0, position).await, Some(Reason::UnknownAccount));
    assert_eq!(device.read(ada.account(), position, position).await, Some(Reason::Malformed));
    // Somebody else, about the same message.
    let mut stranger = Raw::attach(&world, &eve, &record, 1, 0).await;
    assert_eq!(stranger.read(ada.account(), 0, position).await, Some(Reason::ReadInvalid));
    // The lanes go on, and what is true is taken: of a claim that is too wide, that part.
    record.event(&bob, &event);
    device.feed.ack(1, position).await;
    assert_eq!(device.read(ada.account(), 0, position).await, None);

    let mut told = Raw::attach(&world, &ada, &record, 100, 0).await;
    let mut last = Witness::open(&bob, &record).await;
    last.send(ada.account(), "bye").await;
    let reads = told.reads_before_a_message().await;
    last.has_answers(1).await;
    // Bob's device by hand has the greater attach numbers, so its last client gets no feed and no receipt.
    record.assert_kept(Terms { gaps: false, receipts: false });
    assert_eq!(reads.len(), 1, "{reads:?}");
    assert_eq!((&reads[0].account, &reads[0].sender), (&bob.account().to_bytes(), &ada.account().to_bytes()));
    assert_eq!(reads[0].upto, position);
    drop(stranger.client);
}

#[tokio::test]
async fn a_mark_outlives_client_and_daemon() {
    let (mut world, record) = (World::start().await, Record::new());
    let (ada, bob) = (world.sign_up("ada").await, world.sign_up("bob").await);
    let mut sender = Witness::join(&ada, &record).await;
    let reader = Witness::join(&bob, &record).await;
    sender.send_to_be_read(bob.account(), "hello").await;
    reader.has_shown(1).await;
    sender.has_answers(1).await;
    // Nobody is there to hear it: it is saved, and said by the next client of the device.
    world.daemon.kill().await.unwrap();
    reader.reads([0], false).await;
    drop(reader);
    world.daemon.restart().await.unwrap();
    assert_eq!(sender.progress().read, 0);
    let _reader = Witness::open(&bob, &record).await;
    sender.has_reads(1).await;
    record.assert_kept(Terms { gaps: false, receipts: true });
}

#[tokio::test]
async fn a_daemon_that_is_killed_between_marks_keeps_every_one_it_answered() {
    let (mut world, record) = (World::start().await, Record::new());
    let (ada, bob) = (world.sign_up("ada").await, world.sign_up("bob").await);
    record.joins(&bob);
    let mut sender = Witness::join(&ada, &record).await;
    for number in 0..20 {
        sender.send(bob.account(), &format!("{number}")).await;
    }
    sender.has_answers(20).await;
    sender.close().await;
    let mut cursor = 0;
    for attaches in 1..=4 {
        let mut device = Raw::attach(&world, &bob, &record, attaches, cursor).await;
        let mut marked = Vec::new();
        for _ in 0..5 {
            marked.push(device.event().await.position);
        }
        cursor = marked[4];
        assert_eq!(device.read(ada.account(), marked[0] - 1, cursor).await, None);
        world.kill_and_restart().await;
    }
    let mut told = Raw::attach(&world, &ada, &record, 100, 0).await;
    let mut last = Witness::open(&bob, &record).await;
    let bye = last.send(ada.account(), "bye").await;
    told.reads_before_a_message().await;
    last.has_answers(1).await;
    // Bob's device by hand has the greater attach numbers, so its last client gets no feed and no receipt.
    record.note(bob.credentials.device, What::Unwatched { id: bye });
    record.assert_kept(Terms { gaps: false, receipts: true });
}

#[tokio::test]
async fn more_marks_than_may_wait_end_the_feed_and_not_the_connection() {
    let world = World::start().await;
    let (ada, bob) = (world.sign_up("ada").await, world.sign_up("bob").await);
    let mut device = Raw::attach(&world, &bob, &Record::new(), 1, 0).await;
    let read = v1::Read { sender: ada.account().to_bytes(), stretches: vec![] };
    let frame = quail_protocol::frame::to_bytes(&v1::FeedUp { frame: Some(v1::feed_up::Frame::Read(read)) });
    let many = frame.repeat(quail_protocol::limits::READS_UNANSWERED_MAX + 1);
    device.feed.bytes(many.into()).await;
    loop {
        match device.feed.feed().await {
            Frame::Ended(error) => break assert_eq!(error.reason(), Reason::Limit),
            Frame::CaughtUp(_) | Frame::Read(_) => {}
            other => panic!("unexpected {other:?}"),
        }
    }
    let pong = device.client.request(v1::request::Command::Ping(v1::Ping {})).await;
    assert!(matches!(pong, v1::response::Result::Pong(_)));
}

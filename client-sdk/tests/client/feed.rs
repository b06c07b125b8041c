//! Events down: handed out once, acknowledged in order, kept when nobody reads.

use quail_client::{
    ConnectionState, Delivery, Error, Event, Events, FileStore, MemoryStore, Origin, Position, Reason,
    SendError,
};
use quail_protocol::v1::{self, event, feed_down};

use crate::support::{FakeServer, Lane, PEER, message, soon};

async fn next(events: &mut Events) -> Delivery {
    soon(events.next()).await.expect("the feed goes on")
}

/// Waits for a message and returns its text with the delivery.
async fn next_text(events: &mut Events) -> (String, Delivery) {
    let delivery = next(events).await;
    let Event::Message(message) = &delivery.event else { panic!("a message, not {:?}", delivery.event) };
    (message.body.as_text().unwrap().to_owned(), delivery)
}

async fn caught_up(lane: &mut Lane, events: &mut Events) {
    lane.down(feed_down::Frame::CaughtUp(v1::CaughtUp {})).await;
    assert_eq!(next(events).await.event, Event::CaughtUp);
}

#[tokio::test]
async fn nobody_attaches_unasked() {
    let server = FakeServer::start();
    let (client, mut peer) = server.client(MemoryStore::new()).await;
    soon(client.close()).await.unwrap();
    peer.publish().await;
    assert!(peer.connection.accept_bi().await.is_err(), "hello and publish lane were all");
}

#[tokio::test]
async fn events_are_handed_out_in_order_and_acknowledged_up_to_the_first_that_is_not() {
    let server = FakeServer::start();
    let (client, mut peer) = server.client(MemoryStore::new()).await;
    let mut events = soon(client.events()).await.unwrap();
    let (attach, mut lane) = peer.feed().await;
    assert_eq!((attach.number, attach.cursors), (1, vec![]));
    for position in [3, 5, 8] {
        lane.message(position).await;
    }
    let (text, first) = next_text(&mut events).await;
    let Event::Message(message) = &first.event else { unreachable!() };
    assert_eq!((text.as_str(), message.sender, message.position), ("3", PEER, Position(3)));
    let (_, second) = next_text(&mut events).await;
    let (_, third) = next_text(&mut events).await;
    third.acknowledge();
    let (event, second) = second.into_parts();
    assert!(matches!(event, Event::Message(_)));
    second.acknowledge();
    // A receipt behind them counts as taken, but must wait its turn as well.
    lane.receipt(9, 0, 1).await;
    caught_up(&mut lane, &mut events).await;
    first.acknowledge();
    lane.read_acks_upto(9).await;
    assert!(client.stats().acks_written <= 2, "acknowledgements are gathered");
    assert_eq!(soon(client.events()).await.unwrap_err(), Error::EventsTaken);
}

#[tokio::test]
async fn after_a_cut_the_feed_goes_on_where_the_application_was() {
    let server = FakeServer::start();
    let (client, mut peer) = server.client(MemoryStore::new()).await;
    let mut events = soon(client.events()).await.unwrap();
    let (_, mut lane) = peer.feed().await;
    lane.message(1).await;
    lane.message(2).await;
    next_text(&mut events).await.1.acknowledge();
    let (_, held) = next_text(&mut events).await;
    lane.read_acks_upto(1).await;
    peer.cut();

    let mut peer = server.welcome().await;
    let (attach, mut lane) = peer.feed().await;
    assert_eq!((attach.number, attach.cursors), (2, vec![v1::Cursor { origin: 1, position: 1 }]));
    lane.message(2).await;
    lane.message(3).await;
    let (text, third) = next_text(&mut events).await;
    assert_eq!(text, "3", "what the application holds does not come again");
    third.acknowledge();
    held.acknowledge();
    lane.read_acks_upto(3).await;
    assert_eq!((client.stats().handed_out, client.stats().duplicates_dropped), (3, 1));
}

#[tokio::test]
async fn a_message_that_comes_at_two_positions_is_shown_once() {
    let server = FakeServer::start();
    let (client, mut peer) = server.client(MemoryStore::new()).await;
    let mut events = soon(client.events()).await.unwrap();
    let (_, mut lane) = peer.feed().await;
    lane.message(1).await;
    lane.event(2, Some(event::Body::Message(message(1)))).await;
    lane.message(3).await;
    for expected in ["1", "3"] {
        let (text, delivery) = next_text(&mut events).await;
        assert_eq!(text, expected);
        delivery.acknowledge();
    }
    lane.read_acks_upto(3).await;
    assert_eq!(client.stats().duplicates_dropped, 1);
}

#[tokio::test]
async fn what_is_unknown_or_broken_is_passed_over_and_acknowledged() {
    let server = FakeServer::start();
    let (client, mut peer) = server.client(MemoryStore::new()).await;
    let mut events = soon(client.events()).await.unwrap();
    let (_, mut lane) = peer.feed().await;
    lane.event(1, None).await;
    let broken = v1::Message { id: bytes::Bytes::from_static(b"short"), ..message(2) };
    lane.event(2, Some(event::Body::Message(broken))).await;
    lane.write(&v1::FeedDown { frame: None }).await;
    lane.down(feed_down::Frame::Gap(v1::Gap { origin: 1, from: 3, upto: 7 })).await;
    let gap = next(&mut events).await;
    assert_eq!(gap.event, Event::Gap { origin: Origin(1), from: Position(3), upto: Position(7) });
    lane.read_acks_upto(2).await;
    gap.acknowledge();
    lane.read_acks_upto(7).await;
}

#[tokio::test]
async fn a_replaced_feed_is_never_attached_again_and_sending_goes_on() {
    let server = FakeServer::start();
    let (client, mut peer) = server.client(MemoryStore::new()).await;
    let mut events = soon(client.events()).await.unwrap();
    let (_, mut lane) = peer.feed().await;
    let waiting = soon(client.send(PEER, "one")).await.unwrap();
    let mut publish = peer.publish().await;
    let number = publish.read_send().await.number;
    publish.accept(number).await;
    soon(waiting.accepted()).await.unwrap();
    lane.message(1).await;
    lane.down(feed_down::Frame::Ended(Reason::Replaced.error())).await;
    next_text(&mut events).await.1.acknowledge();
    assert_eq!(soon(events.next()).await.unwrap_err(), Error::Replaced);
    assert_eq!(*client.state().borrow(), ConnectionState::Replaced);
    assert_eq!(soon(waiting.delivered()).await, Err(SendError::FeedEnded(Error::Replaced)));
    peer.cut();

    let mut peer = server.welcome().await;
    let mut publish = peer.publish().await;
    let sending = soon(client.send(PEER, "two")).await.unwrap();
    let number = publish.read_send().await.number;
    publish.accept(number).await;
    soon(sending.accepted()).await.unwrap();
    assert_eq!(*client.state().borrow(), ConnectionState::Replaced);
    soon(client.close()).await.unwrap();
    assert!(peer.connection.accept_bi().await.is_err(), "no feed was attached");
}

#[tokio::test]
async fn a_feed_that_ends_for_now_is_attached_again() {
    let server = FakeServer::start();
    let (client, mut peer) = server.client(MemoryStore::new()).await;
    let mut events = soon(client.events()).await.unwrap();
    let (_, mut lane) = peer.feed().await;
    lane.down(feed_down::Frame::Ended(Reason::Overloaded.retry_after(std::time::Duration::from_millis(1))))
        .await;
    let (attach, mut lane) = peer.feed().await;
    assert_eq!(attach.number, 2);
    lane.message(1).await;
    next_text(&mut events).await.1.acknowledge();
    assert_eq!(client.stats().connections, 1);
}

#[tokio::test]
async fn attach_numbers_and_cursors_go_on_over_runs() {
    let directory = tempfile::tempdir().unwrap();
    let server = FakeServer::start();
    for (number, cursors) in [(1, vec![]), (2, vec![v1::Cursor { origin: 1, position: 41 }])] {
        let (client, mut peer) = server.client(FileStore::open(directory.path()).unwrap()).await;
        let mut events = soon(client.events()).await.unwrap();
        let (attach, mut lane) = peer.feed().await;
        assert_eq!((attach.number, attach.cursors), (number, cursors));
        lane.message(40 + number).await;
        next_text(&mut events).await.1.acknowledge();
        let closing = async {
            lane.read_acks_upto(40 + number).await;
            assert_eq!(lane.next::<v1::FeedUp>().await, None, "the lane is finished in order");
        };
        tokio::join!(soon(client.close()), closing).0.unwrap();
        assert_eq!(soon(events.next()).await.unwrap_err(), Error::Closed);
    }
}

#[tokio::test]
async fn a_receipt_resolves_the_messages_of_its_stretch() {
    let server = FakeServer::start();
    let (client, mut peer) = server.client(MemoryStore::new()).await;
    let mut publish = peer.publish().await;
    let one = soon(client.send(PEER, "one")).await.unwrap();
    let two = soon(client.send(PEER, "two")).await.unwrap();
    publish.accept(1).await;
    soon(one.accepted()).await.unwrap();
    // The receipt may be here before the answer.
    let delivered = tokio::join!(soon(one.delivered()), soon(two.delivered()), async {
        let (_, mut lane) = peer.feed().await;
        lane.receipt(201, 0, 102).await;
        lane.read_acks_upto(201).await;
        publish.accept(2).await;
    });
    assert_eq!((delivered.0, delivered.1), (Ok(()), Ok(())));
    assert_eq!(soon(one.delivered()).await, Ok(()), "a receipt stays");
}

#[tokio::test]
async fn receipts_on_both_sides_of_a_hole_count_though_the_answers_come_after_them() {
    let server = FakeServer::start();
    let (client, mut peer) = server.client(MemoryStore::new()).await;
    let mut publish = peer.publish().await;
    let mut sendings = Vec::new();
    for text in ["one", "two", "three"] {
        sendings.push(soon(client.send(PEER, text)).await.unwrap());
    }
    soon(client.watch_receipts()).await.unwrap();
    let (_, mut lane) = peer.feed().await;
    lane.receipt(201, 0, 101).await;
    lane.receipt(202, 102, 103).await;
    lane.read_acks_upto(202).await;
    for number in 1..=3 {
        publish.accept(number).await;
    }
    assert_eq!(soon(sendings[2].delivered()).await, Ok(()));
    assert_eq!(soon(sendings[0].delivered()).await, Ok(()));
}

#[tokio::test]
async fn watching_for_receipts_leaves_messages_at_the_server() {
    let server = FakeServer::start();
    let (client, mut peer) = server.client(MemoryStore::new()).await;
    soon(client.watch_receipts()).await.unwrap();
    let (_, mut lane) = peer.feed().await;
    lane.receipt(1, 0, 1).await;
    lane.message(2).await;
    lane.receipt(3, 1, 2).await;
    lane.read_acks_upto(1).await;

    let mut events = soon(client.events()).await.unwrap();
    let (attach, mut lane) = peer.feed().await;
    assert_eq!((attach.number, attach.cursors), (2, vec![v1::Cursor { origin: 1, position: 1 }]));
    lane.message(2).await;
    lane.receipt(3, 1, 2).await;
    let (text, delivery) = next_text(&mut events).await;
    assert_eq!(text, "2");
    delivery.acknowledge();
    lane.read_acks_upto(3).await;
}

#[tokio::test]
async fn dropping_the_events_detaches_the_feed() {
    let server = FakeServer::start();
    let (client, mut peer) = server.client(MemoryStore::new()).await;
    let events = soon(client.events()).await.unwrap();
    let (_, mut lane) = peer.feed().await;
    drop(events);
    assert_eq!(lane.next::<v1::FeedUp>().await, None);
    assert_eq!(*client.state().borrow(), ConnectionState::Online);
}

#[tokio::test]
async fn an_application_that_does_not_read_stops_only_its_own_feed() {
    let server = FakeServer::start();
    let (client, mut peer) = server.client(MemoryStore::new()).await;
    let mut events = soon(client.events()).await.unwrap();
    let (_, mut lane) = peer.feed().await;
    for position in 1..=256 {
        lane.message(position).await;
    }
    let mut publish = peer.publish().await;
    let sending = soon(client.send(PEER, "still moving")).await.unwrap();
    publish.read_send().await;
    publish.accept(1).await;
    soon(sending.accepted()).await.unwrap();
    for position in 1..=256 {
        let (text, delivery) = next_text(&mut events).await;
        assert_eq!(text, position.to_string());
        delivery.acknowledge();
    }
    lane.read_acks_upto(256).await;
    assert!(events.try_next().is_none());
}

#[tokio::test]
async fn what_was_acknowledged_never_comes_again_and_what_was_not_says_so() {
    let directory = tempfile::tempdir().unwrap();
    let server = FakeServer::start();
    for run in 1..=2 {
        let (client, mut peer) = server.client(FileStore::open(directory.path()).unwrap()).await;
        let mut events = soon(client.events()).await.unwrap();
        let (_, mut lane) = peer.feed().await;
        for position in 1..=3 {
            lane.message(position).await;
        }
        // The second one is acknowledged in the first run, though the first is not.
        for expected in if run == 1 { vec!["1", "2", "3"] } else { vec!["1", "3"] } {
            let (text, delivery) = next_text(&mut events).await;
            assert_eq!((text.as_str(), delivery.attempt()), (expected, run));
            if text == "2" || run == 2 {
                delivery.acknowledge();
            }
        }
        let closing = async {
            if run == 2 {
                lane.read_acks_upto(3).await;
            }
            while lane.next::<v1::FeedUp>().await.is_some() {}
        };
        tokio::join!(soon(client.close()), closing).0.unwrap();
    }
}

//! What was read: said behind the acknowledgement, again until it is answered, and never over a gap.

use std::sync::Arc;

use quail_client::{Client, Event, Events, Mark, MemoryStore, Message, Reason, Store};
use quail_protocol::v1::{self, feed_down, feed_up};

use crate::support::{FakeServer, Lane, PEER, soon};

async fn next_message(events: &mut Events) -> (Message, quail_client::Acknowledgement) {
    loop {
        let (event, acknowledgement) = soon(events.next()).await.expect("the feed goes on").into_parts();
        match event {
            Event::Message(message) => return (message, acknowledgement),
            _ => acknowledgement.acknowledge(),
        }
    }
}

/// Reads until something is said to be read, and returns the stretches with how far was acknowledged before.
async fn read(lane: &mut Lane) -> (Vec<(u64, u64)>, u64) {
    let mut acknowledged = 0;
    loop {
        match lane.read::<v1::FeedUp>().await.frame {
            Some(feed_up::Frame::Ack(ack)) => acknowledged = ack.upto[0].position,
            Some(feed_up::Frame::Read(read)) => {
                assert_eq!(read.sender, PEER.to_bytes());
                let stretches = read.stretches.iter().map(|stretch| (stretch.after, stretch.upto));
                return (stretches.collect(), acknowledged);
            }
            other => panic!("unexpected {other:?}"),
        }
    }
}

async fn answer(lane: &mut Lane, error: Option<v1::Error>) {
    lane.down(feed_down::Frame::Read(v1::ReadAnswer { error })).await;
}

async fn saved(store: &Arc<MemoryStore>, marks: usize) {
    soon(async {
        while store.load_feed().unwrap().marks.len() != marks {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

async fn client(server: &FakeServer, store: &Arc<MemoryStore>) -> (Client, crate::support::Peer, Events) {
    let (client, peer) = server.client(store.clone()).await;
    let events = soon(client.events()).await.unwrap();
    (client, peer, events)
}

#[tokio::test]
async fn a_mark_waits_for_its_acknowledgement_and_covers_no_gap() {
    let (server, store) = (FakeServer::start(), Arc::new(MemoryStore::new()));
    let (client, mut peer, mut events) = client(&server, &store).await;
    let (_, mut lane) = peer.feed().await;
    let mut messages = Vec::new();
    lane.message(3).await;
    lane.message(7).await;
    lane.down(feed_down::Frame::Gap(v1::Gap { origin: 1, from: 8, upto: 10 })).await;
    lane.message(12).await;
    for _ in 0..3 {
        messages.push(next_message(&mut events).await);
    }
    let (messages, acknowledgements): (Vec<_>, Vec<_>) = messages.into_iter().unzip();
    soon(client.read(messages.iter().map(Message::mark))).await.unwrap();
    assert_eq!(store.load_feed().unwrap().marks.len(), 2, "saved before anybody was told");
    acknowledgements.into_iter().for_each(quail_client::Acknowledgement::acknowledge);
    assert_eq!(read(&mut lane).await, (vec![(2, 7), (11, 12)], 12));
    answer(&mut lane, None).await;
    saved(&store, 0).await;
}

#[tokio::test]
async fn a_mark_is_said_again_until_it_is_answered() {
    let (server, store) = (FakeServer::start(), Arc::new(MemoryStore::new()));
    let (client, mut peer, mut events) = client(&server, &store).await;
    let (_, mut lane) = peer.feed().await;
    lane.message(3).await;
    let (message, acknowledgement) = next_message(&mut events).await;
    acknowledgement.acknowledge();
    soon(client.read([message.mark()])).await.unwrap();
    assert_eq!(read(&mut lane).await.0, [(2, 3)]);
    // The connection is lost before the answer, then the server has no room.
    peer.cut();
    let mut peer = server.welcome().await;
    let (_, mut lane) = peer.feed().await;
    assert_eq!(read(&mut lane).await.0, [(2, 3)]);
    let refusal = v1::Error { retry_after_ms: 1, ..Reason::Overloaded.error() };
    answer(&mut lane, Some(refusal)).await;
    assert_eq!(read(&mut lane).await.0, [(2, 3)]);
    // The next client of the device says it too.
    soon(client.close()).await.unwrap();
    let (client, mut peer) = server.client(store.clone()).await;
    soon(client.watch_receipts()).await.unwrap();
    let (attach, mut lane) = peer.feed().await;
    assert_eq!(attach.cursors, [v1::Cursor { origin: 1, position: 3 }]);
    assert_eq!(read(&mut lane).await.0, [(2, 3)]);
    // What is refused for good is forgotten.
    answer(&mut lane, Some(Reason::ReadInvalid.error())).await;
    saved(&store, 0).await;
    let mark = Mark { upto: quail_client::Position(2), ..message.mark() };
    soon(client.read([mark])).await.unwrap();
    assert_eq!(store.load_feed().unwrap().marks, [], "an empty one says nothing");
}

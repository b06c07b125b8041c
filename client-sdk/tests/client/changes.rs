//! Replies and changes: up as they were said, from run to run; down once.

use quail_client::{
    Change, ChangeError, Content, Event, FileStore, MemoryStore, MessageId, MessageRef, Reason, SendError,
    Store,
};
use quail_protocol::v1::{self, changed, event, feed_down, send};

use crate::support::{FakeServer, ME, PEER, message, soon};

fn id(number: u64) -> MessageId {
    MessageId(u128::from(number).to_be_bytes())
}

fn changed(number: u64, change: Option<changed::Change>) -> Option<event::Body> {
    let (sender, recipient) = (PEER.to_bytes(), ME.to_bytes());
    Some(event::Body::Changed(v1::Changed { id: id(number).to_bytes(), sender, recipient, change }))
}

fn react(of: &[u8], text: &'static [u8]) -> Option<changed::Change> {
    let (sender, id) = (bytes::Bytes::copy_from_slice(of), id(1).to_bytes());
    Some(changed::Change::React(v1::React { sender, id, text: bytes::Bytes::from_static(text) }))
}

#[tokio::test]
async fn a_change_is_written_as_it_was_said_by_the_next_client_too() {
    let directory = tempfile::tempdir().unwrap();
    let server = FakeServer::start();
    let (client, mut peer) = server.client(FileStore::open(directory.path()).unwrap()).await;
    let mut lane = peer.publish().await;
    let edit = soon(client.edit(PEER, id(7), "another")).await.unwrap();
    let reply = soon(client.reply(PEER, MessageRef { sender: PEER, id: id(8) }, "yes")).await.unwrap();
    let before = [lane.read_send().await, lane.read_send().await];
    let body = |text: &str| bytes::Bytes::copy_from_slice(text.as_bytes());
    let expected = send::Change::Edit(v1::Edit { id: id(7).to_bytes(), kind: 1, body: body("another") });
    assert_eq!((before[0].change.as_ref(), before[0].kind, before[0].body.len()), (Some(&expected), 0, 0));
    let named = v1::MessageRef { sender: PEER.to_bytes(), id: id(8).to_bytes() };
    assert_eq!((before[1].reply_to.as_ref(), &before[1].body), (Some(&named), &body("yes")));
    let ids = [edit.id(), reply.id()];
    drop((client, edit, reply));
    peer.closed().await;
    let store = soon(async {
        loop {
            // The old client closes its store when its driver has ended.
            let store = FileStore::open(directory.path()).unwrap();
            if store.load_publish().is_ok() {
                break store;
            }
            tokio::task::yield_now().await;
        }
    })
    .await;
    let (client, mut peer) = server.client(store).await;
    let queued = soon(client.queued()).await.unwrap();
    assert_eq!(queued[0].content, Content::Change(Change::Edit { id: id(7), body: "another".into() }));
    assert_eq!(soon(client.edit_queued(ids[0], "third")).await, Err(ChangeError::OnItsWay(ids[0])));
    let mut lane = peer.publish().await;
    assert_eq!([lane.read_send().await, lane.read_send().await], before);
    lane.accept(1).await;
    lane.refuse(2, Reason::TargetInvalid.error()).await;
    let sending = soon(client.sending(ids[1])).await.unwrap().unwrap();
    assert!(matches!(soon(sending.accepted()).await, Err(SendError::Refused(_))));
    let [refused] = &soon(client.refused()).await.unwrap()[..] else { panic!("one is refused") };
    let reply_to = Some(MessageRef { sender: PEER, id: id(8) });
    assert_eq!(refused.content, Content::Message { body: "yes".into(), reply_to });
    soon(client.close()).await.unwrap();
}

#[tokio::test]
async fn a_change_that_is_queued_can_be_cancelled_and_not_edited() {
    let directory = tempfile::tempdir().unwrap();
    let server = FakeServer::start();
    let (client, mut peer) = server.client(FileStore::open(directory.path()).unwrap()).await;
    // Nothing is written before the first two windows are answered.
    let _lane = peer.publish().await;
    soon(client.send_all(PEER, (0..600).map(|number| number.to_string()))).await.unwrap();
    let message = MessageRef { sender: PEER, id: id(8) };
    let sending = soon(client.react(PEER, message, "+")).await.unwrap();
    assert_eq!(soon(sending.edit_queued("text")).await, Err(ChangeError::NotAMessage(sending.id())));
    soon(sending.cancel()).await.unwrap();
    assert_eq!(soon(sending.accepted()).await, Err(SendError::Cancelled));
}

#[tokio::test]
async fn a_change_is_shown_once_and_what_nobody_could_say_is_passed_over() {
    let server = FakeServer::start();
    let (client, mut peer) = server.client(MemoryStore::new()).await;
    let mut events = soon(client.events()).await.unwrap();
    let (_, mut lane) = peer.feed().await;
    let reply_to = Some(v1::MessageRef { sender: ME.to_bytes(), id: id(9).to_bytes() });
    lane.event(1, Some(event::Body::Message(v1::Message { reply_to, ..message(1) }))).await;
    lane.event(2, changed(50, react(&PEER.0, b"+"))).await;
    // The same at another position; one of a later version; one of another conversation; a secret of somebody else's.
    lane.event(3, changed(50, react(&PEER.0, b"+"))).await;
    lane.event(4, changed(51, None)).await;
    lane.event(5, changed(52, react(&[9; 16], b"+"))).await;
    let hide = v1::DeleteForMe { sender: PEER.to_bytes(), id: id(1).to_bytes() };
    lane.event(6, changed(53, Some(changed::Change::DeleteForMe(hide)))).await;
    lane.event(7, changed(54, react(&PEER.0, b""))).await;
    lane.down(feed_down::Frame::CaughtUp(v1::CaughtUp {})).await;
    let first = soon(events.next()).await.unwrap().acknowledge();
    let Event::Message(first) = first else { panic!("a message, not {first:?}") };
    assert_eq!(first.reply_to, Some(MessageRef { sender: ME, id: id(9) }));
    for (number, text) in [(50, "+"), (54, "")] {
        let event = soon(events.next()).await.unwrap().acknowledge();
        let Event::Changed(changed) = event else { panic!("a change, not {event:?}") };
        assert_eq!((changed.id, changed.sender, changed.recipient), (id(number), PEER, ME));
        assert_eq!(changed.change, Change::React { message: first.reference(), text: text.to_owned() });
    }
    assert_eq!(soon(events.next()).await.unwrap().acknowledge(), Event::CaughtUp);
    lane.read_acks_upto(7).await;
    assert_eq!(client.stats().duplicates_dropped, 1);
    // What is said after a change sorts behind it.
    let mut publish = peer.publish().await;
    let _sending = soon(client.send(PEER, "one")).await.unwrap();
    assert_eq!(publish.read_send().await.seen, 5007);
}

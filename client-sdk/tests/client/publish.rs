//! Messages up: accepted, refused, repeated.

use std::time::Duration;

use quail_client::store::PublishChange;
use quail_client::{
    Accepted, Body, ConnectionState, Error, FileStore, MemoryStore, Options, Origin, Position, Reason,
    SendError, Stamp, Store, new_message_id,
};
use quail_protocol::v1::{self, publish_up, request};

use crate::support::{FakeServer, PEER, credentials, options, soon};

fn accepted(number: u64) -> Accepted {
    Accepted { origin: Origin(1), position: Position(100 + number), stamp: Stamp(1000 + number) }
}

#[tokio::test]
async fn a_message_is_accepted_and_the_next_one_tells_what_was_seen() {
    let server = FakeServer::start();
    let (client, mut peer) = server.client(MemoryStore::new()).await;
    let mut lane = peer.publish().await;
    let sending = soon(client.send(PEER, "one")).await.unwrap();
    let send = lane.read_send().await;
    assert_eq!((send.number, send.seen), (1, 0));
    assert_eq!(send.id.as_ref(), sending.id().as_bytes());
    assert_eq!((send.recipient, send.body.as_ref()), (PEER.to_bytes(), &b"one"[..]));
    assert!(sending.id().unix_ms().is_some());
    lane.accept(1).await;
    assert_eq!(soon(sending.accepted()).await, Ok(accepted(1)));
    assert_eq!(soon(sending.accepted()).await, Ok(accepted(1)), "an answer stays");

    soon(client.send(PEER, "two")).await.unwrap();
    assert_eq!(lane.read_send().await.seen, 1001);
    lane.accept(2).await;
    soon(client.flush()).await.unwrap();
    assert_eq!(client.stats().accepted, 2);
}

#[tokio::test]
async fn a_stamp_that_is_too_far_ahead_for_the_server_is_forgotten() {
    let server = FakeServer::start();
    let (client, mut peer) = server.client(MemoryStore::new()).await;
    let mut lane = peer.publish().await;
    soon(client.send(PEER, "one")).await.unwrap();
    lane.read_send().await;
    lane.accept(1).await;
    soon(client.flush()).await.unwrap();
    let sending = soon(client.send(PEER, "two")).await.unwrap();
    assert_eq!(lane.read_send().await.seen, 1001);
    lane.refuse(2, Reason::Clock.error()).await;
    // Nothing is wrong with the message: it goes again, as the same one.
    let again = loop {
        match lane.read_up().await {
            publish_up::Frame::Send(send) => break send,
            publish_up::Frame::Restart(_) => {}
        }
    };
    assert_eq!((again.number, again.seen, again.id.as_ref()), (2, 0, &sending.id().as_bytes()[..]));
    lane.accept(2).await;
    soon(sending.accepted()).await.unwrap();
}

#[tokio::test]
async fn after_a_temporary_refusal_all_goes_on_in_order_after_a_restart() {
    let server = FakeServer::start();
    let (client, mut peer) = server.client(MemoryStore::new()).await;
    let mut lane = peer.publish().await;
    let mut sendings = Vec::new();
    for text in ["one", "two", "three"] {
        sendings.push(soon(client.send(PEER, text)).await.unwrap());
    }
    let mut first_try = Vec::new();
    for _ in 0..3 {
        first_try.push(lane.read_send().await);
    }
    lane.accept(1).await;
    lane.refuse(2, Reason::Overloaded.retry_after(Duration::from_millis(1))).await;
    lane.refuse(3, Reason::AfterRefused.error()).await;
    assert!(matches!(lane.read_up().await, publish_up::Frame::Restart(_)));
    for number in [2, 3] {
        let again = lane.read_send().await;
        let before = &first_try[number as usize - 1];
        assert_eq!((again.number, &again.id, &again.body), (number, &before.id, &before.body));
        lane.accept(number).await;
    }
    for (sending, number) in sendings.iter().zip(1..) {
        assert_eq!(soon(sending.accepted()).await, Ok(accepted(number)));
    }
    assert_eq!(client.stats().resent, 2);
}

#[tokio::test]
async fn a_final_refusal_is_for_one_message_only() {
    let server = FakeServer::start();
    let (client, mut peer) = server.client(MemoryStore::new()).await;
    let mut lane = peer.publish().await;
    let refused = soon(client.send(PEER, "one")).await.unwrap();
    let again = soon(client.send(PEER, "two")).await.unwrap();
    let good = soon(client.send(PEER, "three")).await.unwrap();
    for _ in 0..3 {
        lane.read_send().await;
    }
    lane.refuse(1, Reason::UnknownAccount.error()).await;
    lane.refuse(2, Reason::NumberPassed.error()).await;
    lane.accept(3).await;
    let renumbered = lane.read_send().await;
    assert_eq!((renumbered.number, renumbered.id.as_ref()), (4, again.id().as_bytes().as_slice()));
    lane.accept(4).await;
    let error = soon(refused.accepted()).await.unwrap_err();
    assert_eq!(error.reason(), Some(Reason::UnknownAccount));
    assert!(error.is_final());
    assert_eq!(soon(refused.delivered()).await, Err(error));
    assert_eq!(soon(again.accepted()).await, Ok(accepted(4)));
    assert_eq!(soon(good.accepted()).await, Ok(accepted(3)));
    let listed: Vec<_> =
        soon(client.refused()).await.unwrap().into_iter().map(|refused| refused.id).collect();
    assert_eq!(listed, [refused.id()]);
    soon(client.take_note(refused.id())).await.unwrap();
    assert!(soon(client.refused()).await.unwrap().is_empty());
}

#[tokio::test]
async fn after_a_cut_everything_unanswered_comes_again_before_anything_new() {
    let server = FakeServer::start();
    let (client, mut peer) = server.client(MemoryStore::new()).await;
    let mut lane = peer.publish().await;
    let sendings =
        [soon(client.send(PEER, "one")).await.unwrap(), soon(client.send(PEER, "two")).await.unwrap()];
    lane.read_send().await;
    let before = lane.read_send().await;
    lane.accept(1).await;
    soon(sendings[0].accepted()).await.unwrap();
    peer.cut();
    let mut state = client.state();
    soon(state.wait_for(|state| *state != ConnectionState::Online)).await.unwrap();
    let new = soon(client.send(PEER, "three")).await.unwrap();

    let mut peer = server.welcome().await;
    let mut lane = peer.publish().await;
    let again = lane.read_send().await;
    assert_eq!((again.number, &again.id, &again.body), (2, &before.id, &before.body));
    assert_eq!(lane.read_send().await.number, 3);
    lane.accept(2).await;
    lane.accept(3).await;
    assert_eq!(soon(sendings[1].accepted()).await, Ok(accepted(2)));
    assert_eq!(soon(new.accepted()).await, Ok(accepted(3)));
    assert_eq!(client.stats().resent, 1);
}

#[tokio::test]
async fn messages_leave_in_the_first_flight_before_the_hello_is_answered() {
    let server = FakeServer::start();
    let (client, peer) = server.client(MemoryStore::new()).await;
    peer.cut();
    let sending = soon(client.send(PEER, "early")).await.unwrap();
    let mut peer = server.accept().await;
    let mut lane = peer.publish().await;
    assert_eq!(lane.read_send().await.number, 1);
    peer.welcome().await;
    lane.accept(1).await;
    soon(sending.accepted()).await.unwrap();
}

#[tokio::test]
async fn a_session_that_ends_on_the_lane_ends_the_client_and_all_sends() {
    let server = FakeServer::start();
    let (client, mut peer) = server.client(MemoryStore::new()).await;
    let mut lane = peer.publish().await;
    let one = soon(client.send(PEER, "one")).await.unwrap();
    let two = soon(client.send(PEER, "two")).await.unwrap();
    lane.read_send().await;
    lane.refuse(1, Reason::Unauthenticated.error()).await;
    for sending in [one, two] {
        let Err(SendError::Stopped(error)) = soon(sending.accepted()).await else {
            panic!("it was given up")
        };
        assert_eq!(error.reason(), Some(Reason::Unauthenticated));
    }
}

#[tokio::test]
async fn a_lane_that_is_refused_is_opened_again_on_the_next_connection() {
    let server = FakeServer::start();
    let (client, mut peer) = server.client(MemoryStore::new()).await;
    let sending = soon(client.send(PEER, "one")).await.unwrap();
    let mut lane = peer.publish().await;
    lane.refuse(0, Reason::Limit.error()).await;
    let mut again = server.welcome().await;
    let mut lane = again.publish().await;
    assert_eq!(lane.read_send().await.number, 1);
    lane.accept(1).await;
    soon(sending.accepted()).await.unwrap();
    peer.closed().await;
}

#[tokio::test]
async fn an_answer_out_of_order_ends_the_connection_and_the_send_comes_again() {
    let server = FakeServer::start();
    let (client, mut peer) = server.client(MemoryStore::new()).await;
    let mut lane = peer.publish().await;
    let sending = soon(client.send(PEER, "one")).await.unwrap();
    lane.read_send().await;
    lane.accept(7).await;
    let mut again = server.welcome().await;
    let mut lane = again.publish().await;
    assert_eq!(lane.read_send().await.number, 1);
    lane.accept(1).await;
    soon(sending.accepted()).await.unwrap();
    peer.closed().await;
}

#[tokio::test]
async fn numbers_are_never_used_twice_over_runs() {
    let directory = tempfile::tempdir().unwrap();
    let server = FakeServer::start();
    let mut first_numbers = Vec::new();
    for _ in 0..2 {
        let (client, mut peer) = server.client(FileStore::open(directory.path()).unwrap()).await;
        let mut lane = peer.publish().await;
        soon(client.send(PEER, "one")).await.unwrap();
        let number = lane.read_send().await.number;
        first_numbers.push(number);
        lane.accept(number).await;
        soon(client.close()).await.unwrap();
    }
    assert_eq!(first_numbers, [1, 2]);
}

#[tokio::test]
async fn a_second_sender_of_the_device_is_told_which_part_is_taken() {
    let directory = tempfile::tempdir().unwrap();
    let owner = FileStore::open(directory.path()).unwrap();
    owner.commit_publish(&[PublishChange::Tried(0)]).unwrap();
    let server = FakeServer::start();
    let (client, _peer) = server.client(FileStore::open(directory.path()).unwrap()).await;
    let error = soon(client.send(PEER, "one")).await.unwrap_err();
    let place = directory.path().display().to_string();
    let part = quail_client::store::Part::Publish;
    assert_eq!(error, Error::Store(quail_client::StoreError::InUse { part, place }));
    drop(owner);
    soon(client.send(PEER, "one")).await.unwrap();
}

#[tokio::test]
async fn what_no_server_takes_is_refused_at_once() {
    let server = FakeServer::start();
    let (client, _peer) = server.client(MemoryStore::new()).await;
    assert_eq!(soon(client.send(PEER, "a\0b")).await.unwrap_err(), Error::TextHasNul);
    let error = soon(client.send(PEER, "x".repeat(61_441))).await.unwrap_err();
    assert_eq!(error, Error::BodyTooLarge { len: 61_441, max: 61_440 });
    let no_uuid = quail_client::MessageId([0; 16]);
    assert_eq!(soon(client.send_with_id(no_uuid, PEER, "x")).await.unwrap_err(), Error::IdInvalid(no_uuid));
}

#[tokio::test]
async fn the_largest_messages_and_minted_ids_pass() {
    let server = FakeServer::start();
    let (client, mut peer) = server.client(MemoryStore::new()).await;
    let mut lane = peer.publish().await;
    let ids: Vec<_> = (0..20).map(|_| new_message_id()).collect();
    for id in &ids {
        soon(client.send_with_id(*id, PEER, "x".repeat(61_440))).await.unwrap();
    }
    for (id, number) in ids.iter().zip(1..) {
        let send = lane.read_send().await;
        assert_eq!(
            (send.number, send.id.as_ref(), send.body.len()),
            (number, id.as_bytes().as_slice(), 61_440)
        );
        lane.accept(number).await;
    }
    soon(client.flush()).await.unwrap();
    let other = Body::Other { kind: 99, bytes: bytes::Bytes::from_static(b"?") };
    soon(client.send(PEER, other)).await.unwrap();
    assert_eq!(lane.read_send().await.kind, 99);
}

#[tokio::test]
async fn many_messages_share_few_writes_and_the_window_is_kept() {
    const MESSAGES: u64 = 3000;
    let server = FakeServer::start();
    let (client, mut peer) = server.client(MemoryStore::new()).await;
    let mut lane = peer.publish().await;
    for number in 1..=MESSAGES {
        assert_eq!(soon(client.send(PEER, "x")).await.unwrap().number(), number);
    }
    for number in 1..=256 {
        assert_eq!(lane.read_send().await.number, number);
    }
    // Nothing is on its way now: the client waits for answers.
    for number in 1..=MESSAGES {
        lane.accept(number).await;
        if number + 256 <= MESSAGES {
            assert_eq!(lane.read_send().await.number, number + 256);
        }
    }
    soon(client.flush()).await.unwrap();
    assert_eq!((client.stats().accepted, client.stats().resent), (MESSAGES, 0));
}

#[tokio::test]
async fn in_silence_a_ping_asks_whether_the_server_is_still_there() {
    let server = FakeServer::start();
    let (client, mut peer) = server.client(MemoryStore::new()).await;
    let mut lane = peer.publish().await;
    let sending = soon(client.send(PEER, "one")).await.unwrap();
    lane.read_send().await;
    let (command, ping) = peer.request().await;
    assert_eq!(command, request::Command::Ping(v1::Ping {}));
    peer.respond(ping, v1::response::Result::Pong(v1::Pong::default())).await;
    lane.accept(1).await;
    soon(sending.accepted()).await.unwrap();
    assert_eq!(client.stats().connections, 1, "slow is not gone");
}

#[tokio::test]
async fn closing_waits_for_answers_and_reports_what_had_none() {
    let server = FakeServer::start();
    let (client, mut peer) = server.client(MemoryStore::new()).await;
    let mut lane = peer.publish().await;
    let sending = soon(client.send(PEER, "one")).await.unwrap();
    lane.read_send().await;
    let (closed, ()) = tokio::join!(soon(client.close()), async {
        lane.accept(1).await;
        assert_eq!(lane.next::<v1::PublishUp>().await, None, "the lane is finished in order");
    });
    closed.unwrap();
    soon(sending.accepted()).await.unwrap();
    assert_eq!(soon(client.send(PEER, "two")).await.unwrap_err(), Error::Closed);
    soon(client.close()).await.unwrap();

    let options = Options { close_timeout: Duration::from_millis(1), ..options() };
    let (client, mut peer) = server.client_with(MemoryStore::new(), options).await;
    let _lane = peer.publish().await;
    let sending = soon(client.send(PEER, "one")).await.unwrap();
    assert_eq!(soon(client.close()).await, Err(Error::Unanswered { count: 1 }));
    assert_eq!(soon(sending.accepted()).await, Err(SendError::Stopped(Error::Closed)));
}

#[tokio::test]
async fn debug_output_of_a_client_hides_its_token() {
    let server = FakeServer::start();
    let (client, _peer) = server.client(MemoryStore::new()).await;
    let shown = format!("{client:?} {:?}", credentials());
    assert!(!shown.contains("7, 7") && !shown.contains("0707"), "{shown}");
}

#[tokio::test]
async fn what_is_queued_is_sent_by_the_next_client_and_can_be_watched_there() {
    let directory = tempfile::tempdir().unwrap();
    let server = FakeServer::start();
    let (client, mut peer) = server.client(FileStore::open(directory.path()).unwrap()).await;
    let mut lane = peer.publish().await;
    let sending = soon(client.send(PEER, "one")).await.unwrap();
    let before = lane.read_send().await;
    drop(client);
    assert_eq!(soon(sending.accepted()).await, Err(SendError::Stopped(Error::Closed)));
    let id = sending.id();
    drop(sending);
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
    let [queued] = &soon(client.queued()).await.unwrap()[..] else { panic!("one is queued") };
    assert_eq!((queued.id, queued.recipient, queued.content.as_text()), (id, PEER, Some("one")));
    assert!(queued.is_on_its_way);
    let sending = soon(client.sending(id)).await.unwrap().expect("it is queued");
    assert_eq!(soon(sending.cancel()).await, Err(quail_client::ChangeError::OnItsWay(id)));
    let mut lane = peer.publish().await;
    let again = lane.read_send().await;
    assert_eq!((again.number, again.id, again.body), (before.number, before.id, before.body));
    lane.accept(1).await;
    assert_eq!(soon(sending.accepted()).await, Ok(accepted(1)));
    soon(client.close()).await.unwrap();
}

#[tokio::test]
async fn while_there_is_no_connection_the_queue_can_be_changed() {
    let directory = tempfile::tempdir().unwrap();
    let server = FakeServer::start();
    let (client, mut peer) = server.client(FileStore::open(directory.path()).unwrap()).await;
    let lane = peer.publish().await;
    drop(lane);
    peer.cut();
    let mut state = client.state();
    soon(state.wait_for(|state| *state != ConnectionState::Online)).await.unwrap();
    let sent = soon(client.send_all(PEER, ["one", "two", "three"])).await.unwrap();
    // The lane of a new connection is opened before its hello is answered, so this may be too late; then it says so.
    let is_changed = soon(sent[1].edit_queued("zwei")).await.is_ok() && soon(sent[2].cancel()).await.is_ok();
    let mut peer = server.welcome().await;
    let mut lane = peer.publish().await;
    let mut bodies = Vec::new();
    for _ in 0..if is_changed { 2 } else { 3 } {
        bodies.push(lane.read_send().await.body);
    }
    if is_changed {
        assert_eq!(bodies, ["one", "zwei"]);
        assert_eq!(soon(sent[2].accepted()).await, Err(SendError::Cancelled));
    }
}

//! The sending half with its store: room, commits, numbers, answers, and crashes between any two of them.

use super::changes::ChangeError;
use super::*;
use crate::store::MemoryStore;
use quail_protocol::id::{Origin, Position};
use quail_protocol::v1::Reason;

fn publish() -> Publish {
    let publish = Publish::new(Arc::new(MemoryStore::new()));
    publish.lane_opened();
    publish
}

fn message(text: &str) -> Outgoing {
    let body = Bytes::copy_from_slice(text.as_bytes());
    Outgoing { id: crate::new_message_id(), recipient: AccountId([1; 16]), kind: 1, body }
}

async fn send(publish: &Publish, text: &str) -> Result<(u64, Arc<Ticket>), Error> {
    publish.queue(message(text), true).await.map(|(number, ticket, _)| (number, ticket))
}

fn refused(number: u64, reason: Reason) -> Answer {
    Answer::Refused(number, Refusal::from_wire(reason.error()))
}

fn accepted(number: u64) -> Answer {
    let accepted = Accepted { origin: Origin(1), position: Position(number), stamp: Stamp(number) };
    Answer::Accepted(number, accepted)
}

fn write(publish: &Publish) {
    publish.fill(&mut BytesMut::new(), usize::MAX, 0);
}

#[tokio::test]
async fn a_full_queue_makes_senders_wait_until_an_answer_makes_room() {
    let publish = publish();
    for _ in 0..QUEUED_MESSAGES_MAX {
        send(&publish, "x").await.unwrap();
    }
    let next = send(&publish, "one too many");
    tokio::pin!(next);
    assert!(
        std::future::poll_fn(|context| std::task::Poll::Ready(next.as_mut().poll(context).is_pending()))
            .await
    );
    publish.fill(&mut BytesMut::new(), 100, 0);
    assert_eq!(publish.answered([refused(1, Reason::UnknownAccount)]).decided.len(), 1);
    assert_eq!(next.await.unwrap().0, 1 + QUEUED_MESSAGES_MAX as u64);
}

#[tokio::test]
async fn answers_before_one_that_does_not_fit_still_count() {
    let publish = publish();
    send(&publish, "x").await.unwrap();
    write(&publish);
    let answered = publish.answered([accepted(1), accepted(7)]);
    assert_eq!(answered.decided.len(), 1);
    assert!(matches!(answered.fits, Err(Error::Protocol { .. })));
    assert_eq!((publish.unanswered(), publish.room.available_permits()), (0, QUEUED_BYTES_MAX));
    publish.announce();
    publish.flushed().await;
}

#[tokio::test]
async fn the_end_reaches_those_who_wait_and_those_who_come() {
    let publish = publish();
    let (_, ticket) = send(&publish, "x").await.unwrap();
    publish.end(&Error::LoggedOut);
    assert_eq!(ticket.accepted().await, Err(SendError::Stopped(Error::LoggedOut)));
    assert_eq!(send(&publish, "y").await.unwrap_err(), Error::LoggedOut);
}

#[tokio::test]
async fn what_is_queued_outlives_the_process_and_a_handle_finds_it_again() {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let (first, second) = (message("one"), message("two"));
    {
        let publish = Publish::new(store.clone());
        publish.queue(first.clone(), true).await.unwrap();
        publish.queue(second.clone(), true).await.unwrap();
    }
    let publish = Publish::new(store.clone());
    publish.load().await.unwrap();
    publish.lane_opened();
    let listed: Vec<_> = publish.list().into_iter().map(|queued| (queued.id, queued.body)).collect();
    assert_eq!(listed, [(first.id, "one".into()), (second.id, "two".into())]);
    let (number, ticket) = publish.attach(first.id).unwrap();
    let again = publish.queue(first.clone(), false).await.unwrap();
    assert_eq!((number, again.0, publish.unanswered()), (1, 1, 2), "the same message is not queued twice");
    let other = Outgoing { body: Bytes::from_static(b"other"), ..first.clone() };
    assert_eq!(publish.queue(other, false).await.unwrap_err(), Error::IdTaken(first.id));
    write(&publish);
    publish.answered([accepted(1)]).decided.into_iter().for_each(|decided| {
        decided.ticket.unwrap().decide(decided.outcome);
    });
    assert!(ticket.accepted().await.is_ok());

    // What was answered is known to yet another process.
    let publish = Publish::new(store);
    let (_, ticket, _) = publish.queue(first, false).await.unwrap();
    assert!(ticket.accepted().await.is_ok());
    assert_eq!((publish.unanswered(), publish.seen()), (1, Stamp(1)));
    assert_eq!(send(&publish, "three").await.unwrap().0, 3);
}

#[tokio::test]
async fn a_refusal_stays_until_it_is_noted() {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let publish = Publish::new(store.clone());
    publish.lane_opened();
    send(&publish, "x").await.unwrap();
    write(&publish);
    publish.answered([refused(1, Reason::UnknownAccount)]);
    let publish = Publish::new(store.clone());
    publish.load().await.unwrap();
    let [refused] = &publish.refused()[..] else { panic!("one was refused") };
    assert_eq!((refused.refusal.reason, refused.body.as_text()), (Reason::UnknownAccount, Some("x")));
    assert!(publish.note(refused.id).is_some());
    assert_eq!(publish.note(refused.id), None);
    assert!(store.load_publish().unwrap().refused.is_empty());
}

#[tokio::test]
async fn a_number_that_is_passed_is_followed_by_a_new_one_with_the_same_id_once() {
    let publish = publish();
    let (_, ticket) = send(&publish, "x").await.unwrap();
    write(&publish);
    assert!(publish.answered([refused(1, Reason::NumberPassed)]).decided.is_empty());
    write(&publish);
    publish.announce();
    assert_eq!(*publish.decided_upto.borrow(), 0, "it is still not decided");
    let answered = publish.answered([refused(2, Reason::NumberPassed)]);
    assert!(matches!(answered.decided[0].outcome, Err(SendError::Refused(_))));
    drop(ticket);
    send(&publish, "y").await.unwrap();
    write(&publish);
    let answered = publish.answered([refused(3, Reason::Clock)]);
    assert!(answered.forget_seen && answered.decided.is_empty());
}

#[tokio::test]
async fn a_session_that_ended_leaves_its_messages_in_the_store() {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let publish = Publish::new(store.clone());
    publish.lane_opened();
    send(&publish, "x").await.unwrap();
    write(&publish);
    let answered = publish.answered([refused(1, Reason::Unauthenticated)]);
    assert!(answered.decided.is_empty() && answered.session_ended.is_some());
    assert_eq!(store.load_publish().unwrap().queue.len(), 1);
}

#[tokio::test]
async fn what_is_not_on_its_way_can_be_edited_and_cancelled() {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let publish = Publish::new(store.clone());
    let (first, second) = (message("one"), message("two"));
    publish.queue(first.clone(), true).await.unwrap();
    publish.queue(second.clone(), true).await.unwrap();
    publish.edit(first.id, "uno".into()).await.unwrap();
    publish.cancel(second.id).unwrap();
    assert_eq!(publish.cancel(second.id), Err(ChangeError::NotQueued(second.id)));
    let bodies: Vec<_> = store.load_publish().unwrap().queue.into_iter().map(|send| send.body).collect();
    assert_eq!(bodies, ["uno"]);
    let left = publish.room.available_permits();
    assert_eq!(left, QUEUED_BYTES_MAX - charge(3));
    publish.lane_opened();
    assert_eq!(publish.cancel(first.id), Err(ChangeError::OnItsWay(first.id)));
    assert_eq!(publish.edit(first.id, "eins".into()).await, Err(ChangeError::OnItsWay(first.id)));
}

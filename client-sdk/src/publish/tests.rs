//! The sending half with its store: room, commits, numbers, answers, and crashes between any two of them.

use proptest::prelude::*;
use quail_protocol::frame;
use quail_protocol::limits::{FRAME_BYTES_MAX, SENDS_UNANSWERED_MAX};
use quail_protocol::v1::{self, publish_up};

use super::changes::ChangeError;
use super::*;
use crate::store::{FeedChange, FeedState, MemoryStore, Part, PublishState, StoreError};
use quail_protocol::id::{AccountId, DeviceId, Origin, Position};
use quail_protocol::v1::Reason;

const OWNER: Owner = Owner { account: AccountId([8; 16]), device: DeviceId([9; 16]) };

fn over(store: Arc<dyn Store>) -> Publish {
    Publish::new(store, OWNER)
}

fn publish() -> Publish {
    let publish = over(Arc::new(MemoryStore::new()));
    publish.lane_opened();
    publish
}

fn message(text: &str) -> Outgoing {
    let body = Bytes::copy_from_slice(text.as_bytes());
    let (id, extra) = (crate::new_message_id(), Bytes::new());
    Outgoing { id, recipient: AccountId([1; 16]), kind: 1, body, extra }
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
        let publish = over(store.clone());
        publish.queue(first.clone(), true).await.unwrap();
        publish.queue(second.clone(), true).await.unwrap();
    }
    let publish = over(store.clone());
    publish.load().await.unwrap();
    publish.lane_opened();
    let listed: Vec<_> = publish.list().into_iter().map(|queued| (queued.id, queued.content)).collect();
    assert_eq!(
        listed,
        [(first.id, crate::Body::from("one").into()), (second.id, crate::Body::from("two").into())]
    );
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
    let publish = over(store);
    let (_, ticket, _) = publish.queue(first, false).await.unwrap();
    assert!(ticket.accepted().await.is_ok());
    assert_eq!((publish.unanswered(), publish.seen()), (1, Stamp(1)));
    assert_eq!(send(&publish, "three").await.unwrap().0, 3);
}

#[tokio::test]
async fn a_refusal_stays_until_it_is_noted() {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let publish = over(store.clone());
    publish.lane_opened();
    send(&publish, "x").await.unwrap();
    write(&publish);
    publish.answered([refused(1, Reason::UnknownAccount)]);
    let publish = over(store.clone());
    publish.load().await.unwrap();
    let [refused] = &publish.refused()[..] else { panic!("one was refused") };
    assert_eq!((refused.refusal.reason, refused.content.as_text()), (Reason::UnknownAccount, Some("x")));
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
}

#[tokio::test]
async fn what_is_refused_for_its_number_is_not_changed_any_more_by_later_processes_neither() {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let publish = over(store.clone());
    publish.lane_opened();
    let message = message("x");
    publish.queue(message.clone(), true).await.unwrap();
    write(&publish);
    publish.lane_closed();
    publish.answered([refused(1, Reason::NumberPassed)]);
    assert_eq!(publish.cancel(message.id), Err(ChangeError::OnItsWay(message.id)));
    let publish = over(store);
    publish.load().await.unwrap();
    assert_eq!(publish.cancel(message.id), Err(ChangeError::OnItsWay(message.id)));
}

#[tokio::test]
async fn a_stamp_from_a_wrong_clock_is_forgotten_and_the_order_stays() {
    let publish = publish();
    for text in ["one", "two"] {
        send(&publish, text).await.unwrap();
    }
    publish.fill(&mut BytesMut::new(), usize::MAX, 99);
    let answered = publish.answered([refused(1, Reason::Clock), refused(2, Reason::Clock)]);
    assert!(answered.forget_seen && answered.decided.is_empty());
    send(&publish, "three").await.unwrap();
    let mut buffer = BytesMut::new();
    while buffer.is_empty() {
        if let (_, Next::Pause(until)) = publish.fill(&mut buffer, usize::MAX, 0) {
            tokio::time::sleep_until(until.into()).await;
        }
    }
    let mut again = Vec::new();
    while let Some(up) = frame::decode::<v1::PublishUp>(&mut buffer, FRAME_BYTES_MAX).unwrap() {
        if let Some(publish_up::Frame::Send(send)) = up.frame {
            again.push((send.number, send.seen, String::from_utf8(send.body.to_vec()).unwrap()));
        }
    }
    assert_eq!(again, [(1, 0, "one".to_owned()), (2, 0, "two".to_owned()), (3, 0, "three".to_owned())]);
}

#[tokio::test]
async fn a_full_queue_can_be_edited_and_a_longer_body_waits_for_room() {
    let publish = over(Arc::new(MemoryStore::new()));
    let first = message("x");
    publish.queue(first.clone(), true).await.unwrap();
    let mut last = None;
    for _ in 1..QUEUED_MESSAGES_MAX {
        let message = message("x");
        last = Some(message.id);
        publish.queue(message, true).await.unwrap();
    }
    publish.edit(first.id, "short".into()).await.unwrap();
    let longer = "x".repeat(2 * CHARGE_MIN - ENTRY_BYTES);
    let mut editing = std::pin::pin!(publish.edit(first.id, longer.as_str().into()));
    let waits =
        std::future::poll_fn(|context| std::task::Poll::Ready(editing.as_mut().poll(context).is_pending()));
    assert!(waits.await);
    publish.cancel(last.unwrap()).unwrap();
    editing.await.unwrap();
    assert_eq!(publish.list()[0].content.as_text(), Some(longer.as_str()));
    publish.cancel(first.id).unwrap();
    assert_eq!(publish.room.available_permits(), 2 * CHARGE_MIN);
}

#[tokio::test]
async fn the_queue_of_another_device_is_refused() {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    over(store.clone()).load().await.unwrap();
    let other = Owner { device: DeviceId([7; 16]), ..OWNER };
    let error = StoreError::OtherDevice { part: Part::Publish, expected: other, got: OWNER };
    assert_eq!(Publish::new(store.clone(), other).load().await, Err(Error::Store(error)));
    over(store).load().await.unwrap();
}

/// A store whose commits fail.
struct Broken;

fn broken() -> StoreError {
    StoreError::Other { detail: "broken".to_owned() }
}

impl Store for Broken {
    fn load_publish(&self) -> Result<PublishState, StoreError> {
        Ok(PublishState { owner: Some(OWNER), ..PublishState::default() })
    }

    fn commit_publish(&self, _: &[PublishChange]) -> Result<(), StoreError> {
        Err(broken())
    }

    fn load_feed(&self) -> Result<FeedState, StoreError> {
        Err(broken())
    }

    fn commit_feed(&self, _: &[FeedChange]) -> Result<(), StoreError> {
        Err(broken())
    }

    fn may_block(&self) -> bool {
        false
    }
}

#[tokio::test]
async fn a_commit_that_fails_at_once_is_told_to_whoever_ends_the_client() {
    let publish = over(Arc::new(Broken));
    publish.queue(message("x"), true).await.unwrap();
    publish.commit_due().await;
    assert_eq!(publish.commit().await, Err(Error::Store(broken())));
}

#[tokio::test]
async fn a_session_that_ended_leaves_its_messages_in_the_store() {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let publish = over(store.clone());
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
    let publish = over(store.clone());
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

/// A store that commits only when the test says so, as a disk takes its time.
struct Slow(Arc<MemoryStore>);

impl Store for Slow {
    fn load_publish(&self) -> Result<PublishState, StoreError> {
        self.0.load_publish()
    }

    fn commit_publish(&self, changes: &[PublishChange]) -> Result<(), StoreError> {
        self.0.commit_publish(changes)
    }

    fn load_feed(&self) -> Result<FeedState, StoreError> {
        self.0.load_feed()
    }

    fn commit_feed(&self, changes: &[FeedChange]) -> Result<(), StoreError> {
        self.0.commit_feed(changes)
    }
}

/// What happens next in the model.
#[derive(Clone, Debug)]
enum Step {
    Send,
    Cancel(usize),
    Commit,
    Write,
    Serve(usize),
    Read(usize),
    Cut,
    Crash,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => Just(Step::Send),
        1 => (0..4_usize).prop_map(Step::Cancel),
        3 => Just(Step::Commit),
        3 => Just(Step::Write),
        3 => (1..6_usize).prop_map(Step::Serve),
        3 => (1..6_usize).prop_map(Step::Read),
        1 => Just(Step::Cut),
        1 => Just(Step::Crash),
    ]
}

/// A server: what it accepted, by number; what is on the wire.
#[derive(Default)]
struct Server {
    accepted: Vec<(u64, Bytes, Bytes)>,
    inbound: VecDeque<v1::Send>,
    answers: VecDeque<u64>,
}

impl Server {
    fn serve(&mut self) {
        let Some(send) = self.inbound.pop_front() else { return };
        let mark = self.accepted.last().map_or(0, |(number, ..)| *number);
        if send.number > mark {
            let is_known = self.accepted.iter().any(|(_, id, _)| *id == send.id);
            assert!(!is_known, "a message keeps its number");
            self.accepted.push((send.number, send.id, send.body));
        } else {
            let window = self.accepted.iter().rev().take(SENDS_UNANSWERED_MAX);
            let earlier = window.into_iter().find(|(number, ..)| *number == send.number);
            let (_, id, body) = earlier.expect("what is sent again is in the window");
            assert_eq!((id, body), (&send.id, &send.body), "a number is one message for ever");
        }
        self.answers.push_back(send.number);
    }
}

/// The client's side of the model.
struct World {
    store: Arc<MemoryStore>,
    publish: Publish,
    server: Server,
    /// Bodies that are queued for sure, and those that may be.
    told: Vec<u64>,
    asked: Vec<(u64, u64)>,
    cancelled: Vec<u64>,
    sent: u64,
}

impl World {
    async fn new() -> Self {
        let store = Arc::new(MemoryStore::new());
        let publish = over(Arc::new(Slow(store.clone())));
        publish.load().await.unwrap();
        publish.lane_opened();
        let (told, asked, cancelled) = (Vec::new(), Vec::new(), Vec::new());
        Self { store, publish, server: Server::default(), told, asked, cancelled, sent: 0 }
    }

    async fn step(&mut self, step: &Step) {
        match step {
            Step::Send => {
                self.sent += 1;
                let (_, _, change) = self.publish.queue(message(&self.sent.to_string()), true).await.unwrap();
                self.asked.push((self.sent, change));
            }
            Step::Cancel(at) => {
                let listed = self.publish.list();
                let Some(queued) = listed.iter().rev().nth(*at) else { return };
                if let Ok(change) = self.publish.cancel(queued.id) {
                    let body = queued.content.as_text().unwrap().parse().unwrap();
                    // Asked for, and from now on neither queued nor cancelled for sure.
                    self.told.retain(|told| *told != body);
                    self.asked.retain(|(asked, _)| *asked != body);
                    self.publish.commit().await.unwrap();
                    assert!(*self.publish.committed.borrow() >= change);
                    self.cancelled.push(body);
                    self.heard();
                }
            }
            Step::Commit => {
                self.publish.commit().await.unwrap();
                self.heard();
            }
            Step::Write => {
                let mut buffer = BytesMut::new();
                self.publish.fill(&mut buffer, usize::MAX, 0);
                while let Some(up) = frame::decode::<v1::PublishUp>(&mut buffer, FRAME_BYTES_MAX).unwrap() {
                    let Some(publish_up::Frame::Send(send)) = up.frame else { panic!("only sends") };
                    self.server.inbound.push_back(send);
                }
            }
            Step::Serve(count) => (0..*count).for_each(|_| self.server.serve()),
            Step::Read(count) => {
                let count = (*count).min(self.server.answers.len());
                let answers: Vec<_> = self.server.answers.drain(..count).map(accepted).collect();
                self.publish.answered(answers).fits.unwrap();
            }
            Step::Cut | Step::Crash => {
                self.server.inbound.clear();
                self.server.answers.clear();
                if matches!(step, Step::Crash) {
                    self.asked.clear();
                    self.publish = over(Arc::new(Slow(self.store.clone())));
                    self.publish.load().await.unwrap();
                }
                self.publish.lane_opened();
            }
        }
    }

    /// Whoever waited for a commit is told.
    fn heard(&mut self) {
        let committed = *self.publish.committed.borrow();
        let told = self.asked.extract_if(.., |(_, change)| *change <= committed);
        self.told.extend(told.map(|(body, _)| body));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn what_is_told_to_be_queued_is_accepted_once_and_in_order_over_cuts_and_crashes(
        steps in prop::collection::vec(step(), 1..200),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let mut world = World::new().await;
            let wind_up = (0..=steps.len())
                .flat_map(|_| [Step::Commit, Step::Write, Step::Serve(99), Step::Read(99)]);
            for step in steps.iter().cloned().chain([Step::Cut]).chain(wind_up) {
                world.step(&step).await;
            }
            assert_eq!(world.publish.unanswered(), 0);
            let bodies = world.server.accepted.iter().map(|(_, _, body)| std::str::from_utf8(body).unwrap());
            let accepted: Vec<u64> = bodies.map(|body| body.parse().unwrap()).collect();
            assert!(accepted.is_sorted_by(|a, b| a < b), "in order and once: {accepted:?}");
            for told in &world.told {
                assert!(accepted.contains(told), "{told} is lost");
            }
            for cancelled in &world.cancelled {
                assert!(!accepted.contains(cancelled), "{cancelled} was cancelled");
            }
        });
    }
}

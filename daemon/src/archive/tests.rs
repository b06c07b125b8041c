//! The writer against an archive that fails, that is slow and that refuses, and what events come to.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // Test code outside of #[test] functions.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use quail_core::ports::archive::{
    ArchivedMessage, Browse, Content, DeadLetter, Marker, Reached, ReadArchive, TwinArchive, direct,
};
use quail_core::ports::directory::PortFuture;
use quail_core::ports::outbox::Note;
use quail_protocol::frame;
use quail_protocol::id::{AccountId, DeviceId};
use quail_protocol::v1::{self, ReceiptKind};

use super::dead::{DeadError, DeadLetters};
use super::*;

const HERE: Origin = Origin(1);
const ADA: AccountId = AccountId([1; 16]);
const BOB: AccountId = AccountId([2; 16]);
const PHONE: DeviceId = DeviceId([20; 16]);

/// How long to wait for what must come.
const PATIENT: Duration = Duration::from_secs(60);

/// What an archive in memory does before it does what it is asked.
#[derive(Clone, Default)]
struct Double {
    twin: TwinArchive,
    /// So many calls fail first.
    fails: Arc<AtomicU32>,
    /// Whether bodies that say "poison" are refused.
    is_picky: Arc<AtomicBool>,
    /// Batches of more messages fail; 0: none is too large.
    messages_max: Arc<AtomicUsize>,
    calls: Arc<AtomicU32>,
}

impl WriteArchive for Double {
    fn apply<'a>(&'a self, batch: &'a ArchiveBatch) -> PortFuture<'a, Result<Applied, ArchiveError>> {
        Box::pin(async move {
            self.calls.fetch_add(1, Ordering::SeqCst);
            if self.fails.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok()
            {
                return Err(ArchiveError::Unavailable { reason: "not now".to_owned() });
            }
            let most = self.messages_max.load(Ordering::SeqCst);
            if most > 0 && batch.messages.len() > most {
                return Err(ArchiveError::Unavailable { reason: "no answer in time".to_owned() });
            }
            let is_poison = batch.messages.iter().any(|message| &message.body[..] == b"poison");
            if is_poison && self.is_picky.load(Ordering::SeqCst) {
                return Err(ArchiveError::Refused { reason: "it is poison".to_owned() });
            }
            self.twin.apply(batch).await
        })
    }

    fn archived(&self, origin: Origin) -> PortFuture<'_, Result<Option<Position>, ArchiveError>> {
        self.twin.archived(origin)
    }

    fn dead(&self, after: u64, limit: u32) -> PortFuture<'_, Result<Vec<DeadLetter>, ArchiveError>> {
        self.twin.dead(after, limit)
    }

    fn revive<'a>(
        &'a self,
        number: u64,
        batch: &'a ArchiveBatch,
    ) -> PortFuture<'a, Result<Option<Applied>, ArchiveError>> {
        self.twin.revive(number, batch)
    }

    fn drop_dead(&self, number: u64) -> PortFuture<'_, Result<bool, ArchiveError>> {
        self.twin.drop_dead(number)
    }
}

/// A journal that holds what it is given, and begins anew behind what it was told is archived.
#[derive(Clone, Default)]
struct Journal(Arc<Mutex<Held>>);

#[derive(Default)]
struct Held {
    events: VecDeque<JournalEvent>,
    archived: Position,
    last: Position,
}

impl Journal {
    fn of(events: Vec<JournalEvent>) -> Self {
        let last = events.last().map_or(Position::ZERO, |last| last.event.position);
        Self(Arc::new(Mutex::new(Held { events: events.into(), archived: Position::ZERO, last })))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Held> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Source for Journal {
    fn next(&mut self, bytes_max: usize, patience: Duration) -> Result<Taken, StoreError> {
        let mut held = self.lock();
        if held.events.is_empty() {
            drop(held);
            std::thread::sleep(patience.min(Duration::from_millis(5)));
            return Ok(Taken { events: Vec::new(), upto: self.lock().last });
        }
        let (mut events, mut bytes) = (Vec::new(), 0);
        while let Some(next) = held.events.pop_front_if(|next| {
            bytes += next.event.frame.len();
            bytes <= bytes_max || events.is_empty()
        }) {
            events.push(next);
        }
        let upto = events.last().map_or(held.last, |last: &JournalEvent| last.event.position);
        Ok(Taken { events, upto })
    }

    fn archived(&self, upto: Position) {
        let mut held = self.lock();
        assert!(upto >= held.archived, "it never falls");
        held.archived = upto;
    }

    fn last_position(&self) -> Position {
        self.lock().last
    }
}

fn stored(position: u64, note: Note, body: v1::event::Body, accounts: &[AccountId]) -> JournalEvent {
    let event = v1::Event { origin: 1, position, stamp: position, body: Some(body) };
    let down = v1::FeedDown { frame: Some(v1::feed_down::Frame::Event(event)) };
    let event = StoredEvent { position: Position(position), note, frame: frame::to_bytes(&down) };
    JournalEvent { event: Arc::new(event), accounts: accounts.into() }
}

fn message(position: u64, body: &str) -> JournalEvent {
    let message = v1::Message {
        id: id(position),
        sender: ADA.to_bytes(),
        recipient: BOB.to_bytes(),
        kind: v1::BodyKind::PlainText as i32,
        body: Bytes::copy_from_slice(body.as_bytes()),
        reply_to: None,
    };
    let note = Note::Message { sender: ADA, device: PHONE, recipient: BOB };
    stored(position, note, v1::event::Body::Message(message), &[BOB])
}

/// The id of the message at a position.
fn id(position: u64) -> Bytes {
    let mut id = [7; 16];
    id[8..].copy_from_slice(&position.to_be_bytes());
    Bytes::copy_from_slice(&id)
}

/// A change that one of the two says to the other.
fn changed(position: u64, (by, peer): (AccountId, AccountId), change: v1::changed::Change) -> JournalEvent {
    let (sender, recipient) = (by.to_bytes(), peer.to_bytes());
    let changed = v1::Changed { id: id(position), sender, recipient, change: Some(change) };
    let note = Note::Message { sender: by, device: PHONE, recipient: peer };
    stored(position, note, v1::event::Body::Changed(changed), &[peer])
}

fn receipt(
    position: u64,
    kind: ReceiptKind,
    upto: u64,
    sender: Bytes,
    accounts: &[AccountId],
) -> JournalEvent {
    let receipt =
        v1::Receipt { kind: kind as i32, account: BOB.to_bytes(), origin: 1, after: 0, upto, sender };
    let note = Note::Receipt { account: BOB, after: Position::ZERO, upto: Position(upto) };
    stored(position, note, v1::event::Body::Receipt(receipt), accounts)
}

/// A writer at work.
struct Working {
    stop: Arc<Stop>,
    thread: std::thread::JoinHandle<()>,
    metrics: Arc<Metrics>,
}

fn lineage() -> Lineage {
    Lineage { origin: HERE, ancestors: Vec::new() }
}

fn work(journal: &Journal, archive: &Double, lineage: Lineage) -> Working {
    let (stop, metrics) = (Arc::new(Stop::default()), Arc::new(Metrics::new()));
    let writer = Writer::new(WriterParts {
        source: journal.clone(),
        archive: Arc::new(archive.clone()),
        lineage,
        archived: Position::ZERO,
        runtime: Handle::current(),
        metrics: metrics.clone(),
        stop: stop.clone(),
        changed: Box::new(|_| ()),
    });
    Working { stop, thread: std::thread::spawn(move || writer.run()), metrics }
}

impl Working {
    async fn archives(&self, journal: &Journal, upto: u64) {
        let began = Instant::now();
        while journal.lock().archived < Position(upto) {
            assert!(began.elapsed() < PATIENT, "archived up to {} only", journal.lock().archived);
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    fn ends(self) {
        self.stop.ask(PATIENT);
        self.thread.join().unwrap();
    }
}

async fn all(archive: &Double) -> Vec<ArchivedMessage> {
    let (mut all, mut place) = (Vec::new(), None);
    loop {
        let page = archive.twin.browse(BOB, direct(ADA, BOB), Browse::After(place), 100).await.unwrap().rows;
        let Some(last) = page.last() else { return all };
        place = Some(last.place());
        all.extend(page);
    }
}

async fn positions(archive: &Double) -> Vec<u64> {
    all(archive).await.iter().map(|message| message.position.0).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_archive_that_fails_and_heals_has_everything_once() {
    let archive = Double::default();
    archive.fails.store(5, Ordering::SeqCst);
    let journal = Journal::of((1..=2_500).map(|number| message(number, "hi")).collect());
    let working = work(&journal, &archive, lineage());
    working.archives(&journal, 2_500).await;
    assert_eq!(positions(&archive).await, (1..=2_500).collect::<Vec<_>>());
    let metrics = &working.metrics.archive;
    assert_eq!((metrics.failures.get(), metrics.rows.get(), metrics.dead_letters.get()), (5, 2_500, 0));
    assert_eq!((metrics.breaker.get(), metrics.lag_events.get()), (0, 0));
    working.ends();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_that_always_takes_too_long_is_archived_in_halves() {
    let archive = Double::default();
    archive.messages_max.store(4, Ordering::SeqCst);
    let journal = Journal::of((1..=8).map(|number| message(number, "hi")).collect());
    let working = work(&journal, &archive, lineage());
    working.archives(&journal, 8).await;
    assert_eq!(positions(&archive).await, (1..=8).collect::<Vec<_>>());
    let metrics = &working.metrics.archive;
    assert_eq!((metrics.failures.get(), metrics.rows.get(), metrics.dead_letters.get()), (3, 8, 0));
    assert_eq!(archive.calls.load(Ordering::SeqCst), 5, "three times whole, then two halves");
    working.ends();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_single_event_is_tried_again_until_the_archive_takes_it() {
    let archive = Double::default();
    archive.fails.store(HALVES_AT + 1, Ordering::SeqCst);
    let journal = Journal::of(vec![message(1, "hi")]);
    let working = work(&journal, &archive, lineage());
    working.archives(&journal, 1).await;
    assert_eq!(positions(&archive).await, [1]);
    let metrics = &working.metrics.archive;
    assert_eq!((metrics.failures.get(), metrics.dead_letters.get()), (u64::from(HALVES_AT) + 1, 0));
    working.ends();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_what_is_refused_becomes_a_dead_letter_and_can_be_tried_again() {
    let archive = Double::default();
    archive.is_picky.store(true, Ordering::SeqCst);
    let is_poison = |number: u64| number.is_multiple_of(1_000);
    let body = |number| if is_poison(number) { "poison" } else { "hi" };
    let journal = Journal::of((1..=4_000).map(|number| message(number, body(number))).collect());
    let working = work(&journal, &archive, lineage());
    working.archives(&journal, 4_000).await;
    let kept: Vec<_> = (1..=4_000).filter(|number| !is_poison(*number)).collect();
    assert_eq!(positions(&archive).await, kept);
    assert_eq!(working.metrics.archive.dead_letters.get(), 4);
    assert_eq!(working.metrics.archive.failures.get(), 0, "a refusal is no failure of the archive");
    working.ends();

    let dead = DeadLetters::new(Arc::new(archive.clone()), lineage());
    let letters = dead.list(0).await.unwrap();
    let found: Vec<_> = letters.iter().map(|letter| letter.position.0).collect();
    assert_eq!(found, [1_000, 2_000, 3_000, 4_000]);
    assert!(letters[0].error.contains("it is poison"), "{}", letters[0].error);
    dead.retry(letters[0].number).await.unwrap();
    assert_eq!(positions(&archive).await.iter().filter(|position| **position == 1_000).count(), 1);
    assert_eq!(all(&archive).await[999].device, PHONE, "as it would have been");
    dead.drop(letters[1].number).await.unwrap();
    for gone in [letters[0].number, letters[1].number, 99] {
        assert_eq!(dead.retry(gone).await, Err(DeadError::Unknown { number: gone }));
        assert_eq!(dead.drop(gone).await, Err(DeadError::Unknown { number: gone }));
    }
    assert_eq!(dead.list(0).await.unwrap().len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_writer_that_begins_anew_doubles_nothing() {
    let archive = Double::default();
    for upto in [300, 700, 1_000] {
        let journal = Journal::of((1..=upto).map(|number| message(number, "hi")).collect());
        let working = work(&journal, &archive, lineage());
        working.archives(&journal, upto).await;
        working.ends();
    }
    assert_eq!(positions(&archive).await, (1..=1_000).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_decoded_is_a_dead_letter_and_what_was_lost_is_none() {
    let archive = Double::default();
    let garbage = StoredEvent { frame: Bytes::from_static(b"\xff\xff"), ..(*message(2, "x").event).clone() };
    let garbage = JournalEvent { event: Arc::new(garbage), accounts: [BOB][..].into() };
    let lost =
        StoredEvent { position: Position(3), note: Note::Lost { from: Position(3) }, frame: Bytes::new() };
    let lost = JournalEvent { event: Arc::new(lost), accounts: [BOB][..].into() };
    let journal = Journal::of(vec![message(1, "a"), garbage, lost, message(4, "b")]);
    let working = work(&journal, &archive, lineage());
    working.archives(&journal, 4).await;
    working.ends();
    assert_eq!(positions(&archive).await, [1, 4]);
    let dead = DeadLetters::new(Arc::new(archive), lineage());
    let letters = dead.list(0).await.unwrap();
    assert_eq!(letters.iter().map(|letter| letter.position.0).collect::<Vec<_>>(), [2]);
    let number = letters[0].number;
    assert!(matches!(dead.retry(number).await, Err(DeadError::Refused { .. })));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_and_replies_are_told_to_the_archive_also_before_their_message() {
    use v1::changed::Change;
    let archive = Double::default();
    let (ada, bob) = ((ADA, BOB), (BOB, ADA));
    let edit = |of, text: &'static str| {
        let kind = v1::BodyKind::PlainText as i32;
        Change::Edit(v1::Edit { id: id(of), kind, body: Bytes::from_static(text.as_bytes()) })
    };
    let delete_for_all = |of| Change::DeleteForAll(v1::DeleteForAll { id: id(of) });
    let delete_for_me = |of| Change::DeleteForMe(v1::DeleteForMe { sender: ADA.to_bytes(), id: id(of) });
    let react = |of, text: &'static str| {
        let text = Bytes::from_static(text.as_bytes());
        Change::React(v1::React { sender: ADA.to_bytes(), id: id(of), text })
    };
    let reply = {
        let reply_to = Some(v1::MessageRef { sender: ADA.to_bytes(), id: id(5) });
        let kind = v1::BodyKind::PlainText as i32;
        let (sender, recipient, body) = (BOB.to_bytes(), ADA.to_bytes(), Bytes::from_static(b"reply"));
        let message = v1::Message { id: id(9), sender, recipient, kind, body, reply_to };
        let note = Note::Message { sender: BOB, device: PHONE, recipient: ADA };
        stored(9, note, v1::event::Body::Message(message), &[ADA])
    };
    let stranger = AccountId([9; 16]);
    let journal = Journal::of(vec![
        // Before their messages, as where two origins are archived in any order.
        changed(1, ada, edit(5, "edited")),
        changed(2, ada, delete_for_all(6)),
        changed(3, bob, delete_for_me(7)),
        changed(4, bob, react(5, "+")),
        message(5, "five"),
        message(6, "six"),
        message(7, "seven"),
        changed(8, ada, react(7, "-")),
        reply,
        changed(10, ada, react(7, "")),
        changed(11, (BOB, stranger), react(5, "?")),
    ]);
    let working = work(&journal, &archive, lineage());
    working.archives(&journal, 11).await;
    working.ends();
    let shown = async |asking: AccountId| {
        let page = archive.twin.browse(asking, direct(ADA, BOB), Browse::After(None), 100).await.unwrap();
        page.rows
            .into_iter()
            .map(|row| match row.content {
                Content::There { body, .. } => {
                    let reactions = row.reactions.iter().map(|(by, text)| (by.0[0], text.clone()));
                    (String::from_utf8(body.to_vec()).unwrap(), row.reply.is_some(), reactions.collect())
                }
                Content::Deleted => ("(deleted)".to_owned(), false, Vec::new()),
                Content::DeletedForMe => unreachable!("it is in no list"),
            })
            .collect::<Vec<_>>()
    };
    let text = |text: &str| (text.to_owned(), false, Vec::new());
    let edited = ("edited".to_owned(), false, vec![(BOB.0[0], "+".to_owned())]);
    let reply = ("reply".to_owned(), true, Vec::new());
    assert_eq!(shown(BOB).await, [edited.clone(), text("(deleted)"), reply.clone()]);
    assert_eq!(shown(ADA).await, [edited, text("(deleted)"), text("seven"), reply]);
    let dead = DeadLetters::new(Arc::new(archive), lineage()).list(0).await.unwrap();
    assert_eq!(dead.iter().map(|letter| letter.position.0).collect::<Vec<_>>(), [11]);
}

async fn markers(archive: &Double, asking: AccountId) -> Vec<Marker> {
    let page = archive.twin.conversations(asking, None).await.unwrap();
    page.conversations[0].markers.clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn receipts_are_markers_and_what_is_read_in_secret_stays_so() {
    let (archive, own) = (Double::default(), Bytes::new);
    let ada = || ADA.to_bytes();
    let secret = Note::Message { sender: BOB, device: PHONE, recipient: ADA };
    let untold = receipt(15, ReceiptKind::Read, 4, ada(), &[]);
    let untold = StoredEvent { note: secret, ..(*untold.event).clone() };
    let mut events: Vec<_> = (1..=10).map(|number| message(number, "hi")).collect();
    events.extend([
        receipt(11, ReceiptKind::Delivered, 7, own(), &[ADA]),
        receipt(12, ReceiptKind::Delivered, 5, own(), &[ADA]),
        receipt(13, ReceiptKind::Read, 2, ada(), &[ADA]),
        receipt(14, ReceiptKind::Read, 3, ada(), &[BOB]),
        JournalEvent { event: Arc::new(untold), accounts: Accounts::new() },
        receipt(16, ReceiptKind::Delivered, 8, ada(), &[]),
    ]);
    let journal = Journal::of(events);
    let working = work(&journal, &archive, lineage());
    working.archives(&journal, 16).await;
    working.ends();
    let marker =
        |reached, position| Marker { account: BOB, reached, origin: HERE, position: Position(position) };
    let delivered = marker(Reached::Delivered, 8);
    assert_eq!(markers(&archive, ADA).await, [delivered, marker(Reached::Read, 2)]);
    assert_eq!(markers(&archive, BOB).await, [delivered, marker(Reached::Read, 4)]);
    let page = archive.twin.conversations(BOB, None).await.unwrap();
    assert_eq!(page.conversations[0].unread, 6);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_ancestor_archived_is_read_under_the_new_number() {
    let archive = Double::default();
    let journal = Journal::of((1..=10).map(|number| message(number, "hi")).collect());
    let working = work(&journal, &archive, lineage());
    working.archives(&journal, 10).await;
    working.ends();
    let successor = Lineage { origin: Origin(2), ancestors: vec![(HERE, Position(8))] };
    let event = receipt(11, ReceiptKind::Read, 9, ADA.to_bytes(), &[ADA]);
    let v1::FeedDown { frame: Some(v1::feed_down::Frame::Event(mut down)) } =
        prost::Message::decode_length_delimited(event.event.frame.clone()).unwrap()
    else {
        unreachable!()
    };
    let Some(v1::event::Body::Receipt(mut read)) = down.body.take() else { unreachable!() };
    read.origin = 2;
    let event = stored(11, event.event.note, v1::event::Body::Receipt(read), &[ADA]);
    let journal = Journal::of(vec![event]);
    let working = work(&journal, &archive, successor);
    working.archives(&journal, 11).await;
    working.ends();
    let page = archive.twin.conversations(BOB, None).await.unwrap();
    assert_eq!(page.conversations[0].unread, 2, "what it took over is read, what it did not is not");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_stops_at_once_while_the_archive_fails() {
    let archive = Double::default();
    archive.fails.store(u32::MAX, Ordering::SeqCst);
    let journal = Journal::of((1..=10).map(|number| message(number, "hi")).collect());
    let working = work(&journal, &archive, lineage());
    let began = Instant::now();
    while working.metrics.archive.breaker.get() == 0 {
        assert!(began.elapsed() < PATIENT);
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    assert_eq!(working.metrics.archive.lag_events.get(), 10);
    let calls = archive.calls.load(Ordering::SeqCst);
    working.ends();
    assert!(archive.calls.load(Ordering::SeqCst) <= calls + 2, "it does not go on trying");
    assert_eq!(journal.lock().archived, Position::ZERO);
}

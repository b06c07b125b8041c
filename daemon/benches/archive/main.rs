//! What the archive costs: its writer on SQLite, and on Postgres, against a bare batched insert of the same rows with the same
//! indexes, in one run and in turns.
//!
//! `cargo bench -p quaild --bench archive`; `-- --test` runs it very small, to see that it works. The disk is that of the temporary
//! directory (`TMPDIR`). Postgres is measured where `POSTGRES_URL` names an empty database of which everything may be deleted, and
//! `POSTGRES_PASSWORD_FILE` has the password, as `cargo run -p quail-tests --bin private-postgres -- cargo bench ...` does.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)] // A benchmark without a disk ends.

mod postgres;

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use quail_core::ports::archive::WriteArchive;
use quail_core::ports::outbox::{Note, StoreError, StoredEvent};
use quail_protocol::id::{AccountId, DeviceId, Origin, Position};
use quail_protocol::{frame, v1};
use quaild::adapters::sqlite::archive::SqliteArchive;
use quaild::archive::{JournalEvent, Lineage, Source, Stop, Taken, Writer, WriterParts};
use quaild::ops::metrics::Metrics;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqliteSynchronous};
use sqlx::{ConnectOptions, Connection, QueryBuilder, Sqlite};

/// Rows of one transaction, as the writer's batches have.
const BATCH: usize = 1_000;

/// People who write, in pairs.
const PEOPLE: u64 = 200;

/// Bytes of a body.
const BODY_BYTES: usize = 256;

/// Rounds of each.
const ROUNDS: usize = 3;

/// A journal in memory.
struct Memory {
    events: VecDeque<JournalEvent>,
    archived: Arc<AtomicU64>,
    last: Position,
}

impl Source for Memory {
    fn next(&mut self, bytes_max: usize, patience: Duration) -> Result<Taken, StoreError> {
        let (mut events, mut bytes) = (Vec::new(), 0);
        while let Some(next) = self.events.pop_front_if(|next| {
            bytes += next.event.frame.len();
            bytes <= bytes_max || events.is_empty()
        }) {
            events.push(next);
        }
        if events.is_empty() {
            std::thread::sleep(patience.min(Duration::from_millis(1)));
        }
        let upto = events.last().map_or(self.last, |last: &JournalEvent| last.event.position);
        Ok(Taken { events, upto })
    }

    fn archived(&self, upto: Position) {
        self.archived.store(upto.0, Ordering::Relaxed);
    }

    fn last_position(&self) -> Position {
        self.last
    }
}

fn person(number: u64) -> AccountId {
    let mut id = [0x5a; 16];
    id[..8].copy_from_slice(&number.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
    AccountId(id)
}

fn message(number: u64) -> v1::Message {
    let sender = number % PEOPLE;
    // An id of version 7 with a time of 2026.
    let mut id = [7; 16];
    id[..6].copy_from_slice(&1_772_323_200_000_u64.to_be_bytes()[2..]);
    id[8..].copy_from_slice(&number.to_be_bytes());
    (id[6], id[8]) = (0x70, 0x80);
    let mut body = format!("message {number} of {sender} says what people say: ").into_bytes();
    while body.len() < BODY_BYTES {
        let word = number.wrapping_mul(body.len() as u64) % 5_000;
        body.extend_from_slice(format!("word{word} ").as_bytes());
    }
    body.truncate(BODY_BYTES);
    v1::Message {
        id: id.to_vec().into(),
        sender: person(sender).to_bytes(),
        recipient: person(sender ^ 1).to_bytes(),
        kind: v1::BodyKind::PlainText as i32,
        body: body.into(),
        reply_to: None,
    }
}

fn event(number: u64) -> JournalEvent {
    let message = message(number);
    let (sender, recipient) = (person(number % PEOPLE), person((number % PEOPLE) ^ 1));
    let note = Note::Message { sender, device: DeviceId([1; 16]), recipient };
    let body = Some(v1::event::Body::Message(message));
    let event = v1::Event { origin: 1, position: number, stamp: number << 16, body };
    let down = v1::FeedDown { frame: Some(v1::feed_down::Frame::Event(event)) };
    let event = StoredEvent { position: Position(number), note, frame: frame::to_bytes(&down) };
    JournalEvent { event: Arc::new(event), accounts: [recipient][..].into() }
}

/// Time and CPU time of something.
#[derive(Clone, Copy)]
struct Cost {
    time: Duration,
    cpu: Duration,
}

fn cpu() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// What the writer takes for so many messages.
async fn written(archive: Arc<dyn WriteArchive>, rows: u64) -> Cost {
    let archived = Arc::new(AtomicU64::new(0));
    let events = (1..=rows).map(event).collect();
    let source = Memory { events, archived: archived.clone(), last: Position(rows) };
    let stop = Arc::new(Stop::default());
    let writer = Writer::new(WriterParts {
        source,
        archive,
        lineage: Lineage { origin: Origin(1), ancestors: Vec::new() },
        archived: Position::ZERO,
        runtime: tokio::runtime::Handle::current(),
        metrics: Arc::new(Metrics::new()),
        stop: stop.clone(),
        changed: Box::new(|_| ()),
    });
    let (began, cpu_before) = (Instant::now(), cpu());
    let thread = std::thread::spawn(move || writer.run());
    while archived.load(Ordering::Relaxed) < rows {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let cost = Cost { time: began.elapsed(), cpu: cpu() - cpu_before };
    stop.ask(Duration::from_secs(1));
    thread.join().unwrap();
    cost
}

/// What the same rows take with the same schema, put in by as many rows per transaction, all that is known beforehand.
async fn bare(path: &Path, rows: u64) -> Cost {
    let file = path.join("bare.sqlite");
    // The schema is made by who knows it.
    SqliteArchive::open(&file).await.unwrap().close().await;
    let options = SqliteConnectOptions::new().filename(&file).journal_mode(SqliteJournalMode::Wal);
    let options = options.synchronous(SqliteSynchronous::Full).disable_statement_logging();
    let mut connection = options.connect().await.unwrap();
    let messages: Vec<_> = (1..=rows).map(|number| (number, message(number))).collect();
    let (began, cpu_before) = (Instant::now(), cpu());
    for batch in messages.chunks(BATCH) {
        insert(&mut connection, batch).await;
    }
    let cost = Cost { time: began.elapsed(), cpu: cpu() - cpu_before };
    connection.close().await.unwrap();
    cost
}

async fn insert(connection: &mut SqliteConnection, batch: &[(u64, v1::Message)]) {
    let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await.unwrap();
    for piece in batch.chunks(125) {
        let mut query = QueryBuilder::<Sqlite>::new(
            "INSERT INTO messages (n, sender, id, device, recipient, conversation, origin, position, stamp, seq, state,
             kind, body, hash) ",
        );
        query.push_values(piece, |mut row, (number, message)| {
            let n = number.cast_signed();
            row.push_bind(n).push_bind(message.sender.to_vec()).push_bind(message.id.to_vec());
            row.push_bind(vec![1_u8; 16]).push_bind(message.recipient.to_vec());
            let mut conversation = vec![9_u8; 16];
            conversation[..8].copy_from_slice(&((number % PEOPLE) / 2).to_be_bytes());
            row.push_bind(conversation).push_bind(1_i64).push_bind(n).push_bind(n << 16).push_bind(n);
            row.push_bind(1_i64).push_bind(1_i64).push_bind(message.body.to_vec()).push_bind(vec![3_u8; 16]);
        });
        query.build().execute(&mut *transaction).await.unwrap();
        let mut query = QueryBuilder::<Sqlite>::new("INSERT INTO found (rowid, body, who) ");
        query.push_values(piece, |mut row, (number, message)| {
            let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02X}")).collect::<String>();
            row.push_bind(number.cast_signed());
            row.push_bind(String::from_utf8(message.body.to_vec()).unwrap());
            row.push_bind(format!("{} {}", hex(&message.sender), hex(&message.recipient)));
        });
        query.build().execute(&mut *transaction).await.unwrap();
    }
    transaction.commit().await.unwrap();
}

fn main() {
    let rows = if std::env::args().any(|argument| argument == "--test") { 2_000 } else { 100_000 };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let mut ratios = Vec::new();
        for round in 1..=ROUNDS {
            let directory = tempfile::TempDir::new().unwrap();
            let floor = bare(directory.path(), rows).await;
            let archive = SqliteArchive::open(&directory.path().join("archive.sqlite")).await.unwrap();
            let written = written(Arc::new(archive.clone()), rows).await;
            archive.close().await;
            ratios.push(told(&format!("SQLite, round {round}"), rows, written, floor));
        }
        told_all("SQLite", ratios);
        if let Some(place) = postgres::place() {
            let mut ratios = Vec::new();
            for round in 1..=ROUNDS {
                let (written, floor) = postgres::round(&place, rows).await;
                ratios.push(told(&format!("Postgres, round {round}"), rows, written, floor));
            }
            told_all("Postgres", ratios);
        }
    });
}

/// Tells what a round came to, and returns the ratio.
fn told(what: &str, rows: u64, written: Cost, floor: Cost) -> f64 {
    let per_second = |cost: Cost| rows as f64 / cost.time.as_secs_f64();
    let micros = |cost: Cost| cost.cpu.as_secs_f64() * 1e6 / rows as f64;
    let ratio = per_second(written) / per_second(floor);
    println!(
        "{what}: writer {:.0} rows/s, {:.1} us CPU each; bare insert {:.0} rows/s, {:.1} us CPU each; ratio {ratio:.2}",
        per_second(written),
        micros(written),
        per_second(floor),
        micros(floor),
    );
    ratio
}

fn told_all(what: &str, mut ratios: Vec<f64>) {
    ratios.sort_by(f64::total_cmp);
    println!(
        "archive: the writer does {:.2} of a bare insert on {what} (goal 0.5), median of {ROUNDS}",
        ratios[ROUNDS / 2]
    );
}

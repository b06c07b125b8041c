//! How fast a client sends with its queue on disk, beside one that only remembers, and how many sends share a commit. Measures, and
//! checks nothing: run it by hand,
//! `cargo test --release -p quail-tests --test client_store_speed -- --ignored --nocapture`.
#![allow(clippy::unwrap_used, clippy::panic)] // Test code outside of #[test] functions.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use quail_client::store::{FeedChange, FeedState, PublishChange, PublishState, QueuedSend};
use quail_client::{AccountId, Client, FileStore, MemoryStore, Store, StoreError, new_message_id};
use quail_tests::{Person, World, options};

const MESSAGES: usize = 20_000;
const SINGLE: usize = 500;
const SENDERS: usize = 64;

/// Counts the commits of the queue and how long they take.
struct Counting<S> {
    store: S,
    commits: AtomicU64,
    micros: AtomicU64,
}

impl<S: Store> Counting<S> {
    fn new(store: S) -> Arc<Self> {
        Arc::new(Self { store, commits: AtomicU64::new(0), micros: AtomicU64::new(0) })
    }

    /// Says what was committed since the last time.
    fn tell(&self, what: &str, sends: usize, took: Duration) {
        let (commits, micros) =
            (self.commits.swap(0, Ordering::Relaxed), self.micros.swap(0, Ordering::Relaxed));
        let (seconds, each) = (took.as_secs_f64(), micros as f64 / 1000.0 / commits.max(1) as f64);
        println!(
            "{what}: {:.0} sends/s, {:.0} commits/s, {:.1} sends per commit, {each:.2} ms per commit",
            sends as f64 / seconds,
            commits as f64 / seconds,
            sends as f64 / commits.max(1) as f64,
        );
    }
}

impl<S: Store> Store for Counting<S> {
    fn load_publish(&self) -> Result<PublishState, StoreError> {
        self.store.load_publish()
    }

    fn commit_publish(&self, changes: &[PublishChange]) -> Result<(), StoreError> {
        let began = Instant::now();
        let done = self.store.commit_publish(changes);
        self.commits.fetch_add(1, Ordering::Relaxed);
        self.micros.fetch_add(began.elapsed().as_micros() as u64, Ordering::Relaxed);
        done
    }

    fn load_feed(&self) -> Result<FeedState, StoreError> {
        self.store.load_feed()
    }

    fn commit_feed(&self, changes: &[FeedChange]) -> Result<(), StoreError> {
        self.store.commit_feed(changes)
    }

    fn may_block(&self) -> bool {
        self.store.may_block()
    }
}

async fn measure(what: &str, world: &World, person: &Person, to: AccountId, store: impl Store) {
    let store = Counting::new(store);
    let client = Client::open(&world.address(), &person.credentials, store.clone(), options()).await.unwrap();
    let body = "x".repeat(100);
    let began = Instant::now();
    client.send_all(to, std::iter::repeat_n(body.as_str(), MESSAGES)).await.unwrap();
    client.flush().await.unwrap();
    store.tell(&format!("{what}, all together"), MESSAGES, began.elapsed());
    let began = Instant::now();
    let mut senders = tokio::task::JoinSet::new();
    for _ in 0..SENDERS {
        let (client, body) = (client.clone(), body.clone());
        senders.spawn(async move {
            for _ in 0..MESSAGES / SENDERS {
                client.send(to, body.as_str()).await.unwrap();
            }
        });
    }
    senders.join_all().await;
    client.flush().await.unwrap();
    store.tell(&format!("{what}, {SENDERS} at a time"), MESSAGES, began.elapsed());
    let began = Instant::now();
    for _ in 0..SINGLE {
        client.send(to, body.as_str()).await.unwrap();
    }
    store.tell(&format!("{what}, one after the other"), SINGLE, began.elapsed());
    client.close().await.unwrap();
}

/// How long it takes to open a store whose queue is as full as it may be, after a crash too.
fn open(bodies: usize) {
    let directory = tempfile::TempDir::new().unwrap();
    let store = FileStore::open(directory.path()).unwrap();
    let queued = |number| {
        let (id, recipient) = (new_message_id(), AccountId([1; 16]));
        PublishChange::Queued(QueuedSend {
            number,
            id,
            recipient,
            kind: 1,
            body: vec![b'x'; bodies].into(),
            extra: Default::default(),
        })
    };
    store.commit_publish(&(1..=4096).map(queued).collect::<Vec<_>>()).unwrap();
    // Not closed: as if the process had died.
    let copy = tempfile::TempDir::new().unwrap();
    std::fs::copy(directory.path().join("publish.redb"), copy.path().join("publish.redb")).unwrap();
    drop(store);
    for (what, directory) in [("being closed", directory.path()), ("being killed", copy.path())] {
        let length = directory.join("publish.redb").metadata().unwrap().len() / 1_000_000;
        let began = Instant::now();
        let opened = FileStore::open(directory).unwrap();
        match opened.load_publish() {
            Ok(state) => println!(
                "open after {what}, {} messages of {bodies} bytes, {length} MB: {:.1} ms",
                state.queue.len(),
                began.elapsed().as_secs_f64() * 1000.0
            ),
            Err(error) => println!("open after {what}: {error}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "measures only"]
async fn sends_per_second_with_the_queue_in_memory_and_on_disk() {
    let world =
        World::start_with(|options| options.env.push(("QUAIL_RATES_SEND".into(), "off".into()))).await;
    let (ada, cyd, bob) =
        (world.sign_up("ada").await, world.sign_up("cyd").await, world.sign_up("bob").await);
    let directory = tempfile::TempDir::new().unwrap();
    measure("memory", &world, &ada, bob.account(), MemoryStore::new()).await;
    measure("disk", &world, &cyd, bob.account(), FileStore::open(directory.path()).unwrap()).await;
    open(100);
    open(7936);
}

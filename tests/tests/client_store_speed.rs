//! How fast a client sends with its queue on disk, beside one that only remembers. Measures, and checks nothing: run it by hand,
//! `cargo test --release -p quail-tests --test client_store_speed -- --ignored --nocapture`.
#![allow(clippy::unwrap_used, clippy::panic)] // Test code outside of #[test] functions.

use std::time::Instant;

use quail_client::{AccountId, Client, FileStore, MemoryStore, Store};
use quail_tests::{Person, World, options};

const MESSAGES: usize = 20_000;
const SINGLE: usize = 500;

async fn measure(what: &str, world: &World, person: &Person, to: AccountId, store: impl Store) {
    let client = Client::open(&world.address(), &person.credentials, store, options()).await.unwrap();
    let body = "x".repeat(100);
    let began = Instant::now();
    client.send_all(to, std::iter::repeat_n(body.as_str(), MESSAGES)).await.unwrap();
    client.flush().await.unwrap();
    let many = MESSAGES as f64 / began.elapsed().as_secs_f64();
    let began = Instant::now();
    for _ in 0..SINGLE {
        client.send(to, body.as_str()).await.unwrap();
    }
    let single = SINGLE as f64 / began.elapsed().as_secs_f64();
    println!("{what}: {many:.0} sends/s together, {single:.0} sends/s one after the other");
    client.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "measures only"]
async fn sends_per_second_with_the_queue_in_memory_and_on_disk() {
    let world = World::start().await;
    let (ada, cyd, bob) =
        (world.sign_up("ada").await, world.sign_up("cyd").await, world.sign_up("bob").await);
    let directory = tempfile::TempDir::new().unwrap();
    measure("memory", &world, &ada, bob.account(), MemoryStore::new()).await;
    measure("disk", &world, &cyd, bob.account(), FileStore::open(directory.path()).unwrap()).await;
}

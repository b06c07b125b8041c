//! Promise: what was accepted is on disk. The daemon is killed at random moments under load; nothing it accepted is missing.
#![allow(clippy::unwrap_used, clippy::panic)] // Test code outside of #[test] functions.

use std::collections::HashSet;

use quail_client::{Client, MessageId, Sending};
use quail_tests::{Chance, World, expect, next_message, rounds};

/// Messages that are on their way when the daemon dies.
const MESSAGES: usize = 1000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn accepted_is_durable() {
    let seed = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64;
    println!("seed {seed}");
    let mut chance = Chance(seed);
    let mut world = World::start().await;
    let (ada, bob) = (world.sign_up("ada").await, world.sign_up("bob").await);
    let sender = ada.open().await;
    let reader = bob.open().await;
    let mut events = reader.events().await.unwrap();
    for round in 0..rounds(30) {
        let kill_after = chance.below(MESSAGES as u64) as usize;
        let sent = send_and_kill(&mut world, &sender, bob.account(), kill_after).await;
        // Those answered before the kill are never sent again by the SDK: only the disk can bring them here.
        let mut missing: HashSet<MessageId> = sent.into_iter().collect();
        while !missing.is_empty() {
            let message = next_message(&mut events).await;
            assert!(missing.remove(&message.id), "round {round}, seed {seed}: {} came twice", message.id);
        }
    }
    reader.close().await.unwrap();
    sender.close().await.unwrap();
}

/// Sends messages, kills the daemon when so many were accepted, and waits until all are.
async fn send_and_kill(
    world: &mut World,
    sender: &Client,
    to: quail_client::AccountId,
    kill_after: usize,
) -> Vec<MessageId> {
    let mut sendings: Vec<Sending> = Vec::new();
    for number in 0..MESSAGES {
        sendings.push(sender.send(to, format!("message {number}")).await.unwrap());
    }
    for sending in &sendings[..kill_after] {
        expect("an answer before the kill", sending.accepted()).await.unwrap();
    }
    world.kill_and_restart().await;
    for sending in &sendings {
        expect("an answer after the restart", sending.accepted()).await.unwrap();
    }
    sendings.iter().map(Sending::id).collect()
}

//! Promise: what was accepted is on disk. The daemon is killed at random moments under load; nothing it accepted is missing.
#![allow(clippy::unwrap_used, clippy::panic)] // Test code outside of #[test] functions.

use quail_client::AccountId;
use quail_tests::checker::Terms;
use quail_tests::witness::{Record, Witness};
use quail_tests::{Chance, World, rounds, seed};

/// Messages that are on their way when the daemon dies.
const MESSAGES: usize = 1000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn accepted_is_durable() {
    let mut chance = Chance(seed());
    let (mut world, record) = (World::start().await, Record::new());
    let (ada, bob) = (world.sign_up("ada").await, world.sign_up("bob").await);
    let mut sender = Witness::join(&ada, &record).await;
    let reader = Witness::join(&bob, &record).await;
    for round in 0..rounds(30) {
        let kill_after = chance.below(MESSAGES as u64) as usize;
        send_and_kill(&mut world, &mut sender, bob.account(), round * MESSAGES, kill_after).await;
        reader.has_shown((round + 1) * MESSAGES).await;
    }
    sender.has_receipts().await;
    // Those answered before a kill are never sent again by the SDK: only the disk could bring them.
    record.assert_kept(Terms { gaps: false, receipts: true });
}

/// Sends messages, kills the daemon when so many were accepted, and waits until all are.
async fn send_and_kill(
    world: &mut World,
    sender: &mut Witness,
    to: AccountId,
    before: usize,
    kill_after: usize,
) {
    for number in 0..MESSAGES {
        sender.send(to, &format!("message {number}")).await;
    }
    sender.has_answers(before + kill_after).await;
    world.kill_and_restart().await;
    sender.has_answers(before + MESSAGES).await;
}

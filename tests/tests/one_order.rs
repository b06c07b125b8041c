//! Promise: all devices sort a conversation by (stamp, origin) and see the same list; one device's messages keep their order.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // Test code outside of #[test] functions.

use quail_tests::World;
use quail_tests::checker::Terms;
use quail_tests::witness::{Record, Witness};

/// Messages from each side.
const EACH: usize = 100;

async fn talk(writer: &mut Witness, to: quail_client::AccountId, name: &str) {
    for number in 0..EACH {
        writer.send(to, &format!("{name} {number}")).await;
        if number % 7 == 0 {
            writer.has_answers(number + 1).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_order() {
    let (world, record) = (World::start().await, Record::new());
    let (ada, bob) = (world.sign_up("ada").await, world.sign_up("bob").await);
    let away = [world.log_in("ada").await, world.log_in("bob").await, world.log_in("bob").await];
    away.iter().for_each(|device| record.joins(device));
    let mut writers = [Witness::join(&ada, &record).await, Witness::join(&bob, &record).await];
    let [from_ada, from_bob] = &mut writers;
    tokio::join!(talk(from_ada, bob.account(), "ada"), talk(from_bob, ada.account(), "bob"));
    // What each device has on its own, live or later, is judged as one list.
    let mut readers = Vec::new();
    for device in &away {
        readers.push(Witness::open(device, &record).await);
    }
    for reader in &readers {
        reader.has_shown(2 * EACH).await;
    }
    for writer in &writers {
        writer.has_shown(EACH).await;
        writer.has_receipts().await;
    }
    record.assert_kept(Terms { gaps: false, receipts: true });
}

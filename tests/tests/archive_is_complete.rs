//! Promise: what was accepted is in the history, once, whatever is killed meanwhile; and history keeps what was read to whom it
//! belongs.
#![allow(clippy::unwrap_used, clippy::panic)] // Test code outside of #[test] functions.

use std::time::Instant;

use quail_client::{AccountId, DeviceId};
use quail_tests::archive::{ArchiveFile, bury_garbage, testify};
use quail_tests::checker::{Terms, What};
use quail_tests::witness::{Record, Witness};
use quail_tests::{Chance, PATIENCE, World, expect, next_message, rounds, seed};

/// Messages that are on their way in each direction when the daemon dies.
const MESSAGES: usize = 300;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn history_has_what_was_accepted_once_over_kills() {
    let mut chance = Chance(seed());
    let (mut world, record) = (World::start().await, Record::new());
    let (ada, bob) = (world.sign_up("ada").await, world.sign_up("bob").await);
    // The archive is judged like one more device of each of them.
    let archives = [(ada.account(), DeviceId([0xa1; 16])), (bob.account(), DeviceId([0xa2; 16]))];
    for (account, device) in archives {
        record.note(device, What::Joined { account });
    }
    let mut one = Witness::join(&ada, &record).await;
    let mut other = Witness::join(&bob, &record).await;
    let rounds = rounds(10);
    for round in 0..rounds {
        for number in 0..MESSAGES {
            one.send(bob.account(), &format!("message {round} {number}")).await;
            other.send(ada.account(), &format!("answer {round} {number}")).await;
        }
        one.has_answers(round * MESSAGES + chance.below(MESSAGES as u64) as usize).await;
        world.kill_and_restart().await;
        one.has_answers((round + 1) * MESSAGES).await;
        other.has_answers((round + 1) * MESSAGES).await;
    }
    one.has_receipts().await;
    other.has_receipts().await;
    let all = 2 * rounds * MESSAGES;
    let mut archive = ArchiveFile::open(&world.directory.path().join("data")).await;
    let messages = archive.has(all).await;
    assert_eq!(messages.len(), all, "each once");
    for (account, device) in archives {
        testify(&record, device, account, &messages);
    }
    record.assert_kept(Terms { gaps: false, receipts: true });
    world.daemon.stop().await.unwrap();
    let mut archive = ArchiveFile::open(&world.directory.path().join("data")).await;
    assert_eq!(archive.messages().await, messages, "and stays so");
}

/// Waits until the archive says so much of what an account has read.
async fn reads(archive: &mut ArchiveFile, account: AccountId, expected: impl Fn((u64, u64)) -> bool) {
    let began = Instant::now();
    loop {
        let markers = archive.read_markers(account).await;
        if expected(markers) {
            return;
        }
        assert!(began.elapsed() < PATIENCE, "the markers are {markers:?}");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn history_knows_what_was_read_and_tells_senders_only_what_they_may_know() {
    let world = World::start().await;
    let (ada, bob) = (world.sign_up("ada").await, world.sign_up("bob").await);
    let (sender, reader) = (ada.open().await, bob.open().await);
    let mut events = reader.events().await.unwrap();
    let mut archive = ArchiveFile::open(&world.directory.path().join("data")).await;
    // Bob has one device, so nobody else is told of what it reads: only history is.
    reader.set_read_receipts(false).await.unwrap();
    sender.send(bob.account(), "secret").await.unwrap();
    let secret = next_message(&mut events).await;
    reader.read([secret.mark()]).await.unwrap();
    let at = secret.position.0;
    reads(&mut archive, bob.account(), |(own, told)| own == at && told == 0).await;
    reader.set_read_receipts(true).await.unwrap();
    sender.send(bob.account(), "open").await.unwrap();
    let open = next_message(&mut events).await;
    reader.read([open.mark()]).await.unwrap();
    let at = open.position.0;
    reads(&mut archive, bob.account(), |(own, told)| own == at && told == at).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_archive_that_is_turned_on_later_begins_with_what_is_held_and_off_means_none() {
    let mut world = World::start_with(|options| {
        options.env.push(("QUAIL_STORAGE_ARCHIVE".into(), "off".into()));
    })
    .await;
    let (ada, bob) = (world.sign_up("ada").await, world.sign_up("bob").await);
    let sender = ada.open().await;
    let accepted = sender.send(bob.account(), "before").await.unwrap();
    expect("the answer", accepted.accepted()).await.unwrap();
    let file = world.directory.path().join("data/archive.sqlite");
    assert!(!file.exists(), "off is off");
    world.daemon.options_mut().env.retain(|(name, _)| name != "QUAIL_STORAGE_ARCHIVE");
    world.kill_and_restart().await;
    sender.send(bob.account(), "after").await.unwrap();
    let mut archive = ArchiveFile::open(&world.directory.path().join("data")).await;
    let messages = archive.has(2).await;
    let bodies: Vec<_> = messages.iter().map(|message| String::from_utf8_lossy(&message.body)).collect();
    assert_eq!(bodies, ["before", "after"], "the journal still had it");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_operator_sees_dead_letters_tries_them_again_and_drops_them() {
    let world = World::start().await;
    bury_garbage(&world.directory.path().join("data")).await;
    let admin = async |arguments: &[&str]| {
        let mut command = world.daemon.command();
        command.args(["admin", "dead"]).args(arguments).arg("--json").kill_on_drop(true);
        let output = expect("the answer", command.output()).await.unwrap();
        (output.status.success(), String::from_utf8(output.stdout).unwrap())
    };
    let (is_listed, list) = admin(&["list"]).await;
    let letter: serde_json::Value = serde_json::from_str(&list).unwrap();
    assert!(is_listed && letter["position"] == 5 && letter["error"] == "no", "{list}");
    let number = letter["number"].to_string();
    let (_, tried) = admin(&["retry"]).await;
    assert!(tried.contains("cannot be decoded"), "all are tried, and it is told why not: {tried}");
    assert!(!admin(&["retry", &number]).await.0, "one alone is an error");
    assert!(admin(&["drop", &number]).await.0);
    assert!(!admin(&["drop", &number]).await.0, "it is gone");
    assert_eq!(admin(&["list"]).await, (true, String::new()));
}

//! A full disk: new messages are refused with a time to try again, and everything that makes space goes on; when there is space,
//! the daemon takes messages again by itself. A disk that others fill to the last byte does not keep it from starting.
//!
//! It takes a file system of its own to fill, so it runs as root only.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // Test code outside of #[test] functions.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use quail::launcher::LauncherError;
use quail_client::{Client, Events};
use quail_protocol::v1::{self, Reason, publish_down};
use quail_tests::hostile::{get, metric};
use quail_tests::raw::{self, RawClient};
use quail_tests::{Person, World, expect, next_message, text};
use tempfile::TempDir;

/// Size of the disk. The ballast is made where eight times its 32 MiB are free.
const DISK_BYTES: u64 = 360 * MIB;

const MIB: u64 = 1024 * 1024;

/// How soon a daemon must find that there is space again.
const SOON: Duration = Duration::from_secs(10);

/// A file system in memory; gone with this value.
struct Disk(TempDir);

impl Disk {
    /// Mounts it, or says that the test is skipped.
    fn mount() -> Option<Self> {
        let disk = Self(TempDir::new().unwrap());
        let size = format!("size={DISK_BYTES}");
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(disk.0.path()).output();
        match mounted {
            Ok(output) if output.status.success() => Some(disk),
            Ok(output) => {
                println!("SKIPPED: cannot mount: {}", String::from_utf8_lossy(&output.stderr).trim());
                None
            }
            Err(error) => {
                println!("SKIPPED: cannot mount: {error}");
                None
            }
        }
    }

    fn data(&self) -> PathBuf {
        self.0.path().join("data")
    }

    fn filling(&self) -> PathBuf {
        self.0.path().join("filling")
    }

    /// Fills it until so much is free.
    fn fill(&self, free: u64) {
        let mut file = File::options().create(true).append(true).open(self.filling()).unwrap();
        let left = available(self.0.path()).saturating_sub(free);
        let zeros = vec![0; MIB as usize];
        for _ in 0..left / MIB {
            // The daemon may be quicker to take the last of it.
            let written = file.write_all(&zeros);
            assert!(written.is_ok() || free == 0, "{written:?}");
        }
        if free == 0 {
            // To the last page.
            while file.write_all(&zeros[..4096]).is_ok() {}
        }
    }

    fn empty(&self) {
        fs::remove_file(self.filling()).unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazily: a daemon that is just being killed may still have files open.
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

/// Returns the free bytes of a file system.
fn available(path: &Path) -> u64 {
    let output = Command::new("df").args(["--block-size=1", "--output=avail"]).arg(path).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().nth(1).unwrap().trim().parse().unwrap()
}

async fn start(disk: &Disk) -> World {
    World::start_with(|options| {
        options.data = disk.data();
        options.env.push(("QUAIL_LIMITS_FREE_SPACE".into(), "40MiB".into()));
    })
    .await
}

async fn is_full(world: &World, full: bool) {
    let wanted = if full { 1.0 } else { 0.0 };
    let told = async { while metric(world, "quail_outbox_disk_full").await != wanted {} };
    expect("the daemon to look at the free space", told).await;
}

/// Asserts whether the daemon says that it should get clients, and if not, that it is for the disk alone.
async fn is_ready(world: &World, ready: bool) {
    let (status, report) = get(world, "/readyz").await;
    let report: serde_json::Value = serde_json::from_str(&report).unwrap();
    assert_eq!((status, &report["ready"]), (if ready { 200 } else { 503 }, &ready.into()), "{report}");
    for check in report["checks"].as_array().unwrap() {
        let is_well = ready || check["name"] != "disk";
        assert_eq!(check["ok"], is_well, "{report}");
        assert!(is_well || check["reason"].as_str().unwrap().starts_with("the disk is full"), "{report}");
    }
}

fn question(number: u64, to: &Person) -> v1::Send {
    raw::send(number, to.account(), "is there room?")
}

/// Sends a message by hand and returns with which error it was refused, if it was. On a connection of its own: it has one
/// lane for messages, on which everything behind a refused one is refused.
async fn refusal(world: &World, from: &Person, send: &v1::Send) -> Option<v1::Error> {
    let client = RawClient::resume(&world.address(), from.credentials.token.as_bytes()).await;
    match client.publish().await.say(send.clone()).await {
        publish_down::Frame::Accepted(_) => None,
        publish_down::Frame::Refused(refused) => Some(refused.error.expect("a reason")),
    }
}

#[tokio::test]
async fn a_full_disk_refuses_new_messages_and_everything_else_goes_on() {
    let Some(disk) = Disk::mount() else { return };
    let world = start(&disk).await;
    let (ada, bob, dora) =
        (world.sign_up("ada").await, world.sign_up("bob").await, world.sign_up("dora").await);
    let sender = ada.open().await;
    let mut sendings = Vec::new();
    for number in 0..20 {
        sendings.push(sender.send(dora.account(), format!("{number}")).await.unwrap());
    }
    sender.flush().await.unwrap();
    assert_eq!(refusal(&world, &bob, &question(1_000, &dora)).await, None);

    is_ready(&world, true).await;
    disk.fill(20 * MIB);
    is_full(&world, true).await;
    is_ready(&world, false).await;
    let send = question(1_001, &dora);
    let error = refusal(&world, &bob, &send).await.expect("a refusal");
    assert_eq!(error.reason(), Reason::Overloaded);
    assert!(error.retry_after_ms > 0, "{error:?}");

    // Deliveries, acknowledgements, receipts and log-ins make space or take next to none.
    let reader = dora.open().await;
    let mut events = reader.events().await.unwrap();
    for number in 0..20 {
        assert_eq!(text(&next_message(&mut events).await), format!("{number}"));
    }
    for sending in sendings {
        expect("a receipt", sending.delivered()).await.unwrap();
    }
    assert_eq!(text(&next_message(&mut events).await), "is there room?");
    let tablet = world.log_in("bob").await;
    tablet.open().await.ping().await.unwrap();

    disk.empty();
    let began = Instant::now();
    while let Some(error) = refusal(&world, &bob, &send).await {
        assert_eq!(error.reason(), Reason::Overloaded);
        assert!(began.elapsed() < SOON, "still refused {:?} after there was space", began.elapsed());
        // As often as a device may try.
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    println!("accepted again after {:?}", began.elapsed());
    assert_eq!(text(&next_message(&mut events).await), "is there room?");
    is_full(&world, false).await;
    is_ready(&world, true).await;
}

/// Sends messages of 50 kB each, all of which are accepted.
async fn send_all(sender: &Client, to: &Person, count: usize) {
    for number in 0..count {
        sender.send(to.account(), format!("{number} {}", "x".repeat(50_000))).await.unwrap();
    }
    sender.flush().await.unwrap();
}

async fn receive_all(events: &mut Events, count: usize) {
    for number in 0..count {
        let message = next_message(events).await;
        assert_eq!(text(&message).split_once(' ').unwrap().0, format!("{number}"));
    }
}

#[tokio::test]
async fn a_daemon_starts_on_a_disk_that_is_full_to_the_last_byte_and_has_lost_nothing() {
    let Some(disk) = Disk::mount() else { return };
    let mut world = start(&disk).await;
    let (ada, bob) = (world.sign_up("ada").await, world.sign_up("bob").await);
    let sender = ada.open().await;
    let ballast = disk.data().join("outbox/ballast");
    assert_eq!(fs::metadata(&ballast).unwrap().len(), 32 * MIB);
    send_all(&sender, &bob, 100).await;
    disk.fill(0);
    world.daemon.kill().await.unwrap();
    sender.close().await.unwrap();
    // What the end of the process freed, somebody else takes.
    disk.fill(0);
    for start in 0..2 {
        world.daemon.restart().await.unwrap_or_else(|error| panic!("start {start} on a full disk: {error}"));
        assert!(!ballast.exists());
        assert_eq!(metric(&world, "quail_outbox_disk_full").await, 1.0);
        world.daemon.kill().await.unwrap();
    }
    world.daemon.restart().await.unwrap();
    let send = question(10_000, &bob);
    assert_eq!(refusal(&world, &ada, &send).await.unwrap().reason(), Reason::Overloaded);
    let reader = bob.open().await;
    let mut events = reader.events().await.unwrap();
    receive_all(&mut events, 100).await;
    disk.empty();
    is_full(&world, false).await;
    assert_eq!(refusal(&world, &ada, &send).await, None);
    let restored = async {
        while !ballast.exists() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    expect("the ballast to be made again", restored).await;
    assert_eq!(text(&next_message(&mut events).await), "is there room?");
}

#[tokio::test]
async fn a_daemon_whose_journal_is_too_long_to_be_copied_says_so_and_has_lost_nothing() {
    let Some(disk) = Disk::mount() else { return };
    let mut world = start(&disk).await;
    let (ada, bob) = (world.sign_up("ada").await, world.sign_up("bob").await);
    let sender = ada.open().await;
    // Some segments of the journal, more than what the ballast makes room for, unless much of it was settled meanwhile.
    send_all(&sender, &bob, 600).await;
    world.daemon.kill().await.unwrap();
    sender.close().await.unwrap();
    disk.fill(0);
    match world.daemon.restart().await {
        Err(LauncherError::Exited { status, log }) => {
            println!("refused to start");
            assert_eq!(status.code(), Some(1), "{log}");
            assert!(log.contains("quaild: error: ") && log.contains("No space left on device"), "{log}");
            assert!(!log.contains("panicked"), "{log}");
        }
        started => started.unwrap(),
    }
    disk.empty();
    world.daemon.restart().await.unwrap();
    let reader = bob.open().await;
    let mut events = reader.events().await.unwrap();
    receive_all(&mut events, 600).await;
}

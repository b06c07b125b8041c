//! What an operator does to a data directory, and what a disk does: a restored copy, a lost outbox, a destroyed store, files that
//! a newer daemon wrote. Nobody is locked out, nobody's cursor is taken for another life's, and what cannot be opened is
//! refused with a word on what to do.
#![allow(clippy::unwrap_used, clippy::panic)] // Test code outside of #[test] functions.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use quail_client::{Client, Credentials, Event, Events, Message};
use quail_protocol::v1::event::Body;
use quail_protocol::v1::{self, feed_down::Frame};
use quail_tests::hostile::metric;
use quail_tests::raw::RawClient;
use quail_tests::{Person, World, expect, quaild, text};
use tempfile::TempDir;

/// Ada and Bob, who talk to each other, and Dora, who is away.
struct Scene {
    world: World,
    ada: Person,
    bob: Person,
    dora: Person,
    from_ada: Client,
    from_bob: Client,
    to_ada: Events,
    to_bob: Events,
}

impl Scene {
    async fn open() -> Self {
        let world = World::start().await;
        let (ada, bob, dora) =
            (world.sign_up("ada").await, world.sign_up("bob").await, world.sign_up("dora").await);
        let (from_ada, from_bob) = (ada.open().await, bob.open().await);
        let (to_ada, to_bob) = (from_ada.events().await.unwrap(), from_bob.events().await.unwrap());
        let mut scene = Self { world, ada, bob, dora, from_ada, from_bob, to_ada, to_bob };
        // Everybody has something of the first origin, so that its end concerns them.
        scene.talk("first").await;
        scene
    }

    fn outbox(&self) -> PathBuf {
        self.world.daemon.data().join("outbox")
    }

    /// Sends ten messages to Bob and ten to Dora; Bob takes his, and Ada gets the receipts.
    async fn say(&mut self, what: &str) {
        for number in 0..10 {
            let body = format!("{what} {number}");
            self.from_ada.send(self.dora.account(), body.clone()).await.unwrap().accepted().await.unwrap();
            let sending = self.from_ada.send(self.bob.account(), body.clone()).await.unwrap();
            assert_eq!(text(&next(&mut self.to_bob).await), body);
            expect("a receipt", sending.delivered()).await.unwrap();
        }
    }

    /// Sends a message each way between Ada and Bob.
    async fn talk(&mut self, what: &str) {
        for (from, to, events) in [
            (&self.from_ada, self.bob.account(), &mut self.to_bob),
            (&self.from_bob, self.ada.account(), &mut self.to_ada),
        ] {
            let sending = from.send(to, what).await.unwrap();
            assert_eq!(text(&next(events).await), what);
            expect("a receipt", sending.delivered()).await.unwrap();
        }
    }

    async fn stop(&mut self) {
        assert!(self.world.daemon.stop().await.unwrap().success());
    }

    /// Starts the daemon, which must find that its outbox is another one, and then again, when it must not.
    async fn go_on_under(&mut self, origin: u32) {
        self.world.daemon.restart().await.unwrap();
        assert_eq!(self.origins().last(), Some(&origin), "{}", self.world.log());
        assert_eq!(gap(&mut self.to_bob).await, origin - 1);
        self.talk("after").await;
        self.stop().await;
        self.world.daemon.restart().await.unwrap();
        let origins = self.origins();
        assert_eq!(origins[origins.len() - 2..], [origin, origin], "a second start keeps the origin");
        self.talk("and after that").await;
    }

    /// Returns the origins of all starts.
    fn origins(&self) -> Vec<u32> {
        let log = self.world.log();
        let lines = log.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
        let opened = lines.filter(|line| line["message"] == "outbox open");
        opened.map(|line| line["origin"].as_str().unwrap().parse().unwrap()).collect()
    }

    /// Lets Dora come and returns what she is handed until she has caught up.
    async fn visit(&self) -> Vec<String> {
        let client = self.dora.open().await;
        let texts = until_caught_up(&client).await;
        client.close().await.unwrap();
        texts
    }
}

/// Returns the next message; whoever may be told of a gap is.
async fn next(events: &mut Events) -> Message {
    loop {
        let delivery = expect("a message", events.next()).await.unwrap();
        let event = delivery.event.clone();
        delivery.acknowledge();
        if let Event::Message(message) = event {
            return message;
        }
    }
}

/// Returns the origin of the next event, which must be a gap.
async fn gap(events: &mut Events) -> u32 {
    loop {
        let delivery = expect("a gap", events.next()).await.unwrap();
        let event = delivery.event.clone();
        delivery.acknowledge();
        match event {
            Event::Gap { origin, .. } => return origin.0,
            Event::CaughtUp => {}
            other => panic!("expected a gap, got {other:?}"),
        }
    }
}

async fn until_caught_up(client: &Client) -> Vec<String> {
    let mut events = client.events().await.unwrap();
    let mut texts = Vec::new();
    loop {
        let delivery = expect("an event", events.next()).await.unwrap();
        let event = delivery.event.clone();
        delivery.acknowledge();
        match event {
            Event::Message(message) => texts.push(text(&message).to_owned()),
            Event::CaughtUp => return texts,
            _ => {}
        }
    }
}

fn bodies(what: &str) -> Vec<String> {
    (0..10).map(|number| format!("{what} {number}")).collect()
}

fn copy(from: &Path, to: &Path) {
    let copied = Command::new("cp").arg("-a").args([from, to]).status().unwrap();
    assert!(copied.success());
}

#[tokio::test]
async fn an_outbox_restored_from_an_older_copy_is_a_new_origin_that_carries_on() {
    let mut scene = Scene::open().await;
    let (outbox, older) = (scene.outbox(), scene.world.directory.path().join("older"));
    scene.say("before").await;
    scene.stop().await;
    copy(&outbox, &older);
    scene.world.daemon.restart().await.unwrap();
    scene.say("between").await;
    scene.stop().await;
    fs::remove_dir_all(&outbox).unwrap();
    copy(&older, &outbox);
    scene.go_on_under(2).await;
    assert!(scene.world.log().contains("the outbox is not the one that was left: new origin"));
    // What came after the copy was made is gone, and what is in it comes once.
    assert_eq!(scene.visit().await, bodies("before"));
    scene.say("since").await;
    assert_eq!(scene.visit().await, bodies("since"));
}

#[tokio::test]
async fn a_data_directory_whose_outbox_was_removed_goes_on_under_a_new_origin() {
    let mut scene = Scene::open().await;
    scene.say("before").await;
    scene.stop().await;
    fs::remove_dir_all(scene.outbox()).unwrap();
    scene.go_on_under(2).await;
    assert_eq!(scene.visit().await, Vec::<String>::new());
    scene.say("since").await;
    assert_eq!(scene.visit().await, bodies("since"));
}

#[tokio::test]
async fn a_settled_store_that_is_destroyed_makes_a_new_origin_and_the_daemon_goes_on() {
    let mut scene = Scene::open().await;
    scene.say("before").await;
    let settled = async { while metric(&scene.world, "quail_outbox_spill_seconds_count").await < 1.0 {} };
    expect("what waits to be settled", settled).await;
    scene.stop().await;
    // A start keeps in the journal only what is not settled.
    scene.world.daemon.restart().await.unwrap();
    scene.stop().await;
    let stores = fs::read_dir(scene.outbox().join("settled")).unwrap().flatten();
    let databases: Vec<_> = stores.map(|store| store.path().join("db")).filter(|db| db.exists()).collect();
    assert_eq!(databases.len(), 1);
    let size = fs::metadata(&databases[0]).unwrap().len() as usize;
    fs::write(&databases[0], b"garbage!".repeat(size.div_ceil(8))).unwrap();
    scene.go_on_under(2).await;
    assert!(scene.world.log().contains("lost from the settled store"), "the log says what happened");
    scene.visit().await;
    scene.say("since").await;
    assert_eq!(scene.visit().await, bodies("since"));
}

fn run(data: &Path) -> Output {
    let mut command = Command::new(quaild());
    command.arg("--data").arg(data).args(["--listen", "127.0.0.1:0"]);
    command.env("QUAIL_OPS_LISTEN", "").env_remove("RUST_LOG").output().unwrap()
}

/// The daemon must not start, say why, and give none of the reasons that are its own fault.
fn refused(data: &Path, says: &[&str]) {
    let output = run(data);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    let errors: String = stderr.lines().filter(|line| line.starts_with("quaild: error: ")).collect();
    for said in says {
        assert!(errors.contains(said), "expected {said:?} in: {stderr}");
    }
    assert!(!stderr.contains("panicked"), "{stderr}");
    assert!(output.stdout.is_empty());
}

/// Returns a data directory that a daemon has used and was killed on.
async fn used() -> TempDir {
    let mut world = World::start().await;
    let (ada, bob) = (world.sign_up("ada").await, world.sign_up("bob").await);
    let client = ada.open().await;
    client.send(bob.account(), "hello").await.unwrap().accepted().await.unwrap();
    world.daemon.kill().await.unwrap();
    let kept = TempDir::new().unwrap();
    copy(world.daemon.data(), &kept.path().join("data"));
    // The outbox of a copy is a new one; what is tested here is something else.
    fs::remove_file(kept.path().join("data/origins")).unwrap();
    kept
}

/// Writes another version into a header of the journal, whose checksum is that of the bytes before it.
fn make_newer(file: &Path) {
    let mut bytes = fs::read(file).unwrap();
    assert_eq!(bytes[8..12], [1, 0, 0, 0]);
    bytes[8] = 9;
    let crc = crc32(&bytes[..60]);
    bytes[60..64].copy_from_slice(&crc.to_le_bytes());
    fs::write(file, bytes).unwrap();
}

/// CRC-32 as in ISO 3309, bit by bit.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc: u32, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg()))
    })
}

#[tokio::test]
async fn what_a_newer_daemon_wrote_is_refused_and_left_alone() {
    let kept = used().await;
    let data = kept.path().join("data");
    let journal = data.join("outbox/journal");
    let is_begun = |file: &PathBuf| fs::read(file).unwrap().starts_with(b"QUAILSEG");
    let mut segments = fs::read_dir(&journal).unwrap().map(|entry| entry.unwrap().path());
    let segment = segments.find(|file| file.is_file() && is_begun(file)).unwrap();
    for file in [segment, journal.join("epoch")] {
        let before = fs::read(&file).unwrap();
        make_newer(&file);
        let newer = fs::read(&file).unwrap();
        refused(&data, &[&data.display().to_string(), "version 9", "newer"]);
        assert!(fs::read(&file).unwrap() == newer, "{} was touched", file.display());
        fs::write(&file, before).unwrap();
    }
    fs::write(data.join("format"), "quail-data 9\n").unwrap();
    refused(&data, &[&data.display().to_string(), "has format 9"]);
}

#[test]
fn a_directory_of_somebody_else_is_refused_and_left_alone() {
    let directory = TempDir::new().unwrap();
    fs::write(directory.path().join("thesis.txt"), "once upon a time").unwrap();
    refused(directory.path(), &["thesis.txt", "no data directory of quaild"]);
    let files: Vec<_> =
        fs::read_dir(directory.path()).unwrap().map(|file| file.unwrap().file_name()).collect();
    assert_eq!(files, ["thesis.txt"]);
}

/// A file, what happens to it, and what the daemon must say of it.
type Case = (&'static str, fn(&Path), &'static [&'static str]);

#[tokio::test]
async fn what_is_missing_or_not_what_it_should_be_is_named() {
    let kept = used().await;
    let data = kept.path().join("data");
    let cases: &[Case] = &[
        ("outbox/origin", |file| fs::remove_file(file).unwrap(), &["has lost its origin file", "restore it"]),
        ("outbox/origin", |file| fs::write(file, "one\n").unwrap(), &["read a number from", "outbox/origin"]),
        ("outbox/origin", into_directory, &["outbox/origin", "directory"]),
        (
            "origins",
            |file| fs::write(file, "quail-origins 7\n").unwrap(),
            &["origins is damaged", "restore it"],
        ),
        ("outbox/journal", into_file, &["outbox"]),
        ("outbox/settled", into_file, &["outbox"]),
        ("outbox", into_file, &["outbox"]),
        ("directory.sqlite", into_directory, &["directory.sqlite"]),
        ("format", |file| fs::write(file, "something else\n").unwrap(), &["format", "does not say"]),
        ("format", into_directory, &["format"]),
        ("quail.lock", into_directory, &["quail.lock"]),
    ];
    for (number, (file, spoil, says)) in cases.iter().enumerate() {
        let spoiled = kept.path().join(format!("{number}"));
        copy(&data, &spoiled);
        spoil(&spoiled.join(file));
        refused(&spoiled, &[says, &[&*spoiled.display().to_string()][..]].concat());
        fs::remove_dir_all(&spoiled).unwrap();
    }
}

fn into_directory(file: &Path) {
    let _ = fs::remove_file(file);
    fs::create_dir(file).unwrap();
}

fn into_file(directory: &Path) {
    fs::remove_dir_all(directory).unwrap();
    fs::write(directory, "").unwrap();
}

#[tokio::test]
async fn a_data_directory_of_the_release_before_is_migrated_with_all_its_mail() {
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/outbox-v1");
    let mut world = World::start_with(|options| copy(&fixture.join("data"), &options.data)).await;
    let data = world.daemon.data().to_owned();
    assert_eq!(fs::read_to_string(data.join("format")).unwrap(), "quail-data 2\n");
    assert!(!data.join("outbox/store").exists());
    // 15 for Bob, 20 for Dora and a receipt for Ada.
    assert_eq!(metric(&world, "quail_unacknowledged_events").await, 36.0);
    world.kill_and_restart().await;
    assert_eq!(metric(&world, "quail_unacknowledged_events").await, 36.0);
    for (name, from) in [("bob", 5), ("dora", 0)] {
        let session = fs::read(fixture.join(format!("{name}.json"))).unwrap();
        let session: Credentials = serde_json::from_slice(&session).unwrap();
        let client = RawClient::resume(&world.address(), session.token.as_bytes()).await;
        // A number above all that the device used with the release before.
        let mut feed = client.attach(u64::MAX, vec![]).await;
        let mut bodies = Vec::new();
        loop {
            match feed.feed().await {
                Frame::Event(v1::Event { body: Some(Body::Message(message)), .. }) => {
                    bodies.push(String::from_utf8(message.body.to_vec()).unwrap());
                }
                Frame::CaughtUp(_) => break,
                // What Bob's device acknowledged and claims to know nothing of.
                Frame::Gap(_) if name == "bob" => {}
                other => panic!("unexpected {other:?}"),
            }
        }
        let expected: Vec<_> = (from..20).map(|number| format!("to {name} {number}")).collect();
        assert_eq!(bodies, expected);
    }
}

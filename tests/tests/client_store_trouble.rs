//! What a person is told whose client cannot use its store: the disk is full or may not be written, the store is damaged, another
//! device's, a later version's, or in use. Nothing that was queued is lost by it.
#![allow(clippy::unwrap_used, clippy::panic)] // Test code outside of #[test] functions.

use std::path::Path;
use std::process::{Command, Output};

use quail::profile::{Login, Profile};
use quail_client::store::{FeedChange, PublishChange};
use quail_client::{Client, Error, FileStore, Store, StoreError};
use quail_tests::{Person, World, binary, expect, options};
use tempfile::TempDir;

/// Size of the disk in memory.
const DISK: &str = "size=8m";

/// Mounts a file system in memory, or says that the test is skipped.
fn mount(at: &Path, options: &str) -> bool {
    let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(at).output();
    match mounted {
        Ok(output) if output.status.success() => true,
        other => {
            println!("SKIPPED: cannot mount: {other:?}");
            false
        }
    }
}

/// Unmounts when it goes.
struct Mounted<'a>(&'a Path);

impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        // Lazily: a client that the test left behind may still have files open.
        let _ = Command::new("umount").arg("-l").arg(self.0).status();
    }
}

#[tokio::test]
async fn a_full_disk_ends_the_client_with_an_error_and_what_it_said_to_be_queued_is_there() {
    let directory = TempDir::new().unwrap();
    if !mount(directory.path(), DISK) {
        return;
    }
    let mounted = Mounted(directory.path());
    let state = directory.path().join("state");
    let mut world = World::start().await;
    let (ada, bob) = (world.sign_up("ada").await, world.sign_up("bob").await);
    let client = open(&ada, &world, &state).await.unwrap();
    // While the server is away everything stays queued.
    world.daemon.kill().await.unwrap();
    let mut queued = Vec::new();
    let error = loop {
        match expect("a message to be queued", client.send(bob.account(), "x".repeat(60_000))).await {
            Ok(sending) => queued.push(sending.id()),
            Err(error) => break error,
        }
    };
    assert!(matches!(error, Error::Store(StoreError::Full { .. })), "{error:?}");
    assert!(!queued.is_empty());
    // The next one is told as well, and nothing is lost by it.
    let _ = client.close().await;
    drop(client);
    world.daemon.restart().await.unwrap();

    // Whoever makes space goes on where it was.
    let remount = Command::new("mount").args(["-o", "remount,size=64m"]).arg(directory.path()).status();
    assert!(remount.unwrap().success());
    let client = open(&ada, &world, &state).await.unwrap();
    let listed: Vec<_> = client.queued().await.unwrap().into_iter().map(|message| message.id).collect();
    // The last one may or may not be there: it was not said to be.
    assert!(
        listed.starts_with(&queued) && listed.len() <= queued.len() + 1,
        "{} of {}",
        listed.len(),
        queued.len()
    );
    expect("all of it to be accepted", client.flush()).await.unwrap();
    client.close().await.unwrap();
    drop(client);

    // And where nothing may be written, nothing is.
    let remount = Command::new("mount").args(["-o", "remount,ro"]).arg(directory.path()).status();
    assert!(remount.unwrap().success());
    let error = open(&ada, &world, &state).await.unwrap_err();
    assert!(matches!(error, Error::Store(StoreError::NotWritable { .. })), "{error:?}");
    drop(mounted);
}

async fn open(person: &Person, world: &World, state: &Path) -> Result<Client, Error> {
    let store = FileStore::open(state)?;
    Client::open(&world.address(), &person.credentials, store, options()).await
}

/// A profile of the command, and its state directory.
struct Terminal {
    directory: TempDir,
    profile: Profile,
}

impl Terminal {
    fn new(world: &World, person: &Person) -> Self {
        let directory = TempDir::new().unwrap();
        let profile = Profile::in_directory(directory.path(), "default".parse().unwrap());
        let credentials = person.credentials.clone();
        profile.save(&Login { address: world.address(), credentials }).unwrap();
        Self { directory, profile }
    }

    fn state(&self) -> std::path::PathBuf {
        self.profile.state_directory()
    }

    async fn run(&self, args: &[&str]) -> Output {
        let mut command = Command::new(binary("quail"));
        command.args(args).env("QUAIL_CONFIG_DIR", self.directory.path()).env_remove("QUAIL_PROFILE");
        tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
    }

    /// Runs it in vain and returns reason and hint.
    async fn fails(&self, args: &[&str]) -> (String, String) {
        let output = self.run(&[args, &["--json"]].concat()).await;
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        let error: serde_json::Value = serde_json::from_slice(&output.stderr).unwrap();
        let field = |name: &str| error["error"][name].as_str().unwrap_or_default().to_owned();
        (field("reason"), field("hint"))
    }
}

#[tokio::test]
async fn every_trouble_with_the_store_has_a_reason_and_a_next_step() {
    let world = World::start().await;
    let (ada, bob) = (world.sign_up("ada").await, world.sign_up("bob").await);
    let send = ["send", "bob", "hello"];

    let terminal = Terminal::new(&world, &ada);
    let store = FileStore::open(terminal.state()).unwrap();
    store.commit_publish(&[PublishChange::Tried(0)]).unwrap();
    store.commit_feed(&[FeedChange::Attached(1)]).unwrap();
    for args in [&["queue"][..], &send, &["tail", "--until-caught-up"]] {
        let (reason, hint) = terminal.fails(args).await;
        assert_eq!(reason, "IN_USE", "{args:?}");
        assert!(hint.contains("--profile"), "{hint}");
    }
    drop(store);
    assert!(terminal.run(&send).await.status.success(), "once the other one has gone it works");
    assert!(terminal.run(&["tail", "--until-caught-up"]).await.status.success());

    let other = Terminal::new(&world, &bob);
    copy(&terminal.state(), &other.state());
    assert_eq!(other.fails(&["queue"]).await.0, "OTHER_DEVICE");
    assert_eq!(other.fails(&["tail", "--until-caught-up"]).await.0, "OTHER_DEVICE");

    for file in ["publish.redb", "feed.redb"] {
        std::fs::write(terminal.state().join(file), "no database").unwrap();
    }
    for args in [&["queue"][..], &send, &["tail", "--until-caught-up"]] {
        let (reason, hint) = terminal.fails(args).await;
        assert_eq!(reason, "DAMAGED", "{args:?}");
        assert!(hint.contains("quail logout"), "{hint}");
    }

    std::fs::remove_file(terminal.state().join("publish.redb")).unwrap();
    std::fs::write(terminal.state().join("publish.json"), r#"{"format":9}"#).unwrap();
    let (reason, hint) = terminal.fails(&send).await;
    assert!(reason == "NEWER" && hint.contains("update"), "{reason}: {hint}");
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

#[tokio::test]
async fn what_is_queued_is_listed_taken_back_and_sent() {
    let world = World::start().await;
    let (ada, bob) = (world.sign_up("ada").await, world.sign_up("bob").await);
    let terminal = Terminal::new(&world, &ada);
    // What a send leaves that was killed before a connection had it; the second was handed to one.
    let store = FileStore::open(terminal.state()).unwrap();
    let ids: Vec<_> = (0..4).map(|_| quail_client::new_message_id()).collect();
    let queued = ids.iter().zip(1_u64..).map(|(id, number)| {
        let body = format!("text {number}").into();
        let send = quail_client::store::QueuedSend {
            number,
            id: *id,
            recipient: bob.account(),
            kind: 1,
            body,
            extra: Default::default(),
        };
        PublishChange::Queued(send)
    });
    let changes: Vec<_> = queued.chain([PublishChange::Tried(1)]).collect();
    store.commit_publish(&changes).unwrap();
    drop(store);

    let listed = json_lines(&terminal.run(&["queue", "--json"]).await);
    let states: Vec<_> = listed.iter().map(|line| line["state"].as_str().unwrap()).collect();
    assert_eq!(states, ["on_its_way", "queued", "queued", "queued"]);
    assert_eq!((&listed[1]["text"], &listed[1]["id"]), (&"text 2".into(), &ids[1].to_string().into()));

    assert_eq!(terminal.fails(&["queue", "cancel", &ids[0].to_string()]).await.0, "ON_ITS_WAY");
    assert_eq!(terminal.fails(&["queue", "cancel", "ffff"]).await.0, "NOT_QUEUED");
    let cancelled = json_lines(&terminal.run(&["queue", "cancel", &ids[1].to_string(), "--json"]).await);
    assert_eq!(cancelled[0]["state"], "cancelled");

    let reader = bob.open().await;
    let mut events = reader.events().await.unwrap();
    let sent = json_lines(&terminal.run(&["queue", "send", "--json"]).await);
    assert!(sent.len() == 3 && sent.iter().all(|line| line["state"] == "accepted"), "{sent:?}");
    for expected in ["text 1", "text 3", "text 4"] {
        assert_eq!(quail_tests::text(&quail_tests::next_message(&mut events).await), expected);
    }
    let empty = terminal.run(&["queue"]).await;
    assert_eq!(String::from_utf8_lossy(&empty.stdout), "nothing is queued\n");
}

fn json_lines(output: &Output) -> Vec<serde_json::Value> {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8_lossy(&output.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

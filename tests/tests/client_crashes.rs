//! Promise: a client that dies loses nothing, doubles nothing and cannot be stopped by a message. A client in a process of its
//! own is killed with SIGKILL again and again while it sends and receives.
#![allow(clippy::unwrap_used, clippy::panic)] // Test code outside of #[test] functions.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use quail::profile::{Login, Profile};
use quail_client::{Client, Events, Sending};
use quail_tests::{Chance, Person, World, binary, expect, next_message, rounds, text};
use serde_json::json;
use tempfile::TempDir;

/// Longest life of a process before it is killed: long enough to connect and move some messages, most of the time.
const LIFE_MS_MAX: u64 = 220;

/// Messages that the other one sends in each life.
const SENT_PER_LIFE: usize = 10;

/// A device whose client runs in processes of its own.
struct Device {
    directory: TempDir,
    person: Person,
    orders: serde_json::Value,
}

impl Device {
    fn new(world: &World, person: &Person, to: &Person) -> Self {
        let directory = TempDir::new().unwrap();
        let orders = json!({
            "address": world.address().to_string(),
            "credentials": person.credentials,
            "state": directory.path().join("state"),
            "log": directory.path().join("log"),
            "to": to.account().to_string(),
        });
        Self { directory, person: person.clone(), orders }
    }

    fn start(&self, with: &[(&str, serde_json::Value)]) -> Child {
        let mut orders = self.orders.clone();
        with.iter().for_each(|(name, value)| orders[*name] = value.clone());
        Command::new(binary("crashing-client")).arg(orders.to_string()).spawn().unwrap()
    }

    /// Runs a process until it has seen so many messages and ends in good order.
    async fn finish(&self, enough: usize, poison: Option<&str>) {
        let mut process = self.start(&[("enough", json!(enough)), ("poison", json!(poison))]);
        let waiting = tokio::task::spawn_blocking(move || process.wait().unwrap());
        assert!(expect("the last process to end", waiting).await.unwrap().success());
    }

    fn log_path(&self) -> PathBuf {
        self.directory.path().join("log")
    }

    /// The rest of the lines that begin with a word.
    fn lines(&self, word: &str) -> Vec<String> {
        let log = std::fs::read_to_string(self.log_path()).unwrap_or_default();
        let rest = |line: &str| line.strip_prefix(word).map(|rest| rest.trim().to_owned());
        log.lines().filter_map(rest).collect()
    }
}

/// Sends to a device and checks what comes from it.
struct Other {
    client: Client,
    events: Events,
    sent: Vec<Sending>,
    received: u64,
}

impl Other {
    async fn send(&mut self, to: &Person) {
        for _ in 0..SENT_PER_LIFE {
            let body = (self.sent.len() + 1).to_string();
            self.sent.push(self.client.send(to.account(), body).await.unwrap());
        }
    }

    /// Takes what is here: the numbers rise by one.
    fn check(&mut self) {
        while let Some(delivery) = self.events.try_next() {
            if let quail_client::Event::Message(message) = delivery.acknowledge() {
                self.received += 1;
                assert_eq!(text(&message), self.received.to_string(), "in order and once");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_is_killed_at_any_moment_sends_and_shows_everything_once() {
    let seed = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64;
    println!("seed {seed}");
    let mut chance = Chance(seed);
    let world = World::start().await;
    let (ada, bob) = (world.sign_up("ada").await, world.sign_up("bob").await);
    let device = Device::new(&world, &ada, &bob);
    let client = bob.open().await;
    let events = client.events().await.unwrap();
    let mut other = Other { client, events, sent: Vec::new(), received: 0 };
    for _ in 0..rounds(200) {
        other.send(&device.person).await;
        let mut process = device.start(&[]);
        // The moment is left to chance; nothing is expected to have happened by then.
        tokio::time::sleep(Duration::from_millis(chance.below(LIFE_MS_MAX))).await;
        process.kill().unwrap();
        process.wait().unwrap();
        other.check();
    }
    device.finish(other.sent.len(), None).await;
    let queued = device.lines("want ").len() as u64;
    println!("{queued} sent and {} received over {} lives", other.sent.len(), rounds(200));
    while other.received < queued {
        let message = next_message(&mut other.events).await;
        other.received += 1;
        assert_eq!(text(&message), other.received.to_string(), "in order and once");
    }
    assert_eq!(other.client.stats().duplicates_dropped, 0, "the server took each message once");
    assert_eq!(device.lines("queued ").len() as u64, queued);
    // Everything was shown, in its order, and nothing twice.
    let got: Vec<_> =
        device.lines("got ").iter().map(|line| line.split(' ').nth(1).unwrap().to_owned()).collect();
    let expected: Vec<_> = (1..=other.sent.len()).map(|number| number.to_string()).collect();
    assert_eq!(got, expected);
    assert_eq!(device.lines("aside "), [""; 0], "what was given up had been shown before");
    for sending in &other.sent {
        expect("an answer", sending.accepted()).await.unwrap();
    }
}

#[tokio::test]
async fn a_message_that_kills_its_reader_is_set_aside_by_the_fourth_process_and_never_delivered() {
    let world = World::start().await;
    let (ada, bob) = (world.sign_up("ada").await, world.sign_up("bob").await);
    let device = Device::new(&world, &ada, &bob);
    let sender = bob.open().await;
    sender.watch_receipts().await.unwrap();
    let texts = ["one", "two", "poison", "three", "four"];
    let sent = sender.send_all(ada.account(), texts).await.unwrap();
    sender.flush().await.unwrap();
    for _ in 0..3 {
        let mut process = device.start(&[("poison", json!("poison"))]);
        let waiting = tokio::task::spawn_blocking(move || process.wait().unwrap());
        assert!(!expect("the process to die", waiting).await.unwrap().success());
        assert!(device.lines("aside ").is_empty());
    }
    device.finish(texts.len(), Some("poison")).await;
    let got: Vec<_> =
        device.lines("got ").iter().map(|line| line.split(' ').nth(1).unwrap().to_owned()).collect();
    assert_eq!(got, ["one", "two", "three", "four"]);
    assert_eq!(device.lines("aside "), [sent[2].id().to_string()]);
    for (sending, text) in sent.iter().zip(texts).filter(|(_, text)| *text != "poison") {
        expect(&format!("the receipt of {text}"), sending.delivered()).await.unwrap();
    }
    // Receipts come in order, and the last one is here.
    let told = tokio::select! {
        biased;
        told = sent[2].delivered() => Some(told),
        () = std::future::ready(()) => None,
    };
    assert_eq!(told, None, "it was never delivered");
}

#[tokio::test]
async fn a_send_command_that_is_killed_sends_the_rest_when_it_is_given_again() {
    const LINES: usize = 300;
    let seed = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64;
    println!("seed {seed}");
    let mut chance = Chance(seed);
    let world = World::start().await;
    let (ada, bob) = (world.sign_up("ada").await, world.sign_up("bob").await);
    let directory = TempDir::new().unwrap();
    let profile = Profile::in_directory(directory.path(), "default".parse().unwrap());
    profile.save(&Login { address: world.address(), credentials: ada.credentials.clone() }).unwrap();
    let reader = bob.open().await;
    let mut events = reader.events().await.unwrap();
    let input = directory.path().join("lines");
    for round in 0..rounds(8) {
        let lines: Vec<_> = (0..LINES).map(|line| format!("{round} {line}")).collect();
        std::fs::write(&input, lines.join("\n") + "\n").unwrap();
        let command = || {
            let mut command = Command::new(binary("quail"));
            command.args(["send", "bob", "--file"]).arg(&input).stdout(Stdio::null()).stderr(Stdio::null());
            command.env("QUAIL_CONFIG_DIR", directory.path());
            command
        };
        for _ in 0..3 {
            let mut process = command().spawn().unwrap();
            tokio::time::sleep(Duration::from_millis(chance.below(150))).await;
            process.kill().unwrap();
            if process.wait().unwrap().success() {
                // It was done before it was killed, so to give it again would mean to send it again.
                break;
            }
        }
        if std::fs::exists(profile.state_directory().join("send.json")).unwrap() || round == 0 {
            let waiting = tokio::task::spawn_blocking(move || command().status().unwrap());
            assert!(expect("the command to end", waiting).await.unwrap().success());
        }
        for line in &lines {
            assert_eq!(text(&next_message(&mut events).await), line, "round {round}, seed {seed}");
        }
    }
    assert_eq!(reader.stats().duplicates_dropped, 0);
}

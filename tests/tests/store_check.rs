//! `quaild store check` as an operator uses it: on the data directory of a daemon that was stopped, killed or still runs.
#![allow(clippy::unwrap_used, clippy::panic)] // Test code outside of #[test] functions.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use quail_tests::{PATIENCE, World, quaild};
use serde_json::Value;
use tempfile::TempDir;

/// Messages that wait for nobody to fetch them.
const MESSAGES: usize = 40;

fn check(data: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(quaild());
    command.arg("--data").arg(data).args(["store", "check"]).args(args).env_remove("RUST_LOG");
    command.output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[track_caller]
fn ended(output: &Output, code: i32) -> String {
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{}{stderr}", text(&output.stdout));
    assert!(!stderr.contains("panicked"), "{stderr}");
    stderr
}

fn json(data: &Path, code: i32) -> Value {
    let output = check(data, &["--json"]);
    ended(&output, code);
    assert_eq!(text(&output.stdout).lines().count(), 1);
    serde_json::from_slice(&output.stdout).unwrap()
}

/// A daemon that was killed while messages for somebody who is away were in the journal alone.
struct Killed {
    world: World,
    recipient: String,
    report: Value,
    /// Which messages those are.
    round: usize,
}

impl Killed {
    async fn new() -> Self {
        let began = std::time::Instant::now();
        let mut world = World::start().await;
        let (ada, bob) = (world.sign_up("ada").await, world.sign_up("bob").await);
        for round in 0.. {
            let client = ada.open().await;
            let mut sendings = Vec::new();
            for number in 0..MESSAGES {
                sendings.push(client.send(bob.account(), body(round, number)).await.unwrap());
            }
            for sending in sendings {
                sending.accepted().await.unwrap();
            }
            // What is damaged in the very last write may be a torn end; behind one that was answered it is not.
            client.send(bob.account(), "the last").await.unwrap().accepted().await.unwrap();
            world.daemon.kill().await.unwrap();
            let report = json(&data(&world), 0);
            // The daemon moves them on after some seconds; on a slow machine that was just now.
            if report["outbox"]["journal"]["events"].as_u64().unwrap() > MESSAGES as u64 {
                return Self { world, recipient: bob.account().to_string(), report, round };
            }
            assert!(began.elapsed() < PATIENCE, "every round of messages was settled at once: {report}");
            world.daemon.restart().await.unwrap();
        }
        unreachable!("there is always another round");
    }

    fn data(&self) -> PathBuf {
        data(&self.world)
    }

    /// Changes a byte in the middle of what has such a body, wherever it lies in the journal.
    fn damage(&self, body: &str) {
        let mut places = 0;
        for entry in fs::read_dir(self.data().join("outbox/journal")).unwrap() {
            let path = entry.unwrap().path();
            let mut bytes = fs::read(&path).unwrap();
            let found: Vec<_> = memmem(&bytes, body.as_bytes());
            for at in &found {
                bytes[at + body.len() / 2] ^= 0x55;
            }
            places += found.len();
            fs::write(path, bytes).unwrap();
        }
        assert!(places > 0, "{body} is not in the journal");
    }
}

fn data(world: &World) -> PathBuf {
    world.directory.path().join("data")
}

fn body(round: usize, number: usize) -> String {
    format!("canary of round {round}, number {number:03}.")
}

fn memmem(bytes: &[u8], what: &[u8]) -> Vec<usize> {
    bytes.windows(what.len()).enumerate().filter(|(_, window)| *window == what).map(|(at, _)| at).collect()
}

#[tokio::test]
async fn a_daemon_that_stopped_leaves_a_clean_store() {
    let mut world = World::start().await;
    let (ada, bob) = (world.sign_up("ada").await, world.sign_up("bob").await);
    let client = ada.open().await;
    client.send(bob.account(), "hello").await.unwrap().accepted().await.unwrap();
    client.close().await.unwrap();
    assert!(world.daemon.stop().await.unwrap().success());
    let data = data(&world);
    for _ in 0..2 {
        let report = json(&data, 0);
        let outbox = &report["outbox"];
        assert_eq!((&report["clean"], &report["format"]), (&true.into(), &2.into()));
        assert!(report["origin"]["origin"].as_u64().unwrap() > 0);
        assert_eq!(report["origin"]["copy"], false);
        assert!(outbox["last_position"].as_u64().unwrap() >= 1);
        let waiting =
            outbox["settled"]["events"].as_u64().unwrap() + outbox["journal"]["events"].as_u64().unwrap();
        assert!(waiting >= 1, "{report}");
        assert_eq!((&outbox["lost"], &outbox["damage"]), (&Value::Array(vec![]), &Value::Array(vec![])));
    }
    let people = check(&data, &[]);
    ended(&people, 0);
    assert!(text(&people.stdout).ends_with("\nno damage\n"), "{}", text(&people.stdout));
    // What was looked at serves as before.
    world.daemon.restart().await.unwrap();
    let client = bob.open().await;
    let mut events = client.events().await.unwrap();
    assert_eq!(quail_tests::next_message(&mut events).await.body.as_text(), Some("hello"));
}

#[tokio::test]
async fn a_damaged_segment_is_told_with_what_is_lost() {
    let killed = Killed::new().await;
    let journal = &killed.report["outbox"]["journal"];
    let of_bob = journal["accounts"].as_array().unwrap().iter();
    let of_bob: Vec<_> = of_bob.filter(|of| of["account"] == *killed.recipient).collect();
    assert_eq!(of_bob.len(), 1, "{journal}");
    killed.damage(&body(killed.round, MESSAGES / 2));

    let report = json(&killed.data(), 1);
    assert_eq!(report["clean"], false);
    let lost = report["outbox"]["lost"].as_array().unwrap();
    assert_eq!(lost.len(), 1, "{report}");
    assert_eq!(lost[0]["account"], *killed.recipient);
    assert_eq!(lost[0]["from"], lost[0]["upto"]);
    assert_eq!(report["outbox"]["damage"][0]["mended"], false);

    let people = check(&killed.data(), &[]);
    let stderr = ended(&people, 1);
    assert!(stderr.contains("is damaged") && stderr.contains("hint: "), "{stderr}");
    let stdout = text(&people.stdout);
    assert!(stdout.contains(&killed.recipient) && stdout.contains(&lost[0]["from"].to_string()), "{stdout}");
    assert!(!stdout.contains("canary"), "what people wrote is nobody's business: {stdout}");
}

#[tokio::test]
async fn a_daemon_that_runs_is_to_be_stopped_first() {
    let world = World::start().await;
    for args in [&[][..], &["--json"]] {
        let output = check(&data(&world), args);
        let stderr = ended(&output, 1);
        assert!(stderr.contains("a quaild is running on the data directory"), "{stderr}");
        assert!(stderr.contains("hint: stop it first"), "{stderr}");
        assert_eq!(text(&output.stdout), "");
    }
}

#[test]
fn what_is_no_data_directory_is_left_alone() {
    let directory = TempDir::new().unwrap();
    let stderr = ended(&check(directory.path(), &[]), 1);
    assert!(stderr.contains("no data directory of quaild") && stderr.contains("hint: "), "{stderr}");
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
}

#[test]
fn wrong_usage_is_told_apart_and_help_has_examples() {
    let directory = TempDir::new().unwrap();
    for args in [&["--fix"][..], &["more"]] {
        assert!(ended(&check(directory.path(), args), 2).contains(args[0]));
    }
    let help = check(directory.path(), &["--help"]);
    ended(&help, 0);
    assert!(text(&help.stdout).contains("Examples:\n  quaild store check\n"));
}

//! Promise: history in Postgres is complete, once, and in order, whatever becomes of the server; and no message waits for it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // Test code outside of #[test] functions.

use std::fs::{self, File};
use std::io::Write;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use quail_client::DeviceId;
use quail_tests::archive::{Archived, in_postgres, postgres_has, testify};
use quail_tests::checker::{Terms, What};
use quail_tests::hostile::metric;
use quail_tests::postgres::Postgres;
use quail_tests::witness::{Record, Witness};
use quail_tests::{Chance, Person, World, expect, next_message, rounds, seed, text};
use tempfile::TempDir;

/// Messages in each direction in a round.
const MESSAGES: usize = 100;

async fn world(postgres: &Postgres) -> World {
    World::start_with(|options| {
        postgres.configure(options);
        options.env.push(("QUAIL_RATES_SEND".into(), "off".into()));
    })
    .await
}

/// Two people who write to each other all the time, and their archives as one more device of each.
struct Chat {
    record: Arc<Record>,
    people: [Person; 2],
    witnesses: [Witness; 2],
    sent: usize,
}

const ARCHIVES: [DeviceId; 2] = [DeviceId([0xa1; 16]), DeviceId([0xa2; 16])];

impl Chat {
    async fn begin(world: &World) -> Self {
        let record = Record::new();
        let people = [world.sign_up("ada").await, world.sign_up("bob").await];
        for (device, person) in ARCHIVES.into_iter().zip(&people) {
            record.note(device, What::Joined { account: person.account() });
        }
        let witnesses = [Witness::join(&people[0], &record).await, Witness::join(&people[1], &record).await];
        Self { record, people, witnesses, sent: 0 }
    }

    async fn send(&mut self, count: usize) {
        for number in self.sent..self.sent + count {
            self.witnesses[0].send(self.people[1].account(), &format!("message {number}")).await;
            self.witnesses[1].send(self.people[0].account(), &format!("answer {number}")).await;
        }
        self.sent += count;
    }

    /// Waits until the daemon has taken a message of each since so many: then it knows both, and needs nobody to tell it.
    async fn is_under_way(&self, since: usize) {
        for witness in &self.witnesses {
            witness.has_answers(since + 1).await;
        }
    }

    async fn has_answers(&self) {
        for witness in &self.witnesses {
            witness.has_answers(self.sent).await;
        }
    }

    /// Fails unless the archive has everything that was accepted, once and in order, and counts it right.
    async fn assert_archived(self, postgres: &Postgres) -> Vec<Archived> {
        for witness in &self.witnesses {
            witness.has_receipts().await;
        }
        let messages = postgres_has(postgres, 2 * self.sent).await;
        assert_eq!(messages.len(), 2 * self.sent, "each once");
        for (device, person) in ARCHIVES.into_iter().zip(&self.people) {
            testify(&self.record, device, person.account(), &messages);
        }
        self.record.assert_kept(Terms { gaps: false, receipts: true });
        let counts =
            "SELECT c.seq, count(*), count(DISTINCT x.seq), min(x.seq), max(x.seq) FROM conversations AS c
            JOIN messages AS x USING (conversation) GROUP BY c.conversation, c.seq";
        let all = 2 * self.sent;
        assert_eq!(
            postgres.sql(counts).await,
            format!("{all}|{all}|{all}|1|{all}"),
            "every change has its number"
        );
        // What was delivered is known of both, up to the last message of the other.
        let delivered = "SELECT count(*) FROM messages AS x WHERE x.position > coalesce((SELECT k.position FROM markers AS k
            WHERE k.conversation = x.conversation AND k.account = x.recipient AND k.kind = 1 AND k.origin = x.origin), 0)";
        let told = async { while postgres.sql(delivered).await != "0" {} };
        expect("markers", told).await;
        messages
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn history_is_complete_though_postgres_was_away_all_the_time() {
    let Some(mut postgres) = Postgres::start().await else { return };
    let mut world = world(&postgres).await;
    let mut chat = Chat::begin(&world).await;
    chat.send(1).await;
    chat.has_answers().await;
    postgres.kill();
    for _ in 0..5 {
        chat.send(MESSAGES).await;
    }
    chat.has_answers().await;
    for witness in &chat.witnesses {
        witness.has_receipts().await;
    }
    // All of it waits in the journal, which is told with the next try.
    let waits = async { while metric(&world, "quail_archive_lag_events").await < 1_000.0 {} };
    expect("the lag", waits).await;
    postgres.restart().await;
    let messages = chat.assert_archived(&postgres).await;
    assert!(metric(&world, "quail_archive_failures_total").await > 0.0, "it was tried");
    world.daemon.stop().await.unwrap();
    assert_eq!(in_postgres(&postgres).await, messages, "and stays so");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn history_is_complete_over_kills_of_daemon_and_postgres() {
    let Some(mut postgres) = Postgres::start().await else { return };
    let (mut world, mut chance) = (world(&postgres).await, Chance(seed()));
    let mut chat = Chat::begin(&world).await;
    for round in 0..rounds(20) {
        let since = chat.sent;
        chat.send(MESSAGES).await;
        // At any moment of the writing behind.
        tokio::time::sleep(Duration::from_millis(chance.below(120))).await;
        // Each of them for sure, then as chance has it.
        match if round < 3 { round as u64 } else { chance.below(3) } {
            0 => world.kill_and_restart().await,
            1 => {
                chat.is_under_way(since).await;
                postgres.kill();
                chat.send(MESSAGES).await;
                chat.has_answers().await;
                postgres.restart().await;
            }
            _ => {
                postgres.kill();
                tokio::join!(world.kill_and_restart(), postgres.restart());
            }
        }
    }
    chat.has_answers().await;
    chat.assert_archived(&postgres).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_postgres_keeps_no_message_back_and_gets_all_of_them_later() {
    let Some(postgres) = Postgres::start().await else { return };
    let mut world = world(&postgres).await;
    let (ada, bob) = (world.sign_up("ada").await, world.sign_up("bob").await);
    let (sender, receiver) = (ada.open().await, bob.open().await);
    let mut events = receiver.events().await.unwrap();
    let mut talk = async |count: usize| {
        let mut slowest = Duration::ZERO;
        for number in 0..count {
            let began = Instant::now();
            let sending = expect("room", sender.send(bob.account(), format!("{number}"))).await.unwrap();
            expect("an answer", sending.accepted()).await.unwrap();
            assert_eq!(text(&next_message(&mut events).await), number.to_string());
            slowest = slowest.max(began.elapsed());
        }
        slowest
    };
    let before = talk(200).await;
    postgres_has(&postgres, 200).await;
    postgres.freeze();
    let during = talk(400).await;
    println!("the slowest of 200 took {before:?}, of 400 while Postgres is frozen {during:?}");
    assert!(during < Duration::from_secs(1), "nobody waits for the server: {during:?}");
    // A daemon that is asked to end does not wait for the server either; the next start takes the rest.
    let began = Instant::now();
    assert!(world.daemon.stop().await.unwrap().success());
    let took = began.elapsed();
    println!("ended within {took:?}");
    assert!(took < Duration::from_secs(15), "{took:?}");
    postgres.thaw();
    world.daemon.restart().await.unwrap();
    assert_eq!(postgres_has(&postgres, 600).await.len(), 600);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_that_postgres_refuses_become_dead_letters_and_take_no_other_with_them() {
    const ALL: usize = 3_000;
    const POISON_EVERY: usize = 1_000;
    let Some(postgres) = Postgres::start().await else { return };
    let world = world(&postgres).await;
    postgres.sql("ALTER TABLE messages ADD CONSTRAINT poison CHECK (get_byte(body, 0) <> ascii('!'))").await;
    let (ada, bob) = (world.sign_up("ada").await, world.sign_up("bob").await);
    let sender = ada.open().await;
    let mut last = None;
    for number in 1..=ALL {
        let mark = if number % POISON_EVERY == 0 { "!" } else { "" };
        let sending = sender.send(bob.account(), format!("{mark}message {number}"));
        last = Some(expect("room", sending).await.unwrap());
    }
    expect("the last answer", last.unwrap().accepted()).await.unwrap();
    let admin = async |arguments: &[&str]| {
        let mut command = world.daemon.command();
        command.args(["admin", "dead"]).args(arguments).arg("--json").kill_on_drop(true);
        let output = expect("the answer", command.output()).await.unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let dead = ALL / POISON_EVERY;
    postgres_has(&postgres, ALL - dead).await;
    let buried =
        async { while postgres.sql("SELECT count(*) FROM dead_letters").await != dead.to_string() {} };
    expect("the dead letters", buried).await;
    assert_eq!(in_postgres(&postgres).await.len(), ALL - dead, "only those that are to blame are missing");
    let list = admin(&["list"]).await;
    assert_eq!(list.lines().count(), dead);
    assert!(list.lines().all(|line| line.contains("poison")), "it says why: {list}");
    assert!((metric(&world, "quail_archive_dead_letters_total").await - dead as f64).abs() < 0.5);
    // Once the reason is gone, they are taken after all.
    postgres.sql("ALTER TABLE messages DROP CONSTRAINT poison").await;
    admin(&["retry"]).await;
    assert_eq!(admin(&["list"]).await, "");
    let messages = in_postgres(&postgres).await;
    let bodies: Vec<_> = messages.iter().map(|message| String::from_utf8_lossy(&message.body)).collect();
    assert_eq!(bodies.len(), ALL);
    for (number, body) in (1..).zip(bodies) {
        assert!(body.ends_with(&format!("message {number}")), "{body} is not the {number}th");
    }
}

/// A file system in memory for the database; gone with this value.
struct Disk(TempDir);

impl Disk {
    /// Mounts it, or says that the test is skipped.
    fn mount() -> Option<Self> {
        let disk = Self(TempDir::new().unwrap());
        let mut mount = Command::new("mount");
        let mounted = mount.args(["-t", "tmpfs", "-o", "size=48m", "tmpfs"]).arg(disk.0.path()).output();
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
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazily: a server that is just being killed may still have files open.
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_of_the_database_is_waited_for() {
    let Some(disk) = Disk::mount() else { return };
    let Some(postgres) = Postgres::start().await else { return };
    postgres.give(disk.0.path());
    let space = disk.0.path().join("space");
    fs::create_dir(&space).unwrap();
    postgres.give(&space);
    // The log of the server lies elsewhere: with that full it would end.
    postgres.try_sql(&format!("CREATE TABLESPACE small LOCATION '{}'", space.display())).await.unwrap();
    postgres.sql_elsewhere("ALTER DATABASE quail SET TABLESPACE small").await;
    let world = world(&postgres).await;
    let mut chat = Chat::begin(&world).await;
    chat.send(MESSAGES).await;
    postgres_has(&postgres, 2 * MESSAGES).await;
    let mut filling = File::create(disk.0.path().join("filling")).unwrap();
    while filling.write_all(&[0; 4096]).is_ok() {}
    for _ in 0..8 {
        chat.send(MESSAGES).await;
    }
    chat.has_answers().await;
    let failed = async {
        while metric(&world, "quail_archive_failures_total").await < 1.0 {
            chat.send(MESSAGES).await;
        }
    };
    expect("a full disk", failed).await;
    chat.has_answers().await;
    drop(filling);
    fs::remove_file(disk.0.path().join("filling")).unwrap();
    chat.assert_archived(&postgres).await;
    assert_eq!(postgres.sql("SELECT count(*) FROM dead_letters").await, "0", "no message is to blame");
    // Before the disk goes, which it has files on.
    drop(postgres);
}

//! A daemon whose accounts are in Postgres: it serves as every daemon does, and when the server fails, those who are known go on
//! talking.
#![allow(clippy::unwrap_used, clippy::panic)] // Test code outside of #[test] functions.

use std::time::{Duration, Instant};

use quail::launcher::{Daemon, DaemonOptions, LogTarget};
use quail_client::{Client, Credentials, Error, Events, Guest};
use quail_protocol::v1::Reason;
use quail_tests::hostile::get;
use quail_tests::postgres::{self, Postgres};
use quail_tests::{PASSWORD, Person, World, expect, next_message, options, quaild, text};
use tempfile::TempDir;
use tokio::task::JoinSet;

async fn world(postgres: &Postgres) -> World {
    World::start_with(|options| {
        postgres.configure(options);
        options.env.push(("QUAIL_RATES_SIGN_UP".into(), "off".into()));
    })
    .await
}

/// Two people with open clients, who have written to each other.
struct Pair {
    bob: Person,
    sender: Client,
    receiver: Events,
    _receiver: Client,
    sent: usize,
}

impl Pair {
    async fn meet(world: &World) -> Self {
        let (ada, bob) = (world.sign_up("ada").await, world.sign_up("bob").await);
        let (sender, receiving) = (ada.open().await, bob.open().await);
        let receiver = receiving.events().await.unwrap();
        let mut pair = Self { bob, sender, receiver, _receiver: receiving, sent: 0 };
        pair.talk().await;
        pair
    }

    /// One message, accepted, delivered and acknowledged.
    async fn talk(&mut self) {
        let body = format!("message {}", self.sent);
        self.sent += 1;
        let sending = expect("room", self.sender.send(self.bob.account(), body.clone())).await.unwrap();
        expect("an answer", sending.accepted()).await.unwrap();
        assert_eq!(text(&next_message(&mut self.receiver).await), body);
        expect("delivery", sending.delivered()).await.unwrap();
    }
}

async fn sign_up(world: &World, handle: &str) -> Result<Credentials, Error> {
    let guest = Guest::connect(&world.address(), options()).await?;
    guest.sign_up(handle, PASSWORD, None).await
}

/// Fails unless the daemon says that the directory is away and when to try again.
fn away(result: Result<Credentials, Error>) {
    match result.unwrap_err() {
        Error::Refused(refusal) => {
            assert_eq!(refusal.reason, Reason::DirectoryUnavailable);
            assert!(refusal.temporary && refusal.retry_after.is_some(), "{refusal:?}");
        }
        other => panic!("{other:?}"),
    }
}

async fn ready(world: &World, expected: bool) -> String {
    let seen = async {
        loop {
            let (status, report) = get(world, "/readyz").await;
            if (status == 200) == expected {
                return report;
            }
        }
    };
    expect("readiness", seen).await
}

#[tokio::test]
async fn people_chat_and_operators_administer_as_on_a_file() {
    let Some(postgres) = Postgres::start().await else { return };
    let mut world = world(&postgres).await;
    let mut pair = Pair::meet(&world).await;
    for round in 0..3 {
        for _ in 0..10 {
            pair.talk().await;
        }
        if round == 1 {
            world.kill_and_restart().await;
        }
    }
    let people = world.people(3).await;
    assert_eq!(people.len(), 3);
    let second = world.log_in("ada").await;
    let client = second.open().await;
    assert_eq!(client.devices().await.unwrap().len(), 2);
    for args in
        [&["admin", "accounts", "list"][..], &["admin", "accounts", "disable", "bob"], &["admin", "status"]]
    {
        let output = world.daemon.command().args(args).output().await.unwrap();
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
    assert_eq!(postgres.sql("SELECT handle FROM accounts WHERE disabled_ms IS NOT NULL").await, "bob");
    assert!(!world.daemon.data().join("directory.sqlite").exists());
    ready(&world, true).await;

    // The database's password is nowhere but in its file.
    let output = world.daemon.command().arg("check-config").output().await.unwrap();
    assert!(output.status.success());
    let shown = String::from_utf8(output.stdout).unwrap();
    assert!(shown.contains("storage.url = \"postgres://quail@127.0.0.1:"), "{shown}");
    let metrics = get(&world, "/metrics").await.1;
    for text in [shown, metrics, world.log(), postgres.log()] {
        assert!(!text.contains(postgres::PASSWORD));
    }
    assert!(world.daemon.stop().await.unwrap().success());
}

#[tokio::test]
async fn who_was_told_to_have_an_account_has_one_though_postgres_is_killed() {
    let Some(mut postgres) = Postgres::start().await else { return };
    let world = world(&postgres).await;
    let mut pair = Pair::meet(&world).await;
    let mut answered = 0;
    for round in 0..3 {
        let mut signing_up = JoinSet::new();
        for number in 0..12 {
            let address = world.address();
            signing_up.spawn(async move {
                let guest = Guest::connect(&address, options()).await.unwrap();
                let credentials = guest.sign_up(&format!("person{round}x{number}"), PASSWORD, None).await;
                (credentials, guest)
            });
        }
        let mut done = Vec::new();
        while done.len() < 4 {
            done.push(signing_up.join_next().await.unwrap().unwrap());
        }
        postgres.kill();
        // Those who know each other need nobody.
        for _ in 0..5 {
            pair.talk().await;
        }
        while let Some(joined) = signing_up.join_next().await {
            done.push(joined.unwrap());
        }
        away(sign_up(&world, "late").await);
        let report = ready(&world, false).await;
        assert!(report.contains("directory") && report.contains("unavailable"), "{report}");
        postgres.restart().await;
        ready(&world, true).await;
        for (credentials, guest) in done {
            guest.close().await;
            match credentials {
                Ok(credentials) => {
                    let handle = credentials.handle.clone();
                    assert_eq!(world.log_in(&handle).await.account(), credentials.account, "{handle}");
                    answered += 1;
                }
                Err(error) => assert_eq!(error.reason(), Some(Reason::DirectoryUnavailable), "{error:?}"),
            }
        }
        pair.talk().await;
    }
    println!("{answered} of 36 answered");
    assert!(answered > 0);
}

#[tokio::test]
async fn a_frozen_postgres_keeps_nobody_waiting_and_no_message_back() {
    let Some(postgres) = Postgres::start().await else { return };
    let world = world(&postgres).await;
    let mut pair = Pair::meet(&world).await;
    postgres.freeze();
    let began = Instant::now();
    let mut asking = JoinSet::new();
    // As many as wait for their password's hash without a refusal.
    for number in 0..10 {
        let address = world.address();
        asking.spawn(async move {
            let guest = Guest::connect(&address, options()).await.unwrap();
            guest.sign_up(&format!("person{number}"), PASSWORD, None).await
        });
    }
    let mut slowest = Duration::ZERO;
    for _ in 0..50 {
        let sent = Instant::now();
        pair.talk().await;
        slowest = slowest.max(sent.elapsed());
    }
    while let Some(answer) = asking.join_next().await {
        away(answer.unwrap());
    }
    let refused = began.elapsed();
    println!("50 messages, the slowest {slowest:?}; 10 sign-ups refused within {refused:?}");
    // A second for a connection, one for the answer, and hashing ten passwords in a debug build.
    assert!(refused < Duration::from_secs(20), "{refused:?}");
    let report = ready(&world, false).await;
    assert!(report.contains(r#""name":"directory","ok":false"#), "{report}");
    assert!(report.contains(r#""name":"sequencer","ok":true"#), "{report}");
    postgres.thaw();
    ready(&world, true).await;
    let back = async { while sign_up(&world, "late").await.is_err() {} };
    expect("sign-ups", back).await;
    pair.talk().await;
}

#[tokio::test]
async fn a_daemon_waits_for_its_postgres_and_says_so() {
    let Some(mut postgres) = Postgres::start().await else { return };
    postgres.kill();
    let directory = TempDir::new().unwrap();
    let ops = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut options = DaemonOptions::new(quaild(), directory.path().join("data"));
    postgres.configure(&mut options);
    options.env.push(("QUAIL_OPS_LISTEN".into(), ops.to_string().into()));
    options.log = LogTarget::File(directory.path().join("log"));
    let waiting = async {
        let report = async {
            loop {
                let report = ask(ops, "/readyz").await;
                if report.contains("reach Postgres at") {
                    return report;
                }
            }
        };
        let report = expect("word of what is waited for", report).await;
        assert!(report.starts_with("HTTP/1.1 503") && report.contains("the daemon is starting"), "{report}");
        assert!(!report.contains(postgres::PASSWORD));
        assert!(ask(ops, "/healthz").await.starts_with("HTTP/1.1 200"));
        postgres.restart().await;
    };
    let (started, ()) = tokio::join!(Daemon::start(options), waiting);
    let mut daemon = started.unwrap();
    assert!(ask(ops, "/readyz").await.starts_with("HTTP/1.1 200"));
    assert!(daemon.stop().await.unwrap().success());

    // Whoever waits can be told to stop.
    postgres.kill();
    let mut command = daemon.command();
    command.args(["--listen", "127.0.0.1:0"]).kill_on_drop(true);
    let mut child = command.stderr(std::process::Stdio::null()).spawn().unwrap();
    let asked = async { while !ask(ops, "/readyz").await.contains("reach Postgres at") {} };
    expect("the wait", asked).await;
    let pid = child.id().unwrap().to_string();
    assert!(std::process::Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    assert!(expect("the end", child.wait()).await.unwrap().success());
}

/// What a page of the ops port answers, or nothing as long as it is not there.
async fn ask(ops: std::net::SocketAddr, path: &str) -> String {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let Ok(mut stream) = tokio::net::TcpStream::connect(ops).await else {
        tokio::time::sleep(Duration::from_millis(10)).await;
        return String::new();
    };
    let request = format!("GET {path} HTTP/1.1\r\nHost: quail\r\nConnection: close\r\n\r\n");
    let mut answer = String::new();
    let asked = async {
        stream.write_all(request.as_bytes()).await?;
        stream.read_to_string(&mut answer).await
    };
    let _ = asked.await;
    answer
}

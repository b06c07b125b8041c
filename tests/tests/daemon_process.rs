//! The daemon as a process: how it refuses to start, how it stops, what it says.
#![allow(clippy::unwrap_used, clippy::panic)] // Test code outside of #[test] functions.

use std::path::Path;
use std::process::{Command, Output};

use quail::launcher::Signal;
use quail_client::{Address, Error, Guest};
use quail_protocol::v1::{self, request};
use quail_tests::raw::{RawClient, send};
use quail_tests::{PASSWORD, World, expect, next_message, options, quaild};
use tempfile::TempDir;

fn run(data: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(quaild());
    command.arg("--data").arg(data).args(args).env_remove("RUST_LOG");
    command.output().unwrap()
}

fn failed(output: &Output, code: i32, says: &str) {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{stderr}");
    assert!(stderr.contains(says), "expected {says:?} in: {stderr}");
    assert!(!stderr.contains("panicked"), "{stderr}");
}

#[tokio::test]
async fn a_port_in_use_is_named() {
    let world = World::start().await;
    let listen = format!("127.0.0.1:{}", world.address().port);
    let other = TempDir::new().unwrap();
    failed(&run(other.path(), &["--listen", &listen]), 1, &listen);
}

#[tokio::test]
async fn a_second_daemon_on_the_same_directory_is_refused() {
    let world = World::start().await;
    let data = world.directory.path().join("data");
    failed(&run(&data, &["--listen", "127.0.0.1:0"]), 1, &data.display().to_string());
}

#[test]
fn a_data_directory_that_cannot_be_used_is_named() {
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("file");
    std::fs::write(&file, "not a directory").unwrap();
    failed(&run(&file, &["--listen", "127.0.0.1:0"]), 1, &file.display().to_string());
    // root may read everything, so "unreadable" is shown by a place that nobody can write to.
    failed(&run(Path::new("/proc/quail"), &["--listen", "127.0.0.1:0"]), 1, "/proc/quail");
}

#[test]
fn a_data_directory_of_a_newer_version_is_left_alone() {
    let directory = TempDir::new().unwrap();
    std::fs::write(directory.path().join("format"), "quail-data 99\n").unwrap();
    failed(&run(directory.path(), &["--listen", "127.0.0.1:0"]), 1, "99");
}

#[test]
fn a_broken_configuration_is_refused_with_its_place() {
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("quail.toml");
    let config = file.display().to_string();
    for (text, says) in [
        ("[server]\nlisten = \"nowhere\"\n", "listen"),
        ("[server\n", "quail.toml"),
        ("[server]\ndrain = \"5 parsecs\"\n", "drain"),
        ("[accounts]\nsign_up = \"perhaps\"\n", "sign_up"),
    ] {
        std::fs::write(&file, text).unwrap();
        failed(&run(directory.path(), &["--config", &config]), 1, says);
        failed(&run(directory.path(), &["--config", &config, "check-config"]), 1, says);
    }
    std::fs::write(&file, "[server]\nlisen = \"[::]:1\"\n").unwrap();
    failed(&run(directory.path(), &["--config", &config, "check-config"]), 1, "listen");
    failed(&run(directory.path(), &["--no-such-flag"]), 2, "--no-such-flag");
}

#[test]
fn the_default_configuration_passes_its_own_check() {
    let directory = TempDir::new().unwrap();
    let printed = run(directory.path(), &["default-config"]);
    assert!(printed.status.success());
    let file = directory.path().join("quail.toml");
    std::fs::write(&file, &printed.stdout).unwrap();
    let checked = run(directory.path(), &["--config", &file.display().to_string(), "check-config"]);
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
}

#[tokio::test]
async fn a_stop_drains_and_exits_with_0() {
    for signal in [Signal::TERM, Signal::INT] {
        let mut world = World::start().await;
        let (ada, bob) = (world.sign_up("ada").await, world.sign_up("bob").await);
        let sender = ada.open().await;
        let mut sendings = Vec::new();
        for number in 0..200 {
            sendings.push(sender.send(bob.account(), format!("{number}")).await.unwrap());
        }
        world.daemon.signal(signal).unwrap();
        let status = expect("the daemon to stop", world.daemon.wait()).await.unwrap();
        assert_eq!(status.code(), Some(0), "{signal:?}");
        world.daemon.restart().await.unwrap();
        for sending in &sendings {
            expect("an answer", sending.accepted()).await.unwrap();
        }
        let reader = bob.open().await;
        let mut events = reader.events().await.unwrap();
        for number in 0..200 {
            assert_eq!(next_message(&mut events).await.body.as_text(), Some(&*format!("{number}")));
        }
    }
}

#[tokio::test]
async fn the_health_check_tells_a_daemon_that_serves_from_one_that_does_not() {
    let mut world = World::start().await;
    let data = world.directory.path().join("data");
    let listen = format!("127.0.0.1:{}", world.address().port);
    let check = run(&data, &["--listen", &listen, "--health-check"]);
    assert!(check.status.success(), "{}", String::from_utf8_lossy(&check.stderr));
    world.daemon.kill().await.unwrap();
    let check = run(&data, &["--listen", &listen, "--health-check"]);
    assert_eq!(check.status.code(), Some(1));
}

#[tokio::test]
async fn the_certificate_and_with_it_the_pin_stay() {
    let mut world = World::start().await;
    let before = world.address();
    world.kill_and_restart().await;
    assert_eq!(world.address(), before);
}

async fn sign_up_policy(policy: &str) -> World {
    World::start_with(|options| options.env.push(("QUAIL_ACCOUNTS_SIGN_UP".into(), policy.into()))).await
}

#[tokio::test]
async fn sign_up_can_be_closed_or_by_invite() {
    let closed = sign_up_policy("closed").await;
    let guest = Guest::connect(&closed.address(), options()).await.unwrap();
    let error = guest.sign_up("ada", PASSWORD, None).await.unwrap_err();
    assert_eq!(error.reason(), Some(quail_protocol::v1::Reason::SignUpClosed));

    let invite = sign_up_policy("invite").await;
    let data = invite.directory.path().join("data");
    let printed = run(&data, &["admin", "invites", "create", "--json"]);
    assert!(printed.status.success(), "{}", String::from_utf8_lossy(&printed.stderr));
    let printed: serde_json::Value = serde_json::from_slice(&printed.stdout).unwrap();
    let code = printed["invites"][0].as_str().unwrap();
    let guest = Guest::connect(&invite.address(), options()).await.unwrap();
    let refused = |error: Error| assert_eq!(error.reason(), Some(quail_protocol::v1::Reason::InviteInvalid));
    refused(guest.sign_up("ada", PASSWORD, None).await.unwrap_err());
    refused(guest.sign_up("ada", PASSWORD, Some("WRONG")).await.unwrap_err());
    guest.sign_up("ada", PASSWORD, Some(code)).await.unwrap();
    let second = Guest::connect(&invite.address(), options()).await.unwrap();
    refused(second.sign_up("bob", PASSWORD, Some(code)).await.unwrap_err());
}

#[tokio::test]
async fn a_daemon_that_was_killed_ends_the_connections_of_its_last_life_when_it_is_back() {
    let mut world = World::start().await;
    let ada = world.sign_up("ada").await;
    let client = RawClient::resume(&world.address(), ada.credentials.token.as_bytes()).await;
    world.kill_and_restart().await;
    // Whatever the client says, were it only that it has had an answer, ends the connection.
    if let Some(mut stream) = client.try_stream().await {
        let _ = stream.try_bytes("anything".into()).await;
    }
    let ended = expect("a stateless reset", client.connection.closed()).await;
    assert!(matches!(ended, quinn::ConnectionError::Reset), "{ended}");
}

#[tokio::test]
async fn an_operators_certificate_is_used_and_its_address_has_no_pin() {
    let other = World::start().await;
    let tls = other.directory.path().join("data/tls");
    let world = World::start_with(|options| {
        options.env.push(("QUAIL_TLS_CERTIFICATE_FILE".into(), tls.join("certificate.pem").into()));
        options.env.push(("QUAIL_TLS_KEY_FILE".into(), tls.join("key.pem").into()));
    })
    .await;
    let printed = world.address();
    assert_eq!(printed.pin, None);
    let address = Address { host: "127.0.0.1".to_owned(), pin: other.address().pin, ..printed };
    let guest = Guest::connect(&address, options()).await.unwrap();
    guest.sign_up("ada", PASSWORD, None).await.unwrap();

    let directory = TempDir::new().unwrap();
    let mismatched = TempDir::new().unwrap();
    let key = mismatched.path().join("key.pem");
    std::fs::write(&key, std::fs::read(world.directory.path().join("log")).unwrap()).unwrap();
    let mut command = Command::new(quaild());
    command.args(["--listen", "127.0.0.1:0", "--data"]).arg(directory.path().join("data"));
    command.env("QUAIL_TLS_CERTIFICATE_FILE", tls.join("certificate.pem")).env("QUAIL_TLS_KEY_FILE", &key);
    failed(&command.output().unwrap(), 1, &key.display().to_string());
}

#[tokio::test]
async fn a_second_signal_ends_at_once() {
    let mut world = World::start().await;
    let ada = world.sign_up("ada").await;
    let sender = ada.open().await;
    sender.send(ada.account(), "x".repeat(60_000)).await.unwrap();
    sender.flush().await.unwrap();
    // A client that takes next to nothing holds the drain up.
    let mut transport = quinn::TransportConfig::default();
    transport.stream_receive_window(1024_u32.into());
    let slow = RawClient::connect_with(&world.address(), transport).await;
    let slow = slow.resumed(ada.credentials.token.as_bytes()).await;
    let _feed = slow.attach(100, vec![]).await;
    slow.request(request::Command::Ping(v1::Ping {})).await;
    world.daemon.signal(Signal::TERM).unwrap();
    let log = world.directory.path().join("log");
    expect("the drain to begin", async {
        while !std::fs::read_to_string(&log).unwrap().contains("draining") {
            tokio::task::yield_now().await;
        }
    })
    .await;
    world.daemon.signal(Signal::TERM).unwrap();
    let status = expect("the daemon to end", world.daemon.wait()).await.unwrap();
    assert_eq!(status.code(), Some(1));
    assert!(std::fs::read_to_string(&log).unwrap().contains("second signal"));
}

#[tokio::test]
async fn refusals_are_counted_and_no_secret_is_logged() {
    let mut world = World::start_with(|options| {
        options.env.push(("QUAIL_LOG_LEVEL".into(), "trace".into()));
    })
    .await;
    let (ada, bob) = (world.sign_up("ada").await, world.sign_up("bob").await);
    let sender = ada.open().await;
    sender.send(bob.account(), "canary body").await.unwrap().accepted().await.unwrap();
    sender.close().await.unwrap();
    let client = RawClient::resume(&world.address(), ada.credentials.token.as_bytes()).await;
    client.stream().await.bytes(vec![0xff; 3].into()).await;
    let mut lane = client.publish().await;
    lane.say(v1::Send { kind: 77, ..send(100, bob.account(), "x") }).await;
    let handle = Some(v1::look_up::By::Handle("nobody".to_owned()));
    client.request(request::Command::LookUp(v1::LookUp { by: handle })).await;
    let guest = Guest::connect(&world.address(), options()).await.unwrap();
    guest.log_in("ada", "canary password").await.unwrap_err();
    assert!(world.daemon.stop().await.unwrap().success());

    let log = std::fs::read_to_string(world.directory.path().join("log")).unwrap();
    for counted in ["FRAME_TOO_LARGE=1", "BODY_INVALID=1", "UNKNOWN_ACCOUNT=1", "WRONG_CREDENTIALS=1"] {
        assert!(log.contains(counted), "{counted} is not in the log");
    }
    let token: String = ada.credentials.token.as_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
    for secret in ["canary", PASSWORD, &token] {
        assert!(!log.contains(secret), "{secret:?} is in the log");
    }
}

//! The daemon as a process: how it refuses to start, how it stops, what it says.
#![allow(clippy::unwrap_used, clippy::panic)] // Test code outside of #[test] functions.

use std::path::Path;
use std::process::{Command, Output};

use quail::launcher::Signal;
use quail_client::{Address, Error, Guest};
use quail_tests::raw::RawClient;
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
    let mut stream = client.stream().await;
    stream.bytes("anything".into()).await;
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

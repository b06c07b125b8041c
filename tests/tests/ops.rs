//! The ops port: what a supervisor and Prometheus are told of a real daemon.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // Test code outside of #[test] functions.

use std::time::Duration;

use quail::launcher::Signal;
use quail_protocol::v1::{self, Reason};
use quail_tests::hostile::{get, metric, metrics, refusals};
use quail_tests::raw::{RawClient, RawStream};
use quail_tests::{Person, World, expect, next_message};

#[tokio::test]
async fn what_happens_is_counted() {
    let world = World::start().await;
    let (ada, bob) = (world.sign_up("ada").await, world.sign_up("bob").await);
    let (sender, receiver) = (ada.open().await, bob.open().await);
    let mut events = receiver.events().await.unwrap();
    // A session counts a moment after its client was welcomed.
    expect("the sessions", async { while metric(&world, "quail_sessions").await < 2.0 {} }).await;
    let before = metrics(&world).await;
    for name in ["quail_connections", "quail_sessions"] {
        assert_eq!(before[name], 2.0, "{name}");
    }
    for number in 0..10 {
        let sending = sender.send(bob.account(), format!("{number}")).await.unwrap();
        next_message(&mut events).await;
        expect("delivery", sending.delivered()).await.unwrap();
    }
    let after = metrics(&world).await;
    assert_eq!(after["quail_commands_total{command=\"send\",result=\"OK\"}"], 10.0);
    assert_eq!(after["quail_commands_total{command=\"sign_up\",result=\"OK\"}"], 2.0);
    assert!(after["quail_commands_total{command=\"ack\",result=\"OK\"}"] >= 10.0);
    assert!(after["quail_commands_total{command=\"attach\",result=\"OK\"}"] >= 1.0);
    assert!(after["quail_delivered_events_total"] >= 10.0);
    let rose = |name: &str| after[name] - before[name];
    assert!(rose("quail_commit_seconds_count") >= 10.0);
    assert!(rose("quail_fdatasync_seconds_count") >= 10.0);
    assert!(rose("quail_commit_seconds_sum") >= rose("quail_fdatasync_seconds_sum"));
    assert!(rose("quail_turn_commands_sum") >= 20.0);
    assert!(after["quail_lanes{lane=\"feed\"}"] >= 1.0);
    assert!(after["quail_lanes{lane=\"publish\"}"] >= 1.0);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64();
    assert!(after["quail_tls_certificate_expiry_timestamp_seconds"] > now);
    // Everything was acknowledged, the receipts too in a moment.
    expect("nothing to wait", async { while metric(&world, "quail_unacknowledged_events").await > 0.0 {} })
        .await;
    sender.close().await.unwrap();
    receiver.close().await.unwrap();
    expect("the connections to end", async { while metric(&world, "quail_connections").await > 0.0 {} })
        .await;
    for lane in ["feed", "publish"] {
        assert_eq!(metric(&world, &format!("quail_lanes{{lane=\"{lane}\"}}")).await, 0.0, "{lane}");
    }
}

#[tokio::test]
async fn what_waits_is_counted_over_a_crash() {
    let mut world = World::start().await;
    let (ada, bob) = (world.sign_up("ada").await, world.sign_up("bob").await);
    let sender = ada.open().await;
    for number in 0..7 {
        let sending = sender.send(bob.account(), format!("{number}")).await.unwrap();
        sending.accepted().await.unwrap();
    }
    assert_eq!(metric(&world, "quail_unacknowledged_events").await, 7.0);
    world.kill_and_restart().await;
    assert_eq!(metric(&world, "quail_unacknowledged_events").await, 7.0);
    let receiver = bob.open().await;
    let mut events = receiver.events().await.unwrap();
    for _ in 0..7 {
        next_message(&mut events).await;
    }
    // What is left are receipts for Ada, who has no feed open.
    let only_receipts = async { while metric(&world, "quail_unacknowledged_events").await >= 7.0 {} };
    expect("the messages to be acknowledged", only_receipts).await;
}

#[tokio::test]
async fn a_supervisor_is_told_whether_the_daemon_lives_and_should_get_clients() {
    let mut world = World::start_with(|options| {
        options.env.push(("QUAIL_SERVER_DRAIN".into(), "30s".into()));
    })
    .await;
    assert_eq!(get(&world, "/healthz").await, (200, "ok\n".to_owned()));
    let (status, report) = get(&world, "/readyz").await;
    let report: serde_json::Value = serde_json::from_str(&report).unwrap();
    assert_eq!((status, &report["ready"]), (200, &true.into()));
    let names: Vec<_> = report["checks"].as_array().unwrap().iter().map(|check| &check["name"]).collect();
    assert_eq!(names, ["serving", "sequencer", "directory", "disk"]);
    assert_eq!(get(&world, "/").await.0, 404);
    // A client that holds the drain up, so that there is time to look.
    let ada = world.sign_up("ada").await;
    let held = hold(&world, &ada).await;
    world.daemon.signal(Signal::TERM).unwrap();
    let draining = async {
        loop {
            let (status, report) = get(&world, "/readyz").await;
            if status == 503 {
                return report;
            }
        }
    };
    let report = expect("the drain to be seen", draining).await;
    assert!(report.contains("the daemon is stopping"), "{report}");
    assert_eq!(get(&world, "/healthz").await.0, 200);
    drop(held);
    let status = expect("the end", world.daemon.wait()).await.unwrap();
    assert!(status.success(), "{status}");
}

/// A connection that a drain waits for, up to its patience: answers are on their way that the peer has no room for.
async fn hold(world: &World, person: &Person) -> (RawClient, RawStream) {
    let mut transport = quinn::TransportConfig::default();
    transport.stream_receive_window(512_u32.into());
    let client = RawClient::connect_with(&world.address(), transport).await;
    let client = client.resumed(person.credentials.token.as_bytes()).await;
    let mut lane = client.publish().await;
    for number in 1..=50 {
        let bad = v1::Send { number, ..v1::Send::default() };
        lane.write(&v1::PublishUp { frame: Some(v1::publish_up::Frame::Send(bad)) }).await;
    }
    let refused = async { while refusals(world, Reason::Malformed).await < 50.0 {} };
    expect("the refusals", refused).await;
    (client, lane)
}

#[tokio::test]
async fn a_port_that_is_taken_is_told_with_the_way_out() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let directory = tempfile::TempDir::new().unwrap();
    let output = std::process::Command::new(quail_tests::quaild())
        .args(["--listen", "127.0.0.1:0", "--data"])
        .arg(directory.path())
        .env("QUAIL_OPS_LISTEN", &address)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(error.contains(&address) && error.contains("ops.listen"), "{error}");
}

#[tokio::test]
async fn rates_follow_a_reload() {
    let configuration = tempfile::TempDir::new().unwrap();
    let file = configuration.path().join("quail.toml");
    std::fs::write(&file, "[rates]\nrequest = \"off\"\n").unwrap();
    let world = World::start_with(|options| {
        options.args.push("--config".into());
        options.args.push(file.clone().into());
    })
    .await;
    let client = world.sign_up("ada").await.open().await;
    for _ in 0..10 {
        client.ping().await.unwrap();
    }
    std::fs::write(&file, "[rates]\nrequest = \"1/h burst 3\"\n").unwrap();
    world.daemon.signal(Signal::HUP).unwrap();
    let taken = async { while metric(&world, "quail_reloads_total{result=\"taken\"}").await < 1.0 {} };
    expect("the reload", taken).await;
    for _ in 0..3 {
        client.ping().await.unwrap();
    }
    let error = client.ping().await.unwrap_err();
    assert_eq!(error.reason(), Some(Reason::RateLimited));
    std::fs::write(&file, "[rates]\nrequest = \"often\"\n").unwrap();
    world.daemon.signal(Signal::HUP).unwrap();
    let refused = async { while metric(&world, "quail_reloads_total{result=\"refused\"}").await < 1.0 {} };
    expect("the refusal", refused).await;
    tokio::time::timeout(Duration::from_secs(5), client.ping()).await.unwrap().unwrap_err();
}

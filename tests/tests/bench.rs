//! `quail bench` as a person or a script uses it, with loads so small that only the counting is tested, not the machine.
#![allow(clippy::unwrap_used, clippy::panic)] // Test code outside of #[test] functions.

use std::process::{Command, Output};

use quail_tests::{World, binary, quaild};
use serde_json::Value;

fn bench(args: &[&str]) -> Output {
    let mut command = Command::new(binary("quail"));
    command.arg("bench").args(args).env_remove("QUAIL_DAEMON").env_remove("RUST_LOG");
    command.output().unwrap()
}

/// Runs a measurement on a private daemon and returns its one object.
fn measured(args: &[&str]) -> Value {
    let daemon = quaild();
    let all = [args, &["--json", "--daemon", daemon.to_str().unwrap()]].concat();
    only_object(&bench(&all))
}

fn only_object(output: &Output) -> Value {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = std::str::from_utf8(&output.stdout).unwrap();
    assert_eq!(text.lines().count(), 1, "{text}");
    serde_json::from_str(text).unwrap()
}

fn is_above_zero(report: &Value, names: &[&str]) {
    for name in names {
        let value = name.split('.').fold(report, |value, name| &value[name]);
        assert!(value.as_f64().is_some_and(|value| value > 0.0), "{name} in {report}");
    }
}

fn is_zero(report: &Value, names: &[&str]) {
    for name in names {
        assert_eq!(report[name], 0, "{name} in {report}");
    }
}

const CHAT: &[&str] = &[
    "accepted_per_s",
    "delivered_per_s",
    "confirm_ms.p50",
    "confirm_ms.p99",
    "receive_ms.p50",
    "receive_ms.p99",
    "floor_ms.ping_p50",
];

#[test]
fn chat_counts_every_message_once() {
    let report = measured(&["chat", "--users", "4", "--window", "3", "--size", "40", "--seconds", "1"]);
    is_above_zero(&report, CHAT);
    is_above_zero(&report, &["server_rss_bytes", "floor_ms.fdatasync_p50", "accepted", "cores"]);
    is_zero(&report, &["missing", "duplicates", "altered", "undelivered", "resent", "reconnects"]);
    // On a disk in memory nothing is written; what matters is that it is known.
    for name in ["server_cpu_us_per_message", "server_write_bytes_per_message", "server_wakeups_per_message"]
    {
        assert!(report[name].is_number(), "{name} in {report}");
    }
    for (name, value) in [("users", 4), ("window", 3), ("size", 40)] {
        assert_eq!(report[name], value, "{name} in {report}");
    }
    assert_eq!((&report["archive"], &report["rate"]), (&"none".into(), &Value::Null));
    let (p50, p99) = (&report["confirm_ms"]["p50"], &report["confirm_ms"]["p99"]);
    assert!(p50.as_f64() <= p99.as_f64(), "{report}");
}

#[test]
fn history_is_filled_whole_and_pages_of_every_kind_are_timed() {
    let report = measured(&["history", "--conversations", "3", "--messages", "125", "--pages", "7"]);
    is_zero(&report, &["missing"]);
    for kind in ["list", "first_page", "browse", "search_rare", "search_common"] {
        is_above_zero(&report[kind], &["pages_per_s", "page_ms.p50", "page_ms.p99"]);
    }
    assert_eq!((&report["conversations"], &report["messages"]), (&3.into(), &125.into()), "{report}");
}

#[test]
fn chat_at_a_fixed_rate_sends_what_was_asked_for() {
    let report = measured(&["chat", "--users", "6", "--rate", "50", "--seconds", "2"]);
    is_above_zero(&report, CHAT);
    is_zero(&report, &["missing", "duplicates", "altered", "undelivered"]);
    assert_eq!((&report["rate"], &report["window"]), (&50.0.into(), &Value::Null));
    assert!(report["floor_ms"]["ping_paced_p50"].as_f64().is_some_and(|p50| p50 > 0.0), "{report}");
    // Half a second of warm-up and two measured.
    assert_eq!(report["accepted"], 125, "{report}");
}

#[test]
fn chat_beside_what_the_server_holds_of_others_tells_each_stretch() {
    let others = ["--accounts", "150", "--backlog", "300", "--every", "1"];
    let report =
        measured(&[&["chat", "--users", "4", "--rate", "50", "--seconds", "2"][..], &others].concat());
    is_above_zero(&report, CHAT);
    is_above_zero(&report["background"], &["accounts_per_s", "backlog_per_s"]);
    let background = &report["background"];
    for (name, value) in [("accounts", 150), ("backlog", 300), ("missing", 0)] {
        assert_eq!(background[name], value, "{name} in {report}");
    }
    let intervals = report["intervals"].as_array().unwrap();
    assert_eq!(intervals.len(), 2, "{report}");
    for interval in intervals {
        is_above_zero(interval, &["accepted_per_s", "confirm_ms.p50", "receive_ms.p99", "server_rss_bytes"]);
    }
}

#[test]
fn isolation_measures_users_alone_and_beside_each_who_disturbs() {
    let report = measured(&["isolation", "--users", "4", "--rate", "50", "--seconds", "1"]);
    is_zero(&report, &["missing", "duplicates", "altered", "undelivered", "reconnects"]);
    let disturbances = report["disturbances"].as_array().unwrap();
    let names: Vec<_> =
        disturbances.iter().map(|disturbance| disturbance["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["stopped_readers", "bulk_sender", "log_in_storm"]);
    for disturbance in disturbances {
        is_above_zero(disturbance, &["beside.accepted_per_s", "beside.confirm_ms.p99"]);
        assert!(disturbance["server_rss_growth_bytes"].is_i64(), "{disturbance}");
    }
    // On a busy machine a disturbance may take longer than it should, so only the first is sure to begin beside nobody's.
    let names = ["alone.accepted_per_s", "did_per_s", "confirm_ratio.p50", "receive_ratio.p99"];
    is_above_zero(&disturbances[0], &names);
    assert!(disturbances[0]["growth_bytes_per_reader"].is_i64(), "{report}");
    assert!(disturbances[2]["refused"]["WRONG_CREDENTIALS"].as_u64() > Some(0), "{report}");
    // The users alone send for half a minute: a warm-up, and for each who disturbs two stretches with what lies around them.
    assert!(report["messages"].as_u64() > Some(700), "{report}");
}

#[tokio::test]
async fn chat_measures_a_server_that_runs_already() {
    let world = World::start().await;
    let address = world.address().to_string();
    let run = move || {
        only_object(&bench(&["chat", "--users", "2", "--seconds", "1", "--json", "--server", &address]))
    };
    let report = tokio::task::spawn_blocking(run).await.unwrap();
    is_above_zero(&report, CHAT);
    is_zero(&report, &["missing", "duplicates"]);
    for name in ["server_cpu_us_per_message", "server_rss_bytes", "server_write_bytes_per_message"] {
        assert!(report.get(name).is_some_and(Value::is_null), "{name} in {report}");
    }
    assert!(report["floor_ms"]["fdatasync_p50"].is_null(), "{report}");
}

#[test]
fn idle_counts_what_connections_cost() {
    let report = measured(&["idle", "--connections", "8", "--seconds", "1"]);
    is_above_zero(&report, &["connect_per_s", "baseline_rss_bytes", "rss_bytes", "keep_alive_s"]);
    for name in ["bytes_per_connection", "idle_cpu_percent", "handshake_cpu_us"] {
        assert!(report[name].is_number(), "{name} in {report}");
    }
    assert_eq!((&report["connections"], &report["reconnects"]), (&8.into(), &0.into()));
    assert!(report["allocator"].is_string(), "{report}");
}

#[test]
fn offline_hands_out_all_that_waited() {
    let report = measured(&["offline", "--messages", "700", "--size", "100"]);
    is_above_zero(&report, &["store_per_s", "drain_per_s", "store_s", "drain_s"]);
    is_zero(&report, &["missing", "duplicates", "altered", "undelivered"]);
    assert_eq!((&report["messages"], &report["size"]), (&700.into(), &100.into()));
}

#[test]
fn asked_wrongly_it_says_so_before_it_starts_anything() {
    for (args, says) in [
        (&["chat", "--users", "3"][..], "even"),
        (&["chat", "--users", "0"], "--users"),
        (&["chat", "--window", "257"], "--window"),
        (&["chat", "--size", "8"], "--size"),
        (&["chat", "--rate", "0"], "--rate"),
        (&["chat", "--rate", "5", "--window", "2"], "--window"),
        (&["chat", "--seconds", "0"], "--seconds"),
        (&["chat", "--server", "http://localhost"], "quail://"),
        (&["chat", "--accounts", "5", "--server", "quail://localhost"], "--server"),
        (&["chat", "--every", "0"], "--every"),
        (&["isolation", "--users", "3"], "even"),
        (&["idle", "--connections", "0"], "--connections"),
        (&["offline", "--messages", "10001"], "--messages"),
        (&["offline", "--messages", "1000", "--size", "61440"], "544 fit"),
        (&[], "Usage"),
    ] {
        let output = bench(args);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {stderr}");
        assert!(stderr.contains(says), "{args:?}: {stderr}");
        assert!(output.stdout.is_empty());
    }
}

#[test]
fn help_has_examples() {
    for args in [
        &["--help"][..],
        &["chat", "--help"],
        &["idle", "--help"],
        &["isolation", "--help"],
        &["offline", "--help"],
    ] {
        let output = bench(args);
        assert!(output.status.success());
        assert!(String::from_utf8_lossy(&output.stdout).contains("Examples:\n  quail bench"), "{args:?}");
    }
}

#[test]
fn without_a_daemon_it_says_how_to_get_one() {
    let output = bench(&["chat", "--daemon", "/nowhere/quaild"]);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("cargo build"), "{stderr}");
}

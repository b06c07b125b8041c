//! `quail roam` as a person or a script uses it.
#![allow(clippy::unwrap_used, clippy::panic)] // Test code outside of #[test] functions.

use std::process::{Command, Output};

use quail_tests::{World, binary, quaild};
use serde_json::Value;

fn roam(args: &[&str]) -> Output {
    let mut command = Command::new(binary("quail"));
    command.arg("roam").args(args).env_remove("QUAIL_DAEMON").env_remove("RUST_LOG");
    command.output().unwrap()
}

fn report(output: &Output) -> Value {
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    assert_eq!(errors, "", "nothing is drawn where nobody looks");
    let text = std::str::from_utf8(&output.stdout).unwrap();
    assert_eq!(text.lines().count(), 1, "{text}");
    serde_json::from_str(text).unwrap()
}

fn is_flawless(report: &Value, moves: u64, cuts: u64) {
    println!("{report}");
    assert_eq!((&report["moves"], &report["cuts"]), (&moves.into(), &cuts.into()), "{report}");
    assert_eq!((&report["missing"], &report["duplicates"]), (&0.into(), &0.into()), "{report}");
    assert!(report["reconnects"].as_u64().unwrap() >= cuts, "a cut was none: {report}");
    let (p50, max) = (report["gap_ms"]["p50"].as_f64().unwrap(), report["gap_ms"]["max"].as_f64().unwrap());
    assert!(0.0 < p50 && p50 <= max, "{report}");
}

#[test]
fn a_conversation_survives_moves_and_cuts() {
    let daemon = quaild();
    let args = ["--moves", "6", "--cuts", "2", "--seconds", "3", "--json", "--daemon"];
    is_flawless(&report(&roam(&[&args[..], &[daemon.to_str().unwrap()]].concat())), 6, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn it_can_be_had_with_a_server_that_runs() {
    let world = World::start().await;
    let address = world.address().to_string();
    let run =
        move || roam(&["--moves", "2", "--cuts", "1", "--seconds", "1", "--json", "--server", &address]);
    is_flawless(&report(&tokio::task::spawn_blocking(run).await.unwrap()), 2, 1);
}

#[test]
fn people_get_a_table_and_examples() {
    let daemon = quaild();
    let output =
        roam(&["--moves", "1", "--cuts", "0", "--seconds", "1", "--daemon", daemon.to_str().unwrap()]);
    assert!(output.status.success());
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("gaps") && text.contains("longest") && !text.contains("BROKEN"), "{text}");
    let help = String::from_utf8(roam(&["--help"]).stdout).unwrap();
    assert!(help.contains("quail roam --moves 100") && help.contains("exits with 1"), "{help}");
}

#[test]
fn who_asks_wrongly_is_told_so() {
    for args in [&["--moves", "many"][..], &["--cuts", "-1"], &["--seconds", "0"], &["--server", "https://x"]]
    {
        let output = roam(args);
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert!(!output.stderr.is_empty());
    }
}

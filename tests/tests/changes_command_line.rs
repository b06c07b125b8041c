//! `quail edit`, `delete`, `react` and `send --reply-to` as a person or a script uses them.
#![allow(clippy::unwrap_used, clippy::panic)] // Test code outside of #[test] functions.

use std::path::Path;
use std::process::{Command, Output, Stdio};

use quail_tests::{PASSWORD, World, binary};
use serde_json::{Value, json};
use tempfile::TempDir;

/// Runs a command off the runtime's thread, so that harness and daemon go on.
async fn run(home: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(binary("quail"));
    command.args(args).env("QUAIL_CONFIG_DIR", home.join("config"));
    command.env_remove("QUAIL_PROFILE").env_remove("RUST_LOG").stdin(Stdio::null());
    tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
}

fn lines(output: &Output) -> Vec<Value> {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

async fn sign_up(world: &World, home: &Path, handle: &str) {
    std::fs::write(home.join("password"), PASSWORD).unwrap();
    let (address, password) = (world.address().to_string(), home.join("password").display().to_string());
    let args = ["signup", &address, "--handle", handle, "--profile", handle, "--password-file", &password];
    assert!(run(home, &args).await.status.success());
}

#[tokio::test]
async fn what_was_said_is_changed_from_the_command_line_and_tail_shows_it() {
    let world = World::start_with(|options| {
        options.env.push(("QUAIL_MESSAGES_DELETE_FOR_ALL".into(), "1h".into()));
    })
    .await;
    let home = TempDir::new().unwrap();
    let home = home.path();
    sign_up(&world, home, "ada").await;
    sign_up(&world, home, "bob").await;
    let ada =
        async |args: &[&str]| lines(&run(home, &[args, &["--profile", "ada", "--json"]].concat()).await);
    let sent = &ada(&["send", "bob", "at eight"]).await[0];
    let id = sent["id"].as_str().unwrap();
    let edited = &ada(&["edit", "bob", id, "at nine"]).await[0];
    assert_eq!((&edited["change"], &edited["message"]), (&json!("edit"), &json!(id)));
    let own = format!("own:{id}");
    ada(&["react", "bob", &own, "+1"]).await;
    ada(&["react", "bob", &own, "--remove"]).await;
    ada(&["send", "bob", "--reply-to", &own, "sorry"]).await;
    ada(&["delete", "bob", &own, "--for-me"]).await;
    ada(&["delete", "bob", id]).await;

    let tail = ["tail", "--profile", "bob", "--until-caught-up", "--json"];
    let shown = lines(&run(home, &tail).await);
    let told: Vec<_> = shown.iter().map(|line| (&line["change"], &line["body"])).collect();
    let none = Value::Null;
    assert_eq!(
        told,
        [
            (&none, &json!("at eight")),
            (&json!("edit"), &json!("at nine")),
            (&json!("react"), &json!("+1")),
            (&json!("react"), &json!("")),
            (&none, &json!("sorry")),
            (&json!("delete_for_all"), &none),
        ],
        "and nothing of what was deleted for Ada alone"
    );
    assert_eq!(shown[4]["reply_to"]["id"], json!(id));
    assert!(
        shown.iter().filter(|line| line["change"].is_string()).all(|line| line["message"]["id"] == json!(id))
    );
    assert!(shown.iter().all(|line| line["handle"] == "ada"));
}

#[tokio::test]
async fn people_see_in_the_history_what_became_of_a_message() {
    let world = World::start().await;
    let home = TempDir::new().unwrap();
    let home = home.path();
    sign_up(&world, home, "ada").await;
    sign_up(&world, home, "bob").await;
    let as_ada = async |args: &[&str]| run(home, &[args, &["--profile", "ada"]].concat()).await;
    let id = lines(&as_ada(&["send", "bob", "at eight", "--json"]).await)[0]["id"].clone();
    let (id, own) = (id.as_str().unwrap(), format!("own:{}", id.as_str().unwrap()));
    lines(&as_ada(&["edit", "bob", id, "at nine", "--json"]).await);
    lines(&as_ada(&["react", "bob", &own, "+1\u{7}", "--json"]).await);
    lines(&run(home, &["react", "ada", id, "ok", "--profile", "bob", "--json"]).await);
    let reply = run(home, &["send", "ada", "fine", "--reply-to", id, "--profile", "bob", "--json"]).await;
    lines(&reply);
    let shown = async |args: &[&str]| {
        let output = as_ada(args).await;
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    // The archive comes a moment behind.
    let began = std::time::Instant::now();
    let history = loop {
        let history = shown(&["history", "bob"]).await;
        if history.contains(" bob: ") && history.contains("ok") {
            break history;
        }
        assert!(began.elapsed() < quail_tests::PATIENCE, "the archive comes: {history}");
    };
    let all: Vec<_> = history.lines().collect();
    assert!(all[0].contains(" ada: at nine (edited) [") && all[0].contains("[ok bob]"), "{history}");
    assert!(all[0].contains("[+1\\u{7} ada]"), "a terminal is not obeyed: {history}");
    assert!(all[1].ends_with(" bob: [answers ada: at nine] fine"), "{history}");
    let found = shown(&["search", "nine"]).await;
    assert!(found.contains(" to bob: at nine (edited) ["), "{found}");
    let listed = shown(&["conversations"]).await;
    assert!(listed.trim_end().ends_with(&format!("[answers ada: {id}] fine")), "{listed}");
}

#[tokio::test]
async fn only_ones_own_messages_are_called_edited_or_deleted() {
    let world = World::start().await;
    let home = TempDir::new().unwrap();
    let home = home.path();
    sign_up(&world, home, "ada").await;
    sign_up(&world, home, "bob").await;
    let ada = async |args: &[&str]| run(home, &[args, &["--profile", "ada"]].concat()).await;
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let theirs =
        lines(&run(home, &["send", "ada", "hi", "--profile", "bob", "--json"]).await)[0]["id"].clone();
    let own = lines(&ada(&["send", "bob", "hello", "--json"]).await)[0]["id"].clone();
    let (theirs, own) = (theirs.as_str().unwrap(), own.as_str().unwrap());
    // The archive comes a moment behind.
    let began = std::time::Instant::now();
    while lines(&ada(&["history", "bob", "--json"]).await).len() < 2 {
        assert!(began.elapsed() < quail_tests::PATIENCE, "the archive comes");
    }
    for refused in [ada(&["edit", "bob", theirs, "x"]).await, ada(&["delete", "bob", theirs]).await] {
        let stderr = text(&refused.stderr);
        assert_eq!((refused.status.code(), &*refused.stdout), (Some(1), &b""[..]), "{stderr}");
        assert!(stderr.contains("bob sent that message"), "{stderr}");
    }
    assert_eq!(lines(&ada(&["queue", "--json"]).await), Vec::<Value>::new(), "nothing was said");
    let unknown = "019a8c1e-77aa-7000-8000-0123456789ab";
    let accepted = ada(&["edit", "bob", unknown, "x"]).await;
    assert_eq!((accepted.status.code(), &*text(&accepted.stdout)), (Some(0), "accepted\n"));
    assert!(text(&accepted.stderr).contains("no such message of yours"), "{}", text(&accepted.stderr));
    assert_eq!(text(&ada(&["edit", "bob", own, "y"]).await.stdout), "edited\n");
    assert_eq!(text(&ada(&["delete", "bob", own]).await.stdout), "deleted for everybody\n");
}

#[tokio::test]
async fn what_cannot_be_changed_is_said_with_what_to_do() {
    let world = World::start_with(|options| {
        options.env.push(("QUAIL_MESSAGES_DELETE_FOR_ALL".into(), "0s".into()));
    })
    .await;
    let home = TempDir::new().unwrap();
    let home = home.path();
    sign_up(&world, home, "ada").await;
    let ada = async |args: &[&str]| run(home, &[args, &["--profile", "ada"]].concat()).await;
    let fails = |output: &Output, code: i32, says: &str| {
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{stderr}");
        assert!(stderr.contains(says) && !stderr.contains("panicked"), "expected {says:?} in: {stderr}");
    };
    let sent = lines(&ada(&["send", "ada", "note", "--json"]).await);
    let id = sent[0]["id"].as_str().unwrap();
    fails(&ada(&["delete", "ada", id]).await, 1, "--for-me");
    fails(&ada(&["edit", "ada", id, "a\u{1b}[0m", "--timeout", "x"]).await, 2, "--timeout");
    fails(&ada(&["edit", "ada", "019a8c1e", "short"]).await, 2, "019a8c1e");
    fails(&ada(&["react", "ada", id]).await, 2, "<TEXT>");
    fails(&ada(&["react", "ada", id, &"x".repeat(33)]).await, 1, "32");
    fails(&ada(&["send", "ada", "--reply-to", id]).await, 2, "TEXT");
    // What was refused and told is not left in the queue.
    assert_eq!(lines(&ada(&["queue", "--json"]).await), Vec::<Value>::new());
}

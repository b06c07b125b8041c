//! What an operator does on the admin socket, and what clients see of it.
#![allow(clippy::unwrap_used, clippy::panic)] // Test code outside of #[test] functions.

use std::io::Write;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use quail_client::{Client, Credentials, Error, Guest, MemoryStore};
use quail_protocol::v1::Reason;
use quail_tests::raw::RawClient;
use quail_tests::{PASSWORD, World, expect, next_message, options, quaild, text};
use serde_json::Value;
use tempfile::TempDir;

const OTHER_PASSWORD: &str = "another long password";

fn data(world: &World) -> PathBuf {
    world.directory.path().join("data")
}

fn socket(world: &World) -> PathBuf {
    data(world).join("admin.sock")
}

/// Runs `quaild admin` off the runtime's thread, so that daemon and clients of the test go on.
async fn admin_on(data: &Path, args: &[&str], input: &[u8]) -> Output {
    let mut command = Command::new(quaild());
    command.arg("--data").arg(data).arg("admin").args(args);
    command.env_remove("RUST_LOG").env_remove("RUNTIME_DIRECTORY");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let input = input.to_vec();
    let run = move || {
        let mut child = command.spawn().unwrap();
        // A command that reads no input may be gone already.
        let _ = child.stdin.take().unwrap().write_all(&input);
        child.wait_with_output().unwrap()
    };
    tokio::task::spawn_blocking(run).await.unwrap()
}

async fn admin(world: &World, args: &[&str]) -> String {
    admin_with(world, args, b"").await
}

async fn admin_with(world: &World, args: &[&str], input: &[u8]) -> String {
    let output = admin_on(&data(world), args, input).await;
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

async fn lines(world: &World, args: &[&str]) -> Vec<Value> {
    let printed = admin(world, args).await;
    printed.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

async fn failed(world: &World, args: &[&str], says: &str) {
    let output = admin_on(&data(world), args, b"").await;
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{args:?}: {stderr}");
    assert!(stderr.contains(says) && !stderr.contains("panicked"), "expected {says:?} in: {stderr}");
}

async fn log_in(world: &World, handle: &str, password: &str) -> Result<Credentials, Error> {
    let guest = Guest::connect(&world.address(), options()).await.unwrap();
    guest.log_in(handle, password).await
}

async fn open(world: &World, credentials: &Credentials) -> Client {
    Client::open(&world.address(), credentials, MemoryStore::new(), options()).await.unwrap()
}

fn reason(result: Result<Credentials, Error>) -> Option<Reason> {
    result.unwrap_err().reason()
}

#[tokio::test]
async fn the_socket_is_the_owners_and_goes_with_the_daemon() {
    let mut world = World::start().await;
    let path = socket(&world);
    let metadata = std::fs::metadata(&path).unwrap();
    assert!(metadata.file_type().is_socket());
    assert_eq!(metadata.permissions().mode() & 0o777, 0o600);

    world.daemon.kill().await.unwrap();
    assert!(path.exists(), "a killed daemon leaves its socket");
    let says = path.display().to_string();
    failed(&world, &["status"], &format!("no daemon answers on {says}")).await;
    failed(&world, &["status"], "hint: start quaild").await;
    world.daemon.restart().await.unwrap();
    admin(&world, &["status"]).await;

    assert!(world.daemon.stop().await.unwrap().success());
    assert!(!path.exists());
    failed(&world, &["status"], &says).await;
}

#[tokio::test]
async fn the_socket_may_lie_elsewhere() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("quail.sock");
    let world =
        World::start_with(|options| options.env.push(("QUAIL_ADMIN_SOCKET".into(), path.clone().into())))
            .await;
    assert!(path.exists() && !socket(&world).exists());
    let runtime = TempDir::new().unwrap();
    let assigned = runtime.path().to_owned();
    let _world =
        World::start_with(|options| options.env.push(("RUNTIME_DIRECTORY".into(), assigned.into()))).await;
    assert!(runtime.path().join("admin.sock").exists());

    // Two daemons with one socket: the second says so and starts not at all.
    let mut command = Command::new(quaild());
    command.args(["--listen", "127.0.0.1:0", "--data"]).arg(directory.path().join("other"));
    command.env("QUAIL_ADMIN_SOCKET", &path);
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.contains("another daemon answers on the admin socket"), "{stderr}");
    assert_eq!(output.status.code(), Some(1));
}

#[tokio::test]
async fn the_status_tells_what_the_daemon_is() {
    let mut world = World::start().await;
    let ada = world.sign_up("ada").await;
    let client = ada.open().await;
    let status = &lines(&world, &["status", "--json"]).await[0];
    assert_eq!(status["pid"].as_u64(), world.daemon.pid().map(u64::from));
    assert_eq!(status["origin"], 1);
    assert_eq!(status["ops_address"], world.ops_address().to_string());
    assert_eq!(status["listen"], format!("127.0.0.1:{}", world.address().port));
    assert_eq!(status["data"], data(&world).display().to_string());
    assert_eq!(status["pin"], world.address().pin.unwrap().to_string());
    assert!(status["version"].as_str().unwrap().contains("source fingerprint"));
    let connections = async || lines(&world, &["status", "--json"]).await[0]["connections"].as_u64().unwrap();
    client.send(ada.account(), "hello").await.unwrap().accepted().await.unwrap();
    assert!(connections().await >= 1);
    client.close().await.unwrap();
    expect("the connections to end", async { while connections().await > 0 {} }).await;
    let people = admin(&world, &["status"]).await;
    let listens = people.lines().find(|line| line.starts_with("listens on ")).unwrap();
    assert!(listens.ends_with(&format!(" 127.0.0.1:{}", world.address().port)), "{people}");
    world.daemon.stop().await.unwrap();
}

#[tokio::test]
async fn accounts_are_created_with_sessions_that_work() {
    let mut world = World::start().await;
    let printed = admin(&world, &["accounts", "create", "ada", "bob", "--session", "--json"]).await;
    let people: Vec<Credentials> = printed.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let [ada, bob] = &people[..] else { panic!("{printed}") };
    assert_eq!((ada.handle.as_str(), bob.handle.as_str()), ("ada", "bob"));
    let (sender, reader) = (open(&world, ada).await, open(&world, bob).await);
    sender.send(bob.account, "hello").await.unwrap().accepted().await.unwrap();
    assert_eq!(text(&next_message(&mut reader.events().await.unwrap()).await), "hello");
    // Nobody can log in before a password is set.
    assert_eq!(reason(log_in(&world, "ada", PASSWORD).await), Some(Reason::WrongCredentials));
    let input = format!("{OTHER_PASSWORD}\n");
    admin_with(&world, &["accounts", "reset-password", "ada", "--keep-sessions"], input.as_bytes()).await;
    log_in(&world, "ada", OTHER_PASSWORD).await.unwrap();
    sender.send(bob.account, "still here").await.unwrap().accepted().await.unwrap();

    // A session is there after a crash, and a person without --json is told where it belongs.
    drop((sender, reader));
    let output = admin_on(&data(&world), &["accounts", "create", "cyd", "--session"], b"").await;
    let printed = String::from_utf8(output.stdout).unwrap();
    assert!(String::from_utf8_lossy(&output.stderr).contains("quail_client::Credentials"));
    let (handle, credentials) = printed.trim().split_once("  ").unwrap();
    assert_eq!(handle, "cyd");
    let cyd: Credentials = serde_json::from_str(credentials).unwrap();
    world.kill_and_restart().await;
    open(&world, &cyd).await.send(ada.account, "hi").await.unwrap().accepted().await.unwrap();
}

#[tokio::test]
async fn a_batch_with_a_bad_handle_is_not_created() {
    let world = World::start().await;
    world.sign_up("ada").await;
    failed(&world, &["accounts", "create", "bob", "ada"], "taken already: ada").await;
    failed(&world, &["accounts", "create", "bob", "Bob"], "\"Bob\" is no handle").await;
    failed(&world, &["accounts", "create", "bob", "bob"], "\"bob\" is given twice").await;
    let accounts = lines(&world, &["accounts", "list", "--json"]).await;
    assert_eq!(accounts.len(), 1, "{accounts:?}");
    assert_eq!(admin(&world, &["accounts", "create", "bob"]).await, "bob\n");
}

#[tokio::test]
async fn thousands_of_accounts_come_from_a_file_and_are_listed() {
    let world = World::start().await;
    let handles: Vec<String> = (0..2_000).map(|number| format!("user.{number:04}")).collect();
    let input = handles.join("\n");
    let create = ["accounts", "create", "--handles-from", "-", "--session", "--json"];
    let created = admin_with(&world, &create, input.as_bytes()).await;
    let sessions: Vec<Credentials> =
        created.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(sessions.iter().map(|session| &session.handle).eq(&handles));
    let listed = lines(&world, &["accounts", "list", "--json"]).await;
    assert!(listed.iter().map(|account| account["handle"].as_str().unwrap()).eq(&handles));
    let page = admin(&world, &["accounts", "list", "--limit", "2", "--after", "user.0999"]).await;
    let first: Vec<_> = page.lines().map(|line| line.split_whitespace().next().unwrap()).collect();
    assert_eq!(first, ["HANDLE", "user.1000", "user.1001"]);
    RawClient::resume(&world.address(), sessions[1999].token.as_bytes()).await;
}

#[tokio::test]
async fn a_disabled_account_is_out_at_once_and_its_mail_waits() {
    let world = World::start().await;
    let (ada, bob) = (world.sign_up("ada").await, world.sign_up("bob").await);
    let raw = RawClient::resume(&world.address(), bob.credentials.token.as_bytes()).await;
    let client = bob.open().await;
    client.send(ada.account(), "before").await.unwrap().accepted().await.unwrap();
    assert_eq!(
        lines(&world, &["accounts", "disable", "bob", "--json"]).await,
        [serde_json::json!({"handle": "bob", "disabled": true})]
    );
    // The command has said done: what is sent now is refused, and connections end.
    let refused = match client.send(ada.account(), "after").await {
        Ok(sending) => expect("an answer", sending.accepted()).await.unwrap_err().to_string(),
        Err(error) => error.to_string(),
    };
    assert!(refused.contains("log in first"), "{refused}");
    expect("the connection to end", raw.connection.closed()).await;
    assert_eq!(reason(log_in(&world, "bob", PASSWORD).await), Some(Reason::WrongCredentials));

    // Others may write to it; what they write waits for its next device.
    let sender = ada.open().await;
    sender.send(bob.account(), "for later").await.unwrap().accepted().await.unwrap();
    let listed = lines(&world, &["accounts", "list", "--json"]).await;
    assert_eq!((&listed[1]["disabled"], &listed[1]["devices"]), (&true.into(), &0.into()));
    admin(&world, &["accounts", "enable", "bob"]).await;
    let again = world.log_in("bob").await;
    let reader = again.open().await;
    let mut events = reader.events().await.unwrap();
    assert_eq!(text(&next_message(&mut events).await), "for later");
    let mut events = sender.events().await.unwrap();
    assert_eq!(text(&next_message(&mut events).await), "before", "nothing came after the command");
    failed(&world, &["accounts", "disable", "nobody"], "there is no account \"nobody\"").await;
}

#[tokio::test]
async fn a_reset_password_ends_every_session() {
    let world = World::start().await;
    let ada = world.sign_up("ada").await;
    let raw = RawClient::resume(&world.address(), ada.credentials.token.as_bytes()).await;
    let printed = admin(&world, &["accounts", "reset-password", "ada", "--generate"]).await;
    let password = printed.trim();
    assert_eq!(printed.lines().count(), 1);
    expect("the connection to end", raw.connection.closed()).await;
    assert_eq!(reason(log_in(&world, "ada", PASSWORD).await), Some(Reason::WrongCredentials));
    log_in(&world, "ada", password).await.unwrap();
    let output = admin_on(&data(&world), &["accounts", "reset-password", "ada"], b"short\n").await;
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.contains("a password has 8 to 1024 bytes") && !stderr.contains("short"), "{stderr}");
}

#[tokio::test]
async fn an_unlinked_device_is_out_and_the_others_stay() {
    let world = World::start().await;
    let (phone, laptop) = (world.sign_up("ada").await, world.log_in("ada").await);
    let listed = lines(&world, &["devices", "list", "ada", "--json"]).await;
    assert_eq!(listed.len(), 2);
    let raw = RawClient::resume(&world.address(), phone.credentials.token.as_bytes()).await;
    let device = phone.credentials.device.to_string();
    assert!(listed.iter().any(|listed| listed["device"] == device.as_str()));
    assert!(listed.iter().all(|listed| listed["platform"] == std::env::consts::OS));
    assert!(listed.iter().all(|listed| listed["last_seen_ms"].as_u64() >= listed["created_ms"].as_u64()));
    admin(&world, &["devices", "unlink", "ada", &device]).await;
    expect("the connection to end", raw.connection.closed()).await;
    let client = laptop.open().await;
    client.send(phone.account(), "still here").await.unwrap().accepted().await.unwrap();
    failed(&world, &["devices", "unlink", "ada", &device], "has no device").await;
    let people = admin(&world, &["devices", "list", "ada"]).await;
    assert!(
        people.starts_with("DEVICE ") && people.contains("PLATFORM") && people.lines().count() == 2,
        "{people}"
    );
}

#[tokio::test]
async fn an_invite_that_was_revoked_is_good_for_nobody() {
    let world = World::start_with(|options| {
        options.env.push(("QUAIL_ACCOUNTS_SIGN_UP".into(), "invite".into()));
    })
    .await;
    let created = lines(&world, &["invites", "create", "--count", "3", "--json"]).await;
    let code = |at: usize| created[0]["invites"][at].as_str().unwrap();
    let sign_up = async |handle: &str, code: &str| {
        let guest = Guest::connect(&world.address(), options()).await.unwrap();
        guest.sign_up(handle, PASSWORD, Some(code)).await
    };
    sign_up("ada", code(0)).await.unwrap();
    admin(&world, &["invites", "revoke", code(1)]).await;
    let listed = lines(&world, &["invites", "list", "--json"]).await;
    let open: Vec<_> = listed.iter().filter(|invite| invite["used_by"].is_null()).collect();
    assert_eq!((listed.len(), open.len()), (2, 1));
    admin(&world, &["invites", "revoke", open[0]["id"].as_str().unwrap()]).await;
    for at in [1, 2] {
        assert_eq!(reason(sign_up("bob", code(at)).await), Some(Reason::InviteInvalid));
    }
    failed(&world, &["invites", "revoke", code(0)], "it is used up").await;
    let people = admin(&world, &["invites", "list"]).await;
    assert!(people.contains("ada") && people.lines().count() == 2, "{people}");
}

#[tokio::test]
async fn who_administered_is_logged() {
    let mut world = World::start().await;
    admin(&world, &["accounts", "create", "ada"]).await;
    failed(&world, &["accounts", "disable", "eve"], "eve").await;
    world.daemon.stop().await.unwrap();
    let log = std::fs::read_to_string(world.directory.path().join("log")).unwrap();
    let lines: Vec<Value> = log.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let find = |command: &str| lines.iter().find(|line| line["command"] == command).unwrap();
    let created = find("accounts create");
    assert!(created["uid"].is_u64() && created["subject"] == "ada", "{created}");
    assert_eq!(find("accounts disable")["error"], "there is no account \"eve\"");
}

#[tokio::test]
async fn a_client_that_says_nothing_does_not_hold_up_a_stop() {
    let mut world = World::start_with(|options| {
        options.env.push(("QUAIL_SERVER_DRAIN".into(), "500ms".into()));
    })
    .await;
    let _silent = std::os::unix::net::UnixStream::connect(socket(&world)).unwrap();
    let stopped = tokio::time::timeout(Duration::from_secs(20), world.daemon.stop()).await;
    assert!(stopped.unwrap().unwrap().success());
}

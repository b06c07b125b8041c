//! The `quail` command as a person or a script uses it: against a real daemon, with wrong input too.
#![allow(clippy::unwrap_used, clippy::panic)] // Test code outside of #[test] functions.

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use quail_tests::{PASSWORD, World, binary, quaild};
use serde_json::Value;
use tempfile::TempDir;

/// A terminal: its own configuration directory, and a password in a file.
struct Terminal {
    directory: TempDir,
    address: String,
}

impl Terminal {
    fn new(world: &World) -> Self {
        let directory = TempDir::new().unwrap();
        std::fs::write(directory.path().join("password"), PASSWORD).unwrap();
        Self { directory, address: world.address().to_string() }
    }

    fn password(&self) -> PathBuf {
        self.directory.path().join("password")
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(binary("quail"));
        command.args(args).env("QUAIL_CONFIG_DIR", self.directory.path().join("config"));
        command.env_remove("QUAIL_PROFILE").env_remove("RUST_LOG").stdin(Stdio::null());
        command
    }

    /// Runs a command off the runtime's thread, so that harness and daemon go on.
    async fn run(&self, args: &[&str]) -> Output {
        let mut command = self.command(args);
        tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
    }

    async fn run_with_input(&self, args: &[&str], input: &[u8]) -> Output {
        let mut command = self.command(args);
        let input = input.to_vec();
        let run = move || {
            let mut child =
                command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
            // A command that refuses its arguments does not read its input.
            let _ = child.stdin.take().unwrap().write_all(&input);
            child.wait_with_output().unwrap()
        };
        tokio::task::spawn_blocking(run).await.unwrap()
    }

    /// Runs a command whose output nobody reads.
    async fn run_unread(&self, args: &[&str]) -> Output {
        let mut command = self.command(args);
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let run = move || command.stdout(writer).stderr(Stdio::piped()).spawn().unwrap().wait_with_output();
        tokio::task::spawn_blocking(move || run().unwrap()).await.unwrap()
    }

    async fn sign_up(&self, handle: &str) {
        let password = self.password().display().to_string();
        let args =
            ["signup", &self.address, "--handle", handle, "--profile", handle, "--password-file", &password];
        succeeded(&self.run(&args).await);
    }
}

fn succeeded(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn json(output: &Output) -> Value {
    serde_json::from_str(&succeeded(output)).unwrap()
}

fn failed(output: &Output, code: i32, says: &str) {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{stderr}");
    assert!(stderr.contains(says), "expected {says:?} in: {stderr}");
    assert!(!stderr.contains("panicked") && !stderr.contains(PASSWORD), "{stderr}");
}

#[tokio::test]
async fn what_goes_into_send_comes_out_of_tail() {
    let world = World::start().await;
    let terminal = Terminal::new(&world);
    terminal.sign_up("ada").await;
    terminal.sign_up("bob").await;
    let input = "plain\nwith a carriage return\r\n\n\tümläut 🐦\u{1b}[31m\nlast line without an end";
    let sent =
        terminal.run_with_input(&["send", "--profile", "ada", "bob", "--json"], input.as_bytes()).await;
    let lines: Vec<Value> =
        succeeded(&sent).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 5);
    assert!(lines.iter().all(|line| line["state"] == "accepted"));

    let tail = terminal.run(&["tail", "--profile", "bob", "--count", "5"]).await;
    assert_eq!(succeeded(&tail), format!("{input}\n"));
    // What was printed is acknowledged, so it does not come again.
    let again = terminal.run(&["tail", "--profile", "bob", "--until-caught-up"]).await;
    assert_eq!(succeeded(&again), "");

    let file = terminal.directory.path().join("file");
    std::fs::write(&file, "from a file\n").unwrap();
    let file = file.display().to_string();
    succeeded(&terminal.run(&["send", "--profile", "ada", "bob", "--file", &file]).await);
    let tail = json(&terminal.run(&["tail", "--profile", "bob", "--count", "1", "--json"]).await);
    assert_eq!((&tail["body"], &tail["handle"]), (&"from a file".into(), &"ada".into()));
}

#[tokio::test]
async fn wait_delivered_returns_when_the_other_side_has_taken_it() {
    let world = World::start().await;
    let terminal = Terminal::new(&world);
    terminal.sign_up("ada").await;
    terminal.sign_up("bob").await;
    let send = ["send", "--profile", "ada", "bob", "are you there?", "--wait", "delivered"];
    let nobody = terminal.run(&[&send[..], &["--timeout", "200ms"]].concat()).await;
    assert_eq!(nobody.status.code(), Some(1), "nobody has taken it");
    let (sent, tail) =
        tokio::join!(terminal.run(&send), terminal.run(&["tail", "--profile", "bob", "--count", "2"]));
    assert_eq!(succeeded(&tail), "are you there?\nare you there?\n");
    succeeded(&sent);
}

#[tokio::test]
async fn bad_input_is_refused_before_anything_is_sent() {
    let world = World::start().await;
    let terminal = Terminal::new(&world);
    terminal.sign_up("ada").await;
    terminal.sign_up("bob").await;
    let send = ["send", "--profile", "ada", "bob"];
    let long = [b"fine\n".to_vec(), vec![b'x'; 61_441], b"\n".to_vec()].concat();
    for (input, says) in [(&b"fine\nb\xffd\n"[..], "line 2"), (b"fine\na\0b\n", "line 2"), (&long, "line 2")]
    {
        failed(&terminal.run_with_input(&send, input).await, 1, says);
    }
    let tail = terminal.run(&["tail", "--profile", "bob", "--until-caught-up"]).await;
    assert_eq!(succeeded(&tail), "", "nothing of a refused input was sent");

    failed(&terminal.run(&["send", "--profile", "ada", "nobody", "hi"]).await, 1, "UNKNOWN_ACCOUNT");
    failed(&terminal.run(&["send", "--profile", "ada"]).await, 2, "HANDLE");
    failed(&terminal.run(&["whoami", "--profile", "stranger"]).await, 1, "quail login");
    failed(&terminal.run(&["ping", "quail://127.0.0.1:1?pin=sha256:00"]).await, 2, "64 hex digits");
    let password = terminal.password().display().to_string();
    let taken =
        ["signup", &terminal.address, "--handle", "ada", "--profile", "x", "--password-file", &password];
    failed(&terminal.run(&taken).await, 1, "HANDLE_TAKEN");
}

#[tokio::test]
async fn an_account_from_login_to_logout() {
    let world = World::start().await;
    let terminal = Terminal::new(&world);
    terminal.sign_up("ada").await;
    let password = terminal.password().display().to_string();
    let login =
        ["login", &terminal.address, "--handle", "ada", "--profile", "tablet", "--password-file", &password];
    succeeded(&terminal.run(&login).await);
    let phone = json(&terminal.run(&["whoami", "--profile", "ada", "--json"]).await);
    let tablet = json(&terminal.run(&["whoami", "--profile", "tablet", "--json"]).await);
    assert_eq!(phone["account"], tablet["account"]);
    assert_ne!(phone["device"], tablet["device"]);
    let ping = json(&terminal.run(&["ping", "--profile", "ada", "--json"]).await);
    assert_eq!(ping["key_exchange"], "X25519MLKEM768");

    let new = terminal.directory.path().join("new");
    std::fs::write(&new, "another secret").unwrap();
    let new = new.display().to_string();
    let passwd = ["passwd", "--profile", "ada", "--password-file", &password, "--new-password-file", &new];
    succeeded(&terminal.run(&passwd).await);
    // The other device is logged out, and the old password is of no use.
    failed(&terminal.run(&["send", "--profile", "tablet", "ada", "hi"]).await, 1, "UNAUTHENTICATED");
    let again =
        ["login", &terminal.address, "--handle", "ada", "--profile", "again", "--password-file", &password];
    failed(&terminal.run(&again).await, 1, "WRONG_CREDENTIALS");
    succeeded(&terminal.run(&["logout", "--profile", "ada"]).await);
    failed(&terminal.run(&["whoami", "--profile", "ada"]).await, 1, "quail login");
}

#[tokio::test]
async fn devices_are_listed_and_logged_out() {
    let world = World::start().await;
    let terminal = Terminal::new(&world);
    terminal.sign_up("ada").await;
    let password = terminal.password().display().to_string();
    for name in ["tablet", "phone", "twin"] {
        let (device, platform) = (if name == "twin" { "phone" } else { name }, "android 15");
        let account = ["login", &terminal.address, "--handle", "ada", "--profile", name];
        let device = ["--device-name", device, "--platform", platform, "--password-file", &password];
        succeeded(&terminal.run(&[&account[..], &device].concat()).await);
    }
    let devices =
        async |args: &[&str]| terminal.run(&[&["devices", "--profile", "ada"], args].concat()).await;
    let listed: Vec<Value> = succeeded(&devices(&["--json"]).await)
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(listed.len(), 4);
    assert_eq!((&listed[0]["current"], &listed[0]["platform"]), (&true.into(), &std::env::consts::OS.into()));
    assert_eq!((&listed[1]["name"], &listed[1]["platform"]), (&"tablet".into(), &"android 15".into()));
    let people = succeeded(&devices(&[]).await);
    assert!(people.starts_with("  NAME ") && people.lines().nth(1).unwrap().starts_with("* "), "{people}");

    let id = |at: usize| listed[at]["device"].as_str().unwrap().to_owned();
    failed(&devices(&["unlink", "phone"]).await, 2, "give the id, or more of it");
    failed(&devices(&["unlink", "fridge"]).await, 1, "quail devices lists");
    failed(&devices(&["unlink", ""]).await, 2, "DEVICE");
    failed(&devices(&["unlink", &id(0)]).await, 2, "quail logout");
    failed(&terminal.run(&["devices", "--profile", "stranger"]).await, 1, "quail login");
    let told = json(&devices(&["unlink", "tablet", "--json"]).await);
    assert_eq!((&told["device"], &told["current"]), (&id(1).into(), &false.into()));
    failed(&terminal.run(&["whoami", "--profile", "tablet", "--check"]).await, 1, "UNAUTHENTICATED");
    failed(&devices(&["unlink", "tablet"]).await, 1, "you have no device");
    assert_eq!(succeeded(&devices(&["unlink", &id(2)[..13]]).await), "phone is logged out\n");

    succeeded(&devices(&["unlink", &id(0), "--yes"]).await);
    failed(&terminal.run(&["whoami", "--profile", "ada"]).await, 1, "quail login");
    let left = succeeded(&terminal.run(&["devices", "--profile", "twin", "--json"]).await);
    assert_eq!(left.lines().count(), 1, "{left}");
    let login = ["login", &terminal.address, "--handle", "ada", "--profile", "x", "--platform"];
    failed(&terminal.run(&[&login[..], &[&"x".repeat(33)]].concat()).await, 2, "up to 32 bytes");
}

#[tokio::test]
async fn credentials_are_for_their_owner_only() {
    use std::os::unix::fs::PermissionsExt;
    let world = World::start().await;
    let terminal = Terminal::new(&world);
    terminal.sign_up("ada").await;
    let mut directories = vec![terminal.directory.path().join("config")];
    let mut files = 0;
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(directory).unwrap() {
            let entry = entry.unwrap();
            if entry.file_type().unwrap().is_dir() {
                directories.push(entry.path());
            } else {
                assert_eq!(entry.metadata().unwrap().permissions().mode() & 0o077, 0, "{:?}", entry.path());
                files += 1;
            }
        }
    }
    assert!(files > 0);
}

#[test]
fn completions_are_printed_for_every_shell() {
    for shell in ["bash", "zsh", "fish"] {
        let output = Command::new(binary("quail")).args(["completions", shell]).output().unwrap();
        assert!(succeeded(&output).contains("quail"), "{shell}");
    }
}

#[test]
fn the_demo_loses_nothing_and_says_so() {
    let directory = TempDir::new().unwrap();
    let input = directory.path().join("input");
    let text: String =
        (0..600).map(|number| format!("line {number} {}\n", "~".repeat(number % 90))).collect();
    std::fs::write(&input, text).unwrap();
    let mut command = Command::new(binary("quail"));
    command.args(["demo", "--json", "--kills", "3", "--input"]).arg(&input).arg("--daemon").arg(quaild());
    let report = json(&command.output().unwrap());
    for (name, value) in [
        ("lines", 600),
        ("accepted", 600),
        ("delivered", 600),
        ("duplicates", 0),
        ("missing", 0),
        ("out_of_order", 0),
        ("kills", 3),
    ] {
        assert_eq!(report[name], value, "{name} in {report}");
    }
    assert!(report["elapsed_s"].as_f64().unwrap() > 0.0);
    assert!(report["confirm_ms"]["p50"].as_f64().unwrap() <= report["confirm_ms"]["p99"].as_f64().unwrap());
}

#[tokio::test]
async fn what_was_read_is_told_to_who_waits_for_it_unless_it_is_private() {
    let world = World::start().await;
    let terminal = Terminal::new(&world);
    for handle in ["ada", "bob"] {
        terminal.sign_up(handle).await;
    }
    let privacy =
        async |args: &[&str]| terminal.run(&[&["privacy", "--profile", "bob"], args].concat()).await;
    assert_eq!(succeeded(&privacy(&[]).await), "  read receipts  on\n");
    let send = ["send", "bob", "hi", "--profile", "ada", "--wait", "read", "--timeout"];
    let (long, short) = ([&send[..], &["60s", "--json"]].concat(), [&send[..], &["2s"]].concat());
    let tail = ["tail", "--profile", "bob", "--read", "--count", "1"];
    let (sent, shown) = tokio::join!(terminal.run(&long), terminal.run(&tail));
    assert_eq!((&json(&sent)["state"], &*succeeded(&shown)), (&"read".into(), "hi\n"));

    assert_eq!(json(&privacy(&["read-receipts", "off", "--json"]).await)["read_receipts"], false);
    let (sent, shown) = tokio::join!(terminal.run(&short), terminal.run(&tail));
    succeeded(&shown);
    failed(&sent, 1, "NOT_READ");
    failed(&privacy(&["read-receipts", "perhaps"]).await, 2, "on");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_said_is_listed_read_searched_and_synced() {
    let world = World::start().await;
    let terminal = Terminal::new(&world);
    terminal.sign_up("ada").await;
    terminal.sign_up("bob").await;
    for text in ["See you at eight", "Bring the maps\u{1b}[2J"] {
        succeeded(&terminal.run(&["send", "--profile", "ada", "bob", text]).await);
    }
    let ask = async |args: &[&str]| terminal.run(&[args, &["--profile", "bob"]].concat()).await;
    // The archive comes a moment behind.
    let began = std::time::Instant::now();
    let listed = loop {
        let listed = ask(&["conversations", "--json"]).await;
        if !listed.stdout.is_empty() && json(&listed)["unread"] == 2 {
            break json(&listed);
        }
        assert!(began.elapsed() < quail_tests::PATIENCE, "the archive comes");
    };
    assert_eq!((&listed["handle"], &listed["seq"]), (&"ada".into(), &2.into()));
    let table = succeeded(&ask(&["conversations"]).await);
    assert!(table.starts_with("HANDLE  UNREAD  LAST") && table.contains("ada          2  20"), "{table}");
    let history = succeeded(&ask(&["history", "ada"]).await);
    let lines: Vec<_> = history.lines().collect();
    assert!(lines[0].ends_with(" ada: See you at eight"), "{history}");
    assert!(lines[1].ends_with(" ada: Bring the maps\\u{1b}[2J"), "a terminal is not obeyed: {history}");
    let first = ask(&["history", "ada", "--first", "--count", "1", "--json"]).await;
    assert_eq!(json(&first)["body"], "See you at eight");
    let found = json(&ask(&["search", "map*", "--with", "ada", "--json"]).await);
    assert_eq!(found["highlights"], serde_json::json!([[10, 14]]));
    assert_eq!(succeeded(&ask(&["search", "from:bob", "maps"]).await), "");
    let state = terminal.directory.path().join("seqs.json").display().to_string();
    for args in
        [&["sync", "--state", &state, "--json"][..], &["history", "ada", "--all"], &["search", "maps"]]
    {
        let gone = terminal.run_unread(&[args, &["--profile", "bob"]].concat()).await;
        assert_eq!((succeeded(&gone), &*gone.stderr), (String::new(), &[][..]), "{args:?}");
    }
    assert!(!std::path::Path::new(&state).exists(), "what nobody read was not synced");
    let synced = succeeded(&ask(&["sync", "--state", &state, "--json"]).await);
    assert_eq!(synced.lines().filter(|line| line.contains("\"kind\":\"message\"")).count(), 2, "{synced}");
    let synced = succeeded(&ask(&["sync", "--state", &state, "--json"]).await);
    assert!(synced.starts_with("{\"kind\":\"caught_up\""), "nothing is new: {synced}");
    std::fs::write(&state, "{").unwrap();
    failed(&ask(&["sync", "--state", &state]).await, 1, "remove this one");
    let set = ask(&["conversations", "set", "ada", "--mute", "on", "--put-away", "on", "--json"]).await;
    assert_eq!((&json(&set)["muted"], &json(&set)["pinned"]), (&true.into(), &Value::Null));
    let table = succeeded(&ask(&["conversations"]).await);
    assert!(table.contains("\nada (muted, put away)       2  20"), "{table}");
    succeeded(&ask(&["conversations", "set", "ada", "--mute", "off"]).await);
    let listed = json(&ask(&["conversations", "--json"]).await);
    assert_eq!((&listed["muted"], &listed["put_away"]), (&false.into(), &true.into()));
    failed(&ask(&["conversations", "set", "ada"]).await, 2, "usage:");
    failed(&ask(&["conversations", "set", "bob", "--pin", "on"]).await, 1, "nothing was said between you");
    failed(&ask(&["history", "bob"]).await, 1, "nothing was said between you");
    let early = json(&ask(&["read", "ada", "--json"]).await);
    assert_eq!((&early["read"], &early["unread"]), (&2.into(), &2.into()), "nothing was taken yet");
    succeeded(&ask(&["tail", "--count", "2"]).await);
    let read = json(&ask(&["read", "ada", "--json"]).await);
    assert_eq!(read["unread"], 0, "{read}");
    assert_eq!(json(&ask(&["conversations", "--json"]).await)["unread"], 0);
    assert_eq!(succeeded(&ask(&["read", "ada"]).await), "nothing of ada is unread\n");
    failed(&ask(&["history", "nobody"]).await, 1, "check how the handle is written");
    failed(&ask(&["history", "ada", "--count", "0"]).await, 2, "invalid value");
}

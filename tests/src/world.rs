//! A daemon and the people who use it.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use quail::launcher::{Daemon, DaemonOptions, LogTarget};
use quail_client::{
    AccountId, Address, Client, Credentials, Delivery, Event, Events, Guest, MemoryStore, Message, Options,
};
use tempfile::TempDir;
use tokio::io::AsyncWriteExt;

use crate::expect;

/// The password of everybody in tests.
pub const PASSWORD: &str = "correct horse battery";

/// Returns the path of a binary of this build.
pub fn binary(name: &str) -> PathBuf {
    let exe = std::env::current_exe().expect("the test knows its own path");
    let profile = exe.parent().and_then(|deps| deps.parent()).expect("test executables lie in deps/");
    let path = profile.join(name);
    assert!(path.exists(), "{} is not built; run: cargo build --workspace --bins", path.display());
    path
}

/// Returns the `quaild` of this build, and refuses one whose sources are not those of this harness.
pub fn quaild() -> PathBuf {
    static CHECKED: OnceLock<PathBuf> = OnceLock::new();
    let checked = CHECKED.get_or_init(|| {
        let path = binary("quaild");
        assert!(
            is_current(&path),
            "{} is of other sources; run: cargo build --workspace --bins",
            path.display()
        );
        path
    });
    checked.clone()
}

/// Returns the daemon that was built with a feature for tests, `quaild-FEATURE`, or `None` if it is missing and that
/// [skips](missing) the test.
pub fn quaild_with(feature: &str) -> Option<PathBuf> {
    let name = format!("quaild-{feature}");
    let path = quaild().with_file_name(&name);
    let need = format!(
        "{name} is not built, or of other sources; \
         run: cargo build --workspace --features quaild/{feature} --bin {name}"
    );
    (is_current(&path) || !missing(&need)).then_some(path)
}

/// Fails the test over something that it needs and this machine lacks. With `QUAIL_SKIP_MISSING=1` it says that the test is
/// skipped, and returns.
pub fn missing(need: &str) -> bool {
    assert!(
        std::env::var_os("QUAIL_SKIP_MISSING").is_some_and(|value| value == "1"),
        "{need} (or set QUAIL_SKIP_MISSING=1 to skip this test)"
    );
    println!("SKIPPED: {need}");
    true
}

/// Returns whether a daemon runs and is of the sources of this harness.
fn is_current(daemon: &Path) -> bool {
    let version = std::process::Command::new(daemon).arg("--version").output();
    version.is_ok_and(|output| String::from_utf8_lossy(&output.stdout).contains(env!("QUAIL_FINGERPRINT")))
}

/// A daemon with a data directory of its own.
pub struct World {
    /// The daemon.
    pub daemon: Daemon,
    /// Its data directory and log; gone with the world.
    pub directory: TempDir,
}

/// Somebody with an account: their credentials and what their device keeps.
#[derive(Clone)]
pub struct Person {
    /// The session of the device.
    pub credentials: Credentials,
    /// What the device keeps over restarts of the client.
    pub store: Arc<MemoryStore>,
    /// How its client connects.
    pub options: Options,
    address: Address,
}

impl World {
    /// Starts a daemon on embedded defaults.
    pub async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    /// Starts a daemon with other options.
    pub async fn start_with(change: impl FnOnce(&mut DaemonOptions)) -> Self {
        let directory = TempDir::new().expect("a temporary directory");
        let mut options = DaemonOptions::new(quaild(), directory.path().join("data"));
        options.log = LogTarget::File(directory.path().join("log"));
        options.env.push(("QUAIL_OPS_LISTEN".into(), "127.0.0.1:0".into()));
        change(&mut options);
        let daemon = Daemon::start(options).await.expect("the daemon starts");
        Self { daemon, directory }
    }

    /// Returns the daemon's address.
    pub fn address(&self) -> Address {
        self.daemon.address().clone()
    }

    /// Returns the address of the ops port, as the log of the last start tells it.
    pub fn ops_address(&self) -> SocketAddr {
        let log = self.log();
        let lines = log.lines().rev().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
        let told = lines.filter(|line| line["message"] == "health and metrics");
        let address = told.filter_map(|line| line["address"].as_str()?.parse().ok()).next();
        address.expect("the log tells where the ops port is")
    }

    /// Creates an account with a first device.
    pub async fn sign_up(&self, handle: &str) -> Person {
        let guest = Guest::connect(&self.address(), options()).await.expect("a guest connects");
        let credentials = guest.sign_up(handle, PASSWORD, None).await.expect("sign up");
        guest.close().await;
        self.person(credentials)
    }

    /// Opens a session for another device of an account.
    pub async fn log_in(&self, handle: &str) -> Person {
        let guest = Guest::connect(&self.address(), options()).await.expect("a guest connects");
        let credentials = guest.log_in(handle, PASSWORD).await.expect("log in");
        guest.close().await;
        self.person(credentials)
    }

    /// Creates many accounts with a device each, without asking for passwords.
    pub async fn people(&self, count: usize) -> Vec<Person> {
        let handles: String = (0..count).map(|number| format!("person{number:04}\n")).collect();
        let mut command = self.daemon.command();
        command.args(["admin", "accounts", "create", "--handles-from", "-", "--session", "--json"]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit()).kill_on_drop(true);
        let mut child = command.spawn().expect("quaild runs");
        let mut stdin = child.stdin.take().expect("a pipe");
        let feeding = async move { stdin.write_all(handles.as_bytes()).await.expect("quaild reads") };
        let ((), output) =
            expect("the accounts", async { tokio::join!(feeding, child.wait_with_output()) }).await;
        let output = String::from_utf8(output.expect("quaild ends").stdout).expect("text");
        let credentials = output.lines().map(|line| serde_json::from_str(line).expect("credentials"));
        credentials.map(|credentials| self.person(credentials)).collect()
    }

    fn person(&self, credentials: Credentials) -> Person {
        let (store, address) = (Arc::new(MemoryStore::new()), self.address());
        Person { credentials, store, options: options(), address }
    }

    /// Returns the log of all lives of the daemon.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("log")).expect("the daemon logs")
    }

    /// Kills the daemon with SIGKILL and starts it again on the same port and data directory.
    pub async fn kill_and_restart(&mut self) {
        self.daemon.kill().await.expect("the daemon can be killed");
        self.daemon.restart().await.expect("the daemon starts again");
    }
}

impl Drop for World {
    /// Says what the daemon complained of, if the test failed: its log goes with it.
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        let log = std::fs::read_to_string(self.directory.path().join("log")).unwrap_or_default();
        let complaints = log.lines().filter(|line| line.contains("WARN") || line.contains("ERROR"));
        for line in complaints.take(20) {
            eprintln!("{line}");
        }
    }
}

/// Client options of tests: like everybody's, but quick to try again.
pub fn options() -> Options {
    Options {
        client_name: "quail-tests".to_owned(),
        backoff_min: Duration::from_millis(10),
        backoff_max: Duration::from_millis(200),
        // A client that only listens finds out by a keep-alive that its daemon was killed.
        keep_alive: Duration::from_millis(250),
        ..Options::default()
    }
}

impl Person {
    /// Returns the account's id.
    pub fn account(&self) -> AccountId {
        self.credentials.account
    }

    /// Returns the same device, which finds its daemon elsewhere from now on: behind a proxy.
    pub fn by_way_of(&self, address: Address) -> Self {
        Self { address, ..self.clone() }
    }

    /// Opens this device's client.
    pub async fn open(&self) -> Client {
        let opened = Client::open(&self.address, &self.credentials, self.store.clone(), self.options.clone());
        expect("a client", opened).await.expect("the client opens")
    }
}

/// Returns the next message without acknowledging it.
pub async fn next_delivery(events: &mut Events) -> (Delivery, Message) {
    loop {
        let delivery = expect("the next event", events.next()).await.expect("the feed is open");
        match &delivery.event {
            Event::Message(message) => {
                let message = message.clone();
                return (delivery, message);
            }
            Event::CaughtUp => drop(delivery.acknowledge()),
            other => panic!("expected a message, got {other:?}"),
        }
    }
}

/// Returns the next message and acknowledges it.
pub async fn next_message(events: &mut Events) -> Message {
    let (delivery, message) = next_delivery(events).await;
    delivery.acknowledge();
    message
}

/// Returns the text of a message.
pub fn text(message: &Message) -> &str {
    message.body.as_text().expect("a text body")
}

//! The daemon under a service manager: what it tells, and the unit that runs it.
#![allow(clippy::unwrap_used, clippy::panic)] // Test code outside of #[test] functions.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use quail::launcher::Signal;
use quail_tests::{World, expect, quaild};
use tempfile::TempDir;
use tokio::net::UnixDatagram;

/// Highest exposure that `systemd-analyze security` may see, in tenths. 0 is a service that can do nothing.
const EXPOSURE_MAX: &str = "15";

/// A service manager: the socket on which it is told.
struct Manager {
    socket: UnixDatagram,
    directory: TempDir,
}

impl Manager {
    fn new() -> Self {
        let directory = TempDir::new().unwrap();
        let socket = UnixDatagram::bind(directory.path().join("notify")).unwrap();
        Self { socket, directory }
    }

    /// Starts a daemon as a manager does: with its socket, and with a watchdog for that process if there is one.
    async fn start(&self, watchdog: Option<Duration>) -> World {
        let script = self.directory.path().join("quaild");
        let watchdog = watchdog.map_or(String::new(), |patience| {
            format!("export WATCHDOG_PID=$$ WATCHDOG_USEC={}\n", patience.as_micros())
        });
        std::fs::write(&script, format!("#!/bin/sh\n{watchdog}exec {} \"$@\"\n", quaild().display()))
            .unwrap();
        std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
        let notify = self.directory.path().join("notify");
        World::start_with(|options| {
            options.quaild = script;
            options.env.push(("NOTIFY_SOCKET".into(), notify.into()));
        })
        .await
    }

    /// Returns the lines of the next message.
    async fn next(&self) -> Vec<String> {
        let mut buffer = [0; 4096];
        let len = expect("a message", self.socket.recv(&mut buffer)).await.unwrap();
        String::from_utf8_lossy(&buffer[..len]).lines().map(str::to_owned).collect()
    }

    /// Waits for a message with a line and returns the message.
    async fn told(&self, line: &str) -> Vec<String> {
        expect(line, async {
            loop {
                let message = self.next().await;
                if message.iter().any(|told| told == line) {
                    return message;
                }
            }
        })
        .await
    }
}

#[tokio::test]
async fn the_manager_is_told_of_start_reload_and_stop() {
    let manager = Manager::new();
    let mut world = manager.start(None).await;
    assert_eq!(manager.next().await, ["READY=1"]);
    assert_eq!(manager.next().await, ["STATUS=Serving, 0 connections"]);
    world.daemon.signal(Signal::HUP).unwrap();
    let reloading = manager.told("RELOADING=1").await;
    assert!(reloading.iter().any(|line| line.starts_with("MONOTONIC_USEC=")), "{reloading:?}");
    assert_eq!(manager.next().await, ["READY=1"]);
    world.daemon.signal(Signal::TERM).unwrap();
    let stopping = manager.told("STOPPING=1").await;
    assert!(stopping.iter().any(|line| line == "EXTEND_TIMEOUT_USEC=20000000"), "{stopping:?}");
    assert!(expect("the end", world.daemon.wait()).await.unwrap().success());
}

#[tokio::test]
async fn the_watchdog_is_told_that_the_daemon_is_alive_and_how_it_is() {
    let manager = Manager::new();
    let world = manager.start(Some(Duration::from_millis(400))).await;
    for _ in 0..5 {
        manager.told("WATCHDOG=1").await;
    }
    let ada = world.sign_up("ada").await;
    let client = ada.open().await;
    client.send(ada.account(), "hello").await.unwrap().accepted().await.unwrap();
    manager.told("STATUS=Serving, 1 connections").await;
    client.close().await.unwrap();
    manager.told("STATUS=Serving, 0 connections").await;
}

#[tokio::test]
async fn a_watchdog_of_another_process_is_none() {
    let directory = TempDir::new().unwrap();
    let socket = UnixDatagram::bind(directory.path().join("notify")).unwrap();
    let manager = Manager { socket, directory };
    let notify = manager.directory.path().join("notify");
    let world = World::start_with(|options| {
        options.env.push(("NOTIFY_SOCKET".into(), notify.into()));
        options.env.push(("WATCHDOG_USEC".into(), "20000".into()));
        // Process 1 is certainly another one.
        options.env.push(("WATCHDOG_PID".into(), "1".into()));
    })
    .await;
    let mut world = world;
    world.daemon.signal(Signal::TERM).unwrap();
    let mut messages = Vec::new();
    while messages.last().is_none_or(|last: &Vec<String>| last[0] != "STOPPING=1") {
        messages.push(manager.next().await);
    }
    assert!(messages.iter().flatten().all(|line| line != "WATCHDOG=1"), "{messages:?}");
    world.daemon.wait().await.unwrap();
}

/// Runs `systemd-analyze`, or says that it is not there.
fn analyze(args: &[&str], unit: &Path) -> Option<Output> {
    match Command::new("systemd-analyze").args(args).arg(unit).output() {
        Ok(output) => Some(output),
        Err(error) => {
            println!("SKIPPED: systemd-analyze {}: {error}", args.join(" "));
            None
        }
    }
}

/// The unit with this build's daemon in it, since the installed one is not there.
fn unit(directory: &TempDir) -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../daemon/systemd/quaild.service");
    let unit = std::fs::read_to_string(source).unwrap();
    let installed = "ExecStart=/usr/local/bin/quaild";
    assert!(unit.contains(installed));
    let path = directory.path().join("quaild.service");
    std::fs::write(&path, unit.replace(installed, &format!("ExecStart={}", quaild().display()))).unwrap();
    path
}

#[test]
fn the_unit_is_one_that_systemd_accepts() {
    let directory = TempDir::new().unwrap();
    let unit = unit(&directory);
    let Some(output) = analyze(&["verify", "--man=no"], &unit) else { return };
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    // It also speaks of other units of this machine; of ours it must have nothing to say.
    assert!(!said.contains("quaild.service"), "{said}");

    // What verify would say if it had something to say.
    let broken =
        std::fs::read_to_string(&unit).unwrap().replace("ProtectSystem=strict", "ProtectSystm=strict");
    let path = directory.path().join("broken.service");
    std::fs::write(&path, broken).unwrap();
    let said = analyze(&["verify", "--man=no"], &path).unwrap().stderr;
    assert!(String::from_utf8_lossy(&said).contains("ProtectSystm"));
}

#[test]
fn the_user_of_the_unit_is_one_that_systemd_makes() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../daemon/systemd/quail.sysusers");
    let unit = std::fs::read_to_string(source.with_file_name("quaild.service")).unwrap();
    assert!(unit.contains("\nUser=quail\nGroup=quail\n"));
    let root = TempDir::new().unwrap();
    let mut command = Command::new("systemd-sysusers");
    command.arg("--dry-run").arg(format!("--root={}", root.path().display())).arg("-");
    command.stdin(std::fs::File::open(source).unwrap());
    match command.output() {
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success() && said.contains("Creating user 'quail'"), "{said}");
        }
        Err(error) => println!("SKIPPED: systemd-sysusers: {error}"),
    }
}

#[test]
fn the_unit_gives_the_daemon_little() {
    let directory = TempDir::new().unwrap();
    let threshold = format!("--threshold={EXPOSURE_MAX}");
    let args = ["security", "--offline=true", "--no-pager", &threshold];
    let Some(output) = analyze(&args, &unit(&directory)) else { return };
    let table = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{table}{}", String::from_utf8_lossy(&output.stderr));
}

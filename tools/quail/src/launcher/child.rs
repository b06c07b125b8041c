//! The process of a private daemon: one start, one end.
//!
//! Invariants: the process leads a group of its own, so that a Ctrl-C in the terminal does not reach it and a kill
//! reaches all that it started; it is waited for, whatever ends the value that holds it; its stdout is read to the end,
//! so that it never blocks on a full pipe.

use std::ffi::OsStr;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};

use quail_client::Address;
use rustix::process::{Pid, Signal};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::{Child, ChildStdout, Command};
use tokio::task::JoinSet;

use super::{DaemonOptions, LauncherError, LogTarget, START_TIMEOUT};

/// Longest first line that is read. An address has some hundred bytes.
const LINE_BYTES_MAX: u64 = 4096;

/// How much of the log an error quotes.
const LOG_TAIL_BYTES: u64 = 2048;

/// How long a process whose stdout has ended is given to end itself, so that its exit status can be told.
const EXIT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a drop waits for a killed process, and how often it looks. The kernel takes a millisecond, unless the
/// process hangs in a disk's driver.
const REAP_TIMEOUT: Duration = Duration::from_secs(5);
const REAP_INTERVAL: Duration = Duration::from_millis(1);

/// Variables of other programs' business with this process that the child must not take for its own.
const FOREIGN: &[&str] = &["RUST_LOG", "NOTIFY_SOCKET", "LISTEN_FDS", "LISTEN_PID", "STATE_DIRECTORY"];

/// What private daemons have that others have not: a port of their own for operators, as for clients, so that many run
/// beside each other.
const DEFAULT_ENV: &[(&str, &str)] = &[("QUAIL_OPS_LISTEN", "127.0.0.1:0")];

/// A process that has been started and not been waited for.
#[derive(Debug)]
pub(super) struct Running {
    child: Child,
    pid: Pid,
    is_reaped: bool,
    /// Reads what the process prints after its address. Aborted with the value.
    _stdout: JoinSet<()>,
}

impl Running {
    /// Starts a process and returns it with the address that it printed.
    pub(super) async fn start(options: &DaemonOptions) -> Result<(Self, Address), LauncherError> {
        let spawn_failed = |source| LauncherError::Spawn { path: options.quaild.clone(), source };
        let mut child = command(options)?.spawn().map_err(spawn_failed)?;
        let raw_pid = child.id().and_then(|id| i32::try_from(id).ok());
        let (pid, stdout) = match (raw_pid.and_then(Pid::from_raw), child.stdout.take()) {
            (Some(pid), Some(stdout)) => (pid, stdout),
            _ => return Err(spawn_failed(io::Error::other("it has no id or no stdout"))),
        };
        let mut running = Self { child, pid, is_reaped: false, _stdout: JoinSet::new() };
        let mut stdout = BufReader::new(stdout);
        let line = match tokio::time::timeout(START_TIMEOUT, first_line(&mut stdout)).await {
            Ok(line) => line.map_err(LauncherError::Wait)?,
            Err(_) => {
                let (waited, log) = (START_TIMEOUT, log_tail(&options.log));
                return Err(LauncherError::NotReady { waited, log });
            }
        };
        if line.is_empty() {
            return Err(running.ended_early(&options.log).await);
        }
        let address = line.trim_end().parse().map_err(|_| LauncherError::NoAddress { line })?;
        running._stdout.spawn(async move {
            // An error is the end as well.
            let _ = tokio::io::copy(&mut stdout, &mut tokio::io::sink()).await;
        });
        Ok((running, address))
    }

    /// Returns the process id.
    pub(super) fn pid(&self) -> u32 {
        self.pid.as_raw_nonzero().get().unsigned_abs()
    }

    /// Sends a signal to the process.
    pub(super) fn signal(&self, signal: Signal) -> Result<(), LauncherError> {
        rustix::process::kill_process(self.pid, signal)
            .map_err(|error| LauncherError::Signal { signal: format!("{signal:?}"), source: error.into() })
    }

    /// Kills the process group and waits for the process.
    pub(super) async fn kill(&mut self) -> Result<(), LauncherError> {
        self.kill_group();
        self.wait().await.map(drop)
    }

    /// Waits until the process ends.
    pub(super) async fn wait(&mut self) -> Result<ExitStatus, LauncherError> {
        let status = self.child.wait().await.map_err(LauncherError::Wait)?;
        self.is_reaped = true;
        Ok(status)
    }

    /// Its stdout ended without an address, so it is ending, or about to be made to.
    async fn ended_early(&mut self, log: &LogTarget) -> LauncherError {
        match tokio::time::timeout(EXIT_TIMEOUT, self.wait()).await {
            Ok(Ok(status)) => LauncherError::Exited { status, log: log_tail(log) },
            Ok(Err(error)) => error,
            Err(_) => LauncherError::NotReady { waited: EXIT_TIMEOUT, log: log_tail(log) },
        }
    }

    fn kill_group(&self) {
        // It fails if the group is gone already, which is what is wanted.
        let _ = rustix::process::kill_process_group(self.pid, Signal::KILL);
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Once it was waited for, its number may be another process's.
        if self.is_reaped {
            return;
        }
        self.kill_group();
        let deadline = Instant::now() + REAP_TIMEOUT;
        while matches!(self.child.try_wait(), Ok(None)) && Instant::now() < deadline {
            std::thread::sleep(REAP_INTERVAL);
        }
    }
}

fn command(options: &DaemonOptions) -> Result<Command, LauncherError> {
    let mut command = program(options);
    command
        .arg("--listen")
        .arg(options.listen.to_string())
        .args(&options.args)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(stderr(&options.log)?)
        .process_group(0)
        .kill_on_drop(true);
    Ok(command)
}

/// The program on its data directory, in its environment.
pub(super) fn program(options: &DaemonOptions) -> Command {
    let mut command = Command::new(&options.quaild);
    command.arg("--data").arg(&options.data);
    for name in std::env::vars_os().map(|(name, _)| name).filter(|name| is_foreign(name)) {
        command.env_remove(name);
    }
    command.envs(DEFAULT_ENV.iter().copied());
    command.envs(options.env.iter().map(|(name, value)| (name, value)));
    command
}

fn is_foreign(name: &OsStr) -> bool {
    name.as_encoded_bytes().starts_with(b"QUAIL_") || FOREIGN.iter().any(|foreign| name == *foreign)
}

fn stderr(log: &LogTarget) -> Result<Stdio, LauncherError> {
    match log {
        LogTarget::File(path) => {
            let file = OpenOptions::new().create(true).append(true).open(path);
            let failed = |source| LauncherError::Log { path: path.clone(), source };
            file.map(Stdio::from).map_err(failed)
        }
        LogTarget::Inherit => Ok(Stdio::inherit()),
        LogTarget::Discard => Ok(Stdio::null()),
    }
}

/// Reads the first line, or nothing if there is none.
async fn first_line(stdout: &mut BufReader<ChildStdout>) -> io::Result<String> {
    let mut line = Vec::new();
    stdout.take(LINE_BYTES_MAX).read_until(b'\n', &mut line).await?;
    Ok(String::from_utf8_lossy(&line).into_owned())
}

/// Returns the last whole lines of a log file, as far as they can be read.
pub(super) fn log_tail(log: &LogTarget) -> String {
    let LogTarget::File(path) = log else {
        return String::new();
    };
    let read = || -> io::Result<String> {
        let mut file = File::open(path)?;
        let start = file.metadata()?.len().saturating_sub(LOG_TAIL_BYTES);
        file.seek(SeekFrom::Start(start))?;
        let mut bytes = Vec::new();
        file.take(LOG_TAIL_BYTES).read_to_end(&mut bytes)?;
        let text = String::from_utf8_lossy(&bytes);
        // The first line is cut, unless the file began here.
        let whole = text.split_once('\n').map(|(_, rest)| rest).filter(|_| start > 0);
        Ok(whole.unwrap_or(&text).to_owned())
    };
    read().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;
    use std::path::Path;

    use super::super::Daemon;
    use super::*;

    /// A shell script in the place of a daemon: what is tested here is the launcher.
    fn script(directory: &Path, body: &str) -> DaemonOptions {
        let path = directory.join("quaild");
        fs::write(&path, format!("#!/bin/sh\n{body}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        DaemonOptions {
            log: LogTarget::File(directory.join("log")),
            ..DaemonOptions::new(path, directory.join("data"))
        }
    }

    const SERVE: &str = "echo quail://localhost:7001";

    fn is_alive(pid: u32) -> bool {
        // A process that is dead and not waited for still has an entry.
        fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
    }

    #[tokio::test]
    async fn it_serves_when_its_address_is_printed_and_stops_when_asked() {
        let directory = tempfile::tempdir().unwrap();
        let body = format!("trap 'exit 7' TERM\n{SERVE}\nwhile :; do sleep 0.01; done");
        let mut daemon = Daemon::start(script(directory.path(), &body)).await.unwrap();
        assert_eq!(daemon.address().to_string(), "quail://localhost:7001");
        let pid = daemon.pid().unwrap();
        assert!(is_alive(pid));
        assert_eq!(daemon.stop().await.unwrap().code(), Some(7));
        assert!(!is_alive(pid) && daemon.pid().is_none());
        assert!(matches!(daemon.stop().await, Err(LauncherError::NotRunning)));
    }

    #[tokio::test]
    async fn a_drop_kills_all_that_the_process_started() {
        let directory = tempfile::tempdir().unwrap();
        let child = directory.path().join("child");
        let body = format!("sleep 600 &\necho $! >{}\n{SERVE}\nwait", child.display());
        let daemon = Daemon::start(script(directory.path(), &body)).await.unwrap();
        let child: u32 = fs::read_to_string(child).unwrap().trim().parse().unwrap();
        let leader = daemon.pid().unwrap();
        assert!(is_alive(child));
        drop(daemon);
        assert!(!is_alive(leader));
        let deadline = Instant::now() + Duration::from_secs(5);
        while is_alive(child) && Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert!(!is_alive(child), "the child is another's to wait for, but dead");
    }

    #[tokio::test]
    async fn a_restart_keeps_port_and_data() {
        let directory = tempfile::tempdir().unwrap();
        let body = format!("echo \"$@\" >&2\n{SERVE}\nexec sleep 600");
        let mut daemon = Daemon::start(script(directory.path(), &body)).await.unwrap();
        let before = daemon.pid().unwrap();
        daemon.restart().await.unwrap();
        assert!(!is_alive(before) && is_alive(daemon.pid().unwrap()));
        let data = directory.path().join("data");
        let line = |port: u16| format!("--data {} --listen 127.0.0.1:{port}\n", data.display());
        assert_eq!(daemon.log_tail(), line(0) + &line(7001));
    }

    #[tokio::test]
    async fn a_daemon_that_does_not_come_up_is_quoted() {
        let directory = tempfile::tempdir().unwrap();
        let error = Daemon::start(script(directory.path(), "echo no disk >&2; exit 3")).await;
        let error = error.unwrap_err().to_string();
        assert_eq!(error, "quaild ended before it served: exit status: 3; its log ends with:\nno disk");
        let error = Daemon::start(script(directory.path(), "echo hello; sleep 600")).await;
        assert!(matches!(error, Err(LauncherError::NoAddress { line }) if line == "hello\n"));
    }

    #[tokio::test]
    async fn only_the_environment_that_was_given_arrives() {
        let directory = tempfile::tempdir().unwrap();
        let mut options = script(directory.path(), &format!("env >&2\n{SERVE}\nexec sleep 600"));
        options.env.push(("QUAIL_SERVER_NAME".into(), "test".into()));
        options.env.push(("QUAIL_OPS_LISTEN".into(), "127.0.0.1:7".into()));
        let daemon = Daemon::start(options).await.unwrap();
        let log = fs::read_to_string(directory.path().join("log")).unwrap();
        let mut ours: Vec<_> = log.lines().filter(|line| line.starts_with("QUAIL_")).collect();
        ours.sort_unstable();
        assert_eq!(ours, ["QUAIL_OPS_LISTEN=127.0.0.1:7", "QUAIL_SERVER_NAME=test"]);
        drop(daemon);
        assert!(
            ["QUAIL_X", "RUST_LOG"].map(OsStr::new).into_iter().all(is_foreign)
                && !is_foreign(OsStr::new("PATH"))
        );
    }
}

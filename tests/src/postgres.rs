//! A private Postgres: a real server that a test may stop, freeze and kill.
//!
//! It listens on a free port of 127.0.0.1 and on a Unix socket in its own directory, syncs to disk as a server does, and runs
//! as an unprivileged user, since Postgres refuses to run as root. The database cluster is a copy of one that is made once
//! for each build of the tests, because `initdb` takes seconds.
//!
//! Invariants: the server and all that it started are dead when the value is dropped; `freeze` and `kill` reach every process
//! of the server, which are in sessions of their own.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use quail::launcher::DaemonOptions;
use tempfile::TempDir;

use crate::{PATIENCE, missing};

/// The user of the daemon in the database, which owns the database of the same name.
pub const USER: &str = "quail";

/// The password of that user. A test that finds it anywhere has found a leak.
pub const PASSWORD: &str = "canary-of-the-database";

/// How often a state is looked at that nobody tells of.
const LOOK: Duration = Duration::from_millis(20);

/// Settings of the servers: small, and as durable as a server is by default.
const SETTINGS: &[&str] = &[
    "fsync=on",
    "synchronous_commit=on",
    "listen_addresses=127.0.0.1",
    "max_connections=30",
    "shared_buffers=16MB",
    "log_connections=on",
];

/// A server of its own, with an empty database for a daemon. Killed when it is dropped.
pub struct Postgres {
    directory: TempDir,
    settings: Vec<String>,
    binaries: PathBuf,
    port: u16,
    /// Who runs it, where that is not who runs the test.
    user: Option<(u32, u32)>,
    server: Option<Child>,
}

impl Postgres {
    /// Starts a server. `None` if Postgres is not installed and that [skips](missing) the test.
    pub async fn start() -> Option<Self> {
        Self::start_with(TempDir::new().expect("a temporary directory"), &[]).await
    }

    /// Starts a server in this empty directory, with further settings.
    pub async fn start_with(directory: TempDir, settings: &[&str]) -> Option<Self> {
        let Some(binaries) = binaries() else {
            missing("PostgreSQL is not installed; run: apt-get install --no-install-recommends postgresql");
            return None;
        };
        let user = unprivileged();
        own(directory.path(), user);
        let template = template(&binaries, user);
        run(Command::new("cp").arg("-a").arg(&template).arg(directory.path().join("data")));
        let settings = SETTINGS.iter().chain(settings).map(|setting| (*setting).to_owned()).collect();
        let mut postgres = Self { directory, settings, binaries, port: 0, user, server: None };
        postgres.write("password", PASSWORD);
        // Somebody else may take a port between the look and the start.
        for _ in 0..5 {
            postgres.port = free_port();
            if postgres.try_start().await {
                let role = format!("CREATE ROLE {USER} LOGIN PASSWORD '{PASSWORD}'");
                postgres.sql_in("postgres", &role).await;
                postgres.sql_in("postgres", &format!("CREATE DATABASE {USER} OWNER {USER}")).await;
                return Some(postgres);
            }
        }
        panic!("Postgres does not start: {}", postgres.log());
    }

    /// Returns the URL of the database, as a daemon is configured with it.
    pub fn url(&self) -> String {
        format!("postgres://{USER}@127.0.0.1:{}/{USER}", self.port)
    }

    /// Returns the port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Returns the directory of the Unix socket.
    pub fn socket(&self) -> &Path {
        self.directory.path()
    }

    /// Returns a file that holds the password.
    pub fn password_file(&self) -> PathBuf {
        self.directory.path().join("password")
    }

    /// Points a daemon here, with little patience, so that a test of what hangs is soon over.
    pub fn configure(&self, options: &mut DaemonOptions) {
        options.env.push(("QUAIL_STORAGE_URL".into(), self.url().into()));
        options.env.push(("QUAIL_STORAGE_PASSWORD_FILE".into(), self.password_file().into()));
        options.env.push(("QUAIL_STORAGE_STATEMENT_TIMEOUT".into(), "1s".into()));
    }

    /// Runs a statement as the superuser in the daemon's database, and returns what it prints: columns split by `|`.
    pub async fn sql(&self, statement: &str) -> String {
        self.sql_in(USER, statement).await
    }

    /// Runs a statement as the superuser in the daemon's database.
    ///
    /// # Errors
    /// What the server says against it.
    pub async fn try_sql(&self, statement: &str) -> Result<String, String> {
        self.psql(USER, statement).await
    }

    /// Runs a statement about the daemon's database from beside it, while nobody is in there.
    pub async fn sql_elsewhere(&self, statement: &str) {
        self.sql_in("postgres", statement).await;
    }

    /// Gives a directory to the user who runs the server.
    pub fn give(&self, path: &Path) {
        own(path, self.user);
    }

    /// Returns what the server has logged.
    pub fn log(&self) -> String {
        fs::read_to_string(self.directory.path().join("log")).unwrap_or_default()
    }

    /// Stops every process of the server where it is: connections stay open, and nobody answers.
    pub fn freeze(&self) {
        for pid in self.halted() {
            signal("-STOP", pid);
        }
    }

    /// Lets it go on.
    pub fn thaw(&self) {
        for pid in self.processes() {
            signal("-CONT", pid);
        }
    }

    /// Kills every process of the server with SIGKILL, as a crash does.
    pub fn kill(&mut self) {
        for pid in self.halted() {
            signal("-KILL", pid);
        }
        if let Some(mut server) = self.server.take() {
            server.wait().expect("the server can be waited for");
        }
    }

    /// Starts the server again on the same port, after it was killed, and returns when it answers.
    pub async fn restart(&mut self) {
        self.kill();
        let deadline = Instant::now() + PATIENCE;
        // Processes that notice the death of their server only now hold its memory for a moment.
        while !self.try_start().await {
            assert!(Instant::now() < deadline, "Postgres does not come back: {}", self.log());
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Returns the CPU time of all its processes since it was started, in ticks of the kernel's clock, those that have ended included.
    pub fn cpu_ticks(&self) -> u64 {
        let times = |pid, fields: std::ops::Range<usize>| {
            let stat = stat(pid).unwrap_or_default();
            let fields = stat.split_whitespace().skip(fields.start).take(fields.len());
            fields.filter_map(|field| field.parse::<u64>().ok()).sum::<u64>()
        };
        // Behind the name: user and system time, and the same two of children that were waited for.
        let of =
            |pid| if self.server.as_ref().is_some_and(|server| server.id() == pid) { 11..15 } else { 11..13 };
        self.processes().into_iter().map(|pid| times(pid, of(pid))).sum()
    }

    /// Writes a file that server and daemon can read.
    pub fn write(&self, name: &str, content: &str) -> PathBuf {
        let path = self.directory.path().join(name);
        fs::write(&path, content).expect("a file");
        own(&path, self.user);
        path
    }

    async fn try_start(&mut self) -> bool {
        let log = fs::OpenOptions::new().create(true).append(true).open(self.directory.path().join("log"));
        let log = log.expect("a log");
        let mut command = self.command("postgres");
        command.arg("-D").arg(self.directory.path().join("data"));
        command.arg("-p").arg(self.port.to_string()).arg("-k").arg(self.directory.path());
        for setting in &self.settings {
            command.args(["-c", setting]);
        }
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).process_group(0);
        self.server = Some(command.spawn().expect("postgres runs"));
        let deadline = Instant::now() + PATIENCE;
        loop {
            if self.psql("postgres", "SELECT 1").await.is_ok() {
                return true;
            }
            let ended = self.server.as_mut().is_none_or(|server| !matches!(server.try_wait(), Ok(None)));
            if ended {
                self.server = None;
                return false;
            }
            assert!(Instant::now() < deadline, "Postgres does not answer: {}", self.log());
            tokio::time::sleep(LOOK).await;
        }
    }

    async fn sql_in(&self, database: &str, statement: &str) -> String {
        match self.psql(database, statement).await {
            Ok(printed) => printed,
            Err(error) => panic!("{statement}: {error}"),
        }
    }

    async fn psql(&self, database: &str, statement: &str) -> Result<String, String> {
        let mut command = self.command("psql");
        command.args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-U", "postgres", "-d", database]);
        command.arg("-h").arg(self.directory.path()).arg("-p").arg(self.port.to_string());
        command.args(["-c", statement]).env("PGCONNECT_TIMEOUT", "10");
        let mut command = tokio::process::Command::from(command);
        let output = command.kill_on_drop(true).output().await.expect("psql runs");
        if output.status.success() {
            Ok(String::from_utf8_lossy(&output.stdout).trim_end().to_owned())
        } else {
            Err(String::from_utf8_lossy(&output.stderr).into_owned())
        }
    }

    fn command(&self, program: &str) -> Command {
        command(&self.binaries, program, self.user)
    }

    /// Stops the process that starts the others, and returns all. One that was started meanwhile would be missed, and might
    /// wait for ever for a lock of those that were killed.
    fn halted(&self) -> Vec<u32> {
        let Some(server) = &self.server else { return Vec::new() };
        signal("-STOP", server.id());
        let deadline = Instant::now() + PATIENCE;
        // Ended counts as stopped. What does not stop is killed all the same.
        let runs = |pid| state(pid).is_some_and(|state| !matches!(state, 'T' | 'Z' | 'X'));
        while runs(server.id()) && Instant::now() < deadline {}
        self.processes()
    }

    /// Returns the server's processes.
    fn processes(&self) -> Vec<u32> {
        let Some(server) = &self.server else { return Vec::new() };
        let mut processes = vec![server.id()];
        let entries = fs::read_dir("/proc").expect("there is /proc").flatten();
        let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
        processes.extend(pids.filter(|pid| parent(*pid) == Some(server.id())));
        processes
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        for pid in self.halted() {
            signal("-KILL", pid);
        }
        if let Some(mut server) = self.server.take() {
            let _ = server.wait();
        }
        if std::thread::panicking() {
            let log = self.log();
            let last: Vec<_> = log.lines().rev().take(20).collect();
            last.iter().rev().for_each(|line| eprintln!("postgres: {line}"));
        }
    }
}

/// Returns the directory of the newest Postgres that is installed.
fn binaries() -> Option<PathBuf> {
    let on_path = std::env::var_os("PATH").unwrap_or_default();
    let mut directories: Vec<PathBuf> = std::env::split_paths(&on_path).collect();
    let mut versions: Vec<_> = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten().collect();
    versions.sort_by_key(|version| {
        std::cmp::Reverse(version.file_name().to_str().and_then(|name| name.parse::<u32>().ok()))
    });
    directories.extend(versions.into_iter().map(|version| version.path().join("bin")));
    let has_all = |directory: &PathBuf| {
        ["initdb", "postgres", "psql"].into_iter().all(|program| directory.join(program).is_file())
    };
    directories.into_iter().find(has_all)
}

/// Returns who runs the server instead of root; `None` if the test does not run as root.
fn unprivileged() -> Option<(u32, u32)> {
    let me = fs::metadata("/proc/self").expect("there is /proc").uid();
    if me != 0 {
        return None;
    }
    let users = fs::read_to_string("/etc/passwd").expect("there are users");
    let entry =
        ["postgres:", "nobody:"].iter().find_map(|name| users.lines().find(|line| line.starts_with(name)));
    let fields: Vec<_> = entry.expect("there is a user besides root").split(':').collect();
    Some((fields[2].parse().expect("a number"), fields[3].parse().expect("a number")))
}

/// Returns a database cluster to copy, made on the first call of any test of this build.
fn template(binaries: &Path, user: Option<(u32, u32)>) -> PathBuf {
    let exe = std::env::current_exe().expect("the test knows its own path");
    let profile = exe.parent().and_then(Path::parent).expect("test executables lie in deps/");
    let version = Command::new(binaries.join("postgres")).arg("--version").output().expect("postgres runs");
    let version: String =
        String::from_utf8_lossy(&version.stdout).chars().filter(char::is_ascii_digit).collect();
    let template = profile.join(format!("postgres-{version}"));
    let lock = fs::File::create(profile.join("postgres.lock")).expect("a lock");
    lock.lock().expect("locked");
    if !template.exists() {
        let making = TempDir::new().expect("a temporary directory");
        own(making.path(), user);
        let password = making.path().join("superuser");
        fs::write(&password, "not used: local connections are trusted").expect("a file");
        own(&password, user);
        let mut initdb = command(binaries, "initdb", user);
        initdb.arg("-D").arg(making.path().join("data")).arg("--pwfile").arg(&password);
        initdb.args(["-U", "postgres", "-E", "UTF8", "--locale=C", "--auth-local=trust"]);
        run(initdb.arg("--auth-host=scram-sha-256"));
        // Whole or not at all: a test that was killed here leaves nothing that looks ready.
        let unready = profile.join(format!("postgres-{version}.new"));
        let _ = fs::remove_dir_all(&unready);
        run(Command::new("cp").arg("-a").arg(making.path().join("data")).arg(&unready));
        fs::rename(&unready, &template).expect("the template");
    }
    template
}

fn command(binaries: &Path, program: &str, user: Option<(u32, u32)>) -> Command {
    let mut command = Command::new(binaries.join(program));
    command.env("LC_ALL", "C").current_dir("/");
    if let Some((uid, gid)) = user {
        command.uid(uid).gid(gid);
    }
    command
}

fn run(command: &mut Command) {
    let output = command.output().expect("the program runs");
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

fn own(path: &Path, user: Option<(u32, u32)>) {
    if let Some((uid, gid)) = user {
        chown(path, Some(uid), Some(gid)).expect("root gives files away");
    }
    let mode = if path.is_dir() { 0o700 } else { 0o600 };
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("permissions");
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("its number").port()
}

/// It fails if the process is gone already, which is as good.
fn signal(signal: &str, pid: u32) {
    let _ = Command::new("kill").args([signal, &pid.to_string()]).stderr(Stdio::null()).status();
}

fn parent(pid: u32) -> Option<u32> {
    stat(pid)?.split_whitespace().nth(1)?.parse().ok()
}

fn state(pid: u32) -> Option<char> {
    stat(pid)?.trim_start().chars().next()
}

/// Returns what the kernel tells of a process behind its name, which may contain anything.
fn stat(pid: u32) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    Some(stat.rsplit_once(')')?.1.to_owned())
}

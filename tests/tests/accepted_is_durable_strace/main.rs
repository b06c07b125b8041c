//! Promise: what was accepted is on disk, seen from outside. strace writes down every write and sync of a daemon; for each
//! message the write that holds its bytes must be followed by a sync of the same file, and that sync must have returned
//! before the client saw `Accepted`. A daemon that was built without the sync must fail the same look.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // Test code outside of #[test] functions.

mod trace;

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use quail_tests::{PATIENCE, World, missing, quaild, quaild_with};
use trace::{Trace, Verdict};

const MESSAGES: usize = 1000;

/// Messages on their way at once: enough that turns hold several.
const AT_ONCE: usize = 20;

/// What strace writes down: whatever changes a file, and whatever makes a change durable.
const CALLS: &str = "trace=write,pwrite64,writev,pwritev,pwritev2,fsync,fdatasync";

/// A message: what is unique in its body, and when its `Accepted` was seen, in time since the Unix epoch.
struct Sent {
    mark: String,
    accepted: Duration,
}

fn lacks_strace() -> bool {
    let works = std::process::Command::new("strace").args(["-o", "/dev/null", "true"]).output();
    !works.is_ok_and(|output| output.status.success())
        && missing("strace is missing or may not trace here; apt-get install --no-install-recommends strace")
}

/// Writes a program that runs `daemon` under strace. Of each write so much is kept as the messages of one turn need: the ballast
/// and new segments, kept whole, would make a trace of hundreds of megabytes. The tracer is the grandchild, so that signals and the exit status are
/// those of the daemon.
fn traced(daemon: &Path, trace: &Path) -> PathBuf {
    let script = trace.with_file_name("traced-quaild");
    let run = format!(
        "#!/bin/sh\nexec strace -D -f --seccomp-bpf -yy -xx -s 65536 -ttt -T -e {CALLS} -e signal=none -o '{}' -- '{}' \"$@\"\n",
        trace.display(),
        daemon.display()
    );
    std::fs::write(&script, run).unwrap();
    std::fs::set_permissions(&script, PermissionsExt::from_mode(0o755)).unwrap();
    script
}

/// Sends messages to a daemon under strace and returns what both sides wrote down.
async fn observe(daemon: &Path) -> (Vec<Sent>, Trace) {
    let scratch = tempfile::TempDir::new().unwrap();
    let path = scratch.path().join("trace");
    let mut world = World::start_with(|options| options.quaild = traced(daemon, &path)).await;
    let (ada, bob) = (world.sign_up("ada").await, world.sign_up("bob").await);
    let sender = ada.open().await;
    let mut sent = Vec::new();
    while sent.len() < MESSAGES {
        let mut sendings = Vec::new();
        for _ in 0..AT_ONCE {
            let mark = uuid::Uuid::new_v4().simple().to_string();
            sendings.push((sender.send(bob.account(), format!("it says {mark}")).await.unwrap(), mark));
        }
        for (sending, mark) in sendings {
            quail_tests::expect("an answer", sending.accepted()).await.unwrap();
            let accepted = SystemTime::UNIX_EPOCH.elapsed().unwrap();
            sent.push(Sent { mark, accepted });
        }
    }
    sender.close().await.unwrap();
    let data = world.daemon.data().canonicalize().unwrap();
    let pid = world.daemon.pid().unwrap();
    assert!(world.daemon.stop().await.unwrap().success());
    // The tracer goes on for a moment: the trace is whole when it says that the daemon has ended.
    let deadline = std::time::Instant::now() + PATIENCE;
    let trace = loop {
        let text = std::fs::read_to_string(&path).unwrap();
        if trace::is_whole(&text, pid) {
            break Trace::parse(&text, &data);
        }
        assert!(std::time::Instant::now() < deadline, "the trace has no end:\n{}", trace::tail(&text));
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    (sent, trace)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_message_is_synced_before_accepted() {
    if lacks_strace() {
        return;
    }
    let (sent, trace) = observe(&quaild()).await;
    println!("{} writes and {} syncs of data files", trace.writes.len(), trace.syncs.len());
    for Sent { mark, accepted } in &sent {
        let verdict = trace.judge(mark, *accepted);
        assert_eq!(verdict, Verdict::Synced, "message {mark}, accepted at {accepted:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_daemon_without_the_sync_is_found_out() {
    if lacks_strace() {
        return;
    }
    let Some(daemon) = quaild_with("unsynced") else { return };
    let (sent, trace) = observe(&daemon).await;
    let verdicts = sent.iter().map(|sent| trace.judge(&sent.mark, sent.accepted));
    let unsynced = verdicts.filter(|verdict| *verdict == Verdict::NotSynced).count();
    assert_eq!(unsynced, MESSAGES, "what was not synced must be seen as such");
}

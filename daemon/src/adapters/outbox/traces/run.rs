//! The recorded process: the engine on a real disk, with one thread that appends, one that syncs, and the engine's own that
//! moves events into the settled store.
//!
//! It says through `/dev/null`, so that it stands in the trace among the calls, from which batch on this life is, and after
//! each sync how many batches were appended before that sync began. That is what a client would have been told.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use quail_core::ports::outbox::Outbox;

use super::super::tests::open;
use super::script::Script;
use super::{Dice, strace};

/// Batches that wait for a sync at most.
const WAITING_MAX: u64 = 6;

/// The settled store is rotated when its files are larger, in bytes.
const ROTATE_BYTES: u64 = 8 * 1024 * 1024;

/// How often one thread looks at how far the other is.
const LOOK: Duration = Duration::from_micros(100);

/// What a life begins by saying.
pub(super) const BEGUN: &str = "begun at ";

/// What is said after a sync.
pub(super) const SYNCED: &str = "synced ";

/// How a process is told what to do.
const TASK: &str = "QUAIL_TRACED_TASK";

/// What a recorded process does.
#[derive(Clone, Copy, Debug)]
pub(super) struct Life {
    pub(super) seed: u64,
    /// Number of the life; no two of a directory have the same.
    pub(super) number: u64,
    /// Batches to be appended.
    pub(super) batches: u64,
    /// After so many batches all is moved into the settled store at the latest. Where these are many, sled gives up segments and
    /// takes them again within one spill.
    pub(super) settle_every: u64,
    /// Whether it dies in the middle of something.
    pub(super) dies: bool,
}

impl Life {
    /// Lives it, under strace.
    pub(super) fn record(self, outbox: &Path, trace: &Path) {
        let Self { seed, number, batches, settle_every, dies } = self;
        let mut command: Command = strace::traced(&std::env::current_exe().unwrap(), trace);
        command
            .args([
                "adapters::outbox::traces::run::a_life",
                "--exact",
                "--ignored",
                "--nocapture",
                "--test-threads=1",
            ])
            .env(TASK, format!("{seed} {number} {batches} {settle_every} {dies} {}", outbox.display()))
            .env("QUAIL_SPILL_AFTER_MS", settle_every.to_string())
            .env("QUAIL_ROTATE_BYTES", ROTATE_BYTES.to_string())
            .env("RUST_MIN_STACK", "16777216");
        let output = command.stdin(Stdio::null()).output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.success(), !dies, "{self:?}: {}\n{said}", output.status);
        assert!(!said.contains("panicked"), "{self:?}:\n{said}");
    }
}

#[test]
#[ignore = "started by the tests that record it"]
fn a_life() {
    let task = std::env::var(TASK).unwrap();
    let words: Vec<_> = task.splitn(6, ' ').collect();
    let number = |at: usize| words[at].parse::<u64>().unwrap();
    let life = Life {
        seed: number(0),
        number: number(1),
        batches: number(2),
        settle_every: number(3),
        dies: words[4] == "true",
    };
    live(life, &PathBuf::from(words[5]));
}

fn live(life: Life, outbox: &Path) {
    let said = File::options().write(true).open("/dev/null").unwrap();
    let say = |text: String| (&said).write_all(text.as_bytes()).unwrap();
    let opened = open(outbox);
    let mut engine = opened.engine;
    let mut script = Script::new(life.seed);
    assert!(
        script.skip_to(opened.recovered.last_position),
        "no batch ends at {}",
        opened.recovered.last_position
    );
    let first = script.made;
    say(format!("{BEGUN}{first}"));
    let (appended, synced, stop) = (AtomicU64::new(first), AtomicU64::new(first), AtomicBool::new(false));
    let mut syncer = engine.syncer();
    std::thread::scope(|scope| {
        let (appended, synced, stop) = (&appended, &synced, &stop);
        scope.spawn(move || {
            while !stop.load(Ordering::SeqCst) {
                let covered = appended.load(Ordering::SeqCst);
                if covered == synced.load(Ordering::SeqCst) {
                    std::thread::sleep(LOOK);
                    continue;
                }
                syncer.sync().unwrap();
                say(format!("{SYNCED}{covered}"));
                synced.store(covered, Ordering::SeqCst);
            }
        });
        while life.dies || script.made < first + life.batches {
            if script.made == first + life.batches {
                // It goes on until then, wherever that is.
                let pause = Duration::from_micros(Dice(life.number).below(30_000));
                std::thread::spawn(move || {
                    std::thread::sleep(pause);
                    std::process::abort();
                });
            }
            while appended.load(Ordering::SeqCst) >= synced.load(Ordering::SeqCst) + WAITING_MAX {
                std::thread::sleep(LOOK);
            }
            engine.append(script.next(life.number).batch()).unwrap();
            appended.fetch_add(1, Ordering::SeqCst);
            if script.made.is_multiple_of(life.settle_every) {
                engine.settle().unwrap();
            }
        }
        while synced.load(Ordering::SeqCst) < script.made {
            std::thread::sleep(LOOK);
        }
        stop.store(true, Ordering::SeqCst);
    });
    drop(engine);
}

//! Runs the tests and counts them.
//!
//! cargo prints one summary for each test program; what one wants to know is the sum, in one last line. So the output
//! is read on its way, and passed on as it is.
//!
//! Invariants: the counts are those of the test programs, none is made up here; a run that fails fails, whatever was
//! counted; a process that a test left behind, and that still holds the output, does not hold up the end.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::process::{Runner, announce};

/// How long the output may stay open after cargo has ended.
const LEFTOVER_WAIT: Duration = Duration::from_secs(5);

/// Runs all tests but those in documentation, all of them even when some fail.
pub(crate) fn run(runner: &mut Runner) -> Result<()> {
    let mut command = runner.cargo(&["test", "--workspace", "--lib", "--bins", "--tests", "--examples"]);
    command.args(["--locked", "--no-fail-fast"]);
    let line = announce(&command);
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("start `{line}`"))?;

    let counts = Arc::new(Mutex::new(Counts::default()));
    let mut readers = Vec::new();
    if let Some(stdout) = child.stdout.take() {
        readers.push(pass_on(stdout, std::io::stdout(), &counts));
    }
    if let Some(stderr) = child.stderr.take() {
        readers.push(pass_on(stderr, std::io::stderr(), &counts));
    }
    let status = child.wait().with_context(|| format!("wait for `{line}`"))?;
    if !all_end(&readers, LEFTOVER_WAIT) {
        println!("a process that a test left behind still holds the output");
    }
    let counts = counts.lock().unwrap_or_else(PoisonError::into_inner).clone();
    runner.closing = Some(counts.to_string());
    if !status.success() || counts.failed > 0 {
        bail!("`{line}`: {status}");
    }
    Ok(())
}

/// Copies lines as they come, and counts.
fn pass_on(
    from: impl Read + Send + 'static,
    mut to: impl Write + Send + 'static,
    counts: &Arc<Mutex<Counts>>,
) -> JoinHandle<()> {
    let counts = Arc::clone(counts);
    thread::spawn(move || {
        let mut from = BufReader::new(from);
        let mut line = Vec::new();
        while from.read_until(b'\n', &mut line).is_ok_and(|length| length > 0) {
            // A reader that went away does not stop the tests.
            let _ = to.write_all(&line).and_then(|()| to.flush());
            counts.lock().unwrap_or_else(PoisonError::into_inner).add(&String::from_utf8_lossy(&line));
            line.clear();
        }
    })
}

fn all_end(readers: &[JoinHandle<()>], patience: Duration) -> bool {
    let deadline = Instant::now() + patience;
    while !readers.iter().all(JoinHandle::is_finished) {
        if Instant::now() >= deadline {
            return false;
        }
        thread::sleep(Duration::from_millis(10));
    }
    true
}

/// What the test programs said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Counts {
    passed: u64,
    failed: u64,
    /// Ignored, or ended early with a reason. A test program counts the latter among those that passed.
    skipped: u64,
}

impl Counts {
    fn add(&mut self, line: &str) {
        let line = line.trim();
        if let Some(summary) = line.strip_prefix("test result: ") {
            self.passed += number_before("passed", summary);
            self.failed += number_before("failed", summary);
            self.skipped += number_before("ignored", summary);
        } else if is_skip(line) {
            self.skipped += 1;
        }
    }
}

impl std::fmt::Display for Counts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} passed, {} failed", self.passed, self.failed)?;
        match self.skipped {
            0 => Ok(()),
            skipped => write!(f, ", {skipped} skipped"),
        }
    }
}

/// A test that cannot run here says `SKIPPED: reason`, on a line of its own or behind its name.
fn is_skip(line: &str) -> bool {
    let said = match line.split_once(" ... ") {
        Some((name, said)) if name.starts_with("test ") => said,
        _ => line,
    };
    said.starts_with("SKIPPED: ")
}

fn number_before(word: &str, summary: &str) -> u64 {
    let mut last = 0;
    for part in summary.split([' ', ';', '.']).filter(|part| !part.is_empty()) {
        if part == word {
            return last;
        }
        last = part.parse().unwrap_or(0);
    }
    0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(output: &str) -> String {
        let mut counts = Counts::default();
        output.lines().for_each(|line| counts.add(line));
        counts.to_string()
    }

    #[test]
    fn summaries_add_up() {
        let output = "running 3 tests\ntest a ... ok\n\
            test result: ok. 12 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.01s\n\
            test result: FAILED. 1 passed; 2 failed; 0 ignored; 0 measured; 5 filtered out; finished in 3.20s\n";
        assert_eq!(counted(output), "13 passed, 2 failed");
        assert_eq!(counted(""), "0 passed, 0 failed");
    }

    #[test]
    fn coloured_summaries_count() {
        let line =
            "test result: \u{1b}[32mok\u{1b}[0m. 7 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out";
        assert_eq!(counted(line), "7 passed, 0 failed");
    }

    #[test]
    fn skips_are_told() {
        let output = "SKIPPED: no redis-server\ntest a ... SKIPPED: no IPv6\n\
            test result: ok. 2 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out\n";
        assert_eq!(counted(output), "2 passed, 0 failed, 3 skipped");
        assert_eq!(counted("   |  println!(\"SKIPPED: x\");\ntest SKIPPED ... ok"), "0 passed, 0 failed");
    }

    #[test]
    fn output_is_passed_on_as_it_is() {
        #[derive(Clone, Default)]
        struct Kept(Arc<Mutex<Vec<u8>>>);
        impl Write for Kept {
            fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
                self.0.lock().unwrap().write(bytes)
            }
            fn flush(&mut self) -> std::io::Result<()> {
                Ok(())
            }
        }
        let (kept, counts) = (Kept::default(), Arc::default());
        let output: &[u8] = b"\xff\xfe\ntest result: ok. 2 passed; 0 failed\nno line end";
        pass_on(output, kept.clone(), &counts).join().unwrap();
        assert_eq!(*kept.0.lock().unwrap(), output);
        assert_eq!(counts.lock().unwrap().passed, 2);
    }

    #[test]
    fn a_process_left_behind_does_not_hold_up_the_end() {
        let (release, held) = std::sync::mpsc::sync_channel::<()>(0);
        let reader = thread::spawn(move || {
            let _ = held.recv();
        });
        assert!(!all_end(&[reader], Duration::from_millis(30)));
        drop(release);
        assert!(all_end(&[], Duration::ZERO));
    }
}

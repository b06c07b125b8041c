//! What strace wrote down, as far as it concerns the files of one directory.
//!
//! A line is `pid time call(args) = result <duration>`. A call during which another thread made one is split: the first
//! half ends in `<unfinished ...>`, the second begins with `<... call resumed>` and has result and duration.

use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;

/// A call on a file that succeeded.
#[derive(Debug, PartialEq)]
pub(crate) struct Call {
    pub(crate) file: String,
    pub(crate) start: Duration,
    pub(crate) end: Duration,
    /// What was written, as far as it is text.
    pub(crate) text: String,
}

/// Writes and syncs of the files below the data directory.
#[derive(Default)]
pub(crate) struct Trace {
    pub(crate) writes: Vec<Call>,
    pub(crate) syncs: Vec<Call>,
}

/// What a look at the trace says of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// A sync of the file it was written to began after the write and ended before `Accepted` was seen.
    Synced,
    /// It was written, and no such sync is there.
    NotSynced,
    /// No write has its bytes.
    NotWritten,
}

/// Whether strace has written its last line: the daemon has ended.
pub(crate) fn is_whole(text: &str, pid: u32) -> bool {
    let pid = pid.to_string();
    text.lines().rev().take(50).any(|line| {
        line.split_once(' ').is_some_and(|(of, rest)| of == pid && rest.contains(" +++ exited with"))
    })
}

/// The end of a trace, for a failing test.
pub(crate) fn tail(text: &str) -> String {
    let lines: Vec<_> =
        text.lines().rev().take(5).map(|line| line.chars().take(200).collect::<String>()).collect();
    lines.into_iter().rev().collect::<Vec<_>>().join("\n")
}

impl Trace {
    pub(crate) fn parse(text: &str, directory: &Path) -> Self {
        let directory = directory.to_str().expect("a temporary directory has a plain name");
        let mut trace = Self::default();
        let mut begun: HashMap<&str, (Duration, &str)> = HashMap::new();
        for line in text.lines() {
            let Some((pid, rest)) = line.split_once(' ') else { continue };
            let Some((time, call)) = rest.trim_start().split_once(' ') else { continue };
            let Some(time) = seconds(time) else { continue };
            if let Some(first) = call.strip_suffix("<unfinished ...>") {
                begun.insert(pid, (time, first));
            } else if let Some((_, second)) =
                call.strip_prefix("<... ").and_then(|c| c.split_once(" resumed>"))
            {
                if let Some((start, first)) = begun.remove(pid) {
                    trace.add(start, first, second, directory);
                }
            } else if let Some(at) = call.rfind(") = ") {
                trace.add(time, &call[..at], &call[at..], directory);
            }
        }
        trace
    }

    /// Takes in a call; `first` has the file, `second` the result.
    fn add(&mut self, start: Duration, first: &str, second: &str, directory: &str) {
        let Some((name, args)) = first.split_once('(') else { return };
        let Some((_, result)) = second.rsplit_once(") = ").or_else(|| second.rsplit_once(" = ")) else {
            return;
        };
        let Some((_, took)) = result.rsplit_once('<') else { return };
        let Some(took) = took.strip_suffix('>').and_then(seconds) else { return };
        if result.starts_with(['-', '?']) {
            return;
        }
        let Some((_, named)) = args.split_once('<') else { return };
        let Some((file, rest)) = named.split_once('>') else { return };
        let file = String::from_utf8_lossy(&unescape(file)).into_owned();
        if !file.starts_with(directory) {
            return;
        }
        let is_sync = matches!(name, "fsync" | "fdatasync");
        let text = if is_sync { String::new() } else { written(rest) };
        let call = Call { file, start, end: start + took, text };
        if is_sync { self.syncs.push(call) } else { self.writes.push(call) }
    }

    /// Looks for a sync between the writing of `mark` and `accepted`.
    pub(crate) fn judge(&self, mark: &str, accepted: Duration) -> Verdict {
        let mut verdict = Verdict::NotWritten;
        for write in self.writes.iter().filter(|write| write.text.contains(mark)) {
            verdict = Verdict::NotSynced;
            let covers =
                |sync: &Call| sync.file == write.file && sync.start >= write.end && sync.end <= accepted;
            if self.syncs.iter().any(covers) {
                return Verdict::Synced;
            }
        }
        verdict
    }
}

fn seconds(text: &str) -> Option<Duration> {
    let (whole, part) = text.split_once('.')?;
    let part = format!("{part:0<9}");
    Some(Duration::new(whole.parse().ok()?, part.parse().ok()?))
}

/// The strings of the arguments, one behind the other.
fn written(args: &str) -> String {
    let bytes: Vec<u8> = args.split('"').skip(1).step_by(2).flat_map(unescape).collect();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// With `-xx` every byte of a string is `\x` and two digits; names of files may be plain.
fn unescape(text: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len() / 4);
    let mut rest = text.as_bytes();
    while let Some(first) = rest.first() {
        let hex = rest.strip_prefix(b"\\x").and_then(|hex| std::str::from_utf8(hex.get(..2)?).ok());
        match hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &rest[4..];
            }
            None => {
                bytes.push(*first);
                rest = &rest[1..];
            }
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = r#"7 10.000100 pwrite64(9</d/db>, "\x61\x62", 2, 0) = 2 <0.000010>
8 10.000200 fdatasync(9</d/db> <unfinished ...>
7 10.000210 pwrite64(9</d/db>, "\x63\x64" <unfinished ...>
8 10.000300 <... fdatasync resumed>) = 0 <0.000150>
7 10.000310 <... pwrite64 resumed>, 2, 2) = 2 <0.000100>
7 10.000400 write(3</elsewhere>, "\x65\x66", 2) = 2 <0.000010>
8 10.000500 fdatasync(9</d/other>) = 0 <0.000010>
8 10.000600 fdatasync(9</d/db>) = -1 EIO (Input/output error) <0.000010>
7 10.000700 +++ exited with 0 +++
"#;

    fn judge(mark: &str, accepted_us: u64) -> Verdict {
        Trace::parse(TRACE, Path::new("/d")).judge(mark, Duration::from_micros(10_000_000 + accepted_us))
    }

    #[test]
    fn only_a_sync_of_the_same_file_between_write_and_answer_counts() {
        assert_eq!(judge("ab", 350), Verdict::Synced);
        assert_eq!(judge("ab", 349), Verdict::NotSynced);
        // Its write had not returned when the one good sync began.
        assert_eq!(judge("cd", 900), Verdict::NotSynced);
        assert_eq!(judge("ef", 900), Verdict::NotWritten);
    }

    #[test]
    fn a_trace_is_whole_when_the_daemon_has_ended() {
        assert!(is_whole(TRACE, 7));
        assert!(!is_whole(TRACE, 8));
    }
}

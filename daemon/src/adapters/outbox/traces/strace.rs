//! What strace wrote down of a run: every call that changes a file, a name or what is durable, with all its bytes.
//!
//! A line is `thread call(args) = result`. A call during which another thread did something is split: the first half ends in
//! `<unfinished ...>`, the second begins with `<... call resumed>`. strace holds a thread at the beginning and at the end of
//! each call, so where the end of one call stands before the beginning of another, the first had ended when the second
//! began. Nothing more is taken from the order of the lines.
//!
//! Invariant: what is not understood fails the test; a call that is left out would make the verdict worth nothing.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The calls that are written down. Some of them nobody makes; they are here so that it fails the test if somebody does.
const CALLS: &str = "trace=execve,openat,openat2,open,creat,close,fcntl,dup,dup2,dup3,write,pwrite64,writev,pwritev,pwritev2,\
                     fsync,fdatasync,sync,syncfs,ftruncate,truncate,fallocate,rename,renameat,renameat2,unlink,unlinkat,rmdir,\
                     mkdir,mkdirat,link,linkat,symlink,symlinkat,copy_file_range,sendfile,splice,io_uring_setup,io_submit,mmap";

/// Bytes of a call that are kept at most: more than anybody writes at once.
const BYTES_MAX: usize = 16 * 1024 * 1024;

/// What a thread began or ended.
#[derive(Debug, PartialEq)]
pub(super) enum Step {
    /// A call was begun. `id` is what its end has too.
    Begin { id: u64, call: Call },
    /// A call ended. `None`: the process died in it, and nobody knows whether it was done.
    End { id: u64, result: Option<i64> },
}

/// A call, with absolute paths.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Call {
    /// A program was started: no file is open.
    Start,
    Open {
        path: PathBuf,
        creates: bool,
        truncates: bool,
    },
    /// Another number for what is open under a number.
    Duplicate {
        fd: i64,
    },
    Close {
        fd: i64,
    },
    /// Without a place: behind what was written last.
    Write {
        fd: i64,
        at: Option<u64>,
        bytes: Vec<u8>,
    },
    SetLength {
        fd: i64,
        length: u64,
    },
    Sync {
        fd: i64,
    },
    Rename {
        from: PathBuf,
        to: PathBuf,
    },
    Remove {
        path: PathBuf,
    },
    MakeDirectory {
        path: PathBuf,
    },
    /// What the program said, through a write to `/dev/null`.
    Said(String),
}

/// Returns a command that runs `program` and writes down what it does below a directory.
pub(super) fn traced(program: &Path, trace: &Path) -> Command {
    let mut command = Command::new("strace");
    command.args(["-f", "--seccomp-bpf", "-y", "-e", "signal=none", "-e", CALLS]);
    command.args(["-s", &BYTES_MAX.to_string(), "-o"]).arg(trace).arg("--").arg(program);
    command
}

/// Returns whether strace is here and may trace. Where it is not, the test fails, or is skipped with `QUAIL_SKIP_MISSING=1`.
pub(super) fn is_there() -> bool {
    let works = Command::new("strace").args(["-f", "--seccomp-bpf", "-o", "/dev/null", "true"]).output();
    let works = works.is_ok_and(|output| output.status.success());
    let may_skip = std::env::var_os("QUAIL_SKIP_MISSING").is_some_and(|value| value == "1");
    let need = "strace is missing or may not trace here; apt-get install --no-install-recommends strace";
    assert!(works || may_skip, "{need} (or set QUAIL_SKIP_MISSING=1 to skip this test)");
    if !works {
        println!("SKIPPED: {need}");
    }
    works
}

/// Reads a trace. Of what happens outside of `root` nothing is kept.
pub(super) fn parse(text: &[u8], root: &Path) -> Vec<Step> {
    let root = root.to_str().expect("a plain name");
    let mut parser = Parser { root, steps: Vec::new(), begun: HashMap::new(), next: 0 };
    for line in text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        parser.line(line);
    }
    // In those the process died.
    let died = std::mem::take(&mut parser.begun);
    parser.steps.extend(died.into_values().flatten().map(|id| Step::End { id, result: None }));
    parser.steps
}

struct Parser<'a> {
    root: &'a str,
    steps: Vec<Step>,
    /// What each thread is in: the id of a call, or nothing of interest.
    begun: HashMap<String, Option<u64>>,
    next: u64,
}

impl Parser<'_> {
    fn line(&mut self, line: &[u8]) {
        let space = line.iter().position(|byte| *byte == b' ').expect("a thread");
        let thread = String::from_utf8_lossy(&line[..space]).into_owned();
        let call = line[space..].trim_ascii_start();
        if call.starts_with(b"+++") {
            return;
        }
        if call.starts_with(b"<... ") {
            let Some(Some(id)) = self.begun.remove(&thread) else { return };
            if call.ends_with(b"<unfinished ...>) = ?") {
                self.steps.push(Step::End { id, result: None });
            } else {
                self.steps.push(Step::End { id, result: result(call) });
            }
            return;
        }
        let open = call.iter().position(|byte| *byte == b'(').unwrap_or_else(|| unknown(line));
        let name = std::str::from_utf8(&call[..open]).unwrap_or_else(|_| unknown(line));
        let (args, rest) = arguments(&call[open + 1..]);
        let understood = self.understand(name, &args).unwrap_or_else(|| unknown(line));
        let id = understood.map(|call| {
            self.next += 1;
            self.steps.push(Step::Begin { id: self.next, call });
            self.next
        });
        if rest.ends_with(b"<unfinished ...>") {
            self.begun.insert(thread, id);
        } else if let Some(id) = id {
            self.steps.push(Step::End { id, result: result(rest) });
        }
    }

    /// `Some(None)` is a call that concerns nobody; `None` one that is not understood.
    fn understand(&self, name: &str, args: &[Argument<'_>]) -> Option<Option<Call>> {
        let fd = || args.first()?.number();
        Some(Some(match name {
            "execve" => Call::Start,
            "openat" => {
                let path = self.path(args, 0)?;
                if !self.is_below(&path) {
                    return Some(None);
                }
                let flags = args.get(2)?.text;
                let has = |flag: &[u8]| flags.split(|byte| *byte == b'|').any(|found| found == flag);
                if has(b"O_APPEND") || has(b"O_TMPFILE") {
                    return None;
                }
                Call::Open { path, creates: has(b"O_CREAT"), truncates: has(b"O_TRUNC") }
            }
            "close" => Call::Close { fd: fd()? },
            "write" if args.first()?.text.ends_with(b"</dev/null>") => {
                Call::Said(String::from_utf8(args.get(1)?.bytes()?).ok()?)
            }
            "mkdir" => Call::MakeDirectory { path: args.first()?.path()? },
            "mkdirat" => Call::MakeDirectory { path: self.path(args, 0)? },
            "unlink" | "rmdir" => Call::Remove { path: args.first()?.path()? },
            "unlinkat" => Call::Remove { path: self.path(args, 0)? },
            "rename" => Call::Rename { from: args.first()?.path()?, to: args.get(1)?.path()? },
            "renameat" | "renameat2" => Call::Rename { from: self.path(args, 0)?, to: self.path(args, 2)? },
            // Memory that is written through a file would be written unseen.
            "mmap" => {
                let is_shared = args.get(3)?.text.starts_with(b"MAP_SHARED");
                return (!is_shared || !self.is_of_root(args.get(4)?)).then_some(None);
            }
            _ if !self.is_of_root(args.first()?) => return Some(None),
            "fcntl" if !args.get(1)?.text.starts_with(b"F_DUPFD") => return Some(None),
            "fcntl" | "dup" | "dup2" | "dup3" => Call::Duplicate { fd: fd()? },
            "write" => Call::Write { fd: fd()?, at: None, bytes: args.get(1)?.bytes()? },
            "pwrite64" => {
                let at = args.get(3)?.number().and_then(|at| u64::try_from(at).ok());
                Call::Write { fd: fd()?, at: Some(at?), bytes: args.get(1)?.bytes()? }
            }
            "ftruncate" => Call::SetLength { fd: fd()?, length: args.get(1)?.number()?.try_into().ok()? },
            "fsync" | "fdatasync" => Call::Sync { fd: fd()? },
            _ => return None,
        }))
    }

    fn is_below(&self, path: &Path) -> bool {
        path.starts_with(self.root)
    }

    /// Whether an argument is an open file below the root, whether or not it still has a name.
    fn is_of_root(&self, argument: &Argument<'_>) -> bool {
        let named = argument.text.iter().position(|byte| *byte == b'<').map(|at| &argument.text[at + 1..]);
        named.is_some_and(|path| path.starts_with(self.root.as_bytes()))
    }

    /// The path that an open directory and a name in it make.
    fn path(&self, args: &[Argument<'_>], at: usize) -> Option<PathBuf> {
        let directory = args.get(at)?.text;
        let directory = directory.split(|byte| *byte == b'<').nth(1)?.strip_suffix(b">")?;
        let directory = Path::new(std::str::from_utf8(directory).ok()?);
        Some(directory.join(args.get(at + 1)?.path()?))
    }
}

fn unknown(line: &[u8]) -> ! {
    panic!("not understood: {}", String::from_utf8_lossy(&line[..line.len().min(300)]))
}

/// Returns what a call returned; `None` if it did not.
fn result(rest: &[u8]) -> Option<i64> {
    let at = rest.windows(3).rposition(|window| window == b" = ")?;
    let number = &rest[at + 3..];
    let end = number.iter().skip(1).position(|byte| !byte.is_ascii_digit()).map_or(number.len(), |at| at + 1);
    std::str::from_utf8(&number[..end]).ok()?.parse().ok()
}

/// An argument as it stands there.
struct Argument<'a> {
    text: &'a [u8],
}

impl Argument<'_> {
    fn number(&self) -> Option<i64> {
        let end = self.text.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(self.text.len());
        std::str::from_utf8(&self.text[..end]).ok()?.parse().ok()
    }

    /// The bytes of a string that is there as a whole.
    fn bytes(&self) -> Option<Vec<u8>> {
        let mut rest = self.text.strip_prefix(b"\"")?.strip_suffix(b"\"")?;
        let mut bytes = Vec::with_capacity(rest.len());
        while let Some(at) = rest.iter().position(|byte| *byte == b'\\') {
            bytes.extend_from_slice(&rest[..at]);
            let digits = rest[at + 1..].iter().take(3).take_while(|byte| (b'0'..b'8').contains(byte)).count();
            if digits == 0 {
                bytes.push(match rest.get(at + 1)? {
                    b'n' => b'\n',
                    b't' => b'\t',
                    b'r' => b'\r',
                    b'v' => 0x0b,
                    b'f' => 0x0c,
                    other @ (b'"' | b'\\') => *other,
                    _ => return None,
                });
                rest = &rest[at + 2..];
            } else {
                let octal = rest[at + 1..][..digits]
                    .iter()
                    .fold(0_u32, |sum, digit| sum * 8 + u32::from(digit - b'0'));
                bytes.push(octal.try_into().ok()?);
                rest = &rest[at + 1 + digits..];
            }
        }
        bytes.extend_from_slice(rest);
        Some(bytes)
    }

    fn path(&self) -> Option<PathBuf> {
        Some(PathBuf::from(String::from_utf8(self.bytes()?).ok()?))
    }
}

/// Splits arguments and returns what is behind them.
fn arguments(text: &[u8]) -> (Vec<Argument<'_>>, &[u8]) {
    let mut arguments = Vec::new();
    let (mut begin, mut at, mut depth) = (0, 0, 0);
    while let Some(byte) = text.get(at) {
        match byte {
            b'"' => at += string(&text[at..]),
            b'(' | b'[' | b'{' => depth += 1,
            b')' | b']' | b'}' if depth > 0 => depth -= 1,
            b',' | b')' if depth == 0 => {
                arguments.push(Argument { text: text[begin..at].trim_ascii() });
                begin = at + 1;
                if *byte == b')' {
                    return (arguments, &text[begin..]);
                }
            }
            // The file of a number; nothing in it ends an argument.
            b'<' if text[at..].starts_with(b"<unfinished ...>") => {
                arguments.push(Argument { text: text[begin..at].trim_ascii() });
                return (arguments, &text[at..]);
            }
            b'<' => at += text[at..].iter().position(|byte| *byte == b'>').unwrap_or(0),
            _ => {}
        }
        at += 1;
    }
    (arguments, &[])
}

/// Returns where a string ends that begins here.
fn string(text: &[u8]) -> usize {
    let mut at = 1;
    while let Some(next) = text[at..].iter().position(|byte| matches!(byte, b'"' | b'\\')) {
        at += next;
        if text[at] == b'"' {
            return at;
        }
        at += 2;
    }
    panic!("a string without an end");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_are_put_together_and_strings_are_read() {
        let text = br#"7     pwrite64(9</d/db>, "a,\")\0017\\\377", 7, 4096 <unfinished ...>
8     fdatasync(9</d/db> <unfinished ...>
7     <... pwrite64 resumed>)           = 7
8     <... fdatasync resumed>)          = -1 EIO (Input/output error)
8     write(3</elsewhere>, "x", 1)      = 1
8     unlinkat(5</d/s>, "f", 0)         = 0
7     fsync(9</d/db>(deleted) <unfinished ...>
7     <... fsync resumed> <unfinished ...>) = ?
7     +++ killed by SIGABRT +++
"#;
        let call = |id, call| Step::Begin { id, call };
        let end = |id, result| Step::End { id, result };
        let expected = [
            call(1, Call::Write { fd: 9, at: Some(4096), bytes: b"a,\")\x017\\\xff".to_vec() }),
            call(2, Call::Sync { fd: 9 }),
            end(1, Some(7)),
            end(2, Some(-1)),
            call(3, Call::Remove { path: "/d/s/f".into() }),
            end(3, Some(0)),
            call(4, Call::Sync { fd: 9 }),
            end(4, None),
        ];
        assert_eq!(parse(text, Path::new("/d")), expected);
    }
}

//! What `quaild admin` reads: handles from files, passwords from a prompt or stdin.
//!
//! Invariant: no error shows any of a password.

use std::fs::File;
use std::io::{self, BufRead, BufReader, IsTerminal, Read};
use std::path::Path;

use anyhow::Context;

/// Longest file of handles: a million of the longest.
const HANDLES_BYTES_MAX: u64 = 33 * 1024 * 1024;

/// Longest line that is read for a password; longer than any password may be, so that the answer can say so.
const PASSWORD_LINE_BYTES_MAX: u64 = 16 * 1024;

/// Reads handles, one per line; empty lines and space around handles do not count. `-` is stdin.
pub(super) fn handles(path: &Path) -> anyhow::Result<Vec<String>> {
    let named = || format!("read handles from {}", path.display());
    if path == Path::new("-") {
        return handles_of(io::stdin().lock()).with_context(named);
    }
    handles_of(BufReader::new(File::open(path).with_context(named)?)).with_context(named)
}

fn handles_of(input: impl BufRead) -> anyhow::Result<Vec<String>> {
    let mut text = String::new();
    let len = input.take(HANDLES_BYTES_MAX + 1).read_to_string(&mut text)?;
    anyhow::ensure!(len as u64 <= HANDLES_BYTES_MAX, "more than {HANDLES_BYTES_MAX} bytes");
    Ok(text.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned).collect())
}

/// Reads a new password: asks for it twice on a terminal, else takes the first line of stdin.
pub(super) fn new_password(handle: &str) -> anyhow::Result<String> {
    if !io::stdin().is_terminal() {
        return first_line(io::stdin().lock()).context("read the password from stdin");
    }
    let ask = |prompt: String| rpassword::prompt_password(prompt).context("ask for the password");
    let password = ask(format!("New password of {handle}: "))?;
    anyhow::ensure!(ask("The same again: ".to_owned())? == password, "the two passwords differ");
    Ok(password)
}

fn first_line(input: impl BufRead) -> anyhow::Result<String> {
    let mut line = Vec::new();
    input.take(PASSWORD_LINE_BYTES_MAX).read_until(b'\n', &mut line)?;
    anyhow::ensure!(!line.is_empty(), "there is no password");
    let line = line.strip_suffix(b"\n").unwrap_or(&line);
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let text = std::str::from_utf8(line).map_err(|_| anyhow::anyhow!("the password is not UTF-8"))?;
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn handles_stand_one_per_line() {
        let handles = handles_of(&b"ada\n\n  bob \r\ncyd"[..]).unwrap();
        assert_eq!(handles, ["ada", "bob", "cyd"]);
        assert_eq!(handles_of(&b""[..]).unwrap(), Vec::<String>::new());
        handles_of(&b"\xff\n"[..]).unwrap_err();
    }

    #[test]
    fn a_password_is_the_first_line_and_in_no_error() {
        assert_eq!(first_line(&b" pass word \r\nrest"[..]).unwrap(), " pass word ");
        assert_eq!(first_line(&b""[..]).unwrap_err().to_string(), "there is no password");
        assert_eq!(first_line(&b"secret\xff"[..]).unwrap_err().to_string(), "the password is not UTF-8");
    }
}

//! Where passwords come from: a prompt, a file, or stdin.
//!
//! Never from an argument or a variable: other users of the machine can read those, and shells remember them.
//!
//! Invariants: a password is the first line of where it comes from, without its end; no error shows any of it.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Args;
use quail_protocol::limits::PASSWORD_BYTES;
use quail_protocol::text::is_password;

use super::failure::Failure;

/// Longest line that is read; longer than any password may be, so that the answer can say so.
const LINE_BYTES_MAX: u64 = 64 * 1024;

/// Where the password comes from, if not from a prompt.
#[derive(Args, Debug)]
pub(super) struct PasswordArgs {
    /// Read the password from the first line of a file
    #[arg(long, value_name = "FILE", conflicts_with = "password_stdin")]
    password_file: Option<PathBuf>,

    /// Read the password from the first line of stdin
    #[arg(long)]
    password_stdin: bool,
}

impl PasswordArgs {
    /// Reads the password of an account that exists.
    pub(super) fn read(&self) -> anyhow::Result<String> {
        self.read_from("Password: ", Asked::Once)
    }

    /// Reads a password for a new account; a prompt asks twice.
    pub(super) fn read_new(&self) -> anyhow::Result<String> {
        check(self.read_from("New password: ", Asked::Twice)?)
    }

    fn read_from(&self, prompt: &str, asked: Asked) -> anyhow::Result<String> {
        match (&self.password_file, self.password_stdin) {
            (Some(path), _) => from_file(path),
            (None, true) => from_stdin(&mut std::io::stdin().lock()),
            (None, false) => from_prompt(prompt, asked),
        }
    }
}

/// Where the two passwords of a change come from, if not from prompts.
#[derive(Args, Debug)]
pub(super) struct ChangeArgs {
    /// Read the present password from the first line of a file
    #[arg(long, value_name = "FILE", conflicts_with = "password_stdin")]
    password_file: Option<PathBuf>,

    /// Read the new password from the first line of a file
    #[arg(long, value_name = "FILE", conflicts_with = "password_stdin")]
    new_password_file: Option<PathBuf>,

    /// Read the present password from the first line of stdin and the new one from the second
    #[arg(long)]
    password_stdin: bool,
}

impl ChangeArgs {
    /// Reads the present password and the new one.
    pub(super) fn read(&self) -> anyhow::Result<(String, String)> {
        if self.password_stdin {
            let mut stdin = std::io::stdin().lock();
            let current = from_stdin(&mut stdin)?;
            return Ok((current, check(from_stdin(&mut stdin)?)?));
        }
        let current = match &self.password_file {
            Some(path) => from_file(path)?,
            None => from_prompt("Present password: ", Asked::Once)?,
        };
        let new = match &self.new_password_file {
            Some(path) => from_file(path)?,
            None => from_prompt("New password: ", Asked::Twice)?,
        };
        Ok((current, check(new)?))
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Asked {
    Once,
    Twice,
}

fn from_file(path: &Path) -> anyhow::Result<String> {
    let file = File::open(path).with_context(|| format!("open {}", path.display()))?;
    first_line(&mut BufReader::new(file))
        .with_context(|| format!("read the password from {}", path.display()))
}

fn from_stdin(stdin: &mut impl BufRead) -> anyhow::Result<String> {
    first_line(stdin).context("read the password from stdin")
}

fn from_prompt(prompt: &str, asked: Asked) -> anyhow::Result<String> {
    let ask = |prompt: &str| {
        rpassword::prompt_password(prompt).map_err(|error| {
            Failure::usage(format!("no terminal to ask for the password: {error}"))
                .hint("give --password-file FILE, or --password-stdin")
        })
    };
    let password = ask(prompt)?;
    if asked == Asked::Twice && ask("The same again: ")? != password {
        return Err(Failure::failed("PASSWORD_MISTYPED", "the two passwords differ")
            .hint("try again")
            .into());
    }
    Ok(password)
}

fn first_line(input: &mut impl BufRead) -> anyhow::Result<String> {
    let mut line = Vec::new();
    input.take(LINE_BYTES_MAX).read_until(b'\n', &mut line)?;
    if line.is_empty() {
        return Err(Failure::failed("NO_PASSWORD", "there is no password").into());
    }
    let line = line.strip_suffix(b"\n").unwrap_or(&line);
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let text =
        std::str::from_utf8(line).map_err(|_| Failure::failed("INPUT", "the password is not UTF-8"))?;
    Ok(text.to_owned())
}

/// A server would refuse it too, but only after a connection.
fn check(password: String) -> anyhow::Result<String> {
    if is_password(&password) {
        return Ok(password);
    }
    let (min, max) = (PASSWORD_BYTES.start(), PASSWORD_BYTES.end());
    let text = format!("a password has {min} to {max} bytes");
    Err(Failure::failed("PASSWORD_INVALID", text)
        .hint("choose a longer one; several words are easy to remember")
        .into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn first(input: &[u8]) -> Result<String, String> {
        first_line(&mut &*input).map_err(|error| error.to_string())
    }

    #[test]
    fn the_end_of_the_line_is_no_part_of_the_password() {
        for input in ["pass word", "pass word\n", "pass word\r\n", "pass word\nrest"] {
            assert_eq!(first(input.as_bytes()), Ok("pass word".to_owned()));
        }
        assert_eq!(first(b" x \n"), Ok(" x ".to_owned()), "spaces are");
        assert_eq!(first(b"\n"), Ok(String::new()));
    }

    #[test]
    fn no_error_shows_the_password() {
        assert_eq!(first(b""), Err("there is no password".to_owned()));
        assert_eq!(first(b"secret\xff\n"), Err("the password is not UTF-8".to_owned()));
        let error = check("secret".to_owned()).unwrap_err().to_string();
        assert_eq!(error, "a password has 8 to 1024 bytes");
    }

    #[test]
    fn two_lines_of_stdin_are_two_passwords() {
        let mut stdin = &b"old secret\nnew secret\n"[..];
        assert_eq!(from_stdin(&mut stdin).unwrap(), "old secret");
        assert_eq!(from_stdin(&mut stdin).unwrap(), "new secret");
        assert!(from_stdin(&mut stdin).is_err());
    }
}

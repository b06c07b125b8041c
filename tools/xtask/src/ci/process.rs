//! Starts the programs that the stages consist of.
//!
//! Invariants: each command line is printed before it runs, so that it can be repeated by hand; no child reads from
//! the terminal; none sees the variables that cargo sets for this program itself, which would make build scripts of
//! others run again.

use std::env;
use std::io::IsTerminal;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

/// Runs commands in the repository's root.
pub(crate) struct Runner {
    root: std::path::PathBuf,
    colour: &'static str,
    /// What is to be printed after everything else.
    pub(crate) closing: Option<String>,
}

impl Runner {
    /// A runner for a repository.
    pub(crate) fn new(root: &Path) -> Runner {
        // The tests' output is read by this program on its way, so nobody below can see the terminal.
        let colour = if std::io::stdout().is_terminal() { "always" } else { "never" };
        Runner { root: root.to_path_buf(), colour, closing: None }
    }

    /// The repository's root.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// Whether output has colours, in the words that cargo and rustfmt understand: `always` or `never`.
    pub(crate) fn colour(&self) -> &'static str {
        self.colour
    }

    /// Returns a cargo command.
    pub(crate) fn cargo(&self, args: &[&str]) -> Command {
        let mut command = self.program("cargo");
        command.args(args);
        command
    }

    /// Returns the command that starts a program.
    pub(crate) fn program(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        command.current_dir(&self.root).stdin(Stdio::null()).env("CI", "true");
        if env::var_os("CARGO_TERM_COLOR").is_none() {
            command.env("CARGO_TERM_COLOR", self.colour);
        }
        for (name, _) in env::vars_os() {
            if name.to_str().is_some_and(is_about_this_program) {
                command.env_remove(name);
            }
        }
        command
    }

    /// Runs a command whose output is for the reader; fails when it does.
    pub(crate) fn run(&self, mut command: Command) -> Result<()> {
        let line = announce(&command);
        let status = command.status().with_context(|| format!("start `{line}`"))?;
        if !status.success() {
            bail!("`{line}`: {status}");
        }
        Ok(())
    }

    /// Runs a command and returns what it prints; fails when it does.
    pub(crate) fn output(&self, mut command: Command) -> Result<String> {
        let line = announce(&command);
        let output = command.stderr(Stdio::inherit()).output().with_context(|| format!("start `{line}`"))?;
        if !output.status.success() {
            bail!("`{line}`: {}", output.status);
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

/// Prints a command as one would type it, and returns that.
pub(crate) fn announce(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let words: Vec<_> = words.map(|word| quoted(&word.to_string_lossy())).collect();
    let line = words.join(" ");
    println!("$ {line}");
    line
}

fn quoted(word: &str) -> String {
    let is_plain = |char: char| char.is_ascii_alphanumeric() || "-_=./:,+@%".contains(char);
    if !word.is_empty() && word.chars().all(is_plain) { word.to_owned() } else { format!("'{word}'") }
}

fn is_about_this_program(name: &str) -> bool {
    const PREFIXES: &[&str] =
        &["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_", "CARGO_CRATE_", "CARGO_PRIMARY_"];
    PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_name_the_command() {
        let runner = Runner::new(Path::new("/"));
        runner.run(runner.program("true")).unwrap();
        let error = runner.run(runner.program("false")).unwrap_err().to_string();
        assert!(error.starts_with("`false`: exit status: 1"), "{error}");
        assert!(runner.run(runner.program("no-such-program-anywhere")).is_err());
    }

    #[test]
    fn children_read_nothing_and_know_that_this_is_ci() {
        let runner = Runner::new(Path::new("/"));
        let mut shell = runner.program("sh");
        shell.args(["-c", "cat; echo $CI"]);
        assert_eq!(runner.output(shell).unwrap(), "true\n");
    }

    #[test]
    fn command_lines_can_be_typed() {
        assert_eq!(quoted("--bench"), "--bench");
        assert_eq!(quoted("*"), "'*'");
        assert!(is_about_this_program("CARGO_PKG_NAME"));
        assert!(!is_about_this_program("CARGO_TARGET_DIR"));
    }
}

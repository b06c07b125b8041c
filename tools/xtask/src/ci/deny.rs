//! What may enter the dependency graph, by cargo-deny and deny.toml.
//!
//! A machine that does not have cargo-deny gets one pinned version, built once below `target`. It is built without
//! optimisation: the check itself takes seconds, the optimiser takes longer than it could ever save.
//!
//! Invariants: licenses, bans and sources are always checked, and need no more of the network than a build does: the
//! graph is that of the targets in deny.toml, so no other system's packages are downloaded. Advisories are news from
//! outside: they are checked where their database can be reached, and where not, that is said.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use super::process::{Runner, announce};
use crate::repo;

const VERSION: &str = "0.20.2";

/// Where it is put: below what git ignores, and what a build machine keeps from run to run.
const TOOLS: &str = "target/tools";

/// How long the advisory database may take to arrive.
const FETCH_SECONDS: &str = "30";

/// Checks the dependency graph.
pub(crate) fn run(runner: &mut Runner) -> Result<()> {
    let program = find_or_install(runner)?;
    let settings = repo::read(&runner.root().join("deny.toml"))?;
    let targets = targets(&settings)?;
    for (index, target) in targets.iter().enumerate() {
        let mut check = check(runner, &program, target, &[]);
        if index > 0 {
            // Second versions are nearly the same everywhere, and have been told.
            check.args(["--allow", "duplicate"]);
        }
        check.args(["bans", "licenses", "sources"]);
        runner.run(check)?;
    }
    if !fetch_advisories(runner, &program) {
        println!("advisories skipped: database unreachable");
        return Ok(());
    }
    for target in &targets {
        // Offline: the database was fetched above, where that could not take for ever.
        let mut check = check(runner, &program, target, &["--offline"]);
        check.arg("advisories");
        runner.run(check)?;
    }
    Ok(())
}

/// One target at a time: for several together cargo-deny downloads every other system's packages as well.
fn check(runner: &Runner, program: &Path, target: &str, options: &[&str]) -> Command {
    let mut command = runner.program(program);
    command.args(options).args(["--locked", "--target", target, "check", "--hide-inclusion-graph"]);
    command
}

/// Reads the targets of the graph from deny.toml.
fn targets(settings: &str) -> Result<Vec<String>> {
    let settings: toml::Table = settings.parse().context("read deny.toml")?;
    let targets = settings.get("graph").and_then(|graph| graph.get("targets")?.as_array());
    let targets: Vec<String> =
        targets.into_iter().flatten().filter_map(|target| target.as_str().map(str::to_owned)).collect();
    if targets.is_empty() {
        bail!("deny.toml names no targets in [graph]");
    }
    Ok(targets)
}

/// Returns the program: the pinned one if it was built before, the machine's own, or the pinned one, built now.
fn find_or_install(runner: &Runner) -> Result<PathBuf> {
    let tools = runner.root().join(TOOLS);
    fs::create_dir_all(&tools).with_context(|| format!("create {}", tools.display()))?;
    let pinned = tools.join("bin/cargo-deny");
    for candidate in [pinned.clone(), PathBuf::from("cargo-deny")] {
        if let Some(version) = version(runner.program(&candidate)) {
            println!("{version} at {}", candidate.display());
            return Ok(candidate);
        }
    }
    println!("cargo-deny is not installed: building {VERSION}, once, takes minutes");
    let build = tools.join("build");
    let wanted = format!("={VERSION}");
    let mut install = runner.cargo(&["install", "cargo-deny", "--version", &wanted, "--locked", "--debug"]);
    install.arg("--root").arg(&tools).arg("--target-dir").arg(&build);
    // Line numbers of somebody else's program only cost time and space.
    install.env("CARGO_PROFILE_DEV_DEBUG", "0");
    runner.run(install)?;
    fs::remove_dir_all(&build).with_context(|| format!("remove {}", build.display()))?;
    Ok(pinned)
}

fn version(mut command: Command) -> Option<String> {
    let output = command.arg("--version").stderr(Stdio::null()).output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    output.status.success().then_some(text)
}

/// Returns whether the advisory database is here and fresh.
fn fetch_advisories(runner: &Runner, program: &Path) -> bool {
    // `timeout` ends the whole process group: git is started below, and waits for as long as the network does.
    let mut fetch = runner.program("timeout");
    fetch.args(["--kill-after=5", FETCH_SECONDS]).arg(program).args(["fetch", "db"]);
    fetch.env("GIT_TERMINAL_PROMPT", "0");
    announce(&fetch);
    fetch.stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_is_not_there_has_no_version() {
        assert_eq!(version(Command::new("no-such-program-anywhere")), None);
        assert_eq!(version(Command::new("false")), None);
        assert!(version(Command::new("cargo")).unwrap().starts_with("cargo "));
    }

    #[test]
    fn the_graph_has_the_targets_of_the_settings() {
        assert_eq!(targets("[graph]\ntargets = [\"a\", \"b\"]\n").unwrap(), ["a", "b"]);
        assert!(targets("[graph]\nall-features = true\n").is_err());
        assert!(targets("[graph").is_err());
    }

    #[test]
    fn an_unreachable_database_is_no_error() {
        assert!(!fetch_advisories(&Runner::new(Path::new("/")), &PathBuf::from("no-such-program-anywhere")));
    }
}

//! Makes sure that the programs which the tests start are on the machine.
//!
//! Tests start real programs. On a fresh build machine, where this runs as root, they are installed; on a developer's
//! machine nothing is installed behind their back, they are told what to type.
//!
//! Invariants: a program that stays missing does not fail this stage, the tests that need it fail and say so; no
//! service is started by being installed, for the tests start their own, on their own ports.

use std::env;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result};

use super::process::Runner;

struct Need {
    binary: &'static str,
    /// The Debian package that holds it.
    package: &'static str,
}

const NEEDS: &[Need] = &[
    // Links every program, and compiles the C of the cryptographic provider and of SQLite.
    Need { binary: "cc", package: "build-essential" },
    // Says which files belong to the repository.
    Need { binary: "git", package: "git" },
    // Makes system calls fail, and shows in which order they were made.
    Need { binary: "strace", package: "strace" },
    // Counts instructions.
    Need { binary: "valgrind", package: "valgrind" },
    // Private servers, which the tests kill.
    Need { binary: "initdb", package: "postgresql" },
];

/// Looks for each program, and installs what is missing where that is possible.
pub(crate) fn run(runner: &mut Runner) -> Result<()> {
    if missing().is_empty() {
        println!("all there: {}", NEEDS.iter().map(|need| need.binary).collect::<Vec<_>>().join(", "));
        return Ok(());
    }
    if is_root() && find("apt-get").is_some() {
        // What could not be installed is found missing below.
        if let Err(error) = install(runner, &missing()) {
            println!("{error:#}");
        }
    }
    for need in missing() {
        println!("missing: {}; tests that need it will fail", need.binary);
        println!("  apt-get install --no-install-recommends {}", need.package);
    }
    Ok(())
}

fn install(runner: &Runner, needs: &[&Need]) -> Result<()> {
    let _policy = NoServices::declare(Path::new("/usr/sbin/policy-rc.d"));
    let apt = |args: &[&str]| {
        let mut command = runner.program("apt-get");
        command.args(args).env("DEBIAN_FRONTEND", "noninteractive").env("RUNLEVEL", "1");
        runner.run(command)
    };
    apt(&["update", "-q"]).context("update the list of packages")?;
    let packages: Vec<&str> = needs.iter().map(|need| need.package).collect();
    apt(&[&["install", "-y", "-q", "--no-install-recommends"], packages.as_slice()].concat())
}

/// Debian asks this file, when it exists, before it starts a service.
struct NoServices(Option<PathBuf>);

impl NoServices {
    /// Forbids to start services until dropped; a machine that has its own policy keeps it.
    fn declare(path: &Path) -> NoServices {
        let file = OpenOptions::new().write(true).create_new(true).mode(0o755).open(path);
        let written = file.and_then(|mut file| file.write_all(b"#!/bin/sh\nexit 101\n"));
        NoServices(written.is_ok().then(|| path.to_path_buf()))
    }
}

impl Drop for NoServices {
    fn drop(&mut self) {
        if let Some(path) = &self.0
            && let Err(error) = fs::remove_file(path)
        {
            println!("remove {}: {error}", path.display());
        }
    }
}

fn missing() -> Vec<&'static Need> {
    NEEDS.iter().filter(|need| find(need.binary).is_none()).collect()
}

/// Returns where a program lies: on the path, or where Debian puts those that are not.
pub(super) fn find(binary: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let mut dirs: Vec<PathBuf> = env::split_paths(&path).collect();
    dirs.push(PathBuf::from("/usr/local/bin"));
    // One directory for each installed version of PostgreSQL.
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    dirs.extend(versions.map(|version| version.path().join("bin")));
    dirs.into_iter().map(|dir| dir.join(binary)).find(|path| path.is_file())
}

fn is_root() -> bool {
    let output = Command::new("id").arg("-u").stderr(Stdio::null()).output();
    output.is_ok_and(|output| output.stdout.trim_ascii() == b"0")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_found_or_not() {
        assert!(find("sh").is_some());
        assert_eq!(find("no-such-program-anywhere"), None);
    }

    #[test]
    fn a_policy_lasts_as_long_as_it_is_held() {
        let path = env::temp_dir().join(format!("xtask-policy-{}", std::process::id()));
        let policy = NoServices::declare(&path);
        assert!(path.is_file());
        // The machine's own policy: neither replaced nor removed.
        drop(NoServices::declare(&path));
        assert!(path.is_file());
        drop(policy);
        assert!(!path.exists());
    }
}

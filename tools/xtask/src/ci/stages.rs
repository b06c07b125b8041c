//! The table of stages.
//!
//! Invariants: the order is the order they run in; a stage that only reads comes before one that compiles; tests come
//! last. Every cargo command is held to the committed Cargo.lock.

use anyhow::{Result, bail};

use super::process::Runner;
use super::{deny, purity, setup, test_run};
use crate::{codegen, guard, tidy};

/// The name of the last stage.
pub(crate) const TESTS: &str = "tests";

/// One step of the way to a merge.
pub(crate) struct Stage {
    /// Its name on the command line.
    pub(crate) name: &'static str,
    /// What it does, for the list and the header.
    pub(crate) about: &'static str,
    /// Does it.
    pub(crate) run: fn(&mut Runner) -> Result<()>,
}

/// All stages, in order.
pub(crate) const STAGES: &[Stage] = &[
    Stage { name: "setup", about: "programs that the tests need", run: setup::run },
    Stage { name: "fmt", about: "formatting", run: fmt },
    Stage { name: "tidy", about: "rules that no compiler checks", run: check_tidy },
    Stage { name: "gen", about: "generated code is up to date", run: check_generated },
    Stage { name: "clippy", about: "lints, warnings are errors", run: clippy },
    Stage { name: "purity", about: "the core does no IO, one cryptographic provider", run: purity::run },
    Stage { name: "docs", about: "documentation, warnings are errors", run: docs },
    Stage { name: "deny", about: "licenses, bans, sources, advisories", run: deny::run },
    Stage { name: "doctests", about: "examples in the documentation", run: doctests },
    Stage { name: "benches", about: "benchmarks still run", run: benches },
    Stage { name: "guard", about: "a message costs no more than before", run: guard_costs },
    Stage { name: "build", about: "the programs", run: build },
    Stage { name: TESTS, about: "unit tests and tests of the running programs", run: test_run::run },
];

fn fmt(runner: &mut Runner) -> Result<()> {
    // rustfmt colours its differences even where nobody looks.
    runner.run(runner.cargo(&["fmt", "--all", "--check", "--", "--color", runner.colour()]))
}

fn check_tidy(runner: &mut Runner) -> Result<()> {
    if !tidy::run(runner.root())? {
        bail!("see above");
    }
    Ok(())
}

fn check_generated(runner: &mut Runner) -> Result<()> {
    codegen::run(runner.root(), true)
}

fn clippy(runner: &mut Runner) -> Result<()> {
    runner.run(runner.cargo(&["clippy", "--workspace", "--all-targets", "--locked", "--", "-D", "warnings"]))
}

fn docs(runner: &mut Runner) -> Result<()> {
    let mut command =
        runner.cargo(&["doc", "--workspace", "--no-deps", "--document-private-items", "--locked"]);
    command.env("RUSTDOCFLAGS", "-D warnings");
    runner.run(command)
}

fn doctests(runner: &mut Runner) -> Result<()> {
    runner.run(runner.cargo(&["test", "--workspace", "--doc", "--locked"]))
}

/// Runs each benchmark once: it may not rot between the days on which somebody measures. Only targets that are benchmarks:
/// the test harness of libraries and programs takes `--test` for something else.
fn benches(runner: &mut Runner) -> Result<()> {
    runner.run(runner.cargo(&["bench", "--workspace", "--locked", "--bench", "*", "--", "--test"]))
}

/// Counts with the benchmarks that the stage before has built. Where valgrind is missing the stage fails and says what to install,
/// unless what is missing may be skipped.
fn guard_costs(runner: &mut Runner) -> Result<()> {
    if setup::find("valgrind").is_none()
        && std::env::var_os("QUAIL_SKIP_MISSING").is_some_and(|value| value == "1")
    {
        println!("skipped: valgrind is missing");
        return Ok(());
    }
    if !guard::run(runner.root(), &guard::Options::default())? {
        bail!("see above");
    }
    Ok(())
}

fn build(runner: &mut Runner) -> Result<()> {
    runner.run(runner.cargo(&["build", "--workspace", "--bins", "--locked"]))?;
    // The daemons that break a promise on purpose or die where they are told to, for the tests that need them. The whole
    // workspace is named so that the features of the dependencies stay the same and none of them is built twice.
    for (feature, program) in [("unsynced", "quaild-unsynced"), ("failpoints", "quaild-failpoints")] {
        let feature = format!("quaild/{feature}");
        let args = ["build", "--workspace", "--features", &feature, "--bin", program, "--locked"];
        runner.run(runner.cargo(&args))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique() {
        let mut names: Vec<_> = STAGES.iter().map(|stage| stage.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), STAGES.len());
    }
}

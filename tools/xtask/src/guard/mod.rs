//! Fails when a message has become dearer: instructions and allocations per message against the committed baseline.
//!
//! Seconds differ by half on a shared machine and say nothing about a change; counts are the same on every day. They come from
//! valgrind, which also hides from programs what a processor has beyond the common, so they hardly depend on the machine.
//!
//! Invariants: only what happens per iteration counts, for two counts of iterations are subtracted; the baseline changes only
//! when one says `--bless`, and the change is reviewed with the code that caused it.

mod baseline;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::ci::process::Runner;
use baseline::{Baseline, Cost};

/// Where the baseline lies.
const BASELINE: &str = "daemon/benches/guard/baseline.toml";

/// The program that is counted.
const PROGRAM: &str = "guard";

/// The paths that are counted, and between which two counts of iterations the difference is taken. The store is not among them: it
/// has threads of its own that work by the clock, so its counts are not the same twice.
const PATHS: &[(&str, u64, u64)] = &[("decode", 500, 2_500), ("encode", 500, 2_500), ("decide", 500, 2_500)];

/// What `cargo xtask bench-guard` can be told.
#[derive(clap::Args, Default)]
pub(crate) struct Options {
    /// Writes what is counted as the new baseline.
    #[arg(long)]
    bless: bool,
}

/// Counts and compares; returns whether nothing is dearer.
pub(crate) fn run(root: &Path, options: &Options) -> Result<bool> {
    let runner = Runner::new(root);
    let program = build(&runner)?;
    let mut counted = Baseline::default();
    for (path, few, many) in PATHS {
        let cost = count(&runner, &program, path, (*few, *many))?;
        counted.0.insert((*path).to_owned(), cost);
    }
    let file = root.join(BASELINE);
    if options.bless {
        std::fs::write(&file, counted.to_text()).with_context(|| format!("write {BASELINE}"))?;
        print!("{}", counted.table(&counted));
        return Ok(true);
    }
    let text = std::fs::read_to_string(&file).with_context(|| format!("read {BASELINE}"))?;
    let baseline = Baseline::parse(&text).with_context(|| format!("read {BASELINE}"))?;
    print!("{}", counted.table(&baseline));
    let dearer = counted.dearer_than(&baseline);
    for line in &dearer {
        println!("{line}");
    }
    if !dearer.is_empty() {
        println!("if that is meant: cargo xtask bench-guard --bless, and say why in the commit");
    }
    Ok(dearer.is_empty())
}

/// Builds the program and returns where it lies.
fn build(runner: &Runner) -> Result<PathBuf> {
    let args = ["bench", "--workspace", "--locked", "--bench", PROGRAM, "--no-run"];
    let messages = ["--message-format", "json-render-diagnostics"];
    let output = runner.output(runner.cargo(&[&args[..], &messages[..]].concat()))?;
    // The one field that is looked for; a whole parser is not worth its build time here.
    let executables = output.lines().filter_map(|line| {
        let (_, rest) = line.split_once("\"executable\":\"")?;
        Some(PathBuf::from(rest.split('"').next()?))
    });
    let named = |path: &PathBuf| {
        path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with(PROGRAM))
    };
    let found = executables.into_iter().find(named);
    found.with_context(|| format!("cargo says nothing of a program named {PROGRAM}"))
}

fn count(runner: &Runner, program: &Path, path: &str, (few, many): (u64, u64)) -> Result<Cost> {
    let few_instructions = instructions(runner, program, path, few)?.0;
    let (many_instructions, output) = instructions(runner, program, path, many)?;
    let Some(more) = many_instructions.checked_sub(few_instructions).filter(|more| *more > 0) else {
        bail!(
            "{path}: {many} iterations took no more instructions than {few}, so something else was counted"
        );
    };
    let instructions = more / (many - few);
    let numbers: Vec<f64> = output.split_whitespace().skip(1).filter_map(|word| word.parse().ok()).collect();
    let [allocations, bytes] = numbers[..] else { bail!("{path} printed no counts: {output:?}") };
    Ok(Cost { instructions, allocations, bytes })
}

/// Runs the program under valgrind and returns the instructions and what it printed.
fn instructions(runner: &Runner, program: &Path, path: &str, iterations: u64) -> Result<(u64, String)> {
    let mut command = runner.program("valgrind");
    command.args([
        "--tool=cachegrind",
        "--cache-sim=no",
        "--cachegrind-out-file=/dev/null",
        "--error-exitcode=1",
    ]);
    command.arg(program).args([path, &iterations.to_string()]);
    let output =
        command.output().context("start valgrind; apt-get install --no-install-recommends valgrind")?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    if !output.status.success() {
        bail!("{path} failed under valgrind:\n{said}");
    }
    let counted = said.lines().find_map(|line| line.split_once("refs:"));
    let counted = counted.and_then(|(_, count)| count.trim().replace(',', "").parse().ok());
    let counted = counted.with_context(|| format!("valgrind counted nothing:\n{said}"))?;
    Ok((counted, String::from_utf8_lossy(&output.stdout).into_owned()))
}

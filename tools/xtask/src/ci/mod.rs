//! Everything that must hold before a change is merged, in one command.
//!
//! What is cheap and fails often comes first, so that a mistake is told in seconds; the tests come last, so that their
//! summary closes the output, where one looks for it. The first stage that fails ends the run and says how to repeat
//! it alone.
//!
//! Invariants: a developer's machine and the build machine run the same commands; nothing asks a question; what a
//! stage leaves out it says on a line of its own.

mod deny;
pub(crate) mod process;
mod purity;
mod setup;
mod stages;
mod test_run;

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Result;
use clap::builder::PossibleValuesParser;

use process::Runner;
use stages::{STAGES, Stage, TESTS};

/// What `cargo xtask ci` can be told.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Runs this stage only; may be given several times.
    #[arg(long = "stage", value_name = "NAME", value_parser = stage_names())]
    stages: Vec<String>,
    /// Lists the stages and runs none.
    #[arg(long)]
    list: bool,
}

fn stage_names() -> PossibleValuesParser {
    PossibleValuesParser::new(STAGES.iter().map(|stage| stage.name))
}

/// Runs the stages that are asked for; returns whether all passed.
pub(crate) fn run(root: &Path, options: &Options) -> Result<bool> {
    if options.list {
        for Stage { name, about, .. } in STAGES {
            println!("{name:<10} {about}");
        }
        return Ok(true);
    }
    let mut runner = Runner::new(root);
    let mut times = Times::default();
    for stage in chosen(&options.stages) {
        if stage.name == TESTS {
            print!("{}", times.table());
        }
        println!("\n== {}: {}", stage.name, stage.about);
        let start = Instant::now();
        let result = (stage.run)(&mut runner);
        let took = start.elapsed();
        println!("stage {}: {}", stage.name, seconds(took));
        times.add(stage.name, took);
        if stage.name != TESTS && result.is_err() {
            print!("{}", times.table());
        }
        if let Err(error) = &result {
            eprintln!("error: stage {} failed: {error:#}", stage.name);
            eprintln!("repeat it with: cargo xtask ci --stage {}", stage.name);
        }
        if let Some(closing) = &runner.closing {
            println!("{closing}");
        }
        if result.is_err() {
            return Ok(false);
        }
    }
    if runner.closing.is_none() {
        print!("{}", times.table());
    }
    Ok(true)
}

/// Returns the named stages, or all, in the order of the table whatever the order of the names.
fn chosen(names: &[String]) -> impl Iterator<Item = &'static Stage> {
    STAGES.iter().filter(move |stage| names.is_empty() || names.iter().any(|name| name == stage.name))
}

#[derive(Default)]
struct Times(Vec<(&'static str, Duration)>);

impl Times {
    fn add(&mut self, stage: &'static str, took: Duration) {
        self.0.push((stage, took));
    }

    /// Returns the table of what each stage took; nothing when none has run.
    fn table(&self) -> String {
        if self.0.is_empty() {
            return String::new();
        }
        let total = ("total", self.0.iter().map(|(_, took)| *took).sum());
        let mut table = String::from("\n");
        for (stage, took) in self.0.iter().chain([&total]) {
            table.push_str(&format!("{stage:<10} {:>8}\n", seconds(*took)));
        }
        table
    }
}

fn seconds(took: Duration) -> String {
    if took < Duration::from_secs(10) {
        format!("{:.1} s", took.as_secs_f64())
    } else {
        format!("{:.0} s", took.as_secs_f64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stages_run_in_the_tables_order() {
        let names: Vec<_> = chosen(&["tests".to_owned(), "fmt".to_owned()]).map(|stage| stage.name).collect();
        assert_eq!(names, ["fmt", "tests"]);
        assert_eq!(chosen(&[]).count(), STAGES.len());
    }

    #[test]
    fn tests_come_last() {
        assert_eq!(STAGES.last().unwrap().name, TESTS);
    }

    #[test]
    fn times_are_a_table_with_a_total() {
        let mut times = Times::default();
        assert_eq!(times.table(), "");
        times.add("fmt", Duration::from_millis(1_250));
        times.add("clippy", Duration::from_secs(100));
        assert_eq!(times.table(), "\nfmt           1.2 s\nclippy        100 s\ntotal         101 s\n");
    }
}

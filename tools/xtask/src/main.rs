//! The project's own checks, as one program that needs nothing but cargo.
//!
//! `cargo xtask ci` is what must hold before a change is merged, on a developer's machine and on the build machine
//! alike; `cargo xtask tidy` is the part of it that no compiler checks; `cargo xtask bench-guard` the one that counts what a message
//! costs; `cargo xtask gen` writes the generated code.
//!
//! Invariants: nothing here is a dependency of what is shipped, and nothing of what is shipped is a dependency of
//! this; what it needs to know about the code it reads as text. So a tree that does not compile can still be checked.

mod ci;
mod codegen;
mod guard;
mod repo;
mod tidy;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "xtask", bin_name = "cargo xtask", about = "The project's own checks")]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Writes the code that is generated from the proto files.
    Gen {
        /// Writes nothing; fails when the committed code is not what would be written.
        #[arg(long)]
        check: bool,
    },
    /// Checks the rules that no compiler checks.
    Tidy,
    /// Counts what a message costs, and fails when that is more than before.
    BenchGuard(guard::Options),
    /// Checks everything, tests last.
    Ci(ci::Options),
}

fn main() -> ExitCode {
    let done = match Cli::parse().task {
        Task::Gen { check } => repo::root().and_then(|root| codegen::run(&root, check)).map(|()| true),
        Task::Tidy => repo::root().and_then(|root| tidy::run(&root)),
        Task::BenchGuard(options) => repo::root().and_then(|root| guard::run(&root, &options)),
        Task::Ci(options) => repo::root().and_then(|root| ci::run(&root, &options)),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::Cli;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }
}

//! The `quail` command: probe tool and terminal client of Quail.
//!
//! The commands are in `cli/`, one file each; what tests and other programs use as well is in the library.

mod cli;

fn main() -> std::process::ExitCode {
    cli::main()
}

//! The `quail` command: probe tool and terminal client of Quail.
//!
//! The commands are in `cli/`, one file each; what tests and other programs use as well is in the library.

mod cli;

/// A benchmark of many users makes and frees millions of messages across threads, which the system's allocator is slow at; what
/// it measures is the server and the SDK.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    cli::main()
}

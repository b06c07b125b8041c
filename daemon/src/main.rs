//! The `quaild` command; everything it does is in the library, where tests reach it.

#[cfg(feature = "unsynced")]
compile_error!(
    "the feature `unsynced` is for the program quaild-unsynced; build it by itself: --bin quaild-unsynced"
);

fn main() -> std::process::ExitCode {
    quaild::app::main()
}

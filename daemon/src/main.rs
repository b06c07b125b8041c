//! The `quaild` command; everything it does is in the library, where tests reach it.

#[cfg(feature = "unsynced")]
compile_error!(
    "the feature `unsynced` is for the program quaild-unsynced; build it by itself: --bin quaild-unsynced"
);

#[cfg(feature = "failpoints")]
compile_error!(
    "the feature `failpoints` is for the program quaild-failpoints; build it by itself: --bin quaild-failpoints"
);

fn main() -> std::process::ExitCode {
    quaild::app::main()
}

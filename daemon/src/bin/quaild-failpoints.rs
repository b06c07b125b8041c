//! A `quaild` that dies at a named place when a test asks for it; see `ops::failpoint`.
//!
//! It is built by itself, with the feature `failpoints`, and never shipped.

fn main() -> std::process::ExitCode {
    eprintln!("WARNING: quaild-failpoints is for tests only. It dies where QUAIL_FAILPOINT says.");
    quaild::app::main()
}

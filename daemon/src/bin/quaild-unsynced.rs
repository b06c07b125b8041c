//! A `quaild` that breaks its first promise on purpose: it does not sync what it writes.
//!
//! Why it exists: a test that looks for the sync before every `Accepted` must fail when the sync is missing, or it shows
//! nothing. This is what it is held against. It is built by itself, with the feature `unsynced`, and never shipped.

fn main() -> std::process::ExitCode {
    eprintln!("WARNING: quaild-unsynced is for tests only. It does not sync: what it accepts can be lost.");
    quaild::app::main()
}

//! Writes the fingerprint of the sources into the daemon, for `quaild --version`.

use std::collections::BTreeSet;
use std::path::Path;
use std::{env, io};

#[path = "fingerprint.rs"]
mod fingerprint;

fn main() -> io::Result<()> {
    let manifest = env::var_os("CARGO_MANIFEST_DIR").ok_or_else(|| io::Error::other("not run by cargo"))?;
    let daemon = Path::new(&manifest);
    let root = daemon.parent().unwrap_or(daemon);
    let (fingerprint, inputs) = fingerprint::fingerprint(root)?;
    println!("cargo:rustc-env=QUAIL_FINGERPRINT={fingerprint}");
    let mut watched = BTreeSet::new();
    for input in &inputs {
        println!("cargo:rerun-if-changed={}", input.display());
        watched.extend(input.parent());
    }
    // Cargo watches a directory with everything below it. The top of a package has tests and build output below it.
    for directory in watched.into_iter().filter(|directory| !directory.join("Cargo.toml").exists()) {
        println!("cargo:rerun-if-changed={}", directory.display());
    }
    Ok(())
}

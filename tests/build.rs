//! Puts the fingerprint of the daemon's sources into the harness, so that it can tell a `quaild` of another build.

#[path = "../daemon/fingerprint.rs"]
mod fingerprint;

fn main() -> std::io::Result<()> {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let (fingerprint, inputs) = fingerprint::fingerprint(&root)?;
    println!("cargo:rustc-env=QUAIL_FINGERPRINT={fingerprint}");
    for input in inputs {
        println!("cargo:rerun-if-changed={}", input.display());
    }
    Ok(())
}

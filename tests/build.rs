//! Writes the fingerprint of the daemon's sources into the harness, so that it can tell a `quaild` of another build.

#[path = "../daemon/fingerprint.rs"]
mod fingerprint;

fn main() -> std::io::Result<()> {
    fingerprint::tell_cargo("..")
}

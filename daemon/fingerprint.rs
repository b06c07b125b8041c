//! The fingerprint of the sources that a daemon is built from.
//!
//! Why: tests and people must be able to tell whether a `quaild` was built from what they are looking at; a version number
//! stays the same between two commits. The build script of the daemon writes the fingerprint into the binary, and whoever
//! wants to compare computes it again with this very file, which therefore uses the standard library only.
//!
//! Invariants: the same files give the same fingerprint on every machine, wherever the repository lies and whatever else
//! lies in it; files that are not compiled into the daemon, such as its tests, do not count.

use std::path::{Path, PathBuf};
use std::{fs, io};

/// The directories that count, and the files in them that do.
const TREES: [(&str, &[&str]); 2] =
    [("daemon", &["rs", "toml", "sql"]), ("protocol", &["rs", "toml", "proto"])];

/// The other files that count: what is taken from others, and how all is compiled.
const FILES: [&str; 2] = ["Cargo.lock", "Cargo.toml"];

/// Directories of what is not compiled into the daemon.
const SKIPPED: [&str; 4] = ["target", "tests", "benches", "fuzz"];

/// Returns the fingerprint of the sources below `repo_root`, 16 hex digits, and the files it was made of, sorted.
///
/// # Errors
/// Whatever hinders reading one of them; a missing one counts as absent.
pub(crate) fn fingerprint(repo_root: &Path) -> io::Result<(String, Vec<PathBuf>)> {
    let mut inputs = Vec::new();
    for (tree, extensions) in TREES {
        collect(&repo_root.join(tree), extensions, &mut inputs)?;
    }
    inputs.extend(FILES.iter().map(|file| repo_root.join(file)).filter(|file| file.is_file()));
    inputs.sort();
    let mut hash = FNV_OFFSET;
    for path in &inputs {
        // Where the repository lies must not count, and a separator must not depend on the system.
        let name = path.strip_prefix(repo_root).unwrap_or(path).to_string_lossy().replace('\\', "/");
        let content = fs::read(path)?;
        // Lengths keep the border between two parts in its place.
        for part in [name.as_bytes(), &content] {
            hash = fnv(fnv(hash, &(part.len() as u64).to_le_bytes()), part);
        }
    }
    Ok((format!("{hash:016x}"), inputs))
}

fn collect(directory: &Path, extensions: &[&str], inputs: &mut Vec<PathBuf>) -> io::Result<()> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    for entry in entries {
        let entry = entry?;
        let (path, name) = (entry.path(), entry.file_name());
        let name = name.to_string_lossy();
        if path.is_dir() {
            if !name.starts_with('.') && !SKIPPED.contains(&name.as_ref()) {
                collect(&path, extensions, inputs)?;
            }
        } else if path.extension().is_some_and(|found| extensions.iter().any(|wanted| found == *wanted)) {
            inputs.push(path);
        }
    }
    Ok(())
}

/// FNV-1a, 64 bit: the same for ever, unlike the standard library's hash, and good enough against chance; nobody has
/// anything to gain from a collision.
fn fnv(hash: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(hash, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(FNV_PRIME))
}

const FNV_OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
const FNV_PRIME: u64 = 0x0100_0000_01b3;

/// Sets `QUAIL_FINGERPRINT` for the package that is being built, and has Cargo run the build script again when it changes.
/// `to_root` leads from the package's directory to that of the repository.
pub(crate) fn tell_cargo(to_root: &str) -> io::Result<()> {
    // At run time, not by `env!`: a build script may have been compiled in another copy of the repository.
    let manifest =
        std::env::var_os("CARGO_MANIFEST_DIR").ok_or_else(|| io::Error::other("not run by cargo"))?;
    let (fingerprint, inputs) = fingerprint(&Path::new(&manifest).join(to_root))?;
    println!("cargo:rustc-env=QUAIL_FINGERPRINT={fingerprint}");
    let mut watched = std::collections::BTreeSet::new();
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

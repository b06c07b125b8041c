//! Where the repository is, and which files belong to it.
//!
//! Files are asked of git rather than found by walking, so that build output, editors' files and other ignored things
//! are never checked, and new files are before they are added.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

/// Returns the directory of the workspace's own Cargo.toml.
pub(crate) fn root() -> Result<PathBuf> {
    // Cargo says where this package is when it runs it; a copy that was started by hand looks upwards.
    let start = match env::var_os("CARGO_MANIFEST_DIR") {
        Some(dir) => PathBuf::from(dir),
        None => env::current_dir().context("find the current directory")?,
    };
    for dir in start.ancestors() {
        let manifest = dir.join("Cargo.toml");
        if manifest.is_file() && read(&manifest)?.lines().any(|line| line.trim() == "[workspace]") {
            return Ok(dir.to_path_buf());
        }
    }
    bail!("no workspace at or above {}", start.display())
}

/// Returns the paths of all files that are tracked, or new and not ignored; relative to the root, sorted.
pub(crate) fn files(root: &Path) -> Result<Vec<String>> {
    let output = Command::new("git")
        // A build machine's checkout often belongs to another user than the one who checks it.
        .args(["-c", "safe.directory=*", "ls-files", "--cached", "--others", "--exclude-standard", "-z"])
        .current_dir(root)
        .output()
        .context("start git")?;
    if !output.status.success() {
        bail!("git ls-files failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    let mut files: Vec<String> = String::from_utf8_lossy(&output.stdout)
        .split('\0')
        .filter(|path| !path.is_empty())
        // Deleted and not yet committed as such.
        .filter(|path| root.join(path).is_file())
        .map(str::to_owned)
        .collect();
    files.sort_unstable();
    files.dedup();
    Ok(files)
}

/// Reads a text file.
pub(crate) fn read(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_root_is_the_workspace_and_knows_its_files() {
        let root = root().unwrap();
        let files = files(&root).unwrap();
        assert!(files.contains(&"tools/xtask/src/repo.rs".to_owned()));
        assert!(!files.iter().any(|path| path.starts_with("target/")));
    }
}

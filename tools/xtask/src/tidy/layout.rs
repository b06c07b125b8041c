//! What may stand at the top of the repository.
//!
//! Whoever looks at the repository for the first time sees its parts and nothing else.
//!
//! Invariant: one name, one part. A new one is a decision, and is made here.

use std::collections::BTreeSet;

use super::{Tree, Violation};

const TOP_LEVEL: &[&str] = &[
    // The parts.
    "Cargo.toml",
    "client-sdk",
    "daemon",
    "docker-compose.yml",
    "protocol",
    "README.md",
    "tests",
    "tools",
    // What tools and platforms look for here.
    "ARCHITECTURE.md",
    "Cargo.lock",
    "CHANGELOG.md",
    "LICENSE",
    "SECURITY.md",
    "clippy.toml",
    "deny.toml",
    "rust-toolchain.toml",
    "rustfmt.toml",
];

/// Reports what does not belong at the top; names with a leading dot may stand there.
pub(crate) fn check(tree: &Tree, out: &mut Vec<Violation>) {
    let tops: BTreeSet<&str> = tree.paths().filter_map(|path| path.split('/').next()).collect();
    for top in tops {
        if !top.starts_with('.') && !TOP_LEVEL.contains(&top) {
            let what = "does not belong at the top level: move it into one of the parts";
            out.push(Violation::new(top, 1, "layout", what));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(paths: &[&str]) -> Vec<String> {
        let files: Vec<_> = paths.iter().map(|path| (*path, "")).collect();
        let mut out = Vec::new();
        check(&Tree::of(&files), &mut out);
        out.iter().map(|violation| violation.path.clone()).collect()
    }

    #[test]
    fn strangers_are_reported_once() {
        assert_eq!(found(&["docs/a.md", "docs/b.md", "Makefile"]), ["Makefile", "docs"]);
    }

    #[test]
    fn the_parts_and_dot_files_are_not() {
        assert_eq!(found(&["Cargo.toml", "daemon/src/main.rs", ".ci/run", ".gitignore", "LICENSE"]), [""; 0]);
    }
}

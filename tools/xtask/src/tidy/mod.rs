//! The rules of this repository that no compiler checks.
//!
//! A rule that is only written down is broken within a month, and nobody notices. Each module here is one rule: a
//! table where there is something to decide, a `check` that reads the tree and reports.
//!
//! Invariants: every violation of every rule is reported, not the first; each says where, which rule, and what to do
//! about it; rules read the tree they are given and nothing else, so their tests give them made-up trees.

mod calls;
mod commands;
mod header;
mod layout;
mod manifest;
mod mask;
mod modules;
mod packages;
mod size;
mod source;

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use anyhow::Result;

use crate::repo;
use source::Source;

const RULES: &[fn(&Tree, &mut Vec<Violation>)] = &[
    packages::check,
    modules::check,
    manifest::check,
    layout::check,
    header::check,
    size::check,
    calls::check,
    commands::check,
];

/// Checks all rules; returns whether they hold.
pub(crate) fn run(root: &Path) -> Result<bool> {
    let tree = Tree::read(root)?;
    let mut violations = Vec::new();
    for rule in RULES {
        rule(&tree, &mut violations);
    }
    violations.sort();
    for violation in &violations {
        println!("{violation}");
    }
    let files = tree.texts.len();
    match violations.len() {
        0 => println!("tidy: {files} files, nothing to report"),
        1 => println!("tidy: {files} files, 1 violation"),
        count => println!("tidy: {files} files, {count} violations"),
    }
    Ok(violations.is_empty())
}

/// One place where a rule does not hold.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Violation {
    path: String,
    line: usize,
    rule: &'static str,
    what: String,
}

impl Violation {
    /// A violation of `rule`; `what` says what to do.
    pub(crate) fn new(path: &str, line: usize, rule: &'static str, what: impl Into<String>) -> Violation {
        Violation { path: path.to_owned(), line, rule, what: what.into() }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Violation { path, line, rule, what } = self;
        write!(f, "{path}:{line}: {rule}: {what}")
    }
}

/// The repository as the rules see it.
pub(crate) struct Tree {
    paths: Vec<String>,
    /// The files that some rule reads.
    texts: BTreeMap<String, String>,
    sources: Vec<Source>,
}

impl Tree {
    fn read(root: &Path) -> Result<Tree> {
        let paths = repo::files(root)?;
        let mut texts = BTreeMap::new();
        for path in &paths {
            if path.ends_with(".rs") || path.ends_with("Cargo.toml") || path.ends_with("README.md") {
                texts.insert(path.clone(), repo::read(&root.join(path))?);
            }
        }
        Ok(Tree::new(paths, texts))
    }

    /// Makes up a tree.
    #[cfg(test)]
    pub(crate) fn of(files: &[(&str, &str)]) -> Tree {
        let paths = files.iter().map(|(path, _)| (*path).to_owned()).collect();
        let texts = files.iter().map(|(path, text)| ((*path).to_owned(), (*text).to_owned())).collect();
        Tree::new(paths, texts)
    }

    fn new(paths: Vec<String>, texts: BTreeMap<String, String>) -> Tree {
        let is_rust = |(path, _): &(&String, &String)| path.ends_with(".rs");
        let sources = texts.iter().filter(is_rust).map(|(path, text)| Source::new(path, text)).collect();
        Tree { paths, texts, sources }
    }

    /// All files' paths, relative to the root.
    pub(crate) fn paths(&self) -> impl Iterator<Item = &str> {
        self.paths.iter().map(String::as_str)
    }

    /// All Rust files.
    pub(crate) fn sources(&self) -> impl Iterator<Item = &Source> {
        self.sources.iter()
    }

    /// Returns what is in a file that a rule reads.
    pub(crate) fn text(&self, path: &str) -> Option<&str> {
        self.texts.get(path).map(String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn violations_say_where_which_and_what() {
        let violation = Violation::new("a/b.rs", 7, "rule", "do this");
        assert_eq!(violation.to_string(), "a/b.rs:7: rule: do this");
    }

    #[test]
    fn violations_sort_by_place() {
        let mut violations = [
            Violation::new("b", 1, "y", ""),
            Violation::new("a", 10, "z", ""),
            Violation::new("a", 9, "z", ""),
        ];
        violations.sort();
        assert_eq!(violations.map(|violation| violation.line), [9, 10, 1]);
    }
}

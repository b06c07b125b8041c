//! Every file begins by saying what it is.
//!
//! Whoever opens a file for the first time wants to know what it is, why it exists and what must hold in it; a header
//! that is missing is not added later.
//!
//! Invariant: only generated files are exempt; tests are read by people too.

use super::{Tree, Violation};

/// Reports files without a header.
pub(crate) fn check(tree: &Tree, out: &mut Vec<Violation>) {
    for source in tree.sources().filter(|source| !source.is_generated()) {
        if !source.raw.starts_with("//!") {
            let what = "begin with `//!`: what the file is, why it exists, what must hold in it";
            out.push(Violation::new(&source.path, 1, "header", what));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(path: &str, raw: &str) -> usize {
        let mut out = Vec::new();
        check(&Tree::of(&[(path, raw)]), &mut out);
        out.len()
    }

    #[test]
    fn a_file_without_header_is_reported() {
        assert_eq!(found("a/src/lib.rs", "fn a() {}\n"), 1);
        assert_eq!(found("a/tests/b.rs", "use a::b;\n"), 1);
        assert_eq!(found("a/src/lib.rs", ""), 1);
    }

    #[test]
    fn a_file_with_header_and_a_generated_one_are_not() {
        assert_eq!(found("a/src/lib.rs", "//! What it is.\n\nfn a() {}\n"), 0);
        assert_eq!(found("a/src/generated/b.rs", "fn a() {}\n"), 0);
    }
}

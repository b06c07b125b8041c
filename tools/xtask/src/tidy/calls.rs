//! Calls that take something out of everybody's hands: an unbounded queue, a task that nobody owns.
//!
//! Clippy bans them too, where it sees them; this also sees them in code that is not compiled here, behind a condition
//! or in a macro.
//!
//! Invariant: what is banned here has an entry with the same reason in clippy.toml.

use super::source::words;
use super::{Tree, Violation};

/// A path whose call is banned, and what to do instead.
const BANNED: &[(&str, &str)] = &[
    ("unbounded_channel", "every queue has a named limit: use a bounded channel"),
    ("tokio::spawn", "spawn on the TaskTracker or JoinSet that owns the task"),
    ("task::spawn", "spawn on the TaskTracker or JoinSet that owns the task"),
];

/// Reports banned calls outside of tests.
pub(crate) fn check(tree: &Tree, out: &mut Vec<Violation>) {
    for source in tree.sources() {
        for (path, instead) in BANNED {
            for at in words(&source.code, path) {
                let rest = &source.code[at + path.len()..];
                if rest.starts_with('(') || rest.starts_with("::<") {
                    let what = format!("no `{path}`: {instead}");
                    out.push(Violation::new(&source.path, source.line(at), "banned-call", what));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(path: &str, raw: &str) -> Vec<String> {
        let mut out = Vec::new();
        check(&Tree::of(&[(path, raw)]), &mut out);
        out.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn banned_calls_are_reported() {
        assert_eq!(
            found("a/src/lib.rs", "fn a() {\n    tokio::spawn(b());\n}"),
            [
                "a/src/lib.rs:2: banned-call: no `tokio::spawn`: spawn on the TaskTracker or JoinSet that owns the task"
            ]
        );
        assert_eq!(found("a/src/lib.rs", "fn a() { tokio::task::spawn(b()); }").len(), 1);
        assert_eq!(found("a/src/lib.rs", "fn a() { mpsc::unbounded_channel::<u8>(); }").len(), 1);
    }

    #[test]
    fn owned_tasks_tests_and_words_are_not() {
        assert_eq!(found("a/src/lib.rs", "fn a() { tracker.spawn(b()); join_set.spawn(b()); }"), [""; 0]);
        assert_eq!(found("a/src/lib.rs", "fn a() { tokio::task::spawn_blocking(b); }"), [""; 0]);
        assert_eq!(found("a/src/lib.rs", "// tokio::spawn(x)\nconst A: &str = \"tokio::spawn(\";"), [""; 0]);
        assert_eq!(found("a/tests/b.rs", "fn a() { tokio::spawn(b()); }"), [""; 0]);
        assert_eq!(
            found("a/src/lib.rs", "#[cfg(test)]\nmod tests { fn a() { tokio::spawn(b()); } }"),
            [""; 0]
        );
    }
}

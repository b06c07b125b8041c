//! Which module of a package may name which.
//!
//! Inside of a package the compiler lets every module name every other, and soon they do. The daemon is laid out in
//! the order a message walks through it; a module that reaches backwards, or past the place where adapters are chosen,
//! makes the walk impossible to follow.
//!
//! Invariants: modules are named through `crate::`, or `super::` up to the root, or the package's own name in a binary;
//! all three are seen. A module that stands in no table may be named by all and may name none that does, so it cannot
//! become a way around the table.

use super::source::{Source, after_closing, word_at, words};
use super::{Tree, Violation};

const RULE: &str = "module-arrows";

/// The modules right below one package's root.
struct Package {
    /// Where its root lies.
    src: &'static str,
    /// How its binaries name it.
    name: &'static str,
    rooms: &'static [Room],
}

/// One module, with everything below it.
struct Room {
    name: &'static str,
    /// The rooms it may name.
    may: &'static [&'static str],
}

/// The files that have no room: `lib.rs`, `main.rs` and the programs in `bin/`.
const ROOT: &str = "(root)";

const PACKAGES: &[Package] = &[Package {
    src: "daemon/src/",
    name: "quaild",
    rooms: &[
        Room { name: ROOT, may: &["app", "config", "ops"] },
        Room {
            name: "app",
            may: &[
                "net",
                "gateway",
                "sequencer",
                "directory",
                "query",
                "delivery",
                "archive",
                "adapters",
                "ops",
                "config",
            ],
        },
        Room { name: "net", may: &["gateway", "delivery", "ops"] },
        // Of delivery only the types of the handles that commands carry; of config the rate classes, which are settings
        // and nothing else.
        Room { name: "gateway", may: &["sequencer", "directory", "query", "delivery", "ops", "config"] },
        Room { name: "sequencer", may: &["delivery", "ops"] },
        Room { name: "directory", may: &["ops"] },
        Room { name: "query", may: &["ops"] },
        Room { name: "delivery", may: &["ops"] },
        // It reads the journal through a trait of its own, so that it can be tried without one.
        Room { name: "archive", may: &["ops"] },
        Room { name: "adapters", may: &["ops"] },
        Room { name: "ops", may: &["config"] },
        Room { name: "config", may: &[] },
    ],
}];

/// Reports modules that name one they may not.
pub(crate) fn check(tree: &Tree, out: &mut Vec<Violation>) {
    for package in PACKAGES {
        for source in tree.sources() {
            if let Some(file) = source.path.strip_prefix(package.src) {
                check_file(package, file, source, out);
            }
        }
    }
}

fn check_file(package: &Package, file: &str, source: &Source, out: &mut Vec<Violation>) {
    let module = module(file);
    let own = module.first().copied().unwrap_or(ROOT);
    let may = package.rooms.iter().find(|room| room.name == own).map_or(&[][..], |room| room.may);
    let mut named = from_root(&source.code, package.name);
    named.extend(from_parents(&source.code, module.len()));
    named.sort_unstable();
    named.dedup();
    for (at, name) in named {
        let is_room = package.rooms.iter().any(|room| room.name == name);
        if is_room && name != own && !may.contains(&name) {
            let what = match may {
                [] => {
                    format!("`{own}` may name no other module, not `{name}`: pass what it needs as a value")
                }
                may => format!("`{own}` may not name `{name}`, only {}", may.join(", ")),
            };
            out.push(Violation::new(&source.path, source.line(at), RULE, what));
        }
    }
}

/// Returns the path of the module that a file holds, below the package's root.
fn module(file: &str) -> Vec<&str> {
    let mut parts: Vec<_> = file.trim_end_matches(".rs").split('/').collect();
    if matches!(parts.last(), Some(&("mod" | "lib" | "main"))) {
        parts.pop();
    }
    if parts.first() == Some(&"bin") {
        parts.clear();
    }
    parts
}

/// Returns the modules named by `crate::` or by the package's own name, each with the offset of its name.
fn from_root<'a>(code: &'a str, package: &'a str) -> Vec<(usize, &'a str)> {
    let roots = ["crate", package];
    let starts = roots.into_iter().flat_map(|root| words(code, root).map(move |at| at + root.len()));
    starts.flat_map(|end| children(code, end)).collect()
}

/// Returns the modules named by `super::` repeated often enough to arrive at the root.
fn from_parents(code: &str, depth: usize) -> Vec<(usize, &str)> {
    let mut named = Vec::new();
    for start in words(code, "super") {
        // Counted from the first of a chain.
        if code[..start].ends_with("super::") {
            continue;
        }
        let (mut end, mut steps) = (start + "super".len(), 1);
        while code[end..].starts_with("::super") {
            end += "::super".len();
            steps += 1;
        }
        if steps >= depth {
            named.extend(children(code, end));
        }
    }
    named
}

/// Returns what is named right after a path that ends at an offset: `::a`, or `::{a, b::c}`.
fn children(code: &str, end: usize) -> Vec<(usize, &str)> {
    let Some(rest) = code[end..].strip_prefix("::") else {
        return Vec::new();
    };
    let start = end + "::".len();
    if !rest.starts_with('{') {
        return vec![(start, word_at(code, start))];
    }
    let close = after_closing(code, start);
    let mut names = Vec::new();
    let mut at = start + 1;
    let mut is_first = true;
    while at < close {
        match code.as_bytes()[at] {
            b',' => is_first = true,
            b'{' => {
                at = after_closing(code, at);
                continue;
            }
            byte if is_first && !byte.is_ascii_whitespace() => {
                names.push((at, word_at(code, at)));
                is_first = false;
            }
            _ => {}
        }
        at += 1;
    }
    names
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
    fn drawn_arrows_pass() {
        assert_eq!(
            found("daemon/src/net/door.rs", "use crate::gateway::Gate;\nuse crate::net::lane;"),
            [""; 0]
        );
        assert_eq!(
            found("daemon/src/app/mod.rs", "use crate::{adapters::sled, config::Config, net};"),
            [""; 0]
        );
        assert_eq!(found("daemon/src/main.rs", "fn main() { quaild::app::run() }"), [""; 0]);
        assert_eq!(
            found("daemon/src/adapters/sled/mod.rs", "use super::files; use crate::adapters::sql;"),
            [""; 0]
        );
        assert_eq!(found("daemon/core/src/send.rs", "use crate::adapters::x;"), [""; 0]);
    }

    #[test]
    fn only_app_names_adapters() {
        for room in ["net", "gateway", "sequencer", "directory", "query", "delivery", "ops", "config"] {
            let found =
                found(&format!("daemon/src/{room}/mod.rs"), "//! x\nuse crate::adapters::sled::Store;");
            assert_eq!(found.len(), 1, "{room}");
            assert!(found[0].starts_with(&format!("daemon/src/{room}/mod.rs:2: module-arrows: `{room}`")));
        }
        assert_eq!(found("daemon/src/main.rs", "use quaild::adapters::sled;").len(), 1);
        assert_eq!(found("daemon/src/bin/other.rs", "use quaild::adapters::sled;").len(), 1);
        assert_eq!(found("daemon/src/bin/other.rs", "fn main() { quaild::app::run() }"), [""; 0]);
    }

    #[test]
    fn nobody_reaches_backwards() {
        assert_eq!(found("daemon/src/sequencer/turn.rs", "fn a(b: &crate::gateway::Gate) {}").len(), 1);
        assert_eq!(found("daemon/src/delivery.rs", "use crate::{net::lane, ops::clock};").len(), 1);
        assert_eq!(found("daemon/src/ops/mod.rs", "use crate::config::Config;"), [""; 0]);
        assert_eq!(found("daemon/src/query/mod.rs", "use crate::config::Config;").len(), 1);
    }

    #[test]
    fn every_way_to_name_a_module_is_seen() {
        let forms = [
            "use crate::{\n    ops::{clock, metrics},\n    gateway,\n};",
            "use super::gateway::Gate;",
            "macro_rules! a { () => { $crate::gateway::b() } }",
            "pub(crate) use crate::gateway as g;",
        ];
        for form in forms {
            assert_eq!(found("daemon/src/delivery/mod.rs", form).len(), 1, "{form}");
        }
        assert_eq!(found("daemon/src/delivery/feed/one.rs", "use super::super::super::net::lane;").len(), 1);
        assert_eq!(found("daemon/src/delivery/feed/one.rs", "use super::super::net::lane;"), [""; 0]);
    }

    #[test]
    fn comments_strings_tests_and_longer_names_do_not_count() {
        let silent = [
            "// crate::net\nconst A: &str = \"crate::net\";",
            "#[cfg(test)]\nmod tests { use crate::net; }",
            "use crate::network::x; use crate::ops::{net, gateway};",
        ];
        for raw in silent {
            assert_eq!(found("daemon/src/delivery/mod.rs", raw), [""; 0], "{raw}");
        }
    }

    #[test]
    fn a_module_in_no_table_is_no_way_around_it() {
        assert_eq!(found("daemon/src/common.rs", "use crate::adapters::x;").len(), 1);
        assert_eq!(found("daemon/src/net/mod.rs", "use crate::common::x;"), [""; 0]);
    }
}

//! Which package may depend on which.
//!
//! Cargo enforces the arrows that are drawn, but anybody can draw one more; here each is a decision. The core decides
//! without doing IO, and that is only true as long as it has nothing to do IO with.
//!
//! Invariants: a package that is not in the table is reported, so that a new one gets its arrows on purpose;
//! dependencies of build scripts follow the same arrows, and so do those of tests, which have a few arrows more.

use super::manifest::{Dependency, Package, packages};
use super::{Tree, Violation};

const RULE: &str = "package-arrows";

/// What one package may depend on.
struct Arrows {
    from: &'static str,
    /// Packages of the workspace.
    to: &'static [&'static str],
    /// Packages of the workspace that its tests may see besides.
    in_tests: &'static [&'static str],
    /// Packages of others that it must do without.
    never: &'static [&'static str],
}

const ARROWS: &[Arrows] = &[
    Arrows { from: "quail-protocol", to: &[], in_tests: &[], never: &[] },
    Arrows {
        from: "quail-core",
        to: &["quail-protocol"],
        in_tests: &["quail-checker"],
        never: &["tokio", "quinn", "sled", "redis", "sqlx"],
    },
    Arrows { from: "quaild", to: &["quail-core", "quail-protocol"], in_tests: &[], never: &[] },
    Arrows { from: "quail-client", to: &["quail-protocol"], in_tests: &[], never: &[] },
    Arrows {
        from: "quail",
        to: &["quail-checker", "quail-client", "quail-protocol"],
        in_tests: &[],
        never: &[],
    },
    Arrows { from: "quail-checker", to: &["quail-protocol"], in_tests: &[], never: &[] },
    Arrows {
        from: "quail-tests",
        to: &["quail", "quail-checker", "quail-client", "quail-protocol"],
        // The adapters of servers are tested where the harness is that starts these servers.
        in_tests: &["quaild", "quail-core"],
        never: &[],
    },
    Arrows { from: "xtask", to: &[], in_tests: &[], never: &[] },
];

/// Reports dependencies that are not drawn in the table.
pub(crate) fn check(tree: &Tree, out: &mut Vec<Violation>) {
    let packages = packages(tree);
    for package in &packages {
        let Some(arrows) = ARROWS.iter().find(|arrows| arrows.from == package.name) else {
            let what = format!("`{}` has no arrows: draw them in tidy's table", package.name);
            out.push(Violation::new(&package.path, 1, RULE, what));
            continue;
        };
        for dependency in package.dependencies(tree) {
            let is_ours = |package: &Package| package.name == dependency.package;
            let name = dependency.package.as_str();
            if arrows.never.contains(&name) {
                let what =
                    format!("`{}` must do without `{name}`: put what needs it elsewhere", package.name);
                out.push(Violation::new(&package.path, dependency.line, RULE, what));
            } else if packages.iter().any(is_ours) && !is_drawn(arrows, &dependency) {
                let what = match arrows.to {
                    [] => format!("`{}` may depend on no other package of ours", package.name),
                    to => format!("`{}` may not depend on `{name}`, only on {}", package.name, to.join(", ")),
                };
                out.push(Violation::new(&package.path, dependency.line, RULE, what));
            }
        }
    }
}

/// A package may see itself, with other features, in its own tests.
fn is_drawn(arrows: &Arrows, dependency: &Dependency) -> bool {
    let name = dependency.package.as_str();
    let in_tests = dependency.is_for_tests && arrows.in_tests.contains(&name);
    arrows.from == name || arrows.to.contains(&name) || in_tests
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(packages: &[(&str, &str)]) -> Vec<String> {
        let members: Vec<_> = packages.iter().map(|(name, _)| format!("\"{name}\"")).collect();
        let workspace = format!("[workspace]\nmembers = [{}]\n", members.join(", "));
        let mut files = vec![("Cargo.toml".to_owned(), workspace)];
        for (name, dependencies) in packages {
            let manifest = format!("[package]\nname = \"{name}\"\n{dependencies}");
            files.push((format!("{name}/Cargo.toml"), manifest));
        }
        let files: Vec<_> = files.iter().map(|(path, text)| (path.as_str(), text.as_str())).collect();
        let mut out = Vec::new();
        check(&Tree::of(&files), &mut out);
        out.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn drawn_arrows_and_others_packages_pass() {
        let packages = [
            ("quail-protocol", "[dependencies]\nbytes = \"1\"\n"),
            ("quail-core", "[dependencies]\nquail-protocol.workspace = true\n"),
            (
                "quaild",
                "[dependencies]\nquail-core = \"1\"\ntokio = \"1\"\n[dev-dependencies]\nquail-core = \"1\"\n",
            ),
        ];
        assert_eq!(found(&packages), [""; 0]);
    }

    #[test]
    fn an_arrow_that_is_not_drawn_is_reported() {
        let packages = [
            ("quail-core", "[dependencies]\n"),
            ("quail-protocol", "[dependencies]\nquail-core = \"1\"\n"),
            ("quail-client", "[dev-dependencies]\nquail-core = \"1\"\n"),
        ];
        let found = found(&packages);
        assert_eq!(found.len(), 2);
        assert_eq!(
            found[0],
            "quail-protocol/Cargo.toml:4: package-arrows: `quail-protocol` may depend on no other package of ours"
        );
        assert!(found[1].contains("`quail-client` may not depend on `quail-core`, only on quail-protocol"));
    }

    #[test]
    fn what_is_for_tests_is_for_nothing_else() {
        for (table, count) in [("dev-dependencies", 0), ("dependencies", 1), ("build-dependencies", 1)] {
            let core = format!("[{table}]\nquail-checker.workspace = true\n");
            assert_eq!(found(&[("quail-core", &core), ("quail-checker", "")]).len(), count, "{table}");
        }
    }

    #[test]
    fn the_core_does_no_io() {
        for name in ["tokio", "quinn", "sled", "redis", "sqlx"] {
            let tables =
                ["dependencies", "dev-dependencies", "build-dependencies", "target.'cfg(unix)'.dependencies"];
            for table in tables {
                let found = found(&[("quail-core", &format!("[{table}]\n{name} = \"1\"\n"))]);
                assert_eq!(found.len(), 1, "{name} in {table}");
                assert!(found[0].starts_with("quail-core/Cargo.toml:4:"), "{}", found[0]);
            }
        }
    }

    #[test]
    fn a_new_package_needs_arrows() {
        assert_eq!(found(&[("quail-common", "")]).len(), 1);
    }
}

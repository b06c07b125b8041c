//! The Cargo.toml files: reading them, and that every package is held to the workspace's lints.
//!
//! A package that forgets two lines is checked by nothing, and nothing says so: unsafe code would pass.
//!
//! Invariant: a package is what the workspace lists as a member; a member without a readable manifest is reported.

use toml::{Table, Value};

use super::{Tree, Violation};

const RULE: &str = "lints";
const ROOT: &str = "Cargo.toml";

/// A package of the workspace.
pub(crate) struct Package {
    /// Its manifest, relative to the repository's root.
    pub(crate) path: String,
    /// Its name.
    pub(crate) name: String,
    raw: String,
    table: Table,
}

/// A dependency as a manifest lists it.
pub(crate) struct Dependency {
    /// Name of the package.
    pub(crate) package: String,
    /// Where it stands.
    pub(crate) line: usize,
    /// Whether only tests and benchmarks see it.
    pub(crate) is_for_tests: bool,
}

/// Reports packages that are not held to the workspace's lints, and a workspace whose lints allow unsafe code.
pub(crate) fn check(tree: &Tree, out: &mut Vec<Violation>) {
    let unsafe_code = at(&root(tree), &["workspace", "lints", "rust", "unsafe_code"]).cloned();
    let level = match &unsafe_code {
        Some(Value::Table(lint)) => lint.get("level").and_then(Value::as_str),
        Some(lint) => lint.as_str(),
        None => None,
    };
    if level != Some("forbid") {
        let what = "set `unsafe_code = \"forbid\"` in [workspace.lints.rust]";
        out.push(Violation::new(ROOT, 1, RULE, what));
    }
    for member in members(tree) {
        if read(tree, &member).is_none() {
            let what = format!("the member `{member}` has no readable Cargo.toml with a package name");
            out.push(Violation::new(ROOT, 1, RULE, what));
        }
    }
    for package in packages(tree) {
        if at(&package.table, &["lints", "workspace"]) != Some(&Value::Boolean(true)) {
            let what = "add `[lints]` with `workspace = true`";
            out.push(Violation::new(&package.path, 1, RULE, what));
        }
    }
}

/// Returns the packages of the workspace.
pub(crate) fn packages(tree: &Tree) -> Vec<Package> {
    members(tree).iter().filter_map(|member| read(tree, member)).collect()
}

impl Package {
    /// Returns all dependencies: normal, for build scripts, for tests, for some targets only.
    pub(crate) fn dependencies(&self, tree: &Tree) -> Vec<Dependency> {
        let mut tables = vec![&self.table];
        if let Some(Value::Table(targets)) = self.table.get("target") {
            tables.extend(targets.values().filter_map(Value::as_table));
        }
        let root = root(tree);
        let mut dependencies = Vec::new();
        for table in tables {
            for kind in ["dependencies", "build-dependencies", "dev-dependencies"] {
                for (key, value) in table.get(kind).and_then(Value::as_table).into_iter().flatten() {
                    let shared = at(&root, &["workspace", "dependencies", key]);
                    let renamed = [Some(value), shared].into_iter().flatten().find_map(package_name);
                    let package = renamed.unwrap_or(key).to_owned();
                    let is_for_tests = kind == "dev-dependencies";
                    dependencies.push(Dependency { package, line: self.line_of(key), is_for_tests });
                }
            }
        }
        dependencies
    }

    /// Returns the line that begins with a key, as well as it can be known: a comment does not count.
    fn line_of(&self, key: &str) -> usize {
        let is_it = |text: &str| {
            let text = text.trim_start().trim_start_matches('"');
            let after = text.strip_prefix(key).unwrap_or("x");
            !after.starts_with(|char: char| char.is_alphanumeric() || char == '-' || char == '_')
        };
        let is_table = |text: &str| text.trim_end().ends_with(&format!("dependencies.{key}]"));
        let index = self.raw.lines().position(|text| is_it(text) || is_table(text)).unwrap_or(0);
        index + 1
    }
}

fn package_name(value: &Value) -> Option<&str> {
    value.get("package").and_then(Value::as_str)
}

fn read(tree: &Tree, member: &str) -> Option<Package> {
    let path = format!("{member}/Cargo.toml");
    let raw = tree.text(&path)?.to_owned();
    let table: Table = raw.parse().ok()?;
    let name = at(&table, &["package", "name"])?.as_str()?.to_owned();
    Some(Package { path, name, raw, table })
}

fn members(tree: &Tree) -> Vec<String> {
    let root = root(tree);
    let members = at(&root, &["workspace", "members"]).and_then(Value::as_array);
    members.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}

fn root(tree: &Tree) -> Table {
    tree.text(ROOT).and_then(|raw| raw.parse().ok()).unwrap_or_default()
}

fn at<'a>(table: &'a Table, path: &[&str]) -> Option<&'a Value> {
    let (first, rest) = path.split_first()?;
    let mut value = table.get(*first)?;
    for key in rest {
        value = value.get(key)?;
    }
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    const WORKSPACE: &str = "[workspace]\nmembers = [\"a\"]\n\n[workspace.lints.rust]\nunsafe_code = \"forbid\"\n\
        [workspace.dependencies]\nshort = { package = \"long\", version = \"1\" }\n";
    const PACKAGE: &str = "[package]\nname = \"quail-a\"\n\n[dependencies]\nb.workspace = true\nshort.workspace = true\n\
        \n[dev-dependencies]\nbb = \"1\"\n\n[target.'cfg(unix)'.dependencies]\nc = { package = \"d\" }\n\
        \n[lints]\nworkspace = true\n";

    fn found(workspace: &str, package: &str) -> Vec<String> {
        let mut out = Vec::new();
        check(&Tree::of(&[("Cargo.toml", workspace), ("a/Cargo.toml", package)]), &mut out);
        out.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn packages_held_to_the_lints_pass() {
        assert_eq!(found(WORKSPACE, PACKAGE), [""; 0]);
        let table = WORKSPACE.replace("\"forbid\"", "{ level = \"forbid\", priority = 1 }");
        assert_eq!(found(&table, PACKAGE), [""; 0]);
    }

    #[test]
    fn a_package_without_the_lints_is_reported() {
        let package = PACKAGE.replace("[lints]\nworkspace = true", "[lints.rust]\nunsafe_code = \"allow\"");
        assert_eq!(
            found(WORKSPACE, &package),
            ["a/Cargo.toml:1: lints: add `[lints]` with `workspace = true`"]
        );
    }

    #[test]
    fn a_workspace_that_allows_unsafe_code_is_reported() {
        assert_eq!(found(&WORKSPACE.replace("forbid", "deny"), PACKAGE).len(), 1);
        assert_eq!(found(&WORKSPACE.replace("unsafe_code", "unused"), PACKAGE).len(), 1);
    }

    #[test]
    fn an_unreadable_member_is_reported() {
        assert_eq!(found(WORKSPACE, "[package\n").len(), 1);
        assert_eq!(found(&WORKSPACE.replace("\"a\"", "\"a\", \"b\""), PACKAGE).len(), 1);
    }

    #[test]
    fn dependencies_are_found_under_their_real_names() {
        let tree = Tree::of(&[("Cargo.toml", WORKSPACE), ("a/Cargo.toml", PACKAGE)]);
        let package = packages(&tree).remove(0);
        let found: Vec<_> = package
            .dependencies(&tree)
            .into_iter()
            .map(|dependency| (dependency.package, dependency.line))
            .collect();
        assert_eq!(
            found,
            [("b", 5), ("long", 6), ("bb", 9), ("d", 12)].map(|(name, line)| (name.to_owned(), line))
        );
    }
}

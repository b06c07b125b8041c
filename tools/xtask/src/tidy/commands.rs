//! Every command of the command table is described and tried.
//!
//! The table is the protocol's register of what a client can ask for. A command that is not in the specification
//! cannot be used by a client in another language; one that no test names may not work at all.
//!
//! Invariant: the table is read as text, so this package needs nothing of the protocol; when it is not found, or found
//! empty, that is reported, not passed over.

use super::source::{Source, after_closing, line, words};
use super::{Tree, Violation};

const TABLE: &str = "protocol/src/commands.rs";
const SPECIFICATION: &str = "protocol/README.md";
const RULE: &str = "commands";

/// Reports commands that the specification does not describe or no test names.
pub(crate) fn check(tree: &Tree, out: &mut Vec<Violation>) {
    let Some(table) = tree.sources().find(|source| source.path == TABLE) else {
        out.push(Violation::new(TABLE, 1, RULE, "the command table is missing: bring it back, or tell tidy"));
        return;
    };
    let commands = commands(table);
    if commands.is_empty() {
        out.push(Violation::new(TABLE, 1, RULE, "no command found in `COMMANDS`: teach tidy its new form"));
    }
    let specification = tree.text(SPECIFICATION).unwrap_or_default();
    for Command { name, line } in commands {
        if !specification.contains(&format!("`{name}`")) {
            let what = format!("`{name}` is not described: add it to {SPECIFICATION}");
            out.push(Violation::new(TABLE, line, RULE, what));
        }
        let is_named = |source: &Source| source.tests().any(|tests| words(tests, &name).next().is_some());
        if !tree.sources().any(is_named) {
            let what = format!("no test names `{name}`: write one");
            out.push(Violation::new(TABLE, line, RULE, what));
        }
    }
}

struct Command {
    name: String,
    line: usize,
}

/// Returns the names in the value of `COMMANDS`, in the form `name: "..."` or as a macro's first string.
fn commands(table: &Source) -> Vec<Command> {
    let Some(value) = words(&table.code, "COMMANDS").find_map(|at| value(&table.code, at)) else {
        return Vec::new();
    };
    let mut commands = Vec::new();
    let text = &table.text[value.clone()];
    for (at, _) in text.match_indices('"') {
        let before = text[..at].trim_end();
        let is_field = before.ends_with("name:");
        let is_macro = before.rsplit_once('!').is_some_and(|(_, arguments)| is_number_argument(arguments));
        let Some((name, _)) = text[at + 1..].split_once('"') else {
            break;
        };
        if (is_field || is_macro) && is_snake(name) {
            let line = line(&table.raw, value.start + at);
            commands.push(Command { name: name.to_owned(), line });
        }
    }
    commands
}

/// Returns where the value of the constant whose name stands at an offset lies; `None` when it is only used there.
fn value(code: &str, name: usize) -> Option<std::ops::Range<usize>> {
    let after_name = name + "COMMANDS".len();
    if !code[after_name..].starts_with(':') {
        return None;
    }
    let equals = after_name + code[after_name..].find('=')?;
    let open = equals + code[equals..].find('[')?;
    Some(open..after_closing(code, open))
}

/// Whether this is the start of a macro's arguments up to the second, the first being a number: `(12,`.
fn is_number_argument(arguments: &str) -> bool {
    let inner = arguments.trim_start_matches(['(', '{', '[']).trim();
    let is_digit = |char: char| char.is_ascii_digit() || char == '_';
    inner.strip_suffix(',').is_some_and(|number| !number.is_empty() && number.chars().all(is_digit))
}

fn is_snake(name: &str) -> bool {
    !name.is_empty()
        && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIELDS: &str = "//! x\npub const COMMANDS: &[Command] = &[\n    \
        Command { code: 1, name: \"log_in\", kind: Kind::Query },\n    \
        Command { code: 2, name: \"send\", kind: Kind::Journal },\n];\n\
        fn by() { COMMANDS.iter().find(name: \"other\") }";
    const MACROS: &str =
        "static COMMANDS: [Command; 2] = [command!(1, \"log_in\", \"text\"), command!(12, \"send\")];";

    fn found(files: &[(&str, &str)]) -> Vec<String> {
        let mut out = Vec::new();
        check(&Tree::of(files), &mut out);
        out.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn both_forms_of_table_are_read() {
        for raw in [FIELDS, MACROS] {
            let names: Vec<_> =
                commands(&Source::new(TABLE, raw)).into_iter().map(|command| command.name).collect();
            assert_eq!(names, ["log_in", "send"]);
        }
    }

    #[test]
    fn an_undescribed_and_untried_command_is_reported() {
        let found = found(&[
            (TABLE, FIELDS),
            (SPECIFICATION, "# Commands\n`send` sends.\n"),
            ("tests/tests/send.rs", "fn a() { client.send(); }\n// log_in"),
        ]);
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found[0].starts_with("protocol/src/commands.rs:3: commands: `log_in` is not described"));
        assert!(found[1].starts_with("protocol/src/commands.rs:3: commands: no test names `log_in`"));
    }

    #[test]
    fn described_and_tried_commands_are_not() {
        let files = [
            (TABLE, FIELDS),
            (SPECIFICATION, "`send`, `log_in`"),
            ("daemon/src/a.rs", "#[cfg(test)]\nmod tests { fn a() { b(\"log_in\"); send(); } }"),
        ];
        assert_eq!(found(&files), [""; 0]);
    }

    #[test]
    fn a_missing_or_unreadable_table_is_reported() {
        assert_eq!(found(&[]).len(), 1);
        assert_eq!(found(&[(TABLE, "pub const COMMANDS: &[Command] = &[];")]).len(), 1);
    }
}

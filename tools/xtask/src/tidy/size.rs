//! Long files and long functions.
//!
//! A connection, a dispatcher, a configuration grow by one harmless line at a time until nobody reads them any more;
//! a limit that is checked is the only one that splits them in time.
//!
//! Invariant: tests do not count, neither as files nor inside of a file: a table of cases may be as long as it is.

use super::source::{Source, after_closing, line, word_at, words};
use super::{Tree, Violation};

const FILE_LINES_MAX: usize = 400;
const FUNCTION_LINES_MAX: usize = 70;

/// Reports files and functions over their limits.
pub(crate) fn check(tree: &Tree, out: &mut Vec<Violation>) {
    for source in tree.sources().filter(|source| !source.is_generated()) {
        let lines = source.product_lines();
        if lines > FILE_LINES_MAX {
            let what = format!("{lines} lines, tests not counted; split it: at most {FILE_LINES_MAX}");
            out.push(Violation::new(&source.path, 1, "file-length", what));
        }
        for function in functions(source) {
            if function.lines > FUNCTION_LINES_MAX {
                let Function { name, line, lines } = function;
                let what = format!("`{name}` has {lines} lines; split it: at most {FUNCTION_LINES_MAX}");
                out.push(Violation::new(&source.path, line, "function-length", what));
            }
        }
    }
}

struct Function {
    name: String,
    line: usize,
    lines: usize,
}

/// Finds the functions that have a body; a function inside of another counts for both.
fn functions(source: &Source) -> Vec<Function> {
    let code = &source.code;
    let mut functions = Vec::new();
    for start in words(code, "fn") {
        let after = start + "fn".len();
        let name = word_at(code[after..].trim_start(), 0);
        // Without a name it is the type of a function pointer.
        if name.is_empty() {
            continue;
        }
        if let Some(open) = body(code, after) {
            let first = source.line(start);
            let last = line(code, after_closing(code, open));
            functions.push(Function { name: name.to_owned(), line: first, lines: last - first + 1 });
        }
    }
    functions
}

/// Returns the offset of the brace that opens the body of the function whose signature starts at an offset.
fn body(code: &str, start: usize) -> Option<usize> {
    let mut at = start;
    while let Some(&byte) = code.as_bytes().get(at) {
        match byte {
            b';' => return None,
            b'(' | b'[' => at = after_closing(code, at),
            // `Array<{ N }>`: a constant, not a body.
            b'{' if code[..at].trim_end().ends_with('<') => at = after_closing(code, at),
            b'{' => return Some(at),
            _ => at += 1,
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(path: &str, raw: &str) -> Vec<String> {
        let mut out = Vec::new();
        check(&Tree::of(&[(path, raw)]), &mut out);
        out.iter().map(ToString::to_string).collect()
    }

    fn function(lines: usize) -> String {
        format!("fn long() {{\n{}}}\n", "    // {\n".repeat(lines - 2))
    }

    #[test]
    fn a_file_may_have_400_lines() {
        assert_eq!(found("a/src/lib.rs", &"//! x\n".repeat(400)), [""; 0]);
        let found = found("a/src/lib.rs", &"//! x\n".repeat(401));
        assert_eq!(found.len(), 1);
        assert!(found[0].starts_with("a/src/lib.rs:1: file-length: 401 lines"), "{}", found[0]);
    }

    #[test]
    fn a_function_may_have_70_lines() {
        assert_eq!(found("a/src/lib.rs", &function(70)), [""; 0]);
        let found = found("a/src/lib.rs", &format!("fn short() {{}}\n\n{}", function(71)));
        assert_eq!(found.len(), 1);
        assert!(found[0].starts_with("a/src/lib.rs:3: function-length: `long` has 71 lines"), "{}", found[0]);
    }

    #[test]
    fn tests_and_generated_code_do_not_count() {
        let long = function(500);
        assert_eq!(found("a/src/lib.rs", &format!("#[cfg(test)]\nmod tests {{\n{long}}}\n")), [""; 0]);
        for path in ["a/tests/b.rs", "a/src/generated/b.rs", "a/src/b_tests.rs", "a/examples/b.rs"] {
            assert_eq!(found(path, &long), [""; 0], "{path}");
        }
    }

    #[test]
    fn signatures_of_all_kinds_are_read() {
        let lines = |raw: &str| -> Vec<(String, usize)> {
            let source = Source::new("a/src/lib.rs", raw);
            functions(&source).into_iter().map(|function| (function.name, function.lines)).collect()
        };
        assert_eq!(lines("trait A { fn a(&self);\n fn b(&self) {\n }\n}"), [("b".to_owned(), 2)]);
        assert_eq!(lines("fn a(f: fn(u8) -> u8) -> B<{ 1 }> {\n let c = '{';\n}"), [("a".to_owned(), 3)]);
        assert_eq!(lines("fn a<'a>(x: &'a str)\nwhere\n    T: B,\n{\n}"), [("a".to_owned(), 5)]);
        assert_eq!(lines("fn a() { let x = r#\"}\"#;\n\n}"), [("a".to_owned(), 3)]);
        assert_eq!(lines("macro_rules! m { () => { fn $name() {} } }"), []);
    }
}

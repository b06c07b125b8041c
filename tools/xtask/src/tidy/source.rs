//! One Rust file as the checks see it.
//!
//! Tests are held to other rules than what is shipped, and stand in the same file. So a file knows which of its lines
//! are tests: items under `#[cfg(test)]`, or all of it when it lies in a directory of tests.
//!
//! Invariant: what is called product here is everything that is not certainly a test. A condition like
//! `any(test, feature = "x")` is product: it can be shipped.

use std::ops::Range;

use super::mask::{is_word, mask};

/// A Rust file, prepared for the checks.
pub(crate) struct Source {
    /// Relative to the repository's root.
    pub(crate) path: String,
    /// The file as it is.
    pub(crate) raw: String,
    /// The product code alone: no comments, nothing inside of literals, no tests.
    pub(crate) code: String,
    /// Everything without comments.
    pub(crate) text: String,
    tests: Vec<Range<usize>>,
}

impl Source {
    /// Prepares a file.
    pub(crate) fn new(path: &str, raw: &str) -> Source {
        let masked = mask(raw);
        let tests = if lies_in_tests(path) || squeeze(&masked.code).starts_with("#![cfg(test)]") {
            std::iter::once(0..raw.len()).collect()
        } else {
            test_items(&masked.code)
        };
        let mut code = masked.code.into_bytes();
        for range in &tests {
            for byte in &mut code[range.clone()] {
                if *byte != b'\n' {
                    *byte = b' ';
                }
            }
        }
        let code = String::from_utf8_lossy(&code).into_owned();
        Source { path: path.to_owned(), raw: raw.to_owned(), code, text: masked.text, tests }
    }

    /// Whether the file is written by a program.
    pub(crate) fn is_generated(&self) -> bool {
        self.path.split('/').any(|part| part == "generated")
    }

    /// Returns the number of the line, from 1, that an offset lies in.
    pub(crate) fn line(&self, offset: usize) -> usize {
        line(&self.raw, offset)
    }

    /// Returns how many lines the file has without its tests.
    pub(crate) fn product_lines(&self) -> usize {
        let all = self.raw.lines().count();
        let tests: usize = self.tests.iter().map(|range| self.raw[range.clone()].lines().count()).sum();
        all.saturating_sub(tests)
    }

    /// Returns the tests of the file, without comments.
    pub(crate) fn tests(&self) -> impl Iterator<Item = &str> {
        self.tests.iter().map(|range| &self.text[range.clone()])
    }
}

/// Returns the number of the line, from 1, that an offset lies in.
pub(crate) fn line(text: &str, offset: usize) -> usize {
    1 + text.as_bytes()[..offset].iter().filter(|&&byte| byte == b'\n').count()
}

/// Returns the offsets at which a word stands by itself.
pub(crate) fn words<'a>(text: &'a str, word: &'a str) -> impl Iterator<Item = usize> + 'a {
    let bytes = text.as_bytes();
    text.match_indices(word).map(|(at, _)| at).filter(move |&at| {
        let is_free = |byte: Option<&u8>| byte.is_none_or(|&byte| !is_word(byte));
        is_free(at.checked_sub(1).and_then(|before| bytes.get(before))) && is_free(bytes.get(at + word.len()))
    })
}

/// Returns the identifier that starts at an offset.
pub(crate) fn word_at(text: &str, offset: usize) -> &str {
    let rest = &text[offset..];
    let length = rest.bytes().position(|byte| !is_word(byte)).unwrap_or(rest.len());
    &rest[..length]
}

/// Returns the offset after the bracket that closes the one at an offset.
pub(crate) fn after_closing(code: &str, open: usize) -> usize {
    let mut depth = 0_usize;
    for (at, byte) in code.bytes().enumerate().skip(open) {
        match byte {
            b'(' | b'[' | b'{' => depth += 1,
            b')' | b']' | b'}' => {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    return at + 1;
                }
            }
            _ => {}
        }
    }
    code.len()
}

fn lies_in_tests(path: &str) -> bool {
    let is_tests = |part: &str| matches!(part, "tests" | "benches" | "examples");
    path.ends_with("tests.rs") || path.split('/').any(is_tests)
}

fn squeeze(code: &str) -> String {
    code.chars().filter(|char| !char.is_whitespace()).collect()
}

fn test_items(code: &str) -> Vec<Range<usize>> {
    let mut items: Vec<Range<usize>> = Vec::new();
    for (start, _) in code.match_indices("#[cfg(") {
        if items.last().is_some_and(|last| start < last.end) {
            continue;
        }
        let end = after_closing(code, start + 1);
        let condition = squeeze(&code[start..end]);
        if condition == "#[cfg(test)]" || condition.starts_with("#[cfg(all(test,") {
            items.push(start..end_of_item(code, end));
        }
    }
    items
}

/// Returns the end of what an attribute stands before: an item, a field, an arm or a statement.
fn end_of_item(code: &str, start: usize) -> usize {
    let mut at = start;
    let mut is_short = true;
    // Further attributes, visibility and qualifiers up to the word that says what it is.
    loop {
        at += code[at..].len() - code[at..].trim_start().len();
        if code[at..].starts_with('#') {
            at = after_closing(code, at);
            continue;
        }
        if code[at..].starts_with('"') {
            at += code[at + 1..].find('"').map_or(code[at..].len(), |length| length + 2);
            continue;
        }
        let word = word_at(code, at);
        at += word.len();
        match word {
            "pub" if code[at..].starts_with('(') => at = after_closing(code, at),
            "pub" | "async" | "unsafe" | "extern" => {}
            "const" if !matches!(next_word(code, at), "fn" | "async" | "unsafe" | "extern") => break,
            "const" => {}
            "fn" | "mod" | "impl" | "struct" | "enum" | "trait" | "union" | "macro_rules" => {
                is_short = false;
                break;
            }
            _ => break,
        }
    }
    let is_statement = matches!(last_word(&code[start..at]), "use" | "static" | "type" | "let" | "const");
    close_of_item(code, at, is_short && !is_statement, is_statement)
}

fn next_word(code: &str, offset: usize) -> &str {
    word_at(code[offset..].trim_start(), 0)
}

fn last_word(text: &str) -> &str {
    text.rsplit(|char: char| !char.is_alphanumeric() && char != '_').next().unwrap_or("")
}

/// A field ends with a comma, a statement with a semicolon, anything else with its block.
fn close_of_item(code: &str, start: usize, ends_with_comma: bool, is_statement: bool) -> usize {
    let mut at = start;
    while let Some(&byte) = code.as_bytes().get(at) {
        match byte {
            b';' => return at + 1,
            b',' if ends_with_comma => return at + 1,
            b'{' if !is_statement => return after_closing(code, at),
            b'(' | b'[' | b'{' => at = after_closing(code, at),
            // The end of what the item lies in.
            b')' | b']' | b'}' => return at,
            _ => at += 1,
        }
    }
    code.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn product(raw: &str) -> String {
        squeeze(&Source::new("a/src/lib.rs", raw).code)
    }

    #[test]
    fn a_test_item_is_cut_and_what_follows_stays() {
        assert_eq!(
            product("fn a() {}\n#[cfg(test)]\nmod tests { fn b() { {} } }\nfn c() {}"),
            "fna(){}fnc(){}"
        );
        assert_eq!(product("#[cfg(test)]\nmod testing;\nfn c() {}"), "fnc(){}");
        assert_eq!(product("#[cfg(test)] use a::{b, c};\nfn c() {}"), "fnc(){}");
        assert_eq!(
            product("#[cfg(all(test, unix))]\n#[allow(x)]\npub(crate) async fn b() {}\nfn c() {}"),
            "fnc(){}"
        );
        assert_eq!(product("#[cfg(test)] const A: [u8; 2] = [1, 2];\nfn c() {}"), "fnc(){}");
        assert_eq!(product("#[cfg(test)] const fn a<A, B>() {}\nfn c() {}"), "fnc(){}");
        assert_eq!(product("struct A { a: u8, #[cfg(test)] b: u8, c: u8 }"), "structA{a:u8,c:u8}");
        assert_eq!(product("struct A { #[cfg(test)] b: u8 }"), "structA{}");
    }

    #[test]
    fn what_may_be_shipped_is_product() {
        assert_eq!(product("#[cfg(not(test))] fn a() {}"), "#[cfg(not(test))]fna(){}");
        assert!(product("#[cfg(any(test, feature = \"x\"))] fn a() {}").ends_with("fna(){}"));
        assert_eq!(product("// #[cfg(test)]\nfn a() {}"), "fna(){}");
    }

    #[test]
    fn files_of_tests_have_no_product() {
        for path in ["tests/src/lib.rs", "daemon/tests/a.rs", "a/src/b_tests.rs", "a/benches/b.rs"] {
            assert_eq!(squeeze(&Source::new(path, "fn a() {}").code), "", "{path}");
        }
        assert_eq!(product("//! Why.\n#![cfg(test)]\nfn a() {}"), "");
        assert_eq!(squeeze(&Source::new("a/src/contests/b.rs", "fn a() {}").code), "fna(){}");
    }

    #[test]
    fn lines_are_counted_without_tests() {
        let source = Source::new("a/src/lib.rs", "fn a() {}\n\n#[cfg(test)]\nmod tests {\n    // x\n}\n");
        assert_eq!(source.product_lines(), 2);
        assert_eq!(source.line(0), 1);
        assert_eq!(source.line(12), 3);
        assert_eq!(source.tests().count(), 1);
    }

    #[test]
    fn words_stand_by_themselves() {
        assert_eq!(words("send resend send_now send", "send").collect::<Vec<_>>(), [0, 21]);
        assert_eq!(word_at("crate::net::door", 7), "net");
    }
}

//! Tells Rust code from comments and literals, without parsing it.
//!
//! The checks look for words and braces; a brace in a string or a word in a comment must not count. This walks a file
//! once and blanks out what is not code.
//!
//! Invariants: both results have the length and the line ends of the source, so an offset means the same place in all
//! three; a file that ends inside of a literal or comment is blanked to its end, never refused.

/// A source with the parts that are not code replaced by spaces.
pub(crate) struct Masked {
    /// Without comments and without what is inside of literals.
    pub(crate) code: String,
    /// Without comments.
    pub(crate) text: String,
}

/// Blanks out comments and literals.
pub(crate) fn mask(source: &str) -> Masked {
    let mut walk = Walk { source: source.as_bytes(), at: 0, code: Vec::new(), text: Vec::new() };
    while walk.at < walk.source.len() {
        walk.step();
    }
    // Whole characters are blanked or copied, so nothing is lost here.
    Masked {
        code: String::from_utf8_lossy(&walk.code).into_owned(),
        text: String::from_utf8_lossy(&walk.text).into_owned(),
    }
}

/// Whether a byte can be part of an identifier.
pub(crate) fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte >= 0x80
}

#[derive(Clone, Copy, PartialEq)]
enum Part {
    Code,
    Literal,
    Comment,
}

struct Walk<'a> {
    source: &'a [u8],
    at: usize,
    code: Vec<u8>,
    text: Vec<u8>,
}

impl Walk<'_> {
    fn step(&mut self) {
        let rest = &self.source[self.at..];
        match rest[0] {
            b'/' if rest.starts_with(b"//") => {
                let length = rest.iter().position(|&byte| byte == b'\n').unwrap_or(rest.len());
                self.take(length, Part::Comment);
            }
            b'/' if rest.starts_with(b"/*") => self.take(block_comment(rest), Part::Comment),
            b'"' => self.quoted(b'"'),
            b'\'' => self.quote_or_lifetime(),
            byte if is_word(byte) => self.word(),
            _ => self.take(1, Part::Code),
        }
    }

    /// Takes an identifier, a number, or the prefix of a literal with the literal.
    fn word(&mut self) {
        let rest = &self.source[self.at..];
        let length = rest.iter().position(|&byte| !is_word(byte)).unwrap_or(rest.len());
        let hashes = rest[length..].iter().take_while(|&&byte| byte == b'#').count();
        let is_raw = matches!(&rest[..length], b"r" | b"br" | b"cr");
        let is_quoted = rest.get(length + hashes) == Some(&b'"');
        self.take(length, Part::Code);
        if is_raw && is_quoted {
            self.raw(hashes);
        }
    }

    fn raw(&mut self, hashes: usize) {
        self.take(hashes + 1, Part::Code);
        let rest = &self.source[self.at..];
        let mut end = vec![b'"'];
        end.resize(hashes + 1, b'#');
        let length = rest.windows(end.len()).position(|window| window == end).unwrap_or(rest.len());
        self.take(length, Part::Literal);
        self.take(end.len(), Part::Code);
    }

    fn quoted(&mut self, quote: u8) {
        self.take(1, Part::Code);
        let rest = &self.source[self.at..];
        let mut length = 0;
        while length < rest.len() && rest[length] != quote {
            length += if rest[length] == b'\\' { 2 } else { 1 };
        }
        self.take(length, Part::Literal);
        self.take(1, Part::Code);
    }

    /// A quote opens a character when an escape follows, or when another quote follows one character later.
    fn quote_or_lifetime(&mut self) {
        let rest = &self.source[self.at + 1..];
        let first = rest.first().copied().unwrap_or(b' ');
        let width = match first {
            0xf0.. => 4,
            0xe0.. => 3,
            0xc0.. => 2,
            _ => 1,
        };
        if first == b'\\' || rest.get(width) == Some(&b'\'') {
            self.quoted(b'\'');
        } else {
            self.take(1, Part::Code);
        }
    }

    fn take(&mut self, length: usize, part: Part) {
        let end = (self.at + length).min(self.source.len());
        for &byte in &self.source[self.at..end] {
            let kept = |keep: bool| if keep || byte == b'\n' { byte } else { b' ' };
            self.code.push(kept(part == Part::Code));
            self.text.push(kept(part != Part::Comment));
        }
        self.at = end;
    }
}

/// Returns the length of a block comment; they nest.
fn block_comment(rest: &[u8]) -> usize {
    let (mut depth, mut at) = (0_usize, 0);
    while at < rest.len() {
        if rest[at..].starts_with(b"/*") {
            depth += 1;
            at += 2;
        } else if rest[at..].starts_with(b"*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    rest.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(source: &str, code: &str) {
        let masked = mask(source);
        assert_eq!(masked.code, code);
        assert_eq!(masked.code.len(), source.len());
        assert_eq!(masked.text.len(), source.len());
    }

    #[test]
    fn comments_are_blank() {
        check("a // { \"\nb", "a       \nb");
        check("a /* { /* } */ \n */ b", "a              \n    b");
        check("a /* never closed", "a                ");
    }

    #[test]
    fn strings_are_blank_inside() {
        check(r#"f("a{\"}", b"{")"#, r#"f("     ", b" ")"#);
        check(r##"r#"a"{"# + x"##, r##"r#"   "# + x"##);
        check(r#"br"\" + x"#, r#"br" " + x"#);
        check("\"never closed {", "\"              ");
    }

    #[test]
    fn raw_identifiers_are_code() {
        check("r#type { r }", "r#type { r }");
    }

    #[test]
    fn characters_are_told_from_lifetimes() {
        check("'{' '\\'' 'ä' &'a str '\\u{7d}'", "' ' '  ' '  ' &'a str '      '");
        check("fn f<'a>(x: &'a u8) {}", "fn f<'a>(x: &'a u8) {}");
        check("b'{' 'outer: loop {}", "b' ' 'outer: loop {}");
    }

    #[test]
    fn text_keeps_literals() {
        assert_eq!(mask("name: \"log_in\", // \"x\"").text, "name: \"log_in\",       ");
    }
}

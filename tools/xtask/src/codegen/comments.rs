//! Keeps the comments of proto files as documentation without letting rustdoc read them as anything else.
//!
//! Comments are written for people who read the proto file. Taken over as they are, an indented line would become a
//! code block that rustdoc compiles as a test, and `<name>` would be read as HTML.
//!
//! Invariant: nothing but comments is changed. prost-build itself escapes brackets; it does so inside of code spans
//! too, where the escape would show, so there it is taken back afterwards.

use protox::prost_reflect::prost_types::FileDescriptorProto;

/// Four make a code block, and prost-build adds one to the one that follows the slashes.
const INDENT_MAX: usize = 3;

/// Rewrites the comments of a file so that rustdoc shows them as they were meant.
pub(crate) fn make_harmless(file: &mut FileDescriptorProto) {
    let Some(info) = file.source_code_info.as_mut() else {
        return;
    };
    for location in &mut info.location {
        let attached = [&mut location.leading_comments, &mut location.trailing_comments];
        for comment in attached.into_iter().flatten() {
            *comment = harmless(comment);
        }
        // They become plain comments, but one rule for all is easier to remember.
        for comment in &mut location.leading_detached_comments {
            *comment = harmless(comment);
        }
    }
}

fn harmless(comment: &str) -> String {
    let mut out = String::with_capacity(comment.len());
    let (mut in_fence, mut in_span) = (false, false);
    for line in comment.lines() {
        let text = line.trim();
        if text.starts_with("```") {
            // Whatever language it names, it is not Rust that compiles here.
            out.push_str(if in_fence { " ```" } else { " ```text" });
            in_fence = !in_fence;
        } else if in_fence {
            out.push_str(line.trim_end());
        } else if text.is_empty() {
            in_span = false;
        } else {
            let indent = line.len() - line.trim_start().len();
            out.extend(std::iter::repeat_n(' ', indent.min(INDENT_MAX)));
            in_span = push_prose(text, in_span, &mut out);
        }
        out.push('\n');
    }
    out
}

/// Appends a line of prose in which nothing is HTML; returns whether a code span is still open.
fn push_prose(text: &str, mut in_span: bool, out: &mut String) -> bool {
    let mut in_address = false;
    for (at, char) in text.char_indices() {
        match char {
            '`' => in_span = !in_span,
            // prost-build puts the angle brackets around addresses itself.
            '<' if !in_span && text[at..].starts_with("<http") => {
                in_address = true;
                continue;
            }
            '>' if in_address => {
                in_address = false;
                continue;
            }
            '<' if !in_span => out.push('\\'),
            _ => {}
        }
        out.push(char);
    }
    in_span
}

/// Takes back the escapes inside of the code spans of generated documentation.
pub(crate) fn restore_code_spans(code: &str) -> String {
    let mut out = String::with_capacity(code.len());
    for line in code.split_inclusive('\n') {
        let is_doc = line.trim_start().starts_with("///");
        // An odd number: a span goes on over the line's end, and it is not known which part is in it.
        if !is_doc || line.matches('`').count() % 2 == 1 {
            out.push_str(line);
            continue;
        }
        for (index, part) in line.split('`').enumerate() {
            if index > 0 {
                out.push('`');
            }
            if index % 2 == 1 {
                out.push_str(&part.replace("\\[", "[").replace("\\]", "]"));
            } else {
                out.push_str(part);
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indented_lines_do_not_become_code_blocks() {
        assert_eq!(harmless(" List:\n      deep\n"), " List:\n   deep\n");
        assert_eq!(harmless("\tx\n"), " x\n");
    }

    #[test]
    fn fences_are_text() {
        assert_eq!(harmless(" ```\n     a < b\n ```\n c"), " ```text\n     a < b\n ```\n c\n");
        assert_eq!(harmless(" ```rust\n x\n ```\n"), " ```text\n x\n ```\n");
    }

    #[test]
    fn angle_brackets_are_not_html() {
        assert_eq!(harmless(" a <name> and `Vec<u8>`"), " a \\<name> and `Vec<u8>`\n");
        assert_eq!(harmless(" see <https://example.org/a>, b > c"), " see https://example.org/a, b > c\n");
    }

    #[test]
    fn code_spans_show_no_escapes() {
        assert_eq!(restore_code_spans("/// \\[a\\] `\\[b\\]`\n"), "/// \\[a\\] `[b]`\n");
        assert_eq!(restore_code_spans("/// `\\[b\\]\n"), "/// `\\[b\\]\n");
        assert_eq!(restore_code_spans("let x = \"`\\[`\";\n"), "let x = \"`\\[`\";\n");
    }
}

//! What the tests of the specification read: golden vectors, the proto files and the README.
//!
//! All of it is read as text and with rules of our own, so that a fault in the code under test cannot hide
//! itself.
#![allow(dead_code)] // Each test file is a program of its own and uses its part.
#![allow(clippy::unwrap_used, clippy::panic)] // A test that panics has failed.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// A field of a message: its number and its name.
pub(crate) type Field = (u32, String);

/// Returns the path of a file of this package.
pub(crate) fn path(relative: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(relative)
}

/// Returns the text of a file of this package.
pub(crate) fn read(relative: &str) -> String {
    fs::read_to_string(path(relative)).unwrap_or_else(|error| panic!("{relative}: {error}"))
}

/// Returns the files in a directory of this package whose names end with `extension`: name without it, and
/// text.
pub(crate) fn files(directory: &str, extension: &str) -> BTreeMap<String, String> {
    let entries = fs::read_dir(path(directory)).unwrap_or_else(|error| panic!("{directory}: {error}"));
    entries
        .filter_map(|entry| {
            entry.unwrap().file_name().into_string().unwrap().strip_suffix(extension).map(str::to_owned)
        })
        .map(|name| (name.clone(), read(&format!("{directory}/{name}{extension}"))))
        .collect()
}

/// Returns every message of the proto files with its fields.
pub(crate) fn messages() -> BTreeMap<String, Vec<Field>> {
    let mut messages = BTreeMap::new();
    for text in files("proto/quail/v1", ".proto").values() {
        let (mut message, mut depth) = (String::new(), 0);
        for line in text.lines().map(|line| line.split("//").next().unwrap_or_default().trim()) {
            let words: Vec<&str> = line.split_whitespace().collect();
            match words[..] {
                ["message", name, ..] => {
                    message = name.to_owned();
                    messages.insert(message.clone(), Vec::new());
                }
                ["enum", ..] => message.clear(),
                [.., name, "=", number] if depth > 0 && !message.is_empty() => {
                    let number = number.trim_end_matches(';').parse().unwrap();
                    messages.get_mut(&message).unwrap().push((number, name.to_owned()));
                }
                _ => {}
            }
            depth += line.matches('{').count();
            depth -= line.matches('}').count();
        }
    }
    messages
}

/// Returns the bytes that a vector or a block of the README stands for: two hex digits make a byte, `61*300`
/// is the byte 61 three hundred times, and whatever follows a `#` is for people.
pub(crate) fn hex(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for word in text.lines().flat_map(|line| line.split('#').next().unwrap_or_default().split_whitespace()) {
        let (digits, count) = word.split_once('*').unwrap_or((word, "1"));
        assert_eq!(digits.len(), 2, "two hex digits make a byte: {word:?}");
        let byte = u8::from_str_radix(digits, 16).unwrap_or_else(|error| panic!("{word:?}: {error}"));
        bytes.extend(std::iter::repeat_n(byte, count.parse().unwrap()));
    }
    bytes
}

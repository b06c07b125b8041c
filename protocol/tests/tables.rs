//! The tables of the specification say what the code says, row by row.
//!
//! Why: people build clients from `README.md` and never see the code. A number that is right in one of the
//! two only is found by them, late. A table stands behind a comment with its name: `<!-- table: commands
//! -->`.
// Helpers outside of the test functions: a test that panics has failed.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::time::Duration;

use quail_protocol::commands::{COMMANDS, Kind, Lane, RateClass};
use quail_protocol::error::{REASONS, close};
use quail_protocol::frame::PREFIX_BYTES_MAX;
use quail_protocol::{ALPN, DEFAULT_PORT, VERSION_MAX, VERSION_MIN, limits};

/// Returns the rows of a table of the README, without its head; code marks are taken off cells that are all
/// code.
fn table(name: &str) -> Vec<Vec<String>> {
    let readme = support::read("README.md");
    let marker = format!("<!-- table: {name} -->\n");
    let (_, rest) = readme.split_once(&marker).unwrap_or_else(|| panic!("README.md has no table {name}"));
    let rows = rest.lines().take_while(|line| line.starts_with('|')).skip(2);
    rows.map(|row| row.trim_matches('|').split(" | ").map(cell).collect()).collect()
}

fn cell(text: &str) -> String {
    let text = text.trim();
    let code = text.strip_prefix('`').and_then(|rest| rest.strip_suffix('`'));
    code.filter(|code| !code.contains('`')).unwrap_or(text).to_owned()
}

/// Writes a number as people read it: 65,536.
fn grouped(number: impl Into<u128>) -> String {
    let digits = number.into().to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn size(number: usize) -> String {
    grouped(number as u128)
}

fn yes_or_no(is_yes: bool) -> String {
    if is_yes { "yes" } else { "no" }.to_owned()
}

#[test]
fn the_constants_are_those_of_the_code() {
    let values: Vec<String> = table("constants").into_iter().map(|row| row[1].clone()).collect();
    let alpn = std::str::from_utf8(ALPN).unwrap().to_owned();
    assert_eq!(values, [alpn, DEFAULT_PORT.to_string(), VERSION_MIN.to_string(), VERSION_MAX.to_string()]);
}

#[test]
fn the_command_table_is_that_of_the_code() {
    let kind = |kind| match kind {
        Kind::Journal => "journal",
        Kind::Directory => "directory",
        Kind::Query => "query",
        Kind::Signal => "signal",
    };
    let lane = |lane| match lane {
        Lane::Hello => "hello",
        Lane::Publish => "publish",
        Lane::Feed => "feed",
        Lane::Datagram => "datagram",
        Lane::Request => "request",
    };
    let rate = |rate| match rate {
        RateClass::Hello => "hello",
        RateClass::SignUp => "sign_up",
        RateClass::Password => "password",
        RateClass::LookUp => "look_up",
        RateClass::Send => "send",
        RateClass::Feed => "feed",
        RateClass::Request => "request",
        RateClass::Signal => "signal",
        RateClass::History => "history",
    };
    let expected = COMMANDS.iter().map(|command| {
        vec![
            command.code.to_string(),
            command.name.to_owned(),
            kind(command.kind).to_owned(),
            lane(command.lane).to_owned(),
            yes_or_no(command.needs_session),
            size(command.bytes_max),
            rate(command.rate).to_owned(),
        ]
    });
    assert_eq!(table("commands"), expected.collect::<Vec<_>>());
}

/// The code of a request is its field number, and the table names no request that does not exist.
#[test]
fn the_codes_of_requests_are_field_numbers() {
    let in_table = COMMANDS.iter().filter(|command| command.lane == Lane::Request);
    let in_table: Vec<_> =
        in_table.map(|command| (u32::from(command.code), command.name.to_owned())).collect();
    assert_eq!(in_table, support::messages()["Request"]);
}

#[test]
fn the_error_table_is_that_of_the_code() {
    let rows = table("errors");
    let stated: Vec<&[String]> = rows.iter().map(|row| &row[..4]).collect();
    let expected = REASONS.iter().map(|meta| {
        let (number, code) = (meta.reason as i32, close::code(meta.reason));
        vec![number.to_string(), meta.name.to_owned(), yes_or_no(meta.temporary), format!("{code:#x}")]
    });
    assert_eq!(stated, expected.collect::<Vec<_>>());
    for row in &rows {
        assert!(row.len() == 6 && row.iter().all(|cell| !cell.is_empty()), "{row:?}");
    }
}

#[test]
fn the_limits_are_those_of_the_code() {
    let range = |range: RangeInclusive<usize>| format!("{} to {}", size(*range.start()), size(*range.end()));
    let seconds = |duration: Duration| grouped(duration.as_secs());
    let expected = [
        ("PREFIX_BYTES_MAX", size(PREFIX_BYTES_MAX), "bytes"),
        ("FRAME_BYTES_MAX", size(limits::FRAME_BYTES_MAX), "bytes"),
        ("OPEN_BYTES_MAX", size(limits::OPEN_BYTES_MAX), "bytes"),
        ("FRAME_TIMEOUT", seconds(limits::FRAME_TIMEOUT), "s"),
        ("BODY_BYTES_MAX", size(limits::BODY_BYTES_MAX), "bytes"),
        ("REACTION_BYTES_MAX", size(limits::REACTION_BYTES_MAX), "bytes"),
        ("HANDLE_CHARS", range(limits::HANDLE_CHARS), "characters"),
        ("PASSWORD_BYTES", range(limits::PASSWORD_BYTES), "bytes"),
        ("NAME_BYTES_MAX", size(limits::NAME_BYTES_MAX), "bytes"),
        ("PLATFORM_BYTES_MAX", size(limits::PLATFORM_BYTES_MAX), "bytes"),
        ("TOKEN_BYTES", size(limits::TOKEN_BYTES), "bytes"),
        ("DEVICES_MAX", size(limits::DEVICES_MAX), "devices"),
        ("SENDS_UNANSWERED_MAX", size(limits::SENDS_UNANSWERED_MAX), "sends"),
        ("FEED_WINDOW_EVENTS", size(limits::FEED_WINDOW_EVENTS), "events"),
        ("FEED_WINDOW_BYTES", size(limits::FEED_WINDOW_BYTES), "bytes"),
        ("REQUESTS_MAX", size(limits::REQUESTS_MAX), "streams"),
        ("CURSORS_MAX", size(limits::CURSORS_MAX), "origins"),
        ("READ_STRETCHES_MAX", size(limits::READ_STRETCHES_MAX), "stretches"),
        ("READS_UNANSWERED_MAX", size(limits::READS_UNANSWERED_MAX), "reads"),
        ("CONVERSATIONS_PAGE", size(limits::CONVERSATIONS_PAGE), "conversations"),
        ("HISTORY_PAGE_MAX", size(limits::HISTORY_PAGE_MAX), "messages"),
        ("HISTORY_PAGE", size(limits::HISTORY_PAGE), "messages"),
        ("SYNC_CONVERSATIONS_MAX", size(limits::SYNC_CONVERSATIONS_MAX), "conversations"),
        ("PREVIEW_BYTES_MAX", size(limits::PREVIEW_BYTES_MAX), "bytes"),
        ("SEARCH_TEXT_BYTES_MAX", size(limits::SEARCH_TEXT_BYTES_MAX), "bytes"),
        ("SEARCH_PREFIX_MIN", size(limits::SEARCH_PREFIX_MIN), "characters"),
        ("UNREAD_MAX", size(limits::UNREAD_MAX), "messages"),
        ("ARCHIVE_WAIT", grouped(limits::ARCHIVE_WAIT.as_millis()), "ms"),
        ("SIGNAL_BYTES_MAX", size(limits::SIGNAL_BYTES_MAX), "bytes"),
        ("TYPING_RENEWAL", seconds(limits::TYPING_RENEWAL), "s"),
        ("TYPING_EXPIRY", seconds(limits::TYPING_EXPIRY), "s"),
        ("FIELDS_MAX", size(limits::FIELDS_MAX), "fields"),
        ("ID_AGE_MAX", seconds(limits::ID_AGE_MAX), "s"),
        ("ID_AHEAD_MAX", seconds(limits::ID_AHEAD_MAX), "s"),
        ("SEEN_AHEAD_MAX", seconds(limits::SEEN_AHEAD_MAX), "s"),
        ("AUTHENTICATE_TIMEOUT", seconds(limits::AUTHENTICATE_TIMEOUT), "s"),
        ("IDLE_TIMEOUT", seconds(limits::IDLE_TIMEOUT), "s"),
        ("KEEP_ALIVE", seconds(limits::KEEP_ALIVE), "s"),
    ];
    let rows = table("limits");
    let stated: Vec<_> = rows.iter().map(|row| (&row[0][..], row[1].clone(), &row[2][..])).collect();
    assert_eq!(stated, expected);
    // A constant that is added to the code is missed by the list above, but not here.
    let names: BTreeSet<&str> = expected.iter().map(|(name, ..)| *name).collect();
    for line in [support::read("src/limits.rs"), support::read("src/frame.rs")].concat().lines() {
        if let Some((name, _)) = line.strip_prefix("pub const ").and_then(|rest| rest.split_once(':')) {
            assert!(names.contains(name), "the specification does not tell {name}");
        }
    }
}

#[test]
fn every_field_is_explained_under_its_number() {
    let rows: Vec<_> = [table("fields up"), table("fields down")].concat();
    let stated: BTreeMap<&str, &str> = rows.iter().map(|row| (&row[0][..], &row[1][..])).collect();
    assert_eq!(stated.len(), rows.len(), "a field is explained twice");
    let readme = support::read("README.md");
    let mut expected = BTreeMap::new();
    for (message, fields) in support::messages() {
        let is_named = !fields.is_empty() || readme.contains(&format!("`{message}`"));
        assert!(is_named, "the specification does not name {message}");
        for (number, field) in fields {
            expected.insert(format!("{message}.{field}"), number.to_string());
        }
    }
    let expected: BTreeMap<&str, &str> =
        expected.iter().map(|(field, number)| (&field[..], &number[..])).collect();
    assert_eq!(stated, expected);
}

/// A reason or a limit that was renamed, or never existed, is not left standing in the prose.
#[test]
fn every_name_in_capitals_exists() {
    let readme = support::read("README.md");
    let source: String = support::files("proto/quail/v1", ".proto").into_values().collect();
    let mut known: BTreeSet<&str> = REASONS.iter().map(|meta| meta.name).collect();
    known.extend(source.split(|c: char| !c.is_ascii_alphanumeric() && c != '_'));
    let limits = table("limits");
    known.extend(limits.iter().map(|row| &row[0][..]));
    for word in readme.split('`').filter(|word| word.len() > 2) {
        let is_name = word.chars().all(|c| c.is_ascii_uppercase() || c == '_');
        assert!(!is_name || known.contains(word), "the specification names {word}, which is nothing");
    }
}

/// Links inside of the page lead somewhere.
#[test]
fn every_link_has_an_end() {
    let readme = support::read("README.md");
    let headings = readme.lines().filter_map(|line| line.strip_prefix('#'));
    let anchors: BTreeSet<String> = headings
        .map(|line| {
            let heading = line.trim_start_matches('#').trim().to_lowercase();
            heading.chars().filter(|c| c.is_alphanumeric() || *c == ' ').collect::<String>().replace(' ', "-")
        })
        .collect();
    for link in readme.split("](").skip(1).map(|rest| rest.split(')').next().unwrap_or_default()) {
        match link.strip_prefix('#') {
            Some(anchor) => assert!(anchors.contains(anchor), "no heading for {link}"),
            None => assert!(support::path(link).exists(), "no file {link}"),
        }
    }
}

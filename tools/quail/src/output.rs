//! Printing: results to stdout, everything about them to stderr; for people, or as JSON for programs.
//!
//! A command prints each result once, as a line for people and as a value for programs, and [`Output`] picks. Errors and
//! notes go to stderr in both forms, so that stdout holds results only and can be piped on.
//!
//! Invariants: JSON is one object per line; nobody reading stdout any more is no error, as for every tool in a pipe.

pub mod escape;

use std::fmt::{Display, Write as _};
use std::io::{self, ErrorKind, Write};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde::Serialize;

/// Stdout cannot be written, for another reason than that nobody reads it.
#[derive(Debug, thiserror::Error)]
#[error("write to stdout")]
pub struct OutputError(#[from] io::Error);

/// What a command prints to, in the form its user asked for.
#[derive(Clone, Copy, Debug)]
pub struct Output {
    json: bool,
}

/// What an error looks like to programs, on stderr.
#[derive(Serialize)]
struct ErrorLine<'a> {
    error: ErrorObject<'a>,
}

#[derive(Serialize)]
struct ErrorObject<'a> {
    reason: &'a str,
    text: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<&'a str>,
}

#[derive(Serialize)]
struct NoteLine {
    note: String,
}

impl Output {
    /// Prints JSON, or lines for people.
    pub fn new(json: bool) -> Self {
        Self { json }
    }

    /// Returns whether programs read the output.
    pub fn is_json(self) -> bool {
        self.json
    }

    /// Returns whether somebody can still read the output. Once nobody does, printing goes nowhere and is no error, so who keeps count
    /// of what was printed, or has much left to print, asks.
    pub fn is_read(self) -> bool {
        let stdout = io::stdout();
        // Nothing is asked for, so only errors are reported, and a file never has one.
        let mut asked = [PollFd::new(&stdout, PollFlags::empty())];
        let found = poll(&mut asked, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }));
        let [asked] = asked;
        found.is_err() || !asked.revents().intersects(PollFlags::ERR | PollFlags::HUP)
    }

    /// Prints a result: to people as a text of one or more lines, to programs as a value.
    ///
    /// # Errors
    /// [`OutputError`].
    pub fn result(self, people: impl Display, programs: &impl Serialize) -> Result<(), OutputError> {
        if self.json { self.programs(programs) } else { self.people(people) }
    }

    /// Prints a text that only people want.
    ///
    /// # Errors
    /// [`OutputError`].
    pub fn people(self, text: impl Display) -> Result<(), OutputError> {
        if self.json {
            return Ok(());
        }
        print(&format!("{text}\n"))
    }

    /// Prints a value that only programs want.
    ///
    /// # Errors
    /// [`OutputError`].
    pub fn programs(self, value: &impl Serialize) -> Result<(), OutputError> {
        if !self.json {
            return Ok(());
        }
        let mut line = serde_json::to_string(value).map_err(io::Error::from)?;
        line.push('\n');
        print(&line)
    }

    /// Tells, on stderr, something that is no result and no error.
    pub fn note(self, text: impl Display) {
        let line = if self.json {
            json_line(&NoteLine { note: text.to_string() })
        } else {
            format!("quail: note: {text}")
        };
        tell(&line);
    }

    /// Tells, on stderr, why the command failed and what to do next.
    pub fn error(self, reason: &str, text: &str, hint: Option<&str>) {
        tell(&self.error_text(reason, text, hint));
    }

    fn error_text(self, reason: &str, text: &str, hint: Option<&str>) -> String {
        if self.json {
            return json_line(&ErrorLine { error: ErrorObject { reason, text, hint } });
        }
        let mut lines = format!("quail: error: {text}");
        if let Some(hint) = hint {
            // Writing to a string cannot fail.
            let _ = write!(lines, "\nhint: {hint}");
        }
        lines
    }
}

/// Lays out names and values as a table, values in one column.
pub fn table(rows: &[(&str, String)]) -> String {
    let width = rows.iter().map(|(name, _)| name.chars().count()).max().unwrap_or_default();
    let lines: Vec<_> = rows.iter().map(|(name, value)| format!("  {name:width$}  {value}")).collect();
    lines.join("\n")
}

fn json_line(value: &impl Serialize) -> String {
    // Cannot fail for strings.
    serde_json::to_string(value).unwrap_or_default()
}

fn print(text: &str) -> Result<(), OutputError> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        other => Ok(other?),
    }
}

/// Where nobody can be told, nobody can be told that either.
fn tell(line: &str) {
    let _ = writeln!(io::stderr().lock(), "{line}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_have_a_stable_form_for_people_and_for_programs() {
        let text = |json, hint| Output::new(json).error_text("WRONG_PIN", "the \"key\" is another", hint);
        assert_eq!(text(false, None), "quail: error: the \"key\" is another");
        assert_eq!(
            text(false, Some("ask the operator")),
            "quail: error: the \"key\" is another\nhint: ask the operator"
        );
        assert_eq!(text(true, None), r#"{"error":{"reason":"WRONG_PIN","text":"the \"key\" is another"}}"#);
        let line: serde_json::Value = serde_json::from_str(&text(true, Some("ask"))).unwrap();
        assert_eq!(line["error"]["hint"], "ask");
    }

    #[test]
    fn a_table_is_aligned() {
        let rows = [("a", "1".to_owned()), ("long", "2".to_owned())];
        assert_eq!(table(&rows), "  a     1\n  long  2");
        assert_eq!(table(&[]), "");
    }
}

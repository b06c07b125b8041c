//! A message as a line: for a terminal, for a pipe, for programs.
//!
//! Invariants: for a pipe nothing is added to the body but one LF; for a terminal nothing of the body reaches it that it
//! would act on.

use std::io::Write;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use jiff::tz::TimeZone;
use quail::output::escape::escape;
use quail_client::{AccountId, Body, Client, Message, Stamp};
use serde::Serialize;

/// How long no handle is asked for after that has failed: messages are printed without rather than late.
const ASK_AGAIN_AFTER: Duration = Duration::from_secs(30);

/// Whom the lines are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// People: time, sender and text.
    Terminal,
    /// Whatever reads the pipe: the body.
    Bytes,
    /// Programs: an object.
    Json,
}

/// Makes lines.
pub(super) struct Renderer {
    form: Form,
    client: Client,
    zone: TimeZone,
    asked_in_vain: Option<Instant>,
}

#[derive(Serialize)]
struct Line {
    id: String,
    sender: String,
    /// Nothing if it cannot be found out now.
    handle: Option<String>,
    recipient: String,
    /// Nothing if it is no text.
    body: Option<String>,
    /// What it is if it is no text.
    #[serde(skip_serializing_if = "Option::is_none")]
    other: Option<Other>,
    stamp: u64,
    origin: u32,
    position: u64,
}

#[derive(Serialize)]
struct Other {
    kind: i32,
    hex: String,
}

impl Renderer {
    pub(super) fn new(form: Form, client: Client) -> Self {
        Self { form, client, zone: TimeZone::system(), asked_in_vain: None }
    }

    /// Appends the line of a message.
    pub(super) async fn render(&mut self, message: &Message, bytes: &mut Vec<u8>) -> anyhow::Result<()> {
        match self.form {
            Form::Bytes => bytes.extend_from_slice(body_bytes(&message.body)),
            Form::Terminal => {
                let sender = self.name(message.sender).await;
                let time = time_of_day(message.stamp, &self.zone);
                write!(bytes, "{time} {}", for_people(&sender, &message.body))?;
            }
            Form::Json => {
                let handle = self.handle(message.sender).await;
                serde_json::to_writer(&mut *bytes, &Line::new(message, handle))?;
            }
        }
        bytes.push(b'\n');
        Ok(())
    }

    /// Returns what people call an account: its handle, or its id if that cannot be found out now.
    pub(super) async fn name(&mut self, account: AccountId) -> String {
        self.handle(account).await.unwrap_or_else(|| account.to_string())
    }

    async fn handle(&mut self, account: AccountId) -> Option<String> {
        if account == self.client.account() {
            return Some(self.client.handle().to_owned());
        }
        if self.asked_in_vain.is_some_and(|asked| asked.elapsed() < ASK_AGAIN_AFTER) {
            return None;
        }
        // The client remembers those that it has found.
        let found = self.client.look_up_account(account).await;
        self.asked_in_vain = found.is_err().then(Instant::now);
        found.ok().map(|profile| profile.handle)
    }
}

impl Line {
    fn new(message: &Message, handle: Option<String>) -> Self {
        let (body, other) = match &message.body {
            Body::Text(text) => (Some(text.clone()), None),
            Body::Other { kind, bytes } => (None, Some(Other::new(*kind, bytes))),
            _ => (None, None),
        };
        Self {
            id: message.id.to_string(),
            sender: message.sender.to_string(),
            handle,
            recipient: message.recipient.to_string(),
            body,
            other,
            stamp: message.stamp.0,
            origin: message.origin.0,
            position: message.position.0,
        }
    }
}

impl Other {
    fn new(kind: i32, bytes: &[u8]) -> Self {
        let hex = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        Self { kind, hex }
    }
}

fn for_people(sender: &str, body: &Body) -> String {
    // Handles come from the server, which may be anybody's.
    let sender = escape(sender);
    match body {
        Body::Text(text) => format!("{sender}: {}", escape(text)),
        other => format!("{sender}: [{} bytes that are no text]", other.len()),
    }
}

fn body_bytes(body: &Body) -> &[u8] {
    match body {
        Body::Text(text) => text.as_bytes(),
        Body::Other { bytes, .. } => bytes,
        // A form of body that a later SDK may have is shown as empty in a pipe.
        _ => &[],
    }
}

fn time_of_day(stamp: Stamp, zone: &TimeZone) -> String {
    let time = i64::try_from(stamp.unix_ms()).ok().and_then(|ms| Timestamp::from_millisecond(ms).ok());
    match time {
        Some(time) => time.to_zoned(zone.clone()).strftime("%H:%M").to_string(),
        // Stamps come from the server, which may be anybody's.
        None => "--:--".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_is_that_of_the_zone() {
        let stamp = Stamp::from_ms(1_717_243_500_000);
        assert_eq!(time_of_day(stamp, &TimeZone::UTC), "12:05");
        let zone = TimeZone::fixed(jiff::tz::offset(-5));
        assert_eq!(time_of_day(stamp, &zone), "07:05");
        assert_eq!(time_of_day(Stamp(u64::MAX), &TimeZone::UTC), "--:--");
    }

    #[test]
    fn a_terminal_gets_one_line_that_it_does_not_act_on() {
        assert_eq!(for_people("ada", &Body::from("a\x1b[2J\nb")), "ada: a\\u{1b}[2J\\nb");
        assert_eq!(for_people("a\x07", &Body::from("")), "a\\u{7}: ");
    }

    #[test]
    fn programs_get_an_object_of_stable_shape() {
        let mut line = Line {
            id: "i".into(),
            sender: "s".into(),
            handle: Some("ada".into()),
            recipient: "r".into(),
            body: Some("a\nb\0".into()),
            other: None,
            stamp: 3,
            origin: 1,
            position: 2,
        };
        assert_eq!(
            serde_json::to_string(&line).unwrap(),
            concat!(
                r#"{"id":"i","sender":"s","handle":"ada","recipient":"r","body":"a\nb\u0000","#,
                r#""stamp":3,"origin":1,"position":2}"#
            )
        );
        (line.handle, line.body, line.other) = (None, None, Some(Other::new(9, &[0xff, 0])));
        let text = serde_json::to_string(&line).unwrap();
        assert!(
            text.contains(r#""handle":null,"recipient":"r","body":null,"other":{"kind":9,"hex":"ff00"}"#),
            "{text}"
        );
    }

    #[test]
    fn a_pipe_gets_the_body_and_nothing_else() {
        assert_eq!(body_bytes(&Body::from("a\r\x1b[2J\n")), b"a\r\x1b[2J\n");
        let other = Body::Other { kind: 9, bytes: vec![0xff, 0].into() };
        assert_eq!(body_bytes(&other), [0xff, 0]);
    }
}

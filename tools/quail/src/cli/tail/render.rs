//! A message as a line: for a terminal, for a pipe, for programs.
//!
//! Invariants: for a pipe nothing is added to the body but one LF; for a terminal nothing of the body reaches it that it
//! would act on.

use std::io::Write;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use jiff::tz::TimeZone;
use quail::output::escape::escape;
use quail_client::{AccountId, Body, Change, Changed, Client, Message, MessageRef, Stamp};
use serde::Serialize;

use super::super::change;

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
    /// What it answers, if it answers a message.
    #[serde(skip_serializing_if = "Option::is_none")]
    reply_to: Option<Reference>,
    stamp: u64,
    origin: u32,
    position: u64,
}

/// A change of a message, for programs; a message has no `change`.
#[derive(Serialize)]
struct ChangeLine {
    id: String,
    sender: String,
    handle: Option<String>,
    recipient: String,
    change: &'static str,
    message: Reference,
    /// The new body of an edit, or the reaction, which is empty if it is taken back.
    #[serde(skip_serializing_if = "Option::is_none")]
    body: Option<String>,
    stamp: u64,
    origin: u32,
    position: u64,
}

#[derive(Serialize)]
struct Reference {
    sender: String,
    id: String,
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

    /// Appends the line of a change, where there is one: a pipe gets what was said and nothing else. Returns whether there was.
    pub(super) async fn render_change(
        &mut self,
        changed: &Changed,
        bytes: &mut Vec<u8>,
    ) -> anyhow::Result<bool> {
        match self.form {
            Form::Bytes => return Ok(false),
            Form::Terminal => {
                let sender = self.name(changed.sender).await;
                let time = time_of_day(changed.stamp, &self.zone);
                write!(bytes, "{time} {}", change_for_people(&sender, changed))?;
            }
            Form::Json => {
                let handle = self.handle(changed.sender).await;
                serde_json::to_writer(&mut *bytes, &ChangeLine::new(changed, handle))?;
            }
        }
        bytes.push(b'\n');
        Ok(true)
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
            reply_to: message.reply_to.map(Reference::from),
            stamp: message.stamp.0,
            origin: message.origin.0,
            position: message.position.0,
        }
    }
}

impl ChangeLine {
    fn new(changed: &Changed, handle: Option<String>) -> Self {
        let body = match &changed.change {
            Change::Edit { body, .. } => body.as_text().map(str::to_owned),
            Change::React { text, .. } => Some(text.clone()),
            _ => None,
        };
        Self {
            id: changed.id.to_string(),
            sender: changed.sender.to_string(),
            handle,
            recipient: changed.recipient.to_string(),
            change: change::name(&changed.change),
            message: changed.message().into(),
            body,
            stamp: changed.stamp.0,
            origin: changed.origin.0,
            position: changed.position.0,
        }
    }
}

impl From<MessageRef> for Reference {
    fn from(message: MessageRef) -> Self {
        Self { sender: message.sender.to_string(), id: message.id.to_string() }
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

/// Says what became of which message. Ids are shown whole: they are what the commands take.
fn change_for_people(sender: &str, changed: &Changed) -> String {
    let (sender, id) = (escape(sender), changed.message().id);
    match &changed.change {
        Change::Edit { body, .. } => match body.as_text() {
            Some(text) => format!("{sender} edited {id}: {}", escape(text)),
            None => format!("{sender} edited {id}: [{} bytes that are no text]", body.len()),
        },
        Change::DeleteForAll { .. } => format!("{sender} deleted {id}"),
        Change::DeleteForMe { .. } => format!("{sender} deleted {id}, for this account alone"),
        Change::React { text, .. } if text.is_empty() => format!("{sender} no longer reacts to {id}"),
        Change::React { text, .. } => format!("{sender} reacts to {id} with {}", escape(text)),
        _ => format!("{sender} changed {id}"),
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
            reply_to: None,
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
        line.reply_to = Some(Reference { sender: "s".into(), id: "r".into() });
        let text = serde_json::to_string(&line).unwrap();
        assert!(text.contains(r#""reply_to":{"sender":"s","id":"r"},"stamp":3"#), "{text}");
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

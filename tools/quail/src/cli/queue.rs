//! `quail queue`: what this device has not sent yet, and taking back what nobody has.
//!
//! ```text
//! queue          what is queued, and what was refused and not forgotten yet     without the server
//! queue cancel   takes back what was handed to no connection; forgets a refusal   without the server
//! queue send     sends what is queued and waits for the answers
//! ```
//!
//! Invariants: what may have reached the server is never called cancelled; only what one message alone is meant by is
//! cancelled, never a guess.

use std::path::Path;
use std::time::Duration;

use clap::builder::NonEmptyStringValueParser;
use clap::{Args, Subcommand};
use quail::output::escape::escape;
use quail_client::{AccountId, Change, ChangeError, Content, MessageId, OfflineQueue};
use serde::Serialize;

use super::failure::{Failure, Outcome};
use super::send::job;
use super::{Context, change, duration};

/// Characters of an id that are shown to people, if they tell all messages apart.
const ID_CHARS: usize = 13;

/// Characters of a text that are shown to people.
const TEXT_CHARS: usize = 40;

/// Show what is queued, or take it back, or send it
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(super) struct Queue {
    #[command(subcommand)]
    command: Option<QueueCommand>,
}

const EXAMPLES: &str = "\
Examples:
  quail queue                          what a send that was killed or gave up has left
  quail queue --json | jq -r .text
  quail queue cancel 019a8c1e-77aa     take back the one whose id begins so
  quail queue cancel --all             take back all that can be
  quail queue send                     send it now and wait for the answers

Queued messages are sent by the next quail send as well. What is on its way may have reached the server, which gives
nothing back. Neither the list nor cancel needs the server.";

#[derive(Debug, Subcommand)]
enum QueueCommand {
    Cancel(Cancel),
    Send(SendQueued),
}

/// Take messages back that were handed to no connection, or forget that they were refused
#[derive(Args, Debug)]
#[command(after_help = CANCEL_EXAMPLES)]
struct Cancel {
    /// The message: its id, or the beginning of its id
    #[arg(value_name = "ID", value_parser = NonEmptyStringValueParser::new(), required_unless_present = "all")]
    id: Option<String>,

    /// Every message that can be
    #[arg(long, conflicts_with = "id")]
    all: bool,
}

const CANCEL_EXAMPLES: &str = "\
Examples:
  quail queue cancel 019a8c1e-77aa
  quail queue cancel --all --json";

/// Send what is queued and wait for the answers
#[derive(Args, Debug)]
#[command(after_help = SEND_EXAMPLES)]
struct SendQueued {
    /// How long to wait for the next answer before giving up
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = duration::parse)]
    timeout: Duration,
}

const SEND_EXAMPLES: &str = "\
Examples:
  quail queue send
  quail queue send --timeout 5m --json";

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum State {
    Queued,
    OnItsWay,
    Refused,
    /// It is not in the queue any more.
    Cancelled,
    Accepted,
}

/// A message, as programs get it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Entry {
    id: String,
    to: String,
    state: State,
    /// Nothing if the message is no text.
    text: Option<String>,
    /// What becomes of another message, if it is that.
    #[serde(skip_serializing_if = "Option::is_none")]
    change: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
}

impl Entry {
    fn new(id: MessageId, to: AccountId, content: &Content, state: State) -> Self {
        let (text, change) = match content {
            Content::Message { body, .. } => (body.as_text().map(str::to_owned), None),
            Content::Change(change) => {
                let text = match change {
                    Change::Edit { body, .. } => body.as_text().map(str::to_owned),
                    Change::React { text, .. } => Some(text.clone()),
                    _ => None,
                };
                (text, Some(change::name(change)))
            }
            _ => (None, None),
        };
        Self { id: id.to_string(), to: to.to_string(), state, text, change, reason: None }
    }
}

impl Queue {
    pub(super) async fn run(self, context: Context) -> anyhow::Result<Outcome> {
        match self.command {
            None => list(&context).await,
            Some(QueueCommand::Cancel(cancel)) => cancel.run(&context).await,
            Some(QueueCommand::Send(send)) => send.run(&context).await,
        }
    }
}

async fn list(context: &Context) -> anyhow::Result<Outcome> {
    let (queue, _) = context.offline_queue().await?;
    let entries = entries(&queue);
    entries.iter().try_for_each(|(_, entry)| context.output.programs(entry))?;
    let shown: Vec<_> = entries.iter().map(|(_, entry)| entry).collect();
    context.output.people(table(&shown))?;
    Ok(Outcome::Good)
}

fn entries(queue: &OfflineQueue) -> Vec<(MessageId, Entry)> {
    let queued = queue.queued().into_iter().map(|message| {
        let state = if message.is_on_its_way { State::OnItsWay } else { State::Queued };
        (message.id, Entry::new(message.id, message.recipient, &message.content, state))
    });
    let refused = queue.refused().into_iter().map(|message| {
        let entry = Entry::new(message.id, message.recipient, &message.content, State::Refused);
        (message.id, Entry { reason: Some(message.refusal.reason.meta().name), ..entry })
    });
    queued.chain(refused).collect()
}

impl Cancel {
    async fn run(self, context: &Context) -> anyhow::Result<Outcome> {
        let (queue, state) = context.offline_queue().await?;
        let entries = entries(&queue);
        let mut cancelled = 0;
        match &self.id {
            Some(id) => {
                let (id, entry) = find(&entries, id)?;
                take_back(&queue, &state, *id, entry).await?;
                tell(context, entry)?;
                cancelled += 1;
            }
            None => {
                for (id, entry) in entries.iter().filter(|(_, entry)| entry.state != State::OnItsWay) {
                    take_back(&queue, &state, *id, entry).await?;
                    tell(context, entry)?;
                    cancelled += 1;
                }
            }
        }
        let left = queue.queued().len();
        if self.all && left > 0 {
            context.output.note(format!("{} on the way and stay", count(left)));
        }
        context.output.people(format!("{} taken back", count(cancelled)))?;
        Ok(Outcome::Good)
    }
}

fn tell(context: &Context, entry: &Entry) -> anyhow::Result<()> {
    Ok(context.output.programs(&Entry { state: State::Cancelled, ..entry.clone() })?)
}

async fn take_back(queue: &OfflineQueue, state: &Path, id: MessageId, entry: &Entry) -> anyhow::Result<()> {
    match entry.state {
        State::Refused => Ok(queue.take_note(id).await?),
        State::OnItsWay => Err(ChangeError::OnItsWay(id).into()),
        _ => {
            job::cancel(state, id)?;
            Ok(queue.cancel(id).await?)
        }
    }
}

impl SendQueued {
    async fn run(self, context: &Context) -> anyhow::Result<Outcome> {
        let (client, _) = context.connect_to_send().await?;
        let queued = client.queued().await?;
        let (mut accepted, mut failed) = (0, None);
        for message in &queued {
            // Answered meanwhile and long forgotten: then it was accepted.
            let Some(sending) = client.sending(message.id).await? else {
                accepted += 1;
                continue;
            };
            let mut entry = Entry::new(message.id, message.recipient, &message.content, State::OnItsWay);
            match tokio::time::timeout(self.timeout, sending.accepted()).await {
                Ok(Ok(_)) => {
                    accepted += 1;
                    entry.state = State::Accepted;
                }
                Ok(Err(error)) => {
                    entry.state = State::Refused;
                    entry.reason = error.reason().map(|reason| reason.meta().name);
                    failed.get_or_insert(error.to_string());
                }
                Err(_) => {
                    let text = format!("no answer within {:?}", self.timeout);
                    let hint = "what has no answer stays queued: quail queue send goes on with it";
                    return Err(Failure::failed("NOT_ACCEPTED", text).hint(hint).into());
                }
            }
            context.output.programs(&entry)?;
        }
        client.close().await?;
        context.output.people(format!("{accepted} of {} accepted", count(queued.len())))?;
        match failed {
            None => Ok(Outcome::Good),
            Some(text) => {
                let hint = "quail queue lists what was refused, quail queue cancel forgets it";
                Err(Failure::failed("NOT_ACCEPTED", text).hint(hint).into())
            }
        }
    }
}

/// Finds the one message that is meant by an id or the beginning of an id.
fn find<'a>(entries: &'a [(MessageId, Entry)], meant: &str) -> Result<&'a (MessageId, Entry), Failure> {
    let meant = meant.to_lowercase();
    let found: Vec<_> = entries.iter().filter(|(_, entry)| entry.id.starts_with(&meant)).collect();
    match found[..] {
        [one] => Ok(one),
        [] => {
            let text = format!("no message \"{}\" is in the queue", escape(&meant));
            Err(Failure::failed("NOT_QUEUED", text)
                .hint("it was sent, or never queued: quail queue lists what is"))
        }
        _ => {
            let text = format!("\"{}\" may be each of {} messages", escape(&meant), found.len());
            Err(Failure::usage(text).hint("give more of the id: quail queue cancel ID"))
        }
    }
}

fn count(messages: usize) -> String {
    if messages == 1 { "1 message".to_owned() } else { format!("{messages} messages") }
}

fn table(entries: &[&Entry]) -> String {
    if entries.is_empty() {
        return "nothing is queued".to_owned();
    }
    let mut ids: Vec<_> = entries.iter().map(|entry| short(&entry.id, ID_CHARS)).collect();
    ids.sort_unstable();
    let is_short = ids.windows(2).all(|pair| pair[0] != pair[1]);
    let width = if is_short { ID_CHARS } else { usize::MAX };
    let rows = entries.iter().map(|entry| {
        let state = match (entry.state, entry.reason) {
            (State::Refused, Some(reason)) => format!("refused: {reason}"),
            (State::OnItsWay, _) => "on its way".to_owned(),
            _ => "queued".to_owned(),
        };
        let text = match (entry.change, entry.text.as_deref()) {
            (None, text) => text.map_or_else(|| "(no text)".into(), escape),
            (Some(change), text) => format!("({change}) {}", escape(text.unwrap_or_default())).into(),
        };
        let text = if text.chars().count() > TEXT_CHARS {
            format!("{}...", short(&text, TEXT_CHARS))
        } else {
            text.into_owned()
        };
        format!("{}  {state:10}  {text}", short(&entry.id, width))
    });
    rows.collect::<Vec<_>>().join("\n")
}

fn short(text: &str, chars: usize) -> String {
    text.chars().take(chars).collect()
}

#[cfg(test)]
mod tests {
    use quail_client::Body;

    use super::*;

    fn entry(id: &str, text: &str, state: State) -> (MessageId, Entry) {
        let id: MessageId = id.parse().unwrap();
        (id, Entry::new(id, AccountId([1; 16]), &Body::from(text).into(), state))
    }

    #[test]
    fn one_message_is_found_by_the_beginning_of_its_id_and_never_guessed() {
        let entries = [
            entry("019a8c1e-77aa-7000-8000-000000000001", "a", State::Queued),
            entry("019a8c1e-77ab-7000-8000-000000000001", "b", State::OnItsWay),
        ];
        assert_eq!(find(&entries, "019A8C1E-77AB").unwrap(), &entries[1]);
        assert!(find(&entries, "019a8c1e").unwrap_err().to_string().contains("each of 2 messages"));
        assert!(find(&entries, "ff").is_err());
    }

    #[test]
    fn a_list_shows_the_text_and_does_not_obey_it() {
        let long = "x".repeat(50);
        let entries = [
            entry("019a8c1e-77aa-7000-8000-000000000001", "a\u{1b}[31m", State::Queued),
            entry("019a8c1e-77ab-7000-8000-000000000001", &long, State::OnItsWay),
        ];
        let shown = table(&[&entries[0].1, &entries[1].1]);
        assert!(!shown.contains('\u{1b}') && shown.contains(&format!("{}...", "x".repeat(40))), "{shown}");
        assert!(shown.starts_with("019a8c1e-77aa  queued"), "{shown}");
        assert_eq!(table(&[]), "nothing is queued");
    }
}

//! `quail edit`, `quail delete`, `quail react`: what becomes of a message that was sent.
//!
//! Each is queued on this machine's disk like a message, sent, and waited for. One that was killed while it waited is sent by the next
//! command that sends; given twice, it comes to the same.
//!
//! Servers take an edit of any message, and it changes nothing unless it is of one's own; so the history is asked first, where there is
//! one.
//!
//! Invariants: a change that nobody answered for is never called accepted; what is called edited or deleted for everybody was found.

use std::str::FromStr;
use std::time::Duration;

use clap::Args;
use quail::output::escape::escape;
use quail::text;
use quail_client::{
    AccountId, Change, Client, Direction, Error, HistoryPlace, MessageId, MessageRef, Origin, SendError,
    Stamp,
};
use serde::Serialize;

use super::failure::{Failure, Outcome};
use super::session::handle;
use super::{Context, duration};

/// Most pages that a message is looked for on.
const PAGES_MAX: u32 = 10;

/// Messages of one such page, the most that a server gives.
const PAGE: u32 = 100;

/// How long before its id was minted a message may stand, by the clock of the server.
const CLOCKS_APART: Duration = Duration::from_secs(300);

/// Give a message that you sent another text
#[derive(Args, Debug)]
#[command(after_help = EDIT_EXAMPLES)]
pub(super) struct Edit {
    /// The account that you sent it to
    #[arg(value_parser = handle)]
    handle: String,

    /// The message, by its whole id
    #[arg(value_name = "ID")]
    message: MessageId,

    /// The new text; may have many lines
    #[arg(allow_hyphen_values = true)]
    text: String,

    #[command(flatten)]
    waiting: Waiting,
}

const EDIT_EXAMPLES: &str = "\
Examples:
  quail edit grace 019a8c1e-77aa-7000-8000-0123456789ab 'see you at nine'
  quail edit grace \"$(quail send grace hi --json | jq -r .id)\" hello

quail send --json tells the id of what it sends, quail tail --json of what comes.";

/// Delete a message, for everybody or for yourself
#[derive(Args, Debug)]
#[command(after_help = DELETE_EXAMPLES)]
pub(super) struct Delete {
    /// The other account of the conversation
    #[arg(value_parser = handle)]
    handle: String,

    /// The message, by its whole id; with --for-me, own:ID if it is one that you sent
    #[arg(value_name = "ID")]
    message: Named,

    /// Only for yourself, on all of your devices; nobody learns of it
    #[arg(long)]
    for_me: bool,

    #[command(flatten)]
    waiting: Waiting,
}

const DELETE_EXAMPLES: &str = "\
Examples:
  quail delete grace 019a8c1e-77aa-7000-8000-0123456789ab
  quail delete grace 019a8c1e-77aa-7000-8000-0123456789ab --for-me
  quail delete grace own:019a8c1e-77aa-7000-8000-0123456789ab --for-me

For everybody only what you sent yourself can be deleted, and only for some time (48 hours, unless the server's operator says
otherwise). Who has seen it has seen it.";

/// React to a message
#[derive(Args, Debug)]
#[command(after_help = REACT_EXAMPLES)]
pub(super) struct React {
    /// The other account of the conversation
    #[arg(value_parser = handle)]
    handle: String,

    /// The message, by its whole id; own:ID if it is one that you sent
    #[arg(value_name = "ID")]
    message: Named,

    /// The reaction: up to 32 bytes, in the place of an earlier one
    #[arg(required_unless_present = "remove", conflicts_with = "remove", allow_hyphen_values = true)]
    text: Option<String>,

    /// Take your reaction back
    #[arg(long)]
    remove: bool,

    #[command(flatten)]
    waiting: Waiting,
}

const REACT_EXAMPLES: &str = "\
Examples:
  quail react grace 019a8c1e-77aa-7000-8000-0123456789ab '\u{1f44d}'
  quail react grace own:019a8c1e-77aa-7000-8000-0123456789ab +1
  quail react grace 019a8c1e-77aa-7000-8000-0123456789ab --remove";

#[derive(Args, Debug)]
struct Waiting {
    /// How long to wait for the answer before giving up
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = duration::parse)]
    timeout: Duration,
}

/// A message of a conversation as people name it: the other one's by its id, one's own as `own:ID`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Named {
    id: MessageId,
    is_own: bool,
}

impl FromStr for Named {
    type Err = <MessageId as FromStr>::Err;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let own = text.strip_prefix("own:");
        Ok(Self { id: own.unwrap_or(text).parse()?, is_own: own.is_some() })
    }
}

impl Named {
    /// Returns the message in the conversation of an account with another one.
    pub(super) fn between(self, own: AccountId, peer: AccountId) -> MessageRef {
        MessageRef { sender: if self.is_own { own } else { peer }, id: self.id }
    }
}

/// What is printed for programs.
#[derive(Serialize)]
struct Changed<'a> {
    id: String,
    change: &'static str,
    message: String,
    /// Whether the message was found in the history. Only edits and deletions for everybody look for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    found: Option<bool>,
    sender: String,
    handle: &'a str,
    origin: u32,
    position: u64,
    stamp: u64,
}

impl Edit {
    pub(super) async fn run(self, context: Context) -> anyhow::Result<Outcome> {
        let text = text::whole(&self.text)?.to_owned();
        let id = self.message;
        change(&context, &self.handle, &self.waiting, |_, _| Change::Edit { id, body: text.into() }).await
    }
}

impl Delete {
    pub(super) async fn run(self, context: Context) -> anyhow::Result<Outcome> {
        let (message, for_me) = (self.message, self.for_me);
        change(&context, &self.handle, &self.waiting, |own, peer| match for_me {
            true => Change::DeleteForMe { message: message.between(own, peer) },
            false => Change::DeleteForAll { id: message.id },
        })
        .await
    }
}

impl React {
    pub(super) async fn run(self, context: Context) -> anyhow::Result<Outcome> {
        let (message, text) = (self.message, self.text.unwrap_or_default());
        let react = |own, peer| Change::React { message: message.between(own, peer), text };
        change(&context, &self.handle, &self.waiting, react).await
    }
}

/// Returns what a change is called.
pub(super) fn name(change: &Change) -> &'static str {
    match change {
        Change::Edit { .. } => "edit",
        Change::DeleteForAll { .. } => "delete_for_all",
        Change::DeleteForMe { .. } => "delete_for_me",
        Change::React { .. } => "react",
        _ => "other",
    }
}

async fn change(
    context: &Context,
    handle: &str,
    waiting: &Waiting,
    make: impl FnOnce(AccountId, AccountId) -> Change,
) -> anyhow::Result<Outcome> {
    let (client, _) = context.connect_to_send().await?;
    let peer = client.look_up(handle).await?.account;
    let change = make(client.account(), peer);
    let (name, message) = (name(&change), change.message(client.account()));
    let found = match &change {
        Change::Edit { .. } | Change::DeleteForAll { .. } => {
            Some(is_own(&client, peer, message.id, handle).await?)
        }
        _ => None,
    };
    let sending = client.say_with_id(quail_client::new_message_id(), peer, change).await?;
    let accepted = match tokio::time::timeout(waiting.timeout, sending.accepted()).await {
        Ok(Ok(accepted)) => accepted,
        Ok(Err(error)) => {
            // It is told here, so nobody need be told again.
            client.take_note(sending.id()).await?;
            return Err(failure(&error).into());
        }
        Err(_) => {
            let text = format!("no answer within {:?}", waiting.timeout);
            let hint = "it stays queued: quail queue send goes on with it";
            return Err(Failure::failed("NOT_ACCEPTED", text).hint(hint).into());
        }
    };
    client.close().await?;
    let programs = Changed {
        id: sending.id().to_string(),
        change: name,
        message: message.id.to_string(),
        found,
        sender: message.sender.to_string(),
        handle,
        origin: accepted.origin.0,
        position: accepted.position.0,
        stamp: accepted.stamp.0,
    };
    if found == Some(false) {
        context
            .output
            .note("the history has no such message of yours, or not yet: if there is none, nothing changes");
    }
    let people = match name {
        _ if found == Some(false) => "accepted",
        "edit" => "edited",
        "delete_for_all" => "deleted for everybody",
        "delete_for_me" => "deleted for you",
        _ => "reacted",
    };
    context.output.result(people, &programs)?;
    Ok(Outcome::Good)
}

/// Returns whether the history has such a message that this account sent; not if the server keeps none, or it stands too far back.
///
/// # Errors
/// [`Failure`] if the other one sent it.
async fn is_own(client: &Client, peer: AccountId, id: MessageId, handle: &str) -> anyhow::Result<bool> {
    // Its id says when it was minted, and it was accepted after that.
    let minted = id.unix_ms().unwrap_or(0).saturating_sub(CLOCKS_APART.as_millis() as u64);
    let from = HistoryPlace { stamp: Stamp::from_ms(minted), origin: Origin(0) };
    let mut pager = client.history(peer, Direction::Newer, Some(from), PAGE);
    let mut is_theirs = false;
    for _ in 0..PAGES_MAX {
        let page = match pager.next_page().await {
            Ok(Some(page)) => page,
            // Without a history nobody can tell.
            Ok(None) | Err(Error::Refused(_)) => break,
            Err(error) => return Err(error.into()),
        };
        let mut found = page.items.iter().filter(|message| message.id == id);
        if found.clone().any(|message| message.sender == client.account()) {
            return Ok(true);
        }
        is_theirs |= found.next().is_some();
    }
    if is_theirs {
        let text = format!("{} sent that message, and only who sent it can do that", escape(handle));
        return Err(Failure::failed("NOT_YOURS", text)
            .hint("quail delete --for-me hides it from yourself")
            .into());
    }
    Ok(false)
}

fn failure(error: &SendError) -> Failure {
    use quail_client::Reason;
    let reason = error.reason();
    let failure =
        Failure::failed(reason.map_or("NOT_ACCEPTED", |reason| reason.meta().name), error.to_string());
    match reason {
        Some(Reason::TooLate) => failure.hint("quail delete --for-me own:ID hides it from yourself"),
        Some(Reason::BodyInvalid) => {
            failure.hint("a server that is older than this command knows no changes")
        }
        _ => failure,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_the_other_ones_unless_it_is_said_to_be_ones_own() {
        let (own, peer) = (AccountId([1; 16]), AccountId([2; 16]));
        let id = "019a8c1e-77aa-7000-8000-000000000001";
        let of = |text: &str| text.parse::<Named>().unwrap().between(own, peer);
        assert_eq!(of(id), MessageRef { sender: peer, id: id.parse().unwrap() });
        assert_eq!(of(&format!("own:{id}")), MessageRef { sender: own, id: id.parse().unwrap() });
        for bad in ["", "own:", "019a8c1e", "mine:019a8c1e-77aa-7000-8000-000000000001"] {
            assert!(bad.parse::<Named>().is_err(), "{bad}");
        }
    }
}

//! A message of the history as a line: for people, for programs.

use std::borrow::Cow;
use std::collections::{HashMap, VecDeque};

use jiff::Timestamp;
use jiff::tz::TimeZone;
use quail::output::escape::escape;
use quail_client::{
    AccountId, Archived, Body, Client, HistoryMessage, MemoryStore, MessageId, Remains, Stamp,
};
use serde::Serialize;

use super::super::Context;
use super::super::session::options;

/// Most messages that are remembered, to show what a later one answers.
const REMEMBERED_MAX: usize = 1_000;

/// Characters of a message that are shown where it is answered.
const ANSWERED_CHARS: usize = 30;

/// Connects this device to read only: the counters stay free for a process that sends or receives.
pub(super) async fn connect(context: &Context) -> anyhow::Result<Client> {
    let (_, login) = context.login()?;
    Ok(Client::open(&login.address, &login.credentials, MemoryStore::new(), options()).await?)
}

/// Says so where the server's archive is behind.
pub(super) fn tell_behind(context: &Context, archived: &Archived) {
    if archived.behind {
        context.output.note("the archive of the server is behind: the newest messages may be missing");
    }
}

/// A message, as programs get it.
#[derive(Debug, Serialize)]
pub(super) struct Line {
    id: String,
    sender: String,
    /// Nothing if it cannot be found out now.
    handle: Option<String>,
    recipient: String,
    /// What is left of it: `there`, `deleted`, `deleted_for_me` or `unknown`.
    state: &'static str,
    /// Nothing if it is no text, or not there.
    body: Option<String>,
    /// Whether only the beginning of the body is here.
    cut: bool,
    stamp: u64,
    origin: u32,
    position: u64,
    seq: u64,
    edited: Option<u64>,
    reply: Option<String>,
    reactions: Vec<Reaction>,
    /// Where a search found something, in bytes of the body.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) highlights: Option<Vec<[usize; 2]>>,
}

#[derive(Debug, Serialize)]
struct Reaction {
    account: String,
    reaction: String,
}

/// Knows what people call accounts.
pub(super) struct Names {
    client: Client,
    zone: TimeZone,
    known: HashMap<AccountId, Option<String>>,
    /// The beginnings of the last messages that were shown, the newest first.
    remembered: VecDeque<((AccountId, MessageId), String)>,
}

impl Names {
    pub(super) fn new(client: Client) -> Self {
        Self { client, zone: TimeZone::system(), known: HashMap::new(), remembered: VecDeque::new() }
    }

    /// Returns the handle of an account, if it can be found out.
    pub(super) async fn handle(&mut self, account: AccountId) -> Option<String> {
        if account == self.client.account() {
            return Some(self.client.handle().to_owned());
        }
        if let Some(known) = self.known.get(&account) {
            return known.clone();
        }
        let found = self.client.look_up_account(account).await.ok().map(|profile| profile.handle);
        self.known.insert(account, found.clone());
        found
    }

    /// Returns what people call an account.
    pub(super) async fn name(&mut self, account: AccountId) -> String {
        self.handle(account).await.unwrap_or_else(|| account.to_string())
    }

    /// Prints a message on a line of its own.
    pub(super) async fn print(&mut self, context: &Context, message: &HistoryMessage) -> anyhow::Result<()> {
        let name = self.name(message.sender).await;
        let text = self.with_marks(message, &shown(&message.content)).await;
        let people = format!("{} {}: {text}", self.time(message.stamp), escape(&name));
        let programs = self.line(message).await;
        Ok(context.output.result(people, &programs)?)
    }

    /// Returns what people are shown of a message: its text, before that what it answers, behind it whether it was edited and how
    /// accounts react.
    pub(super) async fn with_marks(&mut self, message: &HistoryMessage, text: &str) -> String {
        let own = (message.sender, message.id);
        let answered = match message.reply {
            Some(answered) => {
                let known = self.remembered.iter().find(|(one, _)| *one == answered);
                let known = known.map(|(_, text)| text.clone());
                format!(
                    "[answers {}: {}] ",
                    escape(&self.name(answered.0).await),
                    known.unwrap_or_else(|| answered.1.to_string())
                )
            }
            None => String::new(),
        };
        if !self.remembered.iter().any(|(one, _)| *one == own) {
            self.remembered.truncate(REMEMBERED_MAX - 1);
            self.remembered.push_front((own, cut(&shown(&message.content), ANSWERED_CHARS)));
        }
        let mut reactions = Vec::new();
        for (account, reaction) in &message.reactions {
            reactions.push((self.name(*account).await, reaction.as_str()));
        }
        let edited = if message.edited.is_some() { " (edited)" } else { "" };
        format!("{answered}{text}{edited}{}", reacted(&reactions))
    }

    /// Returns a message as programs get it.
    pub(super) async fn line(&mut self, message: &HistoryMessage) -> Line {
        let (state, body) = match &message.content {
            Remains::There(body) => ("there", body.as_text().map(str::to_owned)),
            Remains::Deleted => ("deleted", None),
            Remains::DeletedForMe => ("deleted_for_me", None),
            _ => ("unknown", None),
        };
        let reaction = |(account, reaction): &(AccountId, String)| Reaction {
            account: account.to_string(),
            reaction: reaction.clone(),
        };
        Line {
            id: message.id.to_string(),
            sender: message.sender.to_string(),
            handle: self.handle(message.sender).await,
            recipient: message.recipient.to_string(),
            state,
            body,
            cut: message.is_cut,
            stamp: message.stamp.0,
            origin: message.origin.0,
            position: message.position.0,
            seq: message.seq,
            edited: message.edited.map(|stamp| stamp.0),
            reply: message.reply.map(|(_, id)| id.to_string()),
            reactions: message.reactions.iter().map(reaction).collect(),
            highlights: None,
        }
    }

    /// Returns when something was, as people read it here.
    pub(super) fn time(&self, stamp: Stamp) -> String {
        time(stamp, &self.zone)
    }
}

fn time(stamp: Stamp, zone: &TimeZone) -> String {
    let time = i64::try_from(stamp.unix_ms()).ok().and_then(|ms| Timestamp::from_millisecond(ms).ok());
    match time {
        Some(time) => time.to_zoned(zone.clone()).strftime("%Y-%m-%d %H:%M").to_string(),
        // Stamps come from the server, which may be anybody's.
        None => "---------- --:--".to_owned(),
    }
}

/// Returns what people are shown of a message.
pub(super) fn shown(content: &Remains) -> Cow<'_, str> {
    match content {
        Remains::There(Body::Text(text)) => escape(text),
        Remains::There(other) => format!("[{} bytes that are no text]", other.len()).into(),
        Remains::Deleted => "[deleted]".into(),
        Remains::DeletedForMe => "[deleted for you]".into(),
        _ => "[something this quail does not know]".into(),
    }
}

/// Cuts a text to the first characters.
pub(super) fn cut(text: &str, chars: usize) -> String {
    match text.char_indices().nth(chars) {
        Some((end, _)) => format!("{}...", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}

/// Returns reactions as they stand behind a text: who reacts, or how many do alike.
fn reacted(reactions: &[(String, &str)]) -> String {
    let mut alike: Vec<(&str, Vec<&str>)> = Vec::new();
    for (name, reaction) in reactions {
        match alike.iter_mut().find(|(other, _)| other == reaction) {
            Some((_, names)) => names.push(name),
            None => alike.push((reaction, vec![name])),
        }
    }
    let shown = alike.iter().map(|(reaction, names)| match &names[..] {
        [name] => format!(" [{} {}]", escape(reaction), escape(name)),
        names => format!(" [{} {}]", escape(reaction), names.len()),
    });
    shown.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_day_is_that_of_the_zone_and_no_stamp_is_too_strange() {
        let stamp = Stamp::from_ms(1_717_243_500_000);
        assert_eq!(time(stamp, &TimeZone::UTC), "2024-06-01 12:05");
        assert_eq!(time(Stamp(u64::MAX), &TimeZone::UTC), "---------- --:--");
    }

    #[test]
    fn a_terminal_is_shown_control_characters_and_does_not_obey_them() {
        assert_eq!(shown(&Remains::There(Body::from("a\x1b[2J"))), "a\\u{1b}[2J");
        assert_eq!(shown(&Remains::Deleted), "[deleted]");
    }

    #[test]
    fn who_reacts_is_named_and_many_are_counted() {
        let reactions = |all: &[(&str, &'static str)]| {
            let all: Vec<_> = all.iter().map(|(name, reaction)| ((*name).to_owned(), *reaction)).collect();
            reacted(&all)
        };
        assert_eq!(reactions(&[]), "");
        assert_eq!(
            reactions(&[("bob", "+1"), ("ada", "\u{1f44d}"), ("eve", "+1")]),
            " [+1 2] [\u{1f44d} ada]"
        );
        assert_eq!(
            reactions(&[("b\x07", "\x1b[2J")]),
            " [\\u{1b}[2J b\\u{7}]",
            "a terminal does not obey them"
        );
    }

    #[test]
    fn a_text_is_cut_between_characters() {
        assert_eq!(cut("\u{fc}ml\u{e4}ut", 6), "\u{fc}ml\u{e4}ut");
        assert_eq!(cut("\u{fc}ml\u{e4}ut", 1), "\u{fc}...");
    }
}

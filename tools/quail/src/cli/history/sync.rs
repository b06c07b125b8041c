//! `quail sync`: what changed in all conversations since it was asked last, for programs that keep a copy.
//!
//! Invariant: the file with the seqs is replaced only after everything up to them was printed to somebody who still
//! reads, so what is cut short is printed again; a crash leaves the seqs before or after it.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::Context as _;
use clap::Args;
use quail::output::escape::escape;
use quail_client::{AccountId, Client, SyncState};
use serde::Serialize;

use super::super::Context;
use super::super::failure::{Failure, Outcome};
use super::line::{self, Line, Names, connect};

/// Print what changed in all conversations
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(in super::super) struct Sync {
    /// Begin where the sync before ended, which is kept in this file
    #[arg(long, value_name = "FILE")]
    state: Option<PathBuf>,
}

const EXAMPLES: &str = "\
Examples:
  quail sync                                   everything
  quail sync --state seqs.json                 what is new since the last time
  quail sync --state seqs.json --json >> copy.jsonl

A message that changed is printed again as it is now, with a greater seq; one that was deleted
without its body. The file is replaced once all of it is printed.";

/// What to do about a file of something else.
const BEGIN_ANEW: &str = "name the file of an earlier sync, or remove this one: then everything is printed again, from the first message on";

/// What programs get.
#[derive(Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
enum Told {
    /// A message as it is now.
    Message {
        peer: String,
        #[serde(flatten)]
        message: Box<Line>,
    },
    /// What is known of a conversation is to be forgotten; all of it follows.
    Reload { peer: String },
    /// Everything is here.
    CaughtUp { origin: u32, position: u64, behind: bool },
}

impl Sync {
    pub(in super::super) async fn run(self, context: Context) -> anyhow::Result<Outcome> {
        let mut seqs = match &self.state {
            Some(path) => load(path)?,
            None => BTreeMap::new(),
        };
        let client = connect(&context).await?;
        let mut names = Names::new(client.clone());
        // What it says of conversations holds up to here at least.
        let (mut known, archived) = changed(&client, &seqs).await?;
        // A reload begins anew from zero; once, or a server gone bad keeps us for ever.
        for _ in 0..2 {
            let (mut again, mut pager) = (Vec::new(), client.sync(known));
            while context.output.is_read()
                && let Some(page) = pager.next_page().await?
            {
                line::tell_behind(&context, &page.archived);
                for synced in page.items {
                    let name = names.name(synced.peer).await;
                    if synced.state == SyncState::Reload {
                        context.output.note(format!("{}: read anew", escape(&name)));
                        context.output.programs(&Told::Reload { peer: synced.peer.to_string() })?;
                        again.push((synced.peer, 0));
                        continue;
                    }
                    for message in &synced.messages {
                        if context.output.is_json() {
                            let (peer, message) =
                                (synced.peer.to_string(), Box::new(names.line(message).await));
                            context.output.programs(&Told::Message { peer, message })?;
                        } else {
                            names.print(&context, message).await?;
                        }
                    }
                    seqs.insert(synced.peer, synced.seq);
                }
            }
            known = again;
            if known.is_empty() {
                break;
            }
        }
        client.close().await?;
        if !context.output.is_read() {
            // Who knows how much of it they took: it comes again the next time.
            return Ok(Outcome::Good);
        }
        if let Some(archived) = archived {
            let (origin, position) = (archived.origin.0, archived.position.0);
            let caught_up = Told::CaughtUp { origin, position, behind: archived.behind };
            context.output.programs(&caught_up)?;
        }
        if let Some(path) = &self.state
            && context.output.is_read()
        {
            save(path, &seqs)?;
        }
        Ok(Outcome::Good)
    }
}

/// Returns the conversations that changed, each with the seq up to which everything is here.
async fn changed(
    client: &Client,
    seqs: &BTreeMap<AccountId, u64>,
) -> anyhow::Result<(Vec<(AccountId, u64)>, Option<quail_client::Archived>)> {
    let (mut pager, mut changed, mut archived) = (client.conversations(), Vec::new(), None);
    while let Some(page) = pager.next_page().await? {
        archived.get_or_insert(page.archived);
        for conversation in page.items {
            let seq = seqs.get(&conversation.peer).copied().unwrap_or(0);
            if seq != conversation.seq {
                changed.push((conversation.peer, seq));
            }
        }
    }
    Ok((changed, archived))
}

fn load(path: &Path) -> anyhow::Result<BTreeMap<AccountId, u64>> {
    let trouble = |error: &dyn std::fmt::Display, hint: &str| {
        let text = format!("the seqs in {} cannot be read: {error}", path.display());
        Failure::failed("STATE_FILE", text).hint(hint)
    };
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(BTreeMap::new()),
        Err(error) if error.kind() != ErrorKind::InvalidData => {
            return Err(
                trouble(&error, "give yourself the right to read it, or name another with --state").into()
            );
        }
        Err(error) => return Err(trouble(&error, BEGIN_ANEW).into()),
    };
    let seqs: BTreeMap<String, u64> =
        serde_json::from_str(&text).map_err(|error| trouble(&error, BEGIN_ANEW))?;
    let seq = |(peer, seq): (String, u64)| Ok((peer.parse::<AccountId>()?, seq));
    let seqs: Result<_, <AccountId as FromStr>::Err> = seqs.into_iter().map(seq).collect();
    Ok(seqs.map_err(|error| trouble(&error, BEGIN_ANEW))?)
}

/// Puts the seqs in the place of those before, so that a crash leaves the ones or the others.
fn save(path: &Path, seqs: &BTreeMap<AccountId, u64>) -> anyhow::Result<()> {
    let seqs: BTreeMap<_, _> = seqs.iter().map(|(peer, seq)| (peer.to_string(), seq)).collect();
    let text = serde_json::to_string_pretty(&seqs)?;
    let mut new = path.as_os_str().to_owned();
    new.push(".new");
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    File::create(&new)
        .and_then(|mut file| file.write_all(text.as_bytes()).and_then(|()| file.sync_all()))
        .and_then(|()| fs::rename(&new, path))
        .and_then(|()| File::open(directory.unwrap_or(Path::new(".")))?.sync_all())
        .with_context(|| format!("write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seqs_are_found_again_and_a_file_of_something_else_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("seqs.json");
        assert_eq!(load(&path).unwrap(), BTreeMap::new(), "the first time");
        let seqs = BTreeMap::from([(AccountId([1; 16]), 7), (AccountId([2; 16]), 0)]);
        save(&path, &seqs).unwrap();
        assert_eq!(load(&path).unwrap(), seqs);
        for wrong in ["", "[]", "{\"bob\": 1}", "{\"bob\": -1}"] {
            fs::write(&path, wrong).unwrap();
            assert!(load(&path).unwrap_err().is::<Failure>(), "{wrong}");
        }
        let text = load(directory.path()).unwrap_err().to_string();
        assert!(text.contains("cannot be read: Is a directory"), "{text}");
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1, "nothing is left beside it");
    }
}

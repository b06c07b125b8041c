//! What one call of `quail send` was given, remembered until all of it is answered.
//!
//! A process that was killed leaves some of its lines answered, some in the queue of the SDK and some nowhere. The same command
//! again must send the rest, once. So the ids of all lines are minted and written down before the first is queued; lines are
//! queued in order, hence everything before the last line that the SDK knows was queued before.
//!
//! A message that is cancelled (`quail queue cancel`) is known neither to the SDK nor to the server, so the job remembers it.
//!
//! Invariants: a job is on disk before its first message is queued, and removed only when every message is answered or
//! cancelled; other input is another job; it holds no text, only a digest.

use std::collections::HashSet;
use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use quail_client::store::QueuedSend;
use quail_client::{AccountId, MessageId, MessageRef, new_message_id};
use serde::{Deserialize, Serialize};

/// The form of the file that this version writes, and the only one it goes on with.
const FORMAT: u32 = 1;

/// The ids of one call.
#[derive(Debug)]
pub(super) struct Job {
    path: PathBuf,
    pub(super) ids: Vec<MessageId>,
    /// What all of them answer.
    pub(super) reply_to: Option<MessageRef>,
    /// Those of them that are not to be sent any more.
    pub(super) cancelled: HashSet<MessageId>,
    /// It was begun by an earlier call.
    pub(super) is_resumed: bool,
}

#[derive(Serialize, Deserialize)]
struct JobFile {
    format: u32,
    digest: String,
    ids: Vec<String>,
    #[serde(default)]
    cancelled: Vec<String>,
}

impl Job {
    /// Goes on with an unfinished job of the same input, or begins one. To be called with the queue locked.
    pub(super) fn begin(
        state: &Path,
        to: AccountId,
        reply_to: Option<MessageRef>,
        messages: &[&str],
    ) -> anyhow::Result<Self> {
        let path = path(state);
        let digest = digest(to, reply_to, messages);
        if let Some(file) =
            read(&path)?.filter(|file| file.digest == digest && file.ids.len() == messages.len())
            && let Some(ids) = parsed(&file.ids)
        {
            let cancelled = parsed(&file.cancelled).unwrap_or_default().into_iter().collect();
            return Ok(Self { path, ids, reply_to, cancelled, is_resumed: true });
        }
        let ids: Vec<_> = messages.iter().map(|_| new_message_id()).collect();
        let ids_text = ids.iter().map(ToString::to_string).collect();
        write(state, &JobFile { format: FORMAT, digest, ids: ids_text, cancelled: Vec::new() })?;
        Ok(Self { path, ids, reply_to, cancelled: HashSet::new(), is_resumed: false })
    }

    /// Everything is answered.
    pub(super) fn finish(&self) -> anyhow::Result<()> {
        match fs::remove_file(&self.path) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                Err(error).with_context(|| format!("remove {}", self.path.display()))
            }
            _ => Ok(()),
        }
    }
}

/// Remembers that a message is not to be sent any more, if it is one of an unfinished job. To be called with the queue
/// locked, before it is cancelled.
pub(in super::super) fn cancel(state: &Path, id: MessageId) -> anyhow::Result<()> {
    let text = id.to_string();
    match read(&path(state))? {
        Some(mut file) if file.ids.contains(&text) => {
            file.cancelled.push(text);
            write(state, &file)
        }
        _ => Ok(()),
    }
}

fn path(state: &Path) -> PathBuf {
    state.join("send.json")
}

/// Reads the unfinished job. What cannot be understood is none.
fn read(path: &Path) -> anyhow::Result<Option<JobFile>> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(|| format!("read {}", path.display())),
    };
    let file = serde_json::from_slice::<JobFile>(&bytes).ok();
    Ok(file.filter(|file| file.format == FORMAT))
}

/// Puts a job in the place of the one before, so that a crash leaves the one or the other.
fn write(state: &Path, file: &JobFile) -> anyhow::Result<()> {
    let path = path(state);
    let successor = path.with_extension("json.new");
    let bytes = serde_json::to_vec(file)?;
    let mut options = OpenOptions::new();
    let written = options.write(true).create(true).truncate(true).mode(0o600).open(&successor);
    written
        .and_then(|mut file| file.write_all(&bytes).and_then(|()| file.sync_all()))
        .and_then(|()| fs::rename(&successor, &path))
        .and_then(|()| File::open(state)?.sync_all())
        .with_context(|| format!("write {}", path.display()))
}

fn parsed(ids: &[String]) -> Option<Vec<MessageId>> {
    ids.iter().map(|id| id.parse().ok()).collect()
}

fn digest(to: AccountId, reply_to: Option<MessageRef>, messages: &[&str]) -> String {
    // Lengths keep the border between two messages in its place.
    let lengths = messages.iter().map(|message| (message.len() as u64).to_le_bytes());
    let mut all: Vec<u8> = lengths.flatten().collect();
    messages.iter().for_each(|message| all.extend(message.as_bytes()));
    let reply = reply_to.map(|message| [*message.sender.as_bytes(), *message.id.as_bytes()].concat());
    let (body, extra) = (all.into(), reply.unwrap_or_default().into());
    let whole = QueuedSend { number: 0, id: MessageId([0; 16]), recipient: to, kind: 0, body, extra };
    whole.digest().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TO: AccountId = AccountId([1; 16]);

    #[test]
    fn the_same_input_goes_on_until_it_is_finished_and_other_input_is_another_job() {
        let state = tempfile::tempdir().unwrap();
        let begin = |messages: &[&str]| Job::begin(state.path(), TO, None, messages).unwrap();
        let first = begin(&["a", "b"]);
        assert!(!first.is_resumed && first.ids[0] != first.ids[1]);
        let again = begin(&["a", "b"]);
        assert_eq!((again.is_resumed, &again.ids), (true, &first.ids));
        again.finish().unwrap();
        again.finish().unwrap();
        assert_ne!(begin(&["a", "b"]).ids, first.ids, "it was finished, so this is meant");
        let reply_to = Some(MessageRef { sender: TO, id: new_message_id() });
        begin(&["a", "b"]);
        assert!(!Job::begin(state.path(), TO, reply_to, &["a", "b"]).unwrap().is_resumed);
        assert!(Job::begin(state.path(), TO, reply_to, &["a", "b"]).unwrap().is_resumed);
        begin(&["a", "b"]);
        assert!(!begin(&["ab"]).is_resumed && !begin(&["a", "b"]).is_resumed);
    }

    #[test]
    fn what_was_cancelled_stays_so_for_the_rest_of_the_job() {
        let state = tempfile::tempdir().unwrap();
        let first = Job::begin(state.path(), TO, None, &["a", "b"]).unwrap();
        cancel(state.path(), first.ids[1]).unwrap();
        cancel(state.path(), new_message_id()).unwrap();
        let again = Job::begin(state.path(), TO, None, &["a", "b"]).unwrap();
        assert_eq!((again.ids, again.cancelled), (first.ids.clone(), HashSet::from([first.ids[1]])));
        assert!(Job::begin(state.path(), TO, None, &["c"]).unwrap().cancelled.is_empty());
    }

    #[test]
    fn a_damaged_job_is_another_job() {
        let state = tempfile::tempdir().unwrap();
        let first = Job::begin(state.path(), TO, None, &["a"]).unwrap();
        fs::write(&first.path, "{").unwrap();
        assert!(!Job::begin(state.path(), TO, None, &["a"]).unwrap().is_resumed);
    }
}

//! Unread counts, pushed: whoever has asked for the list of conversations is told when one of its numbers changes.
//!
//! The writer of the archive shows each batch it has applied. Of the conversations in it those are noted whose account has somebody
//! watching; a task counts each in the archive and hands the number to the core, which knows the devices. It is the number as it is
//! then, so one that is dropped costs nothing but time.
//!
//! Invariants: the writer never waits; what is noted is bounded; each conversation is counted at most once in [`UNREAD_EVERY`]; who
//! watches nothing costs nothing.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use quail_core::ports::archive::{ArchiveBatch, ChangeKind, ReadArchive, direct};
use quail_core::{Command, UnreadCommand};
use quail_protocol::id::AccountId;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::delivery::Delivery;
use crate::ops::clock::unix_ms;
use crate::sequencer::SequencerHandle;

/// How often the number of one conversation is told at most.
const UNREAD_EVERY: Duration = Duration::from_secs(1);

/// Most conversations that wait to be counted. Of those beyond it nothing is told until they change again.
const DUE_MAX: usize = 4096;

/// How long the archive may take for one number; then it waits for the next change.
const COUNT_TIMEOUT: Duration = Duration::from_secs(5);

/// The conversations whose number may have changed: the account that has not read them, and its peer.
pub struct Unread {
    delivery: Arc<Delivery>,
    due: Mutex<BTreeSet<(AccountId, AccountId)>>,
    noted: Notify,
}

impl Unread {
    /// Returns one in which nothing is due.
    pub fn new(delivery: Arc<Delivery>) -> Self {
        Self { delivery, due: Mutex::default(), noted: Notify::new() }
    }

    /// Takes note of what a batch changed. Does not wait.
    pub fn changed(&self, batch: &ArchiveBatch) {
        let messages = batch.messages.iter().map(|new| (new.recipient, new.message.sender));
        // Only what takes a message away changes a number, and what somebody takes away for himself is nobody else's business.
        let changes = batch.changes.iter().filter(|change| match change.kind {
            ChangeKind::DeleteForAll => true,
            ChangeKind::DeleteForMe { account } => account == change.recipient,
            ChangeKind::Edit { .. } | ChangeKind::React { .. } => false,
        });
        let changes = changes.map(|change| (change.recipient, change.message.sender));
        let read = batch.advances.iter().filter(|advance| advance.read.is_some());
        let read = read.map(|advance| (advance.account, advance.sender));
        for (account, peer) in messages.chain(changes).chain(read) {
            if self.delivery.is_watched(account) {
                self.note(account, peer);
            }
        }
    }

    fn note(&self, account: AccountId, peer: AccountId) {
        let mut due = self.due();
        if due.len() < DUE_MAX {
            due.insert((account, peer));
            self.noted.notify_one();
        }
    }

    /// Counts and tells until it is asked to stop.
    pub async fn tell_until(
        &self,
        archive: Arc<dyn ReadArchive>,
        sequencer: SequencerHandle,
        stop: CancellationToken,
    ) {
        let mut counter = 0;
        let telling = async {
            loop {
                self.noted.notified().await;
                let due = std::mem::take(&mut *self.due());
                for (account, peer) in due {
                    let counting = archive.unread(account, direct(account, peer));
                    // Without a number nothing is told; the list says why.
                    let Ok(Ok(count)) = tokio::time::timeout(COUNT_TIMEOUT, counting).await else { continue };
                    counter = unix_ms().max(counter + 1);
                    let command = Command::Unread(UnreadCommand { account, peer, counter, count });
                    if !sequencer.try_submit(command) {
                        self.note(account, peer);
                    }
                }
                tokio::time::sleep(UNREAD_EVERY).await;
            }
        };
        stop.run_until_cancelled(telling).await;
    }

    fn due(&self) -> MutexGuard<'_, BTreeSet<(AccountId, AccountId)>> {
        // A set is whole between two operations.
        self.due.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use quail_core::ConnectionId;
    use quail_core::ports::archive::Advance;
    use quail_protocol::id::{Origin, Position};

    use super::*;

    fn account(number: u128) -> AccountId {
        AccountId(number.to_be_bytes())
    }

    fn read(number: u128) -> ArchiveBatch {
        let upto = Some(Position(1));
        let advance = Advance {
            sender: account(number),
            account: account(1),
            origin: Origin(1),
            delivered: upto,
            read: upto,
            read_told: None,
        };
        ArchiveBatch { advances: vec![advance], ..ArchiveBatch::default() }
    }

    #[test]
    fn only_what_is_watched_is_noted_and_no_more_than_so_much() {
        let delivery = Arc::new(Delivery::default());
        let unread = Unread::new(delivery.clone());
        unread.changed(&read(2));
        assert!(unread.due().is_empty(), "nobody watches");
        let mailbox = delivery.open(ConnectionId(1));
        delivery.watch(ConnectionId(1), account(1));
        unread.changed(&read(2));
        unread.changed(&read(2));
        let delivered = ArchiveBatch {
            advances: vec![Advance { read: None, ..read(3).advances[0] }],
            ..ArchiveBatch::default()
        };
        unread.changed(&delivered);
        assert_eq!(*unread.due(), BTreeSet::from([(account(1), account(2))]));
        (0..2 * DUE_MAX as u128).for_each(|number| unread.changed(&read(number)));
        assert_eq!(unread.due().len(), DUE_MAX);
        drop(mailbox);
    }
}

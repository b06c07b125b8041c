//! The outbox engine, as the sequencer and the committer use it.

use std::sync::Arc;

use quail_core::ports::outbox::{Batch, Outbox};
use quail_protocol::id::{Position, Stamp};
use quaild::adapters::outbox::{OutboxEngine, OutboxOptions};
use quaild::ops::metrics::Metrics;

use super::crowd::Desk;

/// Messages that become durable together, as when 128 commands are handed over.
const MESSAGES: u64 = 43;

/// Everybody sends, gets acknowledged, and takes the receipt.
pub(crate) fn cycle() -> Box<dyn FnMut()> {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let options = OutboxOptions::default();
    let opened = OutboxEngine::open(directory.path(), &options, Arc::new(Metrics::new()));
    let mut engine = opened.expect("an outbox").engine;
    let mut syncer = engine.syncer();
    let (mut desk, mut entries, mut number) = (Desk::default(), Vec::new(), 0);
    Box::new(move || {
        // Until the end the directory is there.
        let _ = directory.path();
        number += 1;
        for pair in 0..MESSAGES {
            let (sender, recipient) = (2 * pair, 2 * pair + 1);
            let message = desk.send(sender, recipient, number, &mut entries);
            let receipt = desk.acknowledge(sender, recipient, message, &mut entries);
            desk.take(sender, receipt, &mut entries);
        }
        let (last_position, last_stamp) = (Position(desk.last), Stamp(desk.last));
        engine.append(Batch { entries: &entries, last_position, last_stamp }).expect("appended");
        syncer.sync().expect("synced");
        entries.clear();
    })
}

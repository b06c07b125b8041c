//! What a directory is worth that a power cut left: it is opened by the engine, and everything in it is compared.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use quail_core::ports::outbox::Outbox;

use super::super::{Opened, OutboxEngine, OutboxOptions, OutboxReport};
use super::script::{Lives, Model};
use crate::ops::metrics::Metrics;

/// How long to wait for sled to give its lock back.
const PATIENCE: Duration = Duration::from_secs(20);

/// What was found where all is well.
#[derive(Clone, Copy, Debug)]
pub(super) struct Found {
    /// Batches that are there.
    pub(super) batches: u64,
    /// Whether the settled store had to be copied, or to be begun anew, to be opened.
    pub(super) is_copied: bool,
}

/// Opens what a cut left in `outbox`, when `accepted` batches had been reported, and says what is wrong with it.
pub(super) fn judge(outbox: &Path, accepted: u64, lives: &Lives, model: &mut Model) -> Result<Found, String> {
    let judged = catch_unwind(AssertUnwindSafe(|| look(outbox, accepted, lives, model)));
    judged.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        Err(format!(
            "panic: {}",
            text.or(panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default()
        ))
    })
}

fn look(outbox: &Path, accepted: u64, lives: &Lives, model: &mut Model) -> Result<Found, String> {
    let before = fs::read_to_string(outbox.join("settled/current")).unwrap_or_default();
    let batches = open(outbox, accepted, lives, model)?;
    let is_copied = before != fs::read_to_string(outbox.join("settled/current")).unwrap_or_default()
        && !before.is_empty();
    let report = check(outbox)?;
    if !report.is_clean() || !report.leftovers.is_empty() {
        return Err(format!("the check found {report:?}"));
    }
    // Once more: what the first opening wrote must be what it said.
    match open(outbox, batches, lives, model)? {
        again if again == batches => Ok(Found { batches, is_copied }),
        again => Err(format!("{again} batches at the second opening instead of {batches}")),
    }
}

fn open(outbox: &Path, accepted: u64, lives: &Lives, model: &mut Model) -> Result<u64, String> {
    let metrics = Arc::new(Metrics::default());
    let Opened { engine, recovered, set_aside } =
        patiently(|| OutboxEngine::open(outbox, &OutboxOptions::default(), metrics.clone()))?;
    if let Some(aside) = set_aside {
        return Err(format!("{} is set aside", aside.display()));
    }
    let lost = metrics.outbox.lost.get();
    if lost > 0 {
        return Err(format!("{lost} stretches are lost"));
    }
    let last = recovered.last_position;
    let batches = model.go_to(last, lives).ok_or_else(|| format!("no batch ends at {last}"))?;
    if batches < accepted {
        return Err(format!("{batches} batches are there, {accepted} were reported"));
    }
    model.compare(recovered, &*engine.reader()).map_err(|what| format!("at {batches} batches: {what}"))?;
    Ok(batches)
}

fn check(outbox: &Path) -> Result<OutboxReport, String> {
    patiently(|| OutboxEngine::check(outbox))
}

fn patiently<T, E: std::fmt::Display>(act: impl Fn() -> Result<T, E>) -> Result<T, String> {
    let began = Instant::now();
    loop {
        match act() {
            Ok(done) => return Ok(done),
            Err(error) => {
                let error = error.to_string();
                let is_locked = error.contains("lock") || error.contains("in use");
                if !is_locked || began.elapsed() > PATIENCE {
                    return Err(error);
                }
            }
        }
    }
}

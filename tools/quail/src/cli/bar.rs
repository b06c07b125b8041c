//! The progress bar for work that may take long.
//!
//! Invariant: nothing is drawn unless stderr is a terminal, so that logs and pipes stay clean.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use quail::output::Output;

/// Less work than this is done before a bar could be read.
const WORTH_A_BAR: usize = 100;

/// Makes a bar for `length` pieces of work, or one that draws nothing.
pub(super) fn new(output: Output, length: usize, unit: &'static str) -> ProgressBar {
    if output.is_json() || length < WORTH_A_BAR {
        return ProgressBar::hidden();
    }
    // This target draws nothing if stderr is no terminal.
    let bar = ProgressBar::with_draw_target(Some(length as u64), ProgressDrawTarget::stderr());
    let style = ProgressStyle::with_template("  {bar:32} {pos}/{len} {msg}");
    bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar())).with_message(unit)
}

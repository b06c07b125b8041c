//! What the outbox costs beside its disk: the accept and acknowledge cycle against a bare append and fdatasync of the same
//! bytes with as many waiters, in one run; and what it does when nobody is online.
//!
//! `cargo bench -p quaild --bench outbox` measures everything; a name after `--` only what it names: `cycle`, `offline`,
//! `group`, `million`, `endless`. `-- --test` runs each of them very small, to see that it works. The disk is that of the
//! temporary directory (`TMPDIR`).
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)] // A benchmark without a disk ends.

mod crowd;
mod cycle;
mod floor;
mod measure;
mod offline;
mod waiting;

use cycle::Cycle;

/// How large everything is.
#[derive(Clone, Copy)]
pub(crate) struct Scale {
    /// Seconds of each measurement.
    pub(crate) seconds: f64,
    /// A divisor of counts.
    pub(crate) divisor: u64,
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    if let [flag, path] = &arguments[..]
        && flag == offline::HOLD
    {
        return offline::hold(path.as_ref());
    }
    let smoke = arguments.iter().any(|argument| argument == "--test");
    let names: Vec<_> = arguments.iter().filter(|argument| !argument.starts_with("--")).collect();
    let scale =
        if smoke { Scale { seconds: 0.2, divisor: 1_000 } } else { Scale { seconds: 5.0, divisor: 1 } };
    let wanted = |name: &str| names.is_empty() || names.iter().any(|wanted| *wanted == name);
    if wanted("cycle") {
        for waiters in [64, 256] {
            Cycle { waiters }.compare(scale);
        }
    }
    if wanted("offline") {
        offline::sustained(scale);
    }
    if wanted("group") {
        offline::group(scale);
    }
    if wanted("million") {
        offline::million(scale);
    }
    if wanted("endless") {
        cycle::endless(scale);
    }
}

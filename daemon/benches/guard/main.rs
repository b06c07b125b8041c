//! What a message costs in instructions and allocations, on each path apart: counts, which are the same on every day, and not
//! seconds, which are not.
//!
//! `guard PATH ITERATIONS` goes down one path so often and prints what was allocated per iteration; `cargo xtask bench-guard`
//! runs it under valgrind with two counts and takes the difference, so that what happens once is left out. Without arguments,
//! or with `--test`, every path is gone down a few times.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)] // A benchmark that cannot go on ends.

#[path = "../outbox/crowd.rs"]
#[allow(dead_code)] // What only the other benchmark needs.
mod crowd;
mod decide;
mod frames;
mod store;

use std::alloc::System;

use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Iterations before anything is counted: buffers have grown and windows are full then.
const WARM_UP: u64 = 600;

/// How often each path is gone down when nothing is said.
const SMOKE: u64 = 50;

/// A path, and what goes down it once.
type Path = (&'static str, fn() -> Box<dyn FnMut()>);

const PATHS: &[Path] = &[
    // A frame with a message from a client, decoded.
    ("decode", frames::decoding),
    // The frame of a message for its reader, encoded.
    ("encode", frames::encoding),
    // A message, its acknowledgement, the receipt and that one's acknowledgement, decided.
    ("decide", decide::cycle),
    // The entries of that, appended and synced, 43 messages at a time.
    ("store", store::cycle),
];

fn main() {
    let arguments: Vec<String> =
        std::env::args().skip(1).filter(|argument| !argument.starts_with("--")).collect();
    match &arguments[..] {
        [name, iterations] => {
            let path = PATHS.iter().find(|(path, _)| path == name).expect("the name of a path");
            go(path, WARM_UP, iterations.parse().expect("a number of iterations"));
        }
        _ => PATHS.iter().for_each(|path| go(path, SMOKE, SMOKE)),
    }
}

fn go((name, make): &Path, warm_up: u64, iterations: u64) {
    let mut once = make();
    (0..warm_up).for_each(|_| once());
    let region = Region::new(ALLOCATOR);
    (0..iterations).for_each(|_| once());
    let change = region.change();
    let allocations = (change.allocations + change.reallocations) as f64 / iterations as f64;
    let bytes = change.bytes_allocated as f64 / iterations as f64;
    println!("{name} {allocations:.2} {bytes:.0}");
}

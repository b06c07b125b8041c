//! Promise: what was accepted is durable, by the calls of real runs. The engine with sled under it cannot be put on a file
//! layer that lies; so processes that use it on a real disk are recorded by strace, with every byte they write. Then the
//! power is cut at hundreds of places in what was recorded: the directory is made as a file system could have left it there
//! (`disk.rs` says which model that is, `cut.rs` what is tried of it), opened by the engine, and everything in it is compared
//! with what was reported before the cut.
//!
//! Three rounds: each goes on from what one of the cuts before it left. In each round three processes live one after the
//! other, and the second dies in the middle of something.
//!
//! ```text
//! cargo test --workspace --lib traces                       the cuts of every CI run
//! QUAIL_CUTS=10000 cargo test --workspace --lib traces      more of them
//! QUAIL_TRACES=<directory> cargo test ... traces            once more on what a failed run left there
//! ```

mod content;
mod cut;
mod disk;
mod files;
mod judge;
mod round;
mod run;
mod script;
mod strace;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use disk::{Done, Missing};
use round::{Judged, Round};

/// Cuts where `QUAIL_CUTS` does not say otherwise.
const CUTS: usize = 300;

/// Cuts with which the test itself is tried, of each kind.
const TRIED: usize = 24;

const ROUNDS: usize = 3;

/// Failed cuts that are told in full.
const TOLD: usize = 10;

/// Lives of a round: how many batches, how many between two spills at most, and whether it dies then.
const LIVES: [(u64, u64, bool); 3] = [(300, 50, false), (300, 150, true), (100, 50, false)];

/// What only sled writes at once, in bytes.
const LARGE: usize = 1024 * 1024;

/// Segments of the journal are so small that some are recycled in every life.
const SEGMENT_BYTES: &str = "262144";

/// How many directories are judged at once.
const JUDGES: usize = 2;

/// A small generator of chance (SplitMix64, Steele et al. 2014).
pub(super) struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &to);
        } else if entry.file_name() == disk::BALLAST {
            files::make_ballast(&to);
        } else {
            fs::copy(entry.path(), to).unwrap();
        }
    }
}

/// Says how many cuts there were of each way, and what was found.
fn summary(judged: &[Judged]) -> String {
    let mut ways: BTreeMap<String, (u64, u64)> = BTreeMap::new();
    for one in judged {
        let way = format!("{:?}", one.way);
        let count = ways.entry(way.split('(').next().unwrap_or_default().to_owned()).or_default();
        count.0 += 1;
        count.1 += u64::from(one.found.is_err());
    }
    let found = || judged.iter().filter_map(|one| Some((one, one.found.as_ref().ok()?)));
    let copied = found().filter(|(_, found)| found.is_copied).count();
    let more = found().filter(|(one, found)| found.batches > one.reported.accepted).count();
    let ways: Vec<_> = ways.iter().map(|(way, (all, failed))| format!("{way} {failed}/{all}")).collect();
    format!("failed: {}; more than was reported in {more}, settled store copied in {copied}", ways.join(", "))
}

/// The recorded runs live in a directory that stays if something is found.
fn all_cuts(path: &Path, seed: u64) {
    let cuts =
        std::env::var("QUAIL_CUTS").ok().map_or(CUTS, |text| text.parse().expect("QUAIL_CUTS is a number"));
    let first = path.join("round-0");
    if !first.exists() {
        fs::create_dir_all(first.join("base/outbox")).unwrap();
        files::make_ballast(&first.join("base/outbox").join(disk::BALLAST));
    }
    let (mut failed, mut all) = (Vec::new(), Done::default());
    for number in 0..ROUNDS {
        let began = Instant::now();
        let round = Round::record(number, &path.join(format!("round-{number}")), seed);
        let steps: usize = round.traces.iter().map(Vec::len).sum();
        println!("round {number}: {steps} steps, recorded and read in {:?}", began.elapsed());
        let next = path.join(format!("round-{}", number + 1));
        let (judged, done) =
            round.cut(Missing::Nothing, cuts.div_ceil(ROUNDS), seed, (number + 1 < ROUNDS).then_some(&*next));
        println!("round {number}: {} at {:?}", summary(&judged), began.elapsed());
        println!("    {done:?}");
        all.add(done);
        failed.extend(judged.into_iter().filter(|one| one.found.is_err()));
        if number == 0 {
            for missing in [Missing::JournalSyncs, Missing::SettledSyncs, Missing::NameSyncs] {
                let (judged, _) = round.cut(missing, TRIED, seed, None);
                println!("{missing:?}: {}", summary(&judged));
                for one in judged.iter().filter(|one| one.found.is_err()).take(3) {
                    println!("    {}: {}", one.name, one.found.as_ref().err().map_or("", |what| what));
                }
                assert!(judged.iter().any(|one| one.found.is_err()), "{missing:?} were not noticed");
            }
        }
    }
    for Judged { name, reported, found, .. } in failed.iter().take(TOLD) {
        println!("{name}, {reported:?}: {}", found.as_ref().err().map_or("", |what| what));
    }
    assert!(all.spills > 20 && all.rotations > 2 && all.recycled > 10, "the runs did too little: {all:?}");
    assert!(failed.is_empty(), "{} cuts failed; QUAIL_TRACES={} to try again", failed.len(), path.display());
}

#[test]
#[ignore = "started by the test below, with small segments"]
fn with_small_segments() {
    let path = PathBuf::from(std::env::var_os("QUAIL_TRACES").unwrap());
    let seed = path.join("seed");
    let seed = match fs::read_to_string(&seed) {
        Ok(text) => text.parse().unwrap(),
        Err(_) => {
            let drawn = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64;
            fs::write(&seed, drawn.to_string()).unwrap();
            drawn
        }
    };
    println!("seed {seed}");
    all_cuts(&path, seed);
}

#[test]
fn a_power_cut_anywhere_in_a_recorded_run_costs_nothing_that_was_accepted() {
    if !strace::is_there() {
        return;
    }
    let given = std::env::var_os("QUAIL_TRACES").map(PathBuf::from);
    let scratch = tempfile::TempDir::new().unwrap();
    let path = given.clone().unwrap_or_else(|| scratch.path().canonicalize().unwrap());
    let name = "adapters::outbox::traces::with_small_segments";
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args([name, "--exact", "--ignored", "--nocapture"]).env("QUAIL_TRACES", &path);
    let output = command.env("QUAIL_SEGMENT_BYTES", SEGMENT_BYTES).output().unwrap();
    println!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if !output.status.success() && given.is_none() {
        println!("kept {}", scratch.keep().display());
    }
    assert!(output.status.success(), "{}", output.status);
}

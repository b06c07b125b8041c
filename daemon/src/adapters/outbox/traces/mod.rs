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

mod cut;
mod disk;
mod judge;
mod run;
mod script;
mod strace;

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, mpsc};
use std::time::Instant;

use cut::{Cut, Way};
use disk::{Disk, Done, Missing};
use judge::Found;
use run::Life;
use script::{Lives, Model};
use strace::{Call, Step};

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

/// What was reported before a cut.
#[derive(Clone, Debug, Default)]
struct Reported {
    accepted: u64,
    lives: Lives,
}

impl Reported {
    fn save(&self, path: &Path) {
        let lives = self.lives.iter().map(|(from, life)| format!(" {from} {life}"));
        fs::write(path, format!("{}{}", self.accepted, lives.collect::<String>())).unwrap();
    }

    /// Of the first round there is none.
    fn load(path: &Path) -> Self {
        let text = fs::read_to_string(path).unwrap_or_default();
        let numbers: Vec<u64> = text.split_whitespace().map(|number| number.parse().unwrap()).collect();
        let Some((accepted, lives)) = numbers.split_first() else { return Self::default() };
        Self { accepted: *accepted, lives: lives.chunks(2).map(|life| (life[0], life[1])).collect() }
    }
}

/// A recorded round.
struct Round {
    number: usize,
    path: PathBuf,
    /// One trace for each life.
    traces: Vec<Vec<Step>>,
    before: Reported,
}

/// A directory to be judged.
struct Case {
    index: usize,
    name: String,
    directory: PathBuf,
    reported: Reported,
}

impl Round {
    /// Records lives that go on from what is in `path/base`; what is recorded already is taken as it is.
    fn record(number: usize, path: &Path, seed: u64) -> Self {
        let before = Reported::load(&path.join("reported"));
        let data = path.join("data");
        let mut traces = Vec::new();
        for (life, (batches, settle_every, dies)) in LIVES.into_iter().enumerate() {
            let trace = path.join(format!("trace-{life}"));
            let after = path.join(format!("after-{life}"));
            if !after.exists() {
                if life == 0 {
                    copy(&path.join("base"), &data);
                }
                let number = (number * LIVES.len() + life + 1) as u64;
                Life { seed, number, batches, settle_every, dies }.record(&data.join("outbox"), &trace);
                copy(&data, &after);
            }
            traces.push(strace::parse(&fs::read(trace).unwrap(), &data));
        }
        Self { number, path: path.to_owned(), traces, before }
    }

    /// Chooses where to cut: anywhere, behind what was just reported, in the middle of a spill, or at what happens seldom.
    fn places(&self, count: usize, dice: &mut Dice) -> Vec<(usize, usize)> {
        let all: Vec<_> = self
            .traces
            .iter()
            .enumerate()
            .flat_map(|(life, steps)| (0..steps.len()).map(move |step| (life, step)))
            .collect();
        let is_said = |(life, step): &&(usize, usize)| {
            matches!(&self.traces[*life][*step], Step::Begin { call: Call::Said(_), .. })
        };
        let is_seldom = |(life, step): &&(usize, usize)| {
            let Step::Begin { call, .. } = &self.traces[*life][*step] else { return false };
            matches!(
                call,
                Call::Rename { .. }
                    | Call::Remove { .. }
                    | Call::MakeDirectory { .. }
                    | Call::SetLength { .. }
            )
        };
        // In the middle of a spill: sled writes whole segments then.
        let is_large = |(life, step): &&(usize, usize)| matches!(&self.traces[*life][*step], Step::Begin { call: Call::Write { bytes, .. }, .. } if bytes.len() > LARGE);
        let large: Vec<_> = all.iter().filter(is_large).copied().collect();
        let said: Vec<_> = all.iter().filter(is_said).copied().collect();
        let seldom: Vec<_> = all.iter().filter(is_seldom).copied().collect();
        let mut places: Vec<_> = (0..count)
            .map(|_| {
                let of = [&all, &all, &said, &seldom, &large][dice.below(5) as usize];
                let (life, step) = of[dice.below(of.len() as u64) as usize];
                // Behind it, soon: the calls that go with it are the next ones.
                (life, (step + dice.below(6) as usize).min(self.traces[life].len() - 1))
            })
            .collect();
        places.sort_unstable();
        places
    }

    /// Goes through all that was recorded and calls `cut` at some places.
    fn walk(
        &self,
        missing: Missing,
        places: &[(usize, usize)],
        mut cut: impl FnMut(usize, &Disk, &Reported, &Step),
    ) -> Done {
        let mut disk = Disk::of(&self.path.join("base"), &self.path.join("data"), missing);
        let mut reported = self.before.clone();
        let mut places = places.iter().enumerate().peekable();
        for (life, steps) in self.traces.iter().enumerate() {
            for (at, step) in steps.iter().enumerate() {
                disk.step(step);
                if let Step::Begin { call: Call::Said(said), .. } = step {
                    self.hear(said, life, &mut reported);
                }
                while let Some((index, _)) = places.next_if(|(_, place)| **place == (life, at)) {
                    cut(index, &disk, &reported, step);
                }
            }
            disk.compare(&self.path.join(format!("after-{life}")));
        }
        disk.run
    }

    fn hear(&self, said: &str, life: usize, reported: &mut Reported) {
        let number = |text: &str| text.parse().expect("a number");
        if let Some(first) = said.strip_prefix(run::BEGUN) {
            reported.lives.push((number(first), (self.number * LIVES.len() + life + 1) as u64));
            reported.accepted = number(first);
        } else if let Some(synced) = said.strip_prefix(run::SYNCED) {
            reported.accepted = number(synced);
        }
    }

    /// Leaves once more what was judged and failed, to be looked at.
    fn leave_again(&self, places: &[(usize, usize)], chances: &[u64], failed: &HashSet<usize>) {
        if failed.is_empty() {
            return;
        }
        self.walk(Missing::Nothing, places, |index, disk, _, _| {
            let directory = self.path.join(format!("failed-{index}"));
            if failed.contains(&index) && !directory.exists() {
                let mut dice = Dice(chances[index]);
                disk.leave(&mut Cut::new(disk, &mut dice), &directory);
            }
        });
    }

    /// Cuts at so many places, judges what is left, and leaves one of the cuts as the base of the next round. Returns what
    /// was found, by the name of the cut.
    fn cut(&self, missing: Missing, count: usize, seed: u64, next: Option<&Path>) -> Vec<Judged> {
        let mut dice = Dice(seed ^ (self.number as u64) << 32);
        let places = self.places(count, &mut dice);
        let carried = places.len() / 3 + dice.below(places.len() as u64 / 2) as usize;
        let scratch = in_memory();
        let (mut done, mut chances) = (Done::default(), Vec::new());
        let judged = judging(seed, |cases| {
            done = self.walk(missing, &places, |index, disk, reported, step| {
                let chance = dice.next();
                chances.push(chance);
                let leave = |to: &Path| {
                    let mut dice = Dice(chance);
                    let mut cut = Cut::new(disk, &mut dice);
                    disk.leave(&mut cut, to);
                    cut.way
                };
                let directory = scratch.path().join(format!("{missing:?}-{index}"));
                let way = leave(&directory);
                if let Some(next) = next.filter(|_| index == carried) {
                    if !next.join("base").exists() {
                        fs::create_dir_all(next).unwrap();
                        leave(&next.join("base"));
                        reported.save(&next.join("reported"));
                    }
                }
                let name = format!(
                    "round {} cut {index} at {:?}, {way:?}, {}",
                    self.number,
                    places[index],
                    brief(step)
                );
                cases.send((way, Case { index, name, directory, reported: reported.clone() })).unwrap();
            });
        });
        println!("    {done:?}");
        if missing == Missing::Nothing {
            let failed: HashSet<_> =
                judged.iter().filter(|one| one.found.is_err()).map(|one| one.index).collect();
            self.leave_again(&places, &chances, &failed);
        }
        assert!(
            done.spills > 9 && done.rotations > 0 && done.recycled > 3,
            "the run did too little: {done:?}"
        );
        judged
    }
}

/// A case and what was found.
struct Judged {
    index: usize,
    name: String,
    way: Way,
    reported: Reported,
    found: Result<Found, String>,
}

/// Judges what `make` sends.
fn judging(seed: u64, make: impl FnOnce(&mpsc::SyncSender<(Way, Case)>)) -> Vec<Judged> {
    let (sender, receiver) = mpsc::sync_channel::<(Way, Case)>(JUDGES);
    let (receiver, judged) = (Mutex::new(receiver), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..JUDGES {
            scope.spawn(|| {
                let mut model = Model::new(seed);
                loop {
                    let Ok((way, case)) = receiver.lock().unwrap().recv() else { return };
                    let Case { index, name, directory, reported } = case;
                    let found = judge::judge(
                        &directory.join("outbox"),
                        reported.accepted,
                        &reported.lives,
                        &mut model,
                    );
                    fs::remove_dir_all(directory).unwrap();
                    judged.lock().unwrap().push(Judged { index, name, way, reported, found });
                }
            });
        }
        make(&sender);
        drop(sender);
    });
    judged.into_inner().unwrap()
}

/// What lies in memory needs no disk, and a sync costs nothing.
fn in_memory() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    let place = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
    tempfile::TempDir::new_in(place).unwrap()
}

fn brief(step: &Step) -> String {
    let mut text = format!("{step:?}");
    text.truncate(text.char_indices().nth(110).map_or(text.len(), |(at, _)| at));
    text
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &to);
        } else if entry.file_name() == disk::BALLAST {
            disk::make_ballast(&to);
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
        disk::make_ballast(&first.join("base/outbox").join(disk::BALLAST));
    }
    let mut failed = Vec::new();
    for number in 0..ROUNDS {
        let began = Instant::now();
        let round = Round::record(number, &path.join(format!("round-{number}")), seed);
        let steps: usize = round.traces.iter().map(Vec::len).sum();
        println!("round {number}: {steps} steps, recorded and read in {:?}", began.elapsed());
        let next = path.join(format!("round-{}", number + 1));
        let judged =
            round.cut(Missing::Nothing, cuts.div_ceil(ROUNDS), seed, (number + 1 < ROUNDS).then_some(&*next));
        println!("round {number}: {} at {:?}", summary(&judged), began.elapsed());
        failed.extend(judged.into_iter().filter(|one| one.found.is_err()));
        if number == 0 {
            for missing in [Missing::JournalSyncs, Missing::SettledSyncs, Missing::NameSyncs] {
                let judged = round.cut(missing, TRIED, seed, None);
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

//! One round: what was recorded of the lives that followed each other, and the cuts in it.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, mpsc};

use super::cut::{Cut, Way};
use super::disk::{Disk, Done, Missing};
use super::judge::{self, Found};
use super::run::{self, Life};
use super::script::{Lives, Model};
use super::strace::{self, Call, Step};
use super::{Dice, JUDGES, LARGE, LIVES, copy};

/// What was reported before a cut.
#[derive(Clone, Debug, Default)]
pub(super) struct Reported {
    pub(super) accepted: u64,
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
pub(super) struct Round {
    number: usize,
    path: PathBuf,
    /// One trace for each life.
    pub(super) traces: Vec<Vec<Step>>,
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
    pub(super) fn record(number: usize, path: &Path, seed: u64) -> Self {
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
    pub(super) fn cut(
        &self,
        missing: Missing,
        count: usize,
        seed: u64,
        next: Option<&Path>,
    ) -> (Vec<Judged>, Done) {
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
                if let Some(next) = next.filter(|next| index == carried && !next.join("base").exists()) {
                    fs::create_dir_all(next).unwrap();
                    leave(&next.join("base"));
                    reported.save(&next.join("reported"));
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
        if missing == Missing::Nothing {
            let failed: HashSet<_> =
                judged.iter().filter(|one| one.found.is_err()).map(|one| one.index).collect();
            self.leave_again(&places, &chances, &failed);
        }
        (judged, done)
    }
}

/// A case and what was found.
pub(super) struct Judged {
    pub(super) index: usize,
    pub(super) name: String,
    pub(super) way: Way,
    pub(super) reported: Reported,
    pub(super) found: Result<Found, String>,
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
pub(super) fn in_memory() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    let place = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
    tempfile::TempDir::new_in(place).unwrap()
}

fn brief(step: &Step) -> String {
    let mut text = format!("{step:?}");
    text.truncate(text.char_indices().nth(110).map_or(text.len(), |(at, _)| at));
    text
}

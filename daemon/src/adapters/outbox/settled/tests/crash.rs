//! A process that is killed while it spills, again and again.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::*;

const SEED: u64 = 11;

/// Makes the spills of a seed from the first on; `round` is how many were written before.
fn replay(round: u64) -> (Model, Maker) {
    let (mut model, mut maker) = (Model::default(), Maker::new(SEED));
    for _ in 0..round {
        let spill = maker.spill(&model);
        model.apply(&spill);
    }
    (model, maker)
}

/// The process that is killed: goes on where the store is, and says which generation it has written.
#[test]
#[ignore = "started by the test below"]
fn spill_until_killed() {
    let path = std::env::var_os("SETTLED_CRASH").unwrap();
    let (mut store, found) = open(Path::new(&path));
    let (mut model, mut maker) = replay(found.mark.generation);
    loop {
        let spill = maker.spill(&model);
        store.spill(&spill).unwrap();
        model.apply(&spill);
        println!("\nwritten {}", spill.mark.generation);
        if spill.mark.generation % 5 == 0 {
            store.rotate().unwrap();
        }
    }
}

fn start(path: &Path) -> Child {
    let name = "settled::tests::crash::spill_until_killed";
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args([name, "--ignored", "--nocapture"]).env("SETTLED_CRASH", path);
    command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap()
}

#[test]
fn a_killed_process_leaves_the_spills_it_finished() {
    let directory = tempfile::tempdir().unwrap();
    let mut dice = Dice(SEED);
    let mut written = 0;
    for _ in 0..12 {
        let mut child = start(directory.path());
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        for _ in 0..1 + dice.below(4) {
            let line =
                lines.find(|line| line.as_ref().is_ok_and(|line| line.starts_with("written"))).unwrap();
            written = line.unwrap()["written ".len()..].parse().unwrap();
        }
        // Somewhere in the next spill.
        std::thread::sleep(Duration::from_micros(dice.below(60_000)));
        child.kill().unwrap();
        child.wait().unwrap();
        // What it said before it died.
        let later =
            lines.map_while(Result::ok).filter_map(|line| line.strip_prefix("written ")?.parse().ok());
        written = later.max().unwrap_or(written);
        let checked = check(directory.path()).unwrap();
        assert_eq!(checked.lost, []);
        let (store, found) = open(directory.path());
        assert!(found.mark.generation >= written, "{} after {written}", found.mark.generation);
        assert_eq!((&found.lost, &found.repaired), (&Vec::new(), &Vec::new()));
        let (model, mut maker) = replay(found.mark.generation);
        assert_eq!(found.mark, model.mark);
        // What the spill that was cut short took away may be gone; the journal takes it away again.
        let mut next = model.clone();
        next.apply(&maker.spill(&model));
        let reader = store.reader();
        for (account, position) in next.events.keys().filter(|key| model.events.contains_key(key)) {
            let read = reader.read(*account, all()).unwrap();
            assert!(read.events.contains(&model.events[&(*account, *position)]));
        }
        let known = found.recovered.slots.iter();
        assert!(known.clone().all(|(account, slot)| model.events.contains_key(&(*account, slot.position))));
    }
}

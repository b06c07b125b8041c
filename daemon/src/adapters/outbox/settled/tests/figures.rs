//! Figures, not checks of behaviour: how fast a spill is, how large a store, how long an opening takes. Run by hand, in a
//! release build, one at a time, with `SETTLED_FIGURES` naming a directory:
//! `cargo test --release --lib settled::tests::figures::NAME -- --ignored --nocapture`.

use std::fs;
use std::path::PathBuf;
use std::time::Instant;

use super::*;

fn directory() -> PathBuf {
    PathBuf::from(std::env::var_os("SETTLED_FIGURES").unwrap())
}

/// Memory of the process in MiB: now, and the most it ever was.
fn memory() -> (u64, u64) {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let field = |name| {
        let line = status.lines().find(|line: &&str| line.starts_with(name)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1024
    };
    (field("VmRSS"), field("VmHWM"))
}

/// Seconds of processor time of all threads.
fn processor() -> f64 {
    let stat = fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<_> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    (fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()) / 100.0
}

struct Load {
    accounts: Vec<AccountId>,
    frame: Bytes,
    position: u64,
    generation: u64,
}

impl Load {
    fn new(accounts: u64) -> Self {
        let mut dice = Dice(1);
        let frame: Vec<u8> = (0..256).map(|_| dice.next() as u8).collect();
        Self {
            accounts: (0..accounts).map(account).collect(),
            frame: Bytes::from(frame),
            position: 0,
            generation: 0,
        }
    }

    /// One second of messages, dealt to the accounts in turn.
    fn spill(&mut self, events: u64, resolved: Position) -> Spill {
        let mut changed: Vec<_> = self
            .accounts
            .iter()
            .map(|account| (*account, AccountSpill { resolved, ..AccountSpill::default() }))
            .collect();
        for n in 0..events {
            self.position += 1;
            let note = Note::Message { sender: account(1), device: device(1), recipient: account(2) };
            let (position, frame) = (Position(self.position), self.frame.clone());
            let at = (n % self.accounts.len() as u64) as usize;
            changed[at].1.events.push(Arc::new(StoredEvent { position, note, frame }));
        }
        self.generation += 1;
        Spill { mark: mark(self.generation, self.position), accounts: changed, ..Spill::default() }
    }
}

fn run(store: &mut SettledStore, spill: &Spill) {
    let (began, processor_before) = (Instant::now(), processor());
    let report = store.spill(spill).unwrap();
    let (wall, cpu) = (began.elapsed().as_secs_f64(), processor() - processor_before);
    let Sizes { disk_bytes, live_bytes } = store.size().unwrap();
    let ((now, most), disk, live) = (memory(), disk_bytes >> 20, live_bytes >> 20);
    println!(
        "{report:?}: {wall:.2} s, {cpu:.2} s CPU; memory {now} MiB, most {most}; disk {disk} MiB, live {live}"
    );
}

#[test]
#[ignore = "figures"]
fn a_spill_of_a_second() {
    for accounts in [1_000, 10_000] {
        println!("200,000 events of 256 bytes for {accounts} accounts");
        let path = directory().join(format!("spill-{accounts}"));
        let _ = fs::remove_dir_all(&path);
        let (mut store, _) = open(&path);
        let mut load = Load::new(accounts);
        for _ in 0..8 {
            let spill = load.spill(200_000, Position::ZERO);
            run(&mut store, &spill);
        }
        store.health().unwrap();
    }
}

#[test]
#[ignore = "figures"]
fn ten_seconds_offline_then_all_resolved() {
    let path = directory().join("offline");
    let _ = fs::remove_dir_all(&path);
    let (mut store, _) = open(&path);
    let mut load = Load::new(10_000);
    for second in 0..24 {
        let resolved = if second < 12 { 0 } else { load.position };
        let spill = load.spill(if second < 20 { 200_000 } else { 100 }, Position(resolved));
        run(&mut store, &spill);
        let began = Instant::now();
        if store.rotate_if_grown().unwrap() {
            let (took, size) = (began.elapsed().as_secs_f64(), store.size().unwrap());
            println!(
                "rotated in {took:.2} s: disk {} MiB, live {}",
                size.disk_bytes >> 20,
                size.live_bytes >> 20
            );
        }
    }
    store.health().unwrap();
}

/// Writes the stores that `opening` opens, in a process of its own.
#[test]
#[ignore = "figures"]
fn a_million_settled() {
    for accounts in [1_000, 10_000] {
        let path = directory().join(format!("million-{accounts}"));
        let _ = fs::remove_dir_all(&path);
        let (mut store, _) = open(&path);
        let mut load = Load::new(accounts);
        for _ in 0..5 {
            let spill = load.spill(200_000, Position::ZERO);
            run(&mut store, &spill);
        }
    }
}

#[test]
#[ignore = "figures"]
fn opening() {
    let path = directory().join(std::env::var_os("SETTLED_STORE").unwrap());
    let (before, _) = memory();
    let began = Instant::now();
    let (store, found) = open(&path);
    let took = began.elapsed().as_secs_f64();
    let (now, most) = memory();
    let (slots, size) = (found.recovered.slots.len(), store.size().unwrap());
    println!("{slots} events in {took:.3} s; memory {before} MiB before, {now} after, most {most}; {size:?}");
    let began = Instant::now();
    let reader = store.reader();
    let mut accounts: Vec<_> = found.recovered.slots.iter().map(|(account, _)| *account).collect();
    accounts.dedup();
    let events: usize =
        accounts.iter().map(|account| reader.read(*account, all()).unwrap().events.len()).sum();
    let (took, (now, most)) = (began.elapsed().as_secs_f64(), memory());
    println!("read {events} events in {took:.3} s; memory {now} MiB, most {most}");
}

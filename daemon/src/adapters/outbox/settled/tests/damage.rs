//! Damage: cut files, missing files, flipped bits. Nothing comes back wrong, and nothing is missing without a word.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use super::*;

/// A store in a directory, closed, and what it must hold.
struct Sample {
    directory: tempfile::TempDir,
    model: Model,
}

/// `snapshots` is how often the store is opened on the way: what lies before an opening sled knows by its snapshot, what lies
/// behind it reads from its log.
fn sample(seed: u64, snapshots: u32) -> Sample {
    let directory = tempfile::tempdir().unwrap();
    let (mut store, _) = open(directory.path());
    let (mut model, mut maker) = (Model::default(), Maker::new(seed));
    maker.events = 120;
    for round in 0..8 {
        let spill = maker.spill(&model);
        store.spill(&spill).unwrap();
        model.apply(&spill);
        if round % 3 == 2 && round / 3 < snapshots {
            drop(store);
            store = open(directory.path()).0;
        }
    }
    drop(store);
    if snapshots > 2 {
        drop(open(directory.path()));
    }
    Sample { directory, model }
}

/// What a damaged store came back with.
#[derive(Debug, Default, PartialEq, Eq)]
struct Toll {
    /// It could not be opened at all.
    is_refused: bool,
    /// Events named as lost one by one.
    lost: usize,
    /// Everybody's were named as lost.
    is_all_doubtful: bool,
    /// It was copied into a fresh store.
    is_mended: bool,
}

/// Opens a damaged store, reads all of it and fails if an event is wrong or missing without being named.
fn toll(path: &Path, model: &Model, what: &str) -> Toll {
    let mut toll = Toll::default();
    let checked = check(path);
    let (mut store, found) = match SettledStore::open(path, SettledOptions::default()) {
        Ok(opened) => opened,
        Err(OpenSettledError::Damaged { .. }) => return Toll { is_refused: true, ..toll },
        Err(error) => panic!("{what}: {error}"),
    };
    toll.is_mended = !found.repaired.is_empty();
    let checked = checked.unwrap();
    assert_eq!(found.mark, model.mark, "{what}: {found:?}");
    toll.is_all_doubtful = found.lost.iter().any(|lost| lost.account.is_none());
    let recovered: BTreeSet<_> =
        found.recovered.slots.iter().map(|(account, slot)| (*account, slot.position)).collect();
    let reader = store.reader();
    let accounts: BTreeSet<_> = model.events.keys().map(|(account, _)| *account).collect();
    for account in accounts {
        let read = match reader.read(account, all()) {
            Ok(read) => read,
            Err(_) => {
                toll.is_mended = true;
                assert_eq!(store.rotate_if_grown(), Ok(true), "{what}");
                reader.read(account, all()).unwrap()
            }
        };
        let expected = model.of(account);
        let is_named = |position| {
            let covers = |lost: &&Lost| lost.from <= position && position <= lost.upto;
            let of_all = found.lost.iter().filter(|lost| lost.account.is_none_or(|owner| owner == account));
            of_all.chain(&read.lost).any(|lost| covers(&lost))
        };
        for event in &expected {
            let is_read = read.events.contains(event);
            assert!(is_read || is_named(event.position), "{what}: {} is missing", event.position);
            let is_known = recovered.contains(&(account, event.position));
            assert!(is_known || is_named(event.position), "{what}: {} has no slot", event.position);
            toll.lost += usize::from(!is_read);
        }
        for event in &read.events {
            // What was resolved or withdrawn may come back, but never as something else.
            assert!(
                expected.contains(event) || **event == *super::event(event.position.0, event.frame.len()),
                "{what}"
            );
        }
    }
    // What is lost, the check said before.
    let is_clean = checked.lost.is_empty() && checked.notes.is_empty();
    assert!(!is_clean || toll.lost == 0 && !toll.is_all_doubtful, "{what}");
    // It can be written, copied and opened again.
    let spill =
        Spill { mark: mark(model.mark.generation + 1, model.mark.last_position.0), ..Spill::default() };
    if store.spill(&spill).is_ok() {
        store.rotate().unwrap();
    }
    drop((store, reader));
    let (_, again) = open(path);
    assert!(again.mark.generation >= model.mark.generation, "{what}");
    toll
}

fn damaged(sample: &Sample, damage: impl FnOnce(&Path)) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    copy_all(sample.directory.path(), copy.path());
    damage(&copy.path().join("store-1"));
    copy
}

fn snapshots(store: &Path) -> Vec<PathBuf> {
    database::named(store, |name| name.starts_with("snap.")).unwrap()
}

#[test]
fn what_sled_stumbles_over_is_mended() {
    let sample = sample(1, 2);
    let whole = |what: &str, damage: &dyn Fn(&Path)| {
        let copy = damaged(&sample, damage);
        let toll = toll(copy.path(), &sample.model, what);
        assert_eq!(toll, Toll { is_mended: toll.is_mended, ..Toll::default() }, "{what}");
        toll.is_mended
    };
    assert!(!whole("nothing", &|_| {}));
    assert!(whole("stray snapshot", &|store| {
        fs::write(store.join("snap.00000000FFFFFFFF.generating"), "half").unwrap();
    }));
    assert!(whole("short snapshot", &|store| {
        let snapshot = snapshots(store).pop().unwrap();
        let len = fs::metadata(&snapshot).unwrap().len();
        File::options().write(true).open(&snapshot).unwrap().set_len(len / 2).unwrap();
    }));
    assert!(whole("empty snapshot", &|store| {
        fs::write(snapshots(store).pop().unwrap(), "").unwrap();
    }));
    assert!(!whole("no snapshot", &|store| fs::remove_file(snapshots(store).pop().unwrap()).unwrap()));
    assert!(!whole("no parameters", &|store| fs::remove_file(store.join("conf")).unwrap()));
    assert!(whole("other parameters", &|store| {
        let text = fs::read(store.join("conf")).unwrap();
        fs::write(store.join("conf"), String::from_utf8_lossy(&text).replace("2097152", "1048576")).unwrap();
    }));
    assert!(!whole("no mark", &|store| fs::remove_file(store.join("mark")).unwrap()));
}

#[test]
fn a_cut_database_loses_what_it_names() {
    for snapshots in [0, 3] {
        let sample = sample(2, snapshots);
        let len = fs::metadata(sample.directory.path().join("store-1/db")).unwrap().len();
        for part in 0..8 {
            let copy = damaged(&sample, |store| {
                let file = File::options().write(true).open(store.join("db")).unwrap();
                file.set_len(len * part / 8).unwrap();
            });
            let toll = toll(copy.path(), &sample.model, &format!("cut to {part}/8"));
            println!("{snapshots} snapshots, cut to {part}/8: {toll:?}");
        }
    }
}

/// Flips single bits in all files of a store.
#[test]
fn a_flipped_bit_never_yields_wrong_bytes_nor_silence() {
    let flips = std::env::var("SETTLED_FLIPS").ok().and_then(|flips| flips.parse().ok()).unwrap_or(60);
    for snapshots in [0, 3] {
        let sample = sample(3 + u64::from(snapshots), snapshots);
        let mut dice = Dice(u64::from(snapshots));
        let mut sums = (0, 0, 0, 0, 0);
        for flip in 0..flips {
            let mut what = String::new();
            let copy = damaged(&sample, |store| {
                let mut files = database::named(store, |name| name != "blobs").unwrap();
                // The database is where the bytes are; every fourth flip goes anywhere.
                if flip % 4 > 0 {
                    files.retain(|file| file.ends_with("db"));
                }
                let path = &files[dice.below(files.len() as u64) as usize];
                let file = File::options().read(true).write(true).open(path).unwrap();
                let bit = dice.below(file.metadata().unwrap().len() * 8);
                let mut byte = [0];
                file.read_exact_at(&mut byte, bit / 8).unwrap();
                byte[0] ^= 1 << (bit % 8);
                file.write_all_at(&byte, bit / 8).unwrap();
                what = format!("flip {flip}: bit {bit} of {}", path.file_name().unwrap().display());
            });
            let toll = toll(copy.path(), &sample.model, &what);
            if toll != Toll::default() {
                println!("{what}: {toll:?}");
            }
            sums.0 += u32::from(toll.is_refused);
            sums.1 += u32::from(toll.is_all_doubtful);
            sums.2 += u32::from(toll.lost > 0);
            sums.3 = sums.3.max(toll.lost);
            sums.4 += u32::from(toll.is_mended);
        }
        let (refused, doubtful, losing, most, mended) = sums;
        println!(
            "{snapshots} snapshots, {flips} flips: {mended} mended, {losing} cost events, {most} at most; \
             {doubtful} doubtful as a whole, {refused} refused"
        );
    }
}

//! A spill that was cut short is known as one, also where the log is read without sled.

use super::*;

/// A store whose second spill has begun, has taken a chunk away and has got no further. Returns the directory of its database.
fn between(path: &Path) -> PathBuf {
    let (mut store, _) = open(path);
    let mut maker = Maker::new(7);
    store.spill(&maker.spill(&Model::default())).unwrap();
    let Database { trees, .. } = &*store.database;
    trees.meta.insert(format::SPILLING, format::spilling(2)).unwrap();
    let (key, value) = trees.index.first().unwrap().unwrap();
    let (_, _, row) = format::parse_row(&key, &value).unwrap();
    trees.index.remove(key).unwrap();
    for number in row.number..row.number + u64::from(row.pieces) {
        trees.chunks.remove(number.to_be_bytes()).unwrap();
    }
    store.database.sync().unwrap();
    store.database.directory().to_owned()
}

#[test]
fn the_check_finds_nothing_wrong_with_it() {
    let directory = tempfile::tempdir().unwrap();
    between(directory.path());
    let report = check(directory.path()).unwrap();
    assert_eq!((report.mark.generation, report.lost, report.notes), (1, vec![], vec![]));
}

#[test]
fn a_store_that_is_read_without_sled_then_has_lost_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let database = between(directory.path());
    std::fs::write(database.join("damage-met"), "a page that a spill met").unwrap();
    let (_, found) = open(directory.path());
    assert_eq!((found.mark.generation, found.lost), (1, vec![]));
    assert!(found.repaired.iter().any(|text| text.contains("into a fresh store")), "{:?}", found.repaired);
}

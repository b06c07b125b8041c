//! The file store: what comes back, what is refused, and whose it is.

use super::*;

fn state() -> FeedState {
    FeedState { attach_number: 3, cursors: vec![(Origin(2), Position(9)), (Origin(1), Position(77))] }
}

#[test]
fn states_come_back_as_they_were_saved() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("some/where");
    let store = FileStore::open(&path).unwrap();
    assert_eq!(store.load_publish(), Ok(PublishState { next_number: 1 }));
    assert_eq!(store.load_feed(), Ok(FeedState::default()));
    store.save_publish(PublishState { next_number: 4097 }).unwrap();
    store.save_feed(&state()).unwrap();
    drop(store);
    let store = FileStore::open(&path).unwrap();
    assert_eq!(store.load_publish(), Ok(PublishState { next_number: 4097 }));
    assert_eq!(store.load_feed(), Ok(state()));
}

#[test]
fn marks_come_back_as_they_were_saved() {
    let directory = tempfile::tempdir().unwrap();
    let store = FileStore::open(directory.path()).unwrap();
    assert_eq!(store.load_marks(), Ok(vec![]));
    let mark = |sender: u8, after| Mark {
        sender: quail_protocol::id::AccountId([sender; 16]),
        origin: Origin(1),
        after: Position(after),
        upto: Position(u64::MAX),
    };
    // The most there may be, as long as they may be.
    let marks: Vec<_> =
        (0..crate::reads::MARKS_MAX as u64).map(|n| mark(n as u8, u64::MAX - 1 - n)).collect();
    store.save_marks(&marks).unwrap();
    drop(store);
    let store = FileStore::open(directory.path()).unwrap();
    assert_eq!(store.load_marks(), Ok(marks));
    assert_eq!(store.load_feed(), Ok(FeedState::default()), "the cursors are another file");
}

#[test]
fn each_part_has_one_owner() {
    let directory = tempfile::tempdir().unwrap();
    let (one, two) = (FileStore::open(directory.path()).unwrap(), FileStore::open(directory.path()).unwrap());
    one.load_publish().unwrap();
    two.load_feed().unwrap();
    let in_use = |part| StoreError::InUse { part, place: show(directory.path()) };
    assert_eq!(two.save_publish(PublishState::default()), Err(in_use(Part::Publish)));
    assert_eq!(one.load_feed(), Err(in_use(Part::Feed)));
    drop(one);
    assert_eq!(two.save_publish(PublishState::default()), Ok(()));
}

#[cfg(unix)]
#[test]
fn everything_is_for_its_owner_only() {
    use std::os::unix::fs::PermissionsExt;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state");
    let store = FileStore::open(&path).unwrap();
    store.save_publish(PublishState::default()).unwrap();
    store.save_feed(&state()).unwrap();
    let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&path), 0o700);
    for entry in std::fs::read_dir(&path).unwrap() {
        assert_eq!(mode(&entry.unwrap().path()), 0o600);
    }
}

#[test]
fn what_cannot_be_understood_is_an_error_and_stays() {
    let directory = tempfile::tempdir().unwrap();
    for content in ["", "{", r#"{"format":2,"next_number":5}"#, r#"{"format":1,"next_number":0}"#] {
        let path = directory.path().join("publish.json");
        std::fs::write(&path, content).unwrap();
        let store = FileStore::open(directory.path()).unwrap();
        assert!(
            matches!(store.load_publish(), Err(StoreError::Damaged { part: Part::Publish, .. })),
            "{content}"
        );
        assert_eq!(std::fs::read_to_string(&path).unwrap(), content);
    }
}

#[test]
fn a_save_that_was_cut_off_leaves_the_old_state() {
    let directory = tempfile::tempdir().unwrap();
    let store = FileStore::open(directory.path()).unwrap();
    store.save_publish(PublishState { next_number: 5 }).unwrap();
    std::fs::write(directory.path().join("publish.json.new"), "half a st").unwrap();
    assert_eq!(store.load_publish(), Ok(PublishState { next_number: 5 }));
    store.save_publish(PublishState { next_number: 6 }).unwrap();
    assert_eq!(store.load_publish(), Ok(PublishState { next_number: 6 }));
}

//! The file store: what comes back, what is refused, whose it is, and what older versions left.

use bytes::Bytes;
use quail_protocol::id::{AccountId, MessageId, Origin, Position};

use super::*;
use crate::store::QueuedSend;

const OLD_PUBLISH: &str = r#"{"format":1,"next_number":4097}"#;
const OLD_FEED: &str = r#"{"format":1,"attach_number":3,"cursors":[[2,9],[1,77]]}"#;

fn send(number: u64) -> QueuedSend {
    let (id, recipient) = (MessageId([number as u8; 16]), AccountId([7; 16]));
    QueuedSend { number, id, recipient, kind: 1, body: Bytes::from_static(b"hello"), extra: Bytes::new() }
}

fn cursors() -> Vec<(Origin, Position)> {
    vec![(Origin(2), Position(9)), (Origin(1), Position(77))]
}

#[test]
fn what_an_older_version_left_is_carried_over_once() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("publish.json"), OLD_PUBLISH).unwrap();
    std::fs::write(directory.path().join("feed.json"), OLD_FEED).unwrap();
    let store = FileStore::open(directory.path()).unwrap();
    assert_eq!(store.load_publish().unwrap().next_number, 4097);
    let feed = store.load_feed().unwrap();
    assert_eq!((feed.attach_number, feed.cursors), (3, cursors()));
    store.commit_publish(&[PublishChange::Queued(send(4097))]).unwrap();
    drop(store);
    let store = FileStore::open(directory.path()).unwrap();
    let state = store.load_publish().unwrap();
    assert_eq!((state.next_number, state.queue.len()), (4098, 1));
    for name in ["publish.json", "feed.json"] {
        let left = std::fs::read_to_string(directory.path().join(name)).unwrap();
        assert!(left.starts_with(r#"{"format":2"#), "an older version refuses it: {left}");
    }
}

#[test]
fn what_an_older_version_left_damaged_is_an_error_and_stays() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("publish.json");
    for content in ["", "{", r#"{"format":1,"next_number":0}"#] {
        std::fs::write(&path, content).unwrap();
        let store = FileStore::open(directory.path()).unwrap();
        assert!(matches!(store.load_publish(), Err(StoreError::Damaged { .. })), "{content}");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), content);
    }
    std::fs::write(&path, r#"{"format":9}"#).unwrap();
    let error = FileStore::open(directory.path()).unwrap().load_publish();
    assert!(matches!(error, Err(StoreError::Newer { part: Part::Publish, format: 9, .. })), "{error:?}");
}

#[test]
fn marks_come_back_as_they_were_saved() {
    let directory = tempfile::tempdir().unwrap();
    let store = FileStore::open(directory.path()).unwrap();
    let mark = |sender: u8, after| super::super::Mark {
        sender: quail_protocol::id::AccountId([sender; 16]),
        origin: Origin(1),
        after: Position(after),
        upto: Position(u64::MAX),
    };
    // The most there may be, as long as they may be.
    let marks: Vec<_> =
        (0..crate::reads::MARKS_MAX as u64).map(|n| mark(n as u8, u64::MAX - 1 - n)).collect();
    store.commit_feed(&[FeedChange::Marks(marks.clone())]).unwrap();
    drop(store);
    let store = FileStore::open(directory.path()).unwrap();
    assert_eq!(store.load_feed(), Ok(FeedState { marks, ..FeedState::default() }));
}

#[test]
fn each_part_has_one_owner() {
    let directory = tempfile::tempdir().unwrap();
    let (one, two) = (FileStore::open(directory.path()).unwrap(), FileStore::open(directory.path()).unwrap());
    one.load_publish().unwrap();
    two.load_feed().unwrap();
    let in_use = |part| StoreError::InUse { part, place: show(directory.path()) };
    assert_eq!(two.commit_publish(&[]), Err(in_use(Part::Publish)));
    assert_eq!(one.load_feed(), Err(in_use(Part::Feed)));
    drop(one);
    assert_eq!(two.commit_publish(&[]), Ok(()));
}

#[cfg(unix)]
#[test]
fn everything_is_for_its_owner_only() {
    use std::os::unix::fs::PermissionsExt;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state");
    let store = FileStore::open(&path).unwrap();
    store.commit_publish(&[PublishChange::Queued(send(1))]).unwrap();
    store.commit_feed(&[FeedChange::Attached(1)]).unwrap();
    let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&path), 0o700);
    for entry in std::fs::read_dir(&path).unwrap() {
        assert_eq!(mode(&entry.unwrap().path()), 0o600);
    }
}

#[test]
fn a_newer_form_is_refused_and_stays() {
    let directory = tempfile::tempdir().unwrap();
    let store = FileStore::open(directory.path()).unwrap();
    store.commit_publish(&[PublishChange::Queued(send(1))]).unwrap();
    drop(store);
    let path = directory.path().join("publish.redb");
    let set_format = |format: u64| {
        let database = Database::open(&path).unwrap();
        let transaction = database.begin_write().unwrap();
        let meta = redb::TableDefinition::<&str, u64>::new("meta");
        transaction.open_table(meta).unwrap().insert("format", format).unwrap();
        transaction.commit().unwrap();
    };
    set_format(3);
    let store = FileStore::open(directory.path()).unwrap();
    assert!(matches!(store.load_publish(), Err(StoreError::Newer { format: 3, .. })));
    assert!(matches!(store.commit_publish(&[]), Err(StoreError::Newer { format: 3, .. })));
    drop(store);
    set_format(tables::FORMAT);
    assert_eq!(FileStore::open(directory.path()).unwrap().load_publish().unwrap().queue.len(), 1);
}

#[test]
fn a_damaged_database_is_an_error_and_no_new_one_takes_its_place() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("feed.redb");
    let whole = {
        let store = FileStore::open(directory.path()).unwrap();
        store.commit_feed(&[FeedChange::Cursors(cursors())]).unwrap();
        drop(store);
        std::fs::read(&path).unwrap()
    };
    let mut torn_header = whole.clone();
    torn_header[..4096].fill(0xa5);
    for damaged in [vec![], whole[..100].to_vec(), torn_header] {
        std::fs::write(&path, &damaged).unwrap();
        let store = FileStore::open(directory.path()).unwrap();
        let error = store.load_feed();
        assert!(matches!(error, Err(StoreError::Damaged { part: Part::Feed, .. })), "{error:?}");
        assert!(store.commit_feed(&[FeedChange::Attached(9)]).is_err());
        drop(store);
        assert_eq!(std::fs::read(&path).unwrap().len(), damaged.len());
    }
}

#[test]
fn a_database_that_was_half_made_is_made_anew() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("publish.redb.new"), "half a da").unwrap();
    let store = FileStore::open(directory.path()).unwrap();
    assert_eq!(store.load_publish(), Ok(PublishState::default()));
}

#[test]
fn a_crash_between_the_database_and_the_mark_of_the_old_file_is_made_good() {
    let directory = tempfile::tempdir().unwrap();
    let old = directory.path().join("publish.json");
    FileStore::open(directory.path()).unwrap().load_publish().unwrap();
    std::fs::write(&old, OLD_PUBLISH).unwrap();
    let store = FileStore::open(directory.path()).unwrap();
    assert_eq!(store.load_publish().unwrap().next_number, 1, "the database counts");
    assert!(std::fs::read_to_string(&old).unwrap().starts_with(r#"{"format":2"#));
}

#[test]
fn a_flipped_bit_is_an_error_or_an_earlier_commit_and_never_another_message() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("publish.redb");
    let store = FileStore::open(directory.path()).unwrap();
    let mut states = vec![PublishState::default()];
    for number in 1..=20 {
        let body = Bytes::from(vec![number as u8; 900]);
        let change = PublishChange::Queued(QueuedSend { body, ..send(number) });
        store.commit_publish(std::slice::from_ref(&change)).unwrap();
        let mut state = states[states.len() - 1].clone();
        state.apply(&change);
        states.push(state);
    }
    drop(store);
    let whole = std::fs::read(&path).unwrap();
    let used: Vec<_> = (0..whole.len()).filter(|at| whole[*at] != 0).collect();
    let (mut errors, mut harmless) = (0, 0);
    for round in 0..120 {
        let mut damaged = whole.clone();
        // Spread over what is not empty.
        damaged[used[round * 7919 % used.len()]] ^= 1 << (round % 8);
        std::fs::write(&path, &damaged).unwrap();
        match FileStore::open(directory.path()).unwrap().load_publish() {
            Err(StoreError::Damaged { .. }) => errors += 1,
            Err(other) => panic!("{other:?}"),
            Ok(state) => {
                assert!(states.contains(&state), "round {round}: {state:?}");
                harmless += 1;
            }
        }
    }
    // Most of the file are pages of earlier commits, which nobody reads any more.
    assert!(errors > 10 && harmless > 10, "{errors} errors, {harmless} without harm");
}

fn failure(kind: ErrorKind) -> TableError {
    TableError::Database(redb::Error::Io(kind.into()))
}

#[test]
fn after_a_failure_the_next_call_opens_the_database_anew() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("feed.redb");
    let store = FileStore::open(directory.path()).unwrap();
    store.commit_feed(&[FeedChange::Attached(7)]).unwrap();
    let failed = store.with::<()>(Part::Feed, |_| Err(failure(ErrorKind::StorageFull)));
    assert_eq!(failed, Err(StoreError::Full { place: show(&path) }));
    assert_eq!(store.load_feed().unwrap().attach_number, 7);
    let failed = store.with::<()>(Part::Feed, |_| Err(failure(ErrorKind::ReadOnlyFilesystem)));
    assert!(matches!(failed, Err(StoreError::NotWritable { .. })), "{failed:?}");
    store.commit_feed(&[FeedChange::Attached(8)]).unwrap();
    drop(store);
    assert_eq!(FileStore::open(directory.path()).unwrap().load_feed().unwrap().attach_number, 8);
}

#[test]
fn a_place_where_no_directory_can_be_is_an_error() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("file");
    std::fs::write(&file, "").unwrap();
    let error = FileStore::open(file.join("below").join("it"));
    assert!(matches!(error, Err(StoreError::Io { .. })), "{error:?}");
    let deep = directory.path().join("a/b/c");
    FileStore::open(&deep).unwrap().commit_feed(&[]).unwrap();
    assert!(deep.join("feed.redb").exists());
}

#[test]
fn a_file_that_is_mostly_free_gives_space_back() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("publish.redb");
    let length = || path.metadata().unwrap().len();
    let store = FileStore::open(directory.path()).unwrap();
    let body = Bytes::from(vec![b'x'; 60_000]);
    let queued = |number| PublishChange::Queued(QueuedSend { body: body.clone(), ..send(number) });
    store.commit_publish(&(1..=500).map(queued).collect::<Vec<_>>()).unwrap();
    store.commit_publish(&(1..500).map(PublishChange::Cancelled).collect::<Vec<_>>()).unwrap();
    drop(store);
    let full = length();
    let store = FileStore::open(directory.path()).unwrap();
    let state = store.load_publish().unwrap();
    assert_eq!((state.queue.len(), state.next_number), (1, 501));
    drop(store);
    assert!(full > 30_000_000 && length() < full / 4, "from {full} to {}", length());
}

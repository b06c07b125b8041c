//! The file store: what comes back, what is refused, whose it is, and what older versions left.

use bytes::Bytes;
use quail_protocol::id::{AccountId, MessageId, Origin, Position};

use super::*;
use crate::store::QueuedSend;

const OLD_PUBLISH: &str = r#"{"format":1,"next_number":4097}"#;
const OLD_FEED: &str = r#"{"format":1,"attach_number":3,"cursors":[[2,9],[1,77]]}"#;

fn send(number: u64) -> QueuedSend {
    let (id, recipient) = (MessageId([number as u8; 16]), AccountId([7; 16]));
    QueuedSend { number, id, recipient, kind: 1, body: Bytes::from_static(b"hello") }
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

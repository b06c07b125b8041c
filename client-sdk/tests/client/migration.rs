//! A store that an older version left: what counted goes on, and the older version keeps away.

use std::path::Path;

use quail_client::FileStore;
use quail_protocol::v1;

use crate::support::{FakeServer, PEER, soon};

#[tokio::test]
async fn a_store_of_format_1_goes_on_where_it_was_and_is_refused_by_its_writer() {
    let directory = tempfile::tempdir().unwrap();
    let kept = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/store-v1");
    for name in ["publish.json", "feed.json", "publish.lock", "feed.lock"] {
        std::fs::copy(kept.join(name), directory.path().join(name)).unwrap();
    }
    let server = FakeServer::start();
    // The second run finds what the first one has made of it.
    for (run, number) in [(1, 12_289), (2, 12_290)] {
        let (client, mut peer) = server.client(FileStore::open(directory.path()).unwrap()).await;
        let events = soon(client.events()).await.unwrap();
        let (attach, mut feed) = peer.feed().await;
        let cursors = vec![v1::Cursor { origin: 1, position: 4 }];
        assert_eq!((attach.number, attach.cursors), (1 + run, cursors));
        let mut lane = peer.publish().await;
        soon(client.send(PEER, "one more")).await.unwrap();
        assert_eq!(lane.read_send().await.number, number);
        lane.accept(number).await;
        let closing = async { while feed.next::<v1::FeedUp>().await.is_some() {} };
        tokio::join!(soon(client.close()), closing).0.unwrap();
        drop(events);
    }
    for name in ["publish.json", "feed.json"] {
        let left = std::fs::read_to_string(directory.path().join(name)).unwrap();
        let left: serde_json::Value = serde_json::from_str(&left).unwrap();
        assert_eq!(left["format"], 2, "{name}: its writer knows only 1");
    }
}

//! Promise: an account reads its whole history, in order, each message once, whatever is said meanwhile; it reads nobody else's; and it
//! is told when the archive is not as far as it asked for.
#![allow(clippy::unwrap_used, clippy::panic)] // Test code outside of #[test] functions.

use std::collections::BTreeSet;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use bytes::Bytes;
use futures_core::Stream;
use quail_client::{
    AccountId, Client, Direction, Error, HistoryMessage, HistoryPager, Page, Reason, Remains, SyncState,
};
use quail_protocol::v1::{self, request::Command, response::Result as Answer};
use quail_tests::archive::HeldArchive;
use quail_tests::raw::RawClient;
use quail_tests::{PATIENCE, Person, World, expect, next_message};
use tokio::task::JoinSet;

/// Messages that are there before somebody reads.
const MESSAGES: usize = 120;

async fn say(client: &Client, to: AccountId, text: &str) {
    let sending = client.send(to, text).await.unwrap();
    expect("the answer", sending.accepted()).await.unwrap();
}

fn text(message: &HistoryMessage) -> &str {
    match &message.content {
        Remains::There(body) => body.as_text().unwrap(),
        other => panic!("expected a text, got {other:?}"),
    }
}

async fn all(mut pager: HistoryPager) -> Vec<HistoryMessage> {
    let mut all = Vec::new();
    while let Some(page) = expect("a page", pager.next_page()).await.unwrap() {
        assert!(page.items.len() <= 100 + 256, "a page is bounded");
        all.extend(page.items);
    }
    all
}

/// Reads a stream to its end, page by page.
async fn streamed<T>(mut stream: impl Stream<Item = Result<Page<T>, Error>> + Unpin) -> Vec<Vec<T>> {
    let mut pages = Vec::new();
    let mut next =
        async || expect("a page", poll_fn(|context| Pin::new(&mut stream).poll_next(context))).await;
    while let Some(page) = next().await {
        pages.push(page.unwrap().items);
    }
    pages
}

/// Waits until what a client has sent is archived.
async fn archived(client: &Client, peer: AccountId) {
    let began = Instant::now();
    loop {
        let mut pager = client.history(peer, Direction::Older, None, 1);
        if pager.next_page().await.unwrap().is_some_and(|page| !page.archived.behind) {
            return;
        }
        assert!(began.elapsed() < PATIENCE, "the archive comes");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_brings_the_pages_of_its_pager_both_ways() {
    let world = World::start().await;
    let (ada, bob) = (world.sign_up("ada").await, world.sign_up("bob").await);
    let client = bob.open().await;
    for number in 0..7 {
        say(&client, ada.account(), &format!("word {number}")).await;
    }
    archived(&client, ada.account()).await;
    let texts =
        |messages: &[HistoryMessage]| messages.iter().map(|one| text(one).to_owned()).collect::<Vec<_>>();
    let oldest_first: Vec<_> = (0..7).map(|number| format!("word {number}")).collect();
    let newest_first: Vec<_> = oldest_first.iter().rev().cloned().collect();
    let history = |direction| client.history(ada.account(), direction, None, 3).into_stream();
    assert_eq!(texts(&streamed(history(Direction::Newer)).await.concat()), oldest_first);
    let pages = streamed(history(Direction::Older)).await;
    assert_eq!((pages.len(), texts(&pages.concat())), (3, newest_first.clone()));
    let found = streamed(client.search("word", None, 3).into_stream()).await.concat();
    let found: Vec<_> = found.into_iter().map(|found| found.message).collect();
    assert_eq!(texts(&found), newest_first);
    let listed = streamed(client.conversations().into_stream()).await.concat();
    assert_eq!(listed.iter().map(|one| one.peer).collect::<Vec<_>>(), [ada.account()]);
    let synced = streamed(client.sync([(ada.account(), 0)]).into_stream()).await.concat();
    assert_eq!(synced.iter().map(|one| one.messages.len()).sum::<usize>(), 7);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_go_both_ways_without_doubles_or_holes_while_messages_come() {
    let world = World::start().await;
    let (ada, bob) = (world.sign_up("ada").await, world.sign_up("bob").await);
    let (reader, sender) = (ada.open().await, bob.open().await);
    for number in 0..MESSAGES {
        say(&sender, ada.account(), &number.to_string()).await;
    }
    archived(&sender, ada.account()).await;
    let stop = Arc::new(AtomicBool::new(false));
    let (stopped, to) = (stop.clone(), ada.account());
    let mut sending = JoinSet::new();
    sending.spawn(async move {
        let mut number = MESSAGES;
        while !stopped.load(Ordering::Relaxed) {
            say(&sender, to, &number.to_string()).await;
            number += 1;
        }
        number
    });
    for direction in [Direction::Older, Direction::Newer] {
        let messages = all(reader.history(bob.account(), direction, None, 30)).await;
        let mut numbers: Vec<usize> = messages.iter().map(|message| text(message).parse().unwrap()).collect();
        if direction == Direction::Older {
            numbers.reverse();
        }
        assert!(numbers.len() >= MESSAGES, "{} of {MESSAGES}", numbers.len());
        assert_eq!(numbers, (0..numbers.len()).collect::<Vec<_>>(), "{direction:?}: each once, in order");
    }
    stop.store(true, Ordering::Relaxed);
    let count = expect("the sender", sending.join_next()).await.unwrap().unwrap();
    let began = Instant::now();
    loop {
        let messages = all(reader.history(bob.account(), Direction::Newer, None, 1_000_000)).await;
        let sorted: BTreeSet<_> = messages.iter().map(HistoryMessage::place).collect();
        assert!(sorted.iter().eq(messages.iter().map(HistoryMessage::place).collect::<Vec<_>>().iter()));
        if messages.len() == count {
            break;
        }
        assert!(began.elapsed() < PATIENCE, "{} of {count}", messages.len());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_list_counts_what_was_not_read_and_a_sync_brings_every_message_once() {
    let world = World::start().await;
    let (ada, bob, eve) =
        (world.sign_up("ada").await, world.sign_up("bob").await, world.sign_up("eve").await);
    let (from_bob, from_eve, reader) = (bob.open().await, eve.open().await, ada.open().await);
    for number in 0..10 {
        say(&from_bob, ada.account(), &format!("bob {number}")).await;
    }
    for number in 0..3 {
        say(&from_eve, ada.account(), &format!("eve {number}")).await;
    }
    let mut events = reader.events().await.unwrap();
    let mut read = None;
    for number in 0..13 {
        let message = next_message(&mut events).await;
        if number == 3 {
            read = Some(message.mark());
        }
    }
    // What was read of Bob's is what lies below the fourth.
    reader.read([read.unwrap()]).await.unwrap();
    say(&reader, eve.account(), "to eve").await;
    let began = Instant::now();
    let list = loop {
        let page = expect("a page", reader.conversations().next_page()).await.unwrap().unwrap();
        let unread: Vec<_> = page.items.iter().map(|one| one.unread).collect();
        let is_all = page.items.iter().map(|one| one.seq).collect::<Vec<_>>() == [4, 10];
        if is_all && unread == [3, 6] {
            break page.items;
        }
        assert!(began.elapsed() < PATIENCE, "unread is {unread:?}");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    };
    assert_eq!([list[0].peer, list[1].peer], [eve.account(), bob.account()], "the newest first");
    assert_eq!(text(list[0].last.as_ref().unwrap()), "to eve");
    let marker = list[1].markers.iter().find(|marker| marker.account == ada.account() && marker.is_read);
    let marker = marker.unwrap().position;
    let messages = all(reader.history(bob.account(), Direction::Newer, None, 0)).await;
    let unread = messages.iter().filter(|one| one.sender == bob.account() && one.position > marker).count();
    assert_eq!(unread, 6, "counted by hand");

    let mut pager = reader.sync([(bob.account(), 0), (eve.account(), 4), (AccountId([9; 16]), 0)]);
    let mut brought = Vec::new();
    let mut states = Vec::new();
    while let Some(page) = expect("a page", pager.next_page()).await.unwrap() {
        for one in page.items {
            brought.extend(one.messages.iter().map(|message| text(message).to_owned()));
            states.push((one.state, one.seq));
        }
    }
    let expected: Vec<_> = (0..10).map(|number| format!("bob {number}")).collect();
    assert_eq!(brought, expected);
    assert_eq!(states, [(SyncState::Changed, 10), (SyncState::Changed, 4), (SyncState::Unknown, 0)]);
    let page = expect("a page", reader.sync([(bob.account(), 99)]).next_page()).await.unwrap().unwrap();
    assert_eq!((page.items[0].state, page.items[0].seq), (SyncState::Reload, 10));
}

async fn ask(client: &RawClient, command: Command) -> Answer {
    expect("an answer", client.request(command)).await
}

async fn raw(world: &World, person: &Person) -> RawClient {
    RawClient::resume(&world.address(), person.credentials.token.as_bytes()).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_account_finds_nothing_and_nonsense_gets_a_typed_error_or_a_sane_page() {
    let world = World::start().await;
    let (ada, bob, eve) =
        (world.sign_up("ada").await, world.sign_up("bob").await, world.sign_up("eve").await);
    let sender = ada.open().await;
    say(&sender, bob.account(), "The secret is forty-two").await;
    say(&sender, bob.account(), "See you at eight").await;
    archived(&sender, bob.account()).await;
    let found = expect("a page", sender.search("secr* \"is forty\" from:ada", None, 0).next_page()).await;
    let found = found.unwrap().unwrap().items;
    assert_eq!(text(&found[0].message), "The secret is forty-two");
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].highlights, [4..10, 11..19]);

    let client = raw(&world, &eve).await;
    for peer in [ada.account(), bob.account(), AccountId([7; 16])] {
        let peer = peer.to_bytes();
        let browse = v1::BrowseHistory { peer: peer.clone(), limit: 1_000_000, ..Default::default() };
        let search = v1::SearchHistory { text: "secret".to_owned(), ..Default::default() };
        let Answer::Found(page) = ask(&client, Command::Search(search.clone())).await else {
            panic!("a page")
        };
        assert!(page.found.is_empty());
        let mute = v1::Switch::On.into();
        for command in [
            Command::History(browse),
            Command::Search(v1::SearchHistory { peer: peer.clone(), ..search }),
            Command::SetConversation(v1::SetConversation {
                peer: peer.clone(),
                muted: mute,
                ..Default::default()
            }),
        ] {
            let Answer::Error(error) = ask(&client, command.clone()).await else { panic!("{command:?}") };
            assert_eq!(error.reason(), Reason::UnknownConversation, "{command:?}");
        }
        let sync = v1::SyncHistory { peers: peer, seqs: vec![0], ..Default::default() };
        let Answer::Synced(page) = ask(&client, Command::Sync(sync)).await else { panic!("a page") };
        assert_eq!(page.conversations[0].state(), v1::SyncState::SyncUnknown);
    }
    let Answer::Conversations(page) = ask(&client, Command::Conversations(Default::default())).await else {
        panic!("a page")
    };
    assert!(page.conversations.is_empty() && page.next.is_none());

    let client = raw(&world, &bob).await;
    let long = "NEAR( \"".repeat(1_000);
    for text in ["a AND (b OR", "* \" ^ -", "body : secret", "'; DROP TABLE messages; --", &long] {
        let search = v1::SearchHistory { text: text.to_owned(), limit: u32::MAX, ..Default::default() };
        assert!(matches!(ask(&client, Command::Search(search)).await, Answer::Found(_)), "{text}");
    }
    let far = Some(v1::Place { stamp: u64::MAX, origin: u32::MAX });
    let browse = v1::BrowseHistory { peer: ada.account().to_bytes(), place: far, ..Default::default() };
    let Answer::History(page) = ask(&client, Command::History(browse.clone())).await else {
        panic!("a page")
    };
    assert_eq!(page.messages.len(), 2, "all of it is before the end of time");
    let set = v1::SetConversation { peer: ada.account().to_bytes(), ..Default::default() };
    let refused = [
        Command::History(v1::BrowseHistory { peer: Bytes::from_static(b"short"), ..Default::default() }),
        Command::History(v1::BrowseHistory { direction: 77, ..browse }),
        Command::Search(v1::SearchHistory { peer: vec![0; 17].into(), ..Default::default() }),
        Command::SetConversation(v1::SetConversation { peer: vec![0; 15].into(), ..Default::default() }),
        Command::SetConversation(v1::SetConversation { pinned: 9, ..set }),
        Command::Sync(v1::SyncHistory { peers: vec![0; 16].into(), seqs: vec![1, 2], ..Default::default() }),
        Command::Conversations(v1::ListConversations {
            after: Some(v1::ConversationKey::default()),
            ..Default::default()
        }),
    ];
    for command in refused {
        let Answer::Error(error) = ask(&client, command.clone()).await else { panic!("{command:?}") };
        assert_eq!(error.reason(), Reason::Malformed, "{command:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_archive_that_is_held_is_told_and_what_the_client_has_is_shown_beside_it() {
    let world = World::start().await;
    let (ada, bob) = (world.sign_up("ada").await, world.sign_up("bob").await);
    let sender = ada.open().await;
    say(&sender, bob.account(), "one").await;
    archived(&sender, bob.account()).await;
    let held = HeldArchive::hold(&world.directory.path().join("data")).await;
    say(&sender, bob.account(), "two").await;
    let page = sender.history(bob.account(), Direction::Older, None, 0).next_page().await.unwrap().unwrap();
    assert!(page.archived.behind, "the answer says so");
    let texts: Vec<_> = page.items.iter().map(|message| (text(message), message.is_archived())).collect();
    assert_eq!(texts, [("two", false), ("one", true)], "the client has what the archive lacks");
    // Somebody who does not hold it is shown what there is.
    let client = raw(&world, &ada).await;
    let browse = v1::BrowseHistory { peer: bob.account().to_bytes(), ..Default::default() };
    let Answer::History(page) = ask(&client, Command::History(browse)).await else { panic!("a page") };
    assert_eq!(page.messages.len(), 1);
    held.release().await;
    archived(&sender, bob.account()).await;
    let messages = all(sender.history(bob.account(), Direction::Newer, None, 0)).await;
    let texts: Vec<_> = messages.iter().map(|message| (text(message), message.is_archived())).collect();
    assert_eq!(texts, [("one", true), ("two", true)], "each once");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_without_an_archive_says_that_it_keeps_none() {
    let world = World::start_with(|options| {
        options.env.push(("QUAIL_STORAGE_ARCHIVE".into(), "off".into()));
    })
    .await;
    let client = world.sign_up("ada").await.open().await;
    let refused = client.conversations().next_page().await.unwrap_err();
    assert_eq!(refused.reason(), Some(Reason::NoHistory));
}

//! Promise: all devices sort a conversation by (stamp, origin) and see the same list; one device's messages keep their order,
//! and an answer comes after what it answers.
#![allow(clippy::unwrap_used, clippy::panic)] // Test code outside of #[test] functions.

use quail_client::{Client, Message};
use quail_tests::{Person, World, next_message, text};

/// Messages from each side.
const EACH: usize = 100;

async fn talk(client: Client, to: quail_client::AccountId, name: &'static str) {
    for number in 0..EACH {
        client.send(to, format!("{name} {number}")).await.unwrap();
        if number % 7 == 0 {
            client.flush().await.unwrap();
        }
    }
    client.flush().await.unwrap();
}

/// Returns so many messages in the order in which a person sees them.
async fn seen(person: &Person, count: usize) -> Vec<Message> {
    let client = person.open().await;
    let mut events = client.events().await.unwrap();
    let mut messages = Vec::new();
    while messages.len() < count {
        messages.push(next_message(&mut events).await);
    }
    messages.sort_by_key(|message| (message.stamp, message.origin));
    messages
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_order() {
    let world = World::start().await;
    let (ada, bob) = (world.sign_up("ada").await, world.sign_up("bob").await);
    let readers = [world.log_in("ada").await, world.log_in("bob").await, world.log_in("bob").await];
    let (from_ada, from_bob) = (ada.open().await, bob.open().await);
    tokio::join!(talk(from_ada, bob.account(), "ada"), talk(from_bob, ada.account(), "bob"));

    let mut lists = Vec::new();
    for reader in &readers {
        let list: Vec<String> =
            seen(reader, 2 * EACH).await.iter().map(|message| text(message).to_owned()).collect();
        lists.push(list);
    }
    assert_eq!(lists[0], lists[1]);
    assert_eq!(lists[1], lists[2]);
    for name in ["ada", "bob"] {
        let numbers =
            lists[0].iter().filter_map(|line| line.strip_prefix(name)?.trim().parse::<usize>().ok());
        assert!(numbers.eq(0..EACH), "the messages of {name} keep their order");
    }
}

#[tokio::test]
async fn an_answer_comes_after_what_it_answers() {
    let world = World::start().await;
    let (ada, bob) = (world.sign_up("ada").await, world.sign_up("bob").await);
    let (ada_client, bob_client) = (ada.open().await, bob.open().await);
    let (mut to_ada, mut to_bob) = (ada_client.events().await.unwrap(), bob_client.events().await.unwrap());
    let mut last = quail_client::Stamp(0);
    for round in 0..20 {
        ada_client.send(bob.account(), format!("question {round}")).await.unwrap();
        let question = next_message(&mut to_bob).await;
        bob_client.send(ada.account(), format!("answer {round}")).await.unwrap();
        let answer = next_message(&mut to_ada).await;
        assert!(last < question.stamp && question.stamp < answer.stamp);
        last = answer.stamp;
    }
}

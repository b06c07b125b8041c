//! A client in a process of its own, to be killed at any moment: it sends numbered messages and keeps a log of what it was
//! given.
//!
//! Its log is its only memory beside the SDK's store. A line is written in one piece and not synced, for it is processes that
//! die here, not machines:
//!
//! ```text
//! want 17 ID      about to be sent under this id
//! queued 17       the SDK said that it is queued
//! got ID 17       given by the SDK, and then acknowledged
//! aside ID        the SDK gave it up
//! ```
//!
//! Invariant: on attempt 1 a message is logged without a look, so that one which is given twice as the first shows twice;
//! above, it is logged unless it is in the log.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // Test code outside of #[test] functions.

use std::collections::{BTreeMap, HashSet};
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::PathBuf;

use quail_client::{
    AccountId, Client, Credentials, Delivery, Event, FileStore, MessageId, Options, new_message_id,
};
use serde_json::Value;

/// Messages that are sent at once.
const TOGETHER: u64 = 8;

/// How many more messages are sent than received. Two that write to each other keep so within the limit of an outbox.
const AHEAD_MAX: usize = 1000;

struct Log {
    file: File,
    wanted: BTreeMap<u64, MessageId>,
    queued: HashSet<u64>,
    got: HashSet<String>,
}

impl Log {
    fn open(path: PathBuf) -> Self {
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        let (mut wanted, mut queued, mut got) = (BTreeMap::new(), HashSet::new(), HashSet::new());
        for line in text.lines() {
            match line.split(' ').collect::<Vec<_>>()[..] {
                ["want", number, id] => drop(wanted.insert(number.parse().unwrap(), id.parse().unwrap())),
                ["queued", number] => drop(queued.insert(number.parse().unwrap())),
                ["got", id, _] | ["aside", id] => drop(got.insert(id.to_owned())),
                _ => panic!("a line of the log: {line:?}"),
            }
        }
        Self { file: OpenOptions::new().append(true).create(true).open(path).unwrap(), wanted, queued, got }
    }

    fn write(&mut self, lines: &str) {
        self.file.write_all(lines.as_bytes()).unwrap();
    }

    fn took(&mut self, id: String, line: &str, attempt: u32) {
        if self.got.insert(id) || attempt == 1 {
            self.write(line);
        }
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let orders: Value = serde_json::from_str(&std::env::args().nth(1).unwrap()).unwrap();
    let text = |name: &str| orders[name].as_str().unwrap().to_owned();
    let credentials: Credentials = serde_json::from_value(orders["credentials"].clone()).unwrap();
    let mut log = Log::open(text("log").into());
    let store = FileStore::open(text("state")).unwrap();
    let options = Options { wait_for_server: true, ..quail_tests::options() };
    let client = Client::open(&text("address").parse().unwrap(), &credentials, store, options).await.unwrap();
    let mut events = client.events().await.unwrap();
    let to: AccountId = text("to").parse().unwrap();
    // With this many messages it has enough, and ends in good order.
    let enough = orders["enough"].as_u64();
    let poison = orders["poison"].as_str();
    resume(&client, to, &mut log).await;
    loop {
        while let Some(delivery) = events.try_next() {
            take(delivery, poison, &mut log);
        }
        if enough.is_some_and(|enough| log.got.len() as u64 >= enough) {
            client.flush().await.unwrap();
            client.close().await.unwrap();
            return;
        }
        let is_ahead = log.wanted.len() > log.got.len() + AHEAD_MAX;
        if enough.is_none() && poison.is_none() && !is_ahead {
            // Never given up half way: what was sent after it would come before its rest.
            send(&client, to, &mut log).await;
        } else {
            take(events.next().await.unwrap(), poison, &mut log);
        }
    }
}

/// Sends again what it does not know to be queued.
async fn resume(client: &Client, to: AccountId, log: &mut Log) {
    let wanted = log.wanted.iter().filter(|(number, _)| !log.queued.contains(number));
    let messages: Vec<_> = wanted.map(|(number, id)| (*number, *id)).collect();
    hand_over(client, to, &messages, log).await;
}

async fn send(client: &Client, to: AccountId, log: &mut Log) {
    let first = log.wanted.last_key_value().map_or(1, |(last, _)| last + 1);
    let messages: Vec<_> = (first..first + TOGETHER).map(|number| (number, new_message_id())).collect();
    let lines: String = messages.iter().map(|(number, id)| format!("want {number} {id}\n")).collect();
    log.write(&lines);
    log.wanted.extend(messages.iter().copied());
    hand_over(client, to, &messages, log).await;
}

async fn hand_over(client: &Client, to: AccountId, messages: &[(u64, MessageId)], log: &mut Log) {
    let bodies = messages.iter().map(|(number, id)| (*id, number.to_string()));
    client.send_all_with_ids(to, bodies).await.unwrap();
    let lines: String = messages.iter().map(|(number, _)| format!("queued {number}\n")).collect();
    log.write(&lines);
    log.queued.extend(messages.iter().map(|(number, _)| number));
}

fn take(delivery: Delivery, poison: Option<&str>, log: &mut Log) {
    let attempt = delivery.attempt();
    match &delivery.event {
        Event::Message(message) => {
            let text = message.body.as_text().unwrap();
            if poison == Some(text) {
                std::process::abort();
            }
            let id = message.id.to_string();
            let line = format!("got {id} {text}\n");
            log.took(id, &line, attempt);
        }
        Event::SetAside { message: Some((_, id)), .. } => {
            let id = id.to_string();
            let line = format!("aside {id}\n");
            // What is in the log already was not lost.
            log.took(id, &line, attempt.max(2));
        }
        Event::CaughtUp => {}
        other => panic!("unexpected {other:?}"),
    }
    delivery.acknowledge();
}

//! Promise: every event reaches every device of an account, the sender's other devices included, once and in one order,
//! wherever a device was meanwhile; a new device starts from now.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // Test code outside of #[test] functions.

use std::sync::Arc;

use quail_protocol::id::AccountId;
use quail_protocol::v1::{self, event::Body, feed_down::Frame, publish_down};
use quail_tests::checker::Terms;
use quail_tests::raw::{RawClient, RawStream, send};
use quail_tests::witness::Record;
use quail_tests::{Person, World, expect, next_message, text};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// Messages from each side in each of the three parts of the test.
const PART: u64 = 20;

/// How far a device is. Acknowledged as it comes.
#[derive(Clone, Copy, Default)]
struct Taken {
    messages: u64,
    /// Up to where it was told that what it sent was delivered to the other side.
    delivered: u64,
    last: u64,
}

/// A device that speaks the wire by hand, so that it sees whatever the daemon would repeat.
struct Device {
    person: Person,
    record: Arc<Record>,
    taken: watch::Sender<Taken>,
    reading: JoinSet<()>,
    attaches: u64,
}

impl Device {
    fn new(person: Person, record: &Arc<Record>) -> Self {
        record.joins(&person);
        let taken = watch::Sender::new(Taken::default());
        Self { person, record: record.clone(), taken, reading: JoinSet::new(), attaches: 0 }
    }

    async fn connect(&self, world: &World) -> RawClient {
        RawClient::resume(&world.address(), self.person.credentials.token.as_bytes()).await
    }

    async fn come(&mut self, world: &World) {
        self.attaches += 1;
        let last = self.taken.borrow().last;
        let cursors = (last > 0).then_some(v1::Cursor { origin: 1, position: last }).into_iter().collect();
        let client = self.connect(world).await;
        let mut feed = client.attach(self.attaches, cursors).await;
        let (taken, person, record) = (self.taken.clone(), self.person.clone(), self.record.clone());
        self.reading.spawn(async move {
            while let Some(frame) = feed.read::<v1::FeedDown>().await {
                match frame.frame {
                    Some(Frame::Event(event)) => {
                        record.event(&person, &event);
                        taken.send_modify(|taken| taken.event(&event));
                        feed.ack(event.origin, event.position).await;
                    }
                    Some(Frame::CaughtUp(_)) => {}
                    other => panic!("unexpected {other:?}"),
                }
            }
            drop(client);
        });
    }

    async fn go(&mut self) {
        self.reading.shutdown().await;
    }

    /// Waits until the device has so many messages and was told that what lies up to a position was delivered.
    async fn has(&mut self, messages: u64, delivered: u64) {
        let mut progress = self.taken.subscribe();
        let enough = progress.wait_for(|taken| taken.messages >= messages && taken.delivered >= delivered);
        expect("all events", async {
            tokio::select! {
                reached = enough => drop(reached.unwrap()),
                // What the reader found wrong is more than that it has ended.
                Some(ended) = self.reading.join_next() => panic!("its feed ended: {ended:?}"),
            }
        })
        .await;
    }
}

impl Taken {
    fn event(&mut self, event: &v1::Event) {
        assert!(event.position > self.last, "{} came after {}", event.position, self.last);
        self.last = event.position;
        match event.body.as_ref().expect("a body") {
            Body::Message(_) | Body::Changed(_) => self.messages += 1,
            Body::Receipt(receipt) => self.delivered = self.delivered.max(receipt.upto),
        }
    }
}

/// A device that sends, one message after the other, and what was accepted.
struct Writer {
    _client: RawClient,
    lane: RawStream,
    person: Person,
    record: Arc<Record>,
    to: AccountId,
    name: &'static str,
    number: u64,
    /// Position of the last one.
    last: u64,
}

impl Writer {
    /// Goes on behind the numbers that were used.
    async fn new(world: &World, device: &Device, to: AccountId, name: &'static str, number: u64) -> Self {
        let client = device.connect(world).await;
        let lane = client.publish().await;
        let (person, record) = (device.person.clone(), device.record.clone());
        Self { _client: client, lane, person, record, to, name, number, last: 0 }
    }

    async fn say(&mut self) {
        self.number += 1;
        let send = send(self.number, self.to, &format!("{} {}", self.name, self.number));
        self.record.sends(&self.person, &send);
        match self.lane.say(send.clone()).await {
            publish_down::Frame::Accepted(accepted) => {
                self.record.accepted(&self.person, &send, &accepted);
                self.last = accepted.position;
            }
            other => panic!("refused: {other:?}"),
        }
    }
}

/// Both sides write for a while.
async fn part(writers: &mut [Writer; 2]) {
    for _ in 0..PART {
        for writer in writers.iter_mut() {
            writer.say().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_devices_on_each_side_get_every_message_once_and_in_one_order() {
    three_on_each_side(false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn so_they_do_when_the_daemon_is_killed_in_between() {
    three_on_each_side(true).await;
}

async fn three_on_each_side(is_killed: bool) {
    let (mut world, record) = (World::start().await, Record::new());
    let mut devices = Vec::new();
    for handle in ["ada", "bob"] {
        devices.push(Device::new(world.sign_up(handle).await, &record));
        for _ in 0..2 {
            devices.push(Device::new(world.log_in(handle).await, &record));
        }
    }
    let (ada, bob) = (devices[0].person.account(), devices[3].person.account());
    for device in &mut devices {
        device.come(&world).await;
    }
    let mut writers = [
        Writer::new(&world, &devices[0], bob, "ada", 0).await,
        Writer::new(&world, &devices[3], ada, "bob", 0).await,
    ];
    part(&mut writers).await;
    // One device of each side is away for a while; one comes back before the daemon is killed, the other after.
    for away in [2, 5] {
        devices[away].go().await;
    }
    part(&mut writers).await;
    devices[2].come(&world).await;
    devices[2].has(4 * PART, 0).await;
    for device in &mut devices {
        device.go().await;
    }
    drop(writers);
    if is_killed {
        world.kill_and_restart().await;
    }
    for device in &mut devices {
        device.come(&world).await;
    }
    // The two that wrote go on under the numbers behind those they used.
    let mut writers = [
        Writer::new(&world, &devices[0], bob, "ada", 2 * PART).await,
        Writer::new(&world, &devices[3], ada, "bob", 2 * PART).await,
    ];
    part(&mut writers).await;
    for (at, device) in devices.iter_mut().enumerate() {
        // Who wrote a message had its answer and gets no event of it.
        let own = if at % 3 == 0 { 3 * PART } else { 0 };
        device.has(6 * PART - own, writers[at / 3].last).await;
    }
    record.assert_kept(Terms { gaps: false, receipts: true });
}

#[tokio::test]
async fn a_new_device_starts_from_now() {
    let world = World::start().await;
    let (ada, bob) = (world.sign_up("ada").await, world.sign_up("bob").await);
    let sender = ada.open().await;
    sender.send(bob.account(), "before").await.unwrap().accepted().await.unwrap();
    let tablet = world.log_in("bob").await;
    let phone = world.log_in("ada").await;
    sender.send(bob.account(), "after").await.unwrap().accepted().await.unwrap();
    for new in [tablet, phone] {
        let client = new.open().await;
        let mut events = client.events().await.unwrap();
        assert_eq!(text(&next_message(&mut events).await), "after");
    }
    // The one that was there before gets both.
    let client = bob.open().await;
    let mut events = client.events().await.unwrap();
    assert_eq!(text(&next_message(&mut events).await), "before");
    assert_eq!(text(&next_message(&mut events).await), "after");
}

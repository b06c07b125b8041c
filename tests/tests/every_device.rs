//! Promise: every event reaches every device of an account, the sender's other devices included, once and in one order,
//! wherever a device was meanwhile; a new device starts from now.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // Test code outside of #[test] functions.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use quail_protocol::id::AccountId;
use quail_protocol::v1::event::Body;
use quail_protocol::v1::{self, feed_down::Frame, publish_down};
use quail_tests::raw::{RawClient, RawStream, send};
use quail_tests::{Person, World, expect, next_message, text};
use tokio::task::JoinSet;

/// Messages from each side in each of the three parts of the test.
const PART: u64 = 20;

/// What a device was handed, in the order in which it came. Acknowledged as it comes.
#[derive(Default)]
struct Taken {
    messages: Vec<(u64, String)>,
    /// Stretches of positions that were delivered to the other side.
    receipts: Vec<(u64, u64)>,
    last: u64,
}

/// A device that speaks the wire by hand, so that it sees whatever the daemon would repeat.
struct Device {
    person: Person,
    taken: Arc<Mutex<Taken>>,
    reading: JoinSet<()>,
    attaches: u64,
}

impl Device {
    fn new(person: Person) -> Self {
        Self { person, taken: Arc::default(), reading: JoinSet::new(), attaches: 0 }
    }

    async fn connect(&self, world: &World) -> RawClient {
        RawClient::resume(&world.address(), self.person.credentials.token.as_bytes()).await
    }

    async fn come(&mut self, world: &World) {
        self.attaches += 1;
        let last = self.taken.lock().unwrap().last;
        let cursors = (last > 0).then_some(v1::Cursor { origin: 1, position: last }).into_iter().collect();
        let client = self.connect(world).await;
        let mut feed = client.attach(self.attaches, cursors).await;
        let taken = self.taken.clone();
        self.reading.spawn(async move {
            while let Some(frame) = feed.read::<v1::FeedDown>().await {
                match frame.frame {
                    Some(Frame::Event(event)) => {
                        taken.lock().unwrap().event(&event);
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
    async fn has(&mut self, messages: usize, delivered: u64) {
        expect("all events", async {
            loop {
                // What the reader found wrong is more than that it has ended.
                if let Some(ended) = self.reading.try_join_next() {
                    ended.unwrap();
                }
                {
                    let taken = self.taken.lock().unwrap();
                    let told = taken.receipts.iter().map(|(_, upto)| *upto).max().unwrap_or_default();
                    if taken.messages.len() >= messages && told >= delivered {
                        return;
                    }
                }
                tokio::time::sleep(Duration::from_millis(2)).await;
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
            Body::Message(message) => {
                let body = String::from_utf8(message.body.to_vec()).unwrap();
                self.messages.push((event.position, body));
            }
            Body::Receipt(receipt) => self.receipts.push((receipt.after, receipt.upto)),
        }
    }
}

/// A device that sends, one message after the other, and what was accepted.
struct Writer {
    _client: RawClient,
    lane: RawStream,
    to: AccountId,
    name: &'static str,
    sent: Vec<(u64, String)>,
}

impl Writer {
    async fn new(world: &World, device: &Device, to: AccountId, name: &'static str) -> Self {
        let client = device.connect(world).await;
        let lane = client.publish().await;
        Self { _client: client, lane, to, name, sent: Vec::new() }
    }

    async fn say(&mut self) {
        let number = self.sent.len() as u64 + 1;
        let body = format!("{} {number}", self.name);
        match self.lane.say(send(number, self.to, &body)).await {
            publish_down::Frame::Accepted(accepted) => self.sent.push((accepted.position, body)),
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
    let mut world = World::start().await;
    let mut devices = Vec::new();
    for handle in ["ada", "bob"] {
        devices.push(Device::new(world.sign_up(handle).await));
        for _ in 0..2 {
            devices.push(Device::new(world.log_in(handle).await));
        }
    }
    let (ada, bob) = (devices[0].person.account(), devices[3].person.account());
    for device in &mut devices {
        device.come(&world).await;
    }
    let mut writers = [
        Writer::new(&world, &devices[0], bob, "ada").await,
        Writer::new(&world, &devices[3], ada, "bob").await,
    ];
    part(&mut writers).await;
    // One device of each side is away for a while; one comes back before the daemon is killed, the other after.
    for away in [2, 5] {
        devices[away].go().await;
    }
    part(&mut writers).await;
    devices[2].come(&world).await;
    devices[2].has(4 * PART as usize, 0).await;
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
        Writer::new(&world, &devices[0], bob, "ada").await,
        Writer::new(&world, &devices[3], ada, "bob").await,
    ];
    for writer in &mut writers {
        writer.sent.resize(2 * PART as usize, (0, String::new()));
    }
    part(&mut writers).await;

    let (all, sent) = (6 * PART, 3 * PART);
    for (at, device) in devices.iter_mut().enumerate() {
        // Who wrote a message had its answer and gets no event of it.
        let own = if at % 3 == 0 { sent } else { 0 };
        let last = writers[at / 3].sent.last().unwrap().0;
        device.has((all - own) as usize, last).await;
    }
    let taken: Vec<_> = devices.iter().map(|device| device.taken.lock().unwrap()).collect();
    let list = &taken[1].messages;
    let bodies: BTreeMap<_, _> = list.iter().map(|(position, body)| (body.clone(), *position)).collect();
    assert_eq!(bodies.len() as u64, all, "every message once");
    for (at, taken) in taken.iter().enumerate() {
        let own = ["ada ", "bob "][at / 3];
        let expected: Vec<_> =
            list.iter().filter(|(_, body)| at % 3 != 0 || !body.starts_with(own)).cloned().collect();
        assert_eq!(taken.messages, expected, "device {at} has the same list");
        let mut receipts = taken.receipts.clone();
        receipts.sort_unstable();
        // Delivered is told once per message. A daemon that was killed has forgotten for which devices it was told, and
        // tells it again when another device takes the message.
        let is_once = receipts.windows(2).all(|pair| pair[0].1 <= pair[1].0);
        assert!(is_once || is_killed, "device {at}: {receipts:?}");
        let is_covered =
            |position: u64| receipts.iter().any(|(after, upto)| *after < position && position <= *upto);
        let mut own = list.iter().filter(|(_, body)| body.starts_with(own));
        assert!(own.all(|(position, _)| is_covered(*position)), "device {at}: {receipts:?}");
    }
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

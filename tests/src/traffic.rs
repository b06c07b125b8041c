//! Traffic over crashes: two who send, one who takes everything at once, one who is away.
//!
//! Whoever kills the daemon tells it here, and asks at the end whether every promise held. The two who send use the SDK,
//! which sends nothing again that was accepted before a crash: only the disk can bring that to anybody. The two who receive
//! speak the wire by hand and forget everything in between, so that they see whatever the daemon would repeat. What all of
//! them do and see is written down, and judged by the checker.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use quail_client::{AccountId, Client, Sending, new_message_id};
use quail_protocol::v1::event::Body;
use quail_protocol::v1::{self, feed_down::Frame};
use tokio::task::{JoinSet, yield_now};

use crate::checker::{Place, ReceiptKind, Terms, What, fingerprint};
use crate::raw::{RawClient, RawStream};
use crate::witness::Record;
use crate::{Person, World, expect};

/// Messages on the way from one sender, so that turns hold several and a crash meets some at every stage.
const AT_ONCE: usize = 16;

/// Most messages that wait for the one who is away, well below what an outbox holds.
const AWAY_MAX: usize = 6_000;

/// The people and what they did and saw.
pub struct Traffic {
    record: Arc<Record>,
    senders: Vec<Arc<Sender>>,
    sending: JoinSet<()>,
    stop: Arc<AtomicBool>,
    accepted: Arc<AtomicUsize>,
    bob: Person,
    online: JoinSet<()>,
    /// What came to the one who is online in the wrong order of positions.
    disorder: Arc<Mutex<Vec<String>>>,
    dora: Person,
    /// The last position that the one who is away has acknowledged.
    dora_took: u64,
    /// Attaches so far: every one needs a higher number.
    attaches: u64,
}

struct Sender {
    name: &'static str,
    client: Client,
    record: Arc<Record>,
    /// Messages whose receipt was not seen yet.
    sent: Mutex<Vec<Sent>>,
}

#[derive(Clone)]
struct Sent {
    sending: Sending,
    to: AccountId,
}

impl Traffic {
    /// Signs everybody up and begins.
    pub async fn begin(world: &World) -> Self {
        let record = Record::new();
        let (ada, cyd) = (world.sign_up("ada").await, world.sign_up("cyd").await);
        let (bob, dora) = (world.sign_up("bob").await, world.sign_up("dora").await);
        [&ada, &cyd, &bob, &dora].into_iter().for_each(|person| record.joins(person));
        let mut senders = Vec::new();
        for (name, person) in [("ada", ada), ("cyd", cyd)] {
            let client = person.open().await;
            client.watch_receipts().await.expect("the feed attaches");
            senders.push(Arc::new(Sender { name, client, record: record.clone(), sent: Mutex::default() }));
        }
        let mut traffic = Self {
            record,
            senders,
            sending: JoinSet::new(),
            stop: Arc::default(),
            accepted: Arc::default(),
            bob,
            online: JoinSet::new(),
            disorder: Arc::default(),
            dora,
            dora_took: 0,
            attaches: 0,
        };
        traffic.back(world);
        for sender in traffic.senders.clone() {
            let (stop, accepted) = (traffic.stop.clone(), traffic.accepted.clone());
            let to = [traffic.bob.account(), traffic.dora.account()];
            traffic.sending.spawn(async move { sender.run(to, &stop, &accepted).await });
        }
        traffic
    }

    /// Waits until so many more messages were accepted.
    pub async fn flows(&self, more: usize) {
        let wanted = self.accepted.load(Ordering::Relaxed) + more;
        expect("messages to be accepted", async {
            while self.accepted.load(Ordering::Relaxed) < wanted {
                tokio::time::sleep(std::time::Duration::from_millis(2)).await;
            }
        })
        .await;
    }

    /// Takes note that the daemon is dead.
    pub async fn crashed(&mut self) {
        // Its connection is of no more use, whatever it was about to do.
        self.online.shutdown().await;
        for sender in &self.senders {
            sender.note_receipts().await;
        }
        self.record.note(self.bob.credentials.device, What::Forgot);
    }

    /// Lets the one who is online come back, now that the daemon is.
    pub fn back(&mut self, world: &World) {
        self.attaches += 1;
        let (address, number, bob) = (world.address(), self.attaches, self.bob.clone());
        let (record, disorder) = (self.record.clone(), self.disorder.clone());
        self.online.spawn(async move {
            let client = RawClient::resume(&address, bob.credentials.token.as_bytes()).await;
            let mut feed = client.attach(number, vec![]).await;
            let mut last = 0;
            while let Some(frame) = feed.read::<v1::FeedDown>().await {
                if let Some(Frame::Event(event)) = frame.frame {
                    if event.position <= last {
                        let wrong = format!("{} came after {last}", event.position);
                        disorder.lock().expect("unharmed").push(wrong);
                    }
                    last = event.position;
                    record.event(&bob, &event);
                    feed.ack(event.origin, event.position).await;
                }
            }
        });
    }

    /// Lets the one who is away come, take everything that waits, and go again. Returns how many messages that were.
    pub async fn visit(&mut self, world: &World) -> usize {
        let (_client, mut feed) = self.attach_dora(world).await;
        let mut count = 0;
        loop {
            match feed.feed().await {
                Frame::Event(event) => {
                    assert!(matches!(event.body, Some(Body::Message(_))), "{event:?}");
                    self.record.event(&self.dora, &event);
                    feed.ack(event.origin, event.position).await;
                    self.dora_took = self.dora_took.max(event.position);
                    count += 1;
                }
                Frame::CaughtUp(_) => break,
                // A device that has forgotten what it took is told of a gap there, and nowhere else.
                Frame::Gap(gap) => {
                    let (upto, took) = (gap.upto, self.dora_took);
                    assert!(
                        upto <= took,
                        "a gap up to {upto}, but only what is up to {took} was acknowledged"
                    );
                }
                other => panic!("unexpected {other:?}"),
            }
        }
        // The receipts say that the acknowledgements arrived, and so that nothing of it may come again.
        let (dora, took) = (self.dora.account(), self.dora_took);
        for sender in &self.senders {
            for sent in sender.sent_to(dora) {
                if let Some(accepted) = ready(sent.sending.accepted()).await
                    && accepted.expect("accepted").position.0 <= took
                {
                    expect("a receipt", sent.sending.delivered()).await.expect("delivered");
                }
            }
            sender.note_receipts().await;
        }
        count
    }

    /// Stops, and lets the checker judge: all that was accepted has arrived once, receipts tell the truth, and nothing that was
    /// acknowledged comes again, not even after one more crash.
    pub async fn finish(mut self, world: &mut World) {
        self.stop.store(true, Ordering::Relaxed);
        while let Some(ended) = expect("the senders to end", self.sending.join_next()).await {
            ended.expect("a sender could send");
        }
        for sender in &self.senders {
            for sent in sender.sent_to(self.bob.account()) {
                expect("delivery and its receipt", sent.sending.delivered()).await.expect("delivered");
            }
            sender.note_receipts().await;
        }
        self.visit(world).await;
        self.crashed().await;
        world.kill_and_restart().await;
        self.visit(world).await;
        self.back(world);
        expect("nothing to be left over", async {
            while crate::hostile::metric(world, "quail_unacknowledged_events").await > 0.0 {}
        })
        .await;
        self.online.shutdown().await;
        self.record.assert_kept(Terms { gaps: false, receipts: true });
        let disorder = self.disorder.lock().expect("unharmed");
        assert!(disorder.is_empty(), "{disorder:?}");
    }

    async fn attach_dora(&mut self, world: &World) -> (RawClient, RawStream) {
        self.attaches += 1;
        let client = RawClient::resume(&world.address(), self.dora.credentials.token.as_bytes()).await;
        let feed = client.attach(self.attaches, vec![]).await;
        (client, feed)
    }
}

impl Sender {
    async fn run(&self, to: [AccountId; 2], stop: &AtomicBool, accepted: &AtomicUsize) {
        let mut number = 0;
        while !stop.load(Ordering::Relaxed) {
            let mut waiting = Vec::new();
            for _ in 0..AT_ONCE {
                number += 1;
                let to = to[usize::from(number % 2 == 0 && number < AWAY_MAX)];
                let body = format!("{} {number} {}", self.name, "x".repeat(number % 700));
                let id = new_message_id();
                self.note(What::Sent { id, to: vec![to], body: fingerprint(body.as_bytes()) });
                let sending = self.client.send_with_id(id, to, body).await.expect("the client is open");
                waiting.push(sending.clone());
                self.sent.lock().expect("unharmed").push(Sent { sending, to });
            }
            for sending in waiting {
                let answer = sending.accepted().await.expect("accepted");
                let place = Place { origin: answer.origin, position: answer.position, stamp: answer.stamp };
                self.note(What::Accepted { id: sending.id(), place });
                accepted.fetch_add(1, Ordering::Relaxed);
            }
            yield_now().await;
        }
    }

    fn note(&self, what: What) {
        self.record.note(self.client.device(), what);
    }

    /// Writes down the receipts that came since it was asked last.
    async fn note_receipts(&self) {
        let mut left = Vec::new();
        let sent = std::mem::take(&mut *self.sent.lock().expect("unharmed"));
        for sent in sent {
            match ready(sent.sending.delivered()).await {
                Some(delivered) => {
                    delivered.expect("delivered");
                    let (id, reader) = (sent.sending.id(), sent.to);
                    self.note(What::Receipt { id, reader, kind: ReceiptKind::Delivered });
                }
                None => left.push(sent),
            }
        }
        // What was sent meanwhile stands behind it.
        self.sent.lock().expect("unharmed").splice(0..0, left);
    }

    /// Returns what was sent to somebody and has no receipt yet.
    fn sent_to(&self, to: AccountId) -> Vec<Sent> {
        self.sent.lock().expect("unharmed").iter().filter(|sent| sent.to == to).cloned().collect()
    }
}

async fn ready<T>(future: impl Future<Output = T>) -> Option<T> {
    tokio::select! {
        biased;
        value = future => Some(value),
        () = std::future::ready(()) => None,
    }
}

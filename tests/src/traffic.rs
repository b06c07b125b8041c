//! Traffic over crashes: two who send, one who takes everything at once, one who is away.
//!
//! Whoever kills the daemon tells it here, and asks at the end whether every promise held. The two who send use the SDK,
//! which sends nothing again that was accepted before a crash: only the disk can bring that to anybody. The two who receive
//! speak the wire by hand and forget everything in between, so that they see whatever the daemon would repeat.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use quail_client::{AccountId, Client, Sending};
use quail_protocol::v1::event::Body;
use quail_protocol::v1::{self, feed_down::Frame};
use tokio::task::{JoinSet, yield_now};

use crate::raw::{RawClient, RawStream};
use crate::{Person, World, expect};

/// Messages on the way from one sender, so that turns hold several and a crash meets some at every stage.
const AT_ONCE: usize = 16;

/// Most messages that wait for the one who is away, well below what an outbox holds.
const AWAY_MAX: usize = 6_000;

/// The people and what they saw.
pub struct Traffic {
    senders: Vec<Arc<Sender>>,
    sending: JoinSet<()>,
    stop: Arc<AtomicBool>,
    accepted: Arc<AtomicUsize>,
    bob: Person,
    online: JoinSet<()>,
    taken: Arc<Mutex<Taken>>,
    dora: Person,
    dora_took: HashSet<u64>,
    /// Attaches so far: every one needs a higher number.
    attaches: u64,
}

struct Sender {
    name: &'static str,
    client: Client,
    sent: Mutex<Vec<Sent>>,
}

#[derive(Clone)]
struct Sent {
    sending: Sending,
    to: AccountId,
    body: String,
}

/// What the one who is online was handed.
#[derive(Default)]
struct Taken {
    by_position: HashMap<u64, String>,
    /// Positions whose acknowledgement is durable: their senders have the receipt.
    settled: HashSet<u64>,
    /// What should not have happened.
    wrong: Vec<String>,
}

impl Traffic {
    /// Signs everybody up and begins.
    pub async fn begin(world: &World) -> Self {
        let (ada, cyd) = (world.sign_up("ada").await, world.sign_up("cyd").await);
        let (bob, dora) = (world.sign_up("bob").await, world.sign_up("dora").await);
        let mut senders = Vec::new();
        for (name, person) in [("ada", ada), ("cyd", cyd)] {
            let client = person.open().await;
            client.watch_receipts().await.expect("the feed attaches");
            senders.push(Arc::new(Sender { name, client, sent: Mutex::default() }));
        }
        let mut traffic = Self {
            senders,
            sending: JoinSet::new(),
            stop: Arc::default(),
            accepted: Arc::default(),
            bob,
            online: JoinSet::new(),
            taken: Arc::default(),
            dora,
            dora_took: HashSet::new(),
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
        for sent in self.sent_to(self.bob.account()) {
            if is_ready(sent.sending.delivered()).await {
                let accepted = expect("what came before the receipt", sent.sending.accepted()).await;
                let position = accepted.expect("accepted").position.0;
                self.taken.lock().expect("unharmed").settled.insert(position);
            }
        }
    }

    /// Lets the one who is online come back, now that the daemon is.
    pub fn back(&mut self, world: &World) {
        self.attaches += 1;
        let (address, number, taken) = (world.address(), self.attaches, self.taken.clone());
        let token = self.bob.credentials.token.clone();
        self.online.spawn(async move {
            let client = RawClient::resume(&address, token.as_bytes()).await;
            let mut feed = client.attach(number, vec![]).await;
            let mut last = 0;
            while let Some(frame) = feed.read::<v1::FeedDown>().await {
                if let Some(Frame::Event(event)) = frame.frame {
                    taken.lock().expect("unharmed").event(&event, &mut last);
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
                    let position = event.position;
                    assert!(
                        self.dora_took.insert(position),
                        "{position} came again after its acknowledgement"
                    );
                    feed.ack(event.origin, position).await;
                    count += 1;
                }
                Frame::CaughtUp(_) => break,
                Frame::Gap(gap) => self.check_gap(&gap),
                other => panic!("unexpected {other:?}"),
            }
        }
        // The receipts say that the acknowledgements arrived.
        for sent in self.sent_to(self.dora.account()) {
            if let Some(accepted) = ready(sent.sending.accepted()).await
                && self.dora_took.contains(&accepted.expect("accepted").position.0)
            {
                expect("a receipt", sent.sending.delivered()).await.expect("delivered");
            }
        }
        count
    }

    /// Stops, and checks everything: all that was accepted has arrived once, receipts tell the truth, and nothing that was
    /// acknowledged comes again, not even after one more crash.
    pub async fn finish(mut self, world: &mut World) {
        self.stop.store(true, Ordering::Relaxed);
        while let Some(ended) = expect("the senders to end", self.sending.join_next()).await {
            ended.expect("a sender could send");
        }
        let (bob, dora) = (self.bob.account(), self.dora.account());
        for sent in self.sent_to(bob) {
            let accepted = expect("an answer", sent.sending.accepted()).await.expect("accepted");
            expect("delivery and its receipt", sent.sending.delivered()).await.expect("delivered");
            let taken = self.taken.lock().expect("unharmed");
            let body = taken.by_position.get(&accepted.position.0);
            assert_eq!(body, Some(&sent.body), "delivered without having arrived");
        }
        let mut of_dora = HashSet::new();
        for sent in self.sent_to(dora) {
            let position = expect("an answer", sent.sending.accepted()).await.expect("accepted").position.0;
            assert!(of_dora.insert(position), "two messages at {position}");
            if !self.dora_took.contains(&position) {
                assert!(!is_ready(sent.sending.delivered()).await, "delivered to somebody who is away");
            }
        }
        self.visit(world).await;
        assert!(self.dora_took == of_dora, "{} arrived of {}", self.dora_took.len(), of_dora.len());
        {
            let taken = self.taken.lock().expect("unharmed");
            assert!(taken.wrong.is_empty(), "{:?}", taken.wrong);
            assert_eq!(taken.by_position.len(), self.sent_to(bob).len(), "and nothing else");
        }
        self.crashed().await;
        world.kill_and_restart().await;
        assert_eq!(self.visit(world).await, 0);
        self.back(world);
        expect("nothing to be left over", async {
            while crate::hostile::metric(world, "quail_unacknowledged_events").await > 0.0 {}
        })
        .await;
        self.online.shutdown().await;
        let taken = self.taken.lock().expect("unharmed");
        assert!(taken.wrong.is_empty(), "{:?}", taken.wrong);
    }

    fn sent_to(&self, to: AccountId) -> Vec<Sent> {
        let mut all = Vec::new();
        for sender in &self.senders {
            all.extend(sender.sent.lock().expect("unharmed").iter().filter(|sent| sent.to == to).cloned());
        }
        all
    }

    async fn attach_dora(&mut self, world: &World) -> (RawClient, RawStream) {
        self.attaches += 1;
        let client = RawClient::resume(&world.address(), self.dora.credentials.token.as_bytes()).await;
        let feed = client.attach(self.attaches, vec![]).await;
        (client, feed)
    }

    /// A device that has forgotten what it took is told of a gap there, and nowhere else.
    fn check_gap(&self, gap: &v1::Gap) {
        let took = self.dora_took.iter().max().copied().unwrap_or_default();
        let upto = gap.upto;
        assert!(upto <= took, "a gap up to {upto}, but only what is up to {took} was acknowledged");
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
                let sending = self.client.send(to, body.clone()).await.expect("the client is open");
                waiting.push(sending.clone());
                self.sent.lock().expect("unharmed").push(Sent { sending, to, body });
            }
            for sending in waiting {
                sending.accepted().await.expect("accepted");
                accepted.fetch_add(1, Ordering::Relaxed);
            }
            yield_now().await;
        }
    }
}

impl Taken {
    fn event(&mut self, event: &v1::Event, last: &mut u64) {
        let position = event.position;
        if position <= *last {
            self.wrong.push(format!("{position} came after {last}"));
        }
        *last = position;
        if self.settled.contains(&position) {
            self.wrong.push(format!("{position} came again after its acknowledgement"));
        }
        let Some(Body::Message(message)) = &event.body else { return };
        let body = String::from_utf8_lossy(&message.body).into_owned();
        match self.by_position.insert(position, body.clone()) {
            Some(before) if before != body => {
                self.wrong.push(format!("{position} was {before:?}, is {body:?}"));
            }
            _ => {}
        }
    }
}

async fn is_ready(future: impl Future) -> bool {
    ready(future).await.is_some()
}

async fn ready<T>(future: impl Future<Output = T>) -> Option<T> {
    tokio::select! {
        biased;
        value = future => Some(value),
        () = std::future::ready(()) => None,
    }
}

//! What every test with a hostile peer asks: did anybody else notice, and what did it cost the daemon?
//!
//! The limits are those of a debug build on a machine with two busy cores that also runs the attacker: wide enough not to
//! fail by bad luck, and far below what the daemon does when a limit of its own is missing.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use quail_client::{Client, Events};
use quail_protocol::v1;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::{World, expect, text};

/// Most time that the slowest but one of a hundred messages between two others may take to be accepted.
pub const CONFIRM_P99_MAX: Duration = Duration::from_millis(500);

/// Most memory that one hostile peer may make the daemon take, in bytes.
pub const GROWTH_MAX: u64 = 64 * 1024 * 1024;

/// How many messages others exchange at least while somebody misbehaves.
const MESSAGES_MIN: usize = 100;

/// Two people who only want to talk.
pub struct Bystanders {
    /// Away only while they are watched.
    talk: Option<Talk>,
}

struct Talk {
    sender: Client,
    receiver: Events,
    recipient: quail_client::AccountId,
    _receiver: Client,
}

/// What the bystanders saw.
#[derive(Debug)]
pub struct Seen {
    /// Time from a send to its answer, sorted.
    confirms: Vec<Duration>,
    /// Growth of the daemon's resident memory at its highest.
    pub growth: u64,
}

impl Seen {
    /// Returns the time within which 99 of 100 messages were accepted.
    pub fn p99(&self) -> Duration {
        self.confirms[(self.confirms.len() * 99).div_ceil(100) - 1]
    }

    /// Fails the test if anybody was disturbed or the daemon took more memory than it may.
    pub fn assert_undisturbed(&self) {
        let (p99, mib) = (self.p99(), self.growth / (1024 * 1024));
        eprintln!("{} messages of others, confirm p99 {p99:?}, memory +{mib} MiB", self.confirms.len());
        assert!(p99 <= CONFIRM_P99_MAX, "others waited {p99:?}");
        assert!(self.growth <= GROWTH_MAX, "the daemon grew by {mib} MiB");
    }
}

impl Bystanders {
    /// Signs two people up and connects them.
    pub async fn join(world: &World) -> Self {
        let (ada, bob) = (world.sign_up("by.ada").await, world.sign_up("by.bob").await);
        let (sender, receiver_client) = (ada.open().await, bob.open().await);
        let receiver = receiver_client.events().await.expect("the first to ask");
        Self { talk: Some(Talk { sender, receiver, recipient: bob.account(), _receiver: receiver_client }) }
    }

    /// Lets them talk while `mischief` is done, and for a hundred messages at least. Every message must arrive.
    pub async fn watch<T>(&mut self, world: &World, mischief: impl Future<Output = T>) -> (T, Seen) {
        let pid = world.daemon.pid().expect("the daemon runs");
        // Begins the high-water mark anew (proc(5), clear_refs).
        std::fs::write(format!("/proc/{pid}/clear_refs"), "5").expect("the process is ours");
        let before = memory(pid, "VmRSS");
        let mut talk = self.talk.take().expect("one watch at a time");
        let done = Arc::new(AtomicBool::new(false));
        let is_done = done.clone();
        // On a task of their own: a hostile peer keeps its own task busy.
        let mut talking = JoinSet::new();
        talking.spawn(async move {
            let mut confirms = Vec::new();
            while !is_done.load(Ordering::Relaxed) || confirms.len() < MESSAGES_MIN {
                confirms.push(talk.exchange(confirms.len()).await);
            }
            (talk, confirms)
        });
        let value = mischief.await;
        done.store(true, Ordering::Relaxed);
        let (talk, mut confirms) = talking.join_next().await.expect("they talk").expect("they could talk");
        self.talk = Some(talk);
        confirms.sort_unstable();
        let growth = memory(pid, "VmHWM").saturating_sub(before);
        (value, Seen { confirms, growth })
    }
}

impl Talk {
    /// Sends one message, waits until it is accepted and has arrived, and returns the time until the former.
    async fn exchange(&mut self, number: usize) -> Duration {
        let body = format!("message {number}");
        let began = Instant::now();
        let sending = expect("room to send", self.sender.send(self.recipient, body.clone())).await;
        expect("an answer", sending.expect("sent").accepted()).await.expect("accepted");
        let confirm = began.elapsed();
        assert_eq!(text(&crate::next_message(&mut self.receiver).await), body);
        confirm
    }
}

/// Returns a figure of `/proc/PID/status` in bytes.
pub fn memory(pid: u32, field: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("the process lives");
    let line = status.lines().find(|line| line.starts_with(field)).expect("the kernel tells it");
    let kib: u64 = line.split_whitespace().nth(1).expect("a number").parse().expect("a number");
    kib * 1024
}

/// Returns every sample of `/metrics` by its name with labels.
pub async fn metrics(world: &World) -> BTreeMap<String, f64> {
    let (status, body) = get(world, "/metrics").await;
    assert_eq!(status, 200, "{body}");
    let samples = body.lines().filter(|line| !line.starts_with('#'));
    let sample = |line: &str| {
        let (name, value) = line.rsplit_once(' ').expect("a name and a value");
        (name.to_owned(), value.parse().expect("a number"))
    };
    samples.map(sample).collect()
}

/// Returns one sample, zero if there is none yet.
pub async fn metric(world: &World, name: &str) -> f64 {
    metrics(world).await.get(name).copied().unwrap_or_default()
}

/// Returns how often peers were refused for a reason.
pub async fn refusals(world: &World, reason: v1::Reason) -> f64 {
    metric(world, &format!("quail_refusals_total{{reason=\"{}\"}}", reason.as_str_name())).await
}

/// Returns how many connections were closed for a reason.
pub async fn closed(world: &World, reason: v1::Reason) -> f64 {
    metric(world, &format!("quail_closed_total{{reason=\"{}\"}}", reason.as_str_name())).await
}

/// Returns status and body of a page of the ops port.
pub async fn get(world: &World, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(world.ops_address()).await.expect("the ops port answers");
    let request = format!("GET {path} HTTP/1.1\r\nHost: quail\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.expect("asked");
    let mut answer = String::new();
    expect("an answer", stream.read_to_string(&mut answer)).await.expect("text");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
    let status = head.split(' ').nth(1).expect("a status").parse().expect("a number");
    (status, body.to_owned())
}

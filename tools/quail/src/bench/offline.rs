//! A backlog for somebody who is away: how fast it is stored, how fast it is handed out.
//!
//! One sender, one recipient. The recipient's device has a session and is away while the sender stores; then it connects,
//! and what counts is the time until its last acknowledgement is journalled, which the sender's last receipt tells.
//!
//! Invariant: a backlog is never larger than an outbox holds, so whatever does not come is missing.

use std::time::{Duration, Instant};

use quail_checker::{Entry, Key, Place, ReceiptKind, Terms, What, judge};
use quail_client::{Accepted, Address, Client, Credentials, Event, MemoryStore, Message, MessageId, Sending};
use quail_protocol::limits::SENDS_UNANSWERED_MAX;
use serde::Serialize;

use super::check::Verdict;
use super::message::{Stub, Writer};
use super::report::per_second;
use super::server::Server;
use super::{BenchError, DRAIN_TIMEOUT, Phase, Step, Target, Watch, users};

/// Most messages that wait for an account: the server's limit.
pub const MESSAGES_MAX: usize = 10_000;

/// Most bytes that wait for an account: the server's limit.
pub const OUTBOX_BYTES_MAX: usize = 32 * 1024 * 1024;

/// What a message takes in an outbox besides its body, at the most.
const FRAME_BYTES: usize = 192;

/// How many messages are stored between two words on progress.
const PROGRESS_MESSAGES: u64 = 256;

/// How many entries of a log a message takes on its whole way.
const ENTRIES_PER_MESSAGE: usize = 5;

/// The sender's number; the recipient sends nothing.
const SENDER: u32 = 0;

/// What to store.
#[derive(Clone, Debug)]
pub struct OfflineOptions {
    /// The server.
    pub target: Target,
    /// How many messages.
    pub messages: usize,
    /// Length of a body in bytes, from [`SIZE_MIN`](super::SIZE_MIN).
    pub size: usize,
}

/// What was found. Serializes as the object that `quail bench offline --json` prints.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct OfflineReport {
    /// Messages accepted per second while the recipient was away.
    pub store_per_s: f64,
    /// Messages per second from the recipient's first packet to its last acknowledgement, journalled.
    pub drain_per_s: f64,
    /// Messages that were accepted and not shown.
    pub missing: u64,
    /// Messages that were shown again.
    pub duplicates: u64,
    /// Messages that were not what was sent, or not in the order in which it was.
    pub altered: u64,
    /// Messages whose receipt did not come back.
    pub undelivered: u64,
    /// How many messages.
    pub messages: usize,
    /// Length of a body in bytes.
    pub size: usize,
    /// Seconds that storing took.
    pub store_s: f64,
    /// Seconds that the drain took.
    pub drain_s: f64,
    /// Messages that were sent again, because the server refused them for now.
    pub resent: u64,
    /// Processors of this machine.
    pub cores: usize,
    /// The version of this program.
    pub version: &'static str,
}

impl OfflineReport {
    /// Returns whether everything accepted was shown once, unaltered, and its receipt came back.
    pub fn is_flawless(&self) -> bool {
        self.missing == 0 && self.duplicates == 0 && self.altered == 0 && self.undelivered == 0
    }
}

/// Says why an outbox does not hold a backlog, if it does not.
pub fn too_much(messages: usize, size: usize) -> Option<String> {
    if messages > MESSAGES_MAX {
        return Some(format!("{messages} messages are more than the {MESSAGES_MAX} that an outbox holds"));
    }
    let bytes = messages.saturating_mul(size.saturating_add(FRAME_BYTES));
    let fits = OUTBOX_BYTES_MAX / size.saturating_add(FRAME_BYTES);
    (bytes > OUTBOX_BYTES_MAX).then(|| {
        format!(
            "{messages} messages of {size} bytes are more than the 32 MiB that an outbox holds; {fits} fit"
        )
    })
}

/// Measures. Dropping the future ends it and everything it started.
///
/// # Errors
/// [`BenchError::TooMuch`] for a backlog that no outbox holds, and whatever hinders the measurement.
pub async fn run(options: OfflineOptions, watch: &mut Watch<'_>) -> Result<OfflineReport, BenchError> {
    if let Some(why) = too_much(options.messages, options.size) {
        return Err(BenchError::TooMuch(why));
    }
    let mut server = Server::start(&options.target).await?;
    let credentials = server.provision(2, watch).await?;
    let [sender, recipient] = &credentials[..] else {
        return Err(BenchError::Accounts { expected: 2, got: credentials.len() });
    };
    let address = server.address();
    let client = Client::open(address, sender, MemoryStore::new(), users::options(None)).await;
    let client = client.map_err(BenchError::client("connect"))?;
    client.watch_receipts().await.map_err(BenchError::client("attach"))?;

    let mut log = Log::new(sender, recipient, options.messages);
    let mut stored = store(&client, &mut log, &options, watch).await?;
    let mut drain = Drain { log, shown: 0, of: options.messages as u64, last: stored.sendings.pop() };
    let began = Instant::now();
    // What has not come by then is missing.
    let drained = tokio::time::timeout(DRAIN_TIMEOUT, drain.run(address, recipient, watch));
    drained.await.unwrap_or(Ok(()))?;
    let drained = began.elapsed();

    for sending in &stored.sendings {
        // The last receipt is here, so all are, or they will not come.
        if let Some(Ok(())) = users::ready(sending.delivered()) {
            drain.log.delivered(sending);
        }
    }
    let verdict = drain.log.verdict();
    let report = OfflineReport {
        store_per_s: per_second(options.messages as u64, stored.time),
        drain_per_s: per_second(drain.shown, drained),
        missing: verdict.missing,
        duplicates: verdict.duplicates,
        altered: verdict.altered,
        undelivered: verdict.undelivered,
        messages: options.messages,
        size: options.size,
        store_s: stored.time.as_secs_f64(),
        drain_s: drained.as_secs_f64(),
        resent: client.stats().resent,
        cores: super::chat::cores(),
        version: env!("CARGO_PKG_VERSION"),
    };
    // Everything is answered; whether the server hears of the end does not matter.
    let _ = client.close().await;
    Ok(report)
}

/// What was stored.
struct Stored {
    sendings: Vec<Sending>,
    time: Duration,
}

async fn store(
    client: &Client,
    log: &mut Log,
    options: &OfflineOptions,
    watch: &mut Watch<'_>,
) -> Result<Stored, BenchError> {
    let of = options.messages as u64;
    let mut writer = Writer::new(options.size);
    let mut sendings: Vec<Sending> = Vec::with_capacity(options.messages);
    let began = Instant::now();
    for number in 0..of + SENDS_UNANSWERED_MAX as u64 {
        if number < of {
            let (id, body) = writer.write(&Stub { sender: SENDER, number, due: began.elapsed() });
            log.sends(id, number);
            let sending = client.send_with_id(id, log.recipient.account, body).await;
            sendings.push(sending.map_err(BenchError::client("send"))?);
        }
        // Answers are waited for a window later, so that the lane never runs dry.
        let Some(answer) = number.checked_sub(SENDS_UNANSWERED_MAX as u64) else { continue };
        if let Some(sending) = sendings.get(answer as usize) {
            let accepted = sending.accepted().await.map_err(BenchError::Refused)?;
            log.accepted(sending, &accepted);
        }
        if answer.is_multiple_of(PROGRESS_MESSAGES) {
            watch(Step { phase: Phase::Store, done: answer, of });
        }
    }
    Ok(Stored { sendings, time: began.elapsed() })
}

/// The recipient's return.
struct Drain {
    log: Log,
    shown: u64,
    of: u64,
    /// The message whose receipt ends the drain; nothing once it is here.
    last: Option<Sending>,
}

impl Drain {
    async fn run(
        &mut self,
        address: &Address,
        recipient: &Credentials,
        watch: &mut Watch<'_>,
    ) -> Result<(), BenchError> {
        let client = Client::open(address, recipient, MemoryStore::new(), users::options(None)).await;
        let client = client.map_err(BenchError::client("connect the recipient"))?;
        let mut events = client.events().await.map_err(BenchError::client("attach the recipient"))?;
        while let Some(last) = &self.last {
            let delivery = tokio::select! {
                biased;
                delivery = events.next() => delivery.map_err(BenchError::client("receive"))?,
                received = last.delivered() => {
                    received.map_err(BenchError::Refused)?;
                    self.log.delivered(last);
                    self.last = None;
                    continue;
                }
            };
            if let Event::Message(message) = &delivery.event {
                self.log.shown(message);
                self.shown += 1;
                if self.shown.is_multiple_of(PROGRESS_MESSAGES) {
                    watch(Step { phase: Phase::Measure, done: self.shown, of: self.of });
                }
            }
            delivery.acknowledge();
        }
        // What comes again would come now.
        while let Some(delivery) = events.try_next() {
            if let Event::Message(message) = &delivery.event {
                self.log.shown(message);
            }
        }
        // Everything is acknowledged; whether the server hears of the end does not matter.
        let _ = client.close().await;
        Ok(())
    }
}

/// What both devices did and saw, whole: a backlog has a limit.
struct Log {
    sender: Credentials,
    recipient: Credentials,
    entries: Vec<Entry>,
}

impl Log {
    fn new(sender: &Credentials, recipient: &Credentials, messages: usize) -> Self {
        let (sender, recipient) = (sender.clone(), recipient.clone());
        let joined =
            |one: &Credentials| Entry { device: one.device, what: What::Joined { account: one.account } };
        let mut entries = Vec::with_capacity(2 + ENTRIES_PER_MESSAGE * messages);
        entries.extend([joined(&sender), joined(&recipient)]);
        Self { sender, recipient, entries }
    }

    fn sends(&mut self, id: MessageId, number: u64) {
        let (device, to) = (self.sender.device, vec![self.recipient.account]);
        self.entries.push(Entry { device, what: What::Sent { id, to, body: number } });
    }

    fn accepted(&mut self, sending: &Sending, accepted: &Accepted) {
        let place = Place { origin: accepted.origin, position: accepted.position, stamp: accepted.stamp };
        let what = What::Accepted { id: sending.id(), place };
        self.entries.push(Entry { device: self.sender.device, what });
    }

    fn delivered(&mut self, sending: &Sending) {
        let (reader, kind) = (self.recipient.account, ReceiptKind::Delivered);
        let what = What::Receipt { id: sending.id(), reader, kind };
        self.entries.push(Entry { device: self.sender.device, what });
    }

    /// A message is shown, and about to be acknowledged.
    fn shown(&mut self, message: &Message) {
        // A body that says what it should is as good as the one that was sent.
        let body =
            Stub::of(message).filter(|stub| stub.sender == SENDER).map_or(u64::MAX, |stub| stub.number);
        let place = Place { origin: message.origin, position: message.position, stamp: message.stamp };
        let (device, message) = (self.recipient.device, Key { sender: message.sender, id: message.id });
        self.entries.push(Entry { device, what: What::Shown { message, body, place } });
        self.entries.push(Entry { device, what: What::Acknowledged { message } });
    }

    fn verdict(&self) -> Verdict {
        let mut verdict = Verdict::default();
        verdict.add(&judge(&self.entries, Terms { gaps: false, receipts: true }));
        verdict
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backlog_that_no_outbox_holds_is_told_with_what_fits() {
        assert_eq!(too_much(10_000, 256), None);
        assert!(too_much(10_001, 256).unwrap().contains("10000"));
        let text = too_much(1000, 60 * 1024).unwrap();
        assert!(text.contains("32 MiB") && text.ends_with("544 fit"), "{text}");
        assert_eq!(too_much(544, 60 * 1024), None);
    }
}

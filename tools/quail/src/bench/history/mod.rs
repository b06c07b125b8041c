//! Reading history: what a page of each kind takes, from an archive that is filled.
//!
//! One reader with many conversations. It writes most of what is in them and its peers the rest, so a part is unread; in all of them
//! stands one word, in few another one. Then one client asks for pages of each kind, one after the other.
//!
//! Invariant: what was filled is read whole once before anything is measured, so figures of an archive that lacks something come with
//! that fact.

mod fill;

use std::time::{Duration, Instant};

use quail_client::{AccountId, Client, Direction, Error, MemoryStore};
use serde::Serialize;

use super::report::{Times, micro, per_second};
use super::server::Server;
use super::{BenchError, Latency, Phase, Step, Target, Watch, users};

/// Most conversations that are filled.
pub const CONVERSATIONS_MAX: u32 = 10_000;

/// Most messages that are filled.
pub const MESSAGES_MAX: u32 = 10_000_000;

/// Most pages of each kind.
pub const PAGES_MAX: u32 = 100_000;

/// Messages of one page.
const PAGE: u32 = 50;

/// How long the archive may take for what was filled.
const ARCHIVE_TIMEOUT: Duration = Duration::from_secs(600);

/// What to measure.
#[derive(Clone, Debug)]
pub struct HistoryOptions {
    /// The server, which keeps history.
    pub target: Target,
    /// How many conversations the reader has, up to [`CONVERSATIONS_MAX`].
    pub conversations: u32,
    /// How many messages there are in all of them, up to [`MESSAGES_MAX`].
    pub messages: u32,
    /// How many pages of each kind are asked for, up to [`PAGES_MAX`].
    pub pages: u32,
}

/// Pages of one kind.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Pages {
    /// How many a second, one asked for when the one before is here.
    pub pages_per_s: f64,
    /// How long one takes, in milliseconds.
    pub page_ms: Latency,
}

/// What was found. Serializes as the object that `quail bench history --json` prints.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct HistoryReport {
    /// The newest conversations, 50 a page.
    pub list: Pages,
    /// The newest messages of one conversation, 50 a page.
    pub first_page: Pages,
    /// Pages of a conversation one after the other, from the newest message back.
    pub browse: Pages,
    /// A word that stands in one of a thousand messages.
    pub search_rare: Pages,
    /// A word that stands in all of them.
    pub search_common: Pages,
    /// Messages that were accepted and are not in the archive.
    pub missing: u64,
    /// Conversations that were filled.
    pub conversations: u32,
    /// Messages that were filled.
    pub messages: u32,
    /// Pages of each kind.
    pub pages: u32,
    /// Seconds that filling took, up to the last message in the archive.
    pub fill_s: f64,
    /// Processors of this machine.
    pub cores: usize,
    /// The version of this program.
    pub version: &'static str,
}

impl HistoryReport {
    /// Returns whether everything accepted is in the archive.
    pub fn is_flawless(&self) -> bool {
        self.missing == 0
    }
}

/// Measures. Dropping the future ends it and everything it started.
///
/// # Errors
/// Whatever hinders the measurement.
pub async fn run(options: HistoryOptions, watch: &mut Watch<'_>) -> Result<HistoryReport, BenchError> {
    let mut server = Server::start(&options.target).await?;
    let credentials = server.provision(options.conversations as usize + 1, watch).await?;
    let Some((own, peers)) = credentials.split_first() else {
        return Err(BenchError::Accounts { expected: 1, got: 0 });
    };
    let began = Instant::now();
    let client = Client::open(server.address(), own, MemoryStore::new(), users::options(None)).await;
    let client = client.map_err(BenchError::client("connect"))?;
    fill::fill(&client, server.address(), peers, options.messages, watch).await?;
    let archived = tokio::time::timeout(ARCHIVE_TIMEOUT, archived(&client, peers.len()));
    archived.await.map_err(|_| BenchError::Stuck { what: "the archive" })??;
    let fill_s = micro(began.elapsed().as_secs_f64());
    let peers: Vec<_> = peers.iter().map(|peer| peer.account).collect();
    let missing = missing(&client, &peers, options.messages).await?;

    let mut asking = Asking { client: &client, peers: &peers, pages: options.pages, kind: 0, watch };
    let list = asking.pages(async |client, _| client.conversations().next_page().await.map(drop)).await?;
    let first_page = asking
        .pages(async |client, peer| {
            client.history(peer, Direction::Older, None, PAGE).next_page().await.map(drop)
        })
        .await?;
    let browse = asking.browse().await?;
    let search =
        async |client: &Client, word: &str| client.search(word, None, PAGE).next_page().await.map(drop);
    let search_rare = asking.pages(async |client, _| search(client, fill::RARE).await).await?;
    let search_common = asking.pages(async |client, _| search(client, fill::COMMON).await).await?;
    // Everything is answered; whether the server hears of the end does not matter.
    let _ = client.close().await;
    let HistoryOptions { conversations, messages, pages, .. } = options;
    Ok(HistoryReport {
        list,
        first_page,
        browse,
        search_rare,
        search_common,
        missing,
        conversations,
        messages,
        pages,
        fill_s,
        cores: super::chat::cores(),
        version: env!("CARGO_PKG_VERSION"),
    })
}

/// Waits until the archive has everything: what this client sent, and something of everybody.
async fn archived(client: &Client, peers: usize) -> Result<(), BenchError> {
    loop {
        let (mut pager, mut found, mut is_behind) = (client.conversations(), 0, false);
        while let Some(page) = pager.next_page().await.map_err(BenchError::client("list conversations"))? {
            found += page.items.len();
            is_behind |= page.archived.behind;
        }
        if found >= peers && !is_behind {
            return Ok(());
        }
    }
}

/// Reads everything once and returns how much of it is not there.
async fn missing(client: &Client, peers: &[AccountId], messages: u32) -> Result<u64, BenchError> {
    let mut found = 0;
    for peer in peers {
        let mut pager = client.history(*peer, Direction::Newer, None, 100);
        while let Some(page) = pager.next_page().await.map_err(BenchError::client("read history"))? {
            found += page.items.iter().filter(|message| message.is_archived()).count() as u64;
        }
    }
    Ok(u64::from(messages).saturating_sub(found))
}

/// One client that asks for page after page.
struct Asking<'a, 'w> {
    client: &'a Client,
    peers: &'a [AccountId],
    pages: u32,
    /// How many kinds are done.
    kind: u64,
    watch: &'a mut Watch<'w>,
}

/// How many kinds of pages there are.
const KINDS: u64 = 5;

impl Asking<'_, '_> {
    /// Asks for pages of a kind, of one peer after the other where it is about one.
    async fn pages(
        &mut self,
        ask: impl AsyncFn(&Client, AccountId) -> Result<(), Error>,
    ) -> Result<Pages, BenchError> {
        let (mut times, began) = (Times::new(), Instant::now());
        let peers = self.peers.iter().cycle().take(self.pages as usize);
        for (number, peer) in peers.enumerate() {
            let asked = Instant::now();
            ask(self.client, *peer).await.map_err(BenchError::client("ask for a page"))?;
            times.record(asked.elapsed());
            self.tell(number);
        }
        Ok(self.done(&times, began))
    }

    /// Reads conversations back from their newest message.
    async fn browse(&mut self) -> Result<Pages, BenchError> {
        let (mut times, began, mut number) = (Times::new(), Instant::now(), 0);
        for peer in self.peers.iter().cycle() {
            let mut pager = self.client.history(*peer, Direction::Older, None, PAGE);
            loop {
                let asked = Instant::now();
                let page = pager.next_page().await.map_err(BenchError::client("ask for a page"))?;
                if page.is_none() {
                    break;
                }
                times.record(asked.elapsed());
                self.tell(number);
                number += 1;
                if number >= self.pages as usize {
                    return Ok(self.done(&times, began));
                }
            }
        }
        Ok(self.done(&times, began))
    }

    fn tell(&mut self, number: usize) {
        let done = self.kind * u64::from(self.pages) + number as u64;
        (self.watch)(Step { phase: Phase::Measure, done, of: KINDS * u64::from(self.pages) });
    }

    fn done(&mut self, times: &Times, began: Instant) -> Pages {
        self.kind += 1;
        let pages_per_s = per_second(u64::from(self.pages), began.elapsed());
        Pages { pages_per_s, page_ms: times.latency() }
    }
}

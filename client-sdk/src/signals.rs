//! Signals: what is true for a moment, in both directions.
//!
//! Outwards the newest word to each account waits until it is written, and grows stale; the driver writes it as a datagram, or the
//! feed lane does where there are none. Inwards the newest word of each device counts, and typing that is not said again
//! ends by itself.
//!
//! Invariants: nothing here waits for anybody, and everything is bounded: what finds no room is dropped. A counter never goes
//! back, over restarts neither, because it begins at the time.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use quail_protocol::id::{AccountId, DeviceId};
use quail_protocol::limits::{TYPING_EXPIRY, TYPING_RENEWAL};
use quail_protocol::v1::{self, TypingState, signal::Body};
use tokio::sync::Notify;

use crate::Event;

/// Most accounts that this client is typing to at once, and that have a word waiting.
const PEERS_MAX: usize = 256;

/// Most devices of others whose counter is remembered. Who is forgotten may be shown an older word once.
const DEVICES_MAX: usize = 1024;

/// Most words that wait for the application.
const NEWS_MAX: usize = 256;

/// A word that could not be written for so long is not true any more.
const STALE_AFTER: Duration = TYPING_RENEWAL;

/// Somebody is writing a message to this account, or is not any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Typing {
    /// Who.
    pub from: AccountId,
    /// On which device.
    pub device: DeviceId,
    /// Whether that begins or goes on; `false` when it ended or was not said again for 6 s.
    pub active: bool,
}

/// How much is unread in a conversation, as it is now; what was said of it before does not count any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Unread {
    /// With whom; the account itself for notes to oneself.
    pub peer: AccountId,
    /// Messages of the peer that were not read; [`UNREAD_MAX`](quail_protocol::limits::UNREAD_MAX) says so many or more.
    pub count: u32,
}

/// The signals of a client.
#[derive(Debug)]
pub(crate) struct Signals {
    inner: Mutex<Inner>,
    /// Whether signals leave on the feed lane, because the server takes no datagrams.
    by_feed: AtomicBool,
    datagrams_due: Notify,
    feed_due: Notify,
    news: Notify,
}

#[derive(Debug, Default)]
struct Inner {
    counter: u64,
    /// What was said last, to whom and when.
    said: HashMap<AccountId, (TypingState, Instant)>,
    waiting: VecDeque<(AccountId, TypingState, Instant)>,
    /// The greatest counter of each device.
    seen: HashMap<(AccountId, DeviceId), u64>,
    /// Who is typing, and until when without another word.
    typing: HashMap<(AccountId, DeviceId), Instant>,
    news: VecDeque<Typing>,
    /// Of each conversation the newest number.
    unread: VecDeque<Unread>,
}

impl Signals {
    pub(crate) fn new() -> Self {
        Self {
            inner: Mutex::default(),
            by_feed: AtomicBool::new(false),
            datagrams_due: Notify::new(),
            feed_due: Notify::new(),
            news: Notify::new(),
        }
    }

    /// The application is typing, or not.
    pub(crate) fn say(&self, peer: AccountId, active: bool) {
        if self.lock().say(peer, active, Instant::now()) {
            self.wake();
        }
    }

    /// A connection is there; says whether its signals leave on the feed lane.
    pub(crate) fn connected(&self, by_feed: bool) {
        self.by_feed.store(by_feed, Ordering::Relaxed);
        self.wake();
    }

    fn wake(&self) {
        let due = if self.is_by_feed() { &self.feed_due } else { &self.datagrams_due };
        due.notify_one();
    }

    pub(crate) fn is_by_feed(&self) -> bool {
        self.by_feed.load(Ordering::Relaxed)
    }

    /// Waits until there may be a datagram to write.
    pub(crate) async fn datagrams_due(&self) {
        self.datagrams_due.notified().await;
    }

    /// Waits until there may be a frame of the feed lane to write.
    pub(crate) async fn feed_due(&self) {
        self.feed_due.notified().await;
    }

    /// Takes what is to be written, without what is not true any more.
    pub(crate) fn take(&self) -> Vec<v1::Signal> {
        self.lock().take(Instant::now(), unix_ms())
    }

    /// Takes in a signal.
    pub(crate) fn arrived(&self, signal: &v1::Signal) {
        if let Some(Body::Unread(v1::Unread { count })) = signal.body {
            if let Ok(peer) = AccountId::try_from(signal.account.as_ref()) {
                // They come on one lane, so the last one is the newest.
                self.lock().unread(Unread { peer, count });
                self.news.notify_one();
            }
            return;
        }
        let (Ok(from), Ok(device)) =
            (AccountId::try_from(signal.account.as_ref()), DeviceId::try_from(signal.device.as_ref()))
        else {
            return;
        };
        let Some(Body::Typing(typing)) = &signal.body else { return };
        let active = match typing.state() {
            TypingState::Started => true,
            TypingState::Stopped => false,
            TypingState::Unspecified => return,
        };
        if self.lock().arrived(Typing { from, device, active }, signal.counter, Instant::now()) {
            self.news.notify_one();
        }
    }

    /// Waits for the next word for the application. Cancel safe.
    pub(crate) async fn next(&self) -> Event {
        loop {
            // Made before looking, so that a word in between is not missed.
            let news = self.news.notified();
            if let Some(unread) = self.lock().unread.pop_front() {
                return Event::Unread(unread);
            }
            let (word, expiry) = self.lock().next(Instant::now());
            if let Some(word) = word {
                return Event::Typing(word);
            }
            let expired = async {
                match expiry {
                    Some(expiry) => tokio::time::sleep_until(expiry.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = news => {}
                () = expired => {}
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // No change under this lock is left half done.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// Returns whether there is something new to write.
    fn say(&mut self, peer: AccountId, active: bool, now: Instant) -> bool {
        let state = if active { TypingState::Started } else { TypingState::Stopped };
        let is_known = match self.said.get(&peer) {
            Some((said, at)) => *said == state && (!active || now < *at + TYPING_RENEWAL),
            // Who was not typing has not stopped.
            None => !active,
        };
        if is_known {
            return false;
        }
        if self.said.len() >= PEERS_MAX && !self.said.contains_key(&peer) {
            self.said.clear();
        }
        self.said.insert(peer, (state, now));
        self.waiting.retain(|(waiting, ..)| *waiting != peer);
        if self.waiting.len() >= PEERS_MAX {
            self.waiting.pop_front();
        }
        self.waiting.push_back((peer, state, now));
        true
    }

    fn take(&mut self, now: Instant, now_ms: u64) -> Vec<v1::Signal> {
        let waiting = std::mem::take(&mut self.waiting);
        let fresh = waiting.into_iter().filter(|(_, _, at)| now < *at + STALE_AFTER);
        fresh
            .map(|(peer, state, _)| {
                self.counter = (self.counter + 1).max(now_ms);
                v1::Signal {
                    account: peer.to_bytes(),
                    device: bytes::Bytes::new(),
                    counter: self.counter,
                    body: Some(Body::Typing(v1::Typing { state: state as i32 })),
                }
            })
            .collect()
    }

    /// Returns whether there is news. What is older than what is known changes nothing.
    fn arrived(&mut self, word: Typing, counter: u64, now: Instant) -> bool {
        let key = (word.from, word.device);
        if self.seen.get(&key).is_some_and(|seen| counter <= *seen) {
            return false;
        }
        if self.seen.len() >= DEVICES_MAX && !self.seen.contains_key(&key) {
            self.seen.clear();
            self.typing.clear();
        }
        self.seen.insert(key, counter);
        let was_active = match word.active {
            true => self.typing.insert(key, now + TYPING_EXPIRY).is_some(),
            false => self.typing.remove(&key).is_some(),
        };
        if was_active == word.active {
            // Said again, which only moves the end.
            return word.active;
        }
        self.tell(word);
        true
    }

    fn unread(&mut self, unread: Unread) {
        self.unread.retain(|other| other.peer != unread.peer);
        if self.unread.len() >= NEWS_MAX {
            self.unread.pop_front();
        }
        self.unread.push_back(unread);
    }

    fn tell(&mut self, word: Typing) {
        // Of a device only the newest word waits.
        self.news.retain(|other| (other.from, other.device) != (word.from, word.device));
        if self.news.len() >= NEWS_MAX {
            self.news.pop_front();
        }
        self.news.push_back(word);
    }

    /// Returns the next word, or else when typing ends that is not said again.
    fn next(&mut self, now: Instant) -> (Option<Typing>, Option<Instant>) {
        let over = self.typing.iter().filter(|(_, until)| **until <= now).map(|(key, _)| *key);
        for key in over.collect::<Vec<_>>() {
            self.typing.remove(&key);
            self.tell(Typing { from: key.0, device: key.1, active: false });
        }
        (self.news.pop_front(), self.typing.values().min().copied())
    }
}

fn unix_ms() -> u64 {
    let passed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(passed.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOB: AccountId = AccountId([2; 16]);
    const PHONE: DeviceId = DeviceId([20; 16]);

    fn word(active: bool) -> Typing {
        Typing { from: BOB, device: PHONE, active }
    }

    #[test]
    fn keys_are_many_and_words_are_few() {
        let (mut inner, now) = (Inner::default(), Instant::now());
        assert!(!inner.say(BOB, false, now), "who was not typing has not stopped");
        assert!(inner.say(BOB, true, now));
        assert!(!inner.say(BOB, true, now + TYPING_RENEWAL / 2));
        assert!(inner.say(BOB, true, now + TYPING_RENEWAL));
        assert!(inner.say(BOB, false, now + TYPING_RENEWAL));
        assert!(!inner.say(BOB, false, now + TYPING_RENEWAL));
        let taken = inner.take(now + TYPING_RENEWAL, 1_000);
        assert_eq!(taken.len(), 1, "only the newest waits");
        assert_eq!(taken[0].body, Some(Body::Typing(v1::Typing { state: TypingState::Stopped as i32 })));
    }

    #[test]
    fn a_word_that_waited_too_long_is_not_said() {
        let (mut inner, now) = (Inner::default(), Instant::now());
        inner.say(BOB, true, now);
        assert!(inner.take(now + STALE_AFTER, 1_000).is_empty());
    }

    #[test]
    fn the_counter_rises_whatever_the_clock_does() {
        let (mut inner, now) = (Inner::default(), Instant::now());
        let mut counters = Vec::new();
        for (active, now_ms) in [(true, 1_000), (false, 1_000), (true, 5_000), (false, 10)] {
            inner.say(BOB, active, now);
            counters.push(inner.take(now, now_ms)[0].counter);
        }
        assert_eq!(counters, [1_000, 1_001, 5_000, 5_001]);
    }

    #[test]
    fn an_older_word_changes_nothing() {
        let (mut inner, now) = (Inner::default(), Instant::now());
        assert!(inner.arrived(word(false), 7, now) || inner.next(now).0.is_none(), "it was not typing");
        assert!(inner.arrived(word(true), 9, now));
        assert_eq!(inner.next(now).0, Some(word(true)));
        for counter in [8, 9] {
            assert!(!inner.arrived(word(false), counter, now));
        }
        assert_eq!(inner.next(now).0, None);
        assert!(inner.arrived(word(false), 10, now));
        assert_eq!(inner.next(now).0, Some(word(false)));
    }

    #[test]
    fn typing_that_is_not_said_again_ends() {
        let (mut inner, now) = (Inner::default(), Instant::now());
        inner.arrived(word(true), 1, now);
        assert_eq!(inner.next(now), (Some(word(true)), Some(now + TYPING_EXPIRY)));
        let later = now + TYPING_RENEWAL;
        inner.arrived(word(true), 2, later);
        assert_eq!(inner.next(now + TYPING_EXPIRY), (None, Some(later + TYPING_EXPIRY)), "it was said again");
        assert_eq!(inner.next(later + TYPING_EXPIRY), (Some(word(false)), None));
    }

    #[test]
    fn of_each_conversation_the_last_number_waits() {
        let signals = Signals::new();
        let unread = |peer: u8, count| v1::Signal {
            account: AccountId([peer; 16]).to_bytes(),
            body: Some(Body::Unread(v1::Unread { count })),
            ..Default::default()
        };
        for (peer, count) in [(2, 5), (3, 1), (2, 0)] {
            signals.arrived(&unread(peer, count));
        }
        let waiting: Vec<_> = signals.lock().unread.iter().map(|one| (one.peer.0[0], one.count)).collect();
        assert_eq!(waiting, [(3, 1), (2, 0)]);
    }

    #[test]
    fn everything_is_bounded() {
        let (mut inner, now) = (Inner::default(), Instant::now());
        for number in 0..2 * DEVICES_MAX as u128 {
            let key = number.to_be_bytes();
            inner.say(AccountId(key), true, now);
            inner.unread(Unread { peer: AccountId(key), count: 1 });
            inner.arrived(Typing { from: AccountId(key), device: DeviceId(key), active: true }, 1, now);
        }
        assert!(inner.said.len() <= PEERS_MAX && inner.waiting.len() <= PEERS_MAX);
        assert!(inner.seen.len() <= DEVICES_MAX && inner.typing.len() <= DEVICES_MAX);
        assert!(inner.news.len() <= NEWS_MAX && inner.unread.len() <= NEWS_MAX);
    }
}

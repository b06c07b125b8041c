//! A modelled client device: what it keeps on its disk, and what it forgets with its connection.
//!
//! It does what the protocol asks of clients: numbers its sends, keeps them until they are answered for good, sends all of
//! them again on a new connection, begins again after a temporary refusal once everything on the way is answered, raises
//! its attach number, keeps its cursor before it acknowledges, and shows each (sender, id) once.

use std::collections::{BTreeMap, HashSet, VecDeque};

use quail_core::Accepted;
use quail_protocol::id::MessageId;
use quail_protocol::limits::SENDS_UNANSWERED_MAX;
use quail_protocol::v1::{self, Reason};

use crate::link::{Down, Up};

/// A message that was composed.
#[derive(Clone, Debug)]
pub(crate) struct Composed {
    pub(crate) id: MessageId,
    pub(crate) recipient: usize,
    pub(crate) body: bytes::Bytes,
    /// The gateway refuses it for good.
    pub(crate) bad: bool,
}

/// What a client wants done after a frame.
#[derive(Debug, PartialEq)]
pub(crate) enum Wish {
    Nothing,
    /// To acknowledge, some time.
    Ack,
    /// To say restart and send again, some time.
    Restart,
    /// The session is gone.
    Leave,
}

#[derive(Default)]
pub(crate) struct Client {
    pub(crate) account: usize,
    // On disk.
    next_number: u64,
    pub(crate) composed: BTreeMap<u64, Composed>,
    unanswered: VecDeque<u64>,
    pub(crate) attach_number: u64,
    pub(crate) cursor: u64,
    pub(crate) seen: u64,
    shown_ids: HashSet<(Vec<u8>, Vec<u8>)>,
    pub(crate) shown: Vec<v1::Event>,
    pub(crate) gaps: Vec<(u64, u64)>,
    pub(crate) accepted: BTreeMap<u64, Accepted>,
    /// The largest position it ever acknowledged or claimed.
    pub(crate) ack_sent: u64,
    // Of the connection.
    pub(crate) link: Option<usize>,
    pub(crate) gone: bool,
    pub(crate) ack_due: bool,
    outstanding: VecDeque<u64>,
    refusing: bool,
    feed_at: u64,
    caught_up: bool,
}

impl Client {
    pub(crate) fn new(account: usize) -> Self {
        Self { account, ..Self::default() }
    }

    pub(crate) fn compose(&mut self, message: Composed) -> u64 {
        self.next_number += 1;
        self.composed.insert(self.next_number, message);
        self.unanswered.push_back(self.next_number);
        self.next_number
    }

    pub(crate) fn waits(&self) -> bool {
        !self.unanswered.is_empty()
    }

    /// A new connection: attach, and send everything again.
    pub(crate) fn connected(&mut self, link: usize) -> Vec<Up> {
        self.link = Some(link);
        self.outstanding.clear();
        self.refusing = false;
        let mut frames = vec![self.attach()];
        frames.extend(self.sends());
        frames
    }

    /// A new feed on the connection that is there.
    pub(crate) fn attach(&mut self) -> Up {
        self.attach_number += 1;
        self.feed_at = self.cursor;
        self.caught_up = false;
        self.ack_sent = self.ack_sent.max(self.cursor);
        Up::Attach { feed: self.attach_number, cursor: self.cursor }
    }

    pub(crate) fn ack(&mut self) -> Up {
        self.ack_due = false;
        if self.link.is_some() {
            self.ack_sent = self.ack_sent.max(self.cursor);
        }
        Up::Ack { feed: self.attach_number, upto: self.cursor }
    }

    pub(crate) fn restart(&mut self) -> Vec<Up> {
        self.refusing = false;
        let mut frames = vec![Up::Restart];
        frames.extend(self.sends());
        frames
    }

    /// Whatever may be sent and is not on its way.
    pub(crate) fn sends(&mut self) -> Vec<Up> {
        if self.link.is_none() || self.refusing {
            return Vec::new();
        }
        let seen = self.seen;
        let newest = self.outstanding.back().copied().unwrap_or(0);
        let room = SENDS_UNANSWERED_MAX - self.outstanding.len();
        let numbers: Vec<u64> = self.unanswered.iter().copied().filter(|n| *n > newest).take(room).collect();
        self.outstanding.extend(&numbers);
        numbers.into_iter().map(|number| Up::Send { number, seen }).collect()
    }

    fn answered(&mut self, number: u64) {
        assert_eq!(self.outstanding.pop_front(), Some(number), "answers do not keep the order of sends");
    }

    pub(crate) fn hears(&mut self, down: Down, in_directory: bool) -> Wish {
        match down {
            Down::Accepted(accepted) => {
                self.answered(accepted.number);
                assert!(!self.refusing, "accepted behind a temporary refusal");
                let first = *self.accepted.entry(accepted.number).or_insert(accepted);
                assert_eq!(first, accepted, "the same number got another answer");
                self.unanswered.retain(|number| *number != accepted.number);
                self.seen = self.seen.max(accepted.stamp.0);
                Wish::Nothing
            }
            Down::Refused { number, reason, temporary } => {
                self.answered(number);
                self.refused(number, reason, temporary, in_directory)
            }
            Down::Event { feed, event } if feed == self.attach_number => {
                assert!(event.position > self.feed_at, "not in order, or twice on one feed: {event:?}");
                self.feed_at = event.position;
                self.show(event);
                Wish::Ack
            }
            Down::Gap { feed, from, upto } if feed == self.attach_number => {
                assert!(upto > self.feed_at && from > self.cursor, "a gap that was told or taken before");
                self.feed_at = upto;
                self.cursor = self.cursor.max(upto);
                self.gaps.push((from, upto));
                Wish::Ack
            }
            Down::CaughtUp { feed } if feed == self.attach_number => {
                assert!(!std::mem::replace(&mut self.caught_up, true), "caught up twice");
                Wish::Nothing
            }
            Down::Ended { feed, reason } if feed == self.attach_number => {
                assert!(reason == Reason::Unauthenticated && !in_directory, "feed ended: {reason:?}");
                Wish::Leave
            }
            // Of a feed that this device has replaced.
            _ => Wish::Nothing,
        }
    }

    fn refused(&mut self, number: u64, reason: Reason, temporary: bool, in_directory: bool) -> Wish {
        match reason {
            Reason::DirectoryUnavailable | Reason::Overloaded | Reason::AfterRefused => {
                assert!(temporary);
                self.refusing = true;
                if self.outstanding.is_empty() { Wish::Restart } else { Wish::Nothing }
            }
            Reason::BodyInvalid if self.composed[&number].bad => {
                self.unanswered.retain(|other| *other != number);
                Wish::Nothing
            }
            Reason::Unauthenticated if !in_directory => Wish::Leave,
            other => panic!("send {number} was refused: {other:?}"),
        }
    }

    /// As the SDK does: the message and its key are on disk before the cursor is.
    fn show(&mut self, event: v1::Event) {
        self.cursor = event.position;
        self.seen = self.seen.max(event.stamp);
        if let Some(v1::event::Body::Message(message)) = &event.body {
            let key = (message.sender.to_vec(), message.id.to_vec());
            assert!(self.shown_ids.insert(key), "the same message came at two positions: {event:?}");
        }
        self.shown.push(event);
    }

    pub(crate) fn disconnected(&mut self) {
        self.link = None;
    }
}

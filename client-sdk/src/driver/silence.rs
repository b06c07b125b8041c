//! Notices a server that is gone.
//!
//! A server that was killed says nothing, and one that was started again in its place does not know the connection. QUIC
//! itself gives up only after the idle timeout of 45 s. But whatever asks for an acknowledgement (stream data,
//! keep-alives, probes for lost packets) is acknowledged by a living server within a round trip, however busy its
//! program is. So when such packets have gone out for a while and nothing at all has come back, nobody is there.
//!
//! The library does not count packets that ask for an acknowledgement. Those that do not are themselves
//! acknowledgements and follow what was received within milliseconds; so what is sent later, in silence, does ask.
//!
//! There may be nothing to acknowledge although an answer is missing: a server can acknowledge a message to QUIC and be
//! killed before it answers. So in silence with sends unanswered a ping is asked, which a server that does not know the
//! connection answers with a reset.
//!
//! Invariants: a connection on which nothing needs an answer is never given up here; at most one ping is under way.

use std::time::{Duration, Instant};

use quail_protocol::v1::{Ping, request};
use tokio::task::JoinSet;

use crate::shared::Shared;
use crate::{Error, api};

/// How long nothing may come back after a packet that asks for it. QUIC repeats its question after one, two and four
/// seconds on a link with a round trip of a third of a second.
const SILENCE_MAX: Duration = Duration::from_secs(8);

/// How often the counters are looked at; much longer than an acknowledgement is held back.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Waits until the server has been silent for too long, and returns the error of that.
pub(super) async fn run(shared: &Shared, connection: &quinn::Connection) -> Error {
    let mut silence = Silence::default();
    let mut pings = JoinSet::new();
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let stats = connection.stats();
        if silence.look(stats.udp_rx.datagrams, stats.udp_tx.datagrams, Instant::now()) {
            return Error::lost(format!("nothing came back for {SILENCE_MAX:?}"));
        }
        // What it came to does not matter: any packet ends the silence.
        while pings.try_join_next().is_some() {}
        if silence.is_silent() && pings.is_empty() && shared.publish.unanswered() > 0 {
            let connection = connection.clone();
            pings.spawn(async move { api::ask(&connection, request::Command::Ping(Ping {})).await });
        }
    }
}

/// What was seen so far.
#[derive(Debug, Default)]
struct Silence {
    /// Datagrams received.
    received: u64,
    /// Datagrams sent at the first look that found nothing new received.
    sent: Option<u64>,
    /// When it was first seen that more were sent after that.
    asked: Option<Instant>,
}

impl Silence {
    /// Takes in the counters of now and returns whether the server has been silent for too long.
    fn look(&mut self, received: u64, sent: u64, now: Instant) -> bool {
        if received != self.received {
            *self = Self { received, sent: None, asked: None };
        } else if sent > *self.sent.get_or_insert(sent) {
            return now.duration_since(*self.asked.get_or_insert(now)) >= SILENCE_MAX;
        }
        false
    }

    /// Returns whether nothing came between the last two looks.
    fn is_silent(&self) -> bool {
        self.sent.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Looks at counters every quarter of the longest silence and returns at which look the server was found gone.
    fn gone_at(looks: &[(u64, u64)]) -> Option<usize> {
        let began = Instant::now();
        let mut silence = Silence::default();
        looks.iter().zip(0..).position(|((received, sent), index)| {
            silence.look(*received, *sent, began + index * SILENCE_MAX / 4)
        })
    }

    #[test]
    fn silence_counts_from_the_first_question_in_it() {
        // The second look finds silence, the fourth a question; four looks later it has no answer.
        let looks = [(5, 3), (5, 4), (5, 4), (5, 5), (5, 5), (5, 6), (5, 6), (5, 7), (5, 7)];
        assert_eq!(gone_at(&looks), Some(7));
    }

    #[test]
    fn the_acknowledgement_of_what_came_last_is_no_question() {
        let mut looks = vec![(5, 3)];
        looks.extend([(5, 4); 1000]);
        assert_eq!(gone_at(&looks), None);
    }

    #[test]
    fn whatever_comes_back_ends_the_silence() {
        let looks =
            [(5, 3), (5, 3), (5, 4), (5, 5), (5, 6), (6, 7), (6, 7), (6, 8), (6, 8), (6, 8), (6, 8), (6, 8)];
        assert_eq!(gone_at(&looks[..11]), None);
        assert_eq!(gone_at(&looks), Some(11));
    }
}

//! Notices a server that is gone, and looks for another way to it.
//!
//! A server that was killed says nothing, and one that was started again in its place does not know the connection. QUIC
//! itself gives up only after the idle timeout of 45 s. But whatever asks for an acknowledgement (stream data,
//! keep-alives, probes for lost packets) is acknowledged by a living server within a round trip, however busy its
//! program is. So when such packets have gone out for a while and nothing at all has come back, nobody is there, or nothing comes
//! through.
//!
//! The library does not count packets that ask for an acknowledgement. Those that do not are themselves
//! acknowledgements and follow what was received within milliseconds; so what is sent later, in silence, does ask.
//!
//! There may be nothing to acknowledge although an answer is missing: a server can acknowledge a message to QUIC and be
//! killed before it answers. So in silence with sends unanswered a ping is asked, which a server that does not know the
//! connection answers with a reset.
//!
//! QUIC asks ever more seldom in silence, and with much on its way it asks nothing else. After five seconds in the dark it can take
//! another five until it asks again. So beside a connection that has been silent for [`SUSPECT_AFTER`], others are tried, a
//! fresh one every [`TRY_EVERY`]: the first that completes its handshake takes over, unless the old one is heard before. When the
//! application says that the network has changed, that begins after a few round trips.
//!
//! Invariants: a connection on which nothing needs an answer is never given up here; at most one ping is under way, and at most
//! [`TRIES_MAX`] other connections, none of which has said a word.

use std::sync::Arc;
use std::time::{Duration, Instant};

use quail_protocol::v1::{Ping, request};
use tokio::task::JoinSet;

use crate::backoff::chance;
use crate::link::Link;
use crate::shared::Shared;
use crate::state::{ConnectionState, PROBE_PATIENCE_MAX};
use crate::transport::Transport;
use crate::{Error, api};

/// How long nothing may come back after a packet that asks for it. QUIC repeats its question after one, two and four
/// seconds on a link with a round trip of a third of a second.
const SILENCE_MAX: Duration = Duration::from_secs(8);

/// After how much of it other connections are tried: later than a bad network stays silent without being dark.
const SUSPECT_AFTER: Duration = Duration::from_millis(2500);

/// How often another connection is tried, and how many may be under way: the older of two has had twice as long to be answered.
const TRY_EVERY: Duration = Duration::from_millis(700);
const TRIES_MAX: usize = 2;

/// How often the counters are looked at; much longer than an acknowledgement is held back.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The same while something is unanswered.
const LOOK_OFTEN: Duration = Duration::from_millis(250);

/// After a change of networks a sign of life is expected within three round trips, and within these bounds.
const PROBE_PATIENCE_MIN: Duration = Duration::from_millis(200);

/// The same in between.
const PROBE_LOOK_EVERY: Duration = Duration::from_millis(50);

/// Waits until the server has been silent for too long, and returns the error of that, or the connection that was answered
/// meanwhile.
pub(super) async fn run(shared: &Shared, transport: &Transport, link: &Arc<Link>) -> Result<Link, Error> {
    let connection = &link.connection;
    let mut silence = Silence::default();
    let mut pings = JoinSet::new();
    let mut tries: JoinSet<Result<Link, Error>> = JoinSet::new();
    let mut next_try = Instant::now();
    let mut network = shared.network.subscribe();
    loop {
        tokio::select! {
            () = tokio::time::sleep(silence.look_after()) => {}
            _ = network.changed() => {
                let patience = (connection.rtt() * 3).clamp(PROBE_PATIENCE_MIN, PROBE_PATIENCE_MAX);
                silence.probe(connection.stats().udp_rx.datagrams, Instant::now() + patience);
            }
            Some(tried) = tries.join_next() => match tried {
                Ok(Ok(link)) => return Ok(link),
                Ok(Err(error)) => tracing::debug!(%error, "another connection failed"),
                // It was called off.
                Err(_) => {}
            },
        }
        let (stats, now) = (connection.stats(), Instant::now());
        // What a ping came to does not matter: any packet ends the silence.
        while pings.try_join_next().is_some() {}
        let verdict = silence.look(stats.udp_rx.datagrams, stats.udp_tx.datagrams, now);
        if silence.is_silent()
            && pings.is_empty()
            && (silence.is_probing() || shared.publish.unanswered() > 0)
        {
            let link = link.clone();
            pings.spawn(async move { api::ask(&link, request::Command::Ping(Ping {})).await });
        }
        match verdict {
            Verdict::Fine => {
                if !tries.is_empty() {
                    tries.abort_all();
                }
                shared.set_state(ConnectionState::Online);
            }
            Verdict::Suspect if now >= next_try && tries.len() < TRIES_MAX => {
                shared.set_state(ConnectionState::Silent { reason: Error::lost("nothing comes back") });
                let transport = transport.clone();
                tries.spawn(async move { transport.handshake().await });
                // Clients that fell silent together must not come together.
                next_try = now + TRY_EVERY.mul_f64(0.75 + chance() / 2.0);
            }
            Verdict::Suspect => {}
            Verdict::Gone => return Err(Error::lost(format!("nothing came back for {SILENCE_MAX:?}"))),
        }
    }
}

/// What is to be thought of the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// It is heard, or nobody has asked.
    Fine,
    /// It should have been heard by now.
    Suspect,
    /// It is given up.
    Gone,
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
    /// By when a sign of life is expected after a change of networks.
    expected: Option<Instant>,
}

impl Silence {
    /// The server was asked for a sign of life, which is to come by then.
    fn probe(&mut self, received: u64, expected: Instant) {
        *self = Self { received, sent: Some(0), asked: None, expected: Some(expected) };
    }

    /// Takes in the counters of now and returns what to think.
    fn look(&mut self, received: u64, sent: u64, now: Instant) -> Verdict {
        if received != self.received {
            *self = Self { received, ..Self::default() };
            return Verdict::Fine;
        }
        let mut silent_for = Duration::ZERO;
        if sent > *self.sent.get_or_insert(sent) {
            silent_for = now.duration_since(*self.asked.get_or_insert(now));
        }
        if silent_for >= SILENCE_MAX {
            Verdict::Gone
        } else if silent_for >= SUSPECT_AFTER || self.expected.is_some_and(|expected| now >= expected) {
            Verdict::Suspect
        } else {
            Verdict::Fine
        }
    }

    /// Returns whether nothing came between the last two looks.
    fn is_silent(&self) -> bool {
        self.sent.is_some()
    }

    /// Returns whether a sign of life is expected.
    fn is_probing(&self) -> bool {
        self.expected.is_some()
    }

    /// Returns when to look again.
    fn look_after(&self) -> Duration {
        match (self.expected, self.asked) {
            (Some(_), _) => PROBE_LOOK_EVERY,
            (None, Some(_)) => LOOK_OFTEN,
            (None, None) => LOOK_EVERY,
        }
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
            silence.look(*received, *sent, began + index * SILENCE_MAX / 4) == Verdict::Gone
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

    #[test]
    fn other_ways_are_tried_long_before_a_connection_is_given_up() {
        let began = Instant::now();
        let mut silence = Silence::default();
        for (sent, after, verdict) in [
            (3, Duration::ZERO, Verdict::Fine),
            (4, Duration::ZERO, Verdict::Fine),
            (4, SUSPECT_AFTER - Duration::from_millis(1), Verdict::Fine),
            (5, SUSPECT_AFTER, Verdict::Suspect),
            (6, SILENCE_MAX, Verdict::Gone),
        ] {
            assert_eq!(silence.look(0, sent, began + after), verdict, "after {after:?}");
        }
        assert_eq!(silence.look(1, 6, began + SILENCE_MAX), Verdict::Fine, "it was heard");
    }

    #[test]
    fn after_a_change_of_networks_a_sign_of_life_is_expected_soon() {
        let began = Instant::now();
        let mut silence = Silence::default();
        silence.probe(7, began + PROBE_PATIENCE_MIN);
        assert_eq!(silence.look(7, 9, began), Verdict::Fine);
        assert!(silence.is_probing() && silence.look_after() < PROBE_PATIENCE_MIN);
        assert_eq!(silence.look(7, 9, began + PROBE_PATIENCE_MIN), Verdict::Suspect);
        assert_eq!(silence.look(8, 9, began + PROBE_PATIENCE_MIN), Verdict::Fine);
        assert!(!silence.is_probing());
    }
}

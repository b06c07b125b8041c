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
//! To be heard is not to answer. When the dark lifts, the server may come first, with a question of its own and with the
//! acknowledgement of something sent just before the dark. That one looks like a round trip as long as the dark, so what
//! the client asked meanwhile waits for a timer as long as several of those. So a connection that is heard after
//! [`DOUBT_AFTER`] is in doubt until it answers a ping of now, and if it does not soon, others are tried.
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

/// After how much of it a connection that is heard again is in doubt, and how soon it must answer then before others are tried.
const DOUBT_AFTER: Duration = Duration::from_secs(1);
const DOUBT_PATIENCE: Duration = Duration::from_millis(300);

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
            Some(Ok(Ok(_))) = pings.join_next() => silence.answered(),
        }
        let (stats, now) = (connection.stats(), Instant::now());
        let was_in_doubt = silence.is_in_doubt();
        let verdict = silence.look(stats.udp_rx.datagrams, stats.udp_tx.datagrams, now);
        if silence.is_in_doubt() && !was_in_doubt {
            // Clients that stalled together must not all open others at once.
            next_try = next_try.max(now + DOUBT_PATIENCE.mul_f64(1.0 + chance()));
        }
        let is_asking = silence.is_silent() && (silence.is_probing() || shared.publish.unanswered() > 0);
        // A ping of before the doubt waits for the timer too.
        let is_to_ask_anew = silence.is_in_doubt() && !was_in_doubt;
        if is_to_ask_anew {
            pings.abort_all();
        }
        if is_to_ask_anew || is_asking && pings.is_empty() {
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
    /// Since when it has been heard again and has not answered.
    doubted: Option<Instant>,
}

impl Silence {
    /// The server was asked for a sign of life, which is to come by then.
    fn probe(&mut self, received: u64, expected: Instant) {
        *self = Self { received, sent: Some(0), expected: Some(expected), ..Self::default() };
    }

    /// The server has answered what it was asked.
    fn answered(&mut self) {
        self.doubted = None;
    }

    /// Takes in the counters of now and returns what to think.
    fn look(&mut self, received: u64, sent: u64, now: Instant) -> Verdict {
        let is_doubtful = self.doubted.is_some_and(|since| now >= since + DOUBT_PATIENCE);
        if received != self.received {
            let was_silent = self.asked.is_some_and(|asked| now >= asked + DOUBT_AFTER);
            let doubted = self.doubted.or_else(|| was_silent.then_some(now));
            *self = Self { received, doubted, ..Self::default() };
            return if is_doubtful { Verdict::Suspect } else { Verdict::Fine };
        }
        let mut silent_for = Duration::ZERO;
        if sent > *self.sent.get_or_insert(sent) {
            silent_for = now.duration_since(*self.asked.get_or_insert(now));
        }
        if silent_for >= SILENCE_MAX {
            Verdict::Gone
        } else if is_doubtful
            || silent_for >= SUSPECT_AFTER
            || self.expected.is_some_and(|expected| now >= expected)
        {
            Verdict::Suspect
        } else {
            Verdict::Fine
        }
    }

    /// Returns whether nothing came between the last two looks.
    fn is_silent(&self) -> bool {
        self.sent.is_some()
    }

    /// Returns whether it is heard again and has not answered.
    fn is_in_doubt(&self) -> bool {
        self.doubted.is_some()
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
            (None, None) if self.is_in_doubt() => LOOK_OFTEN,
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
    fn who_is_heard_after_a_silence_and_does_not_answer_is_suspected_and_not_given_up() {
        let began = Instant::now();
        let mut silence = Silence::default();
        for (received, sent, after, verdict) in [
            (0, 3, Duration::ZERO, Verdict::Fine),
            (0, 4, Duration::ZERO, Verdict::Fine),
            (1, 4, DOUBT_AFTER, Verdict::Fine),
            (2, 4, DOUBT_AFTER + DOUBT_PATIENCE, Verdict::Suspect),
            (2, 4, 2 * SILENCE_MAX, Verdict::Suspect),
            (3, 5, 2 * SILENCE_MAX, Verdict::Suspect),
        ] {
            assert_eq!(silence.look(received, sent, began + after), verdict, "after {after:?}");
        }
        assert!(silence.is_in_doubt());
        silence.answered();
        assert_eq!(silence.look(3, 5, began + 2 * SILENCE_MAX), Verdict::Fine);
    }

    #[test]
    fn who_was_silent_for_a_moment_is_not_doubted() {
        let began = Instant::now();
        let mut silence = Silence::default();
        for (received, sent) in [(0, 3), (0, 4)] {
            silence.look(received, sent, began);
        }
        silence.look(1, 4, began + DOUBT_AFTER - Duration::from_millis(1));
        assert!(!silence.is_in_doubt());
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

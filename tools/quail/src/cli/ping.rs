//! `quail ping`: asks a server for answers and says how long they took and what protects the way.
//!
//! Invariant: no session is needed, so that a server can be tried before there is an account.

use std::time::{Duration, Instant};

use clap::{Args, value_parser};
use quail::output::table;
use quail_client::{Address, Error, Guest, PingReport};
use quail_protocol::limits::AUTHENTICATE_TIMEOUT;
use serde::Serialize;

use super::failure::Outcome;
use super::session::options;
use super::{Context, duration};

/// Ask a server for answers: is it there, how far, how protected
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(super) struct Ping {
    /// The server; without it that of the profile
    address: Option<Address>,

    /// How many answers to ask for
    #[arg(long, short, value_name = "N", default_value_t = 3, value_parser = value_parser!(u32).range(1..=COUNT_MAX))]
    count: u32,

    /// How long to wait between two questions
    #[arg(long, value_name = "DURATION", default_value = "200ms", value_parser = duration::parse)]
    interval: Duration,
}

const EXAMPLES: &str = "\
Examples:
  quail ping
  quail ping 'quail://chat.example.org?pin=sha256:...' --count 10
  quail ping --count 1 --json | jq .round_trip_ms.min";

/// Most answers of one run.
const COUNT_MAX: i64 = 10_000;

/// A server closes connections without a session; so old they are replaced before it does.
const CONNECTION_AGE_MAX: Duration = AUTHENTICATE_TIMEOUT.saturating_sub(Duration::from_secs(2));

#[derive(Debug, Serialize)]
struct Found {
    address: String,
    server_address: String,
    server_name: String,
    protocol_version: u32,
    key_exchange: String,
    handshake_ms: f64,
    round_trip_ms: Spread,
    count: usize,
}

#[derive(Debug, Serialize)]
struct Spread {
    min: f64,
    avg: f64,
    max: f64,
}

impl Ping {
    pub(super) async fn run(self, context: Context) -> anyhow::Result<Outcome> {
        let address = match self.address.clone() {
            Some(address) => address,
            None => context.login()?.1.address,
        };
        let (first, round_trips) = self.ask(&address).await?;
        let found = Found::new(&address, &first, &round_trips);
        context.output.result(found.table(), &found)?;
        Ok(Outcome::Good)
    }

    /// Returns the first answer and the round trips of all.
    async fn ask(&self, address: &Address) -> Result<(PingReport, Vec<Duration>), Error> {
        let (mut guest, mut connected) = (Guest::connect(address, options()).await?, Instant::now());
        let first = guest.ping().await?;
        let mut round_trips = vec![first.round_trip];
        for _ in 1..self.count {
            tokio::time::sleep(self.interval).await;
            if connected.elapsed() > CONNECTION_AGE_MAX {
                guest.close().await;
                (guest, connected) = (Guest::connect(address, options()).await?, Instant::now());
            }
            round_trips.push(guest.ping().await?.round_trip);
        }
        guest.close().await;
        Ok((first, round_trips))
    }
}

impl Found {
    fn new(address: &Address, first: &PingReport, round_trips: &[Duration]) -> Self {
        let sum: Duration = round_trips.iter().sum();
        let count = u32::try_from(round_trips.len()).unwrap_or(u32::MAX).max(1);
        Self {
            address: address.to_string(),
            server_address: first.server_address.to_string(),
            server_name: first.server_name.clone(),
            protocol_version: first.protocol_version,
            key_exchange: first.key_exchange.clone(),
            handshake_ms: milliseconds(first.handshake),
            round_trip_ms: Spread {
                min: milliseconds(round_trips.iter().min().copied().unwrap_or_default()),
                avg: milliseconds(sum / count),
                max: milliseconds(round_trips.iter().max().copied().unwrap_or_default()),
            },
            count: round_trips.len(),
        }
    }

    fn table(&self) -> String {
        let Spread { min, avg, max } = self.round_trip_ms;
        table(&[
            ("server", format!("{} at {}", self.server_name, self.server_address)),
            ("protocol", format!("version {}", self.protocol_version)),
            ("key exchange", self.key_exchange.clone()),
            ("handshake", format!("{:.2} ms", self.handshake_ms)),
            ("round trip", format!("min {min:.2} ms, avg {avg:.2} ms, max {max:.2} ms of {}", self.count)),
        ])
    }
}

fn milliseconds(duration: Duration) -> f64 {
    // Microseconds are what the clock is good for.
    (duration.as_secs_f64() * 1e6).round() / 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_has_a_stable_shape() {
        let found = Found {
            address: "quail://host:9".into(),
            server_address: "192.0.2.7:9".into(),
            server_name: "quaild 1".into(),
            protocol_version: 1,
            key_exchange: "X25519MLKEM768".into(),
            handshake_ms: milliseconds(Duration::from_nanos(1_234_567)),
            round_trip_ms: Spread { min: 0.1, avg: 0.25, max: 1.0 },
            count: 3,
        };
        assert_eq!(
            serde_json::to_string(&found).unwrap(),
            concat!(
                r#"{"address":"quail://host:9","server_address":"192.0.2.7:9","server_name":"quaild 1","#,
                r#""protocol_version":1,"key_exchange":"X25519MLKEM768","handshake_ms":1.235,"#,
                r#""round_trip_ms":{"min":0.1,"avg":0.25,"max":1.0},"count":3}"#
            )
        );
        let table = found.table();
        assert!(table.contains("round trip    min 0.10 ms, avg 0.25 ms, max 1.00 ms of 3"), "{table}");
    }
}

//! The floors of a machine: what a round trip and a sync cost here without any messages.
//!
//! They are taken in the same run as the figures, because machines differ, and the same machine differs by the hour. A
//! figure means something as a multiple of its floor.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use quail_client::Client;

use super::report::{Floors, Times};
use super::{BenchError, users};

/// How many round trips are taken: with those not counted, no more than a server lets pass at once by default.
const PINGS: usize = 130;

/// Shortest pause between two round trips at a fixed rate.
const PAUSE_MIN: Duration = Duration::from_millis(1);

/// How many syncs are taken.
const SYNCS: usize = 300;

/// How much is written before a sync: about what a message takes on disk.
const RECORD_BYTES: usize = 512;

/// How many of each are not counted.
const UNCOUNTED: usize = 20;

/// Most round trips that are taken at the pace of a fixed rate, and how long that may last.
const PACED_PINGS: usize = 40;
const PACED_TIME: Duration = Duration::from_secs(2);

/// Takes the floors: of a connection that is otherwise idle, at a fixed rate too if there is one, and of the disk below
/// `directory`, if that is here.
pub(super) async fn take(
    client: &Client,
    directory: Option<&Path>,
    rate: Option<f64>,
) -> Result<Floors, BenchError> {
    let ping_p50 = round_trips(client, PINGS, Duration::ZERO).await?;
    let ping_paced_p50 = match rate.map(|rate| Duration::from_secs_f64(1.0 / rate)) {
        // Above it the timer of the runtime is too coarse, and nothing sleeps.
        Some(pause) if pause >= PAUSE_MIN => {
            let count = (PACED_TIME.as_secs_f64() / pause.as_secs_f64()) as usize;
            Some(round_trips(client, count.clamp(1, PACED_PINGS), pause).await?)
        }
        _ => None,
    };
    let fdatasync_p50 = match directory {
        Some(directory) => {
            let path = directory.join("floor");
            let file = path.clone();
            let synced = users::blocking(move || sync_times(&file)).await?;
            let times = synced.map_err(|source| BenchError::File { path, source })?;
            Some(times.percentile(50.0))
        }
        None => None,
    };
    Ok(Floors { ping_p50, ping_paced_p50, fdatasync_p50 })
}

/// Returns the median of so many round trips with a pause before each.
async fn round_trips(client: &Client, count: usize, pause: Duration) -> Result<f64, BenchError> {
    let mut times = Times::new();
    let uncounted = if pause.is_zero() { UNCOUNTED } else { 0 };
    for number in 0..uncounted + count {
        if !pause.is_zero() {
            tokio::time::sleep(pause).await;
        }
        let round_trip = client.ping().await.map_err(BenchError::client("ping"))?.round_trip;
        if number >= uncounted {
            times.record(round_trip);
        }
    }
    Ok(times.percentile(50.0))
}

/// Writes record after record into a file that has its full length already, as a journal does, and syncs each.
fn sync_times(path: &Path) -> io::Result<Times> {
    let record = [0x51; RECORD_BYTES];
    fs::write(path, vec![0; RECORD_BYTES * (UNCOUNTED + SYNCS)])?;
    let mut file = File::options().write(true).open(path)?;
    file.sync_all()?;
    let mut times = Times::new();
    for number in 0..UNCOUNTED + SYNCS {
        let began = Instant::now();
        file.write_all(&record)?;
        file.sync_data()?;
        if number >= UNCOUNTED {
            times.record(began.elapsed());
        }
    }
    drop(file);
    fs::remove_file(path)?;
    Ok(times)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn syncs_are_timed_and_leave_nothing_behind() {
        let directory = tempfile::tempdir().unwrap();
        let times = sync_times(&directory.path().join("floor")).unwrap();
        assert_eq!(times.len(), SYNCS as u64);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
    }
}

//! Waiters who have something appended and wait until it is durable, again and again.
//!
//! One thread appends for them, as the sequencer does, another makes durable and lets them go, as the committer does. Whatever
//! they append to, they wait in the same way, so that two of them can be compared.

use std::sync::mpsc::{self, Receiver, SyncSender};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// After so many waiters what was appended is handed to the committer, as the sequencer does.
const HAND_OVER: usize = 128;

/// Makes durable what was appended before the call.
pub(crate) type Commit = Box<dyn FnMut() + Send>;

/// What waiters append to.
pub(crate) trait Log {
    /// Appends the next thing of each waiter.
    fn append(&mut self, waiters: &[usize]);

    fn committer(&self) -> Commit;

    /// How often a waiter has had its thing durable.
    fn completed(&self) -> u64;
}

/// Lets `waiters` go on as long as `more`, which is told how many things were completed, says so.
pub(crate) fn wait_all(log: &mut impl Log, waiters: usize, more: impl Fn(u64) -> bool) {
    let (to_sync, appended) = mpsc::sync_channel::<Vec<usize>>(64);
    let (synced, released) = mpsc::sync_channel(4096);
    let committer = log.committer();
    let committer = named("committer", move || commit(committer, &appended, &synced));
    let mut ready: Vec<usize> = (0..waiters).collect();
    while more(log.completed()) {
        for group in ready.chunks(HAND_OVER) {
            log.append(group);
            to_sync.send(group.to_vec()).expect("the committer lives");
        }
        ready = released.recv().expect("the committer lives");
        ready.extend(released.try_iter().flatten());
    }
    drop(to_sync);
    committer.join().expect("the committer ends");
}

fn commit(mut commit: Commit, appended: &Receiver<Vec<usize>>, synced: &SyncSender<Vec<usize>>) {
    while let Ok(mut group) = appended.recv() {
        group.extend(appended.try_iter().flatten());
        commit();
        let _ = synced.send(group);
    }
}

/// Runs for so long and returns how many things were completed, by the second.
pub(crate) fn rate(log: &mut impl Log, waiters: usize, seconds: f64) -> f64 {
    let (before, began) = (log.completed(), Instant::now());
    let deadline = began + Duration::from_secs_f64(seconds);
    wait_all(log, waiters, |_| Instant::now() < deadline);
    (log.completed() - before) as f64 / began.elapsed().as_secs_f64()
}

/// Starts a thread with a name, to be seen in a profile.
pub(crate) fn named<T: Send + 'static>(name: &str, run: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
    std::thread::Builder::new().name(name.to_owned()).spawn(run).expect("a thread")
}

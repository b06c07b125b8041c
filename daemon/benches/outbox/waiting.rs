//! Waiters who have something appended and wait until it is durable, again and again.
//!
//! Each waiter is a task, as a connection is one: it puts what it wants into a queue and sleeps until it is woken. One thread
//! takes from the queue and appends, as the sequencer does; another makes durable and wakes, as the committer does. Whatever
//! they append to, they wait in the same way, so that two of them can be compared.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::{Notify, mpsc};

/// After so many waiters what was appended is handed to the committer, as the sequencer does.
const HAND_OVER: usize = 128;

/// How long both run before anything is measured: until the segments are made that are recycled from then on.
const WARM_UP: Duration = Duration::from_secs(1);

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
pub(crate) fn wait_all(log: &mut impl Log, waiters: usize, mut more: impl FnMut(u64) -> bool) {
    let (submit, mut submitted) = mpsc::channel::<usize>(waiters);
    let (to_sync, appended) = mpsc::channel::<Vec<usize>>(64);
    let durable: Arc<[Notify]> = (0..waiters).map(|_| Notify::new()).collect();
    let stop = Arc::new(AtomicBool::new(false));
    let committer = log.committer();
    let wake = durable.clone();
    let committer = named("committer", move || commit(committer, appended, &wake));
    let stopped = stop.clone();
    let waiting = named("waiters", move || wait(&submit, &durable, &stopped));
    let mut ready = Vec::new();
    while submitted.blocking_recv_many(&mut ready, waiters) > 0 {
        for group in ready.chunks(HAND_OVER) {
            log.append(group);
            to_sync.blocking_send(group.to_vec()).expect("the committer lives");
        }
        ready.clear();
        if !more(log.completed()) {
            stop.store(true, Ordering::Relaxed);
        }
    }
    drop(to_sync);
    committer.join().expect("the committer ends");
    waiting.join().expect("the waiters end");
}

/// The waiters, all on one thread; they end, each after its turn, when they are to.
fn wait(submit: &mpsc::Sender<usize>, durable: &Arc<[Notify]>, stop: &Arc<AtomicBool>) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..durable.len() {
        let (submit, durable, stop) = (submit.clone(), durable.clone(), stop.clone());
        let waiter = async move {
            while !stop.load(Ordering::Relaxed) && submit.send(n).await.is_ok() {
                durable[n].notified().await;
            }
        };
        tasks.spawn_on(waiter, runtime.handle());
    }
    runtime.block_on(tasks.join_all());
}

fn commit(mut commit: Commit, mut appended: mpsc::Receiver<Vec<usize>>, durable: &[Notify]) {
    let mut groups = Vec::new();
    while appended.blocking_recv_many(&mut groups, 64) > 0 {
        commit();
        groups.drain(..).flatten().for_each(|n| durable[n].notify_one());
    }
}

/// How fast it went.
pub(crate) struct Rate {
    /// Things completed, by the second.
    pub(crate) per_second: f64,
    /// Processor time for each, in microseconds, all threads of this process.
    pub(crate) cpu_us: f64,
}

/// Runs for so long, after a while to get warm.
pub(crate) fn rate(log: &mut impl Log, waiters: usize, seconds: f64) -> Rate {
    let warm = Instant::now() + WARM_UP.min(Duration::from_secs_f64(seconds));
    let mut began = None;
    let deadline = warm + Duration::from_secs_f64(seconds);
    wait_all(log, waiters, |completed| {
        let now = Instant::now();
        if began.is_none() && now >= warm {
            began = Some((now, super::measure::cpu(), completed));
        }
        now < deadline
    });
    let (at, cpu, before) = began.expect("it took longer than the warm-up");
    let completed = (log.completed() - before) as f64;
    Rate {
        per_second: completed / at.elapsed().as_secs_f64(),
        cpu_us: (super::measure::cpu() - cpu).as_secs_f64() * 1e6 / completed,
    }
}

/// Starts a thread with a name, to be seen in a profile.
pub(crate) fn named<T: Send + 'static>(
    name: &str,
    run: impl FnOnce() -> T + Send + 'static,
) -> JoinHandle<T> {
    std::thread::Builder::new().name(name.to_owned()).spawn(run).expect("a thread")
}

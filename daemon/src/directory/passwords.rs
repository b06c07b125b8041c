//! Hashing passwords, as slowly as it has to be and no more at once than the machine has cores.
//!
//! argon2id with 19 MiB, two passes and one lane, as OWASP recommends for interactive log-in. One hash takes some 20 ms of a
//! core, so the pool bounds both what runs (memory: 19 MiB each) and what waits (time: a queue drained well within a
//! second); beyond it a command is refused as busy, which costs nothing.
//!
//! Why threads of their own, each with its memory: the runtime's blocking threads come and go by the hundred, and the
//! allocator keeps 19 MiB for each that ever hashed, and often twice.
//!
//! Invariants: hashing never runs on the event loop; a hash that runs keeps its core even when the command that wanted it is
//! gone, one that waits then does not; a handle that nobody has costs the same hash as one that somebody has.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, RecvError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::available_parallelism;

use argon2::password_hash::phc::{Output, ParamsString, PasswordHash, Salt};
use argon2::{Algorithm, Argon2, Block, Params, Version};
use tokio::sync::oneshot;

use super::Refusal;

/// How many hashes may wait for each that may run.
const QUEUE_PER_CORE: usize = 8;

/// How much less urgent hashing is than all else, as for nice(1): a hash has any core that is idle, and about a tenth of one that is
/// not. Nobody's messages wait for somebody's log-ins.
const NICENESS: i32 = 10;

/// Memory of one hash, in KiB.
const MEMORY_KIB: u32 = 19 * 1024;

/// How often a hash goes over its memory.
const PASSES: u32 = 2;

/// How many threads one hash could use.
const LANES: u32 = 1;

/// What the password of an unknown handle is compared with, and that of an account that has none yet: the parameters above,
/// and an output that no known password has.
pub(super) const NO_PASSWORD: &str =
    "$argon2id$v=19$m=19456,t=2,p=1$AAAAAAAAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

/// What a thread hashes in. It grows with the first hash and is never given back.
type Memory = Vec<Block>;

type Job = Box<dyn FnOnce(&mut Memory) + Send>;

/// The threads that hash and the queue in front of them; clones share them. The threads end with the last clone.
#[derive(Clone)]
pub(super) struct PasswordPool {
    queue: SyncSender<Job>,
    /// Keeps the queue in place where there is no thread.
    _jobs: Arc<Mutex<Receiver<Job>>>,
}

impl PasswordPool {
    /// Returns a pool that uses every core.
    pub(super) fn with_all_cores() -> Self {
        Self::new(available_parallelism().map_or(1, usize::from))
    }

    /// Returns a pool that runs up to `cores` hashes at once.
    pub(super) fn new(cores: usize) -> Self {
        let (queue, jobs) = sync_channel(cores * QUEUE_PER_CORE);
        let jobs = Arc::new(Mutex::new(jobs));
        for number in 0..cores {
            let jobs = jobs.clone();
            let spawned = std::thread::Builder::new().name(format!("password-{number}")).spawn(move || {
                // Of this thread alone. Where it is not allowed hashes only disturb the others more.
                let _ = rustix::process::nice(NICENESS);
                let mut memory = Memory::new();
                // Ends when nobody is left to ask.
                while let Ok(job) = next(&jobs) {
                    // The next hash is not to blame for this one; who waits for it is told.
                    let _ = catch_unwind(AssertUnwindSafe(|| job(&mut memory)));
                }
            });
            if let Err(error) = spawned {
                // The queue fills up and commands are refused as busy; the others go on.
                tracing::error!(%error, "cannot start a thread that hashes passwords");
            }
        }
        Self { queue, _jobs: jobs }
    }

    /// Hashes a password that is to be kept. Returns a PHC string.
    ///
    /// # Errors
    /// `BUSY`, `INTERNAL`.
    pub(super) async fn hash(&self, password: String) -> Result<String, Refusal> {
        self.run(move |memory| kept(&password, memory)).await
    }

    /// Returns whether a password is the one that was kept as `expected`. `None` is an unknown handle: never right, and
    /// as slow to find out.
    ///
    /// # Errors
    /// `BUSY`, `INTERNAL`.
    pub(super) async fn verify(&self, password: String, expected: Option<String>) -> Result<bool, Refusal> {
        self.run(move |memory| {
            let is_right = is_password_of(&password, expected.as_deref().unwrap_or(NO_PASSWORD), memory)?;
            Ok(is_right && expected.is_some())
        })
        .await
    }

    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Memory) -> Result<T, Refusal> + Send + 'static,
    ) -> Result<T, Refusal> {
        let (answer, answered) = oneshot::channel();
        let job = Box::new(move |memory: &mut Memory| {
            if !answer.is_closed() {
                // Whoever asked may go away meanwhile.
                let _ = answer.send(work(memory));
            }
        });
        self.queue.try_send(job).map_err(|_| Refusal::Busy)?;
        // A job that panicked answers nothing.
        answered.await.map_err(|_| internal("the thread panicked"))?
    }
}

fn next(jobs: &Mutex<Receiver<Job>>) -> Result<Job, RecvError> {
    jobs.lock().unwrap_or_else(PoisonError::into_inner).recv()
}

/// Returns the PHC string of a password that is to be kept.
fn kept(password: &str, memory: &mut Memory) -> Result<String, Refusal> {
    let mut salt = [0; Salt::RECOMMENDED_LENGTH];
    getrandom::fill(&mut salt).map_err(internal)?;
    let params = Params::new(MEMORY_KIB, PASSES, LANES, None).map_err(internal)?;
    let (algorithm, version) = (Algorithm::Argon2id, Version::V0x13);
    let hash = PasswordHash {
        algorithm: algorithm.ident(),
        version: Some(version.into()),
        params: ParamsString::try_from(&params).map_err(internal)?,
        salt: Some(Salt::new(&salt).map_err(internal)?),
        hash: Some(compute(
            &Argon2::new(algorithm, version, params),
            password,
            &salt,
            Params::DEFAULT_OUTPUT_LEN,
            memory,
        )?),
    };
    Ok(hash.to_string())
}

/// Checks with the parameters inside `expected`, so that raising the ones above leaves old passwords valid.
fn is_password_of(password: &str, expected: &str, memory: &mut Memory) -> Result<bool, Refusal> {
    let expected = PasswordHash::new(expected).map_err(internal)?;
    let (Some(salt), Some(output)) = (&expected.salt, &expected.hash) else {
        return Err(internal("what is kept has no salt or no hash"));
    };
    let algorithm = Algorithm::try_from(expected.algorithm.as_str()).map_err(internal)?;
    let version = expected.version.map_or(Ok(Version::V0x13), Version::try_from).map_err(internal)?;
    let params = Params::try_from(&expected).map_err(internal)?;
    let argon2 = Argon2::new(algorithm, version, params);
    // Two outputs are compared in constant time.
    Ok(compute(&argon2, password, salt, output.as_ref().len(), memory)? == *output)
}

fn compute(
    argon2: &Argon2<'_>,
    password: &str,
    salt: &[u8],
    len: usize,
    memory: &mut Memory,
) -> Result<Output, Refusal> {
    let blocks = argon2.params().block_count();
    if memory.len() < blocks {
        memory.resize(blocks, Block::default());
    }
    let mut output = [0; Output::MAX_LENGTH];
    let output = output.get_mut(..len).ok_or_else(|| internal("the hash is too long"))?;
    argon2
        .hash_password_into_with_memory(password.as_bytes(), salt, output, &mut memory[..blocks])
        .map_err(internal)?;
    Output::new(output).map_err(internal)
}

fn internal(error: impl std::fmt::Display) -> Refusal {
    Refusal::Internal { reason: format!("hash a password: {error}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn hashing_is_less_urgent_than_all_else() {
        let niceness = || rustix::process::getpriority_process(None).map_err(internal);
        let own = niceness().unwrap();
        let hashing = PasswordPool::new(1).run(move |_| niceness()).await.unwrap();
        assert_eq!((hashing, niceness().unwrap()), ((own + NICENESS).min(19), own));
    }

    #[tokio::test]
    async fn only_the_same_password_is_right() {
        let pool = PasswordPool::new(1);
        let kept = pool.hash("password one".to_owned()).await.unwrap();
        assert!(kept.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{kept}");
        assert_ne!(kept, pool.hash("password one".to_owned()).await.unwrap(), "salted");
        assert_eq!(pool.verify("password one".to_owned(), Some(kept.clone())).await, Ok(true));
        assert_eq!(pool.verify("password two".to_owned(), Some(kept)).await, Ok(false));
        assert_eq!(pool.verify("password one".to_owned(), None).await, Ok(false));
    }

    #[test]
    fn an_unknown_handle_costs_what_a_known_one_costs() {
        let of = |hash: &str| {
            let hash = PasswordHash::new(hash).unwrap();
            let lengths = (hash.salt.unwrap().len(), hash.hash.unwrap().len());
            (hash.algorithm.to_string(), hash.version, hash.params.to_string(), lengths)
        };
        let known = PasswordHash::new(&kept("password", &mut Memory::new()).unwrap()).unwrap();
        assert_eq!(of(NO_PASSWORD), of(&known.to_string()));
    }

    #[tokio::test]
    async fn what_is_no_hash_is_the_servers_fault() {
        let verified = PasswordPool::new(1).verify("password".to_owned(), Some("canary".to_owned())).await;
        let Err(Refusal::Internal { reason }) = verified else { panic!("{verified:?}") };
        assert!(!reason.contains("canary"), "{reason}");
    }

    /// Keeps the one thread of a pool busy until the returned end is dropped.
    fn block(pool: &PasswordPool) -> SyncSender<()> {
        let (release, released) = sync_channel::<()>(0);
        let (started, running) = sync_channel::<()>(0);
        let job: Job = Box::new(move |_| {
            started.send(()).unwrap();
            let _ = released.recv();
        });
        pool.queue.try_send(job).unwrap();
        running.recv().unwrap();
        release
    }

    #[tokio::test]
    async fn a_full_pool_is_busy_until_a_place_is_free() {
        let pool = PasswordPool::new(1);
        let running = block(&pool);
        let mut waiting: Vec<_> =
            (0..QUEUE_PER_CORE).map(|_| Box::pin(pool.verify("password".to_owned(), None))).collect();
        for place in &mut waiting {
            let pending = tokio::time::timeout(std::time::Duration::ZERO, place).await;
            assert!(pending.is_err(), "waits while the only core hashes");
        }
        assert_eq!(pool.hash("password".to_owned()).await, Err(Refusal::Busy));
        assert_eq!(pool.verify("password".to_owned(), None).await, Err(Refusal::Busy));
        drop(running);
        for place in waiting {
            assert_eq!(place.await, Ok(false));
        }
        pool.hash("password".to_owned()).await.unwrap();
    }

    #[tokio::test]
    async fn what_nobody_waits_for_any_more_is_not_hashed() {
        let pool = PasswordPool::new(1);
        let running = block(&pool);
        let (worked, works) = sync_channel(2);
        let job = |name: &'static str| {
            let worked = worked.clone();
            pool.run(move |_| worked.send(name).map_err(internal))
        };
        let mut gone = Box::pin(job("gone"));
        assert!(tokio::time::timeout(std::time::Duration::ZERO, &mut gone).await.is_err());
        drop(gone);
        drop(running);
        job("here").await.unwrap();
        assert_eq!(works.try_iter().collect::<Vec<_>>(), ["here"]);
    }

    #[test]
    fn the_threads_end_with_the_pool() {
        let pool = PasswordPool::new(2);
        let jobs = Arc::downgrade(&pool._jobs);
        drop(pool);
        while jobs.upgrade().is_some() {
            std::thread::yield_now();
        }
    }
}

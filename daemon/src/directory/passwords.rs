//! Hashing passwords, as slowly as it has to be and no more at once than the machine has cores.
//!
//! argon2id with 19 MiB, two passes and one lane, as OWASP recommends for interactive log-in. One hash takes some 20 ms of a
//! core, so the pool bounds both what runs (memory: 19 MiB each) and what waits (time: a queue drained well within a
//! second); beyond it a command is refused as busy, which costs nothing.
//!
//! Invariants: hashing never runs on the event loop; a place in the pool is held until its hash is computed, even when the
//! command that wanted it is gone; a handle that nobody has costs the same hash as one that somebody has.

use std::sync::Arc;
use std::thread::available_parallelism;

use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{Error as HashError, PasswordHasher, PasswordVerifier};
use argon2::{Algorithm, Argon2, Params, Version};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::spawn_blocking;

use super::Refusal;

/// How many hashes may wait for each that may run.
const QUEUE_PER_CORE: usize = 8;

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

/// The places for hashes that run and hashes that wait; clones share them.
#[derive(Clone)]
pub(super) struct PasswordPool {
    /// One permit per hash that waits or runs.
    admitted: Arc<Semaphore>,
    /// One permit per hash that runs. Fair: first come, first served.
    running: Arc<Semaphore>,
}

impl PasswordPool {
    /// Returns a pool that uses every core.
    pub(super) fn with_all_cores() -> Self {
        Self::new(available_parallelism().map_or(1, usize::from))
    }

    /// Returns a pool that runs up to `cores` hashes at once.
    pub(super) fn new(cores: usize) -> Self {
        Self {
            admitted: Arc::new(Semaphore::new(cores * (1 + QUEUE_PER_CORE))),
            running: Arc::new(Semaphore::new(cores)),
        }
    }

    /// Hashes a password that is to be kept. Returns a PHC string.
    ///
    /// # Errors
    /// `BUSY`, `INTERNAL`.
    pub(super) async fn hash(&self, password: String) -> Result<String, Refusal> {
        self.run(move || {
            let hash: PasswordHash = hasher()?.hash_password(password.as_bytes()).map_err(internal)?;
            Ok(hash.to_string())
        })
        .await
    }

    /// Returns whether a password is the one that was kept as `expected`. `None` is an unknown handle: never right, and
    /// as slow to find out.
    ///
    /// # Errors
    /// `BUSY`, `INTERNAL`.
    pub(super) async fn verify(&self, password: String, expected: Option<String>) -> Result<bool, Refusal> {
        self.run(move || {
            let is_right = is_password_of(&password, expected.as_deref().unwrap_or(NO_PASSWORD))?;
            Ok(is_right && expected.is_some())
        })
        .await
    }

    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, Refusal> + Send + 'static,
    ) -> Result<T, Refusal> {
        let places = self.enter().await?;
        let job = spawn_blocking(move || {
            let result = work();
            drop(places);
            result
        });
        job.await.map_err(|error| Refusal::Internal { reason: format!("hash a password: {error}") })?
    }

    async fn enter(&self) -> Result<(OwnedSemaphorePermit, OwnedSemaphorePermit), Refusal> {
        let admitted = self.admitted.clone().try_acquire_owned().map_err(|_| Refusal::Busy)?;
        // Nobody closes the semaphore.
        let running = self.running.clone().acquire_owned().await.map_err(|_| Refusal::Busy)?;
        Ok((admitted, running))
    }
}

fn hasher() -> Result<Argon2<'static>, Refusal> {
    let params = Params::new(MEMORY_KIB, PASSES, LANES, None).map_err(internal)?;
    Ok(Argon2::new(Algorithm::Argon2id, Version::V0x13, params))
}

/// Checks with the parameters inside `expected`, so that raising the ones above leaves old passwords valid.
fn is_password_of(password: &str, expected: &str) -> Result<bool, Refusal> {
    let expected = PasswordHash::new(expected).map_err(internal)?;
    match hasher()?.verify_password(password.as_bytes(), &expected) {
        Ok(()) => Ok(true),
        Err(HashError::PasswordInvalid) => Ok(false),
        Err(error) => Err(internal(error)),
    }
}

fn internal(error: impl std::fmt::Display) -> Refusal {
    Refusal::Internal { reason: format!("hash a password: {error}") }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        let known: PasswordHash = hasher().unwrap().hash_password(b"password").unwrap();
        assert_eq!(of(NO_PASSWORD), of(&known.to_string()));
    }

    #[tokio::test]
    async fn what_is_no_hash_is_the_servers_fault() {
        let verified = PasswordPool::new(1).verify("password".to_owned(), Some("canary".to_owned())).await;
        let Err(Refusal::Internal { reason }) = verified else { panic!("{verified:?}") };
        assert!(!reason.contains("canary"), "{reason}");
    }

    #[tokio::test]
    async fn a_full_pool_is_busy_until_a_place_is_free() {
        let pool = PasswordPool::new(1);
        let running = pool.enter().await.unwrap();
        let mut waiting: Vec<_> = (0..QUEUE_PER_CORE).map(|_| Box::pin(pool.enter())).collect();
        for place in &mut waiting {
            let pending = tokio::time::timeout(std::time::Duration::ZERO, place).await;
            assert!(pending.is_err(), "waits while the only core hashes");
        }
        assert_eq!(pool.hash("password".to_owned()).await, Err(Refusal::Busy));
        assert_eq!(pool.verify("password".to_owned(), None).await, Err(Refusal::Busy));
        // A command that goes away while it waits leaves its place.
        waiting.pop();
        drop(running);
        drop(waiting);
        pool.hash("password".to_owned()).await.unwrap();
    }

    #[tokio::test]
    async fn a_hash_keeps_its_place_when_its_command_is_gone() {
        let pool = PasswordPool::new(1);
        let (release, released) = std::sync::mpsc::sync_channel::<()>(0);
        let mut job = Box::pin(pool.run(move || released.recv().map_err(internal)));
        let started = tokio::time::timeout(std::time::Duration::ZERO, &mut job).await;
        assert!(started.is_err());
        drop(job);
        assert_eq!(pool.running.available_permits(), 0);
        release.send(()).unwrap();
        pool.hash("password".to_owned()).await.unwrap();
    }
}

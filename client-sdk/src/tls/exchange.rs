//! Which key exchange a handshake used.
//!
//! People who ask for post-quantum protection want to see that they have it, and QUIC libraries do not tell. So every
//! group of the provider is wrapped in one that does the same and notes when an exchange was completed with it.
//!
//! Invariant: a key exchange runs inside one call into the TLS session, on the thread of that call. The note is kept per
//! thread, cleared before the call and read after it (`session.rs`), so it cannot be another connection's.

use std::cell::Cell;
use std::sync::LazyLock;

use rustls::crypto::{ActiveKeyExchange, CompletedKeyExchange, SharedSecret, SupportedKxGroup, aws_lc_rs};
use rustls::ffdhe_groups::FfdheGroup;
use rustls::{NamedGroup, ProtocolVersion};

thread_local! {
    static COMPLETED: Cell<Option<NamedGroup>> = const { Cell::new(None) };
}

/// Returns the provider's default groups, in its order, wrapped.
pub(super) fn groups() -> Vec<&'static dyn SupportedKxGroup> {
    static GROUPS: LazyLock<Vec<Noting>> =
        LazyLock::new(|| aws_lc_rs::DEFAULT_KX_GROUPS.iter().map(|group| Noting(*group)).collect());
    GROUPS.iter().map(|group| group as &'static dyn SupportedKxGroup).collect()
}

/// Runs a call into a TLS session and returns with its result the key exchange that was completed in it.
pub(super) fn noting<T>(call: impl FnOnce() -> T) -> (T, Option<NamedGroup>) {
    COMPLETED.set(None);
    let result = call();
    (result, COMPLETED.take())
}

#[derive(Debug)]
struct Noting(&'static dyn SupportedKxGroup);

impl SupportedKxGroup for Noting {
    fn start(&self) -> Result<Box<dyn ActiveKeyExchange>, rustls::Error> {
        Ok(Box::new(NotingExchange(self.0.start()?)))
    }

    fn start_and_complete(&self, peer_pub_key: &[u8]) -> Result<CompletedKeyExchange, rustls::Error> {
        self.0.start_and_complete(peer_pub_key)
    }

    fn ffdhe_group(&self) -> Option<FfdheGroup<'static>> {
        self.0.ffdhe_group()
    }

    fn name(&self) -> NamedGroup {
        self.0.name()
    }

    fn fips(&self) -> bool {
        self.0.fips()
    }

    fn usable_for_version(&self, version: ProtocolVersion) -> bool {
        self.0.usable_for_version(version)
    }
}

struct NotingExchange(Box<dyn ActiveKeyExchange>);

impl ActiveKeyExchange for NotingExchange {
    fn complete(self: Box<Self>, peer_pub_key: &[u8]) -> Result<SharedSecret, rustls::Error> {
        let group = self.0.group();
        let secret = self.0.complete(peer_pub_key)?;
        COMPLETED.set(Some(group));
        Ok(secret)
    }

    fn hybrid_component(&self) -> Option<(NamedGroup, &[u8])> {
        self.0.hybrid_component()
    }

    fn complete_hybrid_component(
        self: Box<Self>,
        peer_pub_key: &[u8],
    ) -> Result<SharedSecret, rustls::Error> {
        let group = self.0.hybrid_component().map(|(group, _)| group);
        let secret = self.0.complete_hybrid_component(peer_pub_key)?;
        COMPLETED.set(group);
        Ok(secret)
    }

    fn pub_key(&self) -> &[u8] {
        self.0.pub_key()
    }

    fn group(&self) -> NamedGroup {
        self.0.group()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hybrid_with_ml_kem_is_the_first_choice() {
        assert_eq!(groups()[0].name(), NamedGroup::X25519MLKEM768);
    }

    #[test]
    fn a_completed_exchange_is_noted_once() {
        let group = groups()[0];
        let (_, noted) = noting(|| {
            let ours = group.start().unwrap();
            let theirs = group.start_and_complete(ours.pub_key()).unwrap();
            ours.complete(&theirs.pub_key).unwrap()
        });
        assert_eq!(noted, Some(NamedGroup::X25519MLKEM768));
        assert_eq!(noting(|| ()).1, None);
    }

    #[test]
    fn the_classical_half_of_a_hybrid_is_noted_as_what_it_is() {
        let ours = groups()[0].start().unwrap();
        let (half, share) = ours.hybrid_component().unwrap();
        let classical = groups().into_iter().find(|group| group.name() == half).unwrap();
        let theirs = classical.start_and_complete(share).unwrap();
        let (_, noted) = noting(|| ours.complete_hybrid_component(&theirs.pub_key).unwrap());
        assert_eq!(noted, Some(NamedGroup::X25519));
    }
}

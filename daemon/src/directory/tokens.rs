//! Secrets and ids that the daemon draws.
//!
//! A session token is 256 random bits. The directory keeps its SHA-256 and nothing else: whoever reads the directory can
//! open no session, and a hash made slow on purpose would protect nothing against guessing 2^256.

use quail_core::ports::directory::SecretHash;
use quail_protocol::limits::TOKEN_BYTES;
use sha2::{Digest, Sha256};

use super::Refusal;

/// A session token. It has no `Debug`, so it gets into no log.
pub(super) struct Token([u8; TOKEN_BYTES]);

impl Token {
    /// Draws a new token.
    ///
    /// # Errors
    /// `INTERNAL` if the system has no random numbers.
    pub(super) fn draw() -> Result<Self, Refusal> {
        Ok(Self(random()?))
    }

    /// Returns a token that a client sent, or `None` if its length says that it is none.
    pub(super) fn from_client(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    /// Returns the token for the client it was drawn for.
    pub(super) fn secret(&self) -> [u8; TOKEN_BYTES] {
        self.0
    }

    /// Returns what the directory knows of the token.
    pub(super) fn hash(&self) -> SecretHash {
        hash(&self.0)
    }
}

/// Returns what the directory knows of a secret.
pub(super) fn hash(secret: &[u8]) -> SecretHash {
    Sha256::digest(secret).into()
}

/// Returns what the directory knows of an invite. People type invites: letter case and surrounding space do not count.
pub(super) fn invite_hash(invite: &str) -> SecretHash {
    hash(invite.trim().to_ascii_uppercase().as_bytes())
}

/// Draws an id: a UUID version 4. Its time of birth is nobody's business, unlike a message's.
pub(super) fn random_id() -> Result<[u8; 16], Refusal> {
    Ok(uuid::Builder::from_random_bytes(random()?).into_uuid().into_bytes())
}

/// Draws random bytes from the system.
pub(super) fn random<const N: usize>() -> Result<[u8; N], Refusal> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes)
        .map_err(|error| Refusal::Internal { reason: format!("draw random bytes: {error}") })?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_differ_and_hash_as_specified() {
        let (one, other) = (Token::draw().unwrap(), Token::draw().unwrap());
        assert_ne!(one.secret(), other.secret());
        assert_ne!(one.hash(), one.secret());
        // FIPS 180-4, example "abc".
        assert_eq!(hash(b"abc")[..4], [0xba, 0x78, 0x16, 0xbf]);
    }

    #[test]
    fn only_the_right_length_can_be_a_token() {
        assert!(Token::from_client(&[7; TOKEN_BYTES]).is_some());
        for len in [0, TOKEN_BYTES - 1, TOKEN_BYTES + 1] {
            assert!(Token::from_client(&vec![7; len]).is_none(), "{len}");
        }
    }

    #[test]
    fn ids_are_of_version_4() {
        let id = uuid::Uuid::from_bytes(random_id().unwrap());
        assert_eq!(id.get_version_num(), 4);
        assert_eq!(id.get_variant(), uuid::Variant::RFC4122);
    }
}

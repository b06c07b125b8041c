//! Invites: issued by the operator, each good for one account.

use std::fmt::Write;

use super::{DirectoryService, Refusal, tokens};

/// Random bytes of an invite: beyond guessing, and its hexadecimal form still fits the limit of names.
const INVITE_BYTES: usize = 16;

impl DirectoryService {
    /// Issues an invite and returns its text, which is kept nowhere else.
    ///
    /// # Errors
    /// `DIRECTORY_UNAVAILABLE`, `INTERNAL`.
    pub async fn create_invite(&self, now_ms: u64) -> Result<String, Refusal> {
        let invite = hex(&tokens::random::<INVITE_BYTES>()?);
        self.port.create_invite(tokens::hash(invite.as_bytes()), now_ms).await?;
        Ok(invite)
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use quail_protocol::limits::NAME_BYTES_MAX;

    use super::super::testing::{NOW_MS, open_service};
    use super::*;

    #[tokio::test]
    async fn invites_differ_and_fit_their_limit() {
        let service = open_service();
        let (one, other) =
            (service.create_invite(NOW_MS).await.unwrap(), service.create_invite(NOW_MS).await.unwrap());
        assert_ne!(one, other);
        assert!(one.len() == 2 * INVITE_BYTES && one.len() <= NAME_BYTES_MAX);
        assert_eq!(hex(&[0, 0xab]), "00ab");
    }
}

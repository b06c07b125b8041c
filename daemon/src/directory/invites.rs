//! Invites: issued by the operator, each good for one account.

use super::{DirectoryService, Refusal, tokens};

/// Characters of an invite: at 5 bits each beyond guessing, and short enough to type.
const INVITE_CHARS: usize = 26;

/// Base 32 without I, L, O and U (Crockford): nothing in it is read as something else.
const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";

impl DirectoryService {
    /// Issues an invite and returns its text, which is kept nowhere else.
    ///
    /// # Errors
    /// `DIRECTORY_UNAVAILABLE`, `INTERNAL`.
    pub async fn create_invite(&self, now_ms: u64) -> Result<String, Refusal> {
        let invite = text(&tokens::random()?);
        self.port.create_invite(tokens::invite_hash(&invite), now_ms).await?;
        Ok(invite)
    }
}

fn text(random: &[u8; INVITE_CHARS]) -> String {
    // 256 is a multiple of 32, so every character is as likely as any other.
    random.iter().map(|byte| char::from(ALPHABET[usize::from(byte % 32)])).collect()
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
        assert!(one.len() == INVITE_CHARS && one.len() <= NAME_BYTES_MAX);
        let bytes = std::array::from_fn(|index| index as u8 + 230);
        assert_eq!(text(&bytes), "6789ABCDEFGHJKMNPQRSTVWXYZ");
    }

    #[test]
    fn an_invite_may_be_typed_in_small_letters() {
        assert_eq!(tokens::invite_hash(" 0abz\n"), tokens::invite_hash("0ABZ"));
        assert_ne!(tokens::invite_hash("0ABZ"), tokens::invite_hash("0ABY"));
    }
}

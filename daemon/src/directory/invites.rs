//! The codes of invites: drawn for the operator, typed by people, each good for one account.

use super::{Refusal, tokens};

/// Characters of an invite: at 5 bits each beyond guessing, and short enough to type.
const INVITE_CHARS: usize = 26;

/// Base 32 without I, L, O and U (Crockford): nothing in it is read as something else.
const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";

/// Draws a code.
///
/// # Errors
/// `INTERNAL` if the system has no random numbers.
pub(super) fn draw() -> Result<String, Refusal> {
    Ok(text(&tokens::random()?))
}

fn text(random: &[u8; INVITE_CHARS]) -> String {
    // 256 is a multiple of 32, so every character is as likely as any other.
    random.iter().map(|byte| char::from(ALPHABET[usize::from(byte % 32)])).collect()
}

#[cfg(test)]
mod tests {
    use quail_protocol::limits::NAME_BYTES_MAX;
    use quail_protocol::text::is_password;

    use super::*;

    #[test]
    fn codes_differ_and_fit_their_limits() {
        let (one, other) = (draw().unwrap(), draw().unwrap());
        assert_ne!(one, other);
        assert!(one.len() == INVITE_CHARS && one.len() <= NAME_BYTES_MAX && is_password(&one));
        let bytes = std::array::from_fn(|index| index as u8 + 230);
        assert_eq!(text(&bytes), "6789ABCDEFGHJKMNPQRSTVWXYZ");
    }

    #[test]
    fn an_invite_may_be_typed_in_small_letters() {
        assert_eq!(tokens::invite_hash(" 0abz\n"), tokens::invite_hash("0ABZ"));
        assert_ne!(tokens::invite_hash("0ABZ"), tokens::invite_hash("0ABY"));
    }
}

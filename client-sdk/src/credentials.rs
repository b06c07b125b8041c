//! Credentials: what signing up or logging in gives a device, to be kept like a password.
//!
//! Invariants: `Debug` never shows the token; the token leaves this type only through serde and
//! [`SessionToken::as_bytes`].

use std::fmt;

use quail_protocol::id::{AccountId, DeviceId};
use quail_protocol::limits::TOKEN_BYTES;
use quail_protocol::v1;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::Error;

/// The secret that opens connections as one device. Serializes as 64 hex digits.
#[derive(Clone, PartialEq, Eq)]
pub struct SessionToken([u8; TOKEN_BYTES]);

impl SessionToken {
    /// Takes over a token that was stored elsewhere.
    pub fn from_bytes(bytes: [u8; TOKEN_BYTES]) -> Self {
        Self(bytes)
    }

    /// Returns the secret itself. Whoever has it is this device.
    pub fn as_bytes(&self) -> &[u8; TOKEN_BYTES] {
        &self.0
    }
}

impl fmt::Debug for SessionToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SessionToken(..)")
    }
}

/// A logged-in device: who it is and the secret that proves it.
///
/// Persist it with any serde format, readable by its owner only.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Credentials {
    /// The account.
    #[serde(with = "text")]
    pub account: AccountId,
    /// The device of the account.
    #[serde(with = "text")]
    pub device: DeviceId,
    /// The account's public name.
    pub handle: String,
    /// The secret.
    pub token: SessionToken,
}

impl Credentials {
    /// Reads what the server answers to sign up and log in.
    pub(crate) fn from_wire(session: v1::Session) -> Result<Self, Error> {
        let broken = |detail: String| Error::protocol(format!("session: {detail}"));
        let token = session.token.as_ref().try_into().map_err(|_| broken("token of wrong length".into()))?;
        Ok(Self {
            account: session.account.as_ref().try_into().map_err(|error| broken(format!("{error}")))?,
            device: session.device.as_ref().try_into().map_err(|error| broken(format!("{error}")))?,
            handle: session.handle,
            token: SessionToken(token),
        })
    }
}

impl Serialize for SessionToken {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let hex: String = self.0.iter().map(|byte| format!("{byte:02x}")).collect();
        serializer.serialize_str(&hex)
    }
}

impl<'de> Deserialize<'de> for SessionToken {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // The text itself is kept out of the message: it may be a token with one digit wrong.
        let wrong = || de::Error::custom("a session token is 64 hex digits");
        let hex = String::deserialize(deserializer)?;
        if hex.len() != 2 * TOKEN_BYTES {
            return Err(wrong());
        }
        let mut token = [0; TOKEN_BYTES];
        for (byte, pair) in token.iter_mut().zip(hex.as_bytes().chunks_exact(2)) {
            for digit in pair {
                let digit = char::from(*digit).to_digit(16).ok_or_else(wrong)?;
                *byte = *byte << 4 | digit as u8;
            }
        }
        Ok(Self(token))
    }
}

/// Ids as the text people see, for serde.
mod text {
    use std::fmt::Display;
    use std::str::FromStr;

    use serde::{Deserialize, Deserializer, Serializer, de};

    pub(super) fn serialize<T: Display, S: Serializer>(id: &T, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(id)
    }

    pub(super) fn deserialize<'de, T, D>(deserializer: D) -> Result<T, D::Error>
    where
        T: FromStr<Err: Display>,
        D: Deserializer<'de>,
    {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn credentials() -> Credentials {
        Credentials {
            account: AccountId([1; 16]),
            device: DeviceId([2; 16]),
            handle: "ada".into(),
            token: SessionToken::from_bytes([0xab; TOKEN_BYTES]),
        }
    }

    #[test]
    fn credentials_come_back_as_they_were_stored() {
        let text = serde_json::to_string(&credentials()).unwrap();
        assert!(text.contains(&"ab".repeat(TOKEN_BYTES)), "{text}");
        assert_eq!(serde_json::from_str::<Credentials>(&text).unwrap(), credentials());
    }

    #[test]
    fn debug_output_hides_the_token() {
        let shown = format!("{:?}", credentials());
        assert!(!shown.contains("ab, ab") && !shown.contains("abab") && !shown.contains("171"), "{shown}");
    }

    #[test]
    fn a_token_of_another_length_is_refused_without_showing_it() {
        let text = serde_json::to_string(&credentials()).unwrap().replace(&"ab".repeat(TOKEN_BYTES), "abab");
        let error = serde_json::from_str::<Credentials>(&text).unwrap_err().to_string();
        assert!(!error.contains("abab"), "{error}");
    }
}

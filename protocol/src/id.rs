//! The ids and counters of the wire as types of their own, so that none can be taken for another.
//!
//! An id is 16 bytes. Bytes from a peer become an id only through `try_from`, which checks the length.

use std::fmt;

use uuid::Uuid;

/// A byte string that should have been an id and is not 16 bytes long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} must be 16 bytes, not {len}")]
pub struct IdLengthError {
    what: &'static str,
    len: usize,
}

macro_rules! id_type {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub [u8; 16]);

        impl $name {
            /// Returns the id as the 16 bytes that travel.
            pub const fn as_bytes(&self) -> &[u8; 16] {
                &self.0
            }

            /// Returns the id as owned wire bytes.
            pub fn to_bytes(self) -> bytes::Bytes {
                bytes::Bytes::copy_from_slice(&self.0)
            }
        }

        impl TryFrom<&[u8]> for $name {
            type Error = IdLengthError;

            fn try_from(bytes: &[u8]) -> Result<Self, IdLengthError> {
                bytes.try_into().map(Self).map_err(|_| IdLengthError { what: $what, len: bytes.len() })
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                Uuid::from_bytes(self.0).fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), Uuid::from_bytes(self.0))
            }
        }

        impl std::str::FromStr for $name {
            type Err = uuid::Error;

            fn from_str(text: &str) -> Result<Self, uuid::Error> {
                Uuid::parse_str(text).map(|id| Self(*id.as_bytes()))
            }
        }
    };
}

id_type! {
    /// A person.
    AccountId, "account id"
}
id_type! {
    /// One installation of a client, logged in by an account.
    DeviceId, "device id"
}
id_type! {
    /// A message; unique together with its sender. A UUID version 7 (RFC 9562, section 5.7), minted by the sender.
    MessageId, "message id"
}
id_type! {
    /// A conversation. Names direct conversations in storage only; on the wire a direct conversation is its peer.
    ConversationId, "conversation id"
}

impl MessageId {
    /// Returns the milliseconds since the Unix epoch inside the id, or `None` if it is no UUID version 7.
    pub fn unix_ms(&self) -> Option<u64> {
        let is_version_7 = self.0[6] >> 4 == 7 && self.0[8] >> 6 == 0b10;
        is_version_7.then(|| self.0[..6].iter().fold(0, |ms, byte| ms << 8 | u64::from(*byte)))
    }
}

/// What names a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MessageRef {
    /// Who sent it.
    pub sender: AccountId,
    /// Its id, minted by the sender.
    pub id: MessageId,
}

impl From<MessageRef> for crate::v1::MessageRef {
    fn from(message: MessageRef) -> Self {
        Self { sender: message.sender.to_bytes(), id: message.id.to_bytes() }
    }
}

impl TryFrom<&crate::v1::MessageRef> for MessageRef {
    type Error = IdLengthError;

    fn try_from(message: &crate::v1::MessageRef) -> Result<Self, IdLengthError> {
        Self::of(&message.sender, &message.id)
    }
}

impl MessageRef {
    /// Returns the message that two byte strings of the wire name.
    ///
    /// # Errors
    /// One of the two is no id.
    pub fn of(sender: &[u8], id: &[u8]) -> Result<Self, IdLengthError> {
        Ok(Self { sender: sender.try_into()?, id: id.try_into()? })
    }
}

/// The data directory that accepted an event and answers for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Origin(pub u32);

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The number of an event at its origin: one per event, in the order of decision, never reused. Zero is before all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position(pub u64);

impl Position {
    /// The position before the first event.
    pub const ZERO: Self = Self(0);

    /// Beyond every position. A gap up to here says that its origin has ended.
    pub const END: Self = Self(i64::MAX as u64);

    /// Returns the position after this one.
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A hybrid logical clock (Kulkarni et al., 2014): 48 bits of milliseconds since the Unix epoch and a 16 bit counter
/// that carries into them. It only sorts what people see; nothing is counted or found by it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Stamp(pub u64);

impl Stamp {
    /// Returns the first stamp of a millisecond.
    pub const fn from_ms(unix_ms: u64) -> Self {
        Self(unix_ms << 16)
    }

    /// Returns the milliseconds since the Unix epoch.
    pub const fn unix_ms(self) -> u64 {
        self.0 >> 16
    }

    /// Returns the stamp after this one.
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_version_7_ids_have_a_time() {
        let v7: MessageId = "01890a5d-ac96-774b-bcce-b302099a8057".parse().unwrap();
        assert_eq!(v7.unix_ms(), Some(0x0189_0a5d_ac96));
        let v4: MessageId = "c232ab00-9414-41ec-b3c8-9f6bdeced846".parse().unwrap();
        assert_eq!(v4.unix_ms(), None);
    }

    #[test]
    fn an_id_of_another_length_is_refused_with_its_name() {
        let error = AccountId::try_from(&[0u8; 15][..]).unwrap_err();
        assert_eq!(error.to_string(), "account id must be 16 bytes, not 15");
    }

    #[test]
    fn a_stamp_carries_its_counter_into_the_milliseconds() {
        let last_of_ms = Stamp(Stamp::from_ms(7).0 | 0xffff);
        assert_eq!(last_of_ms.next(), Stamp::from_ms(8));
    }
}

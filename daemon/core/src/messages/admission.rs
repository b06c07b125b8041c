//! Admission: whether there is room for a new message.
//!
//! When the store fills faster than it empties, senders above their fair share are refused first; when it is full, everybody
//! is. Only new messages are asked: acknowledgements, receipts and repeated sends always pass, because they make room or
//! cost none. A recipient's absence alone never refuses a sender: outboxes have limits of their own.

use std::collections::HashMap;
use std::time::Duration;

use quail_protocol::id::AccountId;
use quail_protocol::v1::{self, Reason};

use crate::ports::outbox::Room;

/// What a message costs besides its body, in bytes.
const OVERHEAD_BYTES: u64 = 256;

/// When a sender above its share may try again.
const SHARE_RETRY: Duration = Duration::from_millis(500);

/// The room there is, and who has used it.
#[derive(Debug, Default)]
pub(crate) struct Admission {
    room: Room,
    /// Bytes accepted by sender since it became tight. Bounded by the senders that fit into what room was left then.
    used: HashMap<AccountId, u64>,
}

impl Admission {
    pub(crate) fn set(&mut self, room: Room) {
        if room == Room::Open {
            self.used.clear();
        }
        self.room = room;
    }

    /// Admits a new message of a sender, or says why not.
    pub(crate) fn admit(&mut self, sender: AccountId, body_bytes: usize) -> Result<(), v1::Error> {
        match self.room {
            Room::Open => Ok(()),
            Room::Full { retry_after } => Err(Reason::Overloaded.retry_after(retry_after)),
            Room::Tight { share_bytes } => {
                let used = self.used.entry(sender).or_default();
                if *used >= share_bytes {
                    return Err(Reason::Overloaded.retry_after(SHARE_RETRY));
                }
                *used += body_bytes as u64 + OVERHEAD_BYTES;
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ADA: AccountId = AccountId([1; 16]);
    const BOB: AccountId = AccountId([2; 16]);

    #[test]
    fn who_is_above_the_share_is_refused_and_others_are_not() {
        let mut admission = Admission::default();
        admission.set(Room::Tight { share_bytes: 1_000 });
        let passed = (0..10).filter(|_| admission.admit(ADA, 100).is_ok()).count();
        assert_eq!(passed, 3);
        let error = admission.admit(ADA, 100).unwrap_err();
        assert_eq!((error.reason(), error.temporary), (Reason::Overloaded, true));
        assert!(error.retry_after_ms > 0);
        assert!(admission.admit(BOB, 100).is_ok());
        admission.set(Room::Open);
        admission.set(Room::Tight { share_bytes: 1_000 });
        assert!(admission.admit(ADA, 100).is_ok(), "the share begins anew");
    }

    #[test]
    fn a_full_store_says_when_to_come_back() {
        let mut admission = Admission::default();
        admission.set(Room::Full { retry_after: Duration::from_secs(3) });
        assert_eq!(admission.admit(ADA, 0).unwrap_err().retry_after_ms, 3_000);
    }
}

//! What a refusal of a send means for the message: the one table of it.
//!
//! The match has a line for every reason that the protocol names, so that a new one does not compile before somebody has
//! decided. Whether a server keeps refusing what comes behind goes by its own word (`temporary`), so for a reason that may
//! be either, that word decides here too; a reason of a later version reads as `INTERNAL` and goes by it as well.

use quail_protocol::v1::Reason;

/// What becomes of a message that was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It is sent again, under the same number, after a pause and a `Restart`.
    Again,
    /// As `Again`; the largest stamp seen was from a wrong clock and is forgotten. What was written behind it told the same
    /// stamp and is refused as well, so all of it keeps its numbers and its order.
    AgainUnseen,
    /// It is sent again under a new number with the same id, as the last one.
    NewNumber,
    /// It stays in the queue, and the client ends: the session is gone.
    SessionEnded,
    /// The application has to look at it.
    Final,
}

/// Returns what becomes of a message that was refused with `reason`; `temporary` is the server's word.
pub(crate) fn verdict(reason: Reason, temporary: bool) -> Verdict {
    if temporary {
        // Whatever the reason: the server refuses everything behind until it reads `Restart`.
        return Verdict::Again;
    }
    match reason {
        Reason::NumberPassed => Verdict::NewNumber,
        Reason::Clock => Verdict::AgainUnseen,
        Reason::Unauthenticated => Verdict::SessionEnded,
        // Nothing is wrong with the message, whatever the server says of it: it was one before.
        Reason::AfterRefused => Verdict::Again,
        // About the message itself.
        Reason::UnknownAccount
        | Reason::BodyTooLarge
        | Reason::BodyInvalid
        | Reason::IdInvalid
        | Reason::IdTime
        | Reason::IdReused
        | Reason::TooLate
        | Reason::TargetInvalid
        // The device lost its counter, or shares it with a copy of itself.
        | Reason::NumberReused
        // Faults of this crate.
        | Reason::Malformed
        | Reason::FrameTooLarge
        | Reason::FrameTimeout
        | Reason::WrongFrame
        | Reason::Version
        | Reason::Limit
        // No server says these of a send.
        | Reason::WrongCredentials
        | Reason::HandleTaken
        | Reason::HandleInvalid
        | Reason::PasswordInvalid
        | Reason::SignUpClosed
        | Reason::InviteInvalid
        | Reason::DeviceLimit
        | Reason::AckInvalid
        | Reason::ReadInvalid
        | Reason::Replaced
        | Reason::NoHistory
        | Reason::UnknownConversation
        // Temporary by the table: a server that says otherwise means it.
        | Reason::Internal
        | Reason::Stalled
        | Reason::Busy
        | Reason::Overloaded
        | Reason::DirectoryUnavailable
        | Reason::Draining
        | Reason::RateLimited
        | Reason::ArchiveUnavailable
        | Reason::Unspecified => Verdict::Final,
    }
}

#[cfg(test)]
mod tests {
    use quail_protocol::error::REASONS;

    use super::*;

    /// What becomes of a message that is refused finally.
    const EXPECTED: &[(&str, Verdict)] = &[
        ("NUMBER_PASSED", Verdict::NewNumber),
        ("CLOCK", Verdict::AgainUnseen),
        ("UNAUTHENTICATED", Verdict::SessionEnded),
        ("AFTER_REFUSED", Verdict::Again),
        ("MALFORMED", Verdict::Final),
        ("FRAME_TOO_LARGE", Verdict::Final),
        ("FRAME_TIMEOUT", Verdict::Final),
        ("WRONG_FRAME", Verdict::Final),
        ("VERSION", Verdict::Final),
        ("LIMIT", Verdict::Final),
        ("INTERNAL", Verdict::Final),
        ("WRONG_CREDENTIALS", Verdict::Final),
        ("HANDLE_TAKEN", Verdict::Final),
        ("HANDLE_INVALID", Verdict::Final),
        ("PASSWORD_INVALID", Verdict::Final),
        ("SIGN_UP_CLOSED", Verdict::Final),
        ("INVITE_INVALID", Verdict::Final),
        ("DEVICE_LIMIT", Verdict::Final),
        ("UNKNOWN_ACCOUNT", Verdict::Final),
        ("BODY_TOO_LARGE", Verdict::Final),
        ("BODY_INVALID", Verdict::Final),
        ("ID_INVALID", Verdict::Final),
        ("ID_TIME", Verdict::Final),
        ("ID_REUSED", Verdict::Final),
        ("NUMBER_REUSED", Verdict::Final),
        ("ACK_INVALID", Verdict::Final),
        ("READ_INVALID", Verdict::Final),
        ("REPLACED", Verdict::Final),
        ("STALLED", Verdict::Final),
        ("BUSY", Verdict::Final),
        ("OVERLOADED", Verdict::Final),
        ("DIRECTORY_UNAVAILABLE", Verdict::Final),
        ("DRAINING", Verdict::Final),
        ("RATE_LIMITED", Verdict::Final),
        ("ARCHIVE_UNAVAILABLE", Verdict::Final),
        ("NO_HISTORY", Verdict::Final),
        ("UNKNOWN_CONVERSATION", Verdict::Final),
        ("TOO_LATE", Verdict::Final),
        ("TARGET_INVALID", Verdict::Final),
    ];

    #[test]
    fn every_reason_goes_by_the_servers_word_and_the_table() {
        for meta in REASONS {
            assert_eq!(verdict(meta.reason, true), Verdict::Again, "{}", meta.name);
            let row = EXPECTED.iter().find(|(name, _)| *name == meta.name);
            let (_, expected) = row.unwrap_or_else(|| panic!("{} has no row", meta.name));
            assert_eq!(verdict(meta.reason, false), *expected, "{}", meta.name);
        }
    }

    #[test]
    fn a_reason_of_a_later_version_goes_by_the_servers_word() {
        let unknown = |temporary| {
            let error = quail_protocol::v1::Error { reason: 9_999, temporary, ..Default::default() };
            let refusal = crate::Refusal::from_wire(error);
            verdict(refusal.reason, refusal.temporary)
        };
        assert_eq!((unknown(true), unknown(false)), (Verdict::Again, Verdict::Final));
    }
}

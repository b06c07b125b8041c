//! The error table: every reason with its name, whether a retry can help, and what it means.
//!
//! Daemon, clients, documentation and tests read this one table. Clients decide on the reason, never on the text.

use crate::v1::{Error, Reason};

/// One row of the error table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReasonMeta {
    /// The reason.
    pub reason: Reason,
    /// Its name on the wire's documentation, in logs and metrics.
    pub name: &'static str,
    /// Whether the same command may succeed later, unchanged.
    pub temporary: bool,
    /// The text sent along where the place that refuses has nothing better to say.
    pub text: &'static str,
}

const fn row(reason: Reason, name: &'static str, temporary: bool, text: &'static str) -> ReasonMeta {
    ReasonMeta { reason, name, temporary, text }
}

/// Every reason a peer can see.
pub const REASONS: &[ReasonMeta] = &[
    row(Reason::Malformed, "MALFORMED", false, "the frame is not valid"),
    row(Reason::FrameTooLarge, "FRAME_TOO_LARGE", false, "the frame is longer than allowed"),
    row(Reason::FrameTimeout, "FRAME_TIMEOUT", false, "the frame took too long to arrive"),
    row(Reason::WrongFrame, "WRONG_FRAME", false, "this frame is not allowed here"),
    row(Reason::Version, "VERSION", false, "no protocol version in common"),
    row(Reason::Unauthenticated, "UNAUTHENTICATED", false, "log in first"),
    row(Reason::Limit, "LIMIT", false, "a limit of the connection was passed"),
    row(Reason::Internal, "INTERNAL", true, "the server failed"),
    row(Reason::WrongCredentials, "WRONG_CREDENTIALS", false, "wrong handle or password"),
    row(Reason::HandleTaken, "HANDLE_TAKEN", false, "the handle is taken"),
    row(
        Reason::HandleInvalid,
        "HANDLE_INVALID",
        false,
        "a handle has 3 to 32 characters of a-z, 0-9, _ and .",
    ),
    row(Reason::PasswordInvalid, "PASSWORD_INVALID", false, "a password has 8 to 1,024 bytes"),
    row(Reason::SignUpClosed, "SIGN_UP_CLOSED", false, "this server takes no new accounts"),
    row(Reason::InviteInvalid, "INVITE_INVALID", false, "the invite is missing, unknown or used"),
    row(Reason::DeviceLimit, "DEVICE_LIMIT", false, "the account has too many devices; log one out first"),
    row(Reason::UnknownAccount, "UNKNOWN_ACCOUNT", false, "no such account"),
    row(Reason::BodyTooLarge, "BODY_TOO_LARGE", false, "the body is longer than 61,440 bytes"),
    row(Reason::BodyInvalid, "BODY_INVALID", false, "the body does not fit its kind"),
    row(Reason::IdInvalid, "ID_INVALID", false, "the message id is no UUID version 7"),
    row(Reason::IdTime, "ID_TIME", false, "the message id is over 60 days old or over a day ahead"),
    row(Reason::IdReused, "ID_REUSED", false, "the message id was used for another message"),
    row(Reason::NumberReused, "NUMBER_REUSED", false, "the send number was used for another message"),
    row(Reason::NumberPassed, "NUMBER_PASSED", false, "the send number was decided before"),
    row(Reason::AfterRefused, "AFTER_REFUSED", true, "a send before this one was refused"),
    row(Reason::Clock, "CLOCK", false, "the seen stamp is ahead of the server's clock"),
    row(Reason::AckInvalid, "ACK_INVALID", false, "the acknowledgement names what was never sent"),
    row(Reason::Replaced, "REPLACED", false, "a newer attach of this device took over"),
    row(Reason::Stalled, "STALLED", true, "nothing was read or acknowledged for too long"),
    row(
        Reason::ReadInvalid,
        "READ_INVALID",
        false,
        "no device of the account has acknowledged what it names",
    ),
    row(Reason::Busy, "BUSY", true, "too many password checks at once"),
    row(Reason::Overloaded, "OVERLOADED", true, "the server is overloaded"),
    row(Reason::DirectoryUnavailable, "DIRECTORY_UNAVAILABLE", true, "the directory cannot be reached"),
    row(Reason::Draining, "DRAINING", true, "the server is stopping"),
    row(Reason::RateLimited, "RATE_LIMITED", true, "too many tries"),
    row(Reason::ArchiveUnavailable, "ARCHIVE_UNAVAILABLE", true, "the archive cannot be reached"),
    row(Reason::NoHistory, "NO_HISTORY", false, "this server keeps no history"),
    row(Reason::UnknownConversation, "UNKNOWN_CONVERSATION", false, "you have no such conversation"),
    row(Reason::TooLate, "TOO_LATE", false, "the message is too old to be deleted for everybody"),
    row(
        Reason::TargetInvalid,
        "TARGET_INVALID",
        false,
        "the message that is named is of somebody who is not in this conversation",
    ),
];

impl Reason {
    /// Returns the row of the error table; unknown reasons read as `INTERNAL`.
    pub fn meta(self) -> &'static ReasonMeta {
        const INTERNAL: &ReasonMeta = &row(Reason::Internal, "INTERNAL", true, "the server failed");
        REASONS.iter().find(|meta| meta.reason == self).unwrap_or(INTERNAL)
    }

    /// Returns the error a peer sees, with the text of the table and no advice on when to retry.
    pub fn error(self) -> Error {
        let meta = self.meta();
        Error {
            reason: self as i32,
            text: meta.text.to_owned(),
            retry_after_ms: 0,
            temporary: meta.temporary,
        }
    }

    /// Returns the error a peer sees, with a text of its own.
    pub fn with_text(self, text: impl Into<String>) -> Error {
        Error { text: text.into(), ..self.error() }
    }

    /// Returns the error a peer sees, with the earliest time for another try.
    pub fn retry_after(self, retry_after: std::time::Duration) -> Error {
        Error { retry_after_ms: retry_after.as_millis() as u64, ..self.error() }
    }
}

/// Application error codes of QUIC `CONNECTION_CLOSE`, `RESET_STREAM` and `STOP_SENDING` frames (RFC 9000, section 20.2).
///
/// Zero is a clean end; a code above is 0x100 plus the number of a [`Reason`].
pub mod close {
    use crate::v1::Reason;

    /// The side that closes has nothing more to say.
    pub const DONE: u32 = 0;

    /// Returns the close code of a reason.
    pub const fn code(reason: Reason) -> u32 {
        0x100 + reason as u32
    }

    /// Returns the reason of a close code, if it carries one.
    pub fn reason(code: u64) -> Option<Reason> {
        let number = i32::try_from(code.checked_sub(0x100)?).ok()?;
        Reason::try_from(number).ok().filter(|reason| *reason != Reason::Unspecified)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_stands_in_the_table_once_under_its_own_name() {
        for number in 1..200 {
            let Ok(reason) = Reason::try_from(number) else { continue };
            let rows: Vec<_> = REASONS.iter().filter(|meta| meta.reason == reason).collect();
            assert_eq!(rows.len(), 1, "{reason:?}");
            assert_eq!(rows[0].name, reason.as_str_name());
        }
    }

    #[test]
    fn close_codes_carry_their_reason_there_and_back() {
        for meta in REASONS {
            assert_eq!(close::reason(close::code(meta.reason).into()), Some(meta.reason));
        }
        assert_eq!(close::reason(close::DONE.into()), None);
        assert_eq!(close::reason(u64::MAX), None);
    }
}

//! The command table: everything a client can ask for, in one place.
//!
//! Dispatch, limits, metrics and documentation read this table. A command's kind decides its way through the daemon:
//! journal commands are decided in the sequencer's turn and answered after the sync; directory commands are one SQL
//! transaction; queries only read; signals are never stored.

/// Who decides a command, and when it is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Decided by the core in the sequencer's turn; answered after fdatasync.
    Journal,
    /// Decided by one SQL transaction; answered after its commit.
    Directory,
    /// Reads only; answered as read.
    Query,
    /// Decided by the core in the sequencer's turn; never stored, and never answered.
    Signal,
}

/// The kind of stream a command travels on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Lane {
    /// The first stream of a connection.
    Hello,
    /// The long stream of journal commands.
    Publish,
    /// The long stream of events and acknowledgements.
    Feed,
    /// A datagram, or the feed lane where there are none.
    Datagram,
    /// A stream of its own.
    Request,
}

/// What tries of a command are counted together. One class has one limit per peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RateClass {
    /// Opening connections.
    Hello,
    /// Creating accounts.
    SignUp,
    /// Checking passwords.
    Password,
    /// Finding accounts.
    LookUp,
    /// Sending messages.
    Send,
    /// Reading and acknowledging, bounded by windows instead.
    Feed,
    /// Cheap requests.
    Request,
    /// Signals.
    Signal,
    /// Reading history.
    History,
}

/// One row of the command table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Command {
    /// The command's number: unique, never reused; for requests also the field number in `Request`.
    pub code: u16,
    /// The command's name in documentation, logs and metrics.
    pub name: &'static str,
    /// Who decides it.
    pub kind: Kind,
    /// Where it travels.
    pub lane: Lane,
    /// Whether it needs a session.
    pub needs_session: bool,
    /// Longest frame in bytes.
    pub bytes_max: usize,
    /// What its tries are counted with.
    pub rate: RateClass,
}

use crate::limits::{FRAME_BYTES_MAX, OPEN_BYTES_MAX, SIGNAL_BYTES_MAX};

#[rustfmt::skip]
/// Every command, by code.
pub const COMMANDS: &[Command] = &[
    Command { code: 1, name: "hello", kind: Kind::Query, lane: Lane::Hello, needs_session: false, bytes_max: OPEN_BYTES_MAX, rate: RateClass::Hello },
    Command { code: 10, name: "send", kind: Kind::Journal, lane: Lane::Publish, needs_session: true, bytes_max: FRAME_BYTES_MAX, rate: RateClass::Send },
    Command { code: 11, name: "restart", kind: Kind::Journal, lane: Lane::Publish, needs_session: true, bytes_max: FRAME_BYTES_MAX, rate: RateClass::Send },
    Command { code: 12, name: "attach", kind: Kind::Journal, lane: Lane::Feed, needs_session: true, bytes_max: OPEN_BYTES_MAX, rate: RateClass::Feed },
    Command { code: 13, name: "ack", kind: Kind::Journal, lane: Lane::Feed, needs_session: true, bytes_max: OPEN_BYTES_MAX, rate: RateClass::Feed },
    Command { code: 14, name: "read", kind: Kind::Journal, lane: Lane::Feed, needs_session: true, bytes_max: OPEN_BYTES_MAX, rate: RateClass::Send },
    Command { code: 15, name: "signal", kind: Kind::Signal, lane: Lane::Datagram, needs_session: true, bytes_max: SIGNAL_BYTES_MAX, rate: RateClass::Signal },
    Command { code: 20, name: "sign_up", kind: Kind::Directory, lane: Lane::Request, needs_session: false, bytes_max: OPEN_BYTES_MAX, rate: RateClass::SignUp },
    Command { code: 21, name: "log_in", kind: Kind::Directory, lane: Lane::Request, needs_session: false, bytes_max: OPEN_BYTES_MAX, rate: RateClass::Password },
    Command { code: 22, name: "log_out", kind: Kind::Directory, lane: Lane::Request, needs_session: true, bytes_max: OPEN_BYTES_MAX, rate: RateClass::Request },
    Command { code: 23, name: "change_password", kind: Kind::Directory, lane: Lane::Request, needs_session: true, bytes_max: OPEN_BYTES_MAX, rate: RateClass::Password },
    Command { code: 24, name: "unlink_device", kind: Kind::Directory, lane: Lane::Request, needs_session: true, bytes_max: OPEN_BYTES_MAX, rate: RateClass::Request },
    Command { code: 25, name: "set_privacy", kind: Kind::Directory, lane: Lane::Request, needs_session: true, bytes_max: OPEN_BYTES_MAX, rate: RateClass::Request },
    Command { code: 26, name: "set_conversation", kind: Kind::Directory, lane: Lane::Request, needs_session: true, bytes_max: OPEN_BYTES_MAX, rate: RateClass::Request },
    Command { code: 40, name: "look_up", kind: Kind::Query, lane: Lane::Request, needs_session: true, bytes_max: OPEN_BYTES_MAX, rate: RateClass::LookUp },
    Command { code: 41, name: "ping", kind: Kind::Query, lane: Lane::Request, needs_session: false, bytes_max: OPEN_BYTES_MAX, rate: RateClass::Request },
    Command { code: 42, name: "list_devices", kind: Kind::Query, lane: Lane::Request, needs_session: true, bytes_max: OPEN_BYTES_MAX, rate: RateClass::Request },
    Command { code: 43, name: "get_privacy", kind: Kind::Query, lane: Lane::Request, needs_session: true, bytes_max: OPEN_BYTES_MAX, rate: RateClass::Request },
    Command { code: 44, name: "conversations", kind: Kind::Query, lane: Lane::Request, needs_session: true, bytes_max: OPEN_BYTES_MAX, rate: RateClass::History },
    Command { code: 45, name: "history", kind: Kind::Query, lane: Lane::Request, needs_session: true, bytes_max: OPEN_BYTES_MAX, rate: RateClass::History },
    Command { code: 46, name: "sync", kind: Kind::Query, lane: Lane::Request, needs_session: true, bytes_max: OPEN_BYTES_MAX, rate: RateClass::History },
    Command { code: 47, name: "search", kind: Kind::Query, lane: Lane::Request, needs_session: true, bytes_max: OPEN_BYTES_MAX, rate: RateClass::History },
];

/// Returns the command of a code.
pub fn by_code(code: u16) -> Option<&'static Command> {
    COMMANDS.iter().find(|command| command.code == code)
}

impl crate::v1::request::Command {
    /// Returns the command's row of the table.
    pub fn meta(&self) -> &'static Command {
        use crate::v1::request::Command as C;
        let code = match self {
            C::SignUp(_) => 20,
            C::LogIn(_) => 21,
            C::LogOut(_) => 22,
            C::ChangePassword(_) => 23,
            C::UnlinkDevice(_) => 24,
            C::SetPrivacy(_) => 25,
            C::SetConversation(_) => 26,
            C::LookUp(_) => 40,
            C::Ping(_) => 41,
            C::ListDevices(_) => 42,
            C::GetPrivacy(_) => 43,
            C::Conversations(_) => 44,
            C::History(_) => 45,
            C::Sync(_) => 46,
            C::Search(_) => 47,
        };
        // The table's own test proves that each code above has a row.
        by_code(code).unwrap_or(&COMMANDS[0])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_and_names_are_unique_and_rise() {
        assert!(COMMANDS.windows(2).all(|pair| pair[0].code < pair[1].code));
        let mut names: Vec<_> = COMMANDS.iter().map(|command| command.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), COMMANDS.len());
    }

    #[test]
    fn every_request_finds_its_own_row() {
        use crate::v1::request::Command as C;
        let all = [
            (C::SignUp(Default::default()), "sign_up"),
            (C::LogIn(Default::default()), "log_in"),
            (C::LogOut(Default::default()), "log_out"),
            (C::ChangePassword(Default::default()), "change_password"),
            (C::UnlinkDevice(Default::default()), "unlink_device"),
            (C::LookUp(Default::default()), "look_up"),
            (C::Ping(Default::default()), "ping"),
            (C::ListDevices(Default::default()), "list_devices"),
            (C::SetPrivacy(Default::default()), "set_privacy"),
            (C::GetPrivacy(Default::default()), "get_privacy"),
            (C::SetConversation(Default::default()), "set_conversation"),
            (C::Conversations(Default::default()), "conversations"),
            (C::History(Default::default()), "history"),
            (C::Sync(Default::default()), "sync"),
            (C::Search(Default::default()), "search"),
        ];
        for (command, name) in all {
            assert_eq!(command.meta().name, name);
        }
    }
}

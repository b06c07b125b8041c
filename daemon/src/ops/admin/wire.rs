//! Requests and answers of the admin socket.
//!
//! Client and daemon are the same program, usually of the same version. A request that a daemon does not know, because it
//! is older, is answered with an error.
//!
//! Invariant: `Debug` shows no secret, so that requests and answers may be logged.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Longest line of a request in bytes: a full batch of handles takes a third of it.
pub const REQUEST_BYTES_MAX: usize = 64 * 1024;

/// What must not be shown by accident. It is a plain text on the socket.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Secret(pub String);

/// What the operator asks for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// Lists accounts by handle.
    ListAccounts {
        /// Those behind this handle; all if it is empty.
        after: String,
        /// At most so many.
        limit: Option<u64>,
    },
    /// Creates accounts without passwords; all or none.
    CreateAccounts {
        /// Their handles.
        handles: Vec<String>,
        /// Whether each gets a device with a session.
        sessions: bool,
    },
    /// Disables an account and ends its sessions.
    DisableAccount {
        /// Its handle.
        handle: String,
    },
    /// Lets a disabled account log in again.
    EnableAccount {
        /// Its handle.
        handle: String,
    },
    /// Gives an account another password.
    ResetPassword {
        /// Its handle.
        handle: String,
        /// The password; the daemon draws one if there is none.
        password: Option<Secret>,
        /// Whether the devices of the account stay logged in.
        keep_sessions: bool,
    },
    /// Lists the devices of an account.
    ListDevices {
        /// Its handle.
        handle: String,
    },
    /// Logs a device out.
    UnlinkDevice {
        /// The account's handle.
        handle: String,
        /// The device's id.
        device: String,
    },
    /// Issues invites.
    CreateInvites {
        /// How many.
        count: u16,
    },
    /// Lists invites.
    ListInvites,
    /// Takes an invite back.
    RevokeInvite {
        /// Its code or its id.
        invite: Secret,
    },
    /// Lists events that could not be archived.
    ListDead,
    /// Tries to archive such an event again.
    RetryDead {
        /// Its number; all of them without one.
        number: Option<u64>,
    },
    /// Drops such an event.
    DropDead {
        /// Its number.
        number: u64,
    },
    /// Asks how the daemon is.
    Status,
}

/// One line of an answer. The last one is `Done` or `Error`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// An account of the list.
    Account(Account),
    /// An account that was created.
    Created(Created),
    /// A device of the list.
    Device(Device),
    /// An invite of the list.
    Invite(Invite),
    /// The code of an invite that was issued.
    InviteCode(Secret),
    /// The password that was drawn.
    Password(Secret),
    /// An event that could not be archived.
    Dead(Dead),
    /// What became of one that was tried again.
    Retried(Retried),
    /// How the daemon is.
    Status(Box<Status>),
    /// Everything was done.
    Done,
    /// It was not done, or not all of it.
    Error(Failed),
}

/// An account of the list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// Its id.
    pub account: String,
    /// Its public name.
    pub handle: String,
    /// When it was created, in milliseconds since the Unix epoch.
    pub created_ms: u64,
    /// Whether it is disabled.
    pub disabled: bool,
    /// How many devices are logged in.
    pub devices: u64,
}

/// An account that was created. With a session its four fields are what the SDK reads as credentials.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Created {
    /// Its id.
    pub account: String,
    /// The id of its first device.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    /// Its public name.
    pub handle: String,
    /// The token of the device's session, in hex.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token: Option<Secret>,
}

/// A device of the list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// Its id.
    pub device: String,
    /// The name its client gave it.
    pub name: String,
    /// When it was logged in, in milliseconds since the Unix epoch.
    pub created_ms: u64,
    /// What its client says it runs on; may be empty.
    pub platform: String,
    /// When it was last connected, in milliseconds since the Unix epoch; exact to a minute.
    pub last_seen_ms: u64,
}

/// An invite of the list. Its code is not known any more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Invite {
    /// What names it: the beginning of its hash, in hex.
    pub id: String,
    /// When it was issued, in milliseconds since the Unix epoch.
    pub created_ms: u64,
    /// The handle of the account that used it up.
    pub used_by: Option<String>,
}

/// An event that could not be archived. What it says is not shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dead {
    /// What names it here.
    pub number: u64,
    /// The origin that accepted it.
    pub origin: u32,
    /// Its position there.
    pub position: u64,
    /// Bytes of it.
    pub bytes: u64,
    /// Why it could not be archived.
    pub error: String,
}

/// What became of an event that was tried again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retried {
    /// What names it.
    pub number: u64,
    /// Why it still cannot be archived; it is, if there is none.
    pub error: Option<String>,
}

/// How the daemon is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// The daemon's version with the fingerprint of its sources.
    pub version: String,
    /// The number of its data directory.
    pub origin: u32,
    /// Its process.
    pub pid: u32,
    /// For how long it serves, in seconds.
    pub uptime_s: u64,
    /// The UDP address that it listens on.
    pub listen: String,
    /// Where health and metrics are asked for, if anywhere.
    pub ops_address: Option<String>,
    /// Connections that are open.
    pub connections: u64,
    /// Its data directory.
    pub data: String,
    /// The pin of its key.
    pub pin: String,
    /// When its certificate expires, in seconds since the Unix epoch.
    pub certificate_expires_s: i64,
    /// Events that some device has yet to acknowledge.
    pub unacknowledged_events: u64,
}

/// Why a request was not carried out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failed {
    /// A stable word for programs.
    pub reason: String,
    /// What went wrong.
    pub text: String,
    /// The next step, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

impl Request {
    /// Returns what the log calls the request.
    pub fn name(&self) -> &'static str {
        match self {
            Self::ListAccounts { .. } => "accounts list",
            Self::CreateAccounts { .. } => "accounts create",
            Self::DisableAccount { .. } => "accounts disable",
            Self::EnableAccount { .. } => "accounts enable",
            Self::ResetPassword { .. } => "accounts reset-password",
            Self::ListDevices { .. } => "devices list",
            Self::UnlinkDevice { .. } => "devices unlink",
            Self::CreateInvites { .. } => "invites create",
            Self::ListInvites => "invites list",
            Self::RevokeInvite { .. } => "invites revoke",
            Self::ListDead => "dead list",
            Self::RetryDead { .. } => "dead retry",
            Self::DropDead { .. } => "dead drop",
            Self::Status => "status",
        }
    }
}

impl Failed {
    /// Returns an error without a next step.
    pub fn new(reason: &str, text: impl Into<String>) -> Self {
        Self { reason: reason.to_owned(), text: text.into(), hint: None }
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_and_answers_come_back_as_they_were_written() {
        let password = Some(Secret("canary".to_owned()));
        let request = Request::ResetPassword { handle: "ada".to_owned(), password, keep_sessions: false };
        let line = serde_json::to_string(&request).unwrap();
        assert_eq!(
            line,
            r#"{"command":"reset_password","handle":"ada","password":"canary","keep_sessions":false}"#
        );
        assert_eq!(serde_json::from_str::<Request>(&line).unwrap(), request);
        assert_eq!(serde_json::from_str::<Request>(r#"{"command":"status"}"#).unwrap(), Request::Status);
        for wrong in [r#"{"command":"shutdown"}"#, "{}", "[]", r#"{"command":"list_devices","handle":1}"#] {
            serde_json::from_str::<Request>(wrong).unwrap_err();
        }
        assert_eq!(serde_json::to_string(&Answer::Done).unwrap(), r#""done""#);
        let failed = Answer::Error(Failed::new("busy", "too many"));
        let line = serde_json::to_string(&failed).unwrap();
        assert_eq!(line, r#"{"error":{"reason":"busy","text":"too many"}}"#);
        assert_eq!(serde_json::from_str::<Answer>(&line).unwrap(), failed);
    }

    #[test]
    fn debug_output_shows_no_secret() {
        let secret = || Secret("canary".to_owned());
        let created =
            Created { account: String::new(), device: None, handle: "ada".to_owned(), token: Some(secret()) };
        let answers = [Answer::Created(created), Answer::Password(secret()), Answer::InviteCode(secret())];
        let revoke = Request::RevokeInvite { invite: secret() };
        let shown = format!("{answers:?} {revoke:?}");
        assert!(shown.contains("ada") && !shown.contains("canary"), "{shown}");
    }
}

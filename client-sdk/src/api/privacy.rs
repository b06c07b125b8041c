//! Privacy: what the account lets others know.

use quail_protocol::v1::{self, Switch, request, response};

use super::{Repeat, wrong_answer};
use crate::{Client, Error};

/// What an account lets others know. It holds for all of its devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Privacy {
    /// Whether those who wrote to the account are told that it has read their messages.
    pub read_receipts: bool,
}

impl Client {
    /// Asks what the account lets others know.
    ///
    /// # Errors
    /// [`Error::Refused`], temporarily with `RATE_LIMITED` or `DIRECTORY_UNAVAILABLE`; [`Error::TimedOut`] if the server
    /// cannot be reached; the reason if the client has ended.
    pub async fn privacy(&self) -> Result<Privacy, Error> {
        let command = request::Command::GetPrivacy(v1::GetPrivacy {});
        match self.shared().ask("privacy", command, Repeat::Yes).await? {
            response::Result::Privacy(privacy) => {
                Ok(Privacy { read_receipts: privacy.read_receipts != Switch::Off as i32 })
            }
            _ => Err(wrong_answer("privacy")),
        }
    }

    /// Turns on or off that those who wrote to the account are told what it has read. Off holds for everything that is read
    /// once this returns; what was told before stays told. The account's own devices tell each other in either case.
    ///
    /// # Errors
    /// As [`Client::privacy`]. After a failure it may hold already; it does no harm to ask again.
    pub async fn set_read_receipts(&self, on: bool) -> Result<(), Error> {
        let read_receipts = if on { Switch::On } else { Switch::Off } as i32;
        let command = request::Command::SetPrivacy(v1::SetPrivacy { read_receipts });
        match self.shared().ask("set privacy", command, Repeat::Yes).await? {
            response::Result::Done(_) => Ok(()),
            _ => Err(wrong_answer("set privacy")),
        }
    }
}

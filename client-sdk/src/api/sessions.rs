//! Sessions: logging devices in and out.

use quail_protocol::v1::{self, Reason, request, response};

use super::{Repeat, in_time, wrong_answer};
use crate::{Client, Credentials, Error, Guest};

impl Guest {
    /// Opens a session for a new device of an account.
    ///
    /// # Errors
    /// [`Error::Refused`] with `WRONG_CREDENTIALS`, `DEVICE_LIMIT`, or temporarily with `BUSY`, `RATE_LIMITED`,
    /// `DIRECTORY_UNAVAILABLE`. After [`Error::ConnectionLost`] or [`Error::TimedOut`] a device may have been added.
    pub async fn log_in(&self, handle: &str, password: &str) -> Result<Credentials, Error> {
        let command = request::Command::LogIn(v1::LogIn {
            handle: handle.to_owned(),
            password: password.to_owned(),
            device_name: self.device_name(),
            platform: self.platform(),
        });
        self.ask_for_session("log in", command).await
    }

    pub(super) async fn ask_for_session(
        &self,
        what: &'static str,
        command: request::Command,
    ) -> Result<Credentials, Error> {
        let asking = super::ask(self.link(), command);
        match in_time(what, self.options().request_timeout, asking).await? {
            response::Result::Session(session) => Credentials::from_wire(session),
            _ => Err(wrong_answer(what)),
        }
    }
}

impl Client {
    /// Ends the session, removes the device from the account and ends the client with [`Error::LoggedOut`].
    ///
    /// What was sent and not answered is given up; [`Client::flush`] first where that matters. The credentials are worth
    /// nothing afterwards.
    ///
    /// # Errors
    /// [`Error::TimedOut`] if the server cannot be reached; after [`Error::ConnectionLost`] the session may have ended.
    pub async fn log_out(&self) -> Result<(), Error> {
        let command = request::Command::LogOut(v1::LogOut {});
        self.shared().set_logging_out(true);
        match self.shared().ask("log out", command, Repeat::No).await {
            Ok(response::Result::Done(_)) => {}
            // The session is over, which is what was wanted; its end may overtake the answer.
            Err(error) if error.reason() == Some(Reason::Unauthenticated) || error == Error::LoggedOut => {}
            other => {
                self.shared().set_logging_out(false);
                return Err(other.err().unwrap_or_else(|| wrong_answer("log out")));
            }
        }
        self.shared().end(Error::LoggedOut);
        self.driver_ended().await;
        Ok(())
    }
}

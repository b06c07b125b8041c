//! `Debug` of messages that carry secrets: everything but the secret.
//!
//! The generated code would print passwords and tokens, and some day one of them would stand in a log. The generator leaves
//! `Debug` out for these messages, so a new one that is forgotten here does not compile where it is printed.

use std::fmt;

use crate::v1::{ChangePassword, Hello, LogIn, Session, SignUp};

/// Stands where a secret would.
const HIDDEN: &str = "(hidden)";

impl fmt::Debug for Hello {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hello")
            .field("version_min", &self.version_min)
            .field("version_max", &self.version_max)
            .field("client_name", &self.client_name)
            .field("session_token", &HIDDEN)
            .finish()
    }
}

impl fmt::Debug for SignUp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SignUp")
            .field("handle", &self.handle)
            .field("password", &HIDDEN)
            .field("invite", &HIDDEN)
            .field("device_name", &self.device_name)
            .field("platform", &self.platform)
            .finish()
    }
}

impl fmt::Debug for LogIn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogIn")
            .field("handle", &self.handle)
            .field("password", &HIDDEN)
            .field("device_name", &self.device_name)
            .field("platform", &self.platform)
            .finish()
    }
}

impl fmt::Debug for ChangePassword {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChangePassword").field("passwords", &HIDDEN).finish()
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("token", &HIDDEN)
            .field("account", &self.account)
            .field("device", &self.device)
            .field("handle", &self.handle)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use crate::v1::{self, open, request, response};

    #[test]
    fn no_secret_is_printed_however_it_is_wrapped() {
        let canary = || "canary".to_owned();
        let hello = v1::Hello { session_token: "canary".into(), ..v1::Hello::default() };
        let sign_up = v1::SignUp { password: canary(), invite: canary(), ..v1::SignUp::default() };
        let log_in = v1::LogIn { password: canary(), ..v1::LogIn::default() };
        let change = v1::ChangePassword { current_password: canary(), new_password: canary() };
        let session = v1::Session { token: "canary".into(), ..v1::Session::default() };
        let printed = [
            format!("{:?}", v1::Open { stream: Some(open::Stream::Hello(hello)) }),
            format!("{:?}", v1::Request { command: Some(request::Command::SignUp(sign_up)) }),
            format!("{:?}", v1::Request { command: Some(request::Command::LogIn(log_in)) }),
            format!("{:?}", v1::Request { command: Some(request::Command::ChangePassword(change)) }),
            format!("{:?}", v1::Response { result: Some(response::Result::Session(session)) }),
        ];
        for text in printed {
            assert!(text.contains("hidden") && !text.contains("canary"), "{text}");
        }
    }
}

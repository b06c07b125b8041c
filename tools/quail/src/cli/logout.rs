//! `quail logout`: ends the session of this device and forgets it.
//!
//! Invariants: a device is forgotten only after the server has ended its session, unless the user insists; a session that
//! nobody can end any more would stay in the account's list. Nor is one forgotten that has messages to send.

use clap::Args;
use quail::profile::{Profile, ProfileError};
use quail_client::{Client, Error, MemoryStore, Reason};
use serde::Serialize;

use super::Context;
use super::failure::{Failure, Outcome};
use super::session::options;

/// End the session of this device and forget it
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(super) struct LogOut {
    /// Forget the device also when the server cannot be told, or messages are queued, which are then lost
    #[arg(long)]
    force: bool,
}

const EXAMPLES: &str = "\
Examples:
  quail logout
  quail --profile laptop logout --force     when the server is gone for good";

#[derive(Serialize)]
struct LoggedOut<'a> {
    profile: &'a str,
    /// Whether the server has ended the session.
    server_told: bool,
}

impl LogOut {
    pub(super) async fn run(self, context: Context) -> anyhow::Result<Outcome> {
        if !self.force {
            nothing_queued(&context).await?;
        }
        let told = match end_session(&context).await {
            Ok(()) => true,
            Err(error) if self.force && may_be_forced(&error) => {
                context.output.note(format!("the server was not told: {error:#}"));
                false
            }
            Err(error) => return Err(hinted(error)),
        };
        let profile: Profile = context.profile()?;
        profile.forget()?;
        let name = profile.name().to_string();
        let programs = LoggedOut { profile: &name, server_told: told };
        context.output.result(format!("profile {name} is logged out"), &programs)?;
        Ok(Outcome::Good)
    }
}

/// What the device has not sent is sent by no other one.
async fn nothing_queued(context: &Context) -> Result<(), Failure> {
    // Where the queue cannot be read, nobody can say that something is in it.
    let queued = context.offline_queue().await.map_or(0, |(queue, _)| queue.queued().len());
    if queued == 0 {
        return Ok(());
    }
    let text = format!("messages that were not sent yet: {queued}");
    let hint = "send them: quail queue send; or give them up: quail logout --force";
    Err(Failure::failed("QUEUED", text).hint(hint))
}

async fn end_session(context: &Context) -> anyhow::Result<()> {
    let (_, login) = context.login()?;
    // Nothing is sent, so the counters are not needed, and another process may use them.
    let ended = async {
        let client = Client::open(&login.address, &login.credentials, MemoryStore::new(), options()).await?;
        client.log_out().await
    };
    match ended.await {
        // Somebody else ended it, as by a change of the password.
        Err(error) if error.reason() == Some(Reason::Unauthenticated) => Ok(()),
        other => Ok(other?),
    }
}

/// Insisting helps against servers and against files that cannot be understood, not where there is nothing to forget.
fn may_be_forced(error: &anyhow::Error) -> bool {
    error.is::<Error>()
        || matches!(error.downcast_ref(), Some(ProfileError::Damaged { .. } | ProfileError::Open { .. }))
}

fn hinted(error: anyhow::Error) -> anyhow::Error {
    match error.downcast_ref::<Error>() {
        Some(Error::Unreachable { .. } | Error::UnknownHost { .. } | Error::ConnectionRefused { .. }) => {
            Failure::failed("UNREACHABLE", format!("the server cannot be told: {error}"))
                .hint("try again later, or forget the device on this side only: quail logout --force")
                .into()
        }
        _ => error,
    }
}

//! `quail passwd`: changes the account's password.

use clap::Args;
use quail_client::{Client, MemoryStore};
use serde::Serialize;

use super::Context;
use super::failure::Outcome;
use super::password::ChangeArgs;
use super::session::options;

/// Change the account's password; all its other devices are logged out
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(super) struct Passwd {
    #[command(flatten)]
    passwords: ChangeArgs,
}

const EXAMPLES: &str = "\
Examples:
  quail passwd
  quail passwd --password-file old --new-password-file new
  printf '%s\\n%s\\n' \"$OLD\" \"$NEW\" | quail passwd --password-stdin";

#[derive(Serialize)]
struct Changed<'a> {
    handle: &'a str,
    changed: bool,
}

impl Passwd {
    pub(super) async fn run(self, context: Context) -> anyhow::Result<Outcome> {
        let (_, login) = context.login()?;
        let (current, new) = self.passwords.read()?;
        let client = Client::open(&login.address, &login.credentials, MemoryStore::new(), options()).await?;
        client.change_password(&current, &new).await?;
        client.close().await?;
        let handle = &login.credentials.handle;
        let people = format!("the password of {handle} is changed; all other devices are logged out");
        context.output.result(people, &Changed { handle, changed: true })?;
        Ok(Outcome::Good)
    }
}

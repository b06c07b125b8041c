//! `quail login`: logs this device in to an account that exists.

use clap::Args;
use quail_client::Guest;

use super::Context;
use super::failure::Outcome;
use super::session::{AccountArgs, place};
use super::signup::{Device, keep};

/// Log this device in to an account
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(super) struct LogIn {
    #[command(flatten)]
    account: AccountArgs,
}

const EXAMPLES: &str = "\
Examples:
  quail login 'quail://ada@chat.example.org?pin=sha256:...'
  quail --profile laptop login quail://chat.example.org --handle ada --device-name laptop
  pass show quail | quail login quail://ada@chat.example.org --password-stdin";

impl LogIn {
    pub(super) async fn run(self, context: Context) -> anyhow::Result<Outcome> {
        let (address, handle) = self.account.account()?;
        let profile = context.free_profile()?;
        let password = self.account.password.read()?;
        let guest = Guest::connect(address, self.account.options()).await?;
        let credentials = guest.log_in(handle, &password).await?;
        guest.close().await;
        let login = keep(&profile, address, credentials)?;
        let people = format!("logged in as {} at {}", login.credentials.handle, place(address));
        context.output.result(people, &Device::new(&profile, &login))?;
        Ok(Outcome::Good)
    }
}

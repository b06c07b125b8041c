//! `quail whoami`: says who this device is, from the profile alone or as the server sees it.

use clap::Args;
use quail_client::{Client, MemoryStore};

use super::Context;
use super::failure::Outcome;
use super::session::options;
use super::signup::Device;

/// Show who this device is
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(super) struct WhoAmI {
    /// Ask the server whether the session still holds
    #[arg(long)]
    check: bool,
}

const EXAMPLES: &str = "\
Examples:
  quail whoami
  quail whoami --json | jq -r .handle
  quail whoami --check && quail send grace 'still here'";

impl WhoAmI {
    pub(super) async fn run(self, context: Context) -> anyhow::Result<Outcome> {
        let (profile, login) = context.login()?;
        if self.check {
            // Neither sends nor receives, so the counters stay free for a process that does.
            let client =
                Client::open(&login.address, &login.credentials, MemoryStore::new(), options()).await?;
            client.close().await?;
        }
        let device = Device::new(&profile, &login);
        context.output.result(device.table(), &device)?;
        Ok(Outcome::Good)
    }
}

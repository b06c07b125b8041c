//! `quail signup`: makes an account.
//!
//! Invariant: the profile is known to be free and writable before the server is asked, so that no account is made whose
//! session would be lost.

use clap::Args;
use quail::output::table;
use quail::profile::{Login, Profile};
use quail_client::{Address, Credentials, Guest};
use serde::Serialize;

use super::Context;
use super::failure::Outcome;
use super::session::{AccountArgs, place};

/// Make an account and log this device in
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(super) struct SignUp {
    #[command(flatten)]
    account: AccountArgs,

    /// The invite, where the server takes new accounts by invitation
    #[arg(long, value_name = "INVITE")]
    invite: Option<String>,
}

const EXAMPLES: &str = "\
Examples:
  quail signup 'quail://ada@chat.example.org?pin=sha256:...'
  quail signup quail://chat.example.org --handle ada --invite 7GQ2-M4XK
  quail --profile bot signup quail://bot@localhost --password-file bot.password";

impl SignUp {
    pub(super) async fn run(self, context: Context) -> anyhow::Result<Outcome> {
        let (address, handle) = self.account.account()?;
        let profile = context.free_profile()?;
        let password = self.account.password.read_new()?;
        let guest = Guest::connect(address, self.account.options()).await?;
        let credentials = guest.sign_up(handle, &password, self.invite.as_deref()).await?;
        guest.close().await;
        let login = keep(&profile, address, credentials)?;
        let (handle, place) = (&login.credentials.handle, place(address));
        let people = format!("signed up as {handle} at {place}\nsend a message: quail send HANDLE TEXT");
        context.output.result(people, &Device::new(&profile, &login))?;
        Ok(Outcome::Good)
    }
}

/// Keeps a new device in a profile.
pub(super) fn keep(profile: &Profile, address: &Address, credentials: Credentials) -> anyhow::Result<Login> {
    let address = Address { handle: Some(credentials.handle.clone()), ..address.clone() };
    let login = Login { address, credentials };
    profile.save(&login)?;
    Ok(login)
}

/// A logged-in device, for people and programs.
#[derive(Debug, Serialize)]
pub(super) struct Device {
    profile: String,
    handle: String,
    account: String,
    device: String,
    address: String,
}

impl Device {
    pub(super) fn new(profile: &Profile, login: &Login) -> Self {
        Self {
            profile: profile.name().to_string(),
            handle: login.credentials.handle.clone(),
            account: login.credentials.account.to_string(),
            device: login.credentials.device.to_string(),
            address: login.address.to_string(),
        }
    }

    /// Lays it out for people.
    pub(super) fn table(&self) -> String {
        table(&[
            ("handle", self.handle.clone()),
            ("account", self.account.clone()),
            ("device", self.device.clone()),
            ("address", self.address.clone()),
            ("profile", self.profile.clone()),
        ])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_is_shown_without_its_secret() {
        let config = tempfile::tempdir().unwrap();
        let profile = Profile::in_directory(config.path(), "work".parse().unwrap());
        let id = "01890a5d-ac96-774b-bcce-b302099a8057";
        let credentials = serde_json::json!({
            "account": id, "device": id, "handle": "ada", "token": "ab".repeat(32),
        });
        let address: Address = "quail://host:9".parse().unwrap();
        let login = keep(&profile, &address, serde_json::from_value(credentials).unwrap()).unwrap();
        assert_eq!(profile.load().unwrap(), Some(login.clone()));
        let device = Device::new(&profile, &login);
        assert_eq!(
            serde_json::to_string(&device).unwrap(),
            format!(
                r#"{{"profile":"work","handle":"ada","account":"{id}","device":"{id}","address":"quail://ada@host:9"}}"#
            )
        );
        assert!(!device.table().contains("abab"));
    }
}

//! From a profile to a connection: what the commands that talk to a server share.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use quail::profile::{Login, Profile};
use quail_client::{Address, Client, FileStore, OfflineQueue, Options};
use quail_protocol::limits::PLATFORM_BYTES_MAX;
use quail_protocol::text::{is_handle, is_platform};

use super::Context;
use super::failure::Failure;
use super::password::PasswordArgs;

/// Server, account and password of a device that is to be logged in.
#[derive(Args, Debug)]
pub(super) struct AccountArgs {
    /// The server, as its operator tells it: quail://[handle@]host[:port][?pin=sha256:...]
    #[arg(value_name = "ADDRESS", required_unless_present = "server")]
    address: Option<Address>,

    /// The server, as an option
    #[arg(long, value_name = "ADDRESS", conflicts_with = "address")]
    server: Option<Address>,

    /// The account's handle, where the address does not name it
    #[arg(long, value_name = "HANDLE", value_parser = handle)]
    handle: Option<String>,

    /// The name of this device in the account's list of devices
    #[arg(long, value_name = "NAME")]
    device_name: Option<String>,

    /// What this device runs on, for the account's list of devices
    #[arg(long, value_name = "TEXT", default_value = std::env::consts::OS, value_parser = platform)]
    platform: String,

    #[command(flatten)]
    pub(super) password: PasswordArgs,
}

impl AccountArgs {
    /// Returns the server and the handle.
    pub(super) fn account(&self) -> Result<(&Address, &str), Failure> {
        let address = self.address.as_ref().or(self.server.as_ref());
        let address = address.ok_or_else(|| Failure::usage("no address"))?;
        match (&self.handle, &address.handle) {
            (Some(option), Some(named)) if option != named => {
                let text = format!("the address names {named}, --handle names {option}");
                Err(Failure::usage(text).hint("leave out one of them"))
            }
            (Some(handle), _) | (None, Some(handle)) => Ok((address, handle)),
            (None, None) => {
                let hint = "write it into the address, as in quail://ada@host, or give --handle";
                Err(Failure::usage("no handle").hint(hint))
            }
        }
    }

    /// Returns the options for the connection that makes the device.
    pub(super) fn options(&self) -> Options {
        let device_name = self.device_name.clone().unwrap_or_else(|| {
            let system = rustix::system::uname();
            format!("quail on {}", system.nodename().to_string_lossy())
        });
        Options { device_name: Some(device_name), platform: Some(self.platform.clone()), ..options() }
    }
}

/// Reads a handle; for the parser of the command line.
pub(super) fn handle(text: &str) -> Result<String, String> {
    let handle = text.strip_prefix('@').unwrap_or(text);
    if is_handle(handle) {
        Ok(handle.to_owned())
    } else {
        Err("a handle has 3 to 32 characters of a-z, 0-9, _ and .".to_owned())
    }
}

fn platform(text: &str) -> Result<String, String> {
    if is_platform(text) {
        Ok(text.to_owned())
    } else {
        Err(format!("a platform has up to {PLATFORM_BYTES_MAX} bytes and no control characters"))
    }
}

/// Returns how this program connects.
pub(super) fn options() -> Options {
    Options {
        client_name: concat!("quail ", env!("CARGO_PKG_VERSION")).to_owned(),
        // People who wait for a terminal rather try again than wait for half a minute.
        backoff_max: Duration::from_secs(5),
        // Somebody watches: a server that was started again is noticed with the next keep-alive, and no battery minds.
        keep_alive: Duration::from_secs(5),
        ..Options::default()
    }
}

impl Context {
    /// Returns the profile, logged in or not.
    pub(super) fn profile(&self) -> anyhow::Result<Profile> {
        Ok(Profile::new(self.profile.clone())?)
    }

    /// Returns a profile in which nobody is logged in, ready to be written.
    pub(super) fn free_profile(&self) -> anyhow::Result<Profile> {
        let profile = self.profile()?;
        if let Some(login) = profile.load()? {
            let (handle, address) = (&login.credentials.handle, &login.address);
            let text = format!("profile {} is logged in as {handle} at {}", self.profile, place(address));
            let hint = "choose another with --profile NAME, or log this one out: quail logout";
            return Err(Failure::failed("LOGGED_IN", text).hint(hint).into());
        }
        profile.prepare()?;
        Ok(profile)
    }

    /// Returns who this device is.
    pub(super) fn login(&self) -> anyhow::Result<(Profile, Login)> {
        let profile = self.profile()?;
        match profile.load()? {
            Some(login) => Ok((profile, login)),
            None => {
                let text = format!("nobody is logged in with profile {}", self.profile);
                let hint = "quail login ADDRESS, or quail signup ADDRESS for a new account";
                Err(Failure::failed("NOT_LOGGED_IN", text).hint(hint).into())
            }
        }
    }

    /// Connects this device, and leaves its queue to whoever sends.
    pub(super) async fn connect(&self) -> anyhow::Result<Client> {
        let (profile, login) = self.login()?;
        let store = FileStore::open(profile.state_directory())?;
        let options = Options { resume_queue: false, ..options() };
        Ok(Client::open(&login.address, &login.credentials, store, options).await?)
    }

    /// Opens the queue of this device without connecting. Returns where its state is as well.
    pub(super) async fn offline_queue(&self) -> anyhow::Result<(OfflineQueue, PathBuf)> {
        let (profile, login) = self.login()?;
        let store = FileStore::open(profile.state_directory())?;
        Ok((OfflineQueue::open(&login.credentials, store).await?, profile.state_directory()))
    }

    /// Connects this device to send: what is in its queue leaves. Returns where its state is as well.
    pub(super) async fn connect_to_send(&self) -> anyhow::Result<(Client, PathBuf)> {
        let (profile, login) = self.login()?;
        let store = FileStore::open(profile.state_directory())?;
        let client = Client::open(&login.address, &login.credentials, store, options()).await?;
        Ok((client, profile.state_directory()))
    }
}

/// Returns the part of an address that people recognize.
pub(super) fn place(address: &Address) -> String {
    let short = Address { handle: None, pin: None, ..address.clone() };
    short.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account(address: &str, handle: Option<&str>) -> Result<String, String> {
        let args = AccountArgs {
            address: None,
            server: Some(address.parse().unwrap()),
            handle: handle.map(str::to_owned),
            device_name: None,
            platform: String::new(),
            password: clap::Parser::try_parse_from(["x"]).map(|Wrapped { password }| password).unwrap(),
        };
        let account = args.account().map(|(_, handle)| handle.to_owned());
        account.map_err(|error| error.to_string())
    }

    #[derive(clap::Parser)]
    struct Wrapped {
        #[command(flatten)]
        password: PasswordArgs,
    }

    #[test]
    fn the_handle_comes_from_the_address_or_the_option() {
        assert_eq!(account("quail://ada@host", None), Ok("ada".to_owned()));
        assert_eq!(account("quail://host", Some("ada")), Ok("ada".to_owned()));
        assert_eq!(account("quail://ada@host", Some("ada")), Ok("ada".to_owned()));
        assert_eq!(account("quail://host", None), Err("no handle".to_owned()));
        let both = "the address names ada, --handle names grace".to_owned();
        assert_eq!(account("quail://ada@host", Some("grace")), Err(both));
    }

    #[test]
    fn a_handle_may_be_written_with_its_sign() {
        assert_eq!(handle("@ada"), Ok("ada".to_owned()));
        assert_eq!(handle("ada"), Ok("ada".to_owned()));
        assert!(handle("Ada").is_err() && handle("@@ada").is_err());
    }
}

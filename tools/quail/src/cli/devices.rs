//! `quail devices`: what the account is logged in with, and logging out what was lost.
//!
//! Invariants: only what one device alone is meant by is logged out, never a guess; names and platforms are text of
//! whoever logged a device in, so a terminal is shown them and does not obey them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::builder::NonEmptyStringValueParser;
use clap::{Args, Subcommand};
use quail::output::escape::escape;
use quail_client::{Client, Device, DeviceId, MemoryStore};
use serde::{Serialize, Serializer};

use super::Context;
use super::failure::{Failure, Outcome};
use super::session::options;

/// Show the devices of the account, or log one out
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(super) struct Devices {
    #[command(subcommand)]
    command: Option<DevicesCommand>,
}

const EXAMPLES: &str = "\
Examples:
  quail devices                       the one you are using is marked with *
  quail devices --json | jq -r .name
  quail devices unlink 0f8fad5b       log out the one whose id begins so
  quail devices unlink 'old phone'    or the one of that name

Last seen is exact to a minute; who is connected was seen now.";

#[derive(Debug, Subcommand)]
enum DevicesCommand {
    Unlink(Unlink),
}

/// Log a device out: it gets and sends nothing more
#[derive(Args, Debug)]
#[command(after_help = UNLINK_EXAMPLES)]
struct Unlink {
    /// The device: its id, the beginning of its id, or its name
    #[arg(value_name = "DEVICE", value_parser = NonEmptyStringValueParser::new())]
    device: String,

    /// Do it also if it is the device you are using, which is then forgotten here
    #[arg(long)]
    yes: bool,
}

const UNLINK_EXAMPLES: &str = "\
Examples:
  quail devices unlink 0f8fad5b
  quail devices unlink 'old phone' --json

Messages that waited for the device are gone with it; other devices keep theirs. Who had the device in hand may know the
password as well: quail passwd logs out all devices but this one.";

/// Characters of an id that are shown to people, if they tell all devices apart.
const ID_CHARS: usize = 8;

/// A device of the list, as programs get it. Times are milliseconds since the Unix epoch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Listed {
    #[serde(serialize_with = "as_text")]
    device: DeviceId,
    name: String,
    platform: String,
    created_ms: u64,
    last_seen_ms: u64,
    current: bool,
}

impl From<Device> for Listed {
    fn from(device: Device) -> Self {
        Self {
            device: device.id,
            name: device.name,
            platform: device.platform,
            created_ms: unix_ms(device.created),
            last_seen_ms: unix_ms(device.last_seen),
            current: device.is_current,
        }
    }
}

#[derive(Serialize)]
struct Unlinked<'a> {
    device: String,
    name: &'a str,
    /// Whether it was the device that asked.
    current: bool,
}

impl Devices {
    pub(super) async fn run(self, context: Context) -> anyhow::Result<Outcome> {
        match self.command {
            None => list(&context).await,
            Some(DevicesCommand::Unlink(unlink)) => unlink.run(&context).await,
        }
    }
}

async fn list(context: &Context) -> anyhow::Result<Outcome> {
    let client = connect(context).await?;
    let devices = listed(&client).await?;
    client.close().await?;
    devices.iter().try_for_each(|device| context.output.programs(device))?;
    context.output.people(table(&devices))?;
    Ok(Outcome::Good)
}

impl Unlink {
    async fn run(self, context: &Context) -> anyhow::Result<Outcome> {
        let client = connect(context).await?;
        let devices = listed(&client).await?;
        let device = find(&devices, &self.device)?;
        if device.current && !self.yes {
            let text = "this is the device you are using";
            let hint = "to log it out and forget it here: quail logout; or say --yes";
            return Err(Failure::usage(text).hint(hint).into());
        }
        client.unlink(device.device).await?;
        if device.current {
            context.profile()?.forget()?;
        } else {
            client.close().await?;
        }
        let programs =
            Unlinked { device: device.device.to_string(), name: &device.name, current: device.current };
        context.output.result(format!("{} is logged out", shown(device)), &programs)?;
        Ok(Outcome::Good)
    }
}

async fn connect(context: &Context) -> anyhow::Result<Client> {
    let (_, login) = context.login()?;
    // Neither sends nor receives, so the counters stay free for a process that does.
    Ok(Client::open(&login.address, &login.credentials, MemoryStore::new(), options()).await?)
}

async fn listed(client: &Client) -> anyhow::Result<Vec<Listed>> {
    Ok(client.devices().await?.into_iter().map(Listed::from).collect())
}

/// Finds the one device that is meant by an id, the beginning of an id, or a name.
fn find<'a>(devices: &'a [Listed], meant: &str) -> Result<&'a Listed, Failure> {
    if let Some(device) = devices.iter().find(|device| device.device.to_string() == meant.to_lowercase()) {
        return Ok(device);
    }
    let is_meant = |device: &&Listed| {
        device.device.to_string().starts_with(&meant.to_lowercase()) || device.name == meant
    };
    let found: Vec<_> = devices.iter().filter(is_meant).collect();
    match found[..] {
        [device] => Ok(device),
        [] => Err(Failure::failed("UNKNOWN_DEVICE", format!("you have no device \"{}\"", escape(meant)))
            .hint("quail devices lists the devices you have; one that was unlinked is not among them")),
        _ => {
            let all: Vec<_> =
                found.iter().map(|device| format!("{} ({})", device.device, shown(device))).collect();
            let text = format!("\"{}\" may be each of {}", escape(meant), all.join(", "));
            Err(Failure::usage(text).hint("give the id, or more of it: quail devices unlink ID"))
        }
    }
}

/// Returns what people call a device.
fn shown(device: &Listed) -> String {
    if device.name.is_empty() { device.device.to_string() } else { escape(&device.name).into_owned() }
}

fn table(devices: &[Listed]) -> String {
    // By the server's clock, as the times of the list are; the device that asks was seen as it asked.
    let current = devices.iter().find(|device| device.current);
    let now_ms = current.map_or_else(|| unix_ms(SystemTime::now()), |device| device.last_seen_ms);
    let width = id_chars(devices);
    let mut rows = vec![["  NAME", "PLATFORM", "LAST SEEN", "ID"].map(str::to_owned)];
    for device in devices {
        let mark = if device.current { "* " } else { "  " };
        rows.push([
            format!("{mark}{}", escape(&device.name)),
            escape(&device.platform).into_owned(),
            ago(Duration::from_millis(now_ms.saturating_sub(device.last_seen_ms))),
            device.device.to_string().chars().take(width).collect(),
        ]);
    }
    let widths =
        [0, 1, 2].map(|column| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or_default());
    let line = |[name, platform, seen, id]: &[String; 4]| {
        let [name_width, platform_width, seen_width] = widths;
        format!("{name:name_width$}  {platform:platform_width$}  {seen:seen_width$}  {id}")
    };
    rows.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// Returns how much of an id tells the devices apart: a little, or all.
fn id_chars(devices: &[Listed]) -> usize {
    let mut short: Vec<_> = devices
        .iter()
        .map(|device| device.device.to_string().chars().take(ID_CHARS).collect::<String>())
        .collect();
    short.sort_unstable();
    if short.windows(2).all(|pair| pair[0] != pair[1]) { ID_CHARS } else { usize::MAX }
}

/// Says how long ago something was, as exactly as people want it.
fn ago(passed: Duration) -> String {
    const MINUTE: u64 = 60;
    const HOUR: u64 = 60 * MINUTE;
    const DAY: u64 = 24 * HOUR;
    match passed.as_secs() {
        seconds if seconds < 90 => "now".to_owned(),
        seconds if seconds < 90 * MINUTE => format!("{} min ago", seconds / MINUTE),
        seconds if seconds < 2 * DAY => format!("{} h ago", seconds / HOUR),
        seconds => format!("{} days ago", seconds / DAY),
    }
}

fn as_text<S: Serializer>(device: &DeviceId, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(device)
}

fn unix_ms(time: SystemTime) -> u64 {
    let passed = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(passed.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;

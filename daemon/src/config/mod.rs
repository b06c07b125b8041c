//! The configuration: embedded defaults < file < environment < flags.
//!
//! Why layers: the daemon runs without any file, a package ships a file, a container sets variables, a person at a terminal
//! types flags; each overrides what is more general than itself. `default.toml` is the first layer and the reference
//! documentation at once, so the two cannot drift apart.
//!
//! Flow: [`load`] collects every layer as texts that remember where they stand (`layers.rs`), then parses the text that wins
//! (`values.rs`) into [`Config`]. All mistakes are reported, not the first. Nobody else parses a setting.
//!
//! Invariants: every key of the table (`keys.rs`) has a value in `default.toml`; an unknown key never stops the daemon, since
//! after a downgrade an older daemon reads a newer file; no setting is a secret, secrets are named by file.

mod directory;
mod environment;
mod error;
mod keys;
mod layers;
mod messages;
mod nearest;
mod rates;
mod storage;
mod values;

use std::fmt;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use environment::{Environment, SystemEnvironment};
pub use error::{ConfigError, ConfigErrors};
pub use layers::{Source, UnknownKey};
pub use messages::Messages;
pub use rates::{Class, Rate, RateTable};
pub use storage::{PostgresTls, PostgresUrl, Storage, StorageUrl};

use layers::{Layers, Text};

/// The commented default configuration, as `quaild default-config` prints it.
pub const DEFAULT_TOML: &str = include_str!("default.toml");

/// The configuration file that is read when none is named.
pub const DEFAULT_FILE: &str = "/etc/quail/quail.toml";

/// The name of the admin socket where the configuration leaves it open.
const ADMIN_SOCKET_NAME: &str = "admin.sock";

/// The longest drain. It keeps deadlines far from where adding to a clock overflows.
const DRAIN_MAX: Duration = Duration::from_secs(3600);

/// The shortest and longest stall. Shorter than a network's bad moment would end connections that are well, and the longest
/// keeps deadlines far from where adding to a clock overflows.
const STALL_RANGE: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(24 * 3600);

/// The smallest memory for what waits to be settled: less than one spill would close the door all the time.
const UNSETTLED_MIN: u64 = 32 << 20;

/// The smallest journal that may wait for the archive: some segments.
const UNARCHIVED_MIN: u64 = 64 << 20;

/// All settings of the daemon, checked one by one. Whether the outside world agrees is found out by who uses them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// `[server]`
    pub server: Server,
    /// `[data]`
    pub data: Data,
    /// `[storage]`
    pub storage: Storage,
    /// `[tls]`
    pub tls: Tls,
    /// `[accounts]`
    pub accounts: Accounts,
    /// `[rates]`
    pub rates: RateTable,
    /// `[limits]`
    pub limits: Limits,
    /// `[messages]`
    pub messages: Messages,
    /// `[ops]`
    pub ops: Ops,
    /// `[admin]`
    pub admin: Admin,
    /// `[log]`
    pub log: Log,
}

/// How clients reach the daemon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// The UDP address to listen on.
    pub listen: SocketAddr,
    /// The host name or IP address that clients use, without brackets.
    pub name: String,
    /// How long a drain may take.
    pub drain: Duration,
}

/// What the daemon keeps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Data {
    /// The data directory; chosen already where the configuration leaves it open.
    pub directory: PathBuf,
}

/// How clients know the daemon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    /// The operator's certificate; without one the daemon makes its own.
    pub operator: Option<CertificateFiles>,
    /// Whether clients that were here before may resume and send in their first packets.
    pub early_data: bool,
}

/// Where an operator keeps a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateFiles {
    /// The certificate chain, PEM.
    pub certificate: PathBuf,
    /// Its private key, PEM.
    pub key: PathBuf,
}

/// Who has accounts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accounts {
    /// Who may create one.
    pub sign_up: SignUp,
}

/// Who may create an account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SignUp {
    /// Everybody.
    Open,
    /// Whoever has an invite.
    Invite,
    /// Nobody.
    Closed,
}

/// What a connection may do to the daemon, and how much may wait.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// How long what waits for a peer may wait without any progress, before its connection is closed.
    pub stall: Duration,
    /// Most memory of events that wait to be written to the settled store, in bytes.
    pub unsettled: u64,
    /// Most bytes of the journal that wait for the archive.
    pub unarchived: u64,
    /// Free space on disk, in bytes, below which no new message is taken; chosen by the size of the disk if left open.
    pub free_space: Option<u64>,
}

/// What operators are shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ops {
    /// The TCP address of health and metrics; `None`: they are not served.
    pub listen: Option<SocketAddr>,
}

/// How the operator reaches the running daemon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admin {
    /// The Unix socket; chosen already where the configuration leaves it open.
    pub socket: PathBuf,
}

/// What is logged, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    /// The least important lines.
    pub level: LogLevel,
    /// Their form.
    pub format: LogFormat,
}

/// How important a line of the log is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogLevel {
    /// Needs a person.
    Error,
    /// May need a person.
    Warn,
    /// Tells what the daemon does.
    Info,
    /// Tells why.
    Debug,
    /// Tells everything.
    Trace,
}

/// The form of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// `Human` on a terminal, `Json` otherwise.
    Auto,
    /// For eyes.
    Human,
    /// For programs: one object per line.
    Json,
}

/// Settings given on the command line, as they were typed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Flags {
    /// `--listen`
    pub listen: Option<String>,
    /// `--data`
    pub data: Option<String>,
    /// `--log-level`
    pub log_level: Option<String>,
}

/// A configuration, and how it came about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loaded {
    /// The settings.
    pub config: Config,
    /// Keys that no setting has. The daemon says so and starts; a check fails.
    pub unknown: Vec<UnknownKey>,
    /// Every setting in the order of the default configuration.
    pub settings: Vec<Setting>,
}

/// One setting as it stands somewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// Its section and key: `server.listen`.
    pub key: &'static str,
    /// Its value.
    pub value: String,
    /// Where the value stands.
    pub source: Source,
}

/// Returns the file that is read when none is named, if it is there.
///
/// A file that cannot be looked at counts as there: reading it says why.
pub fn default_file() -> Option<PathBuf> {
    let file = Path::new(DEFAULT_FILE);
    file.try_exists().unwrap_or(true).then(|| file.to_owned())
}

/// Loads the configuration from all layers.
///
/// # Errors
/// Every mistake found, each with the place where it stands and what to write instead.
pub fn load(
    file: Option<&Path>,
    environment: &dyn Environment,
    flags: &Flags,
) -> Result<Loaded, ConfigErrors> {
    let mut layers = Layers::default();
    layers.add_defaults(DEFAULT_TOML);
    if let Some(file) = file {
        layers.add_file(file);
    }
    layers.add_environment(environment);
    layers.add_flags(flags);
    let config = parse(&mut layers, environment);
    match config {
        Some(config) if layers.errors.is_empty() => {
            let settings = layers.settings();
            Ok(Loaded { config, unknown: layers.unknown, settings })
        }
        _ => Err(ConfigErrors { errors: layers.errors, unknown: layers.unknown }),
    }
}

/// Parses what won. `None` means that at least one error was noted.
fn parse(layers: &mut Layers, environment: &dyn Environment) -> Option<Config> {
    let listen = layers.parse(&keys::LISTEN, |text| text.parse().ok());
    let name = layers.parse(&keys::NAME, values::host_name);
    let drain = layers.parse(&keys::DRAIN, |text| values::duration(text).filter(|drain| *drain <= DRAIN_MAX));
    let directory = data_directory(layers, environment);
    let socket = admin_socket(layers, environment, directory.as_deref());
    let storage = storage::parse(layers);
    let operator = certificate_files(layers);
    let early_data = layers.parse(&keys::EARLY_DATA, |text| values::one_of(text, ON_OR_OFF));
    let sign_up = layers.parse(&keys::SIGN_UP, |text| values::one_of(text, SIGN_UPS));
    let rates = rates(layers);
    let limits = limits(layers);
    let messages = messages::parse(layers);
    let ops_listen = layers.parse(&keys::OPS_LISTEN, |text| {
        if text.is_empty() { Some(None) } else { text.parse().ok().map(Some) }
    });
    let level = layers.parse(&keys::LOG_LEVEL, |text| values::one_of(text, LOG_LEVELS));
    let format = layers.parse(&keys::LOG_FORMAT, |text| values::one_of(text, LOG_FORMATS));
    Some(Config {
        server: Server { listen: listen?, name: name?, drain: drain? },
        data: Data { directory: directory? },
        storage: storage?,
        tls: Tls { operator: operator?, early_data: early_data? },
        accounts: Accounts { sign_up: sign_up? },
        rates: rates?,
        limits: limits?,
        messages: messages?,
        ops: Ops { listen: ops_listen? },
        admin: Admin { socket: socket? },
        log: Log { level: level?, format: format? },
    })
}

fn rates(layers: &mut Layers) -> Option<RateTable> {
    // All are parsed before the first mistake counts.
    let rates = Class::ALL.map(|class| layers.parse(keys::of_class(class), Rate::parse));
    let mut table = RateTable::new([None; Class::ALL.len()]);
    for (class, rate) in Class::ALL.into_iter().zip(rates) {
        table.set(class, rate?);
    }
    Some(table)
}

const ON_OR_OFF: &[(&str, bool)] = &[("on", true), ("off", false)];

const SIGN_UPS: &[(&str, SignUp)] =
    &[("open", SignUp::Open), ("invite", SignUp::Invite), ("closed", SignUp::Closed)];

const LOG_LEVELS: &[(&str, LogLevel)] = &[
    ("error", LogLevel::Error),
    ("warn", LogLevel::Warn),
    ("info", LogLevel::Info),
    ("debug", LogLevel::Debug),
    ("trace", LogLevel::Trace),
];

const LOG_FORMATS: &[(&str, LogFormat)] =
    &[("auto", LogFormat::Auto), ("human", LogFormat::Human), ("json", LogFormat::Json)];

fn data_directory(layers: &mut Layers, environment: &dyn Environment) -> Option<PathBuf> {
    if let Some(path) = layers.parse(&keys::DATA_DIRECTORY, values::optional_path)? {
        return Some(path);
    }
    let chosen = directory::choose(environment);
    if chosen.is_none() {
        layers.errors.push(ConfigError::NoDataDirectory);
    }
    chosen
}

fn admin_socket(layers: &mut Layers, environment: &dyn Environment, data: Option<&Path>) -> Option<PathBuf> {
    match layers.parse(&keys::ADMIN_SOCKET, values::optional_path)? {
        Some(path) => Some(path),
        None => Some(directory::runtime(environment).as_deref().or(data)?.join(ADMIN_SOCKET_NAME)),
    }
}

fn limits(layers: &mut Layers) -> Option<Limits> {
    let stall =
        layers.parse(&keys::STALL, |text| values::duration(text).filter(|stall| STALL_RANGE.contains(stall)));
    let at_least = |least| move |text: &str| values::size(text).filter(|size| *size >= least);
    let unsettled = layers.parse(&keys::UNSETTLED, at_least(UNSETTLED_MIN));
    let unarchived = layers.parse(&keys::UNARCHIVED, at_least(UNARCHIVED_MIN));
    let free_space = layers.parse(&keys::FREE_SPACE, |text| {
        if text.is_empty() { Some(None) } else { values::size(text).map(Some) }
    });
    Some(Limits { stall: stall?, unsettled: unsettled?, unarchived: unarchived?, free_space: free_space? })
}

/// The outer `None` means that an error was noted, the inner one that the daemon makes its own certificate.
fn certificate_files(layers: &mut Layers) -> Option<Option<CertificateFiles>> {
    let certificate = layers.parse(&keys::CERTIFICATE_FILE, values::optional_path);
    let key = layers.parse(&keys::KEY_FILE, values::optional_path);
    let (given, missing) = match (certificate?, key?) {
        (None, None) => return Some(None),
        (Some(certificate), Some(key)) => return Some(Some(CertificateFiles { certificate, key })),
        (Some(_), None) => (&keys::CERTIFICATE_FILE, &keys::KEY_FILE),
        (None, Some(_)) => (&keys::KEY_FILE, &keys::CERTIFICATE_FILE),
    };
    let place = layers.text(given).map_or(Source::Default, |Text { source, .. }| source.clone());
    layers.errors.push(ConfigError::HalfCertificate { given: given.path, place, missing: missing.path });
    None
}

impl LogLevel {
    /// Returns the level as it is written in the configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }
}

impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { key, value, source } = self;
        write!(f, "{key} = {value:?} from {source}")
    }
}

#[cfg(test)]
mod tests;

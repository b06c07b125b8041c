//! The program: it reads the command line and the configuration, and does what they ask for.
//!
//! Only this module names the adapters; `serve` wires them to the rest, starts it and drains it. Everything else here is
//! what surrounds serving: checking the configuration, asking a running daemon for its health, administration, checking the
//! store of a stopped one.
//!
//! Invariants: standard output has what a command was asked for, standard error everything else; an error that ends the
//! process is told once, with the next step.

mod admin;
mod archive;
mod cli;
mod data_dir;
mod exit;
mod health_check;
mod migrate;
mod notify;
mod ops_port;
mod origin;
mod outbox;
mod reload;
mod reset_key;
mod schema;
pub mod serve;
mod signals;
mod storage;
mod store_check;

use std::future::Future;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;

pub use admin::AdminClientError;
pub use data_dir::{DataDir, DataDirError, DataPaths};
pub use health_check::{HealthCheckError, health_check};

use crate::config::{self, Config, ConfigErrors, Loaded, SystemEnvironment};
use crate::net::identity::Identity;
use crate::ops::logging::LogHandle;
use crate::ops::{logging, version};
use cli::{Cli, Command, Options};

/// How long threads that are still busy after the drain, such as one hashing a password, may hold up the end.
const THREADS_TIMEOUT: Duration = Duration::from_secs(2);

/// What a daemon is started with.
pub struct Settings {
    /// The settings, and how they came about.
    loaded: Loaded,
    /// Where they are read from again.
    source: reload::Source,
    /// The data directory, locked.
    data: DataDir,
    /// The log, whose level may change.
    log: LogHandle,
}

/// Runs the `quaild` command.
pub fn main() -> ExitCode {
    match run(Cli::from_process()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if exit::is_reader_gone(&error) => ExitCode::SUCCESS,
        Err(error) => {
            // Standard error may be closed; the exit code says the rest.
            let _ = io::stderr().write_all(exit::report(&error).as_bytes());
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli) -> anyhow::Result<()> {
    let Cli { options, health_check, command } = cli;
    match command {
        Some(Command::DefaultConfig) => print(config::DEFAULT_TOML),
        Some(Command::CheckConfig) => check_config(&options),
        Some(Command::Admin(command)) => admin::run(&admin::socket(&load(&options)?), command),
        Some(Command::Store(command)) => store_check::run(&load(&options)?.config.data.directory, &command),
        Some(Command::Migrate(command)) => schema::run(&load(&options)?.config, &command),
        None if health_check => check_health(&load(&options)?.config),
        None => serve(options),
    }
}

fn serve(options: Options) -> anyhow::Result<()> {
    let loaded = load(&options)?;
    let config = &loaded.config;
    let log = logging::install(config.log.level, config.log.format, &SystemEnvironment)?;
    tracing::info!(version = version::VERSION, "quaild starts");
    for key in &loaded.unknown {
        tracing::warn!("{key}");
    }
    let data = DataDir::open(&config.data.directory)?;
    let source = Box::new(move || load(&options));
    block_on(serve::serve(Settings { loaded, source, data, log }))
}

fn check_config(options: &Options) -> anyhow::Result<()> {
    let Loaded { config, unknown, settings } = load(options)?;
    if !unknown.is_empty() {
        return Err(ConfigErrors { errors: Vec::new(), unknown }.into());
    }
    if let Some(operator) = &config.tls.operator {
        Identity::load(&operator.certificate, &operator.key)?;
    }
    storage::password(&config.storage)?;
    let lines: String = settings.iter().map(|setting| format!("{setting}\n")).collect();
    let directory = config.data.directory.display();
    print(&format!("{lines}The configuration is valid. The data directory is {directory}.\n"))
}

fn check_health(config: &Config) -> anyhow::Result<()> {
    let certificate = match &config.tls.operator {
        Some(operator) => operator.certificate.clone(),
        None => DataPaths::new(&config.data.directory).certificate(),
    };
    block_on(async { Ok(health_check(config.server.listen, &certificate).await?) })?;
    print("ok\n")
}

fn load(options: &Options) -> Result<Loaded, ConfigErrors> {
    let file: Option<PathBuf> = options.config.clone().or_else(config::default_file);
    config::load(file.as_deref(), &SystemEnvironment, &options.flags())
}

fn block_on(work: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name("quaild")
        .build()
        .context("start the threads")?;
    let result = runtime.block_on(work);
    runtime.shutdown_timeout(THREADS_TIMEOUT);
    result
}

fn print(text: &str) -> anyhow::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    Ok(stdout.flush()?)
}

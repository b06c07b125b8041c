//! The command line of `quaild`.
//!
//! Invariant: values of settings stay texts here. The configuration parses them, so a flag has the same rules and the same
//! messages as a file.

use std::path::PathBuf;

use clap::{Args, CommandFactory, Parser, Subcommand};

use super::admin::cli::Admin;
use super::schema::Migrate;
use super::store_check::Store;
use crate::config::Flags;
use crate::ops::version;

const EXAMPLES: &str = "\
Examples:
  quaild                                         serve with the defaults
  quaild --listen 127.0.0.1:0 --data /tmp/quail  serve on a free port of this machine only
  quaild default-config > quail.toml             begin a configuration file
  quaild --config quail.toml check-config        check it and show what is in force
  quaild admin status                            ask the running daemon how it is
  quaild admin invites create --count 3          have it print codes for new accounts
  quaild migrate --dry-run                       see what the next start would do to the directory
  quaild --data /srv/quail store check           look for damage while the daemon is stopped
  QUAIL_LOG_LEVEL=debug quaild                   every setting has a variable: QUAIL_SECTION_KEY";

/// The Quail messaging daemon. Without a command it serves until it gets SIGTERM or SIGINT.
#[derive(Clone, Debug, PartialEq, Eq, Parser)]
#[command(name = "quaild", version = version::VERSION, after_help = EXAMPLES)]
pub(super) struct Cli {
    #[command(flatten)]
    pub(super) options: Options,
    /// Ask the daemon that listens on the configured address of this machine whether it serves; exit with 0 if it does
    #[arg(long)]
    pub(super) health_check: bool,
    #[command(subcommand)]
    pub(super) command: Option<Command>,
}

/// What every command takes.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub(super) struct Options {
    /// Read the settings of this file instead of /etc/quail/quail.toml
    #[arg(long, value_name = "FILE", global = true)]
    pub(super) config: Option<PathBuf>,
    /// Listen on this IP address and UDP port, as in 0.0.0.0:7824
    #[arg(long, value_name = "ADDR", global = true)]
    listen: Option<String>,
    /// Keep everything that must survive in this directory
    #[arg(long, value_name = "DIR", global = true)]
    data: Option<String>,
    /// Log lines of this importance and above: error, warn, info, debug or trace
    #[arg(long, value_name = "LEVEL", global = true)]
    log_level: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Subcommand)]
pub(super) enum Command {
    /// Check the configuration, show every setting that is in force and where it comes from; unknown keys are errors
    CheckConfig,
    /// Print the default configuration with a comment for every setting
    DefaultConfig,
    Admin(Admin),
    Store(Store),
    Migrate(Migrate),
}

impl Cli {
    /// Parses the command line of this process. Asks for help and mistakes end the process here, as clap does it.
    pub(super) fn from_process() -> Self {
        let cli = Self::parse();
        if let Err(error) = cli.check() {
            error.exit();
        }
        cli
    }

    /// Refuses what clap's declarations cannot.
    fn check(&self) -> Result<(), clap::Error> {
        if self.health_check && self.command.is_some() {
            let message = "--health-check cannot be combined with a command";
            return Err(Self::command().error(clap::error::ErrorKind::ArgumentConflict, message));
        }
        Ok(())
    }
}

impl Options {
    /// Returns the settings among the options.
    pub(super) fn flags(&self) -> Flags {
        Flags { listen: self.listen.clone(), data: self.data.clone(), log_level: self.log_level.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        let cli = Cli::try_parse_from(line.split(' '))?;
        cli.check()?;
        Ok(cli)
    }

    #[test]
    fn the_declarations_are_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn nothing_serves() {
        let cli = parse("quaild").unwrap();
        assert_eq!((cli.command, cli.health_check), (None, false));
        assert_eq!(cli.options.flags(), Flags::default());
    }

    #[test]
    fn options_stand_before_or_after_a_command() {
        for line in [
            "quaild --config a.toml --data /d --listen [::1]:1 --log-level debug check-config",
            "quaild check-config --config a.toml --data /d --listen [::1]:1 --log-level debug",
        ] {
            let cli = parse(line).unwrap();
            assert_eq!(cli.command, Some(Command::CheckConfig));
            assert_eq!(cli.options.config.as_deref(), Some(std::path::Path::new("a.toml")));
            let text = |text: &str| Some(text.to_owned());
            let flags = Flags { listen: text("[::1]:1"), data: text("/d"), log_level: text("debug") };
            assert_eq!(cli.options.flags(), flags);
        }
    }

    #[test]
    fn an_admin_command_is_complete_or_refused() {
        for line in [
            "quaild admin status --json",
            "quaild --data /d admin invites create --count 1000",
            "quaild admin accounts create ada bob --session",
            "quaild admin accounts create --handles-from - --json",
            "quaild admin accounts list --limit 5 --after ada",
            "quaild admin accounts reset-password ada --generate --keep-sessions",
            "quaild admin devices unlink ada 1",
        ] {
            assert!(matches!(parse(line).unwrap().command, Some(Command::Admin(_))), "{line}");
        }
        for line in [
            "quaild admin",
            "quaild admin invites create --count 0",
            "quaild admin invites create --count 1001",
            "quaild admin accounts create",
            "quaild admin accounts disable",
            "quaild admin devices unlink ada",
        ] {
            assert_eq!(parse(line).unwrap_err().exit_code(), 2, "{line}");
        }
    }

    #[test]
    fn the_store_is_checked_here_or_elsewhere() {
        for line in
            ["quaild store check", "quaild --data /d store check --json", "quaild store check --data /d"]
        {
            assert!(matches!(parse(line).unwrap().command, Some(Command::Store(_))), "{line}");
        }
        for line in ["quaild store", "quaild store check /d", "quaild store check --fix", "quaild store mend"]
        {
            assert_eq!(parse(line).unwrap_err().exit_code(), 2, "{line}");
        }
    }

    #[test]
    fn the_schema_is_told_or_changed() {
        for (line, dry_run) in [("quaild migrate", false), ("quaild --data /d migrate --dry-run", true)] {
            assert_eq!(parse(line).unwrap().command, Some(Command::Migrate(Migrate { dry_run })));
        }
        assert_eq!(parse("quaild migrate /d").unwrap_err().exit_code(), 2);
    }

    #[test]
    fn mistakes_of_usage_exit_with_2() {
        for line in
            ["quaild serve", "quaild --port 1", "quaild admin", "quaild --health-check default-config"]
        {
            assert_eq!(parse(line).unwrap_err().exit_code(), 2, "{line}");
        }
    }

    #[test]
    fn the_version_tells_the_sources() {
        let text = parse("quaild --version").unwrap_err().to_string();
        let version = text.strip_prefix("quaild 0.1.0 (source fingerprint ").unwrap();
        assert_eq!(version.trim_end().len(), 16 + 1);
    }
}

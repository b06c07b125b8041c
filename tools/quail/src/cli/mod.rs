//! The command line: what can be asked, and the way from asking to the exit code.
//!
//! One file per command, which holds its arguments, its help and its work; the three that change a message share one. What they share: `failure.rs` (what people are
//! told when something fails), `session.rs` (profiles and connections), `password.rs`, `bar.rs`, `stop.rs`.
//!
//! Invariants: results go to stdout, all else to stderr; the exit code is 0 if it worked, 1 if it failed or a check found
//! something wrong, 2 if it was asked wrongly; every command knows `--json` and `--help` with examples.

mod bar;
mod bench;
mod change;
mod completions;
mod demo;
mod devices;
mod duration;
mod failure;
mod history;
mod login;
mod logout;
mod passwd;
mod password;
mod ping;
mod privacy;
mod queue;
mod roam;
mod send;
mod session;
mod signup;
mod stop;
mod tail;
mod typing;
mod whoami;

use std::io;
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{Parser, Subcommand};
use quail::output::Output;
use quail::profile::ProfileName;
use tracing_subscriber::EnvFilter;

use failure::{EXIT_OK, EXIT_USAGE, Outcome};

/// Probe tool and terminal client of the Quail messaging server.
#[derive(Debug, Parser)]
#[command(name = "quail", version, max_term_width = 100, after_help = EXAMPLES)]
struct Cli {
    /// Print JSON: one object, or one object per line; errors too, on stderr
    #[arg(long, global = true)]
    json: bool,

    /// Act as the device of this profile
    #[arg(long, global = true, value_name = "NAME", default_value = "default", env = "QUAIL_PROFILE")]
    profile: ProfileName,

    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "\
Examples:
  quail demo                                     see it work, with nothing set up
  quail signup quail://ada@chat.example.org      make an account
  quail send grace 'hello'                       send a message
  quail tail                                     print messages as they come

Profiles are kept in $QUAIL_CONFIG_DIR, else in ~/.config/quail. RUST_LOG=debug shows what happens.
Exit codes: 0 ok, 1 failed or a check found something wrong, 2 asked wrongly.";

#[derive(Debug, Subcommand)]
enum Command {
    Signup(signup::SignUp),
    Login(login::LogIn),
    Logout(logout::LogOut),
    Whoami(whoami::WhoAmI),
    Passwd(passwd::Passwd),
    Devices(devices::Devices),
    Privacy(privacy::Privacy),
    Send(send::Send),
    Edit(change::Edit),
    Delete(change::Delete),
    React(change::React),
    Queue(queue::Queue),
    Tail(tail::Tail),
    Typing(typing::Typing),
    Conversations(history::conversations::Conversations),
    History(history::History),
    Search(history::search::Search),
    Sync(history::sync::Sync),
    Read(history::read::Read),
    Ping(ping::Ping),
    Demo(demo::Demo),
    Bench(bench::Bench),
    Roam(roam::Roam),
    Completions(completions::Completions),
}

/// What every command is told.
#[derive(Clone, Debug)]
struct Context {
    output: Output,
    profile: ProfileName,
}

/// Runs the command that was asked for.
pub(crate) fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return asked_wrongly(&error),
    };
    start_log();
    let output = Output::new(cli.json);
    let context = Context { output, profile: cli.profile };
    match run(cli.command, context) {
        Ok(outcome) => outcome.exit_code(),
        Err(error) => failure::report(output, &error),
    }
}

fn run(command: Command, context: Context) -> anyhow::Result<Outcome> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let work = async {
        match command {
            Command::Signup(command) => command.run(context).await,
            Command::Login(command) => command.run(context).await,
            Command::Logout(command) => command.run(context).await,
            Command::Whoami(command) => command.run(context).await,
            Command::Passwd(command) => command.run(context).await,
            Command::Devices(command) => command.run(context).await,
            Command::Privacy(command) => command.run(context).await,
            Command::Send(command) => command.run(context).await,
            Command::Edit(command) => command.run(context).await,
            Command::Delete(command) => command.run(context).await,
            Command::React(command) => command.run(context).await,
            Command::Queue(command) => command.run(context).await,
            Command::Tail(command) => command.run(context).await,
            Command::Typing(command) => command.run(context).await,
            Command::Conversations(command) => command.run(context).await,
            Command::History(command) => command.run(context).await,
            Command::Search(command) => command.run(context).await,
            Command::Sync(command) => command.run(context).await,
            Command::Read(command) => command.run(context).await,
            Command::Ping(command) => command.run(context).await,
            Command::Demo(command) => command.run(context).await,
            Command::Bench(command) => command.run(context).await,
            Command::Roam(command) => command.run(context).await,
            Command::Completions(command) => command.run(&context),
        }
    };
    let outcome = runtime.block_on(Box::pin(work));
    // A thread may hang in a write to a pipe that nobody reads; the process ends all the same.
    runtime.shutdown_background();
    outcome
}

/// Logs to stderr what RUST_LOG asks for; nothing unless it asks.
fn start_log() {
    let Ok(filter) = EnvFilter::try_from_default_env() else {
        return;
    };
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).init();
}

/// Tells what is wrong with the command line. Help and version are no errors.
fn asked_wrongly(error: &clap::Error) -> ExitCode {
    if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
        // Nobody may be reading.
        let _ = error.print();
        return ExitCode::from(EXIT_OK);
    }
    let is_json = std::env::args_os().take_while(|arg| arg != "--").any(|arg| arg == "--json");
    if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand && !is_json {
        let _ = error.print();
        return ExitCode::from(EXIT_USAGE);
    }
    let rendered = error.render().to_string();
    let (text, hint) = usage_error(&rendered);
    Output::new(is_json).error("USAGE", &text, Some(&hint));
    ExitCode::from(EXIT_USAGE)
}

/// Cuts the parser's many paragraphs into what is wrong and what to do.
fn usage_error(rendered: &str) -> (String, String) {
    let mut text = Vec::new();
    let (mut tip, mut usage) = (None, None);
    for line in rendered.lines().map(str::trim).filter(|line| !line.is_empty()) {
        if let Some(line) = line.strip_prefix("error: ") {
            text.push(line);
        } else if let Some(line) = line.strip_prefix("tip: ") {
            tip.get_or_insert(line);
        } else if let Some(line) = line.strip_prefix("Usage: ") {
            usage.get_or_insert(line);
        } else if usage.is_none() && !line.starts_with("For more information") {
            text.push(line);
        }
    }
    let hint = match (tip, usage) {
        (Some(tip), _) => tip.to_owned(),
        (None, Some(usage)) => format!("usage: {usage}"),
        (None, None) => "see --help".to_owned(),
    };
    let text = match text.join(" ") {
        text if text.is_empty() => "a command is missing".to_owned(),
        text => text,
    };
    (text, hint)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_shows_examples_and_says_what_it_does() {
        for command in Cli::command().get_subcommands() {
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(help.contains("Examples:\n  quail "), "{}", command.get_name());
            assert!(command.get_about().is_some(), "{}", command.get_name());
        }
    }

    fn check(args: &[&str], text: &str, hint: &str) {
        let error = Cli::try_parse_from(std::iter::once(&"quail").chain(args)).unwrap_err();
        let (found_text, found_hint) = usage_error(&error.render().to_string());
        assert!(found_text.starts_with(text), "{found_text}");
        assert!(found_hint.contains(hint), "{found_hint}");
    }

    #[test]
    fn wrong_questions_get_short_answers() {
        check(&["sned", "a"], "unrecognized subcommand 'sned'", "send");
        check(&["send"], "the following required arguments were not provided: <HANDLE>", "usage: quail send");
        check(
            &["signup", "https://x"],
            "invalid value 'https://x' for '[ADDRESS]': an address begins with quail://",
            "",
        );
        check(&["tail", "--count", "0"], "invalid value '0' for '--count <N>'", "");
        check(&["--profile", "../x", "whoami"], "invalid value '../x' for '--profile <NAME>'", "");
    }
}

//! `quail completions`: prints what makes a shell complete this command.

use clap::{Args, CommandFactory};
use clap_complete::Shell;
use serde::Serialize;

use super::failure::Outcome;
use super::{Cli, Context};

/// Print completions for a shell
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(super) struct Completions {
    /// The shell
    shell: Shell,
}

const EXAMPLES: &str = "\
Examples:
  quail completions bash > ~/.local/share/bash-completion/completions/quail
  quail completions zsh > ~/.zfunc/_quail
  quail completions fish > ~/.config/fish/completions/quail.fish";

#[derive(Serialize)]
struct Script<'a> {
    shell: String,
    script: &'a str,
}

impl Completions {
    pub(super) fn run(self, context: &Context) -> anyhow::Result<Outcome> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Cli::command(), "quail", &mut script);
        let script = String::from_utf8(script)?;
        let programs = Script { shell: self.shell.to_string(), script: &script };
        context.output.result(script.trim_end(), &programs)?;
        Ok(Outcome::Good)
    }
}

//! `quail send`: sends messages, from an argument, a file or stdin.
//!
//! All input is read and checked before the first message leaves, so a mistake in the last line does not leave half of
//! the text sent. Then everything is sent at once; the answers are waited for in order.
//!
//! Invariants: a message that nobody answered for is never called accepted; the exit code is 0 only if every message got
//! as far as was asked for.

use std::fs::File;
use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use clap::{Args, ValueEnum};
use indicatif::ProgressBar;
use quail::output::Output;
use quail::text;
use quail_client::sending::QUEUED_MESSAGES_MAX;
use quail_client::{AccountId, Client, Error, Sending};
use tokio::sync::mpsc;

use super::failure::{Failure, Outcome};
use super::session::handle;
use super::{Context, bar, duration};
use fate::{Fate, State, Tally};

mod fate;

/// Send messages
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(super) struct Send {
    /// The account to send to
    #[arg(value_parser = handle)]
    handle: String,

    /// The message; may have many lines. Without it every line of stdin is a message
    #[arg(conflicts_with = "file", allow_hyphen_values = true)]
    text: Option<String>,

    /// Send every line of a file; - is stdin
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,

    /// How far every message has to get: on the server's disk, to a device of the recipient, or read there, which the
    /// recipient may keep to himself
    #[arg(long, value_enum, default_value_t = Wait::Accepted)]
    wait: Wait,

    /// How long to wait for the next answer before giving up
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = duration::parse)]
    timeout: Duration,
}

const EXAMPLES: &str = "\
Examples:
  quail send grace 'see you at eight'
  quail send grace --wait delivered --timeout 5m 'are you there?'
  quail send grace --wait read --timeout 1h 'call me'
  quail send grace --file poem.txt
  tail -f log | grep --line-buffered ERROR | head -n 1 | quail send grace

A line ends at LF only; up to 61,440 bytes of UTF-8 without NUL each; an empty line is an empty message.";

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Wait {
    Accepted,
    Delivered,
    Read,
}

impl Wait {
    fn state(self) -> State {
        match self {
            Self::Accepted => State::Accepted,
            Self::Delivered => State::Delivered,
            Self::Read => State::Read,
        }
    }
}

impl Send {
    pub(super) async fn run(self, context: Context) -> anyhow::Result<Outcome> {
        // Before the input, which may be long in coming.
        context.login()?;
        let input = self.read_input(context.output)?;
        let messages = match &self.text {
            Some(text) => vec![text::whole(text)?],
            None => text::lines(&input)?,
        };
        let client = context.connect().await?;
        let peer = client.look_up(&self.handle).await?.account;
        if self.wait != Wait::Accepted {
            client.watch_receipts().await?;
        }
        let began = Instant::now();
        let mut batch = Batch {
            client,
            output: context.output,
            bar: bar::new(context.output, messages.len(), "answered"),
            timeout: self.timeout,
            patience: self.timeout,
            tally: Tally::new(self.wait.state(), messages.len()),
        };
        batch.send(peer, &messages, self.wait).await?;
        batch.bar.finish_and_clear();
        self.conclude(batch, began.elapsed()).await
    }

    fn read_input(&self, output: Output) -> anyhow::Result<Vec<u8>> {
        if self.text.is_some() {
            return Ok(Vec::new());
        }
        match self.file.as_deref().filter(|path| *path != Path::new("-")) {
            Some(path) => {
                let file = File::open(path).with_context(|| format!("open {}", path.display()))?;
                Ok(text::read(file)?)
            }
            None => {
                if io::stdin().is_terminal() {
                    output.note("one message per line; Ctrl-D sends them");
                }
                Ok(text::read(io::stdin().lock())?)
            }
        }
    }

    async fn conclude(&self, batch: Batch, took: Duration) -> anyhow::Result<Outcome> {
        let tally = &batch.tally;
        if tally.is_answered() {
            batch.client.close().await?;
        }
        let seconds = took.as_secs_f64();
        batch.output.people(format!("{} in {seconds:.2} s", tally.summary(&self.handle)))?;
        let Some(text) = tally.failure(self.text.is_some()) else {
            return Ok(Outcome::Good);
        };
        let (reason, hint) = match self.wait {
            _ if !tally.is_answered() => {
                let hint =
                    "some may have been accepted all the same: ask the recipient before sending them again";
                ("NOT_ACCEPTED", hint)
            }
            Wait::Accepted => ("NOT_ACCEPTED", "the others are; correct these and send them again"),
            Wait::Delivered => {
                ("NOT_DELIVERED", "what is accepted waits at the server until the recipient comes online")
            }
            Wait::Read => {
                ("NOT_READ", "what is accepted is delivered; the recipient may not say what he reads")
            }
        };
        Err(Failure::failed(reason, text).hint(hint).into())
    }
}

/// Messages on their way.
struct Batch {
    client: Client,
    output: Output,
    bar: ProgressBar,
    timeout: Duration,
    /// How long the next answer is waited for: no longer at all once one was waited for in vain.
    patience: Duration,
    tally: Tally,
}

impl Batch {
    async fn send(&mut self, peer: AccountId, messages: &[&str], wait: Wait) -> anyhow::Result<()> {
        // As many as the client itself queues: here they only wait for their turn to be looked at.
        let (sent, mut answers) = mpsc::channel(QUEUED_MESSAGES_MAX);
        let client = self.client.clone();
        let mut failed = None;
        let sending = async {
            failed = send_all(&client, peer, messages, sent).await.err();
            // The end comes when all answers have been looked at.
            std::future::pending::<()>().await;
        };
        let fates = tokio::select! {
            () = sending => Vec::new(),
            fates = self.watch_accepted(&mut answers, wait) => fates?,
        };
        self.watch_receipts(fates, wait).await?;
        // Those that were never handed over.
        let why = failed.map_or_else(|| self.gave_up(), |error| error.to_string());
        for number in self.tally.count() + 1..=messages.len() {
            self.tell(number, &Fate::not_sent(&why))?;
        }
        Ok(())
    }

    /// Looks at the answers in order; returns them if they are not all there is to say.
    async fn watch_accepted(
        &mut self,
        answers: &mut mpsc::Receiver<Sending>,
        wait: Wait,
    ) -> anyhow::Result<Vec<(Sending, Fate)>> {
        let mut fates = Vec::new();
        while !self.patience.is_zero() || !answers.is_empty() {
            let Some(sending) = answers.recv().await else { break };
            let fate = match within(self.patience, sending.accepted()).await {
                Some(Ok(accepted)) => Fate::accepted(sending.id(), accepted),
                Some(Err(error)) => Fate::failed(sending.id(), &error),
                None => Fate::unknown(sending.id(), self.gave_up()),
            };
            match wait {
                Wait::Accepted => self.tell(self.tally.count() + 1, &fate)?,
                Wait::Delivered | Wait::Read => fates.push((sending, fate)),
            }
        }
        Ok(fates)
    }

    async fn watch_receipts(&mut self, fates: Vec<(Sending, Fate)>, wait: Wait) -> anyhow::Result<()> {
        for (sending, mut fate) in fates {
            if fate.is_accepted() {
                let receipt = async {
                    match wait {
                        Wait::Read => sending.read().await,
                        Wait::Accepted | Wait::Delivered => sending.delivered().await,
                    }
                };
                match within(self.patience, receipt).await {
                    Some(Ok(())) => fate.reached(wait.state()),
                    Some(Err(error)) => fate.fell_short(wait.state(), error.to_string()),
                    None => fate.fell_short(wait.state(), self.gave_up()),
                }
            }
            self.tell(self.tally.count() + 1, &fate)?;
        }
        Ok(())
    }

    fn tell(&mut self, number: usize, fate: &Fate) -> anyhow::Result<()> {
        self.output.programs(&fate.line(number))?;
        self.bar.inc(1);
        self.tally.add(number, fate);
        Ok(())
    }

    fn gave_up(&mut self) -> String {
        self.patience = Duration::ZERO;
        format!("no answer within {:?}", self.timeout)
    }
}

async fn send_all(
    client: &Client,
    peer: AccountId,
    messages: &[&str],
    sent: mpsc::Sender<Sending>,
) -> Result<(), Error> {
    for message in messages {
        let sending = client.send(peer, *message).await?;
        if sent.send(sending).await.is_err() {
            break;
        }
    }
    Ok(())
}

/// Waits for an answer for so long; without any patience, takes it if it is here already.
async fn within<T>(patience: Duration, answer: impl Future<Output = T>) -> Option<T> {
    if patience.is_zero() {
        // A timer of no length would still take a millisecond, for each of many messages.
        return tokio::select! {
            biased;
            answer = answer => Some(answer),
            () = std::future::ready(()) => None,
        };
    }
    tokio::time::timeout(patience, answer).await.ok()
}

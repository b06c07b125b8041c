//! `quail send`: sends messages, from an argument, a file or stdin.
//!
//! All input is read and checked before the first message leaves, so a mistake in the last line does not leave half of
//! the text sent. Then everything is queued on this machine's disk and sent at once; the answers are waited for in order. A call
//! that was killed or gave up leaves its job behind (`job.rs`), and the same call again goes on with it.
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
use quail_client::{AccountId, Client, Content, Error, MessageId, Sending};
use tokio::sync::mpsc;

use super::change::Named;
use super::failure::{Failure, Outcome};
use super::session::handle;
use super::{Context, bar, duration};
use fate::{Fate, State, Tally};
use job::Job;

mod fate;
pub(super) mod job;

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

    /// The message that the text answers, by its whole id; own:ID if it is one that you sent
    #[arg(long, value_name = "ID", requires = "text")]
    reply_to: Option<Named>,

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
  quail send grace --reply-to 019a8c1e-77aa-7000-8000-0123456789ab 'at nine'
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
        let (client, state) = context.connect_to_send().await?;
        // Takes the queue for this process.
        client.queued().await?;
        let peer = client.look_up(&self.handle).await?.account;
        if self.wait != Wait::Accepted {
            client.watch_receipts().await?;
        }
        let began = Instant::now();
        let reply_to = self.reply_to.map(|named| named.between(client.account(), peer));
        let job = Job::begin(&state, peer, reply_to, &messages)?;
        if job.is_resumed {
            context.output.note("going on with what an earlier call left");
        }
        let mut batch = Batch {
            client,
            output: context.output,
            bar: bar::new(context.output, messages.len(), "answered"),
            timeout: self.timeout,
            patience: self.timeout,
            tally: Tally::new(self.wait.state(), messages.len()),
        };
        batch.send(peer, &job, &messages, self.wait).await?;
        batch.bar.finish_and_clear();
        if batch.tally.is_answered() {
            job.finish()?;
        }
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
                let hint = "what has no answer stays queued: the same command again goes on with it and sends nothing twice";
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
    async fn send(
        &mut self,
        peer: AccountId,
        job: &Job,
        messages: &[&str],
        wait: Wait,
    ) -> anyhow::Result<()> {
        // As many as the client itself queues: here they only wait for their turn to be looked at.
        let (sent, mut answers) = mpsc::channel(QUEUED_MESSAGES_MAX);
        let client = self.client.clone();
        let mut failed = None;
        let sending = async {
            failed = send_all(&client, peer, job, messages, sent).await.err();
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
        answers: &mut mpsc::Receiver<Sent>,
        wait: Wait,
    ) -> anyhow::Result<Vec<(Option<Sending>, Fate)>> {
        let mut fates = Vec::new();
        while !self.patience.is_zero() || !answers.is_empty() {
            let Some((id, known)) = answers.recv().await else { break };
            let fate = match &known {
                Known::AcceptedBefore => Fate::accepted_before(id),
                Known::Cancelled => Fate::cancelled(id),
                Known::Sending(sending) => match within(self.patience, sending.accepted()).await {
                    Some(Ok(accepted)) => Fate::accepted(id, accepted),
                    Some(Err(error)) => {
                        let fate = Fate::failed(id, &error);
                        // It is told here, so nobody need be told again.
                        self.client.take_note(id).await?;
                        fate
                    }
                    None => Fate::unknown(id, self.gave_up()),
                },
            };
            match wait {
                Wait::Accepted => self.tell(self.tally.count() + 1, &fate)?,
                Wait::Delivered | Wait::Read => fates.push((known.sending(), fate)),
            }
        }
        Ok(fates)
    }

    async fn watch_receipts(
        &mut self,
        fates: Vec<(Option<Sending>, Fate)>,
        wait: Wait,
    ) -> anyhow::Result<()> {
        for (sending, mut fate) in fates {
            match sending.filter(|_| fate.is_accepted()) {
                Some(sending) => {
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
                None if fate.is_accepted() => {
                    let unknown = "accepted by an earlier call; whether it arrived is not known";
                    fate.fell_short(wait.state(), unknown.to_owned());
                }
                None => {}
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

/// What is known of a message.
enum Known {
    /// It has a handle.
    Sending(Sending),
    /// An earlier call was told that it is accepted, longer ago than the SDK remembers.
    AcceptedBefore,
    /// Somebody cancelled it.
    Cancelled,
}

impl Known {
    fn sending(self) -> Option<Sending> {
        match self {
            Self::Sending(sending) => Some(sending),
            Self::AcceptedBefore | Self::Cancelled => None,
        }
    }
}

type Sent = (MessageId, Known);

/// How many messages share a commit.
const TOGETHER: usize = 256;

async fn send_all(
    client: &Client,
    peer: AccountId,
    job: &Job,
    messages: &[&str],
    sent: mpsc::Sender<Sent>,
) -> Result<(), Error> {
    let is_cancelled = |id: &MessageId| job.cancelled.contains(id);
    // Messages were queued in order: what lies before the last one that is known was queued too, and is answered.
    let mut known = Vec::new();
    for id in &job.ids {
        known.push(if job.is_resumed { client.sending(*id).await? } else { None });
    }
    let last = job.ids.iter().zip(&known).rposition(|(id, sending)| sending.is_some() || is_cancelled(id));
    let queued = last.map_or(0, |last| last + 1);
    known.truncate(queued);
    for (id, sending) in job.ids.iter().zip(known) {
        let known = match sending {
            Some(sending) => Known::Sending(sending),
            None if is_cancelled(id) => Known::Cancelled,
            None => Known::AcceptedBefore,
        };
        if sent.send((*id, known)).await.is_err() {
            return Ok(());
        }
    }
    let rest: Vec<_> = job.ids.iter().copied().zip(messages.iter().copied()).skip(queued).collect();
    if let Some(message) = job.reply_to {
        for (id, text) in rest {
            let content = Content::Message { body: text.into(), reply_to: Some(message) };
            let sending = client.say_with_id(id, peer, content).await?;
            if sent.send((id, Known::Sending(sending))).await.is_err() {
                return Ok(());
            }
        }
        return Ok(());
    }
    for some in rest.chunks(TOGETHER) {
        for sending in client.send_all_with_ids(peer, some.iter().copied()).await? {
            if sent.send((sending.id(), Known::Sending(sending))).await.is_err() {
                return Ok(());
            }
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

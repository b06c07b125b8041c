//! `quail tail`: prints messages as they come.
//!
//! ```text
//! events ──batch──> render ──> write and flush (a thread that may block) ──> acknowledge
//! ```
//!
//! All events that are here already are printed together: a flush per message would cost more than the message.
//!
//! Invariants: a message is acknowledged only after its last byte was written and flushed; a pipe that nobody reads any
//! more ends the command without error, and what was not written stays at the server; Ctrl-C is obeyed also while a
//! write blocks.

use std::convert::Infallible;
use std::io::{self, ErrorKind, IsTerminal, Write};

use clap::{Args, value_parser};
use quail::output::escape::escape;
use quail::output::{Output, OutputError};
use quail_client::{Acknowledgement, Client, ConnectionState, Delivery, Event, Events, Mark};
use quail_protocol::limits::FEED_WINDOW_EVENTS;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;

use super::Context;
use super::failure::Outcome;
use super::stop::Stop;
use render::{Form, Renderer};

mod render;

/// Print messages as they come
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(super) struct Tail {
    /// Stop after so many messages
    #[arg(long, short = 'n', value_name = "N", value_parser = value_parser!(u64).range(1..))]
    count: Option<u64>,

    /// Stop once everything that waited has been printed
    #[arg(long)]
    until_caught_up: bool,

    /// Tell the senders that what is printed was read, unless `quail privacy` says otherwise
    #[arg(long)]
    read: bool,
}

const EXAMPLES: &str = "\
Examples:
  quail tail
  quail tail --until-caught-up >> mail.txt
  quail tail --read
  quail tail --count 1 | wc -c
  quail tail --json | jq -r 'select(.handle == \"grace\" and .change == null) | .body'

On a terminal a line shows time, sender and text, with control characters made visible; in a pipe
it is the text alone, byte for byte. Edits, deletions and reactions have lines on a terminal and objects
with \"change\" in JSON, and are nothing in a pipe. What has been printed does not come again. To take a few
messages and leave the rest, use --count, not head: what lies in a pipe counts as printed.";

impl Tail {
    pub(super) async fn run(self, context: Context) -> anyhow::Result<Outcome> {
        let client = context.connect().await?;
        let mut stop = Stop::new()?;
        let mut events = client.events().await?;
        let form = match (context.output.is_json(), io::stdout().is_terminal()) {
            (true, _) => Form::Json,
            (false, true) => Form::Terminal,
            (false, false) => Form::Bytes,
        };
        let mut printing = Printing {
            output: context.output,
            renderer: Renderer::new(form, client.clone()),
            left: self.count,
            until_caught_up: self.until_caught_up,
            reading: self.read.then(|| client.clone()),
        };
        let mut connection = Connection::new(context.output, &client);
        let ended = tokio::select! {
            biased;
            () = stop.asked() => Ok(()),
            () = reader_gone() => Ok(()),
            never = connection.tell_changes() => match never {},
            printed = printing.print(&mut events) => printed,
        };
        // With the events still here, so that the acknowledgements leave.
        let closed = client.close().await;
        ended?;
        closed?;
        Ok(Outcome::Good)
    }
}

struct Printing {
    output: Output,
    renderer: Renderer,
    /// How many messages may still be printed.
    left: Option<u64>,
    until_caught_up: bool,
    /// Where what was printed is marked as read, if it is to be.
    reading: Option<Client>,
}

impl Printing {
    /// Prints until there is a reason to stop.
    ///
    /// Not to be taken up again once dropped: what was not acknowledged then comes again to the next client of the
    /// device, not to this one.
    async fn print(&mut self, events: &mut Events) -> anyhow::Result<()> {
        loop {
            let mut next = Some(events.next().await?);
            let (mut bytes, mut written, mut enough) = (Vec::new(), Vec::new(), false);
            let mut marks = Vec::new();
            while let Some(delivery) = next {
                marks.extend(self.mark(&delivery.event));
                enough = self.take(delivery, &mut bytes, &mut written).await?;
                next = match enough || written.len() >= FEED_WINDOW_EVENTS {
                    true => None,
                    false => events.try_next(),
                };
            }
            if !write(bytes).await? {
                return Ok(());
            }
            written.into_iter().for_each(Acknowledgement::acknowledge);
            if let Some(client) = &self.reading {
                client.read(marks).await?;
            }
            if enough {
                return Ok(());
            }
        }
    }

    /// Returns the mark of a message to this account, if what is printed is to be marked.
    fn mark(&self, event: &Event) -> Option<Mark> {
        match (event, &self.reading) {
            (Event::Message(message), Some(client)) if message.recipient == client.account() => {
                Some(message.mark())
            }
            _ => None,
        }
    }

    /// Takes one event into the batch; returns whether it is the last one.
    async fn take(
        &mut self,
        delivery: Delivery,
        bytes: &mut Vec<u8>,
        written: &mut Vec<Acknowledgement>,
    ) -> anyhow::Result<bool> {
        let (event, acknowledgement) = delivery.into_parts();
        let is_caught_up = matches!(event, Event::CaughtUp);
        match event {
            Event::Message(message) => {
                self.renderer.render(&message, bytes).await?;
                self.left = self.left.map(|left| left.saturating_sub(1));
            }
            Event::Changed(changed) => {
                self.renderer.render_change(&changed, bytes).await?;
            }
            Event::Gap { origin, from, upto } => self.output.note(format!(
                "gap: the server no longer holds positions {from} to {upto} of origin {origin}; messages may be missing"
            )),
            Event::SetAside { origin, position, message } => {
                let what = match message {
                    Some((sender, id)) => format!("message {id} from account {sender}"),
                    None => format!("the event at position {position} of origin {origin}"),
                };
                self.output.note(format!(
                    "{what} is set aside: three programs of this device ended while they had it; other devices still get it"
                ));
            }
            Event::Typing(typing) => {
                let who = self.renderer.name(typing.from).await;
                let does = if typing.active { "is typing" } else { "is not typing any more" };
                self.output.note(format!("{} {does}", escape(&who)));
            }
            _ => {}
        }
        written.push(acknowledgement);
        Ok(self.left == Some(0) || (is_caught_up && self.until_caught_up))
    }
}

/// Writes and flushes; returns whether anybody reads it.
async fn write(bytes: Vec<u8>) -> anyhow::Result<bool> {
    // A full pipe blocks its writer for as long as its reader likes.
    let writing = tokio::task::spawn_blocking(move || {
        let mut stdout = io::stdout().lock();
        stdout.write_all(&bytes).and_then(|()| stdout.flush())
    });
    match writing.await? {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(OutputError::from(error).into()),
    }
}

/// Waits until nobody can read stdout any more, so that `quail tail | head` ends with `head` and not a message later.
async fn reader_gone() {
    // Nothing is asked for, so only errors are reported, and a file never has one. The thread ends with the process.
    let watching = tokio::task::spawn_blocking(|| {
        let stdout = io::stdout();
        let mut watched = [PollFd::new(&stdout, PollFlags::empty())];
        while matches!(poll(&mut watched, None), Err(Errno::INTR)) {}
        watched[0].revents().intersects(PollFlags::ERR | PollFlags::HUP)
    });
    if !watching.await.unwrap_or(false) {
        std::future::pending::<()>().await;
    }
}

/// Tells when the connection is lost and found, once each.
struct Connection {
    output: Output,
    state: tokio::sync::watch::Receiver<ConnectionState>,
    is_away: bool,
}

impl Connection {
    fn new(output: Output, client: &Client) -> Self {
        Self { output, state: client.state(), is_away: false }
    }

    async fn tell_changes(&mut self) -> Infallible {
        while self.state.changed().await.is_ok() {
            match &*self.state.borrow_and_update() {
                ConnectionState::Waiting { reason, .. } if !self.is_away => {
                    self.is_away = true;
                    self.output.note(format!("{reason}; trying to connect again"));
                }
                ConnectionState::Online if self.is_away => {
                    self.is_away = false;
                    self.output.note("connected again");
                }
                _ => {}
            }
        }
        // The client has ended, and the events say why.
        std::future::pending().await
    }
}

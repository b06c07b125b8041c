//! The two who talk: a sender who never stops watching, a recipient who comes late and comes twice.
//!
//! Their clients are what any program would have: they are opened once and reconnect by themselves.
//!
//! Invariants: at most a window of sends is without an answer; what the recipient is shown is written down before it is
//! acknowledged; dropping either ends its tasks.

use std::sync::Arc;
use std::time::{Duration, Instant};

use quail_client::{
    AccountId, Address, Client, Credentials, Error, Event, Events, Guest, MemoryStore, Options, Sending,
    Stats, new_message_id,
};
use quail_protocol::limits::SENDS_UNANSWERED_MAX;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::LINES_MAX;
use super::board::{self, Board};

/// How long the recipient, started again, may take to catch up with an empty mailbox.
const CATCH_UP_TIMEOUT: Duration = Duration::from_secs(20);

/// Options of clients whose server is on this machine and is killed now and then: they look often and wait little.
fn options() -> Options {
    Options {
        client_name: concat!("quail demo ", env!("CARGO_PKG_VERSION")).to_owned(),
        connect_timeout: Duration::from_secs(1),
        backoff_min: Duration::from_millis(10),
        backoff_max: Duration::from_millis(250),
        // A client that has nothing to send notices with its next keep-alive that its server was started anew.
        keep_alive: Duration::from_millis(250),
        wait_for_server: true,
        ..Options::default()
    }
}

/// Makes an account.
pub(super) async fn sign_up(address: &Address, handle: &str) -> Result<Credentials, Error> {
    let guest = Guest::connect(address, options()).await?;
    // Nobody logs in a second time, so nobody needs to know it.
    let password = quail_client::new_message_id().to_string();
    let credentials = guest.sign_up(handle, &password, None).await?;
    guest.close().await;
    Ok(credentials)
}

/// Sends and watches what becomes of it.
#[derive(Debug)]
pub(super) struct Sender {
    client: Client,
    peer: AccountId,
    sent: usize,
    board: Arc<Board>,
    unanswered: mpsc::Sender<(Sending, Instant)>,
    _tasks: JoinSet<()>,
}

impl Sender {
    pub(super) async fn open(
        address: &Address,
        credentials: &Credentials,
        peer: AccountId,
        board: &Arc<Board>,
    ) -> Result<Self, Error> {
        let client = Client::open(address, credentials, MemoryStore::new(), options()).await?;
        client.watch_receipts().await?;
        let (unanswered, answers) = mpsc::channel(SENDS_UNANSWERED_MAX);
        // While the recipient is offline, everything accepted waits here.
        let (accepted, receipts) = mpsc::channel(LINES_MAX);
        let mut tasks = JoinSet::new();
        tasks.spawn(watch_answers(answers, accepted, board.clone()));
        tasks.spawn(watch_receipts(receipts, board.clone()));
        Ok(Self { client, peer, sent: 0, board: board.clone(), unanswered, _tasks: tasks })
    }

    /// Sends one line; waits while a window of sends is without an answer.
    pub(super) async fn send(&mut self, line: &str) -> Result<(), Error> {
        let room = self.unanswered.reserve().await.map_err(|_| Error::Closed)?;
        let (began, id) = (Instant::now(), new_message_id());
        self.board.sends(id, line);
        let sending = self.client.send_with_id(id, self.peer, line).await?;
        self.sent += 1;
        room.send((sending, began));
        Ok(())
    }

    /// Returns how many lines were sent.
    pub(super) fn sent(&self) -> usize {
        self.sent
    }

    pub(super) fn stats(&self) -> Stats {
        self.client.stats()
    }

    /// Waits until the client has found its server again.
    pub(super) async fn reconnected(&self, reconnects_before: u64) -> Result<(), Error> {
        let mut state = self.client.state();
        while self.stats().reconnects <= reconnects_before {
            state.changed().await.map_err(|_| Error::Closed)?;
        }
        Ok(())
    }

    /// Ends the client in good order.
    pub(super) async fn close(&self) -> Result<(), Error> {
        self.client.close().await
    }
}

async fn watch_answers(
    mut unanswered: mpsc::Receiver<(Sending, Instant)>,
    accepted: mpsc::Sender<Sending>,
    board: Arc<Board>,
) {
    while let Some((sending, began)) = unanswered.recv().await {
        match sending.accepted().await {
            Ok(answer) => {
                let place = board::place(answer.origin, answer.position, answer.stamp);
                board.accepted(sending.id(), place, began.elapsed());
                // Fails only when the demo ends.
                let _ = accepted.send(sending).await;
            }
            Err(error) => board.refused(sending.id(), &error),
        }
    }
}

async fn watch_receipts(mut accepted: mpsc::Receiver<Sending>, board: Arc<Board>) {
    while let Some(sending) = accepted.recv().await {
        board.settled(sending.id(), &sending.delivered().await);
    }
}

/// Shows what arrives.
#[derive(Debug)]
pub(super) struct Recipient {
    client: Client,
    /// The device's memory, for the client that comes after this one.
    store: Arc<MemoryStore>,
    reading: JoinSet<()>,
}

impl Recipient {
    pub(super) async fn open(
        address: &Address,
        credentials: &Credentials,
        board: &Arc<Board>,
    ) -> Result<Self, Error> {
        let store = Arc::new(MemoryStore::new());
        let client = Client::open(address, credentials, store.clone(), options()).await?;
        let events = client.events().await?;
        let mut reading = JoinSet::new();
        reading.spawn(read(events, board.clone()));
        Ok(Self { client, store, reading })
    }

    /// Ends the client in good order and returns its counters and the device's memory.
    pub(super) async fn close(mut self) -> Result<(Stats, Arc<MemoryStore>), Error> {
        self.client.close().await?;
        while self.reading.join_next().await.is_some() {}
        Ok((self.client.stats(), self.store))
    }
}

/// Starts the recipient's device again, as after a restart of its program, and reads what is still there for it.
pub(super) async fn read_again(
    address: &Address,
    credentials: &Credentials,
    store: Arc<MemoryStore>,
    board: &Board,
) -> Result<(), Error> {
    let client = Client::open(address, credentials, store, options()).await?;
    board.opened();
    let mut events = client.events().await?;
    let caught_up = async {
        loop {
            let delivery = events.next().await?;
            if show(board, &delivery.event) {
                return Ok::<_, Error>(());
            }
            delivery.acknowledge();
        }
    };
    let timed_out = |_| Error::TimedOut { what: "catch up", waited: CATCH_UP_TIMEOUT };
    tokio::time::timeout(CATCH_UP_TIMEOUT, caught_up).await.map_err(timed_out)??;
    client.close().await
}

async fn read(mut events: Events, board: Arc<Board>) {
    loop {
        match events.next().await {
            Ok(delivery) => {
                show(&board, &delivery.event);
                delivery.acknowledge();
            }
            Err(Error::Closed) => return,
            Err(error) => return board.problem(format!("the recipient's events ended: {error}")),
        }
    }
}

/// Writes down what is shown; returns whether everything that waited has been.
fn show(board: &Board, event: &Event) -> bool {
    board.shown(event);
    matches!(event, Event::CaughtUp)
}

//! The client: the handle of a logged-in device, from opening to closing.
//!
//! What a client can do stands in `api/`, one file per part of the protocol; here is its life. A driver task of its own
//! keeps it connected until it is closed or dropped.
//!
//! Invariants: the driver ends before [`Client::close`] returns, and soon after the last handle is dropped; it holds no
//! handle itself, so it cannot keep the client alive.

use std::sync::Arc;

use quail_protocol::address::Address;
use quail_protocol::id::{AccountId, DeviceId};
use tokio::sync::{oneshot, watch};
use tokio_util::task::TaskTracker;

use crate::driver::{self, Opening};
use crate::link::Link;
use crate::shared::Shared;
use crate::state::{ConnectionState, Counters, Stats};
use crate::store::{Store, StoreError};
use crate::transport::Transport;
use crate::{Credentials, Error, Options};

/// A logged-in device: sends and receives messages, reconnects by itself, resumes where it was.
///
/// Clones are handles of the same client. When the last one is dropped the connection is closed at once;
/// [`Client::close`] waits for the answers to messages on their way. Messages without an answer stay in the store, and the
/// next client of the device sends them.
///
/// ```no_run
/// # use quail_client::{Address, Client, Credentials, Error, FileStore, Options};
/// # async fn example(address: &Address, credentials: &Credentials) -> Result<(), Error> {
/// let store = FileStore::open("/var/lib/weather-bot")?;
/// let client = Client::open(address, credentials, store, Options::default()).await?;
/// let peer = client.look_up("ada").await?;
/// client.send(peer.account, "it will rain").await?;
/// client.close().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Client {
    handle: Arc<Handle>,
}

#[derive(Debug)]
struct Handle {
    shared: Arc<Shared>,
    tasks: TaskTracker,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shared.end(Error::Closed);
    }
}

impl Client {
    /// Connects a device and returns once the server has answered the hello. From then on the client reconnects by
    /// itself.
    ///
    /// `store` is where the device keeps its queue, and remembers what it has shown, from run to run: a [`FileStore`](crate::FileStore), or a
    /// [`MemoryStore`](crate::MemoryStore) for devices that live as long as the process. It must belong to this device
    /// alone. What is queued in it is sent from now on, unless [`Options::resume_queue`] says otherwise or another process
    /// sends for the device.
    ///
    /// # Errors
    /// As [`Guest::connect`](crate::Guest::connect), and finally [`Error::Refused`] with `UNAUTHENTICATED` if the session
    /// has ended, [`Error::OtherAccount`], and [`Error::Store`] if the store cannot be read. Temporary errors are returned too, unless
    /// [`Options::wait_for_server`] says to keep trying.
    pub async fn open(
        address: &Address,
        credentials: &Credentials,
        store: impl Store,
        options: Options,
    ) -> Result<Self, Error> {
        let transport = Transport::new(address, &options).await?;
        let shared = Arc::new(Shared::new(credentials.clone(), Arc::new(store), options));
        if shared.options.resume_queue {
            match shared.publish.load().await {
                // The other one sends; this one may still receive.
                Err(Error::Store(StoreError::InUse { .. })) => tracing::debug!("another process sends"),
                loaded => loaded?,
            }
            shared.recall_seen();
        }
        let handle = Handle { shared, tasks: TaskTracker::new() };
        let (opened, first_hello) = oneshot::channel();
        let opening = Opening::new(opened, handle.shared.options.wait_for_server);
        handle.tasks.spawn(driver::run(handle.shared.clone(), transport, opening));
        handle.tasks.close();
        match first_hello.await {
            Ok(()) => Ok(Self { handle: Arc::new(handle) }),
            // The driver ended without a hello.
            Err(_) => Err(handle.shared.wait_for_end().await),
        }
    }

    /// Returns the account of the device.
    pub fn account(&self) -> AccountId {
        self.shared().credentials.account
    }

    /// Returns the device.
    pub fn device(&self) -> DeviceId {
        self.shared().credentials.device
    }

    /// Returns the public name of the account.
    pub fn handle(&self) -> &str {
        &self.shared().credentials.handle
    }

    /// Returns where the client stands, and lets wait for changes.
    pub fn state(&self) -> watch::Receiver<ConnectionState> {
        self.shared().state()
    }

    /// Returns the counters of the client.
    pub fn stats(&self) -> Stats {
        self.shared().counters.snapshot()
    }

    /// Tells the client that the network of this machine has changed: another interface, another address, back from the
    /// dark. It does at once whatever gets it going again:
    ///
    /// 1. A connection that is up is moved to a new UDP socket and goes on under its new address; nothing is sent again.
    /// 2. The server is asked for a sign of life. If none comes within a few round trips
    ///    ([`PROBE_PATIENCE_MAX`](crate::state::PROBE_PATIENCE_MAX) at most), the session is resumed on another connection beside
    ///    it, from token and cursors, and what was unanswered is sent again; whichever answers first goes on.
    /// 3. A client that waits before its next try does not wait any longer.
    ///
    /// Only when the server knows the session no more does the client end, with an error that
    /// [needs a log-in](Error::needs_log_in). Every step is seen in [`Client::state`].
    ///
    /// # Errors
    /// [`Error::Bind`] if no socket can be bound, or the socket is [shared](crate::transport::SharedSocket): then the first
    /// step is left out, and the others are done nevertheless.
    pub fn network_changed(&self) -> Result<(), Error> {
        let moved = self.moved(|link| link.rebind());
        self.shared().network.send_modify(|count| *count += 1);
        moved
    }

    /// As [`network_changed`](Self::network_changed), onto a socket that the application has made: on systems where a program
    /// chooses the network by its socket. Later connections have sockets of their own again.
    ///
    /// # Errors
    /// As [`network_changed`](Self::network_changed).
    pub fn network_changed_to(&self, socket: std::net::UdpSocket) -> Result<(), Error> {
        let moved = self.moved(|link| link.rebind_to(socket));
        self.shared().network.send_modify(|count| *count += 1);
        moved
    }

    fn moved(&self, rebind: impl FnOnce(&Link) -> Result<(), Error>) -> Result<(), Error> {
        let live = self.shared().live.borrow().clone();
        let Some(live) = live else { return Ok(()) };
        rebind(&live.link)?;
        Counters::add(&self.shared().counters.moves, 1);
        Ok(())
    }

    /// Ends the client in good order: takes no more messages, waits up to [`Options::close_timeout`] until those on
    /// their way are answered, delivers the acknowledgements, saves the cursors, and closes the connection.
    ///
    /// Handles of messages and [`Events`](crate::Events) then end with [`Error::Closed`]. Closing again does nothing.
    ///
    /// # Errors
    /// [`Error::Unanswered`] if messages were left without an answer; the client is closed nevertheless, and they stay in
    /// the store.
    pub async fn close(&self) -> Result<(), Error> {
        let shared = self.shared();
        shared.publish.close(Error::Closed);
        // Whether it was in time is seen by what is left.
        let _ = tokio::time::timeout(shared.options.close_timeout, self.flush()).await;
        let count = shared.publish.unanswered();
        shared.finish.cancel();
        self.driver_ended().await;
        if count == 0 { Ok(()) } else { Err(Error::Unanswered { count }) }
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.handle.shared
    }

    pub(crate) async fn driver_ended(&self) {
        self.handle.tasks.wait().await;
    }
}

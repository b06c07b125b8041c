//! What a client's handles, its driver and its lanes share.
//!
//! Handles hold it, the driver holds it, nobody owns the other: a client ends when its last handle goes (the driver is
//! told), and handles of messages and events outlive the client without keeping its connection.
//!
//! Invariant: the end is reached once, by [`Shared::end`], and everything that waits is told the same reason.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use quail_protocol::id::Stamp;
use quail_protocol::limits::REQUESTS_MAX;
use quail_protocol::v1::Reason;
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;

use crate::api::accounts::Profiles;
use crate::api::history::Recent;
use crate::feed::Feed;
use crate::hello::Welcome;
use crate::link::Link;
use crate::publish::Publish;
use crate::reads::Reads;
use crate::signals::Signals;
use crate::state::{ConnectionState, Counters};
use crate::store::{Owner, Store, StoreError};
use crate::{Credentials, Error, Options};

/// A connection on which the hello was answered.
#[derive(Debug)]
pub(crate) struct Live {
    pub(crate) link: Arc<Link>,
    pub(crate) welcome: Welcome,
}

/// What everything of one client shares.
pub(crate) struct Shared {
    pub(crate) options: Options,
    pub(crate) credentials: Credentials,
    pub(crate) publish: Publish,
    pub(crate) feed: Feed,
    pub(crate) reads: Reads,
    pub(crate) signals: Signals,
    pub(crate) profiles: Profiles,
    pub(crate) recent: Recent,
    pub(crate) counters: Counters,
    /// As many as the server allows at once.
    pub(crate) requests: Semaphore,
    pub(crate) live: watch::Sender<Option<Arc<Live>>>,
    /// Asks the driver to finish the lanes and then the connection.
    pub(crate) finish: CancellationToken,
    /// Says that the end is reached.
    pub(crate) over: CancellationToken,
    /// Counts changes of networks that the application told of.
    pub(crate) network: watch::Sender<u64>,
    state: watch::Sender<ConnectionState>,
    /// The largest stamp shown or accepted.
    seen: AtomicU64,
    /// The application asked to end the session, so its end is no failure.
    logging_out: AtomicBool,
    ended: OnceLock<Error>,
}

impl Shared {
    pub(crate) fn new(credentials: Credentials, store: Arc<dyn Store>, options: Options) -> Self {
        let owner = Owner { account: credentials.account, device: credentials.device };
        Self {
            options,
            credentials,
            publish: Publish::new(store.clone(), owner),
            feed: Feed::new(store, owner),
            reads: Reads::new(),
            signals: Signals::new(),
            profiles: Profiles::new(),
            recent: Recent::default(),
            counters: Counters::default(),
            requests: Semaphore::new(REQUESTS_MAX),
            live: watch::Sender::new(None),
            finish: CancellationToken::new(),
            over: CancellationToken::new(),
            network: watch::Sender::new(0),
            state: watch::Sender::new(ConnectionState::Connecting { attempt: 1 }),
            seen: AtomicU64::new(0),
            logging_out: AtomicBool::new(false),
            ended: OnceLock::new(),
        }
    }

    /// Returns the largest stamp shown or accepted, to be sent along: the order of stamps respects what people saw.
    pub(crate) fn seen(&self) -> u64 {
        self.seen.load(Ordering::Relaxed)
    }

    /// Takes over what other runs of the device have seen, as far as it was read.
    pub(crate) fn recall_seen(&self) {
        self.saw(self.publish.seen().max(self.feed.seen()));
    }

    /// Some stamp was too far ahead of the server's clock: while it is sent along, the server refuses everything.
    pub(crate) fn forget_seen(&self) {
        self.seen.store(0, Ordering::Relaxed);
        self.feed.forget_seen();
    }

    /// A stamp was shown or accepted.
    pub(crate) fn saw(&self, stamp: Stamp) {
        self.seen.fetch_max(stamp.0, Ordering::Relaxed);
    }

    pub(crate) fn state(&self) -> watch::Receiver<ConnectionState> {
        self.state.subscribe()
    }

    /// Reports a new state, unless a final one was reported before.
    pub(crate) fn set_state(&self, new: ConnectionState) {
        self.state.send_if_modified(|state| {
            let may_change = match state {
                ConnectionState::Closed { .. } => false,
                ConnectionState::Replaced => matches!(new, ConnectionState::Closed { .. }),
                _ => *state != new,
            };
            if may_change {
                tracing::debug!(state = ?new, "client state");
                *state = new;
            }
            may_change
        });
    }

    /// A newer attach of the device took over: no more events, no more receipts.
    pub(crate) fn replaced(&self) {
        self.feed.end(&Error::Replaced);
        self.set_state(ConnectionState::Replaced);
    }

    /// From now on the end of the session is the application's wish.
    pub(crate) fn set_logging_out(&self, logging_out: bool) {
        self.logging_out.store(logging_out, Ordering::Relaxed);
    }

    /// Returns why the client ended, if it has.
    pub(crate) fn ended(&self) -> Option<Error> {
        self.ended.get().cloned()
    }

    /// Ends the client, once: the first reason stands.
    pub(crate) fn end(&self, reason: Error) {
        let is_wanted =
            reason.reason() == Some(Reason::Unauthenticated) && self.logging_out.load(Ordering::Relaxed);
        let reason = self.ended.get_or_init(|| if is_wanted { Error::LoggedOut } else { reason }).clone();
        self.publish.end(&reason);
        self.feed.end(&reason);
        self.live.send_replace(None);
        self.set_state(ConnectionState::Closed { reason });
        self.over.cancel();
    }

    /// Waits for the end and returns the reason.
    pub(crate) async fn wait_for_end(&self) -> Error {
        self.over.cancelled().await;
        self.ended().unwrap_or(Error::Closed)
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("device", &self.credentials.device).finish_non_exhaustive()
    }
}

/// Calls the store on a thread that may block.
pub(crate) async fn blocking<T: Send + 'static>(
    store: &Arc<dyn Store>,
    call: impl FnOnce(&dyn Store) -> Result<T, StoreError> + Send + 'static,
) -> Result<T, Error> {
    let store = store.clone();
    match tokio::task::spawn_blocking(move || call(&*store)).await {
        Ok(result) => Ok(result?),
        Err(error) => Err(StoreError::Other { detail: format!("the store did not return: {error}") }.into()),
    }
}

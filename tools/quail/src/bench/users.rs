//! The clients of a measurement: how they are opened, many at a time, over few sockets.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use quail_client::transport::SharedSocket;
use quail_client::{Address, Client, Credentials, Event, Events, MemoryStore, Options};
use tokio::task::JoinSet;

use super::{BenchError, Phase, Step, Watch, files};

/// How many clients share a socket. Their buffers would add up to gigabytes, and a system call for each packet of each
/// client would take the processor from the server.
const CLIENTS_PER_SOCKET: usize = 256;

/// How many clients connect at once.
const CONNECTING_MAX: usize = 64;

/// Longest time for one try to connect. Many connect at once, on a machine that may be busy.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);

/// A connected user with an attached feed that has caught up.
#[derive(Debug)]
pub(super) struct User {
    pub(super) client: Client,
    pub(super) events: Events,
}

/// Options of the clients.
pub(super) fn options(socket: Option<SharedSocket>) -> Options {
    Options {
        client_name: concat!("quail bench ", env!("CARGO_PKG_VERSION")).to_owned(),
        connect_timeout: CONNECT_TIMEOUT,
        request_timeout: CONNECT_TIMEOUT,
        socket,
        ..Options::default()
    }
}

/// The sockets of many clients.
#[derive(Debug)]
pub(super) struct Sockets(Vec<SharedSocket>);

impl Sockets {
    /// Binds as many as so many clients of a server need.
    pub(super) fn bind(address: &Address, clients: usize) -> Result<Self, BenchError> {
        let count = clients.div_ceil(CLIENTS_PER_SOCKET).max(1);
        files::allow(count)?;
        let is_ipv4 = address.host.parse::<Ipv4Addr>().is_ok();
        let wildcard: SocketAddr =
            if is_ipv4 { (Ipv4Addr::UNSPECIFIED, 0).into() } else { (Ipv6Addr::UNSPECIFIED, 0).into() };
        let sockets = (0..count).map(|_| SharedSocket::bind(wildcard)).collect::<Result<_, _>>();
        Ok(Self(sockets.map_err(BenchError::client("bind a socket"))?))
    }

    /// Returns the socket of a client.
    pub(super) fn of(&self, client: usize) -> Option<SharedSocket> {
        self.0.get(client / CLIENTS_PER_SOCKET).cloned()
    }
}

/// Connects a device and attaches its feed; returns when it has caught up.
pub(super) async fn open(
    address: &Address,
    credentials: &Credentials,
    socket: Option<SharedSocket>,
) -> Result<User, BenchError> {
    let opening = async {
        let client = Client::open(address, credentials, MemoryStore::new(), options(socket)).await?;
        let mut events = client.events().await?;
        loop {
            let delivery = events.next().await?;
            let is_last = matches!(delivery.event, Event::CaughtUp);
            delivery.acknowledge();
            if is_last {
                return Ok(User { client, events });
            }
        }
    };
    opening.await.map_err(BenchError::client("connect"))
}

/// Connects many devices, [`CONNECTING_MAX`] at a time, and returns them in the order of their credentials.
pub(super) async fn open_all(
    address: &Address,
    credentials: &[Credentials],
    sockets: &Sockets,
    watch: &mut Watch<'_>,
) -> Result<Vec<User>, BenchError> {
    let of = credentials.len() as u64;
    let mut opened: Vec<Option<User>> = Vec::new();
    opened.resize_with(credentials.len(), || None);
    // Dropping the set ends those that are under way.
    let mut opening = JoinSet::new();
    let mut waiting = credentials.iter().enumerate();
    let mut done = 0;
    loop {
        while opening.len() < CONNECTING_MAX
            && let Some((number, credentials)) = waiting.next()
        {
            let (address, credentials, socket) = (address.clone(), credentials.clone(), sockets.of(number));
            opening.spawn(async move { (number, open(&address, &credentials, socket).await) });
        }
        let Some(joined) = opening.join_next().await else {
            return Ok(opened.into_iter().flatten().collect());
        };
        let (number, user) = joined.map_err(|error| BenchError::Part(error.to_string()))?;
        opened[number] = Some(user?);
        done += 1;
        watch(Step { phase: Phase::Connect, done, of });
    }
}

/// Closes many clients at once. Whether the server hears of it does not matter any more.
pub(super) async fn close_all(users: Vec<User>) {
    let mut closing = JoinSet::new();
    for user in users {
        closing.spawn(async move { user.client.close().await });
    }
    while closing.join_next().await.is_some() {}
}

/// Runs what may block on a thread that may.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, BenchError> {
    tokio::task::spawn_blocking(work).await.map_err(|error| BenchError::Part(error.to_string()))
}

/// Returns what a future comes to if it need not wait.
pub(super) fn ready<T>(future: impl Future<Output = T>) -> Option<T> {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => Some(value),
        Poll::Pending => None,
    }
}

//! The flows of a network: one per client address, each with its own way to the daemon.
//!
//! Invariants: at most [`FLOWS_MAX`]; who comes when there is no room takes that of the flow that was idle longest. A flow
//! that was rebound keeps its last sockets and reads none of them, so that what comes to an old port is lost silently, as a
//! NAT loses it; a closed port would answer.

use std::collections::{HashMap, VecDeque};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use tokio::net::UdpSocket;
use tokio::sync::Notify;
use tokio::task::AbortHandle;

use super::{Dice, Direction, Fate, Faults};

/// Most client addresses at once.
pub const FLOWS_MAX: usize = 64;

/// Most sockets that a flow keeps after it was rebound.
const RETIRED_MAX: usize = 8;

/// One client's way.
pub(super) struct Flow {
    pub(super) client: SocketAddr,
    server: SocketAddr,
    upstream: Mutex<Arc<UdpSocket>>,
    retired: Mutex<VecDeque<Arc<UdpSocket>>>,
    dice: [Mutex<Dice>; 2],
    /// When the last packet came, by the count of packets of all flows.
    touched: AtomicU64,
    /// Tells the reader that there is another socket to read.
    pub(super) moved: Notify,
}

impl Flow {
    async fn open(client: SocketAddr, server: SocketAddr, seed: u64, number: u64) -> std::io::Result<Self> {
        Ok(Self {
            client,
            server,
            upstream: Mutex::new(Arc::new(connected(server).await?)),
            retired: Mutex::default(),
            dice: Direction::BOTH.map(|direction| Mutex::new(Dice::new(seed, number, direction))),
            touched: AtomicU64::new(0),
            moved: Notify::new(),
        })
    }

    /// Returns the socket toward the daemon.
    pub(super) fn upstream(&self) -> Arc<UdpSocket> {
        self.upstream.lock().expect("unharmed").clone()
    }

    /// Goes on from another port.
    pub(super) async fn rebind(&self) -> std::io::Result<()> {
        let new = Arc::new(connected(self.server).await?);
        let old = std::mem::replace(&mut *self.upstream.lock().expect("unharmed"), new);
        let mut retired = self.retired.lock().expect("unharmed");
        retired.push_back(old);
        if retired.len() > RETIRED_MAX {
            retired.pop_front();
        }
        self.moved.notify_one();
        Ok(())
    }

    /// Decides over a packet of this flow.
    pub(super) fn throw(&self, direction: Direction, faults: &Faults, now: u64) -> Fate {
        self.touched.store(now, Ordering::Relaxed);
        self.dice[direction as usize].lock().expect("unharmed").throw(faults)
    }
}

async fn connected(server: SocketAddr) -> std::io::Result<UdpSocket> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    socket.connect(server).await?;
    Ok(socket)
}

/// All flows, with the tasks that read what the daemon says to them.
pub(super) struct Flows {
    seed: u64,
    server: SocketAddr,
    by_client: HashMap<SocketAddr, (Arc<Flow>, AbortHandle)>,
    /// Flows so far.
    number: u64,
}

impl Flows {
    pub(super) fn new(server: SocketAddr, seed: u64) -> Self {
        Self { seed, server, by_client: HashMap::new(), number: 0 }
    }

    pub(super) fn get(&self, client: SocketAddr) -> Option<Arc<Flow>> {
        self.by_client.get(&client).map(|(flow, _)| flow.clone())
    }

    /// Opens the flow of a new client; `read` starts the task that reads for it. Returns it, and whether another flow had to
    /// make room.
    pub(super) async fn open(
        &mut self,
        client: SocketAddr,
        read: impl FnOnce(Arc<Flow>) -> AbortHandle,
    ) -> std::io::Result<(Arc<Flow>, bool)> {
        let flow = Arc::new(Flow::open(client, self.server, self.seed, self.number).await?);
        self.number += 1;
        let full = self.by_client.len() >= FLOWS_MAX;
        if full {
            self.drop_idlest();
        }
        let reader = read(flow.clone());
        self.by_client.insert(client, (flow.clone(), reader));
        Ok((flow, full))
    }

    pub(super) async fn rebind(&self) -> std::io::Result<usize> {
        for (flow, _) in self.by_client.values() {
            flow.rebind().await?;
        }
        Ok(self.by_client.len())
    }

    fn drop_idlest(&mut self) {
        let touched =
            |(_, (flow, _)): &(&SocketAddr, &(Arc<Flow>, AbortHandle))| flow.touched.load(Ordering::Relaxed);
        let idlest = self.by_client.iter().min_by_key(touched).map(|(client, _)| *client);
        if let Some((_, reader)) = idlest.and_then(|client| self.by_client.remove(&client)) {
            reader.abort();
        }
    }
}

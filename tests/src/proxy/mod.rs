//! A bad network between clients and a daemon: a UDP proxy that loses, delays, reorders and doubles by a seed.
//!
//! It exists because the promises are made for networks, and the one of this machine loses nothing. A client dials the
//! proxy's port instead of the daemon's; the pin is the daemon's, so nothing else changes. Each client address is a flow with
//! a socket of its own toward the daemon, as behind a NAT, and [`Proxy::rebind`] is what a NAT does that has forgotten: the
//! flow goes on from another port, and what still comes to the old one is lost.
//!
//! ```text
//! client ──> front ──faults up──> (late) ──> upstream of the flow ──> daemon
//! client <── front <── (late) <──faults down── upstream of the flow <── daemon
//! ```
//!
//! A thread of its own with a runtime of its own does the work, so a test that keeps its runtime busy does not slow the
//! network. What happens to a packet follows from the seed, the number of its flow, its direction and its number in there
//! (`fate.rs`); which packets there are follows from the clocks of client and daemon, so a whole run is not repeated by its
//! seed, only its network.
//!
//! Invariants: flows, packets under way and sockets have named bounds; what was dropped is counted by cause; the thread ends
//! before [`Proxy`] is dropped.

mod counters;
mod fate;
mod faults;
mod flow;
mod late;
mod relay;
#[cfg(test)]
mod tests;

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::thread::JoinHandle;

use quail_client::Address;
use tokio::sync::{mpsc, oneshot};

pub use counters::Counts;
pub use fate::{Cause, Dice, Fate};
pub use faults::{Direction, Faults};
pub use flow::FLOWS_MAX;
pub use late::LATE_PACKETS_MAX;

use crate::World;
use relay::{Command, Link};

/// Most orders of a test that the thread has not carried out.
const COMMANDS_MAX: usize = 16;

/// A network that can be made bad. It is good until told otherwise, and gone when it is dropped.
pub struct Proxy {
    address: SocketAddr,
    link: Arc<Link>,
    /// Ends the thread when it goes.
    commands: Option<mpsc::Sender<Command>>,
    thread: Option<JoinHandle<()>>,
}

impl Proxy {
    /// Starts a network in front of a world's daemon. It outlives restarts of the daemon, which keep the port.
    pub fn before(world: &World, seed: u64) -> Self {
        Self::start((Ipv4Addr::LOCALHOST, world.address().port).into(), seed)
    }

    /// Starts a network in front of whatever listens at `server`.
    pub fn start(server: SocketAddr, seed: u64) -> Self {
        let front = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a socket");
        front.set_nonblocking(true).expect("a socket that does not block");
        let address = front.local_addr().expect("the socket is bound");
        let link = Arc::new(Link::default());
        let (commands, orders) = mpsc::channel(COMMANDS_MAX);
        let shared = link.clone();
        let run = move || relay::run(front, server, seed, shared, orders);
        let thread = std::thread::Builder::new().name("proxy".to_owned()).spawn(run).expect("a thread");
        Self { address, link, commands: Some(commands), thread: Some(thread) }
    }

    /// Returns where clients find the daemon behind this network.
    pub fn address(&self, world: &World) -> Address {
        Address { host: self.address.ip().to_string(), port: self.address.port(), ..world.address() }
    }

    /// Returns the socket address to dial.
    pub fn front(&self) -> SocketAddr {
        self.address
    }

    /// Sets the faults of one direction, from the next packet on. What is under way stays under way.
    pub fn set(&self, direction: Direction, faults: Faults) {
        self.link.change(direction, |now| *now = faults);
    }

    /// Sets the faults of both directions.
    pub fn set_both(&self, faults: Faults) {
        Direction::BOTH.into_iter().for_each(|direction| self.set(direction, faults));
    }

    /// Takes all faults away.
    pub fn heal(&self) {
        self.set_both(Faults::default());
    }

    /// Begins or ends to drop everything in one direction, also what is under way; the other faults stay.
    pub fn blackhole(&self, direction: Direction, dark: bool) {
        self.link.change(direction, |now| now.blackhole = dark);
    }

    /// Begins or ends to drop everything.
    pub fn blackhole_both(&self, dark: bool) {
        Direction::BOTH.into_iter().for_each(|direction| self.blackhole(direction, dark));
    }

    /// Gives every flow a new port toward the daemon, and returns how many flows that were. Done when this returns: the next
    /// packet leaves from the new port.
    pub async fn rebind(&self) -> usize {
        let (done, carried_out) = oneshot::channel();
        let commands = self.commands.as_ref().expect("there until the drop");
        commands.send(Command::Rebind(done)).await.expect("the proxy runs");
        carried_out.await.expect("the proxy runs")
    }

    /// Returns what became of the packets of one direction so far.
    pub fn counts(&self, direction: Direction) -> Counts {
        self.link.counts(direction)
    }

    /// Returns how many flows were dropped because others needed their room.
    pub fn flows_dropped(&self) -> u64 {
        self.link.flows_dropped()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.commands = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
            && !std::thread::panicking()
        {
            panic!("the proxy panicked");
        }
    }
}

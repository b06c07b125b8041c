//! The thread of a network: receives, asks the dice, sends now or later.
//!
//! One task reads what clients send and takes orders, one per flow reads what the daemon sends, one sends what was late. All
//! share one thread, so there is no contention, and a packet costs two system calls and little else.
//!
//! Invariants: no lock is held across an await; a task reads at most [`BATCH`] packets before others have their turn.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use tokio::net::UdpSocket;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::task::{JoinSet, yield_now};

use super::counters::{Counters, count};
use super::flow::{Flow, Flows};
use super::late::Late;
use super::{Cause, Counts, Direction, Fate, Faults};

/// Longest datagram there is.
const DATAGRAM_BYTES_MAX: usize = 65_535;

/// Packets of one socket that are read before the others have their turn.
const BATCH: usize = 32;

/// What a test wants done.
pub(super) enum Command {
    /// Give every flow a new port, and say how many these were.
    Rebind(oneshot::Sender<usize>),
}

/// What a test and the thread share.
#[derive(Default)]
pub(super) struct Link {
    faults: [Mutex<Faults>; 2],
    counters: [Counters; 2],
    flows_dropped: AtomicU64,
}

impl Link {
    pub(super) fn change(&self, direction: Direction, change: impl FnOnce(&mut Faults)) {
        change(&mut self.faults[direction as usize].lock().expect("unharmed"));
    }

    pub(super) fn counts(&self, direction: Direction) -> Counts {
        self.counters(direction).snapshot()
    }

    pub(super) fn flows_dropped(&self) -> u64 {
        self.flows_dropped.load(Ordering::Relaxed)
    }

    fn faults(&self, direction: Direction) -> Faults {
        *self.faults[direction as usize].lock().expect("unharmed")
    }

    fn counters(&self, direction: Direction) -> &Counters {
        &self.counters[direction as usize]
    }
}

/// Runs a network until nobody can give orders any more.
pub(super) fn run(
    front: std::net::UdpSocket,
    server: SocketAddr,
    seed: u64,
    link: Arc<Link>,
    orders: mpsc::Receiver<Command>,
) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let front = UdpSocket::from_std(front).expect("a socket of the runtime");
        let relay = Arc::new(Relay {
            front,
            link,
            late: Mutex::new(Late::new()),
            late_changed: Notify::new(),
            packets: AtomicU64::new(0),
        });
        relay.serve(Flows::new(server, seed), orders).await;
    });
}

/// A packet under way.
struct Packet {
    flow: Arc<Flow>,
    direction: Direction,
    bytes: Box<[u8]>,
}

struct Relay {
    front: UdpSocket,
    link: Arc<Link>,
    late: Mutex<Late<Packet>>,
    /// Something is due earlier than what was.
    late_changed: Notify,
    /// Packets of all flows so far.
    packets: AtomicU64,
}

impl Relay {
    /// Reads what clients send.
    async fn serve(self: Arc<Self>, mut flows: Flows, mut orders: mpsc::Receiver<Command>) {
        let mut tasks = JoinSet::new();
        let late = self.clone();
        tasks.spawn(async move { late.send_late().await });
        let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
        loop {
            tokio::select! {
                biased;
                order = orders.recv() => match order {
                    Some(Command::Rebind(done)) => {
                        let rebound = flows.rebind().await.expect("a socket for every flow");
                        // A test that was cancelled does not want to know.
                        let _ = done.send(rebound);
                    }
                    None => return,
                },
                readable = self.front.readable() => {
                    readable.expect("the socket is of this runtime");
                    self.read_front(&mut buffer, &mut flows, &mut tasks).await;
                    // Ends of flows that made room.
                    while tasks.try_join_next().is_some() {}
                    yield_now().await;
                }
            }
        }
    }

    async fn read_front(self: &Arc<Self>, buffer: &mut [u8], flows: &mut Flows, tasks: &mut JoinSet<()>) {
        for _ in 0..BATCH {
            // An error other than "nothing there" is the echo of a packet that nobody took.
            let Ok((len, client)) = self.front.try_recv_from(buffer) else { return };
            let flow = match flows.get(client) {
                Some(flow) => flow,
                None => {
                    let relay = self.clone();
                    let read = |flow| tasks.spawn(async move { relay.read_upstream(flow).await });
                    let (flow, made_room) = flows.open(client, read).await.expect("a socket for every flow");
                    self.link.flows_dropped.fetch_add(u64::from(made_room), Ordering::Relaxed);
                    flow
                }
            };
            self.pass(&flow, Direction::Up, &buffer[..len]).await;
        }
    }

    /// Reads what the daemon sends to one client.
    async fn read_upstream(&self, flow: Arc<Flow>) {
        let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
        let mut upstream = flow.upstream();
        loop {
            tokio::select! {
                biased;
                () = flow.moved.notified() => upstream = flow.upstream(),
                readable = upstream.readable() => {
                    readable.expect("the socket is of this runtime");
                    for _ in 0..BATCH {
                        // As above; a daemon that was killed answers like this.
                        let Ok(len) = upstream.try_recv(&mut buffer) else { break };
                        self.pass(&flow, Direction::Down, &buffer[..len]).await;
                    }
                    yield_now().await;
                }
            }
        }
    }

    /// Lets the dice decide over a packet.
    async fn pass(&self, flow: &Arc<Flow>, direction: Direction, bytes: &[u8]) {
        let counters = self.link.counters(direction);
        count(&counters.received);
        let now = self.packets.fetch_add(1, Ordering::Relaxed) + 1;
        match flow.throw(direction, &self.link.faults(direction), now) {
            Fate::Dropped(Cause::Loss) => count(&counters.lost),
            Fate::Dropped(Cause::Blackhole) => count(&counters.blackholed),
            Fate::Passed { after, again } => {
                if again.is_some() {
                    count(&counters.duplicated);
                }
                for after in [Some(after), again].into_iter().flatten() {
                    if after.is_zero() {
                        self.send(flow, direction, bytes).await;
                    } else {
                        self.hold(Instant::now() + after, flow, direction, bytes);
                    }
                }
            }
        }
    }

    async fn send(&self, flow: &Flow, direction: Direction, bytes: &[u8]) {
        let counters = self.link.counters(direction);
        let sent = match direction {
            Direction::Up => flow.upstream().send(bytes).await,
            Direction::Down => self.front.send_to(bytes, flow.client).await,
        };
        count(if sent.is_ok() { &counters.forwarded } else { &counters.refused });
    }

    fn hold(&self, due: Instant, flow: &Arc<Flow>, direction: Direction, bytes: &[u8]) {
        let counters = self.link.counters(direction);
        let packet = Packet { flow: flow.clone(), direction, bytes: bytes.into() };
        let (was_due, held) = {
            let mut late = self.late.lock().expect("unharmed");
            (late.next_due(), late.push(due, packet))
        };
        count(if held { &counters.delayed } else { &counters.overflowed });
        if was_due.is_none_or(|was_due| due < was_due) {
            self.late_changed.notify_one();
        }
    }

    /// Sends what was held, when it is due.
    async fn send_late(&self) {
        loop {
            let next = self.late.lock().expect("unharmed").next_due();
            let due = async {
                match next {
                    Some(due) => tokio::time::sleep_until(due.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = due => {}
                () = self.late_changed.notified() => {}
            }
            loop {
                let packet = self.late.lock().expect("unharmed").pop(Instant::now());
                let Some(Packet { flow, direction, bytes }) = packet else { break };
                // A network through which nothing comes also loses what was under way in it.
                if self.link.faults(direction).blackhole {
                    count(&self.link.counters(direction).blackholed);
                } else {
                    self.send(&flow, direction, &bytes).await;
                }
            }
        }
    }
}

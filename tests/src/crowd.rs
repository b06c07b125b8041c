//! Very many devices of one daemon that talk in pairs, for what many do at once: to be sent away and come back.
//!
//! All are clients of the SDK in this process and write into one [`Record`]. They share a few sockets, each with an address of
//! its own, because their buffers would add up to gigabytes and because real crowds do not come from one address.
//!
//! Invariant: everybody talks to one other and is talked to by the same.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use quail_client::transport::SharedSocket;
use quail_client::{AccountId, ConnectionState, Options};
use tokio::task::JoinSet;

use crate::checker::Terms;
use crate::witness::{Record, Witness};
use crate::{World, expect, options};

/// How many share a socket and an address: fewer than the daemon lets one address connect at once.
const PER_ADDRESS: usize = 50;

/// How many connect at the same time in the beginning.
const CONNECTING_MAX: usize = 50;

/// How long all of them may take for what must happen, on a machine with two busy cores. Nothing waits it out.
const PATIENCE: Duration = Duration::from_secs(240);

/// Very many devices that talk in pairs.
pub struct Crowd {
    devices: Vec<(Witness, AccountId)>,
    record: Arc<Record>,
    /// Messages of each.
    sent: usize,
}

impl Crowd {
    /// Makes so many accounts, which must be an even number, and connects a device of each.
    pub async fn join(world: &World, count: usize) -> Self {
        let mut people = world.people(count).await;
        for (number, person) in people.iter_mut().enumerate() {
            person.options = crowded(number);
        }
        let mut sockets = Vec::new();
        for number in 0..count.div_ceil(PER_ADDRESS) {
            let address = Ipv4Addr::new(127, 0, 1, number as u8 + 1);
            sockets.push(SharedSocket::bind((address, 0).into()).expect("a socket"));
        }
        let record = Record::new();
        let mut joining = JoinSet::new();
        let mut devices: Vec<Option<(Witness, AccountId)>> = Vec::new();
        devices.resize_with(count, || None);
        let mut waiting = 0..count;
        loop {
            while joining.len() < CONNECTING_MAX
                && let Some(number) = waiting.next()
            {
                let (mut person, record) = (people[number].clone(), record.clone());
                person.options.socket = Some(sockets[number / PER_ADDRESS].clone());
                let partner = people[number ^ 1].account();
                joining.spawn(async move { (number, Witness::join(&person, &record).await, partner) });
            }
            let Some(joined) = joining.join_next().await else { break };
            let (number, witness, partner) = joined.expect("a device joins");
            devices[number] = Some((witness, partner));
        }
        Self { devices: devices.into_iter().flatten().collect(), record, sent: 0 }
    }

    /// Everybody sends so many messages to their partner, one after the other without waiting for answers.
    pub async fn talk(&mut self, count: usize) {
        for _ in 0..count {
            self.sent += 1;
            for (device, partner) in &mut self.devices {
                device.send(*partner, &format!("message {}", self.sent)).await;
            }
        }
    }

    /// Waits until everything that was sent has been shown and confirmed.
    pub async fn has_talked(&self) {
        for (device, _) in &self.devices {
            device.has_shown(self.sent).await;
        }
        for (device, _) in &self.devices {
            device.has_receipts().await;
        }
    }

    /// Waits until everybody is connected for at least the n-th time, and returns how long that took.
    pub async fn is_back(&self, connections: u64) -> Duration {
        let began = Instant::now();
        for (device, _) in &self.devices {
            let mut state = device.client.state();
            let back = state.wait_for(|state| {
                *state == ConnectionState::Online && device.client.stats().connections >= connections
            });
            let back = tokio::time::timeout(PATIENCE, back).await;
            let stats = device.client.stats();
            back.unwrap_or_else(|_| panic!("a client is not back: {stats:?}")).expect("the client is open");
        }
        began.elapsed()
    }

    /// Returns how many devices have given their connection up for this reason at least once since they were [watched](Self::watch).
    pub fn watch(&self) -> Watch {
        let mut watch = Watch { tasks: JoinSet::new() };
        for (device, _) in &self.devices {
            let mut state = device.client.state();
            watch.tasks.spawn(async move {
                let left = state.wait_for(|state| matches!(state, ConnectionState::Waiting { .. })).await;
                match left.map(|state| state.clone()) {
                    Ok(ConnectionState::Waiting { reason, .. }) => reason.reason(),
                    _ => None,
                }
            });
        }
        watch
    }

    /// Returns the most connections that one of them needed.
    pub fn connections_max(&self) -> u64 {
        self.devices.iter().map(|(device, _)| device.client.stats().connections).max().unwrap_or_default()
    }

    /// Closes everybody and judges the run.
    pub async fn finish(self) {
        self.has_talked().await;
        let mut closing = JoinSet::new();
        for (device, _) in &self.devices {
            let client = device.client.clone();
            closing.spawn(async move { client.close().await });
        }
        while let Some(closed) = expect("a client to close", closing.join_next()).await {
            closed.expect("no panic").expect("nothing is unanswered");
        }
        self.record.assert_kept(Terms { gaps: false, receipts: true });
    }
}

/// Who watches why connections end.
pub struct Watch {
    tasks: JoinSet<Option<quail_client::Reason>>,
}

impl Watch {
    /// Returns how many were told this reason, of all.
    pub async fn told(mut self, reason: quail_client::Reason) -> (usize, usize) {
        let (mut told, mut all) = (0, 0);
        while let Some(ended) = expect("a connection to end", self.tasks.join_next()).await {
            all += 1;
            told += usize::from(ended.expect("no panic") == Some(reason));
        }
        (told, all)
    }
}

/// Options of one among many: like everybody's, and with keep-alives that do not come all at once.
fn crowded(number: usize) -> Options {
    Options {
        keep_alive: Duration::from_millis(2_000 + number as u64 % 1_000),
        backoff_min: Duration::from_millis(200),
        backoff_max: Duration::from_secs(2),
        connect_timeout: Duration::from_secs(10),
        ..options()
    }
}

//! Promise: a session survives every change of networks: nothing is lost, shown twice or confirmed untruly, and it goes on soon.
//!
//! `QUAIL_SEED=17` gives the network the dice of an earlier run.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // Test code outside of #[test] functions.

use std::net::UdpSocket;
use std::sync::Arc;
use std::time::{Duration, Instant};

use quail_client::state::PROBE_PATIENCE_MAX;
use quail_client::{AccountId, ConnectionState};
use quail_tests::checker::Terms;
use quail_tests::hostile::metric;
use quail_tests::proxy::{Faults, Proxy};
use quail_tests::witness::{Record, Witness};
use quail_tests::{World, expect, seed};

/// Two who talk, behind one network.
struct Scene {
    world: World,
    proxy: Proxy,
    record: Arc<Record>,
    devices: [Witness; 2],
    accounts: [AccountId; 2],
    sent: usize,
}

impl Scene {
    async fn begin() -> Self {
        let world = World::start().await;
        let proxy = Proxy::before(&world, seed());
        let record = Record::new();
        let ada = world.sign_up("ada").await.by_way_of(proxy.address(&world));
        let bob = world.sign_up("bob").await.by_way_of(proxy.address(&world));
        let devices = [Witness::join(&ada, &record).await, Witness::join(&bob, &record).await];
        let accounts = [ada.account(), bob.account()];
        Self { world, proxy, record, devices, accounts, sent: 0 }
    }

    /// Each sends so many to the other, apart in time, so that they travel in many packets.
    async fn talk(&mut self, count: usize) {
        for _ in 0..count {
            tokio::time::sleep(Duration::from_millis(2)).await;
            self.sent += 1;
            for (device, to) in [(0, 1), (1, 0)] {
                let body = format!("{device} {} {}", self.sent, "x".repeat(self.sent % 200));
                self.devices[device].send(self.accounts[to], &body).await;
            }
        }
    }

    async fn flows(&self) {
        for device in &self.devices {
            device.has_shown(self.sent).await;
        }
    }

    fn reconnects(&self) -> u64 {
        self.devices.iter().map(|device| device.client.stats().reconnects).sum()
    }

    async fn finish(self) {
        self.flows().await;
        for device in &self.devices {
            device.has_receipts().await;
        }
        self.proxy.heal();
        for device in &self.devices {
            expect("the client to close", device.client.close()).await.expect("nothing is unanswered");
        }
        self.record.assert_kept(Terms { gaps: false, receipts: true });
    }
}

/// How often addresses change.
const CHANGES: usize = 8;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_goes_on_while_client_and_router_change_addresses_in_mid_flight() {
    let mut scene = Scene::begin().await;
    scene.proxy.set_both(Faults::slow(Duration::from_millis(10)));
    for change in 0..CHANGES {
        scene.talk(20).await;
        // With sends, answers and acknowledgements under way.
        match change % 2 {
            0 => scene.devices.iter().for_each(|device| device.client.network_changed().unwrap()),
            _ => assert!(scene.proxy.rebind().await >= 2),
        }
        scene.talk(5).await;
        scene.flows().await;
    }
    assert_eq!(scene.reconnects(), 0, "nobody had to resume");
    for device in &scene.devices {
        assert_eq!(device.client.stats().moves, CHANGES as u64 / 2);
    }
    assert!(metric(&scene.world, "quail_migrations_total").await >= CHANGES as f64);
    scene.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_when_addresses_change_in_a_bad_network() {
    let mut scene = Scene::begin().await;
    let (delay, jitter) = (Duration::from_millis(15), Duration::from_millis(10));
    scene.proxy.set_both(Faults { loss: 0.1, duplication: 0.1, delay, jitter, ..Faults::default() });
    for change in 0..CHANGES {
        scene.talk(15).await;
        if change % 2 == 0 {
            let _ = scene.proxy.rebind().await;
        }
        scene.devices[change % 2].client.network_changed().unwrap();
    }
    scene.flows().await;
    println!("{} had to resume", scene.reconnects());
    scene.finish().await;
}

/// Returns a socket that hears nobody.
fn deaf() -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.connect("127.0.0.1:9").unwrap();
    socket
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_path_on_which_nothing_comes_back_is_left_for_another_connection() {
    let mut scene = Scene::begin().await;
    for _ in 0..3 {
        scene.talk(10).await;
        let before = scene.devices[0].client.stats().reconnects;
        let mut state = scene.devices[0].client.state();
        let began = Instant::now();
        // The library listens at the last socket as well, so it takes two.
        scene.devices[0].client.network_changed_to(deaf()).unwrap();
        scene.devices[0].client.network_changed_to(deaf()).unwrap();
        scene.talk(10).await;
        // That it is silent is told for a few milliseconds, so who waits for that may come too late.
        let client = &scene.devices[0].client;
        let is_another =
            |state: &ConnectionState| *state == ConnectionState::Online && client.stats().reconnects > before;
        expect("another connection", state.wait_for(is_another)).await.unwrap();
        scene.flows().await;
        println!("all is there after {:?}", began.elapsed());
        // The rest is for a machine that is busy.
        assert!(began.elapsed() < PROBE_PATIENCE_MAX + Duration::from_secs(3));
        assert_eq!(scene.devices[0].client.stats().reconnects, before + 1);
    }
    scene.finish().await;
}

/// How long nothing comes through.
const DARK: Duration = Duration::from_secs(5);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_flows_again_soon_after_the_dark_though_nobody_told_the_client() {
    let mut scene = Scene::begin().await;
    let mut took = Vec::new();
    for round in 0..3 {
        scene.talk(20).await;
        scene.flows().await;
        scene.proxy.blackhole_both(true);
        scene.talk(50).await;
        tokio::time::sleep(DARK).await;
        if round == 0 {
            let mut state = scene.devices[0].client.state();
            let silent = state.wait_for(|state| matches!(state, ConnectionState::Silent { .. }));
            drop(expect("the silence to be told", silent).await.unwrap());
        }
        scene.proxy.blackhole_both(false);
        let lifted = Instant::now();
        scene.flows().await;
        took.push(lifted.elapsed());
    }
    println!("flows again after {took:?}");
    // QUIC alone takes as long as the dark has lasted.
    assert!(took.iter().all(|took| *took < Duration::from_millis(2500)), "{took:?}");
    scene.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_told_of_a_network_does_not_wait_for_the_next_try() {
    let mut scene = Scene::begin().await;
    scene.world.daemon.kill().await.unwrap();
    scene.talk(5).await;
    let mut state = scene.devices[0].client.state();
    let waits = state.wait_for(|state| matches!(state, ConnectionState::Waiting { .. }));
    drop(expect("the client to wait", waits).await.unwrap());
    scene.world.daemon.restart().await.unwrap();
    let began = Instant::now();
    for device in &scene.devices {
        device.client.network_changed().unwrap();
    }
    expect("the connection", state.wait_for(|state| *state == ConnectionState::Online)).await.unwrap();
    println!("online after {:?}", began.elapsed());
    scene.finish().await;
}

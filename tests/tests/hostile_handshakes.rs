//! Floods of connections: handshakes that never end cost little and keep nobody out.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // Test code outside of #[test] functions.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::Duration;

use quail_protocol::v1;
use quail_tests::hostile::{Bystanders, metric, metrics};
use quail_tests::raw::{self, RawClient};
use quail_tests::{World, deaf, expect};

/// How many handshakes are begun and left.
const HALF_OPEN: usize = 10_000;

/// How many are at it at once: a client that begins them all at once would only fill its own socket.
const AT_ONCE: usize = 500;

/// Begins handshakes that never end, at the rate at which this machine can; `leave` breaks them off instead.
async fn flood(world: &World, bystanders: &mut Bystanders, leave: bool) -> BTreeMap<String, f64> {
    let address = world.address();
    let mischief = async {
        let (endpoint, sent) = deaf::endpoint();
        let config = raw::client_config(quinn::TransportConfig::default());
        let server = ([127, 0, 0, 1], address.port).into();
        let mut held = Vec::new();
        for batch in 1..=HALF_OPEN / AT_ONCE {
            let connect =
                |_| endpoint.connect_with(config.clone(), server, "localhost").expect("a valid name");
            let connecting: Vec<_> = (0..AT_ONCE).map(connect).collect();
            // Each has sent its first packet; the next ones begin while these still try.
            while sent.load(Ordering::Relaxed) < batch * AT_ONCE {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            if !leave {
                held.extend(connecting);
            }
        }
        // Somebody new gets in during the flood.
        let newcomer = RawClient::connect(&address).await;
        assert!(matches!(newcomer.hello(raw::hello(b"")).await, v1::hello_reply::Result::Welcome(_)));
        (endpoint, held)
    };
    let (held, seen) = bystanders.watch(world, mischief).await;
    if !leave {
        let timeouts = async {
            while metric(world, "quail_handshakes_total{result=\"timeout\"}").await == 0.0 {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        expect("half-open handshakes to time out", timeouts).await;
    }
    drop(held);
    let all = metrics(world).await;
    seen.assert_undisturbed();
    let retried = all["quail_handshakes_total{result=\"retried\"}"];
    assert!(retried >= HALF_OPEN as f64 / 2.0, "most were sent away with a token: {all:?}");
    all
}

async fn nobody_shakes_hands(world: &World) {
    let done = async {
        while metric(world, "quail_handshakes_open").await > 0.0 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    expect("the half-open handshakes to be given up", done).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_half_open_handshakes_keep_nobody_out() {
    let world = World::start().await;
    let mut bystanders = Bystanders::join(&world).await;
    flood(&world, &mut bystanders, false).await;
    nobody_shakes_hands(&world).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_handshakes_that_are_broken_off_keep_nobody_out() {
    let world = World::start().await;
    let mut bystanders = Bystanders::join(&world).await;
    flood(&world, &mut bystanders, true).await;
    nobody_shakes_hands(&world).await;
    assert!(metric(&world, "quail_handshakes_total{result=\"failed\"}").await > 0.0);
}

#[tokio::test]
async fn an_address_that_opens_too_many_connections_is_refused_and_others_are_not() {
    let world = World::start_with(|options| {
        options.env.push(("QUAIL_RATES_HANDSHAKE".into(), "1/h burst 5".into()));
    })
    .await;
    let from = |ip: [u8; 4]| {
        let endpoint = quinn::Endpoint::client((ip, 0).into()).expect("a socket");
        let server = ([127, 0, 0, 1], world.address().port).into();
        // Settings of its own: the daemon's tokens for coming back stand in them.
        let config = raw::client_config(quinn::TransportConfig::default());
        async move {
            let connecting = endpoint.connect_with(config, server, "localhost").expect("a valid name");
            expect("an answer", connecting).await
        }
    };
    // A handshake counts once the daemon has seen its end, a moment after the client.
    let completed = async |count: u32| {
        let counted = async {
            while metric(&world, "quail_handshakes_total{result=\"completed\"}").await < f64::from(count) {}
        };
        expect("the handshake to be counted", counted).await;
    };
    let mut open = Vec::new();
    for count in 1..=5 {
        open.push(from([127, 0, 0, 7]).await.expect("within the burst"));
        completed(count).await;
    }
    // The sixth is sent for a token first, and its address is then known not to be forged.
    let refused = from([127, 0, 0, 7]).await.expect_err("beyond the burst");
    assert!(refused.to_string().contains("refused"), "{refused}");
    open.push(from([127, 0, 0, 8]).await.expect("another address"));
    completed(6).await;
    assert_eq!(metric(&world, "quail_handshakes_total{result=\"retried\"}").await, 1.0);
    assert_eq!(metric(&world, "quail_handshakes_total{result=\"limited\"}").await, 1.0);
    drop(open);
}

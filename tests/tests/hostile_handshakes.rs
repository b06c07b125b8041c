//! Floods of connections: handshakes that never end cost little and keep nobody out.

use std::sync::atomic::Ordering;

use quail_protocol::v1;
use quail_tests::hostile::{Bystanders, metric, metrics};
use quail_tests::raw::{self, RawClient};
use quail_tests::{World, deaf, expect};

/// How many handshakes are begun and left.
const HALF_OPEN: usize = 10_000;

/// How many are at it at once: a client that begins them all at once would only fill its own socket.
const AT_ONCE: usize = 500;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_half_open_handshakes_keep_nobody_out() {
    let world = World::start().await;
    let mut bystanders = Bystanders::join(&world).await;
    let address = world.address();
    let mischief = async {
        let (endpoint, sent) = deaf::endpoint();
        let config = raw::client_config(quinn::TransportConfig::default());
        let server = ([127, 0, 0, 1], address.port).into();
        for batch in 1..=HALF_OPEN / AT_ONCE {
            let connecting: Vec<_> = (0..AT_ONCE)
                .map(|_| endpoint.connect_with(config.clone(), server, "localhost").expect("a valid name"))
                .collect();
            // Each has sent its first packet; the next ones begin while these still try.
            while sent.load(Ordering::Relaxed) < batch * AT_ONCE {
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
            drop(connecting);
        }
        // Somebody new gets in during the flood.
        let newcomer = RawClient::connect(&address).await;
        assert!(matches!(newcomer.hello(raw::hello(b"")).await, v1::hello_reply::Result::Welcome(_)));
    };
    let ((), seen) = bystanders.watch(&world, mischief).await;
    seen.assert_undisturbed();
    let all = metrics(&world).await;
    let count = |result: &str| all[&format!("quail_handshakes_total{{result=\"{result}\"}}")];
    assert!(count("retried") >= HALF_OPEN as f64 / 2.0, "most were sent away with a token: {all:?}");
    let done = async {
        while metric(&world, "quail_handshakes_open").await > 0.0 {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    };
    expect("the half-open handshakes to be given up", done).await;
    assert!(metric(&world, "quail_handshakes_total{result=\"timeout\"}").await > 0.0);
}

#[tokio::test]
async fn an_address_that_opens_too_many_connections_is_refused_and_others_are_not() {
    let world = World::start_with(|options| {
        options.env.push(("QUAIL_RATES_HANDSHAKE".into(), "1/h burst 5".into()));
    })
    .await;
    let config = raw::client_config(quinn::TransportConfig::default());
    let from = |ip: [u8; 4]| {
        let endpoint = quinn::Endpoint::client((ip, 0).into()).expect("a socket");
        let server = ([127, 0, 0, 1], world.address().port).into();
        let (config, name) = (config.clone(), "localhost");
        async move {
            let connecting = endpoint.connect_with(config, server, name).expect("a valid name");
            expect("an answer", connecting).await
        }
    };
    let mut open = Vec::new();
    for _ in 0..5 {
        open.push(from([127, 0, 0, 7]).await.expect("within the burst"));
    }
    // The sixth is sent for a token first, and its address is then known not to be forged.
    let refused = from([127, 0, 0, 7]).await.expect_err("beyond the burst");
    assert!(refused.to_string().contains("refused"), "{refused}");
    open.push(from([127, 0, 0, 8]).await.expect("another address"));
    assert_eq!(metric(&world, "quail_handshakes_total{result=\"retried\"}").await, 1.0);
    assert_eq!(metric(&world, "quail_handshakes_total{result=\"limited\"}").await, 1.0);
    assert_eq!(metric(&world, "quail_handshakes_total{result=\"completed\"}").await, 6.0);
    drop(open);
}

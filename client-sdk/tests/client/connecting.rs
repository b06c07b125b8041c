//! Coming up, coming back, and the reasons for neither.

use std::net::UdpSocket;
use std::time::Duration;

use quail_client::transport::SharedSocket;
use quail_client::{Client, ConnectionState, Error, Guest, MemoryStore, Options, Pin, Reason};
use quail_protocol::error::close;

use crate::support::{FakeServer, PEER, credentials, options, soon};

async fn open(server: &FakeServer) -> Result<Client, Error> {
    soon(Client::open(&server.address, &credentials(), MemoryStore::new(), options())).await
}

#[tokio::test]
async fn a_client_shows_its_token_and_is_online() {
    let server = FakeServer::start();
    let credentials = credentials();
    let opening = Client::open(&server.address, &credentials, MemoryStore::new(), options());
    let (client, hello) = tokio::join!(soon(opening), async {
        let mut peer = server.accept().await;
        (peer.welcome().await, peer)
    });
    let (client, (hello, peer)) = (client.unwrap(), hello);
    assert_eq!(hello.session_token.as_ref(), credentials.token.as_bytes());
    assert_eq!((hello.version_min, hello.version_max), (1, 1));
    assert_eq!(*client.state().borrow(), ConnectionState::Online);
    soon(client.close()).await.unwrap();
    assert_eq!(peer.closed().await, u64::from(close::DONE));
    assert_eq!(*client.state().borrow(), ConnectionState::Closed { reason: Error::Closed });
}

#[tokio::test]
async fn a_server_with_another_key_is_refused_and_named() {
    let server = FakeServer::start();
    let mut address = server.address.clone();
    let got = address.pin.replace(Pin([1; 32])).unwrap();
    let credentials = credentials();
    let opening = Client::open(&address, &credentials, MemoryStore::new(), options());
    let (client, _) = tokio::join!(soon(opening), server.accept_failing());
    let error = client.unwrap_err();
    assert_eq!(error, Error::WrongPin { expected: Pin([1; 32]), got });
    assert!(error.is_final());
}

#[tokio::test]
async fn a_copied_certificate_without_its_key_is_refused() {
    let server = FakeServer::start_impostor();
    let (client, _) = tokio::join!(open(&server), server.accept_failing());
    assert!(matches!(client.unwrap_err(), Error::Certificate { .. }));
}

#[tokio::test]
async fn a_certificate_without_issuer_needs_a_pin() {
    let server = FakeServer::start();
    let mut address = server.address.clone();
    address.pin = None;
    let guest = Guest::connect(&address, options());
    let error = tokio::select! {
        error = soon(guest) => error.unwrap_err(),
        _ = async { server.accept_failing().await; std::future::pending::<()>().await } => unreachable!(),
    };
    // A machine without any trust roots gives the same error earlier.
    assert!(matches!(error, Error::Certificate { .. }), "{error:?}");
}

#[tokio::test]
async fn a_server_of_another_protocol_is_recognised() {
    let server = FakeServer::start_with(b"h3", None);
    let (client, _) = tokio::join!(open(&server), server.accept_failing());
    assert_eq!(client.unwrap_err(), Error::NotQuail);
}

#[tokio::test]
async fn an_ended_session_is_final() {
    let server = FakeServer::start();
    let (client, _peer) = tokio::join!(open(&server), async {
        let mut peer = server.accept().await;
        peer.refuse_hello(Reason::Unauthenticated.error()).await;
        peer
    });
    let error = client.unwrap_err();
    assert_eq!(error.reason(), Some(Reason::Unauthenticated));
    assert!(error.needs_log_in(), "the last way back");
    assert!(!quail_client::Error::Replaced.needs_log_in(), "another way is left");
    assert!(error.is_final());
}

#[tokio::test]
async fn without_a_version_in_common_there_is_no_use_in_trying_again() {
    let server = FakeServer::start();
    let (client, _peer) = tokio::join!(open(&server), async {
        let mut peer = server.accept().await;
        peer.refuse_hello(Reason::Version.error()).await;
        peer
    });
    assert_eq!(client.unwrap_err(), Error::Version { detail: "no protocol version in common".into() });
}

#[tokio::test]
async fn a_session_of_another_account_is_final() {
    let server = FakeServer::start();
    let mut credentials = credentials();
    credentials.account = PEER;
    let opening = Client::open(&server.address, &credentials, MemoryStore::new(), options());
    let (client, _peer) = tokio::join!(soon(opening), server.welcome());
    assert!(matches!(client.unwrap_err(), Error::OtherAccount { expected: PEER, .. }));
}

#[tokio::test]
async fn the_first_temporary_error_is_returned_unless_told_to_wait() {
    let server = FakeServer::start();
    let (client, _peer) = tokio::join!(open(&server), async {
        let mut peer = server.accept().await;
        peer.refuse_hello(Reason::Draining.error()).await;
        peer
    });
    assert_eq!(client.unwrap_err().reason(), Some(Reason::Draining));

    let options = Options { wait_for_server: true, ..options() };
    let credentials = credentials();
    let opening = Client::open(&server.address, &credentials, MemoryStore::new(), options);
    let (client, _peers) = tokio::join!(soon(opening), async {
        let mut first = server.accept().await;
        first.refuse_hello(Reason::Draining.error()).await;
        (first, server.welcome().await)
    });
    assert_eq!(client.unwrap().stats().connections, 1);
}

#[tokio::test]
async fn silence_is_an_error_in_time() {
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    let mut address = FakeServer::start().address;
    address.port = silent.local_addr().unwrap().port();
    let connect_timeout = Duration::from_millis(50);
    let guest = soon(Guest::connect(&address, Options { connect_timeout, ..options() })).await;
    let server = format!("127.0.0.1:{}", address.port);
    let error = guest.unwrap_err();
    assert_eq!(error, Error::Unreachable { server, waited: connect_timeout });
    assert!(error.is_temporary());
}

#[tokio::test]
async fn a_server_that_turns_connections_down_is_worth_another_try() {
    let server = FakeServer::start();
    let (client, ()) = tokio::join!(open(&server), server.turn_down());
    let error = client.unwrap_err();
    assert_eq!(error, Error::ConnectionRefused { server: format!("127.0.0.1:{}", server.address.port) });
    assert!(error.is_temporary());
}

#[tokio::test]
async fn a_port_that_was_asked_for_is_kept_over_reconnects() {
    let free = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let server = FakeServer::start();
    let options = Options { bind_address: Some(free), ..options() };
    let (client, peer) = server.client_with(MemoryStore::new(), options).await;
    assert_eq!(peer.connection.remote_address(), free);
    peer.cut();
    let peer = server.welcome().await;
    assert_eq!(peer.connection.remote_address(), free);
    drop(client);

    let elsewhere = Options { bind_address: Some(([192, 0, 2, 1], 0).into()), ..self::options() };
    let error = soon(Guest::connect(&server.address, elsewhere)).await.unwrap_err();
    assert!(matches!(error, Error::Bind { .. }), "{error:?}");
}

#[tokio::test]
async fn many_clients_can_share_a_socket() {
    let server = FakeServer::start();
    let socket = SharedSocket::bind(([127, 0, 0, 1], 0).into()).unwrap();
    let options = Options { socket: Some(socket), ..options() };
    let (one, peer_of_one) = server.client_with(MemoryStore::new(), options.clone()).await;
    let (two, peer_of_two) = server.client_with(MemoryStore::new(), options).await;
    assert_eq!(peer_of_one.connection.remote_address(), peer_of_two.connection.remote_address());
    assert!(matches!(one.network_changed(), Err(Error::Bind { .. })), "the others would move as well");
    soon(one.close()).await.unwrap();
    assert_eq!(*two.state().borrow(), ConnectionState::Online);
}

#[tokio::test]
async fn a_host_without_address_is_named() {
    let mut address = FakeServer::start().address;
    address.host = "no-such-host.invalid".into();
    let error = soon(Guest::connect(&address, options())).await.unwrap_err();
    assert!(matches!(&error, Error::UnknownHost { host, .. } if *host == address.host), "{error:?}");
}

#[tokio::test]
async fn a_lost_connection_is_found_again() {
    let server = FakeServer::start();
    let (client, peer) = server.client(MemoryStore::new()).await;
    let mut state = client.state();
    peer.cut();
    soon(state.wait_for(|state| *state != ConnectionState::Online)).await.unwrap();
    let _peer = server.welcome().await;
    soon(state.wait_for(|state| *state == ConnectionState::Online)).await.unwrap();
    assert_eq!((client.stats().connections, client.stats().reconnects), (2, 1));
}

#[tokio::test]
async fn a_pause_tells_why_and_ends_when_the_client_does() {
    let server = FakeServer::start();
    let hour = Duration::from_secs(3600);
    let options = Options { backoff_min: hour, backoff_max: hour, ..options() };
    let (client, mut peer) = server.client_with(MemoryStore::new(), options).await;
    // As a server stops: first the lanes, then the connection.
    peer.publish().await.send.finish().unwrap();
    peer.close(Reason::Draining);
    let mut state = client.state();
    let waiting = |state: &ConnectionState| matches!(state, ConnectionState::Waiting { .. });
    let ConnectionState::Waiting { reason, .. } = soon(state.wait_for(waiting)).await.unwrap().clone() else {
        unreachable!()
    };
    assert_eq!(reason.reason(), Some(Reason::Draining));
    soon(client.close()).await.unwrap();
}

#[tokio::test]
async fn who_is_closed_for_asking_too_much_or_taking_nothing_waits_and_comes_back() {
    for reason in [Reason::RateLimited, Reason::Stalled] {
        let server = FakeServer::start();
        let (client, peer) = server.client(MemoryStore::new()).await;
        let mut state = client.state();
        let waiting = |state: &ConnectionState| matches!(state, ConnectionState::Waiting { .. });
        peer.close(reason);
        let waited = soon(state.wait_for(waiting)).await.unwrap().clone();
        let ConnectionState::Waiting { reason: told, .. } = waited else { unreachable!() };
        assert_eq!(told.reason(), Some(reason));
        assert!(told.is_temporary());
        // With the session it had, and with what was to be sent.
        let sending = client.send(PEER, "still here").await.unwrap();
        let mut peer = server.accept().await;
        assert_eq!(peer.welcome().await.session_token.as_ref(), credentials().token.as_bytes());
        let mut lane = peer.publish().await;
        assert_eq!(lane.read_send().await.number, 1);
        lane.accept(1).await;
        soon(sending.accepted()).await.unwrap();
        assert_eq!((client.stats().connections, client.stats().reconnects), (2, 1));
    }
}

#[tokio::test]
async fn a_session_that_ends_while_online_ends_the_client() {
    let server = FakeServer::start();
    let (client, peer) = server.client(MemoryStore::new()).await;
    peer.close(Reason::Unauthenticated);
    let mut state = client.state();
    let closed =
        soon(state.wait_for(|state| matches!(state, ConnectionState::Closed { .. }))).await.unwrap().clone();
    let ConnectionState::Closed { reason } = closed else { unreachable!() };
    assert_eq!(reason.reason(), Some(Reason::Unauthenticated));
    let error = soon(client.send(PEER, "too late")).await.unwrap_err();
    assert_eq!(error, reason);
}

#[tokio::test]
async fn dropping_the_last_handle_closes_the_connection() {
    let server = FakeServer::start();
    let (client, peer) = server.client(MemoryStore::new()).await;
    let other = client.clone();
    drop(client);
    assert_eq!(peer.connection.close_reason(), None);
    drop(other);
    assert_eq!(peer.closed().await, u64::from(close::DONE));
}

#[tokio::test]
async fn a_client_closes_while_there_is_no_server() {
    let server = FakeServer::start();
    let (client, peer) = server.client(MemoryStore::new()).await;
    let address = server.address.clone();
    drop(server);
    peer.cut();
    let mut state = client.state();
    soon(state.wait_for(|state| *state != ConnectionState::Online)).await.unwrap();
    soon(client.close()).await.unwrap();
    assert_ne!(address.port, 0);
}

#[tokio::test]
async fn a_connection_survives_a_new_socket() {
    let server = FakeServer::start();
    let (client, mut peer) = server.client(MemoryStore::new()).await;
    let mut lane = peer.publish().await;
    let before = peer.connection.remote_address();
    client.network_changed().unwrap();
    let sending = soon(client.send(PEER, "from elsewhere")).await.unwrap();
    assert_eq!(lane.read_send().await.number, 1);
    lane.accept(1).await;
    soon(sending.accepted()).await.unwrap();
    assert_ne!(peer.connection.remote_address(), before);
    assert_eq!(client.stats().connections, 1);
}

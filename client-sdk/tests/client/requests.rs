//! Requests: one question, one answer, in time.

use std::time::Duration;

use quail_client::{AccountId, ConnectionState, Error, Guest, MemoryStore, Options, Reason};
use quail_protocol::v1::{self, look_up, request, response};

use crate::support::{FakeServer, ME, PEER, options, soon};

async fn guest(server: &FakeServer) -> (Guest, crate::support::Peer) {
    let options = Options { device_name: Some("ä".repeat(40)), ..options() };
    let (guest, peer) = tokio::join!(soon(Guest::connect(&server.address, options)), server.welcome());
    (guest.unwrap(), peer)
}

fn session() -> response::Result {
    response::Result::Session(v1::Session {
        token: vec![9; 32].into(),
        account: ME.to_bytes(),
        device: vec![3; 16].into(),
        handle: "ada".into(),
    })
}

fn profile(account: AccountId, handle: &str) -> response::Result {
    response::Result::Profile(v1::Profile { account: account.to_bytes(), handle: handle.into() })
}

#[tokio::test]
async fn a_guest_signs_up_and_logs_in() {
    let server = FakeServer::start();
    let (guest, mut peer) = guest(&server).await;
    let (credentials, ()) = tokio::join!(soon(guest.sign_up("ada", "password", Some("invite"))), async {
        let (command, lane) = peer.request().await;
        let request::Command::SignUp(sign_up) = command else { panic!("{command:?}") };
        assert_eq!((sign_up.handle.as_str(), sign_up.invite.as_str()), ("ada", "invite"));
        assert_eq!(sign_up.device_name, "ä".repeat(32), "names are cut to what the protocol takes");
        peer.respond(lane, session()).await;
    });
    let credentials = credentials.unwrap();
    assert_eq!((credentials.account, credentials.token.as_bytes()), (ME, &[9; 32]));

    let (refused, ()) = tokio::join!(soon(guest.log_in("ada", "wrong")), async {
        let (_, lane) = peer.request().await;
        peer.respond(lane, response::Result::Error(Reason::WrongCredentials.error())).await;
    });
    assert_eq!(refused.unwrap_err().reason(), Some(Reason::WrongCredentials));
    guest.close().await;
}

#[tokio::test]
async fn a_ping_tells_the_key_exchange() {
    for (groups, expected) in [
        (None, "X25519MLKEM768"),
        (Some(&[rustls::NamedGroup::X25519][..]), "X25519"),
        // Not among the shares of the first flight, so the server asks for another.
        (Some(&[rustls::NamedGroup::secp384r1][..]), "secp384r1"),
    ] {
        let server = FakeServer::start_with(quail_protocol::ALPN, groups);
        let (guest, mut peer) = guest(&server).await;
        let (report, ()) = tokio::join!(soon(guest.ping()), async {
            let (_, lane) = peer.request().await;
            peer.respond(lane, response::Result::Pong(v1::Pong { server_time_ms: 1000 })).await;
        });
        let report = report.unwrap();
        assert_eq!(report.key_exchange, expected);
        assert_eq!((report.protocol_version, report.server_name.as_str()), (1, "fake 1"));
        assert_eq!(report.server_address.port(), server.address.port);
        assert_eq!(report.server_time, std::time::UNIX_EPOCH + Duration::from_secs(1));
        assert!(report.handshake > Duration::ZERO && report.round_trip > Duration::ZERO);
    }
}

#[tokio::test]
async fn profiles_are_asked_for_once() {
    let server = FakeServer::start();
    let (client, mut peer) = server.client(MemoryStore::new()).await;
    let (found, ()) = tokio::join!(soon(client.look_up("grace")), async {
        let (command, lane) = peer.request().await;
        let by = Some(look_up::By::Handle("grace".into()));
        assert_eq!(command, request::Command::LookUp(v1::LookUp { by }));
        peer.respond(lane, profile(PEER, "grace")).await;
    });
    assert_eq!(found.unwrap().account, PEER);
    assert_eq!(soon(client.look_up("grace")).await.unwrap().account, PEER);
    assert_eq!(soon(client.look_up_account(PEER)).await.unwrap().handle, "grace");

    let (unknown, ()) = tokio::join!(soon(client.look_up_account(ME)), async {
        let (_, lane) = peer.request().await;
        peer.respond(lane, response::Result::Error(Reason::UnknownAccount.error())).await;
    });
    assert_eq!(unknown.unwrap_err().reason(), Some(Reason::UnknownAccount));
}

#[tokio::test]
async fn a_question_that_only_reads_is_asked_again_on_the_next_connection() {
    let server = FakeServer::start();
    let (client, mut peer) = server.client(MemoryStore::new()).await;
    let (found, _peer) = tokio::join!(soon(client.look_up("grace")), async {
        peer.request().await;
        peer.cut();
        let mut peer = server.welcome().await;
        let (_, lane) = peer.request().await;
        peer.respond(lane, profile(PEER, "grace")).await;
        peer
    });
    assert_eq!(found.unwrap().account, PEER);
}

#[tokio::test]
async fn a_question_that_changes_something_is_asked_once() {
    let server = FakeServer::start();
    let (client, mut peer) = server.client(MemoryStore::new()).await;
    let (changed, ()) = tokio::join!(soon(client.change_password("old password", "new password")), async {
        let (command, lane) = peer.request().await;
        assert!(matches!(command, request::Command::ChangePassword(_)));
        peer.respond(lane, response::Result::Done(v1::Done {})).await;
    });
    changed.unwrap();
    let (changed, ()) = tokio::join!(soon(client.change_password("old password", "new password")), async {
        peer.request().await;
        peer.cut();
    });
    assert!(matches!(changed.unwrap_err(), Error::ConnectionLost { .. }));
}

#[tokio::test]
async fn logging_out_ends_the_client() {
    let server = FakeServer::start();
    let (client, mut peer) = server.client(MemoryStore::new()).await;
    let (out, ()) = tokio::join!(soon(client.log_out()), async {
        let (command, lane) = peer.request().await;
        assert_eq!(command, request::Command::LogOut(v1::LogOut {}));
        peer.respond(lane, response::Result::Done(v1::Done {})).await;
    });
    out.unwrap();
    assert_eq!(*client.state().borrow(), ConnectionState::Closed { reason: Error::LoggedOut });
    assert_eq!(soon(client.look_up("grace")).await.unwrap_err(), Error::LoggedOut);
    assert_eq!(soon(client.send(PEER, "x")).await.unwrap_err(), Error::LoggedOut);
}

#[tokio::test]
async fn a_session_whose_end_overtakes_the_answer_is_logged_out_too() {
    let server = FakeServer::start();
    let (client, mut peer) = server.client(MemoryStore::new()).await;
    let (out, ()) = tokio::join!(soon(client.log_out()), async {
        peer.request().await;
        peer.close(Reason::Unauthenticated);
    });
    out.unwrap();
    assert_eq!(*client.state().borrow(), ConnectionState::Closed { reason: Error::LoggedOut });
}

#[tokio::test]
async fn an_answer_that_does_not_come_is_an_error_in_time() {
    let server = FakeServer::start();
    let request_timeout = Duration::from_millis(20);
    let (client, mut peer) =
        server.client_with(MemoryStore::new(), Options { request_timeout, ..options() }).await;
    let (error, _open) = tokio::join!(soon(client.look_up("grace")), peer.request());
    assert_eq!(error.unwrap_err(), Error::TimedOut { what: "look up", waited: request_timeout });
}

#[tokio::test]
async fn a_request_that_cannot_fit_is_refused_here() {
    let server = FakeServer::start();
    let (guest, _peer) = guest(&server).await;
    let error = soon(guest.log_in("ada", &"x".repeat(10_000))).await.unwrap_err();
    assert!(matches!(error, Error::RequestTooLarge { max: 8192, .. }), "{error:?}");
}

//! The health check against a door that answers as it is told.

use quail_protocol::v1::Reason;

use super::*;
use crate::net::identity::Identity;

/// A door with an identity of its own, and the directory of its files.
struct Door {
    endpoint: quinn::Endpoint,
    directory: tempfile::TempDir,
}

impl Door {
    fn open() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        let identity = Identity::load_or_create(&at("certificate.pem"), &at("key.pem"), "localhost").unwrap();
        let tls = identity.server_config().unwrap();
        let tls = quinn::crypto::rustls::QuicServerConfig::try_from(tls).unwrap();
        let config = quinn::ServerConfig::with_crypto(Arc::new(tls));
        let endpoint = quinn::Endpoint::server(config, "127.0.0.1:0".parse().unwrap()).unwrap();
        Self { endpoint, directory }
    }

    /// Asks this door, which gives one answer to one hello.
    async fn asked(&self, answer: Option<hello_reply::Result>) -> Result<(), HealthCheckError> {
        let address = self.endpoint.local_addr().unwrap();
        let certificate = self.directory.path().join("certificate.pem");
        let (asked, ()) = tokio::join!(health_check(address, &certificate), self.answer(answer));
        asked
    }

    async fn answer(&self, result: Option<hello_reply::Result>) {
        let connection = self.endpoint.accept().await.unwrap().await.unwrap();
        let (mut send, mut receive) = connection.accept_bi().await.unwrap();
        let mut buffer = BytesMut::from(&receive.read_to_end(OPEN_BYTES_MAX).await.unwrap()[..]);
        let open: v1::Open = frame::decode(&mut buffer, OPEN_BYTES_MAX).unwrap().unwrap();
        let Some(open::Stream::Hello(hello)) = open.stream else { panic!("no hello: {open:?}") };
        assert_eq!((hello.version_min, hello.session_token.len()), (VERSION_MIN, 0));
        send.write_chunk(frame::to_bytes(&v1::HelloReply { result })).await.unwrap();
        send.finish().unwrap();
        connection.closed().await;
    }
}

#[tokio::test]
async fn a_daemon_that_welcomes_is_healthy() {
    let welcome = hello_reply::Result::Welcome(v1::Welcome::default());
    Door::open().asked(Some(welcome)).await.unwrap();
}

#[tokio::test]
async fn a_daemon_that_refuses_is_not_and_says_why() {
    let door = Door::open();
    let error = door.asked(Some(hello_reply::Result::Error(Reason::Draining.error()))).await.unwrap_err();
    assert!(error.to_string().ends_with("answered DRAINING: the server is stopping"), "{error}");
    let error = door.asked(None).await.unwrap_err();
    assert!(error.to_string().ends_with("the answer to the hello is empty"), "{error}");
}

#[tokio::test]
async fn a_daemon_with_another_key_is_not_ours() {
    let (door, other) = (Door::open(), Door::open());
    let address = door.endpoint.local_addr().unwrap();
    let certificate = other.directory.path().join("certificate.pem");
    let accept = async {
        let _refused = door.endpoint.accept().await.unwrap().await;
    };
    let (asked, ()) = tokio::join!(health_check(address, &certificate), accept);
    let error = asked.unwrap_err();
    assert!(error.to_string().contains("holds another key"), "{error}");
}

#[tokio::test]
async fn silence_ends() {
    // Bound, so that the port is nobody else's, and never answering.
    let deaf = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = deaf.local_addr().unwrap();
    let endpoint = endpoint(address, Pin([0; 32])).unwrap();
    let error = ask_within(Duration::from_millis(50), &endpoint, address).await.unwrap_err();
    assert!(matches!(error, HealthCheckError::Silence { .. }), "{error}");
    assert_eq!(error.to_string(), format!("no answer from {address} within 50 ms"));
}

#[tokio::test]
async fn what_cannot_be_asked_is_said() {
    let missing = Path::new("/nonexistent/certificate.pem");
    let error = health_check("[::]:7824".parse().unwrap(), missing).await.unwrap_err();
    assert!(matches!(error, HealthCheckError::Certificate(_)), "{error}");
    let error = health_check("[::]:0".parse().unwrap(), missing).await.unwrap_err();
    assert!(matches!(error, HealthCheckError::AnyPort), "{error}");
}

#[test]
fn the_daemon_is_asked_where_it_listens() {
    for (listen, expected) in [
        ("[::]:7824", "127.0.0.1:7824"),
        ("0.0.0.0:1", "127.0.0.1:1"),
        ("[::1]:1", "[::1]:1"),
        ("192.0.2.1:1", "192.0.2.1:1"),
    ] {
        assert_eq!(target(listen.parse().unwrap()), Some(expected.parse().unwrap()));
    }
}

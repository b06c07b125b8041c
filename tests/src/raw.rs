//! A client that speaks the wire by hand, to say what no SDK would.
//!
//! It accepts any certificate and any order of frames, and shows every answer as it came.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use prost::Message;
use quail_protocol::{ALPN, address::Address, frame, limits::FRAME_BYTES_MAX, v1};
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{ClientConfig, Connection, Endpoint, RecvStream, SendStream, TransportConfig, ZeroRttAccepted};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};

use crate::expect;

/// A connection on which nothing has been said yet.
pub struct RawClient {
    /// The connection.
    pub connection: Connection,
    _endpoint: Endpoint,
}

/// A stream of a raw client.
pub struct RawStream {
    /// Where the client writes.
    pub send: SendStream,
    /// Where the daemon writes.
    pub recv: RecvStream,
    buffer: BytesMut,
}

impl RawClient {
    /// Connects without saying hello.
    pub async fn connect(address: &Address) -> Self {
        Self::connect_with(address, TransportConfig::default()).await
    }

    /// Connects with other settings of QUIC, without saying hello.
    pub async fn connect_with(address: &Address, transport: TransportConfig) -> Self {
        Self::connect_as(address, transport, [127, 0, 0, 1]).await
    }

    /// Connects from another address of this machine (127.0.0.0/8 is all its own), without saying hello.
    pub async fn connect_from(address: &Address, ip: [u8; 4]) -> Self {
        Self::connect_as(address, TransportConfig::default(), ip).await
    }

    async fn connect_as(address: &Address, transport: TransportConfig, ip: [u8; 4]) -> Self {
        let config = client_config(transport);
        let endpoint = Endpoint::client((ip, 0).into()).expect("a socket");
        let connecting = endpoint.connect_with(config, ([127, 0, 0, 1], address.port).into(), "localhost");
        let connection =
            expect("a connection", connecting.expect("a valid name")).await.expect("a handshake");
        Self { connection, _endpoint: endpoint }
    }

    /// Connects with settings of QUIC and TLS that may be used again and again, to where a daemon or a network before it listens.
    pub async fn connect_to(server: SocketAddr, config: &ClientConfig) -> Self {
        let endpoint = Endpoint::client(([127, 0, 0, 1], 0).into()).expect("a socket");
        let connecting = endpoint.connect_with(config.clone(), server, "localhost").expect("a valid name");
        Self {
            connection: expect("a connection", connecting).await.expect("a handshake"),
            _endpoint: endpoint,
        }
    }

    /// Begins a connection in early data. The settings must have a ticket from an earlier one.
    pub fn begin_early(server: SocketAddr, config: &ClientConfig) -> (Self, ZeroRttAccepted) {
        let endpoint = Endpoint::client(([127, 0, 0, 1], 0).into()).expect("a socket");
        let connecting = endpoint.connect_with(config.clone(), server, "localhost").expect("a valid name");
        let (connection, accepted) = connecting.into_0rtt().expect("a ticket");
        (Self { connection, _endpoint: endpoint }, accepted)
    }

    /// Connects and says hello with a token.
    pub async fn resume(address: &Address, token: &[u8]) -> Self {
        Self::connect(address).await.resumed(token).await
    }

    /// Says hello with a token, which must be welcome.
    pub async fn resumed(self, token: &[u8]) -> Self {
        let reply = self.hello(hello(token)).await;
        assert!(matches!(reply, v1::hello_reply::Result::Welcome(_)), "{reply:?}");
        self
    }

    /// Says hello and returns the answer.
    pub async fn hello(&self, hello: v1::Hello) -> v1::hello_reply::Result {
        let mut stream = self.open(v1::open::Stream::Hello(hello)).await;
        stream.send.finish().expect("the stream is open");
        stream.next::<v1::HelloReply>().await.result.expect("a result")
    }

    /// Opens a stream without writing anything.
    pub async fn stream(&self) -> RawStream {
        self.try_stream().await.expect("the connection is open")
    }

    /// Opens a stream with its first frame.
    pub async fn open(&self, stream: v1::open::Stream) -> RawStream {
        let mut raw = self.stream().await;
        raw.write(&v1::Open { stream: Some(stream) }).await;
        raw
    }

    /// Opens the publish lane.
    pub async fn publish(&self) -> RawStream {
        self.open(v1::open::Stream::Publish(v1::OpenPublish {})).await
    }

    /// Opens the feed lane.
    pub async fn attach(&self, number: u64, cursors: Vec<v1::Cursor>) -> RawStream {
        self.open(v1::open::Stream::Feed(v1::Attach { number, cursors, set_aside: vec![] })).await
    }

    /// Makes a request and returns the answer.
    pub async fn request(&self, command: v1::request::Command) -> v1::response::Result {
        self.try_request(command).await.expect("an answer")
    }

    /// Makes a request and returns the answer, or `None` if the connection ends meanwhile.
    pub async fn try_request(&self, command: v1::request::Command) -> Option<v1::response::Result> {
        let request = v1::open::Stream::Request(v1::Request { command: Some(command) });
        let open = v1::Open { stream: Some(request) };
        let mut stream = self.try_stream().await?;
        stream.try_bytes(frame::to_bytes(&open)).await?;
        stream.send.finish().ok()?;
        stream.read::<v1::Response>().await?.result
    }

    /// Opens a stream without writing anything, or returns `None` if the connection ends meanwhile.
    pub async fn try_stream(&self) -> Option<RawStream> {
        let (send, recv) = expect("a stream", self.connection.open_bi()).await.ok()?;
        Some(RawStream { send, recv, buffer: BytesMut::new() })
    }

    /// Waits for the daemon to close the connection and returns the reason in its code.
    pub async fn closed(&self) -> v1::Reason {
        match expect("the connection to be closed", self.connection.closed()).await {
            quinn::ConnectionError::ApplicationClosed(closed) => {
                quail_protocol::error::close::reason(closed.error_code.into_inner())
                    .expect("a code with a reason")
            }
            other => panic!("expected a close with a code, got {other}"),
        }
    }
}

impl RawStream {
    /// Writes a message as one frame.
    pub async fn write<M: Message>(&mut self, message: &M) {
        self.bytes(frame::to_bytes(message)).await;
    }

    /// Writes bytes as they are.
    pub async fn bytes(&mut self, bytes: Bytes) {
        self.send.write_chunk(bytes).await.expect("the stream is open");
    }

    /// Writes bytes as they are, or returns `None` if the stream or its connection has ended.
    pub async fn try_bytes(&mut self, bytes: Bytes) -> Option<()> {
        expect("room to write", self.send.write_chunk(bytes)).await.ok()
    }

    /// Returns the next frame, which must come.
    pub async fn next<M: Message + Default>(&mut self) -> M {
        self.read().await.expect("a frame, not the end of the stream")
    }

    /// Returns the next frame, or `None` at the end of the stream or when it was reset.
    pub async fn read<M: Message + Default>(&mut self) -> Option<M> {
        loop {
            if let Some(message) = frame::decode(&mut self.buffer, FRAME_BYTES_MAX).expect("a valid frame") {
                return Some(message);
            }
            match expect("a frame", self.recv.read_chunk(FRAME_BYTES_MAX, true)).await {
                Ok(Some(chunk)) => self.buffer.extend_from_slice(&chunk.bytes),
                Ok(None) | Err(_) => return None,
            }
        }
    }

    /// Sends a message on a publish lane and returns the answer.
    pub async fn say(&mut self, send: v1::Send) -> v1::publish_down::Frame {
        self.write(&v1::PublishUp { frame: Some(v1::publish_up::Frame::Send(send)) }).await;
        self.next::<v1::PublishDown>().await.frame.expect("an answer")
    }

    /// Acknowledges on a feed lane.
    pub async fn ack(&mut self, origin: u32, position: u64) {
        let ack = v1::Ack { upto: vec![v1::Cursor { origin, position }], set_aside: vec![] };
        self.write(&v1::FeedUp { frame: Some(v1::feed_up::Frame::Ack(ack)) }).await;
    }

    /// Returns the next frame of a feed lane.
    pub async fn feed(&mut self) -> v1::feed_down::Frame {
        self.next::<v1::FeedDown>().await.frame.expect("a frame of the feed")
    }
}

/// Returns settings of a client that accepts any certificate.
pub fn client_config(transport: TransportConfig) -> ClientConfig {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("TLS 1.3")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyCertificate))
        .with_no_client_auth();
    tls.alpn_protocols = vec![ALPN.to_vec()];
    tls.enable_early_data = true;
    let mut config = ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).expect("QUIC settings")));
    config.transport_config(Arc::new(transport));
    config
}

/// Returns a hello of the present version.
pub fn hello(token: &[u8]) -> v1::Hello {
    let session_token = Bytes::copy_from_slice(token);
    v1::Hello { version_min: 1, version_max: 1, client_name: "raw".to_owned(), session_token }
}

/// Returns a send with a new id.
pub fn send(number: u64, recipient: quail_protocol::id::AccountId, body: &str) -> v1::Send {
    let id = Bytes::copy_from_slice(uuid::Uuid::now_v7().as_bytes());
    let (kind, body) = (v1::BodyKind::PlainText as i32, Bytes::copy_from_slice(body.as_bytes()));
    v1::Send { number, id, recipient: recipient.to_bytes(), kind, body, ..v1::Send::default() }
}

#[derive(Debug)]
struct AnyCertificate;

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        rustls::crypto::aws_lc_rs::default_provider().signature_verification_algorithms.supported_schemes()
    }
}

//! A server whose every word is written by the test.
//!
//! It speaks QUIC and frames and knows nothing else: a test accepts a connection, takes the streams it expects and says
//! what the server says. So each scene is spelled out in the test, and nothing depends on luck or on time.
//!
//! Invariant: everything that waits, waits at most [`PATIENCE`] and then fails the test.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use prost::Message;
use quail_client::{
    AccountId, Address, Client, Credentials, DeviceId, Options, Pin, Reason, SessionToken, Store,
};
use quail_protocol::v1::{
    self, event, feed_down, feed_up, hello_reply, open, publish_down, publish_up, request,
};
use quail_protocol::{error::close, frame, limits};
use sha2::{Digest, Sha256};

/// How long anything may take. Only a test that fails takes so long.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) const ME: AccountId = AccountId([0xa; 16]);
pub(crate) const PEER: AccountId = AccountId([0xb; 16]);

/// Waits for what must come.
pub(crate) async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("it came in time")
}

pub(crate) fn credentials() -> Credentials {
    Credentials {
        account: ME,
        device: DeviceId([0xd; 16]),
        handle: "ada".into(),
        token: SessionToken::from_bytes([7; 32]),
    }
}

/// Options whose pauses are short, so that nobody waits for them.
pub(crate) fn options() -> Options {
    Options {
        backoff_min: Duration::from_millis(1),
        backoff_max: Duration::from_millis(10),
        connect_timeout: PATIENCE,
        close_timeout: PATIENCE,
        ..Options::default()
    }
}

/// A port with a certificate.
pub(crate) struct FakeServer {
    endpoint: quinn::Endpoint,
    pub(crate) address: Address,
}

impl FakeServer {
    pub(crate) fn start() -> Self {
        Self::start_with(quail_protocol::ALPN, None)
    }

    /// Starts a server that speaks another protocol or prefers another key exchange.
    pub(crate) fn start_with(alpn: &[u8], groups: Option<&[rustls::NamedGroup]>) -> Self {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        Self::start_as(&made.cert, &made.signing_key, &made.signing_key, alpn, groups)
    }

    /// Starts a server that shows a certificate and signs with another key.
    pub(crate) fn start_impostor() -> Self {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let other = rcgen::KeyPair::generate().unwrap();
        Self::start_as(&made.cert, &made.signing_key, &other, quail_protocol::ALPN, None)
    }

    fn start_as(
        certificate: &rcgen::Certificate,
        pinned: &rcgen::KeyPair,
        signing: &rcgen::KeyPair,
        alpn: &[u8],
        groups: Option<&[rustls::NamedGroup]>,
    ) -> Self {
        let pin = Sha256::digest(rcgen::PublicKeyData::subject_public_key_info(pinned));
        let mut provider = rustls::crypto::aws_lc_rs::default_provider();
        if let Some(groups) = groups {
            provider.kx_groups.retain(|group| groups.contains(&group.name()));
        }
        let key = rustls::pki_types::PrivatePkcs8KeyDer::from(signing.serialize_der());
        let key = provider.key_provider.load_private_key(key.into()).unwrap();
        // Unlike the usual way, this does not check that the key is the certificate's.
        let shown = rustls::sign::CertifiedKey::new(vec![certificate.der().clone()], key);
        let mut tls = rustls::ServerConfig::builder_with_provider(Arc::new(provider))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(shown)));
        tls.alpn_protocols = vec![alpn.to_vec()];
        let tls = quinn::crypto::rustls::QuicServerConfig::try_from(tls).unwrap();
        let config = quinn::ServerConfig::with_crypto(Arc::new(tls));
        let endpoint = quinn::Endpoint::server(config, ([127, 0, 0, 1], 0).into()).unwrap();
        let address = Address {
            handle: None,
            host: "127.0.0.1".into(),
            port: endpoint.local_addr().unwrap().port(),
            pin: Some(Pin(pin.into())),
        };
        Self { endpoint, address }
    }

    /// Waits for the next connection.
    pub(crate) async fn accept(&self) -> Peer {
        let incoming = soon(self.endpoint.accept()).await.expect("the endpoint is open");
        let connection = soon(incoming.accept().unwrap()).await.expect("the handshake succeeds");
        Peer { connection, streams: VecDeque::new(), keep: Vec::new() }
    }

    /// Waits for the next connection attempt, whatever becomes of it.
    pub(crate) async fn accept_failing(&self) -> quinn::ConnectionError {
        let incoming = soon(self.endpoint.accept()).await.expect("the endpoint is open");
        soon(incoming.accept().unwrap()).await.map(|_| ()).expect_err("the handshake fails")
    }

    /// Turns the next connection attempt down.
    pub(crate) async fn turn_down(&self) {
        soon(self.endpoint.accept()).await.expect("the endpoint is open").refuse();
    }

    /// Waits for the next connection and welcomes it.
    pub(crate) async fn welcome(&self) -> Peer {
        let mut peer = self.accept().await;
        peer.welcome().await;
        peer
    }

    /// Opens a client with the usual options and a store, and its first connection.
    pub(crate) async fn client(&self, store: impl Store) -> (Client, Peer) {
        self.client_with(store, options()).await
    }

    pub(crate) async fn client_with(&self, store: impl Store, options: Options) -> (Client, Peer) {
        let credentials = credentials();
        let opening = Client::open(&self.address, &credentials, store, options);
        let (client, peer) = tokio::join!(soon(opening), self.welcome());
        (client.expect("the client opens"), peer)
    }
}

/// A client as the server sees it.
pub(crate) struct Peer {
    pub(crate) connection: quinn::Connection,
    /// Opened and not yet asked for.
    streams: VecDeque<(open::Stream, Lane)>,
    /// Answered streams: dropping them would stop them.
    keep: Vec<Lane>,
}

impl Peer {
    /// Takes the first stream of a kind, in the order in which they were opened.
    async fn stream<T>(&mut self, mut pick: impl FnMut(&open::Stream) -> Option<T>) -> (T, Lane) {
        loop {
            let found = self.streams.iter().position(|(stream, _)| pick(stream).is_some());
            if let Some(lane) = found.and_then(|index| self.streams.remove(index)) {
                return (pick(&lane.0).unwrap(), lane.1);
            }
            let (send, receive) = soon(self.connection.accept_bi()).await.expect("a stream is opened");
            let mut lane = Lane { send, receive, buffer: BytesMut::new() };
            let open: v1::Open = lane.read().await;
            self.streams.push_back((open.stream.expect("a stream says what it is"), lane));
        }
    }

    pub(crate) async fn hello(&mut self) -> (v1::Hello, Lane) {
        self.stream(|stream| match stream {
            open::Stream::Hello(hello) => Some(hello.clone()),
            _ => None,
        })
        .await
    }

    pub(crate) async fn welcome(&mut self) -> v1::Hello {
        let (hello, mut lane) = self.hello().await;
        let account = if hello.session_token.is_empty() { Bytes::new() } else { ME.to_bytes() };
        let welcome =
            v1::Welcome { version: 1, server_name: "fake 1".into(), account, ..v1::Welcome::default() };
        lane.write(&v1::HelloReply { result: Some(hello_reply::Result::Welcome(welcome)) }).await;
        lane.send.finish().unwrap();
        self.keep.push(lane);
        hello
    }

    pub(crate) async fn refuse_hello(&mut self, error: v1::Error) {
        let (_, mut lane) = self.hello().await;
        lane.write(&v1::HelloReply { result: Some(hello_reply::Result::Error(error)) }).await;
        lane.send.finish().unwrap();
        self.keep.push(lane);
    }

    pub(crate) async fn publish(&mut self) -> Lane {
        self.stream(|stream| matches!(stream, open::Stream::Publish(_)).then_some(())).await.1
    }

    pub(crate) async fn feed(&mut self) -> (v1::Attach, Lane) {
        self.stream(|stream| match stream {
            open::Stream::Feed(attach) => Some(attach.clone()),
            _ => None,
        })
        .await
    }

    pub(crate) async fn request(&mut self) -> (request::Command, Lane) {
        self.stream(|stream| match stream {
            open::Stream::Request(request) => request.command.clone(),
            _ => None,
        })
        .await
    }

    /// Answers a request.
    pub(crate) async fn respond(&mut self, mut lane: Lane, result: v1::response::Result) {
        lane.write(&v1::Response { result: Some(result) }).await;
        lane.send.finish().unwrap();
        self.keep.push(lane);
    }

    /// Ends the connection without saying why.
    pub(crate) fn cut(self) {
        self.connection.close(close::DONE.into(), b"");
    }

    pub(crate) fn close(self, reason: Reason) {
        self.connection.close(close::code(reason).into(), b"");
    }

    /// Waits until the client has closed the connection, and returns the code.
    pub(crate) async fn closed(&self) -> u64 {
        match soon(self.connection.closed()).await {
            quinn::ConnectionError::ApplicationClosed(closed) => closed.error_code.into_inner(),
            other => panic!("closed by the client, not {other}"),
        }
    }
}

/// One stream as the server sees it.
pub(crate) struct Lane {
    pub(crate) send: quinn::SendStream,
    receive: quinn::RecvStream,
    buffer: BytesMut,
}

impl Lane {
    /// Waits for the next frame; `None` once the client has finished its side.
    pub(crate) async fn next<M: Message + Default>(&mut self) -> Option<M> {
        loop {
            if let Some(message) = frame::decode(&mut self.buffer, limits::FRAME_BYTES_MAX).unwrap() {
                return Some(message);
            }
            let chunk = soon(self.receive.read_chunk(1 << 20, true)).await.expect("the stream is open")?;
            self.buffer.extend_from_slice(&chunk.bytes);
        }
    }

    pub(crate) async fn read<M: Message + Default>(&mut self) -> M {
        self.next().await.expect("a frame, not the end")
    }

    pub(crate) async fn write(&mut self, message: &impl Message) {
        soon(self.send.write_all(&frame::to_bytes(message))).await.expect("the client reads");
    }

    // The publish lane.

    pub(crate) async fn read_up(&mut self) -> publish_up::Frame {
        self.read::<v1::PublishUp>().await.frame.unwrap()
    }

    pub(crate) async fn read_send(&mut self) -> v1::Send {
        match self.read_up().await {
            publish_up::Frame::Send(send) => send,
            publish_up::Frame::Restart(_) => panic!("a send, not a restart"),
        }
    }

    pub(crate) async fn accept(&mut self, number: u64) {
        let accepted = v1::Accepted { number, origin: 1, position: 100 + number, stamp: 1000 + number };
        self.write(&v1::PublishDown { frame: Some(publish_down::Frame::Accepted(accepted)) }).await;
    }

    pub(crate) async fn refuse(&mut self, number: u64, error: v1::Error) {
        let refused = v1::Refused { number, error: Some(error) };
        self.write(&v1::PublishDown { frame: Some(publish_down::Frame::Refused(refused)) }).await;
    }

    // The feed lane.

    pub(crate) async fn down(&mut self, frame: feed_down::Frame) {
        self.write(&v1::FeedDown { frame: Some(frame) }).await;
    }

    /// Sends a message of the peer whose text is its position.
    pub(crate) async fn message(&mut self, position: u64) {
        self.event(position, Some(event::Body::Message(message(position)))).await;
    }

    pub(crate) async fn event(&mut self, position: u64, body: Option<event::Body>) {
        let event = v1::Event { origin: 1, position, stamp: 5000 + position, body };
        self.down(feed_down::Frame::Event(event)).await;
    }

    pub(crate) async fn receipt(&mut self, position: u64, after: u64, upto: u64) {
        let kind = v1::ReceiptKind::Delivered as i32;
        let (account, sender) = (PEER.to_bytes(), bytes::Bytes::new());
        let receipt = v1::Receipt { kind, account, origin: 1, after, upto, sender };
        self.event(position, Some(event::Body::Receipt(receipt))).await;
    }

    /// Reads acknowledgements until one reaches a position; none may pass it.
    pub(crate) async fn read_acks_upto(&mut self, position: u64) {
        loop {
            let Some(feed_up::Frame::Ack(ack)) = self.read::<v1::FeedUp>().await.frame else {
                continue;
            };
            let cursor = ack.upto.iter().find(|cursor| cursor.origin == 1).expect("a cursor of origin 1");
            assert!(cursor.position <= position, "acknowledged up to {}, not {position}", cursor.position);
            if cursor.position == position {
                return;
            }
        }
    }
}

/// A message of the peer whose text is its number.
pub(crate) fn message(number: u64) -> v1::Message {
    v1::Message {
        id: u128::from(number).to_be_bytes().to_vec().into(),
        sender: PEER.to_bytes(),
        recipient: ME.to_bytes(),
        kind: v1::BodyKind::PlainText as i32,
        body: number.to_string().into(),
        reply_to: None,
    }
}

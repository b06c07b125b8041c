//! Options of a connection, with defaults that suit a person's device.
//!
//! Plain fields and no setters: `Options { client_name: "weather-bot 2".into(), ..Options::default() }`.

use std::net::SocketAddr;
use std::time::Duration;

use quail_protocol::limits::KEEP_ALIVE;

use crate::transport::SharedSocket;

/// How to connect and how long to wait for what.
#[derive(Clone, Debug)]
pub struct Options {
    /// Name and version of the program, for the server's logs; cut at 64 bytes.
    pub client_name: String,
    /// Name of this device for the owner's list of devices, given at sign up and log in; cut at 64 bytes.
    pub device_name: Option<String>,
    /// What this device runs on for the owner's list of devices, as in `android 15`, given at sign up and log in: up to 32
    /// bytes without control characters, else the server refuses with `MALFORMED`. `None`: the system this was built for.
    pub platform: Option<String>,
    /// Longest time for one try to connect, name resolution included; the answer to the hello may take as long again.
    pub connect_timeout: Duration,
    /// Longest time for the answer to one request, reconnecting included.
    pub request_timeout: Duration,
    /// Upper end of the first pause after a connection was lost. Pauses double from here; each is drawn evenly between
    /// zero and its upper end ("full jitter"), so that clients which fell together do not return together.
    pub backoff_min: Duration,
    /// Upper end of the longest pause between two tries to connect.
    pub backoff_max: Duration,
    /// Longest time [`Client::close`](crate::Client::close) waits for unanswered sends.
    pub close_timeout: Duration,
    /// How often a packet is sent when nothing else is. At most a third of the idle timeout of 45 s survives two losses
    /// in a row; longer saves battery. Zero: never.
    pub keep_alive: Duration,
    /// Whether a client that connects again says its hello and sends its messages in its first packets (early data, 0-RTT), if
    /// the server allows it: that saves a round trip. Who records these packets can send them again, and the server takes no
    /// notice; but unlike everything later they are not safe from somebody who learns the server's memory afterwards.
    pub early_data: bool,
    /// Whether [`Client::open`](crate::Client::open) keeps trying while the server cannot be reached, instead of
    /// returning the first temporary error.
    pub wait_for_server: bool,
    /// Whether [`Client::open`](crate::Client::open) reads the queue of the store and sends what is left in it. A client
    /// that only receives, beside another process that sends, says no; the queue is then read by the first send.
    pub resume_queue: bool,
    /// Whether signals may come as datagrams. Without, they come over the feed, behind what is on its way there.
    pub datagrams: bool,
    /// Local UDP address; `None` lets the system choose. Its family must be that of the server's address.
    pub bind_address: Option<SocketAddr>,
    /// A socket shared with other clients of this process, for programs with many clients; overrules `bind_address`.
    pub socket: Option<SharedSocket>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            client_name: concat!("quail-client ", env!("CARGO_PKG_VERSION")).to_owned(),
            device_name: None,
            platform: None,
            connect_timeout: Duration::from_secs(5),
            request_timeout: Duration::from_secs(10),
            backoff_min: Duration::from_millis(200),
            backoff_max: Duration::from_secs(30),
            close_timeout: Duration::from_secs(5),
            keep_alive: KEEP_ALIVE,
            early_data: true,
            wait_for_server: false,
            resume_queue: true,
            datagrams: true,
            bind_address: None,
            socket: None,
        }
    }
}

//! The client SDK of Quail: connect, send, receive, acknowledge, resume.
//!
//! A program logs a device in once ([`Guest`]), keeps its [`Credentials`], and from then on opens a [`Client`] for it.
//! The client stays connected by itself; messages go out through [`Client::send`], events come in through
//! [`Client::events`].
//!
//! ```no_run
//! use quail_client::{Address, Client, Error, Event, Guest, MemoryStore, Options};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let address: Address = "quail://chat.example.org".parse()?;
//! let guest = Guest::connect(&address, Options::default()).await?;
//! let credentials = guest.log_in("ada", "correct horse battery staple").await?;
//!
//! let client = Client::open(&address, &credentials, MemoryStore::new(), Options::default()).await?;
//! let peer = client.look_up("grace").await?;
//! client.send(peer.account, "hello").await?.accepted().await?;
//!
//! let mut events = client.events().await?;
//! loop {
//!     let delivery = events.next().await?;
//!     if let Event::Message(message) = &delivery.event {
//!         println!("{:?}", message.body);
//!     }
//!     delivery.acknowledge();
//! }
//! # }
//! ```
//!
//! # What holds
//!
//! - **Accepted is durable**: [`Sending::accepted`] resolves after the server has the message on disk.
//! - **Send twice is send once**: a message is repeated over reconnects under one identity; it is accepted once.
//! - **Queued is durable**: with a [`FileStore`], what [`Client::send`] has returned is on this machine's disk, and is sent
//!   once, in order, by this client or the next one, whatever happens to the process.
//! - **Delivered until acknowledged, shown once**: an event comes again until the program acknowledges it, over
//!   reconnects and restarts, and never after; one that comes again says so ([`Delivery::attempt`]).
//! - **No event stops a device**: one that three processes died with is set aside ([`Event::SetAside`]).
//! - **Bounded**: every queue, wait and retry has a limit with a name; see [`sending`], [`Options`].
//!
//! # How it is built
//!
//! Decisions are state machines without IO: the queue of sends (`publish/queue.rs`), the arrivals (`feed/inbox.rs`), what
//! is in hand (`feed/hands.rs`), the receipts, the back-off. One driver task per client (`driver/`) does the IO around them; requests (`api/`) run on the
//! caller's task. What crosses from run to run is in [`store`].
//!
//! Invariants: no password, token or body is logged or shown by `Debug`; nothing from the network is trusted without a
//! check; every task is owned by its client.

mod api;
mod backoff;
mod client;
mod content;
mod credentials;
mod driver;
mod error;
mod events;
mod feed;
mod frames;
mod guest;
mod hello;
mod ids;
mod link;
mod message;
mod options;
mod publish;
mod reads;
pub mod sending;
mod shared;
mod signals;
mod socket;
pub mod state;
pub mod store;
mod thread;
mod tls;
pub mod transport;

pub use api::accounts::{PROFILES_MAX, Profile};
pub use api::chat::new_message_id;
pub use api::devices::Device;
pub use api::history::{
    Archived, Conversation, ConversationChange, ConversationFlags, ConversationPager, Direction, Found,
    HistoryMessage, HistoryPager, HistoryPlace, Marker, Page, Remains, SearchPager, SyncPager, SyncState,
    SyncedConversation,
};
pub use api::offline::OfflineQueue;
pub use api::ping::PingReport;
pub use api::privacy::Privacy;
pub use client::Client;
pub use content::{Change, Changed, Content};
pub use credentials::{Credentials, SessionToken};
pub use error::{Error, Refusal, SendError};
pub use events::{Acknowledgement, Delivery, Events};
pub use guest::Guest;
pub use message::{Body, Event, Message, ReadReceipt};
pub use options::Options;
pub use publish::changes::{ChangeError, QueuedMessage, RefusedMessage};
pub use quail_protocol::address::{Address, AddressError, Pin};
pub use quail_protocol::id::{AccountId, DeviceId, MessageId, MessageRef, Origin, Position, Stamp};
pub use quail_protocol::v1::Reason;
pub use sending::{Accepted, Sending};
pub use signals::{Typing, Unread};
pub use state::{ConnectionState, Stats};
pub use store::{FileStore, Mark, MemoryStore, Store, StoreError};
pub use thread::{AWAITED_MESSAGES_MAX, Entry, Thread};

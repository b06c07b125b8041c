//! Every number that both sides of the wire must agree on.
//!
//! They stand in one place because a client sizes its own queues by them: a limit that only the server knew would be
//! found out by being refused. Raising one is compatible; lowering one is a new protocol version.

use std::time::Duration;

/// Longest frame in bytes, without its length prefix.
pub const FRAME_BYTES_MAX: usize = 64 * 1024;

/// Longest frame of a stream whose kind is not known yet and of the hello, in bytes.
pub const OPEN_BYTES_MAX: usize = 8 * 1024;

/// How long one frame may take from its first byte to its last.
pub const FRAME_TIMEOUT: Duration = Duration::from_secs(10);

/// Longest message body in bytes.
pub const BODY_BYTES_MAX: usize = 60 * 1024;

/// Longest reaction in bytes.
pub const REACTION_BYTES_MAX: usize = 32;

/// Shortest and longest handle, in characters.
pub const HANDLE_CHARS: std::ops::RangeInclusive<usize> = 3..=32;

/// Shortest and longest password, in bytes.
pub const PASSWORD_BYTES: std::ops::RangeInclusive<usize> = 8..=1024;

/// Longest name of a device, of a client program or an invite, in bytes. Longer ones are cut, never refused,
/// except invites, which are refused.
pub const NAME_BYTES_MAX: usize = 64;

/// Longest name of what a device runs on, in bytes. Longer ones are refused: a program says this, and no person.
pub const PLATFORM_BYTES_MAX: usize = 32;

/// Length of a session token in bytes.
pub const TOKEN_BYTES: usize = 32;

/// Most devices of one account.
pub const DEVICES_MAX: usize = 32;

/// Most sends of one device without an answer. A duplicate inside this window gets its `Accepted` again.
pub const SENDS_UNANSWERED_MAX: usize = 256;

/// Most events written to a feed and not yet acknowledged.
pub const FEED_WINDOW_EVENTS: usize = 256;

/// Most bytes of events written to a feed and not yet acknowledged; one event more than that is always allowed.
pub const FEED_WINDOW_BYTES: usize = 512 * 1024;

/// Most request streams of one connection at once.
pub const REQUESTS_MAX: usize = 8;

/// Most origins in one attach or acknowledgement.
pub const CURSORS_MAX: usize = 64;

/// Most stretches in one `Read`.
pub const READ_STRETCHES_MAX: usize = 64;

/// Most `Read`s of one feed without an answer.
pub const READS_UNANSWERED_MAX: usize = 16;

/// Most conversations in one page of a list.
pub const CONVERSATIONS_PAGE: usize = 50;

/// Most messages in one page of history, of what was found, or of one conversation of a sync.
pub const HISTORY_PAGE_MAX: usize = 100;

/// Messages in such a page where the question does not say how many.
pub const HISTORY_PAGE: usize = 50;

/// Most conversations in one sync.
pub const SYNC_CONVERSATIONS_MAX: usize = 256;

/// Most bytes of a body in a list of conversations.
pub const PREVIEW_BYTES_MAX: usize = 256;

/// Most bytes of a search text that count.
pub const SEARCH_TEXT_BYTES_MAX: usize = 512;

/// Fewest characters of a word that is searched by its beginning; a shorter one is looked for as a whole word.
pub const SEARCH_PREFIX_MIN: usize = 3;

/// Unread messages are counted up to here.
pub const UNREAD_MAX: usize = 999;

/// How long a question of history waits for the archive.
pub const ARCHIVE_WAIT: Duration = Duration::from_millis(500);

/// Longest signal in bytes.
pub const SIGNAL_BYTES_MAX: usize = 256;

/// How often it is said again that somebody is typing.
pub const TYPING_RENEWAL: Duration = Duration::from_secs(3);

/// How long somebody is typing without its being said again.
pub const TYPING_EXPIRY: Duration = Duration::from_secs(6);

/// Most fields on the first two levels of a frame: its own, and those of the messages directly in it. The fullest frame of
/// today, an attach or acknowledgement with [`CURSORS_MAX`] cursors, has 66; the rest is for fields of later versions.
pub const FIELDS_MAX: usize = 1024;

/// Oldest time inside a message id that is accepted.
pub const ID_AGE_MAX: Duration = Duration::from_secs(60 * 24 * 3600);

/// Furthest time ahead inside a message id that is accepted.
pub const ID_AHEAD_MAX: Duration = Duration::from_secs(24 * 3600);

/// How far a `seen` stamp may be ahead of the server's clock and still be merged.
pub const SEEN_AHEAD_MAX: Duration = Duration::from_secs(11);

/// How long a connection may stay without a session before it is closed.
pub const AUTHENTICATE_TIMEOUT: Duration = Duration::from_secs(10);

/// QUIC idle timeout of both sides: without a packet for so long the connection is gone.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(45);

/// How often a client sends a keep-alive.
pub const KEEP_ALIVE: Duration = Duration::from_secs(20);

//! Properties of the codec that hold for all input, tried with random input.
//!
//! Everything here is fed by peers, so the properties are about what a peer can do to us: cut frames wherever
//! it likes, send bytes that mean nothing, announce what never comes. A case that was found becomes a test of
//! its own beside the code that was wrong; no seeds are kept.
#![allow(clippy::unwrap_used)] // Helpers outside of the test functions; a test that panics has failed.

mod support;

use std::fmt::Debug;
use std::net::Ipv6Addr;

use bytes::{BufMut, Bytes, BytesMut};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use prost::Message;
use quail_protocol::address::{Address, AddressError, Pin};
use quail_protocol::frame::{self, FrameError, PREFIX_BYTES_MAX};
use quail_protocol::id::{AccountId, ConversationId, DeviceId, MessageId, Stamp};
use quail_protocol::limits::{CURSORS_MAX, FRAME_BYTES_MAX};
use quail_protocol::{text, v1};
use uuid::Uuid;

fn config() -> ProptestConfig {
    ProptestConfig { failure_persistence: None, ..ProptestConfig::default() }
}

// Arbitrary messages. Boxed, because strategies nest by value and a test's stack is small.

fn bytes_to(len_max: usize) -> impl Strategy<Value = Bytes> {
    vec(any::<u8>(), 0..=len_max).prop_map(Bytes::from)
}

fn id() -> impl Strategy<Value = Bytes> {
    prop_oneof![9 => any::<[u8; 16]>().prop_map(|id| Bytes::copy_from_slice(&id)), 1 => bytes_to(20)]
}

fn number() -> impl Strategy<Value = u64> {
    prop_oneof![any::<u64>(), 0..300_u64, Just(u64::MAX)]
}

fn body() -> impl Strategy<Value = Bytes> {
    // Around the lengths at which a prefix grows a byte, and short.
    let filled = |len| Bytes::from(vec![b'a'; len]);
    let lengths = prop_oneof![100..140_usize, 16_300..16_400_usize];
    prop_oneof![4 => bytes_to(100), 1 => lengths.prop_map(filled)]
}

fn error() -> BoxedStrategy<v1::Error> {
    (any::<i32>(), any::<String>(), number(), any::<bool>())
        .prop_map(|(reason, text, retry_after_ms, temporary)| v1::Error {
            reason,
            text,
            retry_after_ms,
            temporary,
        })
        .boxed()
}

fn cursors() -> impl Strategy<Value = Vec<v1::Cursor>> {
    vec(
        (any::<u32>(), number()).prop_map(|(origin, position)| v1::Cursor { origin, position }),
        0..CURSORS_MAX,
    )
}

fn reply_to() -> impl Strategy<Value = Option<v1::MessageRef>> {
    option::of((id(), id()).prop_map(|(sender, id)| v1::MessageRef { sender, id }))
}

fn edit() -> impl Strategy<Value = v1::Edit> {
    (id(), any::<i32>(), body()).prop_map(|(id, kind, body)| v1::Edit { id, kind, body })
}

fn delete_for_me() -> impl Strategy<Value = v1::DeleteForMe> {
    (id(), id()).prop_map(|(sender, id)| v1::DeleteForMe { sender, id })
}

fn react() -> impl Strategy<Value = v1::React> {
    (id(), id(), bytes_to(40)).prop_map(|(sender, id, text)| v1::React { sender, id, text })
}

fn sent_change() -> BoxedStrategy<Option<v1::send::Change>> {
    use v1::send::Change as C;
    option::of(prop_oneof![
        edit().prop_map(C::Edit),
        id().prop_map(|id| C::DeleteForAll(v1::DeleteForAll { id })),
        delete_for_me().prop_map(C::DeleteForMe),
        react().prop_map(C::React),
    ])
    .boxed()
}

fn changed() -> BoxedStrategy<v1::Changed> {
    use v1::changed::Change as C;
    let change = option::of(prop_oneof![
        edit().prop_map(C::Edit),
        id().prop_map(|id| C::DeleteForAll(v1::DeleteForAll { id })),
        delete_for_me().prop_map(C::DeleteForMe),
        react().prop_map(C::React),
    ]);
    (id(), id(), id(), change)
        .prop_map(|(id, sender, recipient, change)| v1::Changed { id, sender, recipient, change })
        .boxed()
}

fn publish_up() -> BoxedStrategy<v1::PublishUp> {
    use v1::publish_up::Frame as F;
    let send = (number(), id(), id(), any::<i32>(), body(), number(), reply_to(), sent_change()).prop_map(
        |(number, id, recipient, kind, body, seen, reply_to, change)| {
            F::Send(v1::Send { number, id, recipient, kind, body, seen, reply_to, change })
        },
    );
    option::of(prop_oneof![4 => send, 1 => Just(F::Restart(v1::Restart {}))])
        .prop_map(|frame| v1::PublishUp { frame })
        .boxed()
}

fn publish_down() -> BoxedStrategy<v1::PublishDown> {
    use v1::publish_down::Frame as F;
    let accepted =
        (number(), any::<u32>(), number(), number()).prop_map(|(number, origin, position, stamp)| {
            F::Accepted(v1::Accepted { number, origin, position, stamp })
        });
    let refused =
        (number(), option::of(error())).prop_map(|(number, error)| F::Refused(v1::Refused { number, error }));
    option::of(prop_oneof![accepted, refused]).prop_map(|frame| v1::PublishDown { frame }).boxed()
}

fn event() -> BoxedStrategy<v1::Event> {
    use v1::event::Body as B;
    let message = (id(), id(), id(), any::<i32>(), body(), reply_to()).prop_map(
        |(id, sender, recipient, kind, body, reply_to)| {
            B::Message(v1::Message { id, sender, recipient, kind, body, reply_to })
        },
    );
    let receipt = (any::<i32>(), id(), any::<u32>(), number(), number(), id()).prop_map(
        |(kind, account, origin, after, upto, sender)| {
            B::Receipt(v1::Receipt { kind, account, origin, after, upto, sender })
        },
    );
    (
        any::<u32>(),
        number(),
        number(),
        option::of(prop_oneof![
            2 => message,
            1 => receipt,
            1 => changed().prop_map(B::Changed),
        ]),
    )
        .prop_map(|(origin, position, stamp, body)| v1::Event { origin, position, stamp, body })
        .boxed()
}

fn feed_down() -> BoxedStrategy<v1::FeedDown> {
    use v1::feed_down::Frame as F;
    let gap = (any::<u32>(), number(), number())
        .prop_map(|(origin, from, upto)| F::Gap(v1::Gap { origin, from, upto }));
    option::of(prop_oneof![
        4 => event().prop_map(F::Event),
        1 => gap,
        1 => Just(F::CaughtUp(v1::CaughtUp {})),
        1 => error().prop_map(F::Ended),
        1 => signal().prop_map(F::Signal),
        1 => option::of(error()).prop_map(|error| F::Read(v1::ReadAnswer { error })),
    ])
    .prop_map(|frame| v1::FeedDown { frame })
    .boxed()
}

fn signal() -> BoxedStrategy<v1::Signal> {
    let typing = any::<i32>().prop_map(|state| v1::signal::Body::Typing(v1::Typing { state }));
    let unread = any::<u32>().prop_map(|count| v1::signal::Body::Unread(v1::Unread { count }));
    (id(), id(), number(), option::of(prop_oneof![typing, unread]))
        .prop_map(|(account, device, counter, body)| v1::Signal { account, device, counter, body })
        .boxed()
}

fn feed_up() -> BoxedStrategy<v1::FeedUp> {
    use v1::feed_up::Frame as F;
    let ack = (cursors(), cursors()).prop_map(|(upto, set_aside)| F::Ack(v1::Ack { upto, set_aside }));
    let stretch = (any::<u32>(), number(), number()).prop_map(|(origin, after, upto)| v1::ReadStretch {
        origin,
        after,
        upto,
    });
    let signal = signal().prop_map(F::Signal);
    let read =
        (id(), vec(stretch, 0..5)).prop_map(|(sender, stretches)| F::Read(v1::Read { sender, stretches }));
    option::of(prop_oneof![ack, read, signal]).prop_map(|frame| v1::FeedUp { frame }).boxed()
}

fn request() -> BoxedStrategy<v1::Request> {
    use v1::request::Command as C;
    let text = any::<String>;
    let sign_up = (text(), text(), text(), text(), text()).prop_map(
        |(handle, password, invite, device_name, platform)| {
            C::SignUp(v1::SignUp { handle, password, invite, device_name, platform })
        },
    );
    let log_in = (text(), text(), text(), text()).prop_map(|(handle, password, device_name, platform)| {
        C::LogIn(v1::LogIn { handle, password, device_name, platform })
    });
    let change_password = (text(), text()).prop_map(|(current_password, new_password)| {
        C::ChangePassword(v1::ChangePassword { current_password, new_password })
    });
    let by = prop_oneof![text().prop_map(v1::look_up::By::Handle), id().prop_map(v1::look_up::By::Account)];
    let look_up = option::of(by).prop_map(|by| C::LookUp(v1::LookUp { by }));
    let unlink = id().prop_map(|device| C::UnlinkDevice(v1::UnlinkDevice { device }));
    let empty = prop_oneof![
        Just(C::LogOut(v1::LogOut {})),
        Just(C::Ping(v1::Ping {})),
        Just(C::ListDevices(v1::ListDevices {})),
        Just(C::GetPrivacy(v1::GetPrivacy {})),
    ];
    let privacy = any::<i32>().prop_map(|read_receipts| C::SetPrivacy(v1::SetPrivacy { read_receipts }));
    let accepted = || {
        option::of((any::<u32>(), number()).prop_map(|(origin, position)| v1::Cursor { origin, position }))
    };
    let place =
        || option::of((number(), any::<u32>()).prop_map(|(stamp, origin)| v1::Place { stamp, origin }));
    let history = (id(), any::<i32>(), place(), any::<u32>(), accepted()).prop_map(
        |(peer, direction, place, limit, accepted)| {
            C::History(v1::BrowseHistory { peer, direction, place, limit, accepted })
        },
    );
    let sync = (bytes_to(100), vec(number(), 0..9), any::<u32>(), accepted())
        .prop_map(|(peers, seqs, limit, accepted)| C::Sync(v1::SyncHistory { peers, seqs, limit, accepted }));
    let search = (text(), id(), place(), any::<u32>(), accepted()).prop_map(
        |(text, peer, before, limit, accepted)| {
            C::Search(v1::SearchHistory { text, peer, before, limit, accepted })
        },
    );
    let reading = prop_oneof![history, sync, search];
    option::of(prop_oneof![sign_up, log_in, change_password, unlink, look_up, privacy, empty, reading])
        .prop_map(|command| v1::Request { command })
        .boxed()
}

fn open() -> BoxedStrategy<v1::Open> {
    use v1::open::Stream as S;
    let hello = (any::<u32>(), any::<u32>(), any::<String>(), bytes_to(40)).prop_map(
        |(version_min, version_max, client_name, session_token)| {
            S::Hello(v1::Hello { version_min, version_max, client_name, session_token })
        },
    );
    let attach = (number(), cursors(), cursors())
        .prop_map(|(number, cursors, set_aside)| S::Feed(v1::Attach { number, cursors, set_aside }));
    let publish = Just(S::Publish(v1::OpenPublish {}));
    option::of(prop_oneof![hello, attach, publish, request().prop_map(S::Request)])
        .prop_map(|stream| v1::Open { stream })
        .boxed()
}

fn response() -> BoxedStrategy<v1::Response> {
    use v1::response::Result as R;
    let session = (bytes_to(40), id(), id(), any::<String>()).prop_map(|(token, account, device, handle)| {
        R::Session(v1::Session { token, account, device, handle })
    });
    let profile =
        (id(), any::<String>()).prop_map(|(account, handle)| R::Profile(v1::Profile { account, handle }));
    let pong = number().prop_map(|server_time_ms| R::Pong(v1::Pong { server_time_ms }));
    let device = (id(), any::<String>(), any::<String>(), number(), number(), any::<bool>()).prop_map(
        |(id, name, platform, created_ms, last_seen_ms, current)| v1::Device {
            id,
            name,
            platform,
            created_ms,
            last_seen_ms,
            current,
        },
    );
    let devices = vec(device, 0..4).prop_map(|devices| R::Devices(v1::Devices { devices }));
    let done = Just(R::Done(v1::Done {}));
    let privacy = any::<i32>().prop_map(|read_receipts| R::Privacy(v1::Privacy { read_receipts }));
    option::of(prop_oneof![error().prop_map(R::Error), session, done, profile, pong, devices, privacy])
        .prop_map(|result| v1::Response { result })
        .boxed()
}

fn hello_reply() -> BoxedStrategy<v1::HelloReply> {
    use v1::hello_reply::Result as R;
    let limits = any::<[u32; 5]>().prop_map(|numbers| v1::Limits {
        frame_bytes_max: numbers[0],
        body_bytes_max: numbers[1],
        sends_unanswered_max: numbers[2],
        feed_window_events: numbers[3],
        requests_max: numbers[4],
    });
    let text = any::<String>;
    let welcome = (any::<u32>(), option::of(limits), number(), text(), id(), id(), text()).prop_map(
        |(version, limits, server_time_ms, server_name, account, device, handle)| {
            R::Welcome(v1::Welcome { version, limits, server_time_ms, server_name, account, device, handle })
        },
    );
    option::of(prop_oneof![welcome, error().prop_map(R::Error)])
        .prop_map(|result| v1::HelloReply { result })
        .boxed()
}

// What arrives.

/// Lengths of the chunks in which bytes arrive; used round and round.
fn cuts() -> impl Strategy<Value = Vec<usize>> {
    vec(prop_oneof![Just(1), 1..20_usize, 1..5_000_usize], 1..10)
}

/// Hands `bytes` over in chunks, and what is a whole frame then to `each`, until the stream ends or fails.
fn arrive(
    mut bytes: &[u8],
    cuts: &[usize],
    max: usize,
    mut each: impl FnMut(&mut BytesMut) -> Result<bool, FrameError>,
) -> Result<(), FrameError> {
    let mut buffer = BytesMut::new();
    // What the buffer has been given by us may be used again; only what a peer makes us add counts.
    let mut bound = max + PREFIX_BYTES_MAX;
    for cut in cuts.iter().cycle() {
        if bytes.is_empty() {
            break;
        }
        let (chunk, rest) = bytes.split_at(bytes.len().min(*cut));
        buffer.extend_from_slice(chunk);
        bytes = rest;
        bound = bound.max(buffer.capacity());
        loop {
            let more = each(&mut buffer);
            assert!(buffer.capacity() <= bound, "{} bytes held, {bound} allowed", buffer.capacity());
            if !more? {
                break;
            }
        }
    }
    Ok(())
}

fn check_round_trip<M>(messages: &[M], cuts: &[usize]) -> Result<(), TestCaseError>
where
    M: Message + Default + PartialEq + Debug,
{
    let mut bytes = BytesMut::new();
    for message in messages {
        frame::encode(message, &mut bytes);
        prop_assert_eq!(
            &frame::to_bytes(message)[..],
            &bytes[bytes.len() - frame::to_bytes(message).len()..]
        );
    }
    let mut arrived = Vec::new();
    let end = arrive(&bytes, cuts, FRAME_BYTES_MAX, |buffer| {
        let message = frame::decode::<M>(buffer, FRAME_BYTES_MAX)?;
        Ok(message.map(|message| arrived.push(message)).is_some())
    });
    prop_assert_eq!(end, Ok(()));
    prop_assert_eq!(arrived, messages);
    Ok(())
}

/// Bytes that are no frames, or begin like some, or are.
fn noise() -> impl Strategy<Value = Vec<u8>> {
    let framed = (0..FRAME_BYTES_MAX * 2, vec(any::<u8>(), 0..400)).prop_map(|(len, bytes)| {
        let mut buffer = BytesMut::new();
        frame::put_prefix(len, &mut buffer);
        buffer.extend_from_slice(&bytes);
        buffer.to_vec()
    });
    let whole = vec(any::<u8>(), 0..400).prop_map(|bytes| {
        let mut buffer = BytesMut::new();
        frame::put_prefix(bytes.len(), &mut buffer);
        buffer.extend_from_slice(&bytes);
        buffer.to_vec()
    });
    vec(prop_oneof![vec(any::<u8>(), 0..400), framed, whole], 0..6).prop_map(|parts| parts.concat())
}

/// Bytes that were a message before somebody changed some of them.
fn damaged() -> impl Strategy<Value = Vec<u8>> {
    let message = prop_oneof![
        open().prop_map(|message| message.encode_to_vec()),
        hello_reply().prop_map(|message| message.encode_to_vec()),
        response().prop_map(|message| message.encode_to_vec()),
        publish_up().prop_map(|message| message.encode_to_vec()),
        publish_down().prop_map(|message| message.encode_to_vec()),
        feed_up().prop_map(|message| message.encode_to_vec()),
        feed_down().prop_map(|message| message.encode_to_vec()),
    ];
    (message, vec((any::<prop::sample::Index>(), any::<u8>()), 0..6)).prop_map(|(mut bytes, changes)| {
        for (index, byte) in changes.into_iter().filter(|_| !bytes.is_empty()).collect::<Vec<_>>() {
            let at = index.index(bytes.len());
            bytes[at] = byte;
        }
        bytes
    })
}

macro_rules! every_message {
    ($($message:ident)*) => {
        const EVERY_MESSAGE: &[&str] = &[$(stringify!($message)),*];

        /// Decodes `bytes` as each message there is; what can be decoded can be encoded again and is then the
        /// same.
        fn decode_as_each(bytes: &[u8]) {
            $(
                if let Ok(message) = v1::$message::decode(bytes) {
                    assert_eq!(v1::$message::decode(&*message.encode_to_vec()).as_ref(), Ok(&message));
                }
            )*
        }
    };
}

every_message! {
    Accepted Ack Archived ArchivedMessage ArchivedReaction Attach BrowseHistory CaughtUp ChangePassword
    Changed Conversation ConversationKey Conversations Cursor DeleteForAll DeleteForMe Device Devices Done
    Edit Error Event FeedDown FeedUp FoundMessage Gap GetPrivacy Hello HelloReply History Limits
    ListConversations ListDevices LogIn LogOut LookUp Marker Message MessageRef Open OpenPublish Ping Place
    Pong Privacy Profile PublishDown PublishUp React Read ReadAnswer ReadStretch Receipt Refused Request
    Response Restart SearchHistory SearchResults Send Session SetConversation SetPrivacy SignUp Signal
    SyncHistory Synced SyncedConversation Typing UnlinkDevice Unread Welcome
}

#[test]
fn no_message_is_left_out() {
    let messages: Vec<String> = support::messages().into_keys().collect();
    assert_eq!(messages, EVERY_MESSAGE);
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn whatever_a_client_opens_arrives(messages in vec(open(), 0..5), cuts in cuts()) {
        check_round_trip(&messages, &cuts)?;
    }

    #[test]
    fn whatever_is_answered_arrives(
        replies in vec(hello_reply(), 0..3),
        responses in vec(response(), 0..5),
        cuts in cuts(),
    ) {
        check_round_trip(&replies, &cuts)?;
        check_round_trip(&responses, &cuts)?;
    }

    #[test]
    fn whatever_travels_on_the_publish_lane_arrives(
        up in vec(publish_up(), 0..8),
        down in vec(publish_down(), 0..8),
        cuts in cuts(),
    ) {
        check_round_trip(&up, &cuts)?;
        check_round_trip(&down, &cuts)?;
    }

    #[test]
    fn whatever_travels_on_the_feed_lane_arrives(
        up in vec(feed_up(), 0..5),
        down in vec(feed_down(), 0..8),
        cuts in cuts(),
    ) {
        check_round_trip(&up, &cuts)?;
        check_round_trip(&down, &cuts)?;
    }

    /// The bound on what is reserved is in [`arrive`].
    #[test]
    fn noise_neither_panics_nor_makes_us_hold_more_than_a_frame(
        bytes in noise(),
        cuts in cuts(),
        max in prop_oneof![Just(FRAME_BYTES_MAX), 0..1_000_usize],
    ) {
        let end = arrive(&bytes, &cuts, max, |buffer| {
            let frame = frame::take(buffer, max)?;
            Ok(frame.inspect(|frame| assert!(frame.len() <= max)).is_some())
        });
        let is_known = matches!(end, Ok(()) | Err(FrameError::TooLarge { .. } | FrameError::OverlongPrefix));
        prop_assert!(is_known);
    }

    #[test]
    fn a_frame_on_its_way_is_given_its_own_length_and_no_more(
        len in 1..=FRAME_BYTES_MAX,
        part in any::<prop::sample::Index>(),
    ) {
        let mut buffer = BytesMut::new();
        frame::put_prefix(len, &mut buffer);
        let whole = buffer.len() + len;
        buffer.put_bytes(0, part.index(len));
        let mut arrived = BytesMut::from(&buffer[..]);
        prop_assert_eq!(frame::take(&mut arrived, FRAME_BYTES_MAX), Ok(None));
        prop_assert_eq!(arrived.capacity(), whole);
        prop_assert_eq!(arrived, buffer);
    }

    #[test]
    fn a_frame_above_the_limit_is_refused_before_it_arrives(
        max in 0..FRAME_BYTES_MAX,
        over in prop_oneof![1..100_usize, 1..1_usize << 22, 1..usize::MAX >> 1],
    ) {
        let len = max + over;
        let mut buffer = BytesMut::new();
        frame::put_prefix(len, &mut buffer);
        buffer.truncate(PREFIX_BYTES_MAX);
        let before = buffer.capacity();
        let is_refused = matches!(frame::take(&mut buffer, max), Err(FrameError::TooLarge { .. }));
        prop_assert!(is_refused);
        prop_assert_eq!(buffer.capacity(), before);
    }

    #[test]
    fn a_length_has_no_second_form(len in 0..1_usize << 14, max in 0..1_usize << 14) {
        let mut buffer = BytesMut::new();
        frame::put_prefix(len, &mut buffer);
        *buffer.last_mut().unwrap() |= 0x80;
        buffer.put_u8(0);
        let is_refused = matches!(frame::take(&mut buffer, max), Err(FrameError::OverlongPrefix));
        prop_assert!(is_refused);
    }

    #[test]
    fn no_bytes_make_a_decoder_panic(bytes in prop_oneof![vec(any::<u8>(), 0..200), damaged()]) {
        decode_as_each(&bytes);
    }

    /// A client of this version talks to servers of later ones, and the other way round.
    #[test]
    fn unknown_fields_are_passed_over(
        event in event(),
        field in 1_000..1_u32 << 28,
        payload in bytes_to(50),
    ) {
        let mut bytes = BytesMut::from(&event.encode_to_vec()[..]);
        prost::encoding::bytes::encode(field, &payload, &mut bytes);
        prop_assert_eq!(v1::Event::decode(bytes), Ok(event));
    }
}

// Text.

fn handle() -> impl Strategy<Value = String> {
    "[a-z0-9_.]{3,32}"
}

fn host() -> impl Strategy<Value = String> {
    prop_oneof!["[A-Za-z0-9._-]{1,60}", any::<u128>().prop_map(|bits| Ipv6Addr::from(bits).to_string())]
}

fn address() -> impl Strategy<Value = Address> {
    (option::of(handle()), host(), 1..=u16::MAX, option::of(any::<[u8; 32]>().prop_map(Pin)))
        .prop_map(|(handle, host, port, pin)| Address { handle, host, port, pin })
}

/// Text that is an address, or has been one, or looks like one.
fn nearly_address() -> impl Strategy<Value = String> {
    let damaged = (address(), any::<prop::sample::Index>(), any::<char>()).prop_map(|(address, index, c)| {
        let mut text: Vec<char> = address.to_string().chars().collect();
        let at = index.index(text.len());
        text[at] = c;
        text.into_iter().collect()
    });
    prop_oneof![any::<String>(), "quail://[a-z:@/?=\\[\\]0-9+ -]{0,40}", damaged]
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn an_address_is_read_as_it_was_written(address in address()) {
        prop_assert_eq!(address.to_string().parse::<Address>(), Ok(address));
    }

    #[test]
    fn text_that_is_an_address_has_one_written_form(text in nearly_address()) {
        if let Ok(address) = text.parse::<Address>() {
            let written = address.to_string();
            prop_assert_eq!(written.parse::<Address>(), Ok(address));
        }
    }

    #[test]
    fn a_port_has_digits_only(port in "[0-9+ -]{0,6}") {
        let is_port = port.parse::<u16>().is_ok_and(|number| number != 0)
            && port.bytes().all(|byte| byte.is_ascii_digit());
        let address = format!("quail://localhost:{port}?pin=sha256:{}", "0".repeat(64)).parse::<Address>();
        prop_assert_eq!(address.is_ok(), is_port, "{:?}", address);
        prop_assert!(is_port || address == Err(AddressError::Port(port)));
    }

    #[test]
    fn a_pin_is_read_in_either_case(bytes in any::<[u8; 32]>()) {
        let pin = Pin(bytes);
        let digits = pin.to_string().trim_start_matches("sha256:").to_uppercase();
        prop_assert_eq!(format!("sha256:{digits}").parse::<Pin>(), Ok(pin));
    }

    #[test]
    fn handles_are_what_their_pattern_says(
        text in prop_oneof![any::<String>(), "[a-z0-9_.A-Z -]{0,40}", handle()],
    ) {
        let is_handle = (3..=32).contains(&text.chars().count())
            && text.chars().all(|c| "abcdefghijklmnopqrstuvwxyz0123456789_.".contains(c));
        prop_assert_eq!(text::is_handle(&text), is_handle);
    }

    #[test]
    fn a_password_is_measured_in_bytes(
        text in prop_oneof![any::<String>(), "[a-zäö]{0,12}", "[a-z]{1000,1050}"],
    ) {
        prop_assert_eq!(text::is_password(&text), text.len() >= 8 && text.len() <= 1024);
    }

    #[test]
    fn a_cut_name_is_as_long_as_it_may_be(name in any::<String>(), max in 0..80_usize) {
        let cut = text::cut(&name, max);
        prop_assert!(name.starts_with(cut) && cut.len() <= max);
        let next = name[cut.len()..].chars().next();
        prop_assert!(next.is_none_or(|next| cut.len() + next.len_utf8() > max));
    }
}

// Ids and stamps.

proptest! {
    #![proptest_config(config())]

    #[test]
    fn a_message_id_tells_when_it_was_minted(ms in 0..1_u64 << 48, random in any::<[u8; 10]>()) {
        let id = uuid::Builder::from_unix_timestamp_millis(ms, &random).into_uuid();
        prop_assert_eq!(MessageId(*id.as_bytes()).unix_ms(), Some(ms));
    }

    #[test]
    fn only_version_7_of_the_right_variant_has_a_time(bytes in any::<[u8; 16]>()) {
        let uuid = Uuid::from_bytes(bytes);
        let is_version_7 = uuid.get_version_num() == 7 && uuid.get_variant() == uuid::Variant::RFC4122;
        prop_assert_eq!(MessageId(bytes).unix_ms().is_some(), is_version_7);
    }

    #[test]
    fn ids_are_read_as_they_were_written(bytes in any::<[u8; 16]>()) {
        prop_assert_eq!(AccountId(bytes).to_string().parse::<AccountId>().ok(), Some(AccountId(bytes)));
        prop_assert_eq!(DeviceId::try_from(&DeviceId(bytes).to_bytes()[..]), Ok(DeviceId(bytes)));
        let id = ConversationId(bytes);
        prop_assert_eq!(id.as_bytes(), &bytes);
    }

    #[test]
    fn an_id_has_16_bytes(bytes in vec(any::<u8>(), 0..40)) {
        prop_assert_eq!(MessageId::try_from(&bytes[..]).is_ok(), bytes.len() == 16);
    }

    #[test]
    fn stamps_sort_by_time_and_then_by_counter(
        a in (0..1_u64 << 48, any::<u16>()),
        b in (0..1_u64 << 48, any::<u16>()),
    ) {
        let stamp = |(ms, counter): (u64, u16)| Stamp(Stamp::from_ms(ms).0 + u64::from(counter));
        prop_assert_eq!(stamp(a).cmp(&stamp(b)), a.cmp(&b));
        prop_assert_eq!(stamp(a).unix_ms(), a.0);
    }
}

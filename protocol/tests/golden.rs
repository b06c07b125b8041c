//! Golden vectors: the bytes of every message as it travels, frame and all.
//!
//! Why: a client that somebody built last year must still be understood. Each file in `golden/` is such a
//! client's bytes; the values below are what they mean. The vectors were written by an encoder that shares
//! nothing with ours.
//!
//! - Plain names travel both ways: the value is encoded to exactly these bytes, and they are decoded to the
//!   value.
//! - `future_*` is what later versions may send: it is decoded to the value, what is unknown being passed
//!   over.
//! - `bad_*` is refused.
//!
//! To ADD a vector, write its value here and run the test, which prints the bytes that are missing. Check
//! them by hand against the proto file, field by field, and note each field behind its bytes as the other
//! files do: a vector that was only copied from the encoder proves nothing. A vector is never changed and
//! never removed; where one no longer fits, it is the code that is wrong, or the protocol has a new version
//! and the vectors have a new directory.
// Helpers outside of the test functions: a test that panics has failed.
#![allow(clippy::unwrap_used, clippy::panic)]

#[path = "golden/history.rs"]
mod history;
mod support;

use std::collections::BTreeSet;
use std::fmt::{Debug, Write};

use bytes::{Bytes, BytesMut};
use prost::Message;
use quail_protocol::frame::{self, FrameError};
use quail_protocol::id::{AccountId, DeviceId, MessageId, Stamp};
use quail_protocol::limits::{BODY_BYTES_MAX, FRAME_BYTES_MAX, OPEN_BYTES_MAX};
use quail_protocol::v1::{self, Reason};

/// What must hold of the bytes of a file.
type Check = Box<dyn Fn(&[u8])>;

/// A vector: the name of its file and what must hold of it.
struct Vector {
    name: &'static str,
    check: Check,
    /// What the file should hold, where we can say.
    encoded: Option<Bytes>,
}

/// A message that we send and receive.
fn both_ways<M: Message + Default + PartialEq + Debug + 'static>(name: &'static str, value: M) -> Vector {
    let encoded = frame::to_bytes(&value);
    let expected = encoded.clone();
    let check = move |bytes: &[u8]| {
        assert_eq!(value, decode::<M>(name, bytes).unwrap(), "{name} is decoded to another value");
        assert!(expected == bytes, "{name} is encoded to other bytes:\n{}", dump(&expected));
    };
    Vector { name, check: Box::new(check), encoded: Some(encoded) }
}

/// A message that we never send as it stands, but understand.
fn one_way<M: Message + Default + PartialEq + Debug + 'static>(name: &'static str, value: M) -> Vector {
    let check = move |bytes: &[u8]| {
        assert_eq!(value, decode::<M>(name, bytes).unwrap(), "{name} is decoded to another value");
    };
    Vector { name, check: Box::new(check), encoded: None }
}

/// Bytes that are refused where an `M` is expected.
fn refused<M: Message + Default + Debug + 'static>(
    name: &'static str,
    is_expected: fn(&FrameError) -> bool,
) -> Vector {
    let check = move |bytes: &[u8]| match decode::<M>(name, bytes) {
        Err(error) => assert!(is_expected(&error), "{name} is refused for another reason: {error}"),
        Ok(value) => panic!("{name} is decoded to {value:?}"),
    };
    Vector { name, check: Box::new(check), encoded: None }
}

fn decode<M: Message + Default>(name: &str, bytes: &[u8]) -> Result<M, FrameError> {
    let max = if name.starts_with("open_") { OPEN_BYTES_MAX } else { FRAME_BYTES_MAX };
    let mut buffer = BytesMut::from(bytes);
    let value = frame::decode(&mut buffer, max)?;
    assert!(buffer.is_empty(), "{name} has bytes behind its frame");
    Ok(value.unwrap_or_else(|| panic!("{name} is no whole frame")))
}

fn dump(bytes: &[u8]) -> String {
    let mut text = String::new();
    for line in bytes.chunks(16) {
        line.iter().for_each(|byte| write!(text, "{byte:02x} ").unwrap());
        text.push('\n');
    }
    text
}

// The people of the vectors. All times are on the first of January 2026.

fn account(id: &str) -> Bytes {
    id.parse::<AccountId>().unwrap().to_bytes()
}

fn ada() -> Bytes {
    account("019b76da-a800-7000-8000-000000000ada")
}

fn bob() -> Bytes {
    account("019b76da-a800-7000-8000-000000000b0b")
}

fn laptop() -> Bytes {
    "019b76da-a800-7000-8000-0000000de71c".parse::<DeviceId>().unwrap().to_bytes()
}

fn phone() -> Bytes {
    "019b76da-a800-7000-8000-000000000f0e".parse::<DeviceId>().unwrap().to_bytes()
}

fn message_id(id: &str) -> Bytes {
    id.parse::<MessageId>().unwrap().to_bytes()
}

fn ada_wrote() -> Bytes {
    message_id("019b76da-ac96-774b-bcce-b302099a8057")
}

fn bob_wrote() -> Bytes {
    message_id("019b76da-a990-7c41-9a5e-0123456789ab")
}

/// The id of a change that Ada made.
fn ada_changed() -> Bytes {
    message_id("019b76da-b3d0-7d00-8000-0000000c4a9e")
}

fn bobs_message() -> v1::MessageRef {
    v1::MessageRef { sender: bob(), id: bob_wrote() }
}

fn edit() -> v1::Edit {
    let body = Bytes::from_static(b"hello, Bob");
    v1::Edit { id: ada_wrote(), kind: v1::BodyKind::PlainText.into(), body }
}

fn react(text: &'static str) -> v1::React {
    v1::React { sender: bob(), id: bob_wrote(), text: Bytes::from_static(text.as_bytes()) }
}

fn token() -> Bytes {
    (0xa0..0xc0).collect()
}

const MIDNIGHT_MS: u64 = 1_767_225_600_000;

fn bob_stamp() -> u64 {
    Stamp::from_ms(MIDNIGHT_MS + 442).next().0
}

fn ada_stamp() -> u64 {
    Stamp::from_ms(MIDNIGHT_MS + 1205).0
}

fn receipt_stamp() -> u64 {
    Stamp::from_ms(MIDNIGHT_MS + 1269).0
}

fn vectors() -> Vec<Vector> {
    let mut vectors = hello();
    vectors.extend(requests());
    vectors.extend(responses());
    vectors.extend(history::requests());
    vectors.extend(history::responses());
    vectors.extend(publish_up());
    vectors.extend(publish_down());
    vectors.extend(feed_up());
    vectors.extend(feed_down());
    vectors.extend(future());
    vectors.extend(bad());
    vectors
}

fn open(stream: v1::open::Stream) -> v1::Open {
    v1::Open { stream: Some(stream) }
}

fn hello() -> Vec<Vector> {
    let hello = |session_token| {
        let client_name = "example 1.0".to_owned();
        open(v1::open::Stream::Hello(v1::Hello {
            version_min: 1,
            version_max: 1,
            client_name,
            session_token,
        }))
    };
    let welcome = v1::Welcome {
        version: 1,
        limits: Some(v1::Limits {
            frame_bytes_max: 65_536,
            body_bytes_max: 61_440,
            sends_unanswered_max: 256,
            feed_window_events: 256,
            requests_max: 8,
        }),
        server_time_ms: MIDNIGHT_MS + 600,
        server_name: "quaild 0.1.0".to_owned(),
        ..Default::default()
    };
    let welcome_session = v1::Welcome {
        server_time_ms: MIDNIGHT_MS + 60_000,
        account: ada(),
        device: laptop(),
        handle: "ada".to_owned(),
        ..welcome.clone()
    };
    use v1::hello_reply::Result as R;
    let reply = |result| v1::HelloReply { result: Some(result) };
    vec![
        both_ways("open_hello", hello(Bytes::new())),
        both_ways("open_hello_session", hello(token())),
        both_ways("hello_reply_welcome", reply(R::Welcome(welcome))),
        both_ways("hello_reply_welcome_session", reply(R::Welcome(welcome_session))),
        both_ways("hello_reply_error", reply(R::Error(Reason::Version.error()))),
    ]
}

fn requests() -> Vec<Vector> {
    use v1::request::Command as C;
    let request = |command| open(v1::open::Stream::Request(v1::Request { command: Some(command) }));
    let sign_up = v1::SignUp {
        handle: "ada".to_owned(),
        password: "correct horse".to_owned(),
        invite: "spring-2026".to_owned(),
        device_name: "laptop".to_owned(),
        platform: String::new(),
    };
    let sign_up_platform = v1::SignUp {
        invite: String::new(),
        device_name: "phone".to_owned(),
        platform: "android 15".to_owned(),
        ..sign_up.clone()
    };
    let log_in = v1::LogIn {
        handle: "ada".to_owned(),
        password: "correct horse".to_owned(),
        device_name: "laptop".to_owned(),
        platform: String::new(),
    };
    let log_in_platform = v1::LogIn { platform: "linux".to_owned(), ..log_in.clone() };
    let change_password = v1::ChangePassword {
        current_password: "correct horse".to_owned(),
        new_password: "battery staple".to_owned(),
    };
    let look_up = |by| C::LookUp(v1::LookUp { by: Some(by) });
    let by_handle = look_up(v1::look_up::By::Handle("bob".to_owned()));
    let by_account = look_up(v1::look_up::By::Account(bob()));
    vec![
        both_ways("open_request_sign_up", request(C::SignUp(sign_up))),
        both_ways("open_request_sign_up_platform", request(C::SignUp(sign_up_platform))),
        both_ways("open_request_log_in", request(C::LogIn(log_in))),
        both_ways("open_request_log_in_platform", request(C::LogIn(log_in_platform))),
        both_ways("open_request_log_out", request(C::LogOut(v1::LogOut {}))),
        both_ways("open_request_change_password", request(C::ChangePassword(change_password))),
        both_ways(
            "open_request_unlink_device",
            request(C::UnlinkDevice(v1::UnlinkDevice { device: phone() })),
        ),
        both_ways("open_request_look_up_handle", request(by_handle)),
        both_ways("open_request_look_up_account", request(by_account)),
        both_ways("open_request_ping", request(C::Ping(v1::Ping {}))),
        both_ways(
            "open_request_set_privacy",
            request(C::SetPrivacy(v1::SetPrivacy { read_receipts: v1::Switch::Off.into() })),
        ),
        both_ways("open_request_get_privacy", request(C::GetPrivacy(v1::GetPrivacy {}))),
        both_ways("open_request_list_devices", request(C::ListDevices(v1::ListDevices {}))),
    ]
}

fn response(result: v1::response::Result) -> v1::Response {
    v1::Response { result: Some(result) }
}

fn responses() -> Vec<Vector> {
    use v1::response::Result as R;
    let session = v1::Session { token: token(), account: ada(), device: laptop(), handle: "ada".to_owned() };
    let profile = v1::Profile { account: bob(), handle: "bob".to_owned() };
    let pong = v1::Pong { server_time_ms: MIDNIGHT_MS + 1234 };
    let laptop = v1::Device {
        id: laptop(),
        name: "laptop".to_owned(),
        platform: "linux".to_owned(),
        created_ms: MIDNIGHT_MS + 700,
        last_seen_ms: MIDNIGHT_MS + 60_000,
        current: true,
    };
    let phone = v1::Device {
        id: phone(),
        name: "phone".to_owned(),
        platform: String::new(),
        created_ms: MIDNIGHT_MS - 86_400_000,
        last_seen_ms: MIDNIGHT_MS - 3_600_000,
        current: false,
    };
    let devices = v1::Devices { devices: vec![phone, laptop] };
    vec![
        both_ways("response_session", response(R::Session(session))),
        both_ways("response_done", response(R::Done(v1::Done {}))),
        both_ways("response_profile", response(R::Profile(profile))),
        both_ways("response_pong", response(R::Pong(pong))),
        both_ways("response_devices", response(R::Devices(devices))),
        both_ways(
            "response_privacy",
            response(R::Privacy(v1::Privacy { read_receipts: v1::Switch::On.into() })),
        ),
        both_ways("response_error", response(R::Error(Reason::WrongCredentials.error()))),
    ]
}

fn publish_up() -> Vec<Vector> {
    use v1::publish_up::Frame as F;
    let up = |frame| v1::PublishUp { frame: Some(frame) };
    let send = v1::Send {
        number: 1,
        id: ada_wrote(),
        recipient: bob(),
        kind: v1::BodyKind::PlainText.into(),
        body: Bytes::from_static(b"hello, bob"),
        seen: bob_stamp(),
        ..v1::Send::default()
    };
    let largest = v1::Send { number: 300, body: vec![b'a'; BODY_BYTES_MAX].into(), ..send.clone() };
    let bare = v1::Send { number: u64::MAX, recipient: ada(), body: Bytes::new(), seen: 0, ..send.clone() };
    use v1::send::Change as C;
    let change = |change| v1::Send { number: 2, id: ada_changed(), change: Some(change), ..send.clone() };
    let change = |of| up(F::Send(v1::Send { kind: 0, body: Bytes::new(), ..change(of) }));
    let body = Bytes::from_static(b"I am");
    let reply_to = Some(bobs_message());
    let reply = v1::Send { number: 2, id: ada_changed(), body, reply_to, ..send.clone() };
    let back = C::React(react(""));
    let back =
        v1::Send { number: 3, id: ada_changed(), recipient: bob(), change: Some(back), ..Default::default() };
    let delete_for_me = v1::DeleteForMe { sender: bob(), id: bob_wrote() };
    vec![
        both_ways("publish_up_send_reply", up(F::Send(reply))),
        both_ways("publish_up_send_edit", change(C::Edit(edit()))),
        both_ways(
            "publish_up_send_delete_for_all",
            change(C::DeleteForAll(v1::DeleteForAll { id: ada_wrote() })),
        ),
        both_ways("publish_up_send_delete_for_me", change(C::DeleteForMe(delete_for_me))),
        both_ways("publish_up_send_react", change(C::React(react("\u{1f44d}")))),
        both_ways("publish_up_send_react_back", up(F::Send(back))),
        both_ways("open_publish", open(v1::open::Stream::Publish(v1::OpenPublish {}))),
        both_ways("publish_up_send", up(F::Send(send))),
        both_ways("publish_up_send_bare", up(F::Send(bare))),
        both_ways("publish_up_send_largest", up(F::Send(largest))),
        both_ways("publish_up_restart", up(F::Restart(v1::Restart {}))),
    ]
}

fn publish_down() -> Vec<Vector> {
    use v1::publish_down::Frame as F;
    let down = |frame| v1::PublishDown { frame: Some(frame) };
    let refused = |number, error: v1::Error| down(F::Refused(v1::Refused { number, error: Some(error) }));
    let overloaded = Reason::Overloaded.retry_after(std::time::Duration::from_millis(250));
    vec![
        both_ways("publish_down_accepted", down(F::Accepted(accepted()))),
        both_ways("publish_down_refused", refused(2, Reason::UnknownAccount.error())),
        both_ways("publish_down_refused_temporary", refused(3, overloaded)),
        both_ways("publish_down_refused_after", refused(4, Reason::AfterRefused.error())),
    ]
}

fn accepted() -> v1::Accepted {
    v1::Accepted { number: 1, origin: 1, position: 4712, stamp: ada_stamp() }
}

fn typing(account: Bytes, device: Bytes, counter: u64, state: v1::TypingState) -> v1::Signal {
    let body = Some(v1::signal::Body::Typing(v1::Typing { state: state.into() }));
    v1::Signal { account, device, counter, body }
}

fn feed_up() -> Vec<Vector> {
    let attach_aside =
        |number, cursors, set_aside| open(v1::open::Stream::Feed(v1::Attach { number, cursors, set_aside }));
    let attach = |number, cursors| attach_aside(number, cursors, vec![]);
    let cursor = |origin, position| v1::Cursor { origin, position };
    let ack = |set_aside| {
        let ack = v1::Ack { upto: vec![cursor(1, 4713)], set_aside };
        v1::FeedUp { frame: Some(v1::feed_up::Frame::Ack(ack)) }
    };
    let signal = typing(bob(), Bytes::new(), MIDNIGHT_MS + 2000, v1::TypingState::Started);
    let stretch = |origin, after, upto| v1::ReadStretch { origin, after, upto };
    let read = v1::Read { sender: bob(), stretches: vec![stretch(1, 4709, 4710), stretch(7, 0, 300)] };
    vec![
        both_ways("open_feed", attach(1, vec![])),
        both_ways("open_feed_resume", attach(2, vec![cursor(1, 4713)])),
        both_ways("open_feed_cursors", attach(3, vec![cursor(1, 4713), cursor(7, 300)])),
        both_ways("open_feed_set_aside", attach_aside(4, vec![cursor(1, 4713)], vec![cursor(1, 4712)])),
        both_ways("feed_up_ack", ack(vec![])),
        both_ways("feed_up_ack_set_aside", ack(vec![cursor(1, 4712)])),
        both_ways("feed_up_signal_typing", v1::FeedUp { frame: Some(v1::feed_up::Frame::Signal(signal)) }),
        both_ways("feed_up_read", v1::FeedUp { frame: Some(v1::feed_up::Frame::Read(read)) }),
    ]
}

fn down(frame: v1::feed_down::Frame) -> v1::FeedDown {
    v1::FeedDown { frame: Some(frame) }
}

fn change_stamp() -> u64 {
    Stamp::from_ms(MIDNIGHT_MS + 3100).0
}

fn changed(change: Option<v1::changed::Change>) -> v1::FeedDown {
    let changed = v1::Changed { id: ada_changed(), sender: ada(), recipient: bob(), change };
    let body = Some(v1::event::Body::Changed(changed));
    down(v1::feed_down::Frame::Event(v1::Event { origin: 1, position: 4716, stamp: change_stamp(), body }))
}

fn feed_down() -> Vec<Vector> {
    use v1::changed::Change as C;
    use v1::feed_down::Frame as F;
    let message = v1::Message {
        id: bob_wrote(),
        sender: bob(),
        recipient: ada(),
        kind: v1::BodyKind::PlainText.into(),
        body: Bytes::from_static(b"are you there?"),
        reply_to: None,
    };
    let reply = v1::Message {
        id: ada_changed(),
        sender: ada(),
        recipient: bob(),
        kind: v1::BodyKind::PlainText.into(),
        body: Bytes::from_static(b"I am"),
        reply_to: Some(bobs_message()),
    };
    let receipt = v1::Receipt {
        kind: v1::ReceiptKind::Delivered.into(),
        account: bob(),
        origin: 1,
        after: 4711,
        upto: 4712,
        sender: Bytes::new(),
    };
    let read = v1::Receipt {
        kind: v1::ReceiptKind::Read.into(),
        account: ada(),
        origin: 1,
        after: 4709,
        upto: 4710,
        sender: bob(),
    };
    let event = |position, stamp, body| F::Event(v1::Event { origin: 1, position, stamp, body: Some(body) });
    let reply = event(4716, change_stamp(), v1::event::Body::Message(reply));
    let delete_for_all = v1::DeleteForAll { id: ada_wrote() };
    let delete_for_me = v1::DeleteForMe { sender: bob(), id: bob_wrote() };
    let message = event(4710, bob_stamp(), v1::event::Body::Message(message));
    let receipt = event(4713, receipt_stamp(), v1::event::Body::Receipt(receipt));
    let read = event(4715, receipt_stamp() + 2, v1::event::Body::Receipt(read));
    let unread = v1::Signal {
        account: bob(),
        counter: MIDNIGHT_MS + 3000,
        body: Some(v1::signal::Body::Unread(v1::Unread { count: 2 })),
        ..Default::default()
    };
    vec![
        both_ways("feed_down_event_message", down(message)),
        both_ways("feed_down_event_message_reply", down(reply)),
        both_ways("feed_down_event_changed_edit", changed(Some(C::Edit(edit())))),
        both_ways("feed_down_event_changed_delete_for_all", changed(Some(C::DeleteForAll(delete_for_all)))),
        both_ways("feed_down_event_changed_delete_for_me", changed(Some(C::DeleteForMe(delete_for_me)))),
        both_ways("feed_down_event_changed_react", changed(Some(C::React(react("\u{1f44d}"))))),
        both_ways("feed_down_event_receipt", down(receipt)),
        both_ways("feed_down_event_receipt_read", down(read)),
        both_ways("feed_down_read", down(F::Read(v1::ReadAnswer { error: None }))),
        both_ways(
            "feed_down_read_refused",
            down(F::Read(v1::ReadAnswer { error: Some(Reason::ReadInvalid.error()) })),
        ),
        both_ways(
            "feed_down_signal_typing",
            down(F::Signal(typing(ada(), laptop(), MIDNIGHT_MS + 2500, v1::TypingState::Stopped))),
        ),
        both_ways("feed_down_signal_unread", down(F::Signal(unread))),
        both_ways("feed_down_gap", down(F::Gap(v1::Gap { origin: 1, from: 4000, upto: 4709 }))),
        both_ways("feed_down_caught_up", down(F::CaughtUp(v1::CaughtUp {}))),
        both_ways("feed_down_ended", down(F::Ended(Reason::Replaced.error()))),
    ]
}

fn future() -> Vec<Vector> {
    let unknown_body = v1::Event { origin: 1, position: 4714, stamp: receipt_stamp() + 1, body: None };
    let unknown_reason =
        v1::Error { reason: 999, text: "something new".to_owned(), temporary: true, ..Default::default() };
    let accepted = v1::publish_down::Frame::Accepted(accepted());
    let pong = v1::response::Result::Pong(v1::Pong { server_time_ms: MIDNIGHT_MS });
    vec![
        one_way("future_open_unknown_stream", v1::Open { stream: None }),
        one_way("future_pong_more_fields", response(pong)),
        one_way("future_event_unknown_body", down(v1::feed_down::Frame::Event(unknown_body))),
        one_way("future_event_unknown_change", changed(None)),
        one_way("future_error_unknown_reason", response(v1::response::Result::Error(unknown_reason))),
        one_way("future_fields_out_of_order", v1::PublishDown { frame: Some(accepted) }),
    ]
}

fn bad() -> Vec<Vector> {
    let is_malformed = |error: &FrameError| matches!(error, FrameError::Malformed(_));
    let is_too_large = |error: &FrameError| matches!(error, FrameError::TooLarge { .. });
    vec![
        refused::<v1::Open>("bad_prefix_overlong", |error| matches!(error, FrameError::OverlongPrefix)),
        refused::<v1::Open>("bad_prefix_too_long", is_too_large),
        refused::<v1::Open>("bad_frame_too_large", is_too_large),
        refused::<v1::FeedUp>("bad_too_many_fields", |error| matches!(error, FrameError::TooManyFields)),
        refused::<v1::Open>("bad_field_cut_off", is_malformed),
        refused::<v1::Open>("bad_wire_type", is_malformed),
        refused::<v1::Open>("bad_handle_not_utf8", is_malformed),
    ]
}

#[test]
fn every_vector_means_what_it_meant() {
    let files = support::files("tests/golden", ".hex");
    for vector in vectors() {
        let Some(text) = files.get(vector.name) else {
            let bytes = vector.encoded.as_deref().map_or_else(|| "bytes of your own".to_owned(), dump);
            panic!("golden/{}.hex is missing; it should hold\n{bytes}", vector.name);
        };
        (vector.check)(&support::hex(text));
    }
}

#[test]
fn every_file_has_a_value() {
    let vectors = vectors();
    let names: BTreeSet<_> = vectors.iter().map(|vector| vector.name).collect();
    assert_eq!(names.len(), vectors.len(), "a vector is named twice");
    for name in support::files("tests/golden", ".hex").keys() {
        assert!(names.contains(name.as_str()), "golden/{name}.hex is checked by nobody: add its value");
    }
}

/// The notes behind the bytes name the fields, so they tell what is not covered yet.
#[test]
fn every_field_of_every_message_is_in_some_vector() {
    let notes: String = support::files("tests/golden", ".hex").into_values().collect();
    let words: BTreeSet<_> = notes.split([' ', ':', ',', '\n']).collect();
    for (message, fields) in support::messages() {
        assert!(words.contains(message.as_str()), "no vector has a {message}");
        for (_, field) in fields {
            let field = format!("{message}.{field}");
            assert!(words.contains(field.as_str()), "no vector has {field}");
        }
    }
}

/// Bytes in the specification are marked with the name of their vector: ```` ```hex open_hello ````.
#[test]
fn the_bytes_in_the_specification_are_those_of_the_vectors() {
    let files = support::files("tests/golden", ".hex");
    let readme = support::read("README.md");
    let mut blocks = readme.split("\n```hex ");
    blocks.next();
    let mut count = 0;
    for block in blocks {
        let (name, text) = block.split_once('\n').unwrap();
        let (text, _) = text.split_once("\n```").unwrap_or_else(|| panic!("{name} has no end"));
        let vector = files.get(name).unwrap_or_else(|| panic!("no vector is called {name}"));
        assert_eq!(support::hex(text), support::hex(vector), "{name}");
        count += 1;
    }
    assert!(count > 10, "the worked session is there");
}

#[test]
fn the_notes_of_a_vector_are_not_bytes() {
    assert_eq!(support::hex("# 01\n02 03 # 04\n  05*3\n"), [2, 3, 5, 5, 5]);
}

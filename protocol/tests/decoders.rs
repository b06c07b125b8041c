//! The functions of the fuzz targets, run on arbitrary bytes, on valid frames with bytes changed, and on frames cut off.
#![allow(clippy::panic)] // The shared functions panic where a test has failed.

#[path = "support/decoders.rs"]
mod decoders;

use proptest::collection::vec;
use proptest::prelude::*;
use prost::Message;
use quail_protocol::v1;

const ALL: [fn(&[u8]); 9] = [
    decoders::open,
    decoders::hello_reply,
    decoders::publish_up,
    decoders::publish_down,
    decoders::feed_up,
    decoders::feed_down,
    decoders::response,
    decoders::take,
    decoders::text,
];

fn valid() -> impl Strategy<Value = Vec<u8>> {
    let cursors = vec((any::<u32>(), any::<u64>()), 0..70).prop_map(|cursors| {
        cursors.into_iter().map(|(origin, position)| v1::Cursor { origin, position }).collect::<Vec<_>>()
    });
    let send = (any::<u64>(), vec(any::<u8>(), 0..200)).prop_map(|(number, body)| {
        let send = v1::Send { number, body: body.into(), ..v1::Send::default() };
        v1::PublishUp { frame: Some(v1::publish_up::Frame::Send(send)) }.encode_to_vec()
    });
    let attach = cursors.prop_map(|cursors| {
        let attach = v1::Attach { number: 1, cursors, set_aside: vec![] };
        v1::Open { stream: Some(v1::open::Stream::Feed(attach)) }.encode_to_vec()
    });
    let address =
        "quail://[a-z0-9_.]{0,5}@?[a-z.:\\[\\]]{0,12}(:[0-9]{0,6})?(\\?pin=sha256:[0-9a-f]{60,66})?";
    prop_oneof![send, attach, address.prop_map(String::into_bytes)]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn arbitrary_bytes(data in vec(any::<u8>(), 0..2000)) {
        ALL.iter().for_each(|check| check(&data));
    }

    #[test]
    fn valid_frames_with_bytes_changed(mut data in valid(), changes in vec((any::<usize>(), any::<u8>()), 0..4)) {
        for (at, byte) in changes.into_iter().filter(|_| !data.is_empty()).collect::<Vec<_>>() {
            let len = data.len();
            data[at % len] = byte;
        }
        ALL.iter().for_each(|check| check(&data));
    }

    #[test]
    fn valid_frames_cut_off(data in valid(), at in any::<usize>()) {
        ALL.iter().for_each(|check| check(&data[..at % (data.len() + 1)]));
    }

    #[test]
    fn lists_of_small_messages(element in vec(0_u8..3, 0..3), count in 0_usize..20_000, tag in 1_u8..4) {
        let mut list = Vec::new();
        for _ in 0..count.min(60_000 / (element.len() + 2)) {
            list.extend([tag << 3 | 2, element.len() as u8]);
            list.extend(&element);
        }
        // As the content of each of the first three fields.
        for field in 1..4_u8 {
            let mut data = vec![field << 3 | 2];
            prost::encoding::encode_varint(list.len() as u64, &mut data);
            data.extend(&list);
            ALL.iter().for_each(|check| check(&data));
        }
    }
}

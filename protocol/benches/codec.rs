//! What the codec costs: a send up the publish lane, events down the feed lane, frames cut out of a stream.
#![allow(missing_docs)] // The macros of criterion make public items.

use std::hint::black_box;

use bytes::{Bytes, BytesMut};
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use prost::Message;
use quail_protocol::frame;
use quail_protocol::limits::FRAME_BYTES_MAX;
use quail_protocol::v1::{self, event, feed_down, publish_up};

/// A short text message; most are.
const BODY_BYTES: usize = 256;

/// How many events share a write when a feed is busy.
const EVENTS: u64 = 64;

const STAMP: u64 = 1_700_000_000_000 << 16;

fn send() -> v1::PublishUp {
    let send = v1::Send {
        number: 70_000,
        id: Bytes::from_static(&[7; 16]),
        recipient: Bytes::from_static(&[8; 16]),
        kind: v1::BodyKind::PlainText as i32,
        body: vec![b'x'; BODY_BYTES].into(),
        seen: STAMP,
        ..v1::Send::default()
    };
    v1::PublishUp { frame: Some(publish_up::Frame::Send(send)) }
}

fn event(position: u64) -> v1::FeedDown {
    let message = v1::Message {
        id: Bytes::from_static(&[7; 16]),
        sender: Bytes::from_static(&[8; 16]),
        recipient: Bytes::from_static(&[9; 16]),
        kind: v1::BodyKind::PlainText as i32,
        body: vec![b'x'; BODY_BYTES].into(),
        reply_to: None,
    };
    let body = Some(event::Body::Message(message));
    let event = v1::Event { origin: 1, position, stamp: STAMP, body };
    v1::FeedDown { frame: Some(feed_down::Frame::Event(event)) }
}

fn stream_of<M: Message>(messages: &[M]) -> BytesMut {
    let mut stream = BytesMut::new();
    messages.iter().for_each(|message| frame::encode(message, &mut stream));
    stream
}

fn decode_all<M: Message + Default>(mut stream: BytesMut) {
    while let Ok(Some(message)) = frame::decode::<M>(&mut stream, FRAME_BYTES_MAX) {
        black_box(message);
    }
}

fn take_all(mut stream: BytesMut) {
    while let Ok(Some(frame)) = frame::take(&mut stream, FRAME_BYTES_MAX) {
        black_box(frame);
    }
}

fn sends(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("send");
    group.throughput(Throughput::Elements(1));
    let send = send();
    let mut buffer = BytesMut::with_capacity(FRAME_BYTES_MAX);
    group.bench_function("encode", |bencher| {
        bencher.iter(|| {
            buffer.clear();
            frame::encode(black_box(&send), &mut buffer);
        });
    });
    let stream = stream_of(&[send]);
    group.bench_function("decode", |bencher| {
        bencher.iter_batched(|| stream.clone(), decode_all::<v1::PublishUp>, BatchSize::SmallInput);
    });
    group.finish();
}

fn events(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("events");
    group.throughput(Throughput::Elements(EVENTS));
    let batch: Vec<_> = (1..=EVENTS).map(event).collect();
    let stream = stream_of(&batch);
    let mut buffer = BytesMut::with_capacity(stream.len());
    group.bench_function("encode", |bencher| {
        bencher.iter(|| {
            buffer.clear();
            batch.iter().for_each(|event| frame::encode(black_box(event), &mut buffer));
        });
    });
    group.bench_function("decode", |bencher| {
        bencher.iter_batched(|| stream.clone(), decode_all::<v1::FeedDown>, BatchSize::SmallInput);
    });
    group.bench_function("take frames", |bencher| {
        bencher.iter_batched(|| stream.clone(), take_all, BatchSize::SmallInput);
    });
    group.finish();
}

criterion_group!(benches, sends, events);
criterion_main!(benches);

//! Fuzzes `decoders::hello_reply`; what must hold stands there, and the property tests run it too.
#![no_main]
#![allow(dead_code)] // The other targets use the rest.

#[path = "../../tests/support/decoders.rs"]
mod decoders;

libfuzzer_sys::fuzz_target!(|data: &[u8]| decoders::hello_reply(data));

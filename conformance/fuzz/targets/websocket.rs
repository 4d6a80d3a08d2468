//! See [`replay::websocket`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| replay::websocket::play(data));

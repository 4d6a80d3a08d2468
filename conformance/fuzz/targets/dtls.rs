//! See [`replay::dtls`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| replay::dtls::play(data));

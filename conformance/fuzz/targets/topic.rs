//! See [`replay::topic`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| replay::topic::play(data));

//! See [`replay::codecs`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| replay::codecs::play(data));

//! See [`replay::proxy`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| replay::proxy::play(data));

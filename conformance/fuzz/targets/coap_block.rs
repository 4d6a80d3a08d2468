//! See [`replay::coap_block`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| replay::coap_block::play(data));

//! See [`replay::coap_stream`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| replay::coap_stream::play(data));

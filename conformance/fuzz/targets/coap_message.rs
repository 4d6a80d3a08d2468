//! See [`replay::coap_message`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| replay::coap_message::play(data));

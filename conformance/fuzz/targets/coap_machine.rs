//! See [`replay::coap_machine`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| replay::coap_machine::play(data));

//! See [`replay::mqtt_packet`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| replay::mqtt_packet::play(data));

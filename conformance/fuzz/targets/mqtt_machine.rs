//! See [`replay::mqtt_machine`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| replay::mqtt_machine::play(data));

//! See [`replay::mqtt_sn_machine`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| replay::mqtt_sn_machine::play(data));

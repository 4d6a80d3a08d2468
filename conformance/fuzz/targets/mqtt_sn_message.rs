//! See [`replay::mqtt_sn_message`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| replay::mqtt_sn_message::play(data));

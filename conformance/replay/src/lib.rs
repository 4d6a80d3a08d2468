//! What the fuzz targets of `conformance/fuzz` do: one module each, with `play(data)`, which panics if something is wrong.
//!
//! It stands apart from them so that a normal test replays their corpora on every run, without libFuzzer. A new target
//! is a module here, a file and three lines in `conformance/fuzz`, and a line in `tests/corpus.rs`.
#![expect(clippy::panic, reason = "a panic is how a fuzz target says that something is wrong")]

pub mod coap_block;
pub mod coap_machine;
pub mod coap_message;
pub mod coap_stream;
pub mod codecs;
pub mod dtls;
pub mod mqtt_machine;
pub mod mqtt_packet;
pub mod mqtt_sn_machine;
pub mod mqtt_sn_message;
pub mod proxy;
pub mod topic;
pub mod websocket;

//! What the load generator and the bare forwarder share: MQTT 3.1.1 frames, an epoll, and readings of a server's cost.
//!
//! The generator is one thread that hosts every client, so that its own cost is small beside the server's and two cores
//! are enough for a run: `load` on one, the server on the other (see `run.py`).

pub mod clients;
pub mod coap;
pub mod cost;
pub mod dtls;
pub mod durable;
pub mod idle;
pub mod mqtt_sn;
pub mod packets;
pub mod subscriptions;
pub mod traffic;
pub mod wait;

/// Whatever ended a run early; a bench has nobody to recover for.
pub type Failure = Box<dyn std::error::Error>;

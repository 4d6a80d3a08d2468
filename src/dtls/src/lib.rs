//! DTLS 1.2 (RFC 6347) with connection ids (RFC 9146), without sockets and without a clock.
//!
//! An [`Endpoint`] is the DTLS side of one UDP socket: it is handed datagrams and time, and tells [`Event`]s. It finds
//! associations by connection id or address, asks strangers for a cookie before it spends a byte on them, parks the
//! idle in a few hundred bytes, and gives a durable store what it takes to go on after a restart without a handshake
//! and without ever using a record number twice. A [`Client`] is the other side, for tests and benches.
//!
//! The cryptography is Mbed TLS's (`engine.rs`); README.md says which version, and how it is built.

mod client;
mod endpoint;
mod engine;
mod event;
mod handshake;
mod hello;
mod hosts;
mod kept;
mod keys;
mod park;
mod record;
mod retries;
mod settings;
mod slab;
mod table;

pub use client::{Client, ClientError, ClientSettings, Proof};
pub use endpoint::{Counts, Endpoint, NotSent, Shown, engine_version};
pub use event::{Closed, Event, Id, Identity, Reason, Reserved};
pub use keys::{Found, Key, Keys};
pub use park::{NotRestored, Restored};
pub use settings::{Certificates, Settings, SettingsError, Suite};

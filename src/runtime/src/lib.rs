//! The only crate that does IO: sockets, byte layers, clock, signals, metrics.
//!
//! [`run`] opens the ports and starts the drivers. A [`stream`] driver hosts many connections on one core; a
//! [`datagram`] driver one UDP socket. Both hand bytes, time and deliveries to protocol machines (`gateway::Gateway`)
//! and carry out what these ask for ([`perform`]), on what they share ([`house`]).

#![allow(
    clippy::disallowed_methods,
    reason = "this is the crate that the bans point to: here clocks are read, sockets opened and tasks spawned"
)]

pub mod admin;
pub mod attend;
mod batch;
pub mod client;
pub mod clock;
mod complaint;
pub mod config;
pub mod conn;
pub mod datagram;
mod descriptors;
pub mod house;
pub mod http;
pub mod keeper;
pub mod layer;
pub mod listen;
pub mod log;
pub mod mailbox;
pub mod metrics;
mod own;
pub mod perform;
pub mod requests;
mod run;
pub mod scripts;
pub mod stream;
pub mod sys;
pub mod wait;
pub mod wheel;

pub use run::{Gate, Plan, StartError, run};

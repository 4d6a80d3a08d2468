//! The endpoint against clients of the same engine, over a simulated network and with a fake clock. Real clients that
//! nobody here wrote are conformance's.
#![expect(clippy::unwrap_used, clippy::panic, reason = "all of this is a test, its helpers too")]

mod certificates;
mod flood;
mod garbage;
mod hello;
mod keys;
mod net;
mod open;
mod park;
mod records;
mod restart;

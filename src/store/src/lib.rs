//! Durable tables and queues with group commit.
//!
//! ```text
//! router -> put, push, remove ... -> the batch being gathered -> writer -> engine: one journal write, one fdatasync
//!                                         ^                        |
//!                                         +---- next batch         +-> durable() -> answers that waited leave
//! ```
//!
//! Whoever changes something learns the number of the batch it went into, and tells nobody of it before
//! [`Store::durable`] has reached that number. While one batch is on its way to the disk the next is gathered, so one
//! `fdatasync` serves all who came meanwhile; what comes and goes within one batch is never written.
//!
//! A message for one session is stored with its place in that session's queue; one for several is stored once, and the
//! places refer to it ([`Body::Shared`]).
//!
//! When the disk is full or fails, [`Store::failure`] says so, who waited for the batch is told by [`Store::failed`], and the
//! writer tries again every second with all that has changed since, until it succeeds.

mod disk;
mod engine;
mod format;
mod journal;
mod key;
mod memory;
mod pending;
mod shared;
mod store;

pub use disk::Disk;
pub use engine::{Change, Engine, Error, View, scan_around};
pub use format::{FORMAT, OpenError};
pub use key::{Key, Table, split_number};
pub use memory::Memory;
pub use store::{Body, Figures, Limits, SHARED, Shared, Store, Stored, Together, is_shared, split_body};

//! Codecs in JavaScript: the engine, the worker process that runs it, and what is said over its pipe.
//!
//! A script is what an operator, or a manufacturer whom nobody here knows, has written. So it runs in a process of its own,
//! [`worker`], which has given up every right; a supervisor in the runtime writes [`pipe::Request`]s to it and reads
//! [`pipe::Response`]s, and kills it when one is late.

mod confine;
mod engine;
pub mod examples;
mod json;
mod payload;
pub mod pipe;
mod remote;
mod scope;
mod stream;
mod survey;
pub mod worker;

pub use engine::{Call, MAX_SOURCE, Program};
pub use remote::{Ask, Remote};

//! Who may connect, and what they may publish and subscribe to: the same for every protocol.
//!
//! A driver asks [`Auth::check`] with what a client has shown ([`Attempt`]). The answer is a [`Grant`], a refusal, or
//! [`Verdict::Work`]: a password to hash, which takes some 20 ms of one core and is run away from the traffic. The
//! grant holds the rules of the access list that concern this client, with its names filled in, so that a publish costs
//! one comparison where everything is allowed.
//!
//! ```text
//! Attempt -> banned? -> pre-shared key -> certificate -> user and password -> anonymous? -> Grant
//!                                                     \-> Exchange (SCRAM-SHA-256)       /
//! ```
//!
//! Nothing here opens a socket or reads a clock. Files are read by [`Auth::open`] and [`Auth::reload`] alone.

pub mod acl;
mod attempt;
pub mod ban;
mod config;
mod cover;
mod grant;
mod listener;
pub mod passwd;
pub mod psk;
mod scram;

pub use attempt::{Attempt, Auth, Random, Verdict};
pub use config::Options;
pub use grant::Grant;
pub use listener::{Anonymous, ListenerRules};
pub use scram::{Exchange, Step};

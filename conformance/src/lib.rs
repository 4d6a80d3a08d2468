//! Dialogues: cases written packet by packet, played over real sockets against a running server, and the tables that say
//! which normative statement each of them checks.

pub mod broker;
pub mod connection;
pub mod differences;
pub mod expect;
pub mod normative;
pub mod packet;
pub mod play;
pub mod property;
pub mod read;
mod request;
pub mod run;
pub mod scram;
pub mod script;
pub mod text;

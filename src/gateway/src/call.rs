//! Calls of programs that an operator has written (scripts), which run outside the process: see
//! [`crate::Action::Call`].

use bytes::Bytes;

/// One version of a program, as who keeps programs numbers them: no number is given twice in a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ProgramId(pub u64);

/// What of a program is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Function {
    /// A payload from a device: `decodeUplink`.
    DecodeUplink,
    /// A value for a device: `encodeDownlink`.
    EncodeDownlink,
    /// Bytes of a stream: `decode`, as often as it takes something.
    Decode,
    /// A command for a device that speaks in streams: `encode`.
    Encode,
}

/// Calls of one program for one peer, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Calls {
    /// Which program.
    pub program: ProgramId,
    /// What of it.
    pub function: Function,
    /// The device, if it is known, for the program and for traces.
    pub device: Box<str>,
    /// LoRaWAN's FPort, or what the listener says in its place.
    pub port: u8,
    /// Milliseconds since 1970 in UTC, when the input came.
    pub wall_ms: u64,
    /// As [`crate::call`]'s functions take it: a payload, the bytes of a stream, or a command in JSON.
    pub inputs: Vec<Bytes>,
}

/// Why a call has brought nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CallFailure {
    /// The program has said so: it threw, or gave something that is no answer. In words for an operator.
    Program(Box<str>),
    /// It took too long, or too much memory, and was stopped.
    Limit(Box<str>),
    /// It is kept from running for a while, since it was stopped too often.
    Suspended,
    /// There is no such version any more.
    Unknown,
    /// Too many calls wait; a later one may be done.
    Busy,
}

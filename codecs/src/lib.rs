//! Device languages: one file a codec, and [`CODECS`], the one list of them.
//!
//! A codec knows a device language and nothing of MQTT. It cuts frames off bytes and says what each means as [`Up`] values,
//! and turns [`Down`] values into bytes. Gateways that carry private protocols (TCP, UDP, LoRaWAN) load codecs by name.
//!
//! To add one: a file here with its `DEF`, and a line in [`CODECS`]. Its samples are its documentation, its tests (as they
//! are, split at every byte, with every bit turned over) and its fuzz seeds.

use bytes::{Bytes, BytesMut};

pub mod called;
mod emqx_tcp;
pub mod examples;
pub mod framing;
mod gbt32960;
mod gt06;
pub mod hex;
mod json_lines;
mod jt808;
pub mod library;
mod lines;
mod raw;
pub mod read;
mod teltonika;
#[cfg(test)]
mod tests;
mod up;
pub mod wasm;

pub use framing::{Framing, FramingOptions};
pub use library::{Build, Found, Library, Shape, Shelf, Version};
pub use up::{BadUp, Credential, Data, Login, Reply, Up};

/// What a codec is told with each call.
#[derive(Clone, Copy, Debug)]
pub struct Context<'a> {
    /// Milliseconds since 1970 in UTC, for devices that ask for the time.
    pub wall_ms: u64,
    /// The device, when it has logged in.
    pub device: Option<&'a str>,
    /// Characters that nobody can foresee, new with each call, for a device that is to be given something to log in with
    /// later: see [`Credential::Issue`].
    pub token: &'a str,
}

/// One frame of a device and what it means.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Frame {
    /// What it says, in its order.
    pub up: Vec<Up>,
    /// What to send back when all of it was accepted: the login let in, the data published and kept.
    pub answer: Bytes,
    /// What to send back when not; empty is nothing.
    pub refusal: Bytes,
}

/// Why bytes could not be decoded, or a value not be encoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// What it costs.
    pub costs: Costs,
    /// Where: bytes from the beginning of what was handed in.
    pub at: usize,
    /// What is wrong there, in words for an operator.
    pub why: std::borrow::Cow<'static, str>,
}

/// See [`Fault::costs`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Costs {
    /// This frame, which has been cut off; the next one can be read.
    Frame,
    /// The stream: where the next frame begins cannot be found.
    Stream,
}

impl Fault {
    /// A bad frame, wrong at this byte of what was handed in.
    pub fn frame(at: usize, why: impl Into<std::borrow::Cow<'static, str>>) -> Fault {
        Fault { costs: Costs::Frame, at, why: why.into() }
    }

    /// The end of the stream, at this byte of what was handed in.
    pub fn stream(at: usize, why: impl Into<std::borrow::Cow<'static, str>>) -> Fault {
        Fault { costs: Costs::Stream, at, why: why.into() }
    }
}

/// What a device is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Down<'a> {
    /// What was published below `dn/`, such as `interval`; may have several levels.
    pub kind: &'a str,
    /// The payload as it was published, JSON for most codecs.
    pub value: &'a [u8],
}

impl Down<'_> {
    /// Reads the payload as JSON; nothing at all is `{}`.
    pub(crate) fn json<T: serde::de::DeserializeOwned>(&self) -> Result<T, String> {
        let json = if self.value.trim_ascii().is_empty() { b"{}" } else { self.value };
        let read = serde_json::from_slice(json);
        // Commands that have no `id` may have the gateway's, by which who gave the command knows its outcome.
        let without = || {
            let mut fields: serde_json::Map<_, _> = serde_json::from_slice(json).ok()?;
            fields.shift_remove("id")?;
            Some(serde_json::from_value(fields.into()))
        };
        read.or_else(|e| without().unwrap_or(Err(e))).map_err(|e| e.to_string())
    }
}

/// How a device's answer to a [`Down`] is known. A second one with the same key waits until the first has its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    /// It does not answer.
    Nothing,
    /// With an [`Up::Reply`] of this key.
    Reply(u64),
}

/// One device language; one value for each connection.
pub trait Codec: Send {
    /// Cuts one frame off the front of `buf`; None if there is no whole one yet. A [`Costs::Frame`] has cut the bad bytes off,
    /// at least one of them. Of a datagram the codec is handed the whole, and what it leaves is dropped.
    fn decode(&mut self, cx: &Context<'_>, buf: &mut BytesMut) -> Result<Option<Frame>, Fault>;

    /// Appends what tells the device `down`. Nothing is appended with an error.
    fn encode(&mut self, cx: &Context<'_>, down: &Down<'_>, into: &mut Vec<u8>) -> Result<Expect, Fault>;

    /// The most bytes that may have to be kept until a frame is whole.
    fn max_frame(&self) -> usize;
}

/// What a listener says about its codec.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Options {
    /// Most bytes of a frame; zero is what the codec's own protocol allows.
    pub max_frame: usize,
    /// Where frames begin and end, for codecs to which it makes a difference.
    pub framing: Option<Framing>,
    /// Whether what is handed to `decode` ends where a frame ends: over UDP, and where a pause is a frame's end. There what
    /// [`Framing::idle`] says is done by who calls: it keeps the bytes until the pause has come.
    pub is_whole: bool,
}

/// A codec in the list.
pub struct Def {
    /// Name in configuration.
    pub name: &'static str,
    /// One line for people.
    pub about: &'static str,
    /// Makes one for a new connection.
    pub build: fn(&Options) -> Box<dyn Codec>,
    /// Frames and what they mean.
    pub samples: &'static [Sample],
    /// Commands and the frames that they make.
    pub downs: &'static [DownSample],
}

/// Bytes of a device and their meaning, at 1,700,000,000 seconds since 1970 and with the token `token`.
pub struct Sample {
    /// What it shows, and where the bytes are from.
    pub about: &'static str,
    /// The bytes in hexadecimal; spaces do not count.
    pub hex: &'static str,
    /// The [`Up`] values in their JSON form, in order.
    pub up: &'static [&'static str],
    /// The answer in hexadecimal, where [`Context::token`] is `token`.
    pub answer: &'static str,
}

/// A command and its frame, of a codec that has read nothing yet and is told the first device that logs in in the samples.
pub struct DownSample {
    /// What was published below `dn/`.
    pub kind: &'static str,
    /// The payload.
    pub value: &'static str,
    /// The frame in hexadecimal.
    pub hex: &'static str,
}

/// Every codec that is built in, in alphabetical order.
// One a line: the order of names is kept by a test.
#[rustfmt::skip]
pub const CODECS: &[Def] = &[
    emqx_tcp::DEF,
    gbt32960::DEF,
    gt06::DEF,
    json_lines::DEF,
    jt808::DEF,
    lines::DEF,
    raw::DEF,
    teltonika::DEF,
];

/// The codec of this name.
pub fn find(name: &str) -> Option<&'static Def> {
    CODECS.iter().find(|def| def.name == name)
}

//! Device languages: one file a codec, and [`CODECS`], the one list of them.
//!
//! A codec knows a device language and nothing of MQTT. It cuts frames off bytes and turns them into [`Up`] values, and
//! turns [`Down`] values into bytes. Gateways that carry private protocols (TCP, UDP, LoRaWAN) load codecs by name.

use bytes::{Bytes, BytesMut};

/// Why bytes could not be decoded, or a value not be encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// This frame is bad and has been cut off; the next one can be read.
    Frame,
    /// Where the next frame begins cannot be found: the stream must be closed.
    Stream,
}

/// What a device said: a name within the device (part of a topic) and its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Up {
    /// Such as `temperature`.
    pub name: Box<str>,
    /// The value, as it is published.
    pub value: Bytes,
}

/// What a device is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Down {
    /// Such as `interval`.
    pub name: Box<str>,
    /// The value, as it was published.
    pub value: Bytes,
}

/// One device language.
pub trait Codec: Send {
    /// Cuts one frame off the front of `buf`; None if there is no whole one yet.
    fn decode(&mut self, buf: &mut BytesMut) -> Result<Option<Up>, Fault>;
    /// Appends the frame that says `down`.
    fn encode(&mut self, down: &Down, buf: &mut BytesMut) -> Result<(), Fault>;
}

/// Bytes of a device, and the names and values that they mean.
pub type Sample = (&'static [u8], &'static [(&'static str, &'static str)]);

/// A codec in the list: what it is called, how one is made, and bytes with their meaning, which are at once its
/// documentation, its tests and its fuzz seeds.
pub struct Def {
    /// Name in configuration.
    pub name: &'static str,
    /// One line for people.
    pub about: &'static str,
    /// Makes one for a new connection.
    pub build: fn() -> Box<dyn Codec>,
    /// Frames and what they mean.
    pub samples: &'static [Sample],
}

/// Every codec that is built in, in alphabetical order. None yet: the gateways that use them come after MQTT and CoAP.
pub const CODECS: &[Def] = &[];

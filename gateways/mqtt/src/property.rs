//! Properties (MQTT 5.0, 2.2.2): a length, then identifiers with values; each at most once but for User Property.

use wire::{Reader, Writer};

use crate::frame::{Fault, put_variable, text, variable};

/// Identifiers (2.2.2.2).
pub mod id {
    /// Payload Format Indicator.
    pub const PAYLOAD_FORMAT: u8 = 1;
    /// Message Expiry Interval.
    pub const MESSAGE_EXPIRY: u8 = 2;
    /// Content Type.
    pub const CONTENT_TYPE: u8 = 3;
    /// Response Topic.
    pub const RESPONSE_TOPIC: u8 = 8;
    /// Correlation Data.
    pub const CORRELATION_DATA: u8 = 9;
    /// Subscription Identifier.
    pub const SUBSCRIPTION_ID: u8 = 11;
    /// Session Expiry Interval.
    pub const SESSION_EXPIRY: u8 = 17;
    /// Assigned Client Identifier.
    pub const ASSIGNED_CLIENT_ID: u8 = 18;
    /// Server Keep Alive.
    pub const SERVER_KEEP_ALIVE: u8 = 19;
    /// Authentication Method.
    pub const AUTHENTICATION_METHOD: u8 = 21;
    /// Authentication Data.
    pub const AUTHENTICATION_DATA: u8 = 22;
    /// Request Problem Information.
    pub const REQUEST_PROBLEM_INFORMATION: u8 = 23;
    /// Will Delay Interval.
    pub const WILL_DELAY: u8 = 24;
    /// Request Response Information.
    pub const REQUEST_RESPONSE_INFORMATION: u8 = 25;
    /// Response Information.
    pub const RESPONSE_INFORMATION: u8 = 26;
    /// Server Reference.
    pub const SERVER_REFERENCE: u8 = 28;
    /// Reason String.
    pub const REASON_STRING: u8 = 31;
    /// Receive Maximum.
    pub const RECEIVE_MAXIMUM: u8 = 33;
    /// Topic Alias Maximum.
    pub const TOPIC_ALIAS_MAXIMUM: u8 = 34;
    /// Topic Alias.
    pub const TOPIC_ALIAS: u8 = 35;
    /// User Property.
    pub const USER: u8 = 38;
    /// Maximum Packet Size.
    pub const MAXIMUM_PACKET_SIZE: u8 = 39;
}

/// A property's value, by its type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value<'a> {
    /// Byte, Two Byte Integer, Four Byte Integer or Variable Byte Integer.
    Number(u32),
    /// UTF-8 Encoded String.
    Text(&'a str),
    /// Binary Data.
    Data(&'a [u8]),
    /// UTF-8 String Pair.
    Pair(&'a str, &'a str),
}

/// Reads one packet's properties.
#[derive(Clone, Copy, Debug)]
pub struct Properties<'a> {
    rest: Reader<'a>,
    seen: u64,
}

impl<'a> Properties<'a> {
    /// Takes the property length and that many bytes off `r`.
    pub fn decode(r: &mut Reader<'a>) -> Result<Properties<'a>, Fault> {
        let length = variable(r)?;
        Ok(Properties { rest: Reader::new(r.take(length as usize)?), seen: 0 })
    }

    /// The next property. One of this packet's `allowed` set; another one, or one that came before, is a protocol error.
    pub fn next(&mut self, allowed: &[u8]) -> Result<Option<(u8, Value<'a>)>, Fault> {
        let Some((id, value)) = self.any()? else { return Ok(None) };
        let bit = 1u64 << id;
        if !allowed.contains(&id) || (id != id::USER && self.seen & bit != 0) {
            return Err(Fault::PROTOCOL);
        }
        self.seen |= bit;
        Ok(Some((id, value)))
    }

    /// The next property, whatever packet it may belong to and how often it came.
    pub fn any(&mut self) -> Result<Option<(u8, Value<'a>)>, Fault> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let id = u8::try_from(variable(&mut self.rest)?).map_err(|_| Fault::MALFORMED)?;
        let r = &mut self.rest;
        let value = match id {
            1 | 23 | 25 | 36 | 37 | 40 | 41 | 42 => Value::Number(r.u8()?.into()),
            19 | 33 | 34 | 35 => Value::Number(r.u16()?.into()),
            2 | 17 | 24 | 39 => Value::Number(r.u32()?),
            11 => Value::Number(variable(r)?),
            3 | 8 | 18 | 21 | 26 | 28 | 31 => Value::Text(text(r)?),
            9 | 22 => Value::Data(r.prefixed16()?),
            38 => Value::Pair(text(r)?, text(r)?),
            _ => return Err(Fault::MALFORMED),
        };
        Ok(Some((id, value)))
    }
}

/// Counts what is written to it, so that a length can be written before what it is the length of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Size(pub usize);

impl Writer for Size {
    fn put_u8(&mut self, _: u8) {
        self.0 += 1;
    }

    fn put_u16(&mut self, _: u16) {
        self.0 += 2;
    }

    fn put_u32(&mut self, _: u32) {
        self.0 += 4;
    }

    fn put(&mut self, bytes: &[u8]) {
        self.0 += bytes.len();
    }

    fn put_prefixed16(&mut self, bytes: &[u8]) {
        self.0 += 2 + bytes.len().min(usize::from(u16::MAX));
    }
}

/// Appends properties behind their length.
pub fn put_properties(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    let at = out.len();
    write(out);
    let length = out.len() - at;
    let mut prefix = Vec::with_capacity(4);
    put_variable(&mut prefix, length as u32);
    out.splice(at..at, prefix);
}

/// Appends a Two Byte Integer property.
pub fn put_two(out: &mut impl Writer, id: u8, value: u16) {
    out.put_u8(id);
    out.put_u16(value);
}

/// Appends a Four Byte Integer property.
pub fn put_four(out: &mut impl Writer, id: u8, value: u32) {
    out.put_u8(id);
    out.put_u32(value);
}

/// Appends a text or binary property.
pub fn put_bytes(out: &mut impl Writer, id: u8, value: &[u8]) {
    out.put_u8(id);
    out.put_prefixed16(value);
}

/// Appends a User Property.
pub fn put_pair(out: &mut impl Writer, name: &str, value: &str) {
    out.put_u8(id::USER);
    out.put_prefixed16(name.as_bytes());
    out.put_prefixed16(value.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(bytes: &[u8], allowed: &[u8]) -> Result<Vec<(u8, String)>, Fault> {
        let mut p = Properties::decode(&mut Reader::new(bytes))?;
        let mut found = Vec::new();
        while let Some((id, value)) = p.next(allowed)? {
            found.push((id, format!("{value:?}")));
        }
        Ok(found)
    }

    #[test]
    fn a_property_may_come_once_and_user_properties_often() {
        assert_eq!(all(&[4, 0x01, 1, 0x01, 1], &[1]), Err(Fault::PROTOCOL));
        let user = [14, 38, 0, 1, b'a', 0, 1, b'b', 38, 0, 1, b'a', 0, 1, b'c'];
        assert_eq!(all(&user, &[38]).map(|l| l.len()), Ok(2));
    }

    #[test]
    fn a_property_of_another_packet_is_a_protocol_error_and_an_unknown_one_malformed() {
        assert_eq!(all(&[2, 0x01, 1], &[2]), Err(Fault::PROTOCOL));
        assert_eq!(all(&[2, 0x7F, 1], &[1]), Err(Fault::MALFORMED));
        assert_eq!(all(&[5, 0x02, 1], &[2]), Err(Fault::MALFORMED));
    }
}

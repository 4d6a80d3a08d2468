//! The fixed header (MQTT 5.0, 2.1) and the data representations (1.5), read from borrowed bytes.

use wire::{Reader, Short, Writer};

/// Packet types (2.1.2).
pub mod kind {
    /// CONNECT.
    pub const CONNECT: u8 = 1;
    /// CONNACK.
    pub const CONNACK: u8 = 2;
    /// PUBLISH.
    pub const PUBLISH: u8 = 3;
    /// PUBACK.
    pub const PUBACK: u8 = 4;
    /// PUBREC.
    pub const PUBREC: u8 = 5;
    /// PUBREL.
    pub const PUBREL: u8 = 6;
    /// PUBCOMP.
    pub const PUBCOMP: u8 = 7;
    /// SUBSCRIBE.
    pub const SUBSCRIBE: u8 = 8;
    /// SUBACK.
    pub const SUBACK: u8 = 9;
    /// UNSUBSCRIBE.
    pub const UNSUBSCRIBE: u8 = 10;
    /// UNSUBACK.
    pub const UNSUBACK: u8 = 11;
    /// PINGREQ.
    pub const PINGREQ: u8 = 12;
    /// PINGRESP.
    pub const PINGRESP: u8 = 13;
    /// DISCONNECT.
    pub const DISCONNECT: u8 = 14;
    /// AUTH (5.0 only).
    pub const AUTH: u8 = 15;
}

/// A packet that is broken, or comes when it may not: what an MQTT 5.0 peer is told, and why the conversation ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Reason code (MQTT 5.0, 2.4).
    pub reason: u8,
    /// What is counted.
    pub close: gateway::Close,
}

impl Fault {
    /// 0x81: the bytes are no packet.
    pub const MALFORMED: Fault = Fault { reason: 0x81, close: gateway::Close::Malformed };
    /// 0x82: the packet breaks a rule.
    pub const PROTOCOL: Fault = Fault { reason: 0x82, close: gateway::Close::ProtocolError };
    /// 0x90: a topic name that cannot be.
    pub const TOPIC: Fault = Fault { reason: 0x90, close: gateway::Close::Topic };
    /// 0x93: more in flight than allowed.
    pub const RECEIVE_MAXIMUM: Fault = Fault { reason: 0x93, close: gateway::Close::ReceiveMaximum };
    /// 0x94: a topic alias that cannot be.
    pub const ALIAS: Fault = Fault { reason: 0x94, close: gateway::Close::TopicAlias };
    /// 0x95: larger than the limit.
    pub const TOO_LARGE: Fault = Fault { reason: 0x95, close: gateway::Close::TooLarge };
    /// 0x99: said to be UTF-8 and is not.
    pub const PAYLOAD_FORMAT: Fault = Fault { reason: 0x99, close: gateway::Close::Malformed };
}

impl From<Short> for Fault {
    fn from(_: Short) -> Fault {
        Fault::MALFORMED
    }
}

/// Where the first packet of a buffer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame {
    /// First byte: type and flags.
    pub first: u8,
    /// Where the variable header begins.
    pub body: usize,
    /// Where the packet ends.
    pub end: usize,
}

impl Frame {
    /// Packet type.
    pub fn kind(&self) -> u8 {
        self.first >> 4
    }

    /// The four flags.
    pub fn flags(&self) -> u8 {
        self.first & 15
    }
}

/// Finds the first packet; None if it is not all there. A packet of more than `most` bytes is refused as soon as its
/// length is known. `is_strict` refuses a length in more bytes than it needs, as 5.0 demands (MQTT-1.5.5-1) and earlier
/// versions do not.
pub fn find(bytes: &[u8], most: usize, is_strict: bool) -> Result<Option<Frame>, Fault> {
    let Some(&first) = bytes.first() else { return Ok(None) };
    let mut length = 0usize;
    for at in 0..4 {
        let Some(&byte) = bytes.get(1 + at) else { return Ok(None) };
        length |= usize::from(byte & 0x7F) << (7 * at);
        if byte & 0x80 == 0 {
            if is_strict && byte == 0 && at > 0 {
                return Err(Fault::MALFORMED);
            }
            let body = 2 + at;
            let end = body + length;
            if end > most {
                return Err(Fault::TOO_LARGE);
            }
            return Ok((bytes.len() >= end).then_some(Frame { first, body, end }));
        }
    }
    // A fifth length byte (MQTT-1.5.5-1; 2.1.4).
    Err(Fault::MALFORMED)
}

/// Appends a Variable Byte Integer of at most 268,435,455 (1.5.5).
pub fn put_variable(out: &mut impl Writer, mut value: u32) {
    loop {
        let byte = (value & 0x7F) as u8;
        value >>= 7;
        if value == 0 {
            return out.put_u8(byte);
        }
        out.put_u8(byte | 0x80);
    }
}

/// Bytes that [`put_variable`] appends.
pub fn variable_size(value: usize) -> usize {
    match value {
        0..=127 => 1,
        128..=16_383 => 2,
        16_384..=2_097_151 => 3,
        _ => 4,
    }
}

/// A Variable Byte Integer (1.5.5), in as few bytes as it needs.
pub fn variable(r: &mut Reader<'_>) -> Result<u32, Fault> {
    let mut value = 0;
    for at in 0..4 {
        let byte = r.u8()?;
        value |= u32::from(byte & 0x7F) << (7 * at);
        if byte & 0x80 == 0 {
            // The encoded value must use the minimum number of bytes (MQTT-1.5.5-1).
            return if byte == 0 && at > 0 { Err(Fault::MALFORMED) } else { Ok(value) };
        }
    }
    Err(Fault::MALFORMED)
}

/// A UTF-8 Encoded String (1.5.4): well formed (MQTT-1.5.4-1) and without U+0000 (MQTT-1.5.4-2).
pub fn text<'a>(r: &mut Reader<'a>) -> Result<&'a str, Fault> {
    let bytes = r.prefixed16()?;
    let text = std::str::from_utf8(bytes).map_err(|_| Fault::MALFORMED)?;
    if bytes.contains(&0) { Err(Fault::MALFORMED) } else { Ok(text) }
}

/// A packet identifier, which is never zero (MQTT-2.2.1-3).
pub fn packet_id(r: &mut Reader<'_>) -> Result<u16, Fault> {
    match r.u16()? {
        0 => Err(Fault::PROTOCOL),
        id => Ok(id),
    }
}

/// Appends a packet of type and flags `first` whose body `write` appends.
pub fn packet(out: &mut Vec<u8>, first: u8, write: impl FnOnce(&mut Vec<u8>)) {
    out.put_u8(first);
    let at = out.len();
    out.put_u8(0);
    write(out);
    let length = out.len() - at - 1;
    if let Ok(short @ 0..=127) = u8::try_from(length) {
        out[at] = short;
        return;
    }
    let mut bytes = Vec::with_capacity(4);
    put_variable(&mut bytes, length as u32);
    out.splice(at..=at, bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remaining_length_takes_one_to_four_bytes() {
        // MQTT 5.0, table 1-1.
        for (value, bytes) in [
            (0, &[0x00][..]),
            (127, &[0x7F]),
            (128, &[0x80, 0x01]),
            (16_383, &[0xFF, 0x7F]),
            (16_384, &[0x80, 0x80, 0x01]),
            (2_097_151, &[0xFF, 0xFF, 0x7F]),
            (2_097_152, &[0x80, 0x80, 0x80, 0x01]),
            (268_435_455, &[0xFF, 0xFF, 0xFF, 0x7F]),
        ] {
            let mut out = Vec::new();
            put_variable(&mut out, value);
            assert_eq!((&out[..], variable_size(value as usize)), (bytes, bytes.len()));
            assert_eq!(variable(&mut Reader::new(bytes)), Ok(value));
        }
    }

    #[test]
    fn a_fifth_length_byte_is_malformed() {
        assert_eq!(find(&[0x30, 0xFF, 0xFF, 0xFF, 0xFF, 1], usize::MAX, false), Err(Fault::MALFORMED));
        assert_eq!(variable(&mut Reader::new(&[0x80, 0x80, 0x80, 0x80, 1])), Err(Fault::MALFORMED));
    }

    #[test]
    fn an_integer_in_more_bytes_than_it_needs_is_malformed() {
        assert_eq!(variable(&mut Reader::new(&[0x80, 0x00])), Err(Fault::MALFORMED));
    }

    #[test]
    fn a_packet_is_refused_for_its_size_before_its_body_came() {
        assert_eq!(find(&[0x30, 0x80, 0x01], 129, true), Err(Fault::TOO_LARGE));
        assert_eq!(find(&[0x30, 0x80, 0x01], 131, true), Ok(None));
    }

    #[test]
    fn text_is_utf8_without_nul() {
        assert_eq!(text(&mut Reader::new(&[0, 1, b'a'])), Ok("a"));
        assert_eq!(text(&mut Reader::new(&[0, 1, 0])), Err(Fault::MALFORMED));
        // A surrogate half, MQTT-1.5.4-1.
        assert_eq!(text(&mut Reader::new(&[0, 3, 0xED, 0xA0, 0x80])), Err(Fault::MALFORMED));
    }

    #[test]
    fn a_long_body_moves_over_for_its_length() {
        let mut out = vec![9];
        packet(&mut out, 0x30, |out| out.extend_from_slice(&[7; 200]));
        assert_eq!(out[..4], [9, 0x30, 0xC8, 0x01]);
        assert_eq!(out.len(), 4 + 200);
    }
}

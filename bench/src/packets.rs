//! The MQTT 3.1.1 packets that a run needs, as bytes. No checks beyond what keeps the two ends in step: the servers'
//! conformance is tested elsewhere.

/// First bytes of packets (MQTT 3.1.1, 2.2).
pub mod kind {
    /// Client asks for a connection.
    pub const CONNECT: u8 = 0x10;
    /// Answer to CONNECT.
    pub const CONNACK: u8 = 0x20;
    /// A message; flags are in the low bits.
    pub const PUBLISH: u8 = 0x30;
    /// QoS 1 done.
    pub const PUBACK: u8 = 0x40;
    /// QoS 2 received.
    pub const PUBREC: u8 = 0x50;
    /// QoS 2 released; its flags are fixed.
    pub const PUBREL: u8 = 0x62;
    /// QoS 2 done.
    pub const PUBCOMP: u8 = 0x70;
    /// Subscribe; its flags are fixed.
    pub const SUBSCRIBE: u8 = 0x82;
    /// Answer to SUBSCRIBE.
    pub const SUBACK: u8 = 0x90;
    /// Are you there?
    pub const PINGREQ: u8 = 0xC0;
    /// Yes.
    pub const PINGRESP: u8 = 0xD0;
    /// Client says goodbye.
    pub const DISCONNECT: u8 = 0xE0;
}

/// A whole packet at the front of a stream's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// Type and flags.
    pub first: u8,
    /// What follows the remaining length.
    pub body: &'a [u8],
    /// Bytes of the whole packet.
    pub length: usize,
}

/// Looks for a whole packet at the front of `bytes`: `None` if it has not come yet or its remaining length is not one.
pub fn cut(bytes: &[u8]) -> Option<Frame<'_>> {
    let mut remaining = 0;
    for (i, &byte) in bytes.get(1..)?.iter().take(4).enumerate() {
        remaining |= usize::from(byte & 0x7F) << (7 * i);
        if byte & 0x80 == 0 {
            let head = i + 2;
            let body = bytes.get(head..head + remaining)?;
            return Some(Frame { first: bytes[0], body, length: head + remaining });
        }
    }
    None
}

/// Takes a PUBLISH body apart: topic, packet identifier (QoS 1 and 2), payload.
pub fn take_publish(first: u8, body: &[u8]) -> Option<(&[u8], Option<u16>, &[u8])> {
    let (topic, rest) = take_prefixed(body)?;
    if first & 0x06 == 0 {
        return Some((topic, None, rest));
    }
    let (id, payload) = rest.split_first_chunk::<2>()?;
    Some((topic, Some(u16::from_be_bytes(*id)), payload))
}

/// The packet identifier at the front of a body.
pub fn take_id(body: &[u8]) -> Option<u16> {
    body.first_chunk::<2>().map(|id| u16::from_be_bytes(*id))
}

/// A length of two bytes and that many bytes, and what follows.
pub fn take_prefixed(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<2>()?;
    rest.split_at_checked(u16::from_be_bytes(*length).into())
}

/// First byte and remaining length.
pub fn head(out: &mut Vec<u8>, first: u8, mut remaining: usize) {
    out.push(first);
    while remaining > 0x7F {
        out.push((remaining & 0x7F) as u8 | 0x80);
        remaining >>= 7;
    }
    out.push(remaining as u8);
}

fn prefixed(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(&(bytes.len() as u16).to_be_bytes());
    out.extend_from_slice(bytes);
}

/// CONNECT: MQTT 3.1.1, clean session, keep alive of ten minutes (longer than any run).
pub fn connect(out: &mut Vec<u8>, client_id: &str, is_clean: bool) {
    head(out, kind::CONNECT, 12 + client_id.len());
    prefixed(out, b"MQTT");
    out.extend_from_slice(&[4, u8::from(is_clean) << 1]);
    out.extend_from_slice(&600u16.to_be_bytes());
    prefixed(out, client_id.as_bytes());
}

/// SUBSCRIBE to all of `filters` at one QoS.
pub fn subscribe(out: &mut Vec<u8>, id: u16, filters: &[String], qos: u8) {
    head(out, kind::SUBSCRIBE, 2 + filters.iter().map(|f| f.len() + 3).sum::<usize>());
    out.extend_from_slice(&id.to_be_bytes());
    for filter in filters {
        prefixed(out, filter.as_bytes());
        out.push(qos);
    }
}

/// PUBLISH; `id` is left out at QoS 0.
pub fn publish(out: &mut Vec<u8>, topic: &[u8], qos: u8, id: u16, payload: &[u8]) {
    head(out, kind::PUBLISH | qos << 1, 2 + topic.len() + if qos > 0 { 2 } else { 0 } + payload.len());
    prefixed(out, topic);
    if qos > 0 {
        out.extend_from_slice(&id.to_be_bytes());
    }
    out.extend_from_slice(payload);
}

/// A packet that is a packet identifier and nothing else: PUBACK, PUBREC, PUBREL, PUBCOMP.
pub fn ack(out: &mut Vec<u8>, first: u8, id: u16) {
    let [high, low] = id.to_be_bytes();
    out.extend_from_slice(&[first, 2, high, low]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_publish_is_cut_and_read_back_and_a_part_of_it_is_not() {
        let mut bytes = Vec::new();
        publish(&mut bytes, b"a/b", 1, 7, &[9; 200]);
        let frame = cut(&bytes).unwrap();
        assert_eq!(frame.length, bytes.len());
        assert_eq!(take_publish(frame.first, frame.body), Some((&b"a/b"[..], Some(7), &[9; 200][..])));
        for end in 0..bytes.len() {
            assert_eq!(cut(&bytes[..end]), None, "{end}");
        }
    }

    #[test]
    fn packets_are_what_the_standard_shows() {
        let mut bytes = Vec::new();
        connect(&mut bytes, "a", true);
        subscribe(&mut bytes, 10, &["a/b".into(), "c/d".into()], 1);
        ack(&mut bytes, kind::PUBREL, 258);
        assert_eq!(bytes[..15], *b"\x10\x0D\x00\x04MQTT\x04\x02\x02\x58\x00\x01a");
        assert_eq!(bytes[15..31], *b"\x82\x0E\x00\x0A\x00\x03a/b\x01\x00\x03c/d\x01");
        assert_eq!(bytes[31..], *b"\x62\x02\x01\x02");
    }
}

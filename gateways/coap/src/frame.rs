//! CoAP messages over UDP (RFC 7252, 3): bytes and [`Message`].
//!
//! Written here and not taken from coap-lite, which accepts what the RFC calls a message format error (another version,
//! a payload marker without payload, an Empty message with content, reserved classes) and drops empty path segments.

use wire::{Reader, Writer};

/// Message types (RFC 7252, 3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Confirmable.
    Con = 0,
    /// Non-confirmable.
    Non = 1,
    /// Acknowledgement.
    Ack = 2,
    /// Reset.
    Rst = 3,
}

/// Code: class and detail (RFC 7252, 12.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Code(pub u8);

impl Code {
    /// 0.00.
    pub const EMPTY: Code = Code(0);
    /// 0.01.
    pub const GET: Code = Code(1);
    /// 0.02.
    pub const POST: Code = Code(2);
    /// 0.03.
    pub const PUT: Code = Code(3);
    /// 0.04.
    pub const DELETE: Code = Code(4);
    /// 2.01.
    pub const CREATED: Code = Code::new(2, 1);
    /// 2.02.
    pub const DELETED: Code = Code::new(2, 2);
    /// 2.03.
    pub const VALID: Code = Code::new(2, 3);
    /// 2.04.
    pub const CHANGED: Code = Code::new(2, 4);
    /// 2.05.
    pub const CONTENT: Code = Code::new(2, 5);
    /// 2.31.
    pub const CONTINUE: Code = Code::new(2, 31);
    /// 4.00.
    pub const BAD_REQUEST: Code = Code::new(4, 0);
    /// 4.01.
    pub const UNAUTHORIZED: Code = Code::new(4, 1);
    /// 4.02.
    pub const BAD_OPTION: Code = Code::new(4, 2);
    /// 4.03.
    pub const FORBIDDEN: Code = Code::new(4, 3);
    /// 4.04.
    pub const NOT_FOUND: Code = Code::new(4, 4);
    /// 4.05.
    pub const METHOD_NOT_ALLOWED: Code = Code::new(4, 5);
    /// 4.06.
    pub const NOT_ACCEPTABLE: Code = Code::new(4, 6);
    /// 4.08.
    pub const INCOMPLETE: Code = Code::new(4, 8);
    /// 4.13.
    pub const TOO_LARGE: Code = Code::new(4, 13);
    /// 5.00.
    pub const INTERNAL: Code = Code::new(5, 0);
    /// 5.01.
    pub const NOT_IMPLEMENTED: Code = Code::new(5, 1);
    /// 5.03.
    pub const UNAVAILABLE: Code = Code::new(5, 3);
    /// 5.05.
    pub const PROXYING: Code = Code::new(5, 5);

    /// `class.detail`.
    pub const fn new(class: u8, detail: u8) -> Code {
        Code(class << 5 | detail)
    }

    /// The class: 0 request, 2 success, 4 and 5 errors.
    pub const fn class(self) -> u8 {
        self.0 >> 5
    }

    /// Whether this is a request.
    pub const fn is_request(self) -> bool {
        self.class() == 0 && self.0 != 0
    }
}

impl std::fmt::Display for Code {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{:02}", self.class(), self.0 & 31)
    }
}

/// A token of up to eight bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Token {
    length: u8,
    bytes: [u8; 8],
}

impl Token {
    /// The token with these bytes; only the first eight count.
    pub fn new(bytes: &[u8]) -> Token {
        let mut token = Token::default();
        for (to, from) in token.bytes.iter_mut().zip(bytes) {
            *to = *from;
            token.length += 1;
        }
        token
    }

    /// Its bytes.
    pub fn as_slice(&self) -> &[u8] {
        &self.bytes[..usize::from(self.length)]
    }
}

/// A message. Options are in the order of their numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Type.
    pub kind: Kind,
    /// Code.
    pub code: Code,
    /// Message ID.
    pub id: u16,
    /// Token.
    pub token: Token,
    /// Number and value.
    pub options: Vec<(u16, Vec<u8>)>,
    /// Payload; empty is none.
    pub payload: Vec<u8>,
}

/// Why bytes are no message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformed {
    /// Too short, or of another version: ignored without an answer (RFC 7252, 3).
    Ignore,
    /// A message format error: a Confirmable one is rejected with a Reset (4.2), others are ignored (4.3).
    Format(Kind, u16),
}

impl Message {
    /// A message without token, options and payload.
    pub fn empty(kind: Kind, id: u16) -> Message {
        Message {
            kind,
            code: Code::EMPTY,
            id,
            token: Token::default(),
            options: Vec::new(),
            payload: Vec::new(),
        }
    }

    /// Reads a datagram.
    pub fn decode(datagram: &[u8]) -> Result<Message, Malformed> {
        let mut r = Reader::new(datagram);
        let (Ok(first), Ok(code), Ok(id)) = (r.u8(), r.u8(), r.u16()) else { return Err(Malformed::Ignore) };
        if first >> 6 != 1 {
            return Err(Malformed::Ignore);
        }
        let kind = match first >> 4 & 3 {
            0 => Kind::Con,
            1 => Kind::Non,
            2 => Kind::Ack,
            _ => Kind::Rst,
        };
        let bad = Malformed::Format(kind, id);
        let length = usize::from(first & 15);
        let code = Code(code);
        // Token lengths 9 to 15 and classes 1, 6 and 7 are reserved; Empty has nothing behind the id (4.1).
        if length > 8 || matches!(code.class(), 1 | 6 | 7) || (code == Code::EMPTY && datagram.len() > 4) {
            return Err(bad);
        }
        let token = Token::new(r.take(length).map_err(|_| bad)?);
        let mut message = Message { code, token, ..Message::empty(kind, id) };
        message.decode_body(r).ok_or(bad)?;
        Ok(message)
    }

    /// Reads what follows the token: options and payload; None is a message format error.
    pub(crate) fn decode_body(&mut self, mut r: Reader<'_>) -> Option<()> {
        let mut number = 0u16;
        while !r.is_empty() {
            let byte = r.u8().ok()?;
            if byte == 0xFF {
                // A marker without payload (3).
                if r.is_empty() {
                    return None;
                }
                break;
            }
            let delta = extended(byte >> 4, &mut r)?;
            let length = extended(byte & 15, &mut r)?;
            number = u16::try_from(u32::from(number) + delta).ok()?;
            self.options.push((number, r.take(length as usize).ok()?.to_vec()));
        }
        self.payload = r.take_rest().to_vec();
        Some(())
    }

    /// Appends the message.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.put_u8(1 << 6 | (self.kind as u8) << 4 | self.token.length);
        out.put_u8(self.code.0);
        out.put_u16(self.id);
        out.put(self.token.as_slice());
        self.encode_body(out);
    }

    /// Appends options and payload.
    pub(crate) fn encode_body(&self, out: &mut Vec<u8>) {
        let mut last = 0;
        for (number, value) in &self.options {
            let (delta, delta_more) = nibble(u32::from(number - last));
            let (length, length_more) = nibble(value.len() as u32);
            out.put_u8(delta << 4 | length);
            out.put(&delta_more);
            out.put(&length_more);
            out.put(value);
            last = *number;
        }
        if !self.payload.is_empty() {
            out.put_u8(0xFF);
            out.put(&self.payload);
        }
    }

    /// How many bytes [`encode_body`](Self::encode_body) appends.
    pub(crate) fn body_length(&self) -> usize {
        let mut last = 0;
        let options = self.options.iter().map(|(number, value)| {
            let delta = u32::from(number - last);
            last = *number;
            1 + nibble(delta).1.len() + nibble(value.len() as u32).1.len() + value.len()
        });
        let options: usize = options.sum();
        options + if self.payload.is_empty() { 0 } else { 1 + self.payload.len() }
    }

    /// Adds an option behind those with the same number.
    pub fn add(&mut self, number: u16, value: &[u8]) {
        let at = self.options.partition_point(|(n, _)| *n <= number);
        self.options.insert(at, (number, value.to_vec()));
    }

    /// Adds an option whose value is a number, in as few bytes as it needs (3.2).
    pub fn add_uint(&mut self, number: u16, value: u32) {
        let bytes = value.to_be_bytes();
        let zeros = bytes.iter().take_while(|b| **b == 0).count();
        self.add(number, &bytes[zeros..]);
    }

    /// The values of an option.
    pub fn all(&self, number: u16) -> impl Iterator<Item = &[u8]> {
        self.options.iter().filter(move |(n, _)| *n == number).map(|(_, v)| v.as_slice())
    }

    /// The first value of an option as a number; None if it is absent or longer than four bytes.
    pub fn uint(&self, number: u16) -> Option<u32> {
        let value = self.all(number).next()?;
        (value.len() <= 4).then(|| value.iter().fold(0, |n, b| n << 8 | u32::from(*b)))
    }
}

/// Delta or length behind its nibble (3.1); 15 is reserved.
fn extended(nibble: u8, r: &mut Reader<'_>) -> Option<u32> {
    match nibble {
        13 => Some(u32::from(r.u8().ok()?) + 13),
        14 => Some(u32::from(r.u16().ok()?) + 269),
        15 => None,
        n => Some(n.into()),
    }
}

fn nibble(value: u32) -> (u8, Vec<u8>) {
    match value {
        0..=12 => (value as u8, Vec::new()),
        13..=268 => (13, vec![(value - 13) as u8]),
        _ => (14, ((value - 269) as u16).to_be_bytes().to_vec()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_standards_example_reads_and_writes() {
        // RFC 7252, Appendix A, figure 16: CON GET /temperature, id 0x7d34.
        let bytes = b"\x40\x01\x7d\x34\xbbtemperature";
        let m = Message::decode(bytes).unwrap();
        assert_eq!((m.kind, m.code, m.id), (Kind::Con, Code::GET, 0x7d34));
        assert_eq!(m.all(11).collect::<Vec<_>>(), [b"temperature"]);
        let mut out = Vec::new();
        m.encode(&mut out);
        assert_eq!(out, bytes);
        // Its answer: ACK 2.05 "22.3 C".
        let m = Message::decode(b"\x60\x45\x7d\x34\xff22.3 C").unwrap();
        assert_eq!((m.kind, m.code, &m.payload[..]), (Kind::Ack, Code::CONTENT, &b"22.3 C"[..]));
    }

    #[test]
    fn format_errors_are_told_from_what_is_ignored() {
        let bad = |b: &[u8]| Message::decode(b).unwrap_err();
        assert_eq!(bad(&[]), Malformed::Ignore);
        assert_eq!(bad(&[0x40, 1, 0]), Malformed::Ignore);
        assert_eq!(bad(&[0x80, 1, 0, 1]), Malformed::Ignore);
        // Token length 9, class 1, Empty with a token, marker without payload, reserved nibbles, short option.
        for b in [
            &[0x49, 1, 0, 1, 1, 2, 3, 4, 5, 6, 7, 8, 9][..],
            &[0x40, 0x21, 0, 1],
            &[0x41, 0, 0, 1, 7],
            &[0x40, 1, 0, 1, 0xFF],
            &[0x40, 1, 0, 1, 0xF1, 0],
            &[0x40, 1, 0, 1, 0x1F, 0],
            &[0x40, 1, 0, 1, 0xB5, b'a'],
        ] {
            assert_eq!(bad(b), Malformed::Format(Kind::Con, 1), "{b:02x?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(
            id: u16,
            token in prop::collection::vec(any::<u8>(), 0..=8),
            options in prop::collection::vec((0u16..2000, prop::collection::vec(any::<u8>(), 0..300)), 0..6),
            payload in prop::collection::vec(any::<u8>(), 0..50),
        ) {
            let mut m = Message { token: Token::new(&token), code: Code::PUT, payload, ..Message::empty(Kind::Con, id) };
            for (number, value) in options {
                m.add(number, &value);
            }
            let mut out = Vec::new();
            m.encode(&mut out);
            prop_assert_eq!(Message::decode(&out), Ok(m.clone()));
            // Cut anywhere it is refused or another message, never a panic.
            for cut in 0..out.len() {
                let _ = Message::decode(&out[..cut]);
            }
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let _ = Message::decode(&bytes);
        }
    }
}

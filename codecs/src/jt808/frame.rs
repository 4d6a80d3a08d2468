//! Bytes on the wire and messages: delimiters, escapes, check and header (JT/T 808, 4.4).

use bytes::{Buf, Bytes, BytesMut};

use crate::Fault;
use crate::read::Reader;

/// Begins and ends a frame (4.4.2).
pub(super) const DELIMITER: u8 = 0x7e;

/// 0x7e is sent as 0x7d 0x02, and 0x7d as 0x7d 0x01 (4.4.2).
const ESCAPE: u8 = 0x7d;

/// Most bytes of a body: its length has ten bits (4.4.3).
pub(super) const BODY: usize = 0x3ff;

/// Most bytes of a frame: header of 2019 with the place among sub-packages, body and check, every byte of them
/// escaped.
pub(super) const MAX_FRAME: usize = 2 * (21 + BODY + 1) + 2;

/// A terminal's number as it came: six bytes of two digits, ten in 2019.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Phone {
    bytes: [u8; 10],
    is_2019: bool,
}

impl Phone {
    /// The number without the zeros that fill it up; all digits if there is nothing but zeros. Some makes put an
    /// IMEI there as a binary number, so digits may be hexadecimal.
    pub(super) fn name(&self) -> Box<str> {
        let digits = crate::hex::encode(self.as_bytes());
        let number = digits.trim_start_matches('0');
        if number.is_empty() { digits.into() } else { number.into() }
    }

    /// The number of a device that has not said anything yet: twelve digits are those of 2013.
    pub(super) fn of(name: &str) -> Option<Phone> {
        let is_2019 = name.len() > 12;
        let width = if is_2019 { 20 } else { 12 };
        let digits = crate::hex::decode(&format!("{name:0>width$}")).ok()?;
        let mut phone = Phone { is_2019, ..Phone::default() };
        phone.bytes.get_mut(..digits.len())?.copy_from_slice(&digits);
        Some(phone)
    }

    /// Which text of the standard it is of: what 2019 has in front of it.
    pub(super) fn version(&self) -> Option<u8> {
        self.is_2019.then_some(1)
    }

    fn as_bytes(&self) -> &[u8] {
        if self.is_2019 { &self.bytes } else { &self.bytes[..6] }
    }
}

/// What stands before a body (4.4.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) msg_id: u16,
    /// Bits 10 to 12 of the properties; zero is plain text, one is RSA.
    pub(super) encryption: u8,
    /// What the terminal says it speaks; None before 2019.
    pub(super) version: Option<u8>,
    pub(super) phone: Phone,
    pub(super) serial: u16,
    /// How many sub-packages there are, and which this is, from one.
    pub(super) part: Option<(u16, u16)>,
}

/// Which text a message is to be understood by.
impl Header {
    /// Whether JT/T 808-2019 counts.
    pub(super) fn is_2019(&self) -> bool {
        self.version.is_some()
    }
}

/// Cuts a frame off, without its delimiters; None if there is no whole one yet. The one behind it is left, since it
/// may be how the next frame begins. Delimiters without anything between them are skipped: after a lost one, the end
/// of one frame looks like the beginning of the next.
pub(super) fn cut(buf: &mut BytesMut, max: usize) -> Result<Option<Bytes>, Fault> {
    let Some(skip) = buf.iter().position(|b| *b != DELIMITER) else {
        let extra = buf.len().saturating_sub(1);
        buf.advance(extra);
        return Ok(None);
    };
    let end = memchr::memchr(DELIMITER, &buf[skip..]).map(|n| skip + n);
    if skip == 0 {
        buf.advance(end.unwrap_or(buf.len()));
        return Err(Fault::frame(0, "a frame begins with 7e"));
    }
    match end {
        Some(end) if end - skip > max => {
            buf.advance(end);
            Err(Fault::frame(skip + max, "longer than a frame can be"))
        }
        Some(end) => {
            buf.advance(skip);
            Ok(Some(buf.split_to(end - skip).freeze()))
        }
        None if buf.len() - skip > max => {
            buf.clear();
            Err(Fault::frame(skip + max, "longer than a frame can be"))
        }
        None => Ok(None),
    }
}

/// Takes escapes back. A 0x7d before anything else stays as it is: terminals are known that forget to escape it.
pub(super) fn unescape(raw: &[u8], into: &mut Vec<u8>) {
    into.clear();
    let mut rest = raw;
    while let Some(at) = memchr::memchr(ESCAPE, rest) {
        into.extend_from_slice(&rest[..at]);
        let (byte, length) = match rest.get(at + 1) {
            Some(1) => (ESCAPE, 2),
            Some(2) => (DELIMITER, 2),
            _ => (ESCAPE, 1),
        };
        into.push(byte);
        rest = &rest[at + length..];
    }
    into.extend_from_slice(rest);
}

/// Which byte of the raw frame became the one at `at`, for faults.
pub(super) fn raw_offset(raw: &[u8], at: usize) -> usize {
    let mut offset = 0;
    for _ in 0..at {
        let is_escape = raw.get(offset) == Some(&ESCAPE) && matches!(raw.get(offset + 1), Some(1 | 2));
        offset += if is_escape { 2 } else { 1 };
    }
    offset.min(raw.len())
}

/// The header, and the body with where it begins, of a message whose escapes have been taken back.
pub(super) fn open(message: &[u8]) -> Result<(Header, Reader<'_>), Fault> {
    let Some((check, message)) = message.split_last() else { return Err(Fault::frame(0, "an empty frame")) };
    let sum = xor(message);
    if sum != *check {
        return Err(Fault::frame(message.len(), format!("check is {check:02x}, and it should be {sum:02x}")));
    }
    let mut fields = Reader::new(message, 0);
    let msg_id = fields.u16()?;
    let properties = fields.u16()?;
    let is_2019 = properties & 1 << 14 != 0;
    let version = if is_2019 { Some(fields.u8()?) } else { None };
    let mut phone = Phone { is_2019, ..Phone::default() };
    let length = if is_2019 { 10 } else { 6 };
    phone.bytes[..length].copy_from_slice(fields.take(length)?);
    let serial = fields.u16()?;
    let part = if properties & 1 << 13 != 0 { Some((fields.u16()?, fields.u16()?)) } else { None };
    let length = usize::from(properties) & BODY;
    if length != fields.left() {
        let why = format!("the header says {length} bytes of body, and there are {}", fields.left());
        return Err(Fault::frame(2, why));
    }
    let encryption = (properties >> 10 & 7) as u8;
    Ok((Header { msg_id, encryption, version, phone, serial, part }, fields))
}

/// Most sub-packages of a message to a terminal: a megabyte, as in the other direction.
const PARTS: u16 = 1 << 10;

/// Appends a frame for the terminal that `like` is from.
pub(super) fn seal(
    like: (&Phone, Option<u8>),
    msg_id: u16,
    serial: u16,
    body: &[u8],
    into: &mut Vec<u8>,
) -> Result<(), Fault> {
    if body.len() > BODY {
        return Err(Fault::frame(0, format!("{} bytes are more than a body of {BODY}", body.len())));
    }
    write(like, msg_id, serial, None, body, into);
    Ok(())
}

/// As [`seal`]; a body that is too long goes in sub-packages with serial numbers one after another (4.4.3). How many.
pub(super) fn seal_all(
    like: (&Phone, Option<u8>),
    msg_id: u16,
    serial: u16,
    body: &[u8],
    into: &mut Vec<u8>,
) -> Result<u16, Fault> {
    let parts = u16::try_from(body.len().div_ceil(BODY)).ok().filter(|parts| *parts <= PARTS);
    let Some(parts) = parts else {
        return Err(Fault::frame(0, format!("{} bytes are more than {PARTS} sub-packages", body.len())));
    };
    if parts <= 1 {
        return seal(like, msg_id, serial, body, into).map(|()| 1);
    }
    for (place, part) in (1..=parts).zip(body.chunks(BODY)) {
        write(like, msg_id, serial.wrapping_add(place - 1), Some((parts, place)), part, into);
    }
    Ok(parts)
}

/// A body that is short enough.
fn write(
    (phone, version): (&Phone, Option<u8>),
    msg_id: u16,
    serial: u16,
    part: Option<(u16, u16)>,
    body: &[u8],
    into: &mut Vec<u8>,
) {
    let bit = |is_set: bool, bit: u16| if is_set { 1 << bit } else { 0 };
    let properties = body.len() as u16 | bit(version.is_some(), 14) | bit(part.is_some(), 13);
    let (id, properties, serial) = (msg_id.to_be_bytes(), properties.to_be_bytes(), serial.to_be_bytes());
    let place = part.map(|(parts, place)| [parts.to_be_bytes(), place.to_be_bytes()]);
    let place = place.as_ref().map(|place| place.as_flattened()).unwrap_or_default();
    let fields = [&id[..], &properties, version.as_slice(), phone.as_bytes(), &serial, place, body];
    let check = [fields.iter().fold(0, |sum, field| sum ^ xor(field))];
    into.reserve(body.len() + 28);
    into.push(DELIMITER);
    for byte in fields.into_iter().chain([&check[..]]).flatten() {
        match *byte {
            DELIMITER => into.extend_from_slice(&[ESCAPE, 2]),
            ESCAPE => into.extend_from_slice(&[ESCAPE, 1]),
            byte => into.push(byte),
        }
    }
    into.push(DELIMITER);
}

fn xor(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0, |sum, byte| sum ^ byte)
}

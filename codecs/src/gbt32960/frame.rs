//! Packets: start, command, answer flag, VIN, encryption, length, data unit and check (GB/T 32960.3, 6.2, table
//! 2).

use bytes::{Buf, Bytes, BytesMut};

use crate::Fault;
use crate::read::Reader;

/// Which text of the standard a packet is of: 2016 begins with `##`, 2025 with `$$`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Text {
    Of2016,
    Of2025,
}

impl Text {
    fn of(start: [u8; 2]) -> Option<Text> {
        match &start {
            b"##" => Some(Text::Of2016),
            b"$$" => Some(Text::Of2025),
            _ => None,
        }
    }

    fn start(self) -> [u8; 2] {
        match self {
            Text::Of2016 => *b"##",
            Text::Of2025 => *b"$$",
        }
    }
}

/// Before the data unit, and the check after it.
const HEAD: usize = 24;
const CHECK: usize = 1;

/// Most bytes of a packet: a data unit has up to 65,531 (table 2).
pub(super) const MAX_FRAME: usize = HEAD + 65_531 + CHECK;

/// The answer flag of a packet that is a command, and no answer (6.3.2, table 4).
pub(super) const COMMAND: u8 = 0xfe;

/// The answer flag of success.
pub(super) const SUCCESS: u8 = 1;

/// A data unit without encryption.
pub(super) const PLAIN: u8 = 1;

/// What is before a data unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) text: Text,
    pub(super) command: u8,
    pub(super) answer: u8,
    pub(super) vin: [u8; 17],
    pub(super) encryption: u8,
}

impl Header {
    /// The VIN without what fills it up.
    pub(super) fn name(&self) -> String {
        let is_filler = |c: char| c == '\0' || c == ' ';
        String::from_utf8_lossy(&self.vin).trim_matches(is_filler).to_owned()
    }
}

/// A packet with its check, cut off; None if there is no whole one yet.
pub(super) fn cut(buf: &mut BytesMut, max: usize) -> Result<Option<Bytes>, Fault> {
    let Some(first) = buf.first_chunk::<2>() else { return Ok(None) };
    if Text::of(*first).is_none() {
        skip(buf);
        return Err(Fault::frame(0, "a packet begins with ## or $$"));
    }
    if buf.len() < HEAD {
        return Ok(None);
    }
    if let Some(at) = implausible(buf) {
        skip(buf);
        return Err(Fault::frame(at, "this is no head of a packet"));
    }
    let length = HEAD + usize::from(u16::from_be_bytes([buf[22], buf[23]])) + CHECK;
    if length > max {
        skip(buf);
        return Err(Fault::frame(22, format!("{length} bytes are more than a packet has")));
    }
    if buf.len() < length {
        return Ok(None);
    }
    let (sum, check) = (xor(&buf[2..length - 1]), buf[length - 1]);
    if sum != check {
        // The length may be what is wrong: the next packet may begin within this one.
        skip(buf);
        return Err(Fault::frame(length - 1, format!("check is {check:02x}, and it should be {sum:02x}")));
    }
    Ok(Some(buf.split_to(length).freeze()))
}

/// Drops a start that is none, and what is before the next one.
fn skip(buf: &mut BytesMut) {
    let is_start = |at: &usize| matches!(&buf[*at..], [b'#', b'#', ..] | [b'$', b'$', ..] | [b'#' | b'$']);
    let next = (1..buf.len()).find(is_start).unwrap_or(buf.len());
    buf.advance(next);
}

/// Which byte of a head cannot be one. Two `#` are rare within a packet, but lost bytes are made up for only if
/// they are not taken for a start that 64 kB belong to.
fn implausible(head: &[u8]) -> Option<usize> {
    let is_vin = |b: &u8| b.is_ascii_graphic() || matches!(b, 0 | b' ');
    if matches!(head[3], 0 | 8..=0xfd | 0xff) {
        return Some(3);
    }
    if let Some(at) = head[4..21].iter().position(|b| !is_vin(b)) {
        return Some(4 + at);
    }
    matches!(head[21], 0 | 6..=0xfd).then_some(21)
}

/// Header and data unit of a packet that [`cut`] has cut.
pub(super) fn open(packet: &[u8]) -> Result<(Header, Reader<'_>), Fault> {
    let (body, _check) = packet.split_at(packet.len().saturating_sub(CHECK));
    let mut r = Reader::new(body, 0);
    let text = Text::of(r.array()?).unwrap_or(Text::Of2016);
    let (command, answer, vin, encryption) = (r.u8()?, r.u8()?, r.array()?, r.u8()?);
    r.u16()?;
    Ok((Header { text, command, answer, vin, encryption }, r))
}

/// Appends a packet that is not encrypted.
pub(super) fn seal(
    text: Text,
    vin: &[u8; 17],
    command: u8,
    answer: u8,
    unit: &[u8],
    into: &mut Vec<u8>,
) -> Result<(), Fault> {
    let length = u16::try_from(unit.len()).map_err(|_| Fault::frame(0, "more than 65,535 bytes"))?;
    let begin = into.len() + 2;
    into.extend_from_slice(&text.start());
    into.extend_from_slice(&[command, answer]);
    into.extend_from_slice(vin);
    into.push(PLAIN);
    into.extend_from_slice(&length.to_be_bytes());
    into.extend_from_slice(unit);
    into.push(xor(&into[begin..]));
    Ok(())
}

fn xor(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0, |sum, byte| sum ^ byte)
}

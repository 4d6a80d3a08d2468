//! Trackers that speak GT06: Concox, Jimi, and many that copied them. After the vendor's "GPS Tracker Communication
//! Protocol" (GT06N, GT06F, GT06E, JM-VL).
//!
//! ```text
//! 78 78, length (1), protocol number, content, serial number (2), CRC (2), 0d 0a
//! 79 79, length (2), …
//! ```
//!
//! The length counts protocol number to CRC; the CRC is of length to serial number. An answer is the same protocol number
//! and serial number, with content if something was asked.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use serde::Deserialize;

use crate::framing::Checksum;
use crate::{Codec, Context, Credential, Def, Down, Expect, Fault, Frame, Login, Options, Reply, Up};
use wire::calendar::Calendar;

mod content;
mod samples;

/// The codec.
pub(crate) const DEF: Def = Def {
    name: "gt06",
    about: "GT06 trackers: Concox, Jimi and others",
    build: |options| Box::new(Gt06::new(options)),
    samples: samples::UP,
    downs: samples::DOWN,
};

/// The documents know no longer packet than this; two bytes of length would allow 64 KiB.
const MAX_FRAME: usize = 4096;
/// Protocol number, serial number and CRC.
const SHORTEST: usize = 5;
const END: [u8; 2] = [0x0d, 0x0a];

const LOGIN: u8 = 0x01;
const STATUS: u8 = 0x13;
const STRING: u8 = 0x15;
const STRING_INFO: u8 = 0x21;
const HEARTBEAT: u8 = 0x23;
const COMMAND: u8 = 0x80;
const TIME: u8 = 0x8a;
const INFORMATION: u8 = 0x94;
const PASS_THROUGH: u8 = 0x9b;

struct Gt06 {
    max_frame: usize,
    /// East of Greenwich, as the device said when it logged in: its times are local.
    zone_minutes: i32,
    /// The last command's server flag, which its answer repeats.
    flag: u32,
}

/// A packet off the wire.
struct Packet<'a> {
    is_long: bool,
    number: u8,
    content: &'a [u8],
    serial: [u8; 2],
    /// Where in the frame the content begins.
    at: usize,
}

impl Codec for Gt06 {
    fn decode(&mut self, cx: &Context<'_>, buf: &mut BytesMut) -> Result<Option<Frame>, Fault> {
        let Some(&[a, b]) = buf.first_chunk() else { return Ok(None) };
        let head = match (a, b) {
            (0x78, 0x78) => 3,
            (0x79, 0x79) => 4,
            _ => return Err(self.skip(buf, 0, "a packet begins with 78 78 or 79 79")),
        };
        if buf.len() < head {
            return Ok(None);
        }
        let length = buf[2..head].iter().fold(0, |n, b| n << 8 | usize::from(*b));
        if length < SHORTEST || head + length + END.len() > self.max_frame {
            return Err(self.skip(buf, 2, format!("{length} is no length of a packet")));
        }
        let Some(end) = buf.get(head + length..head + length + END.len()) else { return Ok(None) };
        if end != END {
            return Err(self.skip(buf, head + length, "a packet ends with 0d 0a"));
        }
        let frame = buf.split_to(head + length + END.len()).freeze();
        let crc = head + length - 2;
        let (counted, said) = (Checksum::Crc16X25.of(&frame[2..crc]), &frame[crc..crc + 2]);
        if u32::from(u16::from_be_bytes([said[0], said[1]])) != counted {
            let said = crate::hex::encode(said);
            return Err(Fault::frame(crc, format!("the CRC is {counted:04x}, not {said}")));
        }
        let serial = [frame[crc - 2], frame[crc - 1]];
        let content = &frame[head + 1..crc - 2];
        self.packet(cx, &Packet { is_long: head == 4, number: frame[head], content, serial, at: head + 1 })
            .map(Some)
    }

    fn encode(&mut self, _cx: &Context<'_>, down: &Down<'_>, into: &mut Vec<u8>) -> Result<Expect, Fault> {
        let command = Command::read(down)?;
        let flag = self.flag.wrapping_add(1);
        let mut content = Vec::with_capacity(command.text.len() + 7);
        // The length counts the server flag too; the whole packet has one byte of length.
        let length = u8::try_from(command.text.len() + 4).ok().filter(|l| *l <= 247);
        content.put_u8(length.ok_or_else(|| Fault::frame(0, "a command has 243 bytes at most"))?);
        content.put_u32(flag);
        content.extend_from_slice(command.text.as_bytes());
        if let Some(language) = command.language {
            content.put_u16(language);
        }
        let serial = flag.to_be_bytes();
        into.extend_from_slice(&packet(COMMAND, &content, [serial[2], serial[3]]));
        self.flag = flag;
        Ok(Expect::Reply(u64::from(flag)))
    }

    fn max_frame(&self) -> usize {
        self.max_frame
    }
}

impl Gt06 {
    fn new(options: &Options) -> Gt06 {
        let max_frame = if options.max_frame == 0 { MAX_FRAME } else { options.max_frame };
        Gt06 { max_frame, zone_minutes: 0, flag: 0 }
    }

    /// Drops what is before the next place where a packet may begin.
    fn skip(&self, buf: &mut BytesMut, at: usize, why: impl Into<std::borrow::Cow<'static, str>>) -> Fault {
        let next = buf.windows(2).skip(1).position(|pair| matches!(pair, [0x78, 0x78] | [0x79, 0x79]));
        // The last byte may be the first half of a beginning.
        let half = buf.len() - usize::from(buf.len() > 1 && matches!(buf.last(), Some(0x78 | 0x79)));
        buf.advance(next.map_or(half, |n| n + 1));
        Fault::frame(at, why)
    }

    fn packet(&mut self, cx: &Context<'_>, p: &Packet<'_>) -> Result<Frame, Fault> {
        let (mut content, mut answers) = (Vec::new(), is_answered(p));
        let up = match p.number {
            LOGIN => self.login(p)?,
            TIME => {
                let Calendar { year, month, day, hour, minute, second } = Calendar::at(cx.wall_ms);
                let year = u8::try_from(year.saturating_sub(2000)).unwrap_or(u8::MAX);
                content = vec![year, month, day, hour, minute, second];
                answers = true;
                Up::Heartbeat
            }
            STRING | STRING_INFO => self.text(p),
            _ => Up::Data(content::decode(p, self.zone_minutes)),
        };
        let answer = if answers { packet(p.number, &content, p.serial) } else { Bytes::new() };
        Ok(Frame { up: vec![up], answer, refusal: Bytes::new() })
    }

    /// The IMEI in eight bytes, two digits each and a zero before; in later documents the device's type, and its time zone
    /// (hundreds of hours and minutes in twelve bits, one for west) with its language.
    fn login(&mut self, p: &Packet<'_>) -> Result<Up, Fault> {
        let Some(id) = p.content.first_chunk::<8>() else {
            return Err(Fault::frame(p.at + p.content.len(), "a login has an IMEI in eight bytes"));
        };
        let digits = crate::hex::encode(id);
        if let Some(wrong) = digits.find(|c: char| !c.is_ascii_digit()) {
            return Err(Fault::frame(p.at + wrong / 2, "an IMEI is digits alone"));
        }
        if let Some(zone) = p.content.get(10..12) {
            let zone = u16::from_be_bytes([zone[0], zone[1]]);
            let (hours, minutes) = (i32::from(zone >> 4) / 100, i32::from(zone >> 4) % 100);
            self.zone_minutes = (hours * 60 + minutes) * if zone & 8 == 0 { 1 } else { -1 };
        }
        let device = digits.strip_prefix('0').unwrap_or(&digits).into();
        Ok(Up::Login(Login { device, username: None, credential: Credential::None }))
    }

    /// What the device answers to a command, or says of its own accord.
    fn text(&self, p: &Packet<'_>) -> Up {
        let Some((flag, text)) = content::text(p) else { return Up::Data(content::other(p)) };
        let data = crate::Data::json("message", &content::Text::of(&text));
        if (1..=self.flag).contains(&flag) {
            return Up::Reply(Reply { key: u64::from(flag), is_ok: true, value: data.value });
        }
        Up::Data(data)
    }
}

/// Devices wait for the answer to a login, a status, an alarm. Positions are answered too: no document says so, but some
/// devices send them again until they are, and none minds.
fn is_answered(p: &Packet<'_>) -> bool {
    let is_ours = (COMMAND..=COMMAND + 2).contains(&p.number);
    !p.is_long && !is_ours && !matches!(p.number, STRING | STRING_INFO | INFORMATION | PASS_THROUGH)
}

/// A packet from the server.
fn packet(number: u8, content: &[u8], serial: [u8; 2]) -> Bytes {
    let mut packet = vec![0x78, 0x78];
    // The longest content is a command's, which was measured.
    packet.put_u8(u8::try_from(content.len() + SHORTEST).unwrap_or(u8::MAX));
    packet.put_u8(number);
    packet.extend_from_slice(content);
    packet.extend_from_slice(&serial);
    let crc = Checksum::Crc16X25.of(&packet[2..]);
    packet.extend_from_slice(&crc.to_be_bytes()[2..]);
    packet.extend_from_slice(&END);
    packet.into()
}

/// What `dn/command` carries: the text itself, or an object.
struct Command {
    text: String,
    /// For devices that want one: 1 is Chinese, 2 English.
    language: Option<u16>,
}

/// Fields that are unknown here are the gateway's.
#[derive(Deserialize)]
struct Form {
    command: String,
    language: Option<u16>,
}

impl Command {
    fn read(down: &Down<'_>) -> Result<Command, Fault> {
        if down.kind != "command" {
            return Err(Fault::frame(0, format!("there is no `{}`: send to `command`", down.kind)));
        }
        let command = if down.value.first() == Some(&b'{') {
            let form: Result<Form, _> = serde_json::from_slice(down.value);
            let form = form.map_err(|e| Fault::frame(e.column(), e.to_string()))?;
            Command { text: form.command, language: form.language }
        } else {
            let text = std::str::from_utf8(down.value);
            let text = text.map_err(|e| Fault::frame(e.valid_up_to(), "a command is text"))?;
            Command { text: text.to_owned(), language: None }
        };
        if command.text.is_empty() {
            return Err(Fault::frame(0, "the command is empty"));
        }
        Ok(command)
    }
}

#[cfg(test)]
mod tests;

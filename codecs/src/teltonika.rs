//! Teltonika trackers, after the vendor's pages "Teltonika Data Sending Protocols" ("Codec"): AVL records with Codec 8, 8
//! Extended and 16, over TCP and UDP, the older ones of Codec 7, and commands with Codec 12, 13 and 14.
//!
//! ```text
//! TCP   00 0f, 15 digits                    the IMEI                          answered with 01, or 00
//!       00000000, length, data, CRC         data: codec id, count, records,   answered with the count, four bytes
//!                                           count
//! UDP   length, packet id, 01, AVL packet id, IMEI, data                      answered with the ids and the count
//! ```
//!
//! The device forgets its records only when they are counted in the answer, and sends them again if not. Records that are
//! refused are not answered: a count of zero looks like the beginning of a command, and would have them sent again at once.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use serde::Deserialize;

use crate::framing::Checksum;
use crate::read::Reader;
use crate::{Codec, Context, Credential, Def, Down, Expect, Fault, Frame, Login, Options, Up};

mod avl;
mod gh;
mod message;
mod samples;

use message::Message;

/// The codec.
pub(crate) const DEF: Def = Def {
    name: "teltonika",
    about: "Teltonika trackers: Codec 7, 8, 8 Extended, 12, 13, 14 and 16",
    build: |options| Box::new(Teltonika::new(options)),
    samples: samples::UP,
    downs: samples::DOWN,
};

/// A packet is 1280 bytes by the vendor's pages; some devices send several times that.
const MAX_FRAME: usize = 16 * 1024;
/// Preamble and length before the data, CRC after them.
const HEAD: usize = 8;
const CRC: usize = 4;
/// Packet id, 01, AVL packet id, the IMEI's length, 15 digits, codec id and two counts: the shortest that UDP carries. What
/// is shorter is an IMEI that logs in.
const SHORTEST_CHANNEL: usize = 24;
/// A byte that keeps the connection open while there is nothing to say.
const PING: u8 = 0xff;
/// The device answers commands in their order: one at a time, and any number will do.
const KEY: u64 = 0;

struct Teltonika {
    max_frame: usize,
    /// How many commands the device has not answered: what it says then is the answer.
    awaited: u32,
    /// Whether it came with UDP, which has no form for commands.
    is_channel: bool,
}

impl Codec for Teltonika {
    fn decode(&mut self, cx: &Context<'_>, buf: &mut BytesMut) -> Result<Option<Frame>, Fault> {
        if buf.first() == Some(&PING) {
            buf.advance(1);
            return Ok(Some(Frame { up: vec![Up::Heartbeat], ..Frame::default() }));
        }
        let Some(first) = buf.first_chunk().copied().map(u16::from_be_bytes) else { return Ok(None) };
        match usize::from(first) {
            0 => self.packet(buf),
            digits @ 8..SHORTEST_CHANNEL => login(digits, buf),
            length if length >= SHORTEST_CHANNEL => self.channel(cx, length, buf),
            _ => Err(Fault::stream(0, "neither an IMEI nor the four zero bytes before a packet")),
        }
    }

    fn encode(&mut self, cx: &Context<'_>, down: &Down<'_>, into: &mut Vec<u8>) -> Result<Expect, Fault> {
        let command = Command::read(down)?;
        if self.is_channel {
            return Err(Fault::frame(
                0,
                "the protocol has commands over TCP alone, and this device uses UDP",
            ));
        }
        let imei =
            if command.codec == message::CODEC_14 { message::imei(cx.device)?.to_vec() } else { Vec::new() };
        let length = u32::try_from(imei.len() + command.bytes.len());
        let length = length.map_err(|_| Fault::frame(0, "the command is too long"))?;
        let mut data = vec![command.codec, 1, message::COMMAND];
        data.put_u32(length);
        data.extend(imei);
        data.extend(command.bytes);
        data.put_u8(1);
        wrap(&data, into);
        self.awaited = self.awaited.saturating_add(1);
        Ok(Expect::Reply(KEY))
    }

    fn max_frame(&self) -> usize {
        self.max_frame
    }
}

impl Teltonika {
    fn new(options: &Options) -> Teltonika {
        let max_frame = if options.max_frame == 0 { MAX_FRAME } else { options.max_frame };
        Teltonika { max_frame, awaited: 0, is_channel: false }
    }

    /// An AVL packet or a message over TCP.
    fn packet(&mut self, buf: &mut BytesMut) -> Result<Option<Frame>, Fault> {
        if let Some(at) = buf.iter().take(4).position(|b| *b != 0) {
            return Err(Fault::stream(at, "a packet begins with four zero bytes"));
        }
        let Some(head) = buf.first_chunk::<HEAD>() else { return Ok(None) };
        let length = u32::from_be_bytes([head[4], head[5], head[6], head[7]]) as usize;
        // The codec's id and two counts at least.
        if length < 3 || length > self.max_frame.saturating_sub(HEAD + CRC) {
            return Err(Fault::stream(4, format!("{length} is no length of a packet's data")));
        }
        if buf.len() < HEAD + length + CRC {
            return Ok(None);
        }
        let packet = buf.split_to(HEAD + length + CRC).freeze();
        let data = packet.slice(HEAD..HEAD + length);
        let said = packet.slice(HEAD + length..);
        let counted = Checksum::Crc16Arc.of(&data);
        if said[..] != counted.to_be_bytes() {
            let said = crate::hex::encode(&said);
            return Err(Fault::frame(HEAD + length, format!("the CRC is {counted:08x}, not {said}")));
        }
        match data[0] {
            message::CODEC_12 | message::CODEC_13 | message::CODEC_14 => self.messages(&data).map(Some),
            codec => {
                let mut r = Reader::new(&data, HEAD);
                let records = if codec == gh::CODEC_7 { gh::decode(&mut r)? } else { avl::decode(&mut r)? };
                let count = u32::from(records.count);
                let answer = Bytes::copy_from_slice(&count.to_be_bytes());
                Ok(Some(Frame { up: records.up, answer, refusal: Bytes::new() }))
            }
        }
    }

    /// An AVL packet over UDP.
    fn channel(
        &mut self,
        cx: &Context<'_>,
        length: usize,
        buf: &mut BytesMut,
    ) -> Result<Option<Frame>, Fault> {
        if buf.get(4).is_some_and(|b| *b != 1) {
            return Err(Fault::stream(4, "a datagram has 01 after its packet id"));
        }
        if 2 + length > self.max_frame {
            return Err(Fault::stream(0, format!("{length} is no length of a datagram")));
        }
        if buf.len() < 2 + length {
            return Ok(None);
        }
        let datagram = buf.split_to(2 + length).freeze();
        let mut r = Reader::new(&datagram[2..], 2);
        let packet = r.u16()?.to_be_bytes();
        r.u8()?;
        let avl_packet = r.u8()?;
        let digits = usize::from(r.u16()?);
        let at = r.at();
        let device = imei(r.take(digits)?, at)?;
        let records = avl::decode(&mut r)?;
        self.is_channel = true;
        let mut up = records.up;
        if cx.device != Some(&*device) {
            up.insert(0, Up::Login(Login { device, username: None, credential: Credential::None }));
        }
        let answer = Bytes::copy_from_slice(&[0, 5, packet[0], packet[1], 1, avl_packet, records.count]);
        Ok(Some(Frame { up, answer, refusal: Bytes::new() }))
    }

    /// Codec 12, 13 or 14: what the device answers to a command, or what something that is wired to it says.
    fn messages(&mut self, data: &[u8]) -> Result<Frame, Fault> {
        let mut up = Vec::new();
        for message in Message::decode(&mut Reader::new(data, HEAD))? {
            if self.awaited > 0 && message.is_reply() {
                self.awaited -= 1;
                up.push(message.reply(KEY));
            } else {
                up.push(message.data());
            }
        }
        Ok(Frame { up, ..Frame::default() })
    }
}

/// The IMEI that opens a connection.
fn login(digits: usize, buf: &mut BytesMut) -> Result<Option<Frame>, Fault> {
    let said = buf.get(2..2 + digits).unwrap_or(&buf[2..]);
    let device = imei(said, 2)?;
    if said.len() < digits {
        return Ok(None);
    }
    buf.advance(2 + digits);
    let up = vec![Up::Login(Login { device, username: None, credential: Credential::None })];
    Ok(Some(Frame { up, answer: Bytes::from_static(&[1]), refusal: Bytes::from_static(&[0]) }))
}

/// Digits, which begin at `at`.
fn imei(text: &[u8], at: usize) -> Result<Box<str>, Fault> {
    if let Some(wrong) = text.iter().position(|b| !b.is_ascii_digit()) {
        return Err(Fault::stream(at + wrong, "an IMEI is digits alone"));
    }
    Ok(text.iter().map(|b| char::from(*b)).collect())
}

/// `data` with preamble, length and CRC.
fn wrap(data: &[u8], into: &mut Vec<u8>) {
    into.put_u32(0);
    into.put_u32(u32::try_from(data.len()).unwrap_or(u32::MAX));
    into.extend_from_slice(data);
    into.put_u32(Checksum::Crc16Arc.of(data));
}

/// What `dn/command` carries: the text itself, or an object.
struct Command {
    codec: u8,
    bytes: Vec<u8>,
}

/// Fields that are unknown here are the gateway's.
#[derive(Deserialize)]
struct Form {
    command: Option<String>,
    hex: Option<String>,
    codec: Option<u8>,
}

impl Command {
    fn read(down: &Down<'_>) -> Result<Command, Fault> {
        if down.kind != "command" {
            return Err(Fault::frame(0, format!("there is no `{}`: send to `command`", down.kind)));
        }
        let Some(b'{') = down.value.first() else {
            return Command::new(message::CODEC_12, down.value.to_vec());
        };
        let form: Form =
            serde_json::from_slice(down.value).map_err(|e| Fault::frame(e.column(), e.to_string()))?;
        let bytes = match (form.command, form.hex) {
            (Some(text), None) => text.into_bytes(),
            (None, Some(hex)) => crate::hex::decode(&hex).map_err(|why| Fault::frame(0, why))?,
            _ => return Err(Fault::frame(0, "needs either `command` or `hex`")),
        };
        Command::new(form.codec.unwrap_or(message::CODEC_12), bytes)
    }

    fn new(codec: u8, bytes: Vec<u8>) -> Result<Command, Fault> {
        if codec != message::CODEC_12 && codec != message::CODEC_14 {
            return Err(Fault::frame(0, format!("commands are sent with codec 12 or 14, not {codec}")));
        }
        if bytes.is_empty() {
            return Err(Fault::frame(0, "the command is empty"));
        }
        Ok(Command { codec, bytes })
    }
}

#[cfg(test)]
mod tests;

//! `jt808`: JT/T 808-2013 and -2019, which buses, lorries and taxis in China speak, and most cheap trackers.
//!
//! A terminal registers (0x0100) and is issued a code, with which it authenticates (0x0102) whenever it connects.
//! One that says neither is logged in by its number alone, if the listener's rules let it. Whatever it says is
//! answered with 0x8001, and repeated by it if not. Sections are those of JT/T 808-2013 unless said otherwise.

mod down;
mod frame;
mod location;
mod params;
mod parts;
mod samples;
#[cfg(test)]
mod tests;
mod text;
mod up;

use std::collections::VecDeque;

use bytes::{Buf, Bytes, BytesMut};

use crate::read::Reader;
use crate::{Codec, Context, Credential, Def, Down, Expect, Fault, Frame, Login, Options, Up};
use frame::{Header, Phone};
use parts::{Added, Parts};
use up::Answer;

/// The codec.
pub(crate) const DEF: Def = Def {
    name: "jt808",
    about: "JT/T 808-2013 and -2019: vehicles in China, and many trackers",
    build: |options| Box::new(Jt808::new(options)),
    samples: samples::SAMPLES,
    downs: samples::DOWNS,
};

/// Results of 0x8001 (8.2).
const OK: u8 = 0;
const FAILED: u8 = 1;

/// Result of 0x8100 for who is not let in: no such terminal (8.6).
const NO_TERMINAL: u8 = 4;

/// Most commands whose own answers are waited for; the oldest is forgotten.
const AWAITED: usize = 32;

/// A terminal's connection.
struct Jt808 {
    max_frame: usize,
    /// Whether what it is handed is a datagram.
    is_whole: bool,
    /// Who it is, and what it speaks, from its first message on.
    terminal: Option<(Phone, Option<u8>)>,
    /// Whether it has logged in by a message for that.
    has_asked: bool,
    /// The next message's serial number (4.4.3).
    serial: u16,
    parts: Parts,
    /// Commands that have an answer of their own, which comes after a 0x0001 or in its place: serial number and
    /// answer.
    awaited: VecDeque<(u16, u16)>,
    /// Commands that went in sub-packages: serial numbers of the first and the last.
    split: VecDeque<(u16, u16)>,
    /// The frame that is read now, without escapes.
    message: Vec<u8>,
}

impl Jt808 {
    fn new(options: &Options) -> Jt808 {
        let max_frame = if options.max_frame == 0 { frame::MAX_FRAME } else { options.max_frame };
        Jt808 {
            max_frame,
            is_whole: options.is_whole,
            terminal: None,
            has_asked: false,
            serial: 0,
            parts: Parts::default(),
            awaited: VecDeque::new(),
            split: VecDeque::new(),
            message: Vec::new(),
        }
    }

    fn next_serial(&mut self) -> u16 {
        let serial = self.serial;
        self.serial = serial.wrapping_add(1);
        serial
    }

    /// The serial number of a command's last sub-package, whose answer is the command's.
    fn last_serial(&mut self, parts: u16) -> u16 {
        let (first, last) = (self.serial, self.serial.wrapping_add(parts - 1));
        self.serial = last.wrapping_add(1);
        if parts > 1 {
            if self.split.len() == AWAITED {
                self.split.pop_front();
            }
            self.split.push_back((first, last));
        }
        last
    }

    fn understand(&mut self, cx: &Context<'_>, header: Header, body: Reader<'_>) -> Result<Frame, Fault> {
        let mut up = Vec::new();
        if !matches!(header.msg_id, 0x0100 | 0x0102) {
            self.know(cx, &header, &mut up)?;
        }
        let Some(part) = header.part else {
            return self.say(cx, &header, body, up);
        };
        match self.parts.add(cx.wall_ms, &header, part, { body }.rest())? {
            Added::Whole(body) => {
                // Faults in it have no place in this frame.
                let said = self.say(cx, &header, Reader::new(&body, 0), up);
                said.map_err(|fault| Fault { at: 0, ..fault })
            }
            Added::Kept => self.answer(cx, &header, up, Answer::General),
        }
    }

    /// Makes sure that this is the terminal of this connection, and logs it in by its number if it has not logged
    /// in.
    fn know(&mut self, cx: &Context<'_>, header: &Header, up: &mut Vec<Up>) -> Result<(), Fault> {
        match self.terminal {
            Some((phone, _)) if phone != header.phone => {
                let at = if header.is_2019() { 5 } else { 4 };
                let name = header.phone.name();
                return Err(Fault::frame(at, format!("{name} speaks on the connection of {}", phone.name())));
            }
            Some(_) if self.has_asked || cx.device.is_some() => {}
            _ => up.push(self.login(header, Credential::None)),
        }
        Ok(())
    }

    fn login(&mut self, header: &Header, credential: Credential) -> Up {
        self.terminal = Some((header.phone, header.version));
        self.has_asked = credential != Credential::None;
        Up::Login(Login { device: header.phone.name(), username: None, credential })
    }

    /// Reads a whole body.
    fn say(
        &mut self,
        cx: &Context<'_>,
        header: &Header,
        mut body: Reader<'_>,
        mut up: Vec<Up>,
    ) -> Result<Frame, Fault> {
        let is_2019 = header.is_2019();
        if header.encryption != 0 {
            let said = up::raw(header.msg_id, header.encryption, body.rest());
            up.extend(said.up);
            return self.answer(cx, header, up, Answer::General);
        }
        if header.msg_id == 0x0102 {
            let (code, about) = up::authenticate(&mut body, is_2019)?;
            // Some makes send it with the zeros of the field that they keep it in.
            let end = code.iter().rposition(|b| *b != 0).map_or(0, |last| last + 1);
            let code = Bytes::copy_from_slice(code[..end].trim_ascii());
            up.push(self.login(header, Credential::Token(code)));
            up.extend(about);
            return self.answer(cx, header, up, Answer::General);
        }
        let mut said = up::decode(header.msg_id, is_2019, body)?;
        if header.msg_id == 0x0100 {
            up.push(self.login(header, Credential::Issue));
        }
        up.append(&mut said.up);
        if let Some(answered) = said.answers {
            up.extend(self.serial_of(header.msg_id, &answered).map(|serial| answered.into_up(serial)));
        }
        self.answer(cx, header, up, said.answer)
    }

    /// Which command has its outcome by this; None if none has. A 0x0001 that says yes to a command with an answer
    /// of its own, or to a sub-package before the last, is no outcome yet.
    fn serial_of(&mut self, msg_id: u16, answered: &up::Answered) -> Option<u16> {
        let is_part = |part: u16| {
            let is_in = |(first, last): &&(u16, u16)| part.wrapping_sub(*first) < last.wrapping_sub(*first);
            self.split.iter().find(is_in).map(|(_, last)| *last)
        };
        let whole = answered.serial.and_then(is_part);
        if whole.is_some() && msg_id == 0x0001 && answered.is_ok {
            return None;
        }
        let serial = whole.or(answered.serial);
        let at = self.awaited.iter().position(|(command, awaited)| match serial {
            Some(serial) => serial == *command,
            None => *awaited == msg_id,
        });
        let Some(at) = at else { return serial };
        if msg_id == 0x0001 && answered.is_ok {
            return None;
        }
        self.awaited.remove(at).map(|(serial, _)| serial)
    }

    /// What to send back, with what of a long message is missing.
    fn answer(
        &mut self,
        cx: &Context<'_>,
        header: &Header,
        up: Vec<Up>,
        answer: Answer,
    ) -> Result<Frame, Fault> {
        let mut frame = Frame { up, ..Frame::default() };
        let mut all = Vec::new();
        if answer != Answer::Nothing {
            let serial = self.next_serial();
            let general = |result: u8| {
                let [a, b] = header.serial.to_be_bytes();
                let [c, d] = header.msg_id.to_be_bytes();
                [a, b, c, d, result]
            };
            let to = (&header.phone, header.version);
            let mut refusal = Vec::new();
            let [a, b] = header.serial.to_be_bytes();
            match answer {
                Answer::General => frame::seal(to, 0x8001, serial, &general(OK), &mut all)?,
                Answer::Register => {
                    let body = [&[a, b, OK], cx.token.as_bytes()].concat();
                    frame::seal(to, 0x8100, serial, &body, &mut all)?;
                }
                Answer::Time => frame::seal(to, 0x8004, serial, &text::utc(cx.wall_ms), &mut all)?,
                Answer::Media(id) => frame::seal(to, 0x8800, serial, &id.to_be_bytes(), &mut all)?,
                Answer::Nothing => {}
            }
            match answer {
                Answer::Register => frame::seal(to, 0x8100, serial, &[a, b, NO_TERMINAL], &mut refusal)?,
                _ => frame::seal(to, 0x8001, serial, &general(FAILED), &mut refusal)?,
            }
            frame.refusal = refusal.into();
        }
        if let Some(body) = self.parts.missing(cx.wall_ms, header.is_2019()) {
            let serial = self.next_serial();
            frame::seal((&header.phone, header.version), 0x8003, serial, &body, &mut all)?;
        }
        frame.answer = all.into();
        Ok(frame)
    }
}

impl Codec for Jt808 {
    fn decode(&mut self, cx: &Context<'_>, buf: &mut BytesMut) -> Result<Option<Frame>, Fault> {
        let Some(raw) = frame::cut(buf, self.max_frame)? else { return Ok(None) };
        let mut message = std::mem::take(&mut self.message);
        frame::unescape(&raw, &mut message);
        let opened = frame::open(&message);
        // What seems to end a frame that is none may begin the next one; a datagram has no next one.
        if opened.is_ok() || self.is_whole && buf.len() == 1 {
            buf.advance(1);
        }
        let frame = opened.and_then(|(header, body)| self.understand(cx, header, body));
        self.message = message;
        // One delimiter stands before the frame.
        frame.map(Some).map_err(|fault| Fault { at: frame::raw_offset(&raw, fault.at) + 1, ..fault })
    }

    fn encode(&mut self, cx: &Context<'_>, down: &Down<'_>, into: &mut Vec<u8>) -> Result<Expect, Fault> {
        let fault = |why: String| Fault::frame(0, why);
        let named = || cx.device.and_then(Phone::of).map(|phone| (phone, phone.version()));
        let Some((phone, version)) = self.terminal.or_else(named) else {
            return Err(fault("the terminal has not said anything yet".to_owned()));
        };
        let message = down::encode(down, version.is_some()).map_err(fault)?;
        let parts = frame::seal_all((&phone, version), message.id, self.serial, &message.body, into)?;
        let serial = self.last_serial(parts);
        if let Some(answer) = down::answer_of(message.id) {
            if self.awaited.len() == AWAITED {
                self.awaited.pop_front();
            }
            self.awaited.push_back((serial, answer));
        }
        Ok(if down::is_answered(message.id) { Expect::Reply(serial.into()) } else { Expect::Nothing })
    }

    fn max_frame(&self) -> usize {
        self.max_frame
    }
}

//! Where frames begin and end in a stream, from configuration alone. A frame on the wire is
//!
//! ```text
//! begin … length … payload … checksum end
//! ```
//!
//! of which every part but the payload may be missing; `codecs/README.md` has the keys. After a bad frame the next is
//! found where its length still says so, or by `begin`; otherwise the stream is at its end.

use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};

mod checksum;
mod escape;
mod frames;
mod options;
#[cfg(test)]
mod tests;

pub use checksum::Checksum;
pub(crate) use frames::Frames;
pub use options::FramingOptions;

use crate::Fault;
use escape::Escape;

/// Most bytes of a frame if nothing is said.
const MAX_FRAME: usize = 65_536;

/// Finds frames, and makes them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Framing {
    cut: Cut,
    /// Every frame begins so.
    begin: Box<[u8]>,
    /// Every frame ends so, after the checksum.
    end: Box<[u8]>,
    /// Bytes off the front that are not the payload's.
    strip: usize,
    sum: Option<Sum>,
    max_frame: usize,
}

/// What says where a frame ends.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Cut {
    Fixed(usize),
    Delimiter(Box<[u8]>, Option<Escape>),
    Length(Length),
    Line,
    Idle(Duration),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Length {
    offset: usize,
    size: usize,
    is_little: bool,
    /// Added to what it says gives the bytes that come after it.
    adjust: i64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Sum {
    kind: Checksum,
    /// From the frame's beginning; None is just before `end`.
    at: Option<usize>,
    from: usize,
    /// Counts from the frame's end below zero; zero is the end.
    to: i64,
    is_little: bool,
    is_hex: bool,
}

impl Framing {
    /// As the options say, if they make sense.
    pub fn new(options: &FramingOptions) -> Result<Framing, String> {
        options.build()
    }

    /// Lines that end with a line feed, and perhaps a carriage return before it.
    pub fn lines() -> Framing {
        let none: Box<[u8]> = Box::default();
        Framing { cut: Cut::Line, begin: none.clone(), end: none, strip: 0, sum: None, max_frame: MAX_FRAME }
    }

    /// Cuts one frame off the front and gives its payload; None if there is no whole one yet. A bad one goes too.
    pub fn cut(&self, buf: &mut BytesMut) -> Result<Option<Bytes>, Fault> {
        self.look_for_begin(buf)?;
        let window = &buf[..buf.len().min(self.max_frame)];
        let from = self.begin.len().min(window.len());
        let end = match &self.cut {
            Cut::Fixed(size) => (buf.len() >= *size).then_some((*size, 0)),
            Cut::Idle(_) => (buf.len() >= self.max_frame).then_some((self.max_frame, 0)),
            Cut::Line => find(&window[from..], b"\n").map(|at| (from + at, 1)),
            Cut::Delimiter(delimiter, None) => {
                find(&window[from..], delimiter).map(|at| (from + at, delimiter.len()))
            }
            Cut::Delimiter(delimiter, Some(escape)) => {
                escape.find(&window[from..], delimiter[0]).map(|at| (from + at, 1))
            }
            Cut::Length(length) => match self.whole(*length, window) {
                Ok(len) => len.map(|len| (len, 0)),
                Err(why) => return Err(self.lost(buf, length.offset, why)),
            },
        };
        match end {
            Some((len, after)) => self.take(buf, len, after).map(Some),
            None if buf.len() >= self.max_frame => {
                let why = format!("no end of the frame within {} bytes", self.max_frame);
                Err(self.lost(buf, self.max_frame, why))
            }
            None => Ok(None),
        }
    }

    /// What is left is all there will be: the end of a datagram, or a pause. None if nothing is left. Behind a bad frame
    /// there may be another one, for [`Framing::cut`].
    pub fn rest(&self, buf: &mut BytesMut) -> Result<Option<Bytes>, Fault> {
        if buf.is_empty() {
            return Ok(None);
        }
        if let Cut::Fixed(_) | Cut::Length(_) = self.cut {
            let at = buf.len();
            // It may be that a whole frame begins in what looked like half of one.
            if self.begin.is_empty() {
                buf.clear()
            } else {
                self.resync(buf)
            }
            return Err(Fault::frame(at, "the bytes end within a frame"));
        }
        self.take(buf, buf.len(), 0).map(Some)
    }

    /// Appends the frame of this payload; nothing with an error.
    pub fn wrap(&self, payload: &[u8], into: &mut Vec<u8>) -> Result<(), Fault> {
        let mut frame = Vec::with_capacity(self.least() + payload.len());
        frame.extend(self.begin.iter().take(self.strip));
        frame.resize(self.strip, 0);
        frame.extend(payload);
        let sum_at = self.sum.and_then(|sum| sum.at).unwrap_or(frame.len());
        frame.resize(frame.len() + self.trailer() - self.end.len(), 0);
        frame.extend(&self.end[..]);
        if frame.len() < self.least() || !frame.starts_with(&self.begin) {
            return Err(Fault::frame(
                0,
                "the payload does not begin with the part of the frame's header that is its",
            ));
        }
        if let Cut::Length(length) = self.cut {
            length.write(&mut frame)?;
        }
        if let Some(sum) = self.sum {
            let written = sum.written(sum.of(&frame)?);
            frame[sum_at..sum_at + written.len()].copy_from_slice(&written);
        }
        let was = into.len();
        self.close(&frame, into).inspect_err(|_| into.truncate(was))
    }

    /// Most bytes of a frame.
    pub fn max_frame(&self) -> usize {
        self.max_frame
    }

    /// A pause of so long is a frame's end: then call [`Framing::rest`].
    pub fn idle(&self) -> Option<Duration> {
        if let Cut::Idle(pause) = self.cut { Some(pause) } else { None }
    }

    /// Bytes that every frame has, but for a delimiter.
    fn least(&self) -> usize {
        let header = if let Cut::Length(l) = self.cut { l.offset + l.size } else { 0 };
        let sum = self.sum.and_then(|sum| Some(sum.at? + sum.size())).unwrap_or(0);
        header.max(sum).max(self.strip).max(self.begin.len()) + self.trailer()
    }

    /// Bytes after the payload, but for a delimiter.
    fn trailer(&self) -> usize {
        let sum = self.sum.filter(|sum| sum.at.is_none()).map_or(0, Sum::size);
        sum + self.end.len()
    }

    /// Whatever is not the beginning of a frame goes.
    fn look_for_begin(&self, buf: &mut BytesMut) -> Result<(), Fault> {
        let known = self.begin.len().min(buf.len());
        let Some(at) = (0..known).find(|at| buf[*at] != self.begin[*at]) else { return Ok(()) };
        let why = format!("{:02x} is not how a frame begins: {}", buf[at], crate::hex::encode(&self.begin));
        self.resync(buf);
        Err(Fault::frame(at, why))
    }

    /// Drops bytes until another frame may begin.
    fn resync(&self, buf: &mut BytesMut) {
        let may_begin = |at: &usize| buf[*at..].iter().zip(&self.begin[..]).all(|(b, begin)| b == begin);
        let next = (1..buf.len()).find(may_begin).unwrap_or(buf.len());
        buf.advance(next);
    }

    /// The frame at the front is not to be trusted, least of all where it ends.
    fn lost(&self, buf: &mut BytesMut, at: usize, why: String) -> Fault {
        if self.begin.is_empty() {
            return Fault::stream(at, why);
        }
        self.resync(buf);
        Fault::frame(at, why)
    }

    /// Bytes of the frame whose length is said, if it is whole; or what is wrong with that length.
    fn whole(&self, length: Length, buf: &[u8]) -> Result<Option<usize>, String> {
        let Some(said) = length.read(buf) else { return Ok(None) };
        let len = i64::from(said) + length.adjust + (length.offset + length.size) as i64;
        match usize::try_from(len) {
            Ok(len) if len > self.max_frame => {
                let most = self.max_frame;
                Err(format!("the length {said} makes a frame of {len} bytes, and at most {most} are allowed"))
            }
            Ok(len) if len >= self.least() => Ok((buf.len() >= len).then_some(len)),
            _ => Err(format!("the length {said} is less than every frame has")),
        }
    }

    /// Takes the frame of `len` bytes and the delimiter after it, and gives its payload.
    fn take(&self, buf: &mut BytesMut, len: usize, after: usize) -> Result<Bytes, Fault> {
        let is_crlf = self.cut == Cut::Line && buf[..len].last() == Some(&b'\r');
        let inner = len - usize::from(is_crlf);
        let opened = self.open(&buf[..inner]);
        if opened.is_err() && !self.begin.is_empty() {
            // It may be that another frame begins in what looked like this one.
            self.resync(buf);
            return opened.map(|_| Bytes::new());
        }
        let mut frame = buf.split_to(len + after).freeze();
        frame.truncate(inner);
        if let Some(plain) = opened? {
            frame = plain.into();
        }
        Ok(frame.slice(self.strip..frame.len() - self.trailer()))
    }

    /// Looks whether a frame is right; gives it without its escapes if it may have some.
    fn open(&self, frame: &[u8]) -> Result<Option<Vec<u8>>, Fault> {
        if frame.len() > self.max_frame {
            return Err(Fault::frame(self.max_frame, format!("more than {} bytes", self.max_frame)));
        }
        let begin = self.begin.len();
        match &self.cut {
            Cut::Delimiter(..) if begin > 0 && frame.len() <= begin => {
                Err(Fault::frame(frame.len(), "nothing between where a frame begins and where it ends"))
            }
            Cut::Delimiter(_, Some(escape)) => {
                let mut plain = frame[..begin].to_vec();
                let in_frame = |f: Fault| Fault { at: begin + f.at, ..f };
                plain.extend(escape.remove(&frame[begin..]).map_err(in_frame)?);
                let written_at = |f: Fault| match f.at.checked_sub(begin) {
                    Some(at) => Fault { at: begin + escape.written_at(&frame[begin..], at), ..f },
                    None => f,
                };
                self.check(&plain).map_err(written_at)?;
                Ok(Some(plain))
            }
            _ => self.check(frame).map(|()| None),
        }
    }

    /// Whether all the parts of a frame are there and right.
    fn check(&self, frame: &[u8]) -> Result<(), Fault> {
        let least = self.least();
        if frame.len() < least {
            let why = format!("a frame of {} bytes, and none has less than {least}", frame.len());
            return Err(Fault::frame(frame.len(), why));
        }
        let end = frame.len() - self.end.len();
        if let Some(at) = (end..frame.len()).find(|at| frame[*at] != self.end[*at - end]) {
            let why = format!("{:02x} is not how a frame ends: {}", frame[at], crate::hex::encode(&self.end));
            return Err(Fault::frame(at, why));
        }
        let Some(sum) = self.sum else { return Ok(()) };
        let right = sum.written(sum.of(frame)?);
        let at = sum.at.unwrap_or(end - right.len());
        let found = &frame[at..at + right.len()];
        if found.eq_ignore_ascii_case(&right) && (sum.is_hex || found == right) {
            return Ok(());
        }
        let (found, right) = (crate::hex::encode(found), crate::hex::encode(&right));
        Err(Fault::frame(at, format!("the checksum is {found}, and {right} would be right")))
    }

    /// Appends a frame with its escapes and delimiter.
    fn close(&self, frame: &[u8], into: &mut Vec<u8>) -> Result<(), Fault> {
        let was = into.len();
        let inner = was + self.begin.len();
        match &self.cut {
            Cut::Delimiter(delimiter, Some(escape)) => {
                into.extend(&self.begin[..]);
                escape.add(&frame[self.begin.len()..], delimiter[0], into);
                into.extend(&delimiter[..]);
            }
            Cut::Delimiter(delimiter, None) => {
                into.extend(frame);
                into.extend(&delimiter[..]);
                self.ends_once(&into[inner..], delimiter)?;
            }
            Cut::Line => {
                into.extend(frame);
                into.push(b'\n');
                self.ends_once(&into[inner..], b"\n")?;
                if frame.last() == Some(&b'\r') {
                    return Err(Fault::frame(frame.len() - 1, "a line must not end with a carriage return"));
                }
            }
            Cut::Fixed(size) if frame.len() != *size => {
                return Err(Fault::frame(
                    0,
                    format!("a frame of {} bytes, and all have {size}", frame.len()),
                ));
            }
            Cut::Fixed(_) | Cut::Length(_) | Cut::Idle(_) => into.extend(frame),
        }
        let len = into.len() - was;
        if len > self.max_frame {
            let why = format!("a frame of {len} bytes, and at most {} are allowed", self.max_frame);
            return Err(Fault::frame(0, why));
        }
        Ok(())
    }

    /// Whether what ends `written` is the first that looks so.
    fn ends_once(&self, written: &[u8], delimiter: &[u8]) -> Result<(), Fault> {
        match find(written, delimiter) {
            Some(at) if at + delimiter.len() < written.len() => {
                Err(Fault::frame(at, "the payload has in it what ends a frame"))
            }
            _ if !self.begin.is_empty() && written.len() <= delimiter.len() => {
                Err(Fault::frame(0, "the payload is empty"))
            }
            _ => Ok(()),
        }
    }
}

impl Length {
    fn read(self, frame: &[u8]) -> Option<u32> {
        let field = frame.get(self.offset..self.offset + self.size)?;
        let add = |n: u32, b: &u8| n << 8 | u32::from(*b);
        Some(if self.is_little { field.iter().rev().fold(0, add) } else { field.iter().fold(0, add) })
    }

    /// Writes what `frame` has after the field.
    fn write(self, frame: &mut [u8]) -> Result<(), Fault> {
        let value = (frame.len() - self.offset - self.size) as i64 - self.adjust;
        let value = u32::try_from(value).ok().filter(|n| u64::from(*n) < 1 << (8 * self.size));
        let value = value.ok_or_else(|| Fault::frame(0, "a length that its field cannot say"))?;
        let field = &mut frame[self.offset..self.offset + self.size];
        field.copy_from_slice(&in_order(value, self.size, self.is_little));
        Ok(())
    }
}

impl Sum {
    fn of(self, frame: &[u8]) -> Result<u32, Fault> {
        let to = match usize::try_from(self.to) {
            Ok(to) if to > 0 => Some(to),
            _ => frame.len().checked_sub(self.to.unsigned_abs() as usize),
        };
        let covered = to.and_then(|to| frame.get(self.from..to));
        let why = || Fault::frame(frame.len(), "the frame ends before the bytes that its checksum covers");
        covered.map(|covered| self.kind.of(covered)).ok_or_else(why)
    }

    fn written(self, value: u32) -> Vec<u8> {
        let bytes = in_order(value, self.kind.size(), self.is_little);
        if self.is_hex { crate::hex::encode(&bytes).to_ascii_uppercase().into() } else { bytes }
    }

    /// Bytes that it takes in a frame.
    fn size(self) -> usize {
        if self.is_hex { 2 * self.kind.size() } else { self.kind.size() }
    }
}

fn in_order(value: u32, size: usize, is_little: bool) -> Vec<u8> {
    let mut bytes = value.to_be_bytes()[4 - size..].to_vec();
    if is_little {
        bytes.reverse();
    }
    bytes
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}

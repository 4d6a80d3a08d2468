//! What a supervisor and a worker say to each other over the worker's standard input and output.
//!
//! Each message is its length (4 bytes), what it is (1 byte), and its fields in their order; numbers are big endian, text
//! and bytes have their length (4 bytes) before them. Both sides are of one build: there is no version to agree on.
//!
//! - The worker says [`Response::Hello`] first.
//! - It does one [`Request`] after the other, in order. Each [`Request::Load`] has one answer. Of a [`Request::Calls`] each
//!   input has one, in order, sent within a few milliseconds after it is done: what was running when a worker was
//!   killed is the first input without an answer.
//! - Each `Called` has `seq` of its request and the input's place in it.
//! - The worker ends when its input does.

use bytes::{Buf, Bytes, BytesMut};
use codecs::Shape;
use gateway::{CallFailure, Calls, Function, ProgramId};
use std::io::{self, Read};
use std::time::Duration;
use wire::{Reader, Short};

/// Most bytes of a message after its length. A script may have 4 MiB, and no buffer of a device is as large.
pub const MAX_MESSAGE: usize = 16 * 1024 * 1024;

/// What a program may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes that all its values may have together.
    pub memory: usize,
    /// Bytes of its stack.
    pub stack: usize,
    /// Time of a call, and of its loading.
    pub time: Duration,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { memory: 8 * 1024 * 1024, stack: 256 * 1024, time: Duration::from_millis(100) }
    }
}

/// What a worker is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// Make this program ready: `Loaded` or `Refused`.
    Load {
        /// Its number from now on.
        program: ProgramId,
        /// Its name in messages.
        name: String,
        /// The script.
        source: Bytes,
        /// What it may take.
        limits: Limits,
    },
    /// Forget it; no answer.
    Unload(ProgramId),
    /// `Called` for each input. An input and what it brings:
    ///
    /// - `DecodeUplink`: a payload; `{"data": …, "normalized": …, "warnings": […]}`, the last two only where there are any.
    /// - `EncodeDownlink`: `{"kind": …, "value": …}`, the value is `input.data`; `{"hex": "…", "port": 1}`.
    /// - `Decode`: the bytes of a stream that are not taken yet; `{"consumed": 12, "frames": [{"consumed": 5, "up": […],
    ///   "answer": "…", "refusal": "…"}], "error": {"at": 12, "why": "…", "skip": 3}}`, of which answer, refusal, error and
    ///   skip may be missing. Without `skip` nothing after `at` can be read. `up` is as the program gave it and may be no
    ///   [`codecs::Up`].
    /// - `Encode`: as `EncodeDownlink`; `{"hex": "…", "key": 7}`, with a key where the device answers.
    Calls {
        /// Comes back with the answers.
        seq: u64,
        /// What to call.
        calls: Calls,
    },
    /// Call one function as an example says, with the very value that it names: `Called`, with what the function gave, in
    /// JSON and as it is.
    Example {
        /// Comes back with the answer.
        seq: u64,
        /// Which program.
        program: ProgramId,
        /// The function, or its namesake of an older convention.
        function: Convention,
        /// Its argument in JSON. `recvTime` is made a Date, and `bytes` may be hexadecimal text.
        input: Bytes,
    },
}

/// The functions of TS013.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Convention {
    /// `decodeUplink`, or `Decoder` or `Decode`.
    DecodeUplink,
    /// `encodeDownlink`, or `Encoder` or `Encode`.
    EncodeDownlink,
    /// `decodeDownlink`.
    DecodeDownlink,
    /// `normalizeUplink`.
    NormalizeUplink,
}

/// What a worker answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Response {
    /// It is there. Each right that it could not give up, in words for an operator; none on a system that it was made for.
    Hello(Vec<String>),
    /// The program is ready.
    Loaded {
        /// Which.
        program: ProgramId,
        /// What it understands.
        shape: Shape,
    },
    /// It is no program.
    Refused {
        /// Which.
        program: ProgramId,
        /// Why, with the line.
        why: String,
    },
    /// What came of one input.
    Called {
        /// Of its request.
        seq: u64,
        /// The input's place in its request.
        index: u32,
        /// What it brought.
        result: Result<Bytes, CallFailure>,
        /// What the program wrote with `console.log`, cut to some lines.
        log: Vec<String>,
    },
}

/// The other side does not speak as it must.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Garbled;

impl std::fmt::Display for Garbled {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("what came over the pipe is no message, or one that is too long")
    }
}

impl std::error::Error for Garbled {}

impl From<Short> for Garbled {
    fn from(_: Short) -> Garbled {
        Garbled
    }
}

/// Cuts one message, without its length, off the front of `buf`; None until there is a whole one.
pub fn cut(buf: &mut BytesMut) -> Result<Option<Bytes>, Garbled> {
    let Some(length) = buf.first_chunk::<4>() else { return Ok(None) };
    let length = length_of(*length)?;
    if buf.len() < 4 + length {
        return Ok(None);
    }
    buf.advance(4);
    Ok(Some(buf.split_to(length).freeze()))
}

/// Reads one message, without its length, and waits for it; None if there is none any more.
pub fn read(from: &mut impl Read) -> io::Result<Option<Bytes>> {
    let mut length = [0; 4];
    match from.read_exact(&mut length) {
        Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        other => other?,
    }
    let length = length_of(length).map_err(io::Error::other)?;
    let mut message = vec![0; length];
    from.read_exact(&mut message)?;
    Ok(Some(message.into()))
}

fn length_of(bytes: [u8; 4]) -> Result<usize, Garbled> {
    let length = usize::try_from(u32::from_be_bytes(bytes)).map_err(|_| Garbled)?;
    if length <= MAX_MESSAGE { Ok(length) } else { Err(Garbled) }
}

impl Request {
    /// Appends the message; nothing of one that is too long.
    pub fn encode(&self, into: &mut Vec<u8>) -> Result<(), Garbled> {
        message(into, |w| match self {
            Request::Load { program, name, source, limits } => {
                w.u8(0);
                w.u64(program.0);
                w.bytes(name.as_bytes());
                w.bytes(source);
                w.u64(limits.memory as u64);
                w.u64(limits.stack as u64);
                w.u64(u64::try_from(limits.time.as_millis()).unwrap_or(u64::MAX));
            }
            Request::Unload(program) => {
                w.u8(1);
                w.u64(program.0);
            }
            Request::Calls { seq, calls } => {
                w.u8(2);
                w.u64(*seq);
                w.u64(calls.program.0);
                w.u8(match calls.function {
                    Function::DecodeUplink => 0,
                    Function::EncodeDownlink => 1,
                    Function::Decode => 2,
                    Function::Encode => 3,
                });
                w.bytes(calls.device.as_bytes());
                w.u8(calls.port);
                w.u64(calls.wall_ms);
                w.list(&calls.inputs, |w, input| w.bytes(input));
            }
            Request::Example { seq, program, function, input } => {
                w.u8(3);
                w.u64(*seq);
                w.u64(program.0);
                w.u8(match function {
                    Convention::DecodeUplink => 0,
                    Convention::EncodeDownlink => 1,
                    Convention::DecodeDownlink => 2,
                    Convention::NormalizeUplink => 3,
                });
                w.bytes(input);
            }
        })
    }

    /// Reads what [`cut`] or [`read`] has given.
    pub fn decode(message: &Bytes) -> Result<Request, Garbled> {
        let mut r = Fields { reader: Reader::new(message), of: message };
        let request = match r.reader.u8()? {
            0 => Request::Load {
                program: r.program()?,
                name: r.text()?,
                source: r.bytes()?,
                limits: Limits {
                    memory: r.size()?,
                    stack: r.size()?,
                    time: Duration::from_millis(r.reader.u64()?),
                },
            },
            1 => Request::Unload(r.program()?),
            2 => Request::Calls {
                seq: r.reader.u64()?,
                calls: Calls {
                    program: r.program()?,
                    function: match r.reader.u8()? {
                        0 => Function::DecodeUplink,
                        1 => Function::EncodeDownlink,
                        2 => Function::Decode,
                        3 => Function::Encode,
                        _ => return Err(Garbled),
                    },
                    device: r.text()?.into(),
                    port: r.reader.u8()?,
                    wall_ms: r.reader.u64()?,
                    inputs: r.list(Fields::bytes)?,
                },
            },
            3 => Request::Example {
                seq: r.reader.u64()?,
                program: r.program()?,
                function: match r.reader.u8()? {
                    0 => Convention::DecodeUplink,
                    1 => Convention::EncodeDownlink,
                    2 => Convention::DecodeDownlink,
                    3 => Convention::NormalizeUplink,
                    _ => return Err(Garbled),
                },
                input: r.bytes()?,
            },
            _ => return Err(Garbled),
        };
        r.end(request)
    }
}

impl Response {
    /// Appends the message; nothing of one that is too long.
    pub fn encode(&self, into: &mut Vec<u8>) -> Result<(), Garbled> {
        message(into, |w| match self {
            Response::Hello(kept) => {
                w.u8(0);
                w.list(kept, |w, why| w.bytes(why.as_bytes()));
            }
            Response::Loaded { program, shape } => {
                w.u8(1);
                w.u64(program.0);
                w.u8(match shape {
                    Shape::Payload => 0,
                    Shape::Stream => 1,
                });
            }
            Response::Refused { program, why } => {
                w.u8(2);
                w.u64(program.0);
                w.bytes(why.as_bytes());
            }
            Response::Called { seq, index, result, log } => {
                w.u8(3);
                w.u64(*seq);
                w.0.extend(index.to_be_bytes());
                let (code, bytes): (u8, &[u8]) = match result {
                    Ok(value) => (0, value),
                    Err(CallFailure::Program(why)) => (1, why.as_bytes()),
                    Err(CallFailure::Limit(why)) => (2, why.as_bytes()),
                    Err(CallFailure::Suspended) => (3, &[]),
                    Err(CallFailure::Unknown) => (4, &[]),
                    Err(CallFailure::Busy) => (5, &[]),
                };
                w.u8(code);
                w.bytes(bytes);
                w.list(log, |w, line| w.bytes(line.as_bytes()));
            }
        })
    }

    /// Reads what [`cut`] or [`read`] has given.
    pub fn decode(message: &Bytes) -> Result<Response, Garbled> {
        let mut r = Fields { reader: Reader::new(message), of: message };
        let response = match r.reader.u8()? {
            0 => Response::Hello(r.list(Fields::text)?),
            1 => Response::Loaded {
                program: r.program()?,
                shape: match r.reader.u8()? {
                    0 => Shape::Payload,
                    1 => Shape::Stream,
                    _ => return Err(Garbled),
                },
            },
            2 => Response::Refused { program: r.program()?, why: r.text()? },
            3 => Response::Called {
                seq: r.reader.u64()?,
                index: r.reader.u32()?,
                result: match r.reader.u8()? {
                    0 => Ok(r.bytes()?),
                    1 => Err(CallFailure::Program(r.text()?.into())),
                    2 => Err(CallFailure::Limit(r.text()?.into())),
                    code @ 3..=5 => {
                        r.bytes()?;
                        Err([CallFailure::Suspended, CallFailure::Unknown, CallFailure::Busy]
                            [usize::from(code) - 3]
                            .clone())
                    }
                    _ => return Err(Garbled),
                },
                log: r.list(Fields::text)?,
            },
            _ => return Err(Garbled),
        };
        r.end(response)
    }
}

/// Appends to a message.
struct Writer<'a>(&'a mut Vec<u8>);

fn message(into: &mut Vec<u8>, fields: impl FnOnce(&mut Writer<'_>)) -> Result<(), Garbled> {
    let begin = into.len();
    into.extend([0; 4]);
    fields(&mut Writer(into));
    let length = into.len() - begin - 4;
    match (u32::try_from(length), into.get_mut(begin..begin + 4)) {
        (Ok(prefix), Some(place)) if length <= MAX_MESSAGE => {
            place.copy_from_slice(&prefix.to_be_bytes());
            Ok(())
        }
        _ => {
            into.truncate(begin);
            Err(Garbled)
        }
    }
}

impl Writer<'_> {
    fn u8(&mut self, value: u8) {
        self.0.push(value);
    }

    fn u64(&mut self, value: u64) {
        self.0.extend(value.to_be_bytes());
    }

    /// A length that does not fit belongs to a message that is too long, of which nothing is kept.
    fn length(&mut self, length: usize) {
        self.0.extend(u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes());
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.length(bytes.len());
        self.0.extend(bytes);
    }

    fn list<T>(&mut self, items: &[T], each: impl Fn(&mut Writer<'_>, &T)) {
        self.length(items.len());
        for item in items {
            each(self, item);
        }
    }
}

/// Reads a message; bytes are shared with it.
struct Fields<'a> {
    reader: Reader<'a>,
    of: &'a Bytes,
}

impl Fields<'_> {
    fn program(&mut self) -> Result<ProgramId, Garbled> {
        Ok(ProgramId(self.reader.u64()?))
    }

    fn size(&mut self) -> Result<usize, Garbled> {
        usize::try_from(self.reader.u64()?).map_err(|_| Garbled)
    }

    fn length(&mut self) -> Result<usize, Garbled> {
        usize::try_from(self.reader.u32()?).map_err(|_| Garbled)
    }

    fn bytes(&mut self) -> Result<Bytes, Garbled> {
        let length = self.length()?;
        Ok(self.of.slice_ref(self.reader.take(length)?))
    }

    fn text(&mut self) -> Result<String, Garbled> {
        let bytes = self.bytes()?;
        std::str::from_utf8(&bytes).map(str::to_owned).map_err(|_| Garbled)
    }

    fn list<T>(&mut self, each: impl Fn(&mut Self) -> Result<T, Garbled>) -> Result<Vec<T>, Garbled> {
        // Not reserved beforehand: the other side says how many, and its bytes may not be there.
        (0..self.length()?).map(|_| each(self)).collect()
    }

    fn end<T>(self, value: T) -> Result<T, Garbled> {
        if self.reader.is_empty() { Ok(value) } else { Err(Garbled) }
    }
}

#[cfg(test)]
mod tests;

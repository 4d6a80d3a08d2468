//! WebSocket, server side (RFC 6455), as a carrier of bytes (MQTT 5.0, 6).
//!
//! ```text
//! GET /mqtt, Sec-WebSocket-Protocol: mqtt  ->
//!                                          <-  101 Switching Protocols | 4xx with a line that says why
//! binary frames                           <->  packets may begin and end anywhere in them (MQTT-6.0.0-2)
//! Ping                                     ->  Pong
//! Close                                    ->  Close, and the server closes the connection
//! ```
//!
//! Frames are passed on as their bytes come, so no frame is too large for the buffer and an idle connection has none. The
//! request and the frame headers are read and written by tungstenite.

use std::io::Cursor;

use bytes::{Buf, BytesMut};
use gateway::{Close, Now};
use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::{CloseCode, Control, Data, OpCode};

use crate::config;
use crate::layer::{Layer, Learnt};

mod handshake;

use handshake::Request;

/// Longest request with its header fields, in bytes.
const REQUEST: usize = 8 << 10;
/// Longest payload of a control frame (RFC 6455, 5.5).
const CONTROL: u64 = 125;

/// See the module.
pub struct WebSocket {
    state: State,
    /// Payload bytes of the current data frame that are still to come.
    left: u64,
    mask: [u8; 4],
    /// A message has begun whose last frame has not.
    is_fragmented: bool,
}

enum State {
    Handshake(Box<Request>),
    Open,
    /// A Close frame was sent: nothing may follow it.
    Closed,
}

impl WebSocket {
    /// A connection that has not asked yet. `protocol` is the one of the listener's gateway.
    pub fn new(setup: &config::WebSocket, protocol: &'static str) -> WebSocket {
        let state = State::Handshake(Box::new(Request::new(setup, protocol)));
        WebSocket { state, left: 0, mask: [0; 4], is_fragmented: false }
    }

    /// The next piece of payload or the next header; false if more bytes are needed.
    fn frame(
        &mut self,
        wire: &mut BytesMut,
        plain: &mut BytesMut,
        pong: &mut Vec<u8>,
    ) -> Result<bool, Failure> {
        if self.left > 0 {
            self.payload(wire, plain);
            return Ok(!wire.is_empty());
        }
        let mut cursor = Cursor::new(&wire[..]);
        let Ok(header) = FrameHeader::parse(&mut cursor) else { return Err(Failure::Protocol) };
        let Some((header, length)) = header else { return Ok(false) };
        let start = cursor.position() as usize;
        // No extension was agreed on (5.2), clients mask (5.1), and the highest bit of a length is zero (5.2).
        let mask = header.mask.ok_or(Failure::Protocol)?;
        if header.rsv1 || header.rsv2 || header.rsv3 || length >> 63 != 0 {
            return Err(Failure::Protocol);
        }
        match header.opcode {
            OpCode::Data(kind) => {
                // 5.4: frames of two messages do not mix.
                if self.is_fragmented != (kind == Data::Continue) {
                    return Err(Failure::Protocol);
                }
                // MQTT-6.0.0-1.
                if kind == Data::Text {
                    return Err(Failure::Text);
                }
                wire.advance(start);
                (self.left, self.mask, self.is_fragmented) = (length, mask, !header.is_final);
                Ok(!wire.is_empty())
            }
            OpCode::Control(kind) => {
                if !header.is_final || length > CONTROL {
                    return Err(Failure::Protocol);
                }
                let end = start + length as usize;
                if wire.len() < end {
                    return Ok(false);
                }
                let mut payload = wire.split_to(end).split_off(start);
                unmask(&mut payload, mask);
                match kind {
                    Control::Ping => {
                        // Of several in one go the last one is answered (5.5.3): who only asks makes no heap of answers.
                        pong.clear();
                        encode(OpCode::Control(Control::Pong), &payload, pong);
                    }
                    Control::Close => return Err(Failure::Closed(payload)),
                    _ => {}
                }
                Ok(!wire.is_empty())
            }
        }
    }

    fn payload(&mut self, wire: &mut BytesMut, plain: &mut BytesMut) {
        let length = wire.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let start = plain.len();
        plain.extend_from_slice(&wire[..length]);
        wire.advance(length);
        unmask(&mut plain[start..], self.mask);
        self.mask.rotate_left(length % 4);
        self.left -= length as u64;
    }

    fn end(&mut self, failure: Failure, reply: &mut Vec<u8>) -> Close {
        self.state = State::Closed;
        let (code, why) = match failure {
            Failure::Protocol => (CloseCode::Protocol, Close::WebSocket),
            Failure::Text => (CloseCode::Unsupported, Close::WebSocket),
            Failure::Closed(payload) => {
                let code = payload.first_chunk().map(|c| CloseCode::from(u16::from_be_bytes(*c)));
                match code {
                    // 5.5.1: the answer echoes the code; none is answered by none.
                    None if payload.is_empty() => {
                        encode(OpCode::Control(Control::Close), &[], reply);
                        return Close::PeerClosed;
                    }
                    Some(code) if code.is_allowed() && std::str::from_utf8(&payload[2..]).is_ok() => {
                        (code, Close::PeerClosed)
                    }
                    _ => (CloseCode::Protocol, Close::WebSocket),
                }
            }
        };
        encode(OpCode::Control(Control::Close), &u16::from(code).to_be_bytes(), reply);
        why
    }
}

/// Why frames end.
enum Failure {
    /// The peer breaks a rule of RFC 6455.
    Protocol,
    /// A text frame.
    Text,
    /// A Close frame with this payload.
    Closed(BytesMut),
}

impl Layer for WebSocket {
    fn open(
        &mut self,
        _: Now,
        wire: &mut BytesMut,
        plain: &mut BytesMut,
        reply: &mut Vec<u8>,
        facts: &mut Learnt,
    ) -> Result<(), Close> {
        if let State::Handshake(request) = &self.state {
            match request.answer(wire, reply, facts) {
                Ok(0) => return Ok(()),
                Ok(length) => wire.advance(length),
                Err(why) => {
                    self.state = State::Closed;
                    return Err(why);
                }
            }
            self.state = State::Open;
        }
        if matches!(self.state, State::Closed) {
            wire.clear();
            return Ok(());
        }
        let mut pong = Vec::new();
        let result = loop {
            match self.frame(wire, plain, &mut pong) {
                Ok(true) => {}
                Ok(false) => break Ok(()),
                Err(failure) => break Err(failure),
            }
        };
        reply.append(&mut pong);
        result.map_err(|failure| self.end(failure, reply))
    }

    fn seal(&mut self, _: Now, plain: &mut Vec<u8>, wire: &mut Vec<u8>) -> Result<(), Close> {
        if matches!(self.state, State::Open) {
            wire.reserve(plain.len() + 10);
            encode(OpCode::Data(Data::Binary), plain, wire);
        }
        plain.clear();
        Ok(())
    }

    fn is_ready(&self) -> bool {
        !matches!(self.state, State::Handshake(_))
    }

    fn close(&mut self, wire: &mut Vec<u8>) {
        if matches!(self.state, State::Open) {
            self.state = State::Closed;
            encode(OpCode::Control(Control::Close), &u16::from(CloseCode::Normal).to_be_bytes(), wire);
        }
    }
}

fn unmask(bytes: &mut [u8], mask: [u8; 4]) {
    let (words, tail) = bytes.as_chunks_mut::<4>();
    for word in words {
        *word = (u32::from_ne_bytes(*word) ^ u32::from_ne_bytes(mask)).to_ne_bytes();
    }
    for (byte, mask) in tail.iter_mut().zip(mask) {
        *byte ^= mask;
    }
}

/// Appends one whole frame, not masked (RFC 6455, 5.1).
fn encode(opcode: OpCode, payload: &[u8], into: &mut Vec<u8>) {
    let header = FrameHeader { opcode, ..FrameHeader::default() };
    // Writing into memory does not fail.
    let _ = header.format(payload.len() as u64, into);
    into.extend_from_slice(payload);
}

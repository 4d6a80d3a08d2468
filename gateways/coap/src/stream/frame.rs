//! CoAP messages over TCP and WebSocket (RFC 8323, 3.2 and 4.2): bytes and [`Message`].
//!
//! ```text
//! TCP        Len, TKL | Len (0, 1, 2 or 4 bytes more) | Code | Token | Options | 0xFF Payload
//! WebSocket  0,   TKL |                                 Code | Token | Options | 0xFF Payload
//! ```
//!
//! A WebSocket's messages come from the layer below in its frames, each with four bytes before it: the length, and in the
//! highest bit whether the message ends with this frame. They go there in the same form.
//!
//! There are neither types nor message ids: decoded messages are Confirmable with the id 0.

use bytes::{Buf, BytesMut};
use wire::{Reader, Writer};

use crate::frame::{Code, Kind, Message, Token};

/// The message ends with this frame of a WebSocket.
const FINAL: u32 = 1 << 31;
/// The longest head of a message over TCP: Len, four bytes of it, code, token.
pub const HEAD: usize = 14;

/// How messages lie in the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// TCP, TLS.
    Tcp,
    /// WebSocket.
    WebSocket,
}

/// Why bytes are no message; the connection is aborted (RFC 8323, 5.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformed {
    /// Larger than this endpoint's Max-Message-Size.
    TooLarge,
    /// Token lengths 9 to 15 are reserved.
    TokenLength,
    /// Anything else that cannot be.
    Format,
}

impl Malformed {
    /// For the diagnostic payload.
    pub fn text(self) -> &'static str {
        match self {
            Malformed::TooLarge => "a message is larger than Max-Message-Size",
            Malformed::TokenLength => "a token has at most 8 bytes",
            Malformed::Format => "a message is malformed",
        }
    }
}

/// Cuts messages off the front of what came.
#[derive(Debug)]
pub struct Splitter {
    framing: Framing,
    /// Largest message in bytes, its head included.
    most: usize,
    /// Frames of a WebSocket message that has not ended.
    begun: Vec<u8>,
}

impl Splitter {
    /// For a conversation that has just begun.
    pub fn new(framing: Framing, most: usize) -> Splitter {
        Splitter { framing, most, begun: Vec::new() }
    }

    /// Bytes of a message that has not ended which are not among those that are still to be taken.
    pub fn begun(&self) -> usize {
        self.begun.len()
    }

    /// The next message, if it is complete; it has left `bytes` then.
    pub fn next(&mut self, bytes: &mut BytesMut) -> Result<Option<Message>, Malformed> {
        match self.framing {
            Framing::Tcp => self.next_of_tcp(bytes),
            Framing::WebSocket => self.next_of_websocket(bytes),
        }
    }

    fn next_of_tcp(&self, bytes: &mut BytesMut) -> Result<Option<Message>, Malformed> {
        let Some((head, length)) = head(bytes)? else { return Ok(None) };
        if head + length > self.most {
            return Err(Malformed::TooLarge);
        }
        if bytes.len() < head + length {
            return Ok(None);
        }
        let message = decode(bytes[0] & 15, &bytes[head - 1 - usize::from(bytes[0] & 15)..head + length])?;
        bytes.advance(head + length);
        Ok(Some(message))
    }

    fn next_of_websocket(&mut self, bytes: &mut BytesMut) -> Result<Option<Message>, Malformed> {
        while let Some(word) = bytes.first_chunk() {
            let word = u32::from_be_bytes(*word);
            let (length, is_final) = ((word & !FINAL) as usize, word & FINAL != 0);
            if self.begun.len().saturating_add(length) > self.most {
                return Err(Malformed::TooLarge);
            }
            let Some(frame) = bytes.get(4..4 + length) else { return Ok(None) };
            if !is_final {
                self.begun.extend_from_slice(frame);
                bytes.advance(4 + length);
                continue;
            }
            let message = if self.begun.is_empty() {
                decode_websocket(frame)
            } else {
                self.begun.extend_from_slice(frame);
                decode_websocket(&std::mem::take(&mut self.begun))
            };
            bytes.advance(4 + length);
            return message.map(Some);
        }
        Ok(None)
    }
}

/// Length of the head, which ends with the token, and of what follows it (RFC 8323, 3.2).
fn head(bytes: &[u8]) -> Result<Option<(usize, usize)>, Malformed> {
    let Some(first) = bytes.first() else { return Ok(None) };
    let token = usize::from(first & 15);
    if token > 8 {
        return Err(Malformed::TokenLength);
    }
    let more = &bytes[1..];
    let (size, length) = match first >> 4 {
        13 => (1, more.first().map(|n| usize::from(*n) + 13)),
        14 => (2, more.first_chunk().map(|n| usize::from(u16::from_be_bytes(*n)) + 269)),
        15 => (4, more.first_chunk().map(|n| (u32::from_be_bytes(*n) as usize).saturating_add(65_805))),
        n => (0, Some(usize::from(n))),
    };
    Ok(length.map(|length| (1 + size + 1 + token, length)))
}

fn decode_websocket(bytes: &[u8]) -> Result<Message, Malformed> {
    let (first, rest) = bytes.split_first().ok_or(Malformed::Format)?;
    match first {
        0..=8 => decode(*first, rest),
        9..=15 => Err(Malformed::TokenLength),
        // Len is zero: the frame says it.
        _ => Err(Malformed::Format),
    }
}

/// From the code on.
fn decode(token: u8, bytes: &[u8]) -> Result<Message, Malformed> {
    let mut r = Reader::new(bytes);
    let code = Code(r.u8().map_err(|_| Malformed::Format)?);
    let token = Token::new(r.take(token.into()).map_err(|_| Malformed::Format)?);
    let mut message = Message { code, token, ..Message::empty(Kind::Con, 0) };
    message.decode_body(r).ok_or(Malformed::Format)?;
    Ok(message)
}

/// Bytes of the message, its head included.
pub fn length(message: &Message, framing: Framing) -> usize {
    let body = message.body_length();
    let more = match (framing, body) {
        (Framing::WebSocket, _) | (_, 0..13) => 0,
        (_, 13..269) => 1,
        (_, 269..65_805) => 2,
        _ => 4,
    };
    2 + more + message.token.as_slice().len() + body
}

/// Appends the message.
pub fn encode(message: &Message, framing: Framing, out: &mut Vec<u8>) {
    let (token, body) = (message.token.as_slice(), message.body_length());
    let count = token.len() as u8;
    match framing {
        Framing::WebSocket => {
            let length = (2 + token.len() + body) as u32;
            out.put(&(length | FINAL).to_be_bytes());
            out.put_u8(count);
        }
        Framing::Tcp => match body {
            0..13 => out.put_u8((body as u8) << 4 | count),
            13..269 => {
                out.put_u8(13 << 4 | count);
                out.put_u8((body - 13) as u8);
            }
            269..65_805 => {
                out.put_u8(14 << 4 | count);
                out.put_u16((body - 269) as u16);
            }
            _ => {
                out.put_u8(15 << 4 | count);
                out.put(&((body - 65_805) as u32).to_be_bytes());
            }
        },
    }
    out.put_u8(message.code.0);
    out.put(token);
    message.encode_body(out);
}

#[cfg(test)]
mod tests;

//! WebSocket, server side (RFC 6455), as a carrier of bytes (MQTT 5.0, 6) or of messages (CoAP: RFC 8323, 4).
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
//!
//! A gateway whose messages are those of the WebSocket is given each frame with four bytes before it: the length, and in the
//! highest bit whether the message ends with this frame. It gives its messages in the same form, each as one frame.

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
/// Before a frame of a gateway that is given messages: the message ends with it.
const FINAL: u32 = 1 << 31;

/// See the module.
pub struct WebSocket {
    state: State,
    /// Payload bytes of the current data frame that are still to come.
    left: u64,
    mask: [u8; 4],
    /// A message has begun whose last frame has not.
    is_fragmented: bool,
    /// The gateway is told where messages begin and end.
    keeps_messages: bool,
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
        WebSocket { state, left: 0, mask: [0; 4], is_fragmented: false, keeps_messages: protocol == "coap" }
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
                if self.keeps_messages {
                    let length = u32::try_from(length).ok().filter(|l| l & FINAL == 0);
                    let end = if header.is_final { FINAL } else { 0 };
                    plain.extend_from_slice(&(length.ok_or(Failure::TooLarge)? | end).to_be_bytes());
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
            Failure::TooLarge => (CloseCode::Size, Close::TooLarge),
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
    /// A frame that no gateway takes.
    TooLarge,
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
            let binary = OpCode::Data(Data::Binary);
            if self.keeps_messages {
                messages(plain).for_each(|message| encode(binary, message, wire));
            } else {
                encode(binary, plain, wire);
            }
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

/// What a gateway gives that keeps messages.
fn messages(mut plain: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let (length, rest) = plain.split_first_chunk()?;
        let (message, rest) = rest.split_at_checked((u32::from_be_bytes(*length) & !FINAL) as usize)?;
        plain = rest;
        Some(message)
    })
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

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::io::{self, Read, Write};

    use tungstenite::protocol::{Role, WebSocketConfig};
    use tungstenite::{Message, WebSocket as Client};

    use super::*;

    const REQUEST_TEXT: &str = "GET /mqtt?x=1 HTTP/1.1\r\nHost: h\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\
        Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
        Sec-WebSocket-Protocol: mqttv3.1, mqtt\r\n\r\n";

    /// The layer with what came out of it.
    struct Server {
        layer: WebSocket,
        wire: BytesMut,
        plain: BytesMut,
        reply: Vec<u8>,
        facts: Learnt,
    }

    impl Server {
        fn new(origins: &[&str]) -> Server {
            let allowed_origins = origins.iter().map(|o| (*o).to_owned()).collect();
            let setup = config::WebSocket { path: "/mqtt".to_owned(), allowed_origins };
            let layer = WebSocket::new(&setup, "mqtt");
            let (wire, plain) = (BytesMut::new(), BytesMut::new());
            Server { layer, wire, plain, reply: Vec::new(), facts: Learnt::default() }
        }

        fn ready() -> Server {
            let mut server = Server::new(&[]);
            server.give(REQUEST_TEXT.as_bytes()).unwrap();
            server.reply.clear();
            server
        }

        fn give(&mut self, bytes: &[u8]) -> Result<(), Close> {
            self.wire.extend_from_slice(bytes);
            self.layer.open(Now::default(), &mut self.wire, &mut self.plain, &mut self.reply, &mut self.facts)
        }

        fn replied(&self) -> &str {
            std::str::from_utf8(&self.reply).unwrap()
        }
    }

    /// A frame as clients send it.
    fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
        let mask = [1, 2, 3, 4];
        let mut bytes = vec![first];
        match payload.len() {
            n @ 0..126 => bytes.push(0x80 | n as u8),
            n @ 126..65_536 => {
                bytes.push(0xfe);
                bytes.extend_from_slice(&(n as u16).to_be_bytes());
            }
            n => {
                bytes.push(0xff);
                bytes.extend_from_slice(&(n as u64).to_be_bytes());
            }
        }
        bytes.extend_from_slice(&mask);
        bytes.extend(payload.iter().zip(mask.iter().cycle()).map(|(b, m)| b ^ m));
        bytes
    }

    #[test]
    fn the_request_is_answered_and_its_facts_are_learnt() {
        let mut server = Server::new(&[]);
        for byte in REQUEST_TEXT.bytes() {
            assert!(!server.layer.is_ready() && server.reply.is_empty());
            server.give(&[byte]).unwrap();
        }
        assert!(server.layer.is_ready() && server.wire.is_empty());
        let reply = server.replied().to_ascii_lowercase();
        assert!(reply.starts_with("http/1.1 101 switching protocols\r\n"), "{reply}");
        // The accept key of RFC 6455, 1.3; the subprotocol by MQTT-6.0.0-4.
        assert!(reply.contains("sec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo=\r\n"), "{reply}");
        assert!(reply.contains("sec-websocket-protocol: mqtt\r\n") && reply.ends_with("\r\n\r\n"), "{reply}");
        let learnt =
            Learnt { path: Some("/mqtt?x=1".into()), subprotocol: Some("mqtt".into()), ..Learnt::default() };
        assert_eq!(server.facts, learnt);
    }

    #[test]
    fn mqtt_3_1_has_a_subprotocol_of_its_own() {
        let mut server = Server::new(&[]);
        server.give(REQUEST_TEXT.replace("mqttv3.1, mqtt", "mqttv3.1").as_bytes()).unwrap();
        assert_eq!(server.facts.subprotocol.as_deref(), Some("mqttv3.1"));
    }

    #[test]
    fn origin_and_proxies_are_noticed() {
        for field in
            ["X-Forwarded-For: 1.2.3.4", "Forwarded: for=1.2.3.4", "Via: 1.1 p", "X-Real-IP: 1.2.3.4"]
        {
            let mut server = Server::new(&["https://a.example"]);
            let head = format!("Host: h\r\nOrigin: https://a.example\r\n{field}\r\n");
            server.give(REQUEST_TEXT.replace("Host: h\r\n", &head).as_bytes()).unwrap();
            assert_eq!(
                (server.facts.origin.as_deref(), server.facts.forwarded),
                (Some("https://a.example"), true)
            );
        }
    }

    #[test]
    fn a_request_for_something_else_is_told_so() {
        let long = format!("GET /{} ", "x".repeat(REQUEST));
        for (from, to, status) in [
            ("/mqtt?", "/other?", "404 Not Found"),
            ("GET /mqtt?x=1", "GET /mqtt/", "404 Not Found"),
            ("Upgrade: websocket\r\n", "", "426 Upgrade Required"),
            ("Version: 13", "Version: 8", "426 Upgrade Required"),
            ("Connection: keep-alive, Upgrade", "Connection: close", "426 Upgrade Required"),
            ("dGhlIHNhbXBsZSBub25jZQ==", "short", "400 Bad Request"),
            ("Sec-WebSocket-Protocol: mqttv3.1, mqtt\r\n", "", "400 Bad Request"),
            ("mqttv3.1, mqtt", "MQTT, stomp", "400 Bad Request"),
            ("GET ", "POST ", "405 Method Not Allowed"),
            ("HTTP/1.1", "HTTP/1.0", "505 HTTP Version Not Supported"),
            ("GET ", "\u{10}\u{c}\0\u{4}MQTT", "400 Bad Request"),
            ("Host: h", "Origin: https://evil.example", "403 Forbidden"),
            ("GET ", &long, "431 Request Header Fields Too Large"),
        ] {
            let mut server = Server::new(&["https://a.example"]);
            let result = server.give(REQUEST_TEXT.replace(from, to).as_bytes());
            assert_eq!(result, Err(Close::WebSocket), "{to}");
            let reply = server.replied();
            assert!(reply.starts_with(&format!("HTTP/1.1 {status}\r\n")), "{to}: {reply}");
            let (head, body) = reply.split_once("\r\n\r\n").unwrap();
            assert!(
                head.contains(&format!("Content-Length: {}", body.len()))
                    && head.contains("Connection: close")
            );
            assert_eq!(
                (server.layer.is_ready(), &server.facts),
                (true, &Learnt::default()),
                "closed for good"
            );
            let mut said = Vec::new();
            server.layer.close(&mut said);
            server.layer.seal(Now::default(), &mut vec![1], &mut said).unwrap();
            assert!(said.is_empty());
        }
    }

    #[test]
    fn packets_may_begin_and_end_anywhere_in_frames() {
        // MQTT-6.0.0-2. Fragments with a Ping between them, lengths of one, three and nine bytes.
        let payload: Vec<u8> = (0..70_000u32).map(|i| i as u8).collect();
        let mut bytes = frame(0x82, &payload[..10]);
        bytes.extend(frame(0x02, &payload[10..200]));
        bytes.extend(frame(0x89, b"beat"));
        bytes.extend(frame(0x00, b""));
        bytes.extend(frame(0x80, &payload[200..1001]));
        bytes.extend(frame(0x82, &payload[1001..]));
        for size in [1, 2, 3, 7, 1000, bytes.len()] {
            let mut server = Server::ready();
            for piece in bytes.chunks(size) {
                server.give(piece).unwrap();
            }
            assert!(server.plain == payload, "pieces of {size}");
            assert_eq!(server.reply, b"\x8a\x04beat");
            assert!(server.wire.is_empty());
        }
    }

    fn server_of_messages() -> Server {
        let setup = config::WebSocket { path: "/.well-known/coap".to_owned(), allowed_origins: Vec::new() };
        let mut server = Server::ready();
        server.layer = WebSocket::new(&setup, "coap");
        let request =
            REQUEST_TEXT.replace("/mqtt?x=1", "/.well-known/coap").replace("mqttv3.1, mqtt", "coap");
        server.give(request.as_bytes()).unwrap();
        assert_eq!(server.facts.subprotocol.as_deref(), Some("coap"));
        server.reply.clear();
        server
    }

    #[test]
    fn where_messages_are_kept_each_frame_says_its_length_and_whether_it_is_the_last() {
        // RFC 8323, 4.2: a message may come in fragments, with a Ping between them.
        let long = [7; 300];
        let bytes = [frame(0x82, b"one"), frame(0x02, b"tw"), frame(0x89, b"?"), frame(0x80, b"o")].concat();
        let bytes = [bytes, frame(0x82, b""), frame(0x82, &long)].concat();
        let expected =
            [&b"\x80\0\0\x03one\0\0\0\x02tw\x80\0\0\x01o\x80\0\0\0\x80\0\x01\x2c"[..], &long].concat();
        for size in [1, 3, bytes.len()] {
            let mut server = server_of_messages();
            bytes.chunks(size).for_each(|piece| server.give(piece).unwrap());
            assert_eq!(server.plain, expected, "pieces of {size}");
            assert_eq!(server.reply, b"\x8a\x01?");
            assert!(server.wire.is_empty());
        }
    }

    #[test]
    fn messages_that_leave_together_stay_messages() {
        let mut server = server_of_messages();
        let (mut plain, mut wire) = (b"\x80\0\0\x03one\x80\0\0\x02tw".to_vec(), Vec::new());
        server.layer.seal(Now::default(), &mut plain, &mut wire).unwrap();
        assert_eq!((plain.len(), &wire[..]), (0, &b"\x82\x03one\x82\x02tw"[..]));
    }

    #[test]
    fn a_frame_that_no_gateway_takes_is_refused_at_its_head() {
        let mut server = server_of_messages();
        let head = [0x82, 0xff, 0, 0, 0, 0, 0x80, 0, 0, 0, 1, 2, 3, 4];
        assert_eq!(server.give(&head), Err(Close::TooLarge));
        assert_eq!(server.reply, [0x88, 2, 3, 241]);
        let mut server = server_of_messages();
        assert_eq!(server.give(&frame(0x81, b"text")), Err(Close::WebSocket));
        assert_eq!(server.reply, [0x88, 2, 3, 235]);
    }

    #[test]
    fn what_no_client_may_send_ends_with_its_close_code() {
        let mut unmasked = frame(0x82, b"ab");
        unmasked[1] &= 0x7f;
        let huge = [0x82, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4];
        let fragmented = [frame(0x02, b"a"), frame(0x82, b"b")].concat();
        for (bytes, code) in [
            // MQTT-6.0.0-1.
            (&frame(0x81, b"text")[..], 1003u16),
            (&unmasked, 1002),
            (&huge, 1002),
            (&fragmented, 1002),
            (&frame(0xc2, b"rsv1"), 1002),
            (&frame(0x83, b"reserved"), 1002),
            (&frame(0x8b, b"reserved"), 1002),
            (&frame(0x80, b"continues nothing"), 1002),
            (&frame(0x09, b"a ping in pieces"), 1002),
            (&frame(0x89, &[0; 126]), 1002),
            (&frame(0x88, &[3]), 1002),
            (&frame(0x88, &1005u16.to_be_bytes()), 1002),
            (&frame(0x88, &[3, 232, 0xff]), 1002),
        ] {
            let mut server = Server::ready();
            assert_eq!(server.give(bytes), Err(Close::WebSocket), "{bytes:x?}");
            let [high, low] = code.to_be_bytes();
            assert_eq!(server.reply, [0x88, 2, high, low], "{bytes:x?}");
            assert_eq!(server.give(&frame(0x82, b"late")), Ok(()));
            assert!(!server.plain.ends_with(b"late") && server.wire.is_empty());
        }
    }

    #[test]
    fn close_is_answered_after_what_came_before_it() {
        for (payload, echo) in [(&[][..], &b"\x88\0"[..]), (&[3, 232, b'b', b'y', b'e'], b"\x88\x02\x03\xe8")]
        {
            let mut server = Server::ready();
            let bytes = [frame(0x82, b"DISCONNECT"), frame(0x88, payload)].concat();
            assert_eq!(server.give(&bytes), Err(Close::PeerClosed));
            assert_eq!((&server.plain[..], &server.reply[..]), (&b"DISCONNECT"[..], echo));
            let mut said = Vec::new();
            server.layer.close(&mut said);
            assert!(said.is_empty(), "goodbye twice");
        }
    }

    #[test]
    fn of_many_pings_at_once_the_last_is_answered() {
        let mut server = Server::ready();
        let pings: Vec<u8> = (0..1000u16).flat_map(|i| frame(0x89, &i.to_be_bytes())).collect();
        server.give(&pings).unwrap();
        assert_eq!(server.reply, [0x8a, 2, 3, 231]);
    }

    #[test]
    fn no_bit_of_frames_can_do_harm() {
        let bytes =
            [frame(0x02, b"ab"), frame(0x89, b"c"), frame(0x80, &[7; 130]), frame(0x88, &[3, 232])].concat();
        for bit in 0..bytes.len() * 8 {
            let mut server = Server::ready();
            let mut broken = bytes.clone();
            broken[bit / 8] ^= 1 << (bit % 8);
            // Any end is right that is none of this program.
            let _ = server.give(&broken);
            assert!(server.plain.len() <= bytes.len());
        }
    }

    #[test]
    fn an_idle_connection_costs_its_struct_and_nothing_else() {
        let mut server = Server::ready();
        server.give(&frame(0x82, &[0; 5000])).unwrap();
        assert!(matches!(server.layer.state, State::Open) && server.wire.is_empty());
        assert!(size_of::<WebSocket>() <= 32, "{} bytes", size_of::<WebSocket>());
    }

    /// A client's end in memory.
    #[derive(Default)]
    struct Pipe {
        input: VecDeque<u8>,
        output: Vec<u8>,
    }

    impl Read for Pipe {
        fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
            if self.input.is_empty() { Err(io::ErrorKind::WouldBlock.into()) } else { self.input.read(into) }
        }
    }

    impl Write for Pipe {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.output.write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_client_that_others_wrote_understands_it() {
        let mut server = Server::ready();
        let mut client =
            Client::from_raw_socket(Pipe::default(), Role::Client, Some(WebSocketConfig::default()));
        for size in [0, 1, 125, 126, 65_535, 65_536, 300_000] {
            let payload = vec![7; size];
            client.send(Message::binary(payload.clone())).unwrap();
            server.plain.clear();
            server.give(&std::mem::take(&mut client.get_mut().output)).unwrap();
            assert!(server.plain == payload);
            let (mut plain, mut wire) = (payload.clone(), Vec::new());
            server.layer.seal(Now::default(), &mut plain, &mut wire).unwrap();
            client.get_mut().input.extend(wire);
            assert!(client.read().unwrap() == Message::binary(payload));
        }
        let mut wire = Vec::new();
        server.layer.close(&mut wire);
        client.get_mut().input.extend(wire);
        assert!(matches!(client.read(), Ok(Message::Close(Some(frame))) if frame.code == CloseCode::Normal));
    }
}

//! The WebSocket layer: byte one says whether a right request goes before and how the rest is cut into pieces. However it
//! is cut, the same comes out, and what is sent is a response or frames as a server may send them. All that for a gateway
//! that is given bytes, and for one that is given messages.

use std::io::Cursor;

use bytes::BytesMut;
use gateway::{Close, Now};
use runtime::config::WebSocket as Setup;
use runtime::layer::websocket::WebSocket;
use runtime::layer::{Layer, Learnt};
use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::{Control, Data, OpCode};

const REQUEST: &str = "GET /mqtt HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: PROTOCOL\r\n\r\n";
/// Longest request, and longest control frame with its header: what a layer may have to wait for.
const WAITING: usize = 8 << 10;

/// What came of some pieces.
#[derive(Debug, PartialEq)]
struct Outcome {
    result: Result<(), Close>,
    plain: BytesMut,
    learnt: Learnt,
    is_ready: bool,
    /// What is to be sent, without Pongs: of Pings that come in one piece only the last is answered.
    sent: Vec<(OpCode, Vec<u8>)>,
}

/// Plays `data`.
pub fn play(data: &[u8]) {
    let Some((&how, bytes)) = data.split_first() else { return };
    let piece = usize::from(how >> 1) + 1;
    for protocol in ["mqtt", "coap"] {
        if how & 1 == 0 {
            assert_eq!(open(protocol, [bytes], false), open(protocol, bytes.chunks(piece), false));
            continue;
        }
        let request = REQUEST.replace("PROTOCOL", protocol);
        let pieces = || std::iter::once(request.as_bytes());
        let whole = open(protocol, pieces().chain([bytes]), true);
        assert!(whole.is_ready && whole.learnt.path.as_deref() == Some("/mqtt"));
        assert_eq!(whole, open(protocol, pieces().chain(bytes.chunks(piece)), true));
    }
}

fn open<'a>(protocol: &'static str, pieces: impl IntoIterator<Item = &'a [u8]>, is_right: bool) -> Outcome {
    let setup = Setup { path: "/mqtt".to_owned(), allowed_origins: vec!["https://a.example".to_owned()] };
    let mut layer = WebSocket::new(&setup, protocol);
    let (mut wire, mut plain, mut learnt) = (BytesMut::new(), BytesMut::new(), Learnt::default());
    let (mut reply, mut result, mut given) = (Vec::new(), Ok(()), 0);
    for piece in pieces {
        wire.extend_from_slice(piece);
        given += piece.len();
        result = layer.open(Now::default(), &mut wire, &mut plain, &mut reply, &mut learnt);
        assert!(plain.len() + wire.len() <= given);
        if result.is_err() {
            break;
        }
        assert!(wire.len() < WAITING, "waits for {} bytes", wire.len());
    }
    let is_ready = layer.is_ready();
    if is_ready && result.is_ok() {
        let mut bytes = vec![7; given % 300];
        layer.seal(Now::default(), &mut bytes, &mut reply).unwrap_or_else(|why| panic!("{why:?}"));
        layer.close(&mut reply);
        assert!(bytes.is_empty());
    }
    let end = reply.len();
    layer.close(&mut reply);
    assert_eq!(reply.len(), end, "nothing follows the end");
    let begins = if is_right { &b"HTTP/1.1 101 "[..] } else { b"HTTP/1.1 " };
    assert!(reply.is_empty() || reply.starts_with(begins));
    Outcome { result, plain, learnt, is_ready, sent: frames(&reply) }
}

/// The frames after the response's head. A Close is the last.
fn frames(sent: &[u8]) -> Vec<(OpCode, Vec<u8>)> {
    let Some(head) = sent.windows(4).position(|w| w == b"\r\n\r\n") else { return Vec::new() };
    let mut rest = &sent[head + 4..];
    if !sent.starts_with(b"HTTP/1.1 101 ") {
        assert!(rest.ends_with(b"\n"), "a refusal says why");
        return Vec::new();
    }
    let mut frames = Vec::new();
    while !rest.is_empty() {
        let mut cursor = Cursor::new(rest);
        let Ok(Some((header, length))) = FrameHeader::parse(&mut cursor) else {
            panic!("no frame: {rest:x?}");
        };
        assert!(header.is_final && header.mask.is_none() && !header.rsv1 && !header.rsv2 && !header.rsv3);
        rest = &rest[cursor.position() as usize..];
        let (payload, tail) = rest.split_at(length as usize);
        rest = tail;
        match header.opcode {
            OpCode::Control(Control::Pong) => assert!(length <= 125),
            OpCode::Control(Control::Close) => {
                assert!(rest.is_empty() && length != 1 && length <= 125);
                frames.push((header.opcode, payload.to_vec()));
            }
            OpCode::Data(Data::Binary) => frames.push((header.opcode, payload.to_vec())),
            other => panic!("a server sends no {other}"),
        }
    }
    frames
}

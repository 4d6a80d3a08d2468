use proptest::prelude::*;

use super::*;
use crate::options::{CONTENT_FORMAT, URI_PATH};

fn tcp(bytes: &[u8]) -> Result<Option<Message>, Malformed> {
    Splitter::new(Framing::Tcp, 1 << 20).next(&mut BytesMut::from(bytes))
}

fn bytes(message: &Message, framing: Framing) -> Vec<u8> {
    let mut out = Vec::new();
    encode(message, framing, &mut out);
    out
}

fn message(code: Code, token: &[u8]) -> Message {
    Message { code, token: Token::new(token), ..Message::empty(Kind::Con, 0) }
}

#[test]
fn the_examples_of_the_rfc_are_read_and_written() {
    // RFC 8323, figures 5 (a 2.03 with neither options nor payload), 11 (Ping) and 12 (Pong).
    for (raw, code) in [
        (&[0x01, 0xe2, 0x42][..], Code::new(7, 2)),
        (&[0x01, 0xe3, 0x42], Code::new(7, 3)),
        (&[0x01, 0x43, 0x7f], Code::new(2, 3)),
    ] {
        let expected = message(code, &raw[2..]);
        assert_eq!(tcp(raw), Ok(Some(expected.clone())));
        assert_eq!(bytes(&expected, Framing::Tcp), raw);
        let framed = [&[0x80, 0, 0, 3][..], raw].concat();
        assert_eq!(bytes(&expected, Framing::WebSocket), framed);
    }
}

#[test]
fn every_form_of_the_length_is_read_and_written_at_its_bounds() {
    // RFC 8323, 3.2: Len counts options, payload marker and payload.
    for (body, head) in [
        (0usize, &[0x01, 0x45, 9][..]),
        (12, &[0xc1, 0x45, 9]),
        (13, &[0xd1, 0, 0x45, 9]),
        (268, &[0xd1, 255, 0x45, 9]),
        (269, &[0xe1, 0, 0, 0x45, 9]),
        (65_804, &[0xe1, 255, 255, 0x45, 9]),
        (65_805, &[0xf1, 0, 0, 0, 0, 0x45, 9]),
        (100_000, &[0xf1, 0, 0, 0x85, 0x93, 0x45, 9]),
    ] {
        let mut m = message(Code::CONTENT, &[9]);
        m.payload = vec![7; body.saturating_sub(1)];
        let raw = bytes(&m, Framing::Tcp);
        assert_eq!((&raw[..head.len()], raw.len()), (head, head.len() + body), "{body}");
        assert_eq!(length(&m, Framing::Tcp), raw.len());
        assert_eq!(tcp(&raw), Ok(Some(m)));
    }
}

#[test]
fn two_messages_in_one_segment_are_two_wherever_it_is_cut() {
    let mut put = message(Code::PUT, &[1, 2]);
    put.add(URI_PATH, b"ps");
    put.add_uint(CONTENT_FORMAT, 50);
    put.payload = vec![b'x'; 300];
    let get = message(Code::GET, &[]);
    for framing in [Framing::Tcp, Framing::WebSocket] {
        let both = [bytes(&put, framing), bytes(&get, framing)].concat();
        for cut in 0..=both.len() {
            let (mut splitter, mut held) = (Splitter::new(framing, 1152), BytesMut::new());
            let mut found = Vec::new();
            for piece in [&both[..cut], &both[cut..]] {
                held.extend_from_slice(piece);
                while let Some(m) = splitter.next(&mut held).unwrap() {
                    found.push(m);
                }
            }
            assert_eq!(found, [put.clone(), get.clone()], "{framing:?} cut at {cut}");
            assert!(held.is_empty());
        }
    }
}

#[test]
fn a_message_in_fragments_is_put_together() {
    // RFC 8323, 4.2: "messages can be fragmented"; the last frame may be empty (RFC 6455, 5.4).
    let raw = b"\0\0\0\x02\x01\xe2\0\0\0\0\0\0\0\x01\x42\x80\0\0\0\x80\0\0\x02\0\x45";
    let (mut splitter, mut held) = (Splitter::new(Framing::WebSocket, 1152), BytesMut::new());
    let mut found = Vec::new();
    for byte in raw {
        held.extend_from_slice(&[*byte]);
        found.extend(splitter.next(&mut held).unwrap());
    }
    assert_eq!(found, [message(Code::new(7, 2), &[0x42]), message(Code::CONTENT, &[])]);
    assert_eq!(splitter.begun.capacity(), 0, "an idle connection holds nothing");
}

#[test]
fn what_is_larger_than_it_may_be_is_refused_at_its_head() {
    let most = |bytes: &[u8], most| Splitter::new(Framing::Tcp, most).next(&mut BytesMut::from(bytes));
    // Ten bytes of head and body.
    assert_eq!(most(&[0x80, 0x45], 10), Ok(None));
    assert_eq!(most(&[0x80, 0x45], 9), Err(Malformed::TooLarge));
    assert_eq!(most(&[0xf0, 255, 255, 255, 255], 1 << 20), Err(Malformed::TooLarge));
    let websocket = |bytes: &[u8]| Splitter::new(Framing::WebSocket, 9).next(&mut BytesMut::from(bytes));
    assert_eq!(websocket(b"\x80\0\0\x09"), Ok(None));
    assert_eq!(websocket(b"\x80\0\0\x0a"), Err(Malformed::TooLarge));
    assert_eq!(websocket(b"\0\0\0\x05\0\x45\xffab\x80\0\0\x05"), Err(Malformed::TooLarge));
    assert_eq!(websocket(b"\0\0\0\x05\0\x45\xffab\x80\0\0\x04"), Ok(None));
}

#[test]
fn what_is_no_message_is_refused() {
    for tkl in 9..=15 {
        assert_eq!(tcp(&[tkl]), Err(Malformed::TokenLength));
        let raw = [0x80, 0, 0, 2, tkl, 0x45];
        let result = Splitter::new(Framing::WebSocket, 99).next(&mut BytesMut::from(&raw[..]));
        assert_eq!(result, Err(Malformed::TokenLength));
    }
    // A marker without payload, an option that goes on too far, reserved nibbles, numbers over 65,535.
    for body in [&[0xff][..], &[0x13, b'a'], &[0xf0], &[0x0f], &[0xe0, 255, 255]] {
        let raw = [&[(body.len() as u8) << 4, 0x45], body].concat();
        assert_eq!(tcp(&raw), Err(Malformed::Format), "{body:x?}");
        let raw = [&[0x80, 0, 0, 2 + body.len() as u8, 0, 0x45], body].concat();
        let result = Splitter::new(Framing::WebSocket, 99).next(&mut BytesMut::from(&raw[..]));
        assert_eq!(result, Err(Malformed::Format), "{body:x?}");
    }
    // A WebSocket's message that ends before its token, or says a length of its own (4.2).
    for raw in [&b"\x80\0\0\0"[..], b"\x80\0\0\x01\0", b"\x80\0\0\x02\x01\x45", b"\x80\0\0\x02\x10\x45"] {
        let result = Splitter::new(Framing::WebSocket, 99).next(&mut BytesMut::from(raw));
        assert_eq!(result, Err(Malformed::Format), "{raw:x?}");
    }
}

fn any_message() -> impl Strategy<Value = Message> {
    let bytes = |n| prop::collection::vec(any::<u8>(), 0..n);
    let options = prop::collection::vec((any::<u16>(), bytes(600)), 0..6);
    (any::<u8>(), bytes(9), options, bytes(70_000)).prop_map(|(code, token, mut options, payload)| {
        options.sort_by_key(|(number, _)| *number);
        Message { options, payload, ..message(Code(code), &token) }
    })
}

proptest! {
    #[test]
    fn what_is_written_reads_back(m in any_message()) {
        for framing in [Framing::Tcp, Framing::WebSocket] {
            let mut raw = BytesMut::from(&bytes(&m, framing)[..]);
            let counted = length(&m, framing) + if framing == Framing::WebSocket { 4 } else { 0 };
            prop_assert_eq!(raw.len(), counted);
            prop_assert_eq!(Splitter::new(framing, 1 << 20).next(&mut raw), Ok(Some(m.clone())));
            prop_assert!(raw.is_empty());
        }
    }

    #[test]
    fn bytes_from_anywhere_come_to_an_end(raw in prop::collection::vec(any::<u8>(), 0..300)) {
        for framing in [Framing::Tcp, Framing::WebSocket] {
            let (mut splitter, mut held) = (Splitter::new(framing, 200), BytesMut::from(&raw[..]));
            let mut left = held.len();
            while let Ok(Some(_)) = splitter.next(&mut held) {
                prop_assert!(held.len() < left);
                left = held.len();
            }
        }
    }
}

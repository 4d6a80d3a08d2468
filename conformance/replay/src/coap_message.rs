//! CoAP messages alone: what can be read is written again, and must then read as the same; what cannot is refused.

use coap::frame::{Kind, Malformed, Message};
use coap::options;

/// Reads `data` as a datagram.
pub fn play(data: &[u8]) {
    match Message::decode(data) {
        Ok(message) => again(&message),
        Err(Malformed::Format(kind, id)) => {
            // A reset can be written for what has a message id.
            let mut out = Vec::new();
            Message::empty(Kind::Rst, id).encode(&mut out);
            assert_eq!(Message::decode(&out), Ok(Message::empty(Kind::Rst, id)), "for a {kind:?}");
        }
        Err(Malformed::Ignore) => {}
    }
}

fn again(message: &Message) {
    assert!(message.options.is_sorted_by_key(|(number, _)| *number));
    let mut out = Vec::new();
    message.encode(&mut out);
    assert_eq!(Message::decode(&out).as_ref(), Ok(message));
    let _ = options::check(message);
    for (number, value) in &message.options {
        assert!(message.all(*number).any(|v| v == value));
        if let Some(format) = message.uint(*number).and_then(|n| u16::try_from(n).ok()) {
            assert_eq!(options::content_format(&options::content_type(format)), Some(format));
        }
    }
}

//! MQTT-SN messages alone: what can be read has the length that it says, reads the same in the other form of the length, and
//! does not read at all when it is cut short or longer; encapsulations come apart as they were put together.

use mqtt_sn::frame::{self, Message};

/// Reads `data` as a datagram.
pub fn play(data: &[u8]) {
    let _ = frame::describe(data);
    if let Some((wrapping, inner)) = frame::unwrap(data) {
        assert_eq!([wrapping, inner].concat(), data);
        assert!(!frame::node(wrapping).is_empty(), "an encapsulation without a node");
        // The radius is no part of the node (5.5).
        let mut other = wrapping.to_vec();
        let at = other.len() - frame::node(wrapping).len() - 1;
        other[at] ^= 3;
        assert_eq!(frame::node(&other), frame::node(wrapping));
        return play(inner);
    }
    let Ok(message) = Message::decode(data) else { return };
    let short = data[0] != 1;
    let body = &data[if short { 1 } else { 3 }..];
    let length = if short { usize::from(data[0]) } else { usize::from(data[1]) << 8 | usize::from(data[2]) };
    assert_eq!(length, data.len());
    // The other form says the same (5.2.1).
    let mut other = Vec::new();
    if short {
        other.extend_from_slice(&[1, 0, 0]);
        let long = (body.len() + 3) as u16;
        other[1..].copy_from_slice(&long.to_be_bytes());
    } else if let Ok(octet) = u8::try_from(body.len() + 1)
        && octet > 1
    {
        other.push(octet);
    }
    if !other.is_empty() {
        other.extend_from_slice(body);
        assert_eq!(Message::decode(&other), Ok(message));
    }
    assert!(Message::decode(&data[..data.len() - 1]).is_err(), "cut short");
    assert!(Message::decode(&[data, b"x"].concat()).is_err(), "longer than it says");
    // What is written of the same fields is what was read, in the shortest form.
    let mut written = Vec::new();
    let is_written = frame::encode(&mut written, body[0], |out| out.extend_from_slice(&body[1..]));
    assert!(is_written);
    assert_eq!(Message::decode(&written), Ok(message));
    assert!(written.len() <= data.len());
}

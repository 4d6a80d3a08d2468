//! Enhanced authentication (MQTT 5.0, 4.12) and how CONNECT is refused.

use super::*;
use bytes::Bytes;

/// Properties: method `M`, and data if there is any.
fn method(data: &[u8]) -> Vec<u8> {
    let mut properties = vec![0x15, 0, 1, b'M'];
    if !data.is_empty() {
        properties.extend_from_slice(&[0x16, 0, data.len() as u8]);
        properties.extend_from_slice(data);
    }
    properties
}

fn auth(reason: u8, properties: &[u8]) -> Vec<u8> {
    let length = properties.len() as u8;
    [&[0xF0, 2 + length, reason, length][..], properties].concat()
}

fn connect(properties: &[u8]) -> Vec<u8> {
    let length = properties.len() as u8;
    [&[0x10, 14 + length][..], &CONNECT_5[2..12], &[length], properties, &CONNECT_5[13..]].concat()
}

fn connecting() -> Bench {
    let mut b = Bench::new(Config::default());
    assert_eq!(b.input(&connect(&method(b"one"))), Ok(Flow::Pause));
    let actions = b.actions();
    let [Action::Connect(_, _, c)] = &actions[..] else { panic!("{actions:?}") };
    assert_eq!(c.method, Some(("M".into(), Bytes::from_static(b"one"))));
    b
}

fn open() -> Bench {
    let mut b = connecting();
    b.accept();
    b
}

#[test]
fn client_and_server_take_turns_until_connack() {
    // MQTT-4.12.0-2, -3; 4.12.0-5: the method stands in every packet.
    let mut b = connecting();
    b.reply(ticket::new(ticket::CONNECT, 0), Answer::Challenge(Bytes::from_static(b"two")));
    assert_eq!(b.wire(), auth(0x18, &method(b"two")));
    assert_eq!(b.input(&auth(0x18, &method(b"three"))), Ok(Flow::Pause));
    assert!(matches!(&b.actions()[..], [Action::Exchange(_, _, data)] if &data[..] == b"three"));
    let connected = Connected {
        client_id: "c".into(),
        session_present: false,
        data: Some(b"four"[..].into()),
        facts: Vec::new(),
    };
    b.reply(ticket::new(ticket::CONNECT, 0), Answer::Connected(Box::new(connected)));
    let wire = b.wire();
    assert_eq!((wire[0], wire[3]), (0x20, 0));
    assert!(wire.ends_with(&method(b"four")));
}

#[test]
fn nothing_but_auth_and_disconnect_comes_before_connack() {
    // MQTT-4.12.0-6 and 3.1.4: other packets are a protocol error; the end is said by CONNACK.
    let mut b = connecting();
    b.reply(ticket::new(ticket::CONNECT, 0), Answer::Challenge(Bytes::new()));
    b.out.clear();
    assert_eq!(b.input(&[0xC0, 0]), Err(Close::ProtocolError));
    assert_eq!(b.wire(), [0x20, 3, 0, 0x82, 0]);
}

#[test]
fn a_method_that_is_not_served_is_told_so() {
    // MQTT-4.12.0-1.
    let mut b = connecting();
    b.reply(ticket::new(ticket::CONNECT, 0), Answer::Refused(Refusal::BadMethod));
    assert_eq!(b.wire()[..4], [0x20, 46, 0, 0x8C]);
    assert!(matches!(b.actions()[..], [Action::Close(_, Close::BadCredentials)]));
}

#[test]
fn a_session_authenticates_again() {
    // 4.12.1.
    let mut b = open();
    assert_eq!(b.input(&auth(0x19, &method(b"one"))), Ok(Flow::Continue));
    assert!(matches!(&b.actions()[..], [Action::Reauthenticate(_, _, m, _)] if &**m == "M"));
    b.reply(ticket::new(ticket::AUTH, 0), Answer::Challenge(Bytes::from_static(b"two")));
    assert_eq!(b.wire(), auth(0x18, &method(b"two")));
    assert_eq!(b.input(&auth(0x18, &method(b"three"))), Ok(Flow::Continue));
    assert!(matches!(&b.actions()[..], [Action::Exchange(_, _, _)]));
    b.reply(ticket::new(ticket::AUTH, 0), Answer::Authenticated(Bytes::new()));
    assert_eq!(b.wire(), auth(0, &method(b"")));
    // Over: there is nothing to go on with.
    assert_eq!(b.input(&auth(0x18, &method(b"four"))), Err(Close::ProtocolError));
}

#[test]
fn a_session_that_fails_to_authenticate_again_ends() {
    let mut b = open();
    b.input(&auth(0x19, &method(b"one"))).unwrap();
    b.actions();
    b.reply(ticket::new(ticket::AUTH, 0), Answer::Refused(Refusal::BadCredentials));
    assert_eq!(b.wire(), [0xE0, 1, 0x87]);
    assert!(matches!(b.actions()[..], [Action::Close(_, Close::BadCredentials)]));
}

#[test]
fn auth_has_the_method_of_connect() {
    // MQTT-4.12.0-5, 4.12.0-7, 4.12.1-1.
    assert_eq!(open().input(&auth(0x19, &[0x15, 0, 1, b'N'])), Err(Close::ProtocolError));
    assert_eq!(open().input(&[0xF0, 0]), Err(Close::ProtocolError));
    assert_eq!(open().input(&auth(0x18, &method(b""))), Err(Close::ProtocolError));
    assert_eq!(Bench::open_5().input(&auth(0x19, &method(b""))), Err(Close::ProtocolError));
    assert_eq!(Bench::open_311().input(&auth(0x19, &method(b""))), Err(Close::Malformed));
}

#[test]
fn data_without_a_method_is_a_protocol_error() {
    // 3.1.2.11.10.
    let mut b = Bench::new(Config::default());
    assert_eq!(b.input(&connect(&[0x16, 0, 1, 1])), Err(Close::ProtocolError));
    assert_eq!(b.wire(), [0x20, 3, 0, 0x82, 0]);
}

#[test]
fn a_refusal_is_said_in_the_words_of_the_version() {
    let cases = [
        (Refusal::BadCredentials, 4, 0x86),
        (Refusal::NotAuthorised, 5, 0x87),
        (Refusal::ClientId, 2, 0x85),
        (Refusal::Banned, 5, 0x8A),
        (Refusal::ServerBusy, 3, 0x89),
    ];
    for (why, code, reason) in cases {
        let mut b = Bench::new(Config::default());
        b.input(CONNECT_311).unwrap();
        b.reply(ticket::new(ticket::CONNECT, 0), Answer::Refused(why));
        assert_eq!(b.wire(), [0x20, 2, 0, code]);
        let mut b = Bench::new(Config::default());
        b.input(&connect(&[0x17, 0])).unwrap();
        b.reply(ticket::new(ticket::CONNECT, 0), Answer::Refused(why));
        assert_eq!(b.wire(), [0x20, 3, 0, reason, 0]);
    }
}

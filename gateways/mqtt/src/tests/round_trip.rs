//! What is written reads back as it was, and nothing that is cut short or longer than it says is taken.

use super::*;
use crate::publish::{Aliases, Naming};
use gateway::Properties;
use proptest::prelude::*;
use wire::Reader;

fn text() -> impl Strategy<Value = String> {
    "[a-zä€😀/ ]{0,12}"
}

fn properties() -> impl Strategy<Value = Properties> {
    let user = proptest::collection::vec((text(), text()), 0..4);
    let optional = proptest::option::of(text());
    let topic = proptest::option::of("[a-z/]{1,9}");
    let data = proptest::option::of(proptest::collection::vec(any::<u8>(), 0..9));
    (optional, topic, data, user).prop_map(|(content_type, response_topic, data, user)| Properties {
        utf8_payload: false,
        content_type: content_type.map(Into::into),
        response_topic: response_topic.map(Into::into),
        correlation_data: data.map(Into::into),
        user: user.into_iter().map(|(k, v)| (k.into(), v.into())).collect(),
    })
}

fn message() -> impl Strategy<Value = Message> {
    let payload = proptest::collection::vec(any::<u8>(), 0..300);
    let expiry = proptest::option::of(0..100_000u64);
    ("[a-z/]{1,40}", payload, properties(), expiry, 0..3u8, any::<bool>()).prop_map(
        |(topic, payload, properties, expiry, qos, retain)| {
            Message::new(Now::default(), &topic, &payload)
                .with_qos(Qos::from_u8(qos).unwrap())
                .with_retain(retain)
                .with_expiry(expiry.map(Duration::from_secs))
                .with_properties(properties)
        },
    )
}

/// The PUBLISH for `m` with everything it has.
fn written(m: &Message, naming: Option<Naming>) -> Vec<u8> {
    let id = (m.qos() > Qos::AtMostOnce).then_some(DeliveryId(7));
    let (topic, qos, retain) = (m.topic(), m.qos(), m.retain());
    let d = Delivery { id, message: m, topic, qos, retain, duplicate: false, subscriptions: &[] };
    let mut out = Vec::new();
    assert!(publish::encode(&mut out, Now::default(), &d, naming, usize::MAX));
    out
}

fn read(bytes: &[u8], is_5: bool) -> Result<Message, Fault> {
    let mut aliases = Aliases::new(1);
    let frame = frame::find(bytes, usize::MAX, true)?.ok_or(Fault::MALFORMED)?;
    let body = &bytes[frame.body..frame.end];
    publish::decode(Now::default(), frame.flags(), body, None, is_5.then_some(&mut aliases))
        .map(|p| p.message)
}

proptest! {
    #[test]
    fn a_publish_reads_back_as_it_was_written(m in message(), alias: bool) {
        let naming = Naming { alias: alias.into(), is_known: false };
        let back = read(&written(&m, Some(naming)), true).unwrap();
        prop_assert_eq!((back.topic(), back.payload(), back.qos()), (m.topic(), m.payload(), m.qos()));
        prop_assert_eq!((back.retain(), back.properties()), (m.retain(), m.properties()));
        prop_assert_eq!(back.remaining(Instant::default()), m.remaining(Instant::default()));
    }

    #[test]
    fn a_publish_to_mqtt_3_keeps_topic_and_payload(m in message()) {
        let back = read(&written(&m, None), false).unwrap();
        prop_assert_eq!((back.topic(), back.payload(), back.qos()), (m.topic(), m.payload(), m.qos()));
        prop_assert_eq!((back.properties(), back.expires()), (None, None));
    }

    #[test]
    fn a_publish_says_its_own_size(m in message()) {
        let whole = written(&m, Some(Naming::default()));
        let id = (m.qos() > Qos::AtMostOnce).then_some(DeliveryId(7));
        let (topic, qos, retain) = (m.topic(), m.qos(), m.retain());
        let d = Delivery { id, message: &m, topic, qos, retain, duplicate: false, subscriptions: &[] };
        for (most, fits) in [(whole.len(), true), (whole.len() - 1, false)] {
            let mut out = Vec::new();
            let is_written = publish::encode(&mut out, Now::default(), &d, Some(Naming::default()), most);
            prop_assert_eq!((is_written, !out.is_empty()), (fits, fits));
        }
    }

    #[test]
    fn a_variable_byte_integer_reads_back(value in 0..=268_435_455u32) {
        let mut out = Vec::new();
        frame::put_variable(&mut out, value);
        prop_assert_eq!(frame::variable(&mut Reader::new(&out)), Ok(value));
        for cut in 0..out.len() {
            prop_assert_eq!(frame::variable(&mut Reader::new(&out[..cut])), Err(Fault::MALFORMED));
        }
    }
}

/// Bodies as clients send them, with the type and flags of their fixed header.
const PACKETS: [(u8, &[u8]); 9] = [
    (
        0x10,
        b"\0\x04MQTT\x05\xEE\0\x3C\x05\x11\0\0\0\x0A\0\x01c\x05\x18\0\0\0\x01\0\x01w\0\x01x\0\x01u\0\x01p",
    ),
    (0x40, b"\0\x01\x10\x04\x1F\0\x01x"),
    (0x50, b"\0\x01\0\0"),
    (0x62, b"\0\x01\x92\0"),
    (0x70, b"\0\x01\0\0"),
    (0x82, b"\0\x01\x02\x0B\x05\0\x01a\x01\0\x03b/#\x2E"),
    (0xA2, b"\0\x01\0\0\x01a\0\x03b/#"),
    (0xE0, b"\0\x05\x11\0\0\0\x09"),
    (0xF0, b"\x18\x08\x15\0\x01M\x16\0\x01d"),
];

/// What reading the body alone says.
fn take(first: u8, body: &[u8]) -> Result<(), u8> {
    let fault = |f: Fault| f.reason;
    match first >> 4 {
        kind::CONNECT => {
            connect::decode(Now::default(), 0, body, &Config::default()).map(drop).map_err(|r| match r {
                connect::Refused::Reason(f) | connect::Refused::Silent(f) => f.reason,
                other => panic!("{other:?}"),
            })
        }
        kind::SUBSCRIBE => subscribe::decode_subscribe(true, body).map(drop).map_err(fault),
        kind::UNSUBSCRIBE => subscribe::decode_unsubscribe(true, body).map(drop).map_err(fault),
        kind::DISCONNECT => disconnect::decode(true, body).map(drop).map_err(fault),
        kind::AUTH => auth::decode(body).map(drop).map_err(fault),
        of => acks::decode(true, of, body).map(drop).map_err(fault),
    }
}

#[test]
fn every_packet_is_taken_whole() {
    for (first, body) in PACKETS {
        assert_eq!(take(first, body), Ok(()), "{first:#x}");
    }
}

#[test]
fn a_packet_cut_anywhere_is_malformed_where_no_shorter_form_exists() {
    for (first, body) in PACKETS {
        for cut in 0..body.len() {
            // An acknowledgement may end after its identifier or its reason code, DISCONNECT and AUTH after nothing or
            // their code, and a list of filters after each of them.
            let is_form = match first >> 4 {
                kind::PUBACK..=kind::PUBCOMP => cut == 2 || cut == 3,
                kind::DISCONNECT => cut < 2,
                kind::AUTH => cut == 0,
                kind::SUBSCRIBE => cut == 9,
                kind::UNSUBSCRIBE => cut == 6,
                _ => false,
            };
            let taken = take(first, &body[..cut]);
            assert_eq!(taken.is_ok(), is_form, "{first:#x} cut at {cut}: {taken:?}");
        }
    }
}

#[test]
fn a_packet_with_more_behind_it_is_malformed() {
    for (first, body) in PACKETS {
        let longer = [body, &[0]].concat();
        assert_eq!(take(first, &longer), Err(0x81), "{first:#x}");
    }
}

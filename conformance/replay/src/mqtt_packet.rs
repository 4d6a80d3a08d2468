//! The decoders of MQTT packets alone: byte one says which, the rest is the packet's body. What could be read is written
//! again, and must then read as the same.

use gateway::{Delivery, DeliveryId, Now, Qos};
use mqtt::connect::{self, Refused};
use mqtt::frame::{Fault, find, kind};
use mqtt::publish::{self, Aliases, Naming};
use mqtt::{Config, acks, auth, disconnect, subscribe, trace};
use wire::Reader;

/// Reads `data` as a packet.
pub fn play(data: &[u8]) {
    let Some((&first, body)) = data.split_first() else { return };
    let is_5 = first & 1 != 0;
    let _ = trace::describe(is_5, first, body);
    let _ = trace::describe_all(is_5, body);
    match first >> 4 {
        0 => frame(body),
        kind::CONNECT => connect(first & 15, body),
        kind::PUBLISH => publish(first & 15, body),
        kind::SUBSCRIBE => {
            if let Ok(list) = subscribe::decode_subscribe(is_5, body) {
                let good = list.bad.iter().filter(|bad| bad.is_none()).count();
                assert_eq!(list.good.len(), good);
                assert!(list.id != 0 && !list.bad.is_empty());
            }
        }
        kind::UNSUBSCRIBE => {
            if let Ok(list) = subscribe::decode_unsubscribe(is_5, body) {
                assert!(list.id != 0 && !list.bad.is_empty());
            }
        }
        kind::DISCONNECT => drop(disconnect::decode(is_5, body)),
        kind::AUTH => drop(auth::decode(body)),
        of => {
            if let Ok((id, reason)) = acks::decode(is_5, of, body) {
                let mut out = Vec::new();
                acks::encode(&mut out, first, id, reason, None);
                assert_eq!(acks::decode(true, of, &out[2..]), Ok((id, reason)));
            }
        }
    }
}

/// A packet that is found lies within what there is and has the length it says.
fn frame(bytes: &[u8]) {
    if let Ok(Some(frame)) = find(bytes, 1 << 20, true) {
        assert!(frame.body <= frame.end && frame.end <= bytes.len());
        let length = mqtt::frame::variable(&mut Reader::new(&bytes[1..]));
        assert_eq!(length, Ok((frame.end - frame.body) as u32));
    }
}

fn connect(flags: u8, body: &[u8]) {
    let config = Config::default();
    match connect::decode(Now::default(), flags, body, &config) {
        Ok(request) => {
            assert!(request.connect.client_id.len() <= config.max_client_id);
            assert!(request.connect.credit > 0 && request.max_packet > 0);
            if let Some(will) = &request.connect.will {
                assert_eq!(gateway::topic::check_name(will.message.topic()), Ok(()));
            }
        }
        Err(Refused::Code(code, _)) => assert!((1..=5).contains(&code)),
        Err(Refused::Reason(Fault { reason, .. })) => assert!(reason >= 0x80),
        Err(Refused::Version(_) | Refused::Silent(_)) => {}
    }
}

/// Twice, as both versions.
fn publish(flags: u8, body: &[u8]) {
    for is_5 in [false, true] {
        let mut aliases = Aliases::new(4);
        let Ok(read) = publish::decode(Now::default(), flags, body, None, is_5.then_some(&mut aliases))
        else {
            continue;
        };
        let m = &read.message;
        assert_eq!(gateway::topic::check_name(m.topic()), Ok(()));
        assert_eq!(read.id.is_some(), m.qos() > Qos::AtMostOnce);
        let d = Delivery {
            id: read.id.map(DeliveryId),
            message: m,
            topic: m.topic(),
            qos: m.qos(),
            retain: m.retain(),
            duplicate: false,
            subscriptions: &[],
        };
        let mut out = Vec::new();
        assert!(publish::encode(&mut out, Now::default(), &d, is_5.then_some(Naming::default()), usize::MAX));
        let Ok(Some(frame)) = find(&out, usize::MAX, true) else { panic!("no packet: {out:x?}") };
        assert_eq!(frame.end, out.len());
        let again = publish::decode(
            Now::default(),
            frame.flags(),
            &out[frame.body..],
            None,
            is_5.then_some(&mut aliases),
        );
        let again = again.unwrap_or_else(|fault| panic!("{fault:?}: {out:x?}"));
        assert_eq!(
            (again.id, again.message.topic(), again.message.payload()),
            (read.id, m.topic(), m.payload())
        );
        assert_eq!((again.message.properties(), again.message.expires()), (m.properties(), m.expires()));
    }
}

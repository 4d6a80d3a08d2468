//! What somebody gets who writes an address that is not theirs, or floods.

use super::*;
use crate::options::LOCATION_PATH;

const VICTIM: &str = "192.0.2.1:9";

fn value(topic: &str, payload: &[u8]) -> (Box<str>, Published) {
    (topic.into(), Published::new(Now::default(), topic, payload))
}

#[test]
fn the_further_values_of_a_wildcard_wait_until_the_address_has_answered() {
    // RFC 9175, 2.4
    let mut b = bench_at(VICTIM);
    b.retained = vec![value("a/b", b"1"), value("a/c", &[7; 900]), value("a/d", &[7; 900])];
    let sent = b.send(&observe(5, &["ps", "a", "+"]));
    assert_eq!((sent[0].code, &sent[0].payload[..]), (Code::CONTENT, &b"1"[..]));
    assert_eq!(sent[1..], [Message::empty(Kind::Con, sent[1].id)], "{sent:?}");
    let sent = b.send(&Message::empty(Kind::Rst, sent[1].id));
    assert_eq!((sent.len(), sent[0].payload.len()), (1, 900));
}

#[test]
fn where_notifications_are_not_confirmable_an_address_is_pinged_before_it_is_notified_too() {
    let config = Config { notify_type: NotifyType::Non, ..Config::default() };
    let mut b = bench_of(&facts(VICTIM, None), config);
    b.send(&observe(5, &["ps", "a", "b"]));
    let ping = b.deliver(Qos::AtLeastOnce, &[7; 900]);
    assert_eq!(ping, [Message::empty(Kind::Con, ping[0].id)]);
    let sent = b.send(&Message::empty(Kind::Rst, ping[0].id));
    assert_eq!((sent.len(), sent[0].payload.len()), (1, 900));
}

#[test]
fn a_token_that_was_given_elsewhere_does_not_prove_the_address() {
    // RFC 9175, 2.4: who has a token of his own may write any address beside it.
    let mut b = bench_at("198.51.100.7:9");
    let post = request(Kind::Con, Code::POST, 1, &["mqtt", "connection"], &["c=d", "keepalive=1"]);
    let token = String::from_utf8(b.send(&post)[0].payload.clone()).unwrap();
    let (kept, token) = (b.kept.clone(), format!("t={token}"));

    let mut b = bench_at(VICTIM);
    (b.kept, b.retained) = (kept, vec![value("a", &[7; 500])]);
    let mut ids = vec![];
    for id in 2..6 {
        let sent = b.send(&request(Kind::Con, Code::GET, id, &["ps", "a"], &["c=d", &token]));
        assert_eq!(sent[0].code, Code::UNAUTHORIZED, "{id}");
        ids.extend(sent[1..].iter().map(|m| (m.code, m.id)));
    }
    // A device that does not know Echo answers a ping.
    assert_eq!((ids.len(), ids[0].0), (1, Code::EMPTY));
    assert!(b.send(&Message::empty(Kind::Rst, ids[0].1)).is_empty());
    let sent = b.send(&request(Kind::Con, Code::GET, 7, &["ps", "a"], &["c=d", &token]));
    assert_eq!((sent[0].code, sent[0].payload.len()), (Code::CONTENT, 500));
}

#[test]
fn a_critical_option_that_is_not_known_rejects_a_non_confirmable_request() {
    // RFC 7252, 5.4.1 and 4.3.
    let mut b = bench();
    let mut get = request(Kind::Non, Code::GET, 1, &["ps", "a"], &[]);
    get.add(2001, b"x");
    assert_eq!(b.send(&get), [Message::empty(Kind::Rst, 1)]);
    assert_eq!(b.send(&get), [Message::empty(Kind::Rst, 1)]);
    get.kind = Kind::Con;
    get.id = 2;
    assert_eq!(b.send(&get)[0].code, Code::BAD_OPTION);
}

#[test]
fn a_topic_that_fits_no_notification_does_not_end_the_observation() {
    // A level has at most 255 bytes as an option (RFC 7252, 5.10.7).
    let mut b = bench();
    b.send(&observe(5, &["ps", "#"]));
    let long = "a".repeat(256);
    let deep = "a/".repeat(4000);
    for topic in [&*long, &*deep] {
        assert!(b.deliver_to(topic, Qos::AtLeastOnce, b"1").is_empty());
        assert_eq!(b.settled.pop(), Some((DeliveryId(1), Settle::Done)));
    }
    let sent = b.deliver_to("a/b", Qos::AtLeastOnce, b"1");
    assert_eq!(sent[0].all(LOCATION_PATH).count(), 2);
}

#[test]
fn what_does_no_harm_makes_room_whoever_asked_for_it() {
    let config = Config { max_exchanges_total: 4, ..Config::default() };
    let mut b = bench_of(&facts("127.0.0.1:9", None), config);
    for slot in 2..6 {
        let sent = b.stranger(slot, "192.0.2.9:1000", &request(Kind::Con, Code::GET, 1, &["ps", "a"], &[]));
        assert_eq!(sent[0].code, Code::NOT_FOUND);
    }
    assert_eq!(b.send(&request(Kind::Con, Code::PUT, 1, &["ps", "a"], &[]))[0].code, Code::CHANGED);
}

#[test]
fn what_was_refused_makes_room() {
    let mut b = bench();
    for id in 1..=4096 {
        let bad = request(Kind::Con, Code::PUT, id, &["ps", "+"], &[]);
        assert_eq!(b.send(&bad)[0].code, Code::BAD_REQUEST);
    }
    assert_eq!(b.send(&request(Kind::Con, Code::PUT, 5000, &["ps", "a"], &[]))[0].code, Code::CHANGED);
}

proptest::proptest! {
    #[test]
    fn a_full_memory_counts_right_whoever_makes_room(
        steps in proptest::collection::vec((0..5u32, 0..5u8, 0..12u16, 0..60u64), 200),
    ) {
        let config = Config { max_exchanges: 4, max_exchanges_total: 8, ..Config::default() };
        let mut b = bench_of(&facts("127.0.0.1:9", None), config);
        for (who, what, id, seconds) in steps {
            let peer = Peer { slot: 2 + who, generation: 1 };
            if !b.machine.peers.contains_key(&peer) {
                b.machine.opened(b.now, peer, &facts("192.0.2.9:1000", None), &mut b.out);
            }
            let (kind, code, path) = match what {
                0 => (Kind::Con, Code::GET, ["ps", "a"]),
                1 => (Kind::Non, Code::PUT, ["ps", "a"]),
                2 => (Kind::Con, Code::PUT, ["ps", "+"]),
                3 => (Kind::Con, Code::PUT, ["ps", "a"]),
                _ => {
                    b.machine.closed(b.now, peer, &mut b.out);
                    continue;
                }
            };
            let mut bytes = Vec::new();
            request(kind, code, id, &path, &[]).encode(&mut bytes);
            b.machine.input(b.now, peer, &mut BytesMut::from(&bytes[..]), &mut b.out).unwrap();
            b.run();
            b.pass(seconds / 10);
            let sum: usize = b.machine.peers.values().map(|c| c.exchanges.len()).sum();
            proptest::prop_assert_eq!(b.machine.remembered, sum);
            proptest::prop_assert!(sum <= 8 && b.machine.loose.len() <= b.machine.peers.len());
        }
    }
}

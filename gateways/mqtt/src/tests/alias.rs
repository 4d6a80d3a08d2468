//! Topic aliases both ways (MQTT 5.0, 3.3.2.3.4).

use super::*;

/// A PUBLISH of QoS 0 with a topic name and an alias.
fn named(topic: &[u8], alias: u8) -> Vec<u8> {
    let mut packet = vec![0x30, 6 + topic.len() as u8, 0, topic.len() as u8];
    packet.extend_from_slice(topic);
    packet.extend_from_slice(&[3, 0x23, 0, alias]);
    packet
}

fn published(b: &mut Bench) -> Vec<String> {
    let topic = |a: Action| match a {
        Action::Publish(_, p) => p.message.topic().to_owned(),
        other => panic!("{other:?}"),
    };
    b.actions().into_iter().map(topic).collect()
}

#[test]
fn an_alias_stands_for_the_name_it_was_set_with_last() {
    let mut b = Bench::open_5();
    for packet in
        [named(b"a", 1), named(b"", 1), named(b"b", 1), named(b"c", 16), named(b"", 1), named(b"", 16)]
    {
        b.input(&packet).unwrap();
    }
    assert_eq!(published(&mut b), ["a", "a", "b", "c", "b", "c"]);
}

#[test]
fn an_alias_is_not_zero_and_not_above_the_maximum() {
    // MQTT-3.3.2-8, -9.
    for alias in [0, 17] {
        let mut b = Bench::open_5();
        assert_eq!(b.input(&named(b"a", alias)), Err(Close::TopicAlias));
        assert_eq!(b.wire(), [0xE0, 1, 0x94]);
    }
}

#[test]
fn an_alias_that_was_never_set_means_nothing() {
    for packet in [named(b"", 3), vec![0x30, 3, 0, 0, 0]] {
        let mut b = Bench::open_5();
        assert_eq!(b.input(&packet), Err(Close::ProtocolError));
        assert_eq!(b.wire(), [0xE0, 1, 0x82]);
    }
}

#[test]
fn an_alias_never_stands_for_a_name_that_cannot_be() {
    // MQTT-3.3.2-2.
    let mut b = Bench::open_5();
    assert_eq!(b.input(&named(b"a/#", 1)), Err(Close::Topic));
}

/// What a delivery of QoS 0 on `topic` looks like on the wire.
fn delivered(b: &mut Bench, topic: &str) -> Vec<u8> {
    let message = Message::new(b.now, topic, b"");
    let (id, qos, retain, duplicate) = (None, Qos::AtMostOnce, false, false);
    let d = Delivery { id, message: &message, topic, qos, retain, duplicate, subscriptions: &[] };
    b.machine.deliver(b.now, b.peer, &Deliver::Message(d), &mut b.out);
    b.wire()
}

#[test]
fn towards_a_client_the_first_topics_get_the_aliases_it_takes() {
    // MQTT-3.1.2-26: no more than its Topic Alias Maximum.
    let mut b = Bench::open_5_with(&[0x22, 0, 2]);
    assert_eq!(delivered(&mut b, "a"), [0x30, 7, 0, 1, b'a', 3, 0x23, 0, 1]);
    assert_eq!(delivered(&mut b, "b"), [0x30, 7, 0, 1, b'b', 3, 0x23, 0, 2]);
    assert_eq!(delivered(&mut b, "c"), [0x30, 4, 0, 1, b'c', 0]);
    assert_eq!(delivered(&mut b, "a"), [0x30, 6, 0, 0, 3, 0x23, 0, 1]);
    assert_eq!(delivered(&mut b, "b"), [0x30, 6, 0, 0, 3, 0x23, 0, 2]);
}

#[test]
fn a_client_that_takes_no_aliases_gets_none() {
    // MQTT-3.1.2-27.
    let mut b = Bench::open_5();
    assert_eq!(delivered(&mut b, "a"), delivered(&mut b, "a"));
    assert_eq!(delivered(&mut b, "a"), [0x30, 4, 0, 1, b'a', 0]);
}

#[test]
fn a_delivery_that_was_too_large_sets_no_alias() {
    let mut b = Bench::open_5_with(&[0x22, 0, 2, 0x27, 0, 0, 0, 9]);
    assert!(delivered(&mut b, "long").is_empty());
    assert_eq!(delivered(&mut b, "a"), [0x30, 7, 0, 1, b'a', 3, 0x23, 0, 1]);
}

//! What others may write in somebody's name, what a network repeats, and what has to have a bound.

use super::*;

/// A will's topic and payload, as the router has it and as it is kept.
fn wills(b: &Bench) -> (Option<String>, bool) {
    let session = &b.sessions["a"];
    let topic = session.will.as_ref().map(|w| w.message.topic().to_owned());
    (topic, session.facts.contains_key("sn/will"))
}

#[test]
fn a_pingreq_does_not_touch_the_session_of_who_never_slept_here() {
    let mut b = bench();
    b.sessions
        .insert("mqtt".into(), Session { at: Some(Peer { slot: 99, generation: 9 }), ..Session::default() });
    assert_eq!(b.say(1, "06 16 \"mqtt\""), ["1: 02 18"]);
    assert!(b.sessions["mqtt"].at.is_some(), "connected by another protocol, and still so");
    // Connected to another listener, and not asleep.
    b.join(2, "a", false);
    b.machine = MqttSn::new(b.machine.config.clone());
    assert_eq!(b.say(3, "03 16 \"a\""), ["3: 02 18"]);
    assert!(b.sessions["a"].at.is_some());
}

#[test]
fn section_6_13_what_was_acknowledged_before_connect_is_not_what_is_repeated_after_it() {
    for port in [1, 2] {
        let mut b = bench();
        b.join(1, "a", false);
        b.say(1, "08 0c 22 \"ab\" 00 01 \"1\"");
        // It has begun anew, its ids too, and the first copy of its message was lost.
        b.join(port, "a", false);
        b.say(port, "08 0c a2 \"ab\" 00 01 \"2\"");
        assert_eq!(b.published.len(), 2, "port {port}");
    }
}

#[test]
fn section_6_3_a_session_that_was_to_end_with_its_connection_does_not_go_on_as_one_that_is_kept() {
    for port in [1, 2] {
        let mut b = bench();
        b.join(1, "a", true);
        b.say(1, "06 12 20 00 01 \"x\"");
        b.join(port, "a", false);
        let opened = b.connects.last().unwrap();
        assert!(!opened.expiry.is_zero() && b.connects.len() == 2, "it is opened, to be durable");
        assert!(b.sessions["a"].filters.is_empty(), "port {port}");
        assert!(!b.sessions["a"].expiry.is_zero());
    }
}

#[test]
fn section_6_14_a_sleeper_with_clean_session_wakes_with_connect_and_its_subscriptions() {
    for port in [1, 2] {
        let mut b = bench();
        b.join(1, "a", true);
        b.say(1, "06 12 20 00 01 \"x\"");
        b.say(1, "04 18 00 3c");
        b.join(port, "a", false);
        assert_eq!(b.sessions["a"].filters.len(), 1, "port {port}");
        assert_eq!(b.say(port, "08 0c 20 00 01 00 02 \"m\""), [format!("{port}: 07 0d 00 01 00 02 00")]);
        assert!(b.sessions["a"].facts.contains_key("sn/t/0001"));
    }
}

#[test]
fn section_6_3_a_will_that_may_not_be_left_is_refused_where_the_session_goes_on_too() {
    let mut b = bench();
    b.join(1, "a", false);
    b.say(1, "04 1a 00 \"w\"");
    b.refused_will = Some(Refusal::NotAuthorised);
    b.say(1, "07 04 08 01 00 3c \"a\"");
    b.say(1, "04 07 00 \"x\"");
    assert_eq!(b.say(1, "03 09 \"m\""), ["1: 03 05 03"]);
    assert_eq!(
        b.machine
            .peers
            .get(b.sessions["a"].at.unwrap())
            .unwrap()
            .client
            .as_ref()
            .unwrap()
            .will
            .as_ref()
            .unwrap()
            .message
            .topic(),
        "w"
    );
    b.refused_will = None;
    b.say(1, "07 04 08 01 00 3c \"a\"");
    b.say(1, "04 07 00 \"x\"");
    assert_eq!(b.say(1, "03 09 \"m\""), ["1: 03 05 00"]);
    assert_eq!(wills(&b), (Some("x".into()), true));
}

#[test]
fn section_6_4_a_willtopicupd_that_the_network_doubles_changes_the_will_once() {
    let mut b = bench();
    b.join(1, "a", false);
    let peer = b.sessions["a"].at.unwrap();
    for _ in 0..2 {
        let mut upd = BytesMut::from(&bytes("04 1a 00 \"w\"")[..]);
        b.machine.input(b.now, peer, &mut upd, &mut b.out).unwrap();
    }
    b.perform();
    assert_eq!(b.heard(), ["1: 03 1b 00", "1: 03 1b 00"]);
    assert_eq!(wills(&b), (Some("w".into()), true));
}

#[test]
fn section_6_4_willmsgupd_right_behind_willtopicupd_keeps_the_topic() {
    let mut b = bench();
    b.join(1, "a", false);
    b.say(1, "04 1a 00 \"w\"");
    let peer = b.sessions["a"].at.unwrap();
    for text in ["04 1a 00 \"x\"", "03 1c \"m\""] {
        let mut upd = BytesMut::from(&bytes(text)[..]);
        b.machine.input(b.now, peer, &mut upd, &mut b.out).unwrap();
    }
    b.perform();
    let will = b.sessions["a"].will.clone().unwrap();
    assert_eq!((will.message.topic(), will.message.payload()), ("x", &b"m"[..]));
}

#[test]
fn names_of_topics_and_nodes_have_a_bound() {
    let mut b = bench_with(Config { max_packet_size: 100, ..Config::default() });
    b.join(1, "a", true);
    let name = |n: usize| format!("{:02x} 0a 00 00 00 01 \"{}\"", n + 6, "x".repeat(n));
    assert_eq!(b.say(1, &name(94)), ["1: 07 0b 00 01 00 01 00"]);
    assert_eq!(b.say(1, &name(95)), ["1: 07 0b 00 00 00 01 03"], "it could not be told of it either");
    let subscribe = format!("64 12 20 00 01 \"{}\"", "y".repeat(95));
    assert_eq!(b.say(1, &subscribe), ["1: 08 13 00 00 00 00 01 03"]);
    // The length of an encapsulation is one octet (5.5).
    assert_eq!(b.machine.node(&bytes("01 00 07 fe 01 77 78 03 01 01")), [0; 0]);
    assert_eq!(b.machine.node(&bytes("05 fe 01 77 78 03 01 01")), *b"wx");
}

#[test]
fn section_5_5_searchgw_to_a_group_through_a_forwarder_is_answered_encapsulated() {
    let mut b = bench();
    let datagram = bytes("05 fe 01 77 78 03 01 01");
    let peer = b.peer(1, &datagram);
    b.machine.group(b.now, peer, &mut BytesMut::from(&datagram[..]), &mut b.out);
    b.perform();
    assert_eq!(b.heard(), ["1: 05 fe 01 77 78 03 02 01"]);
}

#[test]
fn a_client_that_answers_that_it_is_congested_is_not_lost() {
    let mut b = bench();
    b.say(1, "07 04 04 01 00 00 \"a\"");
    b.queue("a", "ab", "m", 1);
    for _ in 0..9 {
        assert!(b.say(1, "07 0d \"ab\" 00 01 01").is_empty());
        assert_eq!(b.wait(10_000), ["1: 08 0c a2 61 62 00 01 6d"]);
    }
    assert!(b.closed.is_empty());
}

#[test]
fn section_6_10_pubrec_is_noted_though_the_client_moves_before_the_answer() {
    let mut b = bench();
    b.join(1, "a", false);
    b.queue("a", "ab", "m", 2);
    let peer = b.sessions["a"].at.unwrap();
    // The session is told, and the answer finds nobody.
    b.machine.input(b.now, peer, &mut BytesMut::from(&bytes("04 0f 00 01")[..]), &mut b.out).unwrap();
    b.out.actions.retain(|action| !matches!(action, Action::Receive(..)));
    let session = b.session(peer).unwrap();
    (session.in_flight, session.received) = (None, Some(DeliveryId(1)));
    b.say(2, "07 04 00 01 00 3c \"a\"");
    assert_eq!(b.say(2, "04 0f 00 01"), ["2: 04 10 00 01"]);
    assert!(b.say(2, "04 0e 00 01").is_empty() && b.sessions["a"].received.is_none());
}

#[test]
fn who_is_not_let_in_takes_nobody_out() {
    for (message, answer) in [
        ("07 04 00 01 00 3c \"a\"", "2: 03 05 03"),
        ("07 04 04 01 00 3c \"a\"", "2: 03 05 03"),
        ("03 16 \"a\"", "2: 02 18"),
    ] {
        for is_clean in [false, true] {
            let mut b = bench();
            b.join(1, "a", is_clean);
            b.say(1, "04 1a 00 \"w\"");
            b.say(1, "07 0a 00 00 00 01 \"t\"");
            let before = b.sessions["a"].at;
            b.refusal = Some(Refusal::NotAuthorised);
            assert_eq!(b.say(2, message), [answer]);
            b.refusal = None;
            assert_eq!((b.sessions["a"].at, b.wills.len()), (before, 0), "{message}");
            assert_eq!(b.say(1, "08 0c 20 00 01 00 02 \"m\""), ["1: 07 0d 00 01 00 02 00"]);
            assert_eq!(b.say(1, "02 16"), ["1: 02 17"]);
        }
    }
}

#[test]
fn who_moves_while_the_store_writes_is_not_told_that_it_was_disconnected_and_keeps_its_ids() {
    for is_clean in [false, true] {
        let mut b = bench();
        b.join(1, "a", is_clean);
        b.say(1, "07 0a 00 00 00 01 \"t\"");
        b.say(1, "04 18 00 3c");
        b.held = Some(Vec::new());
        assert!(b.say(2, "03 16 \"a\"").is_empty(), "nothing to the old address either");
        assert_eq!(b.write(), ["2: 02 17"]);
        assert_eq!(b.say(2, "08 0c 20 00 01 00 02 \"m\""), ["2: 07 0d 00 01 00 02 00"]);
        assert!(b.wills.is_empty() && b.sessions["a"].expiry.is_zero() == is_clean);
    }
}

//! Bounds: time, size, versions, and what the operator has said of them.

use super::*;

#[test]
fn a_client_that_says_nothing_is_closed_after_the_connect_timeout() {
    let mut b = Bench::new(Config::default());
    assert_eq!(b.machine.next_timeout(), Some((Instant::from_micros(11_000_000), "connect")));
    b.input(&CONNECT_5[..10]).unwrap();
    assert_eq!(b.machine.next_timeout(), Some((Instant::from_micros(11_000_000), "connect")));
    b.now = Now::from_micros(11_000_000);
    b.machine.timeout(b.now, &mut b.out);
    assert!(b.wire().is_empty());
    assert!(matches!(b.actions()[..], [Action::Close(_, Close::ConnectTimeout)]));
}

#[test]
fn a_keep_alive_of_zero_never_ends() {
    // 3.1.2.10.
    let mut connect = CONNECT_311.to_vec();
    connect[11] = 0;
    let mut b = Bench::new(Config::default());
    b.input(&connect).unwrap();
    b.accept();
    assert_eq!(b.machine.next_timeout(), None);
}

#[test]
fn only_whole_packets_keep_a_connection_alive() {
    let mut b = Bench::open_311();
    b.now = Now::from_micros(50_000_000);
    b.input(&[0xC0]).unwrap();
    assert_eq!(b.machine.next_timeout(), Some((Instant::from_micros(91_000_000), "keep_alive")));
    b.input(&[0xC0, 0]).unwrap();
    assert_eq!(b.machine.next_timeout(), Some((Instant::from_micros(140_000_000), "keep_alive")));
}

#[test]
fn a_keep_alive_above_the_maximum_is_replaced_where_the_client_can_be_told() {
    // MQTT-3.2.2-21.
    let config = || Config { max_keep_alive: 30, ..Config::default() };
    let mut b = Bench::new(config());
    b.input(CONNECT_5).unwrap();
    let connected =
        Connected { client_id: "c".into(), session_present: false, data: None, facts: Vec::new() };
    b.reply(ticket::new(ticket::CONNECT, 0), Answer::Connected(Box::new(connected)));
    assert!(b.wire().windows(3).any(|w| w == [0x13, 0, 30]));
    assert_eq!(b.machine.next_timeout(), Some((Instant::from_micros(46_000_000), "keep_alive")));
    let mut b = Bench::new(config());
    b.input(CONNECT_311).unwrap();
    b.accept();
    assert_eq!(b.machine.next_timeout(), Some((Instant::from_micros(91_000_000), "keep_alive")));
}

#[test]
fn a_session_expiry_above_the_maximum_is_cut_and_told() {
    // 3.2.2.3.2.
    let config = Config { max_session_expiry: Duration::from_secs(60), ..Config::default() };
    let mut b = Bench::new(config);
    let mut connect = CONNECT_5.to_vec();
    connect.splice(12..13, [5, 0x11, 0xFF, 0xFF, 0xFF, 0xFF]);
    connect[1] += 5;
    b.input(&connect).unwrap();
    assert!(matches!(&b.actions()[..], [Action::Connect(_, _, c)] if c.expiry == Duration::from_secs(60)));
    let connected =
        Connected { client_id: "c".into(), session_present: false, data: None, facts: Vec::new() };
    b.reply(ticket::new(ticket::CONNECT, 0), Answer::Connected(Box::new(connected)));
    assert!(b.wire().windows(5).any(|w| w == [0x11, 0, 0, 0, 60]));
}

#[test]
fn a_session_that_ends_with_its_connection_stays_so() {
    // 3.14.2.2.2, MQTT-3.14.2-2.
    let mut b = Bench::open_5();
    assert_eq!(b.input(&[0xE0, 7, 0, 5, 0x11, 0, 0, 0, 9]), Err(Close::ProtocolError));
    let mut b = Bench::open_5_with(&[0x11, 0, 0, 0, 5]);
    assert_eq!(b.input(&[0xE0, 7, 0, 5, 0x11, 0, 0, 0, 9]), Ok(Flow::Continue));
    let nine = Some(Duration::from_secs(9));
    assert!(
        matches!(b.actions()[..], [Action::Disconnect(_, d), Action::Close(_, Close::Goodbye)] if d.expiry == nine)
    );
}

#[test]
fn only_reason_code_zero_drops_the_will() {
    // MQTT-3.14.4-3; 3.1.2.5.
    for (packet, with_will) in [(&[0xE0, 0][..], false), (&[0xE0, 1, 0], false), (&[0xE0, 1, 4], true)] {
        let mut b = Bench::open_5();
        b.input(packet).unwrap();
        assert!(matches!(b.actions()[0], Action::Disconnect(_, d) if d.with_will == with_will));
    }
}

#[test]
fn a_packet_that_the_client_cannot_take_is_not_sent() {
    // MQTT-3.1.2-24: SUBACK of six bytes to a client that takes five.
    let mut b = Bench::open_5_with(&[0x27, 0, 0, 0, 24]);
    b.machine.extra().max_packet = 5;
    b.input(&[0x82, 7, 0, 7, 0, 0, 1, b'a', 0]).unwrap();
    b.actions();
    b.reply(ticket::new(ticket::SUBSCRIBE, 7), Answer::Subscribed(vec![Ok(Qos::AtMostOnce)]));
    assert!(b.wire().is_empty());
    assert!(matches!(b.actions()[..], [Action::Drop(_, Drop::TooLarge)]));
}

#[test]
fn a_packet_above_the_limit_is_refused_before_its_body_came() {
    let mut b = Bench::open_5();
    assert_eq!(b.input(&[0x30, 0x80, 0x80, 0x80, 1]), Err(Close::TooLarge));
    assert_eq!(b.wire(), [0xE0, 1, 0x95]);
}

#[test]
fn a_version_that_is_switched_off_is_refused() {
    let config = Config { versions: vec![Version::V5], ..Config::default() };
    let mut b = Bench::new(config.clone());
    assert_eq!(b.input(CONNECT_311), Err(Close::UnsupportedVersion));
    assert_eq!(b.wire(), [0x20, 2, 0, 1]);
    assert_eq!(Bench::new(config).input(CONNECT_5), Ok(Flow::Pause));
}

#[test]
fn a_bridge_is_told_that_its_version_is_not_served() {
    // Level 0x84: the flag of some brokers' bridges.
    let mut b = Bench::new(Config::default());
    let mut bridge = CONNECT_311.to_vec();
    bridge[8] |= 0x80;
    assert_eq!(b.input(&bridge), Err(Close::UnsupportedVersion));
    assert_eq!(b.wire(), [0x20, 2, 0, 1]);
}

#[test]
fn clients_are_sent_to_another_server() {
    // MQTT-4.13.2-1, 4.11.
    let config = Config { redirect: Some("b:1".into()), is_moved: true, ..Config::default() };
    let mut b = Bench::new(config.clone());
    assert_eq!(b.input(CONNECT_5), Err(Close::Goodbye));
    assert_eq!(b.wire(), [0x20, 9, 0, 0x9D, 6, 0x1C, 0, 3, b'b', b':', b'1']);
    let mut b = Bench::new(config);
    assert_eq!(b.input(CONNECT_311), Err(Close::Goodbye));
    assert_eq!(b.wire(), [0x20, 2, 0, 3]);
}

#[test]
fn a_client_that_publishes_where_it_may_not_is_let_go_where_the_operator_wants_that() {
    let config = Config { deny: OnDeny::Disconnect, ..Config::default() };
    let mut b = Bench::new(config);
    b.input(CONNECT_5).unwrap();
    b.accept();
    b.input(&[0x30, 4, 0, 1, b't', 0]).unwrap();
    let actions = b.actions();
    let [Action::Publish(_, Publish { ticket: Some(ticket), .. })] = &actions[..] else {
        panic!("{actions:?}")
    };
    b.reply(*ticket, Answer::Refused(Refusal::NotAuthorised));
    assert_eq!(b.wire(), [0xE0, 1, 0x87]);
    assert!(matches!(b.actions()[..], [Action::Close(_, Close::NotAuthorised)]));
}

#[test]
fn who_waits_for_connack_is_told_the_end_in_codes_that_connack_has() {
    // MQTT 5.0, 3.2.2.2: 0x8E and its like are DISCONNECT's alone.
    let said: [(Stop, &[u8]); 3] =
        [(Stop::TakenOver, &[]), (Stop::Kicked, &[]), (Stop::ShuttingDown, &[0x20, 3, 0, 0x88, 0])];
    for (why, wire) in said {
        let mut b = Bench::new(Config::default());
        b.input(CONNECT_5).unwrap();
        b.machine.stop(b.now, b.peer, why, &mut b.out);
        assert_eq!(b.wire(), wire, "{why:?}");
    }
}

#[test]
fn what_cannot_be_kept_is_refused_and_never_acknowledged() {
    for (qos, ack) in [(ticket::QOS1, 0x40), (ticket::QOS2, 0x50)] {
        let mut b = Bench::open_5();
        b.reply(ticket::new(qos, 9), Answer::Refused(Refusal::NotKept));
        let wire = b.wire();
        assert_eq!((wire[0], &wire[2..5]), (ack, &[0, 9, 0x97][..]));
        // MQTT 3.1.1 has no such code; the client sends it again when it comes back.
        let mut b = Bench::open_311();
        b.reply(ticket::new(qos, 9), Answer::Refused(Refusal::NotKept));
        assert!(b.wire().is_empty());
        assert!(matches!(b.actions()[..], [Action::Close(_, Close::QuotaExceeded)]));
    }
    // What may be on the disk is neither: of QoS 2 a PUBREC that refuses would free the packet identifier.
    let mut b = Bench::open_5();
    b.reply(ticket::new(ticket::QOS2, 9), Answer::Refused(Refusal::Uncertain));
    assert_eq!(b.wire(), [0xE0, 1, 0x97]);
    for handshake in [ticket::RELEASE, ticket::RECEIVE] {
        let mut b = Bench::open_5();
        b.reply(ticket::new(handshake, 9), Answer::Refused(Refusal::NotKept));
        assert_eq!(b.wire(), [0xE0, 1, 0x97]);
        assert!(matches!(b.actions()[..], [Action::Close(_, Close::QuotaExceeded)]));
    }
}

#[test]
fn the_end_is_said_in_the_words_of_the_version() {
    let reasons = [
        (Stop::TakenOver, 0x8E),
        (Stop::Kicked, 0x98),
        (Stop::ShuttingDown, 0x8B),
        (Stop::RateLimited, 0x96),
        (Stop::SlowPeer, 0x97),
    ];
    for (why, reason) in reasons {
        let mut b = Bench::open_5();
        b.machine.stop(b.now, b.peer, why, &mut b.out);
        assert_eq!(b.wire(), [0xE0, 1, reason]);
        // And only once.
        b.machine.stop(b.now, b.peer, why, &mut b.out);
        assert!(b.wire().is_empty());
        let mut b = Bench::open_311();
        b.machine.stop(b.now, b.peer, why, &mut b.out);
        assert!(b.wire().is_empty());
    }
}

#[test]
fn mqtt_3_has_no_properties_whatever_came_before() {
    // A refused filter is remembered in the same box as what 5.0 needs.
    let mut b = Bench::open_311();
    b.input(&[0x82, 7, 0, 7, 0, 2, b'a', b'#', 0]).unwrap();
    b.actions();
    b.input(&[0x30, 5, 0, 1, b't', 0xFF, 0xFF]).unwrap();
    assert!(matches!(&b.actions()[..], [Action::Publish(_, p)] if p.message.payload() == [0xFF, 0xFF]));
}

#[test]
fn what_a_closed_connection_sends_is_not_read() {
    let mut b = Bench::open_5();
    assert_eq!(b.input(&[0xE0, 0, 0x30, 4, 0, 1, b't', 0]), Ok(Flow::Continue));
    assert!(matches!(b.actions()[..], [Action::Disconnect(..), Action::Close(..)]));
    assert_eq!(b.input(&[0xC0, 0]), Ok(Flow::Continue));
    assert!(b.wire().is_empty() && b.actions().is_empty());
}

#[test]
fn what_mqtt_5_needs_is_small() {
    assert!(size_of::<Extra>() <= 224, "{} bytes", size_of::<Extra>());
}

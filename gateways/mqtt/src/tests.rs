mod alias;
mod authentication;
mod limits;
mod round_trip;

use super::*;
use gateway::{Connected, Delivery, DeliveryId, Drop, Listener, Message, Publish, Settle, Transport};

/// A machine with a peer, a clock and an outbox.
struct Bench {
    machine: Mqtt,
    now: Now,
    out: Outbox,
    peer: Peer,
}

impl Bench {
    fn new(config: Config) -> Bench {
        let mut machine = Mqtt::new(Arc::new(config));
        let (now, mut out, peer) =
            (Now::from_micros(1_000_000), Outbox::default(), Peer { slot: 1, generation: 1 });
        let listener = Listener::new("tcp", "mqtt");
        let facts = Facts::new(Arc::new(listener), Transport::Tcp, ([127, 0, 0, 1], 5).into());
        machine.opened(now, peer, &facts, &mut out);
        Bench { machine, now, out, peer }
    }

    fn input(&mut self, bytes: &[u8]) -> Result<Flow, Close> {
        self.machine.input(self.now, self.peer, &mut BytesMut::from(bytes), &mut self.out)
    }

    fn reply(&mut self, ticket: Ticket, answer: Answer) {
        self.machine.reply(self.now, self.peer, ticket, answer, &mut self.out);
    }

    /// Connected as version 5 with a short CONNECT.
    fn open_5() -> Bench {
        let mut b = Bench::new(Config::default());
        assert_eq!(b.input(CONNECT_5), Ok(Flow::Pause));
        b.accept();
        b
    }

    /// The same with these properties in CONNECT.
    fn open_5_with(properties: &[u8]) -> Bench {
        let mut connect = CONNECT_5.to_vec();
        connect[1] += properties.len() as u8;
        connect[12] = properties.len() as u8;
        connect.splice(13..13, properties.iter().copied());
        let mut b = Bench::new(Config::default());
        assert_eq!(b.input(&connect), Ok(Flow::Pause));
        b.accept();
        b
    }

    fn open_311() -> Bench {
        let mut b = Bench::new(Config::default());
        assert_eq!(b.input(CONNECT_311), Ok(Flow::Pause));
        b.accept();
        b
    }

    fn accept(&mut self) {
        let connected =
            Connected { client_id: "c".into(), session_present: false, data: None, facts: Vec::new() };
        self.reply(ticket::new(ticket::CONNECT, 0), Answer::Connected(Box::new(connected)));
        self.out.clear();
    }

    fn wire(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.out.wire)
    }

    fn actions(&mut self) -> Vec<Action> {
        std::mem::take(&mut self.out.actions)
    }
}

const CONNECT_311: &[u8] = &[0x10, 13, 0, 4, b'M', b'Q', b'T', b'T', 4, 2, 0, 60, 0, 1, b'c'];
const CONNECT_5: &[u8] = &[0x10, 14, 0, 4, b'M', b'Q', b'T', b'T', 5, 2, 0, 60, 0, 0, 1, b'c'];

#[test]
fn an_idle_machine_is_small() {
    assert!(size_of::<Mqtt>() <= 48, "{} bytes", size_of::<Mqtt>());
}

#[test]
fn connect_is_read_and_answered() {
    let mut b = Bench::new(Config::default());
    assert_eq!(b.input(CONNECT_311), Ok(Flow::Pause));
    let actions = b.actions();
    let [Action::Connect(_, ticket, connect)] = &actions[..] else { panic!("{actions:?}") };
    assert_eq!((&*connect.client_id, connect.clean_start, connect.keep_alive), ("c", true, 60));
    let connected = Connected { client_id: "c".into(), session_present: true, data: None, facts: Vec::new() };
    b.reply(*ticket, Answer::Connected(Box::new(connected)));
    assert_eq!(b.wire(), [0x20, 2, 1, 0]);
}

#[test]
fn the_first_packet_is_connect_and_the_only_one() {
    // MQTT-3.1.0-1, MQTT-3.1.0-2
    assert_eq!(Bench::new(Config::default()).input(&[0xC0, 0]), Err(Close::ProtocolError));
    let mut b = Bench::open_5();
    assert_eq!(b.input(CONNECT_5), Err(Close::ProtocolError));
    assert_eq!(b.wire(), [0xE0, 1, 0x82]);
}

#[test]
fn an_unknown_version_is_told_so() {
    // MQTT-3.1.2-2
    let mut b = Bench::new(Config::default());
    let mut six = CONNECT_5.to_vec();
    six[8] = 6;
    assert_eq!(b.input(&six), Err(Close::UnsupportedVersion));
    assert_eq!(b.wire(), [0x20, 3, 0, 0x84, 0]);
}

#[test]
fn publish_with_qos_1_is_published_and_acknowledged() {
    let mut b = Bench::open_311();
    assert_eq!(b.input(&[0x32, 7, 0, 1, b't', 0, 9, b'h', b'i']), Ok(Flow::Continue));
    let actions = b.actions();
    let [Action::Publish(_, p)] = &actions[..] else { panic!("{actions:?}") };
    assert_eq!(
        (p.message.topic(), p.message.payload(), p.message.qos()),
        ("t", &b"hi"[..], Qos::AtLeastOnce)
    );
    b.reply(p.ticket.unwrap(), Answer::Published(1));
    assert_eq!(b.wire(), [0x40, 2, 0, 9]);
}

#[test]
fn nobody_subscribed_is_told_to_version_5_only() {
    let mut b = Bench::open_5();
    b.input(&[0x32, 6, 0, 1, b't', 0, 9, 0]).unwrap();
    b.reply(ticket::new(ticket::QOS1, 9), Answer::Published(0));
    assert_eq!(b.wire(), [0x40, 3, 0, 9, 0x10]);
}

#[test]
fn a_refused_publish_is_acknowledged_in_the_words_of_the_version() {
    let mut b = Bench::open_311();
    b.reply(ticket::new(ticket::QOS1, 9), Answer::Refused(Refusal::NotAuthorised));
    assert_eq!(b.wire(), [0x40, 2, 0, 9]);
    let mut b = Bench::open_5();
    b.reply(ticket::new(ticket::QOS2, 9), Answer::Refused(Refusal::NotAuthorised));
    assert_eq!(b.wire(), [&[0x50, 21, 0, 9, 0x87, 17, 0x1F, 0, 14][..], b"not authorised"].concat());
    // MQTT-3.1.2-29: no words, as the client asked for none.
    let mut b = Bench::open_5_with(&[0x17, 0]);
    b.reply(ticket::new(ticket::QOS1, 9), Answer::Refused(Refusal::TopicName));
    assert_eq!(b.wire(), [0x40, 3, 0, 9, 0x90]);
    // MQTT-3.4.2-1: 0x89 is no reason code of PUBACK.
    b.reply(ticket::new(ticket::QOS1, 9), Answer::Refused(Refusal::ServerBusy));
    assert_eq!(b.wire(), [0x40, 3, 0, 9, 0x83]);
}

#[test]
fn qos_2_goes_through_its_four_packets() {
    let mut b = Bench::open_5();
    b.input(&[0x34, 6, 0, 1, b't', 0, 9, 0]).unwrap();
    assert!(matches!(&b.actions()[..], [Action::Publish(_, Publish { once: Some(9), .. })]));
    b.reply(ticket::new(ticket::QOS2, 9), Answer::Published(1));
    assert_eq!(b.wire(), [0x50, 2, 0, 9]);
    b.input(&[0x62, 2, 0, 9]).unwrap();
    assert!(matches!(&b.actions()[..], [Action::Release(_, _, 9)]));
    b.reply(ticket::new(ticket::RELEASE, 9), Answer::Known(true));
    assert_eq!(b.wire(), [0x70, 2, 0, 9]);
    b.reply(ticket::new(ticket::RELEASE, 9), Answer::Known(false));
    assert_eq!(b.wire(), [0x70, 3, 0, 9, 0x92]);
}

#[test]
fn more_in_flight_than_the_receive_maximum_ends_the_connection() {
    // MQTT 5.0, 3.3.4; 4.9
    let mut b = Bench::new(Config { receive_maximum: 1, ..Config::default() });
    b.input(CONNECT_5).unwrap();
    b.accept();
    b.input(&[0x34, 6, 0, 1, b't', 0, 9, 0]).unwrap();
    assert_eq!(b.input(&[0x34, 6, 0, 1, b't', 0, 8, 0]), Err(Close::ReceiveMaximum));
    assert_eq!(b.wire(), [0xE0, 1, 0x93]);
}

#[test]
fn subscribe_answers_every_filter_in_order() {
    let mut b = Bench::open_5();
    b.input(&[0x82, 15, 0, 7, 0, 0, 1, b'a', 1, 0, 3, b'b', b'+', b'c', 0, 0, 1]).ok();
    let mut b = Bench::open_5();
    b.input(&[0x82, 13, 0, 7, 0, 0, 1, b'a', 1, 0, 3, b'b', b'+', b'c', 0]).unwrap();
    assert!(matches!(&b.actions()[..], [Action::Subscribe(_, _, list)] if list.len() == 1));
    b.reply(ticket::new(ticket::SUBSCRIBE, 7), Answer::Subscribed(vec![Ok(Qos::AtLeastOnce)]));
    assert_eq!(b.wire(), [0x90, 5, 0, 7, 0, 1, 0x8F]);
}

#[test]
fn keep_alive_ends_a_silent_connection_after_one_and_a_half_times() {
    // MQTT-3.1.2-22
    let mut b = Bench::open_5();
    assert_eq!(b.machine.next_timeout().map(|(at, _)| at), Some(Instant::from_micros(91_000_000)));
    b.now = Now::from_micros(91_000_000);
    b.machine.timeout(b.now, &mut b.out);
    assert_eq!(b.wire(), [0xE0, 1, 0x8D]);
    assert!(matches!(b.actions()[..], [Action::Close(_, Close::KeepAlive)]));
}

#[test]
fn a_delivery_is_written_as_the_standard_has_it() {
    let mut b = Bench::open_5();
    let message = Message::new(b.now, "a/b", b"x").with_qos(Qos::AtLeastOnce);
    let d = Delivery {
        id: Some(DeliveryId(5)),
        message: &message,
        topic: "a/b",
        qos: Qos::AtLeastOnce,
        retain: false,
        duplicate: true,
        subscriptions: &[3],
    };
    b.machine.deliver(b.now, b.peer, &Deliver::Message(d), &mut b.out);
    assert_eq!(b.wire(), [0x3A, 11, 0, 3, b'a', b'/', b'b', 0, 5, 2, 0x0B, 3, b'x']);
}

#[test]
fn a_delivery_larger_than_the_client_takes_is_settled_unsent() {
    // MQTT-3.1.2-24, -25
    let mut b = Bench::open_5();
    b.machine.extra().max_packet = 12;
    let message = Message::new(b.now, "a/b", b"xxxxxxxx").with_qos(Qos::AtLeastOnce);
    let d = Delivery {
        id: Some(DeliveryId(5)),
        message: &message,
        topic: "a/b",
        qos: Qos::AtLeastOnce,
        retain: false,
        duplicate: false,
        subscriptions: &[],
    };
    b.machine.deliver(b.now, b.peer, &Deliver::Message(d), &mut b.out);
    assert!(b.wire().is_empty());
    assert!(matches!(b.actions()[..], [Action::Drop(_, Drop::TooLarge), Action::Settle(_, _, Settle::Done)]));
}

#[test]
fn a_dialogue_cut_at_every_byte_means_the_same() {
    let whole: Vec<u8> = [
        &[0x32, 8, 0, 1, b't', 0, 9, 0, b'h', b'i'][..],
        &[0x82, 7, 0, 7, 0, 0, 1, b'a', 1],
        &[0xC0, 0],
        &[0x62, 2, 0, 9],
        &[0xE0, 0],
    ]
    .concat();
    let run = |cut: usize| {
        let mut b = Bench::open_5();
        let mut bytes = BytesMut::from(&whole[..cut]);
        b.machine.input(b.now, b.peer, &mut bytes, &mut b.out).unwrap();
        bytes.extend_from_slice(&whole[cut..]);
        b.machine.input(b.now, b.peer, &mut bytes, &mut b.out).unwrap();
        (b.wire(), format!("{:?}", b.actions()))
    };
    for cut in 1..whole.len() {
        assert_eq!(run(cut), run(0), "cut at {cut}");
    }
}

/// A CONNECT of MQTT 3.1 with these flags and nothing but the client identifier.
fn connect_31(flags: u8) -> Vec<u8> {
    let mut bytes = vec![0x10, 15, 0, 6];
    bytes.extend_from_slice(b"MQIsdp");
    bytes.extend_from_slice(&[3, flags, 0, 60, 0, 1, b'c']);
    bytes
}

#[test]
fn mqtt_3_is_told_0x80_of_a_filter_that_cannot_be() {
    // MQTT-3.9.3-2 of 3.1.1: other codes than 0, 1, 2 and 0x80 are reserved.
    let mut b = Bench::open_311();
    b.input(&[0x82, 12, 0, 7, 0, 2, b'a', b'#', 0, 0, 1, b'b', 1, 0]).unwrap_err();
    let mut b = Bench::open_311();
    b.input(&[0x82, 11, 0, 7, 0, 2, b'a', b'#', 0, 0, 1, b'b', 1]).unwrap();
    let [Action::Subscribe(_, ticket, list)] = &b.actions()[..] else { panic!() };
    assert_eq!(list.len(), 1);
    b.reply(*ticket, Answer::Subscribed(vec![Ok(Qos::AtLeastOnce)]));
    assert_eq!(b.wire(), [0x90, 4, 0, 7, 0x80, 1]);
}

#[test]
fn an_empty_filter_is_refused_alone() {
    // MQTT-4.7.3-1.
    let mut b = Bench::open_5();
    b.input(&[0x82, 10, 0, 7, 0, 0, 0, 0, 0, 1, b'b', 0]).unwrap();
    let [Action::Subscribe(_, ticket, _)] = &b.actions()[..] else { panic!() };
    b.reply(*ticket, Answer::Subscribed(vec![Ok(Qos::AtMostOnce)]));
    assert_eq!(b.wire(), [0x90, 5, 0, 7, 0, 0x8F, 0]);
}

#[test]
fn mqtt_3_1_has_dup_in_requests() {
    let mut b = Bench::new(Config::default());
    b.input(&connect_31(2)).unwrap();
    b.accept();
    for packet in [&[0x8A, 6, 0, 1, 0, 1, b'a', 1][..], &[0xAA, 5, 0, 2, 0, 1, b'a'], &[0x6A, 2, 0, 3]] {
        assert_eq!(b.input(packet), Ok(Flow::Continue));
    }
    // MQTT-3.8.1-1 and its like hold from 3.1.1 on.
    for packet in [&[0x8A, 6, 0, 1, 0, 1, b'a', 1][..], &[0xAA, 5, 0, 2, 0, 1, b'a'], &[0x6A, 2, 0, 3]] {
        assert_eq!(Bench::open_311().input(packet), Err(Close::Malformed));
    }
}

#[test]
fn mqtt_3_1_may_announce_a_user_name_and_leave_it_out() {
    let mut b = Bench::new(Config::default());
    assert_eq!(b.input(&connect_31(0xC2)), Ok(Flow::Pause));
    let [Action::Connect(_, _, connect)] = &b.actions()[..] else { panic!() };
    assert_eq!((&connect.username, &connect.password), (&None, &None));
    // 3.1.1: MQTT-3.1.2-19.
    let mut later = CONNECT_311.to_vec();
    later[9] = 0x82;
    assert_eq!(Bench::new(Config::default()).input(&later), Err(Close::Malformed));
}

#[test]
fn a_remaining_length_has_as_few_bytes_as_it_needs_in_5() {
    // MQTT-1.5.5-1; 3.1.1 does not say so, and small devices write a length of fixed size.
    assert_eq!(Bench::open_5().input(&[0xC0, 0x80, 0]), Err(Close::Malformed));
    assert_eq!(Bench::open_5().input(&[0x30, 0x84, 0, 0, 1, b'a', 0]), Err(Close::Malformed));
    assert_eq!(Bench::open_311().input(&[0xC0, 0x80, 0]), Ok(Flow::Continue));
}

#[test]
fn a_client_uses_the_codes_of_its_packet() {
    // MQTT-3.4.2-1, 3.5.2-1, 3.6.2-1, 3.7.2-1, 3.14.2-1.
    let wrong: [&[u8]; 5] = [
        &[0x40, 3, 0, 1, 0x55],
        &[0x50, 3, 0, 1, 0x92],
        &[0x62, 3, 0, 1, 0x10],
        &[0x70, 3, 0, 1, 0x80],
        &[0xE0, 1, 1],
    ];
    for packet in wrong {
        assert_eq!(Bench::open_5().input(packet), Err(Close::ProtocolError), "{packet:x?}");
    }
    let right: [&[u8]; 5] = [
        &[0x40, 3, 0, 1, 0x10],
        &[0x50, 3, 0, 1, 0x83],
        &[0x62, 3, 0, 1, 0x92],
        &[0x70, 2, 0, 1],
        &[0xE0, 1, 4],
    ];
    for packet in right {
        assert!(Bench::open_5().input(packet).is_ok(), "{packet:x?}");
    }
}

#[test]
fn a_connack_fits_the_client() {
    // MQTT-3.2.2-19: the reason string is left out.
    let mut connect = CONNECT_5.to_vec();
    connect.splice(12..13, [5, 0x27, 0, 0, 0, 24]);
    connect[1] += 5;
    let mut b = Bench::new(Config::default());
    b.input(&connect).unwrap();
    b.reply(ticket::new(ticket::CONNECT, 0), Answer::Refused(Refusal::BadCredentials));
    assert_eq!(b.wire(), [0x20, 3, 0, 0x86, 0]);
    // MQTT-3.1.2-24: what does not fit without it is not sent.
    connect[17] = 6;
    let mut b = Bench::new(Config::default());
    b.input(&connect).unwrap();
    b.actions();
    let connected =
        Connected { client_id: "c".into(), session_present: false, data: None, facts: Vec::new() };
    b.reply(ticket::new(ticket::CONNECT, 0), Answer::Connected(Box::new(connected)));
    assert!(b.wire().is_empty());
    let actions = b.actions();
    assert!(matches!(actions[..], [Action::Drop(_, Drop::TooLarge), Action::Close(_, Close::TooLarge)]));
}

proptest::proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200), five: bool) {
        let mut b = if five { Bench::open_5() } else { Bench::open_311() };
        let _ = b.input(&bytes);
        let _ = Bench::new(Config::default()).input(&bytes);
    }

    #[test]
    fn flipped_bits_never_make_it_panic(at in 0..26usize, bit in 0..8u8) {
        let mut connect = CONNECT_5.to_vec();
        connect.extend_from_slice(&[0x32, 8, 0, 1, b't', 0, 9, 0, b'h', b'i']);
        connect[at] ^= 1 << bit;
        let _ = Bench::new(Config::default()).input(&connect);
        let mut b = Bench::open_5();
        let _ = b.input(&connect[16..]);
    }
}

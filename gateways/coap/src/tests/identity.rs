//! Clients that come from another address, and go on after silence.

use super::*;

pub(super) const ELSEWHERE: &str = "192.0.2.9:1000";

/// A machine whose peer has the credential of client `d`.
pub(super) fn proven() -> Bench {
    bench_with("192.0.2.1:9", Some("d"))
}

impl Bench {
    fn moves(&mut self, to: &str) -> Vec<Message> {
        self.machine.moved(self.now, self.peer, to.parse().unwrap(), &mut self.out);
        self.run()
    }

    /// What another peer of the same socket sends brings.
    pub(super) fn stranger(&mut self, slot: u32, address: &str, message: &Message) -> Vec<Message> {
        let stranger = Peer { slot, generation: 1 };
        self.machine.opened(self.now, stranger, &facts(address, None), &mut self.out);
        let mut bytes = Vec::new();
        message.encode(&mut bytes);
        self.machine.input(self.now, stranger, &mut BytesMut::from(&bytes[..]), &mut self.out).unwrap();
        self.run()
    }

    pub(super) fn named(&mut self) -> String {
        let sent =
            self.send(&request(Kind::Con, Code::POST, 1, &["mqtt", "connection"], &["c=d", "keepalive=600"]));
        assert_eq!(sent[0].code, Code::CREATED);
        String::from_utf8(sent[0].payload.clone()).unwrap()
    }

    /// Observes `/ps/a`; the request.
    pub(super) fn observes(&mut self, id: u16, query: &[&str]) -> Message {
        let mut look = request(Kind::Con, Code::GET, id, &["ps", "a"], query);
        look.add_uint(OBSERVE, 0);
        self.send(&look);
        look
    }
}

#[test]
fn a_credential_opens_its_session_before_anything_is_asked() {
    let mut b = proven();
    assert_eq!((&*b.connects[0].client_id, b.connects[0].clean_start, b.connects.len()), ("d", false, 1));
    assert!(b.connects[0].expiry > Duration::from_secs(86_400));
    let sent = b.send(&request(Kind::Con, Code::PUT, 1, &["ps", "a"], &[]));
    assert_eq!((sent[0].code, b.connects.len()), (Code::CHANGED, 1));
    let sent = b.send(&request(Kind::Con, Code::PUT, 2, &["ps", "a"], &["c=other"]));
    assert_eq!(sent[0].code, Code::UNAUTHORIZED);
}

#[test]
fn what_was_observed_goes_on_in_a_later_conversation_with_higher_numbers() {
    let mut b = proven();
    b.send(&observe(1, &["ps", "a"]));
    let last = b.deliver_to("a", Qos::AtMostOnce, b"1")[0].uint(OBSERVE).unwrap();
    let (kept, identifier) = (b.kept.clone(), b.identifier);

    let mut b = proven();
    b.kept = kept;
    b.machine.closed(b.now, b.peer, &mut b.out);
    b.machine.opened(b.now, b.peer, &facts("192.0.2.1:77", Some("d")), &mut b.out);
    b.run();
    b.identifier = identifier;
    let sent = b.deliver_to("a", Qos::AtMostOnce, b"2");
    assert_eq!((sent[0].token, &sent[0].payload[..]), (Token::new(&[1]), &b"2"[..]));
    assert!(sent[0].uint(OBSERVE).unwrap() > last);
}

#[test]
fn an_observation_that_ended_does_not_come_back() {
    let mut b = proven();
    b.send(&observe(1, &["ps", "a"]));
    assert_eq!(b.kept.len(), 1);
    let mut stop = request(Kind::Con, Code::GET, 2, &["ps", "a"], &[]);
    stop.token = Token::new(&[1]);
    stop.add_uint(OBSERVE, 1);
    b.send(&stop);
    assert!(b.kept.is_empty() && b.unsubscribed == 1);
}

#[test]
fn sequence_numbers_are_reserved_before_they_are_used() {
    let mut b = proven();
    b.send(&observe(1, &["ps", "a"]));
    for _ in 0..3000 {
        let sent = b.deliver_to("a", Qos::AtMostOnce, b"x");
        let kept = b.kept.values().next().unwrap();
        let reserved = u32::from_be_bytes(kept[1..5].try_into().unwrap());
        // Some are left while the store writes that there are more.
        assert!(sent[0].uint(OBSERVE).unwrap() + 500 < reserved);
    }
}

#[test]
fn a_moved_peer_is_probed_when_there_is_something_to_tell_and_is_there_when_it_answers() {
    let mut b = proven();
    b.send(&observe(1, &["ps", "a"]));
    b.moves(ELSEWHERE);
    assert!(b.probes.is_empty(), "a request costs no probe");
    let sent = b.deliver_to("a", Qos::AtLeastOnce, b"1");
    assert_eq!((sent.len(), b.probes.len()), (1, 1));
    let probe = b.probes.remove(0);
    assert_eq!((probe.kind, probe.code), (Kind::Con, Code::EMPTY));
    // To the notification it may have answered from where it was.
    b.send(&Message::empty(Kind::Ack, sent[0].id));
    assert!(b.reached.is_empty());
    b.send(&Message::empty(Kind::Rst, probe.id));
    assert_eq!(b.reached, [ELSEWHERE.parse().unwrap()]);
    b.send(&Message::empty(Kind::Rst, probe.id));
    assert_eq!(b.reached.len(), 1);
}

#[test]
fn an_answer_to_a_probe_proves_the_address_that_it_was_sent_to() {
    let mut b = proven();
    b.send(&observe(1, &["ps", "a"]));
    b.moves(ELSEWHERE);
    b.deliver_to("a", Qos::AtLeastOnce, b"1");
    b.moves("192.0.2.10:2000");
    let probe = b.probes.remove(0);
    b.send(&Message::empty(Kind::Rst, probe.id));
    assert_eq!(b.reached, [ELSEWHERE.parse().unwrap()]);
    let probe = b.probes.pop().unwrap();
    b.send(&Message::empty(Kind::Rst, probe.id));
    assert_eq!(b.reached[1], "192.0.2.10:2000".parse().unwrap());
}

#[test]
fn an_answer_too_large_for_an_unproven_address_is_sent_again_when_it_is_proven() {
    let mut b = proven();
    b.retained = vec![("a".into(), Published::new(b.now, "a", &[b'x'; 500]))];
    b.moves(ELSEWHERE);
    let first = b.send(&request(Kind::Con, Code::GET, 1, &["ps", "a"], &[]));
    assert_eq!(b.probes.len(), 1);
    let probe = b.probes.remove(0);
    assert_eq!(b.send(&Message::empty(Kind::Rst, probe.id)), first);
}

#[test]
fn a_token_from_another_address_is_the_same_client_with_its_exchanges() {
    let mut b = bench_at("192.0.2.1:9");
    let query: [&str; 2] = ["c=d", &format!("t={}", b.named())];
    let put = request(Kind::Con, Code::PUT, 7, &["ps", "a"], &query);
    b.send(&put);
    assert_eq!(b.published.len(), 1);
    // The same message again, through another port: it is not published again.
    let sent = b.stranger(2, ELSEWHERE, &put);
    assert_eq!((b.published.len(), sent[0].code, sent[0].id), (1, Code::CHANGED, 7));
    assert_eq!(b.rebound, [(b.peer, Peer { slot: 2, generation: 1 })]);
    let next = request(Kind::Con, Code::PUT, 8, &["ps", "a"], &query);
    b.stranger(3, "192.0.2.1:10", &next);
    assert_eq!((b.published.len(), b.connects.len()), (2, 1));
}

#[test]
fn a_wrong_token_moves_nobody() {
    let mut b = bench_at("192.0.2.1:9");
    b.named();
    let sent = b.stranger(2, ELSEWHERE, &request(Kind::Con, Code::PUT, 7, &["ps", "a"], &["c=d", "t=guess"]));
    assert_eq!((sent[0].code, b.rebound.len(), b.published.len()), (Code::UNAUTHORIZED, 0, 0));
}

#[test]
fn a_token_opens_the_session_that_was_left_before_a_restart() {
    let mut b = bench_at("192.0.2.1:9");
    let token = b.named();
    let query: [&str; 2] = ["c=d", &format!("t={token}")];
    b.observes(2, &query);
    let (kept, identifier) = (b.kept.clone(), b.identifier);
    assert!(!kept.values().any(|v| v.windows(8).any(|w| w == &token.as_bytes()[..8])), "kept as it is");

    let mut b = bench_at(ELSEWHERE);
    b.kept = kept;
    let sent = b.send(&request(Kind::Con, Code::PUT, 3, &["mqtt", "connection"], &query));
    assert_eq!(sent[0].code, Code::CHANGED);
    let connect = &b.connects[0];
    assert_eq!((connect.clean_start, connect.token.as_ref()), (false, b.kept.get("token")));
    b.identifier = identifier;
    // A ping first: nothing was heard back from this address yet.
    let sent = b.deliver_to("a", Qos::AtLeastOnce, b"1");
    assert_eq!((sent.len(), sent[0].code), (1, Code::EMPTY));
    assert_eq!(b.send(&Message::empty(Kind::Rst, sent[0].id))[0].token, Token::new(&[2]));
    // Its keep-alive is what it was: 600 s.
    b.pass(890);
    assert!(b.closed.is_empty());
    b.pass(20);
    assert_eq!(b.closed, [Close::KeepAlive]);
}

#[test]
fn an_acknowledgement_from_another_port_of_the_same_host_counts_for_a_named_session() {
    let mut b = bench_at("192.0.2.1:9");
    let query: [&str; 2] = ["c=d", &format!("t={}", b.named())];
    b.observes(2, &query);
    let sent = b.deliver_to("a", Qos::AtLeastOnce, b"1");
    b.stranger(2, "192.0.2.77:10", &Message::empty(Kind::Ack, sent[0].id));
    assert!(b.settled.is_empty(), "another host");
    b.stranger(3, "192.0.2.1:10", &Message::empty(Kind::Ack, sent[0].id));
    assert_eq!(b.settled, [(DeliveryId(1), Settle::Done)]);
    b.stranger(4, "192.0.2.1:11", &Message::empty(Kind::Ack, sent[0].id));
    assert_eq!(b.settled.len(), 1);
}

#[test]
fn a_gateway_that_stops_leaves_kept_observations_standing() {
    let mut b = proven();
    b.send(&observe(1, &["ps", "a"]));
    b.machine.stop(b.now, b.peer, Stop::ShuttingDown, &mut b.out);
    assert!(b.run().is_empty() && b.kept.len() == 1);
    let mut b = bench();
    b.send(&observe(1, &["ps", "a"]));
    b.machine.stop(b.now, b.peer, Stop::ShuttingDown, &mut b.out);
    assert_eq!(b.run()[0].code, Code::UNAVAILABLE);
}

#[test]
fn who_is_kicked_is_not_told_that_what_goes_on_with_his_session_is_over() {
    let mut b = proven();
    b.send(&observe(1, &["ps", "a"]));
    b.machine.stop(b.now, b.peer, Stop::Kicked, &mut b.out);
    assert!(b.run().is_empty());
    assert!(b.kept.keys().any(|name| name.starts_with("coap/o/")));
}

#[test]
fn a_deleted_connection_ends_its_session_for_good() {
    let mut b = bench_at("192.0.2.1:9");
    let query: [&str; 2] = ["c=d", &format!("t={}", b.named())];
    b.send(&request(Kind::Con, Code::DELETE, 2, &["mqtt", "connection"], &query));
    let sent = b.stranger(2, ELSEWHERE, &request(Kind::Con, Code::PUT, 3, &["mqtt", "connection"], &query));
    assert_eq!((sent[0].code, b.rebound.len()), (Code::UNAUTHORIZED, 0));
}

#[test]
fn who_knows_the_last_message_id_cannot_answer_a_probe_that_went_elsewhere() {
    let mut b = proven();
    b.send(&observe(1, &["ps", "a"]));
    let last = b.deliver_to("a", Qos::AtMostOnce, b"1")[0].id;
    b.moves(ELSEWHERE);
    b.deliver_to("a", Qos::AtLeastOnce, b"2");
    assert_eq!(b.probes.len(), 1);
    for next in 1..1000 {
        b.send(&Message::empty(Kind::Rst, last.wrapping_add(next)));
    }
    assert!(b.reached.is_empty());
}

#[test]
fn who_guesses_wrong_does_not_guess_for_long() {
    let mut b = proven();
    b.send(&observe(1, &["ps", "a"]));
    b.moves(ELSEWHERE);
    b.deliver_to("a", Qos::AtLeastOnce, b"1");
    let probe = b.probes.remove(0);
    for wrong in 1..9 {
        b.send(&Message::empty(Kind::Rst, probe.id.wrapping_add(wrong)));
    }
    b.send(&Message::empty(Kind::Rst, probe.id));
    assert!(b.reached.is_empty());
}

#[test]
fn a_probe_of_a_peer_that_is_where_it_was_proves_nothing() {
    let mut b = proven();
    b.send(&observe(1, &["ps", "a"]));
    b.moves(ELSEWHERE);
    b.deliver_to("a", Qos::AtLeastOnce, b"1");
    let probe = b.probes.remove(0);
    b.moves("192.0.2.1:9");
    b.send(&Message::empty(Kind::Rst, probe.id));
    assert!(b.reached.is_empty());
}

#[test]
fn a_token_over_another_association_is_a_new_beginning_and_no_move() {
    // What is sealed for the first association cannot be read by who holds the second.
    let dtls = |address| Facts { transport: Transport::Dtls, ..facts(address, None) };
    let mut b = bench_of(&dtls("192.0.2.1:9"), Config::default());
    let query: [&str; 2] = ["c=d", &format!("t={}", b.named())];
    let second = Peer { slot: 2, generation: 1 };
    b.machine.opened(b.now, second, &dtls("192.0.2.1:10"), &mut b.out);
    let mut bytes = Vec::new();
    request(Kind::Con, Code::PUT, 7, &["ps", "a"], &query).encode(&mut bytes);
    b.machine.input(b.now, second, &mut BytesMut::from(&bytes[..]), &mut b.out).unwrap();
    let connect = b.out.actions.iter().find_map(|a| match a {
        Action::Connect(peer, _, connect) => Some((*peer, connect.token.is_some())),
        _ => None,
    });
    assert_eq!(connect, Some((second, true)));
    assert_eq!(b.run()[0].code, Code::CHANGED);
    assert!(b.rebound.is_empty());
}

#[test]
fn a_session_that_the_driver_has_lost_is_opened_again_by_the_next_request() {
    let mut b = bench_at("127.0.0.1:9");
    let query: [&str; 2] = ["c=d", &format!("t={}", b.named())];
    b.is_gone = true;
    assert_eq!(b.send(&request(Kind::Con, Code::PUT, 2, &["ps", "a"], &query))[0].code, Code::INTERNAL);
    b.is_gone = false;
    assert_eq!(b.send(&request(Kind::Con, Code::PUT, 3, &["ps", "a"], &query))[0].code, Code::CHANGED);
    assert!(b.connects.len() == 2 && b.connects[1].token.is_some());
}

#[test]
fn who_has_not_the_token_may_end_an_observation_there_and_read_nothing() {
    let mut b = bench_at("127.0.0.1:9");
    let query: [&str; 2] = ["c=d", &format!("t={}", b.named())];
    let look = b.observes(2, &query);
    b.retained = vec![("a".into(), Published::new(b.now, "a", b"secret"))];
    let mut stop = request(Kind::Con, Code::GET, 3, &["ps", "a"], &[]);
    (stop.token, stop.payload) = (look.token, Vec::new());
    stop.add_uint(OBSERVE, 1);
    let sent = b.send(&stop);
    assert_eq!((sent[0].code, b.unsubscribed), (Code::UNAUTHORIZED, 1));
    // With it the answer is the value (RFC 7641, 3.6).
    let mut stop = request(Kind::Con, Code::GET, 4, &["ps", "a"], &query);
    stop.add_uint(OBSERVE, 1);
    assert_eq!(b.send(&stop)[0].payload, b"secret");
}

#[test]
fn who_is_at_an_address_that_another_may_have_moved_to_is_not_served_in_his_conversation() {
    // Whoever holds a token can write somebody's address; answers to that one would go to where the token's client was, too.
    let mut b = bench_at("192.0.2.1:9");
    let token = b.named();
    let query: [&str; 2] = ["c=d", &format!("t={token}")];
    b.stranger(2, ELSEWHERE, &request(Kind::Con, Code::PUT, 7, &["ps", "a"], &query));
    let connects = b.connects.len();
    for query in [&["c=victim", "t=its"][..], &["c=victim", "u=u", "p=p"], &["c=d", "t=guess"], &[]] {
        b.moves(ELSEWHERE);
        b.stayed.clear();
        assert!(b.send(&request(Kind::Con, Code::PUT, 8, &["ps", "b"], query)).is_empty());
        assert_eq!((&b.stayed[..], b.connects.len()), (&[b.peer][..], connects));
    }
    assert_eq!(b.published.len(), 1);
    // The client itself goes on, from wherever it is.
    b.moves(ELSEWHERE);
    assert_eq!(b.send(&request(Kind::Con, Code::PUT, 9, &["ps", "a"], &query))[0].code, Code::CHANGED);
}

#[test]
fn the_numbers_of_subscriptions_are_none_that_mqtt_clients_count_to() {
    // The session may be an MQTT client's for a while, who subscribes with numbers from 1.
    let mut b = proven();
    b.send(&observe(1, &["ps", "a"]));
    let first = b.identifier;
    b.send(&observe(2, &["ps", "b"]));
    assert!((0x800_0000..0xFFF_FFFF).contains(&first) && b.identifier == first + 1);
}

#[test]
fn two_who_ask_for_a_token_at_the_same_time_are_both_told_one() {
    let mut b = proven();
    for id in 1..=2 {
        let mut bytes = Vec::new();
        request(Kind::Con, Code::POST, id, &["mqtt", "connection"], &["c=d"]).encode(&mut bytes);
        b.machine.input(b.now, b.peer, &mut BytesMut::from(&bytes[..]), &mut b.out).unwrap();
    }
    let lengths: Vec<_> = b.run().iter().map(|m| (m.code, m.payload.len())).collect();
    assert_eq!(lengths, [(Code::CREATED, 32), (Code::CREATED, 32)]);
}

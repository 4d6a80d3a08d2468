use super::*;
use crate::options::{CONTENT_FORMAT, OBSERVE, URI_PATH, URI_QUERY};
use frame::Token;
use gateway::{Connected, Delivery, DeliveryId, Listener, Message as Published, Qos, Transport};

/// A machine with one peer, a clock, and a driver that says yes.
struct Bench {
    machine: Coap,
    now: Now,
    out: Outbox,
    peer: Peer,
    /// What was asked for, without what a yes was the answer to.
    published: Vec<(String, Vec<u8>, Qos, bool)>,
    settled: Vec<(DeliveryId, Settle)>,
    unsubscribed: usize,
    closed: Vec<Close>,
    retained: Vec<(Box<str>, Published)>,
    identifier: u32,
}

fn bench() -> Bench {
    bench_at("127.0.0.1:9")
}

fn bench_at(address: &str) -> Bench {
    let random: Random = Arc::new(|b| {
        b.fill(7);
        true
    });
    let mut machine = Coap::new(Arc::new(Config::default()), random);
    let (now, mut out) = (Now::from_micros(1_000_000), Outbox { is_framed: true, ..Outbox::default() });
    let peer = Peer { slot: 1, generation: 1 };
    let listener =
        Listener { name: "udp".into(), protocol: "coap", namespace: "".into(), mountpoint: "".into() };
    let facts = Facts {
        address: address.parse().unwrap(),
        listener: Arc::new(listener),
        transport: Transport::Udp,
        certificate: None,
        path: None,
        subprotocol: None,
        is_direct: true,
    };
    machine.opened(now, peer, &facts, &mut out);
    Bench {
        machine,
        now,
        out,
        peer,
        published: vec![],
        settled: vec![],
        unsubscribed: 0,
        closed: vec![],
        retained: vec![],
        identifier: 0,
    }
}

impl Bench {
    /// Sends a message and returns what comes back.
    fn send(&mut self, message: &Message) -> Vec<Message> {
        let mut bytes = Vec::new();
        message.encode(&mut bytes);
        self.send_bytes(&bytes)
    }

    fn send_bytes(&mut self, bytes: &[u8]) -> Vec<Message> {
        self.machine.input(self.now, self.peer, &mut BytesMut::from(bytes), &mut self.out).unwrap();
        self.run()
    }

    fn pass(&mut self, seconds: u64) -> Vec<Message> {
        self.now = self.now.after(Duration::from_secs(seconds));
        self.machine.timeout(self.now, &mut self.out);
        self.run()
    }

    fn deliver(&mut self, qos: Qos, payload: &[u8]) -> Vec<Message> {
        let message = Published::new(self.now, "a/b", payload).with_qos(qos);
        let d = Delivery {
            id: (qos > Qos::AtMostOnce).then_some(DeliveryId(1)),
            message: &message,
            topic: "a/b",
            qos,
            retain: false,
            duplicate: false,
            subscriptions: &[self.identifier],
        };
        self.machine.deliver(self.now, self.peer, &Deliver::Message(d), &mut self.out);
        self.run()
    }

    fn run(&mut self) -> Vec<Message> {
        while !self.out.actions.is_empty() {
            for action in std::mem::take(&mut self.out.actions) {
                let (ticket, answer) = match action {
                    Action::Connect(_, t, c) => {
                        let connected =
                            Connected { client_id: c.client_id, session_present: false, data: None };
                        (t, Answer::Connected(Box::new(connected)))
                    }
                    Action::Publish(_, p) => {
                        let m = p.message;
                        self.published.push((
                            m.topic().to_owned(),
                            m.payload().to_vec(),
                            m.qos(),
                            m.retain(),
                        ));
                        (p.ticket.unwrap(), Answer::Published(1))
                    }
                    Action::Subscribe(_, t, list) => {
                        self.identifier = list[0].identifier;
                        (t, Answer::Subscribed(vec![Ok(list[0].qos)]))
                    }
                    Action::Unsubscribe(_, t, _) => {
                        self.unsubscribed += 1;
                        (t, Answer::Unsubscribed(vec![Ok(true)]))
                    }
                    Action::Retained(_, t, ..) => (t, Answer::Retained(self.retained.clone())),
                    Action::Settle(_, id, how) => {
                        self.settled.push((id, how));
                        continue;
                    }
                    Action::Close(_, why) => {
                        self.closed.push(why);
                        continue;
                    }
                    _ => continue,
                };
                self.machine.reply(self.now, self.peer, ticket, answer, &mut self.out);
            }
        }
        let sent = self.out.messages().map(|(_, bytes)| Message::decode(bytes).unwrap()).collect();
        self.out.clear();
        sent
    }
}

fn request(kind: Kind, code: Code, id: u16, path: &[&str], query: &[&str]) -> Message {
    let mut m = Message { code, token: Token::new(&[id as u8]), ..Message::empty(kind, id) };
    path.iter().for_each(|p| m.add(URI_PATH, p.as_bytes()));
    query.iter().for_each(|q| m.add(URI_QUERY, q.as_bytes()));
    m
}

fn observe(id: u16, path: &[&str]) -> Message {
    let mut m = request(Kind::Con, Code::GET, id, path, &[]);
    m.add_uint(OBSERVE, 0);
    m
}

#[test]
fn a_put_is_published_and_acknowledged_with_its_answer() {
    let mut b = bench();
    let mut put = request(Kind::Con, Code::PUT, 1, &["ps", "a", "b"], &["retain"]);
    put.payload = b"21".to_vec();
    let sent = b.send(&put);
    assert_eq!((sent.len(), sent[0].kind, sent[0].code, sent[0].id), (1, Kind::Ack, Code::CHANGED, 1));
    assert_eq!(sent[0].token, put.token);
    assert_eq!(b.published, [("a/b".to_owned(), b"21".to_vec(), Qos::AtLeastOnce, true)]);
}

#[test]
fn the_same_request_again_gets_the_same_answer_and_is_not_published_again() {
    // RFC 7252, 4.2
    let mut b = bench();
    let put = request(Kind::Con, Code::PUT, 1, &["ps", "a"], &[]);
    let first = b.send(&put);
    assert_eq!(b.send(&put), first);
    assert_eq!(b.published.len(), 1);
    b.pass(250);
    b.send(&put);
    assert_eq!(b.published.len(), 2);
}

#[test]
fn a_non_confirmable_publish_is_qos_0_and_answered_non_confirmable() {
    let mut b = bench();
    let sent = b.send(&request(Kind::Non, Code::POST, 1, &["mqtt", "a"], &[]));
    assert_eq!((sent[0].kind, sent[0].code), (Kind::Non, Code::CHANGED));
    assert_eq!(b.published[0].2, Qos::AtMostOnce);
}

#[test]
fn a_ping_gets_a_reset_and_a_format_error_too() {
    let mut b = bench();
    assert_eq!(b.send_bytes(&[0x40, 0, 0, 9]), [Message::empty(Kind::Rst, 9)]);
    assert_eq!(b.send_bytes(&[0x40, 1, 0, 9, 0xFF]), [Message::empty(Kind::Rst, 9)]);
    assert!(b.send_bytes(&[0x50, 1, 0, 9, 0xFF]).is_empty());
    assert!(b.send_bytes(&[0x80, 1, 0, 9]).is_empty());
}

#[test]
fn a_plain_get_is_the_retained_value_with_its_format() {
    let mut b = bench();
    assert_eq!(b.send(&request(Kind::Con, Code::GET, 1, &["ps", "a"], &[]))[0].code, Code::NOT_FOUND);
    let properties = gateway::Properties {
        content_type: Some("application/json".into()),
        ..gateway::Properties::default()
    };
    b.retained = vec![("a".into(), Published::new(b.now, "a", b"{}").with_properties(properties))];
    let sent = b.send(&request(Kind::Con, Code::GET, 2, &["ps", "a"], &[]));
    assert_eq!((sent[0].code, sent[0].uint(CONTENT_FORMAT)), (Code::CONTENT, Some(50)));
    let mut get = request(Kind::Con, Code::GET, 3, &["ps", "a"], &[]);
    get.add_uint(options::ACCEPT, 60);
    assert_eq!(b.send(&get)[0].code, Code::NOT_ACCEPTABLE);
}

#[test]
fn an_observation_begins_with_a_value_and_notifies_in_ascending_order() {
    let mut b = bench();
    let sent = b.send(&observe(5, &["ps", "a", "b"]));
    assert_eq!((sent.len(), sent[0].kind, sent[0].code), (1, Kind::Ack, Code::CONTENT));
    let first = sent[0].uint(OBSERVE).unwrap();
    let sent = b.deliver(Qos::AtMostOnce, b"1");
    assert_eq!((sent[0].kind, sent[0].token), (Kind::Non, Token::new(&[5])));
    assert!(sent[0].uint(OBSERVE).unwrap() > first);
}

#[test]
fn a_confirmable_notification_is_settled_by_its_acknowledgement() {
    let mut b = bench();
    b.send(&observe(5, &["ps", "a", "b"]));
    let sent = b.deliver(Qos::AtLeastOnce, b"1");
    assert_eq!(sent[0].kind, Kind::Con);
    assert!(b.settled.is_empty());
    b.send(&Message::empty(Kind::Ack, sent[0].id));
    assert_eq!(b.settled, [(DeliveryId(1), Settle::Done)]);
}

#[test]
fn a_reset_to_a_notification_cancels_the_observation() {
    // RFC 7641, 3.6
    let mut b = bench();
    b.send(&observe(5, &["ps", "a", "b"]));
    let sent = b.deliver(Qos::AtMostOnce, b"1");
    b.send(&Message::empty(Kind::Rst, sent[0].id));
    assert_eq!(b.unsubscribed, 1);
    assert!(b.deliver(Qos::AtMostOnce, b"2").is_empty());
}

#[test]
fn an_unanswered_notification_is_sent_five_times_and_ends_the_observation() {
    // RFC 7252, 4.2: MAX_RETRANSMIT 4; RFC 7641, 4.5
    let mut b = bench();
    b.send(&observe(5, &["ps", "a", "b"]));
    let mut times = b.deliver(Qos::AtLeastOnce, b"1").len();
    for _ in 0..200 {
        times += b.pass(1).len();
    }
    assert_eq!((times, b.unsubscribed), (5, 1));
    assert_eq!(b.settled, [(DeliveryId(1), Settle::Refused)]);
}

#[test]
fn every_fifth_notification_to_a_stranger_is_confirmable() {
    // RFC 7641, 7
    let mut b = bench();
    b.send(&observe(5, &["ps", "a", "b"]));
    let kinds: Vec<Kind> = (0..5).map(|_| b.deliver(Qos::AtMostOnce, b"1")[0].kind).collect();
    assert_eq!(kinds, [Kind::Non, Kind::Non, Kind::Non, Kind::Non, Kind::Con]);
    // While it is in flight, only the newest of what follows waits.
    assert!(b.deliver(Qos::AtMostOnce, b"2").is_empty());
    assert!(b.deliver(Qos::AtMostOnce, b"3").is_empty());
    let id = b.machine.peers[&b.peer].outgoing[0].message.id;
    let sent = b.send(&Message::empty(Kind::Ack, id));
    assert_eq!((sent.len(), &sent[0].payload[..]), (1, &b"3"[..]));
}

#[test]
fn observe_1_cancels() {
    let mut b = bench();
    b.send(&observe(5, &["ps", "a", "b"]));
    let mut cancel = request(Kind::Con, Code::GET, 6, &["ps", "a", "b"], &[]);
    cancel.token = Token::new(&[5]);
    cancel.add_uint(OBSERVE, 1);
    let sent = b.send(&cancel);
    assert_eq!((sent[0].code, sent[0].uint(OBSERVE), b.unsubscribed), (Code::NOT_FOUND, None, 1));
}

#[test]
fn a_wildcard_observation_names_the_topic() {
    let mut b = bench();
    b.send(&observe(5, &["ps", "a", "+"]));
    let sent = b.deliver(Qos::AtMostOnce, b"1");
    let path: Vec<_> = sent[0].all(options::LOCATION_PATH).collect();
    assert_eq!(path, [b"a", b"b"]);
}

#[test]
fn a_named_session_is_held_by_its_token() {
    let mut b = bench();
    let sent =
        b.send(&request(Kind::Con, Code::POST, 1, &["mqtt", "connection"], &["c=dev", "keepalive=10"]));
    assert_eq!(sent[0].code, Code::CREATED);
    let token = String::from_utf8(sent[0].payload.clone()).unwrap();
    assert_eq!(token.len(), 32);
    let beat = |b: &mut Bench, id, t: &str| {
        let query = ["c=dev".to_owned(), format!("t={t}")];
        let query: Vec<&str> = query.iter().map(String::as_str).collect();
        b.send(&request(Kind::Con, Code::PUT, id, &["mqtt", "connection"], &query))[0].code
    };
    assert_eq!(beat(&mut b, 2, &token), Code::CHANGED);
    assert_eq!(beat(&mut b, 3, "guess"), Code::UNAUTHORIZED);
    b.pass(16);
    assert_eq!(b.closed, [Close::KeepAlive]);
}

#[test]
fn an_idle_stranger_is_forgotten() {
    let mut b = bench();
    b.send(&request(Kind::Con, Code::GET, 1, &["ps", "a"], &[]));
    b.pass(299);
    assert!(b.closed.is_empty());
    b.pass(2);
    assert_eq!(b.closed, [Close::Idle]);
    b.machine.closed(b.now, b.peer, &mut b.out);
    assert_eq!((b.machine.peers.len(), b.machine.remembered), (0, 0));
}

#[test]
fn a_spoofed_address_is_not_sent_much_more_than_it_sent() {
    // RFC 9175, 2.4
    let mut b = bench_at("192.0.2.1:9");
    b.retained = vec![("a".into(), Published::new(b.now, "a", &[7; 500]))];
    let mut get = request(Kind::Con, Code::GET, 1, &["ps", "a"], &[]);
    let sent = b.send(&get);
    assert_eq!(sent[0].code, Code::UNAUTHORIZED);
    let echo = sent[0].all(ECHO).next().unwrap().to_vec();
    get.id = 2;
    get.add(ECHO, &echo);
    let sent = b.send(&get);
    assert_eq!((sent[0].code, sent[0].payload.len()), (Code::CONTENT, 500));
}

#[test]
fn discovery_lists_topics_that_hold_a_value() {
    let mut b = bench();
    b.retained = vec![("a/b c".into(), Published::new(b.now, "a/b c", b"1"))];
    let sent = b.send(&request(Kind::Con, Code::GET, 1, &[".well-known", "core"], &[]));
    let text = String::from_utf8(sent[0].payload.clone()).unwrap();
    assert!(text.contains("</ps/a/b%20c>;rt=\"tidegate.topic\";obs"), "{text}");
    let sent = b.send(&request(Kind::Con, Code::GET, 2, &[".well-known", "core"], &["rt=core.ps"]));
    assert_eq!(sent[0].payload, b"</ps>;rt=\"core.ps\";ct=40");
}

proptest::proptest! {
    #[test]
    fn no_bytes_make_it_panic(
        datagrams in proptest::collection::vec(proptest::collection::vec(proptest::num::u8::ANY, 0..60), 1..5),
    ) {
        let mut b = bench();
        for datagram in datagrams {
            b.send_bytes(&datagram);
            b.pass(1);
        }
    }

    /// Every message may be lost, doubled or late, both ways: what the client was told of was published once.
    #[test]
    fn what_is_acknowledged_was_published_exactly_once(fate in proptest::collection::vec(0..6u8, 120)) {
        let mut b = bench();
        let mut fate = fate.into_iter();
        for id in 1..=20u16 {
            let put = request(Kind::Con, Code::PUT, id, &["ps", &id.to_string()], &[]);
            let mut is_told = false;
            for _ in 0..5 {
                let (there, back) = (fate.next().unwrap_or(3), fate.next().unwrap_or(3));
                for _ in 0..[0, 0, 2, 1, 1, 1][usize::from(there)] {
                    is_told |= !b.send(&put).is_empty() && back > 1;
                }
                if is_told { break }
                b.pass(2);
            }
            let times = b.published.iter().filter(|(topic, ..)| *topic == id.to_string()).count();
            proptest::prop_assert!(times <= 1 && (times == 1 || !is_told));
        }
    }
}

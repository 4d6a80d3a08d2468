mod blockwise;
mod client;
mod client_link;
mod format;
mod group;
mod identity;
mod link;
mod simulation;
mod sleep;
mod spoofing;
mod stream;

use std::time::Duration;

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
    /// What Connect is answered, if not yes.
    refusal: Option<Refusal>,
    /// What the driver knows of the session: it has gone.
    is_gone: bool,
    /// Publications are not answered while this is set; their tickets.
    held: Option<Vec<Ticket>>,
    /// What is kept with the session.
    kept: std::collections::BTreeMap<Box<str>, bytes::Bytes>,
    connects: Vec<gateway::Connect>,
    rebound: Vec<(Peer, Peer)>,
    reached: Vec<SocketAddr>,
    stayed: Vec<Peer>,
    /// What was sent to the address that is to be proven alone.
    probes: Vec<Message>,
    /// What came of requests to the device.
    answered: Vec<(u64, gateway::Outcome)>,
    /// What was written to a stream and is no message yet.
    written: Vec<u8>,
    is_websocket: bool,
    /// What the machine has left of what it was given.
    rest: BytesMut,
}

fn bench() -> Bench {
    bench_at("127.0.0.1:9")
}

fn bench_at(address: &str) -> Bench {
    bench_with(address, None)
}

fn facts(address: &str, client_id: Option<&str>) -> Facts {
    let listener = Listener::new("udp", "coap");
    Facts {
        psk: client_id.map(Into::into),
        client_id: client_id.map(Into::into),
        ..Facts::new(
            Arc::new(listener),
            if client_id.is_some() { Transport::Dtls } else { Transport::Udp },
            address.parse().unwrap(),
        )
    }
}

fn bench_with(address: &str, client_id: Option<&str>) -> Bench {
    bench_of(&facts(address, client_id), Config::default())
}

fn bench_of(facts: &Facts, config: Config) -> Bench {
    let random: Random = Arc::new(|b| {
        b.fill(7);
        true
    });
    let mut machine = Coap::new(Arc::new(config), random);
    let (now, mut out) = (Now::from_micros(1_000_000), Outbox { is_framed: true, ..Outbox::default() });
    let peer = Peer { slot: 1, generation: 1 };
    machine.opened(now, peer, facts, &mut out);
    let mut bench = Bench {
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
        refusal: None,
        is_gone: false,
        held: None,
        kept: Default::default(),
        connects: vec![],
        rebound: vec![],
        reached: vec![],
        stayed: vec![],
        probes: vec![],
        answered: vec![],
        written: vec![],
        is_websocket: false,
        rest: BytesMut::new(),
    };
    if bench.machine.stream.is_none() {
        bench.run();
    }
    bench
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
        self.deliver_to("a/b", qos, payload)
    }

    fn deliver_to(&mut self, topic: &str, qos: Qos, payload: &[u8]) -> Vec<Message> {
        let message = Published::new(self.now, topic, payload).with_qos(qos);
        let d = Delivery {
            id: (qos > Qos::AtMostOnce).then_some(DeliveryId(1)),
            message: &message,
            topic,
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
                let (peer, ticket, answer) = match action {
                    Action::Connect(p, t, _) if self.refusal.is_some() => {
                        (p, t, Answer::Refused(self.refusal.unwrap()))
                    }
                    Action::Connect(p, t, c)
                        if c.token.is_some() && c.token.as_ref() != self.kept.get("token") =>
                    {
                        (p, t, Answer::Refused(Refusal::BadCredentials))
                    }
                    Action::Disconnect(_, how) => {
                        if how.expiry == Some(Duration::ZERO) {
                            self.kept.clear();
                        }
                        continue;
                    }
                    Action::Connect(p, t, c) => {
                        self.connects.push((*c).clone());
                        let connected = Connected {
                            client_id: c.client_id,
                            session_present: !c.clean_start,
                            data: None,
                            facts: match c.clean_start {
                                true => vec![],
                                false => {
                                    let named = self.kept.iter().filter(|(n, _)| n.starts_with(c.load));
                                    named.map(|(n, v)| (n.clone(), v.clone())).collect()
                                }
                            },
                        };
                        (p, t, Answer::Connected(Box::new(connected)))
                    }
                    Action::Publish(peer, p) if self.is_gone => {
                        (peer, p.ticket.unwrap(), Answer::Refused(Refusal::NoSession))
                    }
                    Action::Publish(peer, p) => {
                        let m = p.message;
                        self.published.push((
                            m.topic().to_owned(),
                            m.payload().to_vec(),
                            m.qos(),
                            m.retain(),
                        ));
                        if let Some(held) = &mut self.held {
                            held.push(p.ticket.unwrap());
                            continue;
                        }
                        (peer, p.ticket.unwrap(), Answer::Published(1))
                    }
                    Action::Subscribe(p, t, list) => {
                        self.identifier = list[0].identifier;
                        (p, t, Answer::Subscribed(vec![Ok(list[0].qos)]))
                    }
                    Action::Unsubscribe(p, t, _) => {
                        self.unsubscribed += 1;
                        (p, t, Answer::Unsubscribed(vec![Ok(true)]))
                    }
                    Action::Retained(p, t, ..) => (p, t, Answer::Retained(self.retained.clone())),
                    Action::Save(p, t, name, value) => {
                        match value {
                            Some(value) => self.kept.insert(name, value),
                            None => self.kept.remove(&name),
                        };
                        (p, t, Answer::Saved)
                    }
                    Action::Rebind(peer, stranger) => {
                        self.rebound.push((peer, stranger));
                        continue;
                    }
                    Action::Stay(peer) => {
                        self.stayed.push(peer);
                        continue;
                    }
                    Action::Reached(_, address) => {
                        self.reached.push(address);
                        continue;
                    }
                    Action::Settle(_, id, how) => {
                        self.settled.push((id, how));
                        continue;
                    }
                    Action::Answered(_, ticket, outcome) => {
                        self.answered.push((ticket.0, outcome));
                        continue;
                    }
                    Action::Close(_, why) => {
                        self.closed.push(why);
                        continue;
                    }
                    _ => continue,
                };
                self.machine.reply(self.now, peer, ticket, answer, &mut self.out);
            }
        }
        if self.machine.stream.is_some() {
            self.written.append(&mut self.out.wire);
            self.out.clear();
            return self.take_written();
        }
        let mut sent = Vec::new();
        for (frame, bytes) in self.out.messages() {
            let message = Message::decode(bytes).unwrap();
            if frame.is_probe { &mut self.probes } else { &mut sent }.push(message);
        }
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
fn a_message_id_with_another_token_is_not_answered_from_memory() {
    let mut b = bench();
    let mut put = request(Kind::Con, Code::PUT, 1, &["ps", "a"], &[]);
    b.send(&put);
    put.token = Token::new(b"other");
    assert_eq!((b.send(&put)[0].token, b.published.len()), (put.token, 2));
    assert_eq!((b.send(&put)[0].token, b.published.len()), (put.token, 2));
    // While the first one is being done its message id is taken.
    b.held = Some(vec![]);
    b.send(&request(Kind::Con, Code::PUT, 2, &["ps", "a"], &[]));
    put.id = 2;
    assert!(b.send(&put).is_empty() && b.published.len() == 3);
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
fn an_observe_that_is_too_long_is_as_none() {
    let mut b = bench();
    let mut get = request(Kind::Con, Code::GET, 1, &["ps", "a"], &[]);
    get.add(OBSERVE, &[0; 4]);
    assert_eq!(b.send(&get)[0].code, Code::NOT_FOUND, "a plain GET");
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
    assert_eq!((b.machine.peers.len(), b.machine.remembered, b.machine.deadlines.len()), (0, 0, 0));
}

#[test]
fn a_peer_that_is_closed_is_not_remembered() {
    let mut b = bench();
    b.send(&request(Kind::Con, Code::PUT, 1, &["ps", "a"], &[]));
    assert_eq!(b.machine.remembered, 1);
    b.machine.closed(b.now, b.peer, &mut b.out);
    assert_eq!((b.machine.peers.len(), b.machine.remembered, b.machine.deadlines.len()), (0, 0, 0));
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

#[test]
fn an_answer_that_takes_longer_follows_its_acknowledgement() {
    // RFC 7252, 5.2.2
    let mut b = bench();
    b.held = Some(vec![]);
    let put = request(Kind::Con, Code::PUT, 1, &["ps", "a"], &[]);
    assert!(b.send(&put).is_empty());
    assert!(b.send(&put).is_empty());
    assert_eq!(b.pass(1), [Message::empty(Kind::Ack, 1)]);
    let ticket = b.held.take().unwrap()[0];
    b.machine.reply(b.now, b.peer, ticket, Answer::Published(1), &mut b.out);
    let sent = b.run();
    assert_eq!((sent[0].kind, sent[0].code, sent[0].token), (Kind::Con, Code::CHANGED, put.token));
    assert_eq!(b.pass(4), sent);
    assert_eq!(b.send(&put), [Message::empty(Kind::Ack, 1)]);
    b.send(&Message::empty(Kind::Ack, sent[0].id));
    assert!(b.pass(60).is_empty());
    assert_eq!(b.published.len(), 1);
}

#[test]
fn a_failed_login_leaves_the_session_as_it_was() {
    let mut b = bench();
    let sent = b.send(&request(Kind::Con, Code::POST, 1, &["mqtt", "connection"], &["c=dev"]));
    let token = format!("t={}", std::str::from_utf8(&sent[0].payload).unwrap());
    let mut first = request(Kind::Con, Code::GET, 2, &["ps", "a", "b"], &["c=dev", &token]);
    first.add_uint(OBSERVE, 0);
    assert_eq!(b.send(&first)[0].code, Code::CONTENT);
    b.refusal = Some(Refusal::BadCredentials);
    let sent = b.send(&request(Kind::Con, Code::POST, 3, &["mqtt", "connection"], &["c=dev", "p=guess"]));
    assert_eq!((sent.len(), sent[0].code), (1, Code::UNAUTHORIZED));
    assert_eq!(b.deliver(Qos::AtMostOnce, b"1")[0].payload, b"1");
    let put = request(Kind::Con, Code::PUT, 4, &["ps", "a"], &["c=dev", &token]);
    assert_eq!(b.send(&put)[0].code, Code::CHANGED);
}

#[test]
fn nobody_acts_in_a_named_session_without_its_token() {
    let mut b = bench();
    b.send(&request(Kind::Con, Code::POST, 1, &["mqtt", "connection"], &["c=dev"]));
    for (id, query) in [(2, &[][..]), (3, &["c=dev"]), (4, &["c=other"]), (5, &["c=dev", "t=guess"])] {
        let sent = b.send(&request(Kind::Con, Code::PUT, id, &["ps", "a"], query));
        assert_eq!(sent[0].code, Code::UNAUTHORIZED, "{query:?}");
    }
    assert!(b.published.is_empty());
    let sent = b.send(&request(Kind::Con, Code::GET, 6, &[".well-known", "core"], &[]));
    assert_eq!(sent[0].code, Code::CONTENT);
}

#[test]
fn other_credentials_open_another_session_and_end_what_the_first_observed() {
    let mut b = bench();
    b.send(&observe(5, &["ps", "a", "b"]));
    let notified = b.deliver(Qos::AtLeastOnce, b"1");
    b.refusal = Some(Refusal::BadCredentials);
    let put = |id, query: &[&str]| request(Kind::Con, Code::PUT, id, &["ps", "a"], query);
    assert_eq!(b.send(&put(6, &["c=x", "u=alice", "p=guess"]))[0].code, Code::UNAUTHORIZED);
    assert!(b.published.is_empty());
    b.refusal = None;
    // Nor did the failure end the session: another one would end the observation.
    let sent = b.send(&put(8, &[]));
    assert_eq!((sent.len(), sent[0].code), (1, Code::CHANGED));
    b.published.clear();
    let sent = b.send(&put(7, &["c=x", "u=alice", "p=right"]));
    assert_eq!((sent[0].code, sent[0].token), (Code::UNAUTHORIZED, Token::new(&[5])));
    assert_eq!(sent[1].code, Code::CHANGED);
    // The delivery was the first session's: its number may mean something else by now.
    b.send(&Message::empty(Kind::Ack, notified[0].id));
    assert!(b.settled.is_empty());
}

#[test]
fn what_is_served_is_told_to_who_is_not_let_in() {
    let mut b = bench();
    b.refusal = Some(Refusal::NotAuthorised);
    let sent = b.send(&request(Kind::Con, Code::GET, 1, &[".well-known", "core"], &["rt=core.ps"]));
    assert_eq!((sent[0].code, &sent[0].payload[..]), (Code::CONTENT, &b"</ps>;rt=\"core.ps\";ct=40"[..]));
    let sent = b.send(&request(Kind::Con, Code::GET, 2, &["ps", "a"], &[]));
    assert_eq!(sent[0].code, Code::UNAUTHORIZED);
}

#[test]
fn after_a_reset_nothing_more_is_sent() {
    // RFC 7641, 3.6
    let mut b = bench();
    b.send(&observe(5, &["ps", "a", "b"]));
    let sent = b.deliver(Qos::AtLeastOnce, b"1");
    assert!(b.deliver(Qos::AtMostOnce, b"2").is_empty());
    assert!(b.send(&Message::empty(Kind::Rst, sent[0].id)).is_empty());
    assert_eq!((b.unsubscribed, &b.settled[..]), (1, &[(DeliveryId(1), Settle::Refused)][..]));
    assert!(b.pass(250).is_empty());
}

#[test]
fn while_one_is_in_flight_the_newest_of_each_topic_waits() {
    let mut b = bench();
    b.send(&observe(5, &["ps", "a", "+"]));
    let mut flying = b.deliver_to("a/b", Qos::AtLeastOnce, b"1");
    for (topic, payload) in [("a/b", b"2"), ("a/c", b"3"), ("a/b", b"4"), ("a/c", b"5")] {
        assert!(b.deliver_to(topic, Qos::AtMostOnce, payload).is_empty());
    }
    let (mut seen, mut last) = (Vec::new(), 0);
    while let Some(m) = flying.pop() {
        assert!(m.uint(OBSERVE).unwrap() > last);
        last = m.uint(OBSERVE).unwrap();
        flying = b.send(&Message::empty(Kind::Ack, m.id));
        seen.extend(m.payload);
    }
    assert_eq!(seen, b"145");
}

#[test]
fn what_waits_at_a_peer_that_does_not_answer_is_bounded() {
    let mut b = bench();
    b.send(&observe(5, &["ps", "a", "+"]));
    b.deliver_to("a/b", Qos::AtLeastOnce, b"1");
    for n in 0..1000 {
        b.deliver_to(&format!("a/{n}"), Qos::AtMostOnce, b"2");
    }
    assert_eq!(b.machine.peers[&b.peer].outgoing.len(), 65);
}

#[test]
fn a_wildcard_begins_with_every_retained_value() {
    let mut b = bench();
    let value = |topic: &str| (topic.into(), Published::new(Now::default(), topic, topic.as_bytes()));
    b.retained = vec![value("a/b"), value("a/c"), value("a/d")];
    let mut sent = b.send(&observe(5, &["ps", "a", "+"]));
    assert_eq!((sent[0].kind, &sent[0].payload[..]), (Kind::Ack, &b"a/b"[..]));
    let mut seen = Vec::new();
    while sent.last().is_some_and(|m| m.kind == Kind::Con || m.id == 5) {
        let last = sent.pop().unwrap();
        if last.kind == Kind::Con {
            sent = b.send(&Message::empty(Kind::Ack, last.id));
            seen.push(last.payload);
        }
    }
    assert_eq!(seen, [b"a/c", b"a/d"]);
}

#[test]
fn a_spoofed_address_is_pinged_before_it_is_notified() {
    // RFC 9175, 2.4
    let mut b = bench_at("192.0.2.1:9");
    assert_eq!(b.send(&observe(5, &["ps", "a", "b"]))[0].code, Code::CONTENT);
    let ping = b.deliver(Qos::AtMostOnce, &[7; 900]);
    assert_eq!(ping, [Message::empty(Kind::Con, ping[0].id)]);
    let sent = b.send(&Message::empty(Kind::Rst, ping[0].id));
    assert_eq!((sent.len(), sent[0].code, sent[0].payload.len()), (1, Code::CONTENT, 900));
    b.send(&Message::empty(Kind::Ack, sent[0].id));
    assert_eq!(b.deliver(Qos::AtMostOnce, b"2")[0].payload, b"2");

    let mut b = bench_at("192.0.2.1:9");
    b.send(&observe(5, &["ps", "a", "b"]));
    let mut sent = b.deliver(Qos::AtLeastOnce, &[7; 900]);
    (0..100).for_each(|_| sent.extend(b.pass(1)));
    assert!(sent.len() == 5 && sent.iter().all(|m| m.code == Code::EMPTY), "{sent:?}");
    assert_eq!((b.unsubscribed, b.settled.len()), (1, 1));
}

#[test]
fn an_observation_that_is_not_confirmed_to_its_client_is_none() {
    let mut b = bench_at("192.0.2.1:9");
    b.retained = vec![("a/b".into(), Published::new(b.now, "a/b", &[7; 500]))];
    let sent = b.send(&observe(5, &["ps", "a", "b"]));
    assert_eq!((sent[0].code, b.unsubscribed), (Code::UNAUTHORIZED, 1));
    assert!(b.deliver(Qos::AtMostOnce, b"1").is_empty());
}

#[test]
fn an_observation_registered_again_keeps_what_is_queued_for_it() {
    let mut b = bench();
    b.send(&observe(5, &["ps", "a", "b"]));
    let before = b.identifier;
    let mut again = observe(6, &["ps", "a", "b"]);
    again.token = Token::new(&[5]);
    b.send(&again);
    assert_eq!((b.identifier, b.machine.peers[&b.peer].observations.len()), (before, 1));
}

#[test]
fn a_memory_full_of_what_was_done_takes_nothing_more() {
    let mut b = bench();
    b.send(&request(Kind::Con, Code::GET, 9999, &["ps", "a"], &[]));
    for id in 1..=4096 {
        assert_eq!(b.send(&request(Kind::Con, Code::PUT, id, &["ps", "a"], &[]))[0].code, Code::CHANGED);
    }
    assert_eq!(b.send(&request(Kind::Con, Code::PUT, 5000, &["ps", "a"], &[]))[0].code, Code::UNAVAILABLE);
    assert_eq!(b.published.len(), 4096);
    b.pass(250);
    assert_eq!(b.send(&request(Kind::Con, Code::PUT, 5000, &["ps", "a"], &[]))[0].code, Code::CHANGED);
    assert_eq!((b.machine.remembered, b.machine.peers[&b.peer].exchanges.len()), (1, 1));
}

#[test]
fn nothing_is_left_of_many_notifications() {
    let mut b = bench();
    b.send(&observe(5, &["ps", "a", "b"]));
    for _ in 0..1000 {
        let sent = b.deliver(Qos::AtLeastOnce, b"1");
        b.send(&Message::empty(Kind::Ack, sent[0].id));
        b.pass(3);
    }
    let c = &b.machine.peers[&b.peer];
    assert_eq!((c.outgoing.len(), c.steps.len(), b.machine.deadlines.len()), (0, 0, 1));
}

#[test]
fn blocks_that_cannot_be_are_refused() {
    let mut b = bench();
    for (id, number, value, code) in [
        (1, BLOCK1, 0b0111, Code::BAD_REQUEST),
        (2, BLOCK2, 0b0111, Code::BAD_REQUEST),
        // Full, it would be of 64 bytes.
        (3, BLOCK1, 0b1010, Code::BAD_REQUEST),
        (4, BLOCK1, 0b10010, Code::INCOMPLETE),
        (5, BLOCK2, 0b10010, Code::BAD_OPTION),
    ] {
        let mut m = request(Kind::Con, Code::PUT, id, &["ps", "a"], &[]);
        m.add_uint(number, value);
        assert_eq!(b.send(&m)[0].code, code);
    }
    assert!(b.published.is_empty());
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

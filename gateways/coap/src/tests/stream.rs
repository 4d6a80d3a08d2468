//! Over TCP and WebSocket (RFC 8323).

mod blocks;

use super::*;
use crate::stream::frame::{Framing, Splitter, encode, length};
use crate::stream::signal::{self, ABORT, CUSTODY, PING, PONG, RELEASE};

/// An empty CSM.
const CSM: &[u8] = &[0x00, 0xe1];

impl Bench {
    /// The messages in what was written.
    pub(super) fn take_written(&mut self) -> Vec<Message> {
        let framing = if self.is_websocket { Framing::WebSocket } else { Framing::Tcp };
        let mut splitter = Splitter::new(framing, usize::MAX);
        let mut bytes = BytesMut::from(&std::mem::take(&mut self.written)[..]);
        let mut sent = Vec::new();
        while let Some(message) = splitter.next(&mut bytes).unwrap() {
            sent.push(message);
        }
        assert!(bytes.is_empty(), "{bytes:x?} is no message");
        sent
    }

    fn give(&mut self, bytes: &[u8]) -> Result<Flow, Close> {
        self.rest.extend_from_slice(bytes);
        self.machine.input(self.now, self.peer, &mut self.rest, &mut self.out)
    }

    /// Gives bytes that are taken, and returns what comes back.
    pub(super) fn say(&mut self, bytes: &[u8]) -> Vec<Message> {
        self.give(bytes).unwrap();
        let mut sent = self.run();
        // As a driver does after an answer.
        while !self.rest.is_empty() && self.give(&[]) == Ok(Flow::Continue) {
            let more = self.run();
            if more.is_empty() {
                break;
            }
            sent.extend(more);
        }
        sent
    }

    fn exchange(&mut self, message: &Message) -> Vec<Message> {
        self.say(&tcp(message))
    }

    /// Gives bytes that end the connection: why, and what is said.
    fn end(&mut self, bytes: &[u8]) -> (Close, Vec<Message>) {
        (self.give(bytes).unwrap_err(), self.run())
    }
}

fn tcp(message: &Message) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode(message, Framing::Tcp, &mut bytes);
    bytes
}

fn bench_over(transport: Transport, config: Config) -> Bench {
    let facts = Facts { transport, ..facts("192.0.2.7:5000", None) };
    let mut bench = bench_of(&facts, config);
    bench.is_websocket = transport == Transport::WebSocket;
    bench
}

/// A connection that nothing was said on.
fn fresh() -> Bench {
    bench_over(Transport::Tcp, Config::default())
}

/// One whose CSMs were exchanged.
pub(super) fn ready() -> Bench {
    let mut b = fresh();
    b.say(CSM);
    b
}

fn put(token: u8, topic: &str, payload: &[u8]) -> Message {
    let mut m = request(Kind::Con, Code::PUT, token.into(), &["ps", topic], &[]);
    m.payload = payload.to_vec();
    m
}

fn signalled(code: Code, token: &[u8]) -> Message {
    Message { token: Token::new(token), ..signal::signal(code) }
}

fn text(message: &Message) -> &str {
    std::str::from_utf8(&message.payload).unwrap()
}

#[test]
fn the_first_thing_said_is_what_can_be_received() {
    // RFC 8323, 5.3: Max-Message-Size 1 MiB, Block-Wise-Transfer.
    let mut b = fresh();
    assert_eq!(b.out.wire, [0x50, 0xe1, 0x23, 0x10, 0, 0, 0x20]);
    assert_eq!(b.run().len(), 1);
    let b = bench_over(Transport::WebSocket, Config::default());
    assert_eq!(b.out.wire, [0x80, 0, 0, 7, 0x00, 0xe1, 0x23, 0x10, 0, 0, 0x20]);
}

#[test]
fn a_put_is_published_with_quality_one_and_answered() {
    let mut b = ready();
    // PUT /ps/a, token 7f, payload 21: Len 8.
    let sent = b.say(&[0x81, 0x03, 0x7f, 0xb2, b'p', b's', 0x01, b'a', 0xff, b'2', b'1'][..]);
    assert_eq!(b.published, [("a".to_owned(), b"21".to_vec(), Qos::AtLeastOnce, false)]);
    assert_eq!(sent.iter().map(tcp).collect::<Vec<_>>(), [[0x01, 0x44, 0x7f]]);
    assert_eq!(b.connects[0].credit, 64);
}

#[test]
fn however_the_bytes_are_cut_the_same_is_done_and_said() {
    let all = [CSM, &tcp(&put(1, "a", &[1; 300])), &tcp(&put(2, "b", b"2")), &[0x01, 0xe2, 0x42]].concat();
    for size in [1, 2, 3, 7, all.len()] {
        let mut b = fresh();
        b.run();
        let mut sent: Vec<_> = all.chunks(size).flat_map(|piece| b.say(piece)).map(|m| m.code.0).collect();
        // A Pong need not wait for answers.
        sent.sort_unstable();
        assert_eq!(sent, [Code::CHANGED.0, Code::CHANGED.0, PONG.0], "pieces of {size}");
        assert_eq!(b.published.len(), 2);
    }
}

#[test]
fn over_a_websocket_each_message_is_one() {
    let mut b = bench_over(Transport::WebSocket, Config::default());
    b.run();
    b.say(b"\x80\0\0\x02\0\xe1");
    // In two fragments.
    let sent = b.say(b"\0\0\0\x06\x01\x03\x7f\xb2ps\x80\0\0\x04\x01a\xff9");
    assert_eq!((sent.len(), sent[0].code, sent[0].token), (1, Code::CHANGED, Token::new(&[0x7f])));
    assert_eq!(b.published, [("a".to_owned(), b"9".to_vec(), Qos::AtLeastOnce, false)]);
}

#[test]
fn the_same_request_twice_is_two_requests() {
    // Nothing is repeated over a reliable transport (RFC 8323, 2.2).
    let mut b = ready();
    b.exchange(&put(1, "a", b"1"));
    b.exchange(&put(1, "a", b"1"));
    assert_eq!(b.published.len(), 2);
}

#[test]
fn requests_are_answered_in_the_order_in_which_they_are_done_with() {
    let mut b = ready();
    b.exchange(&put(0, "first", b"opens the session"));
    b.held = Some(vec![]);
    assert!(
        b.say(&[tcp(&put(1, "a", b"1")), tcp(&put(2, "a", b"2")), tcp(&put(3, "a", b"3"))].concat())
            .is_empty()
    );
    let tickets = b.held.take().unwrap();
    let sent: Vec<_> = [tickets[1], tickets[2], tickets[0]]
        .into_iter()
        .flat_map(|ticket| {
            b.machine.reply(b.now, b.peer, ticket, Answer::Published(1), &mut b.out);
            b.run()
        })
        .map(|m| m.token)
        .collect();
    assert_eq!(sent, [Token::new(&[2]), Token::new(&[3]), Token::new(&[1])]);
    assert_eq!(b.machine.peers[&b.peer].exchanges.len(), 0, "nothing is remembered");
}

#[test]
fn of_a_heap_of_requests_only_so_many_are_begun() {
    let mut b = ready();
    b.exchange(&put(0, "first", b"opens the session"));
    b.held = Some(vec![]);
    let many: Vec<u8> = (0..100).flat_map(|i| tcp(&put(i, "a", b"x"))).collect();
    assert_eq!(b.give(&many), Ok(Flow::Pause));
    b.run();
    let tickets = b.held.take().unwrap();
    assert_eq!(tickets.len(), 64);
    for ticket in tickets {
        b.machine.reply(b.now, b.peer, ticket, Answer::Published(1), &mut b.out);
    }
    assert_eq!(b.say(&[]).len(), 100);
    assert!(b.rest.is_empty());
}

#[test]
fn what_comes_while_a_session_is_opened_waits_for_it() {
    let mut b = ready();
    let many: Vec<u8> = (0..20).flat_map(|i| tcp(&put(i, "a", b"x"))).collect();
    assert_eq!(b.say(&many).len(), 20);
    assert_eq!((b.published.len(), b.connects.len()), (20, 1));
}

#[test]
fn a_notification_is_settled_when_it_is_written() {
    let mut b = ready();
    let sent = b.exchange(&observe(5, &["ps", "a", "b"]));
    assert_eq!((sent[0].code, sent[0].uint(OBSERVE)), (Code::CONTENT, Some(2)));
    for n in 0..8u32 {
        let qos = if n % 2 == 0 { Qos::AtLeastOnce } else { Qos::AtMostOnce };
        let sent = b.deliver(qos, b"new");
        assert_eq!((sent.len(), &sent[0].payload[..]), (1, &b"new"[..]));
        assert_eq!((sent[0].token, sent[0].uint(OBSERVE)), (Token::new(&[5]), Some(3 + n)));
    }
    assert_eq!(b.settled, [(DeliveryId(1), Settle::Done); 4]);
    // Observe 1 ends it (RFC 7641, 3.6): there is no Reset.
    let mut end = request(Kind::Con, Code::GET, 5, &["ps", "a", "b"], &[]);
    end.add_uint(OBSERVE, 1);
    assert_eq!(b.exchange(&end)[0].code, Code::NOT_FOUND);
    assert_eq!(b.unsubscribed, 1);
}

#[test]
fn an_observation_that_ends_before_it_has_begun_is_answered_twice() {
    let mut b = ready();
    b.exchange(&put(0, "first", b"opens the session"));
    let mut end = request(Kind::Con, Code::GET, 5, &["ps", "a"], &[]);
    end.add_uint(OBSERVE, 1);
    let sent = b.say(&[tcp(&observe(5, &["ps", "a"])), tcp(&end)].concat());
    assert_eq!(sent.iter().map(|m| m.code).collect::<Vec<_>>(), [Code::NOT_FOUND; 2]);
    assert_eq!((b.machine.peers[&b.peer].exchanges.len(), b.unsubscribed), (0, 1));
}

#[test]
fn a_ping_is_answered_with_its_token() {
    let mut b = ready();
    let sent = b.say(&[0x01, 0xe2, 0x42]);
    assert_eq!(sent.iter().map(tcp).collect::<Vec<_>>(), [[0x01, 0xe3, 0x42]]);
}

#[test]
fn a_pong_with_custody_comes_after_all_that_was_asked_before() {
    // RFC 8323, 5.4.1
    let mut b = ready();
    b.exchange(&put(0, "first", b"opens the session"));
    b.held = Some(vec![]);
    let mut ping = signalled(PING, &[9]);
    ping.add(CUSTODY, &[]);
    let all = [tcp(&put(1, "a", b"1")), tcp(&ping), tcp(&put(2, "a", b"2"))].concat();
    assert_eq!(b.give(&all), Ok(Flow::Pause));
    assert!(b.run().is_empty());
    let ticket = b.held.take().unwrap()[0];
    b.machine.reply(b.now, b.peer, ticket, Answer::Published(1), &mut b.out);
    let sent = b.say(&[]);
    let codes: Vec<_> = sent.iter().map(|m| m.code).collect();
    assert_eq!(codes, [Code::CHANGED, PONG, Code::CHANGED]);
    assert_eq!((sent[1].token, sent[1].options.len()), (Token::new(&[9]), 1));
    assert_eq!(b.exchange(&ping)[0].options, [(CUSTODY, vec![])], "at once when nothing is being done");
}

#[test]
fn empty_messages_are_ignored() {
    // RFC 8323, 5.4: before the CSM too, and with whatever they hold.
    let mut b = fresh();
    b.run();
    assert!(b.say(&[0x00, 0x00, 0x01, 0x00, 0x42]).is_empty());
    b.say(CSM);
    assert_eq!(b.exchange(&put(1, "a", b"1")).len(), 1);
}

#[test]
fn who_does_not_begin_with_a_csm_is_cut_off() {
    for first in [tcp(&put(1, "a", b"1")), vec![0x00, 0xe2], vec![0x00, 0x45]] {
        let mut b = fresh();
        b.run();
        let (why, sent) = b.end(&first);
        assert_eq!((why, sent[0].code), (Close::ProtocolError, ABORT));
        assert_eq!(text(&sent[0]), "the first message must be a CSM");
        assert!(b.published.is_empty());
    }
}

#[test]
fn an_option_of_a_csm_that_cannot_be_processed_is_named_in_the_abort() {
    // Critical and not known, critical and not known, longer than it may be.
    for (raw, option) in [
        (&[0x10, 0xe1, 0x10][..], 1),
        (&[0x30, 0xe1, 0xe0, 0x06, 0xc4], 2001),
        (&[0x60, 0xe1, 0x25, 1, 2, 3, 4, 5], 2),
    ] {
        let mut b = fresh();
        b.run();
        let (why, sent) = b.end(raw);
        assert_eq!((why, sent[0].code), (Close::ProtocolError, ABORT));
        assert_eq!(sent[0].uint(signal::BAD_CSM_OPTION), Some(option));
    }
}

#[test]
fn a_critical_option_of_another_signal_ends_the_connection_and_an_elective_one_does_not() {
    for code in [PING, PONG, RELEASE, Code::new(7, 31)] {
        let mut b = ready();
        let mut m = signalled(code, &[]);
        m.add(7, b"x");
        assert_eq!((b.end(&tcp(&m)).0), Close::ProtocolError);
        let mut b = ready();
        let mut m = signalled(code, &[]);
        m.add(6, b"x");
        b.say(&tcp(&m));
    }
}

#[test]
fn a_release_lets_what_is_being_done_be_answered_first() {
    // RFC 8323, 5.5
    let mut b = ready();
    b.exchange(&put(0, "first", b"opens the session"));
    b.held = Some(vec![]);
    b.say(&[tcp(&put(1, "a", b"1")), tcp(&signalled(RELEASE, &[])), tcp(&put(2, "a", b"late"))].concat());
    assert!(b.closed.is_empty());
    let tickets = b.held.take().unwrap();
    assert_eq!(tickets.len(), 1, "nothing is begun after a Release");
    b.machine.reply(b.now, b.peer, tickets[0], Answer::Published(1), &mut b.out);
    assert_eq!(b.run()[0].code, Code::CHANGED);
    assert_eq!(b.closed, [Close::Goodbye]);
    let mut b = ready();
    b.say(&[0x00, 0xe4]);
    assert_eq!(b.closed, [Close::Goodbye]);
}

#[test]
fn a_connection_that_ends_with_requests_on_their_way_leaves_nothing() {
    let mut b = ready();
    b.exchange(&put(0, "first", b"opens the session"));
    b.held = Some(vec![]);
    b.exchange(&put(1, "a", b"1"));
    b.machine.closed(b.now, b.peer, &mut b.out);
    assert!(b.machine.peers.is_empty() && b.machine.next_timeout().is_none());
    assert!(b.run().is_empty());
}

#[test]
fn an_abort_ends_the_connection_without_a_word() {
    let mut b = ready();
    let (why, sent) = b.end(&tcp(&signal::abort(Some(99), "no")));
    assert_eq!((why, sent.len()), (Close::PeerClosed, 0));
}

#[test]
fn what_is_malformed_or_too_large_is_aborted_with_words() {
    for (raw, why, words) in [
        (&[0x09][..], Close::Malformed, "a token has at most 8 bytes"),
        (&[0x10, 0x01, 0xff], Close::Malformed, "a message is malformed"),
        (&[0xf0, 0, 0x0f, 0, 0], Close::TooLarge, "a message is larger than Max-Message-Size"),
    ] {
        let mut b = ready();
        let (close, sent) = b.end(raw);
        assert_eq!((close, sent[0].code, text(&sent[0])), (why, ABORT, words));
    }
}

#[test]
fn nothing_is_sent_that_is_larger_than_the_peer_takes() {
    let value = |b: &Bench, size| {
        let message = Published::new(b.now, "a", &vec![b'v'; size]).with_retain(true);
        vec![("a".into(), message)]
    };
    let get = request(Kind::Con, Code::GET, 1, &["ps", "a"], &[]);
    for (max, size) in [(1152u32, 1024), (1152, 1025), (70_000, 60_000), (2000, 60_000), (64, 10), (3, 1)] {
        let mut b = fresh();
        b.run();
        let mut csm = signalled(signal::CSM, &[]);
        csm.add_uint(signal::MAX_MESSAGE_SIZE, max);
        b.exchange(&csm);
        b.retained = value(&b, size);
        for message in b.exchange(&get) {
            assert!(length(&message, Framing::Tcp) <= max as usize, "{max} {size}");
            assert!(max < 1000 || message.code == Code::CONTENT || size > 1024);
        }
    }
}

#[test]
fn a_large_value_goes_in_one_message_to_who_takes_it() {
    let mut b = fresh();
    b.run();
    let mut csm = signalled(signal::CSM, &[]);
    csm.add_uint(signal::MAX_MESSAGE_SIZE, 200_000);
    b.exchange(&csm);
    let message = Published::new(b.now, "a", &[b'v'; 150_000]).with_retain(true);
    b.retained = vec![("a".into(), message)];
    let sent = b.exchange(&request(Kind::Con, Code::GET, 1, &["ps", "a"], &[]));
    assert_eq!((sent[0].code, sent[0].payload.len()), (Code::CONTENT, 150_000));
}

#[test]
fn who_is_silent_is_pinged_and_then_cut_off() {
    let mut b = ready();
    assert!(b.pass(119).is_empty());
    let sent = b.pass(1);
    assert_eq!((sent.len(), sent[0].code), (1, PING));
    b.say(&[0x00, 0xe3]);
    assert!(b.pass(119).is_empty() && b.closed.is_empty());
    assert_eq!(b.pass(1)[0].code, PING);
    assert!(b.pass(119).is_empty());
    let sent = b.pass(1);
    assert_eq!((sent[0].code, &b.closed[..]), (ABORT, &[Close::KeepAlive][..]));
    assert!(b.pass(1000).is_empty() && b.machine.next_timeout().is_none_or(|(at, _)| at > b.now.instant));
}

#[test]
fn who_answers_pings_stays() {
    let mut b = ready();
    b.exchange(&put(1, "a", b"1"));
    for _ in 0..100 {
        assert_eq!(b.pass(120)[0].code, PING);
        b.say(&[0x00, 0xe3]);
    }
    assert!(b.closed.is_empty());
}

#[test]
fn who_never_says_a_csm_is_cut_off() {
    let mut b = fresh();
    b.run();
    assert!(b.pass(9).is_empty());
    b.say(&[0x00, 0x00]);
    assert_eq!(b.pass(1)[0].code, ABORT);
    assert_eq!(b.closed, [Close::ConnectTimeout]);
}

#[test]
fn a_gateway_that_stops_releases_its_peers_and_ends_their_observations() {
    let mut b = ready();
    b.exchange(&observe(5, &["ps", "a"]));
    b.machine.stop(b.now, b.peer, Stop::ShuttingDown, &mut b.out);
    let codes: Vec<_> = b.run().iter().map(|m| m.code).collect();
    assert_eq!(codes, [Code::UNAVAILABLE, RELEASE]);
    let mut b = ready();
    b.machine.stop(b.now, b.peer, Stop::Kicked, &mut b.out);
    assert_eq!(b.run()[0].code, ABORT);
}

#[test]
fn a_response_that_nobody_waits_for_does_no_harm() {
    let mut b = ready();
    assert!(b.say(&[0x01, 0x45, 0x11]).is_empty());
    assert_eq!(b.exchange(&put(1, "a", b"1")).len(), 1);
}

#[test]
fn a_device_is_asked_over_its_connection_and_answers_by_token() {
    use gateway::request::{Method, Request};
    let mut b = ready();
    let request = Request {
        method: Method::Put,
        path: "/led".into(),
        query: vec![],
        format: None,
        accept: None,
        payload: b"on".as_slice().into(),
        timeout: Duration::from_secs(5),
    };
    b.machine.command(b.now, b.peer, Ticket(900), &request, &mut b.out);
    let sent = b.run();
    assert_eq!((sent.len(), sent[0].code, &sent[0].payload[..]), (1, Code::PUT, &b"on"[..]));
    let other = Message { token: Token::new(b"other"), code: Code::CHANGED, ..Message::empty(Kind::Con, 0) };
    assert!(b.exchange(&other).is_empty() && b.answered.is_empty());
    assert!(b.exchange(&Message { token: sent[0].token, ..other }).is_empty());
    assert_eq!(b.answered.len(), 1);
    assert_eq!(b.answered[0].1.as_ref().map(|r| &*r.code), Ok("2.04"));
}

#[test]
fn no_bit_of_a_dialogue_can_do_harm() {
    let all = [CSM, &tcp(&put(1, "a", b"1")), &[0x01, 0xe2, 0x42], &tcp(&observe(3, &["ps", "+"]))].concat();
    for bit in 0..all.len() * 8 {
        let mut broken = all.clone();
        broken[bit / 8] ^= 1 << (bit % 8);
        let mut b = fresh();
        b.run();
        // Any end is right that is none of this program.
        let _ = b.give(&broken);
        b.run();
    }
}

#[test]
fn many_who_begin_a_message_and_do_not_go_on_have_a_bound_together() {
    let config = Config { max_reassembly: 100_000, ..Config::default() };
    let budgets = Budgets::default();
    let mut all: Vec<Bench> = (0..4)
        .map(|_| {
            let mut b = bench_over(Transport::Tcp, config.clone());
            b.machine = Coap::sharing(Arc::new(config.clone()), b.machine.random.clone(), budgets.clone());
            let facts = Facts { transport: Transport::Tcp, ..facts("192.0.2.7:5000", None) };
            b.machine.opened(b.now, b.peer, &facts, &mut b.out);
            b.say(CSM);
            b
        })
        .collect();
    let large = tcp(&put(1, "a", &[b'x'; 40_000]));
    // What comes in one piece needs nothing, nor does a small one in two.
    assert_eq!(all[0].say(&large)[0].code, Code::CHANGED);
    assert!(all[1].say(&large[..10_000]).is_empty() && budgets.bodies.used() == 0);
    assert!(all[1].say(&large[10_000..30_000]).is_empty() && budgets.bodies.used() == 30_000);
    let (why, said) = all[2].end(&large[..30_000]);
    assert_eq!((why, said[0].code), (Close::QuotaExceeded, ABORT));
    // Who has a session has more of it.
    assert!(all[0].say(&large[..30_000]).is_empty());
    assert_eq!(all[1].say(&large[30_000..])[0].code, Code::CHANGED);
    all.drain(1..);
    assert_eq!(budgets.bodies.used(), 30_000);
    all.clear();
    assert_eq!(budgets.bodies.used(), 0);
}

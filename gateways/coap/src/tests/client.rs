//! Requests to the device's own server, byte for byte.

use gateway::{Failure, Method};

use super::*;
use crate::block::{Block, Szx};
use crate::options::{BLOCK1, BLOCK2};

/// What the first request, `GET /t`, looks like: message id 0x0708, the bench's random token with the ticket's number.
const GET_T: &[u8] = b"\x48\x01\x07\x08\x07\x07\x07\x07\x07\x07\x07\x06\xb1t";

pub(super) fn get(path: &str) -> Request {
    Request {
        method: Method::Get,
        path: path.into(),
        query: vec![],
        format: None,
        accept: None,
        payload: vec![].into(),
        timeout: Duration::from_secs(30),
    }
}

impl Bench {
    /// Asks the device, and returns the bytes that leave.
    fn ask(&mut self, ticket: u64, request: &Request) -> Vec<Vec<u8>> {
        self.machine.command(self.now, self.peer, Ticket(ticket), request, &mut self.out);
        self.wire()
    }

    /// The device says this; what leaves then.
    fn hear(&mut self, bytes: &[u8]) -> Vec<Vec<u8>> {
        self.send_bytes(bytes).iter().map(encoded).collect()
    }

    fn wire(&mut self) -> Vec<Vec<u8>> {
        self.run().iter().map(encoded).collect()
    }

    fn codes(&self) -> Vec<(u64, Result<&str, Failure>)> {
        self.answered.iter().map(|(t, o)| (*t, o.as_ref().map(|r| &*r.code).map_err(|e| *e))).collect()
    }
}

fn encoded(message: &Message) -> Vec<u8> {
    let mut bytes = Vec::new();
    message.encode(&mut bytes);
    bytes
}

#[test]
fn an_answer_in_the_acknowledgement_is_handed_over_with_its_options() {
    let mut b = bench();
    assert_eq!(b.ask(1, &get("/t")), [GET_T]);
    // 2.05, ETag aa bb, Content-Format 50, Max-Age 60.
    let none = b.hear(b"\x68\x45\x07\x08\x07\x07\x07\x07\x07\x07\x07\x06\x42\xaa\xbb\x81\x32\x21\x3c\xff{}");
    assert!(none.is_empty());
    let (ticket, Ok(answer)) = &b.answered[0] else { panic!("no answer") };
    assert_eq!((*ticket, &*answer.code, answer.is_success), (1, "2.05", true));
    assert_eq!((answer.format, &answer.payload[..]), (Some(50), &b"{}"[..]));
    assert_eq!(answer.options, [("ETag".into(), "aabb".into()), ("Max-Age".into(), "60".into())]);
    // Nothing is sent again.
    assert!(b.pass(10).is_empty());
    assert_eq!(b.answered.len(), 1);
}

#[test]
fn method_path_query_formats_and_payload_become_options_in_their_order() {
    let mut b = bench();
    let request = Request {
        method: Method::Ipatch,
        path: "a/b".into(),
        query: vec!["k=v".into(), "x".into()],
        format: Some(50),
        accept: Some(60),
        payload: b"{}".to_vec().into(),
        timeout: Duration::from_secs(1),
    };
    let sent = b.ask(1, &request);
    assert_eq!(
        sent,
        [b"\x48\x07\x07\x08\x07\x07\x07\x07\x07\x07\x07\x06\xb1a\x01b\x11\x32\x33k=v\x01x\x21\x3c\xff{}"]
    );
}

#[test]
fn a_separate_answer_is_acknowledged_and_one_that_comes_again_is_acknowledged_again() {
    let mut b = bench();
    b.ask(1, &get("/t"));
    assert!(b.hear(b"\x60\x00\x07\x08").is_empty());
    assert!(b.answered.is_empty());
    assert!(b.pass(20).is_empty(), "acknowledged requests are not sent again");
    let separate = b"\x48\x45\x12\x34\x07\x07\x07\x07\x07\x07\x07\x06\xffon";
    assert_eq!(b.hear(separate), [b"\x60\x00\x12\x34"]);
    assert_eq!(b.codes(), [(1, Ok("2.05"))]);
    assert_eq!(b.hear(separate), [b"\x60\x00\x12\x34"]);
    assert_eq!(b.answered.len(), 1);
}

#[test]
fn an_answer_whose_acknowledgement_was_lost_stops_the_retransmission() {
    let mut b = bench();
    b.ask(1, &get("/t"));
    assert_eq!(b.pass(4).len(), 1, "sent again");
    // Non-confirmable: nothing is sent back.
    assert!(b.hear(b"\x58\x44\x00\x09\x07\x07\x07\x07\x07\x07\x07\x06").is_empty());
    assert_eq!(b.codes(), [(1, Ok("2.04"))]);
    assert!(b.pass(60).is_empty());
    // The acknowledgement that was late is for nothing.
    assert!(b.hear(b"\x60\x00\x07\x08").is_empty());
    assert_eq!(b.answered.len(), 1);
}

#[test]
fn two_requests_leave_one_after_the_other_and_each_gets_its_own_answer() {
    let mut b = bench();
    assert_eq!(b.ask(1, &get("/t")), [GET_T]);
    assert!(b.ask(2, &get("/u")).is_empty(), "NSTART is 1");
    let second = b"\x48\x01\x07\x09\x07\x07\x07\x07\x07\x07\x07\x05\xb1u";
    assert_eq!(b.hear(b"\x60\x00\x07\x08"), [second]);
    // The second answer first.
    assert!(b.hear(b"\x68\x45\x07\x09\x07\x07\x07\x07\x07\x07\x07\x05").is_empty());
    assert_eq!(b.hear(b"\x48\x84\x00\x01\x07\x07\x07\x07\x07\x07\x07\x06"), [b"\x60\x00\x00\x01"]);
    assert_eq!(b.codes(), [(2, Ok("2.05")), (1, Ok("4.04"))]);
    assert!(!b.answered[1].1.as_ref().unwrap().is_success);
}

#[test]
fn a_reset_fails_the_request_and_lets_the_next_go() {
    let mut b = bench();
    b.ask(1, &get("/t"));
    b.ask(2, &get("/t"));
    assert_eq!(b.hear(b"\x70\x00\x07\x08").len(), 1);
    assert_eq!(b.codes(), [(1, Err(Failure::Rejected))]);
}

#[test]
fn a_request_that_is_never_acknowledged_is_given_up_after_all_retries() {
    let mut b = bench();
    let mut request = get("/t");
    request.timeout = Duration::from_secs(600);
    let first = b.ask(1, &request);
    let mut again = Vec::new();
    for _ in 0..200 {
        again.extend(b.pass(1).iter().map(encoded));
    }
    assert_eq!(again, vec![first[0].clone(); 4]);
    assert_eq!(b.codes(), [(1, Err(Failure::Unreachable))]);
}

#[test]
fn time_that_is_over_fails_the_request_in_flight_and_those_behind_it() {
    let mut b = bench();
    let mut request = get("/t");
    request.timeout = Duration::from_secs(2);
    b.ask(1, &request);
    b.ask(2, &request);
    request.timeout = Duration::from_secs(60);
    b.ask(3, &request);
    let sent = b.pass(2);
    assert_eq!(b.codes(), [(1, Err(Failure::Timeout)), (2, Err(Failure::Timeout))]);
    assert_eq!(sent.last().unwrap().id, 0x070a, "the third goes at once");
    // Its answer is late: nobody waits for it.
    assert_eq!(b.hear(b"\x48\x45\x00\x01\x07\x07\x07\x07\x07\x07\x07\x06"), [b"\x70\x00\x00\x01"]);
}

#[test]
fn an_answer_nobody_waits_for_is_reset() {
    let mut b = bench();
    assert_eq!(b.hear(b"\x41\x45\x00\x01\xaa\xffx"), [b"\x70\x00\x00\x01"]);
    assert_eq!(b.hear(b"\x51\x45\x00\x02\xaa\xffx"), [b"\x70\x00\x00\x02"]);
    // A second request's answer before it was sent: the token was guessed.
    b.ask(1, &get("/t"));
    b.ask(2, &get("/t"));
    assert_eq!(b.hear(b"\x48\x45\x00\x03\x07\x07\x07\x07\x07\x07\x07\x05"), [b"\x70\x00\x00\x03"]);
    assert!(b.answered.is_empty());
}

#[test]
fn an_acknowledgement_with_another_token_is_no_answer() {
    let mut b = bench();
    b.ask(1, &get("/t"));
    assert!(b.hear(b"\x61\x45\x07\x08\xaa").is_empty());
    assert!(b.answered.is_empty());
    assert!(b.pass(10).is_empty(), "it acknowledges the message all the same");
    b.pass(30);
    assert_eq!(b.codes(), [(1, Err(Failure::Timeout))]);
}

#[test]
fn a_device_that_wants_freshness_is_asked_again_with_its_echo() {
    // RFC 9175, 2.3: 4.01 with Echo 01 02.
    let mut b = bench();
    b.ask(1, &get("/t"));
    let sent = b.hear(b"\x68\x81\x07\x08\x07\x07\x07\x07\x07\x07\x07\x06\xd2\xef\x01\x02");
    assert_eq!(sent.len(), 1);
    let again = Message::decode(&sent[0]).unwrap();
    assert_eq!((again.id, again.all(ECHO).next()), (0x0709, Some(&[1, 2][..])));
    // Asked for it once more it is handed over.
    assert!(b.hear(b"\x68\x81\x07\x09\x07\x07\x07\x07\x07\x07\x07\x06\xd2\xef\x01\x02").is_empty());
    assert_eq!(b.codes(), [(1, Ok("4.01"))]);
}

#[test]
fn an_answer_with_an_unknown_critical_option_is_not_understood() {
    let mut b = bench();
    b.ask(1, &get("/t"));
    // Option 2001.
    b.hear(b"\x68\x45\x07\x08\x07\x07\x07\x07\x07\x07\x07\x06\xe0\x06\xc4");
    assert_eq!(b.codes(), [(1, Err(Failure::BadAnswer))]);
}

#[test]
fn what_cannot_be_a_request_is_refused_at_once() {
    let mut b = bench();
    let long = "x".repeat(256);
    for path in ["a/../b", ".", &long] {
        assert!(b.ask(1, &get(path)).is_empty());
        assert_eq!(b.answered.pop().unwrap().1.unwrap_err(), Failure::BadRequest);
    }
    let mut request = get("/");
    request.query = vec![long.into()];
    b.ask(1, &request);
    assert_eq!(b.answered.pop().unwrap().1.unwrap_err(), Failure::BadRequest);
}

#[test]
fn only_so_many_requests_wait_and_all_end_with_the_conversation() {
    let mut b = bench();
    for ticket in 0..17 {
        b.ask(ticket, &get("/t"));
    }
    assert_eq!(b.codes(), [(16, Err(Failure::Busy))]);
    b.machine.closed(b.now, b.peer, &mut b.out);
    b.run();
    assert_eq!(b.answered.len(), 17);
    assert!(b.answered[1..].iter().all(|(_, o)| *o == Err(Failure::Gone)));
    let mut tickets: Vec<u64> = b.answered.iter().map(|(t, _)| *t).collect();
    tickets.sort_unstable();
    tickets.dedup();
    assert_eq!(tickets.len(), 17, "each exactly once");
}

#[test]
fn an_address_that_may_be_forged_is_pinged_before_it_is_asked() {
    let mut b = bench_at("192.0.2.1:5683");
    assert_eq!(b.ask(1, &get("/t")), [b"\x40\x00\x07\x09"]);
    assert_eq!(b.hear(b"\x70\x00\x07\x09").len(), 1);
    let mut b = bench_at("192.0.2.1:5683");
    b.ask(1, &Request { timeout: Duration::from_secs(600), ..get("/t") });
    for _ in 0..200 {
        assert!(b.pass(1).iter().all(|m| m.code == Code::EMPTY));
    }
    assert_eq!(b.codes(), [(1, Err(Failure::Unreachable))]);
}

#[test]
fn a_device_that_is_being_asked_is_not_forgotten() {
    let mut b = bench();
    b.ask(1, &Request { timeout: Duration::from_secs(400), ..get("/t") });
    b.hear(b"\x60\x00\x07\x08");
    b.pass(390);
    assert!(b.closed.is_empty() && b.answered.is_empty());
    b.pass(20);
    assert_eq!((b.codes(), &b.closed[..]), (vec![(1, Err(Failure::Timeout))], &[Close::Idle][..]));
}

#[test]
fn a_request_waits_behind_a_notification_in_flight() {
    let mut b = bench();
    b.send(&observe(1, &["ps", "a", "b"]));
    assert_eq!(b.deliver(Qos::AtLeastOnce, b"1").len(), 1);
    assert!(b.ask(1, &get("/t")).is_empty());
    let sent = b.hear(b"\x60\x00\x07\x08");
    assert_eq!((sent.len(), sent[0][1]), (1, 1), "the GET");
}

/// The device's answer to `request`, with a Block option if there is one.
fn answer(request: &Message, code: Code, block: Option<(u16, Block)>, payload: &[u8]) -> Message {
    let mut m = Message {
        code,
        token: request.token,
        payload: payload.to_vec(),
        ..Message::empty(Kind::Ack, request.id)
    };
    if let Some((option, block)) = block {
        m.add_uint(option, block.encode());
    }
    m
}

fn block(number: u32, is_more: bool, szx: u8) -> Block {
    Block { number, is_more, szx: Szx::new(szx).unwrap() }
}

#[test]
fn an_answer_in_blocks_is_asked_for_until_its_end() {
    let mut b = bench();
    let sent = b.ask(1, &get("/t"));
    let first = Message::decode(&sent[0]).unwrap();
    // 64 bytes a block, as the device wants it.
    let second = &b.send(&answer(&first, Code::CONTENT, Some((BLOCK2, block(0, true, 2))), &[1; 64]))[0];
    assert_eq!((Block::of(second, BLOCK2), &second.payload[..]), (Some(block(1, false, 2)), &[][..]));
    assert_eq!(second.all(URI_PATH).collect::<Vec<_>>(), [b"t"]);
    assert_ne!(second.id, first.id);
    assert_eq!(b.machine.collected, 64);
    assert!(b.send(&answer(second, Code::CONTENT, Some((BLOCK2, block(1, false, 2))), &[2; 3])).is_empty());
    let response = b.answered[0].1.as_ref().unwrap();
    assert_eq!(response.payload[..], [&[1; 64][..], &[2; 3]].concat());
    assert!(response.options.is_empty());
    assert_eq!(b.machine.collected, 0);
}

#[test]
fn a_payload_that_is_too_large_for_one_message_is_sent_in_blocks() {
    let mut b = bench();
    let request = Request { method: Method::Put, payload: vec![7; 1500].into(), ..get("/t") };
    let sent = b.ask(1, &request);
    let first = Message::decode(&sent[0]).unwrap();
    assert_eq!(
        (Block::of(&first, BLOCK1), first.uint(options::SIZE1)),
        (Some(block(0, true, 6)), Some(1500))
    );
    assert_eq!(first.payload.len(), 1024);
    // The device wants 256 bytes a block from now on.
    let second = &b.send(&answer(&first, Code::CONTINUE, Some((BLOCK1, block(0, true, 4))), b""))[0];
    assert_eq!((Block::of(second, BLOCK1), second.payload.len()), (Some(block(4, true, 4)), 256));
    let tag = |m: &Message| m.all(options::REQUEST_TAG).next().map(<[u8]>::to_vec);
    assert!(tag(&first).is_some() && tag(second) == tag(&first));
    let third = &b.send(&answer(second, Code::CONTINUE, Some((BLOCK1, block(4, true, 4))), b""))[0];
    assert_eq!((Block::of(third, BLOCK1), third.payload.len()), (Some(block(5, false, 4)), 220));
    // And its answer comes in blocks too (RFC 7959, 3.3).
    let mut response = answer(third, Code::CHANGED, Some((BLOCK2, block(0, true, 0))), &[1; 16]);
    response.add_uint(BLOCK1, block(5, false, 4).encode());
    let fourth = &b.send(&response)[0];
    assert_eq!((fourth.code, Block::of(fourth, BLOCK1), fourth.payload.len()), (Code::PUT, None, 0));
    assert!(b.send(&answer(fourth, Code::CHANGED, Some((BLOCK2, block(1, false, 0))), b"x")).is_empty());
    assert_eq!(b.answered[0].1.as_ref().unwrap().payload.len(), 17);
}

#[test]
fn blocks_that_do_not_fit_together_are_no_answer_and_a_changed_value_is_read_again_once() {
    let mut b = bench();
    let mut sent = b.ask(1, &get("/t"));
    for is_last in [false, true] {
        let first = Message::decode(&sent[0]).unwrap();
        assert_eq!(Block::of(&first, BLOCK2), None);
        let mut part = answer(&first, Code::CONTENT, Some((BLOCK2, block(0, true, 0))), &[1; 16]);
        part.add(options::ETAG, b"1");
        let second = b.send(&part).remove(0);
        let mut part = answer(&second, Code::CONTENT, Some((BLOCK2, block(1, false, 0))), b"x");
        part.add(options::ETAG, b"2");
        sent = b.send(&part).iter().map(encoded).collect();
        assert_eq!(sent.is_empty(), is_last);
    }
    assert_eq!(b.codes(), [(1, Err(Failure::BadAnswer))]);
    let sent = b.ask(2, &get("/t"));
    let first = Message::decode(&sent[0]).unwrap();
    b.send(&answer(&first, Code::CONTENT, Some((BLOCK2, block(3, false, 0))), b"x"));
    assert_eq!(b.codes()[1], (2, Err(Failure::BadAnswer)));
    assert_eq!(b.machine.collected, 0);
}

#[test]
fn what_was_collected_is_forgotten_with_its_request() {
    for is_closed in [false, true] {
        let mut b = bench();
        let sent = b.ask(1, &get("/t"));
        let first = Message::decode(&sent[0]).unwrap();
        b.send(&answer(&first, Code::CONTENT, Some((BLOCK2, block(0, true, 6))), &[1; 1024]));
        assert_eq!(b.machine.collected, 1024);
        if is_closed {
            b.machine.closed(b.now, b.peer, &mut b.out);
        } else {
            b.pass(31);
        }
        b.run();
        assert_eq!((b.machine.collected, b.machine.asked.len(), b.answered.len()), (0, 0, 1));
    }
}

#[test]
fn over_a_stream_requests_leave_at_once_and_bare() {
    let mut b = stream::ready();
    let bytes = |m: &Message| {
        let mut bytes = Vec::new();
        crate::stream::frame::encode(m, crate::stream::frame::Framing::Tcp, &mut bytes);
        bytes
    };
    let mut sent = Vec::new();
    for (ticket, path) in [(1, "/t"), (2, "/u")] {
        b.machine.command(b.now, b.peer, Ticket(ticket), &get(path), &mut b.out);
        sent.extend(b.run().iter().map(bytes));
    }
    // Len 2, token of 8 bytes, GET, the token, Uri-Path: nothing waits for an acknowledgement.
    assert_eq!(
        sent,
        [b"\x28\x01\x07\x07\x07\x07\x07\x07\x07\x06\xb1t", b"\x28\x01\x07\x07\x07\x07\x07\x07\x07\x05\xb1u"]
    );
    // The second answer first: Len 3, 2.05, "on".
    assert!(b.say(b"\x38\x45\x07\x07\x07\x07\x07\x07\x07\x05\xffon").is_empty());
    assert_eq!(b.codes(), [(2, Ok("2.05"))]);
    // There is no Reset for what nobody waits for.
    assert!(b.say(b"\x38\x45\x07\x07\x07\x07\x07\x07\x07\x05\xffon").is_empty());
    assert!(b.pass(29).iter().all(|m| !m.code.is_request()));
    b.pass(1);
    assert_eq!(b.codes()[1..], [(1, Err(Failure::Timeout))]);
    b.machine.command(b.now, b.peer, Ticket(3), &get("/t"), &mut b.out);
    b.machine.closed(b.now, b.peer, &mut b.out);
    b.run();
    assert_eq!(b.codes()[2..], [(3, Err(Failure::Gone))]);
}

#[test]
fn an_answer_from_another_port_is_the_devices_who_has_moved_there() {
    for is_separate in [false, true] {
        let mut b = bench();
        b.ask(1, &get("/t"));
        let answer = if is_separate {
            b.hear(b"\x60\x00\x07\x08");
            &b"\x48\x45\x12\x34\x07\x07\x07\x07\x07\x07\x07\x06\xffon"[..]
        } else {
            b"\x68\x45\x07\x08\x07\x07\x07\x07\x07\x07\x07\x06\xffon"
        };
        let sent = b.stranger(2, "127.0.0.1:10", &Message::decode(answer).unwrap());
        assert_eq!(b.codes(), [(1, Ok("2.05"))]);
        assert_eq!(b.rebound, [(b.peer, Peer { slot: 2, generation: 1 })]);
        assert_eq!(sent.iter().any(|m| m.kind == Kind::Ack && m.id == 0x1234), is_separate);
        assert!(b.machine.asked.is_empty());
        // Nobody moves by a token that was not sent.
        let other = Message::decode(b"\x48\x45\x12\x35\x07\x07\x07\x07\x07\x07\x07\x01\xffon").unwrap();
        let sent = b.stranger(3, "127.0.0.1:11", &other);
        assert_eq!((sent[0].kind, b.rebound.len()), (Kind::Rst, 1));
    }
}

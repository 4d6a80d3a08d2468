//! Block-wise transfers (RFC 7959): dialogues byte for byte after the ETSI plugtest cases TD_COAP_BLOCK_01 to 06, and what
//! the gateway does beyond them.

use super::*;
use crate::block::{Broken, Download, Progress, Room, Upload};
use crate::options::{ETAG, REQUEST_TAG, SIZE1, SIZE2};

/// Sends what is written left, and compares what comes back with what is written right.
fn dialogue(b: &mut Bench, lines: &[(Vec<u8>, Vec<u8>)]) {
    for (n, (there, back)) in lines.iter().enumerate() {
        let sent = b.send_bytes(there);
        let mut bytes = Vec::new();
        sent.iter().for_each(|m| m.encode(&mut bytes));
        assert_eq!(bytes, *back, "line {n}: {sent:?}");
    }
}

/// A CON request with token 0xAA to /ps/a: `kind_and_code`, message id, options behind the path, payload.
fn to_a(code: u8, id: u8, options: &[u8], payload: &[u8]) -> Vec<u8> {
    let marker: &[u8] = if payload.is_empty() { &[] } else { &[0xFF] };
    [&[0x41, code, 0, id, 0xAA, 0xB2, b'p', b's', 0x01, b'a'], options, marker, payload].concat()
}

fn ack(code: u8, id: u8, options: &[u8], payload: &[u8]) -> Vec<u8> {
    let marker: &[u8] = if payload.is_empty() { &[] } else { &[0xFF] };
    [&[0x61, code, 0, id, 0xAA], options, marker, payload].concat()
}

fn filled(length: usize) -> Vec<u8> {
    (0..length).map(|n| (n % 251) as u8).collect()
}

fn retain(b: &mut Bench, payload: &[u8]) {
    let value = Published::new(b.now, "a", payload).with_retain(true);
    b.retained = vec![("a".into(), value)];
}

/// The ETag option of the retained value behind option 0.
fn tag(b: &mut Bench) -> Vec<u8> {
    let got = b.send(&request(Kind::Con, Code::GET, 999, &["ps", "a"], &[]));
    let tag = got[0].all(ETAG).next().unwrap();
    assert_eq!(tag.len(), 8);
    [&[0x48], tag].concat()
}

fn with(mut m: Message, option: u16, block: (u32, bool, u32)) -> Message {
    m.add_uint(option, block.0 << 4 | u32::from(block.1) << 3 | block.2);
    m
}

fn put(id: u16, block: (u32, bool, u32), payload: &[u8]) -> Message {
    let m = with(request(Kind::Con, Code::PUT, id, &["ps", "a"], &[]), BLOCK1, block);
    Message { payload: payload.to_vec(), ..m }
}

fn get(id: u16, block: (u32, bool, u32)) -> Message {
    with(request(Kind::Con, Code::GET, id, &["ps", "a"], &[]), BLOCK2, block)
}

fn block_of(m: &Message, option: u16) -> Option<(u32, bool, u32)> {
    m.uint(option).map(|b| (b >> 4, b & 8 != 0, b & 7))
}

#[test]
fn block_01_a_large_value_is_got_in_blocks_of_the_size_asked_for_early() {
    let (mut b, large) = (bench(), filled(150));
    retain(&mut b, &large);
    let tag = tag(&mut b);
    let part = |value: u8| [&tag[..], &[0xD1, 0x06, value]].concat();
    // Block2 is 12 behind Uri-Path (11 + 12 = 23) and 19 behind ETag (4 + 19 = 23): 0/0/64, 1/0/64, 2/0/64.
    dialogue(
        &mut b,
        &[
            (to_a(1, 1, &[0xC1, 0x02], b""), ack(0x45, 1, &part(0x0A), &large[..64])),
            (to_a(1, 2, &[0xC1, 0x12], b""), ack(0x45, 2, &part(0x1A), &large[64..128])),
            (to_a(1, 3, &[0xC1, 0x22], b""), ack(0x45, 3, &part(0x22), &large[128..])),
        ],
    );
}

#[test]
fn block_02_a_large_value_comes_in_blocks_that_nobody_asked_for() {
    let (mut b, large) = (bench(), filled(1500));
    retain(&mut b, &large);
    let tag = tag(&mut b);
    let part = |value: u8| [&tag[..], &[0xD1, 0x06, value]].concat();
    dialogue(
        &mut b,
        &[
            (to_a(1, 1, &[], b""), ack(0x45, 1, &part(0x0E), &large[..1024])),
            (to_a(1, 2, &[0xC1, 0x16], b""), ack(0x45, 2, &part(0x16), &large[1024..])),
        ],
    );
}

#[test]
fn block_03_a_large_body_is_put_and_published_with_its_last_block() {
    let (mut b, large) = (bench(), filled(150));
    // Block1 is 16 behind Uri-Path (11 + 16 = 27), or option 27 of an answer that has no other.
    dialogue(
        &mut b,
        &[
            (to_a(3, 1, &[0xD1, 3, 0x0A], &large[..64]), ack(0x5F, 1, &[0xD1, 14, 0x0A], b"")),
            (to_a(3, 2, &[0xD1, 3, 0x1A], &large[64..128]), ack(0x5F, 2, &[0xD1, 14, 0x1A], b"")),
        ],
    );
    assert!(b.published.is_empty());
    dialogue(&mut b, &[(to_a(3, 3, &[0xD1, 3, 0x22], &large[128..]), ack(0x44, 3, &[0xD1, 14, 0x22], b""))]);
    assert_eq!(b.published, [("a".to_owned(), large, Qos::AtLeastOnce, false)]);
    assert_eq!(b.machine.bodies.used(), 0);
}

#[test]
fn block_04_a_large_body_is_posted() {
    let (mut b, large) = (bench(), filled(20));
    dialogue(
        &mut b,
        &[
            (to_a(2, 1, &[0xD1, 3, 0x08], &large[..16]), ack(0x5F, 1, &[0xD1, 14, 0x08], b"")),
            (to_a(2, 2, &[0xD1, 3, 0x10], &large[16..]), ack(0x44, 2, &[0xD1, 14, 0x10], b"")),
        ],
    );
    assert_eq!(b.published, [("a".to_owned(), large, Qos::AtLeastOnce, false)]);
}

#[test]
fn block_05_a_wish_for_the_answers_blocks_does_not_disturb_a_body_in_blocks() {
    let (mut b, large) = (bench(), filled(20));
    // Block2 0/0/64 before Block1: the answer has no body, so there is nothing to divide.
    dialogue(
        &mut b,
        &[
            (to_a(2, 1, &[0xC1, 0x02, 0x41, 0x08], &large[..16]), ack(0x5F, 1, &[0xD1, 14, 0x08], b"")),
            (to_a(2, 2, &[0xC1, 0x02, 0x41, 0x10], &large[16..]), ack(0x44, 2, &[0xD1, 14, 0x10], b"")),
        ],
    );
    assert_eq!(b.published.len(), 1);
}

#[test]
fn block_06_the_gateway_uses_smaller_blocks_than_those_asked_for() {
    let (mut b, large) = (bench(), filled(100));
    let config = Config { max_payload: 64, ..Config::default() };
    b.machine.config = Arc::new(config);
    retain(&mut b, &large);
    let tag = tag(&mut b);
    let part = |value: u8| [&tag[..], &[0xD1, 0x06, value]].concat();
    dialogue(
        &mut b,
        &[
            (to_a(1, 1, &[0xC1, 0x06], b""), ack(0x45, 1, &part(0x0A), &large[..64])),
            (to_a(1, 2, &[0xC1, 0x12], b""), ack(0x45, 2, &part(0x12), &large[64..])),
            // And the same of a body that comes: 0/1/64 is asked for in place of 0/1/128.
            (to_a(3, 3, &[0xD1, 3, 0x0B], &filled(128)), ack(0x5F, 3, &[0xD1, 14, 0x0A], b"")),
            (to_a(3, 4, &[0xD1, 3, 0x22], b"end"), ack(0x44, 4, &[0xD1, 14, 0x22], b"")),
        ],
    );
    assert_eq!(b.published[0].1.len(), 131);
}

#[test]
fn any_part_can_be_asked_for_at_any_time_and_nothing_behind_the_end() {
    let (mut b, large) = (bench(), filled(100));
    retain(&mut b, &large);
    let got = b.send(&get(1, (3, false, 1)));
    assert_eq!((got[0].code, &got[0].payload[..]), (Code::CONTENT, &large[96..]));
    assert_eq!(block_of(&got[0], BLOCK2), Some((3, false, 1)));
    assert_eq!(b.send(&get(2, (4, false, 1)))[0].code, Code::BAD_OPTION);
    b.retained.clear();
    b.machine.served.forget(b.peer);
    assert_eq!(b.send(&get(3, (1, false, 1)))[0].code, Code::NOT_FOUND);
}

#[test]
fn the_parts_of_a_value_that_changes_meanwhile_are_of_one_value() {
    let (mut b, large) = (bench(), filled(100));
    retain(&mut b, &large);
    let first = b.send(&get(1, (0, false, 2))).remove(0);
    retain(&mut b, &[7; 100]);
    let second = b.send(&get(2, (1, false, 2))).remove(0);
    assert_eq!([&first.payload[..], &second.payload].concat(), large);
    assert!(first.all(ETAG).eq(second.all(ETAG)));
    // From the beginning it is the new one.
    let first = b.send(&get(3, (0, false, 2))).remove(0);
    assert_eq!(first.payload, [7; 64]);
    assert!(!first.all(ETAG).eq(second.all(ETAG)));
}

#[test]
fn a_value_that_the_client_has_is_valid() {
    // RFC 7252, 5.10.6.2
    let mut b = bench();
    retain(&mut b, b"21");
    let mut again = request(Kind::Con, Code::GET, 1, &["ps", "a"], &[]);
    let tag = b.send(&again)[0].all(ETAG).next().unwrap().to_vec();
    again.id = 2;
    again.add(ETAG, b"other");
    again.add(ETAG, &tag);
    let valid = b.send(&again).remove(0);
    assert_eq!(
        (valid.code, &valid.payload[..], valid.all(ETAG).next()),
        (Code::VALID, &b""[..], Some(&tag[..]))
    );
    retain(&mut b, b"22");
    again.id = 3;
    assert_eq!(b.send(&again)[0].code, Code::CONTENT);
}

#[test]
fn how_large_it_is_is_told_to_who_asks() {
    // RFC 7959, 4
    let mut b = bench();
    retain(&mut b, &filled(5000));
    let mut asks = get(1, (0, false, 6));
    assert_eq!(b.send(&asks)[0].uint(SIZE2), None);
    asks.id = 2;
    asks.add_uint(SIZE2, 0);
    assert_eq!(b.send(&asks)[0].uint(SIZE2), Some(5000));
}

#[test]
fn a_body_with_a_gap_is_incomplete_and_not_published() {
    let mut b = bench();
    b.send(&put(1, (0, true, 0), &[1; 16]));
    assert_eq!(b.send(&put(2, (2, false, 0), &[1; 3]))[0].code, Code::INCOMPLETE);
    assert_eq!(b.send(&put(3, (1, false, 0), &[1; 3]))[0].code, Code::CHANGED);
    assert_eq!(b.send(&put(4, (2, false, 0), &[1; 3]))[0].code, Code::INCOMPLETE);
    assert_eq!((b.published.len(), b.published[0].1.len()), (1, 19));
}

#[test]
fn two_bodies_to_one_topic_are_told_apart_by_their_tags() {
    // RFC 9175, 3
    let mut b = bench();
    let tagged = |id, block, payload: &[u8], tag: &[u8]| {
        let mut m = put(id, block, payload);
        m.add(REQUEST_TAG, tag);
        m
    };
    b.send(&tagged(1, (0, true, 0), &[1; 16], b"x"));
    b.send(&tagged(2, (0, true, 0), &[2; 16], b"y"));
    b.send(&tagged(3, (1, false, 0), &[1; 2], b"x"));
    b.send(&tagged(4, (1, false, 0), &[2; 2], b"y"));
    let bodies: Vec<_> = b.published.iter().map(|(_, body, ..)| body.clone()).collect();
    assert_eq!(bodies, [[1; 18], [2; 18]]);
}

#[test]
fn a_body_that_is_too_large_is_refused_as_soon_as_that_is_known() {
    let mut b = bench();
    let config = Arc::new(Config { max_body_size: 2000, ..Config::default() });
    b.machine.bodies = Bodies::new(crate::blockwise::limits(&config), body::Budget::default());
    b.machine.config = config;
    let mut announced = put(1, (0, true, 6), &filled(1024));
    announced.add_uint(SIZE1, 2001);
    let refused = b.send(&announced).remove(0);
    assert_eq!((refused.code, refused.uint(SIZE1)), (Code::TOO_LARGE, Some(2000)));
    assert_eq!(b.send(&put(2, (0, true, 6), &filled(1024)))[0].code, Code::CONTINUE);
    assert_eq!(b.send(&put(3, (1, true, 6), &filled(1024)))[0].code, Code::TOO_LARGE);
    assert_eq!(b.machine.bodies.used(), 0);
    let whole = Message { payload: filled(2001), ..request(Kind::Con, Code::PUT, 4, &["ps", "a"], &[]) };
    assert_eq!(b.send(&whole)[0].code, Code::TOO_LARGE);
    assert!(b.published.is_empty());
}

#[test]
fn a_block_that_is_repeated_with_its_message_id_is_answered_from_memory() {
    let mut b = bench();
    let first = put(1, (0, true, 0), &[1; 16]);
    let answer = b.send(&first);
    b.send(&put(2, (1, true, 0), &[2; 16]));
    // Late, it would begin the transfer anew.
    assert_eq!(b.send(&first), answer);
    assert_eq!(b.send(&put(3, (2, false, 0), b"x"))[0].code, Code::CHANGED);
    assert_eq!(b.published[0].1.len(), 33);
}

#[test]
fn a_transfer_of_many_blocks_does_not_fill_the_memory_of_exchanges() {
    let (mut b, large) = (bench(), filled(16 * 6000));
    for (n, part) in large.chunks(16).enumerate() {
        let is_more = n < 5999;
        let code = b.send(&put(n as u16, (n as u32, is_more, 0), part))[0].code;
        assert_eq!(code, if is_more { Code::CONTINUE } else { Code::CHANGED }, "block {n}");
    }
    assert_eq!(b.published[0].1, large);
    assert_eq!(b.machine.remembered, Config::default().max_exchanges);
}

#[test]
fn a_body_that_does_not_go_on_is_forgotten() {
    let mut b = bench();
    b.send(&put(1, (0, true, 0), &[1; 16]));
    assert!(b.machine.bodies.used() > 0);
    b.pass(247);
    assert_eq!(b.machine.bodies.used(), 0);
    assert!(b.machine.next_timeout().is_none_or(|(at, _)| at > b.now.instant));
    assert_eq!(b.send(&put(2, (1, false, 0), &[1; 3]))[0].code, Code::INCOMPLETE);
}

#[test]
fn a_peer_that_leaves_leaves_no_bodies() {
    let mut b = bench();
    retain(&mut b, &filled(5000));
    b.send(&put(1, (0, true, 0), &[1; 16]));
    b.send(&get(2, (0, false, 6)));
    assert!(b.machine.bodies.used() > 0 && b.machine.served.used() > 5000);
    b.machine.closed(b.now, b.peer, &mut b.out);
    assert_eq!((b.machine.bodies.used(), b.machine.served.used()), (0, 0));
}

#[test]
fn another_session_at_the_address_sees_nothing_of_what_the_first_one_fetched() {
    let mut b = bench();
    retain(&mut b, &filled(5000));
    b.send(&get(1, (0, false, 6)));
    b.retained.clear();
    let other = with(request(Kind::Con, Code::GET, 2, &["ps", "a"], &["u=b", "p=b"]), BLOCK2, (1, false, 6));
    assert_eq!(b.send(&other)[0].code, Code::NOT_FOUND);
    assert_eq!(b.machine.served.used(), 0);
}

#[test]
fn only_what_takes_a_body_takes_it_in_blocks() {
    let mut b = bench();
    for (id, (code, path)) in
        [(Code::GET, "a"), (Code::DELETE, "a"), (Code::POST, "connection")].into_iter().enumerate()
    {
        let path = if path == "a" { ["ps", "a"] } else { ["mqtt", path] };
        let m = request(Kind::Con, code, id as u16, &path, if path[0] == "mqtt" { &["c=x"] } else { &[] });
        assert_eq!(b.send(&with(m, BLOCK1, (0, true, 0)))[0].code, Code::BAD_OPTION);
    }
    assert!(b.published.is_empty());
}

#[test]
fn a_notification_carries_the_first_block_and_the_rest_is_fetched_though_nothing_is_retained() {
    // RFC 7959, 3.3 (figure 13)
    let (mut b, large) = (bench(), filled(150));
    let m = observe(1, &["ps", "a", "b"]);
    b.send(&with(m, BLOCK2, (0, false, 2)));
    let note = b.deliver(Qos::AtLeastOnce, &large).remove(0);
    assert_eq!(
        (note.kind, note.code, block_of(&note, BLOCK2)),
        (Kind::Con, Code::CONTENT, Some((0, true, 2)))
    );
    assert!(note.uint(OBSERVE).is_some() && note.all(ETAG).count() == 1);
    let mut got = note.payload.clone();
    for n in 1..3 {
        // With another token, and without Observe.
        let rest =
            with(request(Kind::Con, Code::GET, 10 + n as u16, &["ps", "a", "b"], &[]), BLOCK2, (n, false, 2));
        let part = b.send(&rest).remove(0);
        assert_eq!((part.code, part.uint(OBSERVE)), (Code::CONTENT, None));
        assert!(part.all(ETAG).eq(note.all(ETAG)));
        assert_eq!(block_of(&part, BLOCK2), Some((n, n < 2, 2)));
        got.extend_from_slice(&part.payload);
    }
    assert_eq!(got, large);
    b.pass(247);
    assert_eq!(b.machine.served.used(), 0);
}

#[test]
fn what_a_filter_found_is_fetched_by_the_filter_or_by_its_topic() {
    let (mut b, large) = (bench(), filled(1500));
    b.send(&observe(1, &["ps", "+", "b"]));
    let note = b.deliver(Qos::AtMostOnce, &large).remove(0);
    assert_eq!((note.kind, note.payload.len()), (Kind::Non, 1024));
    for (id, path) in [(2, ["ps", "+", "b"]), (3, ["ps", "a", "b"])] {
        let rest = with(request(Kind::Con, Code::GET, id, &path, &[]), BLOCK2, (1, false, 6));
        let part = b.send(&rest).remove(0);
        assert_eq!((part.code, &part.payload[..]), (Code::CONTENT, &large[1024..]));
        assert!(part.all(ETAG).eq(note.all(ETAG)));
    }
    // A filter has no value but what was found.
    let rest = with(request(Kind::Con, Code::GET, 4, &["ps", "#"], &[]), BLOCK2, (1, false, 6));
    assert_eq!(b.send(&rest)[0].code, Code::BAD_REQUEST);
}

#[test]
fn the_rest_of_a_notification_that_waits_is_not_taken_for_that_of_the_one_in_flight() {
    let mut b = bench();
    b.send(&observe(1, &["ps", "a", "b"]));
    let first = b.deliver(Qos::AtLeastOnce, &[1; 1500]).remove(0);
    assert!(b.deliver(Qos::AtMostOnce, &[2; 1500]).is_empty());
    let rest = |id| with(request(Kind::Con, Code::GET, id, &["ps", "a", "b"], &[]), BLOCK2, (1, false, 6));
    assert_eq!(b.send(&rest(2))[0].payload, [1; 476]);
    let second = b.send(&Message::empty(Kind::Ack, first.id)).remove(0);
    assert_eq!(second.payload, [2; 1024]);
    assert_eq!(b.send(&rest(3))[0].payload, [2; 476]);
}

#[test]
fn a_delivery_of_qos_1_is_settled_when_its_last_block_was_fetched() {
    let mut b = bench();
    b.send(&observe(1, &["ps", "a", "b"]));
    let rest = |id, n| with(request(Kind::Con, Code::GET, id, &["ps", "a", "b"], &[]), BLOCK2, (n, false, 6));
    let note = b.deliver(Qos::AtLeastOnce, &[1; 3000]).remove(0);
    b.send(&Message::empty(Kind::Ack, note.id));
    b.send(&rest(2, 1));
    assert!(b.settled.is_empty());
    b.send(&rest(3, 2));
    assert_eq!(b.settled, [(DeliveryId(1), Settle::Done)]);
    // Fetched before the acknowledgement comes, it is settled by that.
    let note = b.deliver(Qos::AtLeastOnce, &[2; 3000]).remove(0);
    b.send(&rest(4, 1));
    b.send(&rest(5, 2));
    assert_eq!(b.settled.len(), 1);
    b.send(&Message::empty(Kind::Ack, note.id));
    assert_eq!(b.settled.len(), 2);
}

#[test]
fn a_client_that_does_not_fetch_the_rest_is_not_waited_for_long() {
    let mut b = bench();
    b.send(&observe(1, &["ps", "a", "b"]));
    let note = b.deliver(Qos::AtLeastOnce, &[1; 3000]).remove(0);
    b.send(&Message::empty(Kind::Ack, note.id));
    b.pass(3);
    let rest = with(request(Kind::Con, Code::GET, 2, &["ps", "a", "b"], &[]), BLOCK2, (1, false, 6));
    b.send(&rest);
    b.pass(3);
    assert!(b.settled.is_empty());
    b.pass(1);
    assert_eq!(b.settled, [(DeliveryId(1), Settle::Done)]);
    // A Reset refuses it at once.
    let note = b.deliver(Qos::AtLeastOnce, &[2; 3000]).remove(0);
    b.send(&Message::empty(Kind::Rst, note.id));
    assert_eq!(b.settled[1], (DeliveryId(1), Settle::Refused));
    b.send(&observe(3, &["ps", "a", "b"]));
    let note = b.deliver(Qos::AtLeastOnce, b"small").remove(0);
    b.send(&Message::empty(Kind::Ack, note.id));
    assert_eq!(b.settled.len(), 3);
}

#[test]
fn large_values_that_wait_at_a_peer_that_does_not_answer_are_bounded() {
    let mut b = bench();
    b.send(&observe(1, &["ps", "#"]));
    b.deliver(Qos::AtLeastOnce, b"in flight");
    let large = filled(1 << 20);
    for n in 0..10 {
        b.deliver_to(&format!("a/{n}"), Qos::AtMostOnce, &large);
    }
    let c = &b.machine.peers[&b.peer];
    assert_eq!(c.outgoing.len(), 1 + 4);
}

#[test]
fn an_observation_begins_with_the_first_block_of_a_large_value() {
    let (mut b, large) = (bench(), filled(1500));
    retain(&mut b, &large);
    let first = b.send(&observe(1, &["ps", "a"])).remove(0);
    assert!(first.uint(OBSERVE).is_some());
    assert_eq!((block_of(&first, BLOCK2), &first.payload[..]), (Some((0, true, 6)), &large[..1024]));
    // Some clients send Observe with the requests for the rest, too: it is no registration.
    let mut rest = get(2, (1, false, 6));
    rest.add_uint(OBSERVE, 0);
    let part = b.send(&rest).remove(0);
    assert_eq!((part.uint(OBSERVE), &part.payload[..]), (None, &large[1024..]));
    assert_eq!(b.machine.peers[&b.peer].observations.len(), 1);
}

#[test]
fn discovery_is_told_whole_in_blocks() {
    let mut b = bench();
    let topics = (0..100).map(|n| format!("plant/{n}/temperature"));
    b.retained = topics.map(|t| (t.as_str().into(), Published::new(b.now, &t, b"1"))).collect();
    let mut download = Download::new(100_000, crate::block::Szx::new(4).unwrap());
    let mut id = 0;
    loop {
        id += 1;
        let mut m = request(Kind::Con, Code::GET, id, &[".well-known", "core"], &[]);
        m.add_uint(BLOCK2, download.block().encode());
        if download.answered(&b.send(&m)[0]).unwrap() == Progress::Done {
            break;
        }
        // Something changes on the way, and it stays one list.
        b.retained.pop();
    }
    let list = String::from_utf8(download.into_body()).unwrap();
    assert_eq!(list.matches("tidegate.topic").count(), 100);
}

#[test]
fn a_spoofed_address_gets_no_large_block_before_it_has_answered_and_a_small_one_at_once() {
    let mut b = bench_at("192.0.2.1:9");
    retain(&mut b, &filled(1500));
    let asked = b.send(&get(1, (0, false, 6))).remove(0);
    assert_eq!((asked.code, asked.all(ECHO).count()), (Code::UNAUTHORIZED, 1));
    let small = b.send(&get(2, (0, false, 2))).remove(0);
    assert_eq!((small.code, small.payload.len()), (Code::CONTENT, 64));
    let mut proven = get(3, (0, false, 6));
    proven.add(ECHO, asked.all(ECHO).next().unwrap());
    assert_eq!(b.send(&proven)[0].payload.len(), 1024);
    assert_eq!(b.send(&get(4, (1, false, 6)))[0].payload.len(), 476);
}

proptest::proptest! {
    #[test]
    fn what_a_client_puts_in_blocks_another_gets_in_blocks(
        body in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..6000),
        here in 64usize..2000,
        there in 16usize..2000,
    ) {
        let mut b = bench();
        b.machine.config = Arc::new(Config { max_payload: here, ..Config::default() });
        let room = Room { payload: there, szx: crate::block::Szx::LARGEST };
        let mut upload = Upload::new(body.clone().into(), room);
        let mut id = 0;
        loop {
            id += 1;
            let (block, payload) = upload.block();
            let m = request(Kind::Con, Code::PUT, id, &["ps", "a"], &["retain"]);
            let mut m = Message { payload: payload.to_vec(), ..m };
            if let Some(block) = block {
                m.add_uint(BLOCK1, block.encode());
            }
            let answer = b.send(&m).remove(0);
            if upload.answered(&answer).unwrap() == Progress::Done {
                proptest::prop_assert_eq!(answer.code, Code::CHANGED);
                break;
            }
        }
        proptest::prop_assert_eq!((b.published.len(), &b.published[0].1), (1, &body));
        retain(&mut b, &body);
        let mut download = Download::new(6000, room.preferred());
        loop {
            id += 1;
            let mut m = request(Kind::Con, Code::GET, id, &["ps", "a"], &[]);
            m.add_uint(BLOCK2, download.block().encode());
            let answer = b.send(&m).remove(0);
            proptest::prop_assert!(answer.payload.len() <= there.min(here));
            match download.answered(&answer) {
                Ok(Progress::More) => {}
                Ok(Progress::Done) => break,
                Err(why @ (Broken::Mismatch | Broken::Changed | Broken::TooLarge)) => panic!("{why:?}"),
            }
        }
        proptest::prop_assert_eq!(download.into_body(), body);
    }
}

//! Blocks over TCP and WebSocket (RFC 8323, 6).

use super::*;

/// A peer that takes messages of so many bytes, in blocks too.
fn taking(max: u32) -> Bench {
    let mut b = fresh();
    b.run();
    let mut csm = signalled(signal::CSM, &[]);
    csm.add_uint(signal::MAX_MESSAGE_SIZE, max);
    csm.add(signal::BLOCK_WISE_TRANSFER, &[]);
    b.exchange(&csm);
    b
}

fn block(message: &Message, option: u16) -> Option<(u32, bool, u32)> {
    message.uint(option).map(|b| (b >> 4, b & 8 != 0, b & 7))
}

#[test]
fn a_value_larger_than_the_peer_takes_goes_in_bert_blocks() {
    // RFC 8323, 6.1: numbers count blocks of 1024 bytes, of which several come in one message.
    let body: Vec<u8> = (0..10_000u32).map(|i| i as u8).collect();
    for (max, szx, first) in [(4096u32, 7, 3072), (1152, 6, 1024), (600, 4, 256)] {
        let mut b = taking(max);
        b.retained = vec![("a".into(), Published::new(b.now, "a", &body).with_retain(true))];
        let (mut got, mut number) = (Vec::new(), 0);
        loop {
            let mut get = request(Kind::Con, Code::GET, 1, &["ps", "a"], &[]);
            if number > 0 {
                get.add_uint(BLOCK2, number << 4 | szx);
            }
            let part = b.exchange(&get).remove(0);
            assert_eq!(part.code, Code::CONTENT);
            assert!(length(&part, Framing::Tcp) <= max as usize);
            assert_eq!((block(&part, BLOCK2).unwrap().0, block(&part, BLOCK2).unwrap().2), (number, szx));
            assert!(!got.is_empty() || part.payload.len() == first);
            got.extend_from_slice(&part.payload);
            let size = if szx == 7 { 1024 } else { 16 << szx };
            number += part.payload.len() as u32 / size;
            if !block(&part, BLOCK2).unwrap().1 {
                break;
            }
        }
        assert!(got == body, "{max}");
    }
}

#[test]
fn a_body_in_bert_blocks_is_published_whole() {
    // RFC 8323, 6.2
    let mut b = taking(100_000);
    let body: Vec<u8> = (0..30_259u32).map(|i| i as u8).collect();
    for (number, range, is_more) in
        [(0u32, 0..8192, true), (8, 8192..24_576, true), (24, 24_576..30_259, false)]
    {
        let mut part = put(1, "a", &body[range]);
        part.add_uint(BLOCK1, number << 4 | u32::from(is_more) << 3 | 7);
        let answer = b.exchange(&part).remove(0);
        assert_eq!(answer.code, if is_more { Code::CONTINUE } else { Code::CHANGED });
        assert_eq!(block(&answer, BLOCK1), Some((number, is_more, 7)));
    }
    assert_eq!(b.published.len(), 1);
    assert!(b.published[0].1 == body);
}

#[test]
fn a_notification_larger_than_the_peer_takes_is_its_first_block() {
    let mut b = taking(2500);
    b.exchange(&observe(5, &["ps", "a", "b"]));
    let sent = b.deliver(Qos::AtLeastOnce, &[7; 5000]);
    assert_eq!((sent.len(), sent[0].payload.len()), (1, 2048));
    assert_eq!(block(&sent[0], BLOCK2), Some((0, true, 7)));
    let mut rest = request(Kind::Con, Code::GET, 6, &["ps", "a", "b"], &[]);
    rest.add_uint(BLOCK2, 2 << 4 | 7);
    let sent = b.exchange(&rest);
    assert_eq!((sent[0].payload.len(), block(&sent[0], BLOCK2)), (2048, Some((2, true, 7))));
    assert_eq!(b.settled.len(), 1);
}

//! ClientHello and cookie.

use std::time::Duration;

use dtls::Reason;

use crate::net::{Peer, Server, address};

/// A client's first ClientHello, and its second with the cookie that `server` gave it.
fn hellos(server: &mut Server, peer: &mut Peer) -> (Vec<u8>, Vec<u8>) {
    let mut to_server = vec![];
    peer.client.timeout(server.now, &mut to_server).unwrap();
    let first = to_server.remove(0);
    server.receive(peer.at, &first);
    let verify = server.sent_to(peer.at).remove(0);
    peer.client.receive(server.now, &verify, &mut to_server, &mut vec![]).unwrap();
    (first, to_server.remove(0))
}

#[test]
fn a_hello_without_a_cookie_is_answered_with_less_than_it_sent_and_leaves_nothing() {
    let mut server = Server::simple();
    let mut to_server = vec![];
    Peer::simple(address(1)).client.timeout(server.now, &mut to_server).unwrap();
    server.receive(address(1), &to_server[0]);
    let verify = server.sent_to(address(1)).remove(0);
    assert!(verify.len() < to_server[0].len());
    // Handshake, DTLS 1.0 (RFC 6347, 4.2.1), the record number of the ClientHello; HelloVerifyRequest.
    assert_eq!(verify[..5], [22, 0xfe, 0xff, 0, 0]);
    assert_eq!(verify[5..11], to_server[0][5..11]);
    assert_eq!(verify[13], 3);
    assert_eq!(server.endpoint.counts(), dtls::Counts::default());
    assert_eq!(server.endpoint.next_timeout(), None);
}

#[test]
fn a_cookie_is_good_at_its_address_only() {
    let mut server = Server::simple();
    let (_, second) = hellos(&mut server, &mut Peer::simple(address(1)));
    server.receive(address(2), &second);
    assert_eq!(server.drops(), [Reason::BadCookie]);
    assert_eq!(server.endpoint.counts().half_open, 0);
    // It is asked again, in case the secret was changed.
    assert_eq!(server.sent_to(address(2)).len(), 1);
    server.receive(address(1), &second);
    assert_eq!(server.endpoint.counts().half_open, 1);
}

#[test]
fn a_cookie_is_good_for_one_to_two_periods() {
    for (seconds, is_good) in [(59, true), (150, false)] {
        let mut server = Server::simple();
        let (_, second) = hellos(&mut server, &mut Peer::simple(address(1)));
        server.pass(Duration::from_secs(seconds));
        server.receive(address(1), &second);
        assert_eq!(server.endpoint.counts().half_open, usize::from(is_good), "{seconds}");
    }
}

#[test]
fn a_cookie_is_good_for_its_hello_only() {
    let mut server = Server::simple();
    let (first, second) = hellos(&mut server, &mut Peer::simple(address(1)));
    // Every byte of the second that the first has too and that is not the cookie: version, random, suites, extensions.
    let random = 13 + 12 + 2..13 + 12 + 2 + 32;
    assert_eq!(first[random.clone()], second[random.clone()]);
    for at in random.chain([second.len() - 1]) {
        let mut changed = second.clone();
        changed[at] ^= 1;
        server.receive(address(1), &changed);
        assert_eq!(server.endpoint.counts().half_open, 0);
    }
}

#[test]
fn the_same_hello_again_does_not_begin_anew() {
    let mut server = Server::simple();
    let mut peer = Peer::simple(address(1));
    let (_, second) = hellos(&mut server, &mut peer);
    server.receive(address(1), &second);
    server.receive(address(1), &second);
    assert_eq!(server.endpoint.counts().half_open, 1);
    let mut to_server = vec![];
    for d in server.sent_to(address(1)) {
        peer.client.receive(server.now, &d, &mut to_server, &mut vec![]).unwrap();
    }
    for d in to_server {
        server.receive(address(1), &d);
    }
    assert!(server.opened().is_some());
}

#[test]
fn a_hello_cut_off_at_any_byte_is_dropped() {
    let mut server = Server::simple();
    let (_, second) = hellos(&mut server, &mut Peer::simple(address(1)));
    for n in 0..second.len() {
        let mut short = second[..n].to_vec();
        server.receive(address(1), &short);
        // The same with headers that say so.
        if n > 25 {
            short[11..13].copy_from_slice(&((n - 13) as u16).to_be_bytes());
            let body = ((n - 25) as u32).to_be_bytes();
            short[14..17].copy_from_slice(&body[1..]);
            short[22..25].copy_from_slice(&body[1..]);
            server.receive(address(1), &short);
        }
        assert_eq!(server.endpoint.counts().half_open, 0, "{n}");
    }
    assert!(
        server.drops().iter().all(|r| [Reason::Malformed, Reason::BadHello, Reason::BadCookie].contains(r))
    );
}

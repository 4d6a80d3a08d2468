//! Handshakes with a pre-shared key.

use std::time::Duration;

use dtls::{ClientSettings, Closed, Identity, Reason, Settings, Suite};

use crate::net::{Dice, Peer, Server, Table, Told, address};

#[test]
fn a_client_with_the_key_opens_and_both_talk() {
    for cid in [None, Some(vec![]), Some(vec![1, 2, 3])] {
        let mut server = Server::simple();
        let has_cid = cid.is_some();
        let settings = ClientSettings { cid, ..ClientSettings::psk(b"dev", b"secret") };
        let mut peer = Peer::new(address(1), &settings);
        let id = peer.open(&mut server).unwrap();
        let opened = Told::Opened {
            id,
            from: address(1),
            identity: Identity::Psk(b"dev".as_slice().into()),
            has_cid,
            replaces: None,
        };
        assert_eq!(server.told[0], opened);
        assert!(matches!(&server.told[1..], [Told::Keep(kept, _)] if *kept == id));
        peer.say(&mut server, b"hello");
        assert_eq!(server.payloads(), [b"hello"]);
        let answer = server.seal(id, b"world").unwrap();
        assert!(peer.hear(&server, &answer));
        assert_eq!(peer.received, [b"world"]);
    }
}

#[test]
fn every_psk_suite_opens_and_is_the_one_agreed() {
    for suite in Suite::all().filter(|s| s.is_psk()) {
        let mut server = Server::simple();
        let settings = ClientSettings { suites: vec![suite], ..ClientSettings::psk(b"dev", b"secret") };
        let mut peer = Peer::new(address(1), &settings);
        let id = peer.open(&mut server).unwrap_or_else(|| panic!("{suite}"));
        assert_eq!(server.endpoint.show(server.now, id).unwrap().suite, suite);
        peer.say(&mut server, b"hello");
        assert_eq!(server.payloads(), [b"hello"], "{suite}");
    }
}

#[test]
fn the_server_picks_the_suite() {
    let keys = Table::of(&[("dev", &["secret"])]);
    let wanted = Suite::named("PSK-AES256-GCM").unwrap();
    let settings =
        Settings { suites: vec![wanted, Suite::named("PSK-AES128-CCM8").unwrap()], ..Settings::default() };
    let mut server = Server::new(settings, keys);
    let id = Peer::simple(address(1)).open(&mut server).unwrap();
    assert_eq!(server.endpoint.show(server.now, id).unwrap().suite, wanted);
}

#[test]
fn a_handshake_ends_well_though_three_of_ten_datagrams_are_lost() {
    let mut dice = Dice(42);
    let mut retries = 0;
    for n in 0..50_u16 {
        let mut server = Server::simple();
        let cid = n.is_multiple_of(2).then(Vec::new);
        let settings = ClientSettings { cid, ..ClientSettings::psk(b"dev", b"secret") };
        let mut peer = Peer::new(address(n), &settings);
        // Five retransmissions of a flight may all be lost; then a client begins again.
        if !peer.open_over(&mut server, &mut || dice.roll(10) < 3) {
            retries += 1;
            peer = Peer::new(address(n), &settings);
            assert!(peer.open_over(&mut server, &mut || dice.roll(10) < 3), "{n}");
        }
        let id = server.opened().unwrap();
        // What the client sent again after its Finished was answered is dropped without harm.
        peer.say(&mut server, b"hello");
        assert_eq!(server.payloads(), [b"hello"]);
        let answer = server.seal(id, b"world").unwrap();
        assert!(peer.hear(&server, &answer));
    }
    assert!(retries <= 8, "{retries} of 50 began again");
}

#[test]
fn a_client_that_lost_the_last_flight_gets_it_again() {
    for cid in [None, Some(vec![])] {
        let mut server = Server::simple();
        let mut peer =
            Peer::new(address(1), &ClientSettings { cid, ..ClientSettings::psk(b"dev", b"secret") });
        // Every datagram after the association is there is lost, three times.
        let mut to_server = vec![];
        peer.client.timeout(server.now, &mut to_server).unwrap();
        let mut lost = 0;
        for _ in 0..20 {
            for d in std::mem::take(&mut to_server) {
                server.receive(peer.at, &d);
            }
            for d in server.sent_to(peer.at) {
                if server.opened().is_some() && lost < 3 {
                    lost += 1;
                } else {
                    peer.client.receive(server.now, &d, &mut to_server, &mut peer.received).unwrap();
                }
            }
            if peer.client.is_open() {
                break;
            }
            if to_server.is_empty() {
                server.pass(Duration::from_secs(5));
                peer.client.timeout(server.now, &mut to_server).unwrap();
            }
        }
        assert_eq!(lost, 3);
        assert!(peer.client.is_open());
        assert_eq!(server.endpoint.counts().active, 1);
    }
}

#[test]
fn what_comes_when_the_timer_has_run_out_is_read_all_the_same() {
    // Client and server repeat at the same time when each has lost the other's flight: both double their timers.
    let mut server = Server::simple();
    let mut peer = Peer::simple(address(1));
    let mut to_server = vec![];
    peer.client.timeout(server.now, &mut to_server).unwrap();
    server.receive(peer.at, &to_server.remove(0));
    peer.client.receive(server.now, &server.sent_to(peer.at)[0], &mut to_server, &mut vec![]).unwrap();
    server.receive(peer.at, &to_server.remove(0));
    peer.client.receive(server.now, &server.sent_to(peer.at)[0], &mut to_server, &mut vec![]).unwrap();
    server.now = server.now.after(Duration::from_millis(1001));
    for datagram in to_server {
        server.receive(peer.at, &datagram);
    }
    assert!(server.opened().is_some());
}

#[test]
fn the_server_sends_its_flight_again_until_it_gives_up() {
    let mut server = Server::simple();
    let mut peer = Peer::simple(address(1));
    let mut to_server = vec![];
    peer.client.timeout(server.now, &mut to_server).unwrap();
    server.receive(peer.at, &to_server.remove(0));
    peer.client.receive(server.now, &server.sent_to(peer.at)[0], &mut to_server, &mut vec![]).unwrap();
    server.receive(peer.at, &to_server.remove(0));
    assert_eq!(server.endpoint.counts().half_open, 1);
    let flight = server.sent_to(peer.at).len();
    server.pass(Duration::from_millis(999));
    assert_eq!(server.sent_to(peer.at).len(), 0);
    server.pass(Duration::from_millis(2));
    // Every other time one record a datagram: ServerHello and ServerHelloDone, or ServerKeyExchange between them.
    let spread = server.sent_to(peer.at).len();
    assert!(flight == 1 && spread > flight, "{spread}");
    server.pass(Duration::from_secs(60));
    assert_eq!(server.drops(), [Reason::HandshakeTimeout]);
    assert_eq!(server.endpoint.counts().half_open, 0);
    // After 2, 4 and 8 seconds more, and 16 to wait for the answer.
    assert_eq!(server.sent_to(peer.at).len(), 2 * flight + spread);
    assert_eq!(server.endpoint.next_timeout(), None);
}

#[test]
fn the_oldest_handshake_makes_room_for_a_new_one() {
    let keys = Table::of(&[("dev", &["secret"])]);
    let mut server = Server::new(Settings { max_half_open: 3, ..Settings::default() }, keys);
    let mut peers: Vec<Peer> = (1..=4).map(|n| Peer::simple(address(n))).collect();
    for peer in &mut peers {
        let mut to_server = vec![];
        peer.client.timeout(server.now, &mut to_server).unwrap();
        server.receive(peer.at, &to_server.remove(0));
        let verify = server.sent_to(peer.at).remove(0);
        peer.client.receive(server.now, &verify, &mut to_server, &mut vec![]).unwrap();
        server.receive(peer.at, &to_server.remove(0));
    }
    assert_eq!(server.endpoint.counts().half_open, 3);
    assert_eq!(server.drops(), [Reason::HalfOpenFull]);
    let answers = |server: &mut Server, peer: &mut Peer| {
        let mut to_server = vec![];
        for d in server.sent_to(peer.at) {
            peer.client.receive(server.now, &d, &mut to_server, &mut vec![]).unwrap();
        }
        for d in to_server {
            server.receive(peer.at, &d);
        }
        server.opened().is_some()
    };
    assert!(!answers(&mut server, &mut peers[0]));
    assert!(answers(&mut server, &mut peers[1]));
}

#[test]
fn a_restarted_client_takes_the_place_of_its_old_association_when_its_handshake_is_over() {
    for cid in [None, Some(vec![])] {
        let mut server = Server::simple();
        let settings = ClientSettings { cid, ..ClientSettings::psk(b"dev", b"secret") };
        let mut old_peer = Peer::new(address(1), &settings);
        let old = old_peer.open(&mut server).unwrap();
        let mut peer = Peer::new(address(1), &settings);
        let mut to_server = vec![];
        peer.client.timeout(server.now, &mut to_server).unwrap();
        server.receive(peer.at, &to_server.remove(0));
        peer.client.receive(server.now, &server.sent_to(peer.at)[0], &mut to_server, &mut vec![]).unwrap();
        server.receive(peer.at, &to_server.remove(0));
        // Half way the old one still works.
        old_peer.say(&mut server, b"still here");
        assert_eq!(server.payloads(), [b"still here"]);
        for d in server.sent_to(peer.at) {
            peer.client.receive(server.now, &d, &mut to_server, &mut vec![]).unwrap();
        }
        server.told.clear();
        for d in to_server {
            server.receive(peer.at, &d);
        }
        let new = server.opened().unwrap();
        assert!(matches!(&server.told[0], Told::Opened { replaces, .. } if *replaces == Some(old)));
        assert_eq!(server.told[1..3], [Told::Closed(old, Closed::Replaced), Told::Forget(old)]);
        assert_eq!(server.endpoint.counts().active, 1);
        assert_eq!(server.endpoint.address(new), Some(address(1)));
        assert_eq!(server.endpoint.address(old), None);
    }
}

#[test]
fn a_stranger_at_a_forgotten_address_does_not_end_an_association_with_connection_ids() {
    let mut server = Server::new(Settings::default(), Table::of(&[("a", &["1"]), ("b", &["2"])]));
    let mut a = Peer::new(address(1), &ClientSettings::psk(b"a", b"1"));
    let mut b = Peer::new(address(1), &ClientSettings::psk(b"b", b"2"));
    let first = a.open(&mut server).unwrap();
    let second = b.open(&mut server).unwrap();
    assert_ne!(first, second);
    a.at = address(9);
    a.say(&mut server, b"moved");
    b.say(&mut server, b"here");
    assert_eq!(server.payloads(), [&b"moved"[..], b"here"]);
}

#[test]
fn of_one_identity_the_oldest_association_makes_room() {
    let keys = Table::of(&[("dev", &["secret"])]);
    let mut server = Server::new(Settings { max_per_identity: 2, ..Settings::default() }, keys);
    let ids: Vec<_> = (1..=3).map(|n| Peer::simple(address(n)).open(&mut server).unwrap()).collect();
    assert!(server.told.contains(&Told::Closed(ids[0], Closed::TooManyOfIdentity)));
    assert_eq!(server.endpoint.counts().active, 2);
}

#[test]
fn of_all_associations_an_idle_one_makes_room() {
    let keys = Table::of(&[("dev", &["secret"])]);
    let limits = Settings { max_associations: 5, max_per_identity: 100, ..Settings::default() };
    let mut server = Server::new(limits, keys);
    let mut peers: Vec<Peer> = (1..=5).map(|n| Peer::simple(address(n))).collect();
    let ids: Vec<_> = peers.iter_mut().map(|p| p.open(&mut server).unwrap()).collect();
    server.pass(Duration::from_secs(1));
    for n in [0, 1, 3, 4] {
        peers[n].say(&mut server, b"awake");
    }
    Peer::simple(address(6)).open(&mut server).unwrap();
    assert!(server.told.contains(&Told::Closed(ids[2], Closed::TooMany)));
    assert_eq!(server.endpoint.counts().active, 5);
}

/// The records of a datagram to the server, each by itself.
fn records(mut datagram: &[u8]) -> Vec<&[u8]> {
    let mut all = vec![];
    while !datagram.is_empty() {
        let at = if datagram[0] == 25 { 19 } else { 11 };
        let len = at + 2 + usize::from(u16::from_be_bytes([datagram[at], datagram[at + 1]]));
        all.push(&datagram[..len]);
        datagram = &datagram[len..];
    }
    all
}

#[test]
fn a_flight_that_comes_in_another_order_opens_without_waiting_for_a_retransmission() {
    for cid in [None, Some(vec![])] {
        let mut server = Server::simple();
        let settings = ClientSettings { cid, ..ClientSettings::psk(b"dev", b"secret") };
        let mut peer = Peer::new(address(1), &settings);
        let mut to_server = vec![];
        peer.client.timeout(server.now, &mut to_server).unwrap();
        for _ in 0..3 {
            for d in std::mem::take(&mut to_server).iter().rev() {
                records(d).iter().rev().for_each(|r| server.receive(peer.at, r));
            }
            for d in server.sent_to(peer.at) {
                peer.client.receive(server.now, &d, &mut to_server, &mut vec![]).unwrap();
            }
        }
        assert!(server.opened().is_some());
    }
}

#[test]
fn an_endpoint_and_a_client_can_go_to_another_thread() {
    fn can<T: Send>() {}
    can::<dtls::Endpoint>();
    can::<dtls::Client>();
}

#[test]
fn where_nothing_is_kept_the_peer_is_told_goodbye_too() {
    let settings = Settings { durable: false, ..Settings::default() };
    let mut server = Server::new(settings, Table::of(&[("dev", &["secret"])]));
    let mut peer = Peer::simple(address(1));
    let id = peer.open(&mut server).unwrap();
    peer.say(&mut server, b"hello");
    let answer = server.seal(id, b"hello yourself").unwrap();
    assert!(peer.hear(&server, &answer));
    server.close(id);
    let goodbye = server.sent_to(peer.at).remove(0);
    let heard = peer.client.receive(server.now, &goodbye, &mut vec![], &mut vec![]);
    assert_eq!(heard, Err(dtls::ClientError::Closed));
}

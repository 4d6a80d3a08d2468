//! Associations that sleep.

use std::time::Duration;

use dtls::{ClientSettings, Closed, Reason, Settings, Suite};

use crate::net::{Peer, Server, Table, Told, address};

const IDLE: Duration = Duration::from_secs(31);

#[test]
fn an_idle_association_is_parked_and_goes_on_with_its_next_record() {
    for cid in [None, Some(vec![])] {
        let mut server = Server::simple();
        let mut peer =
            Peer::new(address(1), &ClientSettings { cid, ..ClientSettings::psk(b"dev", b"secret") });
        let id = peer.open(&mut server).unwrap();
        for n in 0..5 {
            server.pass(IDLE);
            assert_eq!(server.endpoint.counts().parked, 1);
            peer.say(&mut server, &[n]);
            assert_eq!(server.endpoint.counts().active, 1);
            let answer = server.seal(id, &[n]).unwrap();
            assert!(peer.hear(&server, &answer));
        }
        assert_eq!(server.payloads(), [[0], [1], [2], [3], [4]]);
        assert_eq!(server.drops(), []);
    }
}

#[test]
fn what_is_sent_to_a_parked_association_wakes_it() {
    let mut server = Server::simple();
    let mut peer = Peer::simple(address(1));
    let id = peer.open(&mut server).unwrap();
    server.pass(IDLE);
    for n in 0..3 {
        let d = server.seal(id, &[n]).unwrap();
        assert!(peer.hear(&server, &d));
    }
    assert_eq!(server.endpoint.counts().active, 1);
    server.pass(IDLE);
    assert_eq!(server.endpoint.counts().parked, 1);
}

#[test]
fn who_talks_is_not_parked() {
    let mut server = Server::simple();
    let mut peer = Peer::simple(address(1));
    peer.open(&mut server).unwrap();
    for _ in 0..100 {
        server.pass(Duration::from_secs(20));
        peer.say(&mut server, b"awake");
        assert_eq!(server.endpoint.counts().active, 1);
    }
}

#[test]
fn every_psk_suite_can_be_parked() {
    for suite in Suite::all().filter(|s| s.is_psk()) {
        let mut server = Server::simple();
        let settings = ClientSettings { suites: vec![suite], ..ClientSettings::psk(b"dev", b"secret") };
        let mut peer = Peer::new(address(1), &settings);
        let id = peer.open(&mut server).unwrap();
        server.pass(IDLE);
        assert_eq!(server.endpoint.counts().parked, 1, "{suite}");
        peer.say(&mut server, b"hello");
        assert_eq!(server.payloads(), [b"hello"], "{suite}");
        let d = server.seal(id, b"x").unwrap();
        assert!(peer.hear(&server, &d), "{suite}");
    }
}

#[test]
fn a_thousand_sleep_and_wake_from_other_addresses() {
    let keys = Table::of(&[("dev", &["secret"])]);
    let mut server = Server::new(Settings { max_per_identity: 2000, ..Settings::default() }, keys);
    let mut peers: Vec<Peer> = (0..1000).map(|n| Peer::simple(address(n))).collect();
    let ids: Vec<_> = peers.iter_mut().map(|p| p.open(&mut server).unwrap()).collect();
    server.pass(IDLE);
    assert_eq!((server.endpoint.counts().parked, server.endpoint.counts().active), (1000, 0));
    let bytes = server.endpoint.counts().parked_bytes;
    assert!(bytes <= 1000 * 320, "{bytes}");
    for (n, peer) in peers.iter_mut().enumerate() {
        peer.at = address(2000 + n as u16);
        peer.say(&mut server, &(n as u16).to_be_bytes());
        let d = server.seal(ids[n], b"good morning").unwrap();
        assert!(peer.hear(&server, &d));
    }
    assert_eq!(server.payloads().len(), 1000);
    assert_eq!(server.endpoint.counts().parked_bytes, 0);
    assert_eq!(server.drops(), []);
}

#[test]
fn a_parked_association_is_shown_and_can_be_closed() {
    let mut server = Server::simple();
    let mut peer = Peer::simple(address(1));
    let id = peer.open(&mut server).unwrap();
    let mut shown = server.endpoint.show(server.now, id).unwrap();
    assert!(!shown.is_parked);
    server.pass(IDLE);
    shown.is_parked = true;
    shown.idle = IDLE;
    assert_eq!(server.endpoint.show(server.now, id), Some(shown));
    server.close(id);
    assert!(server.told.contains(&Told::Closed(id, Closed::ByUs)));
    assert_eq!(server.endpoint.counts().parked_bytes, 0);
    let goodbye = server.sent_to(peer.at).remove(0);
    assert_eq!(
        peer.client.receive(server.now, &goodbye, &mut vec![], &mut vec![]),
        Err(dtls::ClientError::Closed)
    );
}

#[test]
fn forged_and_replayed_records_leave_it_parked_and_are_not_tried_without_end() {
    let mut server = Server::simple();
    let mut peer = Peer::simple(address(1));
    peer.open(&mut server).unwrap();
    let first = peer.client.seal(server.now, b"first").unwrap();
    server.receive(peer.at, &first);
    server.pass(IDLE);
    server.drops();
    server.receive(address(66), &first);
    assert_eq!(server.drops(), [Reason::Replay]);
    let good = peer.client.seal(server.now, b"second").unwrap();
    let mut forged = good.clone();
    *forged.last_mut().unwrap() ^= 1;
    for _ in 0..20 {
        server.receive(address(66), &forged);
    }
    let drops = server.drops();
    assert_eq!(drops.iter().filter(|r| **r == Reason::BadMac).count(), 8);
    assert_eq!(drops.iter().filter(|r| **r == Reason::TooManyBadMacs).count(), 12);
    assert_eq!(server.endpoint.counts().parked, 1);
    server.pass(Duration::from_secs(1));
    server.receive(peer.at, &good);
    assert_eq!(server.payloads(), [b"second"]);
}

#[test]
fn who_forges_from_elsewhere_does_not_keep_a_peer_asleep_that_is_where_it_was() {
    let mut server = Server::simple();
    let mut peer = Peer::simple(address(1));
    let id = peer.open(&mut server).unwrap();
    peer.say(&mut server, b"first");
    server.pass(IDLE);
    server.told.clear();
    let good = peer.client.seal(server.now, b"second").unwrap();
    let mut forged = good.clone();
    *forged.last_mut().unwrap() ^= 1;
    for _ in 0..20 {
        server.receive(address(66), &forged);
    }
    // One that has moved is not told from who forges; it is heard in the next second.
    server.receive(address(2), &good);
    assert_eq!(server.payloads(), [b""; 0]);
    server.receive(peer.at, &good);
    assert_eq!(server.payloads(), [b"second"]);
    assert_eq!(server.endpoint.address(id), Some(peer.at));
}

//! Records of an association that is open.

use dtls::{ClientSettings, Closed, NotSent, Reason, Settings};

use crate::net::{Dice, Peer, Server, Table, Told, address};

fn open(cid: Option<Vec<u8>>) -> (Server, Peer, dtls::Id) {
    let mut server = Server::simple();
    let mut peer = Peer::new(address(1), &ClientSettings { cid, ..ClientSettings::psk(b"dev", b"secret") });
    let id = peer.open(&mut server).unwrap();
    server.told.clear();
    (server, peer, id)
}

/// Whether each record told was the newest.
fn newest(server: &Server) -> Vec<bool> {
    server
        .told
        .iter()
        .filter_map(|t| if let Told::Data { is_newest, .. } = t { Some(*is_newest) } else { None })
        .collect()
}

#[test]
fn a_record_is_read_once() {
    for cid in [None, Some(vec![])] {
        let (mut server, mut peer, _) = open(cid);
        let d = peer.client.seal(server.now, b"once").unwrap();
        for _ in 0..3 {
            server.receive(peer.at, &d);
        }
        assert_eq!(server.payloads(), [b"once"]);
        assert_eq!(server.drops(), [Reason::Replay, Reason::Replay]);
    }
}

#[test]
fn of_records_out_of_order_only_those_that_pass_all_before_are_newest() {
    let (mut server, mut peer, _) = open(Some(vec![]));
    let d: Vec<_> = (0..5).map(|n| peer.client.seal(server.now, &[n]).unwrap()).collect();
    for n in [1, 0, 3, 2, 4] {
        server.receive(peer.at, &d[n]);
    }
    assert_eq!(server.payloads(), [[1], [0], [3], [2], [4]]);
    assert_eq!(newest(&server), [true, false, true, false, true]);
}

#[test]
fn a_record_older_than_the_window_is_a_replay() {
    let (mut server, mut peer, _) = open(Some(vec![]));
    let d: Vec<_> = (0..66).map(|n| peer.client.seal(server.now, &[n]).unwrap()).collect();
    server.receive(peer.at, &d[65]);
    server.receive(peer.at, &d[0]);
    server.receive(peer.at, &d[2]);
    assert_eq!(server.payloads(), [[65], [2]]);
    assert_eq!(server.drops(), [Reason::Replay]);
}

#[test]
fn with_a_connection_id_records_come_from_anywhere_and_the_caller_says_when_it_moved() {
    let (mut server, mut peer, id) = open(Some(vec![]));
    peer.at = address(2);
    peer.say(&mut server, b"from a new port");
    assert!(server.told.contains(&Told::Data {
        id,
        from: address(2),
        is_newest: true,
        payload: b"from a new port".to_vec()
    }));
    assert_eq!(server.endpoint.address(id), Some(address(1)));
    server.endpoint.moved(id, address(2));
    assert_eq!(server.endpoint.address(id), Some(address(2)));
    // The store hears of the address though no record came.
    server.told.clear();
    assert!(server.endpoint.next_timeout().is_some_and(|at| at <= server.now.instant));
    server.timeout();
    assert!(matches!(server.told[..], [Told::KeepNumbers(kept, ..)] if kept == id));
}

#[test]
fn without_a_connection_id_an_association_has_one_address() {
    let (mut server, mut peer, id) = open(None);
    peer.at = address(2);
    peer.say(&mut server, b"from a new port");
    assert_eq!(server.drops(), [Reason::UnknownAddress]);
    server.endpoint.moved(id, address(2));
    assert_eq!(server.endpoint.address(id), Some(address(1)));
}

#[test]
fn however_many_records_are_forged_none_closes_or_moves_an_association() {
    for cid in [None, Some(vec![])] {
        let has_cid = cid.is_some();
        let (mut server, mut peer, id) = open(cid);
        let d = peer.client.seal(server.now, b"a good record that is changed").unwrap();
        let mut dice = Dice(7);
        let from = if has_cid { address(66) } else { address(1) };
        for _ in 0..20_000 {
            let mut forged = d.clone();
            let at = dice.roll(forged.len() as u64) as usize;
            forged[at] ^= 1 << dice.roll(8);
            server.receive(from, &forged);
        }
        assert_eq!(server.payloads(), [b""; 0]);
        assert!(!server.told.iter().any(|t| matches!(t, Told::Closed(..))));
        assert!(server.drops().len() >= 20_000);
        assert_eq!(server.endpoint.address(id), Some(address(1)));
        server.receive(peer.at, &d);
        assert_eq!(server.payloads(), [b"a good record that is changed"]);
    }
}

#[test]
fn a_record_of_an_unknown_id_or_address_is_dropped() {
    let (_, mut stranger, _) = open(Some(vec![]));
    let (mut server, ..) = open(Some(vec![]));
    stranger.say(&mut server, b"x");
    let (_, mut stranger, _) = open(None);
    stranger.at = address(3);
    stranger.say(&mut server, b"x");
    assert_eq!(server.drops(), [Reason::UnknownId, Reason::UnknownAddress]);
}

#[test]
fn close_notify_of_the_peer_is_answered_and_ends_the_association() {
    for cid in [None, Some(vec![])] {
        let (mut server, mut peer, id) = open(cid);
        let goodbye = peer.client.close(server.now).unwrap();
        server.receive(peer.at, &goodbye);
        assert_eq!(server.told, [Told::Closed(id, Closed::ByPeer), Told::Forget(id)]);
        let answer = server.sent_to(peer.at).remove(0);
        assert!(peer.client.receive(server.now, &answer, &mut vec![], &mut vec![]).is_err());
        assert_eq!(server.endpoint.counts(), dtls::Counts::default());
        assert_eq!(server.seal(id, b"too late"), Err(NotSent::Unknown));
    }
}

#[test]
fn close_says_close_notify() {
    let (mut server, mut peer, id) = open(Some(vec![5, 6]));
    server.close(id);
    assert_eq!(server.told, [Told::Closed(id, Closed::ByUs), Told::Forget(id)]);
    let goodbye = server.sent_to(peer.at).remove(0);
    let heard = peer.client.receive(server.now, &goodbye, &mut vec![], &mut vec![]);
    assert_eq!(heard, Err(dtls::ClientError::Closed));
}

#[test]
fn several_records_of_one_datagram_are_all_read() {
    let (mut server, mut peer, _) = open(None);
    let mut d = vec![];
    for payload in [b"a", b"b", b"c"] {
        d.extend(peer.client.seal(server.now, payload).unwrap());
    }
    server.receive(peer.at, &d);
    assert_eq!(server.payloads(), [b"a", b"b", b"c"]);
}

#[test]
fn numbers_are_told_before_the_data_that_moved_them() {
    let (mut server, mut peer, id) = open(Some(vec![]));
    peer.say(&mut server, b"x");
    assert!(matches!(&server.told[..], [Told::KeepNumbers(kept, ..), Told::Data { .. }] if *kept == id));
}

#[test]
fn a_payload_of_the_longest_length_fits_the_mtu_and_a_longer_one_is_refused() {
    for mtu in [256, 300, 1232, 4096] {
        for cid in [None, Some(vec![0; 8])] {
            let mut server =
                Server::new(Settings { mtu, ..Settings::default() }, Table::of(&[("dev", &["secret"])]));
            let settings = ClientSettings { cid, ..ClientSettings::psk(b"dev", b"secret") };
            let mut peer = Peer::new(address(1), &settings);
            let id = peer.open(&mut server).unwrap();
            let payload = vec![9; server.endpoint.max_payload()];
            let d = server.seal(id, &payload).unwrap();
            assert!(d.len() <= usize::from(mtu), "{} of {mtu}", d.len());
            assert!(peer.hear(&server, &d));
            assert_eq!(peer.received, [payload]);
            assert_eq!(server.seal(id, &vec![9; usize::from(mtu)]), Err(NotSent::TooLong));
        }
    }
}

#[test]
fn seal_refuses_when_the_reserved_numbers_are_used_up_and_goes_on_when_more_are_kept() {
    let keys = Table::of(&[("dev", &["secret"])]);
    let mut server = Server::new(Settings { number_block: 10, ..Settings::default() }, keys);
    let id = Peer::simple(address(1)).open(&mut server).unwrap();
    server.told.clear();
    for n in 0..10 {
        assert!(server.seal(id, b"x").is_ok(), "{n}");
    }
    assert_eq!(server.seal(id, b"x"), Err(NotSent::NotReserved));
    // The next block was asked for once, at half of this one.
    server.timeout();
    assert_eq!(server.told.len(), 1);
    assert_eq!(server.seal(id, b"x"), Err(NotSent::NotReserved));
    server.kept();
    for _ in 0..10 {
        assert!(server.seal(id, b"x").is_ok());
    }
    assert_eq!(server.seal(id, b"x"), Err(NotSent::NotReserved));
}

#[test]
fn a_store_that_keeps_up_is_never_waited_for() {
    let keys = Table::of(&[("dev", &["secret"])]);
    let mut server = Server::new(Settings { number_block: 10, ..Settings::default() }, keys);
    let id = Peer::simple(address(1)).open(&mut server).unwrap();
    for _ in 0..1000 {
        server.seal(id, b"x").unwrap();
        server.pass(std::time::Duration::from_millis(1));
        server.kept();
        server.told.clear();
    }
}

#[test]
fn without_a_store_nothing_is_kept_and_nothing_is_reserved() {
    let keys = Table::of(&[("dev", &["secret"])]);
    let mut server = Server::new(Settings { durable: false, number_block: 2, ..Settings::default() }, keys);
    let mut peer = Peer::simple(address(1));
    let id = peer.open(&mut server).unwrap();
    peer.say(&mut server, b"x");
    for _ in 0..100 {
        server.seal(id, b"x").unwrap();
    }
    server.close(id);
    assert!(
        server.told.iter().all(|t| matches!(t, Told::Opened { .. } | Told::Data { .. } | Told::Closed(..)))
    );
}

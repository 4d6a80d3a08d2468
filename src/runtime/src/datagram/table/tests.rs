use std::sync::atomic::AtomicUsize;

use gateway::{Factory, Gateway, Listener};

use super::*;
use crate::config::{Carrier, ListenerSetup};

struct Nothing;

impl Factory for Nothing {
    fn build(&self) -> Box<dyn Gateway> {
        unreachable!()
    }
}

fn table(max_connections: usize) -> Table {
    let listener = Listener::new("udp", "coap");
    let setup =
        ListenerSetup { max_connections, ..ListenerSetup::new("udp", "coap", at(1), Carrier::Datagram) };
    let (facts, factory) = (Arc::new(listener), Arc::new(Nothing));
    Table::new(Arc::new(Port {
        facts,
        setup,
        factory,
        tls: None,
        psk_tls: None,
        open: AtomicUsize::new(0),
        associations: Default::default(),
    }))
}

fn at(port: u16) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, 1], port))
}

fn add(table: &mut Table, port: u16) -> Peer {
    assert!(table.heard((at(port), None), &[], 10).is_none());
    table.add(Now::default(), (at(port), None), &[]).unwrap()
}

/// The ports that a message of so many bytes goes to.
fn ports(table: &mut Table, peer: Peer, is_probe: bool, bytes: usize) -> Vec<u16> {
    table.ways(peer, is_probe, bytes).unwrap().into_iter().flatten().map(|(a, _)| a.port()).collect()
}

#[test]
fn a_peer_that_may_have_moved_is_sent_to_both_and_little_to_the_new_address() {
    let mut t = table(10);
    let peer = add(&mut t, 1);
    let stranger = add(&mut t, 2);
    t.rebind(peer, stranger);
    assert_eq!(t.closing, [(stranger, Close::Moved)]);
    t.remove(stranger);
    assert_eq!(t.heard((at(2), None), &[], 10), Some(peer));
    assert_eq!(ports(&mut t, peer, false, 100), [1, 2]);
    assert_eq!(ports(&mut t, peer, false, 100), [1], "136 bytes are free");
    assert_eq!(ports(&mut t, peer, true, 30), [2], "a probe goes to the new one alone");
    assert_eq!(t.heard((at(2), None), &[], 200), Some(peer));
    assert_eq!(ports(&mut t, peer, false, 400), [1, 2], "three times what came from there");
}

#[test]
fn an_address_that_was_reached_is_the_peers_and_the_earlier_one_is_free() {
    let mut t = table(10);
    let peer = add(&mut t, 1);
    let stranger = add(&mut t, 2);
    t.rebind(peer, stranger);
    t.remove(stranger);
    t.reached(peer, at(2));
    assert_eq!(ports(&mut t, peer, false, 10_000), [2]);
    assert_eq!(t.facts(peer).unwrap().address, at(2));
    assert_ne!(add(&mut t, 1), peer);
}

#[test]
fn the_newest_address_is_the_one_that_may_be_and_an_older_one_can_be_reached_still() {
    let mut t = table(10);
    let peer = add(&mut t, 1);
    for port in [2, 3] {
        let stranger = add(&mut t, port);
        t.rebind(peer, stranger);
        t.remove(stranger);
    }
    assert_eq!(ports(&mut t, peer, false, 10), [1, 3]);
    assert!(t.heard((at(2), None), &[], 10).is_none());
    t.reached(peer, at(2));
    assert_eq!(ports(&mut t, peer, false, 10), [2, 3]);
    assert_eq!((t.heard((at(2), None), &[], 10), t.heard((at(3), None), &[], 10)), (Some(peer), Some(peer)));
}

#[test]
fn a_removed_peer_leaves_no_address_behind_and_its_slot_is_another_peer() {
    let mut t = table(1);
    let peer = add(&mut t, 1);
    t.client(peer).unwrap().held = 1;
    assert!(t.add(Now::default(), (at(9), None), &[]).is_none(), "the bound, and nobody who can make room");
    t.may_be_at(peer, (at(2), None));
    t.remove(peer);
    assert!(t.by_address.is_empty() && t.peek(peer).is_none());
    assert_ne!(add(&mut t, 2), peer);
}

#[test]
fn a_peer_that_has_not_moved_leaves_the_other_address_to_who_is_there() {
    let mut table = table(4);
    let peer = add(&mut table, 1);
    let stranger = add(&mut table, 2);
    table.rebind(peer, stranger);
    table.remove(stranger);
    assert_eq!(
        (table.heard((at(2), None), &[], 100), ports(&mut table, peer, false, 50)),
        (Some(peer), vec![1, 2])
    );
    table.stay(peer);
    assert_eq!((table.heard((at(2), None), &[], 10), ports(&mut table, peer, false, 50)), (None, vec![1]));
    assert_eq!(table.heard((at(1), None), &[], 10), Some(peer));
}

#[test]
fn several_peers_behind_one_address_are_told_apart_by_their_nodes() {
    let mut t = table(10);
    let alone = add(&mut t, 1);
    let a = t.add(Now::default(), (at(1), None), b"a").unwrap();
    let b = t.add(Now::default(), (at(1), None), b"b").unwrap();
    assert_eq!(t.heard((at(1), None), b"a", 9), Some(a));
    assert_eq!(t.heard((at(1), None), b"b", 9), Some(b));
    assert_eq!(t.heard((at(1), None), &[], 9), Some(alone));
    t.remove(a);
    assert_eq!(t.heard((at(1), None), b"a", 9), None);
    assert_eq!((t.heard((at(1), None), b"b", 9), t.heard((at(1), None), &[], 9)), (Some(b), Some(alone)));
}

#[test]
fn who_has_lost_its_address_is_sent_nothing_and_does_not_take_it_back() {
    let mut t = table(10);
    let old = add(&mut t, 1);
    t.displace(old);
    assert!(t.heard((at(1), None), &[], 9).is_none() && t.ways(old, false, 9).is_none());
    let new = add(&mut t, 1);
    t.remove(old);
    assert_eq!(t.heard((at(1), None), &[], 9), Some(new));
}

#[test]
fn those_who_are_nobody_make_room_for_those_who_come_the_longest_there_first() {
    let mut table = table(3);
    let all: Vec<Peer> = (1..=3).map(|port| add(&mut table, port)).collect();
    // One has a session, or is about to have one.
    table.client(all[0]).unwrap().is_opening = true;
    for (port, gone) in [(4, all[1]), (5, all[2])] {
        add(&mut table, port);
        assert_eq!(table.closing, [(gone, Close::QuotaExceeded)]);
        table.closing.clear();
        table.remove(gone);
    }
    assert!(table.peek(all[0]).is_some());
    assert_eq!((table.entries.len(), table.leaving), (3, 0));
}

#[test]
fn nobody_makes_room_twice_and_who_is_somebody_not_at_all() {
    let mut table = table(2);
    let all = [add(&mut table, 1), add(&mut table, 2)];
    table.client(all[0]).unwrap().is_opening = true;
    // Whoever is told to go is still there until the turn's end.
    let third = add(&mut table, 3);
    table.client(third).unwrap().held = 1;
    assert_eq!(table.closing, [(all[1], Close::QuotaExceeded)]);
    assert!(table.add(Now::default(), (at(4), None), &[]).is_none());
    table.remove(all[1]);
    assert!(table.add(Now::default(), (at(4), None), &[]).is_none());
}

#[test]
fn a_place_is_found_however_much_room_the_table_has_taken() {
    // One more than a power of two: the memory is for nearly twice as many.
    let mut table = table(257);
    for port in 1..=257 {
        add(&mut table, port);
    }
    for port in 258..1000 {
        add(&mut table, port);
        let (gone, _) = table.closing.pop().unwrap();
        table.remove(gone);
    }
}

//! Pre-shared keys: which are taken, and what is counted.

use std::time::Duration;

use dtls::{ClientSettings, Reason, Settings};

use crate::net::{Peer, Server, Table, address};

fn rotating() -> Server {
    Server::new(Settings::default(), Table::of(&[("dev", &["new", "old"])]))
}

fn peer(key: &[u8]) -> Peer {
    Peer::new(address(1), &ClientSettings::psk(b"dev", key))
}

#[test]
fn the_newest_key_opens_at_once() {
    let mut server = rotating();
    assert!(peer(b"new").open(&mut server).is_some());
    assert_eq!(server.drops(), []);
}

#[test]
fn the_older_key_opens_at_the_second_handshake_within_a_day() {
    let mut server = rotating();
    assert!(peer(b"old").open(&mut server).is_none());
    server.pass(Duration::from_secs(86_000));
    // Whoever tries again does so from another port.
    let mut again = peer(b"old");
    again.at.set_port(5001);
    assert!(again.open(&mut server).is_some());
    assert_eq!(server.drops(), []);
    // That it was taken once says nothing about the next.
    assert!(peer(b"new").open(&mut server).is_some());

    let mut server = rotating();
    assert!(peer(b"old").open(&mut server).is_none());
    server.pass(Duration::from_secs(86_401));
    assert!(peer(b"old").open(&mut server).is_none());
}

#[test]
fn another_address_is_not_given_the_older_key_for_it() {
    let mut server = rotating();
    assert!(peer(b"old").open(&mut server).is_none());
    let mut other = Peer::new(address(2), &ClientSettings::psk(b"dev", b"new"));
    assert!(other.open(&mut server).is_some());
}

#[test]
fn a_key_that_is_neither_is_counted_once_both_were_tried() {
    let mut server = rotating();
    assert!(peer(b"wrong").open(&mut server).is_none());
    assert_eq!(server.drops(), []);
    assert!(peer(b"wrong").open(&mut server).is_none());
    assert_eq!(server.drops(), [Reason::WrongKey]);
    assert!(peer(b"new").open(&mut server).is_some());
}

#[test]
fn a_wrong_key_is_counted_and_leaves_nothing() {
    let mut server = Server::simple();
    assert!(peer(b"wrong").open(&mut server).is_none());
    assert_eq!(server.drops(), [Reason::WrongKey]);
    assert_eq!(server.endpoint.counts(), dtls::Counts::default());
}

#[test]
fn an_unknown_identity_meets_what_a_wrong_key_meets() {
    let mut server = Server::simple();
    let mut seen = vec![];
    for (identity, key, reason) in
        [(&b"dev"[..], &b"wrong"[..], Reason::WrongKey), (b"ved", b"secret", Reason::UnknownIdentity)]
    {
        let mut p = Peer::new(address(1), &ClientSettings::psk(identity, key));
        let mut heard = vec![];
        let mut to_server = vec![];
        p.client.timeout(server.now, &mut to_server).unwrap();
        while !to_server.is_empty() {
            for d in std::mem::take(&mut to_server) {
                server.receive(p.at, &d);
            }
            for d in server.sent_to(p.at) {
                heard.push(d.len());
                let _ = p.client.receive(server.now, &d, &mut to_server, &mut vec![]);
            }
        }
        assert_eq!(server.drops(), [reason]);
        seen.push(heard);
    }
    assert_eq!(seen[0], seen[1]);
}

#[test]
fn an_identity_of_128_bytes_and_a_key_of_64_are_good() {
    let (identity, key) = ("i".repeat(128), "k".repeat(64));
    let mut server = Server::new(Settings::default(), Table::of(&[(&identity, &[&key])]));
    let mut p = Peer::new(address(1), &ClientSettings::psk(identity.as_bytes(), key.as_bytes()));
    assert!(p.open(&mut server).is_some());
}

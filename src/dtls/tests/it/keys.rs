//! Pre-shared keys: which are taken, and what is counted.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use dtls::{ClientSettings, Counts, Found, Identity, Key, Keys, Reason, Settings};

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

/// One key, as long as it is there, and what is there in its place.
struct Fleeting(AtomicBool, Option<&'static [u8]>);

impl Keys for Fleeting {
    fn key(&self, _: &[u8]) -> Found {
        let key = if self.0.load(Ordering::Relaxed) { Some(&b"secret"[..]) } else { self.1 };
        Found { newest: key.and_then(Key::new), older: None }
    }
}

#[test]
fn a_key_that_is_taken_away_or_exchanged_during_the_handshake_opens_nothing() {
    for other in [None, Some(&b"other"[..])] {
        handshake_without(Arc::new(Fleeting(true.into(), other)));
    }
}

fn handshake_without(keys: Arc<Fleeting>) {
    let mut server = Server::new(Settings::default(), keys.clone());
    let mut p = peer(b"secret");
    let mut to_server = vec![];
    p.client.timeout(server.now, &mut to_server).unwrap();
    while !to_server.is_empty() {
        for d in std::mem::take(&mut to_server) {
            // The last flight begins with a record that says the identity; the key goes before what ends it comes.
            let first =
                if server.endpoint.counts().half_open == 1 { 13 + usize::from(d[12]) } else { d.len() };
            server.receive(p.at, &d[..first]);
            if first < d.len() {
                keys.0.store(false, Ordering::Relaxed);
                server.receive(p.at, &d[first..]);
            }
        }
        for d in server.sent_to(p.at) {
            p.client.receive(server.now, &d, &mut to_server, &mut vec![]).unwrap();
        }
    }
    assert!(p.client.is_open() && !keys.0.load(Ordering::Relaxed), "it went as far as that");
    assert_eq!(
        (server.drops(), server.endpoint.counts()),
        (vec![Reason::UnknownIdentity], Counts::default())
    );
}

#[test]
fn an_association_is_forgotten_without_a_word_awake_or_asleep() {
    for sleeps in [false, true] {
        let mut server = Server::simple();
        let mut p = Peer::simple(address(1));
        let id = p.open(&mut server).unwrap();
        p.say(&mut server, b"hello");
        if sleeps {
            server.pass(Duration::from_secs(60));
        }
        assert_eq!(server.endpoint.counts().parked, usize::from(sleeps));
        let all: Vec<_> = server.endpoint.identities().collect();
        assert_eq!(all, [(id, Identity::Psk(b"dev"[..].into()))]);
        server.forget(id);
        assert_eq!((server.endpoint.counts(), server.sent_to(p.at)), (Counts::default(), vec![]));
        server.told.clear();
        p.say(&mut server, b"anybody there?");
        assert_eq!(server.drops(), [Reason::UnknownId]);
    }
}

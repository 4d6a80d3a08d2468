//! Whatever comes, from wherever: no panic, and nobody else suffers.

use proptest::prelude::*;

use crate::net::{Peer, Server, address};

/// Every datagram that a client sends while it opens and talks.
fn recorded(server: &mut Server, peer: &mut Peer) -> Vec<Vec<u8>> {
    let mut all = vec![];
    let mut to_server = vec![];
    peer.client.timeout(server.now, &mut to_server).unwrap();
    while !to_server.is_empty() {
        for d in std::mem::take(&mut to_server) {
            server.receive(peer.at, &d);
            all.push(d);
        }
        for d in server.sent_to(peer.at) {
            peer.client.receive(server.now, &d, &mut to_server, &mut vec![]).unwrap();
        }
    }
    all.push(peer.client.seal(server.now, b"payload").unwrap());
    all
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_are_dropped(datagrams in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 0..20)) {
        let mut server = Server::simple();
        for d in datagrams {
            server.receive(address(1), &d);
            // The same as a record, as a ClientHello, and under a connection id.
            for kind in [20, 21, 22, 23, 25] {
                let mut d = d.clone();
                if d.len() > 26 {
                    d[..5].copy_from_slice(&[kind, 0xfe, 0xfd, 0, 0]);
                    let len = d.len() as u16 - if kind == 25 { 21 } else { 13 };
                    let at = if kind == 25 { 19 } else { 11 };
                    d[at..at + 2].copy_from_slice(&len.to_be_bytes());
                    d[13] = if kind == 22 { 1 } else { d[13] };
                }
                server.receive(address(1), &d);
            }
        }
        prop_assert!(Peer::simple(address(1)).open(&mut server).is_some());
    }

    #[test]
    fn changed_datagrams_of_a_real_handshake_harm_nobody_else(
        changes in prop::collection::vec((0usize..8, any::<prop::sample::Index>(), any::<u8>(), any::<bool>()), 1..60),
    ) {
        let mut server = Server::simple();
        let mut witness = Peer::simple(address(1));
        witness.open(&mut server).unwrap();
        let real = recorded(&mut server, &mut Peer::simple(address(2)));
        for (which, at, byte, is_from_there) in changes {
            let mut d = real[which % real.len()].clone();
            let at = at.index(d.len());
            if byte == 0 { d.truncate(at) } else { d[at] ^= byte }
            server.receive(address(if is_from_there { 2 } else { 3 }), &d);
            let _ = server.sent_to(address(2));
        }
        server.pass(std::time::Duration::from_secs(120));
        // Flights of the handshakes that came to nothing: nobody is there to hear them.
        server.sent.clear();
        server.told.clear();
        witness.say(&mut server, b"still here");
        prop_assert_eq!(server.payloads(), [b"still here"]);
        prop_assert!(Peer::simple(address(2)).open(&mut server).is_some());
        prop_assert_eq!(server.endpoint.counts().half_open, 0);
    }
}

//! What one host that shakes hands without end costs others.

use std::net::{IpAddr, SocketAddr};

use dtls::{ClientSettings, Reason, Settings};

use crate::net::{Peer, Server, Table};

/// Few enough handshakes at a time that a test fills them.
const MOST: usize = 64;

fn server() -> Server {
    let settings = Settings { max_half_open: MOST, ..Settings::default() };
    Server::new(settings, Table::of(&[("dev", &["secret"])]))
}

/// Begins a handshake that it does not go on with.
fn begin(server: &mut Server, at: SocketAddr) {
    let mut peer = Peer::new(at, &ClientSettings::psk(b"dev", b"guess"));
    let mut to_server = vec![];
    peer.client.timeout(server.now, &mut to_server).unwrap();
    server.receive(at, &to_server.remove(0));
    let verify = server.sent_to(at).remove(0);
    peer.client.receive(server.now, &verify, &mut to_server, &mut vec![]).unwrap();
    server.receive(at, &to_server.remove(0));
}

/// Opens an association while between any two of its datagrams more handshakes are begun than there may be.
fn opens_among(server: &mut Server, at: SocketAddr, flood: &mut dyn FnMut(&mut Server)) -> bool {
    let mut peer = Peer::simple(at);
    let mut to_server = vec![];
    peer.client.timeout(server.now, &mut to_server).unwrap();
    while !to_server.is_empty() {
        for d in std::mem::take(&mut to_server) {
            server.receive(at, &d);
            flood(server);
        }
        for d in server.sent_to(at) {
            peer.client.receive(server.now, &d, &mut to_server, &mut vec![]).unwrap();
        }
    }
    peer.client.is_open()
}

#[test]
fn a_host_that_begins_handshakes_without_end_throws_out_its_own_and_nobody_elses() {
    let mut server = server();
    let host: IpAddr = "192.0.2.66".parse().unwrap();
    let mut port = 1024;
    let mut flood = |server: &mut Server| {
        for _ in 0..MOST + 3 {
            port += 1;
            begin(server, SocketAddr::new(host, port));
        }
    };
    flood(&mut server);
    for n in 1..=5 {
        let device = SocketAddr::from(([198, 51, 100, n], 5000));
        assert!(opens_among(&mut server, device, &mut flood), "{device}");
    }
    assert!(server.endpoint.counts().half_open <= MOST);
    assert!(server.drops().contains(&Reason::HalfOpenFull));
}

#[test]
fn the_addresses_of_one_network_of_ipv6_are_one_host() {
    let mut server = server();
    let mut last = 0u16;
    let mut flood = |server: &mut Server| {
        for _ in 0..MOST + 3 {
            last += 1;
            begin(server, SocketAddr::from(([0x2001, 0xdb8, 0, 7, 1, 2, 3, last], 5684)));
        }
    };
    flood(&mut server);
    let device = SocketAddr::from(([0x2001, 0xdb8, 0, 8, 0, 0, 0, 1], 5684));
    assert!(opens_among(&mut server, device, &mut flood));
}

#[test]
fn where_every_handshake_is_another_hosts_the_oldest_makes_room() {
    let mut server = server();
    for n in 0..=MOST as u8 {
        begin(&mut server, SocketAddr::from(([203, 0, 113, n], 5684)));
    }
    assert_eq!(server.drops(), [Reason::HalfOpenFull]);
    assert_eq!(server.endpoint.counts().half_open, MOST);
    // The second is still there: what it sends again belongs to a handshake.
    server.receive(
        SocketAddr::from(([203, 0, 113, 1], 5684)),
        &[22, 0xfe, 0xfd, 0, 0, 0, 0, 0, 0, 0, 9, 0, 1, 0],
    );
    assert!(!server.drops().contains(&Reason::UnknownAddress));
    server.receive(
        SocketAddr::from(([203, 0, 113, 0], 5684)),
        &[22, 0xfe, 0xfd, 0, 0, 0, 0, 0, 0, 0, 9, 0, 1, 0],
    );
    assert_eq!(server.drops(), [Reason::UnknownAddress]);
}

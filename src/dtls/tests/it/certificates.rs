//! Handshakes with certificates. How `pem/` was made stands in its README.

use dtls::{Certificates, ClientSettings, Id, Identity, Proof, Reason, Settings, SettingsError, Suite};

use crate::net::{Peer, Server, Table, Told, address};

macro_rules! pem {
    ($name:literal) => {
        include_bytes!(concat!("../pem/", $name)).to_vec()
    };
}

fn server(require: bool, is_rsa: bool, mtu: u16) -> Server {
    let (chain_pem, key_pem) = if is_rsa {
        (pem!("server_rsa.pem"), pem!("server_rsa.key"))
    } else {
        (pem!("server.pem"), pem!("server.key"))
    };
    let certificates = Certificates { chain_pem, key_pem, client_ca_pem: Some(pem!("ca.pem")), require };
    let settings = Settings { mtu, certificates: Some(certificates), ..Settings::default() };
    Server::new(settings, Table::of(&[("dev", &["secret"])]))
}

fn client(chain_pem: Vec<u8>, key_pem: Vec<u8>) -> ClientSettings {
    ClientSettings {
        proof: Proof::Certificate { chain_pem, key_pem, ca_pem: pem!("ca.pem"), host: "gateway.test".into() },
        suites: Suite::all().filter(|s| !s.is_psk()).collect(),
        cid: Some(vec![]),
        mtu: 1232,
    }
}

fn open(server: &mut Server, settings: &ClientSettings) -> (Peer, Option<Id>) {
    let mut peer = Peer::new(address(1), settings);
    let id = peer.open(server);
    (peer, id)
}

fn identity(server: &Server) -> &Identity {
    server
        .told
        .iter()
        .find_map(|t| if let Told::Opened { identity, .. } = t { Some(identity) } else { None })
        .unwrap()
}

#[test]
fn every_suite_with_certificates_opens_can_be_parked_and_goes_on() {
    for suite in Suite::all().filter(|s| !s.is_psk()) {
        let mut server = server(true, suite.name().contains("RSA"), 1232);
        let settings =
            ClientSettings { suites: vec![suite], ..client(pem!("client.pem"), pem!("client.key")) };
        let (mut peer, id) = open(&mut server, &settings);
        let id = id.unwrap_or_else(|| panic!("{suite}"));
        assert_eq!(server.endpoint.show(server.now, id).unwrap().suite, suite);
        server.pass(std::time::Duration::from_secs(31));
        assert_eq!(server.endpoint.counts().parked, 1);
        assert!(server.endpoint.counts().parked_bytes <= 384, "{}", server.endpoint.counts().parked_bytes);
        peer.say(&mut server, b"hello");
        assert_eq!(server.payloads(), [b"hello"], "{suite}");
    }
}

#[test]
fn the_identity_is_the_common_name_and_the_digest_of_the_der() {
    let mut server = server(true, false, 1232);
    open(&mut server, &client(pem!("client.pem"), pem!("client.key")));
    let Identity::Certificate { common_name, fingerprint } = identity(&server) else { panic!() };
    assert_eq!(common_name.as_deref(), Some("device-1"));
    // openssl x509 -in client.pem -noout -fingerprint -sha256
    let hex: String = fingerprint.iter().map(|b| format!("{b:02X}")).collect::<Vec<_>>().join(":");
    assert_eq!(hex, include_str!("../pem/client.sha256").trim());
}

#[test]
fn flights_are_cut_to_an_mtu_of_300() {
    let mut server = server(true, false, 300);
    let settings = ClientSettings { mtu: 300, ..client(pem!("client.pem"), pem!("client.key")) };
    let mut longest = 0;
    let mut peer = Peer::new(address(1), &settings);
    let mut to_server = vec![];
    peer.client.timeout(server.now, &mut to_server).unwrap();
    while !to_server.is_empty() {
        for d in std::mem::take(&mut to_server) {
            longest = longest.max(d.len());
            server.receive(peer.at, &d);
        }
        for d in server.sent_to(peer.at) {
            longest = longest.max(d.len());
            peer.client.receive(server.now, &d, &mut to_server, &mut vec![]).unwrap();
        }
    }
    assert!(server.opened().is_some());
    assert!(longest <= 300, "{longest}");
}

#[test]
fn flights_in_many_fragments_survive_loss() {
    let mut dice = crate::net::Dice(3);
    let settings = ClientSettings { mtu: 400, ..client(pem!("client.pem"), pem!("client.key")) };
    let opened = (0..10)
        .filter(|n| {
            let mut server = server(true, false, 400);
            Peer::new(address(*n), &settings).open_over(&mut server, &mut || dice.roll(10) < 1)
        })
        .count();
    assert!(opened >= 9, "{opened} of 10");
}

#[test]
fn a_client_without_a_certificate_is_nobody_or_is_turned_away() {
    let mut lenient = server(false, false, 1232);
    open(&mut lenient, &client(vec![], vec![]));
    assert_eq!(identity(&lenient), &Identity::Nobody);
    let mut strict = server(true, false, 1232);
    assert!(open(&mut strict, &client(vec![], vec![])).1.is_none());
    assert_eq!(strict.drops()[0], Reason::HandshakeFailed);
}

#[test]
fn those_who_prove_nothing_are_not_counted_as_one() {
    let mut server = server(false, false, 1232);
    let settings = client(vec![], vec![]);
    let peers: Vec<_> = (1..=9)
        .map(|n| {
            let mut peer = Peer::new(address(n), &settings);
            assert!(peer.open(&mut server).is_some());
            peer
        })
        .collect();
    assert_eq!((peers.len(), server.endpoint.counts().active), (9, 9));
}

#[test]
fn a_certificate_of_another_authority_or_out_of_date_is_turned_away_also_where_none_is_required() {
    for require in [true, false] {
        for (chain, key) in
            [(pem!("stranger.pem"), pem!("stranger.key")), (pem!("expired.pem"), pem!("expired.key"))]
        {
            let mut server = server(require, false, 1232);
            assert!(open(&mut server, &client(chain, key)).1.is_none());
            assert_eq!(server.drops(), [Reason::HandshakeFailed]);
            assert_eq!(server.endpoint.counts(), dtls::Counts::default());
        }
    }
}

#[test]
fn a_server_with_certificates_takes_keys_too() {
    let mut server = server(true, false, 1232);
    let (_, id) = open(&mut server, &ClientSettings::psk(b"dev", b"secret"));
    assert!(id.is_some());
    assert_eq!(identity(&server), &Identity::Psk(b"dev".as_slice().into()));
}

#[test]
fn settings_that_cannot_be_are_named() {
    let good =
        Certificates { chain_pem: pem!("server.pem"), key_pem: pem!("server.key"), ..Default::default() };
    let with = |c: Certificates| Settings { certificates: Some(c), ..Settings::default() };
    let no_pem = || b"no certificate".to_vec();
    let cases = [
        (with(Certificates { chain_pem: no_pem(), ..good.clone() }), SettingsError::Chain),
        (with(Certificates { key_pem: no_pem(), ..good.clone() }), SettingsError::Key),
        (with(Certificates { key_pem: pem!("client.key"), ..good.clone() }), SettingsError::KeyOfAnother),
        (with(Certificates { client_ca_pem: Some(no_pem()), ..good }), SettingsError::ClientAuthorities),
        (Settings { mtu: 255, ..Settings::default() }, SettingsError::Mtu),
        (Settings { max_half_open: 0, ..Settings::default() }, SettingsError::Zero),
        (Settings { suites: vec![Suite(0xc0ae)], ..Settings::default() }, SettingsError::Suites),
        (Settings { suites: vec![Suite(0xc0a8), Suite(1)], ..Settings::default() }, SettingsError::Suites),
    ];
    for (settings, wrong) in cases {
        let made = dtls::Endpoint::new(settings, Table::of(&[]), &[0; 32]);
        assert_eq!(made.err(), Some(wrong));
    }
}

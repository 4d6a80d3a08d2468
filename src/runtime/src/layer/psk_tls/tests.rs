//! OpenSSL's client against the layer.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;

/// The keys of a file, and how often one failed.
struct Table {
    keys: auth::psk::Keys,
    failed: AtomicUsize,
    turned: AtomicUsize,
}

const TEXT: &str = "meter dev-1 - 000102030405060708090a0b0c0d0e0f\nvalve dev-2 - 01 02 -\n";
const METER: &[u8] = &[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15];

impl Keys for Table {
    fn psk(&self, now: Now, identity: &[u8], address: IpAddr) -> Offer {
        assert_eq!(address, IpAddr::from([192, 0, 2, 1]), "the client's, as the PROXY header says");
        let offer = self.keys.offer(now.wall_ms, &[7; 32], identity);
        match offer.other {
            Some(other) if self.turned.load(Ordering::Relaxed) == 1 => {
                Offer { key: other, other: None, ..offer }
            }
            other => Offer { other, ..offer },
        }
    }

    fn psk_failed(&self, _: Now, identity: &[u8], _: IpAddr) {
        self.failed.fetch_add(1, Ordering::Relaxed);
        if identity == b"valve" {
            self.turned.fetch_xor(1, Ordering::Relaxed);
        }
    }

    fn client_id(&self, identity: &str) -> Option<Arc<str>> {
        self.keys.find(identity.as_bytes()).map(|e| e.client_id.into())
    }
}

struct World {
    config: PskConfig,
    table: Arc<Table>,
}

impl World {
    fn new(only_1_3: bool) -> World {
        let (keys, mistakes) = auth::psk::Keys::decode("psk", TEXT);
        assert_eq!(mistakes, []);
        let table = Table { keys, failed: AtomicUsize::new(0), turned: AtomicUsize::new(0) };
        let config = PskConfig::new(config::PskTls { only_1_3 }, "mqtt").unwrap();
        World { config, table: Arc::new(table) }
    }

    fn pair(&self, client: SslContextBuilder) -> Pair {
        let client = SslStream::new(Ssl::new(&client.build()).unwrap(), Wire::default()).unwrap();
        let server = self.config.accept(self.table.clone(), IpAddr::from([127, 0, 0, 1]));
        let facts = Learnt { address: Some("192.0.2.1:5000".parse().unwrap()), ..Learnt::default() };
        Pair { client, server, plain: BytesMut::new(), facts }
    }

    fn failed(&self) -> usize {
        self.table.failed.load(Ordering::Relaxed)
    }
}

/// A client of this version that says this identity and has this key.
fn client(version: SslVersion, identity: &'static str, key: &'static [u8]) -> SslContextBuilder {
    let mut context = SslContextBuilder::new(SslMethod::tls_client()).unwrap();
    context.set_min_proto_version(Some(version)).unwrap();
    context.set_max_proto_version(Some(version)).unwrap();
    context.set_cipher_list("PSK:ECDHE-PSK-CHACHA20-POLY1305:@SECLEVEL=0").unwrap();
    context.set_psk_client_callback(move |_, _, name, room| {
        name[..identity.len()].copy_from_slice(identity.as_bytes());
        name[identity.len()] = 0;
        room[..key.len()].copy_from_slice(key);
        Ok(key.len())
    });
    context
}

struct Pair {
    client: SslStream<Wire>,
    server: Box<dyn Layer>,
    plain: BytesMut,
    facts: Learnt,
}

impl Pair {
    /// Hands what the client has said to the layer in pieces, and its reply to the client, until nobody says anything.
    fn pump(&mut self, piece: usize) -> Result<(), Close> {
        loop {
            if !self.client.ssl().is_init_finished() {
                // An alert is looked at by the test.
                let _ = self.client.connect();
            }
            let said = std::mem::take(&mut self.client.get_mut().to);
            if said.is_empty() {
                return Ok(());
            }
            for bytes in said.chunks(piece) {
                let (mut wire, mut reply) = (BytesMut::from(bytes), Vec::new());
                let result =
                    self.server.open(Now::default(), &mut wire, &mut self.plain, &mut reply, &mut self.facts);
                assert!(wire.is_empty());
                self.client.get_mut().from.extend_from_slice(&reply);
                result?;
            }
        }
    }

    /// Why the client gave up.
    fn alert(&mut self) -> String {
        self.client.connect().err().map(|e| e.to_string()).unwrap_or_else(|| {
            let error = self.client.ssl_read(&mut [0; 16]).unwrap_err();
            error.to_string()
        })
    }

    fn seal(&mut self, bytes: &[u8]) {
        let (mut plain, mut wire) = (bytes.to_vec(), Vec::new());
        self.server.seal(Now::default(), &mut plain, &mut wire).unwrap();
        assert!(plain.is_empty());
        self.client.get_mut().from.extend_from_slice(&wire);
    }

    fn read(&mut self, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        self.client.read_exact(&mut bytes).unwrap();
        bytes
    }
}

#[test]
fn every_version_carries_bytes_however_they_are_cut() {
    let world = World::new(false);
    let large: Vec<u8> = (0..100_000u32).map(|i| i as u8).collect();
    for version in [SslVersion::TLS1_2, SslVersion::TLS1_3] {
        for piece in [1, 7, 1 << 20] {
            let mut pair = world.pair(client(version, "meter", METER));
            pair.pump(piece).unwrap();
            assert!(pair.server.is_ready() && pair.client.ssl().is_init_finished());
            assert_eq!(pair.facts.psk.as_deref(), Some("meter"));
            assert_eq!(pair.facts.client_id.as_deref(), Some("dev-1"));
            pair.client.write_all(&large).unwrap();
            pair.pump(piece).unwrap();
            assert_eq!(&pair.plain[..], &large[..]);
            pair.seal(&large);
            assert_eq!(pair.read(large.len()), large);
        }
    }
    assert_eq!(world.failed(), 0);
}

#[test]
fn the_suites_of_small_devices_and_those_with_forward_secrecy_are_served() {
    let world = World::new(false);
    for suite in TLS_1_2.split(':').filter(|s| !s.starts_with('@')) {
        let mut context = client(SslVersion::TLS1_2, "meter", METER);
        context.set_cipher_list(&format!("{suite}:@SECLEVEL=0")).unwrap();
        let mut pair = world.pair(context);
        pair.pump(1 << 20).unwrap();
        assert_eq!(pair.client.ssl().current_cipher().unwrap().name(), suite);
        assert!(pair.server.is_ready());
    }
    let mut context = client(SslVersion::TLS1_2, "meter", METER);
    context.set_cipher_list("PSK-AES128-GCM-SHA256:ECDHE-PSK-CHACHA20-POLY1305").unwrap();
    let mut pair = world.pair(context);
    pair.pump(1 << 20).unwrap();
    assert_eq!(pair.client.ssl().current_cipher().unwrap().name(), "ECDHE-PSK-CHACHA20-POLY1305");
}

#[test]
fn a_wrong_key_and_an_unknown_identity_look_the_same_and_are_told_apart_here() {
    for version in [SslVersion::TLS1_2, SslVersion::TLS1_3] {
        let world = World::new(false);
        let mut wrong = world.pair(client(version, "meter", b"another key"));
        assert_eq!(wrong.pump(1 << 20), Err(Close::PskKey));
        let mut unknown = world.pair(client(version, "nobody", METER));
        assert_eq!(unknown.pump(1 << 20), Err(Close::PskIdentity));
        assert_eq!(wrong.alert(), unknown.alert());
        assert_eq!(world.failed(), 2);
        assert_eq!((wrong.facts.psk, unknown.facts.psk), (None, None));
        // It is over: nothing more is read or said.
        let (mut wire, mut said) = (BytesMut::from(&b"x"[..]), Vec::new());
        let again =
            wrong.server.open(Now::default(), &mut wire, &mut wrong.plain, &mut said, &mut Learnt::default());
        wrong.server.close(&mut said);
        assert!(again == Err(Close::Tls) && said.is_empty() && wire.is_empty());
        assert!(wrong.server.seal(Now::default(), &mut vec![1], &mut said).is_err());
    }
}

#[test]
fn the_older_key_opens_at_the_second_attempt() {
    for version in [SslVersion::TLS1_2, SslVersion::TLS1_3] {
        let world = World::new(false);
        world.pair(client(version, "valve", &[1])).pump(1 << 20).unwrap();
        assert_eq!(world.pair(client(version, "valve", &[2])).pump(1 << 20), Err(Close::PskKey));
        let mut pair = world.pair(client(version, "valve", &[2]));
        pair.pump(1 << 20).unwrap();
        assert_eq!(pair.facts.client_id.as_deref(), Some("dev-2"));
    }
}

#[test]
fn who_has_no_key_to_show_does_not_come_in() {
    let world = World::new(false);
    for version in [SslVersion::TLS1_2, SslVersion::TLS1_3] {
        let mut context = SslContextBuilder::new(SslMethod::tls_client()).unwrap();
        context.set_max_proto_version(Some(version)).unwrap();
        let mut pair = world.pair(context);
        assert_eq!(pair.pump(1 << 20), Err(Close::Tls));
        assert!(pair.alert().contains("handshake failure"), "{}", pair.alert());
    }
    let mut pair = World::new(true).pair(client(SslVersion::TLS1_2, "meter", METER));
    assert_eq!(pair.pump(1 << 20), Err(Close::Tls));
    let mut pair = world.pair(client(SslVersion::TLS1_1, "meter", METER));
    assert_eq!(pair.pump(1 << 20), Err(Close::Tls));
    let mut pair = world.pair(client(SslVersion::TLS1_2, "meter", METER));
    let (mut wire, mut reply) = (BytesMut::from(&b"GET / HTTP/1.1\r\n\r\n"[..]), Vec::new());
    let opened = pair.server.open(Now::default(), &mut wire, &mut pair.plain, &mut reply, &mut pair.facts);
    assert_eq!(opened, Err(Close::Tls));
    assert_eq!(world.failed(), 0);
}

#[test]
fn nothing_is_there_to_be_resumed() {
    let world = World::new(false);
    for version in [SslVersion::TLS1_2, SslVersion::TLS1_3] {
        let seen = Arc::new(AtomicUsize::new(0));
        let mut context = client(version, "meter", METER);
        context.set_session_cache_mode(SslSessionCacheMode::CLIENT);
        let count = seen.clone();
        context.set_new_session_callback(move |_, _| {
            count.fetch_add(1, Ordering::Relaxed);
        });
        let mut pair = world.pair(context);
        pair.pump(1 << 20).unwrap();
        pair.seal(b"x");
        assert_eq!(pair.read(1), b"x");
        assert_eq!(seen.load(Ordering::Relaxed), 0, "{version:?}");
    }
}

#[test]
fn the_protocol_may_be_named_and_no_other_is_served() {
    let world = World::new(false);
    for (offered, chosen) in [
        (&b"\x04mqtt"[..], Some(&b"mqtt"[..])),
        (b"\x02h2\x08http/1.1", Some(b"http/1.1")),
        (b"\x04coap", None),
    ] {
        let mut context = client(SslVersion::TLS1_3, "meter", METER);
        context.set_alpn_protos(offered).unwrap();
        let mut pair = world.pair(context);
        assert_eq!(pair.pump(1 << 20).is_ok(), chosen.is_some());
        assert_eq!(pair.client.ssl().selected_alpn_protocol(), chosen);
    }
}

#[test]
fn goodbye_is_said_and_heard_once() {
    let world = World::new(false);
    for version in [SslVersion::TLS1_2, SslVersion::TLS1_3] {
        let mut pair = world.pair(client(version, "meter", METER));
        pair.pump(1 << 20).unwrap();
        let mut wire = Vec::new();
        pair.server.close(&mut wire);
        assert!(!wire.is_empty());
        pair.client.get_mut().from.extend_from_slice(&wire);
        assert_eq!(pair.client.ssl_read(&mut [0; 8]).unwrap_err().code(), ErrorCode::ZERO_RETURN);
        let mut again = Vec::new();
        pair.server.close(&mut again);
        assert!(again.is_empty());

        let mut pair = world.pair(client(version, "meter", METER));
        pair.pump(1 << 20).unwrap();
        pair.client.write_all(b"last").unwrap();
        pair.client.shutdown().unwrap();
        assert_eq!(pair.pump(1 << 20), Err(Close::PeerClosed));
        assert_eq!(&pair.plain[..], b"last");
        pair.seal(b"bye");
        assert_eq!(pair.read(3), b"bye");
    }
}

#[test]
fn flipped_bits_end_the_connection_and_nothing_else() {
    let world = World::new(false);
    for version in [SslVersion::TLS1_2, SslVersion::TLS1_3] {
        for bit in (0..800).step_by(7) {
            let mut pair = world.pair(client(version, "meter", METER));
            pair.pump(1 << 20).unwrap();
            pair.client.write_all(&[5; 100]).unwrap();
            let said = &mut pair.client.get_mut().to;
            let at = bit / 8 % said.len();
            said[at] ^= 1 << (bit % 8);
            // A length that has grown waits for the rest.
            let outcome = pair.pump(1 << 20);
            assert!(pair.plain.is_empty(), "bit {bit}: {outcome:?}");
        }
    }
}

//! TLS 1.2 and 1.3, server side: rustls, driven in memory.
//!
//! ```text
//! ClientHello ->
//!             <- ServerHello … Finished          (CertificateRequest, if client certificates are configured)
//! Finished    ->                                 ready
//! records     <->                                one allocation a record, none kept
//! close_notify ->  or  <- close_notify
//! ```
//!
//! rustls's unbuffered interface works on the bytes it is given, so an idle connection costs its keys and no buffer.

use std::sync::Arc;

use bytes::{Buf, BytesMut};
use gateway::{Close, Now};
use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{ConnectionState, EncodeError, EncryptError, UnbufferedStatus};

use crate::layer::{Layer, Learnt, certificate};

mod config;

pub use config::{TlsConfig, TlsError};

/// Most bytes that wait for the rest of a record or of a handshake message, which RFC 8446, 4 lets be larger; a client's
/// is not, not even with a chain of certificates.
const WAITING: usize = 64 << 10;
/// A record's payload, and more than what encryption adds to it (RFC 8446, 5.2; RFC 5246, 6.2).
const RECORD: (usize, usize) = (16 << 10, 64);

/// See the module.
pub struct Tls {
    connection: UnbufferedServerConnection,
    /// The beginning of a record or handshake message. rustls remembers places in it, so it is always handed in whole.
    rest: BytesMut,
    is_ready: bool,
    /// An error ended it: there is nothing more to read or to say.
    is_over: bool,
}

/// What to do after a state of the connection.
enum Next {
    Again,
    Wait,
    End(Close),
}

impl Tls {
    fn new(connection: UnbufferedServerConnection) -> Tls {
        Tls { connection, rest: BytesMut::new(), is_ready: false, is_over: false }
    }

    /// Processes what is there until more bytes are needed.
    fn process(
        &mut self,
        bytes: &mut BytesMut,
        plain: &mut BytesMut,
        reply: &mut Vec<u8>,
    ) -> Result<(), Close> {
        loop {
            let UnbufferedStatus { discard, state } = self.connection.process_tls_records(bytes);
            let next = match state {
                Ok(state) => step(state, plain, reply),
                Err(error) => {
                    tracing::debug!(%error, "TLS");
                    bytes.advance(discard.min(bytes.len()));
                    self.alert(bytes, reply);
                    return Err(Close::Tls);
                }
            };
            bytes.advance(discard.min(bytes.len()));
            match next {
                Next::Again => {}
                Next::Wait => return Ok(()),
                Next::End(why) => return Err(why),
            }
        }
    }

    /// After an error the alert about it is left to be sent. The connection may not look at its input any more, so it is
    /// asked only while it has something to say.
    fn alert(&mut self, bytes: &mut BytesMut, reply: &mut Vec<u8>) {
        while self.connection.wants_write() {
            let UnbufferedStatus { discard, state } = self.connection.process_tls_records(bytes);
            let Ok(state @ ConnectionState::EncodeTlsData(_)) = state else { return };
            step(state, &mut BytesMut::new(), reply);
            bytes.advance(discard.min(bytes.len()));
        }
    }

    fn learn(&mut self, facts: &mut Learnt) {
        if !self.is_ready && !self.connection.is_handshaking() {
            self.is_ready = true;
            let chain = self.connection.peer_certificates().unwrap_or_default();
            facts.certificate = chain.first().map(|c| Arc::new(certificate::decode(c)));
        }
    }
}

impl Layer for Tls {
    fn open(
        &mut self,
        _: Now,
        wire: &mut BytesMut,
        plain: &mut BytesMut,
        reply: &mut Vec<u8>,
        facts: &mut Learnt,
    ) -> Result<(), Close> {
        if self.is_over {
            wire.clear();
            return Err(Close::Tls);
        }
        let mut bytes = std::mem::take(&mut self.rest);
        if bytes.is_empty() {
            std::mem::swap(&mut bytes, wire);
        } else {
            bytes.extend_from_slice(wire);
            wire.clear();
        }
        let mut result = self.process(&mut bytes, plain, reply);
        if result.is_ok() && bytes.len() > WAITING {
            result = Err(Close::Tls);
        }
        if result == Err(Close::Tls) {
            self.is_over = true;
            return result;
        }
        self.learn(facts);
        // A buffer of its own size: the one that came may be a large one.
        self.rest = if bytes.is_empty() { BytesMut::new() } else { BytesMut::from(&bytes[..]) };
        result
    }

    fn seal(&mut self, _: Now, plain: &mut Vec<u8>, wire: &mut Vec<u8>) -> Result<(), Close> {
        while !self.is_over {
            let UnbufferedStatus { state, .. } = self.connection.process_tls_records(&mut self.rest);
            match state {
                Ok(ConnectionState::WriteTraffic(mut traffic)) => {
                    let room = plain.len() + (plain.len() / RECORD.0 + 2) * RECORD.1;
                    let sealed = append(wire, room, |free| match traffic.encrypt(plain, free) {
                        Err(EncryptError::InsufficientSize(e)) => Err(Some(e.required_size)),
                        other => other.map_err(|_| None),
                    });
                    plain.clear();
                    return sealed;
                }
                Ok(state @ (ConnectionState::EncodeTlsData(_) | ConnectionState::TransmitTlsData(_))) => {
                    step(state, &mut BytesMut::new(), wire);
                }
                // Before the handshake's end nothing can be said.
                _ => break,
            }
        }
        Err(Close::Tls)
    }

    fn is_ready(&self) -> bool {
        self.is_ready
    }

    fn close(&mut self, wire: &mut Vec<u8>) {
        if self.is_over {
            return;
        }
        let UnbufferedStatus { state, .. } = self.connection.process_tls_records(&mut self.rest);
        if let Ok(ConnectionState::WriteTraffic(mut traffic)) = state {
            // A goodbye was said already if it fails.
            let _ = append(wire, RECORD.1, |free| match traffic.queue_close_notify(free) {
                Err(EncryptError::InsufficientSize(e)) => Err(Some(e.required_size)),
                other => other.map_err(|_| None),
            });
        }
    }
}

fn step(
    state: ConnectionState<'_, '_, ServerConnectionData>,
    plain: &mut BytesMut,
    reply: &mut Vec<u8>,
) -> Next {
    match state {
        ConnectionState::ReadTraffic(mut traffic) => {
            while let Some(record) = traffic.next_record() {
                match record {
                    Ok(record) => plain.extend_from_slice(record.payload),
                    Err(_) => return Next::End(Close::Tls),
                }
            }
            Next::Again
        }
        ConnectionState::EncodeTlsData(mut data) => {
            let encoded = append(reply, RECORD.1, |free| match data.encode(free) {
                Err(EncodeError::InsufficientSize(e)) => Err(Some(e.required_size)),
                other => other.map_err(|_| None),
            });
            if encoded.is_ok() { Next::Again } else { Next::End(Close::Tls) }
        }
        ConnectionState::TransmitTlsData(data) => {
            data.done();
            Next::Again
        }
        ConnectionState::BlockedHandshake | ConnectionState::WriteTraffic(_) => Next::Wait,
        ConnectionState::PeerClosed | ConnectionState::Closed => Next::End(Close::PeerClosed),
        // Early data is not offered.
        _ => Next::End(Close::Tls),
    }
}

/// Lets `write` write after the end of `wire`, in `room` bytes and then, if it says so, in as many as it needs.
fn append(
    wire: &mut Vec<u8>,
    room: usize,
    mut write: impl FnMut(&mut [u8]) -> Result<usize, Option<usize>>,
) -> Result<(), Close> {
    let start = wire.len();
    wire.resize(start + room, 0);
    let mut written = write(&mut wire[start..]);
    if let Err(Some(needed)) = written {
        wire.resize(start + needed, 0);
        written = write(&mut wire[start..]);
    }
    wire.truncate(start + written.unwrap_or(0));
    written.map(|_| ()).map_err(|_| Close::Tls)
}

#[cfg(test)]
pub(super) mod tests {
    use std::io::{Read, Write};
    use std::path::PathBuf;

    use rustls::pki_types::pem::PemObject;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer};
    use rustls::version::{TLS12, TLS13};
    use rustls::{ClientConfig, ClientConnection, HandshakeKind, RootCertStore, SupportedProtocolVersion};

    use super::*;
    use crate::config;

    const BOTH: [&SupportedProtocolVersion; 2] = [&TLS12, &TLS13];

    /// A folder with an authority, a server's and a client's certificate.
    pub(in crate::layer) struct Files(PathBuf);

    impl Files {
        pub(in crate::layer) fn new(name: &str) -> Files {
            let folder = std::env::temp_dir().join(format!("tidegate-tls-{name}-{}", std::process::id()));
            std::fs::create_dir_all(&folder).unwrap();
            let files = Files(folder);
            files.issue("ca", "localhost", "dev-7");
            files
        }

        /// A new authority with new certificates for `server` and `client`.
        fn issue(&self, ca: &str, server: &str, client: &str) {
            let key = rcgen::KeyPair::generate().unwrap();
            let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
            params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
            self.write(&format!("{ca}.pem"), &params.self_signed(&key).unwrap().pem());
            let issuer = rcgen::Issuer::new(params, key);
            for (file, name) in [("server", server), ("client", client)] {
                let key = rcgen::KeyPair::generate().unwrap();
                let mut params = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap();
                params.distinguished_name = rcgen::DistinguishedName::new();
                params.distinguished_name.push(rcgen::DnType::CommonName, name);
                self.write(&format!("{file}.pem"), &params.signed_by(&key, &issuer).unwrap().pem());
                self.write(&format!("{file}.key"), &key.serialize_pem());
            }
        }

        fn write(&self, name: &str, text: &str) {
            std::fs::write(self.0.join(name), text).unwrap();
        }

        pub(in crate::layer) fn setup(&self) -> config::Tls {
            config::Tls {
                certificate: self.0.join("server.pem"),
                key: self.0.join("server.key"),
                client_ca: None,
                require_client_certificate: false,
                only_1_3: false,
            }
        }

        fn mutual(&self) -> config::Tls {
            config::Tls {
                client_ca: Some(self.0.join("ca.pem")),
                require_client_certificate: true,
                ..self.setup()
            }
        }

        pub(in crate::layer) fn client(
            &self,
            version: &'static SupportedProtocolVersion,
            is_known: bool,
        ) -> ClientConfig {
            let mut roots = RootCertStore::empty();
            roots.add(CertificateDer::from_pem_file(self.0.join("ca.pem")).unwrap()).unwrap();
            let provider = Arc::new(rustls::crypto::ring::default_provider());
            let builder = ClientConfig::builder_with_provider(provider)
                .with_protocol_versions(&[version])
                .unwrap()
                .with_root_certificates(roots);
            if !is_known {
                return builder.with_no_client_auth();
            }
            let chain = vec![CertificateDer::from_pem_file(self.0.join("client.pem")).unwrap()];
            let key = PrivateKeyDer::from_pem_file(self.0.join("client.key")).unwrap();
            builder.with_client_auth_cert(chain, key).unwrap()
        }
    }

    impl Drop for Files {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    /// A client that others wrote, and the layer.
    struct Pair {
        client: ClientConnection,
        server: Box<dyn Layer>,
        plain: BytesMut,
        facts: Learnt,
    }

    impl Pair {
        fn new(server: &TlsConfig, client: ClientConfig) -> Pair {
            let name = "localhost".try_into().unwrap();
            let mut client = ClientConnection::new(Arc::new(client), name).unwrap();
            client.set_buffer_limit(None);
            Pair { client, server: server.accept(), plain: BytesMut::new(), facts: Learnt::default() }
        }

        /// Hands `bytes` to the layer, and its reply to the client.
        fn give(&mut self, bytes: &[u8]) -> Result<(), Close> {
            let mut reply = Vec::new();
            let mut wire = BytesMut::from(bytes);
            let result =
                self.server.open(Now::default(), &mut wire, &mut self.plain, &mut reply, &mut self.facts);
            assert!(wire.is_empty());
            if result == Err(Close::Tls) {
                // As the driver does; there is nothing left to say.
                let mut said = Vec::new();
                self.server.close(&mut said);
                assert!(
                    self.server.seal(Now::default(), &mut vec![1], &mut said).is_err() && said.is_empty()
                );
            }
            // What the client makes of an alert is looked at by the test.
            let _ = self.take(&reply);
            result
        }

        fn take(&mut self, mut bytes: &[u8]) -> Result<(), rustls::Error> {
            while !bytes.is_empty() {
                self.client.read_tls(&mut bytes).unwrap();
                self.client.process_new_packets()?;
            }
            Ok(())
        }

        fn said(&mut self) -> Vec<u8> {
            let mut bytes = Vec::new();
            while self.client.wants_write() {
                self.client.write_tls(&mut bytes).unwrap();
            }
            bytes
        }

        /// To and fro until nobody has anything to say.
        fn pump(&mut self) -> Result<(), Close> {
            loop {
                let bytes = self.said();
                if bytes.is_empty() {
                    return Ok(());
                }
                self.give(&bytes)?;
            }
        }

        fn seal(&mut self, plain: &[u8]) -> Vec<u8> {
            let (mut plain, mut wire) = (plain.to_vec(), Vec::new());
            self.server.seal(Now::default(), &mut plain, &mut wire).unwrap();
            assert!(plain.is_empty());
            wire
        }
    }

    fn received(client: &mut ClientConnection, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        client.reader().read_exact(&mut bytes).unwrap();
        bytes
    }

    #[test]
    fn both_versions_carry_bytes_both_ways() {
        let files = Files::new("both");
        let config = TlsConfig::load(&files.setup(), "mqtt").unwrap();
        let large: Vec<u8> = (0..100_000u32).map(|i| i as u8).collect();
        for version in BOTH {
            let mut pair = Pair::new(&config, files.client(version, false));
            assert!(!pair.server.is_ready());
            pair.pump().unwrap();
            assert!(pair.server.is_ready());
            assert_eq!(pair.client.protocol_version(), Some(version.version));
            pair.client.writer().write_all(&large).unwrap();
            pair.pump().unwrap();
            assert!(pair.plain == large);
            for piece in large.chunks(25_000) {
                let wire = pair.seal(piece);
                pair.take(&wire).unwrap();
                assert!(received(&mut pair.client, piece.len()) == piece);
            }
            assert_eq!(pair.facts, Learnt::default());
        }
    }

    #[test]
    fn a_client_certificate_is_verified_and_read_also_when_a_session_is_resumed() {
        let files = Files::new("mutual");
        let config = TlsConfig::load(&files.mutual(), "mqtt").unwrap();
        for version in BOTH {
            let client = files.client(version, true);
            for kind in [HandshakeKind::Full, HandshakeKind::Resumed] {
                let mut pair = Pair::new(&config, client.clone());
                pair.pump().unwrap();
                assert_eq!(pair.client.handshake_kind(), Some(kind));
                let certificate = pair.facts.certificate.unwrap();
                assert_eq!(certificate.common_name.as_deref(), Some("dev-7"));
            }
        }
    }

    #[test]
    fn who_has_no_certificate_comes_in_only_where_it_is_optional() {
        let files = Files::new("optional");
        let optional = config::Tls { require_client_certificate: false, ..files.mutual() };
        for version in BOTH {
            let mut pair =
                Pair::new(&TlsConfig::load(&optional, "mqtt").unwrap(), files.client(version, false));
            assert_eq!((pair.pump(), pair.facts.certificate.is_none()), (Ok(()), true));
            let mut pair =
                Pair::new(&TlsConfig::load(&files.mutual(), "mqtt").unwrap(), files.client(version, false));
            assert_eq!((pair.pump(), pair.server.is_ready()), (Err(Close::Tls), false));
        }
    }

    #[test]
    fn a_certificate_of_another_authority_is_refused_with_an_alert() {
        let files = Files::new("stranger");
        let config = TlsConfig::load(&files.mutual(), "mqtt").unwrap();
        files.issue("other", "localhost", "dev-7");
        for version in BOTH {
            let mut pair = Pair::new(&config, files.client(version, true));
            // The server's certificate is from the first authority, which the client knows.
            assert_eq!(pair.pump(), Err(Close::Tls));
            let error = pair.client.process_new_packets().unwrap_err();
            assert!(matches!(error, rustls::Error::AlertReceived(_)), "{error}");
            assert!(!pair.server.is_ready() && pair.facts.certificate.is_none());
        }
    }

    #[test]
    fn a_version_that_is_not_served_is_refused_with_an_alert() {
        let files = Files::new("version");
        let setup = config::Tls { only_1_3: true, ..files.setup() };
        let mut pair = Pair::new(&TlsConfig::load(&setup, "mqtt").unwrap(), files.client(&TLS12, false));
        assert_eq!(pair.pump(), Err(Close::Tls));
        let error = pair.client.process_new_packets().unwrap_err();
        assert_eq!(error, rustls::Error::AlertReceived(rustls::AlertDescription::ProtocolVersion));
    }

    #[test]
    fn a_handshake_may_come_byte_by_byte_and_end_anywhere() {
        let files = Files::new("bytes");
        let config = TlsConfig::load(&files.mutual(), "mqtt").unwrap();
        for version in BOTH {
            let mut client = files.client(version, true);
            // Messages span records.
            client.max_fragment_size = Some(100);
            let mut pair = Pair::new(&config, client);
            loop {
                let bytes = pair.said();
                if bytes.is_empty() {
                    break;
                }
                for byte in bytes {
                    let was_ready = pair.server.is_ready();
                    pair.give(&[byte]).unwrap();
                    if !was_ready && !pair.server.is_ready() {
                        // Goodbye at any point: nothing to say it with, and no panic.
                        assert!(pair.server.seal(Now::default(), &mut vec![1], &mut Vec::new()).is_err());
                        pair.server.close(&mut Vec::new());
                    }
                }
            }
            assert!(pair.server.is_ready());
            pair.client.writer().write_all(b"hello").unwrap();
            for byte in pair.said() {
                pair.give(&[byte]).unwrap();
                let wire = pair.seal(b"x");
                pair.take(&wire).unwrap();
            }
            assert_eq!(&pair.plain[..], b"hello");
        }
    }

    #[test]
    fn no_bit_of_a_client_hello_can_do_harm() {
        let files = Files::new("bits");
        let config = TlsConfig::load(&files.setup(), "mqtt").unwrap();
        let hello = Pair::new(&config, files.client(&TLS13, false)).said();
        for bit in 0..hello.len() * 8 {
            let mut broken = hello.clone();
            broken[bit / 8] ^= 1 << (bit % 8);
            let mut pair = Pair::new(&config, files.client(&TLS13, false));
            if pair.give(&broken).is_err() {
                assert!(!pair.server.is_ready());
            }
        }
    }

    #[test]
    fn what_is_no_tls_ends_at_once() {
        let files = Files::new("garbage");
        let config = TlsConfig::load(&files.setup(), "mqtt").unwrap();
        let mut pair = Pair::new(&config, files.client(&TLS13, false));
        assert_eq!(pair.give(b"\x10\x0c\x00\x04MQTT\x04\x02\x00\x3c\x00\x00"), Err(Close::Tls));
        let mut pair = Pair::new(&config, files.client(&TLS13, false));
        // A handshake message of 16 MiB, of which much comes.
        let mut record = vec![22, 3, 1, 64, 0, 1, 255, 255, 255];
        record.resize(5 + 16_384, 0);
        let result = (0..8).try_for_each(|i| {
            if i > 0 {
                record[5..9].copy_from_slice(&[0; 4]);
            }
            pair.give(&record)
        });
        assert_eq!(result, Err(Close::Tls));
    }

    #[test]
    fn goodbye_is_said_and_heard() {
        let files = Files::new("goodbye");
        let config = TlsConfig::load(&files.setup(), "mqtt").unwrap();
        for version in BOTH {
            let mut pair = Pair::new(&config, files.client(version, false));
            pair.pump().unwrap();
            pair.client.writer().write_all(b"last").unwrap();
            pair.client.send_close_notify();
            assert_eq!((pair.pump(), &pair.plain[..]), (Err(Close::PeerClosed), &b"last"[..]));
            let mut wire = Vec::new();
            pair.server.close(&mut wire);
            assert!(!wire.is_empty());
            let length = wire.len();
            pair.server.close(&mut wire);
            assert_eq!(wire.len(), length, "goodbye twice");
            pair.take(&wire).unwrap();
            assert_eq!(pair.client.reader().read(&mut [0; 9]).unwrap(), 0);
        }
    }

    #[test]
    fn an_idle_connection_holds_no_buffer() {
        let files = Files::new("idle");
        let config = TlsConfig::load(&files.setup(), "mqtt").unwrap();
        let mut pair = Pair::new(&config, files.client(&TLS13, false));
        let server_config = config.current();
        let mut tls = Tls::new(UnbufferedServerConnection::new(server_config).unwrap());
        let open = |tls: &mut Tls, pair: &mut Pair| {
            let (mut wire, mut reply) = (BytesMut::from(&pair.said()[..]), Vec::new());
            tls.open(Now::default(), &mut wire, &mut pair.plain, &mut reply, &mut pair.facts).unwrap();
            pair.take(&reply).unwrap();
        };
        open(&mut tls, &mut pair);
        open(&mut tls, &mut pair);
        pair.client.writer().write_all(&[0; 40_000]).unwrap();
        open(&mut tls, &mut pair);
        assert!(tls.is_ready() && tls.rest.capacity() == 0 && pair.plain.len() == 40_000);
    }

    #[test]
    fn a_reload_serves_new_connections_and_leaves_old_ones() {
        let files = Files::new("reload");
        let config = TlsConfig::load(&files.setup(), "mqtt").unwrap();
        let mut old = Pair::new(&config, files.client(&TLS13, false));
        old.pump().unwrap();
        let first = old.client.peer_certificates().unwrap()[0].clone();
        files.issue("ca", "localhost", "dev-7");
        config.reload().unwrap();
        let mut new = Pair::new(&config, files.client(&TLS13, false));
        new.pump().unwrap();
        assert_ne!(new.client.peer_certificates().unwrap()[0], first);
        old.client.writer().write_all(b"still here").unwrap();
        old.pump().unwrap();
        assert_eq!(&old.plain[..], b"still here");

        files.write("server.key", "nothing");
        assert!(config.reload().unwrap_err().to_string().contains("server.key: holds no private key"));
        let mut newer = Pair::new(&config, files.client(&TLS13, false));
        assert_eq!(newer.pump(), Ok(()));
    }

    #[test]
    fn mistakes_name_the_file_and_what_is_wrong() {
        let files = Files::new("mistakes");
        let mistake = |setup: config::Tls| TlsConfig::load(&setup, "mqtt").err().unwrap().to_string();
        let missing = config::Tls { certificate: files.0.join("none.pem"), ..files.setup() };
        assert!(mistake(missing).contains("none.pem: cannot be read: No such file"));
        let swapped = config::Tls { certificate: files.0.join("server.key"), ..files.setup() };
        assert!(mistake(swapped).contains("server.key: holds no certificate"));
        let others = config::Tls { key: files.0.join("client.key"), ..files.setup() };
        assert!(mistake(others).contains("client.key: is not the key of the certificate in"));
        files.write("half.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n");
        let half = config::Tls { client_ca: Some(files.0.join("half.pem")), ..files.setup() };
        assert!(mistake(half).contains("half.pem: is not PEM"));
        files.write("odd.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
        let odd = config::Tls { certificate: files.0.join("odd.pem"), ..files.setup() };
        assert!(mistake(odd).contains("odd.pem: "));
    }
}

//! Layers of a stream's byte path between socket and machine: PROXY, TLS, WebSocket.
//!
//! ```text
//!            open ->                          open ->
//! socket  ==========  PROXY | TLS | WebSocket  ==========  machine
//!            <- seal                          <- seal
//! ```
//!
//! A layer is handed bytes and gives bytes; it knows no socket. It keeps bytes only of what is not complete, so an idle
//! connection's layers hold no buffer.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::BytesMut;
use gateway::{Certificate, Close, Now};

use crate::house::{House, Port};

mod certificate;
pub mod proxy;
pub mod psk_tls;
pub mod tls;
pub mod websocket;

/// One layer. Bytes from the peer go up through `open`, bytes to the peer go down through `seal`.
pub trait Layer: Send {
    /// Takes what it can off the front of `wire`, which came from below. Appends opened bytes to `plain`, what is to be
    /// sent back (handshake, pong, alert) to `reply`, and puts what it finds out about the peer into `facts`. An error
    /// ends the connection after `reply` was written; what is in `plain` by then counts.
    fn open(
        &mut self,
        now: Now,
        wire: &mut BytesMut,
        plain: &mut BytesMut,
        reply: &mut Vec<u8>,
        facts: &mut Learnt,
    ) -> Result<(), Close>;

    /// Wraps all of `plain` for the layer below; to be called only when the layer is ready.
    fn seal(&mut self, now: Now, plain: &mut Vec<u8>, wire: &mut Vec<u8>) -> Result<(), Close>;

    /// Whether the handshake is done.
    fn is_ready(&self) -> bool;

    /// Says goodbye, once, if there is a way to say it (close_notify, a Close frame).
    fn close(&mut self, wire: &mut Vec<u8>);
}

/// What layers find out about the peer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Learnt {
    /// The client's address by the PROXY header.
    pub address: Option<SocketAddr>,
    /// The client's certificate, verified.
    pub certificate: Option<Arc<Certificate>>,
    /// The identity of the pre-shared key that it has proven, and the client id that goes with it.
    pub psk: Option<Arc<str>>,
    /// See there.
    pub client_id: Option<Arc<str>>,
    /// Path and query of the WebSocket request.
    pub path: Option<Box<str>>,
    /// The WebSocket subprotocol agreed on.
    pub subprotocol: Option<Box<str>>,
    /// `Origin` of the WebSocket request: a browser's page asks.
    pub origin: Option<Box<str>>,
    /// The WebSocket request came through an HTTP proxy, by its headers.
    pub forwarded: bool,
}

/// The layers of one connection, from the socket up.
pub struct Stack {
    layers: Vec<Box<dyn Layer>>,
    /// What layer `i + 1` has not taken yet of what layer `i` opened.
    between: Vec<BytesMut>,
}

impl Stack {
    /// The layers that the port's configuration asks for; None if it is plain TCP.
    pub fn build(house: &Arc<House>, port: &Port, address: SocketAddr) -> Option<Stack> {
        let mut layers: Vec<Box<dyn Layer>> = Vec::new();
        if port.setup.proxy_protocol {
            layers.push(Box::new(proxy::Proxy::default()));
        }
        if let Some(tls) = &port.tls {
            layers.push(tls.accept());
        }
        if let Some(tls) = &port.psk_tls {
            layers.push(tls.accept(house.clone(), address.ip()));
        }
        if let Some(websocket) = &port.setup.websocket {
            layers.push(Box::new(websocket::WebSocket::new(websocket, port.facts.protocol)));
        }
        Stack::new(layers)
    }

    fn new(layers: Vec<Box<dyn Layer>>) -> Option<Stack> {
        let between = vec![BytesMut::new(); layers.len().checked_sub(1)?];
        Some(Stack { layers, between })
    }

    /// As [`Layer::open`], through all layers.
    pub fn open(
        &mut self,
        now: Now,
        wire: &mut BytesMut,
        plain: &mut BytesMut,
        reply: &mut Vec<u8>,
        facts: &mut Learnt,
    ) -> Result<(), Close> {
        let mut result = Ok(());
        let top = self.between.len();
        for i in 0..=top {
            let mut from =
                if i == 0 { std::mem::take(wire) } else { std::mem::take(&mut self.between[i - 1]) };
            let mut to = if i == top { std::mem::take(plain) } else { std::mem::take(&mut self.between[i]) };
            let mut said = Vec::new();
            let opened = self.layers[i].open(now, &mut from, &mut to, &mut said, facts);
            *(if i == 0 { &mut *wire } else { &mut self.between[i - 1] }) = kept(from);
            *(if i == top { &mut *plain } else { &mut self.between[i] }) = to;
            let sent = self.down(i, now, said, reply);
            // What a layer opened before its end is still for those above it.
            result = result.and(opened).and(sent);
        }
        result
    }

    /// As [`Layer::seal`], through all layers.
    pub fn seal(&mut self, now: Now, plain: &mut Vec<u8>, wire: &mut Vec<u8>) -> Result<(), Close> {
        self.down(self.layers.len(), now, std::mem::take(plain), wire)
    }

    /// Whether all handshakes are done.
    pub fn is_ready(&self) -> bool {
        self.layers.iter().all(|l| l.is_ready())
    }

    /// Says goodbye in every layer, the top one first.
    pub fn close(&mut self, wire: &mut Vec<u8>) {
        for i in (0..self.layers.len()).rev() {
            let mut said = Vec::new();
            self.layers[i].close(&mut said);
            // The clock is of no matter to a goodbye, and one that cannot be sealed is not said.
            let _ = self.down(i, Now::default(), said, wire);
        }
    }

    /// Seals what layer `from` says through the layers below it.
    fn down(&mut self, from: usize, now: Now, mut said: Vec<u8>, wire: &mut Vec<u8>) -> Result<(), Close> {
        if said.is_empty() {
            return Ok(());
        }
        for layer in self.layers[..from].iter_mut().rev() {
            let mut sealed = Vec::new();
            layer.seal(now, &mut said, &mut sealed)?;
            said = sealed;
        }
        if wire.is_empty() {
            *wire = said;
        } else {
            wire.append(&mut said);
        }
        Ok(())
    }
}

/// A buffer that is empty gives its memory back.
fn kept(buffer: BytesMut) -> BytesMut {
    if buffer.is_empty() { BytesMut::new() } else { buffer }
}

/// A connection that a layer cannot serve; it ends with its first bytes. Why, for the log.
struct Refused(String);

impl Layer for Refused {
    fn open(
        &mut self,
        _: Now,
        _: &mut BytesMut,
        _: &mut BytesMut,
        _: &mut Vec<u8>,
        _: &mut Learnt,
    ) -> Result<(), Close> {
        tracing::error!(error = %self.0, "TLS cannot serve a connection");
        Err(Close::Internal)
    }

    fn seal(&mut self, _: Now, _: &mut Vec<u8>, _: &mut Vec<u8>) -> Result<(), Close> {
        Err(Close::Internal)
    }

    fn is_ready(&self) -> bool {
        false
    }

    fn close(&mut self, _: &mut Vec<u8>) {}
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use rustls::ClientConnection;

    use super::*;
    use crate::config;
    use tls::tests::Files;

    /// A client's TLS within which the bytes of a WebSocket go, behind a PROXY header.
    struct Client {
        tls: ClientConnection,
        stack: Stack,
        plain: BytesMut,
        wire: BytesMut,
        facts: Learnt,
    }

    impl Client {
        fn new(files: &Files) -> Client {
            let server = tls::TlsConfig::load(&files.setup(), "mqtt").unwrap();
            let websocket = config::WebSocket { path: "/mqtt".to_owned(), allowed_origins: Vec::new() };
            let stack = Stack::new(vec![
                Box::new(proxy::Proxy::default()),
                server.accept(),
                Box::new(websocket::WebSocket::new(&websocket, "mqtt")),
            ]);
            let config = files.client(&rustls::version::TLS13, false);
            let tls = ClientConnection::new(Arc::new(config), "localhost".try_into().unwrap()).unwrap();
            let (plain, wire) = (BytesMut::new(), BytesMut::new());
            Client { tls, stack: stack.unwrap(), plain, wire, facts: Learnt::default() }
        }

        fn give(&mut self, bytes: &[u8]) -> Result<(), Close> {
            let mut reply = Vec::new();
            self.wire.extend_from_slice(bytes);
            let result =
                self.stack.open(Now::default(), &mut self.wire, &mut self.plain, &mut reply, &mut self.facts);
            self.take(&reply);
            result
        }

        fn take(&mut self, mut bytes: &[u8]) {
            while !bytes.is_empty() {
                self.tls.read_tls(&mut bytes).unwrap();
                self.tls.process_new_packets().unwrap();
            }
        }

        fn pump(&mut self, piece: usize) -> Result<(), Close> {
            loop {
                let mut bytes = Vec::new();
                while self.tls.wants_write() {
                    self.tls.write_tls(&mut bytes).unwrap();
                }
                if bytes.is_empty() {
                    return Ok(());
                }
                bytes.chunks(piece).try_for_each(|piece| self.give(piece))?;
            }
        }

        fn read(&mut self) -> Vec<u8> {
            let mut bytes = vec![0; 4096];
            let n = self.tls.reader().read(&mut bytes).unwrap();
            bytes[..n].to_vec()
        }
    }

    const REQUEST: &[u8] = b"GET /mqtt HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
        Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
        Sec-WebSocket-Protocol: mqtt\r\n\r\n";

    #[test]
    fn three_layers_carry_bytes_however_they_are_cut_and_say_goodbye_from_the_top() {
        let files = Files::new("stack");
        for piece in [1, 5, 100_000] {
            let mut client = Client::new(&files);
            b"PROXY TCP4 192.0.2.1 198.51.100.1 5000 8084\r\n"
                .chunks(piece)
                .try_for_each(|b| client.give(b))
                .unwrap();
            client.pump(piece).unwrap();
            assert!(!client.stack.is_ready());
            client.tls.writer().write_all(REQUEST).unwrap();
            client.pump(piece).unwrap();
            assert!(client.stack.is_ready() && client.read().starts_with(b"HTTP/1.1 101 "));
            assert_eq!(client.facts.address, Some("192.0.2.1:5000".parse().unwrap()));
            assert_eq!(client.facts.subprotocol.as_deref(), Some("mqtt"));

            client.tls.writer().write_all(&[0x82, 0x82, 0, 0, 0, 0, 0xc0, 0]).unwrap();
            client.pump(piece).unwrap();
            assert_eq!(&client.plain[..], b"\xc0\0");
            assert_eq!(
                client.wire.len() + client.stack.between.iter().map(BytesMut::capacity).sum::<usize>(),
                0
            );

            let (mut plain, mut wire) = (b"\xd0\0".to_vec(), Vec::new());
            client.stack.seal(Now::default(), &mut plain, &mut wire).unwrap();
            client.stack.close(&mut wire);
            client.take(&wire);
            assert_eq!(client.read(), b"\x82\x02\xd0\0\x88\x02\x03\xe8");
            assert_eq!(client.read(), b"", "close_notify");
        }
    }

    #[test]
    fn what_comes_with_the_end_of_a_lower_layer_still_goes_up() {
        let mut client = Client::new(&Files::new("end"));
        client.give(b"PROXY UNKNOWN\r\n").unwrap();
        client.pump(100_000).unwrap();
        client.tls.writer().write_all(REQUEST).unwrap();
        client.tls.writer().write_all(&[0x82, 0x82, 0, 0, 0, 0, 0xe0, 0]).unwrap();
        client.tls.send_close_notify();
        assert_eq!(client.pump(100_000), Err(Close::PeerClosed));
        assert_eq!(&client.plain[..], b"\xe0\0");
    }

    #[test]
    fn a_stack_without_layers_is_none() {
        assert!(Stack::new(Vec::new()).is_none());
    }
}

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

use crate::house::Port;

mod certificate;
pub mod proxy;
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
    pub fn build(port: &Port) -> Option<Stack> {
        let mut layers: Vec<Box<dyn Layer>> = Vec::new();
        if port.setup.proxy_protocol {
            layers.push(Box::new(proxy::Proxy::default()));
        }
        if let Some(tls) = &port.tls {
            layers.push(tls.accept());
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

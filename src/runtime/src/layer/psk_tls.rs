//! TLS with pre-shared keys (RFC 4279, RFC 5487, RFC 6655; RFC 8446, 2.2), server side: OpenSSL, driven in memory, because
//! rustls has none. It serves listeners that ask for it, and no other.
//!
//! ```text
//! TLS 1.2  ClientHello       ->  <- ServerHello, ServerHelloDone
//!          identity, Finished ->                                   the key is looked up; a wrong one fails at Finished
//! TLS 1.3  ClientHello with identity and binder ->                 the same; a wrong one fails at the binder
//! ```
//!
//! Unknown identities are given a key that nobody has, so that they fail like known ones with another key. Nothing is resumed:
//! a key that was removed opens no new connection.

use std::io::{self, Read, Write};
use std::net::IpAddr;
use std::sync::Arc;

use auth::psk::Offer;
use bytes::{Buf, BytesMut};
use gateway::{Close, Now};
use openssl::error::ErrorStack;
use openssl::ex_data::Index;
use openssl::ssl::{
    AlpnError, ErrorCode, ShutdownState, Ssl, SslContext, SslContextBuilder, SslMethod, SslMode, SslOptions,
    SslRef, SslSessionCacheMode, SslStream, SslVersion,
};
use parking_lot::Mutex;

use crate::config;
use crate::house::House;
use crate::layer::{Layer, Learnt, Refused};

/// Those with forward secrecy first, then the ones that RFC 7252, 9.1.3.1 and RFC 5487 give to small devices. The tag of
/// CCM-8 has 64 bits, which no level of OpenSSL above 0 takes.
const TLS_1_2: &str = "ECDHE-PSK-CHACHA20-POLY1305:ECDHE-PSK-AES128-CBC-SHA256:PSK-AES128-GCM-SHA256:PSK-AES256-GCM-SHA384:\
    PSK-CHACHA20-POLY1305:PSK-AES128-CCM:PSK-AES128-CCM8:@SECLEVEL=0";
/// A key that was agreed on outside of TLS 1.3 goes with SHA-256 (RFC 8446, 4.2.11).
const TLS_1_3: &str =
    "TLS_AES_128_GCM_SHA256:TLS_CHACHA20_POLY1305_SHA256:TLS_AES_128_CCM_SHA256:TLS_AES_128_CCM_8_SHA256";
const GROUPS: &str = "X25519:P-256";
/// Bytes that are opened at a time: a record's.
const RECORD: usize = 16 << 10;

/// Who knows the keys.
pub trait Keys: Send + Sync {
    /// See [`auth::Auth::psk`].
    fn psk(&self, now: Now, identity: &[u8], address: IpAddr) -> Offer;
    /// See [`auth::Auth::psk_failed`].
    fn psk_failed(&self, now: Now, identity: &[u8], address: IpAddr);
    /// The client id that goes with a proven identity.
    fn client_id(&self, identity: &str) -> Option<Arc<str>>;
}

impl Keys for House {
    fn psk(&self, now: Now, identity: &[u8], address: IpAddr) -> Offer {
        self.auth.psk(now, identity, address)
    }

    fn psk_failed(&self, now: Now, identity: &[u8], address: IpAddr) {
        self.auth.psk_failed(now, identity, address);
    }

    fn client_id(&self, identity: &str) -> Option<Arc<str>> {
        self.auth.device(identity)
    }
}

/// What the connections of a listener have in common.
pub struct PskConfig {
    context: SslContext,
    handshake: Index<Ssl, Shared>,
}

/// A handshake's, for the layer and for OpenSSL when it asks for the key.
type Shared = Arc<Mutex<Handshake>>;

struct Handshake {
    keys: Arc<dyn Keys>,
    now: Now,
    address: IpAddr,
    /// What the client said, and whether there is such an identity.
    identity: Option<(Box<[u8]>, bool)>,
}

impl PskConfig {
    /// `protocol` is the one of the listener's gateway. Errors are OpenSSL's own: there is nothing to read.
    pub fn new(setup: config::PskTls, protocol: &'static str) -> Result<PskConfig, ErrorStack> {
        let handshake = Ssl::new_ex_index()?;
        let mut context = SslContextBuilder::new(SslMethod::tls_server())?;
        let lowest = if setup.only_1_3 { SslVersion::TLS1_3 } else { SslVersion::TLS1_2 };
        context.set_min_proto_version(Some(lowest))?;
        context.set_cipher_list(TLS_1_2)?;
        context.set_ciphersuites(TLS_1_3)?;
        context.set_groups_list(GROUPS)?;
        context.set_options(
            SslOptions::NO_TICKET
                | SslOptions::NO_RENEGOTIATION
                | SslOptions::NO_COMPRESSION
                | SslOptions::CIPHER_SERVER_PREFERENCE,
        );
        context.set_num_tickets(0)?;
        context.set_session_cache_mode(SslSessionCacheMode::OFF);
        context.set_mode(SslMode::RELEASE_BUFFERS);
        context.set_psk_server_callback(move |ssl, identity, key| Ok(ask(ssl, handshake, identity, key)));
        // What a client may name (RFC 7301): the protocol itself, and HTTP for what becomes a WebSocket.
        context.set_alpn_select_callback(move |_, offered| {
            let known = [protocol.as_bytes(), b"http/1.1"];
            names(offered).find(|name| known.contains(name)).ok_or(AlpnError::ALERT_FATAL)
        });
        Ok(PskConfig { context: context.build(), handshake })
    }

    /// The layer of a new connection from `address`, where no layer below learns of another.
    pub fn accept(&self, keys: Arc<dyn Keys>, address: IpAddr) -> Box<dyn Layer> {
        let handshake = Handshake { keys, now: Now::default(), address, identity: None };
        let shared = Arc::new(Mutex::new(handshake));
        let stream = Ssl::new(&self.context).and_then(|mut ssl| {
            ssl.set_ex_data(self.handshake, shared.clone());
            SslStream::new(ssl, Wire::default())
        });
        match stream {
            Ok(stream) => Box::new(PskTls { stream, shared: Some(shared), is_over: false }),
            Err(error) => Box::new(Refused(error.to_string())),
        }
    }
}

/// The names of a list in which each begins with its length.
fn names(mut list: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let (length, rest) = list.split_first()?;
        let (name, rest) = rest.split_at_checked(usize::from(*length))?;
        list = rest;
        Some(name)
    })
}

/// Answers OpenSSL's question for the key of an identity; zero bytes are none.
fn ask(ssl: &mut SslRef, at: Index<Ssl, Shared>, identity: Option<&[u8]>, key: &mut [u8]) -> usize {
    let Some(shared) = ssl.ex_data(at) else { return 0 };
    let mut handshake = shared.lock();
    let identity = identity.unwrap_or_default();
    let offer = handshake.keys.psk(handshake.now, identity, handshake.address);
    handshake.identity = Some((identity.into(), offer.is_known));
    let Some(room) = key.get_mut(..offer.key.len()) else { return 0 };
    room.copy_from_slice(&offer.key);
    offer.key.len()
}

/// The bytes between OpenSSL and the layers around it.
#[derive(Default)]
struct Wire {
    from: BytesMut,
    to: Vec<u8>,
}

impl Read for Wire {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.from.is_empty() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let length = into.len().min(self.from.len());
        self.from.copy_to_slice(&mut into[..length]);
        Ok(length)
    }
}

impl Write for Wire {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.to.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// See the module.
struct PskTls {
    stream: SslStream<Wire>,
    /// None after the handshake.
    shared: Option<Shared>,
    /// An error ended it: there is nothing more to read or to say.
    is_over: bool,
}

impl PskTls {
    fn shake_hands(&mut self, now: Now, facts: &mut Learnt) -> Result<(), Close> {
        let Some(shared) = &self.shared else { return Ok(()) };
        {
            let mut handshake = shared.lock();
            handshake.now = now;
            handshake.address = facts.address.map_or(handshake.address, |a| a.ip());
        }
        match self.stream.accept() {
            Ok(()) => {}
            Err(e) if e.code() == ErrorCode::WANT_READ => return Ok(()),
            Err(error) => {
                tracing::debug!(%error, "TLS with pre-shared keys");
                return Err(failed(&shared.lock()));
            }
        }
        let handshake = shared.lock();
        let identity = handshake.identity.as_ref().map(|(identity, _)| str::from_utf8(identity));
        // Nobody comes here without an identity that the file holds.
        let Some(Ok(identity)) = identity else { return Err(Close::PskIdentity) };
        facts.psk = Some(identity.into());
        facts.client_id = handshake.keys.client_id(identity);
        drop(handshake);
        self.shared = None;
        Ok(())
    }

    fn read(&mut self, plain: &mut BytesMut) -> Result<(), Close> {
        loop {
            let start = plain.len();
            plain.resize(start + RECORD, 0);
            let read = self.stream.ssl_read(&mut plain[start..]);
            plain.truncate(start + *read.as_ref().unwrap_or(&0));
            match read {
                Ok(_) => {}
                Err(e) if e.code() == ErrorCode::WANT_READ => return Ok(()),
                Err(e) if e.code() == ErrorCode::ZERO_RETURN => return Err(Close::PeerClosed),
                Err(error) => {
                    tracing::debug!(%error, "TLS with pre-shared keys");
                    return Err(Close::Tls);
                }
            }
        }
    }
}

/// Why: what is counted, and what may bring a ban. Before there was an identity it is nobody's failure.
fn failed(handshake: &Handshake) -> Close {
    let Some((identity, is_known)) = &handshake.identity else { return Close::Tls };
    handshake.keys.psk_failed(handshake.now, identity, handshake.address);
    if *is_known { Close::PskKey } else { Close::PskIdentity }
}

impl Layer for PskTls {
    fn open(
        &mut self,
        now: Now,
        wire: &mut BytesMut,
        plain: &mut BytesMut,
        reply: &mut Vec<u8>,
        facts: &mut Learnt,
    ) -> Result<(), Close> {
        if self.is_over {
            wire.clear();
            return Err(Close::Tls);
        }
        // OpenSSL takes all of it, and keeps the beginning of a record in a buffer of that record's size.
        self.stream.get_mut().from = std::mem::take(wire);
        let mut result = self.shake_hands(now, facts);
        if result.is_ok() && self.is_ready() {
            result = self.read(plain);
        }
        let Wire { from, to } = self.stream.get_mut();
        *from = BytesMut::new();
        reply.append(&mut std::mem::take(to));
        self.is_over = result.is_err_and(|why| why != Close::PeerClosed);
        result
    }

    fn seal(&mut self, _: Now, plain: &mut Vec<u8>, wire: &mut Vec<u8>) -> Result<(), Close> {
        if self.is_over || !self.is_ready() {
            return Err(Close::Tls);
        }
        let mut rest = &plain[..];
        while !rest.is_empty() {
            let written = self.stream.ssl_write(rest).map_err(|_| Close::Tls)?;
            rest = &rest[written..];
        }
        plain.clear();
        wire.append(&mut std::mem::take(&mut self.stream.get_mut().to));
        Ok(())
    }

    fn is_ready(&self) -> bool {
        self.shared.is_none()
    }

    fn close(&mut self, wire: &mut Vec<u8>) {
        let is_said = self.stream.get_shutdown().contains(ShutdownState::SENT);
        if self.is_over || !self.is_ready() || is_said {
            return;
        }
        // What cannot be said is not said.
        let _ = self.stream.shutdown();
        wire.append(&mut std::mem::take(&mut self.stream.get_mut().to));
    }
}

#[cfg(test)]
mod tests;

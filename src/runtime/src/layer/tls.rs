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
}

/// What to do after a state of the connection.
enum Next {
    Again,
    Wait,
    End(Close),
}

impl Tls {
    fn new(connection: UnbufferedServerConnection) -> Tls {
        Tls { connection, rest: BytesMut::new(), is_ready: false }
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

    /// After an error the alert about it is left to be sent.
    fn alert(&mut self, bytes: &mut BytesMut, reply: &mut Vec<u8>) {
        loop {
            let UnbufferedStatus { discard, state } = self.connection.process_tls_records(bytes);
            let is_alert = matches!(state, Ok(ConnectionState::EncodeTlsData(_)));
            if let Ok(state) = state
                && is_alert
            {
                step(state, &mut BytesMut::new(), reply);
            }
            bytes.advance(discard.min(bytes.len()));
            if !is_alert {
                return;
            }
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
        let mut bytes = std::mem::take(&mut self.rest);
        if bytes.is_empty() {
            std::mem::swap(&mut bytes, wire);
        } else {
            bytes.extend_from_slice(wire);
            wire.clear();
        }
        let result = self.process(&mut bytes, plain, reply);
        self.learn(facts);
        if bytes.len() > WAITING {
            return Err(Close::Tls);
        }
        // A buffer of its own size: the one that came may be a large one.
        self.rest = if bytes.is_empty() { BytesMut::new() } else { BytesMut::from(&bytes[..]) };
        result
    }

    fn seal(&mut self, _: Now, plain: &mut Vec<u8>, wire: &mut Vec<u8>) -> Result<(), Close> {
        loop {
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
                // Before the handshake's end, after an error or after the goodbye nothing can be said.
                _ => return Err(Close::Tls),
            }
        }
    }

    fn is_ready(&self) -> bool {
        self.is_ready
    }

    fn close(&mut self, wire: &mut Vec<u8>) {
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

/// A connection that cannot be served; it ends with its first bytes.
struct Refused(rustls::Error);

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

//! The ClientHello before anybody is known, and the cookie that shows the address to be real (RFC 6347, 4.2.1).
//!
//! Nothing is allocated here, and the engine does not hear of it: a cookie is a MAC over the address and what the
//! client offers, under a secret that is changed now and then.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use gateway::Instant;
use ring::hmac;
use subtle::ConstantTimeEq;

use crate::SettingsError;
use crate::engine;
use crate::record::{self, Header};

const CLIENT_HELLO: u8 = 1;
const HELLO_VERIFY_REQUEST: u8 = 3;
const COOKIE: usize = 16;
/// Record header, handshake header, version, the cookie's length, the cookie.
const VERIFY_LEN: usize = record::HEADER + 12 + 2 + 1 + COOKIE;

/// What matters of a ClientHello here.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Hello<'a> {
    pub(crate) random: &'a [u8],
    pub(crate) cookie: &'a [u8],
    message_seq: u16,
    record_number: [u8; 6],
    /// All but the cookie: version, random, session id; suites, compression, extensions.
    before: &'a [u8],
    after: &'a [u8],
}

/// Whether a datagram begins with a record of epoch 0 whose message claims to be a ClientHello.
pub(crate) fn is_client_hello(header: &Header, datagram: &[u8]) -> bool {
    header.kind == record::HANDSHAKE
        && header.epoch == 0
        && datagram.get(record::HEADER) == Some(&CLIENT_HELLO)
}

impl<'a> Hello<'a> {
    /// Read one. `None` if it is not whole: also if it is in fragments, which nobody sends before a cookie.
    pub(crate) fn decode(header: &Header, datagram: &'a [u8]) -> Option<Hello<'a>> {
        let body = datagram.get(record::HEADER..)?.get(..header.len)?;
        let u24 =
            |at: usize| Some(u32::from_be_bytes([0, *body.get(at)?, *body.get(at + 1)?, *body.get(at + 2)?]));
        let (length, offset, fragment) = (u24(1)?, u24(6)?, u24(9)?);
        let hello = body.get(12..)?;
        if offset != 0 || length != fragment || u32::try_from(hello.len()) != Ok(length) {
            return None;
        }
        // Version DTLS 1.0 or 1.2 (the engine refuses 1.0), random, session id.
        if hello.first() != Some(&0xfe) {
            return None;
        }
        let session_len = usize::from(*hello.get(34)?);
        let cookie_at = 35 + session_len;
        let cookie_len = usize::from(*hello.get(cookie_at)?);
        let cookie = hello.get(cookie_at + 1..)?.get(..cookie_len)?;
        let after = hello.get(cookie_at + 1 + cookie_len..)?;
        if session_len > 32 || after.len() < 6 {
            return None;
        }
        Some(Hello {
            random: hello.get(2..34)?,
            cookie,
            message_seq: u16::from_be_bytes([*body.get(4)?, *body.get(5)?]),
            record_number: datagram.get(5..11)?.try_into().ok()?,
            before: hello.get(..cookie_at)?,
            after,
        })
    }
}

/// Makes and checks cookies.
pub(crate) struct Cookies {
    now: hmac::Key,
    before: hmac::Key,
    rotate_at: Instant,
    every: Duration,
}

fn secret() -> Option<hmac::Key> {
    let mut bytes = [0; 32];
    engine::random(&mut bytes).then(|| hmac::Key::new(hmac::HMAC_SHA256, &bytes))
}

impl Cookies {
    pub(crate) fn new(every: Duration) -> Result<Self, SettingsError> {
        let (now, before) = secret().zip(secret()).ok_or(SettingsError::Random)?;
        Ok(Cookies { now, before, rotate_at: Instant::default(), every })
    }

    fn rotate(&mut self, now: Instant) {
        if now < self.rotate_at {
            return;
        }
        // Two periods without a ClientHello: the secret before is out of date too.
        let times = if now >= self.rotate_at + self.every { 2 } else { 1 };
        for _ in 0..times {
            let Some(fresh) = secret() else { return };
            self.before = std::mem::replace(&mut self.now, fresh);
        }
        self.rotate_at = now + self.every;
    }

    /// Whether the ClientHello brings a cookie of ours for its address.
    pub(crate) fn is_good(&mut self, now: Instant, from: SocketAddr, hello: &Hello<'_>) -> bool {
        if hello.cookie.len() != COOKIE {
            return false;
        }
        self.rotate(now);
        let is = |key| bool::from(cookie(key, from, hello)[..].ct_eq(hello.cookie));
        is(&self.now) || is(&self.before)
    }

    /// The HelloVerifyRequest for a ClientHello; smaller than it, so that nobody is amplified.
    pub(crate) fn verify_request(
        &mut self,
        now: Instant,
        from: SocketAddr,
        hello: &Hello<'_>,
    ) -> [u8; VERIFY_LEN] {
        self.rotate(now);
        let mut d = [0; VERIFY_LEN];
        let mut at = 0;
        let mut put = |bytes: &[u8]| {
            if let Some(to) = d.get_mut(at..at + bytes.len()) {
                to.copy_from_slice(bytes);
            }
            at += bytes.len();
        };
        let body = 2 + 1 + COOKIE as u8;
        // RFC 6347, 4.2.1: version 1.0 whatever will be agreed, and the ClientHello's record number.
        put(&[record::HANDSHAKE, 0xfe, 0xff, 0, 0]);
        put(&hello.record_number);
        put(&[0, 12 + body]);
        put(&[HELLO_VERIFY_REQUEST, 0, 0, body]);
        put(&hello.message_seq.to_be_bytes());
        put(&[0, 0, 0, 0, 0, body]);
        put(&[0xfe, 0xff, COOKIE as u8]);
        put(&cookie(&self.now, from, hello));
        d
    }
}

fn cookie(key: &hmac::Key, from: SocketAddr, hello: &Hello<'_>) -> [u8; COOKIE] {
    let mut mac = hmac::Context::with_key(key);
    match from.ip() {
        IpAddr::V4(ip) => mac.update(&ip.octets()),
        IpAddr::V6(ip) => mac.update(&ip.octets()),
    }
    mac.update(&from.port().to_be_bytes());
    // The lengths keep the two parts apart.
    mac.update(&(hello.before.len() as u64).to_be_bytes());
    mac.update(hello.before);
    mac.update(hello.after);
    let tag = mac.sign();
    let mut c = [0; COOKIE];
    c.copy_from_slice(&tag.as_ref()[..COOKIE]);
    c
}

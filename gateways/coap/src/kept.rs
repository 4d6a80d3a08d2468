//! What of a peer outlives its conversation, as facts of its session: the token of a named session, and its observations.
//!
//! ```text
//! "token"                  SHA-256 of the token
//! "coap/keepalive"         keep-alive of a named session in seconds, four bytes
//! "coap/o/" token in hex   an observation: version 1, QoS, next sequence number, subscription number, filter
//! ```

use std::time::Duration;

use bytes::Bytes;
use gateway::{Action, Filter, Instant, Now, Outbox, Peer, Qos, TOKEN};
use sha2::{Digest, Sha256};
use wire::{Reader, Writer};

use crate::Coap;
use crate::conversation::{Observation, Step};
use crate::frame::Token;

/// Begin of the names of all but the token.
pub(crate) const FACTS: &str = "coap/";

const OBSERVATIONS: &str = "coap/o/";

const KEEP_ALIVE: &str = "coap/keepalive";

const VERSION: u8 = 1;

/// Sequence numbers used before the observation is written again: after a restart they go on behind those that may have
/// been used.
const RESERVE: u32 = 1024;

/// What is kept of a token: nobody who reads the store can show it.
pub(crate) fn proof(token: &str) -> Bytes {
    Bytes::copy_from_slice(&Sha256::digest(token.as_bytes()))
}

/// A token in hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn encode(o: &Observation) -> Bytes {
    let mut bytes = Vec::new();
    bytes.put_u8(VERSION);
    bytes.put_u8(o.qos as u8);
    bytes.put(&o.reserved.to_be_bytes());
    bytes.put(&o.identifier.to_be_bytes());
    bytes.put(o.filter.as_str().as_bytes());
    bytes.into()
}

fn decode(name: &str, value: &[u8], now: Instant) -> Option<Observation> {
    let name = name.strip_prefix(OBSERVATIONS)?.as_bytes();
    let digits = name.chunks(2).map(|d| u8::from_str_radix(std::str::from_utf8(d).ok()?, 16).ok());
    let token = Token::new(&digits.collect::<Option<Vec<u8>>>()?);
    let mut r = Reader::new(value);
    if r.u8().ok()? != VERSION {
        return None;
    }
    let qos = Qos::from_u8(r.u8().ok()?)?;
    let (reserved, identifier) = (r.u32().ok()?, r.u32().ok()?);
    let filter = Filter::parse(std::str::from_utf8(r.take_rest()).ok()?).ok()?;
    let mut o = Observation::new(token, filter, identifier, now);
    (o.sequence, o.reserved, o.qos) = (reserved, reserved, qos);
    Some(o)
}

impl Coap {
    /// Keeps an observation, or forgets the one with this token, if the session outlives its connection.
    pub(crate) fn keep(&mut self, peer: Peer, token: Token, out: &mut Outbox) {
        let Some(c) = self.peers.get_mut(&peer).filter(|c| c.is_kept) else { return };
        let name = format!("{OBSERVATIONS}{}", hex(token.as_slice()));
        let value = c.observation(token).map(|o| {
            o.reserved = o.sequence_after(RESERVE);
            encode(o)
        });
        let ticket = self.ticket(peer, 0, Step::Nothing);
        out.act(Action::Save(peer, ticket, name.into(), value));
    }

    /// Writes an observation again whose sequence numbers run out.
    pub(crate) fn keep_if_used_up(&mut self, peer: Peer, token: Token, out: &mut Outbox) {
        let Some(c) = self.peers.get_mut(&peer).filter(|c| c.is_kept) else { return };
        // In time: notifications do not wait for the store.
        if c.observation(token).is_some_and(|o| o.left() <= RESERVE / 2) {
            self.keep(peer, token, out);
        }
    }

    /// Takes up the observations that an earlier conversation of this client left.
    pub(crate) fn take_up(&mut self, now: Now, peer: Peer, facts: &[(Box<str>, Bytes)]) {
        let most = self.config.max_observations;
        let Some(c) = self.peers.get_mut(&peer) else { return };
        c.observations = facts.iter().filter_map(|(n, v)| decode(n, v, now.instant)).take(most).collect();
        let keep_alive = facts.iter().find(|(n, _)| **n == *KEEP_ALIVE);
        if let Some(seconds) = keep_alive.and_then(|(_, v)| Some(u32::from_be_bytes((**v).try_into().ok()?)))
        {
            c.keep_alive = Duration::from_secs(seconds.into());
        }
        c.last_identifier = c.observations.iter().map(|o| o.identifier).max().unwrap_or(0);
    }

    /// Keeps the token of a named session; what asked for it is answered when it is kept.
    pub(crate) fn keep_token(&mut self, peer: Peer, id: u16, token: &str, out: &mut Outbox) {
        let seconds =
            self.peers.get(&peer).map_or(0, |c| u32::try_from(c.keep_alive.as_secs()).unwrap_or(u32::MAX));
        let ticket = self.ticket(peer, 0, Step::Nothing);
        let value = Bytes::copy_from_slice(&seconds.to_be_bytes());
        out.act(Action::Save(peer, ticket, KEEP_ALIVE.into(), Some(value)));
        let ticket = self.ticket(peer, id, Step::Token(token.to_owned()));
        out.act(Action::Save(peer, ticket, TOKEN.into(), Some(proof(token))));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_observation_reads_back_behind_its_reserved_numbers() {
        let now = Instant::default();
        let mut o = Observation::new(Token::new(&[0xab, 1]), Filter::parse("a/+").unwrap(), 7, now);
        (o.reserved, o.qos) = (1025, Qos::AtLeastOnce);
        let back = decode("coap/o/ab01", &encode(&o), now).unwrap();
        assert_eq!((back.token, back.identifier, back.sequence, back.qos), (o.token, 7, 1025, o.qos));
        assert_eq!(back.filter, o.filter);
        assert!(
            decode("coap/o/a", b"\x01", now).is_none() && decode("coap/o/zz", &encode(&o), now).is_none()
        );
        assert!(decode("coap/o/ab01", b"\x02\0\0\0\0\0\0\0\0\0a", now).is_none());
    }
}

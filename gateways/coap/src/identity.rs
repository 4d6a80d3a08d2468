//! A client behind another address: NAT has rebound, or a device woke up from its power saving.
//!
//! ```text
//! a layer's proof (DTLS connection id) -----------------------> `moved` -> probe -> Reset from there -> `Reached`
//! a request with client id and token -> `find` -> `Rebind` -------^
//! ```
//!
//! The conversation goes on with all it has: de-duplication, observations, what waits to be acknowledged. Until the new
//! address was seen to receive, the driver sends to both, and to the new one little (RFC 9146, 6; RFC 9175, 2.4).

use std::net::SocketAddr;

use gateway::{Action, Drop, Now, Outbox, Peer};

use crate::Coap;
use crate::frame::{Kind, Message};
use crate::options::URI_QUERY;
use crate::session::is_same;

/// Probes of one peer that may still be answered.
const PROBES: usize = 4;
/// Message ids behind the last one that are not a probe's, so that none is used twice within EXCHANGE_LIFETIME.
const FAR: u16 = 0x4000;
/// How many a probe's may be one of.
const UNKNOWN: u16 = 0x8000;

/// The client id and the token in a request's query.
fn shown(request: &Message) -> Option<(&str, &str)> {
    let query = |names: [&str; 2]| {
        request.all(URI_QUERY).find_map(|q| {
            let (name, value) = std::str::from_utf8(q).ok()?.split_once('=')?;
            names.contains(&name).then_some(value)
        })
    };
    Some((query(["c", "clientid"])?, query(["t", "token"])?))
}

impl Coap {
    /// The conversation that a request's client id and token prove it to belong to, if that is another one of this socket.
    pub(crate) fn find(&self, peer: Peer, request: &Message) -> Option<Peer> {
        if self.named.is_empty() || self.peers.get(&peer)?.is_sealed {
            return None;
        }
        let (client_id, token) = shown(request)?;
        let known = *self.named.get(client_id)?;
        let c = self.peers.get(&known).filter(|_| known != peer)?;
        c.token.as_ref().is_some_and(|t| is_same(t, token)).then_some(known)
    }

    /// Whether the request may be that of somebody else, at an address that this peer may have moved to: whoever was served in
    /// this conversation would have his answers sent to where its client was, too.
    pub(crate) fn is_somebody_else(&self, peer: Peer, request: &Message) -> bool {
        let Some(c) = self.peers.get(&peer).filter(|c| c.candidate.is_some() && !c.is_sealed) else {
            return false;
        };
        let is_its = |(client_id, token)| {
            c.who.client_id.as_deref() == Some(client_id)
                && c.token.as_ref().is_some_and(|t| is_same(t, token))
        };
        !shown(request).is_some_and(is_its)
    }

    /// The peer is where it was. Who is at the other address has a conversation of his own when he says it again.
    pub(crate) fn stay(&mut self, peer: Peer, out: &mut Outbox) {
        if let Some(c) = self.peers.get_mut(&peer) {
            c.candidate = None;
            c.probes.clear();
        }
        out.act(Action::Stay(peer));
        out.act(Action::Drop(peer, Drop::Unexpected));
    }

    /// The stranger is `peer`, who has moved to its address.
    pub(crate) fn rebind(&mut self, now: Now, peer: Peer, stranger: Peer, out: &mut Outbox) {
        let Some(to) = self.peers.get(&stranger).map(|c| c.address) else { return };
        out.act(Action::Rebind(peer, stranger));
        self.may_be_at(now, peer, to, out);
    }

    /// The peer was heard from another address; see the module.
    pub(crate) fn may_be_at(&mut self, now: Now, peer: Peer, to: SocketAddr, out: &mut Outbox) {
        let Some(c) = self.peers.get_mut(&peer) else { return };
        c.heard(now.instant);
        c.candidate = Some(to).filter(|to| *to != c.address);
        if c.candidate.is_none() {
            c.probes.clear();
        }
        if !c.outgoing.is_empty() {
            self.probe(peer, out);
        }
    }

    /// Asks for a Reset (RFC 7252, 4.3) from the address that the peer may be at, and from there alone.
    pub(crate) fn probe(&mut self, peer: Peer, out: &mut Outbox) {
        // Ids count up, and who sees the others must not know this one: it is one of those that are far ahead.
        let Some(far) = self.random::<2>().map(|r| FAR + u16::from_be_bytes(r) % UNKNOWN) else { return };
        let Some(c) = self.peers.get_mut(&peer) else { return };
        let Some(to) = c.candidate else { return };
        let id = c.last_id.wrapping_add(far);
        if c.probes.len() >= PROBES {
            c.probes.remove(0);
        }
        c.probes.push((id, to));
        Message::empty(Kind::Con, id).encode(out.probe(peer));
    }

    /// A probe was answered: the peer is where it was sent to. Returns whether there was such a probe.
    pub(crate) fn is_reached(&mut self, now: Now, peer: Peer, id: u16, out: &mut Outbox) -> bool {
        let Some(c) = self.peers.get_mut(&peer) else { return false };
        let Some(at) = c.probes.iter().position(|(probe, _)| *probe == id) else { return false };
        let (_, address) = c.probes.swap_remove(at);
        c.address = address;
        c.is_verified = true;
        c.candidate.take_if(|to| *to == address);
        // Probes to addresses before this one prove nothing any more.
        c.probes.retain(|(_, to)| Some(*to) == c.candidate);
        out.act(Action::Reached(peer, address));
        // What was too much for an address that was not proven, or went to one that is gone.
        if let Some(answer) =
            c.cut_short.take().and_then(|id| c.exchanges.repeated(now.instant, id).map(|e| &e.answer))
        {
            out.send(peer).extend_from_slice(answer);
        }
        if let Some(first) = c.outgoing.front_mut() {
            first.due = now.instant;
        }
        true
    }

    /// The peer with a Confirmable message in flight that was acknowledged from an address that nobody is known at, but from
    /// the same host: NAT has rebound between the message and its acknowledgement. Only named sessions move like this; what
    /// somebody else at that host could do by guessing is to take one message for delivered.
    pub(crate) fn claimed(&self, stranger: Peer, id: u16) -> Option<Peer> {
        let from = self.peers.get(&stranger).filter(|c| !c.is_sealed)?.address.ip();
        self.claims.get(&(from, id)).copied().filter(|peer| *peer != stranger)
    }

    /// Remembers that this message of a named session is in flight, or that none is.
    pub(crate) fn claim(&mut self, peer: Peer, in_flight: Option<u16>) {
        let Some(c) = self.peers.get_mut(&peer).filter(|c| c.token.is_some() || c.claim.is_some()) else {
            return;
        };
        let host = c.candidate.unwrap_or(c.address).ip();
        let (old, new) = (c.claim, in_flight.map(|id| (host, id)));
        c.claim = new;
        if let Some(old) = old.filter(|old| self.claims.get(old) == Some(&peer)) {
            self.claims.remove(&old);
        }
        if let Some(new) = new {
            self.claims.insert(new, peer);
        }
    }
}

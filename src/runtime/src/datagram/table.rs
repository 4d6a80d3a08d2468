//! The peers of one datagram socket, and where they are.
//!
//! A peer is at one address. It may be heard from another one that it has proven nothing about yet: until it was reached
//! there what it is sent goes to both, so that neither its move nor somebody else's trick costs it a message.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use dtls::Id;
use gateway::{Close, Facts, Now, Peer};
use hashbrown::{Equivalent, HashMap};
use slab::Slab;

use super::secure::Proof;
use crate::client::{Client, Extra, Rate};
use crate::house::Port;
use crate::listen::canonical;
use crate::perform::Peers;

/// A way to a peer: its address, and which of this machine's addresses it writes to.
pub(super) type Way = (SocketAddr, Option<IpAddr>);

/// Peers that are looked at to find one that makes room.
const LOOK: usize = 64;

/// Bytes that may be sent to an address that was not proven although fewer came from there (RFC 9175, 2.4).
const FREE: usize = 136;

pub(super) struct Entry {
    pub(super) way: Way,
    /// Where the peer may have moved to.
    moved: Option<Box<Moved>>,
    /// Its DTLS association and what it has proven: such a peer is found by that, and not by its address.
    pub(super) secure: Option<Box<(Id, Proof)>>,
    /// Which one it is of those behind its address.
    node: Option<Box<[u8]>>,
    /// Somebody else is at its address: it is at none.
    is_displaced: bool,
    /// It has been told to make room, and is about to go.
    is_leaving: bool,
    generation: u32,
    pub(super) client: Client,
    is_ready: bool,
}

impl Entry {
    /// Whether it is no client, and is not about to become one.
    fn is_stranger(&self) -> bool {
        let is_busy = |e: &Extra| e.pending.is_some() || e.exchange.is_some();
        let c = &self.client;
        let is_idle = !c.is_opening && c.held == 0 && !c.extra.as_deref().is_some_and(is_busy);
        c.session.is_none() && is_idle && !self.is_leaving
    }

    /// Whether it has proven nothing, neither in its handshake nor later.
    pub(super) fn is_nobody(&self) -> bool {
        let has_proof = |(_, proof): &(Id, Proof)| proof.psk.is_some() || proof.certificate.is_some();
        self.client.grant.is_none() && !self.secure.as_deref().is_some_and(has_proof)
    }
}

/// Finds a peer behind an address that several are behind.
#[derive(Hash)]
struct Behind<'a>(SocketAddr, &'a [u8]);

impl Equivalent<(SocketAddr, Box<[u8]>)> for Behind<'_> {
    fn equivalent(&self, key: &(SocketAddr, Box<[u8]>)) -> bool {
        self.0 == key.0 && *self.1 == *key.1
    }
}

struct Moved {
    way: Way,
    received: usize,
    sent: usize,
}

impl Moved {
    /// Whether so much may be sent there; counts it if so.
    fn spend(&mut self, bytes: usize) -> bool {
        let may = self.sent + bytes <= FREE.max(3 * self.received);
        if may {
            self.sent += bytes;
        }
        may
    }
}

/// See the module.
pub(super) struct Table {
    pub(super) port: Arc<Port>,
    entries: Slab<Entry>,
    by_address: HashMap<SocketAddr, u32>,
    /// Those that are not the only one behind their address.
    by_node: HashMap<(SocketAddr, Box<[u8]>), u32>,
    generation: u32,
    /// Where the next is looked for that makes room, and how many have not gone yet.
    hand: usize,
    leaving: usize,
    /// Slots below this one were taken at some time.
    high: usize,
    /// Bytes of the datagram that is being served.
    current: usize,
    pub(super) ready: Vec<u32>,
    pub(super) closing: Vec<(Peer, Close)>,
    /// Associations that are somewhere else now.
    pub(super) reached: Vec<(Id, SocketAddr)>,
    /// What is to be sent to addresses that are no peer's.
    pub(super) announced: Vec<(SocketAddr, Vec<u8>)>,
}

impl Table {
    pub(super) fn new(port: Arc<Port>) -> Table {
        Table {
            port,
            entries: Slab::new(),
            by_address: HashMap::new(),
            by_node: HashMap::new(),
            generation: 0,
            hand: 0,
            leaving: 0,
            high: 0,
            current: 0,
            ready: Vec::new(),
            closing: Vec::new(),
            reached: Vec::new(),
            announced: Vec::new(),
        }
    }

    pub(super) fn entry(&mut self, peer: Peer) -> Option<&mut Entry> {
        self.entries.get_mut(peer.slot as usize).filter(|e| e.generation == peer.generation)
    }

    pub(super) fn peek(&self, peer: Peer) -> Option<&Entry> {
        self.entries.get(peer.slot as usize).filter(|e| e.generation == peer.generation)
    }

    /// The peer that is, or may be, at this address.
    pub(super) fn heard(&mut self, (address, local): Way, node: &[u8], bytes: usize) -> Option<Peer> {
        self.current = bytes;
        let slot = match node {
            [] => *self.by_address.get(&address)?,
            node => *self.by_node.get(&Behind(address, node))?,
        };
        let entry = self.entries.get_mut(slot as usize)?;
        match &mut entry.moved {
            Some(moved) if moved.way.0 == address => {
                moved.way.1 = local;
                moved.received += bytes;
            }
            _ => entry.way.1 = local,
        }
        Some(Peer { slot, generation: entry.generation })
    }

    /// The same for a peer that is known by its association: where its bytes came from. Returns the address that the machine
    /// is to be told of, if it is news.
    pub(super) fn heard_by_association(
        &mut self,
        peer: Peer,
        way: Way,
        bytes: usize,
        is_newest: bool,
    ) -> Option<SocketAddr> {
        self.current = bytes;
        let entry = self.entry(peer)?;
        if entry.way.0 == way.0 {
            entry.way.1 = way.1;
            // It is where it was.
            return entry.moved.take_if(|_| is_newest).map(|_| way.0);
        }
        if let Some(moved) = entry.moved.as_mut().filter(|m| m.way.0 == way.0) {
            moved.received += bytes;
            return None;
        }
        if !is_newest {
            return None;
        }
        self.may_be_at(peer, way);
        Some(way.0)
    }

    /// A peer that a handshake has made known.
    pub(super) fn add_secure(&mut self, now: Now, way: Way, id: Id, proof: Proof) -> Option<Peer> {
        let peer = self.insert(now, way)?;
        if let Some(entry) = self.entry(peer) {
            entry.secure = Some(Box::new((id, proof)));
        }
        Some(peer)
    }

    pub(super) fn add(&mut self, now: Now, way: Way, node: &[u8]) -> Option<Peer> {
        let peer = self.insert(now, way)?;
        if node.is_empty() {
            self.by_address.insert(way.0, peer.slot);
        } else if let Some(entry) = self.entry(peer) {
            entry.node = Some(node.into());
            self.by_node.insert((way.0, node.into()), peer.slot);
        }
        Some(peer)
    }

    /// Somebody else has the peer's address now: the peer is at none until it shows itself again.
    pub(super) fn displace(&mut self, peer: Peer) {
        let Some(entry) = self.entry(peer).filter(|e| e.secure.is_none()) else { return };
        entry.is_displaced = true;
        let (address, moved, node) = (entry.way.0, entry.moved.take(), entry.node.take());
        self.forget(address, node.as_deref(), peer.slot);
        if let Some(moved) = moved {
            self.forget(moved.way.0, None, peer.slot);
        }
    }

    fn insert(&mut self, now: Now, way: Way) -> Option<Peer> {
        if self.entries.len() - self.leaving >= self.port.setup.max_connections {
            self.make_room()?;
        }
        self.generation = self.generation.wrapping_add(1);
        let mut client = Client::default();
        if let Some(rate) = Rate::new(now.instant, self.port.setup.message_rate, self.port.setup.byte_rate) {
            client.extra().rate = Some(rate);
        }
        let generation = self.generation;
        let entry = Entry {
            way,
            moved: None,
            secure: None,
            node: None,
            is_displaced: false,
            is_leaving: false,
            generation,
            client,
            is_ready: false,
        };
        let slot = self.entries.insert(entry) as u32;
        self.high = self.high.max(slot as usize + 1);
        self.port.open.fetch_add(1, Ordering::Relaxed);
        Some(Peer { slot, generation: self.generation })
    }

    /// Ends the conversation of somebody who is no client: addresses cost their sender nothing, and who fills the table
    /// with them must keep nobody out. None if there is nobody such among those that are looked at.
    fn make_room(&mut self) -> Option<()> {
        for _ in 0..LOOK.min(self.high) {
            let slot = self.hand % self.high;
            self.hand = slot + 1;
            if let Some(entry) = self.entries.get_mut(slot).filter(|e| e.is_stranger()) {
                entry.is_leaving = true;
                let peer = Peer { slot: slot as u32, generation: entry.generation };
                self.leaving += 1;
                self.closing.push((peer, Close::QuotaExceeded));
                return Some(());
            }
        }
        None
    }

    pub(super) fn remove(&mut self, peer: Peer) {
        if self.peek(peer).is_some() {
            let entry = self.entries.remove(peer.slot as usize);
            self.leaving -= usize::from(entry.is_leaving);
            self.forget(entry.way.0, entry.node.as_deref(), peer.slot);
            if let Some(moved) = entry.moved {
                self.forget(moved.way.0, None, peer.slot);
            }
            self.port.open.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// The address is not this slot's any more, if it was.
    fn forget(&mut self, address: SocketAddr, node: Option<&[u8]>, slot: u32) {
        if let Some(node) = node {
            let key = Behind(address, node);
            if self.by_node.get(&key) == Some(&slot) {
                self.by_node.remove(&key);
            }
        } else if self.by_address.get(&address) == Some(&slot) {
            self.by_address.remove(&address);
        }
    }

    /// The peer was heard from another address.
    pub(super) fn may_be_at(&mut self, peer: Peer, way: Way) {
        let received = self.current;
        let Some(entry) = self.entry(peer) else { return };
        if entry.way.0 == way.0 {
            return;
        }
        let old = entry.moved.replace(Box::new(Moved { way, received, sent: 0 }));
        if entry.secure.is_some() {
            return;
        }
        if let Some(old) = old.filter(|old| old.way.0 != way.0) {
            self.forget(old.way.0, None, peer.slot);
        }
        self.by_address.insert(way.0, peer.slot);
    }

    /// Where a message of so many bytes for the peer goes: a probe to the address that is to be proven, everything else
    /// to both, as far as the new one may be sent so much.
    pub(super) fn ways(&mut self, peer: Peer, is_probe: bool, bytes: usize) -> Option<[Option<Way>; 2]> {
        let entry = self.entry(peer).filter(|e| !e.is_displaced)?;
        let new = entry.moved.as_deref_mut().and_then(|m| m.spend(bytes).then_some(m.way));
        Some([(!is_probe).then_some(entry.way), new])
    }

    /// The peer's DTLS association.
    pub(super) fn association(&self, peer: Peer) -> Option<Id> {
        self.peek(peer)?.secure.as_ref().map(|s| s.0)
    }

    pub(super) fn peers(&self) -> impl Iterator<Item = Peer> {
        self.entries.iter().map(|(slot, e)| Peer { slot: slot as u32, generation: e.generation })
    }

    pub(super) fn entries(&mut self) -> impl Iterator<Item = (Peer, &mut Entry)> {
        let peer = |slot: usize, e: &Entry| Peer { slot: slot as u32, generation: e.generation };
        self.entries.iter_mut().map(move |(slot, e)| (peer(slot, e), e))
    }

    /// The peer in this slot, which is not in the list of those to drain any more.
    pub(super) fn take_ready(&mut self, slot: u32) -> Option<(Peer, &mut Entry)> {
        let entry = self.entries.get_mut(slot as usize)?;
        entry.is_ready = false;
        Some((Peer { slot, generation: entry.generation }, entry))
    }
}

impl Peers for Table {
    fn client(&mut self, peer: Peer) -> Option<&mut Client> {
        self.entry(peer).map(|e| &mut e.client)
    }

    fn facts(&self, peer: Peer) -> Option<Facts> {
        let entry = self.peek(peer)?;
        let proof = entry.secure.as_ref().map(|s| s.1.clone()).unwrap_or_default();
        Some(Facts {
            certificate: proof.certificate,
            psk: proof.psk,
            client_id: proof.client_id,
            ..Facts::new(self.port.facts.clone(), self.port.transport(true), canonical(entry.way.0))
        })
    }

    fn port(&self, peer: Peer) -> Option<&Arc<Port>> {
        self.peek(peer).map(|_| &self.port)
    }

    fn close(&mut self, peer: Peer, why: Close) {
        self.closing.push((peer, why));
    }

    fn ready(&mut self, peer: Peer) {
        if let Some(entry) = self.entry(peer)
            && !entry.is_ready
        {
            entry.is_ready = true;
            self.ready.push(peer.slot);
        }
    }

    fn replied(&mut self, _: Peer) {}

    fn rebind(&mut self, peer: Peer, stranger: Peer) {
        if peer == stranger || self.peek(peer).is_none() {
            return;
        }
        let Some(way) = self.peek(stranger).map(|e| e.way) else { return };
        self.may_be_at(peer, way);
        self.close(stranger, Close::Moved);
    }

    fn stay(&mut self, peer: Peer) {
        let moved = self.entry(peer).and_then(|e| e.moved.take());
        if let Some(moved) = moved {
            self.forget(moved.way.0, None, peer.slot);
        }
    }

    fn announce(&mut self, to: SocketAddr, bytes: Vec<u8>) {
        self.announced.push((to, bytes));
    }

    fn reached(&mut self, peer: Peer, address: SocketAddr) {
        let Some(entry) = self.entry(peer) else { return };
        let local = entry.moved.as_ref().filter(|m| m.way.0 == address).map_or(entry.way.1, |m| m.way.1);
        let old = std::mem::replace(&mut entry.way, (address, local));
        entry.moved.take_if(|m| m.way.0 == address);
        if let Some(secure) = &entry.secure {
            let id = secure.0;
            self.reached.push((id, address));
        } else if old.0 != address {
            self.forget(old.0, None, peer.slot);
            self.by_address.insert(address, peer.slot);
        }
    }
}

#[cfg(test)]
mod tests;

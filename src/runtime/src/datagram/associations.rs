//! What a datagram driver does for its DTLS associations.

use std::collections::HashSet;
use std::net::IpAddr;

use dtls::Id;
use gateway::{Drop, Now, Peer, Stop};

use super::secure::Happened;
use super::table::Way;
use super::{Datagrams, SLEEPERS};
use crate::batch::Datagram;
use crate::perform::Peers;

impl Datagrams {
    /// Carries out what the DTLS layer has to say.
    pub(super) fn happened(&mut self, now: Now, local: Option<IpAddr>) {
        let Some(secure) = &mut self.secure else { return };
        let (mut list, mut bytes) = (std::mem::take(&mut secure.happened), std::mem::take(&mut secure.bytes));
        for event in list.drain(..) {
            match event {
                Happened::Send { to, datagram } => {
                    self.transmit(&[Datagram { to, from: local, bytes: &bytes[datagram] }]);
                }
                Happened::Opened { id, from } => {
                    self.open_secure(now, id, Some((from, local)));
                }
                Happened::Data { id, from, is_newest, payload } => {
                    self.heard(now, id, (from, local), is_newest, &bytes[payload]);
                }
                Happened::Closed { id, why } => {
                    if let Some(peer) = self.secure.as_ref().and_then(|s| s.peer(id)) {
                        self.table.close(peer, why);
                    }
                }
                Happened::Drop(why) => self.desk.house.metrics.dropped(why),
            }
        }
        bytes.clear();
        if let Some(secure) = &mut self.secure
            && secure.happened.is_empty()
        {
            // Their memory is used again.
            (secure.happened, secure.bytes) = (list, bytes);
        }
    }

    pub(super) fn heard(&mut self, now: Now, id: Id, way: Way, is_newest: bool, payload: &[u8]) {
        let known = self.secure.as_ref().and_then(|s| s.peer(id));
        let Some(peer) = known.or_else(|| self.open_secure(now, id, None)) else { return };
        if let Some(to) = self.table.heard_by_association(peer, way, payload.len(), is_newest) {
            self.machine.moved(now, peer, to, &mut self.out);
        }
        self.input(now, peer, payload, false);
    }

    /// Begins the conversation of an association, where it was last if nothing better is known.
    pub(super) fn open_secure(&mut self, now: Now, id: Id, way: Option<Way>) -> Option<Peer> {
        let secure = self.secure.as_mut()?;
        let (port, house) = (&self.table.port, &self.desk.house);
        let Some((proof, address)) = secure.who(now, house, port, id) else {
            // An identity that is no text (RFC 4279, 5.1).
            house.metrics.dropped(Drop::DtlsIdentity);
            secure.close(now, id);
            return None;
        };
        let Some(peer) = self.table.add_secure(now, way.unwrap_or((address, None)), id, proof) else {
            house.metrics.dropped(Drop::PeersFull);
            // Who has just shaken hands is told; others may find a place when they come again.
            if way.is_some() {
                secure.close(now, id);
            }
            return None;
        };
        secure.attach(id, peer);
        if let Some(facts) = self.table.facts(peer) {
            self.machine.opened(now, peer, &facts, &mut self.out);
        }
        self.perform(now);
        Some(peer)
    }

    /// What a pre-shared key has opened ends with it: a key that is given to the same identity later must not find it there.
    pub(super) fn revoke(&mut self, now: Now, exchanged: &HashSet<Box<str>>) {
        let Some(secure) = &self.secure else { return };
        for id in secure.revoked(&self.desk.house, &self.table.port, exchanged) {
            match self.secure.as_ref().and_then(|s| s.peer(id)) {
                Some(peer) => self.stop(now, peer, Stop::Kicked),
                None => self.secure.iter_mut().for_each(|s| s.forget(now, id)),
            }
        }
    }

    /// What the DTLS layer has to do beside what comes.
    pub(super) fn look_after_secure(&mut self, now: Now) {
        let Some(secure) = &mut self.secure else { return };
        if secure.written() {
            for (peer, is_probe, message) in std::mem::take(&mut self.unsent) {
                let to = if is_probe { self.out.probe(peer) } else { self.out.send(peer) };
                to.extend_from_slice(&message);
            }
        }
        if secure.next_timeout().is_some_and(|at| at <= now.instant) {
            secure.timeout(now);
        }
        let (sleepers, is_more) = secure.wake(SLEEPERS);
        for id in sleepers {
            self.open_secure(now, id, None);
        }
        self.happened(now, None);
        if is_more {
            self.desk.house.boxes[usize::from(self.desk.id)].wake();
        }
    }
}

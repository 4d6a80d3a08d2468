//! Handshakes under way: from a verified ClientHello to an association.

use std::net::SocketAddr;
use std::time::Duration;

use gateway::{Deadlines, Instant, Now};
use hashbrown::HashMap;
use zeroize::{Zeroize, Zeroizing};

use crate::endpoint::{Endpoint, Events, NUMBERS_END};
use crate::engine::{self, Failure, Host, Session};
use crate::event::{Closed, Event, Id, Identity, Reason};
use crate::hello::Hello;
use crate::hosts::Hosts;
use crate::kept::Kept;
use crate::keys::{Key, Keys};
use crate::park::BLOB_MAX;
use crate::record::Header;
use crate::retries::Retries;
use crate::table::{Active, Fresh, State};

/// RFC 4279, 5.3 asks for 128 bytes.
const IDENTITY_MAX: usize = 256;
/// A record with a Finished takes some 70 bytes.
const FINISHED_MAX: usize = 128;

/// A handshake under way.
struct Half {
    session: Session,
    id: Id,
    /// How many were begun before it.
    number: u64,
    random: [u8; 32],
    started: Instant,
    due: Instant,
    peer: Peer,
    /// A Finished under our connection id that came before what it finishes, or in a datagram with the end of that.
    /// Mbed TLS puts aside what is early only if it has no connection id.
    early: Option<Box<[u8]>>,
}

/// What a handshake has shown of the peer so far.
#[derive(Default)]
struct Peer {
    identity: Option<Identity>,
    psk: Psk,
    /// It shakes hands with this one.
    key: Option<Key>,
}

/// Which key the engine was given.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Psk {
    #[default]
    None,
    Unknown,
    /// The identity's only key, or the older one.
    Last,
    /// There is an older one.
    Newest,
}

/// The handshakes under way, one an address.
#[derive(Default)]
pub(crate) struct HalfOpen {
    by_address: HashMap<SocketAddr, Half>,
    by_id: HashMap<Id, SocketAddr>,
    hosts: Hosts,
    begun: u64,
    due: Deadlines<SocketAddr>,
}

impl HalfOpen {
    pub(crate) fn len(&self) -> usize {
        self.by_address.len()
    }

    pub(crate) fn contains(&self, a: SocketAddr) -> bool {
        self.by_address.contains_key(&a)
    }

    pub(crate) fn address_of(&self, id: Id) -> Option<SocketAddr> {
        self.by_id.get(&id).copied()
    }

    pub(crate) fn next_timeout(&self) -> Option<Instant> {
        self.due.next()
    }

    fn insert(&mut self, from: SocketAddr, mut half: Half) {
        self.begun += 1;
        half.number = self.begun;
        self.by_id.insert(half.id, from);
        self.hosts.add(half.number, from);
        self.due.set(half.due, from);
        self.by_address.insert(from, half);
    }

    fn remove(&mut self, from: SocketAddr) -> Option<Half> {
        let half = self.by_address.remove(&from)?;
        self.by_id.remove(&half.id);
        self.hosts.remove(half.number, from);
        self.due.cancel(half.due, from);
        Some(half)
    }

    /// Nothing to do before the next retransmission, or the end.
    fn wait(&mut self, from: SocketAddr, timeout: Duration) {
        let Some(half) = self.by_address.get_mut(&from) else { return };
        let end = half.started + timeout;
        let due = half.session.deadline().map_or(end, |d| d.min(end));
        self.due.cancel(half.due, from);
        half.due = due;
        self.due.set(due, from);
    }
}

/// The records of a datagram from the first under this connection id on, if they are as short as a Finished.
fn records_of(id: Id, datagram: &[u8]) -> Option<&[u8]> {
    let mut rest = datagram;
    while let Some(header) = Header::decode(rest) {
        if header.id == Some(id) {
            return (rest.len() <= FINISHED_MAX).then_some(rest);
        }
        rest = rest.get(header.whole_len()..)?;
    }
    None
}

/// Answers the engine in the course of a handshake.
struct Handshaker<'a, 'b> {
    now: Instant,
    from: SocketAddr,
    keys: &'a dyn Keys,
    retries: &'a Retries,
    table: &'a crate::table::Table,
    peer: &'a mut Peer,
    events: &'a mut Events<'b>,
}

impl Host for Handshaker<'_, '_> {
    fn send(&mut self, datagram: &[u8]) {
        (self.events)(Event::Send { to: self.from, datagram });
    }

    /// An identity that is not known gets a random key: the handshake goes on as with any other, and fails where a
    /// wrong key fails.
    fn key(&mut self, identity: &[u8], key: &mut [u8]) -> usize {
        let mut random = [0; 16];
        if identity.len() > IDENTITY_MAX || !engine::random(&mut random) {
            return 0;
        }
        let found = self.keys.key(identity);
        let identity = Identity::Psk(identity.into());
        let is_retry = self.retries.has(self.now, self.table.who(&identity), self.from.ip());
        let (psk, picked) = match (found.newest, found.older) {
            (_, Some(older)) if is_retry => (Psk::Last, Some(older)),
            (Some(newest), Some(_)) => (Psk::Newest, Some(newest)),
            (Some(only), None) | (None, Some(only)) => (Psk::Last, Some(only)),
            (None, None) => (Psk::Unknown, None),
        };
        *self.peer = Peer { identity: Some(identity), psk, key: picked };
        let picked = self.peer.key.as_ref().map_or(&random[..], Key::as_bytes);
        let Some(room) = key.get_mut(..picked.len()) else { return 0 };
        room.copy_from_slice(picked);
        picked.len()
    }

    fn certificate(&mut self, fingerprint: [u8; 32], name: Option<&[u8]>) {
        let common_name =
            name.filter(|n| n.len() <= IDENTITY_MAX).and_then(|n| std::str::from_utf8(n).ok()).map(Box::from);
        self.peer.identity = Some(Identity::Certificate { common_name, fingerprint });
    }
}

impl Endpoint {
    /// A ClientHello with a good cookie: the same again of a handshake under way, or the start of one. What
    /// association there is at the address stays until the new handshake is over.
    pub(crate) fn verified_hello(
        &mut self,
        now: Now,
        from: SocketAddr,
        hello: &Hello<'_>,
        datagram: &[u8],
        events: &mut Events<'_>,
    ) {
        if self.half_open.by_address.get(&from).is_some_and(|h| h.random == hello.random) {
            return self.handshake(now, from, datagram, events);
        }
        self.half_open.remove(from);
        // A host that begins handshakes without end throws out its own: those of others must be able to end.
        if self.half_open.len() >= self.settings.max_half_open
            && let Some(oldest) = self.half_open.hosts.oldest_of_most()
        {
            self.half_open.remove(oldest);
            events(Event::Drop(Reason::HalfOpenFull));
        }
        let mut id = [0; 8];
        let Ok(random) = hello.random.try_into() else { return };
        if !engine::random(&mut id) || self.table.find(Id(id)).is_some() {
            return;
        }
        let Some(session) = self.engine.session(Some(&id), None) else { return };
        let started = now.instant;
        let due = started + self.settings.handshake_timeout;
        let (id, peer) = (Id(id), Peer::default());
        let half = Half { session, id, number: 0, random, started, due, peer, early: None };
        self.half_open.insert(from, half);
        self.handshake(now, from, datagram, events);
    }

    /// Go on with a handshake.
    pub(crate) fn handshake(&mut self, now: Now, from: SocketAddr, datagram: &[u8], events: &mut Events<'_>) {
        let mut step = self.step(now, from, datagram, events);
        let Some(half) = self.half_open.by_address.get_mut(&from) else { return };
        if step == Ok(false) {
            if let Some(early) = records_of(half.id, datagram) {
                half.early = Some(early.into());
            }
            if let Some(early) = half.early.take() {
                step = self.step(now, from, &early, events);
                if let Some(half) = self.half_open.by_address.get_mut(&from) {
                    half.early = Some(early);
                }
            }
        }
        match step {
            Ok(true) => self.open(now, from, events),
            Ok(false) => self.half_open.wait(from, self.settings.handshake_timeout),
            Err(failure) => self.failed(now, from, failure, events),
        }
    }

    fn step(
        &mut self,
        now: Now,
        from: SocketAddr,
        datagram: &[u8],
        events: &mut Events<'_>,
    ) -> Result<bool, Failure> {
        let Some(half) = self.half_open.by_address.get_mut(&from) else { return Ok(false) };
        let was_known = half.peer.identity.is_some();
        let mut host = Handshaker {
            now: now.instant,
            from,
            keys: &*self.keys,
            retries: &self.retries,
            table: &self.table,
            peer: &mut half.peer,
            events,
        };
        let step = self.engine.handshake(&mut half.session, now, datagram, &mut host);
        if !was_known && half.peer.psk == Psk::Unknown {
            events(Event::Drop(Reason::UnknownIdentity));
        }
        step
    }

    fn failed(&mut self, now: Now, from: SocketAddr, failure: Failure, events: &mut Events<'_>) {
        let Some(half) = self.half_open.remove(from) else { return };
        let reason = match (failure, half.peer.psk) {
            (_, Psk::Unknown) => return,
            (Failure::Timeout, _) => Reason::HandshakeTimeout,
            (Failure::WrongKey, Psk::Newest) => {
                // The next handshake of this peer takes the older key.
                if let Some(identity) = &half.peer.identity {
                    self.retries.add(now.instant, self.table.who(identity), from.ip());
                }
                return;
            }
            (Failure::WrongKey, Psk::Last) => Reason::WrongKey,
            _ => Reason::HandshakeFailed,
        };
        if let Some(identity) = &half.peer.identity {
            self.retries.remove(self.table.who(identity), from.ip());
        }
        events(Event::Drop(reason));
    }

    /// A handshake is over: there is a new association, in the place of an old one perhaps.
    fn open(&mut self, now: Now, from: SocketAddr, events: &mut Events<'_>) {
        let Some(mut half) = self.half_open.remove(from) else { return };
        let identity = half.peer.identity.take().unwrap_or(Identity::Nobody);
        let who = self.table.who(&identity);
        self.retries.remove(who, from.ip());
        // A key that was taken away while its handshake was under way opens nothing.
        if let Identity::Psk(name) = &identity
            && half.peer.key.take().is_none_or(|key| !self.keys.key(name).has(&key))
        {
            return events(Event::Drop(Reason::UnknownIdentity));
        }
        let (id, has_cid, suite) = (half.id, half.session.has_cid(), half.session.suite());
        let replaced = self.replaced(from, who);
        let replaces = replaced.and_then(|p| self.table.get(p)).map(|a| a.id);
        events(Event::Opened { id, from, identity: &identity, has_cid, replaces });
        if let Some(place) = replaced {
            self.lose(place, Closed::Replaced, events);
        }
        self.make_room(who, events);
        let next = half.session.numbers().next_out;
        // Where nothing is kept nothing has to be reserved.
        let is_durable = self.settings.durable;
        let reserved = if is_durable { next + self.settings.number_block } else { NUMBERS_END };
        if is_durable {
            let kept = Keep { now, id, from, has_cid, suite, reserved };
            self.keep(&kept, &mut half.session, &identity, events);
        }
        let active = Active { session: half.session, identity: identity.clone() };
        let state = State::Active(Box::new(active));
        let fresh = Fresh { id, address: from, has_cid, suite, reserved, state };
        // One with connection ids is found by its address until its first record: what the client sends again of its
        // last flight is in records of epoch 0, which have none.
        let Some(place) = self.table.insert(now.instant, fresh, &identity, true) else { return };
        self.expect_idle(now.instant, place);
        // Application data in the same datagram.
        self.read_all(now, place, from, &[], events);
    }

    /// The association that a new one of this identity from this address takes the place of: the one found by the
    /// address, which nothing can reach any more, or one with connection ids of the same peer, which has restarted.
    fn replaced(&self, from: SocketAddr, who: u64) -> Option<u32> {
        let here = self
            .table
            .at_address(from)
            .filter(|p| self.table.get(*p).is_some_and(|a| !a.has_cid || a.who == who));
        here.or_else(|| {
            let own = self.table.of_identity(who);
            own.into_iter().find(|p| self.table.get(*p).is_some_and(|a| a.address == from))
        })
    }

    fn make_room(&mut self, who: u64, events: &mut Events<'_>) {
        loop {
            let own = self.table.of_identity(who);
            match own.first() {
                Some(oldest) if own.len() >= self.settings.max_per_identity => {
                    self.lose(*oldest, Closed::TooManyOfIdentity, events);
                }
                _ => break,
            }
        }
        while self.table.len() >= self.settings.max_associations {
            let Some(place) = self.table.idlest() else { break };
            self.lose(place, Closed::TooMany, events);
        }
    }

    /// Hand the new association to the store, its outgoing numbers leapt past the first block: what is restored from
    /// this never uses one that this process may have used.
    fn keep(&self, k: &Keep, session: &mut Session, identity: &Identity, events: &mut Events<'_>) {
        let mut room = [0; BLOB_MAX];
        let numbers = engine::Numbers { next_out: k.reserved, ..session.numbers() };
        let Some(blob) = session.snapshot(&mut room) else { return };
        if engine::blob::set_numbers(blob, numbers).is_none() {
            return;
        }
        let kept = Kept {
            identity: identity.clone(),
            address: k.from,
            has_cid: k.has_cid,
            suite: k.suite,
            opened_wall_ms: k.now.wall_ms,
            blob: Zeroizing::new(blob.to_vec()),
        };
        let record = self.sealer.seal(k.id, &kept);
        room.zeroize();
        if let Some(record) = record {
            events(Event::Keep { id: k.id, record: &record });
        }
    }

    /// Retransmit what is due, give up what takes too long.
    pub(crate) fn handshake_timeouts(&mut self, now: Now, events: &mut Events<'_>) {
        while let Some(from) = self.half_open.due.pop(now.instant) {
            let Some(half) = self.half_open.by_address.get(&from) else { continue };
            if now.instant >= half.started + self.settings.handshake_timeout {
                self.failed(now, from, Failure::Timeout, events);
            } else {
                self.handshake(now, from, &[], events);
            }
        }
    }
}

/// What `keep` writes beside the session.
struct Keep {
    now: Now,
    id: Id,
    from: SocketAddr,
    has_cid: bool,
    suite: u16,
    reserved: u64,
}

//! Parked associations: saved contexts in the slab, from the engine and back, and from the store at the start.

use std::fmt;
use std::net::SocketAddr;

use gateway::{Instant, Now};
use zeroize::{Zeroize, Zeroizing};

use crate::endpoint::Endpoint;
use crate::engine::{self, Numbers, blob};
use crate::event::{Id, Identity};
use crate::kept::{decode_identity, encode_identity};
use crate::table::{Active, Association, Fresh, Place, State};

/// Room for any saved context: that of an association with a certificate holds its digest only.
pub(crate) const BLOB_MAX: usize = 2048;

/// After so many were parked, some 50 MB of the heap, they are given back.
const PARKED_TO_TRIM: usize = 1024;

/// What became of a kept association.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restored {
    /// Who the peer is.
    pub identity: Identity,
    /// Where it was last.
    pub address: SocketAddr,
    /// Whether the peer uses connection ids.
    pub has_cid: bool,
}

/// Why a kept association was not restored. Its records are of no more use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotRestored {
    /// Not what was sealed under this key for this id.
    NotAuthentic,
    /// Saved by a version of the engine that this one does not follow.
    OtherVersion,
    /// There is an association of this id.
    Duplicate,
    /// There are as many associations as there may be, or of this identity.
    TooMany,
}

impl fmt::Display for NotRestored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            NotRestored::NotAuthentic => "not sealed with this key",
            NotRestored::OtherVersion => "saved by another version of the engine",
            NotRestored::Duplicate => "an association of this id is there",
            NotRestored::TooMany => "too many associations",
        })
    }
}

impl std::error::Error for NotRestored {}

/// The blob in a slot, and the identity behind it.
fn split(slot: &[u8]) -> Option<(&[u8], &[u8])> {
    let (len, rest) = slot.split_at_checked(2)?;
    rest.split_at_checked(usize::from(u16::from_be_bytes(len.try_into().ok()?)))
}

/// What a slot holds.
fn join(blob: &[u8], identity: &Identity) -> Zeroizing<Vec<u8>> {
    // Room for any identity, so that no copy is left behind by growing.
    let mut slot = Zeroizing::new(Vec::with_capacity(2 + blob.len() + 1024));
    // A blob is at most BLOB_MAX long.
    slot.extend_from_slice(&(blob.len() as u16).to_be_bytes());
    slot.extend_from_slice(blob);
    encode_identity(identity, &mut slot);
    slot
}

impl Endpoint {
    pub(crate) fn numbers(&self, place: Place) -> Option<Numbers> {
        match &self.table.get(place)?.state {
            State::Active(active) => Some(active.session.numbers()),
            State::Parked(handle) => blob::numbers(split(self.slab.get(handle))?.0),
            State::Between => None,
        }
    }

    pub(crate) fn identity_of(&self, a: &Association) -> Option<Identity> {
        match &a.state {
            State::Active(active) => Some(active.identity.clone()),
            State::Parked(handle) => Some(decode_identity(split(self.slab.get(handle))?.1)?.0),
            State::Between => None,
        }
    }

    /// The association in the engine: taken out of its place, or loaded. The slot of a parked one stays as it is, until
    /// `wake`.
    pub(crate) fn borrow(&mut self, place: Place) -> Option<Box<Active>> {
        if let State::Parked(handle) = &self.table.get(place)?.state {
            let (blob, identity) = split(self.slab.get(handle))?;
            let session = self.engine.load(blob).ok()?;
            let (identity, _) = decode_identity(identity)?;
            return Some(Box::new(Active { session, identity }));
        }
        match self.table.take_state(place)? {
            State::Active(active) => Some(active),
            _ => None,
        }
    }

    /// Put what `borrow` gave back into its place; it was of use.
    pub(crate) fn wake(&mut self, now: Instant, place: Place, active: Box<Active>, was_parked: bool) {
        if was_parked {
            if let Some(State::Parked(handle)) = self.table.take_state(place) {
                self.slab.remove(handle);
            }
            self.expect_idle(now, place);
        }
        self.table.put_state(place, State::Active(active));
        if let Some(a) = self.table.get_mut(place) {
            a.last = now;
        }
    }

    /// An association became active: it will be looked at when it may be idle.
    pub(crate) fn expect_idle(&mut self, now: Instant, place: Place) {
        if let Some(a) = self.table.get(place) {
            self.idle.push_back((now + self.settings.park_after, a.id));
        }
    }

    /// Park who was idle for long enough.
    pub(crate) fn park_idle(&mut self, now: Instant) {
        while let Some(&(at, id)) = self.idle.front() {
            if at > now {
                return;
            }
            self.idle.pop_front();
            let Some(place) = self.table.find(id) else { continue };
            let Some(due) = self.table.get(place).map(|a| a.last + self.settings.park_after) else {
                continue;
            };
            if due > now {
                self.idle.push_back((due, id));
            } else if self.park(place) {
                self.parked_since_trim += 1;
            } else {
                self.idle.push_back((now + self.settings.park_after, id));
            }
            if self.parked_since_trim >= PARKED_TO_TRIM {
                self.parked_since_trim = 0;
                engine::trim();
            }
        }
    }

    fn park(&mut self, place: Place) -> bool {
        let Some(a) = self.table.get_mut(place) else { return true };
        let State::Active(active) = &mut a.state else { return true };
        let mut room = [0; BLOB_MAX];
        active.session.end_handshake();
        let Some(blob) = active.session.snapshot(&mut room) else { return false };
        let slot = self.slab.insert(&join(blob, &active.identity));
        room.zeroize();
        let Some(handle) = slot else { return false };
        self.table.unbind_fresh(place);
        self.table.take_state(place);
        self.table.put_state(place, State::Parked(handle));
        true
    }

    /// At the start: an association that was kept, straight into the parked state. `numbers` is its last
    /// `KeepNumbers`, if there was one.
    pub fn restore(
        &mut self,
        now: Now,
        id: Id,
        record: &[u8],
        numbers: Option<&[u8]>,
    ) -> Result<Restored, NotRestored> {
        let mut kept = self.sealer.open(id, record).ok_or(NotRestored::NotAuthentic)?;
        let mut at = blob::numbers(&kept.blob).ok_or(NotRestored::OtherVersion)?;
        if let Some(numbers) = numbers {
            let (later, address) = self.sealer.open_numbers(id, numbers).ok_or(NotRestored::NotAuthentic)?;
            kept.address = address;
            at = later;
        }
        if kept.blob.get(..2) != engine::version().get(..2) || kept.blob.len() > BLOB_MAX {
            return Err(NotRestored::OtherVersion);
        }
        if self.table.find(id).is_some() {
            return Err(NotRestored::Duplicate);
        }
        let who = self.table.who(&kept.identity);
        if self.table.len() >= self.settings.max_associations
            || self.table.of_identity(who).len() >= self.settings.max_per_identity
        {
            return Err(NotRestored::TooMany);
        }
        blob::set_numbers(&mut kept.blob, at).ok_or(NotRestored::OtherVersion)?;
        let handle = self.slab.insert(&join(&kept.blob, &kept.identity)).ok_or(NotRestored::OtherVersion)?;
        let fresh = Fresh {
            id,
            address: kept.address,
            has_cid: kept.has_cid,
            suite: kept.suite,
            reserved: at.next_out,
            state: State::Parked(handle),
        };
        self.table.insert(now.instant, fresh, &kept.identity, !kept.has_cid);
        Ok(Restored { identity: kept.identity, address: kept.address, has_cid: kept.has_cid })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Engine;
    use crate::{Client, ClientSettings, Event, Found, Key, Keys, Settings};

    struct One;

    impl Keys for One {
        fn key(&self, _: &[u8]) -> Found {
            Found { newest: Key::new(b"secret"), older: None }
        }
    }

    /// An association that was kept, opened: its blob and the rest.
    fn kept() -> (Endpoint, Id, crate::kept::Kept) {
        let now = Now::from_micros(1_000_000);
        let mut e = Endpoint::new(Settings::default(), std::sync::Arc::new(One), &[1; 32]).unwrap();
        let mut client = Client::new(&ClientSettings::psk(b"dev", b"secret")).unwrap();
        let from = "10.0.0.1:5000".parse().unwrap();
        let (mut to_server, mut to_client, mut kept) = (vec![], vec![], None);
        client.timeout(now, &mut to_server).unwrap();
        while !to_server.is_empty() {
            for d in std::mem::take(&mut to_server) {
                e.receive(now, from, &d, &mut |event| match event {
                    Event::Send { datagram, .. } => to_client.push(datagram.to_vec()),
                    Event::Keep { id, record } => kept = Some((id, record.to_vec())),
                    _ => {}
                });
            }
            for d in std::mem::take(&mut to_client) {
                client.receive(now, &d, &mut to_server, &mut vec![]).unwrap();
            }
        }
        let (id, record) = kept.unwrap();
        let opened = e.sealer.open(id, &record).unwrap();
        let fresh = Endpoint::new(Settings::default(), std::sync::Arc::new(One), &[1; 32]).unwrap();
        (fresh, id, opened)
    }

    #[test]
    fn a_context_of_another_patch_release_is_taken_and_of_another_minor_one_is_not() {
        let (mut e, id, mut kept) = kept();
        let now = Now::from_micros(1);
        kept.blob[2] += 1;
        let record = e.sealer.seal(id, &kept).unwrap();
        e.restore(now, id, &record, None).unwrap();
        let place = e.table.find(id).unwrap();
        assert!(e.borrow(place).is_some());
        kept.blob[1] += 1;
        let other = Id([3; 8]);
        let record = e.sealer.seal(other, &kept).unwrap();
        assert_eq!(e.restore(now, other, &record, None), Err(NotRestored::OtherVersion));
    }

    #[test]
    fn a_context_that_is_cut_off_is_refused_by_the_engine_without_harm() {
        let (e, _, kept) = kept();
        let suites = e.settings.check().unwrap();
        let mut engine = Engine::new(true, &suites, (1000, 16_000), 8, 1232).unwrap();
        for n in 0..kept.blob.len() {
            assert!(engine.load(&kept.blob[..n]).is_err(), "{n}");
        }
        assert!(engine.load(&kept.blob).is_ok());
    }

    #[test]
    fn the_numbers_of_a_blob_are_where_they_are_looked_for() {
        let (e, _, mut kept) = kept();
        let suites = e.settings.check().unwrap();
        let mut engine = Engine::new(true, &suites, (1000, 16_000), 8, 1232).unwrap();
        let n = Numbers { window_top: 77, window: 0b1011, next_out: 0x1234_5678_9abc };
        blob::set_numbers(&mut kept.blob, n).unwrap();
        assert_eq!(engine.load(&kept.blob).unwrap().numbers(), n);
        assert_eq!(blob::numbers(&kept.blob), Some(n));
    }
}

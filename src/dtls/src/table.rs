//! The associations of an endpoint, and how each is found: by its id, its address, its identity.

use std::hash::{BuildHasher, RandomState};
use std::net::SocketAddr;

use gateway::Instant;
use hashbrown::HashMap;
use smallvec::SmallVec;

use crate::engine::Session;
use crate::event::{Id, Identity};
use crate::slab::Handle;

/// An association's place in the table.
pub(crate) type Place = u32;

/// How many records that are not authentic a parked association may be loaded for within a second.
const LOADS_PER_SECOND: u8 = 8;

/// One association. Some eighty bytes; what is large lies behind `state`.
pub(crate) struct Association {
    pub(crate) id: Id,
    pub(crate) address: SocketAddr,
    /// Of the identity, as the table finds it.
    pub(crate) who: u64,
    pub(crate) state: State,
    /// When a record last came or went.
    pub(crate) last: Instant,
    /// Outgoing record numbers below this one may be used.
    pub(crate) limit: u64,
    /// Outgoing record numbers below this one were asked for.
    pub(crate) asked: u64,
    pub(crate) suite: u16,
    pub(crate) has_cid: bool,
    /// The table finds it by its address.
    pub(crate) by_address: bool,
    /// Its numbers are to be written down though no record came.
    pub(crate) is_pending: bool,
    /// Within this second: for records from its own address, and from elsewhere.
    loads: [u8; 2],
    loads_second: u32,
}

/// Where an association's cryptographic state is.
pub(crate) enum State {
    Active(Box<Active>),
    Parked(Handle),
    /// Being moved from one to the other.
    Between,
}

/// In the engine.
pub(crate) struct Active {
    pub(crate) session: Session,
    pub(crate) identity: Identity,
}

/// What a new association begins with.
pub(crate) struct Fresh {
    pub(crate) id: Id,
    pub(crate) address: SocketAddr,
    pub(crate) has_cid: bool,
    pub(crate) suite: u16,
    pub(crate) reserved: u64,
    pub(crate) state: State,
}

/// The associations.
pub(crate) struct Table {
    places: Vec<Option<Association>>,
    free: Vec<Place>,
    by_id: HashMap<Id, Place>,
    by_address: HashMap<SocketAddr, Place>,
    by_identity: HashMap<u64, SmallVec<[Place; 2]>>,
    hasher: RandomState,
    active: usize,
    /// Where `idlest` looks next.
    hand: usize,
}

impl Default for Table {
    fn default() -> Self {
        Table {
            places: Vec::new(),
            free: Vec::new(),
            by_id: HashMap::new(),
            by_address: HashMap::new(),
            by_identity: HashMap::new(),
            hasher: RandomState::new(),
            active: 0,
            hand: 0,
        }
    }
}

impl Table {
    pub(crate) fn len(&self) -> usize {
        self.by_id.len()
    }

    /// Associations that are not parked.
    pub(crate) fn active(&self) -> usize {
        self.active
    }

    pub(crate) fn find(&self, id: Id) -> Option<Place> {
        self.by_id.get(&id).copied()
    }

    pub(crate) fn at_address(&self, a: SocketAddr) -> Option<Place> {
        self.by_address.get(&a).copied()
    }

    pub(crate) fn get(&self, p: Place) -> Option<&Association> {
        self.places.get(p as usize)?.as_ref()
    }

    pub(crate) fn get_mut(&mut self, p: Place) -> Option<&mut Association> {
        self.places.get_mut(p as usize)?.as_mut()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Association> {
        self.places.iter().flatten()
    }

    pub(crate) fn who(&self, identity: &Identity) -> u64 {
        self.hasher.hash_one(identity)
    }

    /// The associations of an identity, the oldest first.
    pub(crate) fn of_identity(&self, who: u64) -> SmallVec<[Place; 2]> {
        self.by_identity.get(&who).cloned().unwrap_or_default()
    }

    /// Add an association that is found by its id, and by its address too if `by_address`.
    pub(crate) fn insert(
        &mut self,
        now: Instant,
        f: Fresh,
        identity: &Identity,
        by_address: bool,
    ) -> Option<Place> {
        let place = match self.free.pop() {
            Some(p) => p,
            None => {
                self.places.push(None);
                Place::try_from(self.places.len() - 1).ok()?
            }
        };
        let who = self.who(identity);
        self.active += usize::from(matches!(f.state, State::Active(_)));
        self.by_id.insert(f.id, place);
        // Nobody is no identity: those who prove nothing have nothing in common.
        if *identity != Identity::Nobody {
            self.by_identity.entry(who).or_default().push(place);
        }
        let association = Association {
            id: f.id,
            address: f.address,
            who,
            state: f.state,
            last: now,
            limit: f.reserved,
            asked: f.reserved,
            suite: f.suite,
            has_cid: f.has_cid,
            by_address: false,
            is_pending: false,
            loads: [0; 2],
            loads_second: 0,
        };
        *self.places.get_mut(place as usize)? = Some(association);
        if by_address {
            self.bind_address(place);
        }
        Some(place)
    }

    /// Let the association be found by its address; whoever was found by it no longer is.
    fn bind_address(&mut self, p: Place) {
        let Some(a) = self.places.get_mut(p as usize).and_then(Option::as_mut) else { return };
        a.by_address = true;
        if let Some(old) = self.by_address.insert(a.address, p)
            && old != p
            && let Some(old) = self.get_mut(old)
        {
            old.by_address = false;
        }
    }

    /// It is no longer found by its address: it is known to use its id.
    pub(crate) fn unbind_address(&mut self, p: Place) {
        let Some(a) = self.places.get_mut(p as usize).and_then(Option::as_mut) else { return };
        if std::mem::take(&mut a.by_address) {
            self.by_address.remove(&a.address);
        }
    }

    /// The handshake is behind it: one with connection ids is found by these alone from now on.
    pub(crate) fn unbind_fresh(&mut self, p: Place) {
        if self.get(p).is_some_and(|a| a.has_cid) {
            self.unbind_address(p);
        }
    }

    pub(crate) fn remove(&mut self, p: Place) -> Option<Association> {
        self.unbind_address(p);
        let a = self.places.get_mut(p as usize)?.take()?;
        self.by_id.remove(&a.id);
        if let Some(all) = self.by_identity.get_mut(&a.who) {
            all.retain(|x| *x != p);
            if all.is_empty() {
                self.by_identity.remove(&a.who);
            }
        }
        self.active -= usize::from(!matches!(a.state, State::Parked(_)));
        self.free.push(p);
        Some(a)
    }

    /// Take the state out, to put another in with `put_state`.
    pub(crate) fn take_state(&mut self, p: Place) -> Option<State> {
        let a = self.places.get_mut(p as usize)?.as_mut()?;
        if matches!(a.state, State::Parked(_)) {
            self.active += 1;
        }
        Some(std::mem::replace(&mut a.state, State::Between))
    }

    pub(crate) fn put_state(&mut self, p: Place, state: State) {
        let Some(a) = self.places.get_mut(p as usize).and_then(Option::as_mut) else { return };
        if matches!(state, State::Parked(_)) {
            self.active -= 1;
        }
        a.state = state;
    }

    /// An association to give up for a new one: the one idle longest of the next sixteen in the table.
    pub(crate) fn idlest(&mut self) -> Option<Place> {
        let n = self.places.len();
        let mut found: Option<(Instant, usize)> = None;
        let mut seen = 0;
        for step in 0..n {
            let at = (self.hand + step) % n;
            let Some(a) = self.places.get(at).and_then(Option::as_ref) else { continue };
            if found.is_none_or(|(last, _)| a.last < last) {
                found = Some((a.last, at));
            }
            seen += 1;
            if seen == 16 {
                self.hand = (at + 1) % n;
                break;
            }
        }
        found.and_then(|(_, at)| Place::try_from(at).ok())
    }
}

impl Association {
    /// Whether a record that may be forged is worth loading this parked association for. Who forges from elsewhere does not
    /// use up what its peer has where it was.
    pub(crate) fn may_load(&mut self, now: Instant, from: SocketAddr) -> bool {
        let second = (now.as_micros() / 1_000_000) as u32;
        if self.loads_second != second {
            self.loads_second = second;
            self.loads = [0; 2];
        }
        *self.loads_from(from) < LOADS_PER_SECOND
    }

    /// It was loaded for a forged record.
    pub(crate) fn loaded_in_vain(&mut self, from: SocketAddr) {
        let loads = self.loads_from(from);
        *loads = loads.saturating_add(1);
    }

    fn loads_from(&mut self, from: SocketAddr) -> &mut u8 {
        let [here, elsewhere] = &mut self.loads;
        if from == self.address { here } else { elsewhere }
    }
}

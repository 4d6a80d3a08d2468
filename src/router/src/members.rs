//! The subscribers of one filter, or the members of one shared subscription: a list, with an index once it is long, so
//! that a thousand clients that subscribe to the same filter do not each look through all the others.

use std::hash::BuildHasher;
use std::sync::Arc;

use gateway::{Filter, Qos, Subscribe};
use hashbrown::{DefaultHashBuilder, HashTable};
use smallvec::SmallVec;

use crate::session::Session;

/// One subscriber with the options of its subscription.
#[derive(Clone)]
pub(crate) struct Member {
    pub(crate) session: Arc<Session>,
    pub(crate) options: SubscriptionOptions,
    pub(crate) identifier: u32,
}

/// The options of a subscription in four bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SubscriptionOptions {
    pub(crate) qos: Qos,
    pub(crate) no_local: bool,
    pub(crate) retain_as_published: bool,
    pub(crate) kind: Kind,
}

/// Subscriptions that differ in these prefixes are different ones, even of the same session to the same plain filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Kind(u8);

impl Kind {
    pub(crate) fn of(filter: &Filter) -> Kind {
        let flags = [filter.is_fastlane(), filter.is_local(), filter.is_exclusive()];
        Kind(flags.iter().rev().fold(0, |bits, &flag| bits << 1 | u8::from(flag)))
    }

    /// `$fastlane/`
    pub(crate) fn is_fast(self) -> bool {
        self.0 & 1 != 0
    }
}

impl Member {
    pub(crate) fn new(session: &Arc<Session>, filter: &Filter, s: &Subscribe) -> Member {
        let options = SubscriptionOptions {
            qos: s.qos,
            no_local: s.no_local,
            retain_as_published: s.retain_as_published,
            kind: Kind::of(filter),
        };
        Member { session: session.clone(), options, identifier: s.identifier }
    }

    /// The identifier as deliveries carry it.
    pub(crate) fn ids(&self) -> Option<Arc<[u32]>> {
        (self.identifier != 0).then(|| Arc::from([self.identifier].as_slice()))
    }

    fn is(&self, session: *const Session, kind: Kind) -> bool {
        Arc::as_ptr(&self.session) == session && self.options.kind == kind
    }
}

/// From here on there is an index.
const LONG: usize = 32;

/// See the module.
#[derive(Default)]
pub(crate) struct Members {
    list: SmallVec<[Member; 1]>,
    index: Option<Box<Index>>,
}

#[derive(Default)]
struct Index {
    /// Places in the list by session and kind.
    places: HashTable<u32>,
    hasher: DefaultHashBuilder,
}

impl Index {
    fn hash(&self, session: *const Session, kind: Kind) -> u64 {
        self.hasher.hash_one((session as usize, kind))
    }
}

impl Members {
    /// All of them.
    pub(crate) fn as_slice(&self) -> &[Member] {
        &self.list
    }

    /// Whether there is none.
    pub(crate) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Adds a member, or gives its subscription new options; true if it is new.
    pub(crate) fn join(&mut self, member: Member) -> bool {
        match self.position(Arc::as_ptr(&member.session), member.options.kind) {
            Some(at) => {
                self.list[at] = member;
                false
            }
            None => {
                self.list.push(member);
                self.indexed(self.list.len() - 1);
                true
            }
        }
    }

    /// Removes a member; false if it was none.
    pub(crate) fn leave(&mut self, session: &Arc<Session>, kind: Kind) -> bool {
        let Some(at) = self.position(Arc::as_ptr(session), kind) else { return false };
        let last = self.list.len() - 1;
        if let Some(index) = &mut self.index {
            let hash = index.hash(Arc::as_ptr(session), kind);
            if let Ok(entry) = index.places.find_entry(hash, |&place| place as usize == at) {
                entry.remove();
            }
            let moved = &self.list[last];
            let hash = index.hash(Arc::as_ptr(&moved.session), moved.options.kind);
            if let Some(place) = index.places.find_mut(hash, |&place| place as usize == last) {
                *place = at as u32;
            }
        }
        self.list.swap_remove(at);
        if self.list.len() < LONG / 2 {
            self.index = None;
        }
        if self.list.len() * 4 < self.list.capacity() {
            self.list.shrink_to_fit();
        }
        true
    }

    fn position(&self, session: *const Session, kind: Kind) -> Option<usize> {
        match &self.index {
            None => self.list.iter().position(|m| m.is(session, kind)),
            Some(index) => {
                let is_it = |&place: &u32| self.list[place as usize].is(session, kind);
                index.places.find(index.hash(session, kind), is_it).map(|&place| place as usize)
            }
        }
    }

    /// Enters the member at `at`, and all if the list has become long.
    fn indexed(&mut self, at: usize) {
        let from = match self.index {
            Some(_) => at,
            None if self.list.len() >= LONG => 0,
            None => return,
        };
        let list = &self.list;
        let Index { places, hasher } = &mut **self.index.get_or_insert_default();
        let hash = |m: &Member| hasher.hash_one((Arc::as_ptr(&m.session) as usize, m.options.kind));
        for at in from..list.len() {
            places.insert_unique(hash(&list[at]), at as u32, |&place| hash(&list[place as usize]));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(session: &Arc<Session>, filter: &str, identifier: u32) -> Member {
        let filter = Filter::parse(filter).unwrap();
        let subscribe = Subscribe {
            filter: filter.clone(),
            qos: Qos::AtMostOnce,
            no_local: false,
            retain_as_published: false,
            retain_handling: 0,
            identifier,
        };
        Member::new(session, &filter, &subscribe)
    }

    #[test]
    fn members_are_told_apart_whether_few_or_many() {
        let sessions: Vec<_> = (0..200).map(|n| Session::for_test(&n.to_string())).collect();
        let mut members = Members::default();
        for (n, session) in sessions.iter().enumerate() {
            assert!(members.join(member(session, "t", n as u32)));
            assert!(!members.join(member(session, "t", 1000 + n as u32)));
            assert!(members.join(member(session, "$local/t", 0)));
        }
        let plain = Kind::of(&Filter::parse("t").unwrap());
        let local = Kind::of(&Filter::parse("$local/t").unwrap());
        // From the middle, so that others are moved into the places.
        for n in (0..200).map(|n| (n * 77 + 13) % 200) {
            assert!(members.leave(&sessions[n], plain) && !members.leave(&sessions[n], plain));
        }
        assert_eq!(members.as_slice().len(), 200);
        for session in &sessions {
            assert!(members.leave(session, local));
        }
        assert!(members.is_empty() && members.index.is_none());
    }
}

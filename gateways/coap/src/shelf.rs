//! Things kept for peers for a while: bounded for each peer and in all, and forgotten when nobody touched them for their
//! lifetime. When there is no room, what was not touched for longest makes it.

use std::collections::{BTreeSet, HashMap};
use std::hash::Hash;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use gateway::Instant;

/// Bounds in bytes, and a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Of one body.
    pub body: usize,
    /// Of all that is kept for one peer.
    pub peer: usize,
    /// Of all that is kept.
    pub all: usize,
    /// Up to how much of `all` is for those that are not verified.
    pub unverified: usize,
    /// How long something is kept that is not touched.
    pub lifetime: Duration,
}

/// Bytes in use that several collections of a gateway count together, for those of streams have one each.
#[derive(Clone, Debug, Default)]
pub struct Budget(Arc<AtomicUsize>);

impl Budget {
    /// Takes so many bytes; false if then more than `most` were in use.
    fn take(&self, bytes: usize, most: usize) -> bool {
        let takes = |used: usize| used.checked_add(bytes).filter(|sum| *sum <= most);
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, takes).is_ok()
    }

    fn give_back(&self, bytes: usize) {
        self.0.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Bytes in use.
    pub fn used(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

/// One share of a budget, which becomes larger and smaller, and is given back at its end.
#[derive(Debug)]
pub(crate) struct Share {
    budget: Budget,
    bytes: usize,
}

impl Share {
    /// Nothing of it.
    pub(crate) fn new(budget: Budget) -> Share {
        Share { budget, bytes: 0 }
    }

    /// Has so many bytes from now on; false if it would become larger and then more than `most` were in use.
    pub(crate) fn set(&mut self, bytes: usize, most: usize) -> bool {
        if bytes <= self.bytes {
            self.budget.give_back(self.bytes - bytes);
        } else if !self.budget.take(bytes - self.bytes, most) {
            return false;
        }
        self.bytes = bytes;
        true
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.budget.give_back(self.bytes);
    }
}

/// Things of one peer.
const MAX_ITEMS: usize = 16;

#[derive(Debug)]
struct Item<K, V> {
    key: K,
    value: V,
    /// Bytes.
    cost: usize,
    /// Tells it from another under the same key.
    number: u64,
    expires: Instant,
    /// Does not make room for what belongs to others.
    is_firm: bool,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Shelf<P, K, V> {
    limits: Limits,
    budget: Budget,
    peers: HashMap<P, Vec<Item<K, V>>>,
    /// By when they expire: those that are not firm, and those that are.
    order: [BTreeSet<(Instant, u64, P)>; 2],
    used: usize,
    numbers: u64,
}

impl<P: Copy + Ord + Hash, K: PartialEq, V> Shelf<P, K, V> {
    pub(crate) fn new(limits: Limits, budget: Budget) -> Shelf<P, K, V> {
        Shelf { limits, budget, peers: HashMap::new(), order: Default::default(), used: 0, numbers: 0 }
    }

    pub(crate) fn limits(&self) -> Limits {
        self.limits
    }

    /// Bytes kept.
    pub(crate) fn used(&self) -> usize {
        self.used
    }

    /// Bytes kept for a peer.
    pub(crate) fn used_by(&self, peer: P) -> usize {
        self.peers.get(&peer).map_or(0, |items| items.iter().map(|i| i.cost).sum())
    }

    pub(crate) fn get<Q>(&mut self, peer: P, key: &Q) -> Option<&mut V>
    where
        Q: PartialEq + ?Sized,
        K: AsRef<Q>,
    {
        self.item(peer, key).map(|i| &mut i.value)
    }

    fn item<Q>(&mut self, peer: P, key: &Q) -> Option<&mut Item<K, V>>
    where
        Q: PartialEq + ?Sized,
        K: AsRef<Q>,
    {
        self.peers.get_mut(&peer)?.iter_mut().find(|i| i.key.as_ref() == key)
    }

    /// Puts something on the shelf in place of what is there under its key; false if there is no room.
    pub(crate) fn insert(
        &mut self,
        now: Instant,
        peer: P,
        key: K,
        value: V,
        cost: usize,
        is_firm: bool,
    ) -> bool {
        if let Some(same) = self.peers.get(&peer).and_then(|l| l.iter().find(|i| i.key == key)) {
            self.take(peer, same.number);
        }
        self.numbers += 1;
        let number = self.numbers;
        if self.peers.get(&peer).is_some_and(|items| items.len() >= MAX_ITEMS) {
            self.drop_oldest_of(peer, number);
        }
        if !self.make_room(peer, number, cost, is_firm) {
            return false;
        }
        let expires = now + self.limits.lifetime;
        self.used += cost;
        self.order[usize::from(is_firm)].insert((expires, number, peer));
        self.peers.entry(peer).or_default().push(Item { key, value, cost, number, expires, is_firm });
        true
    }

    /// Keeps something for longer, and notes that it takes `more` bytes than before; false if there is no room for them.
    pub(crate) fn touch<Q>(&mut self, now: Instant, peer: P, key: &Q, more: usize, is_firm: bool) -> bool
    where
        Q: PartialEq + ?Sized,
        K: AsRef<Q>,
    {
        let expires = now + self.limits.lifetime;
        let Some(number) = self.item(peer, key).map(|i| i.number) else { return false };
        if more > 0 && !self.make_room(peer, number, more, is_firm) {
            return false;
        }
        let Some(item) = self.item(peer, key) else { return false };
        item.cost += more;
        let before = (std::mem::replace(&mut item.expires, expires), item.number, peer);
        let was_firm = std::mem::replace(&mut item.is_firm, is_firm);
        self.used += more;
        self.order[usize::from(was_firm)].remove(&before);
        self.order[usize::from(is_firm)].insert((expires, number, peer));
        true
    }

    pub(crate) fn remove<Q>(&mut self, peer: P, key: &Q) -> Option<V>
    where
        Q: PartialEq + ?Sized,
        K: AsRef<Q>,
    {
        let number = self.item(peer, key)?.number;
        self.take(peer, number)
    }

    /// Forgets all that is kept for a peer.
    pub(crate) fn forget(&mut self, peer: P) {
        for item in self.peers.remove(&peer).into_iter().flatten() {
            self.used -= item.cost;
            self.budget.give_back(item.cost);
            self.order[usize::from(item.is_firm)].remove(&(item.expires, item.number, peer));
        }
    }

    /// Forgets what was not touched for its lifetime.
    pub(crate) fn expire(&mut self, now: Instant) {
        for class in 0..self.order.len() {
            while let Some(&(at, number, peer)) = self.order[class].first()
                && at <= now
            {
                self.order[class].pop_first();
                self.take(peer, number);
            }
        }
    }

    /// When something expires next.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.order.iter().filter_map(|o| o.first()).map(|(at, ..)| *at).min()
    }

    fn take(&mut self, peer: P, number: u64) -> Option<V> {
        let items = self.peers.get_mut(&peer)?;
        let at = items.iter().position(|i| i.number == number)?;
        let item = items.swap_remove(at);
        if items.is_empty() {
            self.peers.remove(&peer);
        }
        self.used -= item.cost;
        self.budget.give_back(item.cost);
        self.order[usize::from(item.is_firm)].remove(&(item.expires, number, peer));
        Some(item.value)
    }

    /// Makes room for `more` bytes of a peer, but not with the thing of this number, and takes them.
    fn make_room(&mut self, peer: P, number: u64, more: usize, is_firm: bool) -> bool {
        let most = if is_firm { self.limits.all } else { self.limits.unverified };
        while self.used_by(peer) + more > self.limits.peer {
            if !self.drop_oldest_of(peer, number) {
                return false;
            }
        }
        while !self.budget.take(more, most) {
            let oldest = self.order[0].iter().find(|(_, n, _)| *n != number).copied();
            match oldest {
                Some((_, other, of)) => drop(self.take(of, other)),
                None if self.drop_oldest_of(peer, number) => {}
                None => return false,
            }
        }
        true
    }

    fn drop_oldest_of(&mut self, peer: P, but: u64) -> bool {
        let others = self.peers.get(&peer).into_iter().flatten().filter(|i| i.number != but);
        match others.min_by_key(|i| (i.expires, i.number)).map(|i| i.number) {
            Some(number) => self.take(peer, number).is_some(),
            None => false,
        }
    }
}

impl<P, K, V> Drop for Shelf<P, K, V> {
    fn drop(&mut self) {
        self.budget.give_back(self.used);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits =
        Limits { body: 100, peer: 100, all: 250, unverified: 200, lifetime: Duration::from_secs(10) };

    fn shelf() -> Shelf<u8, String, u8> {
        Shelf::new(LIMITS, Budget::default())
    }

    fn at(seconds: u64) -> Instant {
        Instant::from_micros(seconds * 1_000_000)
    }

    fn put(s: &mut Shelf<u8, String, u8>, now: u64, peer: u8, key: &str, cost: usize, is_firm: bool) -> bool {
        s.insert(at(now), peer, key.to_owned(), 0, cost, is_firm)
    }

    fn has(s: &mut Shelf<u8, String, u8>, peer: u8, key: &str) -> bool {
        s.get(peer, key).is_some()
    }

    #[test]
    fn what_is_not_touched_expires_and_leaves_nothing() {
        let mut s = shelf();
        assert!(put(&mut s, 0, 1, "a", 10, false) && put(&mut s, 0, 1, "b", 10, true));
        assert!(s.touch(at(5), 1, "a", 5, true));
        assert_eq!((s.used(), s.next()), (25, Some(at(10))));
        s.expire(at(10));
        assert!(!has(&mut s, 1, "b"));
        assert_eq!((s.used(), s.next()), (15, Some(at(15))));
        s.expire(at(15));
        assert_eq!((s.used(), s.next(), s.peers.len()), (0, None, 0));
    }

    #[test]
    fn a_peer_that_has_too_much_loses_its_own_oldest() {
        let mut s = shelf();
        assert!(put(&mut s, 0, 1, "a", 60, true) && put(&mut s, 1, 2, "other", 60, true));
        assert!(put(&mut s, 2, 1, "b", 60, true));
        assert!(!has(&mut s, 1, "a") && has(&mut s, 1, "b") && has(&mut s, 2, "other"));
        assert!(!put(&mut s, 3, 1, "c", 101, true), "more than a peer may have");
        assert!(!s.touch(at(3), 2, "other", 41, true));
    }

    #[test]
    fn what_is_firm_does_not_make_room_for_others() {
        let mut s = shelf();
        assert!(put(&mut s, 0, 1, "a", 100, true) && put(&mut s, 1, 2, "b", 100, false));
        assert!(put(&mut s, 2, 3, "c", 100, true), "the one that is not firm made room");
        assert!(has(&mut s, 1, "a") && !has(&mut s, 2, "b"));
        assert!(!put(&mut s, 3, 4, "d", 100, true));
        assert_eq!(s.used(), 200);
        s.forget(1);
        assert!(put(&mut s, 4, 4, "d", 100, true));
    }

    #[test]
    fn what_is_not_firm_leaves_a_part_to_what_is() {
        let mut s = shelf();
        for peer in 0..10 {
            assert!(put(&mut s, u64::from(peer), peer, "a", 50, false));
            assert!(s.used() <= 200);
        }
        assert!(put(&mut s, 10, 10, "a", 50, true));
        assert_eq!(s.used(), 250);
    }

    #[test]
    fn several_of_them_have_one_bound_and_give_back_what_they_took() {
        let budget = Budget::default();
        let mut one = Shelf::new(LIMITS, budget.clone());
        let mut other = Shelf::new(LIMITS, budget.clone());
        assert!(put(&mut one, 0, 1, "a", 100, true) && put(&mut one, 0, 2, "a", 100, true));
        assert!(put(&mut other, 0, 1, "a", 50, true));
        assert!(!put(&mut other, 0, 2, "a", 50, true));
        assert_eq!(budget.used(), 250);
        drop(one);
        assert_eq!(budget.used(), 50);
        assert!(put(&mut other, 0, 2, "a", 50, true));
        other.forget(1);
        other.expire(at(10));
        assert_eq!((other.used(), budget.used()), (0, 0));
    }

    #[test]
    fn many_small_things_of_a_peer_are_bounded_too() {
        let mut s = shelf();
        for n in 0..100 {
            assert!(put(&mut s, n, 1, &n.to_string(), 1, true));
        }
        assert_eq!(s.used(), MAX_ITEMS);
        assert!(has(&mut s, 1, "99"));
    }

    #[test]
    fn the_same_key_again_replaces_what_was_there() {
        let mut s = shelf();
        assert!(put(&mut s, 0, 1, "a", 90, true) && put(&mut s, 0, 1, "a", 80, false));
        assert_eq!((s.used(), s.used_by(1), s.order[0].len(), s.order[1].len()), (80, 80, 1, 0));
        assert!(s.remove(1, "a").is_some());
        assert_eq!(s.used(), 0);
    }
}

//! How many sessions a shared message still waits for: it is stored once, and its space comes back with the last of them.
//!
//! Counts are in memory alone. Those of messages from before the start are found out by one pass over the queues after it
//! ([`Counts::learn`]), while traffic goes on: what was released meanwhile is subtracted.

use hashbrown::HashMap;

/// See the module.
pub(crate) struct Counts {
    known: HashMap<u64, Held>,
    /// Numbers below are from before the start.
    first: u64,
    /// Releases of messages from before the start, until their counts are known.
    released: Option<HashMap<u64, u32>>,
}

/// One shared message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Held {
    /// How many wait for it.
    pub(crate) count: u32,
    /// Bytes of its record.
    pub(crate) size: u32,
}

impl Counts {
    /// Messages with numbers from `first` on are this run's.
    pub(crate) fn new(first: u64) -> Counts {
        Counts { known: HashMap::new(), first, released: (first > 0).then(HashMap::new) }
    }

    /// A new message of `size` bytes that its maker alone holds.
    pub(crate) fn make(&mut self, number: u64, size: u32) {
        self.known.insert(number, Held { count: 1, size });
    }

    /// One more waits for `number`.
    pub(crate) fn hold(&mut self, number: u64) {
        self.known.entry(number).or_default().count += 1;
    }

    /// One less; the bytes of its record if it was the last.
    pub(crate) fn release(&mut self, number: u64) -> Option<u32> {
        if number < self.first
            && let Some(released) = &mut self.released
        {
            *released.entry(number).or_default() += 1;
            return None;
        }
        let held = self.known.get_mut(&number)?;
        held.count = held.count.saturating_sub(1);
        let Held { count, size } = *held;
        (count == 0).then(|| {
            self.known.remove(&number);
            size
        })
    }

    /// How often the messages from before the start were referred to then; returns those that nobody waits for by now,
    /// with their bytes.
    pub(crate) fn learn(&mut self, then: HashMap<u64, Held>) -> Vec<(u64, u32)> {
        let released = self.released.take().unwrap_or_default();
        let mut free = Vec::new();
        for (number, mut held) in then {
            held.count = held.count.saturating_sub(released.get(&number).copied().unwrap_or_default());
            if held.count == 0 {
                free.push((number, held.size));
            } else {
                self.known.insert(number, held);
            }
        }
        free
    }

    /// Messages that somebody waits for, as far as that is known.
    pub(crate) fn len(&self) -> usize {
        self.known.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_release_frees() {
        let mut c = Counts::new(0);
        c.make(7, 50);
        c.hold(7);
        assert_eq!((c.release(7), c.release(7), c.release(7)), (None, Some(50), None));
    }

    #[test]
    fn releases_before_the_old_counts_are_known_are_subtracted_then() {
        let mut c = Counts::new(100);
        assert_eq!((c.release(1), c.release(1), c.release(2)), (None, None, None));
        let held = |count| Held { count, size: 9 };
        let mut free = c.learn(HashMap::from_iter([(1, held(2)), (2, held(2)), (3, held(1)), (4, held(0))]));
        free.sort_unstable();
        assert_eq!(free, [(1, 9), (4, 9)]);
        assert_eq!((c.release(2), c.release(3)), (Some(9), Some(9)));
    }
}

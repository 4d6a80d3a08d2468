//! A driver's own memory of who gets what: on the hot path a topic costs one look-up and no lock.

use hashbrown::HashMap;
use hashbrown::hash_map::EntryRef;

use crate::routes::Routes;

/// Most topics a driver remembers, and most bytes (the last one remembered may go beyond).
const MOST: (usize, usize) = (16_384, 16 << 20);
/// Longest topic that is remembered, in bytes.
const LONGEST: usize = 1024;

/// Routes by topic, valid until any subscription changes.
#[derive(Default)]
pub struct Matches {
    epoch: u64,
    routes: HashMap<Box<str>, Routes>,
    bytes: usize,
    /// What is not remembered.
    passing: Routes,
}

impl Matches {
    /// The routes of `topic`, asked of `find` if they are not remembered. What is not worth it (the gateway's own
    /// presence messages have a topic for each client, seldom used twice) passes without being remembered.
    pub(crate) fn find(
        &mut self,
        epoch: u64,
        topic: &str,
        is_worth_it: bool,
        find: impl FnOnce(&str) -> Routes,
    ) -> &Routes {
        if self.epoch != epoch {
            self.clear();
            self.epoch = epoch;
        }
        if !is_worth_it || topic.len() > LONGEST {
            self.passing = find(topic);
            return &self.passing;
        }
        let is_full = self.routes.len() >= MOST.0 || self.bytes >= MOST.1;
        if is_full && !self.routes.contains_key(topic) {
            self.clear();
        }
        match self.routes.entry_ref(topic) {
            EntryRef::Occupied(known) => known.into_mut(),
            EntryRef::Vacant(place) => {
                let routes = find(topic);
                self.bytes += topic.len() + routes.size();
                place.insert(routes)
            }
        }
    }

    fn clear(&mut self) {
        self.routes.clear();
        self.bytes = 0;
        self.passing = Routes::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(matches: &mut Matches, epoch: u64, topic: &str) -> bool {
        let mut was_asked = false;
        matches.find(epoch, topic, true, |_| {
            was_asked = true;
            Routes::default()
        });
        was_asked
    }

    #[test]
    fn a_topic_is_asked_for_once_until_a_subscription_changes() {
        let mut matches = Matches::default();
        assert!(ask(&mut matches, 1, "a"));
        assert!(!ask(&mut matches, 1, "a"));
        assert!(ask(&mut matches, 2, "a"));
    }

    #[test]
    fn what_is_remembered_is_bounded_and_what_is_in_use_stays_at_the_bound() {
        let mut matches = Matches::default();
        for n in 0..MOST.0 {
            assert!(ask(&mut matches, 1, &n.to_string()));
        }
        assert!(!ask(&mut matches, 1, "0"));
        assert!(ask(&mut matches, 1, "one more"));
        assert_eq!(matches.routes.len(), 1);
        let long = "x".repeat(LONGEST + 1);
        assert!(ask(&mut matches, 1, &long) && ask(&mut matches, 1, &long));
    }
}

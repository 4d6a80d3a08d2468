//! The batch that is being gathered: the last value of every key that has changed, and who refers to shared messages.

use hashbrown::HashMap;
use hashbrown::hash_map::Entry;

use crate::Key;

/// A key's new value, or None if it is removed.
#[derive(Debug)]
pub(crate) struct Slot {
    pub(crate) value: Option<Vec<u8>>,
    /// Nothing is on the disk under this key: if the value goes before it was written, nothing needs to be.
    is_new: bool,
}

/// Changes that are not yet handed to the engine.
#[derive(Default)]
pub(crate) struct Changes {
    pub(crate) map: HashMap<Key, Slot>,
    pub(crate) bytes: usize,
}

impl Changes {
    pub(crate) fn put(&mut self, key: Key, value: Vec<u8>, is_new: bool) {
        self.bytes += value.len();
        match self.map.entry(key) {
            Entry::Occupied(mut slot) => {
                self.bytes -= slot.get_mut().value.replace(value).map_or(0, |v| v.len());
            }
            Entry::Vacant(slot) => {
                self.bytes += slot.key().as_bytes().len();
                slot.insert(Slot { value: Some(value), is_new });
            }
        }
    }

    /// Removes a key; true if its value had not left this batch, so that nothing is written at all.
    pub(crate) fn delete(&mut self, key: Key) -> bool {
        match self.map.entry(key) {
            Entry::Occupied(slot) if slot.get().is_new => {
                let (key, slot) = slot.remove_entry();
                self.bytes -= key.as_bytes().len() + slot.value.map_or(0, |v| v.len());
                true
            }
            Entry::Occupied(mut slot) => {
                self.bytes -= slot.get_mut().value.take().map_or(0, |v| v.len());
                false
            }
            Entry::Vacant(slot) => {
                self.bytes += slot.key().as_bytes().len();
                slot.insert(Slot { value: None, is_new: false });
                false
            }
        }
    }

    /// Puts `newer` on top of what could not be written: what was thought to be new may be on the disk.
    pub(crate) fn follow(&mut self, newer: Changes) {
        for slot in self.map.values_mut() {
            slot.is_new = false;
        }
        for (key, slot) in newer.map {
            match slot.value {
                Some(value) => self.put(key, value, slot.is_new),
                None => {
                    self.delete(key);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Table;

    fn key(n: u64) -> Key {
        Key::new(Table::Queue).number(n)
    }

    #[test]
    fn what_comes_and_goes_within_a_batch_is_not_written() {
        let mut c = Changes::default();
        c.put(key(1), vec![1; 10], true);
        c.put(key(2), vec![1; 10], false);
        assert!(c.delete(key(1)) && !c.delete(key(2)) && !c.delete(key(3)));
        assert_eq!(c.map.len(), 2);
        assert!(c.map.values().all(|s| s.value.is_none()));
        assert_eq!(c.bytes, 2 * key(1).as_bytes().len());
    }

    #[test]
    fn the_last_value_counts_and_bytes_are_right() {
        let mut c = Changes::default();
        c.put(key(1), vec![1; 10], true);
        c.put(key(1), vec![2; 20], false);
        assert!(c.delete(key(1)), "new all the same");
        assert_eq!((c.map.len(), c.bytes), (0, 0));
    }

    #[test]
    fn after_a_failure_nothing_is_thought_to_be_new() {
        let mut failed = Changes::default();
        failed.put(key(1), vec![1], true);
        let mut newer = Changes::default();
        newer.delete(key(1));
        newer.put(key(2), vec![2], true);
        failed.follow(newer);
        assert!(failed.map[&key(1)].value.is_none());
        assert_eq!(failed.map[&key(2)].value.as_deref(), Some(&[2][..]));
    }
}

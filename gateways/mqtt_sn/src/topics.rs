//! The topic ids of one client (MQTT-SN 1.2, 6.5): the first is 1, and none is given out twice.

use std::collections::HashMap;

/// Most names that are looked through one by one.
const FEW: usize = 16;

#[derive(Debug)]
struct Topic {
    name: Box<str>,
    /// The client has been told, or has told it.
    is_known: bool,
    /// It has said that it does not know it, since then.
    is_disowned: bool,
}

impl Topic {
    fn named(name: &str, is_known: bool) -> Topic {
        Topic { name: name.into(), is_known, is_disowned: false }
    }
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Topics {
    list: Vec<Topic>,
    /// By name, when there are many.
    index: Option<HashMap<Box<str>, u16>>,
}

impl Topics {
    pub(crate) fn len(&self) -> usize {
        self.list.len()
    }

    pub(crate) fn name(&self, id: u16) -> Option<&str> {
        let at = usize::from(id).checked_sub(1)?;
        self.list.get(at).map(|t| &*t.name).filter(|name| !name.is_empty())
    }

    pub(crate) fn id(&self, name: &str) -> Option<u16> {
        if let Some(index) = &self.index {
            return index.get(name).copied();
        }
        self.list.iter().zip(1..).find(|(t, _)| &*t.name == name).map(|(_, id)| id)
    }

    /// The id of the name, given out if it has none; None if there are `most` already.
    pub(crate) fn give(&mut self, name: &str, most: usize) -> Option<u16> {
        if let Some(id) = self.id(name) {
            return Some(id);
        }
        // 0x0000 and 0xFFFF are reserved (5.3.11).
        let id = u16::try_from(self.list.len() + 1).ok().filter(|id| *id < u16::MAX)?;
        if self.list.len() >= most {
            return None;
        }
        self.put(id, name, false);
        Some(id)
    }

    /// Takes up an id from an earlier time.
    pub(crate) fn put(&mut self, id: u16, name: &str, is_known: bool) {
        let at = usize::from(id) - 1;
        while self.list.len() <= at {
            self.list.push(Topic::named("", false));
        }
        self.list[at] = Topic::named(name, is_known);
        if let Some(index) = &mut self.index {
            index.insert(name.into(), id);
        } else if self.list.len() > FEW {
            let names = self.list.iter().zip(1..).filter(|(t, _)| !t.name.is_empty());
            self.index = Some(names.map(|(t, id)| (t.name.clone(), id)).collect());
        }
    }

    pub(crate) fn is_known(&self, id: u16) -> bool {
        usize::from(id).checked_sub(1).and_then(|at| self.list.get(at)).is_some_and(|t| t.is_known)
    }

    /// Whether the client has said that it does not know the id that it was told.
    pub(crate) fn is_disowned(&self, id: u16) -> bool {
        usize::from(id).checked_sub(1).and_then(|at| self.list.get(at)).is_some_and(|t| t.is_disowned)
    }

    /// Whether the client knows the id from now on; true if that is news.
    pub(crate) fn set_known(&mut self, id: u16, is_known: bool) -> bool {
        let Some(topic) = usize::from(id).checked_sub(1).and_then(|at| self.list.get_mut(at)) else {
            return false;
        };
        let is_new = std::mem::replace(&mut topic.is_known, is_known) != is_known;
        topic.is_disowned = !is_known && (is_new || topic.is_disowned);
        is_new
    }

    /// The id could not be kept: it is nobody's.
    pub(crate) fn forget(&mut self, id: u16) {
        if let Some(topic) = usize::from(id).checked_sub(1).and_then(|at| self.list.get_mut(at)) {
            let topic = std::mem::replace(topic, Topic::named("", false));
            if let Some(index) = &mut self.index {
                index.remove(&topic.name);
            }
        }
    }

    /// Ids and names.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u16, &str)> {
        self.list.iter().zip(1..).filter(|(t, _)| !t.name.is_empty()).map(|(t, id)| (id, &*t.name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_begin_at_1_stay_and_never_reach_the_reserved_one() {
        let mut t = Topics::default();
        let most = usize::from(u16::MAX);
        for n in 1..=65_534 {
            assert_eq!(t.give(&format!("t/{n}"), most), Some(n));
        }
        assert_eq!(t.give("one more", most), None);
        assert_eq!((t.give("t/7", most), t.id("t/65534"), t.name(9)), (Some(7), Some(65_534), Some("t/9")));
        assert_eq!((t.name(0), t.name(u16::MAX)), (None, None));
    }

    #[test]
    fn ids_of_an_earlier_time_are_taken_up_in_any_order() {
        let mut t = Topics::default();
        t.put(3, "c", true);
        t.put(1, "a", false);
        assert_eq!((t.name(1), t.name(2), t.name(3)), (Some("a"), None, Some("c")));
        assert_eq!(t.give("d", 9), Some(4));
        assert!(t.is_known(3) && !t.is_known(1) && !t.is_known(4) && t.set_known(1, true));
        assert_eq!(t.iter().map(|(id, _)| id).collect::<Vec<_>>(), [1, 3, 4]);
    }
}

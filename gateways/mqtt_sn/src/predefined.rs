//! Topic ids that both sides know beforehand (MQTT-SN 1.2, 6.5): for all clients, or for one.

use std::collections::HashMap;

/// See the module. What is said of one client comes before what is said of all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Predefined {
    of_all: Ids,
    of_one: HashMap<Box<str>, Ids>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Ids {
    names: HashMap<u16, Box<str>>,
    /// The lowest id of each name.
    ids: HashMap<Box<str>, u16>,
}

impl Ids {
    fn put(&mut self, id: u16, topic: &str) -> bool {
        let old = self.names.insert(id, topic.into());
        if let Some(old) = old.as_deref()
            && self.ids.get(old) == Some(&id)
        {
            match self.names.iter().filter(|(_, name)| ***name == *old).map(|(id, _)| *id).min() {
                Some(lowest) => self.ids.insert(old.into(), lowest),
                None => self.ids.remove(old),
            };
        }
        let lowest = self.ids.entry(topic.into()).or_insert(id);
        *lowest = id.min(*lowest);
        old.is_none()
    }
}

impl Predefined {
    /// Adds an id, or gives it another topic; an empty client is all of them. False if it had a topic.
    pub fn put(&mut self, client: &str, id: u16, topic: &str) -> bool {
        if client.is_empty() {
            self.of_all.put(id, topic)
        } else {
            self.of_one.entry(client.into()).or_default().put(id, topic)
        }
    }

    /// The topic of an id, as this client knows it.
    pub(crate) fn name(&self, client_id: &str, id: u16) -> Option<&str> {
        let own = self.of_one.get(client_id).and_then(|own| own.names.get(&id));
        own.or_else(|| self.of_all.names.get(&id)).map(|name| &**name)
    }

    /// The id of a topic, as this client knows it.
    pub(crate) fn id(&self, client_id: &str, topic: &str) -> Option<u16> {
        let own = self.of_one.get(client_id);
        let of_all = || {
            let id = self.of_all.ids.get(topic)?;
            // Not where it is another topic's for this client.
            (!own.is_some_and(|own| own.names.contains_key(id))).then_some(id)
        };
        own.and_then(|own| own.ids.get(topic)).or_else(of_all).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_of_one_client_comes_before_what_is_said_of_all() {
        let mut p = Predefined::default();
        assert!(p.put("", 1, "all/1") && p.put("", 2, "all/2") && p.put("a", 1, "a/1"));
        assert_eq!(
            (p.name("a", 1), p.name("a", 2), p.name("b", 1)),
            (Some("a/1"), Some("all/2"), Some("all/1"))
        );
        assert_eq!((p.id("a", "a/1"), p.id("a", "all/2"), p.id("b", "all/1")), (Some(1), Some(2), Some(1)));
        assert_eq!((p.id("a", "all/1"), p.id("b", "a/1"), p.id("", "x")), (None, None, None));
    }

    #[test]
    fn an_id_that_gets_another_topic_is_not_the_old_ones_any_more() {
        let mut p = Predefined::default();
        assert!(p.put("", 5, "x") && p.put("", 3, "x"));
        assert_eq!(p.id("", "x"), Some(3), "the lowest one");
        assert!(!p.put("", 3, "y"));
        assert_eq!((p.id("", "x"), p.id("", "y"), p.name("", 3)), (Some(5), Some(3), Some("y")));
        p.put("", 5, "y");
        assert_eq!((p.id("", "x"), p.id("", "y")), (None, Some(3)));
    }
}

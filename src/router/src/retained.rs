//! Retained messages (MQTT 5.0, 3.3.1.3) by topic, found by filter without looking at the others.

use bytes::Bytes;
use gateway::{Drop, Instant, Message, Properties};

use store::{Store, Table};

use crate::config::Options;
use crate::count::Counts;
use crate::record::encode_message;
use crate::timers::{Key, Timer, Timers};
use crate::tree::Tree;

/// The last message of each topic that was published to be retained.
#[derive(Default)]
pub(crate) struct Retained {
    tree: Tree<Kept>,
    bytes: usize,
}

struct Kept {
    message: Message,
    /// When it expires, if it does.
    expiry: Option<Key>,
}

impl Retained {
    /// Keeps the message in the place of the one before it, or removes that if the payload is empty (MQTT-3.3.1-6).
    /// What finds no room is counted; the one before it goes all the same, for it is not the last any more.
    /// The batch of the store that says so comes back.
    pub(crate) fn set(
        &mut self,
        message: &Message,
        options: &Options,
        counts: &Counts,
        timers: &Timers,
        store: Option<&Store>,
    ) -> u64 {
        let topic = message.topic();
        if message.payload().is_empty() {
            return self.remove(topic, timers, store);
        }
        let message = owned(message);
        let old = self.tree.get(topic).map(|k| k.message.size());
        let (len, bytes) = (self.tree.len() - usize::from(old.is_some()), self.bytes - old.unwrap_or(0));
        if len >= options.max_retained || bytes + message.size() > options.max_retained_bytes {
            counts.dropped(Drop::RetainedFull);
            return self.remove(topic, timers, store);
        }
        let batch = store.filter(|_| is_stored(topic)).map_or(0, |store| {
            let mut record = Vec::new();
            encode_message(&mut record, &message);
            store.put(key_of(topic), record)
        });
        self.keep(message, timers);
        batch
    }

    /// Keeps a message that has room, or that the store had.
    pub(crate) fn keep(&mut self, message: Message, timers: &Timers) {
        let topic = message.topic();
        let old = self.tree.get(topic).map_or(0, |k| k.message.size());
        self.bytes = self.bytes - old + message.size();
        let expiry = message.expires().map(|at| timers.set(at, Timer::Retained(topic.into())));
        let kept = Kept { message: message.clone(), expiry };
        match self.tree.get_mut(topic) {
            Some(place) => {
                if let Some(key) = std::mem::replace(place, kept).expiry {
                    timers.cancel(key);
                }
            }
            None => {
                self.tree.entry(topic, || kept);
            }
        }
    }

    fn remove(&mut self, topic: &str, timers: &Timers, store: Option<&Store>) -> u64 {
        let Some(old) = self.tree.remove(topic) else {
            // That it is gone may still be on its way to the disk.
            return store.filter(|_| is_stored(topic)).map_or(0, Store::latest);
        };
        self.bytes -= old.message.size();
        if let Some(key) = old.expiry {
            timers.cancel(key);
        }
        store.filter(|_| is_stored(topic)).map_or(0, |store| store.delete(key_of(topic)))
    }

    /// Removes the message of `topic` if it is the one whose time this was.
    pub(crate) fn expire(&mut self, topic: &str, key: Key, timers: &Timers, store: Option<&Store>) {
        if self.tree.get(topic).is_some_and(|k| k.expiry == Some(key)) {
            self.remove(topic, timers, store);
        }
    }

    /// Visits messages whose topics the plain filter matches until `visit` says that it is enough.
    pub(crate) fn visit(&self, filter: &str, now: Instant, mut visit: impl FnMut(&Message) -> bool) {
        self.tree.match_topics(filter, |kept| kept.message.is_expired(now) || visit(&kept.message));
    }

    /// At most `limit` messages whose topics the plain filter matches.
    pub(crate) fn find(&self, filter: &str, now: Instant, limit: usize) -> Vec<Message> {
        let mut found = Vec::new();
        if limit > 0 {
            self.visit(filter, now, |message| {
                found.push(message.clone());
                found.len() < limit
            });
        }
        found
    }

    /// Messages and bytes.
    pub(crate) fn size(&self) -> (usize, usize) {
        (self.tree.len(), self.bytes)
    }
}

/// Whether the message of a topic outlives the process. What the gateway says of itself does not.
pub(crate) fn is_stored(topic: &str) -> bool {
    topic != "$SYS" && !topic.starts_with("$SYS/")
}

pub(crate) fn key_of(topic: &str) -> store::Key {
    store::Key::new(Table::Retained).text(topic.as_bytes())
}

/// The message without a hold on the buffer it was received in: what is kept for long must not pin it.
fn owned(message: &Message) -> Message {
    let correlation_data = message.properties().and_then(|p| p.correlation_data.as_deref());
    // The message itself copies what is smaller.
    if message.payload().len() <= 4096 && correlation_data.is_none() {
        return message.clone();
    }
    let published = message.published();
    let properties = message.properties().map(|p| Properties {
        correlation_data: p.correlation_data.as_deref().map(Bytes::copy_from_slice),
        ..p.clone()
    });
    Message::from_slice(published, message.topic(), Bytes::copy_from_slice(message.payload()))
        .with_qos(message.qos())
        .with_retain(message.retain())
        .with_publisher(message.publisher())
        .with_expiry(message.remaining(published.instant))
        .with_properties(properties.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use gateway::{Now, Qos};

    use super::*;

    struct World {
        retained: Retained,
        options: Options,
        counts: Counts,
        timers: Timers,
    }

    impl World {
        fn new(max_retained: usize) -> World {
            let options = Options { max_retained, ..Options::default() };
            World {
                retained: Retained::default(),
                options,
                counts: Counts::default(),
                timers: Timers::default(),
            }
        }

        fn set(&mut self, topic: &str, payload: &str, seconds: Option<u64>) {
            let message = Message::new(Now::default(), topic, payload.as_bytes())
                .with_expiry(seconds.map(Duration::from_secs));
            self.retained.set(&message, &self.options, &self.counts, &self.timers, None);
        }

        fn at(&self, filter: &str) -> Vec<String> {
            let found = self.retained.find(filter, Instant::from_micros(0), usize::MAX);
            found.iter().map(|m| String::from_utf8_lossy(m.payload()).into_owned()).collect()
        }
    }

    #[test]
    fn a_message_replaces_the_one_before_it_and_an_empty_one_clears() {
        let mut w = World::new(10);
        w.set("a", "1", None);
        w.set("a", "2", None);
        assert_eq!(w.at("a"), ["2"]);
        w.set("a", "", None);
        assert_eq!((w.at("#").len(), w.retained.size()), (0, (0, 0)));
    }

    #[test]
    fn what_finds_no_room_is_counted_and_nothing_old_is_left_in_its_place() {
        let mut w = World::new(1);
        w.set("a", "1", None);
        w.set("b", "1", None);
        assert_eq!((w.at("b").len(), w.counts.of(Drop::RetainedFull)), (0, 1));
        w.options.max_retained_bytes = w.retained.size().1;
        w.set("a", "longer", None);
        assert_eq!((w.at("a").len(), w.counts.of(Drop::RetainedFull), w.retained.size()), (0, 2, (0, 0)));
    }

    #[test]
    fn a_topic_has_one_deadline_however_often_it_is_retained() {
        let mut w = World::new(10);
        for seconds in [50, 60, 40, 70] {
            w.set("a", "x", Some(seconds));
        }
        assert_eq!((w.timers.len(), w.timers.next()), (1, Some(Instant::from_micros(70_000_000))));
        w.set("a", "x", None);
        assert_eq!(w.timers.len(), 0);
    }

    #[test]
    fn only_the_message_whose_time_has_come_expires() {
        let mut w = World::new(10);
        w.set("a", "old", Some(5));
        let (key, _) = w.timers.pop(Instant::from_micros(5_000_000)).unwrap();
        w.set("a", "new", Some(50));
        w.retained.expire("a", key, &w.timers, None);
        assert_eq!(w.at("a"), ["new"]);
        let (key, _) = w.timers.pop(Instant::from_micros(50_000_000)).unwrap();
        w.retained.expire("a", key, &w.timers, None);
        assert_eq!(w.retained.size(), (0, 0));
    }

    #[test]
    fn a_large_payload_lets_go_of_its_receive_buffer() {
        let buffer = Bytes::from(vec![7; 65_536]);
        let message = Message::from_slice(Now::default(), "a", buffer.slice(..5000))
            .with_qos(Qos::AtLeastOnce)
            .with_expiry(Some(Duration::from_secs(9)));
        let kept = owned(&message);
        assert_ne!(kept.payload().as_ptr(), buffer.as_ptr());
        assert_eq!(
            (kept.payload(), kept.qos(), kept.expires()),
            (message.payload(), message.qos(), message.expires())
        );
    }
}

//! Retained messages (MQTT 5.0, 3.3.1.3) by topic, found by filter without looking at the others.

use gateway::{Drop, Instant, Message};

use crate::config::Options;
use crate::count::Counts;
use crate::tree::Tree;

/// The last message of each topic that was published to be retained.
#[derive(Default)]
pub(crate) struct Retained {
    tree: Tree<Message>,
    bytes: usize,
}

impl Retained {
    /// Keeps the message, replaces the one before it, or removes it if the payload is empty (MQTT-3.3.1-6). False if
    /// there was no room.
    pub(crate) fn set(&mut self, message: &Message, options: &Options, counts: &Counts) -> bool {
        let topic = message.topic();
        if message.payload().is_empty() {
            self.remove(topic);
            return true;
        }
        let kept = message.with_topic(topic);
        let old = self.tree.get(topic).map(Message::size);
        let (len, bytes) = (self.tree.len() - usize::from(old.is_some()), self.bytes - old.unwrap_or(0));
        if len >= options.max_retained || bytes + kept.size() > options.max_retained_bytes {
            counts.dropped(Drop::RetainedFull);
            return false;
        }
        self.bytes = bytes + kept.size();
        let mut kept = Some(kept);
        let place = self.tree.entry(topic, || message.clone());
        if let Some(kept) = kept.take() {
            *place = kept;
        }
        true
    }

    pub(crate) fn remove(&mut self, topic: &str) {
        if let Some(old) = self.tree.remove(topic) {
            self.bytes -= old.size();
        }
    }

    /// Removes the message of `topic` if it has expired.
    pub(crate) fn expire(&mut self, topic: &str, now: Instant) {
        if self.tree.get(topic).is_some_and(|m| m.is_expired(now)) {
            self.remove(topic);
        }
    }

    /// At most `limit` messages whose topics the plain filter matches.
    pub(crate) fn find(&self, filter: &str, now: Instant, limit: usize) -> Vec<Message> {
        let mut found = Vec::new();
        if limit == 0 {
            return found;
        }
        self.tree.match_topics(filter, |m| {
            if !m.is_expired(now) {
                found.push(m.clone());
            }
            found.len() < limit
        });
        found
    }

    /// Messages and bytes.
    pub(crate) fn size(&self) -> (usize, usize) {
        (self.tree.len(), self.bytes)
    }
}

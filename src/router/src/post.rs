//! What the router tells drivers: collected by the caller of a router's function, who carries it to their mailboxes.

use std::sync::Arc;

use gateway::{Message, Peer, Stop};

/// Where a session is connected. The router knows no more of a driver than its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attachment {
    /// Which driver.
    pub driver: u16,
    /// Which of its conversations.
    pub peer: Peer,
}

/// What a driver is told about one of its conversations.
#[derive(Debug)]
pub enum Signal {
    /// Its session has something to deliver: drain it.
    Ready,
    /// End it.
    Stop(Stop),
    /// Hand this over at once.
    Fast(Fast),
}

/// A `$fastlane` message: QoS 0, past the session's queue.
#[derive(Clone, Debug)]
pub struct Fast {
    /// The message.
    pub message: Message,
    /// RETAIN flag of the delivery.
    pub retain: bool,
    pub(crate) mount: Arc<str>,
    pub(crate) ids: Option<Arc<[u32]>>,
}

impl Fast {
    /// The topic as the client sees it.
    pub fn topic(&self) -> &str {
        let topic = self.message.topic();
        topic.strip_prefix(&*self.mount).unwrap_or(topic)
    }

    /// Identifiers of the subscriptions that matched.
    pub fn subscriptions(&self) -> &[u32] {
        self.ids.as_deref().unwrap_or_default()
    }
}

/// Signals gathered by the caller.
#[derive(Default)]
pub struct Post {
    /// In the order in which they came about.
    pub signals: Vec<(Attachment, Signal)>,
    /// The batch of the store that has to be on the disk before anybody is told of what was done; zero is none.
    pub wait: u64,
}

impl Post {
    pub(crate) fn wait_for(&mut self, batch: u64) {
        self.wait = self.wait.max(batch);
    }
}

//! The embedded router: topics, subscriptions, sessions, retained and delayed messages. Synchronous, without a task.
//!
//! Drivers call it and carry its [`Signal`]s to each other. A publisher's driver matches the topic (usually from its own
//! [`Matches`]) and pushes onto the queue of every session that matched, each under that session's lock; so a
//! publisher's order is kept for every subscriber, whether it is connected, offline or moving from one driver to
//! another. The first message for a session posts one signal to its driver, which then drains the session.
//!
//! Locks, in the orders in which they may be taken together:
//!
//! - a registry shard, a session, the retained messages, the timers;
//! - the subscription table, a group, a session.
//!
//! Never two sessions, and never the table or a group by who holds a session.

mod config;
mod connect;
mod count;
mod list;
mod matches;
mod members;
mod post;
mod publish;
mod queue;
mod registry;
mod retained;
mod rewrite;
mod routes;
mod session;
mod share;
mod subscribe;
mod timers;
mod tree;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use gateway::{Deliver, Delivery, DeliveryId, Filter, Instant, Message, Now, Settle};
use parking_lot::RwLock;

pub use config::{AutoSubscribe, OnFull, Options, Rewrite, RewriteAction, Strategy};
pub use connect::{Open, Opened};
pub use count::Counts;
pub use list::{SessionInfo, Stats};
pub use matches::Matches;
pub use post::{Attachment, Fast, Post, Signal};
pub use session::Session;

use queue::Next;
use registry::Registry;
use retained::Retained;
use routes::Table;
use timers::Timers;

/// See the module.
pub struct Router {
    options: RwLock<Arc<Options>>,
    table: RwLock<Table>,
    /// Changes whenever a subscription has changed.
    epoch: AtomicU64,
    registry: Registry,
    retained: RwLock<Retained>,
    timers: Timers,
    counts: Counts,
    /// The number of the next session.
    publishers: AtomicU64,
}

impl Router {
    /// An empty router.
    pub fn new(options: Options) -> Router {
        Router {
            options: RwLock::new(Arc::new(options)),
            table: RwLock::new(Table::default()),
            epoch: AtomicU64::new(1),
            registry: Registry::default(),
            retained: RwLock::new(Retained::default()),
            timers: Timers::default(),
            counts: Counts::default(),
            publishers: AtomicU64::new(1),
        }
    }

    /// Other options from now on; what is already kept stays.
    pub fn reload(&self, options: Options) {
        *self.options.write() = Arc::new(options);
    }

    /// Drops by reason.
    pub fn drops(&self) -> &Counts {
        &self.counts
    }

    fn options(&self) -> Arc<Options> {
        self.options.read().clone()
    }

    /// Hands over what the session has, while it has credit and `hand` says that there is room: first what was in flight
    /// when the connection began, then the queue. Returns whether there was more when there was no room: then no signal
    /// follows, and the driver calls again when there is.
    pub fn drain(
        &self,
        now: Now,
        session: &Session,
        at: Attachment,
        mut hand: impl FnMut(&Deliver<'_>) -> bool,
    ) -> bool {
        let most_bytes = self.options.read().max_queued_bytes;
        let mut state = session.state.lock();
        if state.at != Some(at) {
            return false;
        }
        let mount = session.mount();
        state.drain(now.instant, most_bytes, &self.counts, |next| {
            let (entry, id, duplicate) = match next {
                Next::Release(id) => return hand(&Deliver::Release(id)),
                Next::Message(entry, id, duplicate) => (entry, id, duplicate),
            };
            let topic = entry.message.topic();
            hand(&Deliver::Message(Delivery {
                id,
                message: &entry.message,
                topic: topic.strip_prefix(mount).unwrap_or(topic),
                qos: entry.qos,
                retain: entry.retain,
                duplicate,
                subscriptions: entry.ids.as_deref().unwrap_or_default(),
            }))
        })
    }

    /// A delivery ended (PUBACK, PUBCOMP, or refused); false if there was none with this id.
    pub fn settle(&self, _: Now, session: &Session, id: DeliveryId, how: Settle, post: &mut Post) -> bool {
        session.state.lock().settle(id, how, &self.counts, post)
    }

    /// The client has received a QoS 2 delivery (PUBREC); false if there is none with this id.
    pub fn receive(&self, session: &Session, id: DeliveryId) -> bool {
        session.state.lock().receive(id)
    }

    /// The client has released a QoS 2 message it published (PUBREL); false if there was none with this id.
    pub fn release(&self, session: &Session, id: u16) -> bool {
        session.state.lock().release(id)
    }

    /// Retained messages that the filter matches, at most `limit`.
    pub fn retained(&self, now: Now, filter: &Filter, limit: usize) -> Vec<Message> {
        self.retained.read().find(filter.plain(), now.instant, limit)
    }

    /// Whether anybody would get a message on this topic.
    pub fn has_subscribers(&self, topic: &str, matches: &mut Matches) -> bool {
        let epoch = self.epoch.load(Ordering::Acquire);
        matches.find(epoch, topic, false, |topic| self.table.read().routes(topic)).len() > 0
    }

    /// When [`timeout`](Self::timeout) has something to do.
    pub fn next_timeout(&self) -> Option<Instant> {
        self.timers.next()
    }
}

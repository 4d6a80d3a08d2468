//! The embedded router: topics, subscriptions, sessions, retained and delayed messages. Synchronous, without a task.
//!
//! Drivers call it and carry its [`Signal`]s to each other. A publisher's driver matches the topic (usually from its own
//! [`Matches`]) and pushes onto the queue of every session that matched, each under that session's lock; so a
//! publisher's order is kept for every subscriber, whether it is connected, offline or moving from one driver to
//! another. The first message for a session posts one signal to its driver, which then drains the session.
//!
//! Locks, in the orders in which they may be taken together:
//!
//! - a registry shard, a session, the retained messages or the facts, the timers;
//! - the subscription table, a group, a session.
//!
//! Never two sessions, and never the table or a group by who holds a session. The store's own locks come after all of them,
//! but for [`store::Together`], which comes before.
//!
//! With a [`Store`], what a session must not lose is written down as it changes, under the session's lock. Nobody waits here:
//! [`Post::wait`] says which batch of the store has to be on the disk before a client is told, and
//! [`Router::committed`] who has something to deliver when it is.

mod check;
mod config;
mod connect;
mod count;
mod facts;
mod ledger;
mod list;
mod matches;
mod members;
mod post;
mod publish;
mod queue;
mod record;
mod registry;
mod restore;
mod retained;
mod rewrite;
mod routes;
mod session;
mod share;
mod subscribe;
mod timers;
mod tree;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use gateway::{Deliver, Delivery, DeliveryId, Filter, Instant, Message, Now, Settle};
use hashbrown::HashMap;
use parking_lot::{Mutex, RwLock};
use store::{Store, Together};

pub use check::{Checked, check};
pub use config::{AutoSubscribe, OnFull, Options, Rewrite, RewriteAction, Strategy};
pub use connect::{Open, Opened};
pub use count::Counts;
pub use list::{SessionInfo, Stats};
pub use matches::Matches;
pub use post::{Attachment, Fast, Post, Signal};
pub use restore::Restored;
pub use session::Session;

use facts::Facts;
use ledger::Ledger;
use queue::{Next, Step};
use registry::Registry;
use retained::Retained;
use routes::Table;
use timers::{Delayed, Timers};

/// See the module.
pub struct Router {
    options: RwLock<Arc<Options>>,
    table: RwLock<Table>,
    /// Changes whenever a subscription has changed.
    epoch: AtomicU64,
    registry: Registry,
    retained: RwLock<Retained>,
    timers: Timers,
    facts: Facts,
    /// Messages that were due and cannot be kept at present, in the order in which they were due.
    overdue: Mutex<VecDeque<Delayed>>,
    counts: Counts,
    /// The number of the next session, if there is no store to give them out.
    publishers: AtomicU64,
    keep: Option<Keep>,
}

/// What is durable, and how.
struct Keep {
    store: Arc<Store>,
    /// Whether clients wait for the disk.
    is_sync: bool,
    /// Sessions that wait for a batch before they deliver more, by where they are connected.
    held: Mutex<HashMap<(u16, u32), (u64, Attachment)>>,
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
            facts: Facts::default(),
            overdue: Mutex::default(),
            counts: Counts::default(),
            publishers: AtomicU64::new(1),
            keep: None,
        }
    }

    /// With a store: sessions that outlive their connections outlive the process. Clients wait for the disk if `is_sync`.
    #[must_use]
    pub fn with_store(mut self, store: Arc<Store>, is_sync: bool) -> Router {
        self.keep = Some(Keep { store, is_sync, held: Mutex::default() });
        self
    }

    fn store(&self) -> Option<&Store> {
        self.keep.as_ref().map(|k| &*k.store)
    }

    fn ledger(&self, session: &Session) -> Option<Ledger<'_>> {
        let Keep { store, is_sync, .. } = self.keep.as_ref().filter(|_| session.is_durable())?;
        Some(Ledger { store, session: session.publisher.0, counts: &self.counts, is_strict: *is_sync })
    }

    fn together(&self) -> Option<Together<'_>> {
        self.store().map(Store::together)
    }

    /// Whether what must be kept can be, or nothing is.
    fn can_keep(&self) -> bool {
        self.store().is_none_or(Store::is_working)
    }

    fn number(&self) -> u64 {
        self.store().map_or_else(|| self.publishers.fetch_add(1, Ordering::Relaxed), Store::number)
    }

    /// The store has written another batch: sessions that waited for it have something to deliver.
    pub fn committed(&self, post: &mut Post) {
        let Some(keep) = &self.keep else { return };
        let durable = keep.store.durable();
        let mut held = keep.held.lock();
        held.retain(|_, &mut (batch, at)| {
            let is_done = batch <= durable;
            if is_done {
                post.signals.push((at, Signal::Ready));
            }
            !is_done
        });
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
        post: &mut Post,
        mut hand: impl FnMut(&Deliver<'_>) -> bool,
    ) -> bool {
        let most_bytes = self.options.read().max_queued_bytes;
        let mut state = session.state.lock();
        if state.at != Some(at) {
            return false;
        }
        let mount = session.mount();
        let step = Step { now, most_bytes, counts: &self.counts, ledger: self.ledger(session) };
        let (has_more, held_back) = state.drain(&step, |next| {
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
        });
        drop(state);
        if let (Some(batch), Some(keep)) = (held_back, &self.keep) {
            keep.held.lock().insert((at.driver, at.peer.slot), (batch, at));
            // It may have been written between the two.
            if keep.store.durable() >= batch {
                self.committed(post);
            }
        }
        has_more
    }

    /// A delivery ended (PUBACK, PUBCOMP, or refused); false if there was none with this id.
    pub fn settle(&self, _: Now, session: &Session, id: DeliveryId, how: Settle, post: &mut Post) -> bool {
        let ledger = self.ledger(session);
        session.state.lock().settle(id, how, &self.counts, ledger.as_ref(), post)
    }

    /// The client has received a QoS 2 delivery (PUBREC); false if there is none with this id.
    pub fn receive(&self, session: &Session, id: DeliveryId, post: &mut Post) -> bool {
        let ledger = self.ledger(session);
        // That the message is done with and that its release is not are one thing: a client whose release was forgotten would
        // take the next message with this id for a duplicate.
        let _together = ledger.as_ref().map(|l| l.store.together());
        let batch = session.state.lock().receive(id, ledger.as_ref());
        post.wait_for(batch.unwrap_or_else(|| latest(ledger.as_ref())));
        batch.is_some()
    }

    /// The client has released a QoS 2 message it published (PUBREL); false if there was none with this id.
    pub fn release(&self, session: &Session, id: u16, post: &mut Post) -> bool {
        let ledger = self.ledger(session);
        let batch = session.state.lock().release(id, ledger.as_ref());
        post.wait_for(batch.unwrap_or_else(|| latest(ledger.as_ref())));
        batch.is_some()
    }

    /// Retained messages that the filter matches, at most `limit`.
    pub fn retained(&self, now: Now, filter: &Filter, limit: usize) -> Vec<Message> {
        self.retained.read().find(filter.plain(), now.instant, limit)
    }

    /// The same of those alone that `is_wanted`, among the first `most` that the filter matches: who may read little of
    /// much is not to make others wait.
    pub fn retained_if(
        &self,
        now: Now,
        filter: &Filter,
        limit: usize,
        most: usize,
        mut is_wanted: impl FnMut(&Message) -> bool,
    ) -> Vec<Message> {
        let (mut found, mut seen) = (Vec::new(), 0);
        if limit > 0 {
            self.retained.read().visit(filter.plain(), now.instant, |message| {
                seen += 1;
                if is_wanted(message) {
                    found.push(message.clone());
                }
                found.len() < limit && seen < most
            });
        }
        found
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

/// What was done before, and is only said again, may still be on its way to the disk.
fn latest(ledger: Option<&Ledger<'_>>) -> u64 {
    ledger.map_or(0, |l| l.store.latest())
}

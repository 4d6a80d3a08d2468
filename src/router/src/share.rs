//! Shared subscriptions (MQTT 5.0, 4.8.2): one member of a group gets each message.

use std::hash::{BuildHasher, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use gateway::Message;
use hashbrown::DefaultHashBuilder;
use parking_lot::RwLock;

use crate::config::{Options, Strategy};
use crate::members::{Kind, Member, Members};
use crate::session::Session;

/// One group of one filter.
pub(crate) struct Group {
    name: Box<str>,
    /// The whole filter, by which messages that came by the group find it again.
    pub(crate) filter: Arc<str>,
    /// A durable session is or was among the members.
    has_durable: AtomicBool,
    members: RwLock<Members>,
    turn: AtomicUsize,
    hasher: DefaultHashBuilder,
}

impl Group {
    pub(crate) fn new(name: &str, filter: Arc<str>) -> Group {
        Group {
            name: name.into(),
            filter,
            has_durable: AtomicBool::new(false),
            members: RwLock::default(),
            turn: AtomicUsize::new(0),
            hasher: DefaultHashBuilder::default(),
        }
    }

    /// Its name; empty for `$queue`.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.members.read().is_empty()
    }

    /// Whether a message of the group may have to be kept.
    pub(crate) fn may_keep(&self) -> bool {
        self.has_durable.load(Ordering::Relaxed)
    }

    /// Adds a member, or gives its options new values; true if it is new.
    pub(crate) fn join(&self, member: Member) -> bool {
        if member.session.is_durable() {
            self.has_durable.store(true, Ordering::Relaxed);
        }
        self.members.write().join(member)
    }

    /// Removes a member; false if it was none.
    pub(crate) fn leave(&self, session: &Arc<Session>, kind: Kind) -> bool {
        self.members.write().leave(session, kind)
    }

    /// Offers the message to members until one takes it: first the strategy's choice or, if that is not connected or has
    /// no room, the next that is and has; then those that were passed over. None if nobody took it, otherwise what `offer`
    /// said last.
    pub(crate) fn offer<T>(
        &self,
        message: &Message,
        options: &Options,
        mut offer: impl FnMut(&Member) -> (T, bool),
    ) -> Option<T> {
        let members = self.members.read();
        let members = members.as_slice();
        if members.is_empty() {
            return None;
        }
        let first = self.first(message, options.share_strategy, members.len());
        let in_turn = || (first..members.len()).chain(0..first);
        let is_willing = |&at: &usize| members[at].session.state.lock().is_willing(options);
        let chosen = in_turn().find(is_willing);
        let mut last = None;
        if let Some(at) = chosen {
            if options.share_strategy == Strategy::Sticky {
                self.turn.store(at, Ordering::Relaxed);
            }
            let (result, is_taken) = offer(&members[at]);
            last = Some(result);
            if is_taken {
                return last;
            }
            // Its queue filled in this very moment.
        }
        for at in in_turn().filter(|&at| Some(at) != chosen) {
            let (result, is_taken) = offer(&members[at]);
            last = Some(result);
            if is_taken {
                break;
            }
        }
        last
    }

    fn first(&self, message: &Message, strategy: Strategy, members: usize) -> usize {
        let n = match strategy {
            // All members are on this node.
            Strategy::RoundRobin | Strategy::LocalFirst => self.turn.fetch_add(1, Ordering::Relaxed),
            Strategy::Sticky => self.turn.load(Ordering::Relaxed),
            Strategy::Random => {
                let turn = self.turn.fetch_add(1, Ordering::Relaxed);
                self.hasher.hash_one(turn) as usize
            }
            Strategy::HashClient => self.hasher.hash_one(message.publisher().0) as usize,
            Strategy::HashTopic => {
                let mut hasher = self.hasher.build_hasher();
                hasher.write(message.topic().as_bytes());
                hasher.finish() as usize
            }
        };
        n % members
    }
}

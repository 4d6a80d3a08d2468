//! Shared subscriptions (MQTT 5.0, 4.8.2): one member of a group gets each message.

use std::hash::{BuildHasher, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use gateway::Message;
use parking_lot::RwLock;

use crate::config::{Options, Strategy};
use crate::routes::Member;

/// One group of one filter.
pub(crate) struct Group {
    pub(crate) members: RwLock<Vec<Member>>,
    turn: AtomicUsize,
    hasher: hashbrown::DefaultHashBuilder,
}

impl Group {
    pub(crate) fn new() -> Group {
        Group {
            members: RwLock::new(Vec::new()),
            turn: AtomicUsize::new(0),
            hasher: hashbrown::DefaultHashBuilder::default(),
        }
    }

    /// Adds a member, or gives its options new values; true if it is new.
    pub(crate) fn join(&self, member: Member) -> bool {
        let mut members = self.members.write();
        match members.iter_mut().find(|m| Arc::ptr_eq(&m.session, &member.session)) {
            Some(old) => {
                *old = member;
                false
            }
            None => {
                members.push(member);
                true
            }
        }
    }

    /// The members in the order in which this message should be offered to them: the strategy's choice first, those that
    /// are connected and have room before those that are not.
    pub(crate) fn order(&self, message: &Message, options: &Options) -> Vec<Member> {
        let members = self.members.read();
        let n = members.len();
        if n == 0 {
            return Vec::new();
        }
        let first = match options.share_strategy {
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
        } % n;
        let (mut willing, mut others) = (Vec::with_capacity(1), Vec::new());
        for at in (first..n).chain(0..first) {
            let member = &members[at];
            if member.session.state.lock().is_willing(options) {
                if willing.is_empty() && options.share_strategy == Strategy::Sticky {
                    self.turn.store(at, Ordering::Relaxed);
                }
                willing.push(member.clone());
                // Nobody after a willing member is asked, unless its queue fills in this very moment.
                break;
            }
            others.push(member.clone());
        }
        willing.append(&mut others);
        willing
    }
}

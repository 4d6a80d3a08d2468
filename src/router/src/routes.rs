//! From a topic name to who gets it: the subscription tables, and a driver's memory of what they said.

use std::sync::Arc;

use gateway::{Filter, Qos, Subscribe};
use hashbrown::HashMap;
use smallvec::SmallVec;

use crate::session::Session;
use crate::share::Group;
use crate::tree::Tree;

/// One subscriber with the options of its subscription.
#[derive(Clone)]
pub(crate) struct Member {
    pub(crate) session: Arc<Session>,
    pub(crate) options: SubscriptionOptions,
    pub(crate) identifier: u32,
}

/// The options of a subscription in four bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SubscriptionOptions {
    pub(crate) qos: Qos,
    pub(crate) no_local: bool,
    pub(crate) retain_as_published: bool,
    pub(crate) is_fast: bool,
}

impl SubscriptionOptions {
    pub(crate) fn of(s: &Subscribe) -> Self {
        SubscriptionOptions {
            qos: s.qos,
            no_local: s.no_local,
            retain_as_published: s.retain_as_published,
            is_fast: s.filter.is_fastlane(),
        }
    }
}

/// Subscribers of one plain filter.
#[derive(Default)]
pub(crate) struct Leaf {
    members: SmallVec<[Member; 1]>,
    groups: Option<Box<Vec<(Arc<str>, Arc<Group>)>>>,
}

impl Leaf {
    fn is_empty(&self) -> bool {
        self.members.is_empty() && self.groups.is_none()
    }
}

/// All subscriptions: exact filters by name, wildcard filters in a tree.
#[derive(Default)]
pub(crate) struct Table {
    exact: HashMap<Arc<str>, Leaf>,
    wild: Tree<Leaf>,
    exclusive: HashMap<Box<str>, Arc<Session>>,
    pub(crate) subscriptions: usize,
    pub(crate) shared: usize,
}

/// What an attempt to subscribe brought.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Joined {
    New,
    Again,
    Taken,
}

impl Table {
    pub(crate) fn subscribe(&mut self, session: &Arc<Session>, filter: &Filter, s: &Subscribe) -> Joined {
        if filter.is_exclusive() {
            match self.exclusive.entry_ref(filter.plain()) {
                hashbrown::hash_map::EntryRef::Occupied(o) if !Arc::ptr_eq(o.get(), session) => {
                    return Joined::Taken;
                }
                entry => {
                    entry.or_insert_with(|| session.clone());
                }
            }
        }
        let leaf = if filter.has_wildcard() {
            self.wild.entry(filter.plain(), Leaf::default)
        } else if filter.plain().len() == filter.as_str().len() {
            self.exact.entry(filter.text().clone()).or_default()
        } else {
            self.exact.entry_ref(filter.plain()).or_default()
        };
        let member = Member {
            session: session.clone(),
            options: SubscriptionOptions::of(s),
            identifier: s.identifier,
        };
        let is_new = match filter.group() {
            Some(name) => {
                let groups = leaf.groups.get_or_insert_default();
                let group = match groups.iter().find(|(n, _)| **n == *name) {
                    Some((_, group)) => group,
                    None => {
                        groups.push((name.into(), Arc::new(Group::new())));
                        &groups[groups.len() - 1].1
                    }
                };
                let is_new = group.join(member);
                self.shared += usize::from(is_new);
                is_new
            }
            None => match leaf.members.iter_mut().find(|m| is_same(m, &member)) {
                Some(old) => {
                    *old = member;
                    false
                }
                None => {
                    leaf.members.push(member);
                    true
                }
            },
        };
        self.subscriptions += usize::from(is_new);
        if is_new { Joined::New } else { Joined::Again }
    }

    pub(crate) fn unsubscribe(&mut self, session: &Arc<Session>, filter: &Filter) -> bool {
        let plain = filter.plain();
        if filter.is_exclusive() && self.exclusive.get(plain).is_some_and(|s| Arc::ptr_eq(s, session)) {
            self.exclusive.remove(plain);
        }
        let leaf = if filter.has_wildcard() { self.wild.get_mut(plain) } else { self.exact.get_mut(plain) };
        let Some(leaf) = leaf else { return false };
        let was = match filter.group() {
            Some(name) => {
                let Some(groups) = &mut leaf.groups else { return false };
                let Some(at) = groups.iter().position(|(n, _)| **n == *name) else { return false };
                let mut members = groups[at].1.members.write();
                let before = members.len();
                members.retain(|m| !Arc::ptr_eq(&m.session, session));
                let (was, is_empty) = (members.len() < before, members.is_empty());
                drop(members);
                if is_empty {
                    groups.swap_remove(at);
                }
                if groups.is_empty() {
                    leaf.groups = None;
                }
                self.shared -= usize::from(was);
                was
            }
            None => {
                let is_fast = filter.is_fastlane();
                let before = leaf.members.len();
                leaf.members.retain(|m| !(Arc::ptr_eq(&m.session, session) && m.options.is_fast == is_fast));
                if leaf.members.len() * 2 < leaf.members.capacity() {
                    leaf.members.shrink_to_fit();
                }
                leaf.members.len() < before
            }
        };
        if leaf.is_empty() {
            if filter.has_wildcard() {
                self.wild.remove(plain);
            } else {
                self.exact.remove(plain);
            }
        }
        self.subscriptions -= usize::from(was);
        was
    }

    /// Who gets a message on `topic`. Overlapping subscriptions of one session become one route with the highest QoS
    /// and all identifiers (MQTT-3.3.5-1, 3.3.4-4).
    pub(crate) fn routes(&self, topic: &str) -> Routes {
        let mut routes = Routes::default();
        if let Some(leaf) = self.exact.get(topic) {
            routes.add(leaf);
        }
        self.wild.match_filters(topic, |leaf| routes.add(leaf));
        routes.merge();
        routes
    }

    /// Every filter with its number of subscribers, at most `limit`; for operators.
    pub(crate) fn len(&self) -> (usize, usize) {
        (self.exact.len(), self.wild.len())
    }
}

fn is_same(a: &Member, b: &Member) -> bool {
    Arc::ptr_eq(&a.session, &b.session) && a.options.is_fast == b.options.is_fast
}

/// One receiver.
pub(crate) struct Route {
    pub(crate) session: Arc<Session>,
    pub(crate) options: SubscriptionOptions,
    pub(crate) ids: Option<Arc<[u32]>>,
}

/// All receivers of a topic.
#[derive(Default)]
pub(crate) struct Routes {
    pub(crate) plain: Vec<Route>,
    pub(crate) groups: Vec<Arc<Group>>,
}

impl Routes {
    fn add(&mut self, leaf: &Leaf) {
        self.plain.extend(leaf.members.iter().map(|m| Route {
            session: m.session.clone(),
            options: m.options,
            ids: (m.identifier != 0).then(|| Arc::from([m.identifier].as_slice())),
        }));
        if let Some(groups) = &leaf.groups {
            self.groups.extend(groups.iter().map(|(_, g)| g.clone()));
        }
    }

    fn merge(&mut self) {
        if self.plain.len() < 2 {
            return;
        }
        let key = |r: &Route| (Arc::as_ptr(&r.session) as usize, r.options.is_fast);
        self.plain.sort_by_key(key);
        self.plain.dedup_by(|b, a| {
            if key(a) != key(b) {
                return false;
            }
            a.options.qos = a.options.qos.max(b.options.qos);
            a.options.no_local &= b.options.no_local;
            a.options.retain_as_published |= b.options.retain_as_published;
            if let Some(more) = &b.ids {
                let all = a.ids.as_deref().unwrap_or_default().iter().chain(&**more).copied();
                a.ids = Some(all.collect());
            }
            true
        });
    }

    /// Subscriptions that matched.
    pub(crate) fn len(&self) -> usize {
        self.plain.len() + self.groups.len()
    }
}

/// Most topics a driver remembers, and the longest it does.
const REMEMBERED: (usize, usize) = (16_384, 1024);

/// A driver's own memory of routes, valid until any subscription changes.
#[derive(Default)]
pub struct Matches {
    epoch: u64,
    routes: HashMap<Box<str>, Routes>,
    last: Option<Box<Routes>>,
}

impl Matches {
    /// The routes of `topic`, asked of `find` if they are not remembered.
    ///
    /// What the gateway itself says is not remembered: presence has a topic for each client, seldom used twice.
    pub(crate) fn find(
        &mut self,
        epoch: u64,
        topic: &str,
        is_own: bool,
        find: impl FnOnce(&str) -> Routes,
    ) -> &Routes {
        if self.epoch != epoch {
            self.routes.clear();
            self.last = None;
            self.epoch = epoch;
        }
        if is_own || topic.len() > REMEMBERED.1 {
            return self.last.insert(Box::new(find(topic)));
        }
        if self.routes.len() >= REMEMBERED.0 && !self.routes.contains_key(topic) {
            self.routes.clear();
        }
        self.routes.entry_ref(topic).or_insert_with(|| find(topic))
    }
}

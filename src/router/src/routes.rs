//! From a topic name to who gets it: exact filters by name, wildcard filters in a tree, shared subscriptions beside both.

use std::sync::Arc;

use gateway::{Filter, Subscribe};
use hashbrown::HashMap;

use crate::members::{Kind, Member, Members, SubscriptionOptions};
use crate::session::Session;
use crate::share::Group;
use crate::tree::Tree;

/// Who subscribed to one plain filter.
#[derive(Default)]
pub(crate) struct Leaf {
    members: Members,
    #[expect(clippy::box_collection, reason = "few filters have groups; the others pay eight bytes, not 24")]
    groups: Option<Box<Vec<Arc<Group>>>>,
}

impl Leaf {
    fn is_empty(&self) -> bool {
        self.members.is_empty() && self.groups.is_none()
    }

    fn join(&mut self, member: Member, filter: &Filter) -> bool {
        let Some(name) = filter.group() else { return self.members.join(member) };
        let groups = self.groups.get_or_insert_default();
        match groups.iter().find(|g| g.name() == name) {
            Some(group) => group.join(member),
            None => {
                let group = Group::new(name, filter.text().clone());
                group.join(member);
                groups.push(Arc::new(group));
                true
            }
        }
    }

    fn leave(&mut self, session: &Arc<Session>, kind: Kind, group: Option<&str>) -> bool {
        let Some(name) = group else { return self.members.leave(session, kind) };
        let Some(groups) = &mut self.groups else { return false };
        let Some(at) = groups.iter().position(|g| g.name() == name) else { return false };
        let was = groups[at].leave(session, kind);
        if groups[at].is_empty() {
            groups.swap_remove(at);
        }
        if groups.is_empty() {
            self.groups = None;
        }
        was
    }
}

/// All subscriptions.
#[derive(Default)]
pub(crate) struct Table {
    exact: HashMap<Arc<str>, Leaf>,
    wild: Tree<Leaf>,
    exclusive: HashMap<Box<str>, Arc<Session>>,
    pub(crate) subscriptions: usize,
    pub(crate) shared: usize,
}

/// What an attempt to subscribe brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
        let plain = filter.plain();
        let leaf = if filter.has_wildcard() {
            self.wild.entry(plain, Leaf::default)
        } else if plain.len() == filter.as_str().len() {
            // The text that the session keeps is the key.
            self.exact.entry(filter.text().clone()).or_default()
        } else {
            self.exact.entry_ref(plain).or_default()
        };
        let is_new = leaf.join(Member::new(session, filter, s), filter);
        self.shared += usize::from(is_new && filter.group().is_some());
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
        let was = leaf.leave(session, Kind::of(filter), filter.group());
        if leaf.is_empty() {
            if filter.has_wildcard() {
                self.wild.remove(plain);
            } else {
                self.exact.remove(plain);
            }
        }
        self.shared -= usize::from(was && filter.group().is_some());
        self.subscriptions -= usize::from(was);
        was
    }

    /// The group of a shared subscription's whole filter.
    pub(crate) fn group(&self, filter: &str) -> Option<Arc<Group>> {
        let filter = Filter::parse(filter).ok()?;
        let (plain, name) = (filter.plain(), filter.group()?);
        let leaf = if filter.has_wildcard() { self.wild.get(plain) } else { self.exact.get(plain) }?;
        leaf.groups.as_ref()?.iter().find(|g| g.name() == name).cloned()
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

    /// Different plain filters, exact and with wildcards.
    pub(crate) fn len(&self) -> (usize, usize) {
        (self.exact.len(), self.wild.len())
    }
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
        self.plain.extend(leaf.members.as_slice().iter().map(|m| Route {
            session: m.session.clone(),
            options: m.options,
            ids: m.ids(),
        }));
        if let Some(groups) = &leaf.groups {
            self.groups.extend(groups.iter().cloned());
        }
    }

    /// `$fastlane` has a way of its own, so it is not merged with what goes through the session.
    fn merge(&mut self) {
        if self.plain.len() < 2 {
            return;
        }
        let key = |r: &Route| (Arc::as_ptr(&r.session) as usize, r.options.kind.is_fast());
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
        self.plain.shrink_to_fit();
    }

    /// Subscriptions that matched, shared ones once each.
    pub(crate) fn len(&self) -> usize {
        self.plain.len() + self.groups.len()
    }

    /// Bytes it costs to remember, about.
    pub(crate) fn size(&self) -> usize {
        size_of::<Routes>()
            + self.plain.len() * size_of::<Route>()
            + self.groups.len() * size_of::<Arc<Group>>()
            + self.plain.iter().filter_map(|r| r.ids.as_deref()).map(|ids| 16 + ids.len() * 4).sum::<usize>()
    }
}

//! Sessions by namespace and client id, in shards so that connects on different cores do not wait for each other.

use std::hash::BuildHasher;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use hashbrown::{DefaultHashBuilder, HashMap, HashTable};
use parking_lot::{Mutex, MutexGuard};

use crate::session::{Realm, Session};

const SHARDS: usize = 64;

/// See the module.
pub(crate) struct Registry {
    shards: [Mutex<HashTable<Arc<Session>>>; SHARDS],
    hasher: DefaultHashBuilder,
    len: AtomicUsize,
    /// Of listeners without a mountpoint, for sessions that end with their connections and for durable ones; there are no more
    /// than listeners.
    realms: Mutex<HashMap<Arc<str>, [Arc<Realm>; 2]>>,
}

impl Default for Registry {
    fn default() -> Self {
        Registry {
            shards: std::array::from_fn(|_| Mutex::default()),
            hasher: DefaultHashBuilder::default(),
            len: AtomicUsize::new(0),
            realms: Mutex::default(),
        }
    }
}

/// One shard, locked.
pub(crate) struct Shard<'a> {
    table: MutexGuard<'a, HashTable<Arc<Session>>>,
    registry: &'a Registry,
}

impl Registry {
    pub(crate) fn len(&self) -> usize {
        self.len.load(Ordering::Relaxed)
    }

    /// What sessions of this namespace and mountpoint share.
    pub(crate) fn realm(&self, namespace: &str, mount: Box<str>, is_durable: bool) -> Arc<Realm> {
        let mut realms = self.realms.lock();
        let plain = realms.entry_ref(namespace).or_insert_with(|| {
            let namespace: Arc<str> = namespace.into();
            [false, true].map(|is_durable| {
                Arc::new(Realm { namespace: namespace.clone(), mount: "".into(), is_durable })
            })
        });
        let plain = &plain[usize::from(is_durable)];
        if mount.is_empty() {
            return plain.clone();
        }
        Arc::new(Realm { namespace: plain.namespace.clone(), mount: mount.into(), is_durable })
    }

    pub(crate) fn shard(&self, namespace: &str, client_id: &str) -> Shard<'_> {
        let shard = &self.shards[(self.hash(namespace, client_id) >> 40) as usize % SHARDS];
        Shard { table: shard.lock(), registry: self }
    }

    /// Every session, shard by shard, until `visit` says false. Sessions that come or go meanwhile may be missed.
    pub(crate) fn each(&self, mut visit: impl FnMut(&Arc<Session>) -> bool) {
        for shard in &self.shards {
            let sessions: Vec<_> = shard.lock().iter().cloned().collect();
            if !sessions.iter().all(&mut visit) {
                return;
            }
        }
    }

    fn hash(&self, namespace: &str, client_id: &str) -> u64 {
        self.hasher.hash_one((namespace, client_id))
    }
}

impl Shard<'_> {
    pub(crate) fn find(&self, namespace: &str, client_id: &str) -> Option<Arc<Session>> {
        let is_it = |s: &Arc<Session>| *s.client_id == *client_id && s.namespace() == namespace;
        self.table.find(self.registry.hash(namespace, client_id), is_it).cloned()
    }

    pub(crate) fn insert(&mut self, session: Arc<Session>) {
        let registry = self.registry;
        let hash = |s: &Arc<Session>| registry.hash(s.namespace(), &s.client_id);
        self.table.insert_unique(hash(&session), session, hash);
        registry.len.fetch_add(1, Ordering::Relaxed);
    }

    /// Removes this very session; false if another has its place.
    pub(crate) fn remove(&mut self, session: &Arc<Session>) -> bool {
        let hash = self.registry.hash(session.namespace(), &session.client_id);
        let Ok(entry) = self.table.find_entry(hash, |s| Arc::ptr_eq(s, session)) else { return false };
        entry.remove();
        self.registry.len.fetch_sub(1, Ordering::Relaxed);
        true
    }
}

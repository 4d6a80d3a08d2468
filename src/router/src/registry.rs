//! Sessions by namespace and client id, in shards so that connects on different cores do not wait for each other.

use std::hash::BuildHasher;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use hashbrown::{DefaultHashBuilder, HashSet, HashTable};
use parking_lot::{Mutex, MutexGuard};

use crate::session::Session;

const SHARDS: usize = 64;

/// See the module.
pub(crate) struct Registry {
    shards: [Mutex<HashTable<Arc<Session>>>; SHARDS],
    hasher: DefaultHashBuilder,
    len: AtomicUsize,
    /// Namespaces and mounts that many sessions share.
    names: Mutex<HashSet<Arc<str>>>,
}

impl Default for Registry {
    fn default() -> Self {
        Registry {
            shards: std::array::from_fn(|_| Mutex::default()),
            hasher: DefaultHashBuilder::default(),
            len: AtomicUsize::new(0),
            names: Mutex::default(),
        }
    }
}

/// One shard, locked.
pub(crate) struct Shard<'a> {
    table: MutexGuard<'a, HashTable<Arc<Session>>>,
    hasher: &'a DefaultHashBuilder,
}

impl Registry {
    pub(crate) fn len(&self) -> usize {
        self.len.load(Ordering::Relaxed)
    }

    pub(crate) fn added(&self) {
        self.len.fetch_add(1, Ordering::Relaxed);
    }

    /// The same text, shared. There are as many as listeners have.
    pub(crate) fn namespace(&self, name: &str) -> Arc<str> {
        self.names.lock().get_or_insert_with(name, |name: &str| Arc::from(name)).clone()
    }

    pub(crate) fn shard(&self, namespace: &str, client_id: &str) -> Shard<'_> {
        let hash = self.hasher.hash_one((namespace, client_id));
        let shard = &self.shards[(hash >> 40) as usize % SHARDS];
        Shard { table: shard.lock(), hasher: &self.hasher }
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
}

impl Shard<'_> {
    fn hash(&self, namespace: &str, client_id: &str) -> u64 {
        self.hasher.hash_one((namespace, client_id))
    }

    pub(crate) fn find(&self, namespace: &str, client_id: &str) -> Option<Arc<Session>> {
        let is_it = |s: &Arc<Session>| *s.client_id == *client_id && *s.namespace == *namespace;
        self.table.find(self.hash(namespace, client_id), is_it).cloned()
    }

    pub(crate) fn insert(&mut self, session: Arc<Session>) {
        let hash = self.hash(&session.namespace, &session.client_id);
        let hasher = self.hasher;
        self.table.insert_unique(hash, session, |s| hasher.hash_one((&*s.namespace, &*s.client_id)));
    }

    /// Removes this very session; false if another has its place.
    pub(crate) fn remove(&mut self, session: &Arc<Session>) -> bool {
        let hash = self.hash(&session.namespace, &session.client_id);
        match self.table.find_entry(hash, |s| Arc::ptr_eq(s, session)) {
            Ok(entry) => {
                entry.remove();
                true
            }
            Err(_) => false,
        }
    }

    /// Removes it and counts.
    pub(crate) fn forget(&mut self, registry: &Registry, session: &Arc<Session>) {
        if self.remove(session) {
            registry.len.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

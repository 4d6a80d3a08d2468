//! Which of two valid keys a device has is not known before its handshake fails: then the next one is tried with the other.

use std::collections::VecDeque;
use std::hash::BuildHasher;
use std::net::IpAddr;

use hashbrown::{DefaultHashBuilder, HashSet};
use parking_lot::Mutex;

/// Most that are remembered; the oldest goes.
const MAX: usize = 10_000;

/// Identities, each with the address it came from so that no stranger can turn them, that are tried with the older key
/// first.
#[derive(Default)]
pub(crate) struct Tries {
    hasher: DefaultHashBuilder,
    table: Mutex<(HashSet<u64>, VecDeque<u64>)>,
}

impl Tries {
    /// Whether the older key is to be tried.
    pub(crate) fn is_turned(&self, identity: &[u8], address: IpAddr) -> bool {
        let hash = self.hasher.hash_one((identity, address));
        self.table.lock().0.contains(&hash)
    }

    /// The key that was tried is not the device's.
    pub(crate) fn turn(&self, identity: &[u8], address: IpAddr) {
        let hash = self.hasher.hash_one((identity, address));
        let mut table = self.table.lock();
        let (turned, order) = &mut *table;
        if turned.remove(&hash) {
            order.retain(|h| *h != hash);
            return;
        }
        if turned.len() >= MAX
            && let Some(oldest) = order.pop_front()
        {
            turned.remove(&oldest);
        }
        turned.insert(hash);
        order.push_back(hash);
    }
}

//! Drops by reason.

use std::sync::atomic::{AtomicU64, Ordering};

use gateway::Drop;

/// One counter for each [`Drop`].
#[derive(Debug)]
pub struct Counts([AtomicU64; Drop::ALL.len()]);

impl Default for Counts {
    fn default() -> Self {
        Counts(std::array::from_fn(|_| AtomicU64::new(0)))
    }
}

impl Counts {
    pub(crate) fn dropped(&self, why: Drop) {
        self.0[why as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// How many were dropped for this reason.
    pub fn of(&self, why: Drop) -> u64 {
        self.0[why as usize].load(Ordering::Relaxed)
    }
}

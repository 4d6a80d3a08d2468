//! What the router has to do later: delayed messages and wills, session and retained expiry.
//!
//! Entries are never moved: one whose reason has gone is recognised when its time comes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use gateway::{Instant, Message};
use parking_lot::Mutex;

use crate::session::Session;

/// One thing to do. Sessions come with the number of the connection after which it was set.
pub(crate) enum Timer {
    Delayed(Message),
    Will(Arc<Session>, u32),
    Expire(Arc<Session>, u32),
    Retained(Box<str>),
}

#[derive(Default)]
struct Inner {
    queue: BTreeMap<(Instant, u64), Timer>,
    serial: u64,
    delayed: usize,
    delayed_bytes: usize,
}

/// See the module.
pub(crate) struct Timers {
    inner: Mutex<Inner>,
    /// The earliest, so that a look costs no lock; `u64::MAX` is none.
    next: AtomicU64,
}

impl Default for Timers {
    fn default() -> Self {
        Timers { inner: Mutex::default(), next: AtomicU64::new(u64::MAX) }
    }
}

impl Timers {
    pub(crate) fn set(&self, at: Instant, timer: Timer) {
        self.add(&mut self.inner.lock(), at, timer);
    }

    /// Keeps a delayed message; false if there are too many.
    pub(crate) fn delay(&self, at: Instant, message: Message, most: usize, most_bytes: usize) -> bool {
        let mut inner = self.inner.lock();
        let size = message.size();
        if inner.delayed >= most || inner.delayed_bytes + size > most_bytes {
            return false;
        }
        inner.delayed += 1;
        inner.delayed_bytes += size;
        self.add(&mut inner, at, Timer::Delayed(message));
        true
    }

    fn add(&self, inner: &mut Inner, at: Instant, timer: Timer) {
        inner.serial += 1;
        inner.queue.insert((at, inner.serial), timer);
        self.next.fetch_min(at.as_micros(), Ordering::Release);
    }

    pub(crate) fn next(&self) -> Option<Instant> {
        let at = self.next.load(Ordering::Acquire);
        (at != u64::MAX).then(|| Instant::from_micros(at))
    }

    pub(crate) fn pop(&self, now: Instant) -> Option<Timer> {
        let mut inner = self.inner.lock();
        let timer = match inner.queue.first_entry() {
            Some(entry) if entry.key().0 <= now => Some(entry.remove()),
            _ => None,
        };
        if let Some(Timer::Delayed(message)) = &timer {
            inner.delayed -= 1;
            inner.delayed_bytes -= message.size();
        }
        let next = inner.queue.keys().next().map_or(u64::MAX, |(at, _)| at.as_micros());
        self.next.store(next, Ordering::Release);
        timer
    }

    /// Delayed messages and their bytes.
    pub(crate) fn delayed(&self) -> (usize, usize) {
        let inner = self.inner.lock();
        (inner.delayed, inner.delayed_bytes)
    }
}

//! What the router has to do later: delayed messages, wills and ends of absent sessions, expiry of retained messages.
//!
//! Whoever set a deadline keeps its [`Key`] and cancels it when its reason has gone, so a client that comes and goes, or
//! a topic that is retained again and again, has one entry here at most. A deadline that was taken out just before it was
//! cancelled is recognised by the key that no longer stands where it was kept.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use gateway::{Instant, Message};
use parking_lot::Mutex;

use crate::session::Session;

/// Names a deadline.
pub(crate) type Key = (Instant, u64);

/// One thing to do.
pub(crate) enum Timer {
    /// A `$delayed` message is due.
    Delayed(Delayed),
    /// Messages that were due and could not be kept are tried again.
    Overdue,
    /// An absent session has a will to publish, or ends.
    Absent(Arc<Session>),
    /// The retained message of this topic expires.
    Retained(Box<str>),
}

/// A message that waits for its time.
#[derive(Clone)]
pub(crate) struct Delayed {
    pub(crate) message: Message,
    /// Its number in the store, if it is there.
    pub(crate) serial: Option<u64>,
}

#[derive(Default)]
struct Inner {
    queue: BTreeMap<Key, Timer>,
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
    /// Remembers `timer` for `at`.
    pub(crate) fn set(&self, at: Instant, timer: Timer) -> Key {
        self.add(&mut self.inner.lock(), at, timer)
    }

    /// Forgets a deadline that has not been taken out.
    pub(crate) fn cancel(&self, key: Key) {
        let mut inner = self.inner.lock();
        let gone = inner.queue.remove(&key);
        self.publish_next(&inner);
        drop(inner);
        // What it referred to is let go of without the lock.
        drop(gone);
    }

    /// Keeps a delayed message; false if there are too many.
    pub(crate) fn delay(&self, at: Instant, delayed: Delayed, most: usize, most_bytes: usize) -> bool {
        let mut inner = self.inner.lock();
        let size = delayed.message.size();
        if inner.delayed >= most || inner.delayed_bytes + size > most_bytes {
            return false;
        }
        inner.delayed += 1;
        inner.delayed_bytes += size;
        self.add(&mut inner, at, Timer::Delayed(delayed));
        true
    }

    fn add(&self, inner: &mut Inner, at: Instant, timer: Timer) -> Key {
        inner.serial += 1;
        let key = (at, inner.serial);
        inner.queue.insert(key, timer);
        self.publish_next(inner);
        key
    }

    fn publish_next(&self, inner: &Inner) {
        let next = inner.queue.first_key_value().map_or(u64::MAX, |((at, _), _)| at.as_micros());
        self.next.store(next, Ordering::Release);
    }

    /// When the earliest is due.
    pub(crate) fn next(&self) -> Option<Instant> {
        let at = self.next.load(Ordering::Acquire);
        (at != u64::MAX).then(|| Instant::from_micros(at))
    }

    /// Takes the earliest that is due.
    pub(crate) fn pop(&self, now: Instant) -> Option<(Key, Timer)> {
        let mut inner = self.inner.lock();
        let entry = inner.queue.first_entry().filter(|e| e.key().0 <= now)?;
        let (key, timer) = entry.remove_entry();
        if let Timer::Delayed(Delayed { message, .. }) = &timer {
            inner.delayed -= 1;
            inner.delayed_bytes -= message.size();
        }
        self.publish_next(&inner);
        Some((key, timer))
    }

    /// Delayed messages and their bytes.
    pub(crate) fn delayed(&self) -> (usize, usize) {
        let inner = self.inner.lock();
        (inner.delayed, inner.delayed_bytes)
    }

    /// Deadlines that are set.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.inner.lock().queue.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn retained(topic: &str) -> Timer {
        Timer::Retained(topic.into())
    }

    #[test]
    fn deadlines_come_in_order_and_a_cancelled_one_not_at_all() {
        let timers = Timers::default();
        let at = Instant::from_micros;
        let early = timers.set(at(10), retained("early"));
        let late = timers.set(at(20), retained("late"));
        assert_eq!(timers.next(), Some(at(10)));
        timers.cancel(early);
        assert_eq!(timers.next(), Some(at(20)));
        assert!(timers.pop(at(19)).is_none());
        assert!(timers.pop(at(20)).is_some_and(|(key, _)| key == late));
        assert_eq!((timers.next(), timers.len()), (None, 0));
    }

    #[test]
    fn delayed_messages_are_bounded_in_number_and_bytes() {
        let timers = Timers::default();
        let message = Message::new(gateway::Now::default(), "t", b"x");
        let size = message.size();
        let delayed = Delayed { message, serial: None };
        let keep =
            |most, most_bytes| timers.delay(Instant::from_micros(1), delayed.clone(), most, most_bytes);
        assert!(keep(2, size * 2) && keep(2, size * 2));
        assert!(!keep(2, size * 9) && !keep(9, size * 2));
        assert_eq!(timers.delayed(), (2, size * 2));
        timers.pop(Instant::from_micros(1));
        assert_eq!(timers.delayed(), (1, size));
    }
}

//! Time as an argument: machines never read a clock, so that every run can be replayed.

use std::collections::BTreeSet;
use std::ops::{Add, Sub};
use std::time::Duration;

use wire::calendar::Calendar;

/// A point on the process's monotonic clock, in microseconds since the process (or a test) began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instant(u64);

impl Instant {
    /// Later than any deadline that is ever reached.
    pub const NEVER: Instant = Instant(u64::MAX);

    /// The point this many microseconds after the clock's beginning.
    pub const fn from_micros(micros: u64) -> Self {
        Instant(micros)
    }

    /// Microseconds since the clock's beginning.
    pub const fn as_micros(self) -> u64 {
        self.0
    }

    /// Time from `earlier` to this point; zero if `earlier` is later.
    pub fn since(self, earlier: Instant) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Instant {
    type Output = Instant;

    fn add(self, d: Duration) -> Instant {
        Instant(self.0.saturating_add(u64::try_from(d.as_micros()).unwrap_or(u64::MAX)))
    }
}

impl Sub<Instant> for Instant {
    type Output = Duration;

    fn sub(self, earlier: Instant) -> Duration {
        self.since(earlier)
    }
}

/// The moment a machine is called: monotonic time for deadlines, wall time for what people and other machines read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// For deadlines and expiry. Never jumps.
    pub instant: Instant,
    /// Milliseconds since 1970-01-01 UTC. May jump (a board without a real-time clock): nothing expires by it
    /// but keys that an operator gave a date.
    pub wall_ms: u64,
}

impl Now {
    /// A moment of a test's clock: `micros` after its beginning, with the wall clock at the same count.
    pub const fn from_micros(micros: u64) -> Self {
        Now { instant: Instant::from_micros(micros), wall_ms: micros / 1000 }
    }

    /// This moment moved on by `d`, both clocks.
    #[must_use]
    pub fn after(self, d: Duration) -> Self {
        Now {
            instant: self.instant + d,
            wall_ms: self.wall_ms.saturating_add(u64::try_from(d.as_millis()).unwrap_or(u64::MAX)),
        }
    }
}

/// Deadlines ordered by time, several per key allowed. No look at it ever scans all keys.
#[derive(Clone, Debug)]
pub struct Deadlines<K> {
    by_time: BTreeSet<(Instant, K)>,
}

impl<K: Ord + Copy> Default for Deadlines<K> {
    fn default() -> Self {
        Deadlines { by_time: BTreeSet::new() }
    }
}

impl<K: Ord + Copy> Deadlines<K> {
    /// Remembers that `key` is due at `at`.
    pub fn set(&mut self, at: Instant, key: K) {
        self.by_time.insert((at, key));
    }

    /// Forgets the deadline that was set with exactly these values; false if there was none.
    pub fn cancel(&mut self, at: Instant, key: K) -> bool {
        self.by_time.remove(&(at, key))
    }

    /// Takes the earliest key whose time has come.
    pub fn pop(&mut self, now: Instant) -> Option<K> {
        let &(at, key) = self.by_time.first()?;
        if at > now {
            return None;
        }
        self.by_time.pop_first();
        Some(key)
    }

    /// When the earliest is due.
    pub fn next(&self) -> Option<Instant> {
        self.by_time.first().map(|&(at, _)| at)
    }

    /// How many deadlines are set.
    pub fn len(&self) -> usize {
        self.by_time.len()
    }

    /// Whether none is set.
    pub fn is_empty(&self) -> bool {
        self.by_time.is_empty()
    }
}

/// RFC 3339 in UTC, to the second.
pub fn datetime(wall_ms: u64) -> String {
    Calendar::at(wall_ms).to_string()
}

/// The milliseconds since 1970 of what [`datetime`] writes; None for everything else.
pub fn parse_datetime(text: &str) -> Option<u64> {
    text.parse().ok().map(Calendar::to_ms)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_read_as_they_are_written() {
        assert_eq!(datetime(951_782_400_000), "2000-02-29T00:00:00Z");
        assert_eq!(parse_datetime("2000-02-29T00:00:00Z"), Some(951_782_400_000));
        assert_eq!(parse_datetime("1969-12-31T23:59:59Z"), None);
    }

    #[test]
    fn deadlines_come_out_in_order_and_only_when_due() {
        let mut d = Deadlines::default();
        d.set(Instant::from_micros(20), 'b');
        d.set(Instant::from_micros(10), 'a');
        d.set(Instant::from_micros(15), 'c');
        assert!(d.cancel(Instant::from_micros(15), 'c'));
        assert_eq!(d.next(), Some(Instant::from_micros(10)));
        assert_eq!(d.pop(Instant::from_micros(9)), None);
        assert_eq!(d.pop(Instant::from_micros(20)), Some('a'));
        assert_eq!(d.pop(Instant::from_micros(20)), Some('b'));
        assert_eq!(d.pop(Instant::NEVER), None);
    }

    #[test]
    fn adding_to_the_end_of_time_stays_there() {
        assert_eq!(Instant::NEVER + Duration::from_secs(1), Instant::NEVER);
    }
}

//! Deadlines of many connections, coarse and cheap: eight bytes each, nothing moved when a deadline moves later.

use std::collections::BTreeMap;
use std::time::Duration;

use gateway::{Instant, Peer};

/// Deadlines are met at most this much late.
const TICK: Duration = Duration::from_millis(50);

/// Peers by the tick at which they are to be looked at. Who looks decides whether it was due: an entry is a reminder,
/// not a promise, so a deadline that moves later costs nothing until then.
#[derive(Default)]
pub struct Wheel {
    ticks: BTreeMap<u64, Vec<Peer>>,
}

fn tick(at: Instant) -> u64 {
    at.as_micros().div_ceil(TICK.as_micros() as u64)
}

fn instant(tick: u64) -> Instant {
    Instant::from_micros(tick.saturating_mul(TICK.as_micros() as u64))
}

impl Wheel {
    /// Looks at `peer` at `at`, or up to a tick later; returns when.
    pub fn set(&mut self, at: Instant, peer: Peer) -> Instant {
        let tick = tick(at);
        self.ticks.entry(tick).or_default().push(peer);
        instant(tick)
    }

    /// Those whose tick has come, with its time.
    pub fn pop(&mut self, now: Instant) -> Option<(Instant, Vec<Peer>)> {
        let entry = self.ticks.first_entry()?;
        let at = instant(*entry.key());
        (at <= now).then(|| (at, entry.remove()))
    }

    /// When the next tick comes that has peers.
    pub fn next(&self) -> Option<Instant> {
        self.ticks.keys().next().map(|&t| instant(t))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reminder_comes_at_its_time_or_a_tick_later() {
        let (mut wheel, peer) = (Wheel::default(), Peer { slot: 1, generation: 1 });
        let at = Instant::from_micros(1_020_000);
        let set = wheel.set(at, peer);
        assert!(set >= at && set.since(at) < TICK);
        assert_eq!(wheel.next(), Some(set));
        assert!(wheel.pop(at).is_none());
        assert_eq!(wheel.pop(set), Some((set, vec![peer])));
        assert_eq!(wheel.next(), None);
    }
}

//! A program that was stopped, or whose calls take long, runs apart from the others until it has been quiet for a while,
//! and rests when it is stopped too often there.

use std::collections::VecDeque;
use std::time::Duration;

use gateway::Instant;

/// As long as nothing is stopped for so long, the program is as good as any other.
const QUIET: Duration = Duration::from_secs(600);
/// So many stops within [`SPAN`] are too many.
const STOPS: usize = 5;
const SPAN: Duration = Duration::from_secs(60);
/// Rests grow from the first to the last.
const FIRST_REST: Duration = Duration::from_secs(1);
const LAST_REST: Duration = Duration::from_secs(60);

/// Calls that are looked at together, and from what time each of them takes on average a program is slow: the others would
/// wait for hundreds of its calls.
const LOOK: u32 = 16;
const SLOW: Duration = Duration::from_millis(10);

/// What is held against a program.
#[derive(Debug, Default)]
pub(super) struct Ward {
    /// Calls that run a second time, after a worker died.
    trials: usize,
    stops: VecDeque<Instant>,
    rest: Duration,
    rests_until: Option<Instant>,
    /// Of the calls that are looked at now.
    calls: u32,
    time: Duration,
    /// When they were last found to take long.
    slow_at: Option<Instant>,
}

impl Ward {
    /// Whether the program has to be kept apart.
    pub(super) fn is_apart(&self, now: Instant) -> bool {
        let last = self.stops.back().max(self.slow_at.as_ref());
        self.trials > 0 || last.is_some_and(|at| now.since(*at) < QUIET)
    }

    /// One of its calls took so long. Whether it has to be kept apart for that from now on.
    pub(super) fn took(&mut self, now: Instant, time: Duration) -> bool {
        (self.calls, self.time) = (self.calls + 1, self.time + time);
        if self.calls < LOOK {
            return false;
        }
        let is_slow = self.time >= SLOW * LOOK;
        (self.calls, self.time) = (0, Duration::ZERO);
        let was_apart = self.is_apart(now);
        if is_slow {
            self.slow_at = Some(now);
        }
        is_slow && !was_apart
    }

    /// Whether it is not to run at all.
    pub(super) fn is_resting(&self, now: Instant) -> bool {
        self.rests_until.is_some_and(|until| now < until)
    }

    /// One of its calls may have cost a worker its life, and is tried again.
    pub(super) fn begin_trial(&mut self) {
        self.trials += 1;
    }

    /// The trial has ended, one way or the other.
    pub(super) fn end_trial(&mut self) {
        self.trials = self.trials.saturating_sub(1);
    }

    /// One of its calls had to be stopped. How long it has to rest, if it has to.
    pub(super) fn stopped(&mut self, now: Instant) -> Option<Duration> {
        if !self.is_apart(now) {
            self.rest = Duration::ZERO;
        }
        self.stops.retain(|at| now.since(*at) < SPAN);
        self.stops.push_back(now);
        if self.rest.is_zero() && self.stops.len() < STOPS {
            return None;
        }
        self.rest = (self.rest * 2).clamp(FIRST_REST, LAST_REST);
        self.rests_until = Some(now + self.rest);
        // Of those before only the latest is looked at: each stop after the first rest brings a longer one.
        self.stops.truncate(0);
        self.stops.push_back(now);
        Some(self.rest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Instant {
        Instant::from_micros(seconds * 1_000_000)
    }

    #[test]
    fn a_program_that_is_stopped_again_and_again_rests_longer_and_longer() {
        let mut ward = Ward::default();
        assert!(!ward.is_apart(at(1)));
        let rests: Vec<_> = (1..=4).map(|s| ward.stopped(at(s))).collect();
        assert_eq!(rests, [None; 4]);
        assert!(ward.is_apart(at(5)) && !ward.is_resting(at(5)));
        let mut now = 5;
        for rest in [1, 2, 4, 8, 16, 32, 60, 60] {
            assert_eq!(ward.stopped(at(now)), Some(Duration::from_secs(rest)));
            assert!(ward.is_resting(at(now + rest - 1)) && !ward.is_resting(at(now + rest)));
            now += rest;
        }
        assert!(ward.is_apart(at(now + 500)) && !ward.is_apart(at(now + 600)));
        assert_eq!(ward.stopped(at(now + 600)), None, "what was before is forgotten");
    }

    #[test]
    fn a_stop_now_and_then_is_no_reason_to_rest() {
        let mut ward = Ward::default();
        for n in 0..100 {
            assert_eq!(ward.stopped(at(n * 16)), None);
        }
    }

    #[test]
    fn a_program_whose_calls_take_long_is_apart_until_they_do_not() {
        let (mut ward, ms) = (Ward::default(), Duration::from_millis);
        for n in 0..160 {
            assert!(
                !ward.took(at(1), ms(if n % 16 == 0 { 100 } else { 3 })),
                "one that takes long now and then"
            );
        }
        let slow: Vec<bool> = (0..32).map(|_| ward.took(at(2), ms(10))).collect();
        assert_eq!(slow.iter().position(|is| *is), Some(15));
        assert_eq!(slow.iter().filter(|is| **is).count(), 1, "it is apart already");
        assert!(ward.is_apart(at(601)) && !ward.is_apart(at(602)) && !ward.is_resting(at(2)));
        // It goes on being slow, and rests for that no more than before.
        assert!((0..16).filter(|_| ward.took(at(700), ms(30))).count() == 1 && ward.is_apart(at(1299)));
        assert_eq!(ward.stopped(at(1200)), None);
    }

    #[test]
    fn who_is_on_trial_is_apart_until_it_has_ended() {
        let mut ward = Ward::default();
        ward.begin_trial();
        ward.begin_trial();
        ward.end_trial();
        assert!(ward.is_apart(at(1)));
        ward.end_trial();
        assert!(!ward.is_apart(at(1)));
    }
}

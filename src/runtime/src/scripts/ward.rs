//! A program that was stopped runs apart from the others until it has been quiet for a while, and rests when it is
//! stopped too often there.

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

/// What is held against a program.
#[derive(Debug, Default)]
pub(super) struct Ward {
    /// Calls that run a second time, after a worker died.
    trials: usize,
    stops: VecDeque<Instant>,
    rest: Duration,
    rests_until: Option<Instant>,
}

impl Ward {
    /// Whether the program has to be kept apart.
    pub(super) fn is_apart(&self, now: Instant) -> bool {
        self.trials > 0 || self.stops.back().is_some_and(|at| now.since(*at) < QUIET)
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

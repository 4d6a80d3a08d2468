//! What is counted of each script, and what is kept of its failures for an operator. Shared with who shows it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use gateway::CallFailure;
use parking_lot::Mutex;

/// Failures that are kept of each script.
const SAMPLES: usize = 16;
/// Most bytes of an input that are kept with its failure.
const SAMPLE_BYTES: usize = 1024;

/// Why calls fail, as metrics name it.
pub(crate) const REASONS: [&str; 5] = ["program", "limit", "suspended", "unknown", "busy"];

fn reason(failure: &CallFailure) -> usize {
    match failure {
        CallFailure::Program(_) => 0,
        CallFailure::Limit(_) => 1,
        CallFailure::Suspended => 2,
        CallFailure::Unknown => 3,
        CallFailure::Busy => 4,
    }
}

/// What all scripts have done.
#[derive(Debug, Default)]
pub(crate) struct Records {
    by_name: Mutex<BTreeMap<Box<str>, Arc<Record>>>,
    /// Workers that were started.
    pub(crate) starts: AtomicU64,
    /// Workers that were killed, since a call took too long.
    pub(crate) kills: AtomicU64,
    /// Workers that died by themselves, or by somebody else's hand.
    pub(crate) deaths: AtomicU64,
}

/// What one script has done, in all its versions.
#[derive(Debug, Default)]
pub(crate) struct Record {
    calls: AtomicU64,
    failures: [AtomicU64; REASONS.len()],
    micros: AtomicU64,
    samples: Mutex<VecDeque<Sample>>,
}

/// A call that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Sample {
    /// When the input came, in milliseconds since 1970.
    pub(crate) wall_ms: u64,
    /// Which version.
    pub(crate) version: u32,
    /// Whose input it was.
    pub(crate) device: Box<str>,
    /// LoRaWAN's FPort or what stands for it.
    pub(crate) port: u8,
    /// The beginning of the input.
    pub(crate) input: Vec<u8>,
    /// How long the input was.
    pub(crate) length: usize,
    /// What went wrong.
    pub(crate) why: Box<str>,
}

impl Sample {
    /// Keeps no more of the input than is shown.
    pub(crate) fn keep(input: &[u8]) -> Vec<u8> {
        input[..input.len().min(SAMPLE_BYTES)].to_vec()
    }
}

/// One script's counts at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ScriptFigures {
    /// Its name.
    pub name: Box<str>,
    /// Calls that have ended.
    pub calls: u64,
    /// Those of them that failed, by reason.
    pub failures: Vec<(&'static str, u64)>,
    /// Time that workers were busy with it.
    pub busy: Duration,
}

impl Records {
    /// The script of this name.
    pub(crate) fn of(&self, name: &str) -> Arc<Record> {
        self.by_name.lock().entry(name.into()).or_default().clone()
    }

    /// Workers: started, killed, died.
    pub(crate) fn workers(&self) -> [u64; 3] {
        [&self.starts, &self.kills, &self.deaths].map(|counter| counter.load(Ordering::Relaxed))
    }

    /// All counts.
    pub(crate) fn figures(&self) -> Vec<ScriptFigures> {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let of = |name: &str, r: &Record| ScriptFigures {
            name: name.into(),
            calls: read(&r.calls),
            failures: REASONS.iter().zip(&r.failures).map(|(reason, n)| (*reason, read(n))).collect(),
            busy: Duration::from_micros(read(&r.micros)),
        };
        self.by_name.lock().iter().map(|(name, record)| of(name, record)).collect()
    }
}

impl Record {
    /// A call ended.
    pub(crate) fn ended(&self, failure: Option<&CallFailure>) {
        self.calls.fetch_add(1, Ordering::Relaxed);
        if let Some(failure) = failure {
            self.failures[reason(failure)].fetch_add(1, Ordering::Relaxed);
        }
    }

    /// A worker was busy with it.
    pub(crate) fn took(&self, time: Duration) {
        self.micros.fetch_add(u64::try_from(time.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// Keeps a failure in the place of the oldest.
    pub(crate) fn keep(&self, sample: Sample) {
        let mut samples = self.samples.lock();
        if samples.len() == SAMPLES {
            samples.pop_front();
        }
        samples.push_back(sample);
    }

    /// The last failures, the oldest first.
    pub(crate) fn samples(&self) -> Vec<Sample> {
        self.samples.lock().iter().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_failure_is_counted_under_its_own_name() {
        let records = Records::default();
        let record = records.of("a");
        let limit = CallFailure::Limit("".into());
        for failure in
            [None, Some(&limit), Some(&limit), Some(&CallFailure::Busy), Some(&CallFailure::Suspended)]
        {
            record.ended(failure);
        }
        record.took(Duration::from_millis(5));
        let expected = [("program", 0), ("limit", 2), ("suspended", 1), ("unknown", 0), ("busy", 1)];
        let busy = Duration::from_millis(5);
        let all = [ScriptFigures { name: "a".into(), calls: 5, failures: expected.into(), busy }];
        assert_eq!(records.figures(), all);
    }

    #[test]
    fn the_last_failures_are_kept_and_not_more_of_them_than_is_shown() {
        let record = Record::default();
        for n in 0..40 {
            let input = Sample::keep(&vec![0; 900 + n as usize * 10]);
            let why = "it threw".into();
            record.keep(Sample {
                wall_ms: n,
                version: 1,
                device: "d".into(),
                port: 1,
                input,
                length: 7,
                why,
            });
        }
        let samples = record.samples();
        assert_eq!(samples.iter().map(|s| s.wall_ms).collect::<Vec<_>>(), (24..40).collect::<Vec<_>>());
        assert!(samples.iter().all(|s| s.input.len() == SAMPLE_BYTES));
    }
}

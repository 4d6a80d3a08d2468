//! Plays many cases side by side.

use crate::connection::Targets;
use crate::play;
use crate::script::Case;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Cases that are played at a time: most of them wait most of their time.
const SIDE_BY_SIDE: usize = 32;

/// What came of one case.
#[derive(Clone, Debug)]
pub struct Outcome<'a> {
    /// The case.
    pub case: &'a Case,
    /// None if all was as the case says.
    pub mistake: Option<String>,
}

/// Plays all cases, in no order; outcomes are in the order of the cases.
pub fn run<'a>(cases: &'a [Case], targets: &Targets) -> Vec<Outcome<'a>> {
    let next = AtomicUsize::new(0);
    let outcomes: Mutex<Vec<(usize, Outcome<'a>)>> = Mutex::new(Vec::new());
    let run = run_name();
    std::thread::scope(|scope| {
        for _ in 0..SIDE_BY_SIDE.min(cases.len()) {
            scope.spawn(|| {
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    let Some(case) = cases.get(at) else { return };
                    let mistake = play::play(case, targets, &format!("{run}{}", base36(at as u64))).err();
                    let mut outcomes = outcomes.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                    outcomes.push((at, Outcome { case, mistake }));
                }
            });
        }
    });
    let mut outcomes = outcomes.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    outcomes.sort_by_key(|(at, _)| *at);
    outcomes.into_iter().map(|(_, outcome)| outcome).collect()
}

/// Letters and digits that no other run on this machine has; short, since 3.1 ends client identifiers at 23 bytes.
#[expect(clippy::disallowed_methods, reason = "names of clients and topics must differ from run to run")]
fn run_name() -> String {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    format!("{}x", base36(since.as_millis() as u64 ^ u64::from(std::process::id()) << 20))
}

fn base36(mut number: u64) -> String {
    let mut digits = Vec::new();
    loop {
        digits.extend(char::from_digit((number % 36) as u32, 36));
        number /= 36;
        if number == 0 {
            return digits.into_iter().rev().collect();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_short_and_differ() {
        assert_eq!(base36(0), "0");
        assert_eq!(base36(36 * 36 + 35), "10z");
        assert!(run_name().len() <= 14);
    }
}

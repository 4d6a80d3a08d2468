//! What a server costs, read from outside: CPU time and resident memory in `/proc`.

use std::fs;
use std::io::{Error, Result};

/// Linux counts user-visible time in hundredths of a second on every common architecture (`getconf CLK_TCK`).
const TICK_NS: u64 = 10_000_000;

/// A process that is watched.
#[derive(Clone, Copy, Debug)]
pub struct Process(pub u32);

impl Process {
    /// CPU time of all its threads, user and system, in nanoseconds: the scheduler's own sum, which `/proc/PID/stat`
    /// rounds to ticks of 10 ms.
    pub fn cpu_ns(self) -> Result<u64> {
        let text = fs::read_to_string(format!("/proc/{}/stat", self.0))?;
        // The name, field 2, is in parentheses and may hold anything; utime and stime are fields 14 and 15.
        let mut fields = text.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace().skip(11);
        Ok((parse(fields.next())? + parse(fields.next())?) * TICK_NS)
    }

    /// Resident memory in bytes (`VmRSS`).
    pub fn resident(self) -> Result<u64> {
        let text = fs::read_to_string(format!("/proc/{}/status", self.0))?;
        let line = text.lines().find_map(|l| l.strip_prefix("VmRSS:"));
        Ok(parse(line.and_then(|l| l.split_whitespace().next()))? * 1024)
    }
}

fn parse(word: Option<&str>) -> Result<u64> {
    word.and_then(|w| w.parse().ok()).ok_or_else(|| Error::other("/proc holds something else than expected"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_very_process_costs_something() {
        let me = Process(std::process::id());
        let before = (me.cpu_ns().unwrap(), me.resident().unwrap());
        let begin = std::time::Instant::now();
        while me.cpu_ns().unwrap() == before.0 {
            assert!(begin.elapsed().as_secs() < 20, "two ticks of work in twenty seconds");
        }
        let memory = std::hint::black_box(vec![1u8; 32 << 20]);
        assert!(me.resident().unwrap() >= before.1 + memory.len() as u64 / 2);
    }
}

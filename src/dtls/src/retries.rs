//! Which of two valid keys a device has is not known before its handshake fails: the next one from there takes the older.

use std::net::IpAddr;
use std::time::Duration;

use gateway::Instant;
use hashbrown::HashMap;

use crate::hosts::host;

/// A client that failed with one key of its identity may try the other for so long: one with little power tries seldom.
const RETRY: Duration = Duration::from_secs(86_400);
/// Most that are remembered.
const MAX: usize = 4096;

/// Identities, as the table finds them, each with the host that it came from, at whatever port, and until when it is told.
#[derive(Default)]
pub(crate) struct Retries {
    until: HashMap<(u64, IpAddr), Instant>,
}

impl Retries {
    /// Whether the older key is to be tried.
    pub(crate) fn has(&self, now: Instant, who: u64, from: IpAddr) -> bool {
        self.until.get(&(who, host(from))).is_some_and(|until| now < *until)
    }

    /// The newest key was not the device's. Where there are too many, the oldest is forgotten: who fills the table keeps
    /// nobody out for longer than it goes on.
    pub(crate) fn add(&mut self, now: Instant, who: u64, from: IpAddr) {
        let key = (who, host(from));
        if self.until.len() >= MAX && !self.until.contains_key(&key) {
            let oldest = self.until.iter().min_by_key(|(_, until)| **until).map(|(key, _)| *key);
            oldest.and_then(|oldest| self.until.remove(&oldest));
        }
        self.until.insert(key, now + RETRY);
    }

    /// It came in, or it has neither.
    pub(crate) fn remove(&mut self, who: u64, from: IpAddr) {
        self.until.remove(&(who, host(from)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn second(n: u64) -> Instant {
        Instant::from_micros(n * 1_000_000)
    }

    #[test]
    fn who_fills_the_table_keeps_nobody_out() {
        let (mut retries, device) = (Retries::default(), "198.51.100.1".parse().unwrap());
        for n in 0..2 * MAX as u32 {
            let from = IpAddr::from((0xc000_0000 + n).to_be_bytes());
            retries.add(second(1), 7, from);
        }
        assert_eq!(retries.until.len(), MAX);
        retries.add(second(2), 7, device);
        assert!(retries.has(second(3), 7, device) && !retries.has(second(3), 8, device));
        assert_eq!(retries.until.len(), MAX);
    }

    #[test]
    fn the_addresses_of_one_host_take_one_place() {
        let mut retries = Retries::default();
        for n in 0..100 {
            retries.add(second(1), 7, IpAddr::from([0x2001, 0xdb8, 0, 7, 0, 0, 0, n]));
        }
        assert_eq!(retries.until.len(), 1);
        assert!(retries.has(second(2), 7, "2001:db8:0:7::abcd".parse().unwrap()));
    }
}

//! Who is written to the log about: one line a minute about each address.

use std::net::IpAddr;
use std::time::Duration;

use gateway::Instant;
use hashbrown::HashMap;

/// Addresses that are remembered; about more of them nothing is written.
const MOST: usize = 1024;
const REST: Duration = Duration::from_secs(60);

/// See the module.
#[derive(Default)]
pub(crate) struct Complaints(HashMap<IpAddr, Instant>);

impl Complaints {
    /// Whether there may be a line about this address now.
    pub(crate) fn may(&mut self, now: Instant, address: IpAddr) -> bool {
        if let Some(at) = self.0.get_mut(&address) {
            let may = now.since(*at) >= REST;
            if may {
                *at = now;
            }
            return may;
        }
        if self.0.len() >= MOST {
            self.0.retain(|_, at| now.since(*at) < REST);
        }
        let may = self.0.len() < MOST;
        if may {
            self.0.insert(address, now);
        }
        may
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_a_line_a_minute_about_each_address_and_none_about_too_many() {
        let at = |s: u64| Instant::from_micros(s * 1_000_000);
        let address = |n: u16| IpAddr::from([10, 0, (n >> 8) as u8, n as u8]);
        let mut c = Complaints::default();
        assert!(c.may(at(0), address(1)) && !c.may(at(59), address(1)) && c.may(at(59), address(2)));
        assert!(c.may(at(60), address(1)) && !c.may(at(61), address(1)));
        let lines = (0..2000).filter(|n| c.may(at(61), address(*n))).count();
        assert_eq!((lines, c.may(at(200), address(1999))), (MOST - 2, true));
    }
}

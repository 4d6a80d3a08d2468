//! Who takes part in what there is little of: what one host has too much of is taken from that host, and from nobody else.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use hashbrown::HashMap;

/// What counts as one host: an address of IPv4, or a network of 64 bits, all of which one host of IPv6 has.
pub(crate) fn host(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V6(ip) => Ipv6Addr::from(u128::from(ip) >> 64 << 64).into(),
        v4 => v4,
    }
}

/// Addresses by host, each with the number under which it was added: the lower, the older.
#[derive(Default)]
pub(crate) struct Hosts {
    by_host: HashMap<IpAddr, BTreeMap<u64, SocketAddr>>,
    /// How many a host has, its oldest, and which host.
    rank: BTreeSet<(usize, Reverse<u64>, IpAddr)>,
}

impl Hosts {
    pub(crate) fn add(&mut self, number: u64, a: SocketAddr) {
        self.change(a, |of| of.insert(number, a));
    }

    /// Takes back what was added with exactly these values.
    pub(crate) fn remove(&mut self, number: u64, a: SocketAddr) {
        self.change(a, |of| of.remove(&number));
    }

    /// The oldest of the host that has most; where several have as many, the oldest of all of theirs.
    pub(crate) fn oldest_of_most(&self) -> Option<SocketAddr> {
        let (_, Reverse(number), host) = self.rank.last()?;
        self.by_host.get(host)?.get(number).copied()
    }

    fn change(
        &mut self,
        a: SocketAddr,
        change: impl FnOnce(&mut BTreeMap<u64, SocketAddr>) -> Option<SocketAddr>,
    ) {
        let host = host(a.ip());
        let of = self.by_host.entry(host).or_default();
        let rank = |of: &BTreeMap<u64, SocketAddr>| Some((of.len(), Reverse(*of.first_key_value()?.0), host));
        if let Some(before) = rank(of) {
            self.rank.remove(&before);
        }
        change(of);
        match rank(of) {
            Some(now) => drop(self.rank.insert(now)),
            None => drop(self.by_host.remove(&host)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn the_oldest_of_who_has_most_goes_first_and_then_the_oldest_of_all() {
        let mut hosts = Hosts::default();
        let all = ["10.0.0.1:1", "10.0.0.2:1", "10.0.0.2:2", "10.0.0.3:1", "10.0.0.2:3"].map(at);
        (0..).zip(all).for_each(|(n, a)| hosts.add(n, a));
        let mut gone = vec![];
        while let Some(a) = hosts.oldest_of_most() {
            let number = all.iter().position(|x| *x == a).unwrap() as u64;
            hosts.remove(number, a);
            gone.push(a);
        }
        assert_eq!(gone, [all[1], all[2], all[0], all[3], all[4]]);
        assert!(hosts.by_host.is_empty() && hosts.rank.is_empty());
    }

    #[test]
    fn a_host_of_ipv6_is_its_network_and_a_mapped_address_is_that_of_ipv4() {
        let is_same = |a: &str, b: &str| host(a.parse().unwrap()) == host(b.parse().unwrap());
        assert!(is_same("2001:db8:0:7::1", "2001:db8:0:7:ffff::2"));
        assert!(!is_same("2001:db8:0:7::1", "2001:db8:0:8::1"));
        assert!(is_same("::ffff:10.0.0.1", "10.0.0.1"));
        assert!(!is_same("::ffff:10.0.0.1", "::ffff:10.0.0.2"));
    }
}

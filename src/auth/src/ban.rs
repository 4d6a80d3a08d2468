//! Who is kept out for a while: by the operator, or after failed logins.
//!
//! Bans are kept in memory and end with the process. IPv6 addresses are counted, and banned, by their /64: one host has
//! all of it. Both tables are bounded; what the bounds drop is counted.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use gateway::config::{Kind, Section};
use gateway::{Facts, Instant, Now};
use hashbrown::HashMap;
use ipnet::IpNet;
use parking_lot::Mutex;

/// `[auth.bans]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BanOptions {
    /// Failed logins within `window` that bring a ban; zero is never.
    pub login_failures: u32,
    /// See there.
    pub window: Duration,
    /// How long such a ban lasts.
    pub duration: Duration,
    /// What is counted and banned.
    pub by: By,
    /// Whether loopback addresses can be banned for failed logins.
    pub loopback: bool,
    /// Most bans, and most addresses and names whose failures are remembered.
    pub max: usize,
}

/// See [`BanOptions::by`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct By {
    /// The peer's address.
    pub address: bool,
    /// The user name it claimed. Anybody can keep a user out so.
    pub username: bool,
    /// The client id it claimed. Anybody can keep a client out so.
    pub client_id: bool,
}

impl Default for BanOptions {
    fn default() -> BanOptions {
        BanOptions {
            login_failures: 10,
            window: Duration::from_secs(60),
            duration: Duration::from_secs(600),
            by: By { address: true, username: false, client_id: false },
            loopback: false,
            max: 10_000,
        }
    }
}

impl BanOptions {
    /// Reads `[auth.bans]`.
    pub fn read(mut s: Section<'_>) -> BanOptions {
        let d = BanOptions::default();
        let (second, year) = (Duration::from_secs(1), Duration::from_secs(365 * 86_400));
        let by = s
            .read("by", |kind| {
                let text = || "must be a list of \"address\", \"username\" and \"client_id\"".to_owned();
                let Kind::List(list) = kind else { return Err(text()) };
                let mut by = By { address: false, username: false, client_id: false };
                for word in list {
                    match &word.kind {
                        Kind::Text(t) if t == "address" => by.address = true,
                        Kind::Text(t) if t == "username" => by.username = true,
                        Kind::Text(t) if t == "client_id" => by.client_id = true,
                        _ => return Err(text()),
                    }
                }
                Ok(by)
            })
            .unwrap_or(d.by);
        let options = BanOptions {
            login_failures: s.number("login_failures", d.login_failures, 0..=1_000_000),
            window: s.duration("window", d.window, second..=year),
            duration: s.duration("duration", d.duration, second..=year),
            by,
            loopback: s.flag("loopback", d.loopback),
            max: s.number("max", d.max as u32, 1..=10_000_000) as usize,
        };
        s.finish();
        options
    }
}

/// Who is banned.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Subject {
    /// A client id.
    ClientId(Box<str>),
    /// A user name.
    Username(Box<str>),
    /// An address or a network.
    Address(IpNet),
}

impl Subject {
    /// `client_id`, `username` or `address`, and its value.
    pub fn parse(kind: &str, value: &str) -> Result<Subject, String> {
        match kind {
            "client_id" if !value.is_empty() => Ok(Subject::ClientId(value.into())),
            "username" if !value.is_empty() => Ok(Subject::Username(value.into())),
            "address" => {
                let net =
                    IpNet::from_str(value).ok().or_else(|| value.parse::<IpAddr>().ok().map(IpNet::from));
                let net =
                    net.ok_or_else(|| format!("`{value}` is not an address such as 10.0.0.7 or 10.0.0.0/8"))?;
                Ok(Subject::Address(net.trunc()))
            }
            "client_id" | "username" => Err("needs a value".to_owned()),
            other => Err(format!("`{other}` is none of `client_id`, `username`, `address`")),
        }
    }

    /// `client_id`, `username` or `address`.
    pub fn kind(&self) -> &'static str {
        match self {
            Subject::ClientId(_) => "client_id",
            Subject::Username(_) => "username",
            Subject::Address(_) => "address",
        }
    }

    /// Its value as text.
    pub fn value(&self) -> String {
        match self {
            Subject::ClientId(v) | Subject::Username(v) => v.to_string(),
            Subject::Address(net) if net.prefix_len() == net.max_prefix_len() => net.addr().to_string(),
            Subject::Address(net) => net.to_string(),
        }
    }
}

/// One ban as an operator sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ban {
    /// Who.
    pub subject: Subject,
    /// For how long still; none is until it is removed.
    pub remaining: Option<Duration>,
    /// `operator` or `login_failures`.
    pub reason: &'static str,
}

/// Where an attempt came from.
pub(crate) struct Suspect<'a> {
    pub(crate) client_id: &'a str,
    pub(crate) username: Option<&'a str>,
    pub(crate) address: IpAddr,
}

impl<'a> Suspect<'a> {
    pub(crate) fn new(client_id: &'a str, username: Option<&'a str>, facts: &Facts) -> Suspect<'a> {
        Suspect { client_id, username, address: facts.address.ip().to_canonical() }
    }
}

/// See the module.
pub struct Bans {
    options: Mutex<BanOptions>,
    table: Mutex<Table>,
    /// So that nothing is locked while nobody is banned.
    count: AtomicUsize,
    failures: Mutex<Failures>,
    dropped: AtomicU64,
}

#[derive(Default)]
struct Table {
    by_subject: HashMap<Subject, Entry>,
    /// How many networks of each prefix length, so that a look-up asks once a length.
    v4: HashMap<u8, usize>,
    v6: HashMap<u8, usize>,
}

struct Entry {
    /// `Instant::NEVER` without end.
    until: Instant,
    reason: &'static str,
}

#[derive(Default)]
struct Failures {
    by_subject: HashMap<Subject, (Instant, u32)>,
    /// The same by the beginning of their window, oldest first; entries that no longer agree are passed over.
    by_time: VecDeque<(Instant, Subject)>,
}

impl Bans {
    /// Nobody is banned.
    pub fn new(options: BanOptions) -> Bans {
        Bans {
            options: Mutex::new(options),
            table: Mutex::default(),
            count: AtomicUsize::new(0),
            failures: Mutex::default(),
            dropped: AtomicU64::new(0),
        }
    }

    /// From now on by these.
    pub fn reload(&self, options: BanOptions) {
        *self.options.lock() = options;
    }

    /// Whether any of a suspect's names or addresses is banned.
    pub(crate) fn has(&self, now: Now, who: &Suspect<'_>) -> bool {
        if self.count.load(Ordering::Relaxed) == 0 {
            return false;
        }
        let mut table = self.table.lock();
        let mut subjects = vec![Subject::ClientId(who.client_id.into())];
        subjects.extend(who.username.map(|name| Subject::Username(name.into())));
        subjects.extend(table.nets(who.address).map(Subject::Address));
        let is_banned = subjects.iter().any(|s| table.is_banned(now, s));
        self.count.store(table.by_subject.len(), Ordering::Relaxed);
        is_banned
    }

    /// Counts a failed login; true if it brought a ban.
    pub(crate) fn failed(&self, now: Now, who: &Suspect<'_>) -> bool {
        let options = self.options.lock().clone();
        if options.login_failures == 0 {
            return false;
        }
        let mut subjects = Vec::new();
        if options.by.address && (options.loopback || !who.address.is_loopback()) {
            subjects.push(Subject::Address(host(who.address)));
        }
        if options.by.username {
            subjects.extend(who.username.map(|name| Subject::Username(name.into())));
        }
        if options.by.client_id && !who.client_id.is_empty() {
            subjects.push(Subject::ClientId(who.client_id.into()));
        }
        let mut is_banned = false;
        for subject in subjects {
            let count = self.failures.lock().count(now, &subject, &options, &self.dropped);
            if count >= options.login_failures {
                self.failures.lock().by_subject.remove(&subject);
                let until = now.instant + options.duration;
                is_banned |= self.insert(now, subject, until, "login_failures").is_ok();
            }
        }
        is_banned
    }

    /// Bans somebody; `duration` none is until it is removed. The error says that there are too many.
    pub fn add(&self, now: Now, subject: Subject, duration: Option<Duration>) -> Result<(), String> {
        let until = duration.map_or(Instant::NEVER, |d| now.instant + d);
        self.insert(now, subject, until, "operator")
    }

    fn insert(&self, now: Now, subject: Subject, until: Instant, reason: &'static str) -> Result<(), String> {
        let max = self.options.lock().max;
        let mut table = self.table.lock();
        if table.by_subject.len() >= max && !table.by_subject.contains_key(&subject) {
            table.expire(now);
        }
        if table.by_subject.len() >= max && !table.by_subject.contains_key(&subject) {
            self.dropped.fetch_add(1, Ordering::Relaxed);
            return Err(format!("there are {max} bans already (auth.bans.max)"));
        }
        table.insert(subject, Entry { until, reason });
        self.count.store(table.by_subject.len(), Ordering::Relaxed);
        Ok(())
    }

    /// Ends a ban; false if there is none.
    pub fn remove(&self, subject: &Subject) -> bool {
        let mut table = self.table.lock();
        let was_there = table.remove(subject);
        self.count.store(table.by_subject.len(), Ordering::Relaxed);
        was_there
    }

    /// At most `limit` of those that hold now, in no order.
    pub fn list(&self, now: Now, limit: usize) -> Vec<Ban> {
        let table = self.table.lock();
        let held = table.by_subject.iter().filter(|(_, e)| e.until > now.instant);
        held.take(limit)
            .map(|(subject, e)| Ban {
                subject: subject.clone(),
                remaining: (e.until != Instant::NEVER).then(|| e.until - now.instant),
                reason: e.reason,
            })
            .collect()
    }

    /// Bans that found the table full, and failures forgotten early.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}

impl Table {
    fn lengths(&mut self, net: &IpNet) -> &mut HashMap<u8, usize> {
        if matches!(net, IpNet::V4(_)) { &mut self.v4 } else { &mut self.v6 }
    }

    fn insert(&mut self, subject: Subject, entry: Entry) {
        if let Subject::Address(net) = &subject
            && !self.by_subject.contains_key(&subject)
        {
            *self.lengths(net).entry(net.prefix_len()).or_default() += 1;
        }
        self.by_subject.insert(subject, entry);
    }

    fn remove(&mut self, subject: &Subject) -> bool {
        if self.by_subject.remove(subject).is_none() {
            return false;
        }
        if let Subject::Address(net) = subject {
            let lengths = self.lengths(net);
            if let Some(n) = lengths.get_mut(&net.prefix_len()) {
                *n -= 1;
                if *n == 0 {
                    lengths.remove(&net.prefix_len());
                }
            }
        }
        true
    }

    fn nets(&self, address: IpAddr) -> impl Iterator<Item = IpNet> + use<> {
        let lengths = if address.is_ipv4() { &self.v4 } else { &self.v6 };
        let lengths: Vec<u8> = lengths.keys().copied().collect();
        lengths.into_iter().filter_map(move |l| Some(IpNet::new(address, l).ok()?.trunc()))
    }

    fn is_banned(&mut self, now: Now, subject: &Subject) -> bool {
        let Some(entry) = self.by_subject.get(subject) else { return false };
        if entry.until > now.instant {
            return true;
        }
        self.remove(subject);
        false
    }

    fn expire(&mut self, now: Now) {
        let over: Vec<Subject> =
            self.by_subject.iter().filter(|(_, e)| e.until <= now.instant).map(|(s, _)| s.clone()).collect();
        over.iter().for_each(|s| {
            self.remove(s);
        });
    }
}

impl Failures {
    /// Adds one failure and returns how many there are in its window.
    fn count(&mut self, now: Now, subject: &Subject, options: &BanOptions, dropped: &AtomicU64) -> u32 {
        while let Some((since, _)) = self.by_time.front() {
            let is_over = now.instant - *since >= options.window;
            if !is_over && self.by_time.len() < options.max {
                break;
            }
            let Some((since, oldest)) = self.by_time.pop_front() else { break };
            if self.by_subject.get(&oldest).is_some_and(|(s, _)| *s == since) {
                self.by_subject.remove(&oldest);
                dropped.fetch_add(u64::from(!is_over), Ordering::Relaxed);
            }
        }
        if let Some((_, count)) = self.by_subject.get_mut(subject) {
            *count += 1;
            return *count;
        }
        self.by_subject.insert(subject.clone(), (now.instant, 1));
        self.by_time.push_back((now.instant, subject.clone()));
        1
    }
}

fn host(address: IpAddr) -> IpNet {
    let length = if address.is_ipv4() { 32 } else { 64 };
    IpNet::new(address, length).map_or(IpNet::from(address), |net| net.trunc())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Now {
        Now::from_micros(seconds * 1_000_000)
    }

    fn from(address: &str) -> Suspect<'_> {
        Suspect { client_id: "c", username: Some("u"), address: address.parse().unwrap() }
    }

    #[test]
    fn failed_logins_within_the_window_bring_a_ban_that_ends() {
        let bans = Bans::new(BanOptions { login_failures: 3, ..BanOptions::default() });
        assert!(!bans.failed(at(0), &from("10.0.0.1")));
        assert!(!bans.failed(at(1), &from("10.0.0.1")));
        assert!(!bans.failed(at(61), &from("10.0.0.1")), "the window began anew");
        assert!(!bans.failed(at(62), &from("10.0.0.1")));
        assert!(bans.failed(at(63), &from("10.0.0.1")));
        assert!(bans.has(at(64), &from("10.0.0.1")) && !bans.has(at(64), &from("10.0.0.2")));
        assert_eq!(bans.list(at(63), 10)[0].remaining, Some(Duration::from_secs(600)));
        assert!(!bans.has(at(663), &from("10.0.0.1")));
        assert!(bans.list(at(663), 10).is_empty());
    }

    #[test]
    fn loopback_is_not_banned_unless_told_to() {
        let options = BanOptions { login_failures: 1, ..BanOptions::default() };
        assert!(!Bans::new(options.clone()).failed(at(0), &from("127.0.0.1")));
        assert!(Bans::new(BanOptions { loopback: true, ..options }).failed(at(0), &from("::1")));
    }

    #[test]
    fn a_host_of_ipv6_is_its_network() {
        let bans = Bans::new(BanOptions { login_failures: 2, ..BanOptions::default() });
        bans.failed(at(0), &from("2001:db8::1"));
        assert!(bans.failed(at(0), &from("2001:db8::2")));
        assert!(bans.has(at(1), &from("2001:db8::ffff")) && !bans.has(at(1), &from("2001:db8:0:1::1")));
    }

    #[test]
    fn names_and_networks_are_banned_until_removed() {
        let bans = Bans::new(BanOptions::default());
        for (kind, value) in [("client_id", "c"), ("username", "u"), ("address", "10.1.2.3/8")] {
            let subject = Subject::parse(kind, value).unwrap();
            bans.add(at(0), subject.clone(), None).unwrap();
            assert!(bans.has(at(1_000_000), &from("10.9.9.9")), "{kind}");
            assert_eq!(bans.list(at(0), 10)[0].remaining, None);
            assert!(bans.remove(&subject) && !bans.remove(&subject));
            assert!(!bans.has(at(0), &from("10.9.9.9")));
        }
        assert!(Subject::parse("address", "10.0.0.0/99").is_err());
        assert!(Subject::parse("adress", "10.0.0.1").is_err());
    }

    #[test]
    fn both_tables_are_bounded_and_what_is_dropped_is_counted() {
        let bans = Bans::new(BanOptions { login_failures: 2, max: 4, ..BanOptions::default() });
        for i in 0..8 {
            bans.failed(at(0), &from(&format!("10.0.0.{i}")));
        }
        assert_eq!((bans.dropped(), bans.failures.lock().by_subject.len()), (4, 4));
        for i in 0..8u32 {
            let added =
                bans.add(at(0), Subject::ClientId(i.to_string().into()), Some(Duration::from_secs(1)));
            assert_eq!(added.is_ok(), i < 4);
        }
        assert!(bans.add(at(2), Subject::ClientId("x".into()), None).is_ok(), "expired ones make room");
    }
}

//! Counters of the whole process, and what of it is counted by looking. Drivers gather what is counted per packet in a
//! [`Tally`] of their own and add it up once a turn.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use gateway::{Close, Drop, Failure, Outcome, Qos, Refusal};
use router::Stats;
use store::Figures;

use crate::house::House;
use crate::scripts::ScriptFigures;

mod text;

pub use text::render;

/// See the module. Everything counts from the start of the process.
#[derive(Debug)]
pub struct Metrics {
    received: [AtomicU64; 3],
    sent: [AtomicU64; 3],
    bytes_in: AtomicU64,
    bytes_out: AtomicU64,
    accepted: AtomicU64,
    accept_failed: AtomicU64,
    connected: AtomicU64,
    disconnected: AtomicU64,
    rested: AtomicU64,
    closed: [AtomicU64; Close::ALL.len()],
    dropped: [AtomicU64; Drop::ALL.len()],
    refused: [AtomicU64; REFUSALS.len()],
    /// Requests to devices: done, refused by the device, and failed.
    asked: [AtomicU64; 2 + Failure::ALL.len()],
}

/// Every reason for which a login is refused, in the order of its number.
pub const REFUSALS: [Refusal; 15] = [
    Refusal::BadCredentials,
    Refusal::BadMethod,
    Refusal::NotAuthorised,
    Refusal::ClientId,
    Refusal::NotOwner,
    Refusal::Banned,
    Refusal::QuotaExceeded,
    Refusal::ServerBusy,
    Refusal::NotKept,
    Refusal::TopicName,
    Refusal::TopicFilter,
    Refusal::ExclusiveTaken,
    Refusal::Uncertain,
    Refusal::NoSession,
    Refusal::Internal,
];

/// A refusal's name in metrics and `$SYS`.
pub fn label(refusal: Refusal) -> &'static str {
    match refusal {
        Refusal::BadCredentials => "bad_credentials",
        Refusal::BadMethod => "bad_method",
        Refusal::NotAuthorised => "not_authorised",
        Refusal::ClientId => "client_id",
        Refusal::NotOwner => "not_owner",
        Refusal::Banned => "banned",
        Refusal::QuotaExceeded => "quota_exceeded",
        Refusal::ServerBusy => "server_busy",
        Refusal::NotKept => "not_kept",
        Refusal::TopicName => "topic_name",
        Refusal::TopicFilter => "topic_filter",
        Refusal::ExclusiveTaken => "exclusive_taken",
        Refusal::Uncertain => "uncertain",
        Refusal::NoSession => "no_session",
        Refusal::Internal => "internal",
    }
}

fn zeros<const N: usize>() -> [AtomicU64; N] {
    std::array::from_fn(|_| AtomicU64::new(0))
}

impl Default for Metrics {
    fn default() -> Self {
        Metrics {
            received: zeros(),
            sent: zeros(),
            bytes_in: AtomicU64::new(0),
            bytes_out: AtomicU64::new(0),
            accepted: AtomicU64::new(0),
            accept_failed: AtomicU64::new(0),
            connected: AtomicU64::new(0),
            disconnected: AtomicU64::new(0),
            rested: AtomicU64::new(0),
            closed: zeros(),
            dropped: zeros(),
            refused: zeros(),
            asked: zeros(),
        }
    }
}

fn add(counter: &AtomicU64, n: u64) {
    counter.fetch_add(n, Ordering::Relaxed);
}

impl Metrics {
    /// Something was dropped by a gateway or a driver; the router counts its own.
    pub fn dropped(&self, why: Drop) {
        add(&self.dropped[why as usize], 1);
    }

    /// A conversation ended.
    pub fn closed(&self, why: Close) {
        add(&self.closed[why as usize], 1);
    }

    /// A client may not come in.
    pub fn login_refused(&self, why: Refusal) {
        if let Some(counter) = self.refused.get(why as usize) {
            add(counter, 1);
        }
    }

    /// A request to a device has come to its end.
    pub fn asked(&self, outcome: &Outcome) {
        let at = match outcome {
            Ok(response) if response.is_success => 0,
            Ok(_) => 1,
            Err(why) => 2 + *why as usize,
        };
        add(&self.asked[at], 1);
    }

    /// A client came in.
    pub fn connected(&self) {
        add(&self.connected, 1);
    }

    /// A client that had come in has gone.
    pub fn disconnected(&self) {
        add(&self.disconnected, 1);
    }

    /// A stream connection was accepted.
    pub fn accepted(&self) {
        add(&self.accepted, 1);
    }

    /// A stream connection could not be accepted.
    pub fn accept_failed(&self) {
        add(&self.accept_failed, 1);
    }

    /// A peer over its rate limit was let rest.
    pub fn rested(&self) {
        add(&self.rested, 1);
    }
}

/// What one driver has counted since it last handed it in.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    received: [u64; 3],
    sent: [u64; 3],
    bytes_in: u64,
    bytes_out: u64,
}

impl Tally {
    /// A message came from a client.
    pub fn received(&mut self, qos: Qos) {
        self.received[qos as usize] += 1;
    }

    /// A message was handed to a client's gateway.
    pub fn sent(&mut self, qos: Qos) {
        self.sent[qos as usize] += 1;
    }

    /// Bytes were read from a socket.
    pub fn bytes_in(&mut self, n: usize) {
        self.bytes_in += n as u64;
    }

    /// Bytes were written to a socket.
    pub fn bytes_out(&mut self, n: usize) {
        self.bytes_out += n as u64;
    }

    /// Adds everything to `metrics` and begins anew.
    pub fn flush(&mut self, metrics: &Metrics) {
        let hand_in = |from: &mut u64, to: &AtomicU64| {
            if *from > 0 {
                add(to, std::mem::take(from));
            }
        };
        self.received.iter_mut().zip(&metrics.received).for_each(|(from, to)| hand_in(from, to));
        self.sent.iter_mut().zip(&metrics.sent).for_each(|(from, to)| hand_in(from, to));
        hand_in(&mut self.bytes_in, &metrics.bytes_in);
        hand_in(&mut self.bytes_out, &metrics.bytes_out);
    }
}

/// All figures at one moment, for the Prometheus text and for `$SYS`.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// Seconds since the start.
    pub uptime: u64,
    /// Messages from clients by QoS.
    pub received: [u64; 3],
    /// Messages to clients by QoS.
    pub sent: [u64; 3],
    /// Bytes read from sockets.
    pub bytes_in: u64,
    /// Bytes written to sockets.
    pub bytes_out: u64,
    /// Stream connections accepted.
    pub accepted: u64,
    /// Stream connections that could not be accepted.
    pub accept_failed: u64,
    /// Clients that came in.
    pub connected: u64,
    /// Clients that came in and have gone.
    pub disconnected: u64,
    /// Times a peer over its rate limit was let rest.
    pub rested: u64,
    /// Conversations ended, by reason.
    pub closed: Vec<(&'static str, u64)>,
    /// Drops, by reason.
    pub dropped: Vec<(&'static str, u64)>,
    /// Logins refused, by reason.
    pub refused: Vec<(&'static str, u64)>,
    /// Requests to devices, by outcome.
    pub asked: Vec<(&'static str, u64)>,
    /// Conversations open now: protocol, listener, how many.
    pub open: Vec<(&'static str, Box<str>, u64)>,
    /// DTLS associations: listener; active, parked, half open.
    pub associations: Vec<(Box<str>, [u64; 3])>,
    /// Sizes of the router.
    pub router: Stats,
    /// The store, if there is one.
    pub store: Option<StoreState>,
    /// Scripts that were called, or could be.
    pub scripts: Vec<ScriptFigures>,
    /// Workers of scripts: started, killed since a call was late, died by themselves.
    pub workers: [u64; 3],
}

/// What is known of the store.
#[derive(Clone, Copy, Debug, Default)]
pub struct StoreState {
    /// Whether it writes.
    pub is_working: bool,
    /// What it has and has done.
    pub figures: Figures,
}

impl Snapshot {
    /// The figures of now.
    pub fn take(house: &House) -> Snapshot {
        let m = &house.metrics;
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let open = |count: &AtomicUsize| count.load(Ordering::Relaxed) as u64;
        let drops = house.router.drops();
        // The later figure is read first, so that nobody has gone who had not come in.
        let disconnected = read(&m.disconnected);
        Snapshot {
            uptime: house.clock.uptime().as_secs(),
            received: std::array::from_fn(|i| read(&m.received[i])),
            sent: std::array::from_fn(|i| read(&m.sent[i])),
            bytes_in: read(&m.bytes_in),
            bytes_out: read(&m.bytes_out),
            accepted: read(&m.accepted),
            accept_failed: read(&m.accept_failed),
            connected: read(&m.connected),
            disconnected,
            rested: read(&m.rested),
            closed: Close::ALL.iter().map(|c| (c.label(), read(&m.closed[*c as usize]))).collect(),
            dropped: Drop::ALL
                .iter()
                .map(|d| (d.label(), read(&m.dropped[*d as usize]) + drops.of(*d)))
                .collect(),
            refused: REFUSALS.iter().map(|r| (label(*r), read(&m.refused[*r as usize]))).collect(),
            asked: ["done", "refused"]
                .into_iter()
                .chain(Failure::ALL.iter().map(|f| f.label()))
                .zip(m.asked.iter().map(read))
                .collect(),
            associations: house
                .ports
                .iter()
                .filter(|port| port.setup.dtls.is_some())
                .map(|port| (port.facts.name.clone(), port.associations.each_ref().map(open)))
                .collect(),
            open: house
                .ports
                .iter()
                .map(|port| (port.facts.protocol, port.facts.name.clone(), open(&port.open)))
                .collect(),
            router: {
                let stats = house.router.stats();
                let own = house.request_topics.len();
                // The gateway's own subscription is nobody's.
                Stats {
                    sessions: stats.sessions.saturating_sub(own.min(1)),
                    subscriptions: stats.subscriptions.saturating_sub(own),
                    ..stats
                }
            },
            scripts: house.scripts.records.figures(),
            workers: house.scripts.records.workers(),
            store: house
                .store
                .as_ref()
                .map(|s| StoreState { is_working: s.failure().is_none(), figures: s.figures() }),
        }
    }

    /// Clients that are connected now.
    pub fn clients(&self) -> u64 {
        self.connected.saturating_sub(self.disconnected)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_refusal_has_its_own_counter_and_name() {
        let mut names: Vec<&str> = REFUSALS.iter().map(|r| label(*r)).collect();
        for (i, refusal) in REFUSALS.iter().enumerate() {
            assert_eq!(*refusal as usize, i);
        }
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), REFUSALS.len());
    }

    #[test]
    fn a_tally_is_handed_in_once() {
        let metrics = Metrics::default();
        let mut tally = Tally::default();
        tally.received(Qos::AtLeastOnce);
        tally.sent(Qos::ExactlyOnce);
        tally.bytes_in(7);
        tally.bytes_out(9);
        tally.flush(&metrics);
        tally.flush(&metrics);
        let read = |c: &AtomicU64| c.load(Ordering::Relaxed);
        assert_eq!((read(&metrics.received[1]), read(&metrics.sent[2])), (1, 1));
        assert_eq!((read(&metrics.bytes_in), read(&metrics.bytes_out)), (7, 9));
    }
}

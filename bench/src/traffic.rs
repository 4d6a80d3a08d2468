//! Runs with traffic: publishers that keep a number of messages on their way (closed loop), or send by the clock
//! whatever becomes of it (open loop).
//!
//! Payload: publisher, sequence number and scheduled time, then padding. So a subscriber can tell what came late, twice
//! or out of order.

use std::io::Write;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::Failure;
use crate::clients::Clients;
use crate::cost::Process;
use crate::packets::{self, Frame, kind};

/// Bytes that a payload needs at least.
const STAMP: usize = 16;
/// Topics of [`Shape::Spread`].
const SPREAD: u32 = 100_000;
/// After the last was sent: how long nothing may arrive before what is on its way counts as lost. A slow server with many in
/// flight takes seconds for all of them.
const DRAIN: Duration = Duration::from_millis(500);

/// Who publishes to whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// As many publishers as subscribers, each pair with a topic of its own.
    Pairs(usize),
    /// Many publishers, one subscriber to all of it through one topic.
    FanIn(usize),
    /// One publisher, many subscribers to one topic.
    FanOut(usize),
    /// Many publishers to one topic, as many subscribers that share it.
    Share(usize),
    /// One publisher, one subscriber with a wildcard, and ever another topic: no memory of topics helps.
    Spread,
}

/// When publishers send.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Pace {
    /// Each publisher keeps this many messages on their way to all of their subscribers.
    InFlight(u32),
    /// All together send this many messages a second, evenly.
    PerSecond(u32),
}

/// What is to be measured.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Who.
    pub shape: Shape,
    /// QoS of publishers and subscribers.
    pub qos: u8,
    /// How fast.
    pub pace: Pace,
    /// Bytes of a payload.
    pub payload: usize,
    /// Whether the sessions of subscribers outlive their connections.
    pub is_durable: bool,
    /// Time before the measurement.
    pub warm_up: Duration,
    /// Time of the measurement.
    pub measured: Duration,
}

/// What came out. Counts are of the measured time, except `lost` and `disordered`, which are of the whole run.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Messages that arrived.
    pub delivered: u64,
    /// CPU time of the server, seconds.
    pub cpu_s: f64,
    /// Length of the measured time, seconds.
    pub seconds: f64,
    /// Deliveries that never came.
    pub lost: u64,
    /// Deliveries whose sequence number was not the next of their publisher.
    pub disordered: u64,
    /// From the scheduled time to arrival, in nanoseconds, ascending; open loop only.
    pub latency_ns: Vec<u64>,
}

struct Publisher {
    client: usize,
    topic: Vec<u8>,
    /// Next sequence number.
    next: u32,
    /// Deliveries on their way.
    outstanding: u32,
    /// QoS 1 and 2: handshakes that are not done.
    unacknowledged: u32,
    is_waiting: bool,
}

struct Traffic {
    plan: Plan,
    publishers: Vec<Publisher>,
    /// Client index of the first publisher; subscribers are before it.
    first: usize,
    /// Deliveries that one message causes.
    copies: u32,
    /// Next sequence number expected, by subscriber or publisher, whichever are many.
    expected: Vec<u32>,
    /// Publishers that may send again.
    waiting: Vec<usize>,
    begin: Instant,
    delivered: u64,
    sent: u64,
    disordered: u64,
    latency_from: u64,
    latency_ns: Vec<u64>,
}

/// Connects everybody, lets traffic flow and measures.
pub fn run(plan: Plan, server: SocketAddr, process: Process) -> Result<Outcome, Failure> {
    let mut clients = Clients::new()?;
    let mut traffic = Traffic::open(plan, &mut clients, server)?;
    let warm = plan.warm_up;
    let end = warm + plan.measured;
    traffic.flow(&mut clients, warm)?;
    let before = (traffic.delivered, process.cpu_ns()?, traffic.begin.elapsed());
    traffic.flow(&mut clients, end)?;
    let (delivered, cpu, at) = (traffic.delivered, process.cpu_ns()?, traffic.begin.elapsed());
    traffic.drain(&mut clients)?;
    traffic.latency_ns.sort_unstable();
    Ok(Outcome {
        delivered: delivered - before.0,
        cpu_s: (cpu - before.1) as f64 / 1e9,
        seconds: (at - before.2).as_secs_f64(),
        lost: (traffic.sent * u64::from(traffic.copies)).saturating_sub(traffic.delivered),
        disordered: traffic.disordered,
        latency_ns: traffic.latency_ns,
    })
}

impl Traffic {
    fn open(plan: Plan, clients: &mut Clients, server: SocketAddr) -> Result<Traffic, Failure> {
        let (subscribers, publishers) = match plan.shape {
            Shape::Pairs(n) | Shape::Share(n) => (n, n),
            Shape::FanIn(n) => (1, n),
            Shape::FanOut(n) => (n, 1),
            Shape::Spread => (1, 1),
        };
        let topic = |i: usize| match plan.shape {
            Shape::Pairs(_) => format!("bench/{i}"),
            Shape::FanIn(_) | Shape::FanOut(_) | Shape::Share(_) => "bench/all".to_owned(),
            Shape::Spread => "site/+/probe/none/+".to_owned(),
        };
        let prefix = if matches!(plan.shape, Shape::Share(_)) { "$share/g/" } else { "" };
        let names: Vec<String> = (0..subscribers).map(|i| format!("s{i}")).collect();
        clients.open_with(server, &names, !plan.is_durable)?;
        let filters = (0..subscribers).map(|i| (i, vec![format!("{prefix}{}", topic(i))]));
        clients.subscribe(filters, plan.qos)?;
        let names: Vec<String> = (0..publishers).map(|i| format!("p{i}")).collect();
        let first = clients.open(server, &names)?;
        let one = |i| Publisher {
            client: first + i,
            topic: topic(i).into_bytes(),
            next: 0,
            outstanding: 0,
            unacknowledged: 0,
            is_waiting: true,
        };
        Ok(Traffic {
            plan,
            publishers: (0..publishers).map(one).collect(),
            first,
            copies: if let Shape::FanOut(n) = plan.shape { n as u32 } else { 1 },
            expected: vec![0; subscribers.max(publishers)],
            waiting: (0..publishers).collect(),
            begin: Instant::now(),
            delivered: 0,
            sent: 0,
            disordered: 0,
            latency_from: plan.warm_up.as_nanos() as u64,
            latency_ns: vec![],
        })
    }

    /// Sends and receives until `end`, counted from the beginning.
    fn flow(&mut self, clients: &mut Clients, end: Duration) -> Result<(), Failure> {
        loop {
            let now = self.begin.elapsed();
            if now >= end {
                return Ok(());
            }
            let next = match self.plan.pace {
                Pace::InFlight(window) => {
                    self.send_what_fits(clients, window);
                    end
                }
                Pace::PerSecond(rate) => self.send_what_is_due(clients, rate, now).min(end),
            };
            let timeout = next.saturating_sub(self.begin.elapsed());
            self.turn(clients, timeout)?;
        }
    }

    /// Receives what is still on its way.
    fn drain(&mut self, clients: &mut Clients) -> Result<(), Failure> {
        let (mut delivered, mut end) = (self.delivered, self.begin.elapsed() + DRAIN);
        while self.delivered < self.sent * u64::from(self.copies) {
            let left = end.saturating_sub(self.begin.elapsed());
            if left.is_zero() {
                break;
            }
            self.turn(clients, left)?;
            if self.delivered > delivered {
                (delivered, end) = (self.delivered, self.begin.elapsed() + DRAIN);
            }
        }
        Ok(())
    }

    fn send_what_fits(&mut self, clients: &mut Clients, window: u32) {
        let mut waiting = std::mem::take(&mut self.waiting);
        for index in waiting.drain(..) {
            self.publishers[index].is_waiting = false;
            loop {
                let p = &self.publishers[index];
                // A server that acknowledges late may not be flooded with handshakes either.
                if p.outstanding + self.copies > window * self.copies || p.unacknowledged >= 4 * window {
                    break;
                }
                self.send(clients, index, 0);
            }
        }
        self.waiting = waiting;
    }

    /// Sends what the schedule asks for; returns when the next message is due.
    fn send_what_is_due(&mut self, clients: &mut Clients, rate: u32, now: Duration) -> Duration {
        let due = |n: u64| Duration::from_nanos(n * 1_000_000_000 / u64::from(rate));
        while due(self.sent) <= now {
            let index = (self.sent % self.publishers.len() as u64) as usize;
            self.send(clients, index, due(self.sent).as_nanos() as u64);
        }
        due(self.sent)
    }

    fn send(&mut self, clients: &mut Clients, index: usize, scheduled: u64) {
        let p = &mut self.publishers[index];
        let mut payload = [b'x'; 4096];
        payload[..4].copy_from_slice(&(index as u32).to_be_bytes());
        payload[4..8].copy_from_slice(&p.next.to_be_bytes());
        payload[8..STAMP].copy_from_slice(&scheduled.to_be_bytes());
        let id = (p.next % 65_535 + 1) as u16;
        if self.plan.shape == Shape::Spread {
            p.topic.clear();
            // Writing to a vector cannot fail.
            let _ = write!(p.topic, "site/{}/probe/none/{}", p.next % 1000, p.next % SPREAD);
        }
        let length = self.plan.payload.clamp(STAMP, payload.len());
        packets::publish(clients.out(p.client), &p.topic, self.plan.qos, id, &payload[..length]);
        p.next += 1;
        p.outstanding += self.copies;
        p.unacknowledged += u32::from(self.plan.qos > 0);
        self.sent += 1;
    }

    fn turn(&mut self, clients: &mut Clients, timeout: Duration) -> Result<(), Failure> {
        let mut now = None;
        clients.turn(Some(timeout), |client, frame, out| self.packet(client, frame, out, &mut now))
    }

    fn packet(
        &mut self,
        client: usize,
        frame: Frame<'_>,
        out: &mut Vec<u8>,
        now: &mut Option<u64>,
    ) -> Result<(), Failure> {
        let id = packets::take_id(frame.body).unwrap_or_default();
        match frame.first {
            first if first & 0xF0 == kind::PUBLISH => return self.arrival(client, frame, out, now),
            kind::PUBREL => packets::ack(out, kind::PUBCOMP, id),
            kind::PUBREC => packets::ack(out, kind::PUBREL, id),
            kind::PUBACK | kind::PUBCOMP => {
                let index = client - self.first;
                self.publishers[index].unacknowledged -= 1;
                self.may_send(index);
            }
            _ => return Err(format!("a client got {frame:?}").into()),
        }
        Ok(())
    }

    fn arrival(
        &mut self,
        client: usize,
        frame: Frame<'_>,
        out: &mut Vec<u8>,
        now: &mut Option<u64>,
    ) -> Result<(), Failure> {
        let (_, id, payload) = packets::take_publish(frame.first, frame.body).ok_or("malformed PUBLISH")?;
        if let Some(id) = id {
            let answer = if frame.first & 0x06 == 0x02 { kind::PUBACK } else { kind::PUBREC };
            packets::ack(out, answer, id);
        }
        let stamp = payload.first_chunk::<STAMP>().ok_or("a payload that nobody sent")?;
        let [index, sequence] =
            [&stamp[..4], &stamp[4..8]].map(|b| b.iter().fold(0u32, |n, &byte| n << 8 | u32::from(byte)));
        let scheduled = stamp[8..].iter().fold(0u64, |n, &byte| n << 8 | u64::from(byte));
        let index = index as usize;
        let p = self.publishers.get_mut(index).ok_or("a payload that nobody sent")?;
        p.outstanding = p.outstanding.checked_sub(1).ok_or("more deliveries than messages")?;
        self.delivered += 1;
        let order = match self.plan.shape {
            Shape::Pairs(_) | Shape::FanIn(_) | Shape::Spread => Some(index),
            Shape::FanOut(_) => Some(client),
            // Members of a group get parts of what a publisher sends.
            Shape::Share(_) => None,
        };
        if let Some(order) = order {
            let expected = &mut self.expected[order];
            self.disordered += u64::from(*expected != sequence);
            *expected = sequence + 1;
        }
        if let Pace::PerSecond(_) = self.plan.pace {
            let now = *now.get_or_insert_with(|| self.begin.elapsed().as_nanos() as u64);
            if scheduled >= self.latency_from {
                self.latency_ns.push(now.saturating_sub(scheduled));
            }
        }
        self.may_send(index);
        Ok(())
    }

    fn may_send(&mut self, index: usize) {
        let p = &mut self.publishers[index];
        if !p.is_waiting && matches!(self.plan.pace, Pace::InFlight(_)) {
            p.is_waiting = true;
            self.waiting.push(index);
        }
    }
}

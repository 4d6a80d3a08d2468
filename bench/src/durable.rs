//! Runs with sessions that outlive their connections: publishers that are told when a message is kept, sleepers, and a
//! client that comes back for what waits.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::Failure;
use crate::clients::Clients;
use crate::cost::Process;
use crate::packets::{self, kind};

/// Bytes of a payload.
const PAYLOAD: [u8; 100] = [b'x'; 100];
/// Sleepers that are connected at a time while they are made.
const TOGETHER: usize = 1000;
/// How long a publisher may wait for its last acknowledgements.
const PATIENCE: Duration = Duration::from_secs(60);

fn names(prefix: &str, n: usize) -> Vec<String> {
    (0..n).map(|i| format!("{prefix}{i}")).collect()
}

fn topic(i: usize, is_common: bool) -> String {
    if is_common { "durable/all".to_owned() } else { format!("durable/{i}") }
}

/// Makes `n` sessions with a subscription at QoS 1, each to a topic of its own or all to one, and leaves them.
pub fn sleepers(server: SocketAddr, n: usize, is_common: bool) -> Result<(), Failure> {
    let names = names("s", n);
    for (k, part) in names.chunks(TOGETHER).enumerate() {
        let mut clients = Clients::new()?;
        clients.open_with(server, part, false)?;
        clients.subscribe((0..part.len()).map(|i| (i, vec![topic(k * TOGETHER + i, is_common)])), 1)?;
    }
    Ok(())
}

/// How publishers send.
#[derive(Clone, Copy, Debug)]
pub enum Pace {
    /// Each keeps so many messages without acknowledgement.
    Window(usize),
    /// All together so many a second, whatever becomes of them.
    PerSecond(u32),
}

/// What is published: to topics of sleepers, or all to the common one.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Publishers.
    pub publishers: usize,
    /// Topics among which they are spread; one is the common topic.
    pub topics: usize,
    /// How fast.
    pub pace: Pace,
    /// Ends after so many messages, or after the time.
    pub most: u64,
    /// Before the measurement, and its length.
    pub times: (Duration, Duration),
}

/// What came out, of the measured time.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// Messages acknowledged.
    pub acknowledged: u64,
    /// CPU time of the server, seconds.
    pub cpu_s: f64,
    /// Length, seconds.
    pub seconds: f64,
    /// From sending (open loop: from the scheduled time) to the acknowledgement, nanoseconds, ascending.
    pub latency_ns: Vec<u64>,
    /// All that were acknowledged, before and after too.
    pub all: u64,
}

struct Publisher {
    topic: Vec<u8>,
    next: u16,
    /// When those were sent, or were to be sent, that are not acknowledged.
    sent: VecDeque<Duration>,
}

/// Publishes QoS 1 and measures acknowledgements.
pub fn publish(plan: Plan, server: SocketAddr, process: Process) -> Result<Outcome, Failure> {
    let mut clients = Clients::new()?;
    clients.open(server, &names("p", plan.publishers))?;
    let mut publishers: Vec<Publisher> = (0..plan.publishers)
        .map(|i| Publisher {
            topic: topic(i % plan.topics, plan.topics == 1).into_bytes(),
            next: 0,
            sent: VecDeque::new(),
        })
        .collect();
    let (warm_up, end) = (plan.times.0, plan.times.0 + plan.times.1);
    let begin = Instant::now();
    let (mut o, mut total, mut mark) = (Outcome::default(), 0u64, None);
    loop {
        let now = begin.elapsed();
        if mark.is_none() && now >= warm_up {
            mark = Some((process.cpu_ns()?, now, o.all));
        }
        if now >= end || total >= plan.most {
            break;
        }
        let until = match plan.pace {
            Pace::Window(window) => {
                for (i, p) in publishers.iter_mut().enumerate() {
                    while p.sent.len() < window && total < plan.most {
                        send(&mut clients, i, p, begin.elapsed());
                        total += 1;
                    }
                }
                if mark.is_none() { warm_up } else { end }
            }
            Pace::PerSecond(rate) => {
                let due = |n: u64| Duration::from_nanos(n * 1_000_000_000 / u64::from(rate));
                while due(total) <= now {
                    let i = (total % plan.publishers as u64) as usize;
                    send(&mut clients, i, &mut publishers[i], due(total));
                    total += 1;
                }
                due(total).min(end)
            }
        };
        receive(
            &mut clients,
            &mut publishers,
            until.saturating_sub(begin.elapsed()),
            begin,
            warm_up,
            &mut o,
        )?;
    }
    let (cpu, at, before) = mark.unwrap_or((process.cpu_ns()?, Duration::ZERO, 0));
    o.cpu_s = (process.cpu_ns()? - cpu) as f64 / 1e9;
    o.seconds = (begin.elapsed() - at).as_secs_f64();
    o.acknowledged = o.all - before;
    let last = Instant::now();
    while o.all < total && last.elapsed() < PATIENCE {
        receive(&mut clients, &mut publishers, Duration::from_millis(100), begin, warm_up, &mut o)?;
    }
    o.latency_ns.sort_unstable();
    if o.all < total { Err(format!("{} of {total} acknowledged", o.all).into()) } else { Ok(o) }
}

fn send(clients: &mut Clients, i: usize, p: &mut Publisher, at: Duration) {
    p.next = p.next % u16::MAX + 1;
    packets::publish(clients.out(i), &p.topic, 1, p.next, &PAYLOAD);
    p.sent.push_back(at);
}

fn receive(
    clients: &mut Clients,
    publishers: &mut [Publisher],
    timeout: Duration,
    begin: Instant,
    from: Duration,
    o: &mut Outcome,
) -> Result<(), Failure> {
    let mut now = None;
    clients.turn(Some(timeout), |client, frame, _| {
        if frame.first & 0xF0 != kind::PUBACK {
            return Err(format!("a publisher got {frame:?}").into());
        }
        let sent = publishers[client].sent.pop_front().ok_or("more acknowledgements than messages")?;
        let now = *now.get_or_insert_with(|| begin.elapsed());
        o.all += 1;
        if sent >= from {
            o.latency_ns.push((now - sent).as_nanos() as u64);
        }
        Ok(())
    })
}

/// Comes back as the sleeper `s{n}` and takes `wanted` messages; seconds until the first and until the last.
pub fn wake(server: SocketAddr, n: usize, wanted: u64) -> Result<(f64, f64), Failure> {
    let begin = Instant::now();
    let mut clients = Clients::new()?;
    let (mut got, mut first) = (0, 0.0);
    let names = [format!("s{n}")];
    // What waits may come right behind the welcome.
    let mut is_in = false;
    clients.add_opening(server, &names[0])?;
    while got < wanted || !is_in {
        if begin.elapsed() > PATIENCE {
            return Err(format!("{got} of {wanted} came").into());
        }
        clients.turn(Some(Duration::from_secs(1)), |_, frame, out| {
            match (frame.first & 0xF0, frame.body) {
                (kind::CONNACK, [_, 0]) => is_in = true,
                (kind::PUBLISH, body) => {
                    let (_, id, _) = packets::take_publish(frame.first, body).ok_or("malformed PUBLISH")?;
                    packets::ack(out, kind::PUBACK, id.ok_or("QoS 0")?);
                    if got == 0 {
                        first = begin.elapsed().as_secs_f64();
                    }
                    got += 1;
                }
                _ => return Err(format!("a sleeper got {frame:?}").into()),
            }
            Ok(())
        })?;
    }
    let all = begin.elapsed().as_secs_f64();
    // The last acknowledgements leave.
    clients.turn(Some(Duration::from_millis(200)), |_, _, _| Ok(()))?;
    Ok((first, all))
}

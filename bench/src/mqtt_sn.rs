//! MQTT-SN 1.2 over UDP: clients with a socket each that publish one message at a time to an MQTT subscriber, and visits
//! of many clients that connect, sleep and wake. Whoever waits for longer than a second sends again and is counted.

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::ops::Range;
use std::time::{Duration, Instant};

use crate::Failure;
use crate::clients::Clients;
use crate::cost::Process;
use crate::packets::{self, kind as mqtt};
use crate::wait::Wait;

const CONNECT: u8 = 0x04;
const CONNACK: u8 = 0x05;
const REGISTER: u8 = 0x0A;
const REGACK: u8 = 0x0B;
const PUBLISH: u8 = 0x0C;
const PUBACK: u8 = 0x0D;
const SUBSCRIBE: u8 = 0x12;
const SUBACK: u8 = 0x13;
const PINGREQ: u8 = 0x16;
const PINGRESP: u8 = 0x17;
const DISCONNECT: u8 = 0x18;
/// QoS 1 in the flags (5.3.4).
const QOS_1: u8 = 0x20;
const CLEAN: u8 = 0x04;
/// When something is sent again.
const PATIENCE: Duration = Duration::from_secs(1);
/// Visits under way at a time.
const AT_A_TIME: usize = 64;
/// Longest that a visit may take.
const LONGEST: Duration = Duration::from_secs(60);
/// For the server to settle before its memory is read.
const REST: Duration = Duration::from_secs(2);
/// Messages of the publisher to sleepers that are not acknowledged.
const IN_FLIGHT: usize = 500;

/// A message of less than 256 octets (5.2.1).
fn message(kind: u8, fields: &[&[u8]]) -> Vec<u8> {
    let mut out = vec![0, kind];
    fields.iter().for_each(|field| out.extend_from_slice(field));
    out[0] = out.len() as u8;
    out
}

fn connect(name: &str, is_clean: bool) -> Vec<u8> {
    // No keep alive: nothing but what is measured is sent.
    message(CONNECT, &[&[if is_clean { CLEAN } else { 0 }, 1, 0, 0], name.as_bytes()])
}

fn name(index: usize) -> String {
    format!("sensor-{index:06}")
}

/// An address of its own for each of a million clients.
fn address(index: usize) -> SocketAddr {
    let (host, port) = (index / 20_000, index % 20_000);
    (IpAddr::V4(Ipv4Addr::new(127, 8, 0, host as u8 + 1)), port as u16 + 10_000).into()
}

/// What a run of publishing is.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Clients that publish.
    pub clients: usize,
    /// QoS of what they publish, 0 or 1.
    pub qos: u8,
    /// QoS that the subscriber gets it with.
    pub subscriber_qos: u8,
    /// Bytes of a payload; the first four are the client's number.
    pub payload: usize,
    /// Time that is not measured.
    pub warm_up: Duration,
    /// Time that is measured.
    pub measured: Duration,
}

/// What came of it in the measured time.
#[derive(Clone, Copy, Debug, Default)]
pub struct Outcome {
    /// Messages that have reached the subscriber.
    pub delivered: u64,
    /// Publications acknowledged, with QoS 1.
    pub acknowledged: u64,
    /// Sent again.
    pub repeated: u64,
    /// Seconds measured.
    pub seconds: f64,
    /// CPU time of the server.
    pub cpu_s: f64,
}

struct Publisher {
    socket: UdpSocket,
    publish: Vec<u8>,
    id: u16,
    sent: Instant,
    /// Of the last message: whether its PUBACK and whether the message itself is awaited.
    awaits: (bool, bool),
}

/// Asks and waits for an answer of this kind.
fn ask(socket: &UdpSocket, request: &[u8], kind: u8) -> Result<Vec<u8>, Failure> {
    let mut answer = [0; 300];
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.send(request)?;
    let n = socket.recv(&mut answer)?;
    if answer[1] != kind {
        return Err(format!("instead of {kind:#04x} came {:x?}", &answer[..n]).into());
    }
    Ok(answer[..n].to_vec())
}

impl Publisher {
    fn new(server: SocketAddr, index: usize, plan: &Plan) -> Result<Publisher, Failure> {
        let socket = UdpSocket::bind("127.0.0.1:0")?;
        socket.connect(server)?;
        if ask(&socket, &connect(&name(index), true), CONNACK)?[2] != 0 {
            return Err("a connection was refused".into());
        }
        let topic = format!("bench/{index}");
        let granted = ask(&socket, &message(REGISTER, &[&[0, 0, 0, 1], topic.as_bytes()]), REGACK)?;
        let mut payload = vec![b'x'; plan.payload];
        payload[..4].copy_from_slice(&(index as u32).to_be_bytes());
        let publish = message(PUBLISH, &[&[plan.qos << 5], &granted[2..4], &[0, 0], &payload]);
        socket.set_nonblocking(true)?;
        Ok(Publisher { socket, publish, id: 0, sent: Instant::now(), awaits: (false, false) })
    }

    fn send(&mut self, now: Instant, qos: u8) -> Result<(), Failure> {
        if qos > 0 {
            self.id = self.id % u16::MAX + 1;
            self.publish[5..7].copy_from_slice(&self.id.to_be_bytes());
            self.publish[2] &= 0x7F;
        }
        // Over QoS 0 nothing but the message itself says that the next may go.
        self.awaits = (qos > 0, qos == 0);
        self.repeat(now)
    }

    fn repeat(&mut self, now: Instant) -> Result<(), Failure> {
        self.sent = now;
        match self.socket.send(&self.publish) {
            Err(e) if e.kind() != ErrorKind::WouldBlock => Err(e.into()),
            _ => Ok(()),
        }
    }
}

struct Run {
    plan: Plan,
    publishers: Vec<Publisher>,
    subscriber: Clients,
    wait: Wait,
    total: Outcome,
}

/// Makes one run against a server whose MQTT listens on the TCP port of the same number.
pub fn publish(plan: Plan, server: SocketAddr, process: Process) -> Result<Outcome, Failure> {
    let mut subscriber = Clients::new()?;
    subscriber.open(server, &["subscriber".to_owned()])?;
    subscriber.subscribe([(0, vec!["bench/#".to_owned()])], plan.subscriber_qos)?;
    let publishers =
        (0..plan.clients).map(|i| Publisher::new(server, i, &plan)).collect::<Result<Vec<_>, _>>()?;
    let wait = Wait::new()?;
    for (key, publisher) in publishers.iter().enumerate() {
        wait.add(&publisher.socket, key as u64)?;
    }
    let mut run = Run { plan, publishers, subscriber, wait, total: Outcome::default() };
    let begin = Instant::now();
    for publisher in &mut run.publishers {
        publisher.send(begin, plan.qos)?;
    }
    run.flow(plan.warm_up)?;
    let (before, cpu, from) = (run.total, process.cpu_ns()?, Instant::now());
    run.flow(plan.measured)?;
    Ok(Outcome {
        delivered: run.total.delivered - before.delivered,
        acknowledged: run.total.acknowledged - before.acknowledged,
        repeated: run.total.repeated - before.repeated,
        seconds: from.elapsed().as_secs_f64(),
        cpu_s: (process.cpu_ns()? - cpu) as f64 / 1e9,
    })
}

impl Run {
    fn flow(&mut self, time: Duration) -> Result<(), Failure> {
        let (begin, mut looked, mut ready) = (Instant::now(), Instant::now(), vec![]);
        loop {
            // The subscriber has an epoll of its own: neither waits for long while the other has something.
            self.wait.wait(Some(Duration::from_micros(50)), &mut ready)?;
            let now = Instant::now();
            for key in ready.drain(..) {
                self.acknowledged(now, key as usize)?;
            }
            self.delivered(now)?;
            if now - looked > PATIENCE / 4 {
                looked = now;
                for publisher in self.publishers.iter_mut().filter(|p| now - p.sent > PATIENCE) {
                    self.total.repeated += 1;
                    if publisher.awaits.0 {
                        publisher.publish[2] |= 0x80;
                    }
                    publisher.repeat(now)?;
                }
            }
            if now - begin >= time {
                return Ok(());
            }
        }
    }

    fn acknowledged(&mut self, now: Instant, key: usize) -> Result<(), Failure> {
        let (publisher, mut answer) = (&mut self.publishers[key], [0; 300]);
        loop {
            match publisher.socket.recv(&mut answer) {
                Ok(7) if answer[1] == PUBACK && answer[6] == 0 => {}
                Ok(n) => return Err(format!("instead of PUBACK came {:x?}", &answer[..n]).into()),
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(e) => return Err(e.into()),
            }
            if answer[4..6] == publisher.id.to_be_bytes() && publisher.awaits.0 {
                self.total.acknowledged += 1;
                publisher.send(now, self.plan.qos)?;
            }
        }
    }

    fn delivered(&mut self, now: Instant) -> Result<(), Failure> {
        let (publishers, total, qos) = (&mut self.publishers, &mut self.total, self.plan.qos);
        self.subscriber.turn(Some(Duration::ZERO), |_, frame, out| {
            if frame.first & 0xF0 != mqtt::PUBLISH {
                return Ok(());
            }
            let (_, id, payload) = packets::take_publish(frame.first, frame.body).ok_or("no PUBLISH")?;
            if let Some(id) = id {
                packets::ack(out, mqtt::PUBACK, id);
            }
            total.delivered += 1;
            let index = payload.first_chunk::<4>().map(|bytes| u32::from_be_bytes(*bytes) as usize);
            let publisher = publishers.get_mut(index.unwrap_or(usize::MAX)).ok_or("somebody's message")?;
            if publisher.awaits.1 { publisher.send(now, qos) } else { Ok(()) }
        })
    }
}

/// What a client comes for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Visit {
    /// To connect and subscribe a topic of its own, without CleanSession.
    Connect,
    /// The same, and to sleep for hours.
    FallAsleep,
    /// PINGREQ until PINGRESP.
    Wake,
}

/// What so many visits cost.
#[derive(Clone, Debug, Default)]
pub struct Visits {
    /// From a client's first message until it is done, in seconds, sorted.
    pub took: Vec<f64>,
    /// Messages that they got.
    pub messages: u64,
    /// Sent again.
    pub repeated: u64,
    /// Seconds for all.
    pub seconds: f64,
    /// CPU time of the server.
    pub cpu_s: f64,
}

struct Visitor {
    socket: UdpSocket,
    index: usize,
    visit: Visit,
    begin: Instant,
    sent: Instant,
    last: Vec<u8>,
}

impl Visitor {
    fn begin(server: SocketAddr, index: usize, visit: Visit, now: Instant) -> Result<Visitor, Failure> {
        let socket = UdpSocket::bind(address(index))?;
        socket.connect(server)?;
        socket.set_nonblocking(true)?;
        let name = name(index);
        let first = match visit {
            Visit::Wake => message(PINGREQ, &[name.as_bytes()]),
            Visit::Connect | Visit::FallAsleep => connect(&name, false),
        };
        socket.send(&first)?;
        Ok(Visitor { socket, index, visit, begin: now, sent: now, last: first })
    }

    fn say(&mut self, now: Instant, next: Vec<u8>) -> Result<(), Failure> {
        self.socket.send(&next)?;
        (self.last, self.sent) = (next, now);
        Ok(())
    }

    /// Takes what came; whether the visit is over.
    fn go_on(&mut self, now: Instant, messages: &mut u64) -> Result<bool, Failure> {
        let mut came = [0; 300];
        loop {
            let n = match self.socket.recv(&mut came) {
                Ok(n) => n,
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(e) => return Err(e.into()),
            };
            match (came[1], self.visit) {
                (CONNACK, _) if came[2] == 0 => {
                    let topic = format!("sleep/{}", self.index);
                    self.say(now, message(SUBSCRIBE, &[&[QOS_1, 0, 1], topic.as_bytes()]))?;
                }
                (SUBACK, Visit::Connect) if came[7] == 0 => return Ok(true),
                // Seconds of the sleep: 18 hours.
                (SUBACK, Visit::FallAsleep) if came[7] == 0 => {
                    self.say(now, message(DISCONNECT, &[&u16::MAX.to_be_bytes()]))?;
                }
                (DISCONNECT, Visit::FallAsleep) | (PINGRESP, Visit::Wake) => return Ok(true),
                (PUBLISH, Visit::Wake) => {
                    *messages += 1;
                    self.say(now, message(PUBACK, &[&came[3..7], &[0]]))?;
                }
                _ => return Err(format!("{:?}: came {:x?}", self.visit, &came[..n]).into()),
            }
        }
    }
}

/// Clients come, at most `rate` a second, and are gone when they are done.
pub fn visits(
    server: SocketAddr,
    process: Process,
    range: Range<usize>,
    visit: Visit,
    rate: f64,
) -> Result<Visits, Failure> {
    let (count, mut left) = (range.len(), range);
    let (mut wait, mut ready, mut under_way) = (Wait::new()?, vec![], vec![]);
    under_way.resize_with(AT_A_TIME.max((rate / 10.0).min(2_000.0) as usize), || None::<Visitor>);
    let mut free: Vec<usize> = (0..under_way.len()).collect();
    let (begin, cpu, mut of) = (Instant::now(), process.cpu_ns()?, Visits::default());
    let (mut begun, mut looked) = (0, begin);
    while of.took.len() < count {
        let now = Instant::now();
        while begun < count && begun as f64 <= (now - begin).as_secs_f64() * rate {
            let Some(key) = free.pop() else { break };
            let Some(index) = left.next() else { break };
            let visitor = Visitor::begin(server, index, visit, now)?;
            wait.add(&visitor.socket, key as u64)?;
            under_way[key] = Some(visitor);
            begun += 1;
        }
        wait.wait(Some(Duration::from_micros(500)), &mut ready)?;
        let now = Instant::now();
        for key in ready.drain(..).map(|key| key as usize) {
            let Some(visitor) = &mut under_way[key] else { continue };
            if visitor.go_on(now, &mut of.messages)? {
                of.took.push((now - visitor.begin).as_secs_f64());
                under_way[key] = None;
                free.push(key);
            }
        }
        if now - looked > PATIENCE / 4 {
            looked = now;
            for visitor in under_way.iter_mut().flatten().filter(|v| now - v.sent > PATIENCE) {
                if now - visitor.begin > LONGEST {
                    return Err(format!("{visit:?} of {} takes too long", visitor.index).into());
                }
                of.repeated += 1;
                visitor.say(now, visitor.last.clone())?;
            }
        }
    }
    of.seconds = begin.elapsed().as_secs_f64();
    of.cpu_s = (process.cpu_ns()? - cpu) as f64 / 1e9;
    of.took.sort_by(f64::total_cmp);
    Ok(of)
}

/// Resident bytes of each of so many clients.
pub fn memory(server: SocketAddr, process: Process, count: usize, visit: Visit) -> Result<f64, Failure> {
    visits(server, process, 0..1_000, visit, f64::INFINITY)?;
    std::thread::sleep(REST);
    let before = process.resident()?;
    visits(server, process, 1_000..1_000 + count, visit, f64::INFINITY)?;
    std::thread::sleep(REST);
    Ok(process.resident()?.saturating_sub(before) as f64 / count as f64)
}

/// What came of many sleepers.
#[derive(Clone, Debug)]
pub struct Asleep {
    /// Resident bytes of each sleeper.
    pub bytes_each: f64,
    /// Resident bytes of each message that waits.
    pub bytes_a_message: f64,
    /// Seconds to publish all.
    pub published_s: f64,
    /// CPU time of the server for them.
    pub published_cpu_s: f64,
    /// The waking.
    pub woken: Visits,
}

/// `count` clients fall asleep, an MQTT client publishes `each` messages of QoS 1 to each of them, and they are woken, so many
/// in a second.
pub fn sleepers(
    server: SocketAddr,
    process: Process,
    count: usize,
    each: usize,
    rate: f64,
) -> Result<Asleep, Failure> {
    let bytes_each = memory(server, process, count, Visit::FallAsleep)?;
    let (before, cpu, begin) = (process.resident()?, process.cpu_ns()?, Instant::now());
    let range = 1_000..1_000 + count;
    fill(server, range.clone(), each)?;
    let published_s = begin.elapsed().as_secs_f64();
    let published_cpu_s = (process.cpu_ns()? - cpu) as f64 / 1e9;
    std::thread::sleep(REST);
    let bytes_a_message = process.resident()?.saturating_sub(before) as f64 / (count * each) as f64;
    let woken = visits(server, process, range, Visit::Wake, rate)?;
    Ok(Asleep { bytes_each, bytes_a_message, published_s, published_cpu_s, woken })
}

fn fill(server: SocketAddr, range: Range<usize>, each: usize) -> Result<(), Failure> {
    let mut publisher = Clients::new()?;
    publisher.open(server, &["publisher".to_owned()])?;
    let (total, mut sent, mut done) = (range.len() * each, 0, 0);
    while done < total {
        while sent < total && sent - done < IN_FLIGHT {
            let topic = format!("sleep/{}", range.start + sent % range.len());
            sent += 1;
            let id = (sent % 65_535 + 1) as u16;
            packets::publish(publisher.out(0), topic.as_bytes(), 1, id, &[b'x'; 32]);
        }
        let before = done;
        publisher.turn(Some(PATIENCE * 20), |_, frame, _| {
            done += usize::from(frame.first == mqtt::PUBACK);
            Ok(())
        })?;
        if done == before {
            return Err("the server acknowledges nothing any more".into());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_what_the_specification_shows() {
        assert_eq!(connect("ab", true), b"\x08\x04\x04\x01\0\0ab");
        assert_eq!(message(PUBACK, &[&[0, 1, 0, 2], &[0]]), b"\x07\x0D\0\x01\0\x02\0");
    }

    #[test]
    fn no_two_clients_have_one_address() {
        let all: std::collections::HashSet<_> = (0..101_000).map(address).collect();
        assert_eq!(all.len(), 101_000);
    }

    /// A gateway that has two messages for each sleeper, and does not hear every fifth datagram.
    fn serve(socket: &UdpSocket) {
        let (mut buffer, mut count, mut given) = ([0; 300], 0, std::collections::HashMap::new());
        while let Ok((n, from)) = socket.recv_from(&mut buffer) {
            count += 1;
            if count % 5 == 0 {
                continue;
            }
            let came = &buffer[..n];
            let answer = match came[1] {
                CONNECT => message(CONNACK, &[&[0]]),
                SUBSCRIBE => message(SUBACK, &[&[QOS_1, 0, 1], &came[3..5], &[0]]),
                DISCONNECT => message(DISCONNECT, &[]),
                PINGREQ | PUBACK => {
                    let given = given.entry(from).or_insert(0u8);
                    *given += 1;
                    let id = [0, *given];
                    if *given > 2 {
                        message(PINGRESP, &[])
                    } else {
                        message(PUBLISH, &[&[QOS_1, 0, 1], &id, b"x"])
                    }
                }
                other => panic!("{other}"),
            };
            socket.send_to(&answer, from).unwrap();
        }
    }

    #[test]
    fn clients_fall_asleep_and_are_woken_whatever_is_lost() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let (server, me) = (socket.local_addr().unwrap(), Process(std::process::id()));
        std::thread::spawn(move || serve(&socket));
        let asleep = visits(server, me, 0..40, Visit::FallAsleep, f64::INFINITY).unwrap();
        assert_eq!((asleep.took.len(), asleep.messages), (40, 0));
        assert!(asleep.repeated > 0);
        // More than have room at a time.
        let asleep = visits(server, me, 40..240, Visit::FallAsleep, 640.0).unwrap();
        assert_eq!(asleep.took.len(), 200);
        let woken = visits(server, me, 0..40, Visit::Wake, 1_000.0).unwrap();
        assert_eq!(woken.took.len(), 40);
        assert!(woken.messages >= 40 && woken.took[0] > 0.0, "{woken:?}");
    }
}

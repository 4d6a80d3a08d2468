//! CoAP over UDP (RFC 7252) from many clients with a socket each, one request in flight each (NSTART = 1), closed loop.
//! Answers are told apart by token; one that does not come within a second is asked for again and counted.

use std::io::ErrorKind;
use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use crate::Failure;
use crate::clients::Clients;
use crate::cost::Process;
use crate::dtls::{Clock, open};
use crate::packets::kind;
use crate::wait::Wait;

/// What the clients ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// PUT of the payload.
    Put,
    /// GET of a value that was put before.
    Get,
}

/// Who gets what is put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Audience {
    /// Nobody.
    None,
    /// One more client for each, which observes its topic without confirming.
    Observers,
    /// An MQTT client that subscribes all topics with QoS 0, at a server that listens on the same TCP port.
    Mqtt,
}

/// What a run is.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Clients that send requests.
    pub clients: usize,
    /// What they ask for.
    pub method: Method,
    /// Whether requests are Confirmable.
    pub is_confirmable: bool,
    /// Whether each client speaks DTLS, as device of its number.
    pub is_secure: bool,
    /// Who gets what is put.
    pub audience: Audience,
    /// Bytes of a payload.
    pub payload: usize,
    /// Time that is not measured.
    pub warm_up: Duration,
    /// Time that is measured.
    pub measured: Duration,
}

/// What came of it; times and counts are those of the measured time.
#[derive(Clone, Copy, Debug)]
pub struct Outcome {
    /// Requests answered.
    pub answered: u64,
    /// Of these, with an error.
    pub refused: u64,
    /// Requests sent again.
    pub repeated: u64,
    /// What the audience got.
    pub notified: u64,
    /// Seconds measured.
    pub seconds: f64,
    /// CPU time of the server.
    pub cpu_s: f64,
}

const CON: u8 = 0;
const NON: u8 = 1;
const ACK: u8 = 2;
const GET: u8 = 1;
const PUT: u8 = 3;
const OBSERVE: u16 = 6;
const URI_PATH: u16 = 11;
const URI_QUERY: u16 = 15;
/// Bytes of the head and of the tokens used here: client and sequence number.
const HEAD: usize = 8;
/// When a request is sent again.
const PATIENCE: Duration = Duration::from_secs(1);
/// Keys of the observers' sockets begin here.
const OBSERVERS: usize = 1 << 32;

struct Client {
    socket: UdpSocket,
    secure: Option<(::dtls::Client, Clock)>,
    request: Vec<u8>,
    sequence: u16,
    sent: Instant,
}

/// A message with the options, in the order of their numbers, of an empty token of four bytes.
fn message(kind: u8, code: u8, options: &[(u16, &[u8])], payload: &[u8]) -> Vec<u8> {
    let mut out = vec![1 << 6 | kind << 4 | 4, code, 0, 0, 0, 0, 0, 0];
    let mut last = 0;
    for (number, value) in options {
        // No option here is longer than 12 bytes, nor so far from the one before.
        out.push(((number - last) as u8) << 4 | value.len() as u8);
        out.extend_from_slice(value);
        last = *number;
    }
    if !payload.is_empty() {
        out.push(0xFF);
        out.extend_from_slice(payload);
    }
    out
}

impl Client {
    fn new(server: SocketAddr, index: usize, plan: &Plan) -> Result<Client, Failure> {
        let socket = UdpSocket::bind("127.0.0.1:0")?;
        socket.connect(server)?;
        let clock = Clock::start();
        let secure = if plan.is_secure { Some((open(&socket, index, clock)?, clock)) } else { None };
        let (name, kind) = (index.to_string(), if plan.is_confirmable { CON } else { NON });
        let path: [(u16, &[u8]); 3] = [(URI_PATH, b"ps"), (URI_PATH, b"bench"), (URI_PATH, name.as_bytes())];
        if plan.method == Method::Get || plan.audience == Audience::Observers {
            let options = [&path[..], &[(URI_QUERY, b"retain=1")]].concat();
            let mut put = message(CON, PUT, &options, &vec![b'x'; plan.payload]);
            put[2..6].copy_from_slice(&(index as u32).to_be_bytes());
            socket.set_read_timeout(Some(PATIENCE))?;
            socket.send(&put)?;
            let mut answer = [0; 1500];
            let n = socket.recv(&mut answer)?;
            if answer[..n].get(1).is_none_or(|code| code >> 5 == 4) {
                return Err("the value to read was refused".into());
            }
        }
        socket.set_nonblocking(true)?;
        let request = match plan.method {
            Method::Put => message(kind, PUT, &path, &vec![b'x'; plan.payload]),
            Method::Get => message(kind, GET, &path, &[]),
        };
        let mut client = Client { socket, secure, request, sequence: index as u16, sent: Instant::now() };
        client.request[4..6].copy_from_slice(&(index as u16).to_be_bytes());
        Ok(client)
    }

    /// The next request.
    fn send(&mut self, now: Instant) -> Result<(), Failure> {
        self.sequence = self.sequence.wrapping_add(1);
        let sequence = self.sequence.to_be_bytes();
        self.request[2..4].copy_from_slice(&sequence);
        self.request[6..8].copy_from_slice(&sequence);
        self.repeat(now)
    }

    /// The last request, again.
    fn repeat(&mut self, now: Instant) -> Result<(), Failure> {
        self.sent = now;
        let sent = match &mut self.secure {
            Some((secure, clock)) => self.socket.send(&secure.seal(clock.now(), &self.request)?),
            None => self.socket.send(&self.request),
        };
        match sent {
            Ok(_) => Ok(()),
            // It will be sent again.
            Err(e) if e.kind() == ErrorKind::WouldBlock => Ok(()),
            Err(e) => Err(e.into()),
        }
    }

    /// Takes what came; the class of the answer to the last request, if it is that.
    fn receive(&mut self, buffer: &mut [u8]) -> Result<Option<u8>, Failure> {
        let n = match self.socket.recv(buffer) {
            Ok(n) => n,
            Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(None),
            Err(e) => return Err(e.into()),
        };
        let (mut came, mut payloads) = (&buffer[..n], vec![]);
        if let Some((secure, clock)) = &mut self.secure {
            secure.receive(clock.now(), came, &mut vec![], &mut payloads)?;
            came = payloads.first().map_or(&[], |p| p);
        }
        // An empty acknowledgement: the answer follows.
        if came.len() < HEAD || came[4..8] != self.request[4..8] {
            return Ok(None);
        }
        // A bare echo is a Confirmable message too, but no response.
        if came[0] >> 4 & 3 == CON && came[1] >> 5 != 0 {
            let answer = acknowledgement(came);
            match &mut self.secure {
                Some((secure, clock)) => self.socket.send(&secure.seal(clock.now(), &answer)?)?,
                None => self.socket.send(&answer)?,
            };
        }
        Ok(Some(came[1] >> 5))
    }
}

fn acknowledgement(message: &[u8]) -> [u8; 4] {
    [1 << 6 | ACK << 4, 0, message[2], message[3]]
}

fn observe(server: SocketAddr, index: usize) -> Result<UdpSocket, Failure> {
    let name = index.to_string();
    let socket = UdpSocket::bind("127.0.0.1:0")?;
    socket.connect(server)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    let options: [(u16, &[u8]); 5] = [
        (OBSERVE, b""),
        (URI_PATH, b"ps"),
        (URI_PATH, b"bench"),
        (URI_PATH, name.as_bytes()),
        (URI_QUERY, b"qos=0"),
    ];
    socket.send(&message(CON, GET, &options, &[]))?;
    let mut answer = [0; 1500];
    socket.recv(&mut answer)?;
    if answer[1] >> 5 != 2 {
        return Err("the observation was refused".into());
    }
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// The MQTT subscriber.
fn subscribe(server: SocketAddr) -> Result<Clients, Failure> {
    let mut clients = Clients::new()?;
    clients.open(server, &["subscriber".to_owned()])?;
    clients.subscribe([(0, vec!["bench/#".to_owned()])], 0)?;
    Ok(clients)
}

struct Run {
    clients: Vec<Client>,
    observers: Vec<UdpSocket>,
    subscriber: Option<Clients>,
    wait: Wait,
    total: Outcome,
}

/// Makes one run.
pub fn run(plan: Plan, server: SocketAddr, process: Process) -> Result<Outcome, Failure> {
    let clients = (0..plan.clients).map(|i| Client::new(server, i, &plan)).collect::<Result<Vec<_>, _>>()?;
    let observed = if plan.audience == Audience::Observers { plan.clients } else { 0 };
    let observers = (0..observed).map(|i| observe(server, i)).collect::<Result<Vec<_>, _>>()?;
    let subscriber = if plan.audience == Audience::Mqtt { Some(subscribe(server)?) } else { None };
    let wait = Wait::new()?;
    for (key, client) in clients.iter().enumerate() {
        wait.add(&client.socket, key as u64)?;
    }
    for (key, socket) in observers.iter().enumerate() {
        wait.add(socket, (OBSERVERS + key) as u64)?;
    }
    let total = Outcome { answered: 0, refused: 0, repeated: 0, notified: 0, seconds: 0.0, cpu_s: 0.0 };
    let mut run = Run { clients, observers, subscriber, wait, total };
    let begin = Instant::now();
    for client in &mut run.clients {
        client.send(begin)?;
    }
    run.flow(plan.warm_up)?;
    let (before, cpu, from) = (run.total, process.cpu_ns()?, Instant::now());
    run.flow(plan.measured)?;
    Ok(Outcome {
        answered: run.total.answered - before.answered,
        refused: run.total.refused - before.refused,
        repeated: run.total.repeated - before.repeated,
        notified: run.total.notified - before.notified,
        seconds: from.elapsed().as_secs_f64(),
        cpu_s: (process.cpu_ns()? - cpu) as f64 / 1e9,
    })
}

impl Run {
    fn flow(&mut self, time: Duration) -> Result<(), Failure> {
        let (begin, mut looked) = (Instant::now(), Instant::now());
        let (mut ready, mut buffer) = (vec![], [0; 1500]);
        loop {
            self.wait.wait(Some(Duration::from_millis(100)), &mut ready)?;
            let now = Instant::now();
            for &key in &ready {
                self.ready(now, key as usize, &mut buffer)?;
            }
            if let Some(subscriber) = &mut self.subscriber {
                let notified = &mut self.total.notified;
                subscriber.turn(Some(Duration::ZERO), |_, frame, _| {
                    *notified += u64::from(frame.first & 0xF0 == kind::PUBLISH);
                    Ok(())
                })?;
            }
            if now - looked > PATIENCE / 4 {
                looked = now;
                for client in self.clients.iter_mut().filter(|c| now - c.sent > PATIENCE) {
                    self.total.repeated += 1;
                    client.repeat(now)?;
                }
            }
            if now - begin >= time {
                return Ok(());
            }
        }
    }

    fn ready(&mut self, now: Instant, key: usize, buffer: &mut [u8]) -> Result<(), Failure> {
        if let Some(observer) = key.checked_sub(OBSERVERS) {
            self.total.notified += notifications(&self.observers[observer], buffer)?;
        } else if let Some(class) = self.clients[key].receive(buffer)? {
            self.total.answered += 1;
            self.total.refused += u64::from(class > 2);
            self.clients[key].send(now)?;
        }
        Ok(())
    }
}

/// Counts what an observer got, and acknowledges what it must.
fn notifications(socket: &UdpSocket, buffer: &mut [u8]) -> Result<u64, Failure> {
    let mut count = 0;
    loop {
        let n = match socket.recv(buffer) {
            Ok(n) => n,
            Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(count),
            Err(e) => return Err(e.into()),
        };
        count += 1;
        if n >= 4 && buffer[0] >> 4 & 3 == CON {
            socket.send(&acknowledgement(&buffer[..n]))?;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A server that answers each request with 2.04 in its acknowledgement.
    fn serve(socket: &UdpSocket, count: usize) {
        let mut buffer = [0; 1500];
        for _ in 0..count {
            let (_, from) = socket.recv_from(&mut buffer).unwrap();
            buffer[0] = 1 << 6 | ACK << 4 | 4;
            buffer[1] = 2 << 5 | 4;
            socket.send_to(&buffer[..HEAD], from).unwrap();
        }
    }

    const PLAN: Plan = Plan {
        clients: 3,
        method: Method::Put,
        is_confirmable: true,
        is_secure: false,
        audience: Audience::None,
        payload: 20,
        warm_up: Duration::ZERO,
        measured: Duration::from_millis(200),
    };

    #[test]
    fn a_request_is_what_the_rfc_says() {
        let options: [(u16, &[u8]); 2] = [(URI_PATH, b"ps"), (URI_QUERY, b"r=1")];
        let bytes = message(CON, PUT, &options, b"hi");
        assert_eq!(bytes, b"\x44\x03\0\0\0\0\0\0\xB2ps\x43r=1\xFFhi");
    }

    #[test]
    fn every_answer_counts_once_and_brings_the_next_request() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        std::thread::spawn(move || serve(&socket, usize::MAX));
        let outcome = run(PLAN, address, Process(std::process::id())).unwrap();
        assert!(outcome.answered > 30, "{outcome:?}");
        assert_eq!(outcome.refused, 0);
    }

    #[test]
    fn what_is_not_answered_is_sent_again() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let plan = Plan { clients: 1, measured: PATIENCE * 2, ..PLAN };
        let outcome = run(plan, socket.local_addr().unwrap(), Process(std::process::id())).unwrap();
        assert_eq!((outcome.answered, outcome.repeated), (0, 1));
        let mut buffer = [[0; 1500]; 2];
        let [first, second] = buffer.each_mut().map(|b| socket.recv(b).unwrap());
        assert_eq!(buffer[0][..first], buffer[1][..second]);
    }
}

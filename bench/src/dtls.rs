//! Devices that speak DTLS with a pre-shared key (TLS_PSK_WITH_AES_128_CCM_8) and a connection id: what a handshake costs the
//! server, and what an association takes of its memory.

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use ::dtls::{Client, ClientSettings, Endpoint, Event, Found, Key, Keys, Settings, Suite};
use gateway::Now;

use crate::Failure;
use crate::cost::Process;
use crate::wait::Wait;

/// TLS_PSK_WITH_AES_128_CCM_8 (RFC 6655), the suite of constrained devices.
const SUITE: Suite = Suite(0xC0A8);
/// Handshakes at a time.
const AT_A_TIME: usize = 32;
/// As many in a second as can be.
pub const UNLIMITED: usize = 1_000_000_000;
/// Longest wait for a handshake.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long a server may take to come to rest.
const REST: Duration = Duration::from_secs(4);

/// The key of device `index`, sixteen digits; `coap.py` makes the same.
fn key(index: usize) -> String {
    format!("{index:016}")
}

/// The clock as the engine wants it.
#[derive(Clone, Copy, Debug)]
pub struct Clock(Instant);

impl Clock {
    /// From now on.
    pub fn start() -> Clock {
        Clock(Instant::now())
    }

    /// This moment.
    pub fn now(self) -> Now {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let micros = self.0.elapsed().as_micros() as u64 + 1_000_000;
        Now { instant: gateway::Instant::from_micros(micros), wall_ms: wall.as_millis() as u64 }
    }
}

/// A client of device `index`, which has not said anything.
pub fn client(index: usize) -> Result<Client, Failure> {
    let identity = format!("dev{index}");
    let psk = ClientSettings::psk(identity.as_bytes(), key(index).as_bytes());
    Ok(Client::new(&ClientSettings { suites: vec![SUITE], ..psk })?)
}

/// A loopback address of device `index` that no other device has.
fn address(index: usize) -> SocketAddr {
    let (host, port) = (index / 20_000, index % 20_000);
    (IpAddr::V4(Ipv4Addr::new(127, 9, 0, host as u8 + 1)), port as u16 + 10_000).into()
}

/// Shakes hands over a connected socket and waits for it.
pub fn open(socket: &UdpSocket, index: usize, clock: Clock) -> Result<Client, Failure> {
    socket.set_read_timeout(Some(Duration::from_secs(2)))?;
    let (mut client, mut buffer, mut out) = (client(index)?, [0; 1500], vec![]);
    client.timeout(clock.now(), &mut out)?;
    let begin = Instant::now();
    loop {
        out.drain(..).try_for_each(|datagram| socket.send(&datagram).map(drop))?;
        if client.is_open() {
            return Ok(client);
        }
        match socket.recv(&mut buffer) {
            Ok(n) => client.receive(clock.now(), &buffer[..n], &mut out, &mut vec![])?,
            Err(e) if begin.elapsed() > PATIENCE => return Err(e.into()),
            Err(_) => client.timeout(clock.now(), &mut out)?,
        }
    }
}

/// What many handshakes cost.
#[derive(Clone, Copy, Debug)]
pub struct Handshakes {
    /// How many there were.
    pub count: usize,
    /// Seconds that they took.
    pub seconds: f64,
    /// CPU time of the server.
    pub cpu_s: f64,
}

struct Handshake {
    socket: UdpSocket,
    client: Client,
    begin: Instant,
}

impl Handshake {
    fn begin(server: SocketAddr, index: usize, clock: Clock) -> Result<Handshake, Failure> {
        let socket = UdpSocket::bind(address(index))?;
        socket.connect(server)?;
        socket.set_nonblocking(true)?;
        let mut handshake = Handshake { socket, client: client(index)?, begin: Instant::now() };
        let mut out = vec![];
        handshake.client.timeout(clock.now(), &mut out)?;
        handshake.send(out)?;
        Ok(handshake)
    }

    fn send(&self, out: Vec<Vec<u8>>) -> Result<(), Failure> {
        out.iter().try_for_each(|datagram| self.socket.send(datagram).map(drop))?;
        Ok(())
    }

    /// Takes what came, or repeats what was not answered in time.
    fn go_on(&mut self, clock: Clock) -> Result<(), Failure> {
        let (mut buffer, mut out) = ([0; 1500], vec![]);
        loop {
            match self.socket.recv(&mut buffer) {
                Ok(n) => self.client.receive(clock.now(), &buffer[..n], &mut out, &mut vec![])?,
                Err(e) if e.kind() == ErrorKind::WouldBlock => break,
                Err(e) => return Err(e.into()),
            }
        }
        if self.client.next_timeout().is_some_and(|at| at <= clock.now().instant) {
            self.client.timeout(clock.now(), &mut out)?;
        }
        if self.begin.elapsed() > PATIENCE {
            return Err("a handshake takes too long".into());
        }
        self.send(out)
    }
}

/// Devices `range` shake hands, some at a time and at most `rate` in a second, and are heard no more.
pub fn handshakes(
    server: SocketAddr,
    process: Process,
    range: Range<usize>,
    rate: usize,
) -> Result<Handshakes, Failure> {
    let (clock, begin, cpu) = (Clock::start(), Instant::now(), process.cpu_ns()?);
    let (count, mut left) = (range.len(), range);
    let (mut wait, mut ready) = (Wait::new()?, vec![]);
    let mut under_way: Vec<Option<Handshake>> = vec![];
    let mut begin_next = |key: usize, wait: &Wait| -> Result<Option<Handshake>, Failure> {
        let Some(index) = left.next() else { return Ok(None) };
        let handshake = Handshake::begin(server, index, clock)?;
        wait.add(&handshake.socket, key as u64)?;
        Ok(Some(handshake))
    };
    for key in 0..AT_A_TIME {
        under_way.push(begin_next(key, &wait)?);
    }
    let mut done = 0;
    while under_way.iter().any(Option::is_some) {
        let due = Duration::from_secs_f64(done as f64 / rate as f64);
        std::thread::sleep(due.saturating_sub(begin.elapsed()));
        wait.wait(Some(Duration::from_millis(200)), &mut ready)?;
        if ready.is_empty() {
            ready.extend(0..AT_A_TIME as u64);
        }
        for key in ready.drain(..).map(|k| k as usize) {
            let Some(handshake) = &mut under_way[key] else { continue };
            handshake.go_on(clock)?;
            if handshake.client.is_open() {
                done += 1;
                under_way[key] = begin_next(key, &wait)?;
            }
        }
    }
    let cpu_s = (process.cpu_ns()? - cpu) as f64 / 1e9;
    Ok(Handshakes { count, seconds: begin.elapsed().as_secs_f64(), cpu_s })
}

/// Resident bytes for each of so many devices that have shaken hands. `is_parked`: they do so more slowly than the server
/// parks them, so that memory which was given back by the first serves the next and what is parked can be seen.
pub fn memory(server: SocketAddr, process: Process, count: usize, is_parked: bool) -> Result<f64, Failure> {
    let (first, rate) = if is_parked { (6_000, 1_500) } else { (100, UNLIMITED) };
    // What there is one of, and what those take that are active at a time.
    handshakes(server, process, 0..first, rate)?;
    std::thread::sleep(REST);
    let before = process.resident()?;
    handshakes(server, process, first..first + count, rate)?;
    std::thread::sleep(REST);
    Ok(process.resident()?.saturating_sub(before) as f64 / count as f64)
}

struct Devices;

impl Keys for Devices {
    fn key(&self, identity: &[u8]) -> Found {
        let name = std::str::from_utf8(identity).unwrap_or_default();
        let index = name.strip_prefix("dev").and_then(|n| n.parse().ok());
        Found { newest: index.and_then(|i| Key::new(key(i).as_bytes())), older: None }
    }
}

/// The same of the DTLS layer alone, in this process, without sockets; with `park` each is parked before the next is made.
pub fn endpoint_memory(count: usize, park: bool) -> Result<f64, Failure> {
    let settings = Settings { park_after: Duration::from_secs(1), durable: false, ..Settings::default() };
    let mut endpoint = Endpoint::new(settings, Arc::new(Devices), &[7; 32])?;
    let (me, mut micros) = (Process(std::process::id()), 1_000_000);
    for index in 0..100 {
        micros += if park { 1_100_000 } else { 1 };
        shake_hands(&mut endpoint, index, micros)?;
    }
    let before = me.resident()?;
    for index in 100..100 + count {
        micros += if park { 1_100_000 } else { 1 };
        shake_hands(&mut endpoint, index, micros)?;
    }
    let counts = endpoint.counts();
    let expected = if park { (1, count + 99) } else { (count + 100, 0) };
    if (counts.active, counts.parked) != expected {
        return Err(format!("{counts:?}").into());
    }
    Ok(me.resident()?.saturating_sub(before) as f64 / count as f64)
}

fn shake_hands(endpoint: &mut Endpoint, index: usize, micros: u64) -> Result<(), Failure> {
    let now = Now { instant: gateway::Instant::from_micros(micros), wall_ms: micros / 1000 };
    let mut to_device: Vec<Vec<u8>> = vec![];
    endpoint.timeout(now, &mut |_| {});
    let (mut device, mut to_server) = (client(index)?, vec![]);
    device.timeout(now, &mut to_server)?;
    while !device.is_open() {
        for datagram in to_server.drain(..) {
            endpoint.receive(now, address(index), &datagram, &mut |event| {
                if let Event::Send { datagram, .. } = event {
                    to_device.push(datagram.to_vec());
                }
            });
        }
        if to_device.is_empty() {
            return Err("a handshake stands still".into());
        }
        for datagram in to_device.drain(..) {
            device.receive(now, &datagram, &mut to_server, &mut vec![])?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_devices_have_one_address() {
        let all: std::collections::HashSet<_> = (0..106_000).map(address).collect();
        assert_eq!(all.len(), 106_000);
    }

    #[test]
    fn devices_stay_active_or_sleep_as_they_should() {
        assert!(endpoint_memory(50, false).is_ok());
        assert!(endpoint_memory(50, true).is_ok());
    }
}

//! A socket whose devices are handed to who looks at them, for `tidegate codec try --listen`: no router, no rules.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use gateway::Now;

use crate::clock::Clock;

/// Most devices behind a UDP socket at a time.
const MAX_PEERS: usize = 1024;

/// Looks at one device's bytes.
pub trait Attendant: Send {
    /// What to send back for these bytes; None closes the connection.
    fn bytes(&mut self, now: Now, bytes: &[u8]) -> Option<Vec<u8>>;

    /// The device has gone.
    fn gone(&mut self);
}

/// Makes one for each device.
pub type Engage<'a> = &'a (dyn Fn(SocketAddr) -> Box<dyn Attendant> + Sync);

/// Which socket.
pub struct Place<'a> {
    /// Its address; port 0 is any.
    pub bind: SocketAddr,
    /// Is told the address when the socket is open.
    pub bound: &'a dyn Fn(SocketAddr),
    /// End when the first device has gone.
    pub is_once: bool,
}

/// Accepts devices on a TCP port until it fails. With a pause, bytes are handed over when none came for so long.
pub fn stream(place: &Place<'_>, pause: Option<Duration>, engage: Engage<'_>) -> io::Result<()> {
    let socket = TcpListener::bind(place.bind)?;
    (place.bound)(socket.local_addr()?);
    std::thread::scope(|scope| {
        loop {
            let (mut stream, from) = socket.accept()?;
            let mut attendant = engage(from);
            let mut attend = move || {
                // That it has gone is all there is to say of a connection that fails.
                let _ = converse(&mut stream, pause, &mut *attendant);
                attendant.gone();
            };
            if place.is_once {
                attend();
                return Ok(());
            }
            scope.spawn(attend);
        }
    })
}

fn converse(
    stream: &mut TcpStream,
    pause: Option<Duration>,
    attendant: &mut dyn Attendant,
) -> io::Result<()> {
    let clock = Clock::start();
    let mut kept = Vec::new();
    let mut buf = [0; 4096];
    loop {
        // Only what has begun can pause.
        stream.set_read_timeout(pause.filter(|_| !kept.is_empty()))?;
        let read = match stream.read(&mut buf) {
            Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => None,
            read => Some(read?),
        };
        kept.extend_from_slice(&buf[..read.unwrap_or(0)]);
        let is_due = pause.is_none() || !matches!(read, Some(1..));
        if is_due && !kept.is_empty() {
            let Some(answer) = attendant.bytes(clock.now(), &std::mem::take(&mut kept)) else {
                return Ok(());
            };
            stream.write_all(&answer)?;
        }
        if read == Some(0) {
            return Ok(());
        }
    }
}

/// Answers devices on a UDP port until it fails, or once. When there are too many devices all of them are forgotten.
pub fn datagram(place: &Place<'_>, engage: Engage<'_>) -> io::Result<()> {
    let socket = UdpSocket::bind(place.bind)?;
    (place.bound)(socket.local_addr()?);
    let clock = Clock::start();
    let mut peers: HashMap<SocketAddr, Box<dyn Attendant>> = HashMap::new();
    let mut buf = vec![0; 65_536];
    loop {
        let (n, from) = socket.recv_from(&mut buf)?;
        if peers.len() >= MAX_PEERS && !peers.contains_key(&from) {
            peers.drain().for_each(|(_, mut attendant)| attendant.gone());
        }
        let attendant = peers.entry(from).or_insert_with(|| engage(from));
        match attendant.bytes(clock.now(), &buf[..n]) {
            Some(answer) if answer.is_empty() => {}
            Some(answer) => drop(socket.send_to(&answer, from)?),
            None => {
                attendant.gone();
                peers.remove(&from);
            }
        }
        if place.is_once {
            return Ok(());
        }
    }
}

//! One connection of a case: packets in and out over TCP, or over a WebSocket (RFC 6455) with a client's bare minimum.

use crate::read;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// Where a server listens.
#[derive(Clone, Debug)]
pub struct Targets {
    /// Plain TCP.
    pub tcp: SocketAddr,
    /// WebSocket without TLS, if there is one.
    pub ws: Option<SocketAddr>,
    /// Plain TCP, where nobody but `alice` with the password `secret of alice` is let in.
    pub login: Option<SocketAddr>,
}

/// What came.
#[derive(Debug, PartialEq, Eq)]
pub enum Event {
    /// A whole packet.
    Packet(Vec<u8>),
    /// The server closed the connection.
    Closed,
    /// Nothing in time.
    Nothing,
}

/// An open connection.
pub struct Connection {
    stream: TcpStream,
    /// Packets not read yet.
    input: Vec<u8>,
    /// Over a WebSocket: frames not opened yet.
    frames: Option<Vec<u8>>,
    held: Vec<u8>,
    is_closed: bool,
}

#[expect(clippy::disallowed_methods, reason = "this is a client that tests a server over real sockets")]
fn now() -> Instant {
    Instant::now()
}

#[expect(clippy::disallowed_methods, reason = "this is a client that tests a server over real sockets")]
fn connect(address: SocketAddr) -> Result<TcpStream, String> {
    let stream =
        TcpStream::connect(address).map_err(|error| format!("cannot connect to {address}: {error}"))?;
    stream.set_nodelay(true).map_err(|error| error.to_string())?;
    // A server may stop to read; the case then fails instead of hanging.
    stream.set_write_timeout(Some(Duration::from_secs(10))).map_err(|error| error.to_string())?;
    Ok(stream)
}

impl Connection {
    /// Opens a TCP connection.
    pub fn open(address: SocketAddr) -> Result<Connection, String> {
        let stream = connect(address)?;
        Ok(Connection { stream, input: Vec::new(), frames: None, held: Vec::new(), is_closed: false })
    }

    /// Opens a WebSocket at `path`, offering `protocol`; gives the protocol that the server selected, none if it
    /// refused the upgrade.
    pub fn upgrade(
        address: SocketAddr,
        path: &str,
        protocol: &str,
    ) -> Result<(Connection, Option<String>), String> {
        let mut connection = Connection::open(address)?;
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: {address}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Protocol: {protocol}\r\n\r\n"
        );
        connection.write(request.as_bytes());
        let until = now() + Duration::from_secs(5);
        let end = loop {
            if let Some(at) = connection.input.windows(4).position(|window| window == b"\r\n\r\n") {
                break at + 4;
            }
            if connection.is_closed || now() >= until {
                return Err("no answer to the upgrade".into());
            }
            connection.fill(until)?;
        };
        let head = String::from_utf8_lossy(&connection.input[..end]).into_owned();
        connection.frames = Some(connection.input.split_off(end));
        connection.input.clear();
        let is_accepted = head.starts_with("HTTP/1.1 101");
        // RFC 6455, 1.3: the answer to the key above.
        if is_accepted && !head.contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=") {
            return Err("Sec-WebSocket-Accept is wrong".into());
        }
        let selected = head.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("sec-websocket-protocol").then(|| value.trim().to_owned())
        });
        connection.unframe()?;
        Ok((connection, selected.filter(|_| is_accepted)))
    }

    /// Keeps bytes for the next [`send`](Self::send).
    pub fn hold(&mut self, bytes: &[u8]) {
        self.held.extend_from_slice(bytes);
    }

    /// Sends what was held and `bytes` with one write. A server that has closed is no mistake here: the case looks.
    pub fn send(&mut self, bytes: &[u8]) {
        let mut all = std::mem::take(&mut self.held);
        all.extend_from_slice(bytes);
        match self.frames {
            Some(_) => self.send_frame(2, &all),
            None => self.write(&all),
        }
    }

    /// Sends one WebSocket frame with this opcode (RFC 6455, 5.2), masked with zeros.
    pub fn send_frame(&mut self, opcode: u8, payload: &[u8]) {
        let mut frame = vec![0x80 | opcode];
        match payload.len() {
            length @ 0..126 => frame.push(0x80 | length as u8),
            length => {
                frame.push(0x80 | 127);
                frame.extend_from_slice(&(length as u64).to_be_bytes());
            }
        }
        frame.extend_from_slice(&[0; 4]);
        frame.extend_from_slice(payload);
        self.write(&frame);
    }

    /// The next packet, the end, or nothing within `patience`.
    pub fn read(&mut self, patience: Duration) -> Result<Event, String> {
        let until = now() + patience;
        loop {
            if let Some(length) = read::length(&self.input)?
                && self.input.len() >= length
            {
                let rest = self.input.split_off(length);
                return Ok(Event::Packet(std::mem::replace(&mut self.input, rest)));
            }
            if self.is_closed {
                return if self.input.is_empty() {
                    Ok(Event::Closed)
                } else {
                    Err("the connection ended within a packet".into())
                };
            }
            if now() >= until {
                return Ok(Event::Nothing);
            }
            self.fill(until)?;
        }
    }

    /// Puts a packet back that [`read`](Self::read) gave.
    pub fn unread(&mut self, mut packet: Vec<u8>) {
        packet.append(&mut self.input);
        self.input = packet;
    }

    fn fill(&mut self, until: Instant) -> Result<(), String> {
        let left = until.saturating_duration_since(now()).max(Duration::from_millis(1));
        self.stream.set_read_timeout(Some(left)).map_err(|error| error.to_string())?;
        let mut buffer = [0; 16 * 1024];
        match self.stream.read(&mut buffer) {
            Ok(0) => self.is_closed = true,
            Ok(n) => match &mut self.frames {
                Some(frames) => frames.extend_from_slice(&buffer[..n]),
                None => self.input.extend_from_slice(&buffer[..n]),
            },
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => self.is_closed = true,
        }
        self.unframe()
    }

    /// Opens the frames that are whole (RFC 6455, 5.2). MQTT 5.0, 6: data comes in binary frames only.
    fn unframe(&mut self) -> Result<(), String> {
        let Some(frames) = &mut self.frames else { return Ok(()) };
        loop {
            let mut reader = wire::Reader::new(frames);
            let (Ok(first), Ok(second)) = (reader.u8(), reader.u8()) else { return Ok(()) };
            let length = match second & 0x7f {
                126 => reader.u16().map(u64::from),
                127 => reader.u64(),
                short => Ok(short.into()),
            };
            let Some(payload) = length.ok().and_then(|length| reader.take(length as usize).ok()) else {
                return Ok(());
            };
            match first & 0xf {
                0 | 2 => self.input.extend_from_slice(payload),
                8 => self.is_closed = true,
                9 | 10 => {}
                opcode => return Err(format!("the server sent a frame with opcode {opcode}")),
            }
            let rest = reader.rest().to_vec();
            *frames = rest;
        }
    }

    fn write(&mut self, bytes: &[u8]) {
        if self.stream.write_all(bytes).is_err() {
            // What the server sent before it closed is still to be read; the end shows there.
        }
    }
}

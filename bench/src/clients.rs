//! Many MQTT clients on one thread.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use crate::Failure;
use crate::packets::{self, Frame, kind};
use crate::wait::Wait;

/// Most clients that have asked for a connection and have no answer: mosquitto's listen queue holds 100.
const OPENING: usize = 64;
/// How long a server may take to answer a client that opens or subscribes.
const PATIENCE: Duration = Duration::from_secs(20);
const BUFFER: usize = 256 * 1024;

/// All clients of a run. A client is known by its index.
pub struct Clients {
    list: Vec<Client>,
    wait: Wait,
    ready: Vec<u64>,
    dirty: Vec<usize>,
    buffer: Vec<u8>,
}

struct Client {
    stream: TcpStream,
    /// The beginning of a packet whose end has not come.
    rest: Vec<u8>,
    /// To be written.
    out: Vec<u8>,
    is_dirty: bool,
    is_blocked: bool,
}

impl Clients {
    /// No clients.
    pub fn new() -> Result<Clients, Failure> {
        let wait = Wait::new()?;
        Ok(Clients { list: vec![], wait, ready: vec![], dirty: vec![], buffer: vec![0; BUFFER] })
    }

    /// Connects one client for each of `names`, several at a time, and waits until the server has let all of them in.
    /// Returns the index of the first; the others follow.
    pub fn open(&mut self, server: SocketAddr, names: &[String]) -> Result<usize, Failure> {
        self.open_with(server, names, true)
    }

    /// The same; without `is_clean`, their sessions outlive their connections.
    pub fn open_with(
        &mut self,
        server: SocketAddr,
        names: &[String],
        is_clean: bool,
    ) -> Result<usize, Failure> {
        let first = self.list.len();
        let mut answers = 0;
        let mut last = Instant::now();
        while answers < names.len() {
            while self.list.len() - first < names.len() && self.list.len() - first - answers < OPENING {
                let name = &names[self.list.len() - first];
                let client = self.add(server)?;
                packets::connect(self.out(client), name, is_clean);
            }
            let before = answers;
            self.turn(Some(PATIENCE / 4), |_, frame, _| match (frame.first, frame.body) {
                (kind::CONNACK, [_, 0]) => {
                    answers += 1;
                    Ok(())
                }
                _ => Err(format!("instead of a welcome came {frame:?}").into()),
            })?;
            check_patience(before, answers, &mut last, "connect")?;
        }
        Ok(first)
    }

    /// Adds a client whose session outlives its connection, and does not wait until it is let in.
    pub fn add_opening(&mut self, server: SocketAddr, name: &str) -> Result<usize, Failure> {
        let client = self.add(server)?;
        packets::connect(self.out(client), name, false);
        Ok(client)
    }

    /// Subscribes clients, each to filters of its own, and waits until all are granted. `work` gives client and filters.
    pub fn subscribe(
        &mut self,
        work: impl IntoIterator<Item = (usize, Vec<String>)>,
        qos: u8,
    ) -> Result<(), Failure> {
        let mut work = work.into_iter().peekable();
        let (mut asked, mut granted) = (0, 0);
        let mut last = Instant::now();
        while granted < asked || work.peek().is_some() {
            while asked - granted < OPENING {
                let Some((client, filters)) = work.next() else { break };
                asked += 1;
                packets::subscribe(self.out(client), (asked % 65_535 + 1) as u16, &filters, qos);
            }
            let before = granted;
            self.turn(Some(PATIENCE / 4), |_, frame, _| match (frame.first, frame.body) {
                (kind::SUBACK, [_, _, codes @ ..]) if codes.iter().all(|&c| c == qos) => {
                    granted += 1;
                    Ok(())
                }
                _ => Err(format!("instead of a grant came {frame:?}").into()),
            })?;
            check_patience(before, granted, &mut last, "subscribe")?;
        }
        Ok(())
    }

    /// Bytes to be sent by this client at the next turn.
    pub fn out(&mut self, client: usize) -> &mut Vec<u8> {
        let c = &mut self.list[client];
        if !c.is_dirty {
            c.is_dirty = true;
            self.dirty.push(client);
        }
        &mut c.out
    }

    /// Writes what is to be written (one write a client), waits at most `timeout` for something to read, reads each
    /// ready client once and hands every packet to `on`: which client, the packet, and where to put the answer.
    pub fn turn(
        &mut self,
        timeout: Option<Duration>,
        mut on: impl FnMut(usize, Frame<'_>, &mut Vec<u8>) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        self.flush()?;
        self.wait.wait(timeout, &mut self.ready)?;
        for i in 0..self.ready.len() {
            let index = self.ready[i] as usize;
            let client = &mut self.list[index];
            if client.is_blocked && !client.is_dirty {
                client.is_dirty = true;
                self.dirty.push(index);
            }
            let n = match client.stream.read(&mut self.buffer) {
                Ok(0) => return Err("the server closed a connection".into()),
                Ok(n) => n,
                Err(e) if e.kind() == ErrorKind::WouldBlock => continue,
                Err(e) => return Err(e.into()),
            };
            let mut joined = std::mem::take(&mut client.rest);
            let mut bytes = &self.buffer[..n];
            if !joined.is_empty() {
                joined.extend_from_slice(bytes);
                bytes = &joined;
            }
            while let Some(frame) = packets::cut(bytes) {
                bytes = &bytes[frame.length..];
                on(index, frame, &mut client.out)?;
            }
            if !bytes.is_empty() {
                client.rest = bytes.to_vec();
            }
            if !client.out.is_empty() && !client.is_dirty {
                client.is_dirty = true;
                self.dirty.push(index);
            }
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), Failure> {
        for index in self.dirty.drain(..) {
            let client = &mut self.list[index];
            client.is_dirty = false;
            let written = match client.stream.write(&client.out) {
                Ok(n) => n,
                Err(e) if e.kind() == ErrorKind::WouldBlock => 0,
                Err(e) => return Err(e.into()),
            };
            client.out.drain(..written);
            let is_blocked = !client.out.is_empty();
            if is_blocked != client.is_blocked {
                client.is_blocked = is_blocked;
                self.wait.also_writable(&client.stream, index as u64, is_blocked)?;
            }
        }
        Ok(())
    }

    fn add(&mut self, server: SocketAddr) -> Result<usize, Failure> {
        let stream = TcpStream::connect(server)?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        let index = self.list.len();
        self.wait.add(&stream, index as u64)?;
        self.list.push(Client { stream, rest: vec![], out: vec![], is_dirty: false, is_blocked: false });
        Ok(index)
    }
}

fn check_patience(before: usize, after: usize, last: &mut Instant, what: &str) -> Result<(), Failure> {
    if after > before {
        *last = Instant::now();
    }
    if last.elapsed() > PATIENCE {
        return Err(format!("the server does not answer: {what}, {after} done").into());
    }
    Ok(())
}

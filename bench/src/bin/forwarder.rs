//! The bare forwarder: `forwarder ADDRESS`. The physical limit that a server is compared with: one thread and one epoll
//! that parse PUBLISH, look its topic up in a hash map, append the bytes to each subscriber's buffer and write once a
//! wake-up. QoS 1 and 2 handshakes are answered and not remembered. No access rules, timers, retained messages,
//! wildcards, sessions or limits: it is no broker.

#![expect(
    clippy::box_collection,
    clippy::vec_box,
    reason = "an idle connection holds a pointer, not a vector's three words"
)]

use std::collections::HashMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};

use bench::Failure;
use bench::packets::{self, Frame, kind};
use bench::wait::Wait;

const BUFFER: usize = 64 * 1024;
/// The listener's key; connections have their slot.
const LISTENER: u64 = u64::MAX;
/// Spare output buffers kept.
const SPARE: usize = 1024;

struct Connection {
    stream: TcpStream,
    /// The beginning of a packet; present only while its end has not come.
    rest: Option<Box<Vec<u8>>>,
    /// Present only while something is to be written.
    out: Option<Box<Vec<u8>>>,
    last_id: u16,
    is_dirty: bool,
    is_blocked: bool,
}

/// Who gets a topic's messages.
#[derive(Default)]
struct Topic {
    subscribers: Vec<(u32, u8)>,
    /// Members of the one `$share` group, in turn.
    members: Vec<(u32, u8)>,
    turn: usize,
}

struct Forwarder {
    listener: TcpListener,
    wait: Wait,
    connections: Vec<Option<Connection>>,
    free: Vec<u32>,
    topics: HashMap<Box<[u8]>, Topic>,
    dirty: Vec<u32>,
    spare: Vec<Box<Vec<u8>>>,
}

fn main() -> Result<(), Failure> {
    let address: SocketAddr = std::env::args().nth(1).ok_or("usage: forwarder ADDRESS")?.parse()?;
    let listener = TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    let wait = Wait::new()?;
    wait.add(&listener, LISTENER)?;
    let mut forwarder = Forwarder {
        listener,
        wait,
        connections: vec![],
        free: vec![],
        topics: HashMap::new(),
        dirty: vec![],
        spare: vec![],
    };
    let mut ready = vec![];
    let mut buffer = vec![0; BUFFER];
    loop {
        forwarder.wait.wait(None, &mut ready)?;
        for &key in &ready {
            if key == LISTENER {
                forwarder.accept()?;
            } else {
                forwarder.read(key as u32, &mut buffer);
            }
        }
        forwarder.flush();
    }
}

impl Forwarder {
    fn accept(&mut self) -> Result<(), Failure> {
        loop {
            let stream = match self.listener.accept() {
                Ok((stream, _)) => stream,
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(e) => return Err(e.into()),
            };
            stream.set_nonblocking(true)?;
            stream.set_nodelay(true)?;
            let slot = self.free.pop().unwrap_or(self.connections.len() as u32);
            self.wait.add(&stream, slot.into())?;
            let connection =
                Connection { stream, rest: None, out: None, last_id: 0, is_dirty: false, is_blocked: false };
            match self.connections.get_mut(slot as usize) {
                Some(place) => *place = Some(connection),
                None => self.connections.push(Some(connection)),
            }
        }
    }

    fn read(&mut self, slot: u32, buffer: &mut [u8]) {
        let Some(c) = &mut self.connections[slot as usize] else { return };
        if c.is_blocked {
            mark(c, slot, &mut self.dirty);
        }
        let n = match c.stream.read(buffer) {
            Ok(0) => return self.close(slot),
            Ok(n) => n,
            Err(e) if e.kind() == ErrorKind::WouldBlock => return,
            Err(_) => return self.close(slot),
        };
        let joined = c.rest.take().map(|mut rest| {
            rest.extend_from_slice(&buffer[..n]);
            rest
        });
        let mut bytes = joined.as_deref().map_or(&buffer[..n], |joined| &joined[..]);
        while let Some(frame) = packets::cut(bytes)
            && self.connections[slot as usize].is_some()
        {
            bytes = &bytes[frame.length..];
            self.packet(slot, frame);
        }
        if !bytes.is_empty()
            && let Some(c) = &mut self.connections[slot as usize]
        {
            c.rest = Some(Box::new(bytes.to_vec()));
        }
    }

    fn packet(&mut self, slot: u32, frame: Frame<'_>) {
        let id = packets::take_id(frame.body).unwrap_or_default();
        match frame.first {
            first if first & 0xF0 == kind::PUBLISH => self.publish(slot, frame),
            kind::PUBREC => self.answer(slot, |out| packets::ack(out, kind::PUBREL, id)),
            kind::PUBREL => self.answer(slot, |out| packets::ack(out, kind::PUBCOMP, id)),
            kind::PUBACK | kind::PUBCOMP => {}
            kind::CONNECT => self.answer(slot, |out| out.extend_from_slice(&[kind::CONNACK, 2, 0, 0])),
            kind::SUBSCRIBE => self.subscribe(slot, id, frame.body.get(2..).unwrap_or_default()),
            kind::PINGREQ => self.answer(slot, |out| out.extend_from_slice(&[kind::PINGRESP, 0])),
            _ => self.close(slot),
        }
    }

    fn publish(&mut self, slot: u32, frame: Frame<'_>) {
        let Some((name, id, payload)) = packets::take_publish(frame.first, frame.body) else {
            return self.close(slot);
        };
        if let Some(id) = id {
            let answer = if frame.first & 0x06 == 0x02 { kind::PUBACK } else { kind::PUBREC };
            self.answer(slot, |out| packets::ack(out, answer, id));
        }
        let Some(topic) = self.topics.get_mut(name) else { return };
        let mut chosen = None;
        if !topic.members.is_empty() {
            topic.turn = (topic.turn + 1) % topic.members.len();
            chosen = Some(topic.members[topic.turn]);
        }
        for &(to, granted) in topic.subscribers.iter().chain(&chosen) {
            let Some(c) = &mut self.connections[to as usize] else { continue };
            mark(c, to, &mut self.dirty);
            let qos = granted.min(frame.first >> 1 & 3);
            if qos > 0 {
                c.last_id = c.last_id % u16::MAX + 1;
            }
            let last_id = c.last_id;
            let out = c.out.get_or_insert_with(|| self.spare.pop().unwrap_or_default());
            packets::publish(out, name, qos, last_id, payload);
        }
    }

    fn subscribe(&mut self, slot: u32, id: u16, mut filters: &[u8]) {
        let mut codes = vec![];
        while let Some((filter, [qos, rest @ ..])) = packets::take_prefixed(filters) {
            filters = rest;
            codes.push(*qos);
            match filter.strip_prefix(b"$share/g/") {
                Some(name) => self.topics.entry(name.into()).or_default().members.push((slot, *qos)),
                None => self.topics.entry(filter.into()).or_default().subscribers.push((slot, *qos)),
            }
        }
        self.answer(slot, |out| {
            packets::head(out, kind::SUBACK, 2 + codes.len());
            out.extend_from_slice(&id.to_be_bytes());
            out.extend_from_slice(&codes);
        });
    }

    fn answer(&mut self, slot: u32, encode: impl FnOnce(&mut Vec<u8>)) {
        let Some(c) = &mut self.connections[slot as usize] else { return };
        mark(c, slot, &mut self.dirty);
        encode(c.out.get_or_insert_with(|| self.spare.pop().unwrap_or_default()));
    }

    fn flush(&mut self) {
        let mut dirty = std::mem::take(&mut self.dirty);
        for slot in dirty.drain(..) {
            let Some(c) = &mut self.connections[slot as usize] else { continue };
            c.is_dirty = false;
            let Some(mut out) = c.out.take() else { continue };
            match c.stream.write(&out) {
                Ok(n) => drop(out.drain(..n)),
                Err(e) if e.kind() == ErrorKind::WouldBlock => {}
                Err(_) => {
                    self.close(slot);
                    continue;
                }
            }
            let is_blocked = !out.is_empty();
            if is_blocked != c.is_blocked {
                c.is_blocked = is_blocked;
                // A failure shows at the next read.
                let _ = self.wait.also_writable(&c.stream, slot.into(), is_blocked);
            }
            if is_blocked {
                c.out = Some(out);
            } else if self.spare.len() < SPARE {
                self.spare.push(out);
            }
        }
        self.dirty = dirty;
    }

    fn close(&mut self, slot: u32) {
        if self.connections[slot as usize].take().is_none() {
            return;
        }
        self.free.push(slot);
        for topic in self.topics.values_mut() {
            topic.subscribers.retain(|&(to, _)| to != slot);
            topic.members.retain(|&(to, _)| to != slot);
        }
    }
}

fn mark(c: &mut Connection, slot: u32, dirty: &mut Vec<u32>) {
    if !c.is_dirty {
        c.is_dirty = true;
        dirty.push(slot);
    }
}

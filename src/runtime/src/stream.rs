//! The stream driver: many connections in a slab, served in turns.
//!
//! A turn: read what is readable, each connection at most one buffer; take the mail; drain sessions that have something;
//! post to other drivers; write once to every connection that was touched. An idle connection holds no buffer. Who waits
//! for readiness is [`crate::wait`]'s business.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::BytesMut;
use gateway::{Close, Flow, Instant, Now, Outbox, Peer, Stop};
use router::Signal;
use slab::Slab;

use crate::client::{Client, Rate};
use crate::config::Limits;
use crate::conn::{
    AGAIN, BLOCKED, BROKEN, Conn, DIRTY, Events, Flags, HUNG_UP, LINGERING, Layered, MORE, OPENED, PAUSED,
    READY, RESTING, Seat, UNREAD, facts,
};
use crate::house::{House, Port};
use crate::layer::{Learnt, Stack};
use crate::mailbox::Mail;
use crate::perform::{Desk, MOST_HELD, Turn};
use crate::wheel::Wheel;

/// Most bytes read from one connection before others have their turn.
const READ: usize = 64 << 10;
/// How long layers may take to shake hands.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// How long a closed connection waits for its peer to close too.
const LINGER: Duration = Duration::from_secs(2);
/// Output buffers kept for use again, and the largest kept.
const POOL: (usize, usize) = (256, 64 << 10);

/// See the module.
pub struct Streams {
    desk: Desk,
    conns: Slab<Conn>,
    registry: mio::Registry,
    limits: Limits,
    generation: u32,
    scratch: Box<[u8]>,
    chunk: BytesMut,
    out: Outbox,
    #[expect(clippy::vec_box, reason = "connections hold the box, which goes to and fro as it is")]
    pool: Vec<Box<Vec<u8>>>,
    mail: Vec<Mail>,
    away: Vec<Vec<Mail>>,
    dirty: Vec<u32>,
    ready: Vec<u32>,
    again: Vec<u32>,
    wheel: Wheel,
    is_stopping: bool,
}

impl Streams {
    /// A driver without connections, whose sockets are registered with `registry`.
    pub fn new(house: Arc<House>, id: u16, registry: mio::Registry) -> Streams {
        let limits = *house.limits.read();
        let away = house.boxes.iter().map(|_| Vec::new()).collect();
        Streams {
            desk: Desk::new(house, id),
            conns: Slab::new(),
            registry,
            limits,
            generation: 0,
            scratch: vec![0; READ].into_boxed_slice(),
            chunk: BytesMut::new(),
            out: Outbox::default(),
            pool: Vec::new(),
            mail: Vec::new(),
            away,
            dirty: Vec::new(),
            ready: Vec::new(),
            again: Vec::new(),
            wheel: Wheel::default(),
            is_stopping: false,
        }
    }

    /// Whether there is work that no event will announce.
    pub fn is_busy(&self) -> bool {
        !self.again.is_empty() || !self.ready.is_empty()
    }

    /// Whether a stop was asked for and everybody has gone.
    pub fn is_done(&self) -> bool {
        self.is_stopping && self.conns.is_empty()
    }

    /// When the driver must be woken without an event.
    pub fn next_timeout(&self) -> Option<Instant> {
        // Every driver minds the router's deadlines: the one whose client set the earliest is awake to see it.
        [self.wheel.next(), self.desk.house.router.next_timeout()].into_iter().flatten().min()
    }

    /// The socket of `slot` became readable, or its peer closed.
    pub fn readable(&mut self, now: Now, slot: u32, is_closed: bool) {
        let Some(conn) = self.conns.get_mut(slot as usize) else { return };
        if is_closed {
            conn.flags.set(HUNG_UP);
        }
        self.read(now, slot);
    }

    /// The socket of `slot` takes bytes again.
    pub fn writable(&mut self, slot: u32) {
        let Some(conn) = self.conns.get_mut(slot as usize) else { return };
        if conn.flags.clear(BLOCKED) {
            self.touch(slot);
        }
    }

    /// Reads again from connections that had more than one buffer, or were resumed.
    pub fn read_again(&mut self, now: Now) {
        let mut again = std::mem::take(&mut self.again);
        for slot in again.drain(..) {
            if let Some(conn) = self.conns.get_mut(slot as usize) {
                conn.flags.clear(AGAIN);
                self.read(now, slot);
            }
        }
        // Connections that want to be read once more were pushed to the new list meanwhile.
        again.append(&mut self.again);
        self.again = again;
    }

    /// The rest of a turn, after all readiness of one wake-up.
    pub fn turn(&mut self, now: Now) {
        self.limits = *self.desk.house.limits.read();
        let mut mail = std::mem::take(&mut self.mail);
        self.desk.house.boxes[usize::from(self.desk.id)].take(&mut mail);
        for piece in mail.drain(..) {
            self.receive(now, piece);
        }
        self.mail = mail;
        self.written(now);
        self.timeouts(now);
        self.drain_ready(now);
        self.post_away();
        self.flush(now);
        // Flushing may have ended conversations, whose wills go out now.
        self.drain_ready(now);
        self.post_away();
        self.desk.tally.flush(&self.desk.house.metrics);
        if self.desk.has_written() {
            self.desk.house.boxes[usize::from(self.desk.id)].wake();
        }
    }

    /// Hands over the answers that have waited for the store.
    fn written(&mut self, now: Now) {
        while let Some(held) = self.desk.next_written() {
            if self.conn(held.peer).is_some() {
                let slot = held.peer.slot;
                self.serve(now, slot, |desk, turn| desk.written(turn, held));
            }
        }
    }

    fn receive(&mut self, now: Now, mail: Mail) {
        match mail {
            Mail::Signal(peer, signal) => self.signal(now, peer, signal),
            Mail::Accepted(socket, address, port) => self.accept(now, socket, address, port),
            Mail::Verdict(peer, ticket, result) => {
                if self.conn(peer).is_some() {
                    self.serve(now, peer.slot, |desk, turn| desk.verdict(turn, peer, ticket, result));
                }
            }
            Mail::Describe(peer, answer) => {
                let Some(conn) = self.conn(peer) else { return };
                let mut into = Vec::new();
                let address = conn.layers.as_ref().and_then(|l| l.learnt.address).unwrap_or(conn.address);
                let transport = conn.port.transport(false);
                Desk::describe(&conn.client, address, &conn.port, transport, &mut into);
                conn.machine.describe(peer, &mut into);
                // Who asked may have gone.
                let _ = answer.send(into);
            }
            Mail::Transports(peers, answer) => {
                let transport = |peer: &Peer| self.conn(*peer).map(|c| c.port.transport(false));
                // Who asked may have gone.
                let _ = answer.send(peers.iter().map(transport).collect());
            }
            Mail::Command(peer, request, answer) => {
                if self.conn(peer).is_some() {
                    self.serve(now, peer.slot, |desk, turn| desk.command(turn, peer, &request, answer));
                }
            }
            Mail::Called(peer, ticket, results) => {
                if self.conn(peer).is_some() {
                    self.serve(now, peer.slot, |desk, turn| desk.called(turn, (peer, ticket), results));
                }
            }
            Mail::Stop(peer, why) => self.stop(now, peer, why),
            Mail::Regrant(exchanged) => {
                let mut gone = Vec::new();
                for (slot, conn) in &mut self.conns {
                    let (learnt, auth) = (conn.layers.as_ref().map(|l| &l.learnt), &self.desk.house.auth);
                    let address = learnt.and_then(|l| l.address).unwrap_or(conn.address);
                    let psk = learnt.and_then(|l| l.psk.as_deref());
                    let has_key = psk.is_none_or(|name| auth.has_psk(name) && !exchanged.contains(name));
                    if !has_key || !conn.client.regrant(auth, address) {
                        gone.push(Peer { slot: slot as u32, generation: conn.generation });
                    }
                }
                gone.into_iter().for_each(|peer| self.stop(now, peer, Stop::Kicked));
            }
            Mail::ShutDown => {
                self.is_stopping = true;
                let peers: Vec<Peer> = self
                    .conns
                    .iter()
                    .map(|(slot, c)| Peer { slot: slot as u32, generation: c.generation })
                    .collect();
                for peer in peers {
                    self.stop(now, peer, Stop::ShuttingDown);
                }
            }
        }
    }

    fn conn(&mut self, peer: Peer) -> Option<&mut Conn> {
        self.conns.get_mut(peer.slot as usize).filter(|c| c.generation == peer.generation)
    }

    fn signal(&mut self, now: Now, peer: Peer, signal: Signal) {
        let Some(conn) = self.conn(peer) else { return };
        match signal {
            Signal::Ready => {
                conn.flags.set(MORE);
                if conn.flags.set(READY) {
                    self.ready.push(peer.slot);
                }
            }
            Signal::Stop(why) => self.stop(now, peer, why),
            Signal::Fast(fast) => {
                let waiting = conn.out.as_ref().map_or(0, |o| o.len());
                if conn.closing.is_some() || waiting >= self.limits.outbox {
                    self.desk.house.metrics.dropped(gateway::Drop::SlowPeer);
                    return;
                }
                self.serve(now, peer.slot, |desk, turn| desk.fast(turn, peer, &fast));
            }
        }
    }

    fn accept(&mut self, now: Now, mut socket: mio::net::TcpStream, address: SocketAddr, port: Arc<Port>) {
        let entry = self.conns.vacant_entry();
        let slot = entry.key() as u32;
        let both = mio::Interest::READABLE | mio::Interest::WRITABLE;
        if let Err(error) = self.registry.register(&mut socket, mio::Token(slot as usize), both) {
            tracing::warn!(%error, "cannot watch a new connection");
            self.desk.house.metrics.closed(Close::TransportError);
            self.desk.house.connections.fetch_sub(1, Ordering::Relaxed);
            port.open.fetch_sub(1, Ordering::Relaxed);
            return;
        }
        self.generation = self.generation.wrapping_add(1);
        let peer = Peer { slot, generation: self.generation };
        let layers = Stack::build(&self.desk.house, &port, address).map(|stack| {
            Box::new(Layered { stack, learnt: Learnt::default(), wire: BytesMut::new(), plain: Vec::new() })
        });
        let is_layered = layers.is_some();
        let mut client = Client::default();
        if let Some(rate) = Rate::new(now.instant, port.setup.message_rate, port.setup.byte_rate) {
            client.extra().rate = Some(rate);
        }
        entry.insert(Conn {
            socket,
            generation: peer.generation,
            machine: port.factory.build(),
            client,
            port,
            address,
            layers,
            rest: None,
            out: None,
            scheduled: Instant::NEVER,
            hold: if is_layered { now.instant + HANDSHAKE } else { Instant::NEVER },
            blocked_since: Instant::NEVER,
            closing: None,
            flags: Flags::default(),
        });
        if is_layered {
            self.schedule(slot);
        } else {
            self.open(now, slot);
        }
        if self.is_stopping {
            self.stop(now, peer, Stop::ShuttingDown);
        }
    }

    fn open(&mut self, now: Now, slot: u32) {
        let Some(conn) = self.conns.get_mut(slot as usize) else { return };
        conn.flags.set(OPENED);
        conn.hold = Instant::NEVER;
        let facts = facts(&conn.port, conn.address, conn.layers.as_ref().map(|l| &l.learnt));
        let peer = Peer { slot, generation: conn.generation };
        self.serve(now, slot, |_, turn| turn.machine.opened(now, peer, &facts, turn.out));
    }

    /// Calls the machine of `slot` through `call`, carries out what it asks for, and keeps the books.
    fn serve<R>(
        &mut self,
        now: Now,
        slot: u32,
        call: impl FnOnce(&mut Desk, &mut Turn<'_, Seat<'_>>) -> R,
    ) -> Option<(R, Events)> {
        let conn = self.conns.get_mut(slot as usize)?;
        let Conn { machine, client, port, address, layers, out, .. } = conn;
        let (plain, learnt) = match layers.as_deref_mut() {
            Some(l) => (Some(&mut l.plain), Some(&l.learnt)),
            None => (None, None),
        };
        let wire = match plain {
            Some(plain) => plain,
            None => &mut **out.get_or_insert_with(|| self.pool.pop().unwrap_or_default()),
        };
        std::mem::swap(&mut self.out.wire, wire);
        self.out.is_traced = self.desk.is_traced(client);
        let peer = Peer { slot, generation: conn.generation };
        let mut seat = Seat { peer, client, port, address: *address, learnt, events: Events::default() };
        let turn = &mut Turn { now, peers: &mut seat, machine: &mut **machine, out: &mut self.out };
        let result = call(&mut self.desk, turn);
        self.desk.perform(turn);
        let events = std::mem::take(&mut seat.events);
        std::mem::swap(&mut self.out.wire, wire);
        if events.is_ready {
            conn.flags.set(MORE);
            if conn.flags.set(READY) {
                self.ready.push(slot);
            }
        }
        if events.is_replied && conn.flags.clear(PAUSED) {
            conn.flags.set(UNREAD);
            if conn.flags.set(AGAIN) {
                self.again.push(slot);
            }
        }
        let close = events.close;
        self.touch(slot);
        self.schedule(slot);
        if let Some(why) = close {
            self.begin_close(now, slot, why);
        }
        Some((result, events))
    }

    fn read(&mut self, now: Now, slot: u32) {
        let Some(conn) = self.conns.get_mut(slot as usize) else { return };
        if conn.closing.is_none() && (conn.flags.has(PAUSED | RESTING) || is_full(conn, &self.limits)) {
            conn.flags.set(UNREAD);
            return;
        }
        // What had to wait for an answer comes before what the socket has.
        if conn.flags.clear(UNREAD) && conn.closing.is_none() && conn.rest.is_some() {
            self.feed(now, slot, 0);
            self.read_later(slot);
            return;
        }
        let n = match conn.socket.read(&mut self.scratch) {
            Ok(0) => return self.begin_close(now, slot, Close::PeerClosed),
            Ok(n) => n,
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => return,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => return self.read_later(slot),
            Err(_) => return self.begin_close(now, slot, Close::TransportError),
        };
        // Edge-triggered: a short read has emptied the socket, unless the peer's end is still to be read.
        if n == READ || conn.flags.has(HUNG_UP) {
            self.read_later(slot);
        }
        let Some(conn) = self.conns.get_mut(slot as usize) else { return };
        if conn.closing.is_some() {
            return;
        }
        self.desk.tally.bytes_in(n);
        conn.client.spend(now.instant, 0, n);
        self.feed(now, slot, n);
        self.rest_if_over_rate(now, slot);
    }

    fn read_later(&mut self, slot: u32) {
        if let Some(conn) = self.conns.get_mut(slot as usize)
            && conn.flags.set(AGAIN)
        {
            self.again.push(slot);
        }
    }

    fn rest_if_over_rate(&mut self, now: Now, slot: u32) {
        let Some(conn) = self.conns.get_mut(slot as usize) else { return };
        if let Some(pause) = conn.client.rest(now.instant) {
            conn.flags.set(RESTING | UNREAD);
            conn.hold = now.instant + pause;
            self.desk.house.metrics.rested();
            self.schedule(slot);
        }
    }

    /// Hands `n` new bytes of the scratch buffer to the machine, after what it left before.
    fn feed(&mut self, now: Now, slot: u32, n: usize) {
        let Some(conn) = self.conns.get_mut(slot as usize) else { return };
        let mut chunk = match conn.rest.take() {
            Some(rest) => *rest,
            None => {
                let mut chunk = std::mem::take(&mut self.chunk);
                chunk.clear();
                chunk
            }
        };
        let result = match conn.layers.as_deref_mut() {
            None => {
                chunk.extend_from_slice(&self.scratch[..n]);
                Ok(())
            }
            Some(l) => {
                l.wire.extend_from_slice(&self.scratch[..n]);
                let out = conn.out.get_or_insert_with(|| self.pool.pop().unwrap_or_default());
                let result = l.stack.open(now, &mut l.wire, &mut chunk, out, &mut l.learnt);
                if l.wire.is_empty() {
                    l.wire = BytesMut::new();
                }
                result
            }
        };
        let is_open = conn.flags.has(OPENED);
        let is_ready = conn.layers.as_ref().is_none_or(|l| l.stack.is_ready());
        if !is_open && is_ready && result.is_ok() {
            self.open(now, slot);
        }
        if is_ready {
            self.input(now, slot, &mut chunk);
        }
        self.touch(slot);
        self.keep_rest(slot, chunk);
        if let Err(why) = result {
            self.tell_psk(now, slot, why);
            self.begin_close(now, slot, why);
        }
    }

    fn tell_psk(&mut self, now: Now, slot: u32, why: Close) {
        let Some(conn) = self.conns.get(slot as usize) else { return };
        if matches!(why, Close::PskIdentity | Close::PskKey) && self.desk.may_complain(now, conn.address) {
            let (address, listener) = (conn.address, &conn.port.facts.name);
            tracing::info!(%address, %listener, why = why.label(), "TLS: the pre-shared key is another, or nobody has the identity");
        }
    }

    fn input(&mut self, now: Now, slot: u32, chunk: &mut BytesMut) {
        while !chunk.is_empty() {
            let served =
                self.serve(now, slot, |_, turn| turn.machine.input(now, turn.peers.peer, chunk, turn.out));
            let Some((result, events)) = served else { return };
            match result {
                Err(why) => return self.begin_close(now, slot, why),
                Ok(Flow::Pause) if !events.is_replied => {
                    if let Some(conn) = self.conns.get_mut(slot as usize) {
                        conn.flags.set(PAUSED);
                    }
                    return;
                }
                Ok(Flow::Pause) if events.close.is_none() => {}
                Ok(_) => return,
            }
        }
    }

    fn keep_rest(&mut self, slot: u32, mut chunk: BytesMut) {
        let Some(conn) = self.conns.get_mut(slot as usize) else { return };
        if !chunk.is_empty() && conn.closing.is_none() {
            // A small rest gets a box of its own size, a large one is kept as it is.
            let rest =
                if chunk.capacity() > 4 * chunk.len() { BytesMut::from(&chunk[..]) } else { chunk.split() };
            conn.rest = Some(Box::new(rest));
        }
        if chunk.capacity() <= 2 * READ {
            self.chunk = chunk;
        }
    }

    fn touch(&mut self, slot: u32) {
        if let Some(conn) = self.conns.get_mut(slot as usize)
            && conn.flags.set(DIRTY)
        {
            self.dirty.push(slot);
        }
    }

    fn stop(&mut self, now: Now, peer: Peer, why: Stop) {
        let Some(conn) = self.conn(peer) else { return };
        if conn.closing.is_none() && conn.flags.has(OPENED) {
            self.serve(now, peer.slot, |_, turn| turn.machine.stop(now, peer, why, turn.out));
        }
        self.begin_close(now, peer.slot, why.close());
    }

    /// Ends the conversation; what is in the output is still written.
    fn begin_close(&mut self, now: Now, slot: u32, why: Close) {
        let Some(conn) = self.conns.get_mut(slot as usize) else { return };
        if matches!(why, Close::PeerClosed | Close::TransportError) {
            // Nobody is left to linger for.
            conn.flags.clear(LINGERING);
            conn.flags.set(HUNG_UP);
        }
        if why == Close::TransportError {
            conn.flags.set(BROKEN);
        }
        self.touch(slot);
        let Some(conn) = self.conns.get_mut(slot as usize) else { return };
        if conn.closing.is_some() {
            return;
        }
        conn.closing = Some(why);
        conn.rest = None;
        conn.flags.clear(PAUSED | RESTING);
        // Whoever does not take its last bytes in time loses them.
        conn.hold = now.instant + LINGER;
        self.schedule(slot);
        self.desk.house.metrics.closed(why);
        self.serve(now, slot, |desk, turn| {
            let peer = turn.peers.peer;
            turn.machine.closed(now, peer, turn.out);
            desk.lost(now, turn.peers, peer, why);
        });
    }

    fn drain_ready(&mut self, now: Now) {
        loop {
            self.post_here(now);
            if self.ready.is_empty() {
                return;
            }
            let mut ready = std::mem::take(&mut self.ready);
            for slot in ready.drain(..) {
                self.drain(now, slot);
            }
            if self.ready.is_empty() {
                self.ready = ready;
            }
        }
    }

    fn drain(&mut self, now: Now, slot: u32) {
        let Some(conn) = self.conns.get_mut(slot as usize) else { return };
        conn.flags.clear(READY);
        let waiting = conn.out.as_ref().map_or(0, |o| o.len());
        let room = self.limits.outbox;
        if conn.closing.is_some() || waiting >= room || conn.client.is_opening {
            return;
        }
        let Some(session) = conn.client.session.clone() else { return };
        let served = self.serve(now, slot, |desk, turn| desk.drain(turn, turn.peers.peer, &session, room));
        if let Some((false, _)) = served
            && let Some(conn) = self.conns.get_mut(slot as usize)
            && !conn.flags.has(READY)
        {
            conn.flags.clear(MORE);
        }
    }

    /// Signals for this driver's own peers skip the mailbox; others are gathered by driver.
    fn post_here(&mut self, now: Now) {
        while !self.desk.post.signals.is_empty() {
            let mut signals = std::mem::take(&mut self.desk.post.signals);
            for (at, signal) in signals.drain(..) {
                if at.driver == self.desk.id {
                    self.signal(now, at.peer, signal);
                } else if let Some(away) = self.away.get_mut(usize::from(at.driver)) {
                    away.push(Mail::Signal(at.peer, signal));
                }
            }
            if self.desk.post.signals.is_empty() {
                self.desk.post.signals = signals;
                return;
            }
        }
    }

    fn post_away(&mut self) {
        for (mailbox, mail) in self.desk.house.boxes.iter().zip(&mut self.away) {
            mailbox.append(mail);
        }
    }

    fn flush(&mut self, now: Now) {
        let mut dirty = std::mem::take(&mut self.dirty);
        for slot in dirty.drain(..) {
            self.write(now, slot);
        }
        dirty.append(&mut self.dirty);
        self.dirty = dirty;
    }

    fn write(&mut self, now: Now, slot: u32) {
        let Some(conn) = self.conns.get_mut(slot as usize) else { return };
        conn.flags.clear(DIRTY);
        if let Some(l) = conn.layers.as_deref_mut() {
            let out = conn.out.get_or_insert_with(|| self.pool.pop().unwrap_or_default());
            if l.stack.is_ready() && !l.plain.is_empty() && l.stack.seal(now, &mut l.plain, out).is_err() {
                conn.flags.set(BROKEN);
            }
            if conn.closing.is_some() && !conn.flags.has(LINGERING) {
                l.stack.close(out);
            }
            if l.plain.is_empty() {
                l.plain = Vec::new();
            }
        }
        if let Some(out) = &mut conn.out {
            if !conn.flags.has(BLOCKED | BROKEN) {
                match write_all(&mut conn.socket, out, &mut self.desk) {
                    Ok(()) => {}
                    Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                        conn.flags.set(BLOCKED);
                        conn.blocked_since = now.instant;
                    }
                    Err(_) => {
                        conn.flags.set(BROKEN);
                    }
                }
            }
            if out.is_empty() {
                conn.blocked_since = Instant::NEVER;
                if let Some(out) = conn.out.take()
                    && self.pool.len() < POOL.0
                    && out.capacity() <= POOL.1
                {
                    self.pool.push(out);
                }
            }
        }
        self.after_write(now, slot);
    }

    fn after_write(&mut self, now: Now, slot: u32) {
        let Some(conn) = self.conns.get_mut(slot as usize) else { return };
        if conn.flags.has(BROKEN) && conn.closing.is_none() {
            return self.begin_close(now, slot, Close::TransportError);
        }
        let is_written = conn.out.is_none();
        let Some(why) = conn.closing else {
            if conn.flags.has(UNREAD) && !conn.flags.has(PAUSED | RESTING) && !is_full(conn, &self.limits) {
                self.read_later(slot);
            }
            let Some(conn) = self.conns.get_mut(slot as usize) else { return };
            if !is_written {
                self.schedule(slot);
            } else if conn.flags.has(MORE) && conn.flags.set(READY) {
                self.ready.push(slot);
            }
            return;
        };
        if conn.flags.has(BROKEN) || (is_written && (conn.flags.has(HUNG_UP) || why == Close::Goodbye)) {
            return self.remove(slot);
        }
        // The peer may still be sending: closing now would answer with a reset, which can overtake what was just said.
        if is_written && conn.flags.set(LINGERING) {
            // It fails only if the peer has gone, which the next read tells too.
            let _ = conn.socket.shutdown(Shutdown::Write);
            self.read_later(slot);
        }
    }

    fn remove(&mut self, slot: u32) {
        if let Some(conn) = self.conns.try_remove(slot as usize) {
            conn.port.open.fetch_sub(1, Ordering::Relaxed);
            self.desk.house.connections.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Makes sure the wheel looks at `slot` in time.
    fn schedule(&mut self, slot: u32) {
        let Some(conn) = self.conns.get_mut(slot as usize) else { return };
        let due = due(conn, &self.limits);
        if due < conn.scheduled {
            let peer = Peer { slot, generation: conn.generation };
            conn.scheduled = self.wheel.set(due, peer);
        }
    }

    fn timeouts(&mut self, now: Now) {
        while let Some((at, peers)) = self.wheel.pop(now.instant) {
            for peer in peers {
                if let Some(conn) = self.conn(peer)
                    && conn.scheduled == at
                {
                    conn.scheduled = Instant::NEVER;
                    self.timeout(now, peer);
                    self.schedule(peer.slot);
                }
            }
        }
        self.desk.router_timeout(now);
    }

    fn timeout(&mut self, now: Now, peer: Peer) {
        let write_timeout = self.limits.write_timeout;
        let Some(conn) = self.conn(peer) else { return };
        if conn.closing.is_some() {
            if conn.hold <= now.instant {
                self.remove(peer.slot);
            }
            return;
        }
        if conn.hold <= now.instant {
            conn.hold = Instant::NEVER;
            if !conn.flags.has(OPENED) {
                return self.begin_close(now, peer.slot, Close::ConnectTimeout);
            }
            if conn.flags.clear(RESTING) {
                self.read_later(peer.slot);
            }
        }
        let Some(conn) = self.conn(peer) else { return };
        if conn.flags.has(BLOCKED) && conn.blocked_since + write_timeout <= now.instant {
            return self.begin_close(now, peer.slot, Close::SlowPeer);
        }
        if conn.flags.has(OPENED) && conn.machine.next_timeout().is_some_and(|(at, _)| at <= now.instant) {
            self.serve(now, peer.slot, |_, turn| turn.machine.timeout(now, turn.out));
        }
    }
}

/// Whether so many answers wait for the peer, or for the store, that it is not read before it takes some: deliveries stop
/// at one outbox, what is over that are answers to what the peer itself sends.
fn is_full(conn: &Conn, limits: &Limits) -> bool {
    conn.client.held >= MOST_HELD || conn.out.as_ref().is_some_and(|out| out.len() >= 2 * limits.outbox)
}

/// When `conn` next needs to be looked at.
fn due(conn: &Conn, limits: &Limits) -> Instant {
    let machine = match conn.machine.next_timeout() {
        Some((at, _)) if conn.closing.is_none() && conn.flags.has(OPENED) => at,
        _ => Instant::NEVER,
    };
    let blocked =
        if conn.flags.has(BLOCKED) { conn.blocked_since + limits.write_timeout } else { Instant::NEVER };
    machine.min(conn.hold).min(blocked)
}

/// Writes until everything is written or the socket is full; what was written leaves `out`.
fn write_all(socket: &mut mio::net::TcpStream, out: &mut Vec<u8>, desk: &mut Desk) -> io::Result<()> {
    let mut done = 0;
    let result = loop {
        if done == out.len() {
            break Ok(());
        }
        match socket.write(&out[done..]) {
            Ok(0) => break Err(io::ErrorKind::WriteZero.into()),
            Ok(n) => done += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => break Err(e),
        }
    };
    desk.tally.bytes_out(done);
    out.drain(..done);
    result
}

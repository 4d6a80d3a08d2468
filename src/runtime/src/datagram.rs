//! The datagram driver: one machine and one socket, all peers in a table by address.
//!
//! Datagrams are received in batches (`recvmmsg`, and GRO where the kernel offers it) and split off one buffer. What
//! machines send leaves as one datagram each, many of them with one call, from the address that the peer had written to.
//! A full send buffer drops and counts: every protocol over UDP repeats what it needs.

use std::io::{self, IoSliceMut};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::ops::Range;
use std::sync::Arc;

use bytes::BytesMut;
use dtls::NotSent;
use gateway::{Close, Deliver, Drop, Flow, Gateway, Instant, Now, Outbox, Peer, Stop};
use nix::sys::socket::{setsockopt, sockopt};
use quinn_udp::{BATCH_SIZE, RecvMeta, UdpSocketState};
use router::{Session, Signal};
use tokio::io::unix::AsyncFd;

use crate::batch::{self, Datagram};
use crate::client::Pace;
use crate::house::{House, Port};
use crate::listen::canonical;
use crate::mailbox::Mail;
use crate::perform::{Desk, Peers, Turn};
use secure::Secure;
use table::{Table, Way};

mod associations;
mod secure;
mod table;

/// Bytes of one receive buffer: a coalesced batch of the kernel fits.
const BUFFER: usize = 64 << 10;
/// Receive buffers a socket; each may hold many datagrams. Memory that no datagram has reached takes none.
const BUFFERS: usize = BATCH_SIZE;
/// Batches received before mail and timers have their turn.
const BATCHES: usize = 16;
/// Messages that may wait for record numbers that the store has not written yet.
const UNSENT: usize = 1024;
/// Restored associations whose conversations begin again in one turn.
const SLEEPERS: usize = 64;

/// See the module.
struct Datagrams {
    desk: Desk,
    table: Table,
    machine: Box<dyn Gateway>,
    out: Outbox,
    socket: AsyncFd<UdpSocket>,
    state: UdpSocketState,
    chunk: BytesMut,
    secure: Option<Box<Secure>>,
    /// Messages that wait for record numbers.
    unsent: Vec<(Peer, bool, Vec<u8>)>,
    /// Datagrams as they leave.
    sealed: Vec<u8>,
    is_stopping: bool,
}

/// Runs datagram driver `id` for `port` until it is stopped.
pub async fn drive(house: Arc<House>, id: u16, port: Arc<Port>, socket: UdpSocket) -> io::Result<()> {
    let state = UdpSocketState::new((&socket).into())?;
    // It asks the kernel to note when each datagram came, which nobody here wants to know.
    setsockopt(&socket, sockopt::ReceiveTimestampns, &false)?;
    #[expect(
        deprecated,
        reason = "its successor is unsafe for the sake of file descriptors that are closed while watched; this socket stays open as long as the AsyncFd owns it"
    )]
    let socket = AsyncFd::new(socket)?;
    let machine = port.factory.build();
    let table = Table::new(port);
    let out = Outbox { is_framed: true, ..Outbox::default() };
    let desk = Desk::new(house.clone(), id);
    let secure = match &table.port.setup.dtls {
        Some(dtls) => Some(Box::new(Secure::open(&house, &table.port, dtls).map_err(io::Error::other)?)),
        None => None,
    };
    let (chunk, unsent, sealed) = (BytesMut::new(), Vec::new(), Vec::new());
    let mut driver = Datagrams {
        desk,
        table,
        machine,
        out,
        socket,
        state,
        chunk,
        secure,
        unsent,
        sealed,
        is_stopping: false,
    };
    let mut memory: Vec<Vec<u8>> = (0..BUFFERS).map(|_| vec![0; BUFFER]).collect();
    let mut metas = [RecvMeta::default(); BUFFERS];
    let mut mail = Vec::new();
    // Who was restored is looked after at once.
    driver.turn(house.clock.now());
    while !driver.is_stopping {
        let until = driver.next_timeout().map(|at| house.clock.until(at));
        let sleep = async {
            match until {
                Some(until) => tokio::time::sleep_until(until.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            guard = driver.socket.readable() => drop(guard?),
            () = house.boxes[usize::from(id)].wait() => {}
            () = sleep => {}
        }
        driver.receive(&mut memory, &mut metas);
        let now = house.clock.now();
        house.boxes[usize::from(id)].take(&mut mail);
        for piece in mail.drain(..) {
            driver.mail(now, piece);
        }
        driver.turn(now);
        tokio::task::yield_now().await;
    }
    Ok(())
}

impl Datagrams {
    fn next_timeout(&self) -> Option<Instant> {
        let machine = self.machine.next_timeout().map(|(at, _)| at);
        let secure = self.secure.as_ref().and_then(|s| s.next_timeout());
        [machine, secure, self.desk.house.router.next_timeout()].into_iter().flatten().min()
    }

    fn receive(&mut self, memory: &mut [Vec<u8>], metas: &mut [RecvMeta]) {
        for _ in 0..BATCHES {
            let mut slices: Vec<IoSliceMut<'_>> = memory.iter_mut().map(|b| IoSliceMut::new(b)).collect();
            let received = self
                .socket
                .try_io(tokio::io::Interest::READABLE, |s| self.state.recv(s.into(), &mut slices, metas));
            let n = match received {
                Ok(n) => n,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return,
                // An ICMP error of an earlier send; the next call reads on.
                Err(_) => continue,
            };
            let now = self.desk.house.clock.now();
            for (buffer, meta) in memory.iter().zip(&*metas).take(n) {
                let stride = meta.stride.max(1);
                for datagram in buffer[..meta.len.min(buffer.len())].chunks(stride) {
                    match meta.dst_ip.map(|ip| ip.to_canonical()).filter(IpAddr::is_multicast) {
                        Some(group) => self.group(now, meta.addr, group, datagram),
                        None => self.datagram(now, meta.addr, meta.dst_ip, datagram),
                    }
                }
                if meta.len == 0 {
                    self.datagram(now, meta.addr, meta.dst_ip, &[]);
                }
            }
            self.after(now);
        }
    }

    fn datagram(&mut self, now: Now, address: SocketAddr, local: Option<IpAddr>, bytes: &[u8]) {
        self.desk.tally.bytes_in(bytes.len());
        if let Some(secure) = &mut self.secure {
            secure.receive(now, address, bytes);
            if secure.has_refused() {
                self.desk.house.auth.handshake_failed(now, address.ip());
                if self.desk.may_complain(now, address) {
                    let listener = &self.table.port.facts.name;
                    tracing::info!(%address, %listener, "DTLS: the pre-shared key is another, or nobody has the identity");
                }
            }
            return self.happened(now, local);
        }
        if self.plain(now, (address, local), bytes, false) {
            self.plain(now, (address, local), bytes, false);
        }
    }

    /// A datagram without DTLS; true if it is to be handed in again, to a new peer.
    fn plain(&mut self, now: Now, way: Way, bytes: &[u8], is_group: bool) -> bool {
        let node = self.machine.node(bytes);
        let known = self.table.heard(way, node, bytes.len());
        let Some(peer) = known.or_else(|| self.open(now, way, node)) else {
            self.desk.house.metrics.dropped(Drop::PeersFull);
            return false;
        };
        let is_stranger = self.input(now, peer, bytes, is_group) == Flow::Stranger;
        if is_stranger {
            self.table.displace(peer);
        }
        is_stranger && known.is_some()
    }

    /// A datagram that was sent to a group is answered from an address of this host. The system hands over those to groups
    /// that others have joined, too. DTLS has no groups (RFC 7252, 9.1): what comes through one is not sealed.
    fn group(&mut self, now: Now, address: SocketAddr, group: IpAddr, bytes: &[u8]) {
        self.desk.tally.bytes_in(bytes.len());
        if self.secure.is_some() || !self.table.port.setup.groups.contains(&group) {
            return self.desk.house.metrics.dropped(Drop::Unexpected);
        }
        self.plain(now, (address, None), bytes, true);
    }

    fn open(&mut self, now: Now, way: Way, node: &[u8]) -> Option<Peer> {
        let peer = self.table.add(now, way, node)?;
        if let Some(facts) = self.table.facts(peer) {
            self.machine.opened(now, peer, &facts, &mut self.out);
        }
        Some(peer)
    }

    fn input(&mut self, now: Now, peer: Peer, bytes: &[u8], is_group: bool) -> Flow {
        let Some(client) = self.table.client(peer) else { return Flow::Continue };
        if client.rest(now.instant).is_some() {
            self.desk.house.metrics.dropped(Drop::RateLimited);
            return Flow::Continue;
        }
        client.spend(now.instant, 0, bytes.len());
        self.out.is_traced = self.desk.is_traced(client);
        self.chunk.clear();
        self.chunk.extend_from_slice(bytes);
        let mut flow = Flow::Continue;
        if is_group {
            self.machine.group(now, peer, &mut self.chunk, &mut self.out);
        } else {
            match self.machine.input(now, peer, &mut self.chunk, &mut self.out) {
                Ok(next) => flow = next,
                Err(why) => self.table.close(peer, why),
            }
        }
        self.perform(now);
        flow
    }

    fn work<R>(&mut self, now: Now, call: impl FnOnce(&mut Desk, &mut Turn<'_, Table>) -> R) -> R {
        let turn = &mut Turn { now, peers: &mut self.table, machine: &mut *self.machine, out: &mut self.out };
        call(&mut self.desk, turn)
    }

    fn perform(&mut self, now: Now) {
        self.work(now, |desk, turn| desk.perform(turn));
    }

    fn mail(&mut self, now: Now, mail: Mail) {
        match mail {
            Mail::Signal(peer, signal) => self.signal(now, peer, signal),
            Mail::Verdict(peer, ticket, result) => {
                self.work(now, |desk, turn| desk.verdict(turn, peer, ticket, result));
            }
            Mail::Describe(peer, answer) => {
                let Some(entry) = self.table.peek(peer) else { return };
                let Some(transport) = self.table.facts(peer).map(|f| f.transport) else { return };
                let mut into = Vec::new();
                Desk::describe(&entry.client, canonical(entry.way.0), &self.table.port, transport, &mut into);
                if let (Some(secure), Some(id)) = (&self.secure, self.table.association(peer)) {
                    secure.describe(now, id, &mut into);
                }
                self.machine.describe(peer, &mut into);
                // Who asked may have gone.
                let _ = answer.send(into);
            }
            Mail::Transports(peers, answer) => {
                let transport = |peer: &Peer| self.table.facts(*peer).map(|f| f.transport);
                // Who asked may have gone.
                let _ = answer.send(peers.iter().map(transport).collect());
            }
            Mail::Command(peer, request, answer) => {
                self.work(now, |desk, turn| desk.command(turn, peer, &request, answer));
            }
            Mail::Called(peer, ticket, results) => {
                self.work(now, |desk, turn| desk.called(turn, (peer, ticket), results));
            }
            Mail::Stop(peer, why) => self.stop(now, peer, why),
            Mail::Regrant(exchanged) => {
                let mut gone = Vec::new();
                for (peer, entry) in self.table.entries() {
                    if !entry.client.regrant(&self.desk.house.auth, entry.way.0) {
                        gone.push(peer);
                    }
                }
                gone.into_iter().for_each(|peer| self.stop(now, peer, Stop::Kicked));
                self.revoke(now, &exchanged);
            }
            Mail::ShutDown => {
                self.is_stopping = true;
                let peers: Vec<Peer> = self.table.peers().collect();
                for peer in peers {
                    self.stop(now, peer, Stop::ShuttingDown);
                }
            }
            // Only stream drivers are dealt connections.
            Mail::Accepted(..) => {}
        }
    }

    fn signal(&mut self, now: Now, peer: Peer, signal: Signal) {
        if self.table.peek(peer).is_none() {
            return;
        }
        match signal {
            Signal::Ready => self.table.ready(peer),
            Signal::Stop(why) => self.stop(now, peer, why),
            Signal::Fast(fast) => {
                self.work(now, |desk, turn| desk.fast(turn, peer, &fast));
                self.perform(now);
            }
        }
    }

    fn stop(&mut self, now: Now, peer: Peer, why: Stop) {
        if self.table.peek(peer).is_some() {
            self.machine.stop(now, peer, why, &mut self.out);
            self.table.close(peer, why.close());
            self.perform(now);
        }
    }

    fn turn(&mut self, now: Now) {
        while let Some(held) = self.desk.next_written() {
            if self.table.peek(held.peer).is_some() {
                self.work(now, |desk, turn| desk.written(turn, held));
            }
        }
        self.desk.router_timeout(now);
        self.look_after_secure(now);
        if self.machine.next_timeout().is_some_and(|(at, _)| at <= now.instant) {
            self.out.is_traced = self.desk.house.traces.is_any();
            self.machine.timeout(now, &mut self.out);
            self.perform(now);
        }
        self.after(now);
        if let Some(secure) = &self.secure {
            self.table.port.count_associations(secure.counts());
        }
        self.desk.tally.flush(&self.desk.house.metrics);
        let unwritten = self.secure.as_ref().map_or((false, false), |s| s.unwritten());
        if unwritten.0 {
            self.desk.house.boxes[usize::from(self.desk.id)].wait_for_store(true);
        }
        if self.desk.has_written() || unwritten.1 {
            self.desk.house.boxes[usize::from(self.desk.id)].wake();
        }
    }

    /// Deliveries, sends, farewells and signals, until there are none.
    fn after(&mut self, now: Now) {
        loop {
            self.send(now);
            while let Some(slot) = self.table.ready.pop() {
                self.drain(now, slot);
            }
            for (to, bytes) in std::mem::take(&mut self.table.announced) {
                if self.secure.is_none() {
                    self.announce(to, &bytes);
                }
            }
            for (id, address) in std::mem::take(&mut self.table.reached) {
                if let Some(secure) = &mut self.secure {
                    secure.moved(id, address);
                }
            }
            for (peer, why) in std::mem::take(&mut self.table.closing) {
                self.end(now, peer, why);
            }
            // Goodbyes of associations that were ended.
            self.happened(now, None);
            self.post(now);
            let is_quiet = self.secure.as_ref().is_none_or(|s| s.happened.is_empty());
            if self.table.ready.is_empty()
                && self.table.closing.is_empty()
                && self.out.frames.is_empty()
                && is_quiet
            {
                return;
            }
        }
    }

    fn drain(&mut self, now: Now, slot: u32) {
        let Some((peer, entry)) = self.table.take_ready(slot) else { return };
        if entry.client.is_opening {
            return;
        }
        let Some(session) = entry.client.session.clone() else { return };
        self.out.is_traced = self.desk.is_traced(&entry.client);
        let more = match entry.client.pace {
            Pace::Free => self.work(now, |desk, turn| desk.drain(turn, peer, &session, BUFFER)),
            Pace::Held => return,
            Pace::Wanted => {
                entry.client.pace = Pace::Held;
                self.one(now, peer, &session);
                false
            }
        };
        self.perform(now);
        if self.out.wire.len() >= BUFFER {
            self.send(now);
        }
        if more {
            self.table.ready(peer);
        }
    }

    /// Hands over one delivery, or says that none is there and remembers that one is wanted.
    fn one(&mut self, now: Now, peer: Peer, session: &Session) {
        if self.work(now, |desk, turn| desk.drain(turn, peer, session, 0)) {
            return;
        }
        if let Some(client) = self.table.client(peer) {
            client.pace = Pace::Wanted;
        }
        if !self.desk.house.router.has_unsent(session) {
            self.machine.deliver(now, peer, &Deliver::Nothing, &mut self.out);
        }
    }

    fn end(&mut self, now: Now, peer: Peer, why: Close) {
        if self.table.peek(peer).is_none() {
            return;
        }
        self.send(now);
        self.machine.closed(now, peer, &mut self.out);
        self.perform(now);
        let is_nobody = self.table.peek(peer).is_some_and(table::Entry::is_nobody);
        if let (Some(secure), Some(id)) = (&mut self.secure, self.table.association(peer)) {
            secure.detach(id, peer);
            // Others may come back as who they are; who never was anybody makes room for them.
            if why == Close::Kicked || is_nobody {
                secure.close(now, id);
            }
        }
        self.desk.lost(now, &mut self.table, peer, why);
        self.desk.house.metrics.closed(why);
        self.table.remove(peer);
    }

    fn post(&mut self, now: Now) {
        while !self.desk.post.signals.is_empty() {
            for (at, signal) in std::mem::take(&mut self.desk.post.signals) {
                if at.driver == self.desk.id {
                    self.signal(now, at.peer, signal);
                } else if let Some(mailbox) = self.desk.house.boxes.get(usize::from(at.driver)) {
                    mailbox.push(Mail::Signal(at.peer, signal));
                }
            }
        }
    }

    fn send(&mut self, now: Now) {
        if self.out.frames.is_empty() {
            return;
        }
        let (out, mut sealed) = (std::mem::take(&mut self.out), std::mem::take(&mut self.sealed));
        sealed.clear();
        let mut leaving = Vec::with_capacity(out.frames.len());
        for (frame, message) in out.messages() {
            let (begin, mut length, mut is_sealed) = (sealed.len(), message.len(), false);
            if let (Some(secure), Some(id)) = (&mut self.secure, self.table.association(frame.peer)) {
                if let Err(why) = secure.seal(now, id, message, &mut sealed) {
                    sealed.truncate(begin);
                    if why == NotSent::NotReserved && self.unsent.len() < UNSENT {
                        self.unsent.push((frame.peer, frame.is_probe, message.to_vec()));
                    } else {
                        self.desk.house.metrics.dropped(Drop::DtlsUnsent);
                    }
                    continue;
                }
                (length, is_sealed) = (sealed.len() - begin, true);
            }
            let Some(ways) = self.table.ways(frame.peer, frame.is_probe, length) else { continue };
            let record = is_sealed.then_some(begin..sealed.len());
            leaving.extend(ways.into_iter().flatten().map(|way| (way, message, record.clone())));
        }
        let bytes = |message, record: Option<Range<usize>>| record.map_or(message, |r| &sealed[r]);
        let batch: Vec<_> = leaving
            .into_iter()
            .map(|((to, from), message, record)| Datagram { to, from, bytes: bytes(message, record) })
            .collect();
        self.transmit(&batch);
        (self.out, self.sealed) = (out, sealed);
        self.out.wire.clear();
        self.out.frames.clear();
    }

    /// Sends to an address that is no peer's, which may be that of a whole network. Peers have none such.
    fn announce(&mut self, to: SocketAddr, bytes: &[u8]) {
        let socket = self.socket.get_ref();
        let sent = socket.set_broadcast(true).and_then(|()| socket.send_to(bytes, to));
        match sent.and_then(|n| socket.set_broadcast(false).map(|()| n)) {
            Ok(n) => self.desk.tally.bytes_out(n),
            Err(error) => {
                let listener = &self.table.port.facts.name;
                tracing::warn!(%error, address = %to, %listener, "cannot announce this gateway");
                self.desk.house.metrics.dropped(Drop::SendBufferFull);
            }
        }
    }

    fn transmit(&mut self, batch: &[Datagram<'_>]) {
        let Datagrams { desk, socket, .. } = self;
        batch::send(socket.get_ref(), batch, |datagram, sent| match sent {
            Ok(()) => desk.tally.bytes_out(datagram.bytes.len()),
            Err(error) => {
                if error.kind() != io::ErrorKind::WouldBlock {
                    tracing::trace!(%error, address = %datagram.to, "cannot send");
                }
                desk.house.metrics.dropped(Drop::SendBufferFull);
            }
        });
    }
}

/// Whether a listener's DTLS can be opened as it is configured; what is wrong if not.
pub fn check(dtls: &crate::config::Dtls) -> Result<(), String> {
    secure::check(dtls)
}

mod connection;
mod delivery;
mod devices;
mod hostile;
mod sleep;
mod topics;

use std::collections::{BTreeMap, VecDeque};

use super::*;
use bytes::Bytes;
use gateway::{Connected, Delivery, DeliveryId, Listener, Message as Published, Qos, Transport, Will};

/// A session as the router has it.
#[derive(Default)]
struct Session {
    at: Option<Peer>,
    queue: VecDeque<(String, Vec<u8>, Qos)>,
    in_flight: Option<(DeliveryId, Published, Qos)>,
    /// The client has it, and has not completed it.
    received: Option<DeliveryId>,
    /// What was in flight when the connection ended, to be delivered again.
    is_again: bool,
    last_id: u16,
    facts: BTreeMap<Box<str>, Bytes>,
    will: Option<Box<Will>>,
    expiry: Duration,
    filters: Vec<(String, Qos)>,
    once: Vec<u16>,
}

/// A machine, its driver and a router that say yes, and a clock.
struct Bench {
    machine: MqttSn,
    now: Now,
    out: Outbox,
    slots: u32,
    /// Peers by port and node, and those whose delivery is wanted.
    at: BTreeMap<(u16, Vec<u8>), Peer>,
    ports: BTreeMap<Peer, u16>,
    who: BTreeMap<Peer, String>,
    wanted: BTreeMap<Peer, bool>,
    sessions: BTreeMap<String, Session>,
    published: Vec<(String, Vec<u8>, Qos, bool)>,
    wills: Vec<(String, Vec<u8>)>,
    drops: Vec<Drop>,
    closed: Vec<Close>,
    announced: Vec<Vec<u8>>,
    refusal: Option<Refusal>,
    /// What a new will is refused with.
    refused_will: Option<Refusal>,
    connects: Vec<gateway::Connect>,
    /// Answers to CONNECT that wait for the store, if they have to.
    held: Option<Vec<(Peer, Ticket, Answer)>>,
    /// Who is to be told that its session is elsewhere.
    taken_over: Vec<Peer>,
    sent: Vec<(Peer, Vec<u8>)>,
    /// What was sent only to where a peer may be, and where it is now.
    probes: Vec<Vec<u8>>,
    reached: Vec<SocketAddr>,
    /// New peers have proven over DTLS to be this client.
    credential: Option<&'static str>,
}

fn bench() -> Bench {
    bench_with(Config::default())
}

fn bench_with(config: Config) -> Bench {
    Bench {
        machine: MqttSn::new(Arc::new(config)),
        now: Now::from_micros(0),
        out: Outbox { is_framed: true, ..Outbox::default() },
        slots: 0,
        at: BTreeMap::new(),
        ports: BTreeMap::new(),
        who: BTreeMap::new(),
        wanted: BTreeMap::new(),
        sessions: BTreeMap::new(),
        published: Vec::new(),
        wills: Vec::new(),
        drops: Vec::new(),
        closed: Vec::new(),
        announced: Vec::new(),
        refusal: None,
        refused_will: None,
        connects: Vec::new(),
        held: None,
        taken_over: Vec::new(),
        sent: Vec::new(),
        probes: Vec::new(),
        reached: Vec::new(),
        credential: None,
    }
}

fn address(port: u16) -> SocketAddr {
    // Ports from 1000 on are those of other hosts.
    SocketAddr::from(([192, 0, 2, (port / 1000) as u8 + 1], port))
}

/// A message of this type: `text` is hexadecimal, but for what stands in quotes.
fn bytes(text: &str) -> Vec<u8> {
    let mut all = Vec::new();
    for (n, part) in text.split('"').enumerate() {
        if n % 2 == 1 {
            all.extend_from_slice(part.as_bytes());
            continue;
        }
        for octet in part.split_whitespace() {
            all.push(u8::from_str_radix(octet, 16).unwrap());
        }
    }
    all
}

impl Bench {
    fn peer(&mut self, port: u16, datagram: &[u8]) -> Peer {
        let node = self.machine.node(datagram).to_vec();
        if let Some(peer) = self.at.get(&(port, node.clone())) {
            return *peer;
        }
        self.slots += 1;
        let peer = Peer { slot: self.slots, generation: 1 };
        let listener = Listener::new("udp", "mqtt_sn");
        let facts = Facts {
            client_id: self.credential.map(Into::into),
            ..Facts::new(
                Arc::new(listener),
                if self.credential.is_some() { Transport::Dtls } else { Transport::Udp },
                address(port),
            )
        };
        self.at.insert((port, node), peer);
        self.ports.insert(peer, port);
        self.machine.opened(self.now, peer, &facts, &mut self.out);
        peer
    }

    /// Sends this from a port, and returns what came back there and elsewhere, as `port: octets`.
    fn say(&mut self, port: u16, text: &str) -> Vec<String> {
        let datagram = bytes(text);
        self.raw(port, &datagram)
    }

    fn raw(&mut self, port: u16, datagram: &[u8]) -> Vec<String> {
        for _ in 0..2 {
            let peer = self.peer(port, datagram);
            let mut buffer = BytesMut::from(datagram);
            let flow = self.machine.input(self.now, peer, &mut buffer, &mut self.out).unwrap();
            self.perform();
            if flow != Flow::Stranger {
                break;
            }
            self.at.retain(|_, p| *p != peer);
            self.ports.remove(&peer);
        }
        self.heard()
    }

    /// What was sent since the last look; `@` is an address that nobody is at.
    fn heard(&mut self) -> Vec<String> {
        let sent = std::mem::take(&mut self.sent);
        let text = |(peer, bytes): (Peer, Vec<u8>)| {
            let port = self.ports.get(&peer).map_or("@".to_owned(), u16::to_string);
            let octets: Vec<String> = bytes.iter().map(|b| format!("{b:02x}")).collect();
            format!("{port}: {}", octets.join(" "))
        };
        sent.into_iter().map(text).collect()
    }

    fn wait(&mut self, ms: u64) -> Vec<String> {
        self.now = self.now.after(Duration::from_millis(ms));
        while self.machine.next_timeout().is_some_and(|(at, _)| at <= self.now.instant) {
            self.machine.timeout(self.now, &mut self.out);
            self.perform();
        }
        self.heard()
    }

    /// Something for a session's queue.
    fn queue(&mut self, client: &str, topic: &str, payload: &str, qos: u8) -> Vec<String> {
        let session = self.sessions.get_mut(client).unwrap();
        session.queue.push_back((topic.to_owned(), payload.as_bytes().to_vec(), Qos::from_u8(qos).unwrap()));
        self.perform();
        self.heard()
    }

    /// The gateway is started again: sessions whose expiry is not zero are there still.
    fn restart(&mut self, config: Config) {
        let mut new = bench_with(config);
        (new.now, new.slots) = (self.now, self.slots);
        new.sessions = std::mem::take(&mut self.sessions);
        new.sessions.retain(|_, s| !s.expiry.is_zero());
        new.sessions
            .values_mut()
            .for_each(|s| (s.at, s.is_again) = (None, s.in_flight.is_some() || s.received.is_some()));
        *self = new;
    }

    fn perform(&mut self) {
        loop {
            for (frame, bytes) in self.out.messages() {
                if frame.is_probe {
                    self.probes.push(bytes.to_vec());
                } else {
                    self.sent.push((frame.peer, bytes.to_vec()));
                }
            }
            (self.out.wire, self.out.frames) = (Vec::new(), Vec::new());
            let actions = std::mem::take(&mut self.out.actions);
            if actions.is_empty() && !self.tell() && !self.drain() {
                return;
            }
            actions.into_iter().for_each(|action| self.act(action));
        }
    }

    /// Stops who was taken over; false if nobody was.
    fn tell(&mut self) -> bool {
        let gone = std::mem::take(&mut self.taken_over);
        for peer in &gone {
            if self.machine.peers.get(*peer).is_some() {
                self.machine.stop(self.now, *peer, Stop::TakenOver, &mut self.out);
                self.out.act(Action::Close(*peer, Close::TakenOver));
            }
        }
        !gone.is_empty()
    }

    /// One delivery to somebody who wants one; false if nobody does.
    fn drain(&mut self) -> bool {
        let wanting: Vec<Peer> = self.wanted.iter().filter(|(_, w)| **w).map(|(p, _)| *p).collect();
        for peer in wanting {
            let Some(session) = self.who.get(&peer).and_then(|id| self.sessions.get_mut(id)) else {
                continue;
            };
            self.wanted.insert(peer, false);
            if let Some(id) = session.received.filter(|_| std::mem::take(&mut session.is_again)) {
                self.machine.deliver(self.now, peer, &Deliver::Release(id), &mut self.out);
                return true;
            }
            let duplicate = std::mem::take(&mut session.is_again);
            if !duplicate {
                let Some((topic, payload, qos)) = session.queue.pop_front() else {
                    self.machine.deliver(self.now, peer, &Deliver::Nothing, &mut self.out);
                    if self.out.actions.is_empty() && self.out.frames.is_empty() {
                        // It comes when it is there.
                        self.wanted.insert(peer, !session.queue.is_empty() || session.at == Some(peer));
                        continue;
                    }
                    return true;
                };
                session.last_id += u16::from(qos != Qos::AtMostOnce);
                session.in_flight =
                    Some((DeliveryId(session.last_id), Published::new(self.now, &topic, &payload), qos));
            }
            let Some((id, message, qos)) = session.in_flight.clone() else { continue };
            if qos == Qos::AtMostOnce {
                session.in_flight = None;
            }
            let id = (qos != Qos::AtMostOnce).then_some(id);
            let topic = message.topic().to_owned();
            let d = Delivery {
                id,
                message: &message,
                topic: &topic,
                qos,
                retain: false,
                duplicate,
                subscriptions: &[],
            };
            self.machine.deliver(self.now, peer, &Deliver::Message(d), &mut self.out);
            return true;
        }
        false
    }

    fn session(&mut self, peer: Peer) -> Option<&mut Session> {
        self.sessions.get_mut(self.who.get(&peer)?)
    }

    /// The peer's connection with its session is over.
    fn leave(&mut self, peer: Peer, with_will: bool, expiry: Option<Duration>) {
        let Some(id) = self.who.remove(&peer) else { return };
        let Some(session) = self.sessions.get_mut(&id) else { return };
        let will = session.will.take().filter(|_| with_will);
        self.wills.extend(will.map(|w| (w.message.topic().to_owned(), w.message.payload().to_vec())));
        session.at = None;
        session.is_again = session.in_flight.is_some() || session.received.is_some();
        session.expiry = expiry.unwrap_or(session.expiry);
        if session.expiry.is_zero() {
            self.sessions.remove(&id);
        }
    }

    fn reply(&mut self, peer: Peer, ticket: Ticket, answer: Answer) {
        self.machine.reply(self.now, peer, ticket, answer, &mut self.out);
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Connect(peer, ticket, connect) => self.connect(peer, ticket, *connect),
            Action::Publish(peer, publish) => {
                let m = &publish.message;
                let is_new = publish.once.is_none_or(|id| {
                    let known = &mut self.session(peer).unwrap().once;
                    let is_new = !known.contains(&id);
                    known.push(id);
                    is_new
                });
                if is_new {
                    let published = (m.topic().to_owned(), m.payload().to_vec(), m.qos(), m.retain());
                    self.published.push(published);
                }
                if let Some(ticket) = publish.ticket {
                    self.reply(peer, ticket, self.refusal.map_or(Answer::Published(1), Answer::Refused));
                }
            }
            Action::Release(peer, ticket, id) => {
                let known = &mut self.session(peer).unwrap().once;
                let was = known.contains(&id);
                known.retain(|k| *k != id);
                self.reply(peer, ticket, Answer::Known(was));
            }
            Action::Receive(peer, ticket, id) => {
                let session = self.session(peer).unwrap();
                let was = session.in_flight.take_if(|(flying, ..)| *flying == id).is_some();
                let known = was || session.received == Some(id);
                session.received = known.then_some(id);
                self.reply(peer, ticket, Answer::Known(known));
            }
            Action::Settle(peer, id, _) => {
                let session = self.session(peer).unwrap();
                session.in_flight.take_if(|(flying, ..)| *flying == id);
                session.received.take_if(|received| *received == id);
            }
            Action::Subscribe(peer, ticket, list) => {
                let session = self.session(peer).unwrap();
                session.filters.extend(list.iter().map(|s| (s.filter.as_str().to_owned(), s.qos)));
                let results = list.iter().map(|s| Ok(s.qos)).collect();
                self.reply(peer, ticket, Answer::Subscribed(results));
            }
            Action::Unsubscribe(peer, ticket, list) => {
                let session = self.session(peer).unwrap();
                session.filters.retain(|(f, _)| !list.iter().any(|l| l.as_str() == f));
                self.reply(peer, ticket, Answer::Unsubscribed(vec![Ok(true)]));
            }
            Action::Save(peer, ticket, name, value) => {
                let facts = &mut self.session(peer).unwrap().facts;
                match value {
                    Some(value) => facts.insert(name, value),
                    None => facts.remove(&name),
                };
                self.reply(peer, ticket, Answer::Saved);
            }
            Action::SetWill(peer, ticket, _) if self.refused_will.is_some() => {
                self.reply(peer, ticket, Answer::Refused(self.refused_will.unwrap()));
            }
            Action::SetWill(peer, ticket, will) => {
                self.session(peer).unwrap().will = will;
                self.reply(peer, ticket, Answer::Saved);
            }
            Action::SetExpiry(peer, expiry) => self.session(peer).unwrap().expiry = expiry,
            Action::Want(peer, wants) => {
                self.wanted.insert(peer, wants);
            }
            Action::Disconnect(peer, how) => self.leave(peer, how.with_will, how.expiry),
            Action::Close(peer, why) => {
                self.closed.push(why);
                self.machine.closed(self.now, peer, &mut self.out);
                self.leave(peer, true, None);
                self.wanted.remove(&peer);
                self.at.retain(|_, p| *p != peer);
            }
            Action::Drop(_, why) => self.drops.push(why),
            Action::Reached(_, address) => self.reached.push(address),
            Action::Announce(_, bytes) => self.announced.push(bytes),
            other => unreachable!("{other:?}"),
        }
    }

    fn connect(&mut self, peer: Peer, ticket: Ticket, mut connect: gateway::Connect) {
        self.connects.push(connect.clone());
        let is_no_session = |only_if: &&gateway::OnlyIf| {
            let session = self.sessions.get(&*connect.client_id);
            let fact = session.and_then(|s| s.facts.get(only_if.fact)).map(|value| &value[..]);
            !only_if.holds(gateway::Found { fact, is_connected: session.is_some_and(|s| s.at.is_some()) })
        };
        let no_session = connect.only_if.as_ref().filter(is_no_session).map(|_| Refusal::NoSession);
        if let Some(why) = self.refusal.or(no_session) {
            return self.reply(peer, ticket, Answer::Refused(why));
        }
        self.leave(peer, false, None);
        let id = if connect.client_id.is_empty() {
            format!("auto-{}", peer.slot)
        } else {
            connect.client_id.into()
        };
        let before = self.sessions.get(&id).and_then(|s| s.at);
        assert_eq!(before, before.and(connect.moved_from), "taken over: its will would be published");
        if connect.clean_start {
            self.sessions.remove(&id);
        }
        let session_present = self.sessions.contains_key(&id);
        let session = self.sessions.entry(id.clone()).or_default();
        session.is_again |= before.is_some() && (session.in_flight.is_some() || session.received.is_some());
        (session.at, session.will, session.expiry) = (Some(peer), connect.will.take(), connect.expiry);
        let facts = session.facts.iter().map(|(n, v)| (n.clone(), v.clone())).collect();
        self.who.insert(peer, id.clone());
        let connected = Connected { client_id: id.into(), session_present, data: None, facts };
        let answer = Answer::Connected(Box::new(connected));
        if let Some(held) = &mut self.held {
            held.push((peer, ticket, answer));
        } else {
            self.reply(peer, ticket, answer);
        }
        if let Some(before) = before {
            self.who.remove(&before);
            self.taken_over.push(before);
        }
    }

    /// What the store kept from CONNECT on is written.
    fn write(&mut self) -> Vec<String> {
        for (peer, ticket, answer) in self.held.take().unwrap_or_default() {
            self.reply(peer, ticket, answer);
        }
        self.perform();
        self.heard()
    }

    /// A client that is connected, with CleanSession or without.
    fn join(&mut self, port: u16, client: &str, is_clean: bool) {
        let flags = if is_clean { "04" } else { "00" };
        let length = 6 + client.len();
        let text = format!("{length:02x} 04 {flags} 01 00 3c \"{client}\"");
        assert_eq!(self.say(port, &text), [format!("{port}: 03 05 00")]);
    }
}

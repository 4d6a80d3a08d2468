//! The MQTT-SN machine with three peers and a driver that does as the contract says, and says anything: the first byte
//! chooses settings, then come steps: datagrams, answers to what was asked, deliveries, time, the end of a peer.
//!
//! Checked throughout: what is sent are messages that a gateway sends, to peers that are there; nothing is delivered to who
//! has not asked for it, and so nothing of QoS 1 or 2 before the last was settled; a deadline that has passed is not asked
//! for again.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use gateway::{
    Action, Answer, Connected, Deliver, Delivery, DeliveryId, Facts, Flow, Gateway, Listener, Message, Now,
    Outbox, Peer, Qos, Refusal, Stop, Ticket, Transport,
};
use mqtt_sn::frame::{self, kind};
use mqtt_sn::{Config, MqttSn, Rebind};
use wire::{Reader, Short};

/// What was asked and is not answered.
enum Asked {
    /// To be this client.
    Connect(Box<str>),
    Publish,
    Subscribe(usize),
    Unsubscribe(usize),
    Known,
    Saved,
}

/// One address.
struct Seat {
    peer: Peer,
    is_there: bool,
    is_open: bool,
    /// Whether it wants its next delivery, once it has said so.
    wants: Option<bool>,
    /// Whose session is open there, or was last.
    client: Box<str>,
}

struct Driver {
    machine: MqttSn,
    now: Now,
    out: Outbox,
    seats: [Seat; 3],
    asked: VecDeque<(Peer, Ticket, Asked)>,
    delivered: u16,
    /// Clients whose sessions have ended. There may be one of every other from before.
    ended: Vec<Box<str>>,
    /// The delivery of each client that is not settled.
    outstanding: HashMap<Box<str>, DeliveryId>,
    facts: Facts,
    /// What the last session kept, for the next one.
    kept: Vec<(Box<str>, Bytes)>,
}

/// Plays `data`.
pub fn play(data: &[u8]) {
    let mut r = Reader::new(data);
    let Ok(how) = r.u8() else { return };
    let mut driver = Driver::new(how);
    while !r.is_empty() && driver.step(&mut r).is_ok() {}
    for at in 0..driver.seats.len() {
        driver.leave(at);
    }
}

fn config(how: u8) -> Config {
    let mut config = Config::default();
    if how & 1 != 0 {
        config.max_topics = 2;
        config.max_packet_size = 40;
        config.max_retries = 1;
    }
    if how & 2 != 0 {
        config.rebind = Rebind::SameIp;
    }
    if how & 4 != 0 {
        config.advertise = Some(30);
    }
    config.qos_minus_one = how & 8 == 0;
    for (id, topic) in [(1, "a/b"), (2, "fixed")] {
        config.predefined.put("", id, topic);
    }
    config
}

impl Driver {
    fn new(how: u8) -> Driver {
        let listener = Listener::new("fuzz", "mqtt_sn");
        let is_sealed = how & 0x10 != 0;
        let facts = Facts {
            psk: is_sealed.then(|| "c".into()),
            client_id: is_sealed.then(|| "c".into()),
            ..Facts::new(
                Arc::new(listener),
                if is_sealed { Transport::Dtls } else { Transport::Udp },
                ([192, 0, 2, 1], 1).into(),
            )
        };
        let seat = |slot| Seat {
            peer: Peer { slot, generation: 0 },
            is_there: false,
            is_open: false,
            wants: None,
            client: "".into(),
        };
        Driver {
            machine: MqttSn::new(Arc::new(config(how))),
            now: Now::from_micros(1_000_000),
            out: Outbox { is_framed: true, is_traced: how & 0x80 != 0, ..Outbox::default() },
            seats: [seat(0), seat(1), seat(2)],
            asked: VecDeque::new(),
            delivered: 0,
            ended: Vec::new(),
            outstanding: HashMap::new(),
            facts,
            kept: Vec::new(),
        }
    }

    fn step(&mut self, r: &mut Reader<'_>) -> Result<(), Short> {
        let op = r.u8()?;
        let at = usize::from(op >> 3) % self.seats.len();
        match op & 7 {
            0..=2 => {
                // As many octets as the datagram itself says, so that what is found stays readable.
                let length = r.rest().first().map_or(1, |n| usize::from(*n).max(1));
                let datagram = r.take(length.min(r.remaining()))?;
                self.feed(at, datagram);
            }
            3 | 4 => self.answer(r.u8()?),
            5 => {
                let how = r.u8()?;
                let length = usize::from(r.u8()?);
                let payload = r.take(length.min(r.remaining()))?;
                self.deliver(at, how, payload);
            }
            6 => self.wait(r.u8()?),
            _ if op & 0x80 != 0 => self.stop(at, op),
            _ => self.leave(at),
        }
        Ok(())
    }

    fn feed(&mut self, at: usize, datagram: &[u8]) {
        if self.hand(at, datagram) == Flow::Stranger {
            // Somebody else has this address: the same comes again from a peer that is new.
            self.leave(at);
            assert_eq!(self.hand(at, datagram), Flow::Continue, "a stranger's address is strange twice");
        }
    }

    fn hand(&mut self, at: usize, datagram: &[u8]) -> Flow {
        let seat = &mut self.seats[at];
        if !seat.is_there {
            (seat.is_there, seat.wants) = (true, None);
            seat.peer.generation += 1;
            self.facts.address.set_port(1000 + at as u16);
            self.machine.opened(self.now, seat.peer, &self.facts, &mut self.out);
        }
        let (peer, mut bytes) = (seat.peer, BytesMut::from(datagram));
        let result = self.machine.input(self.now, peer, &mut bytes, &mut self.out);
        self.check();
        result.unwrap_or_else(|_| {
            self.leave(at);
            Flow::Continue
        })
    }

    fn check(&mut self) {
        for (to, bytes) in self.out.messages() {
            let seat = &self.seats[to.peer.slot as usize];
            assert!(seat.is_there && seat.peer == to.peer, "sent to somebody who is gone");
            let inner = frame::unwrap(bytes).map_or(bytes, |(_, inner)| inner);
            let number = sent(inner);
            assert!(
                !matches!(number, kind::CONNECT | kind::SUBSCRIBE | kind::WILLMSG),
                "a client's: {bytes:x?}"
            );
        }
        self.out.wire.clear();
        self.out.frames.clear();
        let mut closing = Vec::new();
        for action in std::mem::take(&mut self.out.actions) {
            if let Action::Close(peer, _) = action {
                closing.push(peer);
            } else {
                self.act(action);
            }
        }
        for peer in closing {
            if self.seats[peer.slot as usize].peer == peer {
                self.leave(peer.slot as usize);
            }
        }
    }

    fn act(&mut self, action: Action) {
        let (peer, ticket, asked) = match action {
            Action::Connect(peer, ticket, connect) => (peer, ticket, Asked::Connect(connect.client_id)),
            Action::Publish(peer, publish) => match publish.ticket {
                Some(ticket) => (peer, ticket, Asked::Publish),
                None => return,
            },
            Action::Subscribe(peer, ticket, list) => (peer, ticket, Asked::Subscribe(list.len())),
            Action::Unsubscribe(peer, ticket, list) => (peer, ticket, Asked::Unsubscribe(list.len())),
            Action::Release(peer, ticket, _) => (peer, ticket, Asked::Known),
            Action::Receive(peer, ticket, _) => (peer, ticket, Asked::Known),
            Action::SetWill(peer, ticket, _) => (peer, ticket, Asked::Saved),
            Action::Save(peer, ticket, name, value) => {
                self.kept.retain(|(known, _)| *known != name);
                self.kept.extend(value.map(|value| (name, value)));
                (peer, ticket, Asked::Saved)
            }
            Action::Settle(peer, id, _) => {
                let outstanding = self.outstanding.remove(&self.seats[peer.slot as usize].client);
                return assert_eq!(outstanding, Some(id), "settles what is not outstanding");
            }
            Action::Want(peer, wants) => return self.seats[peer.slot as usize].wants = Some(wants),
            Action::Disconnect(peer, how) => {
                let at = peer.slot as usize;
                if how.expiry == Some(Duration::ZERO) && self.seats[at].is_open {
                    let client = self.seats[at].client.clone();
                    self.outstanding.remove(&client);
                    self.ended.push(client);
                }
                return self.detach(at);
            }
            _ => return,
        };
        self.asked.push_back((peer, ticket, asked));
    }

    /// Answers the oldest question in one of the ways that there are.
    fn answer(&mut self, how: u8) {
        let Some((peer, ticket, asked)) = self.asked.pop_front() else { return };
        let refusal =
            [Refusal::NotAuthorised, Refusal::ServerBusy, Refusal::TopicName, Refusal::QuotaExceeded];
        let refusal = refusal[usize::from(how >> 2 & 3)];
        let is_refused = how & 3 == 1;
        let mut taken_over = Vec::new();
        let answer = match asked {
            Asked::Subscribe(n) => {
                Answer::Subscribed(vec![if is_refused { Err(refusal) } else { Ok(Qos::AtLeastOnce) }; n])
            }
            Asked::Unsubscribe(n) => {
                Answer::Unsubscribed(vec![if is_refused { Err(refusal) } else { Ok(how & 2 == 0) }; n])
            }
            Asked::Known => Answer::Known(!is_refused),
            _ if is_refused => Answer::Refused(refusal),
            Asked::Connect(client) => {
                // A session does not vanish while two come for it.
                let is_same = |asked: &Asked| matches!(asked, Asked::Connect(another) if *another == client);
                let are_two = self.asked.iter().any(|(.., asked)| is_same(asked));
                let is_present = (how & 2 != 0 || are_two) && !self.ended.contains(&client);
                self.ended.retain(|ended| *ended != client);
                if !is_present {
                    self.outstanding.remove(&client);
                }
                for (at, seat) in self.seats.iter_mut().enumerate() {
                    if seat.is_open && seat.client == client {
                        seat.is_open = false;
                        taken_over.push(at);
                    }
                }
                // Where the answer waits for the store they are told before.
                if how & 0x40 != 0 {
                    taken_over
                        .drain(..)
                        .filter(|at| *at != peer.slot as usize)
                        .for_each(|at| self.stop(at, 0));
                }
                let seat = &mut self.seats[peer.slot as usize];
                (seat.is_open, seat.client) = (true, client);
                Answer::Connected(Box::new(Connected {
                    client_id: "c".into(),
                    session_present: is_present,
                    data: None,
                    facts: if is_present { self.kept.clone() } else { Vec::new() },
                }))
            }
            Asked::Publish => Answer::Published(usize::from(how & 2)),
            Asked::Saved => Answer::Saved,
        };
        self.machine.reply(self.now, peer, ticket, answer, &mut self.out);
        self.check();
        taken_over.into_iter().filter(|at| *at != peer.slot as usize).for_each(|at| self.stop(at, 0));
    }

    fn deliver(&mut self, at: usize, how: u8, payload: &[u8]) {
        let seat = &mut self.seats[at];
        if !seat.is_open || seat.wants == Some(false) {
            return;
        }
        // What the session of before has not settled comes again.
        let again = self.outstanding.get(&seat.client).copied();
        let topics = ["a/b", "ab", "fixed", "long/topic/of/a/sensor"];
        let topic = topics[usize::from(how >> 4 & 3)];
        let message = Message::from_slice(self.now, topic, Bytes::copy_from_slice(payload));
        let qos = if again.is_some() { Qos::AtLeastOnce } else { Qos::from_u8(how & 3).unwrap_or_default() };
        self.delivered = self.delivered.wrapping_add(1).max(1);
        let id = again.unwrap_or(DeliveryId(self.delivered));
        let deliver = match how & 0xC0 {
            0x40 => Deliver::Release(id),
            0x80 => Deliver::Nothing,
            _ => Deliver::Message(Delivery {
                id: (qos > Qos::AtMostOnce).then_some(id),
                message: &message,
                topic,
                qos,
                retain: how & 4 != 0,
                duplicate: how & 8 != 0,
                subscriptions: &[],
            }),
        };
        let outstanding = match &deliver {
            Deliver::Release(id) => Some(*id),
            Deliver::Message(d) => d.id,
            Deliver::Nothing => None,
        };
        self.outstanding.extend(outstanding.map(|id| (seat.client.clone(), id)));
        // One that was asked for and is not there is still wanted.
        if !matches!(deliver, Deliver::Nothing) {
            seat.wants = seat.wants.map(|_| false);
        }
        self.machine.deliver(self.now, seat.peer, &deliver, &mut self.out);
        self.check();
    }

    fn wait(&mut self, seconds: u8) {
        self.now = self.now.after(Duration::from_secs(seconds.into()));
        if self.machine.next_timeout().is_some_and(|(at, _)| at <= self.now.instant) {
            self.machine.timeout(self.now, &mut self.out);
            self.check();
            let next = self.machine.next_timeout();
            assert!(next.is_none_or(|(at, _)| at > self.now.instant), "a deadline that has passed");
        }
    }

    fn stop(&mut self, at: usize, how: u8) {
        if self.seats[at].is_there {
            let why = if how & 0x40 != 0 { Stop::Kicked } else { Stop::TakenOver };
            self.machine.stop(self.now, self.seats[at].peer, why, &mut self.out);
            self.check();
            self.leave(at);
        }
    }

    /// The connection of a session is over. What it has in flight stays with it if it goes on, which is not played where
    /// nobody comes for it.
    fn detach(&mut self, at: usize) {
        let seat = &mut self.seats[at];
        let is_wanted = |asked: &Asked| matches!(asked, Asked::Connect(client) if *client == seat.client);
        if std::mem::take(&mut seat.is_open) && !self.asked.iter().any(|(.., asked)| is_wanted(asked)) {
            self.outstanding.remove(&seat.client);
        }
    }

    fn leave(&mut self, at: usize) {
        let seat = &mut self.seats[at];
        if std::mem::take(&mut seat.is_there) {
            let peer = seat.peer;
            self.asked.retain(|(of, ..)| *of != peer);
            self.detach(at);
            self.machine.closed(self.now, peer, &mut self.out);
            self.check();
        }
    }
}

/// The number of the message that this is, all of it.
fn sent(bytes: &[u8]) -> u8 {
    let at = if bytes[0] == 1 { 3 } else { 1 };
    let length = if at == 1 { bytes[0].into() } else { usize::from(bytes[1]) << 8 | usize::from(bytes[2]) };
    assert_eq!(length, bytes.len(), "{bytes:x?}");
    assert!(at == 1 || length > 255, "the long form for a short message: {bytes:x?}");
    assert!(frame::name(bytes[at]) != "?", "no message: {bytes:x?}");
    bytes[at]
}

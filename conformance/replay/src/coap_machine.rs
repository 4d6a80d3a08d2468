//! The CoAP machine with three peers and a driver that does as the contract says, and says anything: the first byte
//! chooses limits, then come steps: datagrams, answers to what was asked, deliveries, requests to a peer's own server,
//! time, the end of a peer.
//!
//! Checked throughout: what is sent are messages, to peers that are there; a deadline that has passed is not asked for
//! again; what is over is forgotten; every request to a peer ends once, and at the latest with the peer.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use coap::frame::Message as Datagram;
use coap::{Coap, Config, NotifyType};
use gateway::{
    Action, Answer, Connected, Deliver, Delivery, DeliveryId, Facts, Gateway, Listener, Message, Method, Now,
    Outbox, Peer, Qos, Refusal, Request, Stop, Ticket, Transport,
};
use wire::{Reader, Short};

/// What was asked and is not answered.
enum Asked {
    Connect,
    Publish,
    Subscribe(usize),
    Unsubscribe(usize),
    Retained,
}

/// One address.
struct Seat {
    peer: Peer,
    is_there: bool,
    is_open: bool,
    /// The identifier of its last subscription.
    subscription: u32,
}

struct Driver {
    machine: Coap,
    now: Now,
    out: Outbox,
    seats: [Seat; 3],
    asked: VecDeque<(Peer, Ticket, Asked)>,
    delivered: u16,
    /// Requests to peers that have not ended, by ticket.
    commands: HashMap<u64, Peer>,
    commanded: u64,
    facts: Facts,
}

/// Plays `data`.
pub fn play(data: &[u8]) {
    let mut r = Reader::new(data);
    let Ok(how) = r.u8() else { return };
    let mut driver = Driver::new(config(how), how & 0x80 != 0);
    while !r.is_empty() && driver.step(&mut r).is_ok() {}
    for at in 0..driver.seats.len() {
        driver.leave(at);
    }
}

fn config(how: u8) -> Config {
    let mut config = Config::default();
    if how & 1 != 0 {
        config.max_exchanges = 2;
        config.max_exchanges_total = 3;
        config.max_observations = 1;
        config.max_payload = 64;
        config.max_discovered = 1;
        config.max_body_size = 200;
        config.max_reassembly = 1_000;
    }
    if how & 2 != 0 {
        config.notify_type = NotifyType::Con;
        config.amplification_limit = false;
    }
    if how & 4 != 0 {
        config.notify_type = NotifyType::Non;
    }
    config
}

impl Driver {
    fn new(config: Config, is_traced: bool) -> Driver {
        let listener = Listener::new("fuzz", "coap");
        let facts = Facts::new(Arc::new(listener), Transport::Udp, ([192, 0, 2, 1], 1).into());
        let seat = |slot| Seat {
            peer: Peer { slot, generation: 0 },
            is_there: false,
            is_open: false,
            subscription: 0,
        };
        // The same each time, so that an input can name the token that it gets.
        let random = Arc::new(|bytes: &mut [u8]| {
            bytes.fill(7);
            true
        });
        Driver {
            machine: Coap::new(Arc::new(config), random),
            now: Now::from_micros(1_000_000),
            out: Outbox { is_framed: true, is_traced, ..Outbox::default() },
            seats: [seat(0), seat(1), seat(2)],
            asked: VecDeque::new(),
            delivered: 0,
            commands: HashMap::new(),
            commanded: 0,
            facts,
        }
    }

    fn step(&mut self, r: &mut Reader<'_>) -> Result<(), Short> {
        let op = r.u8()?;
        let at = usize::from(op >> 3) % self.seats.len();
        match op & 7 {
            0..=2 => {
                let length = usize::from(r.u8()?);
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
            6 if op & 0x80 != 0 => {
                let how = r.u8()?;
                self.command(at, how);
            }
            6 => self.wait(r.u8()?),
            _ if op & 0x80 != 0 => self.stop(at, op),
            _ => self.leave(at),
        }
        Ok(())
    }

    fn feed(&mut self, at: usize, datagram: &[u8]) {
        let seat = &mut self.seats[at];
        if !seat.is_there {
            seat.is_there = true;
            seat.peer.generation += 1;
            self.facts.address.set_port(1000 + at as u16);
            self.machine.opened(self.now, seat.peer, &self.facts, &mut self.out);
        }
        let (peer, mut bytes) = (seat.peer, BytesMut::from(datagram));
        let result = self.machine.input(self.now, peer, &mut bytes, &mut self.out);
        self.check();
        if result.is_err() {
            self.leave(at);
        }
    }

    fn check(&mut self) {
        for (frame, bytes) in self.out.messages() {
            assert!(self.seats[frame.peer.slot as usize].peer == frame.peer, "sent to somebody who is gone");
            if let Err(why) = Datagram::decode(bytes) {
                panic!("sent what is no message ({why:?}): {bytes:x?}");
            }
        }
        self.out.wire.clear();
        self.out.frames.clear();
        for action in std::mem::take(&mut self.out.actions) {
            self.act(action);
        }
    }

    fn act(&mut self, action: Action) {
        let (peer, ticket, asked) = match action {
            Action::Connect(peer, ticket, _) => (peer, ticket, Asked::Connect),
            Action::Publish(peer, publish) => match publish.ticket {
                Some(ticket) => (peer, ticket, Asked::Publish),
                None => return,
            },
            Action::Subscribe(peer, ticket, list) => {
                let identifier = list.last().map_or(0, |s| s.identifier);
                self.seats[peer.slot as usize].subscription = identifier;
                (peer, ticket, Asked::Subscribe(list.len()))
            }
            Action::Unsubscribe(peer, ticket, list) => (peer, ticket, Asked::Unsubscribe(list.len())),
            Action::Retained(peer, ticket, ..) => (peer, ticket, Asked::Retained),
            Action::Disconnect(peer, _) => return self.seats[peer.slot as usize].is_open = false,
            Action::Answered(peer, ticket, _) => {
                assert_eq!(self.commands.remove(&ticket.0), Some(peer), "ended twice, or for another peer");
                return;
            }
            Action::Close(peer, _) => return self.leave(peer.slot as usize),
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
        let retained = || ("a".into(), Message::new(self.now, "a", &[b'x'; 100][..usize::from(how >> 2)]));
        let answer = match asked {
            Asked::Subscribe(n) => {
                Answer::Subscribed(vec![if is_refused { Err(refusal) } else { Ok(Qos::default()) }; n])
            }
            Asked::Unsubscribe(n) => {
                Answer::Unsubscribed(vec![if is_refused { Err(refusal) } else { Ok(how & 2 == 0) }; n])
            }
            _ if is_refused => Answer::Refused(refusal),
            Asked::Connect => {
                self.seats[peer.slot as usize].is_open = true;
                Answer::Connected(Box::new(Connected {
                    client_id: "c".into(),
                    session_present: false,
                    data: None,
                    facts: Vec::new(),
                }))
            }
            Asked::Publish => Answer::Published(usize::from(how & 2)),
            Asked::Retained => Answer::Retained((0..how & 2).map(|_| retained()).collect()),
        };
        self.machine.reply(self.now, peer, ticket, answer, &mut self.out);
        self.check();
    }

    fn deliver(&mut self, at: usize, how: u8, payload: &[u8]) {
        let seat = &self.seats[at];
        if !seat.is_open {
            return;
        }
        let message = Message::from_slice(self.now, "a/b", Bytes::copy_from_slice(payload));
        let qos = Qos::from_u8(how & 3).unwrap_or_default();
        self.delivered = self.delivered.wrapping_add(1).max(1);
        let id = DeliveryId(self.delivered);
        let subscriptions = [seat.subscription, 77];
        let deliver = if how & 0x40 != 0 {
            Deliver::Release(id)
        } else {
            Deliver::Message(Delivery {
                id: (qos > Qos::AtMostOnce).then_some(id),
                message: &message,
                topic: "a/b",
                qos,
                retain: how & 4 != 0,
                duplicate: how & 8 != 0,
                subscriptions: &subscriptions[..1 + usize::from(how >> 4 & 1)],
            })
        };
        self.machine.deliver(self.now, seat.peer, &deliver, &mut self.out);
        self.check();
    }

    fn command(&mut self, at: usize, how: u8) {
        let seat = &self.seats[at];
        if !seat.is_there {
            return;
        }
        self.commanded += 1;
        self.commands.insert(self.commanded, seat.peer);
        let request = Request {
            method: Method::ALL[usize::from(how & 7) % Method::ALL.len()],
            path: if how & 8 != 0 { "a/b" } else { "" }.into(),
            query: Vec::new(),
            format: (how & 0x10 != 0).then_some(0),
            accept: None,
            payload: vec![b'p'; usize::from(how >> 5) * 400].into(),
            timeout: Duration::from_secs(60),
        };
        self.machine.command(self.now, seat.peer, Ticket(self.commanded), &request, &mut self.out);
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

    fn leave(&mut self, at: usize) {
        let seat = &mut self.seats[at];
        if std::mem::take(&mut seat.is_there) {
            let peer = seat.peer;
            seat.is_open = false;
            self.asked.retain(|(of, ..)| *of != peer);
            self.machine.closed(self.now, peer, &mut self.out);
            self.check();
            assert!(self.commands.values().all(|p| *p != peer), "a request outlives its peer");
        }
    }
}

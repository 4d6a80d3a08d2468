//! The MQTT gateway: 3.1 (`MQIsdp`), 3.1.1 (OASIS, ISO 20922) and 5.0 (OASIS).
//!
//! One [`Mqtt`] serves one connection. What outlives it (subscriptions, what is in flight with its packet identifiers,
//! the will) is the router's, by client id; here is what the wire needs.
//!
//! ```text
//! waiting --CONNECT--> connecting --Connected--> open --DISCONNECT, fault, stop--> closed
//!                       | ^                       ^ |
//!                       AUTH (5.0)               AUTH (5.0, again)
//! ```

pub mod acks;
pub mod config;
pub mod connect;
pub mod frame;
pub mod property;
pub mod publish;
pub mod reason;
pub mod subscribe;
pub mod trace;

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use gateway::{
    Action, Answer, Close, Connected, Deliver, Delivery, DeliveryId, Direction, Disconnect, Drop, Factory,
    Facts, Flow, Gateway, Instant, Now, Outbox, Peer, Publish, Qos, Refusal, Settle, Stop, Ticket,
};
use wire::Writer;

pub use config::{Config, OnDeny};
pub use connect::Version;

use connect::{Accepted, Refused};
use frame::{Fault, Frame, kind, packet};
use publish::Naming;

/// Makes machines for a listener.
pub struct MqttFactory(Arc<Config>);

impl MqttFactory {
    /// Machines with this configuration.
    pub fn new(config: Config) -> MqttFactory {
        MqttFactory(Arc::new(config))
    }
}

impl Factory for MqttFactory {
    fn build(&self) -> Box<dyn Gateway> {
        Box::new(Mqtt::new(self.0.clone()))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// For CONNECT.
    Waiting,
    /// For the answer to CONNECT, or for the client's next AUTH.
    Connecting,
    Open,
    Closed,
}

/// See the module.
pub struct Mqtt {
    config: Arc<Config>,
    peer: Peer,
    /// When the connection began, or the last packet came.
    seen: Instant,
    phase: Phase,
    version: Version,
    keep_alive: u16,
    /// QoS 1 and 2 messages from the client that are not acknowledged to the end.
    receiving: u16,
    /// Answers that have not come back. What can be answered at once waits for them: answers keep their order.
    waiting: u16,
    /// What MQTT 5.0 clients and QoS 2 publishers need.
    extra: Option<Box<Extra>>,
}

struct Extra {
    /// Session Expiry Interval as it stands.
    session_expiry: u32,
    max_packet: usize,
    wants_problems: bool,
    wants_response: bool,
    /// Session Expiry Interval or Server Keep Alive differ from what the client asked for.
    told_expiry: Option<u32>,
    told_keep_alive: Option<u16>,
    was_assigned: bool,
    /// Aliases set by the client.
    incoming: publish::Aliases,
    /// Aliases towards the client: name to number, at most as many as it takes.
    outgoing: HashMap<Box<str>, u16>,
    alias_maximum: u16,
    method: Option<Box<str>>,
    /// QoS 2 packet identifiers between PUBLISH and PUBCOMP of this connection.
    open: HashSet<u16>,
    /// Packets with filters that were refused before the router saw them: identifier and reason codes, in order.
    bad: VecDeque<(u16, Vec<Option<u8>>)>,
}

impl Default for Extra {
    fn default() -> Self {
        Extra {
            session_expiry: 0,
            max_packet: usize::MAX,
            wants_problems: true,
            wants_response: false,
            told_expiry: None,
            told_keep_alive: None,
            was_assigned: false,
            incoming: Vec::new(),
            outgoing: HashMap::new(),
            alias_maximum: 0,
            method: None,
            open: HashSet::new(),
            bad: VecDeque::new(),
        }
    }
}

/// What a ticket is for; the packet identifier is in its low 16 bits.
mod ticket {
    use gateway::Ticket;

    pub(crate) const CONNECT: u64 = 1;
    pub(crate) const QOS1: u64 = 2;
    pub(crate) const QOS2: u64 = 3;
    pub(crate) const RELEASE: u64 = 4;
    pub(crate) const RECEIVE: u64 = 5;
    pub(crate) const SUBSCRIBE: u64 = 6;
    pub(crate) const UNSUBSCRIBE: u64 = 7;
    pub(crate) const AUTH: u64 = 8;
    pub(crate) const QOS0: u64 = 9;

    pub(crate) fn new(kind: u64, id: u16) -> Ticket {
        Ticket(kind << 16 | u64::from(id))
    }

    pub(crate) fn take(ticket: Ticket) -> (u64, u16) {
        (ticket.0 >> 16, (ticket.0 & 0xFFFF) as u16)
    }
}

impl Mqtt {
    /// A machine that waits for CONNECT.
    pub fn new(config: Arc<Config>) -> Mqtt {
        Mqtt {
            config,
            peer: Peer::default(),
            seen: Instant::default(),
            phase: Phase::Waiting,
            version: Version::V311,
            keep_alive: 0,
            receiving: 0,
            waiting: 0,
            extra: None,
        }
    }

    fn is_5(&self) -> bool {
        self.version == Version::V5
    }

    fn extra(&mut self) -> &mut Extra {
        self.extra.get_or_insert_default()
    }

    /// Asks for something that brings an answer.
    fn ask(&mut self, out: &mut Outbox, action: Action) {
        self.waiting = self.waiting.saturating_add(1);
        out.act(action);
    }

    /// The one place where bytes leave: what `write` appends is shown to who traces the client.
    fn send(&self, out: &mut Outbox, write: impl FnOnce(&mut Vec<u8>)) {
        let wire = out.send(self.peer);
        let at = wire.len();
        write(wire);
        if out.is_traced {
            for line in trace::describe_all(&out.wire[at..]) {
                out.trace(self.peer, Direction::Out, || line);
            }
        }
    }

    /// Takes the packets that are whole off the front.
    fn packets(&mut self, now: Now, bytes: &mut BytesMut, out: &mut Outbox) -> Result<Flow, Fault> {
        let most = self.config.max_packet_size;
        while self.phase != Phase::Closed {
            let is_strict = self.is_5() && self.phase != Phase::Waiting;
            let Some(frame) = frame::find(bytes, most, is_strict)? else { return Ok(Flow::Continue) };
            if frame.kind() == kind::PINGREQ && self.waiting > 0 {
                return Ok(Flow::Pause);
            }
            self.seen = now.instant;
            if out.is_traced {
                let line = trace::describe(frame.first, &bytes[frame.body..frame.end]);
                out.trace(self.peer, Direction::In, || line);
            }
            if frame.kind() == kind::PUBLISH && self.phase == Phase::Open {
                self.publish(now, frame, bytes, out)?;
                continue;
            }
            let result = self.packet(now, frame, &bytes[frame.body..frame.end], out);
            bytes.advance(frame.end);
            if result? == Flow::Pause {
                return Ok(Flow::Pause);
            }
        }
        bytes.clear();
        Ok(Flow::Continue)
    }

    fn packet(&mut self, now: Now, frame: Frame, body: &[u8], out: &mut Outbox) -> Result<Flow, Fault> {
        match (self.phase, frame.kind()) {
            (Phase::Waiting, kind::CONNECT) => return self.connect(now, frame.flags(), body, out),
            // The first packet is CONNECT, and the only one (MQTT-3.1.0-1, -2).
            (Phase::Waiting, _) | (_, kind::CONNECT) => return Err(Fault::PROTOCOL),
            (Phase::Connecting, kind::AUTH) if self.is_5() => return self.auth(frame.flags(), body, out),
            (Phase::Connecting, kind::DISCONNECT) => self.disconnect(frame.flags(), body, out)?,
            // Nothing else may come before CONNACK while authentication goes on (MQTT-4.12.0-6).
            (Phase::Connecting, _) => return Err(Fault::PROTOCOL),
            (_, kind::PUBACK | kind::PUBREC | kind::PUBCOMP) => self.acknowledged(frame, body, out)?,
            (_, kind::PUBREL) => self.released(frame.flags(), body, out)?,
            (_, kind::SUBSCRIBE) => self.subscribe(frame.flags(), body, out)?,
            (_, kind::UNSUBSCRIBE) => self.unsubscribe(frame.flags(), body, out)?,
            (_, kind::PINGREQ) => {
                if frame.flags() != 0 || !body.is_empty() {
                    return Err(Fault::MALFORMED);
                }
                self.send(out, |wire| wire.put(&[kind::PINGRESP << 4, 0]));
            }
            (_, kind::DISCONNECT) => self.disconnect(frame.flags(), body, out)?,
            (_, kind::AUTH) if self.is_5() => return self.auth(frame.flags(), body, out),
            (_, 0 | kind::AUTH) => return Err(Fault::MALFORMED),
            // Packets that only servers send.
            _ => return Err(Fault::PROTOCOL),
        }
        Ok(Flow::Continue)
    }

    fn connect(&mut self, now: Now, flags: u8, body: &[u8], out: &mut Outbox) -> Result<Flow, Fault> {
        let config = self.config.clone();
        let request = match connect::decode(now, flags, body, &config) {
            Ok(request) => request,
            Err(refused) => {
                let fault = self.refuse_connect(refused, out);
                return Err(fault);
            }
        };
        self.version = request.version;
        if let Some(server) = &config.redirect {
            let code = match (self.is_5(), config.is_moved) {
                (true, true) => 0x9D,
                (true, false) => 0x9C,
                (false, _) => 3,
            };
            self.send(out, |wire| connect::refuse(wire, request.version, code, None, Some(server)));
            self.phase = Phase::Closed;
            return Err(Fault { reason: 0, close: Close::Goodbye });
        }
        self.phase = Phase::Connecting;
        let most = config.max_keep_alive;
        let is_too_long = most > 0 && (request.keep_alive == 0 || request.keep_alive > most);
        // Only MQTT 5.0 can be told of another keep-alive; others keep theirs.
        self.keep_alive = if is_too_long && self.is_5() { most } else { request.keep_alive };
        if self.is_5() {
            let longest = config.max_session_expiry;
            let granted = if connect::expiry(request.session_expiry) > longest {
                u32::try_from(longest.as_secs()).unwrap_or(u32::MAX)
            } else {
                request.session_expiry
            };
            let told_keep_alive = is_too_long.then_some(most);
            let extra = self.extra();
            extra.session_expiry = granted;
            extra.told_expiry = (granted != request.session_expiry).then_some(granted);
            extra.told_keep_alive = told_keep_alive;
            extra.max_packet = request.max_packet as usize;
            extra.wants_problems = request.wants_problems;
            extra.wants_response = request.wants_response;
            extra.alias_maximum = request.alias_maximum.min(config.topic_alias_maximum);
            extra.was_assigned = request.connect.client_id.is_empty();
            extra.method = request.connect.method.as_ref().map(|(m, _)| m.clone());
        }
        let ticket = ticket::new(ticket::CONNECT, 0);
        self.ask(out, Action::Connect(self.peer, ticket, request.connect));
        Ok(Flow::Pause)
    }

    fn refuse_connect(&mut self, refused: Refused, out: &mut Outbox) -> Fault {
        let (version, code, fault) = match refused {
            Refused::Silent(fault) => {
                self.phase = Phase::Closed;
                return fault;
            }
            Refused::Version(level) => {
                let fault = Fault { reason: 0x84, close: Close::UnsupportedVersion };
                if level >= 5 && level < 0x80 {
                    (Version::V5, 0x84, fault)
                } else {
                    (Version::V311, 1, fault)
                }
            }
            Refused::Code(code, fault) => (Version::V311, code, fault),
            Refused::Reason(fault) => (Version::V5, fault.reason, fault),
        };
        self.send(out, |wire| connect::refuse(wire, version, code, None, None));
        self.phase = Phase::Closed;
        fault
    }

    fn connected(&mut self, connected: &Connected, out: &mut Outbox) {
        self.phase = Phase::Open;
        let (version, config) = (self.version, self.config.clone());
        let extra = self.extra.take();
        let method = extra.as_ref().and_then(|e| e.method.as_deref());
        let accepted = Accepted {
            session_present: connected.session_present,
            assigned: extra.as_ref().filter(|e| e.was_assigned).map(|_| &*connected.client_id),
            session_expiry: extra.as_ref().and_then(|e| e.told_expiry),
            keep_alive: extra.as_ref().and_then(|e| e.told_keep_alive),
            wants_response: extra.as_ref().is_some_and(|e| e.wants_response),
            authentication: method.map(|m| (m, connected.data.as_deref().unwrap_or_default())),
        };
        let most = extra.as_ref().map_or(usize::MAX, |e| e.max_packet);
        let mut is_sent = true;
        self.send(out, |wire| {
            let before = wire.len();
            connect::accept(wire, version, &config, &accepted);
            is_sent = wire.len() - before <= most;
            if !is_sent {
                wire.truncate(before);
            }
        });
        self.extra = extra;
        if !is_sent {
            // What a client must know does not fit what it takes (MQTT-3.1.2-24): there is nothing to say to it.
            self.phase = Phase::Closed;
            out.act(Action::Close(self.peer, Close::TooLarge));
        }
    }

    fn publish(
        &mut self,
        now: Now,
        frame: Frame,
        bytes: &mut BytesMut,
        out: &mut Outbox,
    ) -> Result<(), Fault> {
        let most_aliases = usize::from(self.config.topic_alias_maximum);
        let aliases = if self.is_5() {
            let incoming = &mut self.extra.get_or_insert_default().incoming;
            // Most clients use none: the table is made when the first PUBLISH has properties.
            if incoming.is_empty() && most_aliases > 0 {
                incoming.resize(most_aliases, None);
            }
            Some(incoming)
        } else {
            None
        };
        let published = if frame.end - frame.body > 4096 {
            let whole = bytes.split_to(frame.end).freeze();
            publish::decode(now, frame.flags(), &whole[frame.body..], Some(&whole), aliases)?
        } else {
            let published =
                publish::decode(now, frame.flags(), &bytes[frame.body..frame.end], None, aliases)?;
            bytes.advance(frame.end);
            published
        };
        let publish::Published { message, id } = published;
        let (ticket, once) = match (message.qos(), id) {
            (Qos::AtLeastOnce, Some(id)) => {
                self.receiving = self.receiving.saturating_add(1);
                (Some(ticket::new(ticket::QOS1, id)), None)
            }
            (Qos::ExactlyOnce, Some(id)) => {
                // One that comes again is still the same (MQTT-4.3.3-9). MQTT 3 has no receive maximum to count for.
                if self.is_5() && self.extra().open.insert(id) {
                    self.receiving = self.receiving.saturating_add(1);
                }
                (Some(ticket::new(ticket::QOS2, id)), Some(id))
            }
            // Whether it was refused matters only to those who then close the connection.
            _ => ((self.config.deny == OnDeny::Disconnect).then(|| ticket::new(ticket::QOS0, 0)), None),
        };
        if self.receiving > self.config.receive_maximum && self.is_5() {
            return Err(Fault::RECEIVE_MAXIMUM);
        }
        self.waiting = self.waiting.saturating_add(u16::from(ticket.is_some()));
        out.act(Action::Publish(self.peer, Publish { message, ticket, once }));
        Ok(())
    }

    /// PUBACK, PUBREC and PUBCOMP of a delivery.
    fn acknowledged(&mut self, frame: Frame, body: &[u8], out: &mut Outbox) -> Result<(), Fault> {
        if frame.flags() != 0 {
            return Err(Fault::MALFORMED);
        }
        let (id, reason) = acks::decode(self.is_5(), frame.kind(), body)?;
        let id = DeliveryId(id);
        let action = match frame.kind() {
            kind::PUBREC if reason < 0x80 => {
                self.waiting = self.waiting.saturating_add(1);
                Action::Receive(self.peer, ticket::new(ticket::RECEIVE, id.0), id)
            }
            _ if reason >= 0x80 => Action::Settle(self.peer, id, Settle::Refused),
            _ => Action::Settle(self.peer, id, Settle::Done),
        };
        out.act(action);
        Ok(())
    }

    fn released(&mut self, flags: u8, body: &[u8], out: &mut Outbox) -> Result<(), Fault> {
        // MQTT-3.6.1-1.
        if !self.is_flagged(flags) {
            return Err(Fault::MALFORMED);
        }
        let (id, _) = acks::decode(self.is_5(), kind::PUBREL, body)?;
        self.ask(out, Action::Release(self.peer, ticket::new(ticket::RELEASE, id), id));
        Ok(())
    }

    /// Flags of PUBREL, SUBSCRIBE and UNSUBSCRIBE: 0010, and in 3.1 also with DUP (3.1, 2.1).
    fn is_flagged(&self, flags: u8) -> bool {
        flags == 2 || (self.version == Version::V31 && flags == 10)
    }

    fn subscribe(&mut self, flags: u8, body: &[u8], out: &mut Outbox) -> Result<(), Fault> {
        // MQTT-3.8.1-1.
        if !self.is_flagged(flags) {
            return Err(Fault::MALFORMED);
        }
        let list = subscribe::decode_subscribe(self.is_5(), body)?;
        self.remember_bad(list.id, list.bad);
        let ticket = ticket::new(ticket::SUBSCRIBE, list.id);
        self.ask(out, Action::Subscribe(self.peer, ticket, list.good));
        Ok(())
    }

    /// Until the answer to the other filters of the packet; nearly always there is nothing to remember.
    fn remember_bad(&mut self, id: u16, bad: Vec<Option<u8>>) {
        if bad.iter().any(Option::is_some) {
            self.extra().bad.push_back((id, bad));
        }
    }

    fn unsubscribe(&mut self, flags: u8, body: &[u8], out: &mut Outbox) -> Result<(), Fault> {
        // MQTT-3.10.1-1.
        if !self.is_flagged(flags) {
            return Err(Fault::MALFORMED);
        }
        let list = subscribe::decode_unsubscribe(self.is_5(), body)?;
        self.remember_bad(list.id, list.bad);
        let ticket = ticket::new(ticket::UNSUBSCRIBE, list.id);
        self.ask(out, Action::Unsubscribe(self.peer, ticket, list.good));
        Ok(())
    }

    fn disconnect(&mut self, flags: u8, body: &[u8], out: &mut Outbox) -> Result<(), Fault> {
        if flags != 0 {
            return Err(Fault::MALFORMED);
        }
        let how = acks::decode_disconnect(self.is_5(), body)?;
        if let Some(seconds) = how.session_expiry {
            // A session that was to end with its connection cannot be kept afterwards (3.14.2.2.2).
            if self.extra().session_expiry == 0 && seconds > 0 {
                return Err(Fault::PROTOCOL);
            }
        }
        let most = self.config.max_session_expiry;
        let expiry: Option<Duration> = how.session_expiry.map(|s| connect::expiry(s).min(most));
        self.phase = Phase::Closed;
        out.act(Action::Disconnect(self.peer, Disconnect { with_will: how.reason != 0, expiry }));
        out.act(Action::Close(self.peer, Close::Goodbye));
        Ok(())
    }

    /// AUTH from the client (4.12).
    fn auth(&mut self, flags: u8, body: &[u8], out: &mut Outbox) -> Result<Flow, Fault> {
        if flags != 0 {
            return Err(Fault::MALFORMED);
        }
        let auth = acks::decode_auth(body)?;
        let known = self.extra().method.clone();
        // The method is that of CONNECT, and without one there is no AUTH (MQTT-4.12.0-5, -7; 4.12.1-1).
        if known.is_none() || known.as_deref() != auth.method {
            return Err(Fault::PROTOCOL);
        }
        let ticket = ticket::new(if self.phase == Phase::Open { ticket::AUTH } else { ticket::CONNECT }, 0);
        let data = Bytes::copy_from_slice(auth.data);
        match auth.reason {
            0x18 => self.ask(out, Action::Exchange(self.peer, ticket, data)),
            0x19 if self.phase == Phase::Open => {
                let method = known.unwrap_or_default();
                self.ask(out, Action::Reauthenticate(self.peer, ticket, method, data));
            }
            _ => return Err(Fault::PROTOCOL),
        }
        // While connecting nothing may be read before the answer.
        Ok(if self.phase == Phase::Open { Flow::Continue } else { Flow::Pause })
    }

    fn send_auth(&mut self, out: &mut Outbox, reason: u8, data: &[u8]) {
        let method = self.extra().method.clone().unwrap_or_default();
        self.send(out, |wire| acks::auth(wire, reason, &method, data));
    }

    /// The answer to PUBLISH of QoS 1 and 2.
    fn answer_publish(&mut self, out: &mut Outbox, qos: Qos, id: u16, result: Result<usize, Refusal>) {
        let is_refused = result.is_err();
        let reason = match result {
            Ok(0) if self.is_5() => 0x10,
            Ok(_) => 0,
            Err(why) if self.is_5() => reason::reason(why),
            // MQTT 3 has no words for it (3.1.1, 3.3.5).
            Err(_) => 0,
        };
        match qos {
            Qos::AtLeastOnce => {
                self.receiving = self.receiving.saturating_sub(1);
                self.send(out, |wire| acks::encode(wire, kind::PUBACK << 4, id, reason));
            }
            Qos::ExactlyOnce => {
                if is_refused && self.is_5() && self.extra().open.remove(&id) {
                    self.receiving = self.receiving.saturating_sub(1);
                }
                self.send(out, |wire| acks::encode(wire, kind::PUBREC << 4, id, reason));
            }
            Qos::AtMostOnce => {}
        }
        if result == Err(Refusal::NotAuthorised) && self.config.deny == OnDeny::Disconnect {
            self.end(out, Fault { reason: 0x87, close: Close::NotAuthorised });
        }
    }

    /// Says why, and asks for the end.
    fn end(&mut self, out: &mut Outbox, fault: Fault) {
        self.say_goodbye(out, fault.reason);
        out.act(Action::Close(self.peer, fault.close));
    }

    fn say_goodbye(&mut self, out: &mut Outbox, reason: u8) {
        if self.is_5() && self.phase == Phase::Open {
            self.send(out, |wire| acks::disconnect(wire, reason));
        } else if self.is_5() && self.phase == Phase::Connecting {
            self.send(out, |wire| connect::refuse(wire, Version::V5, reason, None, None));
        }
        self.phase = Phase::Closed;
    }

    fn answer_connect(&mut self, answer: Answer, out: &mut Outbox) {
        match answer {
            Answer::Connected(connected) => self.connected(&connected, out),
            Answer::Challenge(data) => self.send_auth(out, 0x18, &data),
            Answer::Refused(why) => {
                let version = self.version;
                // A Reason String must not make the packet larger than the client takes (MQTT-3.2.2-19).
                let fits = |e: &Extra| e.wants_problems && e.max_packet >= 128;
                let text = self.extra.as_deref().is_none_or(fits).then(|| reason::text(why));
                let code = if self.is_5() { reason::reason(why) } else { reason::return_code(why) };
                self.send(out, |wire| connect::refuse(wire, version, code, text, None));
                self.phase = Phase::Closed;
                out.act(Action::Close(self.peer, reason::close(why)));
            }
            _ => {}
        }
    }

    fn answer_auth(&mut self, answer: Answer, out: &mut Outbox) {
        match answer {
            Answer::Challenge(data) => self.send_auth(out, 0x18, &data),
            Answer::Authenticated(data) => self.send_auth(out, 0, &data),
            // A client that fails to prove itself again is let go (4.12.1); of the codes DISCONNECT may carry, Not
            // authorized says it.
            Answer::Refused(why) => self.end(out, Fault { reason: 0x87, close: reason::close(why) }),
            _ => {}
        }
    }

    fn answer_filters(&mut self, out: &mut Outbox, kind: u8, id: u16, codes: Vec<u8>) {
        let is_5 = self.is_5();
        let is_next = |e: &&mut Extra| e.bad.front().is_some_and(|(of, _)| *of == id);
        let bad = self.extra.as_deref_mut().filter(is_next).and_then(|e| e.bad.pop_front());
        let codes = match bad {
            Some((_, bad)) => subscribe::merge(&bad, is_5, codes),
            None => codes,
        };
        self.send(out, |wire| {
            packet(wire, kind << 4, |wire| {
                wire.put_u16(id);
                if is_5 {
                    wire.put_u8(0);
                }
                // UNSUBACK had no codes before 5.0.
                if is_5 || kind == kind::SUBACK {
                    wire.put(&codes);
                }
            });
        });
    }

    fn name(&mut self, topic: &str) -> Option<Naming> {
        if !self.is_5() {
            return None;
        }
        let Some(extra) = self.extra.as_deref_mut().filter(|e| e.alias_maximum > 0) else {
            return Some(Naming::default());
        };
        if let Some(&alias) = extra.outgoing.get(topic) {
            return Some(Naming { alias, is_known: true });
        }
        let next = extra.outgoing.len() as u16 + 1;
        // First come, first served: no alias ever changes its meaning.
        Some(Naming { alias: if next <= extra.alias_maximum { next } else { 0 }, is_known: false })
    }

    fn deliver_message(&mut self, now: Now, d: &Delivery<'_>, out: &mut Outbox) {
        let naming = self.name(d.topic);
        let most = self.extra.as_ref().map_or(usize::MAX, |e| e.max_packet);
        let mut is_sent = false;
        self.send(out, |wire| is_sent = publish::encode(wire, now, d, naming, most));
        if !is_sent {
            // As if it was sent and acknowledged (MQTT-3.1.2-25).
            out.act(Action::Drop(self.peer, Drop::TooLarge));
            if let Some(id) = d.id {
                out.act(Action::Settle(self.peer, id, Settle::Done));
            }
            return;
        }
        if let Some(Naming { alias: 1.., is_known: false }) = naming
            && let Some(alias) = naming.map(|n| n.alias)
        {
            self.extra().outgoing.insert(d.topic.into(), alias);
        }
    }
}

impl Gateway for Mqtt {
    fn opened(&mut self, now: Now, peer: Peer, _: &Facts, _: &mut Outbox) {
        self.peer = peer;
        self.seen = now.instant;
    }

    fn input(&mut self, now: Now, _: Peer, bytes: &mut BytesMut, out: &mut Outbox) -> Result<Flow, Close> {
        self.packets(now, bytes, out).map_err(|fault| {
            self.say_goodbye(out, fault.reason);
            fault.close
        })
    }

    fn deliver(&mut self, now: Now, _: Peer, deliver: &Deliver<'_>, out: &mut Outbox) {
        match deliver {
            Deliver::Message(d) => self.deliver_message(now, d, out),
            Deliver::Release(id) => self.send(out, |wire| acks::encode(wire, kind::PUBREL << 4 | 2, id.0, 0)),
        }
    }

    fn reply(&mut self, _: Now, _: Peer, ticket: Ticket, answer: Answer, out: &mut Outbox) {
        self.waiting = self.waiting.saturating_sub(1);
        if self.phase == Phase::Closed {
            return;
        }
        let (kind, id) = ticket::take(ticket);
        match (kind, answer) {
            (ticket::CONNECT, answer) => self.answer_connect(answer, out),
            (ticket::AUTH, answer) => self.answer_auth(answer, out),
            (ticket::QOS0 | ticket::QOS1 | ticket::QOS2, answer) => {
                let qos = match kind {
                    ticket::QOS1 => Qos::AtLeastOnce,
                    ticket::QOS2 => Qos::ExactlyOnce,
                    _ => Qos::AtMostOnce,
                };
                let result = match answer {
                    Answer::Published(n) => Ok(n),
                    Answer::Refused(why) => Err(why),
                    _ => return,
                };
                self.answer_publish(out, qos, id, result);
            }
            (ticket::RELEASE, Answer::Known(known)) => {
                if self.extra.as_mut().is_some_and(|e| e.open.remove(&id)) {
                    self.receiving = self.receiving.saturating_sub(1);
                }
                let reason = if known || !self.is_5() { 0 } else { 0x92 };
                self.send(out, |wire| acks::encode(wire, kind::PUBCOMP << 4, id, reason));
            }
            (ticket::RECEIVE, Answer::Known(known)) => {
                let reason = if known || !self.is_5() { 0 } else { 0x92 };
                self.send(out, |wire| acks::encode(wire, kind::PUBREL << 4 | 2, id, reason));
            }
            (ticket::SUBSCRIBE, Answer::Subscribed(results)) => {
                let code = |r: Result<Qos, Refusal>| match r {
                    Ok(qos) => qos as u8,
                    Err(why) if self.is_5() => reason::reason(why),
                    Err(_) => 0x80,
                };
                let codes = results.into_iter().map(code).collect();
                self.answer_filters(out, kind::SUBACK, id, codes);
            }
            (ticket::UNSUBSCRIBE, Answer::Unsubscribed(results)) => {
                let code = |r: Result<bool, Refusal>| match r {
                    Ok(true) => 0,
                    Ok(false) => 0x11,
                    Err(why) => reason::reason(why),
                };
                let codes = results.into_iter().map(code).collect();
                self.answer_filters(out, kind::UNSUBACK, id, codes);
            }
            _ => {}
        }
    }

    fn stop(&mut self, _: Now, _: Peer, why: Stop, out: &mut Outbox) {
        self.say_goodbye(out, reason::stop(why));
    }

    fn closed(&mut self, _: Now, _: Peer, _: &mut Outbox) {
        self.phase = Phase::Closed;
        self.extra = None;
    }

    fn timeout(&mut self, now: Now, out: &mut Outbox) {
        let Some((due, _)) = self.next_timeout() else { return };
        if due > now.instant {
            return;
        }
        let fault = if self.phase == Phase::Open {
            // MQTT-3.1.2-22 (3.1.1: -24).
            Fault { reason: 0x8D, close: Close::KeepAlive }
        } else {
            Fault { reason: 0x87, close: Close::ConnectTimeout }
        };
        self.end(out, fault);
    }

    fn next_timeout(&self) -> Option<(Instant, &'static str)> {
        match self.phase {
            Phase::Waiting | Phase::Connecting => Some((self.seen + self.config.connect_timeout, "connect")),
            Phase::Open if self.keep_alive > 0 => {
                // One and a half times the keep-alive.
                Some((self.seen + Duration::from_millis(u64::from(self.keep_alive) * 1500), "keep_alive"))
            }
            _ => None,
        }
    }

    fn describe(&self, _: Peer, into: &mut Vec<(&'static str, String)>) {
        into.push(("version", self.version.name().to_owned()));
        into.push(("keep_alive_s", self.keep_alive.to_string()));
        into.push(("receiving", self.receiving.to_string()));
        if let Some(extra) = &self.extra {
            into.push(("topic_aliases_out", extra.outgoing.len().to_string()));
        }
    }
}

#[cfg(test)]
mod tests;

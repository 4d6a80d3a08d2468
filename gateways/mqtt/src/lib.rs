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

mod accept;
pub mod acks;
pub mod auth;
pub mod config;
pub mod connect;
mod deliver;
pub mod disconnect;
pub mod frame;
pub mod property;
pub mod publish;
pub mod reason;
mod receive;
pub mod subscribe;
mod ticket;
pub mod trace;

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, BytesMut};
use gateway::{
    Action, Answer, Close, Deliver, Direction, Drop, Factory, Facts, Flow, Gateway, Instant, Now, Outbox,
    Peer, Qos, Refusal, Stop, Ticket,
};
use wire::Writer;

pub use config::{Config, OnDeny};
pub use connect::Version;

use frame::{Fault, Frame, kind};

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
    /// Whether the client authenticates again just now.
    is_proving: bool,
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
            incoming: publish::Aliases::default(),
            outgoing: HashMap::new(),
            alias_maximum: 0,
            method: None,
            is_proving: false,
            open: HashSet::new(),
            bad: VecDeque::new(),
        }
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

    /// The one place where packets leave. One that is larger than the client takes is dropped and counted, as if it was
    /// sent (MQTT-3.1.2-24, -25); then it is false. What `write` appends is shown to who traces the client.
    fn send(&self, out: &mut Outbox, write: impl FnOnce(&mut Vec<u8>)) -> bool {
        let wire = out.send(self.peer);
        let at = wire.len();
        write(wire);
        if let Some(extra) = &self.extra
            && wire.len() - at > extra.max_packet
        {
            wire.truncate(at);
            out.act(Action::Drop(self.peer, Drop::TooLarge));
            return false;
        }
        if out.is_traced {
            for line in trace::describe_all(self.is_5(), &out.wire[at..]) {
                out.trace(self.peer, Direction::Out, || line);
            }
        }
        true
    }

    /// Words for people that go with a refusal, if the client wants any (MQTT-3.1.2-29) and has room for them.
    fn words(&self, why: Refusal) -> Option<&'static str> {
        let wants = |e: &Extra| e.wants_problems && e.max_packet >= 128;
        self.extra.as_deref().filter(|e| self.is_5() && wants(e)).map(|_| reason::text(why))
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
                let line = trace::describe(self.is_5(), frame.first, &bytes[frame.body..frame.end]);
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

    /// Flags of PUBREL, SUBSCRIBE and UNSUBSCRIBE: 0010, and in 3.1 also with DUP (3.1, 2.1).
    fn is_flagged(&self, flags: u8) -> bool {
        flags == 2 || (self.version == Version::V31 && flags == 10)
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
            Deliver::Release(id) => self.deliver_release(*id, out),
            Deliver::Nothing => {}
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
            (ticket::RELEASE, Answer::Known(known)) => self.answer_release(out, id, known),
            (ticket::RECEIVE, Answer::Known(known)) => self.answer_receive(out, id, known),
            // It is not on the disk that the client has it: saying so would have it twice after a restart.
            (ticket::RELEASE | ticket::RECEIVE, Answer::Refused(_)) => {
                self.end(out, Fault { reason: 0x97, close: Close::QuotaExceeded });
            }
            (ticket::SUBSCRIBE, Answer::Subscribed(results)) => self.answer_subscribe(out, id, results),
            (ticket::UNSUBSCRIBE, Answer::Unsubscribed(results)) => self.answer_unsubscribe(out, id, results),
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

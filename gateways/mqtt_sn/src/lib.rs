//! The MQTT-SN gateway: version 1.2 (Stanford-Clark and Truong, 2013) over UDP and DTLS.
//!
//! One [`MqttSn`] serves all peers of a socket; one behind a forwarder is a peer too (5.5). What a client has in the router
//! goes on while it sleeps: its session stays attached, and just takes no delivery.
//!
//! ```text
//!            CONNECT, will                      DISCONNECT with duration
//! Stranger ----------------> Active <---------------------------------------> Asleep --PINGREQ--> Awake
//!    ^                         |              CONNECT                           ^                   |
//!    +--- DISCONNECT, lost ----+                                                +-- all delivered --+
//! ```
//!
//! Deliveries are asked for one at a time, so that at most one of them waits for its answer (6.10), be it the REGACK or the
//! PUBACK.

pub mod config;
mod connect;
mod conversation;
mod deliver;
pub mod frame;
mod kept;
mod predefined;
mod publish;
mod sleep;
mod subscribe;
mod ticket;
mod topics;
mod will;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use gateway::{
    Action, Answer, Close, Deadlines, Deliver, Direction, Drop, Factory, Facts, Flow, Gateway, Instant, Now,
    Outbox, Peer, Refusal, Stop, Ticket,
};
use wire::Writer;

pub use config::{Config, Rebind};

use conversation::{Conversation, Phase, Step, Table};
use frame::{Code, Message, kind};
use ticket::Asked;

/// Makes machines for a listener.
pub struct MqttSnFactory(Arc<Config>);

impl MqttSnFactory {
    /// Machines with this configuration.
    pub fn new(config: Config) -> MqttSnFactory {
        MqttSnFactory(Arc::new(config))
    }
}

impl Factory for MqttSnFactory {
    fn build(&self) -> Box<dyn Gateway> {
        Box::new(MqttSn::new(self.0.clone()))
    }
}

/// See the module.
pub struct MqttSn {
    config: Arc<Config>,
    peers: Table,
    /// Where clients with a session are.
    clients: HashMap<Box<str>, Peer>,
    deadlines: Deadlines<Peer>,
    /// When the next ADVERTISE is due.
    advertise_at: Option<Instant>,
    /// DISCONNECT messages of strangers that were answered since then.
    farewells: (Instant, u32),
}

/// Most DISCONNECT messages of strangers that are answered in a second: two gateways that take each other for clients do not
/// answer each other without end.
const MAX_FAREWELLS: u32 = 100;

/// What a refused request is answered: the one place where refusals become return codes. None is no answer: the client asks
/// again.
fn code(why: Refusal) -> Option<Code> {
    match why {
        Refusal::QuotaExceeded | Refusal::ServerBusy | Refusal::NotKept | Refusal::NoSession => {
            Some(Code::Congestion)
        }
        Refusal::TopicName | Refusal::TopicFilter => Some(Code::InvalidTopicId),
        Refusal::Uncertain => None,
        _ => Some(Code::NotSupported),
    }
}

/// The one place where messages leave: `write` appends the variable part. False, and nothing, if it would be too long.
fn send(c: &Conversation, peer: Peer, out: &mut Outbox, kind: u8, write: impl FnOnce(&mut Vec<u8>)) -> bool {
    let frames = out.frames.len();
    let begin = out.send(peer).len();
    let is_sent = write_message(c, out, kind, write);
    if !is_sent {
        out.wire.truncate(begin);
        out.frames.truncate(frames);
    }
    trace_sent(c, peer, begin, out);
    is_sent
}

/// As `send`, only to the address that the peer may be at.
fn probe(c: &Conversation, peer: Peer, out: &mut Outbox, kind: u8, write: impl FnOnce(&mut Vec<u8>)) {
    let begin = out.probe(peer).len();
    write_message(c, out, kind, write);
    trace_sent(c, peer, begin, out);
}

fn write_message(c: &Conversation, out: &mut Outbox, kind: u8, write: impl FnOnce(&mut Vec<u8>)) -> bool {
    out.wire.put(&c.wrapping);
    frame::encode(&mut out.wire, kind, write)
}

fn trace_sent(c: &Conversation, peer: Peer, begin: usize, out: &mut Outbox) {
    if out.is_traced && out.wire.len() > begin {
        let line = frame::describe(&out.wire[begin + c.wrapping.len()..]);
        out.trace(peer, Direction::Out, || line);
    }
}

impl MqttSn {
    /// A machine without peers.
    pub fn new(config: Arc<Config>) -> MqttSn {
        let advertise_at = config.advertise.map(|_| Instant::default());
        MqttSn {
            config,
            peers: Table::default(),
            clients: HashMap::new(),
            deadlines: Deadlines::default(),
            advertise_at,
            farewells: (Instant::default(), 0),
        }
    }

    fn say(&self, peer: Peer, out: &mut Outbox, kind: u8, write: impl FnOnce(&mut Vec<u8>)) {
        if let Some(c) = self.peers.get(peer) {
            send(c, peer, out, kind, write);
        }
    }

    /// The answer of these three numbers: REGACK, PUBACK.
    fn acknowledge(&self, peer: Peer, out: &mut Outbox, kind: u8, topic: u16, msg_id: u16, code: Code) {
        self.say(peer, out, kind, |wire| {
            wire.put_u16(topic);
            wire.put_u16(msg_id);
            wire.put_u8(code as u8);
        });
    }

    fn schedule(&mut self, peer: Peer) {
        let Some(c) = self.peers.get_mut(peer) else { return };
        let due = c.due(&self.config);
        if due < c.scheduled {
            self.deadlines.cancel(c.scheduled, peer);
            c.scheduled = due;
            self.deadlines.set(due, peer);
        }
    }

    /// One datagram, which is one message.
    fn datagram(&mut self, now: Now, peer: Peer, bytes: &[u8], out: &mut Outbox) -> Flow {
        let Some(c) = self.peers.get_mut(peer) else { return Flow::Continue };
        let mut inner = bytes;
        if let Some((wrapping, message)) = frame::unwrap(bytes) {
            // Behind DTLS a peer is who it has proven to be, and nobody else.
            if c.is_sealed {
                out.act(Action::Drop(peer, Drop::Unsupported));
                return Flow::Continue;
            }
            if *c.wrapping != *wrapping {
                c.wrapping = wrapping.into();
            }
            inner = message;
        }
        let Ok(message) = Message::decode(inner) else {
            out.act(Action::Drop(peer, Drop::Malformed));
            self.forget_stranger(peer, out);
            return Flow::Continue;
        };
        out.trace(peer, Direction::In, || frame::describe(inner));
        c.seen = now.instant;
        let flow = self.message(now, peer, message, bytes, out);
        if flow == Flow::Continue {
            self.forget_stranger(peer, out);
        }
        flow
    }

    /// Who is nobody, and does not become somebody, takes no place.
    fn forget_stranger(&self, peer: Peer, out: &mut Outbox) {
        let is_nobody = |c: &Conversation| c.phase == Phase::Stranger && c.pending.is_none() && !c.is_sealed;
        if self.peers.get(peer).is_some_and(is_nobody) {
            out.act(Action::Close(peer, Close::Goodbye));
        }
    }

    fn message(
        &mut self,
        now: Now,
        peer: Peer,
        message: Message<'_>,
        bytes: &[u8],
        out: &mut Outbox,
    ) -> Flow {
        let Some(c) = self.peers.get_mut(peer) else { return Flow::Continue };
        match message {
            Message::SearchGw { .. } => {
                let id = self.config.gateway_id;
                self.say(peer, out, kind::GWINFO, |wire| wire.put_u8(id));
            }
            Message::Advertise { .. } | Message::GwInfo { .. } | Message::Other(_) => {
                out.act(Action::Drop(peer, Drop::Unexpected));
            }
            Message::Connect { flags, protocol, duration, client_id } => {
                return self.connect(now, peer, flags, protocol, duration, client_id, out);
            }
            Message::Publish { flags, topic, data, .. } if flags.qos().is_none() => {
                self.publish_minus_one(now, peer, flags, topic, data, bytes, out);
            }
            Message::PingReq { client_id } => return self.ping(now, peer, client_id, bytes, out),
            Message::WillTopic(topic) if c.pending.is_some() => self.will_topic(now, peer, topic, out),
            Message::WillMsg(data) if c.pending.is_some() => self.will_message(now, peer, data, out),
            Message::Disconnect { duration }
                if c.pending.as_ref().is_none_or(|p| p.step != Step::Opening) =>
            {
                // Its will is not needed any more.
                c.pending = None;
                self.disconnect(now, peer, duration, out);
            }
            _ if c.pending.is_some() => self.too_early(peer, message, bytes, out),
            _ if !c.has_session() => self.unknown(now, peer, bytes, out),
            _ => self.request(now, peer, message, out),
        }
        Flow::Continue
    }

    /// What a client with a session says.
    fn request(&mut self, now: Now, peer: Peer, message: Message<'_>, out: &mut Outbox) {
        match message {
            Message::Register { msg_id, name } => self.register(peer, msg_id, name, out),
            Message::RegAck { topic, msg_id, code } => {
                self.registered(now, peer, topic, msg_id, code, out);
            }
            Message::Publish { flags, topic, msg_id, data } => {
                self.publish(now, peer, flags, topic, msg_id, data, out);
            }
            Message::PubRel(msg_id) => {
                out.act(Action::Release(peer, ticket::ticket(Asked::Release, 0, msg_id), msg_id));
            }
            Message::PubAck { topic, msg_id, code } => {
                self.acknowledged(now, peer, topic, msg_id, code, out);
            }
            Message::PubRec(msg_id) => self.received(peer, msg_id, out),
            Message::PubComp(msg_id) => self.completed(peer, msg_id, out),
            Message::Subscribe { flags, msg_id, topic } => self.subscribe(peer, flags, msg_id, topic, out),
            Message::Unsubscribe { msg_id, topic } => self.unsubscribe(peer, msg_id, topic, out),
            Message::WillTopic(None) => self.connected_already(peer, None, out),
            Message::WillMsg(data) => self.connected_already(peer, Some(data), out),
            Message::WillTopicUpd(topic) => self.update_will_topic(now, peer, topic, out),
            Message::WillMsgUpd(data) => self.update_will_message(now, peer, data, out),
            _ => out.act(Action::Drop(peer, Drop::Unexpected)),
        }
    }

    /// The client is where it was sent something, for it has answered that.
    fn prove(&mut self, peer: Peer, out: &mut Outbox) {
        let Some(c) = self.peers.get_mut(peer) else { return };
        if let Some(client) = c.client.as_mut() {
            client.is_unproven = false;
        }
        if let Some(address) = c.candidate.take() {
            c.address = address;
            out.act(Action::Reached(peer, address));
        }
    }

    /// The peer that this one's client is being let in at.
    fn goes_to(&self, c: &Conversation) -> Option<Peer> {
        let to = c.goes_to?;
        let pending = self.peers.get(to)?.pending.as_ref()?;
        (pending.step == Step::Opening && pending.client_id == c.client.as_ref()?.client_id).then_some(to)
    }

    fn look_at(&mut self, now: Now, peer: Peer, out: &mut Outbox) {
        let Some(c) = self.peers.get(peer) else { return };
        if c.pending.is_some() {
            if c.due(&self.config) <= now.instant {
                self.ask_again(now, peer, out);
            }
            return;
        }
        if c.end(&self.config) <= now.instant {
            let why = if c.has_session() { Close::KeepAlive } else { Close::Idle };
            if c.is_sealed && !c.has_session() {
                return;
            }
            return self.lose(peer, why, out);
        }
        if c.due(&self.config) <= now.instant {
            self.resend(now, peer, out);
        }
    }

    /// The client does not answer any more: its will is published, and a sleeper is none any more.
    fn lose(&mut self, peer: Peer, why: Close, out: &mut Outbox) {
        if let Some(client) = self.peers.get_mut(peer).and_then(|c| c.client.as_mut())
            && client.sleep > 0
        {
            client.sleep = 0;
            client.arm(peer, out);
            kept::keep_state(peer, client, out);
        }
        // One that may hear, but not be heard, or has no keep alive, learns that it is not connected any more.
        let is_free = |c: &Conversation| {
            c.phase == Phase::Active && c.client.as_ref().is_some_and(|k| k.keep_alive == 0)
        };
        if why == Close::AckTimeout || self.peers.get(peer).is_some_and(is_free) {
            self.say(peer, out, kind::DISCONNECT, |_| {});
        }
        out.act(Action::Close(peer, why));
    }
}

impl Gateway for MqttSn {
    fn opened(&mut self, now: Now, peer: Peer, facts: &Facts, out: &mut Outbox) {
        self.peers.insert(peer, Conversation::new(now.instant, facts));
        out.act(Action::Want(peer, false));
        self.schedule(peer);
    }

    fn input(&mut self, now: Now, peer: Peer, bytes: &mut BytesMut, out: &mut Outbox) -> Result<Flow, Close> {
        let datagram = bytes.split();
        let flow = self.datagram(now, peer, &datagram, out);
        self.schedule(peer);
        Ok(flow)
    }

    fn group(&mut self, _: Now, peer: Peer, bytes: &mut BytesMut, out: &mut Outbox) {
        let datagram = bytes.split();
        let mut inner = &datagram[..];
        if let Some((wrapping, message)) = frame::unwrap(&datagram) {
            if let Some(c) = self.peers.get_mut(peer) {
                c.wrapping = wrapping.into();
            }
            inner = message;
        }
        match Message::decode(inner) {
            Ok(Message::SearchGw { .. }) => {
                let id = self.config.gateway_id;
                self.say(peer, out, kind::GWINFO, |wire| wire.put_u8(id));
            }
            Ok(_) => out.act(Action::Drop(peer, Drop::Unsupported)),
            Err(_) => out.act(Action::Drop(peer, Drop::Malformed)),
        }
        self.forget_stranger(peer, out);
    }

    fn node<'a>(&self, bytes: &'a [u8]) -> &'a [u8] {
        frame::unwrap(bytes).map_or(&[], |(wrapping, _)| frame::node(wrapping))
    }

    fn moved(&mut self, _: Now, peer: Peer, to: SocketAddr, _: &mut Outbox) {
        let Some(c) = self.peers.get_mut(peer) else { return };
        c.candidate = Some(to).filter(|to| *to != c.address);
        let is_unproven = c.candidate.is_some();
        if let Some(client) = c.client.as_mut() {
            client.is_unproven = is_unproven;
        }
    }

    fn deliver(&mut self, now: Now, peer: Peer, deliver: &Deliver<'_>, out: &mut Outbox) {
        match deliver {
            Deliver::Message(d) => self.deliver_message(now, peer, d, out),
            Deliver::Release(id) => self.deliver_release(now, peer, *id, out),
            Deliver::Nothing => self.drained(peer, out),
        }
        self.schedule(peer);
    }

    fn reply(&mut self, now: Now, peer: Peer, ticket: Ticket, answer: Answer, out: &mut Outbox) {
        let (asked, topic, msg_id) = ticket::asked(ticket);
        match (asked, answer) {
            (Asked::Open, answer) => self.opened_session(now, peer, answer, out),
            (Asked::Publish | Asked::PublishOnce, answer) => {
                self.published(peer, asked, topic, msg_id, answer, out);
            }
            // Unknown ones were released before, and their PUBCOMP was lost.
            (Asked::Release, Answer::Known(was_known)) => {
                let client = self.peers.get_mut(peer).and_then(|c| c.client.as_mut());
                if let Some(client) = client.filter(|_| was_known) {
                    client.acknowledge(msg_id);
                }
                self.say(peer, out, kind::PUBCOMP, |wire| wire.put_u16(msg_id));
            }
            (Asked::Receive, Answer::Known(known)) => self.noted(now, peer, msg_id, known, out),
            (Asked::Register, answer) => self.kept_register(peer, topic, msg_id, answer, out),
            (Asked::Topic, Answer::Refused(_)) => self.forget_topic(peer, topic),
            (Asked::Subscribe, Answer::Subscribed(results)) => {
                self.subscribed(peer, topic, msg_id, &results, out);
            }
            (Asked::Unsubscribe, Answer::Unsubscribed(_)) => {
                self.say(peer, out, kind::UNSUBACK, |wire| wire.put_u16(msg_id));
            }
            (Asked::TakeUp, answer) => self.took_will(now, peer, answer, out),
            (Asked::WillTopic, answer) => self.updated_will(peer, kind::WILLTOPICRESP, answer, out),
            (Asked::WillMsg, answer) => self.updated_will(peer, kind::WILLMSGRESP, answer, out),
            _ => {}
        }
        self.forget_stranger(peer, out);
        self.schedule(peer);
    }

    fn stop(&mut self, _: Now, peer: Peer, why: Stop, out: &mut Outbox) {
        let Some(c) = self.peers.get(peer) else { return };
        match (why, c.phase) {
            // Who is known again after a restart has no need to hear of it; others are told when they say something.
            (Stop::ShuttingDown, _) | (_, Phase::Stranger | Phase::Publisher | Phase::Asleep) => {}
            (Stop::TakenOver, _) if self.goes_to(c).is_some() => {}
            _ => self.say(peer, out, kind::DISCONNECT, |_| {}),
        }
    }

    fn closed(&mut self, _: Now, peer: Peer, _: &mut Outbox) {
        let Some(mut c) = self.peers.remove(peer) else { return };
        self.deadlines.cancel(c.scheduled, peer);
        if let Some(client) = &c.client
            && self.clients.get(&client.client_id) == Some(&peer)
        {
            self.clients.remove(&client.client_id);
        }
        // It has been let in there, and the answer that says so waits for the store.
        if let Some(to) = self.goes_to(&c)
            && let Some(p) = self.peers.get_mut(to).and_then(|c| c.pending.as_mut())
        {
            p.moved = c.take_client();
        }
    }

    fn timeout(&mut self, now: Now, out: &mut Outbox) {
        if let (Some(at), Some(seconds)) = (self.advertise_at, self.config.advertise)
            && at <= now.instant
        {
            self.advertise_at = Some(now.instant + Duration::from_secs(seconds.into()));
            let (mut bytes, id) = (Vec::new(), self.config.gateway_id);
            frame::encode(&mut bytes, kind::ADVERTISE, |wire| {
                wire.put_u8(id);
                wire.put_u16(seconds);
            });
            out.act(Action::Announce(self.config.advertise_to, bytes));
        }
        while let Some(peer) = self.deadlines.pop(now.instant) {
            if let Some(c) = self.peers.get_mut(peer) {
                c.scheduled = Instant::NEVER;
                self.look_at(now, peer, out);
                // Whose end was just asked for is not looked at again at once.
                if self.peers.get(peer).is_some_and(|c| c.due(&self.config) > now.instant) {
                    self.schedule(peer);
                }
            }
        }
    }

    fn next_timeout(&self) -> Option<(Instant, &'static str)> {
        [self.deadlines.next(), self.advertise_at].into_iter().flatten().min().map(|at| (at, "mqtt_sn"))
    }

    fn describe(&self, peer: Peer, into: &mut Vec<(&'static str, String)>) {
        let Some(c) = self.peers.get(peer) else { return };
        into.push(("state", format!("{:?}", c.phase).to_lowercase()));
        if !c.wrapping.is_empty() {
            let node: String = frame::node(&c.wrapping).iter().map(|b| format!("{b:02x}")).collect();
            into.push(("node", node));
        }
        if let Some(client) = &c.client {
            into.push(("keep_alive_s", client.keep_alive.to_string()));
            into.push(("sleep_s", client.sleep.to_string()));
            into.push(("topic_ids", client.topics.len().to_string()));
        }
    }
}

#[cfg(test)]
mod tests;

//! What clients are sent (MQTT-SN 1.2, 6.10): one message at a time, its topic registered before it.

use gateway::{Action, Close, Delivery, DeliveryId, Drop, Now, Outbox, Peer, Qos, Settle};
use wire::Writer;

use crate::conversation::{Client, Conversation, Held, Outgoing, Phase, What};
use crate::frame::{self, Code, Flags, TopicId, kind};
use crate::kept;
use crate::ticket::{Asked, ticket};
use crate::{MqttSn, probe, send};

impl MqttSn {
    pub(crate) fn deliver_message(&mut self, now: Now, peer: Peer, d: &Delivery<'_>, out: &mut Outbox) {
        let (config, retry) = (self.config.clone(), self.config.retry_interval);
        let Some(c) = self.peers.get_mut(peer) else { return };
        let (phase, has_candidate) = (c.phase, c.candidate.is_some());
        let Some(client) = c.client.as_mut() else { return };
        // Only what is handed over unasked ($fastlane) can come here.
        if client.outgoing.is_some() || phase == Phase::Asleep {
            return out.act(Action::Drop(peer, Drop::SlowPeer));
        }
        let mut held = Held {
            id: d.id,
            message: d.message.clone(),
            qos: d.qos,
            retain: d.retain,
            is_dup: d.duplicate,
            is_disowned: false,
        };
        if frame::size(d.message.payload().len() + 5) > config.max_packet_size {
            return self.give_up(peer, held.id, Drop::TooLarge, out);
        }
        // What needs no answer goes behind something that does, where nothing shows that the client is there.
        let must_register = client.is_unproven && (d.qos == Qos::AtMostOnce || has_candidate);
        let known = client.topics.id(d.topic).filter(|id| client.topics.is_known(*id));
        let topic = known.map(TopicId::Normal).or_else(|| {
            let predefined = config.predefined.id(&client.client_id, d.topic).map(TopicId::Predefined);
            let short = || <[u8; 2]>::try_from(d.topic.as_bytes()).ok().map(TopicId::Short);
            predefined.or_else(short)
        });
        let what = match topic.filter(|_| !must_register) {
            Some(topic) => What::Publish { topic, held },
            None => {
                if !config.can_tell(d.topic) {
                    return self.give_up(peer, held.id, Drop::TooLarge, out);
                }
                let Some(topic) = client.topics.give(d.topic, config.max_topics) else {
                    return self.give_up(peer, held.id, Drop::QueueFull, out);
                };
                held.is_disowned = client.topics.is_disowned(topic);
                What::Register { topic, msg_id: client.next_register(), held }
            }
        };
        client.outgoing = Some(Outgoing { what, due: now.instant + retry, tries: 0 });
        self.transmit(now, peer, false, out);
    }

    pub(crate) fn deliver_release(&mut self, now: Now, peer: Peer, id: DeliveryId, out: &mut Outbox) {
        let due = now.instant + self.config.retry_interval;
        let Some(client) = self.peers.get_mut(peer).and_then(|c| c.client.as_mut()) else { return };
        client.outgoing = Some(Outgoing { what: What::Release { id }, due, tries: 0 });
        self.transmit(now, peer, false, out);
    }

    /// It can never be delivered.
    fn give_up(&mut self, peer: Peer, id: Option<DeliveryId>, why: Drop, out: &mut Outbox) {
        out.act(Action::Drop(peer, why));
        self.settle(peer, id, Settle::Done, out);
    }

    /// The delivery is over: the next one.
    fn settle(&mut self, peer: Peer, id: Option<DeliveryId>, how: Settle, out: &mut Outbox) {
        if let Some(id) = id {
            out.act(Action::Settle(peer, id, how));
        }
        let Some(c) = self.peers.get_mut(peer) else { return };
        if let Some(client) = c.client.as_mut() {
            client.outgoing = None;
        }
        if matches!(c.phase, Phase::Active | Phase::Awake) {
            out.act(Action::Want(peer, true));
        }
    }

    /// Sends what has not been sent yet, now or when the client wakes.
    fn transmit_awake(&mut self, now: Now, peer: Peer, out: &mut Outbox) {
        if self.peers.get(peer).is_some_and(|c| c.phase != Phase::Asleep) {
            self.transmit(now, peer, false, out);
        }
    }

    /// Sends what is to be sent, or to be sent again.
    pub(crate) fn transmit(&mut self, now: Now, peer: Peer, is_again: bool, out: &mut Outbox) {
        let retry = self.config.retry_interval;
        let Some(c) = self.peers.get_mut(peer) else { return };
        let Some(outgoing) = c.client.as_mut().and_then(|k| k.outgoing.as_mut()) else { return };
        outgoing.due = now.instant + retry;
        let Some(c) = self.peers.get(peer) else { return };
        let Some(client) = c.client.as_deref() else { return };
        let Some(outgoing) = &client.outgoing else { return };
        match &outgoing.what {
            What::Register { topic, msg_id, .. } => register(c, client, peer, *topic, *msg_id, out),
            What::Publish { topic, held } => {
                publish(c, peer, *topic, held, is_again, out);
                if held.id.is_none() {
                    // Nobody answers to QoS 0.
                    self.settle(peer, None, Settle::Done, out);
                }
            }
            What::Release { id } => {
                send(c, peer, out, kind::PUBREL, |wire| wire.put_u16(id.0));
            }
            What::Received { .. } => {}
        }
    }

    /// The answer did not come in time.
    pub(crate) fn resend(&mut self, now: Now, peer: Peer, out: &mut Outbox) {
        let most = self.config.max_retries;
        let outgoing = self.peers.get_mut(peer).and_then(|c| c.client.as_mut()?.outgoing.as_mut());
        let Some(outgoing) = outgoing else { return };
        outgoing.tries += 1;
        if outgoing.tries > most {
            return self.not_answered(peer, out);
        }
        self.transmit(now, peer, true, out);
    }

    /// Not after the last retry either.
    fn not_answered(&mut self, peer: Peer, out: &mut Outbox) {
        let Some(c) = self.peers.get_mut(peer) else { return };
        let is_awake = c.phase == Phase::Awake;
        let Some(client) = c.client.as_mut() else { return };
        // It was told the id, has said that it does not know it, and does not answer REGISTER: such a client is there, and has
        // the id when it is through with its SUBSCRIBE.
        let is_disowned =
            |o: &mut Outgoing| matches!(&o.what, What::Register { held, .. } if held.is_disowned);
        if let Some(What::Register { topic, held, .. }) =
            client.outgoing.take_if(is_disowned).map(|outgoing| outgoing.what)
        {
            if client.topics.set_known(topic, true) {
                kept::keep_topic(peer, client, topic, (Asked::Nothing, 0), out);
            }
            return self.refused(peer, held.id, out);
        }
        if !is_awake {
            return self.lose(peer, Close::AckTimeout, out);
        }
        // It goes back to sleep (6.14), for as long as it has said. What it cannot acknowledge must not stand in the way of what
        // would show that it is where it says.
        let is_proof = |o: &mut Outgoing| matches!(&o.what, What::Register { held, .. } if held.id.is_none());
        if client.is_unproven && client.outgoing.take_if(is_proof).is_some() {
            out.act(Action::Drop(peer, Drop::Refused));
        }
        c.phase = Phase::Asleep;
        out.act(Action::Want(peer, false));
    }

    pub(crate) fn registered(
        &mut self,
        now: Now,
        peer: Peer,
        topic: u16,
        msg_id: u16,
        code: Code,
        out: &mut Outbox,
    ) {
        let Some(client) = self.peers.get_mut(peer).and_then(|c| c.client.as_mut()) else { return };
        let is_ours = |o: &mut Outgoing| matches!(o.what, What::Register { topic: t, msg_id: m, .. } if m == msg_id && (t == topic || code != Code::Accepted));
        let Some(outgoing) = client.outgoing.take_if(is_ours) else {
            return out.act(Action::Drop(peer, Drop::Unexpected));
        };
        let What::Register { topic, held, .. } = outgoing.what else { return };
        match code {
            Code::Accepted => {
                if client.topics.set_known(topic, true) {
                    kept::keep_topic(peer, client, topic, (Asked::Nothing, 0), out);
                }
                let what = What::Publish { topic: TopicId::Normal(topic), held };
                client.outgoing = Some(Outgoing { what, due: gateway::Instant::NEVER, tries: 0 });
                self.prove(peer, out);
                self.transmit_awake(now, peer, out);
            }
            // It is asked again in time.
            Code::Congestion => {
                let what = What::Register { topic, msg_id, held };
                client.outgoing = Some(Outgoing { what, tries: 0, ..outgoing });
            }
            Code::InvalidTopicId | Code::NotSupported => {
                self.prove(peer, out);
                self.refused(peer, held.id, out);
            }
        }
    }

    fn refused(&mut self, peer: Peer, id: Option<DeliveryId>, out: &mut Outbox) {
        if id.is_none() {
            out.act(Action::Drop(peer, Drop::Refused));
        }
        self.settle(peer, id, Settle::Refused, out);
    }

    /// PUBACK: of what is outstanding, or the word that an id of QoS 0 is not known.
    pub(crate) fn acknowledged(
        &mut self,
        now: Now,
        peer: Peer,
        topic: u16,
        msg_id: u16,
        code: Code,
        out: &mut Outbox,
    ) {
        let Some(client) = self.peers.get_mut(peer).and_then(|c| c.client.as_mut()) else { return };
        let is_ours = |o: &mut Outgoing| matches!(&o.what, What::Publish { held, .. } if held.id == Some(DeliveryId(msg_id)));
        let Some(outgoing) = client.outgoing.take_if(is_ours) else {
            if code == Code::InvalidTopicId && client.topics.set_known(topic, false) {
                // The next message begins with REGISTER.
                return kept::keep_topic(peer, client, topic, (Asked::Nothing, 0), out);
            }
            return out.act(Action::Drop(peer, Drop::Unexpected));
        };
        let What::Publish { topic, held } = outgoing.what else { return };
        match code {
            // With QoS 2 it should have said PUBREC, but it has the message.
            Code::Accepted => {
                self.prove(peer, out);
                self.settle(peer, held.id, Settle::Done, out);
            }
            // It is there, and asked again in time.
            Code::Congestion => {
                let what = What::Publish { topic, held };
                client.outgoing = Some(Outgoing { what, tries: 0, ..outgoing });
            }
            Code::InvalidTopicId => match topic {
                TopicId::Normal(id) if !held.is_disowned => {
                    client.topics.set_known(id, false);
                    let held = Held { is_disowned: true, ..held };
                    let what = What::Register { topic: id, msg_id: client.next_register(), held };
                    client.outgoing = Some(Outgoing { what, due: gateway::Instant::NEVER, tries: 0 });
                    self.prove(peer, out);
                    self.transmit_awake(now, peer, out);
                }
                // It has accepted the id just now, or needs none.
                _ => self.refused(peer, held.id, out),
            },
            Code::NotSupported => {
                self.prove(peer, out);
                self.refused(peer, held.id, out);
            }
        }
    }

    /// PUBREC.
    pub(crate) fn received(&mut self, peer: Peer, msg_id: u16, out: &mut Outbox) {
        let id = DeliveryId(msg_id);
        let Some(c) = self.peers.get_mut(peer) else { return };
        let Some(client) = c.client.as_mut() else { return };
        match &mut client.outgoing {
            Some(Outgoing { what, .. }) if is_exactly_once(what, id) => {
                *what = What::Received { id };
                self.prove(peer, out);
                out.act(Action::Receive(peer, ticket(Asked::Receive, 0, msg_id), id));
            }
            // PUBREL was lost, the client has moved, or the gateway was started again since the PUBLISH: the session may not
            // know yet that the client has it.
            _ => out.act(Action::Receive(peer, ticket(Asked::Receive, 0, msg_id), id)),
        }
    }

    /// The router has noted that the client has it.
    pub(crate) fn noted(&mut self, now: Now, peer: Peer, msg_id: u16, is_known: bool, out: &mut Outbox) {
        let id = DeliveryId(msg_id);
        let Some(client) = self.peers.get_mut(peer).and_then(|c| c.client.as_mut()) else { return };
        let is_ours = |o: &&mut Outgoing| matches!(o.what, What::Received { id: received } if received == id);
        let Some(outgoing) = client.outgoing.as_mut().filter(is_ours) else {
            // The client is done with it whether it was known or not.
            return self.say(peer, out, kind::PUBREL, |wire| wire.put_u16(msg_id));
        };
        (outgoing.what, outgoing.tries) = (What::Release { id }, 0);
        if !is_known {
            return self.settle(peer, None, Settle::Done, out);
        }
        self.transmit(now, peer, false, out);
    }

    /// PUBCOMP.
    pub(crate) fn completed(&mut self, peer: Peer, msg_id: u16, out: &mut Outbox) {
        let id = DeliveryId(msg_id);
        let Some(client) = self.peers.get_mut(peer).and_then(|c| c.client.as_mut()) else { return };
        let is_ours = |o: &mut Outgoing| matches!(o.what, What::Release { id: released } if released == id);
        if client.outgoing.take_if(is_ours).is_none() {
            return out.act(Action::Drop(peer, Drop::Unexpected));
        }
        self.prove(peer, out);
        self.settle(peer, Some(id), Settle::Done, out);
    }
}

fn register(c: &Conversation, client: &Client, peer: Peer, topic: u16, msg_id: u16, out: &mut Outbox) {
    let name = client.topics.name(topic).unwrap_or_default();
    let write = |wire: &mut Vec<u8>| {
        wire.put_u16(topic);
        wire.put_u16(msg_id);
        wire.put(name.as_bytes());
    };
    if c.candidate.is_some() {
        probe(c, peer, out, kind::REGISTER, write);
    } else {
        send(c, peer, out, kind::REGISTER, write);
    }
}

fn publish(c: &Conversation, peer: Peer, topic: TopicId, held: &Held, is_again: bool, out: &mut Outbox) {
    let is_dup = held.id.is_some() && (held.is_dup || is_again);
    let flags = Flags::of(held.qos, is_dup, held.retain).with_topic_type(topic.topic_type());
    send(c, peer, out, kind::PUBLISH, |wire| {
        wire.put_u8(flags.0);
        wire.put_u16(topic.number());
        wire.put_u16(held.id.map_or(0, |id| id.0));
        wire.put(held.message.payload());
    });
}

fn is_exactly_once(what: &What, id: DeliveryId) -> bool {
    matches!(what, What::Publish { held, .. } if held.id == Some(id) && held.qos == Qos::ExactlyOnce)
}

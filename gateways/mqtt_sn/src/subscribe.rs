//! REGISTER (MQTT-SN 1.2, 6.5), SUBSCRIBE and UNSUBSCRIBE (6.9).

use gateway::topic::check_name;
use gateway::{Action, Answer, Drop, Filter, Outbox, Peer, Qos, Refusal, Subscribe};
use wire::Writer;

use crate::config::ShortTopicId;
use crate::frame::{Code, Flags, TopicId, TopicRef, kind};
use crate::publish::resolve;
use crate::ticket::{Asked, ticket};
use crate::{MqttSn, code, kept};

impl MqttSn {
    pub(crate) fn register(&mut self, peer: Peer, msg_id: u16, name: &str, out: &mut Outbox) {
        let most = self.config.max_topics;
        let Some(client) = self.peers.get_mut(peer).and_then(|c| c.client.as_mut()) else { return };
        if check_name(name).is_err() || !self.config.can_tell(name) {
            return self.acknowledge(peer, out, kind::REGACK, 0, msg_id, Code::NotSupported);
        }
        let Some(id) = client.topics.give(name, most) else {
            return self.acknowledge(peer, out, kind::REGACK, 0, msg_id, Code::Congestion);
        };
        let is_new = client.topics.set_known(id, true);
        if is_new && !client.is_clean {
            // The answer waits until the id is as durable as the session.
            return kept::keep_topic(peer, client, id, (Asked::Register, msg_id), out);
        }
        self.acknowledge(peer, out, kind::REGACK, id, msg_id, Code::Accepted);
    }

    pub(crate) fn kept_register(
        &mut self,
        peer: Peer,
        id: u16,
        msg_id: u16,
        answer: Answer,
        out: &mut Outbox,
    ) {
        match answer {
            Answer::Saved => self.acknowledge(peer, out, kind::REGACK, id, msg_id, Code::Accepted),
            Answer::Refused(why) => {
                self.forget_topic(peer, id);
                if let Some(code) = code(why) {
                    self.acknowledge(peer, out, kind::REGACK, 0, msg_id, code);
                }
            }
            _ => {}
        }
    }

    pub(crate) fn forget_topic(&mut self, peer: Peer, id: u16) {
        if let Some(client) = self.peers.get_mut(peer).and_then(|c| c.client.as_mut()) {
            client.topics.forget(id);
        }
    }

    pub(crate) fn subscribe(
        &mut self,
        peer: Peer,
        flags: Flags,
        msg_id: u16,
        topic: TopicRef<'_>,
        out: &mut Outbox,
    ) {
        let (config, most) = (self.config.clone(), self.config.max_topics);
        let Some(client) = self.peers.get_mut(peer).and_then(|c| c.client.as_mut()) else { return };
        let mut short = [0; 2];
        let name = match topic {
            TopicRef::Name(name) => Some(name),
            TopicRef::Id(id) => resolve(&config, Some(client), id, &mut short),
        };
        // Wildcards have no id to tell (6.9). With a short name it does not matter (5.4.16), but clients (emcute, Zephyr, Paho) look
        // in PUBLISH for what was said here, and others (mqtt-sn-12) take only 0 for the end of it.
        let mut id = match topic {
            TopicRef::Id(id @ TopicId::Predefined(_)) => id.number(),
            TopicRef::Id(id) if config.short_topic_id == ShortTopicId::Name => id.number(),
            TopicRef::Id(_) | TopicRef::Name(_) => 0,
        };
        let Some(name) = name else {
            return self.suback(peer, Qos::AtMostOnce, id, msg_id, Code::InvalidTopicId, out);
        };
        let (Ok(filter), Some(qos)) = (Filter::parse(name), flags.qos()) else {
            return self.suback(peer, Qos::AtMostOnce, id, msg_id, Code::NotSupported, out);
        };
        if matches!(topic, TopicRef::Name(_)) && !filter.has_wildcard() {
            if !config.can_tell(filter.plain()) {
                return self.suback(peer, Qos::AtMostOnce, 0, msg_id, Code::NotSupported, out);
            }
            let Some(given) = client.topics.give(filter.plain(), most) else {
                return self.suback(peer, Qos::AtMostOnce, 0, msg_id, Code::Congestion, out);
            };
            id = given;
            // The client gets to know it with SUBACK; it is kept before that.
            if client.topics.set_known(id, true) {
                kept::keep_topic(peer, client, id, (Asked::Topic, 0), out);
            }
        }
        // A repeated one does not repeat the retained messages.
        let retain_handling = u8::from(flags.is_dup());
        let subscribe = Subscribe {
            filter,
            qos,
            no_local: false,
            retain_as_published: false,
            retain_handling,
            identifier: 0,
        };
        out.act(Action::Subscribe(peer, ticket(Asked::Subscribe, id, msg_id), vec![subscribe]));
    }

    pub(crate) fn subscribed(
        &mut self,
        peer: Peer,
        id: u16,
        msg_id: u16,
        results: &[Result<Qos, Refusal>],
        out: &mut Outbox,
    ) {
        match results.first() {
            Some(Ok(qos)) => self.suback(peer, *qos, id, msg_id, Code::Accepted, out),
            Some(Err(why)) => {
                if let Some(code) = code(*why) {
                    self.suback(peer, Qos::AtMostOnce, id, msg_id, code, out);
                }
            }
            None => {}
        }
    }

    pub(crate) fn suback(&self, peer: Peer, qos: Qos, id: u16, msg_id: u16, code: Code, out: &mut Outbox) {
        self.say(peer, out, kind::SUBACK, |wire| {
            wire.put_u8(Flags::of(qos, false, false).0);
            wire.put_u16(id);
            wire.put_u16(msg_id);
            wire.put_u8(code as u8);
        });
    }

    pub(crate) fn unsubscribe(&mut self, peer: Peer, msg_id: u16, topic: TopicRef<'_>, out: &mut Outbox) {
        let Some(client) = self.peers.get(peer).and_then(|c| c.client.as_deref()) else { return };
        let mut short = [0; 2];
        let name = match topic {
            TopicRef::Name(name) => Some(name),
            TopicRef::Id(id) => resolve(&self.config, Some(client), id, &mut short),
        };
        match name.and_then(|name| Filter::parse(name).ok()) {
            Some(filter) => {
                out.act(Action::Unsubscribe(peer, ticket(Asked::Unsubscribe, 0, msg_id), vec![filter]));
            }
            // There is no such subscription, and UNSUBACK has no code that could say so.
            None => {
                out.act(Action::Drop(peer, Drop::Unexpected));
                self.say(peer, out, kind::UNSUBACK, |wire| wire.put_u16(msg_id));
            }
        }
    }
}

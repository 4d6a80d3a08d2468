//! What clients publish (MQTT-SN 1.2, 6.6), also without a connection (6.8).

use gateway::{Action, Answer, Drop, Message, Now, Outbox, Peer, Publish, Qos};
use wire::Writer;

use crate::conversation::{Client, MAX_HELD, Pending, Phase, Reason};
use crate::frame::{Code, Flags, TopicId, kind};
use crate::ticket::{Asked, ticket};
use crate::{Config, MqttSn, code};

/// The topic that a client means.
pub(crate) fn resolve<'a>(
    config: &'a Config,
    client: Option<&'a Client>,
    topic: TopicId,
    short: &'a mut [u8; 2],
) -> Option<&'a str> {
    match topic {
        TopicId::Normal(id) => client?.topics.name(id),
        TopicId::Predefined(id) => config.predefined.name(client.map_or("", |k| &k.client_id), id),
        TopicId::Short(name) => {
            *short = name;
            std::str::from_utf8(short).ok().filter(|name| gateway::topic::check_name(name).is_ok())
        }
    }
}

impl MqttSn {
    #[expect(clippy::too_many_arguments, reason = "what every step passes on, and the fields of PUBLISH")]
    pub(crate) fn publish(
        &mut self,
        now: Now,
        peer: Peer,
        flags: Flags,
        topic: TopicId,
        msg_id: u16,
        data: &[u8],
        out: &mut Outbox,
    ) {
        let Some(client) = self.peers.get(peer).and_then(|c| c.client.as_deref()) else { return };
        let mut short = [0; 2];
        let Some(name) = resolve(&self.config, Some(client), topic, &mut short) else {
            // Also at QoS 0, so that the client registers it again (6.6).
            return self.acknowledge(peer, out, kind::PUBACK, topic.number(), msg_id, Code::InvalidTopicId);
        };
        let qos = flags.qos().unwrap_or_default();
        if flags.is_dup() && client.acknowledged.contains(&msg_id) && msg_id != 0 {
            match qos {
                Qos::AtMostOnce => {}
                Qos::AtLeastOnce => {
                    out.act(Action::Drop(peer, Drop::Duplicate));
                    return self.acknowledge(peer, out, kind::PUBACK, topic.number(), msg_id, Code::Accepted);
                }
                // Released already: its PUBREL has overtaken it, or PUBCOMP was lost.
                Qos::ExactlyOnce => {
                    out.act(Action::Drop(peer, Drop::Duplicate));
                    return self.say(peer, out, kind::PUBREC, |wire| wire.put_u16(msg_id));
                }
            }
        }
        let message = Message::new(now, name, data).with_qos(qos).with_retain(flags.is_retained());
        let asked = match qos {
            Qos::AtMostOnce => None,
            Qos::AtLeastOnce => Some(Asked::Publish),
            Qos::ExactlyOnce => Some(Asked::PublishOnce),
        };
        let ticket = asked.map(|asked| ticket(asked, topic.number(), msg_id));
        let once = (qos == Qos::ExactlyOnce).then_some(msg_id);
        out.act(Action::Publish(peer, Publish { message, ticket, once }));
    }

    pub(crate) fn published(
        &mut self,
        peer: Peer,
        asked: Asked,
        topic: u16,
        msg_id: u16,
        answer: Answer,
        out: &mut Outbox,
    ) {
        let code = match answer {
            Answer::Published(_) => Some(Code::Accepted),
            Answer::Refused(why) => code(why),
            _ => None,
        };
        match (asked, code) {
            (Asked::PublishOnce, Some(Code::Accepted)) => {
                self.say(peer, out, kind::PUBREC, |wire| wire.put_u16(msg_id));
            }
            (_, Some(code)) => {
                let client = self.peers.get_mut(peer).and_then(|c| c.client.as_mut());
                if code == Code::Accepted
                    && let Some(client) = client
                {
                    client.acknowledge(msg_id);
                }
                self.acknowledge(peer, out, kind::PUBACK, topic, msg_id, code);
            }
            (_, None) => {}
        }
    }

    /// PUBLISH with QoS -1: in the client's session if there is one, in one of its own rule otherwise.
    #[expect(clippy::too_many_arguments, reason = "what every step passes on, and the fields of PUBLISH")]
    pub(crate) fn publish_minus_one(
        &mut self,
        now: Now,
        peer: Peer,
        flags: Flags,
        topic: TopicId,
        data: &[u8],
        bytes: &[u8],
        out: &mut Outbox,
    ) {
        let Some(c) = self.peers.get_mut(peer) else { return };
        if !self.config.qos_minus_one {
            return out.act(Action::Drop(peer, Drop::Unsupported));
        }
        let mut short = [0; 2];
        let name = resolve(&self.config, c.client.as_deref(), topic, &mut short);
        // Only what needs no registration (6.8).
        let Some(name) = name.filter(|_| !matches!(topic, TopicId::Normal(_))) else {
            return out.act(Action::Drop(peer, Drop::Unexpected));
        };
        match (&mut c.pending, c.phase) {
            (Some(p), _) if p.reason != Reason::Connect && p.held.len() < MAX_HELD => {
                p.held.push(bytes.into())
            }
            (Some(_), _) => out.act(Action::Drop(peer, Drop::ExchangesFull)),
            (None, Phase::Stranger) => {
                let mut pending = Box::new(Pending::new(Reason::Publish, ""));
                pending.held.push(bytes.into());
                c.pending = Some(pending);
                self.open(now, peer, out);
            }
            (None, _) => {
                let message = Message::new(now, name, data).with_retain(flags.is_retained());
                out.act(Action::Publish(peer, Publish { message, ticket: None, once: None }));
            }
        }
    }
}

//! WILLTOPICUPD and WILLMSGUPD (MQTT-SN 1.2, 6.4).

use gateway::topic::check_name;
use gateway::{Action, Answer, Now, Outbox, Peer, Will};
use wire::Writer;

use crate::frame::{Code, Flags, kind};
use crate::kept::{self, make_will};
use crate::ticket::{Asked, ticket};
use crate::{MqttSn, code};

impl MqttSn {
    pub(crate) fn update_will_topic(
        &mut self,
        now: Now,
        peer: Peer,
        topic: Option<(Flags, &str)>,
        out: &mut Outbox,
    ) {
        let Some(old) = self.newest_will(peer) else { return };
        let will = match topic {
            // The empty one deletes the will (5.4.22).
            None => None,
            Some((flags, topic)) => {
                let (Ok(()), Some(qos)) = (check_name(topic), flags.qos()) else {
                    return self.answer_will(peer, kind::WILLTOPICRESP, Code::NotSupported, out);
                };
                let data = old.map_or(&b""[..], |w| w.message.payload());
                Some(make_will(now, topic, data, qos, flags.is_retained()))
            }
        };
        self.set_will(peer, Asked::WillTopic, will, out);
    }

    pub(crate) fn update_will_message(&mut self, now: Now, peer: Peer, data: &[u8], out: &mut Outbox) {
        let Some(old) = self.newest_will(peer) else { return };
        let Some(old) = old.map(|w| &w.message) else {
            // There is no topic that it could be published to.
            return self.answer_will(peer, kind::WILLMSGRESP, Code::NotSupported, out);
        };
        let will = make_will(now, old.topic(), data, old.qos(), old.retain());
        self.set_will(peer, Asked::WillMsg, Some(will), out);
    }

    /// The will of a client that is there, as it is going to be.
    fn newest_will(&self, peer: Peer) -> Option<Option<&Will>> {
        let c = self.peers.get(peer)?;
        let client = c.client.as_deref()?;
        Some(c.next_will.as_ref().unwrap_or(&client.will).as_deref())
    }

    fn set_will(&mut self, peer: Peer, asked: Asked, will: Option<Box<Will>>, out: &mut Outbox) {
        let Some(c) = self.peers.get_mut(peer) else { return };
        c.next_will = Some(will.clone());
        out.act(Action::SetWill(peer, ticket(asked, 0, 0), will));
    }

    pub(crate) fn updated_will(&mut self, peer: Peer, kind: u8, answer: Answer, out: &mut Outbox) {
        let Some(c) = self.peers.get_mut(peer) else { return };
        let will = c.next_will.take();
        match (answer, c.client.as_mut()) {
            (Answer::Saved, Some(client)) => {
                // The answer to an earlier one, which the client has sent twice, has brought it in already.
                if let Some(will) = will {
                    client.will = will;
                    if client.sleep > 0 {
                        client.arm(peer, out);
                    }
                    kept::keep_will(peer, client, out);
                }
                self.answer_will(peer, kind, Code::Accepted, out);
            }
            (Answer::Refused(why), _) => {
                if let Some(code) = code(why) {
                    self.answer_will(peer, kind, code, out);
                }
            }
            _ => {}
        }
    }

    fn answer_will(&self, peer: Peer, kind: u8, code: Code, out: &mut Outbox) {
        self.say(peer, out, kind, |wire| wire.put_u8(code as u8));
    }
}

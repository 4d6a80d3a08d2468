//! PUBLISH from the client with all that follows it (MQTT 5.0, 4.3): PUBACK, or PUBREC, PUBREL and PUBCOMP.
//!
//! Between PUBREC and PUBREL it is the router that remembers the packet identifier, since it outlives the connection;
//! what is counted here is only how many the client has in flight.

use bytes::{Buf, BytesMut};
use gateway::{Action, Close, Now, Outbox, Publish, Qos, Refusal};

use crate::config::OnDeny;
use crate::frame::{Fault, Frame, kind};
use crate::publish::{self, Published};
use crate::{Mqtt, acks, reason, ticket};

impl Mqtt {
    pub(crate) fn publish(
        &mut self,
        now: Now,
        frame: Frame,
        bytes: &mut BytesMut,
        out: &mut Outbox,
    ) -> Result<(), Fault> {
        let aliases = if self.is_5() { Some(&mut self.extra().incoming) } else { None };
        let published = if frame.end - frame.body > 4096 {
            let whole = bytes.split_to(frame.end).freeze();
            publish::decode(now, frame.flags(), &whole[frame.body..], Some(&whole), aliases)?
        } else {
            let published =
                publish::decode(now, frame.flags(), &bytes[frame.body..frame.end], None, aliases)?;
            bytes.advance(frame.end);
            published
        };
        let Published { message, id } = published;
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

    /// The answer to PUBLISH of QoS 1 and 2.
    pub(crate) fn answer_publish(
        &mut self,
        out: &mut Outbox,
        qos: Qos,
        id: u16,
        result: Result<usize, Refusal>,
    ) {
        let (reason, words) = match result {
            // The router knows the packet identifier, and may have it on the disk. A PUBREC that refuses would free it (4.3.3), and
            // the next message with it would be taken for this one: the client is to come back and send this one again.
            Err(Refusal::Uncertain) if qos == Qos::ExactlyOnce => {
                return self.end(out, Fault { reason: 0x97, close: Close::QuotaExceeded });
            }
            Ok(0) if self.is_5() => (0x10, None),
            Err(why) if self.is_5() => (reason::reason_of(why, &acks::RECEIVED), self.words(why)),
            // MQTT 3 has no words for a refusal (3.1.1, 3.3.5). What cannot be kept for others must not be acknowledged: the
            // client sends it again when it comes back.
            Err(Refusal::NotKept | Refusal::Uncertain) if qos > Qos::AtMostOnce => {
                return self.end(out, Fault { reason: 0x97, close: Close::QuotaExceeded });
            }
            _ => (0, None),
        };
        match qos {
            Qos::AtLeastOnce => {
                self.receiving = self.receiving.saturating_sub(1);
                self.send(out, |wire| acks::encode(wire, kind::PUBACK << 4, id, reason, words));
            }
            Qos::ExactlyOnce => {
                if result.is_err() {
                    self.forget(id);
                }
                self.send(out, |wire| acks::encode(wire, kind::PUBREC << 4, id, reason, words));
            }
            Qos::AtMostOnce => {}
        }
        if result == Err(Refusal::NotAuthorised) && self.config.deny == OnDeny::Disconnect {
            self.end(out, Fault { reason: 0x87, close: Close::NotAuthorised });
        }
    }

    pub(crate) fn released(&mut self, flags: u8, body: &[u8], out: &mut Outbox) -> Result<(), Fault> {
        // MQTT-3.6.1-1.
        if !self.is_flagged(flags) {
            return Err(Fault::MALFORMED);
        }
        let (id, _) = acks::decode(self.is_5(), kind::PUBREL, body)?;
        self.ask(out, Action::Release(self.peer, ticket::new(ticket::RELEASE, id), id));
        Ok(())
    }

    pub(crate) fn answer_release(&mut self, out: &mut Outbox, id: u16, is_known: bool) {
        self.forget(id);
        let reason = if is_known || !self.is_5() { 0 } else { 0x92 };
        self.send(out, |wire| acks::encode(wire, kind::PUBCOMP << 4, id, reason, None));
    }

    /// A QoS 2 message is through: it counts no more.
    fn forget(&mut self, id: u16) {
        if self.extra.as_mut().is_some_and(|e| e.open.remove(&id)) {
            self.receiving = self.receiving.saturating_sub(1);
        }
    }
}

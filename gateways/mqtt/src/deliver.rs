//! PUBLISH to the client (MQTT 5.0, 3.3.4) and its acknowledgements, which settle the delivery.

use gateway::{Action, Delivery, DeliveryId, Drop, Now, Outbox, Settle};

use crate::frame::{Fault, Frame, kind};
use crate::publish::{self, Naming};
use crate::{Mqtt, acks, ticket};

impl Mqtt {
    pub(crate) fn deliver_message(&mut self, now: Now, d: &Delivery<'_>, out: &mut Outbox) {
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
        if let Some(Naming { alias: alias @ 1.., is_known: false }) = naming {
            self.extra().outgoing.insert(d.topic.into(), alias);
        }
    }

    /// How the topic is named to this client; MQTT 3 knows one way.
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

    /// PUBACK, PUBREC and PUBCOMP of a delivery.
    pub(crate) fn acknowledged(&mut self, frame: Frame, body: &[u8], out: &mut Outbox) -> Result<(), Fault> {
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

    /// The answer to PUBREC: the client may let the packet identifier go.
    pub(crate) fn answer_receive(&mut self, out: &mut Outbox, id: u16, is_known: bool) {
        let reason = if is_known || !self.is_5() { 0 } else { 0x92 };
        self.send(out, |wire| acks::encode(wire, kind::PUBREL << 4 | 2, id, reason, None));
    }

    /// PUBREL again, for a client that has said PUBREC before.
    pub(crate) fn deliver_release(&mut self, id: DeliveryId, out: &mut Outbox) {
        self.send(out, |wire| acks::encode(wire, kind::PUBREL << 4 | 2, id.0, 0, None));
    }
}

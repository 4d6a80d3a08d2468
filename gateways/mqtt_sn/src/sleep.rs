//! Keep alive, sleep and goodbye (MQTT-SN 1.2, 6.11, 6.12, 6.14).

use std::time::Duration;

use gateway::{Action, Close, Disconnect, Drop, Flow, Instant, Now, Outbox, Peer, Qos};

use crate::conversation::{Outgoing, Phase, What};
use crate::frame::kind;
use crate::kept;
use crate::{MAX_FAREWELLS, MqttSn};

impl MqttSn {
    /// PINGREQ: alive, or awake. With a client id it moves the client here.
    pub(crate) fn ping(
        &mut self,
        now: Now,
        peer: Peer,
        client_id: &str,
        bytes: &[u8],
        out: &mut Outbox,
    ) -> Flow {
        let Some(c) = self.peers.get(peer) else { return Flow::Continue };
        if c.pending.is_some() {
            self.too_early(peer, crate::Message::PingReq { client_id }, bytes, out);
            return Flow::Continue;
        }
        let is_here = c.client.as_ref().is_some_and(|k| client_id.is_empty() || *k.client_id == *client_id);
        if is_here {
            self.wake(now, peer, out);
            return Flow::Continue;
        }
        if c.has_session() && !c.is_sealed {
            // Somebody else has got this address.
            return Flow::Stranger;
        }
        let is_anothers =
            c.credential.as_deref().is_some_and(|own| own != client_id && !client_id.is_empty());
        if client_id.is_empty() || is_anothers || c.has_session() {
            self.unknown_ping(now, peer, is_anothers, bytes, out);
        } else if self.may_move(client_id, peer) {
            self.resume(now, peer, client_id, bytes, out);
        } else {
            self.say(peer, out, kind::DISCONNECT, |_| {});
        }
        Flow::Continue
    }

    fn unknown_ping(&mut self, now: Now, peer: Peer, is_anothers: bool, bytes: &[u8], out: &mut Outbox) {
        if is_anothers {
            self.say(peer, out, kind::DISCONNECT, |_| {});
        } else {
            self.unknown(now, peer, bytes, out);
        }
    }

    fn wake(&mut self, now: Now, peer: Peer, out: &mut Outbox) {
        let soon = now.instant + self.config.retry_interval / 2;
        let Some(c) = self.peers.get_mut(peer) else { return };
        // Not a PUBLISH of QoS 2: its PUBREC may be on its way, and PUBREL could overtake it.
        let is_harmless =
            |o: &&Outgoing| !matches!(&o.what, What::Publish { held, .. } if held.qos == Qos::ExactlyOnce);
        let outgoing = c.client.as_ref().and_then(|k| k.outgoing.as_ref());
        let waits_until = outgoing.filter(is_harmless).map(|outgoing| outgoing.due);
        match c.phase {
            Phase::Asleep => {
                c.phase = Phase::Awake;
                self.go_on(now, peer, out);
            }
            // It has heard nothing for a while (6.14), and may not stay awake for long.
            Phase::Awake if waits_until.is_some_and(|due| due < soon) => self.go_on(now, peer, out),
            // It is being answered.
            Phase::Awake => out.act(Action::Drop(peer, Drop::Duplicate)),
            _ => self.say(peer, out, kind::PINGRESP, |_| {}),
        }
    }

    /// Sends again what was not answered, or takes the next delivery.
    pub(crate) fn go_on(&mut self, now: Now, peer: Peer, out: &mut Outbox) {
        let Some(client) = self.peers.get_mut(peer).and_then(|c| c.client.as_mut()) else { return };
        match &mut client.outgoing {
            Some(outgoing) => {
                outgoing.tries = 0;
                let is_again = outgoing.due != Instant::NEVER;
                self.transmit(now, peer, is_again, out);
            }
            None => out.act(Action::Want(peer, true)),
        }
    }

    /// Nothing waits any more: who was only awake for that sleeps again (6.14).
    pub(crate) fn drained(&mut self, peer: Peer, out: &mut Outbox) {
        let Some(c) = self.peers.get_mut(peer).filter(|c| c.phase == Phase::Awake) else { return };
        if c.client.as_ref().is_some_and(|k| k.outgoing.is_none()) {
            c.phase = Phase::Asleep;
            out.act(Action::Want(peer, false));
            self.say(peer, out, kind::PINGRESP, |_| {});
        }
    }

    pub(crate) fn disconnect(&mut self, now: Now, peer: Peer, duration: Option<u16>, out: &mut Outbox) {
        let Some(c) = self.peers.get_mut(peer) else { return };
        let seconds = duration.unwrap_or(0);
        let Some(client) = c.client.as_mut() else {
            if now.instant.since(self.farewells.0) >= Duration::from_secs(1) {
                self.farewells = (now.instant, 0);
            }
            self.farewells.1 += 1;
            if self.farewells.1 > MAX_FAREWELLS {
                return out.act(Action::Drop(peer, Drop::RateLimited));
            }
            return self.say(peer, out, kind::DISCONNECT, |_| {});
        };
        let was = std::mem::replace(&mut client.sleep, seconds);
        if was != seconds {
            kept::keep_state(peer, client, out);
        }
        if seconds > 0 {
            if was != seconds {
                client.arm(peer, out);
            }
            c.phase = Phase::Asleep;
            out.act(Action::Want(peer, false));
            return self.say(peer, out, kind::DISCONNECT, |_| {});
        }
        let expiry = client.is_clean.then_some(Duration::ZERO);
        c.phase = Phase::Stranger;
        if let Some(client) = c.client.take() {
            self.clients.remove(&client.client_id);
        }
        self.say(peer, out, kind::DISCONNECT, |_| {});
        out.act(Action::Disconnect(peer, Disconnect { with_will: false, expiry }));
        if self.peers.get(peer).is_some_and(|c| c.is_sealed) {
            out.act(Action::Close(peer, Close::Goodbye));
        }
    }
}

//! Confirmable messages of this endpoint: one in flight to a peer (NSTART = 1), sent again until it is acknowledged or
//! given up (RFC 7252, 4.2 and 4.7).
//!
//! ```text
//! enqueue -> transmit -> ACK            -> settled, the next one
//!              |  ^   \-> RST           -> the observation or the request ends, the next one
//!              v  |    \-> retries over -> the observation or the request ends, the next one
//!            due, again
//! ```
//!
//! A device whose session outlives its connection may have been asleep all the time: if nothing was heard of it since, what it
//! observes does not end with the retries. The notification waits, and is sent again when the device is heard.

use std::time::Duration;

use gateway::{
    Action, Close, DeliveryId, Direction, Disconnect, Drop, Failure, Instant, Now, Outbox, Peer, Settle,
};

use crate::blockwise::Rest;
use crate::conversation::{Conversation, Phase};
use crate::exchange::Sent;
use crate::frame::{Code, Kind, Message, Token};
use crate::options::OBSERVE;
use crate::{Coap, describe};

/// A Confirmable message that waits for its turn, or for its acknowledgement.
#[derive(Clone, Debug)]
pub(crate) struct Outgoing {
    /// What is sent.
    pub(crate) message: Message,
    /// The observation it notifies.
    pub(crate) observation: Option<Token>,
    /// The delivery that is settled with it.
    pub(crate) delivery: Option<DeliveryId>,
    /// Where the rest of a body that did not fit is fetched, from when this is sent; and the whole.
    pub(crate) rest: Option<Rest>,
    /// Times sent again.
    retries: u32,
    /// When it was sent for the first time, or for the first time after the peer's sleep.
    begun: Instant,
    /// When it is sent again.
    pub(crate) due: Instant,
    /// Time-out, doubled each time (4.2).
    timeout: Duration,
}

impl Outgoing {
    /// A message that was not sent yet.
    pub(crate) fn new(message: Message) -> Outgoing {
        let (due, timeout) = (Instant::NEVER, Duration::ZERO);
        let begun = Instant::NEVER;
        Outgoing { message, observation: None, delivery: None, rest: None, retries: 0, begun, due, timeout }
    }

    /// If it is the first and waits for the peer to wake up, it goes out again.
    pub(crate) fn wake(&mut self, now: Instant) {
        if self.due == Instant::NEVER {
            (self.begun, self.due) = (now, now);
            // Of which the next retransmission makes the first time-out again.
            self.timeout /= 2 << std::mem::take(&mut self.retries);
        }
    }

    fn is_ping(&self) -> bool {
        self.message.code == Code::EMPTY
    }
}

impl Coap {
    /// The one place where messages leave.
    pub(crate) fn send(&self, peer: Peer, message: &Message, out: &mut Outbox) {
        let is_sent = match &self.stream {
            None => {
                message.encode(out.send(peer));
                true
            }
            // What acknowledges, resets and probes has no place there (RFC 8323, 2.2).
            Some(_) if message.code == Code::EMPTY => return,
            Some(stream) => stream.encode(message, out.send(peer)),
        };
        if is_sent {
            return out.trace(peer, Direction::Out, || describe(message));
        }
        out.act(Action::Drop(peer, Drop::TooLarge));
        // Whoever waits for an answer is told, in as few bytes as can be.
        let bare = Message {
            code: Code::INTERNAL,
            token: message.token,
            ..Message::empty(message.kind, message.id)
        };
        if let Some(stream) = self.stream.as_ref().filter(|_| message.kind == Kind::Ack) {
            stream.encode(&bare, out.send(peer));
        }
    }

    /// Sends a Confirmable message as soon as those before it are acknowledged.
    pub(crate) fn enqueue(&mut self, now: Now, peer: Peer, outgoing: Outgoing, out: &mut Outbox) {
        let Some(c) = self.peers.get_mut(&peer) else { return };
        if self.stream.is_some() {
            // The transport repeats and acknowledges it.
            return self.send(peer, &outgoing.message, out);
        }
        c.outgoing.push_back(outgoing);
        if c.outgoing.len() == 1 {
            self.transmit(now, peer, out);
        }
    }

    /// Asks for a Reset (4.3) of a peer whose address was not verified, before it is sent what it did not just ask for.
    pub(crate) fn ping(&mut self, now: Now, peer: Peer, out: &mut Outbox) {
        let Some(c) = self.peers.get_mut(&peer) else { return };
        // Whatever is in flight proves as much.
        if c.outgoing.is_empty() {
            let message = Message::empty(Kind::Con, c.next_id());
            self.enqueue(now, peer, Outgoing::new(message), out);
        }
    }

    /// Sends the first of the Confirmable messages for the first time.
    fn transmit(&mut self, now: Now, peer: Peer, out: &mut Outbox) {
        // ACK_TIMEOUT times 1 to ACK_RANDOM_FACTOR, which is 1.5 (4.8).
        let spread = f64::from(u16::from_be_bytes(self.random::<2>().unwrap_or_default())) / 65_536.0;
        let timeout = self.config.ack_timeout.mul_f64(1.0 + spread / 2.0);
        let Some(c) = self.peers.get_mut(&peer) else { return };
        let Conversation { outgoing, observations, .. } = &mut **c;
        let Some(first) = outgoing.front_mut() else { return };
        first.timeout = timeout;
        first.begun = now.instant;
        first.due = now.instant + timeout;
        // Numbered when it leaves: what waited is not taken for older than what went past it (RFC 7641, 3.4).
        let observation = observations.iter_mut().find(|o| Some(o.token) == first.observation);
        let token = observation.map(|o| {
            first.message.add_uint(OBSERVE, o.next_sequence());
            o.token
        });
        let message = first.message.clone();
        // What is kept for the session is kept here too, for it may be sent again much later.
        let rest = if first.delivery.is_some() { first.rest.clone() } else { first.rest.take() };
        let delivery = first.delivery;
        self.keep_rest(now, peer, rest, delivery);
        if let Some(token) = token {
            self.keep_if_used_up(peer, token, out);
        }
        self.claim(peer, Some(message.id));
        self.send(peer, &message, out);
    }

    /// The first of the Confirmable messages is done with.
    pub(crate) fn finish(&mut self, now: Now, peer: Peer, how: Settle, out: &mut Outbox) {
        let Some(c) = self.peers.get_mut(&peer) else { return };
        let Some(done) = c.outgoing.pop_front() else { return };
        self.claim(peer, None);
        let Some(c) = self.peers.get(&peer) else { return };
        // A delivery that became several notifications is settled with the last of them.
        if let Some(id) = done.delivery
            && !c.outgoing.iter().any(|o| o.delivery == Some(id))
            && !self.awaits_rest(now, peer, id, how)
        {
            out.act(Action::Settle(peer, id, how));
        }
        self.transmit(now, peer, out);
    }

    /// The first of the Confirmable messages was refused, or nobody is there: what it was for ends (RFC 7641, 3.6, 4.5).
    fn give_up(&mut self, now: Now, peer: Peer, why: Failure, out: &mut Outbox) {
        let Some(c) = self.peers.get(&peer) else { return };
        let Some(first) = c.outgoing.front() else { return };
        let (is_ping, is_request, token) =
            (first.is_ping(), first.message.code.is_request(), first.message.token);
        let tokens: Vec<Token> = if is_ping {
            c.observations.iter().map(|o| o.token).collect()
        } else {
            first.observation.into_iter().collect()
        };
        for token in tokens {
            self.cancel(peer, token, out);
        }
        if is_ping {
            self.none_answered(peer, why, out);
        } else if is_request {
            self.not_answered(peer, token, why, out);
        }
        self.finish(now, peer, Settle::Refused, out);
    }

    /// An acknowledgement came.
    pub(crate) fn acknowledged(&mut self, now: Now, peer: Peer, id: u16, out: &mut Outbox) {
        let Some(c) = self.peers.get_mut(&peer) else { return };
        if c.outgoing.front().is_some_and(|o| o.message.id == id) {
            // Only who receives at this address knows the message id; while the peer may be elsewhere it went to both.
            c.is_verified |= c.candidate.is_none();
            return self.finish(now, peer, Settle::Done, out);
        }
        match self.claimed(peer, id) {
            Some(moved) => {
                self.finish(now, moved, Settle::Done, out);
                self.schedule(moved);
            }
            None => out.act(Action::Drop(peer, Drop::Unexpected)),
        }
    }

    /// A Reset to a notification cancels its observation (RFC 7641, 3.6); one to a ping is its answer.
    pub(crate) fn reset(&mut self, now: Now, peer: Peer, id: u16, out: &mut Outbox) {
        if self.is_reached(now, peer, id, out) {
            return;
        }
        let Some(c) = self.peers.get_mut(&peer) else { return };
        match c.outgoing.front() {
            Some(first) if first.message.id == id && first.is_ping() => {
                c.is_verified = true;
                self.finish(now, peer, Settle::Done, out);
            }
            Some(first) if first.message.id == id => self.give_up(now, peer, Failure::Rejected, out),
            _ => match c.recent.iter().find(|(i, _)| *i == id).map(|(_, token)| *token) {
                Some(token) => self.cancel(peer, token, out),
                None => {
                    // A guess at a probe costs one.
                    c.probes.pop();
                    out.act(Action::Drop(peer, Drop::Unexpected));
                }
            },
        }
    }

    /// Does what is due at a peer.
    pub(crate) fn look_at(&mut self, now: Now, peer: Peer, out: &mut Outbox) {
        self.give_up_asking(now, peer, out);
        if self.is_stream_ended(now, peer, out) {
            return;
        }
        let idle = self.patience();
        let Some(c) = self.peers.get_mut(&peer) else { return };
        self.remembered -= c.exchanges.forget_expired(now.instant);
        if c.end(idle) <= now.instant {
            let why = if c.token.is_some() { Close::KeepAlive } else { Close::Idle };
            if c.phase == Phase::Open && why == Close::Idle {
                out.act(Action::Disconnect(peer, Disconnect { with_will: false, expiry: None }));
            }
            return out.act(Action::Close(peer, why));
        }
        while let Some(id) = self.peers.get_mut(&peer).and_then(|c| c.exchanges.late(now.instant)) {
            self.acknowledge(peer, id, out);
        }
        self.answer_groups(now, peer, out);
        self.give_up_rest(now, peer, out);
        let most = self.config.max_retransmit;
        let Some(c) = self.peers.get_mut(&peer) else { return };
        let Some(first) = c.outgoing.front_mut().filter(|o| o.due <= now.instant) else { return };
        if first.retries >= most {
            let is_asleep = c.is_kept && c.seen <= first.begun;
            if is_asleep && (first.observation.is_some() || first.is_ping()) {
                first.due = Instant::NEVER;
                return self.none_answered(peer, Failure::Unreachable, out);
            }
            return self.give_up(now, peer, Failure::Unreachable, out);
        }
        // It waited for the peer to wake up: the rest of its body may be forgotten by now.
        let rest = first.rest.clone().filter(|_| first.due == first.begun);
        let delivery = first.delivery;
        first.retries += 1;
        first.timeout *= 2;
        first.due = now.instant + first.timeout;
        let message = first.message.clone();
        self.keep_rest(now, peer, rest, delivery);
        self.send(peer, &message, out);
        self.probe(peer, out);
    }

    /// The answer takes longer: it follows in a message of its own (RFC 7252, 5.2.2).
    fn acknowledge(&mut self, peer: Peer, id: u16, out: &mut Outbox) {
        let ack = Message::empty(Kind::Ack, id);
        let Some(c) = self.peers.get_mut(&peer) else { return };
        c.exchanges.acknowledged(id);
        if let Some(exchange) = c.exchanges.open(id) {
            let mut bytes = Vec::new();
            ack.encode(&mut bytes);
            exchange.answer = Sent::from_slice(&bytes);
            self.send(peer, &ack, out);
        }
    }
}

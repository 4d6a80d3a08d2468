//! Observations (RFC 7641): how they begin, what they are told, and how they end.

use gateway::{
    Action, Delivery, Drop, Filter, Message as Published, Now, Outbox, Peer, Qos, Refusal, Settle, Subscribe,
};

use crate::block::{Block, Room, slice};
use crate::blockwise::{Resource, Rest, etag};
use crate::config::NotifyType;
use crate::conversation::{CONFIRM_AT_LEAST, CONFIRM_EVERY, Observation, Step};
use crate::frame::{Code, Kind, Message, Token};
use crate::options::{ACCEPT, BLOCK2, ETAG, LOCATION_PATH, OBSERVE};
use crate::resource::{format_of, represent, uint, value_options};
use crate::transmission::Outgoing;
use crate::{Coap, Response, code};

/// Numbers of subscriptions: the upper half of those that MQTT has (5.0, 3.8.2.1.2). Its clients, who may go on with the same
/// session for a while, count from 1: what they subscribe to is no observation's.
const NUMBERS: std::ops::RangeInclusive<u32> = 0x800_0000..=0xFFF_FFFF;

/// Notifications of QoS 0 that may wait at a peer: the newest of each topic.
const MAX_WAITING: usize = 64;

impl Coap {
    /// GET with Observe 0: the subscription first, then the value it begins with, so that nothing falls between.
    #[expect(clippy::too_many_arguments, reason = "a request and what its query said")]
    pub(crate) fn observe(
        &mut self,
        now: Now,
        peer: Peer,
        request: &Message,
        filter: Filter,
        qos: Qos,
        (no_local, wants_retained): (bool, bool),
        out: &mut Outbox,
    ) {
        let most = self.config.max_observations;
        let Some(c) = self.peers.get_mut(&peer) else { return };
        let token = request.token;
        let sequence = c.observation(token).map_or(1, |o| o.sequence);
        if c.observation(token).is_some_and(|o| o.filter != filter) {
            self.cancel(peer, token, out);
        }
        let Some(c) = self.peers.get_mut(&peer) else { return };
        // What waits in the session's queue bears the number that the subscription had.
        let identifier = c.observations.iter().find(|o| o.filter == filter).map(|o| o.identifier);
        c.observations.retain(|o| o.token != token);
        if c.observations.len() >= most {
            let response = Response::error(Code::UNAVAILABLE, "too many observations");
            return self.answer(now, peer, request.id, response, out);
        }
        let identifier = identifier.unwrap_or_else(|| {
            let next = c.last_identifier + 1;
            c.last_identifier = if NUMBERS.contains(&next) { next } else { *NUMBERS.start() };
            c.last_identifier
        });
        let mut observation = Observation::new(token, filter.clone(), identifier, now.instant);
        (observation.sequence, observation.qos) = (sequence, qos);
        observation.szx = Block::of(request, BLOCK2).map(|b| b.szx);
        let accept = request.uint(ACCEPT).and_then(|f| u16::try_from(f).ok());
        observation.format = accept.filter(|_| !filter.has_wildcard());
        c.observations.push(observation);
        let subscribe = Subscribe {
            filter: filter.clone(),
            qos,
            no_local,
            retain_as_published: true,
            // The value it begins with is the response's.
            retain_handling: 2,
            identifier,
        };
        let ticket = self.ticket(peer, request.id, Step::Subscribe { token });
        out.act(Action::Subscribe(peer, ticket, vec![subscribe]));
        // Before the first value is asked for: its answer comes when this is kept.
        self.keep(peer, token, out);
        // Shared subscriptions begin with nothing (MQTT 5.0, 4.8.2).
        let is_wanted = wants_retained && filter.group().is_none();
        let limit = if filter.has_wildcard() { MAX_WAITING } else { 1 };
        let ticket = self.ticket(peer, request.id, Step::First { token, is_wanted });
        out.act(Action::Retained(peer, ticket, filter, limit));
    }

    /// The subscription stands, or there is no observation.
    pub(crate) fn subscribed(
        &mut self,
        now: Now,
        peer: Peer,
        id: u16,
        token: Token,
        result: Option<Result<Qos, Refusal>>,
        out: &mut Outbox,
    ) {
        let why = match result {
            Some(Ok(granted)) => {
                let observation = self.peers.get_mut(&peer).and_then(|c| c.observation(token));
                return observation.into_iter().for_each(|o| o.qos = granted);
            }
            Some(Err(why)) => why,
            None => Refusal::Internal,
        };
        if let Some(c) = self.peers.get_mut(&peer) {
            c.observations.retain(|o| o.token != token);
        }
        self.keep(peer, token, out);
        self.answer(now, peer, id, Response::error(code(why), "cannot be observed"), out);
    }

    /// The first response of an observation: the retained value, or an empty one. A wildcard's further values follow as
    /// notifications, at the pace at which they are acknowledged.
    pub(crate) fn first(
        &mut self,
        now: Now,
        peer: Peer,
        id: u16,
        token: Token,
        found: &[(Box<str>, Published)],
        out: &mut Outbox,
    ) {
        let (most, room) = (self.config.max_body_size, self.room(peer));
        let Some(c) = self.peers.get_mut(&peer) else { return };
        let Some(observation) = c.observation(token) else {
            // Refused meanwhile, and answered then; or ended by the client, who has asked for a value all the same.
            let response = self.value(now, found.first(), None);
            return self.answer(now, peer, id, response, out);
        };
        let mut response = Response::new(Code::CONTENT);
        response.options.push((OBSERVE, uint(observation.next_sequence())));
        let is_wild = observation.filter.has_wildcard();
        let mut fitting = found
            .iter()
            .filter(|(t, m)| m.payload().len() <= most && !(is_wild && is_too_long(t, room)))
            .peekable();
        if let Some((topic, message)) = fitting.next() {
            if !is_wild && !observation.takes(format_of(message)) {
                self.answer(now, peer, id, Response::new(Code::NOT_ACCEPTABLE), out);
                return self.cancel(peer, token, out);
            }
            let value = represent(now, message);
            response.options.extend(value.options);
            if is_wild {
                response.options.extend(location(topic));
            }
            response.payload = value.payload;
        }
        response.resource = Some(Resource::Topic(observation.filter.as_str().to_owned()));
        if !self.is_answered(now, peer, id, response, out) {
            // Asked to prove its address first, it comes again.
            return self.cancel(peer, token, out);
        }
        // They are sent to who receives there, not to whoever was named as the sender.
        if fitting.peek().is_some() && self.is_open_to_spoofing(peer) {
            self.ping(now, peer, out);
        }
        for (topic, message) in fitting {
            let (qos, subscriptions) = (Qos::AtLeastOnce, &[][..]);
            let delivery =
                Delivery { id: None, message, topic, qos, retain: true, duplicate: false, subscriptions };
            self.notify_one(now, peer, token, &delivery, out);
        }
    }

    /// Ends an observation, and the subscription if no other observation shares it.
    pub(crate) fn cancel(&mut self, peer: Peer, token: Token, out: &mut Outbox) {
        let Some(c) = self.peers.get_mut(&peer) else { return };
        let Some(at) = c.observations.iter().position(|o| o.token == token) else { return };
        let gone = c.observations.remove(at);
        // What waits behind the message in flight is not wanted any more.
        let mut kept = std::mem::take(&mut c.outgoing);
        let mut dropped = Vec::new();
        let mut index = 0;
        kept.retain(|o| {
            index += 1;
            let is_kept = index == 1 || o.observation != Some(token);
            if !is_kept {
                dropped.extend(o.delivery);
            }
            is_kept
        });
        c.outgoing = kept;
        for id in dropped {
            if !c.outgoing.iter().any(|o| o.delivery == Some(id)) {
                out.act(Action::Settle(peer, id, Settle::Done));
            }
        }
        let is_last = !c.observations.iter().any(|o| o.identifier == gone.identifier);
        self.keep(peer, token, out);
        if is_last {
            let ticket = self.ticket(peer, 0, Step::Nothing);
            out.act(Action::Unsubscribe(peer, ticket, vec![gone.filter]));
        }
    }

    /// A delivery becomes a notification of every observation that it matched.
    pub(crate) fn notify(&mut self, now: Now, peer: Peer, d: &Delivery<'_>, out: &mut Outbox) {
        let most = self.config.max_body_size;
        let Some(c) = self.peers.get_mut(&peer) else { return };
        let tokens: Vec<Token> = c
            .observations
            .iter()
            .filter(|o| d.subscriptions.contains(&o.identifier))
            .map(|o| o.token)
            .collect();
        if tokens.is_empty() || d.message.payload().len() > most {
            let why = if tokens.is_empty() { Drop::Unexpected } else { Drop::TooLarge };
            out.act(Action::Drop(peer, why));
            if let Some(id) = d.id {
                out.act(Action::Settle(peer, id, Settle::Done));
            }
            return;
        }
        if self.peers.get(&peer).is_some_and(|c| c.candidate.is_some()) {
            self.probe(peer, out);
        }
        // A spoofed address would be sent more than was sent from it.
        if self.is_open_to_spoofing(peer) {
            self.ping(now, peer, out);
        }
        let mut is_settled_later = false;
        for token in tokens {
            is_settled_later |= self.notify_one(now, peer, token, d, out);
        }
        // Sent Non-confirmable for all it is worth: nothing more will be heard of it.
        if let (false, Some(id)) = (is_settled_later, d.id) {
            out.act(Action::Settle(peer, id, Settle::Done));
        }
    }

    /// Returns whether the delivery is settled later.
    fn notify_one(&mut self, now: Now, peer: Peer, token: Token, d: &Delivery<'_>, out: &mut Outbox) -> bool {
        let notify_type = self.config.notify_type;
        let (is_unproven, is_stream) = (self.is_open_to_spoofing(peer), self.stream.is_some());
        let room = self.room(peer);
        let Some(c) = self.peers.get_mut(&peer) else { return false };
        let is_stranger = c.who.username.is_none() && c.credential.is_none();
        let id = c.next_id();
        let Some(o) = c.observation(token) else { return false };
        if !o.filter.has_wildcard() && !o.takes(format_of(d.message)) {
            // Its notifications cannot be what its first one was: it ends (RFC 7641, 4.2).
            let kind = if is_stream { Kind::Non } else { Kind::Con };
            let message = Message { code: Code::NOT_ACCEPTABLE, token, ..Message::empty(kind, id) };
            self.cancel(peer, token, out);
            if is_stream {
                self.send(peer, &message, out);
            } else {
                self.enqueue(now, peer, Outgoing::new(message), out);
            }
            return false;
        }
        if o.filter.has_wildcard() && is_too_long(d.topic, room) {
            out.act(Action::Drop(peer, Drop::TooLarge));
            return false;
        }
        let wants = match notify_type {
            NotifyType::Qos => d.qos > Qos::AtMostOnce,
            NotifyType::Con => true,
            NotifyType::Non => false,
        };
        // Whether the client is still interested must be found out now and then (RFC 7641, 4.5 and 7).
        let is_due = o.confirmed + CONFIRM_AT_LEAST <= now.instant
            || (is_stranger && o.unconfirmed + 1 >= CONFIRM_EVERY);
        // A stream brings everything there, once.
        let is_con = (wants || is_due) && !is_stream;
        if is_con {
            o.confirmed = now.instant;
            o.unconfirmed = 0;
        } else {
            o.unconfirmed += 1;
        }
        let kind = if is_con { Kind::Con } else { Kind::Non };
        let mut message = Message { code: Code::CONTENT, token, ..Message::empty(kind, id) };
        let options = value_options(now, d.message);
        options.iter().for_each(|(number, value)| message.add(*number, value));
        if o.filter.has_wildcard() {
            location(d.topic).iter().for_each(|(number, value)| message.add(*number, value));
        }
        let room = room.at_most(o.szx);
        let mut rest = None;
        match slice(d.message.payload().len(), None, room) {
            Ok(Some((block, range))) => {
                let mut whole = Response { options: message.options.clone(), ..represent(now, d.message) };
                whole.options.push((ETAG, etag(&whole)));
                message.add(ETAG, &etag(&whole));
                message.add_uint(BLOCK2, block.encode());
                message.payload = d.message.payload()[range].to_vec();
                let of = [o.filter.as_str(), d.topic].map(|t| Resource::Topic(t.to_owned()));
                rest = Some((of, whole));
            }
            _ => message.payload = d.message.payload().to_vec(),
        }
        let is_busy = c.outgoing.iter().any(|o| o.observation == Some(token));
        if !is_con && !is_unproven && (d.id.is_some() || !is_busy) {
            if let Some(o) = c.observation(token) {
                message.add_uint(OBSERVE, o.next_sequence());
            }
            c.remember(id, token);
            self.keep_if_used_up(peer, token, out);
            self.keep_rest(now, peer, rest, None);
            self.send(peer, &message, out);
            return false;
        }
        message.kind = Kind::Con;
        if d.id.is_none() {
            // While a Confirmable one is in flight only the newest state of a topic waits (RFC 7641, 4.5.2).
            let mut index = 0;
            c.outgoing.retain(|o| {
                index += 1;
                let is_same = |o: &Outgoing| o.message.all(LOCATION_PATH).eq(message.all(LOCATION_PATH));
                index == 1 || o.observation != Some(token) || o.delivery.is_some() || !is_same(o)
            });
            let size = |r: &Option<Rest>| r.as_ref().map_or(0, |(_, whole)| whole.payload.len());
            let waiting = size(&rest) + c.outgoing.iter().skip(1).map(|o| size(&o.rest)).sum::<usize>();
            if c.outgoing.len() > MAX_WAITING || waiting > self.config.max_body_size {
                out.act(Action::Drop(peer, Drop::SlowPeer));
                return false;
            }
        }
        let mut outgoing = Outgoing::new(message);
        outgoing.observation = Some(token);
        outgoing.delivery = d.id;
        outgoing.rest = rest;
        self.enqueue(now, peer, outgoing, out);
        true
    }
}

/// Whether the topic cannot go as Location-Path: a level has 255 bytes at most (RFC 7252, 5.10), and all together what a
/// message has room for. One that cannot be received would never be acknowledged, and end the observation.
fn is_too_long(topic: &str, room: Room) -> bool {
    topic.len() > room.payload || topic.split('/').any(|level| level.len() > 255)
}

/// The topic of a notification whose filter has wildcards.
fn location(topic: &str) -> Vec<(u16, Vec<u8>)> {
    topic.split('/').map(|level| (LOCATION_PATH, level.as_bytes().to_vec())).collect()
}

//! The CoAP gateway over UDP: RFC 7252 messages, RFC 7641 observations, and topics as resources.
//!
//! One [`Coap`] serves all peers of a socket. A request goes
//!
//! ```text
//! datagram -> de-duplication -> options -> resource -> session (opened if need be) -> action
//!          <- acknowledgement with the answer, or first one without and later a separate answer
//! ```
//!
//! A delivery becomes a notification of each observation that matched; Confirmable ones leave one at a time (NSTART = 1).

pub mod config;
mod conversation;
pub mod frame;
mod observe;
pub mod options;
mod request;
mod resource;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use gateway::{
    Action, Answer, Close, Connect, Deadlines, Deliver, Direction, Disconnect, Drop, Factory, Facts, Flow,
    Gateway, Instant, Now, Outbox, Peer, Refusal, Settle, Stop, Ticket,
};

pub use config::{Config, NotifyType};

use conversation::{Conversation, EXCHANGE_LIFETIME, Exchange, NON_LIFETIME, Outgoing, Phase, Step};
use frame::{Code, Kind, Malformed, Message};
use options::{BLOCK1, BLOCK2, ECHO, Wrong};
use request::{Identity, Operation};

/// The system's randomness: fills the buffer, false if it cannot. For tokens that nobody can guess.
pub type Random = Arc<dyn Fn(&mut [u8]) -> bool + Send + Sync>;

/// Makes machines for a listener.
pub struct CoapFactory {
    config: Arc<Config>,
    random: Random,
}

impl CoapFactory {
    /// Machines with this configuration and randomness.
    pub fn new(config: Config, random: Random) -> CoapFactory {
        CoapFactory { config: Arc::new(config), random }
    }
}

impl Factory for CoapFactory {
    fn build(&self) -> Box<dyn Gateway> {
        Box::new(Coap::new(self.config.clone(), self.random.clone()))
    }
}

/// Requests of one peer that may wait for its session.
const MAX_WAITING: usize = 8;

/// See the module.
pub struct Coap {
    config: Arc<Config>,
    random: Random,
    peers: HashMap<Peer, Box<Conversation>>,
    deadlines: Deadlines<Peer>,
    /// Exchanges remembered of all peers.
    remembered: usize,
    tickets: u64,
}

/// An answer to a request.
#[derive(Clone, Debug)]
pub(crate) struct Response {
    code: Code,
    options: Vec<(u16, Vec<u8>)>,
    payload: Vec<u8>,
}

impl Response {
    pub(crate) fn new(code: Code) -> Response {
        Response { code, options: Vec::new(), payload: Vec::new() }
    }

    /// An error with words for people (RFC 7252, 5.5.2).
    pub(crate) fn error(code: Code, text: &str) -> Response {
        Response { payload: text.as_bytes().to_vec(), ..Response::new(code) }
    }
}

/// What a refused request is answered: the one place where refusals become CoAP codes.
fn code(why: Refusal) -> Code {
    match why {
        Refusal::BadCredentials | Refusal::BadMethod | Refusal::Banned | Refusal::NotOwner => {
            Code::UNAUTHORIZED
        }
        Refusal::NotAuthorised | Refusal::ExclusiveTaken => Code::FORBIDDEN,
        Refusal::ClientId | Refusal::TopicName | Refusal::TopicFilter => Code::BAD_REQUEST,
        Refusal::QuotaExceeded | Refusal::ServerBusy => Code::UNAVAILABLE,
        Refusal::NoSession | Refusal::Internal => Code::INTERNAL,
    }
}

impl Coap {
    /// A machine without peers.
    pub fn new(config: Arc<Config>, random: Random) -> Coap {
        Coap {
            config,
            random,
            peers: HashMap::new(),
            deadlines: Deadlines::default(),
            remembered: 0,
            tickets: 0,
        }
    }

    fn random<const N: usize>(&self) -> Option<[u8; N]> {
        let mut bytes = [0; N];
        (self.random)(&mut bytes).then_some(bytes)
    }

    /// The one place where messages leave.
    fn send(&self, peer: Peer, message: &Message, out: &mut Outbox) {
        message.encode(out.send(peer));
        out.trace(peer, Direction::Out, || describe(message));
    }

    fn ticket(&mut self, peer: Peer, id: u16, step: Step) -> Ticket {
        self.tickets += 1;
        if let Some(c) = self.peers.get_mut(&peer) {
            c.steps.push_back((self.tickets, id, step));
        }
        Ticket(self.tickets)
    }

    fn schedule(&mut self, peer: Peer) {
        let Some(c) = self.peers.get_mut(&peer) else { return };
        let due = c.due(self.config.idle_timeout);
        if due < c.scheduled {
            c.scheduled = due;
            self.deadlines.set(due, peer);
        }
    }

    fn datagram(&mut self, now: Now, peer: Peer, bytes: &[u8], out: &mut Outbox) {
        let message = match Message::decode(bytes) {
            Ok(message) => message,
            Err(why) => {
                // A Confirmable message that cannot be processed is rejected (RFC 7252, 4.2), others are ignored (4.3).
                if let Malformed::Format(Kind::Con, id) = why {
                    self.send(peer, &Message::empty(Kind::Rst, id), out);
                }
                return out.act(Action::Drop(peer, Drop::Malformed));
            }
        };
        out.trace(peer, Direction::In, || describe(&message));
        if let Some(c) = self.peers.get_mut(&peer) {
            c.seen = now.instant;
        }
        match (message.kind, message.code) {
            (Kind::Ack, code) => {
                self.acknowledged(now, peer, message.id, out);
                if code != Code::EMPTY {
                    // Nothing is asked of peers yet that they could answer.
                    out.act(Action::Drop(peer, Drop::Unexpected));
                }
            }
            (Kind::Rst, _) => self.reset(now, peer, message.id, out),
            // CoAP ping (4.3).
            (Kind::Con, Code::EMPTY) => self.send(peer, &Message::empty(Kind::Rst, message.id), out),
            (_, code) if code.is_request() => self.request(now, peer, message, bytes.len(), out),
            (kind, _) => {
                if kind == Kind::Con {
                    self.send(peer, &Message::empty(Kind::Rst, message.id), out);
                }
                out.act(Action::Drop(peer, Drop::Unexpected));
            }
        }
    }

    fn request(&mut self, now: Now, peer: Peer, request: Message, size: usize, out: &mut Outbox) {
        let (most, most_total) = (self.config.max_exchanges, self.config.max_exchanges_total);
        let Some(c) = self.peers.get_mut(&peer) else { return };
        self.remembered -= c.forget_expired(now.instant);
        if let Some(exchange) = c.exchange(request.id) {
            // The same request again: the same answer again (4.2), and nothing for a Non-confirmable one (4.3).
            let answer = exchange.answer.clone().filter(|_| exchange.kind == Kind::Con);
            if let Some(answer) = answer {
                out.send(peer).extend_from_slice(&answer);
            }
            return out.act(Action::Drop(peer, Drop::Duplicate));
        }
        let is_full = c.exchanges.len() >= most || self.remembered >= most_total;
        if is_full && !c.forget_one() {
            out.act(Action::Drop(peer, Drop::ExchangesFull));
            let kind = if request.kind == Kind::Con { Kind::Ack } else { Kind::Non };
            let id = if request.kind == Kind::Con { request.id } else { c.next_id() };
            let busy = Message { code: Code::UNAVAILABLE, token: request.token, ..Message::empty(kind, id) };
            return self.send(peer, &busy, out);
        }
        let is_con = request.kind == Kind::Con;
        c.exchanges.push_back(Exchange {
            id: request.id,
            kind: request.kind,
            token: request.token,
            is_safe: request.code == Code::GET,
            size,
            expires: now.instant + if is_con { EXCHANGE_LIFETIME } else { NON_LIFETIME },
            ack_due: is_con.then(|| now.instant + self.config.processing_delay),
            answer: None,
            is_done: false,
        });
        self.remembered += usize::from(!is_full);
        let id = request.id;
        if let Err(response) = self.begin(now, peer, request, out) {
            self.answer(now, peer, id, response, out);
        }
    }

    /// From the request's options to the operation, or the answer that it cannot be.
    fn begin(&mut self, now: Now, peer: Peer, request: Message, out: &mut Outbox) -> Result<(), Response> {
        options::check(&request).map_err(|wrong| match wrong {
            Wrong::BadOption => Response::error(Code::BAD_OPTION, "an option is not known or not right"),
            Wrong::Proxying => Response::error(Code::PROXYING, "this is no proxy"),
        })?;
        // Bodies of more than one datagram: more flag or block number (RFC 7959, 2.2).
        if request.uint(BLOCK1).is_some_and(|b| b & 8 != 0 || b >> 4 > 0) {
            return Err(Response::error(Code::TOO_LARGE, "a body must fit in one datagram"));
        }
        if request.uint(BLOCK2).is_some_and(|b| b >> 4 > 0) {
            return Err(Response::error(Code::BAD_OPTION, "there are no further blocks"));
        }
        if let Some(c) = self.peers.get_mut(&peer)
            && let Some(echo) = c.echo
            && request.all(ECHO).next() == Some(&echo[..])
        {
            c.is_verified = true;
        }
        let (operation, who) = request::read(&request, self.config.keep_alive)
            .map_err(|(code, text)| Response::error(code, text))?;
        self.authorise(now, peer, request, operation, who, out)
    }

    /// Finds the session that the operation runs in, or opens it.
    fn authorise(
        &mut self,
        now: Now,
        peer: Peer,
        request: Message,
        operation: Operation,
        who: Identity,
        out: &mut Outbox,
    ) -> Result<(), Response> {
        let Some(c) = self.peers.get_mut(&peer) else { return Ok(()) };
        let unauthorised = |text| Err(Response::error(Code::UNAUTHORIZED, text));
        if let Operation::Connect { keep_alive } = operation {
            if c.phase == Phase::Opening {
                return Err(Response::error(Code::UNAVAILABLE, "a session is being opened"));
            }
            c.keep_alive = keep_alive;
            self.open(peer, request.id, who, Step::Connect, out);
            return Ok(());
        }
        if let Some(token) = &who.token {
            let is_theirs = c.phase == Phase::Open
                && c.who.client_id == who.client_id
                && c.token.as_ref().is_some_and(|t| is_same(t, token));
            if !is_theirs {
                return unauthorised("client id and token do not belong to a session here");
            }
            c.is_verified = true;
        } else if who.client_id.is_some() && c.token.is_some() && c.who.client_id != who.client_id {
            return unauthorised("another client is connected here");
        }
        let is_named = c.token.is_some();
        let is_other = who.token.is_none() && !is_named && who.client_id.is_some() && c.who != who;
        match c.phase {
            Phase::Open if !is_other => {
                self.perform(now, peer, request, operation, out);
                return Ok(());
            }
            Phase::Opening if is_other || c.waiting.len() >= MAX_WAITING => {
                return Err(Response::error(Code::UNAVAILABLE, "a session is being opened"));
            }
            _ => {}
        }
        let id = request.id;
        let is_opening = c.phase == Phase::Opening;
        c.waiting.push_back((id, operation, request));
        if !is_opening {
            self.open(peer, id, who, Step::Open, out);
        }
        Ok(())
    }

    fn open(&mut self, peer: Peer, id: u16, who: Identity, step: Step, out: &mut Outbox) {
        let is_named = matches!(step, Step::Connect);
        let Some(c) = self.peers.get_mut(&peer) else { return };
        c.phase = Phase::Opening;
        c.token = None;
        c.observations.clear();
        let client_id = match &who.client_id {
            Some(id) => id.as_str().into(),
            None => format!("coap-{}-{}", c.address.ip(), c.address.port()).into(),
        };
        let connect = Connect {
            client_id,
            username: who.username.as_deref().map(Into::into),
            password: who.password.as_ref().map(|p| Bytes::copy_from_slice(p.as_bytes())),
            method: None,
            clean_start: true,
            expiry: Duration::ZERO,
            // NSTART (RFC 7252, 4.7).
            credit: 1,
            will: None,
            protocol: "CoAP",
            keep_alive: u16::try_from(c.keep_alive.as_secs()).unwrap_or(u16::MAX),
            is_transient: !is_named,
        };
        c.who = who;
        let ticket = self.ticket(peer, id, step);
        out.act(Action::Connect(peer, ticket, Box::new(connect)));
    }

    fn opened_session(
        &mut self,
        now: Now,
        peer: Peer,
        id: u16,
        is_named: bool,
        answer: Answer,
        out: &mut Outbox,
    ) {
        let refused = match answer {
            Answer::Connected(_) => None,
            Answer::Refused(why) => Some(Response::error(code(why), "not let in")),
            _ => Some(Response::new(Code::INTERNAL)),
        };
        let token = if is_named { self.random::<16>() } else { None };
        let Some(c) = self.peers.get_mut(&peer) else { return };
        let waiting = std::mem::take(&mut c.waiting);
        if let Some(response) = refused {
            c.phase = Phase::Without;
            c.who = Identity::default();
            for (id, ..) in &waiting {
                self.answer(now, peer, *id, response.clone(), out);
            }
            if is_named {
                self.answer(now, peer, id, response, out);
            }
            return;
        }
        c.phase = Phase::Open;
        if is_named {
            let Some(token) = token else {
                return self.answer(now, peer, id, Response::new(Code::UNAVAILABLE), out);
            };
            let token: String = token.iter().map(|b| format!("{b:02x}")).collect();
            c.token = Some(token.clone());
            let response = Response { payload: token.into_bytes(), ..Response::new(Code::CREATED) };
            self.answer(now, peer, id, response, out);
        }
        for (_, operation, request) in waiting {
            self.perform(now, peer, request, operation, out);
        }
    }

    /// Sends the answer to the request with this message id, in its acknowledgement if that was not sent yet.
    fn answer(&mut self, now: Now, peer: Peer, id: u16, response: Response, out: &mut Outbox) {
        let challenge = self.random::<8>();
        let limit = self.config.amplification_limit;
        let Some(c) = self.peers.get_mut(&peer) else { return };
        let next = c.next_id();
        let is_open_to_spoofing = limit && !c.is_verified && !c.address.ip().is_loopback();
        let Some(exchange) = c.exchange(id) else { return };
        let (kind, token, size) = (exchange.kind, exchange.token, exchange.size);
        let is_acked = exchange.ack_due.is_none();
        let (kind, message_id) = match kind {
            Kind::Con if is_acked => (Kind::Con, next),
            Kind::Con => (Kind::Ack, id),
            _ => (Kind::Non, next),
        };
        let mut message = Message { code: response.code, token, ..Message::empty(kind, message_id) };
        response.options.iter().for_each(|(number, value)| message.add(*number, value));
        message.payload = response.payload;
        let mut bytes = Vec::new();
        message.encode(&mut bytes);
        // Who may be spoofed is not sent much more than it sent (RFC 9175, 2.4).
        if is_open_to_spoofing && bytes.len() > (3 * size).max(136) {
            message.code = Code::UNAUTHORIZED;
            message.options.clear();
            message.payload.clear();
            if let Some(echo) = challenge {
                c.echo = Some(echo);
                message.add(ECHO, &echo);
            }
            bytes.clear();
            message.encode(&mut bytes);
        }
        let Some(exchange) = c.exchange(id) else { return };
        exchange.is_done = true;
        exchange.ack_due = None;
        if kind == Kind::Con {
            let out_of_band = Outgoing {
                message,
                observation: None,
                delivery: None,
                retries: 0,
                due: now.instant,
                timeout: Duration::ZERO,
            };
            return self.enqueue(now, peer, out_of_band, out);
        }
        exchange.answer = Some(bytes);
        self.send(peer, &message, out);
    }

    /// Sends a Confirmable message as soon as the one before it is acknowledged (NSTART = 1).
    fn enqueue(&mut self, now: Now, peer: Peer, outgoing: Outgoing, out: &mut Outbox) {
        let Some(c) = self.peers.get_mut(&peer) else { return };
        c.outgoing.push_back(outgoing);
        if c.outgoing.len() == 1 {
            self.transmit(now, peer, out);
        }
    }

    /// Sends the first of the Confirmable messages for the first time.
    fn transmit(&mut self, now: Now, peer: Peer, out: &mut Outbox) {
        // ACK_TIMEOUT times 1 to ACK_RANDOM_FACTOR, which is 1.5 (4.8).
        let spread = f64::from(u16::from_be_bytes(self.random::<2>().unwrap_or_default())) / 65_536.0;
        let timeout = self.config.ack_timeout.mul_f64(1.0 + spread / 2.0);
        let Some(first) = self.peers.get_mut(&peer).and_then(|c| c.outgoing.front_mut()) else { return };
        first.timeout = timeout;
        first.due = now.instant + timeout;
        let message = first.message.clone();
        self.send(peer, &message, out);
    }

    /// The first of the Confirmable messages is done with.
    fn finish(&mut self, now: Now, peer: Peer, how: Settle, out: &mut Outbox) -> Option<Outgoing> {
        let c = self.peers.get_mut(&peer)?;
        let done = c.outgoing.pop_front()?;
        // A delivery that became several notifications is settled with the last of them.
        if let Some(id) = done.delivery
            && !c.outgoing.iter().any(|o| o.delivery == Some(id))
        {
            out.act(Action::Settle(peer, id, how));
        }
        if !c.outgoing.is_empty() {
            self.transmit(now, peer, out);
        }
        Some(done)
    }

    fn acknowledged(&mut self, now: Now, peer: Peer, id: u16, out: &mut Outbox) {
        let Some(c) = self.peers.get_mut(&peer) else { return };
        if c.outgoing.front().is_none_or(|o| o.message.id != id) {
            return out.act(Action::Drop(peer, Drop::Unexpected));
        }
        // Only who receives at this address knows the message id.
        c.is_verified = true;
        self.finish(now, peer, Settle::Done, out);
    }

    /// A Reset to a notification cancels its observation (RFC 7641, 3.6).
    fn reset(&mut self, now: Now, peer: Peer, id: u16, out: &mut Outbox) {
        let Some(c) = self.peers.get_mut(&peer) else { return };
        let token = if c.outgoing.front().is_some_and(|o| o.message.id == id) {
            self.finish(now, peer, Settle::Refused, out).and_then(|o| o.observation)
        } else {
            c.recent.iter().find(|(i, _)| *i == id).map(|(_, token)| *token)
        };
        match token {
            Some(token) => self.cancel(now, peer, token, out),
            None => out.act(Action::Drop(peer, Drop::Unexpected)),
        }
    }

    fn look_at(&mut self, now: Now, peer: Peer, out: &mut Outbox) {
        let most = self.config.max_retransmit;
        let idle = self.config.idle_timeout;
        let Some(c) = self.peers.get_mut(&peer) else { return };
        if c.end(idle) <= now.instant {
            let why = if c.token.is_some() { Close::KeepAlive } else { Close::Idle };
            if c.phase == Phase::Open && why == Close::Idle {
                out.act(Action::Disconnect(peer, Disconnect { with_will: false, expiry: None }));
            }
            return out.act(Action::Close(peer, why));
        }
        let mut acks = Vec::new();
        for exchange in c.exchanges.iter_mut().filter(|e| e.ack_due.is_some_and(|at| at <= now.instant)) {
            // The answer takes longer: it follows in a message of its own (RFC 7252, 5.2.2).
            exchange.ack_due = None;
            let ack = Message::empty(Kind::Ack, exchange.id);
            let mut bytes = Vec::new();
            ack.encode(&mut bytes);
            exchange.answer = Some(bytes);
            acks.push(ack);
        }
        let Some(first) = c.outgoing.front_mut().filter(|o| o.due <= now.instant) else {
            return acks.iter().for_each(|ack| self.send(peer, ack, out));
        };
        if first.retries < most {
            first.retries += 1;
            first.timeout *= 2;
            first.due = now.instant + first.timeout;
            acks.push(first.message.clone());
            return acks.iter().for_each(|m| self.send(peer, m, out));
        }
        acks.iter().for_each(|ack| self.send(peer, ack, out));
        // Nobody is there any more (RFC 7641, 4.5).
        if let Some(token) = self.finish(now, peer, Settle::Refused, out).and_then(|o| o.observation) {
            self.cancel(now, peer, token, out);
        }
    }
}

/// Compares without telling by the time it takes how much was right.
fn is_same(a: &str, b: &str) -> bool {
    a.len() == b.len() && a.bytes().zip(b.bytes()).fold(0, |d, (x, y)| d | (x ^ y)) == 0
}

/// A message for `tidegate trace`; queries, which may hold a password, are left out.
fn describe(m: &Message) -> String {
    let path: Vec<_> = m.all(options::URI_PATH).map(|p| String::from_utf8_lossy(p).into_owned()).collect();
    let observe = m.uint(options::OBSERVE).map(|n| format!(" observe={n}")).unwrap_or_default();
    let token: String = m.token.as_slice().iter().map(|b| format!("{b:02x}")).collect();
    format!(
        "{:?} {} id={} token={token} /{}{observe} ({} bytes)",
        m.kind,
        m.code,
        m.id,
        path.join("/"),
        m.payload.len()
    )
}

impl Gateway for Coap {
    fn opened(&mut self, now: Now, peer: Peer, facts: &Facts, _: &mut Outbox) {
        // Message ids begin anywhere, so that answers of an earlier run are not taken for ours (RFC 7252, 4.4).
        let last_id = u16::from_be_bytes(self.random::<2>().unwrap_or_default());
        let conversation = Conversation::new(now.instant, facts.address, last_id, self.config.keep_alive);
        self.peers.insert(peer, Box::new(conversation));
        self.schedule(peer);
    }

    fn input(&mut self, now: Now, peer: Peer, bytes: &mut BytesMut, out: &mut Outbox) -> Result<Flow, Close> {
        let datagram = bytes.split();
        self.datagram(now, peer, &datagram, out);
        self.schedule(peer);
        Ok(Flow::Continue)
    }

    fn deliver(&mut self, now: Now, peer: Peer, deliver: &Deliver<'_>, out: &mut Outbox) {
        match deliver {
            Deliver::Message(d) => self.notify(now, peer, d, out),
            // QoS 2 is settled in one step here; one left over from a session on another protocol is completed.
            Deliver::Release(id) => out.act(Action::Settle(peer, *id, Settle::Done)),
        }
        self.schedule(peer);
    }

    fn reply(&mut self, now: Now, peer: Peer, ticket: Ticket, answer: Answer, out: &mut Outbox) {
        let Some(c) = self.peers.get_mut(&peer) else { return };
        let Some(at) = c.steps.iter().position(|(t, ..)| *t == ticket.0) else { return };
        let Some((_, id, step)) = c.steps.remove(at) else { return };
        match step {
            Step::Open => self.opened_session(now, peer, id, false, answer, out),
            Step::Connect => self.opened_session(now, peer, id, true, answer, out),
            step => self.answered(now, peer, id, step, answer, out),
        }
        self.schedule(peer);
    }

    fn stop(&mut self, _: Now, peer: Peer, why: Stop, out: &mut Outbox) {
        let code = match why {
            Stop::TakenOver | Stop::Kicked => Code::UNAUTHORIZED,
            Stop::ShuttingDown | Stop::RateLimited | Stop::SlowPeer => Code::UNAVAILABLE,
        };
        let Some(c) = self.peers.get_mut(&peer) else { return };
        // An error ends an observation (RFC 7641, 4.2).
        let tokens: Vec<_> = c.observations.drain(..).map(|o| o.token).collect();
        for token in tokens {
            let Some(id) = self.peers.get_mut(&peer).map(|c| c.next_id()) else { return };
            let message = Message { code, token, ..Message::empty(Kind::Non, id) };
            self.send(peer, &message, out);
        }
    }

    fn closed(&mut self, _: Now, peer: Peer, _: &mut Outbox) {
        if let Some(c) = self.peers.remove(&peer) {
            self.remembered -= c.exchanges.len();
            self.deadlines.cancel(c.scheduled, peer);
        }
    }

    fn timeout(&mut self, now: Now, out: &mut Outbox) {
        while let Some(peer) = self.deadlines.pop(now.instant) {
            if let Some(c) = self.peers.get_mut(&peer) {
                c.scheduled = Instant::NEVER;
                self.look_at(now, peer, out);
                self.schedule_after(now, peer);
            }
        }
    }

    fn next_timeout(&self) -> Option<(Instant, &'static str)> {
        self.deadlines.next().map(|at| (at, "coap"))
    }

    fn describe(&self, peer: Peer, into: &mut Vec<(&'static str, String)>) {
        let Some(c) = self.peers.get(&peer) else { return };
        into.push(("named", c.token.is_some().to_string()));
        into.push(("exchanges", c.exchanges.len().to_string()));
        into.push(("unacknowledged", c.outgoing.len().to_string()));
        for o in &c.observations {
            into.push(("observes", o.filter.as_str().to_owned()));
        }
    }
}

impl Coap {
    /// As `schedule`, but a conversation whose end was just asked for is not looked at again at once.
    fn schedule_after(&mut self, now: Now, peer: Peer) {
        let idle = self.config.idle_timeout;
        if self.peers.get(&peer).is_some_and(|c| c.end(idle) > now.instant) {
            self.schedule(peer);
        }
    }
}

#[cfg(test)]
mod tests;

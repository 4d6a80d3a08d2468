//! The CoAP gateway: RFC 7252 messages over UDP and RFC 8323 messages over TCP and WebSocket, RFC 7641 observations, and
//! topics as resources.
//!
//! One [`Coap`] serves all peers of a socket, or one stream. A request goes
//!
//! ```text
//! datagram -> de-duplication -> options -> resource -> session (opened if need be) -> action
//!          <- acknowledgement with the answer, or first one without and later a separate answer
//! ```
//!
//! A delivery becomes a notification of each observation that matched; Confirmable ones leave one at a time (NSTART = 1).

pub mod block;
mod blockwise;
pub mod body;
mod client;
pub mod config;
mod conversation;
mod exchange;
pub mod frame;
mod group;
mod identity;
mod kept;
mod observe;
pub mod options;
mod request;
mod resource;
mod session;
mod shelf;
pub mod stream;
mod transmission;

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use gateway::{
    Action, Answer, Close, Deadlines, Deliver, Direction, Drop, Factory, Facts, Failure, Flow, Gateway,
    Instant, Now, Outbox, Peer, Refusal, Request, Settle, Stop, Ticket, Transport,
};
use hashbrown::HashMap;

pub use config::{Config, NotifyType};

use block::{Block, Szx};
use blockwise::{Budgets, Resource};
use body::{Bodies, Budget};
use conversation::{Conversation, Step};
use exchange::Sent;
use frame::{Code, Kind, Malformed, Message, Token};
use options::{BLOCK1, BLOCK2, ECHO, Wrong};
use shelf::Shelf;
use stream::Stream;
use transmission::Outgoing;

/// The system's randomness: fills the buffer, false if it cannot. For tokens that nobody can guess.
pub type Random = Arc<dyn Fn(&mut [u8]) -> bool + Send + Sync>;

/// Makes machines for a listener.
pub struct CoapFactory {
    config: Arc<Config>,
    random: Random,
    budgets: Budgets,
}

impl CoapFactory {
    /// Machines with this configuration and randomness.
    pub fn new(config: Config, random: Random) -> CoapFactory {
        CoapFactory { config: Arc::new(config), random, budgets: Budgets::default() }
    }
}

impl Factory for CoapFactory {
    fn build(&self) -> Box<dyn Gateway> {
        Box::new(Coap::sharing(self.config.clone(), self.random.clone(), self.budgets.clone()))
    }

    fn request_topic(&self) -> Option<&str> {
        Some(&*self.config.request_topic).filter(|t| !t.is_empty())
    }
}

/// See the module.
pub struct Coap {
    config: Arc<Config>,
    random: Random,
    peers: HashMap<Peer, Box<Conversation>>,
    deadlines: Deadlines<Peer>,
    /// Named sessions by client id, so that their tokens are recognised from any address.
    named: HashMap<Box<str>, Peer>,
    /// Messages of named sessions in flight, by host and message id.
    claims: HashMap<(IpAddr, u16), Peer>,
    /// Exchanges remembered of all peers.
    remembered: usize,
    /// Peers with exchanges that may be forgotten before those of others that did something.
    loose: BTreeSet<Peer>,
    /// Bodies that come in blocks and are not whole yet.
    bodies: Bodies<Peer>,
    /// What their machines have together for bodies that come.
    partial: Budget,
    /// Representations that were sent a part of.
    served: Shelf<Peer, Resource, Response>,
    /// Peers that were asked something, by the token of the request.
    asked: HashMap<Token, Peer>,
    /// Bytes of devices' answers that are being collected from blocks.
    collected: usize,
    tickets: u64,
    /// If it serves a stream.
    stream: Option<Box<Stream>>,
}

/// An answer to a request.
#[derive(Clone, Debug)]
pub(crate) struct Response {
    code: Code,
    options: Vec<(u16, Vec<u8>)>,
    payload: Bytes,
    /// What it is a representation of, if there may be requests for other parts of it.
    resource: Option<Resource>,
}

impl Response {
    pub(crate) fn new(code: Code) -> Response {
        Response { code, options: Vec::new(), payload: Bytes::new(), resource: None }
    }

    /// An error with words for people (RFC 7252, 5.5.2).
    pub(crate) fn error(code: Code, text: &'static str) -> Response {
        Response { payload: Bytes::from_static(text.as_bytes()), ..Response::new(code) }
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
        Refusal::QuotaExceeded | Refusal::ServerBusy | Refusal::NotKept | Refusal::Uncertain => {
            Code::UNAVAILABLE
        }
        Refusal::NoSession | Refusal::Internal => Code::INTERNAL,
    }
}

impl Coap {
    /// A machine without peers.
    pub fn new(config: Arc<Config>, random: Random) -> Coap {
        Coap::sharing(config, random, Budgets::default())
    }

    fn sharing(config: Arc<Config>, random: Random, budgets: Budgets) -> Coap {
        let partial = budgets.bodies.clone();
        let bodies = Bodies::new(blockwise::limits(&config), budgets.bodies);
        let served = Shelf::new(blockwise::limits_served(&config), budgets.served);
        Coap {
            config,
            random,
            peers: HashMap::new(),
            named: HashMap::new(),
            claims: HashMap::new(),
            deadlines: Deadlines::default(),
            remembered: 0,
            loose: BTreeSet::new(),
            bodies,
            partial,
            served,
            asked: HashMap::new(),
            collected: 0,
            tickets: 0,
            stream: None,
        }
    }

    fn random<const N: usize>(&self) -> Option<[u8; N]> {
        let mut bytes = [0; N];
        (self.random)(&mut bytes).then_some(bytes)
    }

    fn ticket(&mut self, peer: Peer, id: u16, step: Step) -> Ticket {
        self.tickets += 1;
        if let Some(c) = self.peers.get_mut(&peer) {
            c.steps.push_back((self.tickets, id, step));
        }
        Ticket(self.tickets)
    }

    /// How long a silent peer without session and observation is remembered; a stream's is asked now and then.
    fn patience(&self) -> Duration {
        if self.stream.is_some() { Duration::MAX } else { self.config.idle_timeout }
    }

    fn schedule(&mut self, peer: Peer) {
        let idle = self.patience();
        let Some(c) = self.peers.get(&peer) else { return };
        let due = c.due(idle).min(self.stream_due(c.seen));
        let Some(c) = self.peers.get_mut(&peer) else { return };
        if due < c.scheduled {
            self.deadlines.cancel(c.scheduled, peer);
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
            c.heard(now.instant);
        }
        match (message.kind, message.code) {
            (Kind::Ack, Code::EMPTY) => self.acknowledged(now, peer, message.id, out),
            (Kind::Ack, code) if code.class() > 0 => self.piggybacked(now, peer, &message, out),
            // An acknowledgement carries no request: ignored (4.2).
            (Kind::Ack, _) => out.act(Action::Drop(peer, Drop::Malformed)),
            (Kind::Rst, _) => self.reset(now, peer, message.id, out),
            // CoAP ping (4.3).
            (Kind::Con, Code::EMPTY) => self.send(peer, &Message::empty(Kind::Rst, message.id), out),
            (_, code) if code.is_request() => self.request(now, peer, message, bytes.len(), out),
            // Only a Confirmable message may be Empty (4.3).
            (_, Code::EMPTY) => out.act(Action::Drop(peer, Drop::Malformed)),
            _ => self.separate(now, peer, &message, out),
        }
    }

    fn request(&mut self, now: Now, peer: Peer, request: Message, size: usize, out: &mut Outbox) {
        // One that is not Confirmable is rejected, and not answered (RFC 7252, 5.4.1 and 4.3).
        if request.kind == Kind::Non && options::check(&request) == Err(Wrong::BadOption) {
            self.send(peer, &Message::empty(Kind::Rst, request.id), out);
            return out.act(Action::Drop(peer, Drop::Malformed));
        }
        if let Some(known) = self.find(peer, &request) {
            self.rebind(now, known, peer, out);
            self.exchange(now, known, request, size, out);
            return self.schedule(known);
        }
        if self.is_somebody_else(peer, &request) {
            return self.stay(peer, out);
        }
        self.exchange(now, peer, request, size, out);
    }

    fn exchange(&mut self, now: Now, peer: Peer, request: Message, size: usize, out: &mut Outbox) {
        let (most, most_total) = (self.config.max_exchanges, self.config.max_exchanges_total);
        let Some(c) = self.peers.get_mut(&peer) else { return };
        self.remembered -= c.exchanges.forget_expired(now.instant);
        // With another token it is another request: of a device that has started again, or of who has the address by now.
        let is_same = |e: &&exchange::Exchange| e.token == request.token || !e.is_done;
        if let Some(exchange) = c.exchanges.repeated(now.instant, request.id).filter(is_same) {
            // The same request again: the same answer again (4.2), and nothing for a Non-confirmable one (4.3).
            if exchange.kind == Kind::Con && !exchange.answer.is_empty() {
                out.send(peer).extend_from_slice(&exchange.answer);
            }
            return out.act(Action::Drop(peer, Drop::Duplicate));
        }
        let is_full = c.exchanges.len() >= most || self.remembered >= most_total;
        if is_full && !self.make_room(peer) {
            let Some(c) = self.peers.get_mut(&peer) else { return };
            out.act(Action::Drop(peer, Drop::ExchangesFull));
            let is_con = request.kind == Kind::Con;
            let (kind, id) = if is_con { (Kind::Ack, request.id) } else { (Kind::Non, c.next_id()) };
            let busy = Message { code: Code::UNAVAILABLE, token: request.token, ..Message::empty(kind, id) };
            return self.send(peer, &busy, out);
        }
        let Some(c) = self.peers.get_mut(&peer) else { return };
        let loose = c.exchanges.loose();
        let is_more = c.exchanges.begin(now.instant, &request, size, self.config.processing_delay);
        self.remembered += usize::from(is_more);
        if c.exchanges.loose() > loose {
            self.loose.insert(peer);
        }
        let id = request.id;
        if let Err(response) = self.begin(now, peer, request, out) {
            self.answer(now, peer, id, response, out);
        }
    }

    /// Forgets an exchange that does least harm: one of the peer's, or of another if all of them together are too many.
    fn make_room(&mut self, peer: Peer) -> bool {
        let Some(c) = self.peers.get_mut(&peer) else { return false };
        let mut is_made = c.exchanges.forget_one();
        let is_its_own = c.exchanges.len() >= self.config.max_exchanges;
        while !is_made && !is_its_own {
            let Some(other) = self.loose.pop_first() else { break };
            let Some(c) = self.peers.get_mut(&other) else { continue };
            is_made = c.exchanges.forget_one();
            // What is being done is listed again with what comes next.
            if is_made && c.exchanges.loose() > 0 {
                self.loose.insert(other);
            }
        }
        self.remembered -= usize::from(is_made);
        is_made
    }

    /// From the request's options to the operation, or the answer that it cannot be.
    fn begin(&mut self, now: Now, peer: Peer, request: Message, out: &mut Outbox) -> Result<(), Response> {
        options::check(&request).map_err(|wrong| match wrong {
            Wrong::BadOption => Response::error(Code::BAD_OPTION, "an option is not known or not right"),
            Wrong::Proxying => Response::error(Code::PROXYING, "this is no proxy"),
        })?;
        // Size exponent 7 is reserved (RFC 7959, 2.2), but over reliable transports (RFC 8323, 6).
        let is_bert =
            [BLOCK1, BLOCK2].iter().any(|n| Block::of(&request, *n).is_some_and(|b| b.szx == Szx::BERT));
        if is_bert && self.stream.is_none() {
            return Err(Response::error(Code::BAD_REQUEST, "this is no block size"));
        }
        if let Some(c) = self.peers.get_mut(&peer)
            && let Some(echo) = c.echo
            && request.all(ECHO).next() == Some(&echo[..])
        {
            c.is_verified = true;
        }
        let (operation, who) = request::read(&request, self.config.keep_alive)
            .map_err(|(code, text)| Response::error(code, text))?;
        let is_in_blocks = Block::of(&request, BLOCK1).is_some_and(|b| b.is_more || b.number > 0);
        if is_in_blocks && !blockwise::takes_body(&operation) {
            return Err(Response::error(Code::BAD_OPTION, "this takes no body"));
        }
        // Other answers have no later part, and nothing is done again to make one.
        if request.code != Code::GET && Block::of(&request, BLOCK2).is_some_and(|b| b.number > 0) {
            return Err(Response::error(Code::BAD_OPTION, "there are no further blocks"));
        }
        self.authorise(now, peer, request, operation, who, out)
    }

    /// Sends the answer to the request with this message id, in its acknowledgement if that was not sent yet.
    fn answer(&mut self, now: Now, peer: Peer, id: u16, response: Response, out: &mut Outbox) {
        self.is_answered(now, peer, id, response, out);
    }

    /// As `answer`; false if the answer was not sent: the peer was asked to prove its address, or is answered already.
    fn is_answered(&mut self, now: Now, peer: Peer, id: u16, response: Response, out: &mut Outbox) -> bool {
        if self.stream.is_some() {
            return self.stream_answer(now, peer, id, response, out);
        }
        let is_open_to_spoofing = self.is_open_to_spoofing(peer);
        let exchange = self.peers.get_mut(&peer).and_then(|c| c.exchanges.open(id));
        let Some(asked) = exchange.map(|e| e.asked()) else { return false };
        let response = self.fit(now, peer, asked, response);
        let Some(c) = self.peers.get_mut(&peer) else { return false };
        let Some(exchange) = c.exchanges.open(id) else { return false };
        if let Some(at) = c.groups.iter().position(|group| *group == id) {
            c.groups.swap_remove(at);
            exchange.is_done = true;
            self.answer_group(now, peer, id, response);
            return true;
        }
        let is_refused = response.code.class() == 4;
        let (token, size) = (exchange.token, exchange.size());
        let is_separate = exchange.kind == Kind::Con && exchange.is_acknowledged;
        let (kind, message_id) = match exchange.kind {
            Kind::Con if is_separate => (Kind::Con, c.next_id()),
            Kind::Con => (Kind::Ack, id),
            _ => (Kind::Non, c.next_id()),
        };
        let mut message = Message { code: response.code, token, ..Message::empty(kind, message_id) };
        response.options.iter().for_each(|(number, value)| message.add(*number, value));
        message.payload = response.payload.into();
        let mut bytes = Vec::new();
        message.encode(&mut bytes);
        let size_of_answer = bytes.len();
        let is_too_much = is_open_to_spoofing && bytes.len() > (3 * size).max(136);
        if is_too_much {
            message.code = Code::UNAUTHORIZED;
            message.options.clear();
            message.payload.clear();
            if let Some(echo) = self.challenge(peer) {
                message.add(ECHO, &echo);
            }
            bytes.clear();
            message.encode(&mut bytes);
        }
        let Some(c) = self.peers.get_mut(&peer) else { return false };
        c.exchanges.acknowledged(id);
        if let Some(exchange) = c.exchanges.open(id) {
            exchange.is_done = true;
            if !is_separate {
                exchange.answer = Sent::from_slice(&bytes);
            }
        }
        if is_refused {
            c.exchanges.loosen(id);
            self.loose.insert(peer);
        }
        let is_cut_short = c.candidate.is_some() && size_of_answer > (3 * size).max(136);
        if is_cut_short {
            c.cut_short = Some(id);
            self.probe(peer, out);
        }
        if is_separate {
            self.enqueue(now, peer, Outgoing::new(message), out);
        } else {
            self.send(peer, &message, out);
        }
        // A device that goes on with its session may know nothing of Echo, but it answers a ping.
        if is_too_much && self.peers.get(&peer).is_some_and(|c| c.token.is_some()) {
            self.ping(now, peer, out);
        }
        !is_too_much
    }

    /// Whether somebody else may have written this peer's address: it is not sent much more than came from there
    /// (RFC 9175, 2.4). Nobody outside can write loopback's.
    pub(crate) fn is_open_to_spoofing(&self, peer: Peer) -> bool {
        let is_open = |c: &Conversation| !c.is_verified && !c.address.ip().is_loopback();
        self.config.amplification_limit && self.peers.get(&peer).is_some_and(|c| is_open(c))
    }

    /// What the peer is to send back in an Echo option; the same until it did, so that requests sent at the same time do
    /// not spoil each other's.
    fn challenge(&mut self, peer: Peer) -> Option<[u8; 8]> {
        let fresh = self.random::<8>();
        let c = self.peers.get_mut(&peer)?;
        c.echo = c.echo.or(fresh);
        c.echo
    }
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
    fn opened(&mut self, now: Now, peer: Peer, facts: &Facts, out: &mut Outbox) {
        // Message ids begin anywhere, so that answers of an earlier run are not taken for ours (RFC 7252, 4.4).
        let last_id = u16::from_be_bytes(self.random::<2>().unwrap_or_default());
        let mut conversation = Conversation::new(now.instant, facts.address, last_id, self.config.keep_alive);
        conversation.credential.clone_from(&facts.client_id);
        // A handshake has been there and back.
        conversation.is_verified = facts.transport != Transport::Udp;
        conversation.is_sealed = facts.transport == Transport::Dtls;
        self.peers.insert(peer, Box::new(conversation));
        self.stream = Stream::new(now, facts.transport, &self.config, &self.partial);
        if self.stream.is_some() {
            self.greet(peer, out);
        }
        self.open_by_credential(peer, out);
        self.schedule(peer);
    }

    fn input(&mut self, now: Now, peer: Peer, bytes: &mut BytesMut, out: &mut Outbox) -> Result<Flow, Close> {
        let result = if self.stream.is_some() {
            self.stream_input(now, peer, bytes, out)
        } else {
            let datagram = bytes.split();
            self.datagram(now, peer, &datagram, out);
            Ok(Flow::Continue)
        };
        self.schedule(peer);
        result
    }

    fn group(&mut self, now: Now, peer: Peer, bytes: &mut BytesMut, out: &mut Outbox) {
        let datagram = bytes.split();
        self.group_request(now, peer, &datagram, out);
        self.schedule(peer);
    }

    fn moved(&mut self, now: Now, peer: Peer, to: SocketAddr, out: &mut Outbox) {
        self.may_be_at(now, peer, to, out);
        self.schedule(peer);
    }

    fn deliver(&mut self, now: Now, peer: Peer, deliver: &Deliver<'_>, out: &mut Outbox) {
        match deliver {
            Deliver::Message(d) => self.notify(now, peer, d, out),
            // QoS 2 is settled in one step here; one left over from a session on another protocol is completed.
            Deliver::Release(id) => out.act(Action::Settle(peer, *id, Settle::Done)),
            Deliver::Nothing => {}
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

    fn command(&mut self, now: Now, peer: Peer, ticket: Ticket, request: &Request, out: &mut Outbox) {
        self.ask(now, peer, ticket, request, out);
        self.schedule(peer);
    }

    fn stop(&mut self, _: Now, peer: Peer, why: Stop, out: &mut Outbox) {
        let code = match why {
            Stop::TakenOver | Stop::Kicked => Code::UNAUTHORIZED,
            Stop::ShuttingDown | Stop::RateLimited | Stop::SlowPeer => Code::UNAVAILABLE,
        };
        // Those of a session that goes on, here or elsewhere, go on with it, and who was kicked may come again too.
        let goes_on = self.peers.get(&peer).is_some_and(|c| c.is_kept);
        if !goes_on {
            self.end_observations(peer, code, out);
        }
        if self.stream.is_some() {
            self.farewell(peer, why, out);
        }
    }

    fn closed(&mut self, _: Now, peer: Peer, out: &mut Outbox) {
        self.none_answered(peer, Failure::Gone, out);
        self.claim(peer, None);
        self.forget_name(peer);
        if let Some(c) = self.peers.remove(&peer) {
            // Those of a stream are none that could be repeated.
            if self.stream.is_none() {
                self.remembered -= c.exchanges.len();
                self.loose.remove(&peer);
            }
            self.bodies.forget(peer);
            self.served.forget(peer);
            self.deadlines.cancel(c.scheduled, peer);
        }
    }

    fn timeout(&mut self, now: Now, out: &mut Outbox) {
        self.bodies.expire(now.instant);
        self.served.expire(now.instant);
        while let Some(peer) = self.deadlines.pop(now.instant) {
            if let Some(c) = self.peers.get_mut(&peer) {
                c.scheduled = Instant::NEVER;
                self.look_at(now, peer, out);
                self.schedule_after(now, peer);
            }
        }
    }

    fn next_timeout(&self) -> Option<(Instant, &'static str)> {
        let all = [self.deadlines.next(), self.bodies.next(), self.served.next()];
        all.into_iter().flatten().min().map(|at| (at, "coap"))
    }

    fn describe(&self, peer: Peer, into: &mut Vec<(&'static str, String)>) {
        let Some(c) = self.peers.get(&peer) else { return };
        into.push(("named", c.token.is_some().to_string()));
        into.push(("exchanges", c.exchanges.len().to_string()));
        into.push(("unacknowledged", c.outgoing.len().to_string()));
        into.push(("requests", c.asking.len().to_string()));
        into.push(("bodies", format!("{} bytes", self.bodies.used_by(peer) + self.served.used_by(peer))));
        if let Some(stream) = &self.stream {
            into.push(("max_payload", stream.room().payload.to_string()));
        }
        for o in &c.observations {
            let (filter, qos, sequence) = (o.filter.as_str(), o.qos as u8, o.sequence);
            let token = kept::hex(o.token.as_slice());
            into.push(("observations", format!("{filter} qos={qos} token={token} sequence={sequence}")));
        }
    }
}

impl Coap {
    /// As `schedule`, but a conversation whose end was just asked for is not looked at again at once.
    fn schedule_after(&mut self, now: Now, peer: Peer) {
        let idle = self.patience();
        if self.peers.get(&peer).is_some_and(|c| c.end(idle) > now.instant) {
            self.schedule(peer);
        }
    }
}

#[cfg(test)]
mod tests;

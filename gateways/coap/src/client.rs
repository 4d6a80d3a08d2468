//! Client role: requests to the server that a device runs itself (RFC 7252, 5), at the address of its conversation.
//!
//! ```text
//! ask -> Confirmable request, behind what is in flight (NSTART = 1)
//!          |- ACK with the answer                  -> answered                (5.2.1)
//!          |- ACK, later CON or NON with the answer -> acknowledged, answered (5.2.2)
//!          |- 4.01 with Echo                       -> asked again with it     (RFC 9175, 2.3)
//!          \- RST, retries over, time over, device gone -> failed
//! ```
//!
//! An answer belongs to the request whose token it bears, and to no other peer's: tokens are random and looked for in the
//! conversation that the answer came in.

use std::collections::VecDeque;

use gateway::request::{Failure, Outcome, Request};
use gateway::{Action, Drop, Instant, Now, Outbox, Peer, Settle, Ticket, request};

use crate::Coap;
use crate::exchange::{EXCHANGE_LIFETIME, NON_LIFETIME};
use crate::frame::{Code, Kind, Message, Token};
use crate::options::{
    ACCEPT, BLOCK1, BLOCK2, CONTENT_FORMAT, ECHO, ETAG, LOCATION_PATH, LOCATION_QUERY, MAX_AGE, SIZE2,
    URI_PATH, URI_QUERY,
};
use crate::transmission::Outgoing;

/// Requests that may wait for one peer's answers.
const MAX_ASKED: usize = 16;
/// Answers of one peer that are remembered, so that one that comes again is told from one that nobody waits for.
const MAX_ANSWERED: usize = 32;

/// A request that waits for its answer.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    /// Whose it is.
    ticket: Ticket,
    /// As it is, or will be, sent; its token tells it from the others.
    message: Message,
    /// When nobody waits for the answer any more.
    due: Instant,
}

/// What one peer is asked, and has answered lately.
#[derive(Debug, Default)]
pub(crate) struct Asking {
    /// In the order in which they were asked.
    open: Vec<Asked>,
    /// Message id and token of answers in messages of their own, and until when their message ids count.
    answered: VecDeque<(u16, Token, Instant)>,
}

impl Asking {
    /// Requests without an answer.
    pub(crate) fn len(&self) -> usize {
        self.open.len()
    }

    /// When the first of them is given up.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.open.iter().map(|a| a.due).min()
    }

    /// When the last of them is given up.
    pub(crate) fn last(&self) -> Instant {
        self.open.iter().map(|a| a.due).max().unwrap_or_default()
    }

    fn take(&mut self, token: Token) -> Option<Asked> {
        let at = self.open.iter().position(|a| a.message.token == token)?;
        Some(self.open.remove(at))
    }

    /// Whether this very message came before.
    fn is_again(&mut self, now: Instant, id: u16, token: Token) -> bool {
        self.answered.retain(|(.., until)| *until > now);
        self.answered.iter().any(|(i, t, _)| (*i, *t) == (id, token))
    }

    fn remember(&mut self, now: Instant, message: &Message) {
        if self.answered.len() >= MAX_ANSWERED {
            self.answered.pop_front();
        }
        let lifetime = if message.kind == Kind::Con { EXCHANGE_LIFETIME } else { NON_LIFETIME };
        self.answered.push_back((message.id, message.token, now + lifetime));
    }
}

impl Coap {
    /// Sends the device a request, as soon as those before it are acknowledged.
    pub(crate) fn ask(&mut self, now: Now, peer: Peer, ticket: Ticket, request: &Request, out: &mut Outbox) {
        if let Err(why) = self.begin_asking(now, peer, ticket, request, out) {
            out.act(Action::Answered(peer, ticket, Err(why)));
        }
    }

    fn begin_asking(
        &mut self,
        now: Now,
        peer: Peer,
        ticket: Ticket,
        request: &Request,
        out: &mut Outbox,
    ) -> Result<(), Failure> {
        let mut message = encode(request).ok_or(Failure::BadRequest)?;
        if request.payload.len() > self.room(peer).payload {
            return Err(Failure::TooLarge);
        }
        message.token = self.fresh_token(ticket.0).ok_or(Failure::Busy)?;
        let c = self.peers.get_mut(&peer).ok_or(Failure::Gone)?;
        if c.asking.len() >= MAX_ASKED {
            return Err(Failure::Busy);
        }
        message.id = c.next_id();
        let due = now.instant + request.timeout;
        c.asking.open.push(Asked { ticket, message: message.clone(), due });
        // A spoofed address would be sent more than was sent from it.
        if self.is_open_to_spoofing(peer) {
            self.ping(now, peer, out);
        }
        self.enqueue(now, peer, Outgoing::new(message), out);
        self.probe(peer, out);
        Ok(())
    }

    /// A token that nobody can guess (5.3.1) and that no other request bears.
    fn fresh_token(&self, number: u64) -> Option<Token> {
        let random = u64::from_be_bytes(self.random::<8>()?);
        Some(Token::new(&(random ^ number).to_be_bytes()))
    }

    /// An acknowledgement with an answer in it.
    pub(crate) fn piggybacked(&mut self, now: Now, peer: Peer, message: &Message, out: &mut Outbox) {
        let has_sent = |peer: &Peer| {
            let first = self.peers.get(peer).and_then(|c| c.outgoing.front());
            first.is_some_and(|o| o.message.id == message.id && is_request(&o.message, message.token))
        };
        // The device may have got another port since it was asked.
        let whose = [Some(peer), self.claimed(peer, message.id)].into_iter().flatten().find(has_sent);
        let asked = whose.and_then(|p| self.peers.get_mut(&p)?.asking.take(message.token));
        // It acknowledges the message, whatever it says.
        self.acknowledged(now, peer, message.id, out);
        if let (Some(peer), Some(asked)) = (whose, asked) {
            self.has_answered(now, peer, asked, message, out);
            self.schedule(peer);
        }
    }

    /// An answer in a message of its own.
    pub(crate) fn separate(&mut self, now: Now, peer: Peer, message: &Message, out: &mut Outbox) {
        let Some(c) = self.peers.get_mut(&peer) else { return };
        let is_con = message.kind == Kind::Con;
        if c.asking.is_again(now.instant, message.id, message.token) {
            // Its acknowledgement was lost.
            if is_con {
                self.send(peer, &Message::empty(Kind::Ack, message.id), out);
            }
            return out.act(Action::Drop(peer, Drop::Duplicate));
        }
        let is_first = c.outgoing.front().is_some_and(|o| is_request(&o.message, message.token));
        let is_waiting = c.outgoing.iter().skip(1).any(|o| is_request(&o.message, message.token));
        // What was not sent yet cannot have been answered.
        let Some(asked) = (!is_waiting).then(|| c.asking.take(message.token)).flatten() else {
            // Nobody waits for it (4.2, 4.3).
            self.send(peer, &Message::empty(Kind::Rst, message.id), out);
            return out.act(Action::Drop(peer, Drop::Unexpected));
        };
        c.asking.remember(now.instant, message);
        // Only who receives at this address knows the token.
        c.is_verified = true;
        if is_con {
            self.send(peer, &Message::empty(Kind::Ack, message.id), out);
        }
        // The acknowledgement was lost or overtaken; the answer says as much (5.2.2).
        if is_first {
            self.acknowledged(now, peer, asked.message.id, out);
        }
        self.has_answered(now, peer, asked, message, out);
    }

    fn has_answered(&mut self, now: Now, peer: Peer, asked: Asked, answer: &Message, out: &mut Outbox) {
        let echo = answer.all(ECHO).next().filter(|_| answer.code == Code::UNAUTHORIZED);
        if let Some(echo) = echo
            && asked.message.all(ECHO).next().is_none()
        {
            return self.ask_again(now, peer, asked, echo, out);
        }
        out.act(Action::Answered(peer, asked.ticket, decode(answer)));
    }

    /// The device wants to see that the request is fresh (RFC 9175, 2.3).
    fn ask_again(&mut self, now: Now, peer: Peer, mut asked: Asked, echo: &[u8], out: &mut Outbox) {
        let token = self.fresh_token(asked.ticket.0);
        let (Some(c), Some(token)) = (self.peers.get_mut(&peer), token) else { return };
        asked.message.add(ECHO, echo);
        (asked.message.id, asked.message.token) = (c.next_id(), token);
        let message = asked.message.clone();
        c.asking.open.push(asked);
        self.enqueue(now, peer, Outgoing::new(message), out);
    }

    /// The request with this token has no answer.
    pub(crate) fn not_answered(&mut self, peer: Peer, token: Token, why: Failure, out: &mut Outbox) {
        let Some(c) = self.peers.get_mut(&peer) else { return };
        if let Some(asked) = c.asking.take(token) {
            out.act(Action::Answered(peer, asked.ticket, Err(why)));
        }
    }

    /// None of the requests to this peer will have an answer, and none that waits is sent.
    pub(crate) fn none_answered(&mut self, peer: Peer, why: Failure, out: &mut Outbox) {
        let Some(c) = self.peers.get_mut(&peer) else { return };
        let mut index = 0;
        c.outgoing.retain(|o| {
            index += 1;
            index == 1 || !o.message.code.is_request()
        });
        for asked in std::mem::take(&mut c.asking.open) {
            out.act(Action::Answered(peer, asked.ticket, Err(why)));
        }
    }

    /// Gives up the requests whose time is over.
    pub(crate) fn give_up_asking(&mut self, now: Now, peer: Peer, out: &mut Outbox) {
        let Some(c) = self.peers.get_mut(&peer) else { return };
        let late: Vec<Token> =
            c.asking.open.iter().filter(|a| a.due <= now.instant).map(|a| a.message.token).collect();
        for token in late {
            self.not_answered(peer, token, Failure::Timeout, out);
            let Some(c) = self.peers.get_mut(&peer) else { return };
            if c.outgoing.front().is_some_and(|o| is_request(&o.message, token)) {
                self.finish(now, peer, Settle::Refused, out);
            } else {
                c.outgoing.retain(|o| !is_request(&o.message, token));
            }
        }
    }
}

fn is_request(message: &Message, token: Token) -> bool {
    message.code.is_request() && message.token == token
}

/// The request as a message without id and token; None if it cannot be one.
fn encode(request: &Request) -> Option<Message> {
    let code = Code(request.method as u8 + 1);
    let mut message = Message { code, ..Message::empty(Kind::Con, 0) };
    let path = request.path.strip_prefix('/').unwrap_or(&request.path);
    if !path.is_empty() {
        for level in path.split('/') {
            // These would be steps in a tree, which options have none of (5.10.1).
            if level.len() > 255 || matches!(level, "." | "..") {
                return None;
            }
            message.add(URI_PATH, level.as_bytes());
        }
    }
    for query in &request.query {
        if query.len() > 255 {
            return None;
        }
        message.add(URI_QUERY, query.as_bytes());
    }
    for (number, value) in [(CONTENT_FORMAT, request.format), (ACCEPT, request.accept)] {
        if let Some(value) = value {
            message.add_uint(number, value.into());
        }
    }
    message.payload = request.payload.to_vec();
    Some(message)
}

/// What the device said.
fn decode(answer: &Message) -> Outcome {
    let mut response = request::Response {
        code: answer.code.to_string().into(),
        is_success: answer.code.class() == 2,
        format: answer.uint(CONTENT_FORMAT).and_then(|f| u16::try_from(f).ok()),
        options: Vec::new(),
        payload: answer.payload.clone().into(),
    };
    for (number, value) in &answer.options {
        let name = match *number {
            CONTENT_FORMAT => continue,
            ETAG => "ETag",
            LOCATION_PATH => "Location-Path",
            LOCATION_QUERY => "Location-Query",
            MAX_AGE => "Max-Age",
            BLOCK1 => "Block1",
            BLOCK2 => "Block2",
            SIZE2 => "Size2",
            // A critical option that is not known makes the answer one that cannot be understood (5.4.1).
            number if number & 1 == 1 => return Err(Failure::BadAnswer),
            _ => "",
        };
        let name = if name.is_empty() { format!("option {number}").into() } else { name.into() };
        let text = match *number {
            LOCATION_PATH | LOCATION_QUERY => String::from_utf8_lossy(value).into_owned(),
            MAX_AGE | BLOCK1 | BLOCK2 | SIZE2 if value.len() <= 4 => {
                value.iter().fold(0, |n, b| n << 8 | u32::from(*b)).to_string()
            }
            _ => value.iter().map(|b| format!("{b:02x}")).collect(),
        };
        response.options.push((name, text.into()));
    }
    Ok(Box::new(response))
}

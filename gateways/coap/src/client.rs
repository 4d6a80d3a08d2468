//! Client role: requests to the server that a device runs itself (RFC 7252, 5), at the address of its conversation.
//!
//! ```text
//! ask -> Confirmable request, behind what is in flight (NSTART = 1)
//!          |- ACK with the answer                  -> answered                (5.2.1)
//!          |- ACK, later CON or NON with the answer -> acknowledged, answered (5.2.2)
//!          |- 2.31, 2.05 with more blocks          -> asked for, or sent, the next (RFC 7959)
//!          |- 4.01 with Echo                       -> asked again with it     (RFC 9175, 2.3)
//!          \- RST, retries over, time over, device gone -> failed
//! ```
//!
//! An answer belongs to the request whose token it bears. Tokens are random, and known to who was asked alone: an answer from
//! another address is that of a device that has moved there.

use std::collections::VecDeque;

use gateway::{Action, Drop, Failure, Instant, Now, Outbox, Peer, Request, Settle, Ticket};

use crate::Coap;
use crate::block::{Broken, Download, Progress, Szx, Upload};
use crate::exchange::{EXCHANGE_LIFETIME, NON_LIFETIME};
use crate::frame::{Code, Kind, Message, Token};
use crate::options::{BLOCK1, BLOCK2, ECHO, REQUEST_TAG, SIZE1};
use crate::transmission::Outgoing;

mod translate;

/// Requests that may wait for one peer's answers.
const MAX_ASKED: usize = 16;
/// Answers of one peer that are remembered, so that one that comes again is told from one that nobody waits for.
const MAX_ANSWERED: usize = 32;

/// A request that waits for its answer.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    /// Whose it is.
    ticket: Ticket,
    /// As it is, or will be, sent, but for block and payload; its token tells it from the others.
    message: Message,
    /// Its payload.
    upload: Upload,
    /// The answer's, if that comes in blocks.
    download: Option<Download>,
    /// Bytes of it that were counted.
    collected: usize,
    /// The answer became another one on the way, and is fetched from its beginning again.
    was_changed: bool,
    /// When nobody waits for the answer any more.
    due: Instant,
}

impl Asked {
    /// What is sent next.
    fn next(&mut self) -> Message {
        if let Some(download) = &self.download {
            let mut message = self.message.clone();
            message.add_uint(BLOCK2, download.block().encode());
            return message;
        }
        let (block, payload) = self.upload.block();
        // Tells this body's blocks from those of another one to the same resource (RFC 9175, 3).
        if block.is_some() && self.message.all(REQUEST_TAG).next().is_none() {
            self.message.add(REQUEST_TAG, &self.ticket.0.to_be_bytes());
        }
        let mut message = self.message.clone();
        message.payload = payload.to_vec();
        if let Some(block) = block {
            message.add_uint(BLOCK1, block.encode());
            if block.number == 0 {
                message.add_uint(SIZE1, u32::try_from(self.upload.size()).unwrap_or(u32::MAX));
            }
        }
        message
    }

    /// Takes an answer; after the last one its body.
    fn take(&mut self, answer: &Message, most: usize, szx: Szx) -> Result<Option<Vec<u8>>, Broken> {
        if self.download.is_none() && self.upload.answered(answer)? == Progress::More {
            return Ok(None);
        }
        let mut download = self.download.take().unwrap_or_else(|| Download::new(most, szx));
        match download.answered(answer) {
            Ok(Progress::Done) => Ok(Some(download.into_body())),
            Ok(Progress::More) => {
                self.download = Some(download);
                Ok(None)
            }
            // What does nothing but read can be asked from the beginning, once.
            Err(Broken::Changed) if self.message.code == Code::GET && !self.was_changed => {
                self.was_changed = true;
                Ok(None)
            }
            Err(why) => Err(why),
        }
    }
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
        let mut message = translate::encode(request).ok_or(Failure::BadRequest)?;
        if request.payload.len() > self.config.max_body_size {
            return Err(Failure::TooLarge);
        }
        message.token = self.fresh_token(ticket.0).ok_or(Failure::Busy)?;
        let c = self.peers.get_mut(&peer).ok_or(Failure::Gone)?;
        if c.asking.len() >= MAX_ASKED {
            return Err(Failure::Busy);
        }
        message.id = c.next_id();
        let mut asked = Asked {
            ticket,
            message,
            upload: Upload::new(request.payload.clone(), self.room(peer)),
            download: None,
            collected: 0,
            was_changed: false,
            due: now.instant + request.timeout,
        };
        let message = asked.next();
        self.keep_asked(peer, asked);
        // A spoofed address would be sent more than was sent from it.
        if self.is_open_to_spoofing(peer) {
            self.ping(now, peer, out);
        }
        self.enqueue(now, peer, Outgoing::new(message), out);
        // What it is to be sent first waits for it to wake up; perhaps it has.
        if let Some(first) = self.peers.get_mut(&peer).and_then(|c| c.outgoing.front_mut()) {
            first.wake(now.instant);
        }
        self.probe(peer, out);
        Ok(())
    }

    /// A token that nobody can guess (5.3.1) and that no other request bears.
    fn fresh_token(&self, number: u64) -> Option<Token> {
        let random = u64::from_be_bytes(self.random::<8>()?);
        Some(Token::new(&(random ^ number).to_be_bytes()))
    }

    /// An acknowledgement with an answer in it.
    pub(crate) fn piggybacked(&mut self, now: Now, from: Peer, message: &Message, out: &mut Outbox) {
        let peer = self.whose(now, from, message, out);
        let first = self.peers.get(&peer).and_then(|c| c.outgoing.front());
        let is_its =
            first.is_some_and(|o| o.message.id == message.id && is_request(&o.message, message.token));
        let asked = if is_its { self.take_asked(peer, message.token) } else { None };
        // It acknowledges the message, whatever it says.
        self.acknowledged(now, peer, message.id, out);
        if let Some(asked) = asked {
            self.has_answered(now, peer, asked, message, out);
            self.schedule(peer);
        }
    }

    /// An answer in a message of its own.
    pub(crate) fn separate(&mut self, now: Now, from: Peer, message: &Message, out: &mut Outbox) {
        let peer = self.whose(now, from, message, out);
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
        let Some(asked) = (!is_waiting).then(|| self.take_asked(peer, message.token)).flatten() else {
            // Nobody waits for it (4.2, 4.3).
            self.send(peer, &Message::empty(Kind::Rst, message.id), out);
            return out.act(Action::Drop(peer, Drop::Unexpected));
        };
        if let Some(c) = self.peers.get_mut(&peer) {
            c.asking.remember(now.instant, message);
            // Only who receives at this address knows the token; while the peer may be elsewhere it went to both.
            c.is_verified |= c.candidate.is_none();
        }
        if is_con {
            self.send(peer, &Message::empty(Kind::Ack, message.id), out);
        }
        // The acknowledgement was lost or overtaken; the answer says as much (5.2.2).
        if is_first {
            self.acknowledged(now, peer, asked.message.id, out);
        }
        self.has_answered(now, peer, asked, message, out);
        self.schedule(peer);
    }

    /// Whose answer it is: the token that it bears was sent to that peer alone. One from elsewhere has moved here.
    fn whose(&mut self, now: Now, from: Peer, answer: &Message, out: &mut Outbox) -> Peer {
        let is_sealed = self.peers.get(&from).is_some_and(|c| c.is_sealed);
        let known = self.asked.get(&answer.token).filter(|known| **known != from && !is_sealed);
        let Some(&known) = known else { return from };
        self.rebind(now, known, from, out);
        known
    }

    fn keep_asked(&mut self, peer: Peer, mut asked: Asked) {
        asked.collected = asked.download.as_ref().map_or(0, |d| d.block().offset());
        self.collected += asked.collected;
        self.asked.insert(asked.message.token, peer);
        if let Some(c) = self.peers.get_mut(&peer) {
            c.asking.open.push(asked);
        }
    }

    fn take_asked(&mut self, peer: Peer, token: Token) -> Option<Asked> {
        let asked = self.peers.get_mut(&peer)?.asking.take(token)?;
        self.asked.remove(&token);
        self.collected -= asked.collected;
        Some(asked)
    }

    fn has_answered(&mut self, now: Now, peer: Peer, mut asked: Asked, answer: &Message, out: &mut Outbox) {
        let echo = answer.all(ECHO).next().filter(|_| answer.code == Code::UNAUTHORIZED);
        if let Some(echo) = echo
            && asked.message.all(ECHO).next().is_none()
        {
            // The device wants to see that the request is fresh (RFC 9175, 2.3).
            asked.message.add(ECHO, echo);
            return self.go_on(now, peer, asked, out);
        }
        let is_room = self.collected + asked.collected + answer.payload.len() <= self.config.max_reassembly;
        let outcome = match asked.take(answer, self.config.max_body_size, self.room(peer).preferred()) {
            _ if !is_room => Err(Failure::BadAnswer),
            Ok(None) => return self.go_on(now, peer, asked, out),
            Ok(Some(body)) => translate::decode(answer, body),
            Err(_) => Err(Failure::BadAnswer),
        };
        out.act(Action::Answered(peer, asked.ticket, outcome));
    }

    /// Sends the next message of a request.
    fn go_on(&mut self, now: Now, peer: Peer, mut asked: Asked, out: &mut Outbox) {
        let token = self.fresh_token(asked.ticket.0);
        let (Some(c), Some(token)) = (self.peers.get_mut(&peer), token) else {
            return out.act(Action::Answered(peer, asked.ticket, Err(Failure::Busy)));
        };
        (asked.message.id, asked.message.token) = (c.next_id(), token);
        let message = asked.next();
        self.keep_asked(peer, asked);
        self.enqueue(now, peer, Outgoing::new(message), out);
    }

    /// The request with this token has no answer.
    pub(crate) fn not_answered(&mut self, peer: Peer, token: Token, why: Failure, out: &mut Outbox) {
        if let Some(asked) = self.take_asked(peer, token) {
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
            self.asked.remove(&asked.message.token);
            self.collected -= asked.collected;
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

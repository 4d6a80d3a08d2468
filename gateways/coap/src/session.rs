//! Whose session a request runs in: that of the credential which a handshake has proven, the client that its query names,
//! the peer's own, or one opened by `POST /mqtt/connection` and held by its token.
//!
//! Sessions of credentials and named sessions outlive silence, other addresses and restarts of the gateway: their clients go
//! on where they were. The others end with their conversation.
//!
//! Every request stands on what it says itself: one with other credentials than the open session's opens another, and
//! one without the token of a named session is refused. Otherwise anybody who can write a source address could act as
//! whoever logged in last from there. A session goes on until the next one is open, so that nobody ends it by failing.

use std::time::Duration;

use bytes::Bytes;
use gateway::{Action, Answer, Connect, Now, Outbox, Peer, Refusal};

use crate::conversation::{Phase, Step};
use crate::frame::{Code, Kind, Message, Token};
use crate::kept::{FACTS, hex, proof};
use crate::request::{Identity, Operation};
use crate::stream::CREDIT;
use crate::{Coap, Response, code};

/// Requests of one peer that may wait for its session.
const MAX_WAITING: usize = 8;

impl Coap {
    /// Finds the session that the operation runs in, or opens it.
    pub(crate) fn authorise(
        &mut self,
        now: Now,
        peer: Peer,
        request: Message,
        operation: Operation,
        who: Identity,
        out: &mut Outbox,
    ) -> Result<(), Response> {
        let Some(c) = self.peers.get_mut(&peer) else { return Ok(()) };
        let busy = || Err(Response::error(Code::UNAVAILABLE, "a session is being opened"));
        let unauthorised = |text| Err(Response::error(Code::UNAUTHORIZED, text));
        if let Some(credential) = &c.credential {
            if who.client_id.as_deref().is_some_and(|id| *id != **credential) {
                return unauthorised("the credential is another client's");
            }
            match c.phase {
                Phase::Open => self.perform(now, peer, request, operation, out),
                Phase::Opening if c.waiting.len() >= MAX_WAITING => return busy(),
                phase => {
                    c.waiting.push_back((request.id, operation, request));
                    if phase == Phase::Without {
                        self.open_by_credential(peer, out);
                    }
                }
            }
            return Ok(());
        }
        if let Operation::Connect { keep_alive } = operation {
            if c.phase == Phase::Opening {
                return busy();
            }
            self.open(peer, request.id, who, keep_alive, Step::Connect, out);
            return Ok(());
        }
        if let Some(token) = &who.token {
            let is_theirs =
                c.who.client_id == who.client_id && c.token.as_ref().is_some_and(|t| is_same(t, token));
            let is_anothers = who.client_id.as_deref().is_some_and(|id| self.named.contains_key(id));
            if !is_theirs && is_anothers && !c.is_sealed {
                return unauthorised("client id and token do not belong together");
            }
            if !is_theirs || c.phase == Phase::Without {
                return self.resume(peer, request, operation, who, out);
            }
            // One that was given elsewhere, or before a restart, is shown by whoever has it, from any address he writes.
            c.is_verified |= c.candidate.is_none() && c.is_token_of_here;
            if c.phase == Phase::Opening {
                return busy();
            }
            self.perform(now, peer, request, operation, out);
            return Ok(());
        }
        // Neither shows nor changes what others may not see or do.
        let is_harmless = who == Identity::default() && operation.is_harmless();
        if c.phase == Phase::Open && is_harmless {
            let is_somebodys = c.token.is_some() || c.who != who;
            if is_somebodys && matches!(operation, Operation::Cancel { .. }) {
                self.cancel(peer, request.token, out);
                // Its answer would be the value (RFC 7641, 3.6).
                return unauthorised("the observation is over; its value is another client's");
            }
            self.perform(now, peer, request, operation, out);
            return Ok(());
        }
        if c.token.is_some() {
            return unauthorised("a named session is open here: its token is missing");
        }
        match c.phase {
            Phase::Open if c.who == who => {
                self.perform(now, peer, request, operation, out);
                return Ok(());
            }
            Phase::Opening if c.next != who || c.waiting.len() >= MAX_WAITING => return busy(),
            _ => {}
        }
        let (id, keep_alive) = (request.id, self.config.keep_alive);
        let is_opening = c.phase == Phase::Opening;
        c.waiting.push_back((id, operation, request));
        if !is_opening {
            self.open(peer, id, who, keep_alive, Step::Open, out);
        }
        Ok(())
    }

    /// Goes on with a named session that was left at another address of this gateway, or before it was started again.
    fn resume(
        &mut self,
        peer: Peer,
        request: Message,
        operation: Operation,
        who: Identity,
        out: &mut Outbox,
    ) -> Result<(), Response> {
        let Some(c) = self.peers.get_mut(&peer) else { return Ok(()) };
        let is_same = c.next.client_id == who.client_id && c.next.token == who.token;
        if c.phase == Phase::Opening && (!is_same || c.waiting.len() >= MAX_WAITING) {
            return Err(Response::error(Code::UNAVAILABLE, "a session is being opened"));
        }
        let (id, keep_alive) = (request.id, self.config.keep_alive);
        let is_opening = c.phase == Phase::Opening;
        c.waiting.push_back((id, operation, request));
        if !is_opening {
            self.open(peer, id, who, keep_alive, Step::Open, out);
        }
        Ok(())
    }

    /// Opens the session that the peer's credential stands for, if it has one.
    pub(crate) fn open_by_credential(&mut self, peer: Peer, out: &mut Outbox) {
        let Some(credential) = self.peers.get(&peer).and_then(|c| c.credential.clone()) else { return };
        let who = Identity { client_id: Some((*credential).to_owned()), ..Identity::default() };
        self.open(peer, 0, who, self.config.keep_alive, Step::Open, out);
    }

    fn open(
        &mut self,
        peer: Peer,
        id: u16,
        who: Identity,
        keep_alive: Duration,
        step: Step,
        out: &mut Outbox,
    ) {
        let is_named = matches!(step, Step::Connect) || who.token.is_some();
        let Some(c) = self.peers.get_mut(&peer) else { return };
        c.goes_on = c.phase == Phase::Open;
        c.phase = Phase::Opening;
        let is_kept = is_named || c.credential.is_some();
        let client_id = match &who.client_id {
            Some(id) => id.clone(),
            None => format!("coap-{}-{}", c.address.ip(), c.address.port()),
        };
        let connect = Connect {
            username: who.username.as_deref().map(Into::into),
            password: who.password.as_ref().map(|p| Bytes::copy_from_slice(p.as_bytes())),
            // Who names a session anew has forgotten what it observed.
            clean_start: !(c.credential.is_some() || who.token.is_some()),
            expiry: if is_kept { self.config.session_expiry } else { Duration::ZERO },
            // A session that is not named has none: it ends when it is not used.
            keep_alive: if is_named { u16::try_from(keep_alive.as_secs()).unwrap_or(u16::MAX) } else { 0 },
            is_transient: !is_kept,
            token: who.token.as_deref().map(proof),
            load: FACTS,
            // NSTART (RFC 7252, 4.7).
            ..Connect::new(client_id, "CoAP", if self.stream.is_some() { CREDIT } else { 1 })
        };
        c.next = who;
        c.next_keep_alive = keep_alive;
        let ticket = self.ticket(peer, id, step);
        out.act(Action::Connect(peer, ticket, Box::new(connect)));
    }

    /// The answer to `open`.
    pub(crate) fn opened_session(
        &mut self,
        now: Now,
        peer: Peer,
        id: u16,
        is_named: bool,
        answer: Answer,
        out: &mut Outbox,
    ) {
        let refused = match &answer {
            Answer::Connected(_) => None,
            // Other credentials may be let in (RFC 7252, 5.9.2.2); those of a topic are another matter.
            Answer::Refused(Refusal::NotAuthorised) => {
                Some(Response::error(Code::UNAUTHORIZED, "not let in"))
            }
            Answer::Refused(why) => Some(Response::error(code(*why), "not let in")),
            _ => Some(Response::new(Code::INTERNAL)),
        };
        if let Some(response) = refused {
            return self.not_let_in(now, peer, id, is_named, &response, out);
        }
        // The driver has ended the connection of the session before; one that is kept waits with all it has.
        if self.peers.get(&peer).is_some_and(|c| c.is_kept) {
            self.drop_observations(peer);
        } else {
            self.end_observations(peer, Code::UNAUTHORIZED, out);
        }
        self.forget_name(peer);
        let fresh = if is_named { self.random::<16>().map(|t| hex(&t)) } else { None };
        let Some(c) = self.peers.get_mut(&peer) else { return };
        c.phase = Phase::Open;
        c.who = std::mem::take(&mut c.next);
        c.keep_alive = c.next_keep_alive;
        c.is_token_of_here = fresh.is_some();
        c.token = fresh.clone().or_else(|| c.who.token.take());
        c.is_kept = !self.config.session_expiry.is_zero() && (c.token.is_some() || c.credential.is_some());
        let waiting = std::mem::take(&mut c.waiting);
        if let (Some(_), Some(client_id)) = (&c.token, &c.who.client_id) {
            self.named.insert(client_id.as_str().into(), peer);
        }
        if let Answer::Connected(connected) = answer {
            self.take_up(now, peer, &connected.facts);
        }
        match fresh {
            Some(token) => self.keep_token(peer, id, &token, out),
            None if is_named => self.answer(now, peer, id, Response::new(Code::UNAVAILABLE), out),
            None => {}
        }
        for (_, operation, request) in waiting {
            self.perform(now, peer, request, operation, out);
        }
    }

    /// Answers who waited; a session that was there before goes on.
    fn not_let_in(
        &mut self,
        now: Now,
        peer: Peer,
        id: u16,
        is_named: bool,
        response: &Response,
        out: &mut Outbox,
    ) {
        let Some(c) = self.peers.get_mut(&peer) else { return };
        c.phase = if c.goes_on { Phase::Open } else { Phase::Without };
        c.next = Identity::default();
        let waiting = std::mem::take(&mut c.waiting);
        for (id, operation, _) in waiting {
            // What is served is no secret; topics are.
            let response = match operation {
                Operation::Discover { query } => self.links([].into_iter(), query.as_ref()),
                _ => response.clone(),
            };
            self.answer(now, peer, id, response, out);
        }
        if is_named {
            self.answer(now, peer, id, response.clone(), out);
        }
    }

    /// The client's name is not this conversation's any more.
    pub(crate) fn forget_name(&mut self, peer: Peer) {
        let name = self.peers.get(&peer).and_then(|c| c.who.client_id.as_deref());
        if let Some(name) = name.filter(|name| self.named.get(*name) == Some(&peer)) {
            self.named.remove(name);
        }
    }

    /// Forgets observations and what waits to be sent for them, without a word.
    fn drop_observations(&mut self, peer: Peer) -> Vec<Token> {
        // Nor does who comes next see or go on with bodies of the session.
        self.bodies.forget(peer);
        self.served.forget(peer);
        let Some(c) = self.peers.get_mut(&peer) else { return Vec::new() };
        let tokens: Vec<_> = c.observations.drain(..).map(|o| o.token).collect();
        c.recent.clear();
        c.fetching = None;
        let mut index = 0;
        c.outgoing.retain_mut(|o| {
            index += 1;
            let is_kept = index == 1 || o.observation.is_none();
            (o.delivery, o.observation) = (None, None);
            is_kept
        });
        tokens
    }

    /// Ends all observations with an error, which tells their clients (RFC 7641, 4.2), and forgets deliveries of the
    /// session that is gone.
    pub(crate) fn end_observations(&mut self, peer: Peer, code: Code, out: &mut Outbox) {
        for token in self.drop_observations(peer) {
            let Some(id) = self.peers.get_mut(&peer).map(|c| c.next_id()) else { return };
            let message = Message { code, token, ..Message::empty(Kind::Non, id) };
            self.send(peer, &message, out);
        }
    }
}

/// Compares without telling by the time it takes how much was right.
pub(crate) fn is_same(a: &str, b: &str) -> bool {
    a.len() == b.len() && a.bytes().zip(b.bytes()).fold(0, |d, (x, y)| d | (x ^ y)) == 0
}

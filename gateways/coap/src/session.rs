//! Whose session a request runs in: the client that its query names, the peer's own, or one opened by
//! `POST /mqtt/connection` and held by its token.
//!
//! Every request stands on what it says itself: one with other credentials than the open session's opens another, and
//! one without the token of a named session is refused. Otherwise anybody who can write a source address could act as
//! whoever logged in last from there. A session goes on until the next one is open, so that nobody ends it by failing.

use std::time::Duration;

use bytes::Bytes;
use gateway::{Action, Answer, Connect, Now, Outbox, Peer};

use crate::conversation::{Phase, Step};
use crate::frame::{Code, Kind, Message};
use crate::request::{Identity, Operation};
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
            if !is_theirs {
                return unauthorised("client id and token do not belong to a session here");
            }
            c.is_verified = true;
            if c.phase == Phase::Opening {
                return busy();
            }
            self.perform(now, peer, request, operation, out);
            return Ok(());
        }
        // Neither shows nor changes what others may not see or do.
        let is_harmless = who == Identity::default() && operation.is_harmless();
        if c.phase == Phase::Open && is_harmless {
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

    fn open(
        &mut self,
        peer: Peer,
        id: u16,
        who: Identity,
        keep_alive: Duration,
        step: Step,
        out: &mut Outbox,
    ) {
        let is_named = matches!(step, Step::Connect);
        let Some(c) = self.peers.get_mut(&peer) else { return };
        c.goes_on = c.phase == Phase::Open;
        c.phase = Phase::Opening;
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
            // A session that is not named has none: it ends when it is not used.
            keep_alive: if is_named { u16::try_from(keep_alive.as_secs()).unwrap_or(u16::MAX) } else { 0 },
            is_transient: !is_named,
            token: None,
            load: "",
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
        let refused = match answer {
            Answer::Connected(_) => None,
            Answer::Refused(why) => Some(Response::error(code(why), "not let in")),
            _ => Some(Response::new(Code::INTERNAL)),
        };
        if let Some(response) = refused {
            return self.not_let_in(now, peer, id, is_named, &response, out);
        }
        // The driver has ended the session before.
        self.end_observations(peer, Code::UNAUTHORIZED, out);
        let token = if is_named { self.random::<16>() } else { None };
        let token = token.map(|t| t.iter().map(|b| format!("{b:02x}")).collect::<String>());
        let Some(c) = self.peers.get_mut(&peer) else { return };
        c.phase = Phase::Open;
        c.who = std::mem::take(&mut c.next);
        c.keep_alive = c.next_keep_alive;
        c.token.clone_from(&token);
        let waiting = std::mem::take(&mut c.waiting);
        if is_named {
            let response = match token {
                Some(token) => Response { payload: token.into_bytes(), ..Response::new(Code::CREATED) },
                None => Response::new(Code::UNAVAILABLE),
            };
            self.answer(now, peer, id, response, out);
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

    /// Ends all observations with an error, which tells their clients (RFC 7641, 4.2), and forgets deliveries of the
    /// session that is gone.
    pub(crate) fn end_observations(&mut self, peer: Peer, code: Code, out: &mut Outbox) {
        let Some(c) = self.peers.get_mut(&peer) else { return };
        let tokens: Vec<_> = c.observations.drain(..).map(|o| o.token).collect();
        c.recent.clear();
        let mut index = 0;
        c.outgoing.retain_mut(|o| {
            index += 1;
            let is_kept = index == 1 || o.observation.is_none();
            (o.delivery, o.observation) = (None, None);
            is_kept
        });
        for token in tokens {
            let Some(id) = self.peers.get_mut(&peer).map(|c| c.next_id()) else { return };
            let message = Message { code, token, ..Message::empty(Kind::Non, id) };
            self.send(peer, &message, out);
        }
    }
}

/// Compares without telling by the time it takes how much was right.
fn is_same(a: &str, b: &str) -> bool {
    a.len() == b.len() && a.bytes().zip(b.bytes()).fold(0, |d, (x, y)| d | (x ^ y)) == 0
}

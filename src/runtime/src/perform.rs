//! Carries out what machines ask for: the one place where every gateway's publish, subscribe and connect passes the ACL.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;

use auth::{Attempt, Exchange, Grant, Step, Verdict};
use bytes::Bytes;
use gateway::{
    Action, Answer, Close, Connect, Connected, Deliver, Delivery, Direction, Facts, Filter, Gateway, Message,
    Now, Outbox, Outcome, Peer, Publish, Qos, Refusal, Request, Subscribe, TOKEN, Ticket, Transport,
};
use router::{Attachment, Fast, Matches, Open, Post, Session};
use store::Store;
use tokio::sync::oneshot;

use crate::client::{BACKLOG, Client};
use crate::house::{House, Port};
use crate::mailbox::Mail;
use crate::metrics::Tally;
use crate::requests::{self, Commands};
use crate::sys;

/// A driver's side of the conversations whose machine is being served.
pub trait Peers {
    /// The peer's client; None if the peer has gone.
    fn client(&mut self, peer: Peer) -> Option<&mut Client>;
    /// What is known about the peer.
    fn facts(&self, peer: Peer) -> Option<Facts>;
    /// Where the peer came in.
    fn port(&self, peer: Peer) -> Option<&Arc<Port>>;
    /// End the conversation when what was sent is written.
    fn close(&mut self, peer: Peer, why: Close);
    /// The peer's session may have deliveries.
    fn ready(&mut self, peer: Peer);
    /// An answer was handed to the peer's machine.
    fn replied(&mut self, peer: Peer);
    /// The second peer is the first, at another address. Streams do not move.
    fn rebind(&mut self, _peer: Peer, _stranger: Peer) {}
    /// What was sent to this address of the peer has arrived.
    fn reached(&mut self, _peer: Peer, _address: SocketAddr) {}
}

/// What a driver carries from call to call.
pub struct Desk {
    /// Shared by all drivers.
    pub house: Arc<House>,
    /// This driver's number.
    pub id: u16,
    /// Topic look-ups remembered.
    pub matches: Matches,
    /// Signals of the router, to be delivered at the end of the turn.
    pub post: Post,
    /// Counts of this turn.
    pub tally: Tally,
    /// Requests to devices that wait for their answers.
    commands: Commands,
    spare: Vec<Action>,
    /// Answers that wait for the store, in the order in which they were made.
    held: VecDeque<Held>,
}

/// An answer that the client gets when what it says is on the disk.
pub struct Held {
    batch: u64,
    /// Whose answer it is.
    pub peer: Peer,
    ticket: Ticket,
    answer: Answer,
    /// It said that the client is in, and has become a refusal.
    is_out: bool,
}

/// Answers of one client that wait for the store before no more is read from it.
pub const MOST_HELD: u32 = 4096;

impl Desk {
    /// An empty desk for driver `id`.
    pub fn new(house: Arc<House>, id: u16) -> Desk {
        Desk {
            house,
            id,
            matches: Matches::default(),
            post: Post::default(),
            tally: Tally::default(),
            commands: Commands::default(),
            spare: Vec::new(),
            held: VecDeque::new(),
        }
    }

    /// Where this driver's `peer` is, for the router.
    pub fn at(&self, peer: Peer) -> Attachment {
        Attachment { driver: self.id, peer }
    }

    /// Whether packets of this client are to be described in the outbox: its id is traced, or not known yet.
    pub fn is_traced(&self, client: &Client) -> bool {
        self.house.traces.is_any()
            && client.session.as_ref().is_none_or(|s| self.house.traces.has(s.client_id()))
    }

    /// Lets the router do what is due: delayed messages and wills, expiry.
    pub fn router_timeout(&mut self, now: Now) {
        if self.house.router.next_timeout().is_some_and(|at| at <= now.instant) {
            self.house.router.timeout(now, &mut self.matches, &mut self.post);
        }
    }

    /// Carries out all actions of `out`, and those that their answers bring.
    pub fn perform<P: Peers>(
        &mut self,
        now: Now,
        peers: &mut P,
        machine: &mut dyn Gateway,
        out: &mut Outbox,
    ) {
        while !out.actions.is_empty() {
            let mut actions = std::mem::replace(&mut out.actions, std::mem::take(&mut self.spare));
            for action in actions.drain(..) {
                self.act(now, peers, machine, out, action);
            }
            self.spare = actions;
        }
    }

    /// Hands an answer to its machine, or keeps it until the store has written what it says. Answers to one peer keep
    /// their order.
    #[expect(clippy::too_many_arguments, reason = "the five that every step passes on, and the answer")]
    fn answer<P: Peers>(
        &mut self,
        now: Now,
        peers: &mut P,
        machine: &mut dyn Gateway,
        out: &mut Outbox,
        peer: Peer,
        ticket: Ticket,
        answer: Answer,
    ) {
        let batch = std::mem::take(&mut self.post.wait);
        // Publishers that outrun the disk are held back by their acknowledgements.
        let must_wait = |s: &Arc<Store>| (self.house.is_sync || s.is_behind()) && batch > s.durable();
        if let Some(store) = &self.house.store
            && let Some(client) = peers.client(peer)
            && (client.held > 0 || must_wait(store))
        {
            client.held += 1;
            client.is_opening |= matches!(answer, Answer::Connected(_));
            if self.held.is_empty() {
                self.house.boxes[usize::from(self.id)].wait_for_store(true);
            }
            self.held.push_back(Held { batch, peer, ticket, answer, is_out: false });
            return;
        }
        reply(now, peers, machine, out, peer, ticket, answer);
    }

    /// Whether an answer waits no longer.
    pub fn has_written(&self) -> bool {
        let Some(store) = &self.house.store else { return false };
        self.held.front().is_some_and(|h| h.batch <= store.durable().max(store.failed()))
    }

    /// Takes the next answer that waits no longer. One whose batch could not be written has become a refusal.
    pub fn next_written(&mut self) -> Option<Held> {
        if !self.has_written() {
            return None;
        }
        let mut held = self.held.pop_front()?;
        if self.held.is_empty() {
            self.house.boxes[usize::from(self.id)].wait_for_store(false);
        }
        if self.house.store.as_ref().is_some_and(|s| held.batch > s.durable()) {
            // It stays in the queues that have it, and is written when it can be: only nobody may rely on it yet.
            let why = Refusal::Uncertain;
            held.is_out = matches!(held.answer, Answer::Connected(_));
            self.house.metrics.dropped(gateway::Drop::StoreFull);
            held.answer = match held.answer {
                Answer::Subscribed(results) => Answer::Subscribed(vec![Err(why); results.len()]),
                Answer::Unsubscribed(results) => Answer::Unsubscribed(vec![Err(why); results.len()]),
                _ => Answer::Refused(why),
            };
        }
        Some(held)
    }

    /// Hands over an answer that waited.
    pub fn written<P: Peers>(
        &mut self,
        now: Now,
        peers: &mut P,
        machine: &mut dyn Gateway,
        out: &mut Outbox,
        held: Held,
    ) {
        let Held { peer, ticket, answer, is_out, .. } = held;
        let Some(client) = peers.client(peer) else { return };
        client.held = client.held.saturating_sub(1);
        if is_out && let Some(session) = client.session.take() {
            // It never was in: nothing is published for it (MQTT 5.0, 3.1.2.5).
            let at = self.at(peer);
            let (matches, post) = (&mut self.matches, &mut self.post);
            self.house.router.disconnect(now, &session, at, false, None, matches, post);
            self.left(now, peers, peer, &session, Close::QuotaExceeded);
        }
        let Some(client) = peers.client(peer) else { return };
        let is_opened = matches!(answer, Answer::Connected(_));
        client.is_opening &= !is_opened;
        reply(now, peers, machine, out, peer, ticket, answer);
        if is_opened {
            peers.ready(peer);
        }
        self.perform(now, peers, machine, out);
    }

    fn act<P: Peers>(
        &mut self,
        now: Now,
        peers: &mut P,
        machine: &mut dyn Gateway,
        out: &mut Outbox,
        action: Action,
    ) {
        self.post.wait = 0;
        match action {
            Action::Publish(peer, publish) => self.publish(now, peers, machine, out, peer, publish),
            Action::Settle(peer, id, how) => {
                if let Some(session) = session(peers, peer) {
                    self.house.router.settle(now, session, id, how, &mut self.post);
                }
            }
            Action::Receive(peer, ticket, id) => {
                let known =
                    session(peers, peer).is_some_and(|s| self.house.router.receive(s, id, &mut self.post));
                self.answer(now, peers, machine, out, peer, ticket, Answer::Known(known));
            }
            Action::Release(peer, ticket, id) => {
                let known =
                    session(peers, peer).is_some_and(|s| self.house.router.release(s, id, &mut self.post));
                self.answer(now, peers, machine, out, peer, ticket, Answer::Known(known));
            }
            Action::Subscribe(peer, ticket, list) => {
                let results = list.into_iter().map(|s| self.subscribe(now, peers, peer, s)).collect();
                self.answer(now, peers, machine, out, peer, ticket, Answer::Subscribed(results));
            }
            Action::Unsubscribe(peer, ticket, list) => {
                let session = session(peers, peer);
                let mut leave = |f: &Filter| match session {
                    Some(s) => self.house.router.unsubscribe(s, f, &mut self.post),
                    None => Err(Refusal::NoSession),
                };
                let results = list.iter().map(&mut leave).collect();
                self.answer(now, peers, machine, out, peer, ticket, Answer::Unsubscribed(results));
            }
            Action::Connect(peer, ticket, connect) => {
                self.connect(now, peers, machine, out, peer, ticket, connect)
            }
            Action::Exchange(peer, ticket, data) => {
                let answer = match peers.client(peer).and_then(|c| c.extra.as_mut()?.exchange.take()) {
                    Some((exchange, connect)) => self.step(now, peers, peer, exchange, connect, &data),
                    None => Answer::Refused(Refusal::BadMethod),
                };
                self.answer(now, peers, machine, out, peer, ticket, answer);
            }
            Action::Reauthenticate(peer, ticket, method, data) => {
                let answer = self.reauthenticate(now, peers, peer, &method, &data);
                self.answer(now, peers, machine, out, peer, ticket, answer);
            }
            Action::SetExpiry(peer, expiry) => {
                if let Some(session) = session(peers, peer) {
                    self.house.router.set_expiry(now, session, expiry);
                }
            }
            Action::Retained(peer, ticket, filter, limit) => {
                let answer = self.retained(now, peers, peer, &filter, limit);
                self.answer(now, peers, machine, out, peer, ticket, answer);
            }
            Action::Save(peer, ticket, name, value) => {
                let saved = match session(peers, peer) {
                    Some(s) => self.house.router.save(s, &name, value, &mut self.post),
                    None => Err(Refusal::NoSession),
                };
                let answer = saved.map_or_else(Answer::Refused, |()| Answer::Saved);
                self.answer(now, peers, machine, out, peer, ticket, answer);
            }
            Action::Load(peer, ticket, prefix) => {
                let loaded = match session(peers, peer) {
                    Some(s) => self.house.router.load(s, &prefix),
                    None => Err(Refusal::NoSession),
                };
                let answer = loaded.map_or_else(Answer::Refused, Answer::Loaded);
                self.answer(now, peers, machine, out, peer, ticket, answer);
            }
            Action::Disconnect(peer, how) => {
                if let Some(client) = peers.client(peer)
                    && let Some(session) = client.session.take()
                {
                    let (at, router) = (self.at(peer), &self.house.router);
                    let (matches, post) = (&mut self.matches, &mut self.post);
                    router.disconnect(now, &session, at, how.with_will, how.expiry, matches, post);
                    self.left(now, peers, peer, &session, Close::Goodbye);
                }
            }
            Action::Rebind(peer, stranger) => peers.rebind(peer, stranger),
            Action::Reached(peer, address) => peers.reached(peer, address),
            Action::Answered(_, ticket, outcome) => self.commands.end(ticket, outcome),
            Action::Close(peer, why) => peers.close(peer, why),
            Action::Drop(_, why) => self.house.metrics.dropped(why),
            Action::Trace(peer, direction, line) => self.trace(now, peers, peer, direction, line),
        }
    }

    fn publish<P: Peers>(
        &mut self,
        now: Now,
        peers: &mut P,
        machine: &mut dyn Gateway,
        out: &mut Outbox,
        peer: Peer,
        publish: Publish,
    ) {
        let Some(client) = peers.client(peer) else { return };
        let Publish { message, ticket, once } = publish;
        client.spend(now.instant, 1, 0);
        self.tally.received(message.qos());
        let result = match (&client.session, &client.grant) {
            (Some(session), Some(grant))
                if may_publish(grant, &message) && self.may_answer(grant, session, &message) =>
            {
                self.house.router.publish(
                    now,
                    Some(session),
                    message,
                    once,
                    &mut self.matches,
                    &mut self.post,
                )
            }
            (Some(_), Some(_)) => {
                self.house.metrics.dropped(gateway::Drop::Acl);
                Err(Refusal::NotAuthorised)
            }
            _ => Err(Refusal::NoSession),
        };
        if let Some(ticket) = ticket {
            let answer = result.map_or_else(Answer::Refused, Answer::Published);
            self.answer(now, peers, machine, out, peer, ticket, answer);
        }
    }

    /// Whether the answer to what may be a request to a device may go where the request says.
    fn may_answer(&self, grant: &Grant, session: &Session, message: &Message) -> bool {
        let name = || self.house.router.name(session, message.topic());
        requests::may_answer(&self.house, grant, session.mount(), name, message)
    }

    fn subscribe<P: Peers>(
        &mut self,
        now: Now,
        peers: &mut P,
        peer: Peer,
        s: Subscribe,
    ) -> Result<Qos, Refusal> {
        let client = peers.client(peer).ok_or(Refusal::NoSession)?;
        let (Some(session), Some(grant)) = (&client.session, &client.grant) else {
            return Err(Refusal::NoSession);
        };
        if !grant.may_subscribe(s.filter.plain()) {
            return Err(Refusal::NotAuthorised);
        }
        self.house.router.subscribe(now, session, s, &mut self.matches, &mut self.post)
    }

    fn retained<P: Peers>(
        &mut self,
        now: Now,
        peers: &mut P,
        peer: Peer,
        filter: &Filter,
        limit: usize,
    ) -> Answer {
        let Some(client) = peers.client(peer) else { return Answer::Refused(Refusal::NoSession) };
        let (Some(session), Some(grant)) = (&client.session, &client.grant) else {
            return Answer::Refused(Refusal::NoSession);
        };
        // A plain read needs the permission to subscribe; a wildcard one shows what of it may be read.
        if !filter.has_wildcard() && !grant.may_subscribe(filter.plain()) {
            return Answer::Refused(Refusal::NotAuthorised);
        }
        let Ok(mounted) = filter.mounted(session.mount()) else {
            return Answer::Refused(Refusal::TopicFilter);
        };
        let found = self.house.router.retained(now, &mounted, limit);
        let seen = found.into_iter().filter_map(|m| {
            let topic = m.topic().strip_prefix(session.mount())?;
            grant.may_subscribe(topic).then(|| (topic.into(), m.clone()))
        });
        Answer::Retained(seen.collect())
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "the five that every step passes on, and what CONNECT brought"
    )]
    fn connect<P: Peers>(
        &mut self,
        now: Now,
        peers: &mut P,
        machine: &mut dyn Gateway,
        out: &mut Outbox,
        peer: Peer,
        ticket: Ticket,
        mut connect: Box<Connect>,
    ) {
        if let Some(answer) = self.begin_connect(now, peers, peer, ticket, &mut connect) {
            self.answer(now, peers, machine, out, peer, ticket, answer);
        }
    }

    /// None if the answer comes later, as mail.
    fn begin_connect<P: Peers>(
        &mut self,
        now: Now,
        peers: &mut P,
        peer: Peer,
        ticket: Ticket,
        connect: &mut Box<Connect>,
    ) -> Option<Answer> {
        let (facts, port) = (peers.facts(peer)?, peers.port(peer)?.clone());
        let client = peers.client(peer)?;
        if client.extra.as_ref().is_some_and(|e| e.pending.is_some()) {
            return Some(Answer::Refused(Refusal::ServerBusy));
        }
        if connect.client_id.is_empty() {
            let own = self.house.auth.client_id(&facts, port.rules()).map(|id| Box::from(&*id));
            let Some(id) = own.or_else(assigned_client_id) else {
                return Some(self.refuse(peers, peer, Refusal::ServerBusy));
            };
            connect.client_id = id;
        }
        client.protocol = connect.protocol;
        let attempt = Attempt {
            client_id: &connect.client_id,
            username: connect.username.as_deref(),
            password: connect.password.as_deref(),
            facts: &facts,
            rules: port.rules(),
        };
        if let Some(token) = &connect.token {
            let known = self.house.router.known(&port.facts.namespace, &connect.client_id, TOKEN);
            return Some(match self.house.auth.resume(now, &attempt, token, known) {
                Ok(grant) => self.admit(now, peers, peer, connect, grant),
                Err(why) => self.refuse(peers, peer, why),
            });
        }
        if let Some((method, data)) = &connect.method {
            return Some(match self.house.auth.exchange(now, method, &attempt) {
                Ok(exchange) => {
                    let data = data.clone();
                    let connect = std::mem::replace(connect, empty_connect());
                    self.step(now, peers, peer, exchange, Some(connect), &data)
                }
                Err(why) => self.refuse(peers, peer, why),
            });
        }
        match self.house.auth.check(now, &attempt) {
            Verdict::Allow(grant) => Some(self.admit(now, peers, peer, connect, grant)),
            Verdict::Deny(why) => Some(self.refuse(peers, peer, why)),
            Verdict::Work(_) if !self.house.begin_login() => {
                Some(self.refuse(peers, peer, Refusal::ServerBusy))
            }
            Verdict::Work(job) => {
                let connect = std::mem::replace(connect, empty_connect());
                client.extra().pending = Some((ticket, connect));
                let (house, id) = (self.house.clone(), usize::from(self.id));
                tokio::task::spawn_blocking(move || {
                    let result = job();
                    house.end_login();
                    house.boxes[id].push(Mail::Verdict(peer, ticket, result));
                });
                None
            }
        }
    }

    /// A password check has ended; hands its outcome to the machine.
    #[expect(clippy::too_many_arguments, reason = "the five that every step passes on, and the verdict")]
    pub fn verdict<P: Peers>(
        &mut self,
        now: Now,
        peers: &mut P,
        machine: &mut dyn Gateway,
        out: &mut Outbox,
        peer: Peer,
        ticket: Ticket,
        result: Result<Grant, Refusal>,
    ) {
        self.post.wait = 0;
        let Some(client) = peers.client(peer) else { return };
        let Some((_, mut connect)) =
            client.extra.as_mut().and_then(|e| e.pending.take_if(|(t, _)| *t == ticket))
        else {
            return;
        };
        self.drop_empty_extra(client);
        let answer = match result {
            Ok(grant) => self.admit(now, peers, peer, &mut connect, grant),
            Err(why) => self.refuse(peers, peer, why),
        };
        self.answer(now, peers, machine, out, peer, ticket, answer);
        self.perform(now, peers, machine, out);
    }

    /// One step of an enhanced authentication.
    fn step<P: Peers>(
        &mut self,
        now: Now,
        peers: &mut P,
        peer: Peer,
        mut exchange: Exchange,
        connect: Option<Box<Connect>>,
        data: &[u8],
    ) -> Answer {
        match exchange.step(data) {
            Step::Challenge(data) => {
                if let Some(client) = peers.client(peer) {
                    client.extra().exchange = Some((exchange, connect));
                }
                Answer::Challenge(data)
            }
            Step::Deny(why) => self.refuse(peers, peer, why),
            Step::Done(grant, data) => {
                let Some(client) = peers.client(peer) else { return Answer::Refused(Refusal::Internal) };
                let Some(mut connect) = connect else {
                    client.grant = Some(grant);
                    return Answer::Authenticated(data);
                };
                match self.admit(now, peers, peer, &mut connect, grant) {
                    Answer::Connected(mut connected) => {
                        connected.data = Some(data);
                        Answer::Connected(connected)
                    }
                    other => other,
                }
            }
        }
    }

    fn reauthenticate<P: Peers>(
        &mut self,
        now: Now,
        peers: &mut P,
        peer: Peer,
        method: &str,
        data: &Bytes,
    ) -> Answer {
        let (Some(facts), Some(port)) = (peers.facts(peer), peers.port(peer).cloned()) else {
            return Answer::Refused(Refusal::Internal);
        };
        let Some(client) = peers.client(peer) else { return Answer::Refused(Refusal::Internal) };
        let Some(session) = client.session.clone() else { return Answer::Refused(Refusal::NoSession) };
        let username = client.grant.as_ref().and_then(Grant::username).map(str::to_owned);
        let attempt = Attempt {
            client_id: session.client_id(),
            username: username.as_deref(),
            password: None,
            facts: &facts,
            rules: port.rules(),
        };
        match self.house.auth.exchange(now, method, &attempt) {
            Ok(exchange) => self.step(now, peers, peer, exchange, None, data),
            Err(why) => self.refuse(peers, peer, why),
        }
    }

    fn refuse<P: Peers>(&mut self, peers: &mut P, peer: Peer, why: Refusal) -> Answer {
        self.house.metrics.login_refused(why);
        if let Some(facts) = peers.facts(peer) {
            tracing::debug!(address = %facts.address, listener = %facts.listener.name, ?why, "login refused");
        }
        Answer::Refused(why)
    }

    /// Opens the session of a client that has authenticated.
    fn admit<P: Peers>(
        &mut self,
        now: Now,
        peers: &mut P,
        peer: Peer,
        connect: &mut Connect,
        grant: Grant,
    ) -> Answer {
        let Some(port) = peers.port(peer).cloned() else { return Answer::Refused(Refusal::Internal) };
        let Some(mount) = mount(&port.facts.mountpoint, &connect.client_id, grant.username()) else {
            return Answer::Refused(Refusal::ClientId);
        };
        let may_leave = |will: &Message| {
            let name = || format!("{mount}{}", target(will.topic()));
            may_publish(&grant, will) && requests::may_answer(&self.house, &grant, &mount, name, will)
        };
        if connect.will.as_ref().is_some_and(|w| !may_leave(&w.message)) {
            return self.refuse(peers, peer, Refusal::NotAuthorised);
        }
        // Who only borrows the name must not end a session that is held by a token.
        if connect.is_transient
            && self.house.router.known(&port.facts.namespace, &connect.client_id, TOKEN).is_some()
        {
            return self.refuse(peers, peer, Refusal::NotOwner);
        }
        let at = self.at(peer);
        let Some(client) = peers.client(peer) else { return Answer::Refused(Refusal::Internal) };
        // The session before ends when the next one is open, so that nobody ends it by failing; one of the same client has to
        // end first, as this conversation must not be told that it was taken over.
        let is_same = |s: &Arc<Session>| s.client_id() == &*connect.client_id;
        let is_anothers = client.grant.as_ref().is_some_and(|g| g.principal() != grant.principal());
        let same = client.session.as_ref().is_some_and(is_same);
        if same && is_anothers && !client.is_transient {
            return self.refuse(peers, peer, Refusal::NotOwner);
        }
        if same {
            self.leave(now, peers, peer);
        }
        let client_id = connect.client_id.clone();
        let (protocol, is_transient, keep_alive) =
            (connect.protocol, connect.is_transient, connect.keep_alive);
        let (principal, username) = (grant.principal(), grant.username());
        let open = Open { connect, namespace: &port.facts.namespace, principal, username, mount };
        let opened = match self.house.router.connect(now, at, open, &mut self.matches, &mut self.post) {
            Ok(opened) => opened,
            Err(why) => return self.refuse(peers, peer, why),
        };
        self.leave(now, peers, peer);
        let Some(client) = peers.client(peer) else { return Answer::Refused(Refusal::Internal) };
        client.session = Some(opened.session.clone());
        client.connected_ms = now.wall_ms;
        client.is_transient = is_transient;
        let username = grant.username().map(str::to_owned);
        client.grant = Some(grant);
        peers.ready(peer);
        self.house.metrics.connected();
        if !is_transient && let Some(facts) = peers.facts(peer) {
            let who = sys::Who {
                client_id: &client_id,
                username: username.as_deref(),
                protocol,
                address: facts.address,
            };
            self.announce(now, sys::connected(now, &self.house.node, &who, keep_alive));
        }
        let facts = match (opened.present, connect.load) {
            (false, _) | (_, "") => Vec::new(),
            (true, prefix) => match self.house.router.load(&opened.session, prefix) {
                Ok(facts) => facts,
                Err(why) => return Answer::Refused(why),
            },
        };
        let session_present = opened.present;
        Answer::Connected(Box::new(Connected { client_id, session_present, data: None, facts }))
    }

    /// The peer's session has no connection any more, if it has one.
    fn leave<P: Peers>(&mut self, now: Now, peers: &mut P, peer: Peer) {
        let Some(old) = peers.client(peer).and_then(|c| c.session.take()) else { return };
        let at = self.at(peer);
        self.house.router.disconnect(now, &old, at, false, None, &mut self.matches, &mut self.post);
        self.left(now, peers, peer, &old, Close::Goodbye);
    }

    /// Hands a request for its device to the peer's machine; `answer` gets what comes of it.
    #[expect(clippy::too_many_arguments, reason = "the five that every step passes on, and the request")]
    pub fn command<P: Peers>(
        &mut self,
        now: Now,
        peers: &mut P,
        machine: &mut dyn Gateway,
        out: &mut Outbox,
        peer: Peer,
        request: &Request,
        answer: oneshot::Sender<Outcome>,
    ) {
        // Without the peer nobody keeps `answer`: who waits is told by its end.
        if let Some(client) = peers.client(peer) {
            out.is_traced = self.is_traced(client);
            let ticket = self.commands.begin(peer, answer);
            machine.command(now, peer, ticket, request, out);
            self.perform(now, peers, machine, out);
        }
    }

    /// The conversation is over: ends its session's connection, with its will if it is still attached here.
    pub fn lost<P: Peers>(&mut self, now: Now, peers: &mut P, peer: Peer, why: Close) {
        self.commands.lost(peer);
        let Some(client) = peers.client(peer) else { return };
        client.extra = None;
        let Some(session) = client.session.take() else { return };
        let at = self.at(peer);
        self.house.router.disconnect(now, &session, at, true, None, &mut self.matches, &mut self.post);
        self.left(now, peers, peer, &session, why);
    }

    fn left<P: Peers>(&mut self, now: Now, peers: &mut P, peer: Peer, session: &Session, why: Close) {
        self.house.metrics.disconnected();
        let Some(facts) = peers.facts(peer) else { return };
        let Some(client) = peers.client(peer) else { return };
        if client.is_transient {
            return;
        }
        let username = client.grant.as_ref().and_then(Grant::username).map(str::to_owned);
        let protocol = client.protocol;
        let who = sys::Who {
            client_id: session.client_id(),
            username: username.as_deref(),
            protocol,
            address: facts.address,
        };
        self.announce(now, sys::disconnected(now, &self.house.node, &who, why));
    }

    fn announce(&mut self, now: Now, message: Message) {
        // A presence message that finds the house full is only counted: it has no publisher to tell.
        let _ = self.house.router.publish(now, None, message, None, &mut self.matches, &mut self.post);
    }

    fn trace<P: Peers>(&mut self, now: Now, peers: &mut P, peer: Peer, direction: Direction, line: String) {
        let Some(address) = peers.facts(peer).map(|f| f.address) else { return };
        let traces = &self.house.traces;
        let Some(client) = peers.client(peer) else { return };
        let Some(session) = client.session.clone() else {
            let backlog = &mut client.extra().backlog;
            if backlog.len() < BACKLOG {
                backlog.push((direction, line));
            }
            return;
        };
        let backlog = client.extra.as_mut().map(|e| std::mem::take(&mut e.backlog)).unwrap_or_default();
        for (direction, line) in backlog.into_iter().chain([(direction, line)]) {
            traces.line(now.wall_ms, session.client_id(), address, direction, &line);
        }
    }

    fn drop_empty_extra(&self, client: &mut Client) {
        let is_empty = |e: &crate::client::Extra| {
            e.pending.is_none() && e.exchange.is_none() && e.rate.is_none() && e.backlog.is_empty()
        };
        if client.extra.as_deref().is_some_and(is_empty) {
            client.extra = None;
        }
    }

    /// Hands a session's deliveries to its machine while there is room; true if more could follow at once.
    pub fn drain(
        &mut self,
        now: Now,
        peer: Peer,
        session: &Session,
        machine: &mut dyn Gateway,
        out: &mut Outbox,
        room: usize,
    ) -> bool {
        let (at, tally) = (self.at(peer), &mut self.tally);
        self.house.router.drain(now, session, at, &mut self.post, |deliver| {
            if let Deliver::Message(d) = deliver {
                tally.sent(d.qos);
            }
            machine.deliver(now, peer, deliver, out);
            out.wire.len() < room
        })
    }

    /// Hands one `$fastlane` message over.
    pub fn fast(&mut self, now: Now, peer: Peer, fast: &Fast, machine: &mut dyn Gateway, out: &mut Outbox) {
        self.tally.sent(Qos::AtMostOnce);
        let delivery = Delivery {
            id: None,
            message: &fast.message,
            topic: fast.topic(),
            qos: Qos::AtMostOnce,
            retain: fast.retain,
            duplicate: false,
            subscriptions: fast.subscriptions(),
        };
        machine.deliver(now, peer, &Deliver::Message(delivery), out);
    }

    /// What every driver knows of a conversation, for operators.
    pub fn describe(
        client: &Client,
        address: SocketAddr,
        port: &Port,
        transport: Transport,
        into: &mut Vec<(&'static str, String)>,
    ) {
        into.push(("address", address.to_string()));
        into.push(("transport", transport.label().to_owned()));
        into.push(("listener", port.facts.name.to_string()));
        into.push(("protocol", client.protocol.to_owned()));
        into.push((
            "username",
            client.grant.as_ref().and_then(Grant::username).unwrap_or_default().to_owned(),
        ));
        into.push(("connected_ms", client.connected_ms.to_string()));
    }
}

fn session<P: Peers>(peers: &mut P, peer: Peer) -> Option<&Arc<Session>> {
    peers.client(peer)?.session.as_ref()
}

fn reply<P: Peers>(
    now: Now,
    peers: &mut P,
    machine: &mut dyn Gateway,
    out: &mut Outbox,
    peer: Peer,
    ticket: Ticket,
    answer: Answer,
) {
    machine.reply(now, peer, ticket, answer, out);
    peers.replied(peer);
}

/// The ACL for a publish. `$SYS` is the gateway's own; a delayed message is judged by where it will go.
fn may_publish(grant: &Grant, message: &Message) -> bool {
    let target = target(message.topic());
    target != "$SYS"
        && !target.starts_with("$SYS/")
        && grant.may_publish(target, message.qos(), message.retain())
}

/// Where a message will go after its delay.
fn target(topic: &str) -> &str {
    topic.strip_prefix("$delayed/").and_then(|t| t.split_once('/')).map_or(topic, |(_, t)| t)
}

/// The listener's mountpoint with this client's names in it; None if a name would change its levels.
fn mount(mountpoint: &str, client_id: &str, username: Option<&str>) -> Option<Box<str>> {
    if !mountpoint.contains('%') {
        return Some(mountpoint.into());
    }
    let is_level = |name: &str| !name.is_empty() && !name.contains(['/', '+', '#']);
    let mut filled = mountpoint.to_owned();
    for (mark, name) in [("%c", client_id), ("%u", username.unwrap_or_default())] {
        if filled.contains(mark) {
            filled = is_level(name).then(|| filled.replace(mark, name))?;
        }
    }
    Some(filled.into())
}

/// An id nobody can guess, for a client that sent none (MQTT-3.1.3-6).
fn assigned_client_id() -> Option<Box<str>> {
    let mut bytes = [0; 12];
    getrandom::fill(&mut bytes).ok()?;
    Some(bytes.iter().fold(String::from("auto-"), |id, b| format!("{id}{b:02x}")).into())
}

fn empty_connect() -> Box<Connect> {
    Box::new(Connect {
        client_id: "".into(),
        username: None,
        password: None,
        method: None,
        clean_start: true,
        expiry: std::time::Duration::ZERO,
        credit: 0,
        will: None,
        protocol: "",
        keep_alive: 0,
        is_transient: true,
        token: None,
        load: "",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mountpoint_is_filled_in_and_never_gains_levels() {
        assert_eq!(mount("t/", "c", None).as_deref(), Some("t/"));
        assert_eq!(mount("t/%c/", "c1", None).as_deref(), Some("t/c1/"));
        assert_eq!(mount("%u/%c/", "c1", Some("u")).as_deref(), Some("u/c1/"));
        assert_eq!(mount("%c/", "a/b", None), None);
        assert_eq!(mount("%u/", "a", None), None);
    }
}

//! Carries out what machines ask for: the one place where every gateway's publish, subscribe and connect passes the ACL.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;

use auth::Grant;
use bytes::Bytes;
use gateway::{
    Action, Answer, CallFailure, Close, Deliver, Delivery, Direction, Facts, Filter, Gateway, Message, Now,
    Outbox, Outcome, Peer, Publish, Qos, Refusal, Request, Subscribe, Ticket, Transport, Will,
};
use router::{Attachment, Fast, Matches, Post, Session};
use store::Store;
use tokio::sync::oneshot;

use crate::client::{BACKLOG, Client, Pace};
use crate::complaint::Complaints;
use crate::house::{House, Port};
use crate::metrics::Tally;
use crate::requests::{self, Commands};
use crate::scripts::Asker;

mod admit;

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
    /// An answer was handed to the peer's machine, or it goes on without one.
    fn replied(&mut self, peer: Peer);
    /// The second peer is the first, at another address. Streams do not move.
    fn rebind(&mut self, _peer: Peer, _stranger: Peer) {}
    /// The peer is where it was.
    fn stay(&mut self, _peer: Peer) {}
    /// Send this to an address that is no peer's.
    fn announce(&mut self, _to: SocketAddr, _bytes: Vec<u8>) {}
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
    complaints: Complaints,
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

/// Retained messages looked at for each that may be found, where the access list does not let the client see all.
const LOOKED_AT: usize = 64;

/// Answers of one client that wait for the store before no more is read from it.
pub const MOST_HELD: u32 = 4096;

/// A call of a machine: when it is, whom it may be about, and where what it asks for goes.
pub struct Turn<'a, P> {
    /// Now.
    pub now: Now,
    /// The conversations that the machine has.
    pub peers: &'a mut P,
    /// The machine.
    pub machine: &'a mut dyn Gateway,
    /// What it asks for.
    pub out: &'a mut Outbox,
}

impl<P: Peers> Turn<'_, P> {
    fn session(&mut self, peer: Peer) -> Option<&Arc<Session>> {
        self.peers.client(peer)?.session.as_ref()
    }

    fn reply(&mut self, peer: Peer, ticket: Ticket, answer: Answer) {
        self.machine.reply(self.now, peer, ticket, answer, self.out);
        self.peers.replied(peer);
    }
}

impl Desk {
    /// An empty desk for driver `id`.
    pub fn new(house: Arc<House>, id: u16) -> Desk {
        Desk {
            house,
            id,
            matches: Matches::default(),
            post: Post::default(),
            tally: Tally::default(),
            complaints: Complaints::default(),
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

    /// Whether there may be a line in the log about this address now: one a minute.
    pub fn may_complain(&mut self, now: Now, address: SocketAddr) -> bool {
        self.complaints.may(now.instant, address.ip())
    }

    /// Lets the router do what is due: delayed messages and wills, expiry.
    pub fn router_timeout(&mut self, now: Now) {
        if self.house.router.next_timeout().is_some_and(|at| at <= now.instant) {
            self.house.router.timeout(now, &mut self.matches, &mut self.post);
        }
    }

    /// Carries out all actions of `out`, and those that their answers bring.
    pub fn perform<P: Peers>(&mut self, turn: &mut Turn<'_, P>) {
        while !turn.out.actions.is_empty() {
            let mut actions = std::mem::replace(&mut turn.out.actions, std::mem::take(&mut self.spare));
            for action in actions.drain(..) {
                self.act(turn, action);
            }
            self.spare = actions;
        }
    }

    /// Hands an answer to its machine, or keeps it until the store has written what it says. Answers to one peer keep
    /// their order.
    fn answer<P: Peers>(&mut self, turn: &mut Turn<'_, P>, peer: Peer, ticket: Ticket, answer: Answer) {
        let batch = std::mem::take(&mut self.post.wait);
        // Publishers that outrun the disk are held back by their acknowledgements.
        let must_wait = |s: &Arc<Store>| (self.house.is_sync || s.is_behind()) && batch > s.durable();
        if let Some(store) = &self.house.store
            && let Some(client) = turn.peers.client(peer)
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
        turn.reply(peer, ticket, answer);
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
    pub fn written<P: Peers>(&mut self, turn: &mut Turn<'_, P>, held: Held) {
        let Held { peer, ticket, answer, is_out, .. } = held;
        let Some(client) = turn.peers.client(peer) else { return };
        client.held = client.held.saturating_sub(1);
        if is_out && let Some(session) = client.session.take() {
            // It never was in: nothing is published for it (MQTT 5.0, 3.1.2.5).
            let at = self.at(peer);
            let (matches, post) = (&mut self.matches, &mut self.post);
            self.house.router.disconnect(turn.now, &session, at, false, None, matches, post);
            self.left(turn.now, turn.peers, peer, &session, Close::QuotaExceeded);
        }
        let Some(client) = turn.peers.client(peer) else { return };
        let is_opened = matches!(answer, Answer::Connected(_));
        client.is_opening &= !is_opened;
        turn.reply(peer, ticket, answer);
        if is_opened {
            turn.peers.ready(peer);
        }
        self.perform(turn);
    }

    fn act<P: Peers>(&mut self, turn: &mut Turn<'_, P>, action: Action) {
        let now = turn.now;
        self.post.wait = 0;
        match action {
            Action::Publish(peer, publish) => self.publish(turn, peer, publish),
            Action::Settle(peer, id, how) => {
                if let Some(session) = turn.session(peer) {
                    self.house.router.settle(now, session, id, how, &mut self.post);
                }
            }
            Action::Receive(peer, ticket, id) => {
                let known =
                    turn.session(peer).is_some_and(|s| self.house.router.receive(s, id, &mut self.post));
                self.answer(turn, peer, ticket, Answer::Known(known));
            }
            Action::Release(peer, ticket, id) => {
                let known =
                    turn.session(peer).is_some_and(|s| self.house.router.release(s, id, &mut self.post));
                self.answer(turn, peer, ticket, Answer::Known(known));
            }
            Action::Subscribe(peer, ticket, list) => {
                let results = list.into_iter().map(|s| self.subscribe(now, turn.peers, peer, s)).collect();
                self.answer(turn, peer, ticket, Answer::Subscribed(results));
            }
            Action::Unsubscribe(peer, ticket, list) => {
                let session = turn.session(peer);
                let mut leave = |f: &Filter| match session {
                    Some(s) => self.house.router.unsubscribe(s, f, &mut self.post),
                    None => Err(Refusal::NoSession),
                };
                let results = list.iter().map(&mut leave).collect();
                self.answer(turn, peer, ticket, Answer::Unsubscribed(results));
            }
            Action::Connect(peer, ticket, connect) => self.connect(turn, peer, ticket, connect),
            Action::Exchange(peer, ticket, data) => {
                let answer = match turn.peers.client(peer).and_then(|c| c.extra.as_mut()?.exchange.take()) {
                    Some((exchange, connect)) => self.step(now, turn.peers, peer, exchange, connect, &data),
                    None => Answer::Refused(Refusal::BadMethod),
                };
                self.answer(turn, peer, ticket, answer);
            }
            Action::Reauthenticate(peer, ticket, method, data) => {
                let answer = self.reauthenticate(now, turn.peers, peer, &method, &data);
                self.answer(turn, peer, ticket, answer);
            }
            Action::SetExpiry(peer, expiry) => {
                if let Some(session) = turn.session(peer) {
                    self.house.router.set_expiry(now, session, expiry);
                }
            }
            Action::Retained(peer, ticket, filter, limit) => {
                let answer = self.retained(now, turn.peers, peer, &filter, limit);
                self.answer(turn, peer, ticket, answer);
            }
            Action::Save(peer, ticket, name, value) => {
                let saved = match turn.session(peer) {
                    Some(s) => self.house.router.save(s, &name, value, &mut self.post),
                    None => Err(Refusal::NoSession),
                };
                let answer = saved.map_or_else(Answer::Refused, |()| Answer::Saved);
                self.answer(turn, peer, ticket, answer);
            }
            Action::Load(peer, ticket, prefix) => {
                let loaded = match turn.session(peer) {
                    Some(s) => self.house.router.load(s, &prefix),
                    None => Err(Refusal::NoSession),
                };
                let answer = loaded.map_or_else(Answer::Refused, Answer::Loaded);
                self.answer(turn, peer, ticket, answer);
            }
            Action::SetWill(peer, ticket, will) => {
                let answer =
                    self.set_will(turn.peers, peer, will).map_or_else(Answer::Refused, |()| Answer::Saved);
                self.answer(turn, peer, ticket, answer);
            }
            Action::Want(peer, wants) => {
                if let Some(client) = turn.peers.client(peer) {
                    client.pace = if wants { Pace::Wanted } else { Pace::Held };
                    if wants && client.session.is_some() {
                        turn.peers.ready(peer);
                    }
                }
            }
            Action::Announce(to, bytes) => turn.peers.announce(to, bytes),
            Action::Disconnect(peer, how) => {
                if let Some(client) = turn.peers.client(peer)
                    && let Some(session) = client.session.take()
                {
                    let (at, router) = (self.at(peer), &self.house.router);
                    let (matches, post) = (&mut self.matches, &mut self.post);
                    router.disconnect(now, &session, at, how.with_will, how.expiry, matches, post);
                    self.left(now, turn.peers, peer, &session, Close::Goodbye);
                }
            }
            Action::Rebind(peer, stranger) => turn.peers.rebind(peer, stranger),
            Action::Stay(peer) => turn.peers.stay(peer),
            Action::Reached(peer, address) => turn.peers.reached(peer, address),
            Action::Call(peer, ticket, calls) => {
                self.house.scripts.submit(Asker { driver: self.id, peer, ticket }, calls);
            }
            Action::Resume(peer) => turn.peers.replied(peer),
            Action::Answered(_, ticket, outcome) => self.commands.end(ticket, outcome),
            Action::Close(peer, why) => {
                if why == Close::NoCodec
                    && let Some(facts) = turn.peers.facts(peer)
                    && self.may_complain(now, facts.address)
                {
                    let listener = &facts.listener.name;
                    tracing::warn!(address = %facts.address, %listener, "the codec of this listener is not there");
                }
                turn.peers.close(peer, why);
            }
            Action::Drop(peer, why) => {
                self.house.metrics.dropped(why);
                if why == gateway::Drop::Malformed
                    && let Some(facts) = turn.peers.facts(peer)
                    && self.may_complain(now, facts.address)
                {
                    let listener = &facts.listener.name;
                    tracing::info!(address = %facts.address, %listener, "what came is no message of the protocol");
                }
            }
            Action::Trace(peer, direction, line) => self.trace(now, turn.peers, peer, direction, line),
        }
    }

    fn publish<P: Peers>(&mut self, turn: &mut Turn<'_, P>, peer: Peer, publish: Publish) {
        let Some(client) = turn.peers.client(peer) else { return };
        let Publish { message, ticket, once } = publish;
        client.spend(turn.now.instant, 1, 0);
        self.tally.received(message.qos());
        let result = match (&client.session, &client.grant) {
            (Some(session), Some(grant))
                if may_publish(grant, &message) && self.may_answer(grant, session, &message) =>
            {
                self.house.router.publish(
                    turn.now,
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
            self.answer(turn, peer, ticket, answer);
        }
    }

    /// Whether the answer to what may be a request to a device may go where the request says.
    fn may_answer(&self, grant: &Grant, session: &Session, message: &Message) -> bool {
        let name = || self.house.router.name(session, message.topic());
        requests::may_answer(&self.house, grant, session.mount(), name, message)
    }

    /// Whether this may be the will of a client of this grant.
    fn may_leave(&self, grant: &Grant, mount: &str, will: &Message) -> bool {
        let name = || format!("{mount}{}", target(will.topic()));
        may_publish(grant, will) && requests::may_answer(&self.house, grant, mount, name, will)
    }

    fn set_will<P: Peers>(
        &mut self,
        peers: &mut P,
        peer: Peer,
        will: Option<Box<Will>>,
    ) -> Result<(), Refusal> {
        let client = peers.client(peer).ok_or(Refusal::NoSession)?;
        let (Some(session), Some(grant)) = (&client.session, &client.grant) else {
            return Err(Refusal::NoSession);
        };
        if will.as_ref().is_some_and(|w| !self.may_leave(grant, session.mount(), &w.message)) {
            return Err(Refusal::NotAuthorised);
        }
        self.house.router.set_will(session, will, &mut self.post)
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
        let topic = |m: &Message| m.topic().strip_prefix(session.mount()).map(Box::<str>::from);
        let may_see = |m: &Message| {
            m.topic().strip_prefix(session.mount()).is_some_and(|topic| grant.may_subscribe(topic))
        };
        let most = limit.saturating_mul(LOOKED_AT);
        let found = self.house.router.retained_if(now, &mounted, limit, most, may_see);
        Answer::Retained(found.into_iter().filter_map(|m| Some((topic(&m)?, m))).collect())
    }

    /// Hands a request for its device to the peer's machine; `answer` gets what comes of it.
    pub fn command<P: Peers>(
        &mut self,
        turn: &mut Turn<'_, P>,
        peer: Peer,
        request: &Request,
        answer: oneshot::Sender<Outcome>,
    ) {
        // Without the peer nobody keeps `answer`: who waits is told by its end.
        if let Some(client) = turn.peers.client(peer) {
            turn.out.is_traced = self.is_traced(client);
            let ticket = self.commands.begin(peer, answer);
            turn.machine.command(turn.now, peer, ticket, request, turn.out);
            self.perform(turn);
        }
    }

    /// What came of calls of a script.
    pub fn called<P: Peers>(
        &mut self,
        turn: &mut Turn<'_, P>,
        (peer, ticket): (Peer, Ticket),
        results: Vec<Result<Bytes, CallFailure>>,
    ) {
        if let Some(client) = turn.peers.client(peer) {
            turn.out.is_traced = self.is_traced(client);
            turn.reply(peer, ticket, Answer::Called(results));
            self.perform(turn);
        }
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

    /// Hands a session's deliveries to its machine while there is room; true if more could follow at once.
    pub fn drain<P: Peers>(
        &mut self,
        turn: &mut Turn<'_, P>,
        peer: Peer,
        session: &Session,
        room: usize,
    ) -> bool {
        let (at, tally) = (self.at(peer), &mut self.tally);
        self.house.router.drain(turn.now, session, at, &mut self.post, |deliver| {
            if let Deliver::Message(d) = deliver {
                tally.sent(d.qos);
            }
            turn.machine.deliver(turn.now, peer, deliver, turn.out);
            turn.out.wire.len() < room
        })
    }

    /// Hands one `$fastlane` message over.
    pub fn fast<P: Peers>(&mut self, turn: &mut Turn<'_, P>, peer: Peer, fast: &Fast) {
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
        turn.machine.deliver(turn.now, peer, &Deliver::Message(delivery), turn.out);
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

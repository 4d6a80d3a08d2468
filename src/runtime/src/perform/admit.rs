//! How clients come in, and how they leave: credentials, sessions, presence.

use std::sync::Arc;

use auth::{Attempt, Exchange, Grant, Step, Verdict};
use bytes::Bytes;
use gateway::{Answer, Close, Connect, Connected, Found, Message, Now, Peer, Refusal, TOKEN, Ticket};
use router::{Open, Session};

use super::{Desk, Peers, Turn};
use crate::client::Client;
use crate::mailbox::Mail;
use crate::sys;

impl Desk {
    pub(super) fn connect<P: Peers>(
        &mut self,
        turn: &mut Turn<'_, P>,
        peer: Peer,
        ticket: Ticket,
        mut connect: Box<Connect>,
    ) {
        if let Some(answer) = self.begin_connect(turn.now, turn.peers, peer, ticket, &mut connect) {
            self.answer(turn, peer, ticket, answer);
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
                return Some(self.refuse(now, peers, peer, "", Refusal::ServerBusy));
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
                Err(why) => self.refuse(now, peers, peer, &connect.client_id, why),
            });
        }
        if let Some((method, data)) = &connect.method {
            return Some(match self.house.auth.exchange(now, method, &attempt) {
                Ok(exchange) => {
                    let data = data.clone();
                    let connect = std::mem::replace(connect, empty_connect());
                    self.step(now, peers, peer, exchange, Some(connect), &data)
                }
                Err(why) => self.refuse(now, peers, peer, &connect.client_id, why),
            });
        }
        match self.house.auth.check(now, &attempt) {
            Verdict::Allow(grant) => Some(self.admit(now, peers, peer, connect, grant)),
            Verdict::Deny(why) => Some(self.refuse(now, peers, peer, &connect.client_id, why)),
            Verdict::Work(_) if !self.house.begin_login() => {
                Some(self.refuse(now, peers, peer, &connect.client_id, Refusal::ServerBusy))
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
    pub fn verdict<P: Peers>(
        &mut self,
        turn: &mut Turn<'_, P>,
        peer: Peer,
        ticket: Ticket,
        result: Result<Grant, Refusal>,
    ) {
        self.post.wait = 0;
        let Some(client) = turn.peers.client(peer) else { return };
        let Some((_, mut connect)) =
            client.extra.as_mut().and_then(|e| e.pending.take_if(|(t, _)| *t == ticket))
        else {
            return;
        };
        self.drop_empty_extra(client);
        let answer = match result {
            Ok(grant) => self.admit(turn.now, turn.peers, peer, &mut connect, grant),
            Err(why) => self.refuse(turn.now, turn.peers, peer, &connect.client_id, why),
        };
        self.answer(turn, peer, ticket, answer);
        self.perform(turn);
    }

    /// One step of an enhanced authentication.
    pub(super) fn step<P: Peers>(
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
            Step::Deny(why) => {
                let client_id = connect.map(|c| c.client_id).unwrap_or_default();
                self.refuse(now, peers, peer, &client_id, why)
            }
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

    pub(super) fn reauthenticate<P: Peers>(
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
            Err(why) => self.refuse(now, peers, peer, session.client_id(), why),
        }
    }

    /// Not the user name: there are devices whose secret it is.
    fn refuse<P: Peers>(
        &mut self,
        now: Now,
        peers: &mut P,
        peer: Peer,
        client_id: &str,
        why: Refusal,
    ) -> Answer {
        self.house.metrics.login_refused(why);
        if let Some(facts) = peers.facts(peer) {
            let (why, listener) = (crate::metrics::label(why), &facts.listener.name);
            if self.may_complain(now, facts.address) {
                tracing::info!(address = %facts.address, %listener, client_id, why, "login refused");
            } else {
                tracing::debug!(address = %facts.address, %listener, client_id, why, "login refused");
            }
        }
        Answer::Refused(why)
    }

    /// Opens the session of a client that has authenticated.
    pub(super) fn admit<P: Peers>(
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
        if connect.will.as_ref().is_some_and(|w| !self.may_leave(&grant, &mount, &w.message)) {
            return self.refuse(now, peers, peer, &connect.client_id, Refusal::NotAuthorised);
        }
        // Who only borrows the name must not end a session that is held by a token.
        if connect.is_transient
            && self.house.router.known(&port.facts.namespace, &connect.client_id, TOKEN).is_some()
        {
            return self.refuse(now, peers, peer, &connect.client_id, Refusal::NotOwner);
        }
        if let Some(only_if) = &connect.only_if {
            let (router, namespace) = (&self.house.router, &port.facts.namespace);
            let known = router.known(namespace, &connect.client_id, only_if.fact);
            let fact = known.as_ref().map(|(value, _)| &value[..]);
            let is_connected = router.attachment(namespace, &connect.client_id).flatten().is_some();
            if !only_if.holds(Found { fact, is_connected }) {
                return Answer::Refused(Refusal::NoSession);
            }
        }
        let at = self.at(peer);
        let Some(client) = peers.client(peer) else { return Answer::Refused(Refusal::Internal) };
        // The session before ends when the next one is open, so that nobody ends it by failing; one of the same client has to
        // end first, as this conversation must not be told that it was taken over.
        let is_same = |s: &Arc<Session>| s.client_id() == &*connect.client_id;
        let is_anothers = client.grant.as_ref().is_some_and(|g| g.principal() != grant.principal());
        let same = client.session.as_ref().is_some_and(is_same);
        if same && is_anothers && !client.is_transient {
            return self.refuse(now, peers, peer, &connect.client_id, Refusal::NotOwner);
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
            Err(why) => return self.refuse(now, peers, peer, &client_id, why),
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
    pub(super) fn leave<P: Peers>(&mut self, now: Now, peers: &mut P, peer: Peer) {
        let Some(old) = peers.client(peer).and_then(|c| c.session.take()) else { return };
        let at = self.at(peer);
        self.house.router.disconnect(now, &old, at, false, None, &mut self.matches, &mut self.post);
        self.left(now, peers, peer, &old, Close::Goodbye);
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

    pub(super) fn left<P: Peers>(
        &mut self,
        now: Now,
        peers: &mut P,
        peer: Peer,
        session: &Session,
        why: Close,
    ) {
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

    pub(super) fn announce(&mut self, now: Now, message: Message) {
        // A presence message that finds the house full is only counted: it has no publisher to tell.
        let _ = self.house.router.publish(now, None, message, None, &mut self.matches, &mut self.post);
    }

    pub(super) fn drop_empty_extra(&self, client: &mut Client) {
        let is_empty = |e: &crate::client::Extra| {
            e.pending.is_none() && e.exchange.is_none() && e.rate.is_none() && e.backlog.is_empty()
        };
        if client.extra.as_deref().is_some_and(is_empty) {
            client.extra = None;
        }
    }
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
    Box::new(Connect { is_transient: true, ..Connect::new("", "", 0) })
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

//! CONNECT and its will (MQTT-SN 1.2, 6.2, 6.3), and sessions that go on without one.

use std::time::Duration;

use bytes::Bytes;
use gateway::topic::check_name;
use gateway::{Action, Answer, Close, Connect, Connected, Disconnect, Drop, Flow, Now, Outbox, Peer, Qos};
use wire::Writer;

use crate::config::{Credentials, Rebind};
use crate::conversation::{Client, Conversation, MAX_HELD, Pending, Phase, Reason, Step};
use crate::frame::{Code, Flags, Message, TopicRef, kind};
use crate::kept::{self, FACTS, Loaded, make_will};
use crate::ticket::{Asked, ticket};
use crate::{MqttSn, code};

/// For `$SYS` and listings.
const PROTOCOL: &str = "MQTT-SN 1.2";

impl MqttSn {
    #[expect(clippy::too_many_arguments, reason = "what every step passes on, and the fields of CONNECT")]
    pub(crate) fn connect(
        &mut self,
        now: Now,
        peer: Peer,
        flags: Flags,
        protocol: u8,
        duration: u16,
        client_id: &str,
        out: &mut Outbox,
    ) -> Flow {
        let Some(c) = self.peers.get_mut(peer) else { return Flow::Continue };
        let credential = c.credential.clone();
        let client_id = if client_id.is_empty() { credential.as_deref().unwrap_or("") } else { client_id };
        let is_anothers = credential.as_deref().is_some_and(|own| own != client_id);
        if protocol != 1 || client_id.is_empty() || client_id.contains('\0') || is_anothers {
            self.connack(peer, Code::NotSupported, out);
            return Flow::Continue;
        }
        let is_opening = c.pending.as_ref().is_some_and(|p| p.step == Step::Opening);
        let id_here = c.client.as_ref().map(|k| &k.client_id).or(c.pending.as_ref().map(|p| &p.client_id));
        if id_here.is_some_and(|id| !id.is_empty() && **id != *client_id) {
            if !c.is_sealed {
                // Somebody else has got this address.
                return Flow::Stranger;
            }
            if let Some(client) = c.client.take() {
                c.phase = Phase::Stranger;
                self.clients.remove(&client.client_id);
                out.act(Action::Disconnect(peer, Disconnect { with_will: true, expiry: None }));
            }
        } else if is_opening {
            out.act(Action::Drop(peer, Drop::Duplicate));
            return Flow::Continue;
        }
        if !self.may_move(client_id, peer) {
            self.connack(peer, Code::Congestion, out);
            return Flow::Continue;
        }
        let mut pending = Box::new(Pending::new(Reason::Connect, client_id));
        (pending.flags, pending.duration) = (flags, duration);
        pending.due = now.instant + self.config.retry_interval;
        let has_will = flags.has_will();
        if has_will {
            pending.step = Step::WillTopic;
        }
        let Some(c) = self.peers.get_mut(peer) else { return Flow::Continue };
        c.pending = Some(pending);
        if has_will {
            self.say(peer, out, kind::WILLTOPICREQ, |_| {});
        } else {
            self.open(now, peer, out);
        }
        Flow::Continue
    }

    /// Whether the client may be at this peer from now on.
    pub(crate) fn may_move(&self, client_id: &str, to: Peer) -> bool {
        let Some(from) = self.clients.get(client_id).filter(|from| **from != to) else { return true };
        let (Some(old), Some(new)) = (self.peers.get(*from), self.peers.get(to)) else { return true };
        match self.config.rebind {
            Rebind::Any => true,
            Rebind::SameIp => new.is_sealed || old.address.ip() == new.address.ip(),
            Rebind::Dtls => new.is_sealed,
        }
    }

    pub(crate) fn will_topic(
        &mut self,
        now: Now,
        peer: Peer,
        topic: Option<(Flags, &str)>,
        out: &mut Outbox,
    ) {
        let retry = self.config.retry_interval;
        let Some(p) = self.peers.get_mut(peer).and_then(|c| c.pending.as_mut()) else { return };
        match (p.step, topic) {
            // The empty one deletes the will (5.4.7).
            (Step::WillTopic, None) => {
                p.step = Step::Opening;
                self.open(now, peer, out);
            }
            (Step::WillTopic | Step::WillMsg, Some((flags, topic))) => {
                if check_name(topic).is_err() || flags.qos().is_none() {
                    return self.refuse(peer, Some(Code::NotSupported), out);
                }
                p.will_topic = Some((flags, topic.into()));
                (p.step, p.due, p.tries) = (Step::WillMsg, now.instant + retry, 0);
                self.say(peer, out, kind::WILLMSGREQ, |_| {});
            }
            _ => out.act(Action::Drop(peer, Drop::Duplicate)),
        }
    }

    pub(crate) fn will_message(&mut self, now: Now, peer: Peer, data: &[u8], out: &mut Outbox) {
        let Some(p) = self.peers.get_mut(peer).and_then(|c| c.pending.as_mut()) else { return };
        match (p.step, p.will_topic.take()) {
            (Step::WillMsg, Some((flags, topic))) => {
                let qos = flags.qos().unwrap_or_default();
                p.will = Some(make_will(now, &topic, data, qos, flags.is_retained()));
                p.step = Step::Opening;
                self.open(now, peer, out);
            }
            // WILLMSG before WILLTOPIC, or again.
            (_, topic) => {
                p.will_topic = topic;
                out.act(Action::Drop(peer, Drop::Unexpected));
            }
        }
    }

    /// The last message of the handshake again, from who is let in: CONNACK was lost (6.13).
    pub(crate) fn connected_already(&self, peer: Peer, data: Option<&[u8]>, out: &mut Outbox) {
        let client = self.peers.get(peer).and_then(|c| c.client.as_deref()).filter(|k| k.was_asked);
        if client.is_some_and(|k| k.will.as_deref().map(|will| will.message.payload()) == data) {
            self.connack(peer, Code::Accepted, out);
        } else {
            out.act(Action::Drop(peer, Drop::Unexpected));
        }
    }

    /// Nothing came of what was asked for.
    pub(crate) fn ask_again(&mut self, now: Now, peer: Peer, out: &mut Outbox) {
        let (retry, most) = (self.config.retry_interval, self.config.max_retries);
        let Some(c) = self.peers.get_mut(peer) else { return };
        let Some(p) = c.pending.as_mut() else { return };
        let kind = match p.step {
            Step::WillTopic => kind::WILLTOPICREQ,
            Step::WillMsg => kind::WILLMSGREQ,
            Step::Opening => {
                p.due = gateway::Instant::NEVER;
                return;
            }
        };
        if p.tries >= most {
            c.pending = None;
            if !c.has_session() {
                out.act(Action::Close(peer, Close::ConnectTimeout));
            }
            return;
        }
        (p.tries, p.due) = (p.tries + 1, now.instant + retry);
        self.say(peer, out, kind, |_| {});
    }

    /// A request while the session is being opened: it is not carried out (6.2).
    pub(crate) fn too_early(&mut self, peer: Peer, message: Message<'_>, bytes: &[u8], out: &mut Outbox) {
        if let Some(p) = self.peers.get_mut(peer).and_then(|c| c.pending.as_mut())
            && p.reason == Reason::Resume
        {
            if p.held.len() < MAX_HELD {
                p.held.push(bytes.into());
            }
            return;
        }
        match message {
            Message::Publish { topic, msg_id, .. } => {
                self.acknowledge(peer, out, kind::PUBACK, topic.number(), msg_id, Code::Congestion);
            }
            Message::Register { msg_id, .. } => {
                self.acknowledge(peer, out, kind::REGACK, 0, msg_id, Code::Congestion);
            }
            Message::Subscribe { msg_id, topic, .. } => {
                let id = if let TopicRef::Id(id) = topic { id.number() } else { 0 };
                self.suback(peer, Qos::AtMostOnce, id, msg_id, Code::Congestion, out);
            }
            _ => out.act(Action::Drop(peer, Drop::Unexpected)),
        }
    }

    /// A message from an address that nobody is known at, which does not say whose it is.
    pub(crate) fn unknown(&mut self, now: Now, peer: Peer, bytes: &[u8], out: &mut Outbox) {
        let credential = self.peers.get(peer).and_then(|c| c.credential.clone());
        match credential {
            Some(id) => self.resume(now, peer, &id, bytes, out),
            // So that it connects.
            None => self.say(peer, out, kind::DISCONNECT, |_| {}),
        }
    }

    /// Goes on with a client's session; what it has said is looked at then.
    pub(crate) fn resume(&mut self, now: Now, peer: Peer, client_id: &str, bytes: &[u8], out: &mut Outbox) {
        let Some(c) = self.peers.get_mut(peer) else { return };
        let mut pending = Box::new(Pending::new(Reason::Resume, client_id));
        pending.held.push(bytes.into());
        c.pending = Some(pending);
        self.open(now, peer, out);
    }

    /// The other peer of this machine that the client is at.
    fn elsewhere(&self, client_id: &str, to: Peer) -> Option<Peer> {
        self.clients.get(client_id).copied().filter(|from| *from != to)
    }

    /// Takes the client from where it was: it has been let in here.
    fn fetch(&mut self, client_id: &str, to: Peer, out: &mut Outbox) -> Option<(Box<Client>, Phase)> {
        let from = self.elsewhere(client_id, to)?;
        let taken = self.peers.get_mut(from)?.take_client();
        out.act(Action::Close(from, Close::Moved));
        taken
    }

    /// Opens the session, or takes it up where it is attached already.
    pub(crate) fn open(&mut self, now: Now, peer: Peer, out: &mut Outbox) {
        let Some(mut p) = self.peers.get_mut(peer).and_then(|c| c.pending.take()) else { return };
        p.due = gateway::Instant::NEVER;
        let is_clean = p.reason == Reason::Publish || (p.reason == Reason::Connect && p.flags.is_clean());
        if p.reason == Reason::Connect
            && !is_clean
            && self.peers.get(peer).is_some_and(Conversation::can_go_on)
        {
            return self.take_up(now, peer, p, out);
        }
        // Where it is it stays, with all that it has, until it is let in here.
        let from = self.elsewhere(&p.client_id, peer).filter(|_| p.reason != Reason::Publish);
        let there = from.and_then(|from| {
            let c = self.peers.get_mut(from)?;
            c.goes_to = Some(peer);
            Some((c.can_go_on() || p.reason == Reason::Resume, &**c.client.as_ref()?))
        });
        // One with CleanSession that is awake begins anew, and one that is not asleep and is not there cannot go on.
        let begins = there.is_some_and(|(can_go_on, _)| !can_go_on);
        let of_moved = there.filter(|_| !begins).map(|(_, client)| client);
        let was_clean = of_moved.is_some_and(|k| k.is_clean);
        if !p.flags.has_will() && !is_clean {
            // The earlier will stays (6.3).
            p.will =
                of_moved.and_then(|k| if p.reason == Reason::Resume { k.armed() } else { k.will.clone() });
        }
        let is_elsewhere = of_moved.is_some();
        let ends = is_clean || (p.reason == Reason::Resume && was_clean);
        let expiry = if ends { Duration::ZERO } else { self.config.session_expiry };
        let Some(c) = self.peers.get_mut(peer) else { return };
        if let Some(client) = c.client.take() {
            self.clients.remove(&client.client_id);
        }
        c.phase = Phase::Stranger;
        let (who, client_id) = match p.reason {
            Reason::Publish => (&self.config.anonymous, ""),
            _ => (&self.config.credentials, &*p.client_id),
        };
        let rebind = self.config.rebind;
        let only_if = match p.reason {
            Reason::Resume if !is_elsewhere => Some(kept::only_sleeper(rebind, c)),
            // Whether it may leave where it is on this machine has been asked.
            Reason::Connect if from.is_none() => kept::not_anothers(now, rebind, c),
            _ => None,
        };
        let no_one = Credentials::default();
        // Who has shaken hands is known by that.
        let who = if c.is_sealed { &no_one } else { who };
        let connect = Connect {
            client_id: client_id.into(),
            username: who.username.as_ref().map(|name| name.replace("%c", client_id).into()),
            password: who.password.as_ref().map(|p| Bytes::from(p.replace("%c", client_id))),
            method: None,
            clean_start: is_clean || begins,
            expiry,
            credit: 1,
            will: p.will.clone(),
            protocol: PROTOCOL,
            keep_alive: p.duration,
            is_transient: p.reason == Reason::Publish,
            token: None,
            load: FACTS,
            only_if,
            moved_from: from,
        };
        c.pending = Some(p);
        out.act(Action::Want(peer, false));
        out.act(Action::Connect(peer, ticket(Asked::Open, 0, 0), Box::new(connect)));
    }

    /// CONNECT without CleanSession from a client whose session is attached here: it goes on, and is not opened again.
    fn take_up(&mut self, now: Now, peer: Peer, p: Box<Pending>, out: &mut Outbox) {
        if !p.flags.has_will() {
            return self.taken_up(now, peer, &p, out);
        }
        // It may be one that the client may not leave.
        out.act(Action::SetWill(peer, ticket(Asked::TakeUp, 0, 0), p.will.clone()));
        if let Some(c) = self.peers.get_mut(peer) {
            c.pending = Some(p);
        }
    }

    pub(crate) fn took_will(&mut self, now: Now, peer: Peer, answer: Answer, out: &mut Outbox) {
        match answer {
            Answer::Saved => {
                let Some(p) = self.peers.get_mut(peer).and_then(|c| c.pending.take()) else { return };
                self.taken_up(now, peer, &p, out);
            }
            Answer::Refused(why) => self.refuse(peer, code(why), out),
            _ => {}
        }
    }

    fn taken_up(&mut self, now: Now, peer: Peer, p: &Pending, out: &mut Outbox) {
        let Some(c) = self.peers.get_mut(peer) else { return };
        let Some(client) = c.client.as_mut() else { return };
        let was_asleep = client.sleep > 0;
        (client.keep_alive, client.sleep) = (p.duration, 0);
        client.was_asked = p.flags.has_will();
        client.forget_acknowledged();
        let was_clean = std::mem::replace(&mut client.is_clean, false);
        if p.flags.has_will() {
            client.will.clone_from(&p.will);
            kept::keep_will(peer, client, out);
        } else if was_asleep {
            client.arm(peer, out);
        }
        kept::keep_state(peer, client, out);
        if was_clean {
            out.act(Action::SetExpiry(peer, self.config.session_expiry));
            self.keep_all(peer, out);
        }
        self.connack(peer, Code::Accepted, out);
        self.activate(now, peer, out);
    }

    /// The client takes what there is for it from now on.
    fn activate(&mut self, now: Now, peer: Peer, out: &mut Outbox) {
        let Some(c) = self.peers.get_mut(peer) else { return };
        // What is outstanding for who was active all the time is sent again in its time, and not overtaken.
        if std::mem::replace(&mut c.phase, Phase::Active) == Phase::Active
            && c.client.as_ref().is_some_and(|k| k.outgoing.is_some())
        {
            return;
        }
        self.go_on(now, peer, out);
    }

    pub(crate) fn opened_session(&mut self, now: Now, peer: Peer, answer: Answer, out: &mut Outbox) {
        match answer {
            Answer::Connected(connected) => self.connected(now, peer, *connected, out),
            Answer::Refused(why) => self.refuse(peer, code(why), out),
            _ => {}
        }
    }

    fn connected(&mut self, now: Now, peer: Peer, connected: Connected, out: &mut Outbox) {
        let Some(c) = self.peers.get_mut(peer) else { return };
        let Some(p) = c.pending.take() else { return };
        let Pending { reason, client_id, flags, duration, will, moved, held, .. } = *p;
        if reason == Reason::Publish {
            c.phase = Phase::Publisher;
            return self.again(now, peer, &held, out);
        }
        let moved = self.fetch(&client_id, peer, out).or(moved);
        let Some(c) = self.peers.get_mut(peer) else { return };
        let is_present = connected.session_present;
        let Loaded { state, will: kept_will, topics } = kept::load(now, &connected.facts);
        let is_clean = reason == Reason::Connect && flags.is_clean();
        let was_moved = moved.is_some();
        let (mut client, phase) = match moved {
            Some((client, phase)) if is_present && !is_clean => (client, phase),
            _ => {
                let mut client = Box::new(Client::new(&client_id));
                client.topics = topics;
                client.is_clean = is_clean;
                (client, Phase::Active)
            }
        };
        let mut is_will_new = false;
        if flags.has_will() || is_clean {
            client.will = will;
        } else if !was_moved && let Some(will) = kept_will {
            client.will = Some(will);
            is_will_new = true;
        }
        // Who connects is believed where it says that it is, unless it is taken from elsewhere with what waits for it there.
        let is_taken = reason == Reason::Resume || was_moved || state.is_some_and(|(_, sleep)| sleep > 0);
        client.is_unproven = is_present && is_taken && !c.is_sealed || c.candidate.is_some();
        client.place = kept::place(self.config.rebind, c);
        let (mut next, mut keeps_all) = (Phase::Active, false);
        match (reason, was_moved) {
            (Reason::Resume, true) if is_present => next = phase,
            (Reason::Resume, _) => {
                let is_ours = state.filter(|(_, sleep)| is_present && (c.is_sealed || *sleep > 0));
                let Some((keep_alive, sleep)) = is_ours else {
                    // A session that this has just begun leaves nothing behind.
                    let expiry = (!is_present).then_some(Duration::ZERO);
                    out.act(Action::Disconnect(peer, Disconnect { with_will: false, expiry }));
                    return self.say(peer, out, kind::DISCONNECT, |_| {});
                };
                (client.keep_alive, client.sleep) = (keep_alive, sleep);
                next = if sleep > 0 { Phase::Asleep } else { Phase::Active };
            }
            _ => {
                client.forget_acknowledged();
                client.was_asked = flags.has_will();
                let was_clean = std::mem::replace(&mut client.is_clean, is_clean);
                (client.keep_alive, client.sleep) = (duration, 0);
                keeps_all = was_clean && !is_clean;
                kept::keep_state(peer, &client, out);
                if flags.has_will() {
                    kept::keep_will(peer, &client, out);
                }
            }
        }
        if reason == Reason::Resume && !client.place.is_empty() {
            kept::keep_state(peer, &client, out);
        }
        if is_will_new {
            client.arm(peer, out);
        }
        c.client = Some(client);
        // Whoever had the name here has been taken over.
        self.clients.insert(client_id, peer);
        if keeps_all {
            self.keep_all(peer, out);
        }
        if reason == Reason::Connect {
            self.connack(peer, Code::Accepted, out);
        }
        if let Some(c) = self.peers.get_mut(peer) {
            c.phase = next;
        }
        if next != Phase::Asleep {
            self.go_on(now, peer, out);
        }
        self.again(now, peer, &held, out);
    }

    /// What had to wait for the session.
    fn again(&mut self, now: Now, peer: Peer, held: &[Box<[u8]>], out: &mut Outbox) {
        for bytes in held {
            self.datagram(now, peer, bytes, out);
        }
    }

    /// The session cannot be opened.
    fn refuse(&mut self, peer: Peer, code: Option<Code>, out: &mut Outbox) {
        let Some(c) = self.peers.get_mut(peer) else { return };
        let Some(p) = c.pending.take() else { return };
        if let Some(client) = c.client.as_mut() {
            client.was_asked = false;
        }
        match p.reason {
            Reason::Publish => out.act(Action::Drop(peer, Drop::Acl)),
            Reason::Resume => self.say(peer, out, kind::DISCONNECT, |_| {}),
            Reason::Connect => {
                if let Some(code) = code {
                    self.connack(peer, code, out);
                }
            }
        }
    }

    fn connack(&self, peer: Peer, code: Code, out: &mut Outbox) {
        self.say(peer, out, kind::CONNACK, |wire| wire.put_u8(code as u8));
    }
}

//! The driver of a socket in memory: the MQTT-SN machine, the router, and an observer of what is published.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::BytesMut;
use gateway::{
    Action, Answer, Connect, Connected, Deliver, Factory, Facts, Filter, Flow, Gateway, Listener, Message,
    Now, Outbox, Peer, Qos, Settle, Subscribe, Ticket, Transport,
};
use router::{Attachment, Matches, Open, Options, Post, Router, Session, Signal};

const SN: u16 = 0;
const OBSERVER: u16 = 1;
const NOBODY: Peer = Peer { slot: u32::MAX, generation: 0 };

/// See [`Action::Want`].
#[derive(Clone, Copy, PartialEq, Eq)]
enum Pace {
    Free,
    Held,
    Wanted,
}

struct Seat {
    address: u16,
    session: Option<Arc<Session>>,
    pace: Pace,
    is_told: bool,
}

pub(crate) struct Node {
    router: Router,
    machine: Box<dyn Gateway>,
    now: Now,
    out: Outbox,
    matches: Matches,
    post: Post,
    seats: HashMap<u32, Seat>,
    by_address: HashMap<u16, u32>,
    slots: u32,
    facts: Facts,
    observer: Option<Arc<Session>>,
    sent: Vec<(u16, Vec<u8>)>,
    /// Topic and number of everything that was published below `up/`.
    pub(crate) heard: Vec<(String, u32)>,
}

fn at(slot: u32) -> Attachment {
    Attachment { driver: SN, peer: Peer { slot, generation: 0 } }
}

impl Node {
    pub(crate) fn new() -> Node {
        let listener = Listener::new("sim", "mqtt_sn");
        let mut node = Node {
            router: Router::new(Options::default()),
            machine: mqtt_sn::MqttSnFactory::new(mqtt_sn::Config::default()).build(),
            now: Now::from_micros(1_000_000),
            out: Outbox { is_framed: true, ..Outbox::default() },
            matches: Matches::default(),
            post: Post::default(),
            seats: HashMap::new(),
            by_address: HashMap::new(),
            slots: 0,
            facts: Facts::new(Arc::new(listener), Transport::Udp, ([192, 0, 2, 1], 1).into()),
            observer: None,
            sent: Vec::new(),
            heard: Vec::new(),
        };
        node.observe();
        node
    }

    /// A session that gets all publications of the devices.
    fn observe(&mut self) {
        let here = Attachment { driver: OBSERVER, peer: NOBODY };
        let mut connect =
            Connect { expiry: std::time::Duration::MAX, ..Connect::new("observer", "test", 100) };
        let open =
            Open { connect: &mut connect, namespace: "", principal: None, username: None, mount: "".into() };
        let opened = self.router.connect(self.now, here, open, &mut self.matches, &mut self.post).unwrap();
        let subscribe = Subscribe {
            filter: Filter::parse("up/#").unwrap(),
            qos: Qos::ExactlyOnce,
            no_local: false,
            retain_as_published: false,
            retain_handling: 0,
            identifier: 0,
        };
        let (matches, post) = (&mut self.matches, &mut self.post);
        self.router.subscribe(self.now, &opened.session, subscribe, matches, post).unwrap();
        self.observer = Some(opened.session);
    }

    pub(crate) fn next_timeout(&self) -> Option<u64> {
        self.machine.next_timeout().map(|(at, _)| at.as_micros())
    }

    pub(crate) fn timeout(&mut self, micros: u64) {
        self.now = Now::from_micros(micros);
        self.machine.timeout(self.now, &mut self.out);
        self.settle_down();
        let next = self.next_timeout();
        assert!(next.is_none_or(|at| at > micros), "a deadline that has passed is asked for again");
    }

    pub(crate) fn take_sent(&mut self) -> Vec<(u16, Vec<u8>)> {
        std::mem::take(&mut self.sent)
    }

    pub(crate) fn publish(&mut self, micros: u64, topic: &str, number: u32, qos: u8) {
        self.now = Now::from_micros(micros);
        let message =
            Message::new(self.now, topic, &number.to_be_bytes()).with_qos(Qos::from_u8(qos).unwrap());
        self.router.publish(self.now, None, message, None, &mut self.matches, &mut self.post).unwrap();
        self.settle_down();
    }

    pub(crate) fn receive(&mut self, micros: u64, address: u16, bytes: &[u8]) {
        self.now = Now::from_micros(micros);
        let slot = *self.by_address.entry(address).or_insert_with(|| {
            self.slots += 1;
            self.slots
        });
        let peer = at(slot).peer;
        if !self.seats.contains_key(&slot) {
            self.facts.address.set_port(address);
            let seat = Seat { address, session: None, pace: Pace::Free, is_told: false };
            self.seats.insert(slot, seat);
            self.machine.opened(self.now, peer, &self.facts, &mut self.out);
        }
        let flow = self.machine.input(self.now, peer, &mut BytesMut::from(bytes), &mut self.out);
        assert_eq!(flow, Ok(Flow::Continue), "no two clients have one address here");
        self.settle_down();
    }

    /// Carries out what the machine wants and what the router has to say, until both are silent.
    fn settle_down(&mut self) {
        loop {
            for (frame, bytes) in self.out.messages() {
                if let Some(seat) = self.seats.get(&frame.peer.slot) {
                    self.sent.push((seat.address, bytes.to_vec()));
                }
            }
            self.out.wire.clear();
            self.out.frames.clear();
            let actions = std::mem::take(&mut self.out.actions);
            let signals = std::mem::take(&mut self.post.signals);
            if actions.is_empty() && signals.is_empty() {
                return;
            }
            let mut closing = Vec::new();
            for action in actions {
                if let Action::Close(peer, _) = action {
                    closing.push(peer.slot);
                } else {
                    self.act(action);
                }
            }
            closing.into_iter().for_each(|slot| self.end(slot));
            for (to, signal) in signals {
                match signal {
                    Signal::Ready if to.driver == OBSERVER => self.listen(to),
                    Signal::Ready => self.drain(to.peer.slot),
                    Signal::Stop(why) => {
                        if self.seats.contains_key(&to.peer.slot) {
                            self.machine.stop(self.now, to.peer, why, &mut self.out);
                            self.end(to.peer.slot);
                        }
                    }
                    Signal::Fast(_) => panic!("nobody here subscribes to $fastlane"),
                }
            }
        }
    }

    fn end(&mut self, slot: u32) {
        let Some(seat) = self.seats.remove(&slot) else { return };
        // What was said before goes out before.
        for (_, bytes) in self.out.messages().filter(|(frame, _)| frame.peer.slot == slot) {
            self.sent.push((seat.address, bytes.to_vec()));
        }
        if self.by_address.get(&seat.address) == Some(&slot) {
            self.by_address.remove(&seat.address);
        }
        self.machine.closed(self.now, at(slot).peer, &mut self.out);
        if let Some(session) = seat.session {
            let (now, matches, post) = (self.now, &mut self.matches, &mut self.post);
            self.router.disconnect(now, &session, at(slot), true, None, matches, post);
        }
    }

    fn reply(&mut self, slot: u32, ticket: Ticket, answer: Answer) {
        if let Some(seat) = self.seats.get_mut(&slot) {
            if matches!(answer, Answer::Connected(_)) {
                seat.is_told = true;
                self.post.signals.push((at(slot), Signal::Ready));
            }
            self.machine.reply(self.now, at(slot).peer, ticket, answer, &mut self.out);
        }
    }

    fn act(&mut self, action: Action) {
        let now = self.now;
        let (router, matches, post) = (&self.router, &mut self.matches, &mut self.post);
        let seats = &mut self.seats;
        let mut session = |peer: Peer| seats.get_mut(&peer.slot)?.session.clone();
        let (peer, ticket, answer) = match action {
            Action::Connect(peer, ticket, mut connect) => {
                let (client_id, load) = (connect.client_id.clone(), connect.load);
                let open = Open {
                    connect: &mut connect,
                    namespace: "",
                    principal: None,
                    username: None,
                    mount: "".into(),
                };
                let opened = router.connect(now, at(peer.slot), open, matches, post).unwrap();
                let facts = router.load(&opened.session, load).unwrap();
                let Some(seat) = seats.get_mut(&peer.slot) else { return };
                seat.session = Some(opened.session);
                let session_present = opened.present;
                (
                    peer,
                    ticket,
                    Answer::Connected(Box::new(Connected { client_id, session_present, data: None, facts })),
                )
            }
            Action::Publish(peer, publish) => {
                let Some(session) = session(peer) else { return };
                let result =
                    router.publish(now, Some(&session), publish.message, publish.once, matches, post);
                let Some(ticket) = publish.ticket else { return };
                (peer, ticket, result.map_or_else(Answer::Refused, Answer::Published))
            }
            Action::Release(peer, ticket, id) => {
                let Some(session) = session(peer) else { return };
                (peer, ticket, Answer::Known(router.release(&session, id, post)))
            }
            Action::Receive(peer, ticket, id) => {
                let Some(session) = session(peer) else { return };
                (peer, ticket, Answer::Known(router.receive(&session, id, post)))
            }
            Action::Subscribe(peer, ticket, list) => {
                let Some(session) = session(peer) else { return };
                let results = list.into_iter().map(|s| router.subscribe(now, &session, s, matches, post));
                (peer, ticket, Answer::Subscribed(results.collect()))
            }
            Action::Save(peer, ticket, name, value) => {
                let Some(session) = session(peer) else { return };
                let saved = router.save(&session, &name, value, post);
                (peer, ticket, saved.map_or_else(Answer::Refused, |()| Answer::Saved))
            }
            Action::SetWill(peer, ticket, will) => {
                let Some(session) = session(peer) else { return };
                let set = router.set_will(&session, will, post);
                (peer, ticket, set.map_or_else(Answer::Refused, |()| Answer::Saved))
            }
            Action::Settle(peer, id, how) => {
                if let Some(session) = session(peer) {
                    router.settle(now, &session, id, how, post);
                }
                return;
            }
            Action::SetExpiry(peer, expiry) => {
                if let Some(session) = session(peer) {
                    router.set_expiry(now, &session, expiry);
                }
                return;
            }
            Action::Want(peer, wants) => {
                if let Some(seat) = seats.get_mut(&peer.slot) {
                    seat.pace = if wants { Pace::Wanted } else { Pace::Held };
                    if wants && seat.session.is_some() {
                        post.signals.push((at(peer.slot), Signal::Ready));
                    }
                }
                return;
            }
            Action::Disconnect(peer, how) => {
                if let Some(session) = seats.get_mut(&peer.slot).and_then(|seat| seat.session.take()) {
                    let at = at(peer.slot);
                    router.disconnect(now, &session, at, how.with_will, how.expiry, matches, post);
                }
                return;
            }
            Action::Drop(..) => return,
            other => panic!("the simulation does not play {other:?}"),
        };
        self.reply(peer.slot, ticket, answer);
    }

    fn drain(&mut self, slot: u32) {
        let Some(seat) = self.seats.get_mut(&slot).filter(|seat| seat.is_told) else { return };
        let Some(session) = seat.session.clone() else { return };
        if seat.pace == Pace::Held {
            return;
        }
        let is_one = seat.pace == Pace::Wanted;
        let (now, peer, machine, out) = (self.now, at(slot).peer, &mut self.machine, &mut self.out);
        if is_one {
            seat.pace = Pace::Held;
        }
        let is_handed = self.router.drain(now, &session, at(slot), &mut self.post, |deliver| {
            machine.deliver(now, peer, deliver, out);
            !is_one
        });
        if is_one && !is_handed {
            seat.pace = Pace::Wanted;
            if !self.router.has_unsent(&session) {
                machine.deliver(now, peer, &Deliver::Nothing, out);
            }
        }
    }

    /// The observer takes all that is there.
    fn listen(&mut self, at: Attachment) {
        let (Some(session), mut got) = (self.observer.clone(), Vec::new()) else { return };
        let heard = &mut self.heard;
        self.router.drain(self.now, &session, at, &mut self.post, |deliver| {
            if let Deliver::Message(d) = deliver {
                let number = u32::from_be_bytes(d.message.payload()[..4].try_into().unwrap());
                heard.push((d.topic.to_owned(), number));
                got.push((d.id, d.qos));
            }
            true
        });
        for (id, qos) in got.into_iter().filter_map(|(id, qos)| Some((id?, qos))) {
            if qos == Qos::ExactlyOnce {
                self.router.receive(&session, id, &mut self.post);
            }
            self.router.settle(self.now, &session, id, Settle::Done, &mut self.post);
        }
    }
}

//! A driver in memory: MQTT machines and the router, with a clock that stands still unless the test moves it.

use std::sync::Arc;

use bytes::BytesMut;
use gateway::{
    Action, Answer, Close, Connected, Factory, Facts, Gateway, Listener, Now, Outbox, Peer, Transport,
};
use router::{Attachment, Matches, Open, Options, Post, Router, Session, Signal};

/// One connection's side of the node.
struct Conn {
    machine: Box<dyn Gateway>,
    peer: Peer,
    session: Option<Arc<Session>>,
    input: BytesMut,
    out: Outbox,
    is_open: bool,
}

/// See the module.
pub(crate) struct Node {
    /// The router, to look into.
    pub(crate) router: Router,
    factory: mqtt::MqttFactory,
    facts: Facts,
    now: Now,
    matches: Matches,
    post: Post,
    conns: Vec<Option<Conn>>,
}

impl Node {
    pub(crate) fn new() -> Node {
        let listener =
            Listener { name: "sim".into(), protocol: "mqtt", namespace: "".into(), mountpoint: "".into() };
        Node {
            router: Router::new(Options::default()),
            factory: mqtt::MqttFactory::new(mqtt::Config::default()),
            facts: Facts {
                address: ([127, 0, 0, 1], 1).into(),
                listener: Arc::new(listener),
                transport: Transport::Tcp,
                certificate: None,
                path: None,
                subprotocol: None,
                is_direct: true,
            },
            now: Now::from_micros(1_000_000),
            matches: Matches::default(),
            post: Post::default(),
            conns: Vec::new(),
        }
    }

    /// A connection begins.
    pub(crate) fn open(&mut self) -> usize {
        let n = self.conns.len();
        let peer = Peer { slot: n as u32, generation: 0 };
        let (mut machine, mut out) = (self.factory.build(), Outbox::default());
        machine.opened(self.now, peer, &self.facts, &mut out);
        self.conns.push(Some(Conn {
            machine,
            peer,
            session: None,
            input: BytesMut::new(),
            out,
            is_open: true,
        }));
        n
    }

    /// Bytes of the client come.
    pub(crate) fn feed(&mut self, n: usize, bytes: &[u8]) {
        let Some(mut conn) = self.conns[n].take() else { return };
        conn.input.extend_from_slice(bytes);
        while conn.is_open && !conn.input.is_empty() {
            let before = conn.input.len();
            let flow = conn.machine.input(self.now, conn.peer, &mut conn.input, &mut conn.out);
            self.perform(&mut conn);
            if let Err(why) = flow {
                self.end(&mut conn, why);
            }
            if conn.input.len() == before {
                break;
            }
        }
        self.conns[n] = Some(conn);
        self.deliver();
    }

    /// What the node has to say to the client; None when it has closed and said all.
    pub(crate) fn output(&mut self, n: usize) -> Option<Vec<u8>> {
        let conn = self.conns[n].as_mut()?;
        let bytes = std::mem::take(&mut conn.out.wire);
        if bytes.is_empty() && !conn.is_open { None } else { Some(bytes) }
    }

    /// The node notices that the connection is lost.
    pub(crate) fn lose(&mut self, n: usize) {
        if let Some(mut conn) = self.conns[n].take() {
            self.end(&mut conn, Close::TransportError);
        }
        self.deliver();
    }

    fn end(&mut self, conn: &mut Conn, _: Close) {
        if !std::mem::replace(&mut conn.is_open, false) {
            return;
        }
        conn.machine.closed(self.now, conn.peer, &mut conn.out);
        if let Some(session) = conn.session.take() {
            let (at, now) = (Attachment { driver: 0, peer: conn.peer }, self.now);
            self.router.disconnect(now, &session, at, true, None, &mut self.matches, &mut self.post);
        }
    }

    fn perform(&mut self, conn: &mut Conn) {
        while !conn.out.actions.is_empty() {
            for action in std::mem::take(&mut conn.out.actions) {
                if conn.is_open {
                    self.act(conn, action);
                }
            }
        }
    }

    fn act(&mut self, conn: &mut Conn, action: Action) {
        let (now, at) = (self.now, Attachment { driver: 0, peer: conn.peer });
        let (router, matches, post) = (&self.router, &mut self.matches, &mut self.post);
        let session = conn.session.clone();
        let (ticket, answer) = match (action, session) {
            (Action::Connect(_, ticket, mut connect), None) => {
                let client_id = connect.client_id.clone();
                let open = Open {
                    connect: &mut connect,
                    namespace: "",
                    principal: None,
                    username: None,
                    mount: "".into(),
                };
                let opened = router.connect(now, at, open, matches, post).unwrap();
                conn.session = Some(opened.session);
                post.signals.push((at, Signal::Ready));
                let session_present = opened.present;
                (ticket, Answer::Connected(Box::new(Connected { client_id, session_present, data: None })))
            }
            (Action::Publish(_, publish), Some(session)) => {
                let result =
                    router.publish(now, Some(&session), publish.message, publish.once, matches, post);
                let Some(ticket) = publish.ticket else { return };
                (ticket, result.map_or_else(Answer::Refused, Answer::Published))
            }
            (Action::Release(_, ticket, id), Some(session)) => {
                (ticket, Answer::Known(router.release(&session, id, post)))
            }
            (Action::Receive(_, ticket, id), Some(session)) => {
                (ticket, Answer::Known(router.receive(&session, id, post)))
            }
            (Action::Subscribe(_, ticket, list), Some(session)) => {
                let results = list.into_iter().map(|s| router.subscribe(now, &session, s, matches, post));
                (ticket, Answer::Subscribed(results.collect()))
            }
            (Action::Settle(_, id, how), Some(session)) => {
                router.settle(now, &session, id, how, post);
                return;
            }
            (Action::Disconnect(_, how), Some(session)) => {
                conn.session = None;
                router.disconnect(now, &session, at, how.with_will, how.expiry, matches, post);
                return;
            }
            (Action::Close(_, why), _) => return self.end(conn, why),
            (other, _) => panic!("the simulation does not play {other:?}"),
        };
        conn.machine.reply(now, conn.peer, ticket, answer, &mut conn.out);
    }

    /// Carries the router's signals.
    fn deliver(&mut self) {
        while !self.post.signals.is_empty() {
            for (at, signal) in std::mem::take(&mut self.post.signals) {
                let n = at.peer.slot as usize;
                let Some(mut conn) = self.conns[n].take() else { continue };
                match signal {
                    Signal::Ready => self.drain(&mut conn, at),
                    Signal::Stop(why) => {
                        conn.machine.stop(self.now, conn.peer, why, &mut conn.out);
                        self.end(&mut conn, why.close());
                    }
                    Signal::Fast(_) => panic!("nobody here subscribes to $fastlane"),
                }
                self.conns[n] = Some(conn);
            }
        }
    }

    fn drain(&mut self, conn: &mut Conn, at: Attachment) {
        let Some(session) = conn.session.clone().filter(|_| conn.is_open) else { return };
        let (now, peer, machine, out) = (self.now, conn.peer, &mut conn.machine, &mut conn.out);
        self.router.drain(now, &session, at, &mut self.post, |deliver| {
            machine.deliver(now, peer, deliver, out);
            true
        });
        self.perform(conn);
    }
}

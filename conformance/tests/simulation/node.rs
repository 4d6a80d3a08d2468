//! A driver in memory: MQTT machines, the router and a store, with a clock that stands still unless the test moves it. The
//! store's engine outlives the node when it is killed.

use std::sync::Arc;

use bytes::BytesMut;
use gateway::{
    Action, Answer, Close, Connected, Factory, Facts, Gateway, Listener, Now, Outbox, Peer, Ticket, Transport,
};
use router::{Attachment, Matches, Open, Options, Post, Router, Session, Signal};
use store::{Limits, Memory, Store};

/// One connection's side of the node.
struct Conn {
    machine: Box<dyn Gateway>,
    peer: Peer,
    session: Option<Arc<Session>>,
    input: BytesMut,
    out: Outbox,
    is_open: bool,
    /// Has its CONNACK.
    is_told: bool,
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
    disk: Memory,
    store: Arc<Store>,
    /// Answers that wait for the store: the batch, the connection, and what it gets.
    held: Vec<(u64, usize, Ticket, Answer)>,
}

fn start(disk: &Memory, now: Now) -> (Router, Arc<Store>) {
    let store = Arc::new(Store::on(Box::new(disk.clone()), Limits::default()).unwrap());
    let router = Router::new(Options::default()).with_store(store.clone(), true);
    router.restore(now).unwrap();
    (router, store)
}

impl Node {
    pub(crate) fn new() -> Node {
        let listener = Listener::new("sim", "mqtt");
        let (disk, now) = (Memory::default(), Now::from_micros(1_000_000));
        let (router, store) = start(&disk, now);
        Node {
            router,
            factory: mqtt::MqttFactory::new(mqtt::Config::default()),
            facts: Facts::new(Arc::new(listener), Transport::Tcp, ([127, 0, 0, 1], 1).into()),
            now,
            matches: Matches::default(),
            post: Post::default(),
            conns: Vec::new(),
            disk,
            store,
            held: Vec::new(),
        }
    }

    /// The process is killed and starts again: what was not written is lost, and so are all connections.
    pub(crate) fn kill(&mut self) {
        self.conns.iter_mut().for_each(|conn| *conn = None);
        self.held.clear();
        (self.post, self.matches) = (Post::default(), Matches::default());
        (self.router, self.store) = start(&self.disk, self.now);
        self.store.learn();
    }

    /// The store writes what was gathered, and who waited for it goes on.
    pub(crate) fn write(&mut self) {
        assert!(self.store.write(&|| 0, &|| {}));
        self.router.committed(&mut self.post);
        for (_, n, ticket, answer) in std::mem::take(&mut self.held) {
            let Some(mut conn) = self.conns[n].take() else { continue };
            self.reply(&mut conn, ticket, answer);
            self.conns[n] = Some(conn);
        }
        self.deliver();
    }

    /// What the store has of messages, in records.
    pub(crate) fn records(&self) -> usize {
        let rows = router::check(self.now, &*self.store.view().unwrap()).unwrap();
        assert!(rows.iter().all(|row| row.damaged == 0), "{rows:?}");
        let busy = |label: &str| ["queued", "shared", "inflight", "incoming", "ended"].contains(&label);
        rows.iter().filter(|row| busy(row.table.label())).map(|row| row.records).sum()
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
            is_told: false,
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

    fn reply(&mut self, conn: &mut Conn, ticket: Ticket, answer: Answer) {
        if !conn.is_open {
            return;
        }
        let at = Attachment { driver: 0, peer: conn.peer };
        if matches!(answer, Answer::Connected(_)) {
            conn.is_told = true;
            self.post.signals.push((at, Signal::Ready));
        }
        conn.machine.reply(self.now, conn.peer, ticket, answer, &mut conn.out);
        self.perform(conn);
    }

    fn act(&mut self, conn: &mut Conn, action: Action) {
        self.post.wait = 0;
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
                let session_present = opened.present;
                (
                    ticket,
                    Answer::Connected(Box::new(Connected {
                        client_id,
                        session_present,
                        data: None,
                        facts: Vec::new(),
                    })),
                )
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
        let n = conn.peer.slot as usize;
        let batch = std::mem::take(&mut self.post.wait);
        if batch > self.store.durable() || self.held.iter().any(|(_, other, ..)| *other == n) {
            self.held.push((batch, n, ticket, answer));
        } else {
            self.reply(conn, ticket, answer);
        }
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
        let Some(session) = conn.session.clone().filter(|_| conn.is_open && conn.is_told) else { return };
        let (now, peer, machine, out) = (self.now, conn.peer, &mut conn.machine, &mut conn.out);
        self.router.drain(now, &session, at, &mut self.post, |deliver| {
            machine.deliver(now, peer, deliver, out);
            true
        });
        self.perform(conn);
    }
}

//! A router with its clock, and clients whose driver is the test.

use std::sync::Arc;
use std::time::Duration;

use gateway::{
    Connect, Deliver, DeliveryId, Filter, Message, Now, Peer, Qos, Refusal, Settle, Stop, Subscribe, Will,
};
use store::{Limits, Store};

use router::{Attachment, Matches, Open, Options, Post, Router, Session, Signal};

/// A session that never ends by itself.
pub(crate) const NEVER: Duration = Duration::MAX;
/// A session that ends with its connection.
pub(crate) const ENDS: Duration = Duration::ZERO;

/// A router, its clock, and what it posted.
pub(crate) struct World {
    pub(crate) router: Router,
    pub(crate) store: Option<Arc<Store>>,
    pub(crate) now: Now,
    pub(crate) matches: Matches,
    pub(crate) post: Post,
    /// Mountpoint of the clients that connect from now on.
    pub(crate) mount: &'static str,
    peers: u32,
}

/// A client's connection.
#[derive(Clone)]
pub(crate) struct Client {
    pub(crate) session: Arc<Session>,
    pub(crate) at: Attachment,
    pub(crate) present: bool,
}

/// A CONNECT with these values and nothing else.
pub(crate) fn connect(id: &str, clean_start: bool, expiry: Duration) -> Connect {
    Connect { clean_start, expiry, ..Connect::new(id, "MQTT 5.0", 100) }
}

/// A subscription with these values and nothing else.
pub(crate) fn asks(filter: &str, qos: Qos) -> Subscribe {
    Subscribe {
        filter: Filter::parse(filter).unwrap(),
        qos,
        no_local: false,
        retain_as_published: false,
        retain_handling: 0,
        identifier: 0,
    }
}

impl World {
    pub(crate) fn new() -> World {
        World::with(Options::default())
    }

    pub(crate) fn with(options: Options) -> World {
        let router = Router::new(options);
        // The same tests are played with a store, as part of `tests/kept.rs`.
        let is_kept = env!("CARGO_CRATE_NAME") == "kept";
        let store = is_kept.then(|| Arc::new(Store::memory(Limits::default())));
        let router = match &store {
            Some(store) => router.with_store(store.clone(), true),
            None => router,
        };
        World::on(router, store)
    }

    pub(crate) fn on(router: Router, store: Option<Arc<Store>>) -> World {
        World {
            router,
            store,
            now: Now::from_micros(1_000_000),
            matches: Matches::default(),
            post: Post::default(),
            mount: "",
            peers: 0,
        }
    }

    pub(crate) fn join(&mut self, id: &str, clean_start: bool, expiry: Duration) -> Client {
        self.open(connect(id, clean_start, expiry), None).unwrap()
    }

    pub(crate) fn open(&mut self, mut connect: Connect, principal: Option<&str>) -> Result<Client, Refusal> {
        self.peers += 1;
        let at = Attachment { driver: 0, peer: Peer { slot: self.peers, generation: 0 } };
        let open = Open {
            connect: &mut connect,
            namespace: "",
            principal: principal.map(Arc::from),
            username: None,
            mount: self.mount.into(),
        };
        let opened = self.router.connect(self.now, at, open, &mut self.matches, &mut self.post)?;
        Ok(Client { session: opened.session, at, present: opened.present })
    }

    pub(crate) fn join_with_will(&mut self, id: &str, expiry: Duration, delay: u64) -> Client {
        let message = Message::new(self.now, "will", b"lost");
        let will = Will { message, delay: Duration::from_secs(delay) };
        self.open(Connect { will: Some(Box::new(will)), ..connect(id, false, expiry) }, None).unwrap()
    }

    pub(crate) fn subscribe(&mut self, client: &Client, filter: &str, qos: Qos) -> Result<Qos, Refusal> {
        self.ask(client, asks(filter, qos))
    }

    pub(crate) fn ask(&mut self, client: &Client, subscribe: Subscribe) -> Result<Qos, Refusal> {
        self.router.subscribe(self.now, &client.session, subscribe, &mut self.matches, &mut self.post)
    }

    pub(crate) fn unsubscribe(&mut self, client: &Client, filter: &str) -> bool {
        self.router.unsubscribe(&client.session, &Filter::parse(filter).unwrap(), &mut self.post).unwrap()
    }

    pub(crate) fn retain(&mut self, topic: &str, payload: &str) {
        let message = Message::new(self.now, topic, payload.as_bytes()).with_retain(true);
        self.router.publish(self.now, None, message, None, &mut self.matches, &mut self.post).unwrap();
    }

    pub(crate) fn publish_from(
        &mut self,
        client: &Client,
        topic: &str,
        payload: &str,
    ) -> Result<usize, Refusal> {
        let message = Message::new(self.now, topic, payload.as_bytes()).with_qos(Qos::AtLeastOnce);
        let World { router, now, matches, post, .. } = self;
        router.publish(*now, Some(&client.session), message, None, matches, post)
    }

    pub(crate) fn publish(&mut self, topic: &str, payload: &str, qos: Qos) -> Result<usize, Refusal> {
        let message = Message::new(self.now, topic, payload.as_bytes()).with_qos(qos);
        self.router.publish(self.now, None, message, None, &mut self.matches, &mut self.post)
    }

    /// Has the store write what was gathered.
    pub(crate) fn write(&mut self) {
        if let Some(store) = &self.store {
            store.write(&|| 0, &|| {});
            self.router.committed(&mut self.post);
        }
    }

    /// What the client gets now, as `payload`, `payload!` when sent again, `release`; ids go into `ids`.
    pub(crate) fn drain(&mut self, client: &Client, ids: &mut Vec<DeliveryId>) -> Vec<String> {
        let mut got = self.drain_once(client, ids);
        // Of a durable session QoS 2 comes when the disk has its packet id.
        self.write();
        got.extend(self.drain_once(client, ids));
        got
    }

    pub(crate) fn drain_once(&mut self, client: &Client, ids: &mut Vec<DeliveryId>) -> Vec<String> {
        let mut got = Vec::new();
        self.router.drain(self.now, &client.session, client.at, &mut self.post, |deliver| {
            got.push(match deliver {
                Deliver::Message(delivery) => {
                    ids.extend(delivery.id);
                    let again = if delivery.duplicate { "!" } else { "" };
                    format!("{}{again}", String::from_utf8_lossy(delivery.message.payload()))
                }
                Deliver::Release(id) => {
                    ids.push(*id);
                    "release".to_owned()
                }
                Deliver::Nothing => unreachable!("the driver says so, not the router"),
            });
            true
        });
        got
    }

    pub(crate) fn got(&mut self, client: &Client) -> Vec<String> {
        self.drain(client, &mut Vec::new())
    }

    pub(crate) fn settle(&mut self, client: &Client, id: DeliveryId, how: Settle) {
        self.router.settle(self.now, &client.session, id, how, &mut self.post);
    }

    pub(crate) fn leave(&mut self, client: &Client) {
        self.part(client, false);
    }

    pub(crate) fn lose(&mut self, client: &Client) {
        self.part(client, true);
    }

    pub(crate) fn part(&mut self, client: &Client, with_will: bool) {
        let World { router, now, matches, post, .. } = self;
        router.disconnect(*now, &client.session, client.at, with_will, None, matches, post);
    }

    pub(crate) fn wait(&mut self, seconds: u64) {
        self.now = self.now.after(Duration::from_secs(seconds));
        self.router.timeout(self.now, &mut self.matches, &mut self.post);
    }

    pub(crate) fn stopped(&self, client: &Client) -> bool {
        self.post
            .signals
            .iter()
            .any(|(at, signal)| *at == client.at && matches!(signal, Signal::Stop(Stop::TakenOver)))
    }
}

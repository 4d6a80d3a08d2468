//! What all drivers share: router, auth, metrics, mailboxes, traces.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use auth::{Auth, ListenerRules};
use gateway::{Direction, Factory, Listener, Message, Refusal, Transport};
use hashbrown::HashMap;
use parking_lot::RwLock;
use router::{Attachment, Matches, Post, Router};
use store::Store;
use tokio::sync::mpsc;

use crate::clock::Clock;
use crate::config::{Limits, ListenerSetup};
use crate::keeper::Keeper;
use crate::layer::psk_tls::PskConfig;
use crate::layer::tls::TlsConfig;
use crate::mailbox::{Mail, Mailbox};
use crate::metrics::Metrics;
use crate::requests::RequestTopic;
use crate::scripts::Scripts;
use crate::sys;

/// One listener at run time.
pub struct Port {
    /// What machines are told about it.
    pub facts: Arc<Listener>,
    /// Its configuration as it was started.
    pub setup: ListenerSetup,
    /// Makes its machines.
    pub factory: Arc<dyn Factory>,
    /// Its certificates, replaced on reload.
    pub tls: Option<Arc<TlsConfig>>,
    /// Its TLS with pre-shared keys.
    pub psk_tls: Option<PskConfig>,
    /// Conversations open now.
    pub open: AtomicUsize,
    /// DTLS associations: active, parked, half open.
    pub associations: [AtomicUsize; 3],
}

impl Port {
    /// What carries its conversations.
    pub fn transport(&self, is_datagram: bool) -> Transport {
        let is_secure = self.setup.tls.is_some() || self.setup.psk_tls.is_some();
        match (is_datagram, is_secure, self.setup.websocket.is_some()) {
            (true, ..) if self.setup.dtls.is_some() => Transport::Dtls,
            (true, ..) => Transport::Udp,
            (_, false, false) => Transport::Tcp,
            (_, true, false) => Transport::Tls,
            (_, false, true) => Transport::WebSocket,
            (_, true, true) => Transport::SecureWebSocket,
        }
    }

    /// How many associations there are, for the metrics.
    pub fn count_associations(&self, counts: [usize; 3]) {
        for (to, count) in self.associations.iter().zip(counts) {
            to.store(count, Ordering::Relaxed);
        }
    }

    /// Who may come in here.
    pub fn rules(&self) -> &ListenerRules {
        &self.setup.rules
    }
}

/// See the module.
pub struct House {
    /// Node name in `$SYS`.
    pub node: Box<str>,
    /// The clock of all drivers.
    pub clock: Clock,
    /// Topics, sessions, retained messages.
    pub router: Router,
    /// What outlives the process; none with `durability = "memory"`.
    pub store: Option<Arc<Store>>,
    /// Whether clients wait for the store.
    pub is_sync: bool,
    /// The store was failing when it last tried.
    pub was_failing: AtomicBool,
    /// Credentials and grants.
    pub auth: Auth,
    /// Counters.
    pub metrics: Metrics,
    /// Process-wide bounds.
    pub limits: RwLock<Limits>,
    /// One mailbox a driver.
    pub boxes: Vec<Mailbox>,
    /// Codecs that are called outside the process.
    pub scripts: Arc<Scripts>,
    /// Codecs that an operator brings.
    pub keeper: Arc<Keeper>,
    /// Live traces.
    pub traces: Traces,
    /// Stream connections open now.
    pub connections: AtomicUsize,
    /// Most of them that the system lets the process have open.
    pub most_connections: usize,
    /// Password checks waiting or running.
    pub logins: AtomicUsize,
    /// All listeners are open and no stop was asked for.
    pub is_ready: AtomicBool,
    /// Topics below which clients publish requests to devices, and the namespaces of these.
    pub request_topics: Vec<RequestTopic>,
    /// Folder of the node's data.
    pub data: PathBuf,
    /// All listeners.
    pub ports: Vec<Arc<Port>>,
}

impl House {
    /// Hands signals to the drivers they are for, one lock a driver.
    pub fn post(&self, post: &mut Post) {
        for (Attachment { driver, peer }, signal) in post.signals.drain(..) {
            if let Some(mailbox) = self.boxes.get(usize::from(driver)) {
                mailbox.push(Mail::Signal(peer, signal));
            }
        }
    }

    /// Publishes a message of the gateway's own and returns how many subscriptions it matched.
    pub fn publish(&self, message: Message) -> usize {
        self.publish_kept(message).map_or(0, |(matched, _)| matched)
    }

    /// The same with the batch of the store that has to be written before anybody is told that the message is kept.
    pub fn publish_kept(&self, message: Message) -> Result<(usize, u64), Refusal> {
        let (mut matches, mut post) = (Matches::default(), Post::default());
        let matched = self.router.publish(self.clock.now(), None, message, None, &mut matches, &mut post);
        self.post(&mut post);
        // The message may be a delayed one.
        if let Some(mailbox) = self.boxes.first() {
            mailbox.wake();
        }
        Ok((matched?, post.wait))
    }

    /// The store has tried to write another batch: whoever waits for it goes on.
    pub fn store_has_tried(&self) {
        let mut post = Post::default();
        self.router.committed(&mut post);
        self.post(&mut post);
        for mailbox in &self.boxes {
            mailbox.store_has_tried();
        }
        let is_failing = self.store.as_ref().is_some_and(|s| s.failure().is_some());
        if self.was_failing.swap(is_failing, Ordering::Relaxed) != is_failing {
            self.publish(sys::store_state(self.clock.now(), &self.node, !is_failing));
        }
    }

    /// Has every connected client's grant filled in anew, after the access list has changed. Who has proven one of the
    /// identities `exchanged` did so with a key that is gone: its conversation ends.
    pub fn regrant(&self, exchanged: HashSet<Box<str>>) {
        let exchanged = Arc::new(exchanged);
        for mailbox in &self.boxes {
            mailbox.push(Mail::Regrant(exchanged.clone()));
        }
    }

    /// Takes one of the places for password checks; false if all are taken.
    pub fn begin_login(&self) -> bool {
        let most = self.limits.read().max_logins;
        self.logins
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| (n < most).then_some(n + 1))
            .is_ok()
    }

    /// Gives the place back.
    pub fn end_login(&self) {
        self.logins.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Which clients are traced, and for whom. Each trace has a bounded channel; lines beyond it are lost, not waited for.
#[derive(Default)]
pub struct Traces {
    running: AtomicUsize,
    by_client: RwLock<HashMap<Box<str>, Vec<mpsc::Sender<String>>>>,
}

/// Lines a trace may lag behind.
const TRACE_LINES: usize = 4096;

impl Traces {
    /// Whether any trace runs: one load on the packet path.
    pub fn is_any(&self) -> bool {
        self.running.load(Ordering::Relaxed) > 0
    }

    /// Whether this client is traced.
    pub fn has(&self, client_id: &str) -> bool {
        self.is_any() && self.by_client.read().contains_key(client_id)
    }

    /// Begins a trace.
    pub fn begin(&self, client_id: &str) -> mpsc::Receiver<String> {
        let (sender, receiver) = mpsc::channel(TRACE_LINES);
        self.by_client.write().entry_ref(client_id).or_default().push(sender);
        self.running.fetch_add(1, Ordering::Relaxed);
        receiver
    }

    /// Hands a line to who traces the client, and forgets those who have left.
    pub fn line(&self, wall_ms: u64, client_id: &str, address: SocketAddr, direction: Direction, text: &str) {
        let arrow = if direction == Direction::In { "<-" } else { "->" };
        self.tell(client_id, || format!("{wall_ms} {client_id} {address} {arrow} {text}"));
    }

    /// The same with what is no packet: a line that a script wrote while it worked for the client.
    pub fn note(&self, wall_ms: u64, client_id: &str, text: &str) {
        self.tell(client_id, || format!("{wall_ms} {client_id} -- {text}"));
    }

    fn tell(&self, client_id: &str, line: impl FnOnce() -> String) {
        let gone = {
            let map = self.by_client.read();
            let Some(senders) = map.get(client_id) else { return };
            let line = line();
            senders.iter().filter(|s| s.try_send(line.clone()).is_err_and(|e| is_closed(&e))).count()
        };
        if gone > 0 {
            self.forget_closed();
        }
    }

    /// Forgets traces whose reader has left.
    pub fn forget_closed(&self) {
        let mut map = self.by_client.write();
        map.retain(|_, senders| {
            let before = senders.len();
            senders.retain(|s| !s.is_closed());
            self.running.fetch_sub(before - senders.len(), Ordering::Relaxed);
            !senders.is_empty()
        });
    }
}

fn is_closed(e: &mpsc::error::TrySendError<String>) -> bool {
    matches!(e, mpsc::error::TrySendError::Closed(_))
}

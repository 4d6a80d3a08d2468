//! What is kept of one peer, and of the client that is there.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use gateway::{Action, DeliveryId, Facts, Instant, Message, Outbox, Peer, Qos, Transport, Will};

use crate::config::Config;
use crate::frame::{Flags, TopicId};
use crate::ticket::{Asked, ticket};
use crate::topics::Topics;

/// Message ids of the client's last messages of QoS 1, and released ones of QoS 2, that are remembered, to tell which it repeats.
const REMEMBERED: usize = 4;
/// Datagrams that may wait for a session to be opened.
pub(crate) const MAX_HELD: usize = 8;

/// What a peer is (6.14; 6.8).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Nobody that is known.
    Stranger,
    /// It only publishes with QoS -1.
    Publisher,
    /// Connected, and not asleep.
    Active,
    /// It is sent nothing.
    Asleep,
    /// It has said PINGREQ, and gets what waits.
    Awake,
}

/// One peer.
pub(crate) struct Conversation {
    pub(crate) address: SocketAddr,
    /// Where a layer says that it may be now.
    pub(crate) candidate: Option<SocketAddr>,
    /// What stands before each message to a node behind a forwarder (5.5), as it stood before the last one from it.
    pub(crate) wrapping: Box<[u8]>,
    /// DTLS.
    pub(crate) is_sealed: bool,
    /// The client id that it has proven.
    pub(crate) credential: Option<Arc<str>>,
    /// When it was last heard.
    pub(crate) seen: Instant,
    pub(crate) scheduled: Instant,
    pub(crate) phase: Phase,
    /// A session that is being opened.
    pub(crate) pending: Option<Box<Pending>>,
    pub(crate) client: Option<Box<Client>>,
    /// The will, or none, that the router was last asked to take and has not answered.
    pub(crate) next_will: Option<Option<Box<Will>>>,
    /// The peer that the client was last asked to be let in at.
    pub(crate) goes_to: Option<Peer>,
}

/// How far the opening of a session is (6.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// WILLTOPICREQ was sent.
    WillTopic,
    /// WILLMSGREQ was sent.
    WillMsg,
    /// The driver was asked.
    Opening,
}

/// Why a session is being opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reason {
    /// CONNECT.
    Connect,
    /// A client that is known, or was before this gateway was started, goes on without one.
    Resume,
    /// To publish with QoS -1.
    Publish,
}

/// See [`Conversation::pending`].
pub(crate) struct Pending {
    pub(crate) reason: Reason,
    pub(crate) step: Step,
    pub(crate) client_id: Box<str>,
    pub(crate) flags: Flags,
    pub(crate) duration: u16,
    pub(crate) will_topic: Option<(Flags, Box<str>)>,
    pub(crate) will: Option<Box<Will>>,
    /// The client as it was at another address, and what it was.
    pub(crate) moved: Option<(Box<Client>, Phase)>,
    /// What came meanwhile, or has caused this.
    pub(crate) held: Vec<Box<[u8]>>,
    pub(crate) due: Instant,
    pub(crate) tries: u32,
}

/// A client with a session.
pub(crate) struct Client {
    pub(crate) client_id: Box<str>,
    /// Its session ends with its connection.
    pub(crate) is_clean: bool,
    /// Seconds; zero is none.
    pub(crate) keep_alive: u16,
    /// Seconds that it may sleep; zero if it has not said that it would.
    pub(crate) sleep: u16,
    pub(crate) will: Option<Box<Will>>,
    /// It was asked for its will when it was last let in.
    pub(crate) was_asked: bool,
    /// Where it is, as it is kept for the time after a restart ([`crate::kept::place`]).
    pub(crate) place: Box<[u8]>,
    pub(crate) topics: Topics,
    pub(crate) outgoing: Option<Outgoing>,
    /// It is at an address that nothing shows to be its own: it is sent one message that it has to answer.
    pub(crate) is_unproven: bool,
    pub(crate) last_register: u16,
    pub(crate) acknowledged: [u16; REMEMBERED],
    pub(crate) next_acknowledged: u8,
}

/// What was sent and waits for its answer: one at a time (6.10).
pub(crate) struct Outgoing {
    pub(crate) what: What,
    /// When it is sent again; never: it waits for its first time.
    pub(crate) due: Instant,
    pub(crate) tries: u32,
}

/// See [`Outgoing`].
pub(crate) enum What {
    /// REGISTER, and what is to be published after it.
    Register { topic: u16, msg_id: u16, held: Held },
    /// PUBLISH of QoS 1 or 2.
    Publish { topic: TopicId, held: Held },
    /// PUBREC has come; whether the router has noted it.
    Received { id: DeliveryId },
    /// PUBREL.
    Release { id: DeliveryId },
}

/// A delivery.
#[derive(Clone)]
pub(crate) struct Held {
    pub(crate) id: Option<DeliveryId>,
    pub(crate) message: Message,
    pub(crate) qos: Qos,
    pub(crate) retain: bool,
    pub(crate) is_dup: bool,
    /// The client has said that it does not know the id that it was told for this topic.
    pub(crate) is_disowned: bool,
}

impl Conversation {
    pub(crate) fn new(now: Instant, facts: &Facts) -> Conversation {
        Conversation {
            address: facts.address,
            candidate: None,
            wrapping: Box::default(),
            is_sealed: facts.transport == Transport::Dtls,
            credential: facts.client_id.clone(),
            seen: now,
            scheduled: Instant::NEVER,
            phase: Phase::Stranger,
            pending: None,
            client: None,
            next_will: None,
            goes_to: None,
        }
    }

    pub(crate) fn has_session(&self) -> bool {
        self.client.is_some()
    }

    /// Whether CONNECT without CleanSession goes on with the session: one with CleanSession is not durable and ends with its
    /// connection, but for a sleeper CONNECT is how it wakes (6.14).
    pub(crate) fn can_go_on(&self) -> bool {
        self.client.as_ref().is_some_and(|k| !k.is_clean || self.phase != Phase::Active)
    }

    /// The client, who is somewhere else from now on.
    pub(crate) fn take_client(&mut self) -> Option<(Box<Client>, Phase)> {
        let client = self.client.take()?;
        Some((client, std::mem::replace(&mut self.phase, Phase::Stranger)))
    }

    /// When something has to be done about it.
    pub(crate) fn due(&self, config: &Config) -> Instant {
        if let Some(pending) = &self.pending {
            return pending.due;
        }
        let Some(client) = &self.client else { return self.seen + config.idle_timeout };
        match (&client.outgoing, self.phase) {
            (Some(outgoing), Phase::Active | Phase::Awake) => outgoing.due.min(self.end(config)),
            _ => self.end(config),
        }
    }

    /// When the client is lost if nothing is heard of it.
    pub(crate) fn end(&self, config: &Config) -> Instant {
        let Some(client) = &self.client else { return self.seen + config.idle_timeout };
        let seconds = match self.phase {
            Phase::Asleep | Phase::Awake => client.sleep,
            _ => client.keep_alive,
        };
        // Without a keep alive nobody has to say anything, but nobody is there for ever.
        self.seen + if seconds == 0 { config.session_expiry } else { tolerated(seconds) }
    }
}

/// A keep-alive or sleep duration with the tolerance that is recommended (7.2): a tenth above a minute, half below.
pub(crate) fn tolerated(seconds: u16) -> Duration {
    let ms = u64::from(seconds) * if seconds > 60 { 1100 } else { 1500 };
    Duration::from_millis(ms)
}

impl Pending {
    pub(crate) fn new(reason: Reason, client_id: &str) -> Pending {
        Pending {
            reason,
            step: Step::Opening,
            client_id: client_id.into(),
            flags: Flags::default(),
            duration: 0,
            will_topic: None,
            will: None,
            moved: None,
            held: Vec::new(),
            due: Instant::NEVER,
            tries: 0,
        }
    }
}

impl Client {
    pub(crate) fn new(client_id: &str) -> Client {
        Client {
            client_id: client_id.into(),
            is_clean: true,
            keep_alive: 0,
            sleep: 0,
            will: None,
            was_asked: false,
            place: Box::default(),
            topics: Topics::default(),
            outgoing: None,
            is_unproven: false,
            last_register: 0,
            acknowledged: [0; REMEMBERED],
            next_acknowledged: 0,
        }
    }

    /// The will as the router has to have it: that of a sleeper waits for as long as it may sleep, if nobody is there to see
    /// after that because the gateway was stopped or killed.
    pub(crate) fn armed(&self) -> Option<Box<Will>> {
        let mut will = self.will.clone()?;
        will.delay = if self.sleep > 0 { tolerated(self.sleep) } else { Duration::ZERO };
        Some(will)
    }

    /// Has the router take the will, after the sleep duration has changed.
    pub(crate) fn arm(&self, peer: Peer, out: &mut Outbox) {
        if self.will.is_some() {
            out.act(Action::SetWill(peer, ticket(Asked::Nothing, 0, 0), self.armed()));
        }
    }

    /// CONNECT: its ids may begin anew.
    pub(crate) fn forget_acknowledged(&mut self) {
        self.acknowledged = [0; REMEMBERED];
    }

    /// Remembers that this message was published.
    pub(crate) fn acknowledge(&mut self, msg_id: u16) {
        self.acknowledged[usize::from(self.next_acknowledged)] = msg_id;
        self.next_acknowledged = (self.next_acknowledged + 1) % REMEMBERED as u8;
    }

    pub(crate) fn next_register(&mut self) -> u16 {
        // 0x0000 is reserved (5.3.7).
        self.last_register = self.last_register.checked_add(1).unwrap_or(1);
        self.last_register
    }
}

/// All peers, by their slots.
#[derive(Default)]
pub(crate) struct Table(Vec<Option<(u32, Box<Conversation>)>>);

impl Table {
    pub(crate) fn get(&self, peer: Peer) -> Option<&Conversation> {
        let (generation, c) = self.0.get(peer.slot as usize)?.as_ref()?;
        (*generation == peer.generation).then_some(c)
    }

    pub(crate) fn get_mut(&mut self, peer: Peer) -> Option<&mut Conversation> {
        let (generation, c) = self.0.get_mut(peer.slot as usize)?.as_mut()?;
        (*generation == peer.generation).then_some(c)
    }

    pub(crate) fn insert(&mut self, peer: Peer, c: Conversation) {
        let slot = peer.slot as usize;
        if self.0.len() <= slot {
            self.0.resize_with(slot + 1, || None);
        }
        self.0[slot] = Some((peer.generation, Box::new(c)));
    }

    pub(crate) fn remove(&mut self, peer: Peer) -> Option<Box<Conversation>> {
        self.0.get_mut(peer.slot as usize)?.take_if(|(g, _)| *g == peer.generation).map(|(_, c)| c)
    }
}

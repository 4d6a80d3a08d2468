//! What is kept of one peer: exchanges remembered for de-duplication, observations, and what waits to be acknowledged.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use gateway::{Filter, Instant, Qos};

use crate::block::Szx;
use crate::blockwise::Fetching;
use crate::client::Asking;
use crate::exchange::Exchanges;
use crate::frame::{Message, Token};
use crate::request::{Identity, Operation};
use crate::transmission::Outgoing;

/// Longest time an observation goes without a Confirmable notification (RFC 7641, 4.5).
pub(crate) const CONFIRM_AT_LEAST: Duration = Duration::from_secs(86_400);
/// Every how many notifications an unauthenticated client has to confirm one (RFC 7641, 7).
pub(crate) const CONFIRM_EVERY: u32 = 5;

/// Whether a session is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// None.
    Without,
    /// Asked for.
    Opening,
    /// Open.
    Open,
}

/// One observation (RFC 7641).
#[derive(Clone, Debug)]
pub(crate) struct Observation {
    /// The client's token.
    pub(crate) token: Token,
    /// What is observed.
    pub(crate) filter: Filter,
    /// Number of the subscription; observations of one filter share it.
    pub(crate) identifier: u32,
    /// Granted.
    pub(crate) qos: Qos,
    /// Sequence number of the last notification.
    pub(crate) sequence: u32,
    /// The Content-Format that all its notifications have to be of, once it is known (RFC 7641, 4.2); of a filter with
    /// wildcards each topic has its own.
    pub(crate) format: Option<u16>,
    /// Where sequence numbers go on after a restart.
    pub(crate) reserved: u32,
    /// Notifications since the last Confirmable one.
    pub(crate) unconfirmed: u32,
    /// When the last Confirmable one was sent.
    pub(crate) confirmed: Instant,
    /// Block2: the size of blocks that was asked for.
    pub(crate) szx: Option<Szx>,
}

/// Sequence numbers have 24 bits (RFC 7641, 3.4).
const SEQUENCE: u32 = 0xFF_FFFF;

impl Observation {
    /// One that nothing was sent for yet.
    pub(crate) fn new(token: Token, filter: Filter, identifier: u32, now: Instant) -> Observation {
        let (sequence, reserved, unconfirmed) = (1, 1, 0);
        let qos = Qos::AtMostOnce;
        Observation {
            token,
            filter,
            identifier,
            qos,
            format: None,
            sequence,
            reserved,
            unconfirmed,
            confirmed: now,
            szx: None,
        }
    }

    /// Whether a value of this Content-Format fits those before it; one that says none fits all.
    pub(crate) fn takes(&mut self, format: Option<u16>) -> bool {
        format.is_none_or(|format| *self.format.get_or_insert(format) == format)
    }

    /// The sequence number so many later.
    pub(crate) fn sequence_after(&self, count: u32) -> u32 {
        self.sequence.wrapping_add(count) & SEQUENCE
    }

    /// How many more numbers are reserved.
    pub(crate) fn left(&self) -> u32 {
        self.reserved.wrapping_sub(self.sequence) & SEQUENCE
    }

    /// The number of one more notification.
    pub(crate) fn next_sequence(&mut self) -> u32 {
        self.sequence = self.sequence_after(1);
        self.sequence
    }
}

/// What an answer of the driver is for.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    /// A session for the operations that wait.
    Open,
    /// A named session.
    Connect,
    /// A publication.
    Publish {
        /// Answered 2.02.
        is_delete: bool,
    },
    /// A value to read.
    Read {
        /// Where it is.
        topic: String,
        /// Accept.
        accept: Option<u32>,
        /// ETag: those that the client has.
        etags: Vec<Vec<u8>>,
    },
    /// An observation that is to begin.
    Subscribe {
        /// Its token.
        token: Token,
    },
    /// Its first value.
    First {
        /// Its token.
        token: Token,
        /// Whether the value is wanted.
        is_wanted: bool,
    },
    /// `/.well-known/core`.
    Discover {
        /// Name and value to filter by.
        query: Option<(String, String)>,
    },
    /// The token of a named session that is to be kept; its client is told it then.
    Token(String),
    /// Nothing is left to be done.
    Nothing,
}

/// See the module.
pub(crate) struct Conversation {
    /// Where the peer is.
    pub(crate) address: SocketAddr,
    /// When the peer was heard last.
    pub(crate) seen: Instant,
    /// Message ID of the last message to the peer.
    pub(crate) last_id: u16,
    /// Whether a session is there.
    pub(crate) phase: Phase,
    /// Whose.
    pub(crate) who: Identity,
    /// Who it will be when the session that is being opened is open.
    pub(crate) next: Identity,
    /// The same of the keep-alive.
    pub(crate) next_keep_alive: Duration,
    /// While a session is being opened: there is one that goes on if that fails.
    pub(crate) goes_on: bool,
    /// Its credential stands for this client id: every request from here is that client's.
    pub(crate) credential: Option<Arc<str>>,
    /// The session outlives its connection, and what it observes with it.
    pub(crate) is_kept: bool,
    /// What is sent to it is sealed for its association: another peer that shows its token does not hold the keys.
    pub(crate) is_sealed: bool,
    /// Where the peer may be by now.
    pub(crate) candidate: Option<SocketAddr>,
    /// Message ids of probes, and where they went.
    pub(crate) probes: Vec<(u16, SocketAddr)>,
    /// The request whose answer may have been too much for an address that is not proven.
    pub(crate) cut_short: Option<u16>,
    /// The message in flight whose acknowledgement may come from another port.
    pub(crate) claim: Option<(IpAddr, u16)>,
    /// Requests to a group that are not answered yet.
    pub(crate) groups: Vec<u16>,
    /// Answers to such that wait for their time.
    pub(crate) leisure: Vec<(Instant, Message)>,
    /// Opened by POST /mqtt/connection, with this token.
    pub(crate) token: Option<String>,
    /// The token was given at this address: who shows it here receives here.
    pub(crate) is_token_of_here: bool,
    /// Of a named session.
    pub(crate) keep_alive: Duration,
    /// The peer was seen to receive at its address.
    pub(crate) is_verified: bool,
    /// The challenge sent in an Echo option (RFC 9175).
    pub(crate) echo: Option<[u8; 8]>,
    /// Operations that wait for the session, by message id.
    pub(crate) waiting: VecDeque<(u16, Operation, Message)>,
    /// Requests that may be repeated.
    pub(crate) exchanges: Exchanges,
    /// In the order in which they began.
    pub(crate) observations: Vec<Observation>,
    /// Number of the last subscription.
    pub(crate) last_identifier: u32,
    /// The Confirmable message in flight (NSTART = 1), then those behind it.
    pub(crate) outgoing: VecDeque<Outgoing>,
    /// Requests to the peer's own server.
    pub(crate) asking: Asking,
    /// The delivery whose rest is being fetched.
    pub(crate) fetching: Option<Fetching>,
    /// Non-confirmable notifications sent lately, so that a Reset finds its observation.
    pub(crate) recent: VecDeque<(u16, Token)>,
    /// What answers are for, by ticket, with the message id of the request.
    pub(crate) steps: VecDeque<(u64, u16, Step)>,
    /// When the machine looks at it next.
    pub(crate) scheduled: Instant,
}

/// Non-confirmable notifications remembered.
const RECENT: usize = 16;

impl Conversation {
    /// A peer that was not heard yet.
    pub(crate) fn new(now: Instant, address: SocketAddr, last_id: u16, keep_alive: Duration) -> Conversation {
        Conversation {
            address,
            seen: now,
            last_id,
            phase: Phase::Without,
            who: Identity::default(),
            next: Identity::default(),
            next_keep_alive: keep_alive,
            goes_on: false,
            credential: None,
            is_kept: false,
            is_sealed: false,
            candidate: None,
            probes: Vec::new(),
            cut_short: None,
            claim: None,
            groups: Vec::new(),
            leisure: Vec::new(),
            token: None,
            is_token_of_here: false,
            keep_alive,
            is_verified: false,
            echo: None,
            waiting: VecDeque::new(),
            exchanges: Exchanges::default(),
            observations: Vec::new(),
            last_identifier: 0,
            outgoing: VecDeque::new(),
            asking: Asking::default(),
            fetching: None,
            recent: VecDeque::new(),
            steps: VecDeque::new(),
            scheduled: Instant::NEVER,
        }
    }

    /// A message id that was not used lately.
    pub(crate) fn next_id(&mut self) -> u16 {
        self.last_id = self.last_id.wrapping_add(1);
        self.last_id
    }

    /// The peer was heard.
    pub(crate) fn heard(&mut self, now: Instant) {
        self.seen = now;
        if let Some(first) = self.outgoing.front_mut() {
            first.wake(now);
        }
    }

    /// The observation with this token.
    pub(crate) fn observation(&mut self, token: Token) -> Option<&mut Observation> {
        self.observations.iter_mut().find(|o| o.token == token)
    }

    /// Remembers which observation a Non-confirmable notification was for.
    pub(crate) fn remember(&mut self, id: u16, token: Token) {
        if self.recent.len() >= RECENT {
            self.recent.pop_front();
        }
        self.recent.push_back((id, token));
    }

    /// When something is due: an acknowledgement, a retransmission, or the end.
    pub(crate) fn due(&self, idle: Duration) -> Instant {
        let sends = self.outgoing.front().map(|o| o.due);
        let leisure = self.leisure.iter().map(|(at, _)| *at).min();
        let rest = self.fetching.as_ref().map(|f| f.due);
        [self.exchanges.due(), sends, leisure, self.asking.due(), rest]
            .into_iter()
            .flatten()
            .min()
            .unwrap_or(Instant::NEVER)
            .min(self.end(idle))
    }

    /// When the conversation ends if nothing is heard.
    pub(crate) fn end(&self, idle: Duration) -> Instant {
        if self.token.is_some() {
            return self.seen + self.keep_alive.mul_f64(1.5);
        }
        let patience = if self.observations.is_empty() { idle } else { CONFIRM_AT_LEAST.mul_f64(1.5) };
        // A peer that was forgotten while its message ids may come again would be answered twice.
        (self.seen + patience).max(self.exchanges.last()).max(self.asking.last())
    }
}

//! What is kept of one peer: exchanges remembered for de-duplication, observations, and what waits to be acknowledged.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use gateway::{DeliveryId, Filter, Instant};

use crate::frame::{Kind, Message, Token};
use crate::request::{Identity, Operation};

/// EXCHANGE_LIFETIME with the default transmission parameters (RFC 7252, 4.8.2).
pub(crate) const EXCHANGE_LIFETIME: Duration = Duration::from_secs(247);
/// NON_LIFETIME (RFC 7252, 4.8.2).
pub(crate) const NON_LIFETIME: Duration = Duration::from_secs(145);
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

/// A request that came, remembered until its message id may come again.
#[derive(Clone, Debug)]
pub(crate) struct Exchange {
    /// Message ID of the request.
    pub(crate) id: u16,
    /// Con or Non.
    pub(crate) kind: Kind,
    /// Its token.
    pub(crate) token: Token,
    /// May be forgotten before others: a repeated GET does no harm.
    pub(crate) is_safe: bool,
    /// Bytes of the request.
    pub(crate) size: usize,
    /// When the request's message id may be used again.
    pub(crate) expires: Instant,
    /// When a Confirmable request must be acknowledged without its answer; None once it is.
    pub(crate) ack_due: Option<Instant>,
    /// What was sent back last.
    pub(crate) answer: Option<Vec<u8>>,
    /// Answered to the end.
    pub(crate) is_done: bool,
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
    /// Sequence number of the last notification.
    pub(crate) sequence: u32,
    /// Notifications since the last Confirmable one.
    pub(crate) unconfirmed: u32,
    /// When the last Confirmable one was sent.
    pub(crate) confirmed: Instant,
}

/// A Confirmable message that waits for its turn, or for its acknowledgement.
#[derive(Clone, Debug)]
pub(crate) struct Outgoing {
    /// What is sent.
    pub(crate) message: Message,
    /// The observation it notifies.
    pub(crate) observation: Option<Token>,
    /// The delivery that is settled with it.
    pub(crate) delivery: Option<DeliveryId>,
    /// Times sent again.
    pub(crate) retries: u32,
    /// When it is sent again.
    pub(crate) due: Instant,
    /// Time-out, doubled each time (4.2).
    pub(crate) timeout: Duration,
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
        /// Accept.
        accept: Option<u32>,
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
    /// Opened by POST /mqtt/connection, with this token.
    pub(crate) token: Option<String>,
    /// Of a named session.
    pub(crate) keep_alive: Duration,
    /// The peer was seen to receive at its address.
    pub(crate) is_verified: bool,
    /// The challenge sent in an Echo option (RFC 9175).
    pub(crate) echo: Option<[u8; 8]>,
    /// Operations that wait for the session, by message id.
    pub(crate) waiting: VecDeque<(u16, Operation, Message)>,
    /// Oldest first.
    pub(crate) exchanges: VecDeque<Exchange>,
    /// In the order in which they began.
    pub(crate) observations: Vec<Observation>,
    /// Number of the last subscription.
    pub(crate) last_identifier: u32,
    /// The Confirmable message in flight (NSTART = 1), then those behind it.
    pub(crate) outgoing: VecDeque<Outgoing>,
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
            token: None,
            keep_alive,
            is_verified: false,
            echo: None,
            waiting: VecDeque::new(),
            exchanges: VecDeque::new(),
            observations: Vec::new(),
            last_identifier: 0,
            outgoing: VecDeque::new(),
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

    /// The exchange of this message id, if it is remembered.
    pub(crate) fn exchange(&mut self, id: u16) -> Option<&mut Exchange> {
        self.exchanges.iter_mut().rev().find(|e| e.id == id)
    }

    /// Forgets exchanges whose time has passed; returns how many.
    pub(crate) fn forget_expired(&mut self, now: Instant) -> usize {
        let before = self.exchanges.len();
        self.exchanges.retain(|e| e.expires > now || !e.is_done);
        before - self.exchanges.len()
    }

    /// Makes room for one more exchange by forgetting one that does least harm; false if there is none.
    pub(crate) fn forget_one(&mut self) -> bool {
        let at = self.exchanges.iter().position(|e| e.is_done && (e.is_safe || e.kind == Kind::Non));
        at.is_some_and(|at| self.exchanges.remove(at).is_some())
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
        let acks = self.exchanges.iter().filter_map(|e| e.ack_due);
        let sends = self.outgoing.front().map(|o| o.due);
        acks.chain(sends).min().unwrap_or(Instant::NEVER).min(self.end(idle))
    }

    /// When the conversation ends if nothing is heard.
    pub(crate) fn end(&self, idle: Duration) -> Instant {
        if self.token.is_some() {
            return self.seen + self.keep_alive.mul_f64(1.5);
        }
        let patience = if self.observations.is_empty() { idle } else { CONFIRM_AT_LEAST.mul_f64(1.5) };
        // A peer that was forgotten while its message ids may come again would be answered twice.
        let remembered = self.exchanges.iter().filter(|e| !e.is_safe).map(|e| e.expires).max();
        (self.seen + patience).max(remembered.unwrap_or_default())
    }
}

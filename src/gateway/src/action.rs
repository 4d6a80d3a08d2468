//! What a machine asks of its driver, and what it gets back.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;

use crate::call::{CallFailure, Calls};
use crate::message::{Message, Qos};
use crate::peer::{Close, Drop, Peer};
use crate::request::Outcome;
use crate::topic::Filter;

/// Names a request so that its answer can be told apart. Its meaning is the machine's own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ticket(pub u64);

/// Names a delivery of QoS 1 or 2 within its session. For MQTT it is the packet identifier; never zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DeliveryId(pub u16);

/// The message to publish when a client is lost (MQTT 5.0, 3.1.2.5).
#[derive(Clone, Debug)]
pub struct Will {
    /// Topic, payload, QoS, retain and properties.
    pub message: Message,
    /// How long after the loss.
    pub delay: Duration,
}

/// Opens a session, or takes it over.
#[derive(Clone, Debug)]
pub struct Connect {
    /// As the client sent it; empty asks for an assigned one.
    pub client_id: Box<str>,
    /// User name.
    pub username: Option<Box<str>>,
    /// Password.
    pub password: Option<Bytes>,
    /// Enhanced authentication (MQTT 5.0, 4.12): method and first data.
    pub method: Option<(Box<str>, Bytes)>,
    /// Discard what is left of an earlier session.
    pub clean_start: bool,
    /// How long the session outlives its connection; zero ends with it, `Duration::MAX` never.
    pub expiry: Duration,
    /// Most QoS 1 and 2 deliveries unsettled at a time (receive maximum, NSTART).
    pub credit: u16,
    /// Published when the client is lost.
    pub will: Option<Box<Will>>,
    /// Protocol and version for `$SYS` and listings, such as `MQTT 5.0`.
    pub protocol: &'static str,
    /// In seconds as the client asked; zero is none. For listings; the machine itself keeps the time.
    pub keep_alive: u16,
    /// A conversation without a session of its own name (CoAP without connection): no presence messages, and
    /// client id rules for named sessions do not hold.
    pub is_transient: bool,
    /// In place of a password: what was kept with the session as the fact [`TOKEN`]. It opens that session alone.
    pub token: Option<Bytes>,
    /// Facts kept with the session whose names begin so come with [`Connected`]; empty is none.
    pub load: &'static str,
    /// Only if this is so of the session: `NoSession` otherwise, and nothing of it changes.
    pub only_if: Option<OnlyIf>,
    /// The peer of the same driver that the client was at. Once it is let in, its session goes over from there, even one that
    /// ends with its connection, and no will is published for that. That peer is told as who was taken over.
    pub moved_from: Option<Peer>,
}

impl Connect {
    /// A session that begins anew and ends with its connection, for a client that says nothing else.
    pub fn new(client_id: impl Into<Box<str>>, protocol: &'static str, credit: u16) -> Connect {
        Connect {
            client_id: client_id.into(),
            username: None,
            password: None,
            method: None,
            clean_start: true,
            expiry: Duration::ZERO,
            credit,
            will: None,
            protocol,
            keep_alive: 0,
            is_transient: false,
            token: None,
            load: "",
            only_if: None,
            moved_from: None,
        }
    }
}

/// See [`Connect::only_if`].
#[derive(Clone, Debug)]
pub struct OnlyIf {
    /// Name of the fact that is looked at.
    pub fact: &'static str,
    /// Whether the session is the right one, as it was found and compared with `with`.
    pub is_so: fn(Found<'_>, &[u8]) -> bool,
    /// See `is_so`.
    pub with: Box<[u8]>,
}

/// A client's session as it is found.
#[derive(Clone, Copy, Debug)]
pub struct Found<'a> {
    /// The fact kept with it; None if there is no such fact, or no such session.
    pub fact: Option<&'a [u8]>,
    /// It is connected.
    pub is_connected: bool,
}

impl OnlyIf {
    /// Whether it is so.
    pub fn holds(&self, found: Found<'_>) -> bool {
        (self.is_so)(found, &self.with)
    }
}

/// Name of the fact that is asked for with [`Connect::token`].
pub const TOKEN: &str = "token";

/// One filter of a SUBSCRIBE with its options (MQTT 5.0, 3.8.3.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subscribe {
    /// What to.
    pub filter: Filter,
    /// Highest QoS of deliveries.
    pub qos: Qos,
    /// Not what this client itself publishes.
    pub no_local: bool,
    /// Deliveries keep the RETAIN flag as published.
    pub retain_as_published: bool,
    /// Retained messages: 0 send, 1 send if the subscription is new, 2 do not.
    pub retain_handling: u8,
    /// The machine's number for this subscription, given back with each delivery (MQTT 5.0 Subscription Identifier;
    /// a CoAP observation); zero is none.
    pub identifier: u32,
}

/// Work for the driver. Each names the peer it is for.
#[derive(Clone, Debug)]
pub enum Action {
    /// Authenticate and open or take over a session: `Connected`, `Challenge` or `Refused`.
    Connect(Peer, Ticket, Box<Connect>),
    /// The client's next step of an enhanced authentication: `Challenge`, `Connected`, `Authenticated` or `Refused`.
    Exchange(Peer, Ticket, Bytes),
    /// Authenticate again within a session (MQTT 5.0, 4.12.1), method and data: `Challenge`, `Authenticated` or `Refused`.
    Reauthenticate(Peer, Ticket, Box<str>, Bytes),
    /// Publish. `Published` or `Refused` comes back if a ticket is given.
    Publish(Peer, Publish),
    /// The client released a QoS 2 message it had published (PUBREL): `Known`.
    Release(Peer, Ticket, u16),
    /// Subscribe: `Subscribed`, a result for each filter, in order.
    Subscribe(Peer, Ticket, Vec<Subscribe>),
    /// Unsubscribe: `Unsubscribed`, a result for each filter, in order.
    Unsubscribe(Peer, Ticket, Vec<Filter>),
    /// A QoS 1 delivery was acknowledged, a QoS 2 one completed: gives its credit back.
    Settle(Peer, DeliveryId, Settle),
    /// A QoS 2 delivery was received (PUBREC): the router keeps the release from now on: `Known`.
    Receive(Peer, Ticket, DeliveryId),
    /// Change how long the session outlives its connection.
    SetExpiry(Peer, Duration),
    /// Retained messages that a filter matches, at most `limit`, as far as the client may subscribe to them: `Retained`.
    Retained(Peer, Ticket, Filter, usize),
    /// Keep a fact with the client's session under this name, or forget it: `Saved`, when it is as durable as the session is.
    Save(Peer, Ticket, Box<str>, Option<Bytes>),
    /// The facts kept with the client's session whose names begin so: `Loaded`.
    Load(Peer, Ticket, Box<str>),
    /// Replace the will, or take it back: `Saved`.
    SetWill(Peer, Ticket, Option<Box<Will>>),
    /// Whether the client takes its next delivery. A peer that this was ever said of is handed one delivery at a time, and
    /// each of them has to be asked for again; one that was asked for comes when it is there. Datagrams only.
    Want(Peer, bool),
    /// The session's connection ends in order. `with_will`: publish the will all the same (MQTT 5.0 DISCONNECT 0x04).
    Disconnect(Peer, Disconnect),
    /// The second peer has proven to be the first, who has moved: its address is one that the first may be at, as after
    /// [`crate::Gateway::moved`]. The second is closed. Datagrams only.
    Rebind(Peer, Peer),
    /// The peer has not moved: whoever is at the address that it may have been at is somebody else. Datagrams only.
    Stay(Peer),
    /// What was sent with [`crate::Outbox::probe`] to this address of the peer has arrived: it is its address now.
    Reached(Peer, SocketAddr),
    /// Call functions of a program (a script) outside the process: `Called`. A peer has one such call at a time.
    Call(Peer, Ticket, Calls),
    /// What was left in the buffer after [`crate::Flow::Pause`] is handed in again, although no answer has come. Streams only.
    Resume(Peer),
    /// What came of [`crate::Gateway::command`].
    Answered(Peer, Ticket, Outcome),
    /// Send this to an address that is no peer's, such as a multicast group. The peers of a DTLS listener have no use for it.
    Announce(SocketAddr, Vec<u8>),
    /// End the conversation when what was sent before is written.
    Close(Peer, Close),
    /// Something was dropped; count it.
    Drop(Peer, Drop),
    /// A line for `tidegate trace`; made only while [`crate::Outbox::is_traced`] says so.
    Trace(Peer, Direction, String),
}

/// See [`Action::Publish`].
#[derive(Clone, Debug)]
pub struct Publish {
    /// What to publish.
    pub message: Message,
    /// Asks for an answer.
    pub ticket: Option<Ticket>,
    /// QoS 2: the client's packet identifier. The router publishes it once until it is released.
    pub once: Option<u16>,
}

/// See [`Action::Disconnect`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Disconnect {
    /// Publish the will, as if the client was lost.
    pub with_will: bool,
    /// A new session expiry.
    pub expiry: Option<Duration>,
}

/// How a delivery ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settle {
    /// The client has it.
    Done,
    /// The client refused it (reason code of 0x80 or more): it is discarded (MQTT-4.8.2-6).
    Refused,
}

/// Which way a traced packet went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the client.
    In,
    /// To the client.
    Out,
}

/// Why a request was refused; each gateway maps it to what its protocol says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// User name, password, certificate or proof is wrong.
    BadCredentials,
    /// The enhanced authentication method is not served.
    BadMethod,
    /// Known, but may not do this; or nobody, where nobody may.
    NotAuthorised,
    /// This client id may not be used (too long, empty where it must not be).
    ClientId,
    /// The session belongs to another principal.
    NotOwner,
    /// Banned.
    Banned,
    /// A limit was reached.
    QuotaExceeded,
    /// Cannot do it now; later may work.
    ServerBusy,
    /// It would have to be kept, and the store has no room or cannot write: it was not done, and must not be acknowledged.
    NotKept,
    /// The topic name is not acceptable here.
    TopicName,
    /// The topic filter is not acceptable here.
    TopicFilter,
    /// Another client holds the exclusive subscription.
    ExclusiveTaken,
    /// It was done and could not be written: it may be kept or not. It must be neither acknowledged nor refused for good; who
    /// asked may ask again.
    Uncertain,
    /// No session: the request needs one.
    NoSession,
    /// A mistake of this program; it is logged.
    Internal,
}

/// What [`Action::Connect`] or the last step of an enhanced authentication brought.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connected {
    /// The client id, assigned if the client sent none.
    pub client_id: Box<str>,
    /// Whether an earlier session goes on (Session Present).
    pub session_present: bool,
    /// Last data of an enhanced authentication.
    pub data: Option<Bytes>,
    /// What [`Connect::load`] asked for, in the order of the names.
    pub facts: Vec<(Box<str>, Bytes)>,
}

/// The answer to an action that carried a ticket.
#[derive(Clone, Debug)]
pub enum Answer {
    /// The session is open.
    Connected(Box<Connected>),
    /// Enhanced authentication goes on with this data.
    Challenge(Bytes),
    /// Authenticated again.
    Authenticated(Bytes),
    /// Published, to this many subscriptions.
    Published(usize),
    /// Whether the packet identifier was known.
    Known(bool),
    /// For each filter the QoS granted.
    Subscribed(Vec<Result<Qos, Refusal>>),
    /// For each filter whether there was such a subscription.
    Unsubscribed(Vec<Result<bool, Refusal>>),
    /// Retained messages with their topics as this client sees them.
    Retained(Vec<(Box<str>, Message)>),
    /// The fact is kept, or forgotten.
    Saved,
    /// Facts with their names, in the order of these.
    Loaded(Vec<(Box<str>, Bytes)>),
    /// What came of each call, in order.
    Called(Vec<Result<Bytes, CallFailure>>),
    /// It was refused.
    Refused(Refusal),
}

/// What is handed to a client.
#[derive(Clone, Copy, Debug)]
pub struct Delivery<'a> {
    /// For QoS 1 and 2; settle it.
    pub id: Option<DeliveryId>,
    /// The message.
    pub message: &'a Message,
    /// Its topic as this client sees it, without the mountpoint.
    pub topic: &'a str,
    /// QoS of this delivery.
    pub qos: Qos,
    /// RETAIN flag of this delivery.
    pub retain: bool,
    /// Sent before, and not acknowledged.
    pub duplicate: bool,
    /// Identifiers of the subscriptions that matched, without zeros.
    pub subscriptions: &'a [u32],
}

/// Something the driver hands to a connected peer.
#[derive(Clone, Copy, Debug)]
pub enum Deliver<'a> {
    /// A message.
    Message(Delivery<'a>),
    /// A QoS 2 delivery that the client has received and not completed: ask again (PUBREL).
    Release(DeliveryId),
    /// What was asked for with [`Action::Want`] is not there yet: nothing waits for the client.
    Nothing,
}

/// Why the driver asks a machine to end a conversation; `closed` follows when that was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// Another connection took the session over.
    TakenOver,
    /// The operator ended it.
    Kicked,
    /// The gateway stops.
    ShuttingDown,
    /// It sends faster than allowed.
    RateLimited,
    /// It does not read.
    SlowPeer,
}

impl Stop {
    /// The reason that is counted.
    pub fn close(self) -> Close {
        match self {
            Stop::TakenOver => Close::TakenOver,
            Stop::Kicked => Close::Kicked,
            Stop::ShuttingDown => Close::ShuttingDown,
            Stop::RateLimited => Close::RateLimited,
            Stop::SlowPeer => Close::SlowPeer,
        }
    }
}

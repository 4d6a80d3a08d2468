//! The contract between a protocol machine (a [`Gateway`]) and the driver that runs it.
//!
//! A gateway is a state machine, not a server: it is handed bytes, time and deliveries, and fills an [`Outbox`]. It
//! cannot do IO because it cannot name a socket, a runtime or a clock. So every protocol is tested with a fake clock,
//! simulated loss and a fuzzer.
//!
//! One value serves one stream (TCP, TLS, WebSocket), or all peers of a datagram socket (UDP); hence every call names
//! its [`Peer`]. Rules that a driver keeps:
//!
//! - `opened` comes first and `closed` last for a peer; nothing names the peer after `closed`.
//! - Answers to one peer come in the order of their actions, except to `Connect`, `Exchange`, `Reauthenticate` and
//!   `Call`, which may take long.
//! - After every call the driver carries out `out.actions` in order, then asks `next_timeout`.
//! - `deliver` is called only between `Connected` and the end of the session's connection.

use std::net::SocketAddr;

use bytes::BytesMut;

pub mod action;
pub mod call;
pub mod config;
pub mod message;
pub mod outbox;
pub mod peer;
pub mod request;
pub mod time;
pub mod topic;

pub use action::{
    Action, Answer, Connect, Connected, Deliver, Delivery, DeliveryId, Direction, Disconnect, Found, OnlyIf,
    Publish, Refusal, Settle, Stop, Subscribe, TOKEN, Ticket, Will,
};
pub use call::{CallFailure, Calls, Function, ProgramId};
pub use message::{Message, Properties, Publisher, Qos};
pub use outbox::{Frame, Outbox};
pub use peer::{Certificate, Close, Drop, Facts, Listener, Peer, Transport};
pub use request::{Failure, Method, Outcome, Request};
pub use time::{Deadlines, Instant, Now};
pub use topic::{Filter, TopicError};

/// What `input` wants next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// More bytes, when there are any.
    Continue,
    /// Nothing until a `reply` to this peer, or [`Action::Resume`]: bytes left in the buffer are handed in again after it.
    /// Streams only.
    Pause,
    /// The bytes are somebody else's, who has the peer's address now: the peer is at none any more, and the same bytes come
    /// again from a new one. Datagrams only.
    Stranger,
}

/// A protocol machine.
pub trait Gateway: Send {
    /// A conversation begins.
    fn opened(&mut self, now: Now, peer: Peer, facts: &Facts, out: &mut Outbox);

    /// Bytes came. A stream's machine takes whole packets off the front and leaves the rest; a datagram's takes all.
    /// An error ends this peer's conversation after `out.wire` was written, and nothing else.
    fn input(&mut self, now: Now, peer: Peer, bytes: &mut BytesMut, out: &mut Outbox) -> Result<Flow, Close>;

    /// As `input`, of a datagram that was sent to a group of hosts (multicast). Not every protocol has something to say then.
    fn group(&mut self, _now: Now, peer: Peer, _bytes: &mut BytesMut, out: &mut Outbox) {
        out.act(Action::Drop(peer, Drop::Unsupported));
    }

    /// The part of a datagram that names one of several peers behind the address that it came from; empty if it is the only
    /// one. Datagrams only.
    fn node<'a>(&self, _bytes: &'a [u8]) -> &'a [u8] {
        &[]
    }

    /// A layer has proof that the peer's newest bytes came from another address. Until [`Action::Reached`] what is sent to
    /// the peer goes to both its addresses, to the new one as far as not much more is sent there than came from there
    /// (RFC 9146, 6; RFC 9175, 2.4). Datagrams only.
    fn moved(&mut self, _now: Now, _peer: Peer, _to: SocketAddr, _out: &mut Outbox) {}

    /// Something for a connected client.
    fn deliver(&mut self, now: Now, peer: Peer, deliver: &Deliver<'_>, out: &mut Outbox);

    /// The answer to an action with a ticket.
    fn reply(&mut self, now: Now, peer: Peer, ticket: Ticket, answer: Answer, out: &mut Outbox);

    /// Ask the device something: answered with [`Action::Answered`], exactly once, if it is not closed before.
    fn command(&mut self, _now: Now, peer: Peer, ticket: Ticket, _request: &Request, out: &mut Outbox) {
        out.act(Action::Answered(peer, ticket, Err(Failure::Unsupported)));
    }

    /// Say in the protocol's words why the conversation ends; the driver closes it.
    fn stop(&mut self, now: Now, peer: Peer, why: Stop, out: &mut Outbox);

    /// The conversation is over; forget it. Nothing can be sent any more.
    fn closed(&mut self, now: Now, peer: Peer, out: &mut Outbox);

    /// The time that `next_timeout` gave has come.
    fn timeout(&mut self, now: Now, out: &mut Outbox);

    /// When the machine wants `timeout`, and why.
    fn next_timeout(&self) -> Option<(Instant, &'static str)>;

    /// What an operator sees of this conversation beside what the driver knows: name and value.
    fn describe(&self, peer: Peer, into: &mut Vec<(&'static str, String)>);
}

/// Makes one machine for each stream or datagram socket of a listener.
pub trait Factory: Send + Sync {
    /// A machine that has not met a peer.
    fn build(&self) -> Box<dyn Gateway>;

    /// Where clients may publish requests to this gateway's devices: `{this}/{client id}/request`. None is nowhere.
    fn request_topic(&self) -> Option<&str> {
        None
    }
}

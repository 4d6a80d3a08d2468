//! CoAP over TCP, TLS and WebSocket (RFC 8323). A stream has a machine of its own, with one peer.
//!
//! ```text
//! CSM      <->  CSM        first of all, both ways: what each can receive
//! request   ->             as over UDP, but neither repeated nor acknowledged; several at once, answers in any order
//!           <-  answer
//!           <-  2.05       notifications: settled when they are written
//! Ping     <->  Pong       Custody: when all requests before it were answered
//! Release   ->             what is being done is answered, then the connection is closed
//! Abort    <->             closed at once, with words
//! ```
//!
//! Requests become the same messages as over UDP, Confirmable and with a message id that only this machine knows; where
//! messages leave they lose both again.

pub mod frame;
pub mod signal;

use std::time::Duration;

use bytes::BytesMut;
use gateway::{Action, Close, Direction, Drop, Flow, Instant, Now, Outbox, Peer, Stop, Transport};

use crate::block::{Room, Szx};
use crate::blockwise::limits;
use crate::conversation::Phase;
use crate::frame::{Code, Kind, Message, Token};
use crate::shelf::{Budget, Share};
use crate::{Coap, Config, Response, describe};

use frame::{Framing, Splitter};
use signal::Capabilities;

/// Requests of a peer that may wait for their answers; it is not read further until one was answered.
const MAX_IN_FLIGHT: usize = 64;
/// Deliveries to a peer at a time: each is settled when it is written.
pub(crate) const CREDIT: u16 = 64;
/// How long the first message may be waited for.
const CSM_TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes of a message that are not for its payload: head, and options of usual lengths.
const OVERHEAD: usize = 128;

/// Bytes of a message that is not complete which count for nothing: most messages are smaller, and come in one piece.
const FREE: usize = 16 << 10;

/// What is known of a stream beside its conversation.
pub(crate) struct Stream {
    framing: Framing,
    splitter: Splitter,
    /// What of a message came that is not complete, among bodies on their way.
    partial: Share,
    peer: Capabilities,
    opened: Instant,
    /// The peer's CSM came.
    is_ready: bool,
    /// A Ping that is answered when all requests before it were.
    custody: Option<Token>,
    /// The peer has sent a Release.
    is_released: bool,
    /// The connection's end was asked for.
    is_closing: bool,
    /// When the peer was sent a Ping; nothing was heard since.
    pinged: Option<Instant>,
}

impl Stream {
    /// Of a conversation that has just begun, if it is one over a stream.
    pub(crate) fn new(
        now: Now,
        transport: Transport,
        config: &Config,
        bodies: &Budget,
    ) -> Option<Box<Stream>> {
        let framing = match transport {
            Transport::Tcp | Transport::Tls => Framing::Tcp,
            Transport::WebSocket | Transport::SecureWebSocket => Framing::WebSocket,
            Transport::Udp | Transport::Dtls => return None,
        };
        Some(Box::new(Stream {
            framing,
            splitter: Splitter::new(framing, config.max_message_size),
            partial: Share::new(bodies.clone()),
            peer: Capabilities::default(),
            opened: now.instant,
            is_ready: false,
            custody: None,
            is_released: false,
            is_closing: false,
            pinged: None,
        }))
    }

    /// What a message to the peer may carry.
    pub(crate) fn room(&self) -> Room {
        let szx = if self.peer.has_bert() { Szx::BERT } else { Szx::LARGEST };
        Room { payload: self.peer.max_message_size.saturating_sub(OVERHEAD), szx }
    }

    /// Appends a message; false if the peer does not take one of its size.
    pub(crate) fn encode(&self, message: &Message, out: &mut Vec<u8>) -> bool {
        // Signals are for all.
        let fits =
            message.code.class() == 7 || frame::length(message, self.framing) <= self.peer.max_message_size;
        if fits {
            frame::encode(message, self.framing, out);
        }
        fits
    }

    /// When a Ping is due, or the end of the connection.
    fn due(&self, seen: Instant, interval: Duration) -> Instant {
        match self.pinged {
            _ if self.is_closing => Instant::NEVER,
            _ if !self.is_ready => self.opened + CSM_TIMEOUT,
            Some(pinged) => pinged + interval,
            None => seen + interval,
        }
    }
}

impl Coap {
    /// The first message (RFC 8323, 5.3).
    pub(crate) fn greet(&self, peer: Peer, out: &mut Outbox) {
        let max_message_size = self.config.max_message_size;
        self.send(peer, &Capabilities { max_message_size, has_blocks: true }.csm(), out);
    }

    /// Takes the messages that are complete.
    pub(crate) fn stream_input(
        &mut self,
        now: Now,
        peer: Peer,
        bytes: &mut BytesMut,
        out: &mut Outbox,
    ) -> Result<Flow, Close> {
        while let (Some(stream), Some(c)) = (&mut self.stream, self.peers.get_mut(&peer)) {
            if stream.is_released || stream.is_closing {
                bytes.clear();
                break;
            }
            // One at a time while a session is being opened, for those behind may run in it.
            let is_busy = c.phase == Phase::Opening || stream.custody.is_some();
            if is_busy || c.exchanges.len() >= MAX_IN_FLIGHT {
                return Ok(Flow::Pause);
            }
            match stream.splitter.next(bytes) {
                Ok(Some(message)) => self.received(now, peer, message, out)?,
                Ok(None) => return self.wait_for_more(peer, bytes.len(), out),
                Err(why) => {
                    let close = match why {
                        frame::Malformed::TooLarge => Close::TooLarge,
                        _ => Close::Malformed,
                    };
                    return self.abort(peer, None, why.text(), close, out).map(|()| Flow::Continue);
                }
            }
        }
        Ok(Flow::Continue)
    }

    /// A message is not complete. All that wait for the rest of one have the room that bodies in blocks have, those that have
    /// not said who they are half of it: otherwise many who begin and do not go on take all the memory there is.
    fn wait_for_more(&mut self, peer: Peer, waiting: usize, out: &mut Outbox) -> Result<Flow, Close> {
        let (Some(stream), Some(c)) = (&mut self.stream, self.peers.get(&peer)) else {
            return Ok(Flow::Continue);
        };
        let limits = limits(&self.config);
        let most = if c.phase == Phase::Open { limits.all } else { limits.unverified };
        let waiting =
            Some(waiting + stream.splitter.begun()).filter(|bytes| *bytes > FREE).unwrap_or_default();
        if stream.partial.set(waiting, most) {
            return Ok(Flow::Continue);
        }
        let text = "too much is on its way that is not complete";
        self.abort(peer, None, text, Close::QuotaExceeded, out).map(|()| Flow::Continue)
    }

    fn received(&mut self, now: Now, peer: Peer, message: Message, out: &mut Outbox) -> Result<(), Close> {
        out.trace(peer, Direction::In, || describe(&message));
        let (Some(stream), Some(c)) = (&mut self.stream, self.peers.get_mut(&peer)) else { return Ok(()) };
        c.seen = now.instant;
        stream.pinged = None;
        let is_ready = stream.is_ready;
        match message.code {
            // Empty messages are ignored (RFC 8323, 5.4).
            Code::EMPTY => {}
            signal::CSM => return self.settings(peer, &message, out),
            _ if !is_ready => {
                let text = "the first message must be a CSM";
                return self.abort(peer, None, text, Close::ProtocolError, out);
            }
            code if code.class() == 7 => return self.signalled(peer, &message, out),
            code if code.is_request() => self.stream_request(now, peer, message, out),
            code if matches!(code.class(), 2 | 4 | 5) => {
                let id = c.next_id();
                self.separate(now, peer, &Message { kind: Kind::Non, id, ..message }, out);
            }
            _ => out.act(Action::Drop(peer, Drop::Unexpected)),
        }
        Ok(())
    }

    fn settings(&mut self, peer: Peer, csm: &Message, out: &mut Outbox) -> Result<(), Close> {
        let Some(stream) = &mut self.stream else { return Ok(()) };
        stream.is_ready = true;
        match stream.peer.update(csm) {
            Ok(()) => Ok(()),
            Err(option) => {
                let text = "this option of the CSM is not known or not right";
                self.abort(peer, Some(option), text, Close::ProtocolError, out)
            }
        }
    }

    fn signalled(&mut self, peer: Peer, message: &Message, out: &mut Outbox) -> Result<(), Close> {
        let (Some(stream), Some(c)) = (&mut self.stream, self.peers.get(&peer)) else { return Ok(()) };
        if signal::critical(message).is_some() && message.code != signal::ABORT {
            let text = "a critical option of a signal is not known";
            return self.abort(peer, None, text, Close::ProtocolError, out);
        }
        match message.code {
            signal::PING => {
                let wants_custody = message.all(signal::CUSTODY).next().is_some();
                if wants_custody && c.exchanges.len() > 0 {
                    stream.custody = Some(message.token);
                } else {
                    self.pong(peer, message.token, wants_custody, out);
                }
            }
            signal::PONG => {}
            signal::RELEASE => {
                stream.is_released = true;
                self.close_if_done(peer, out);
            }
            signal::ABORT => return Err(Close::PeerClosed),
            _ => out.act(Action::Drop(peer, Drop::Unexpected)),
        }
        Ok(())
    }

    fn pong(&self, peer: Peer, token: Token, has_custody: bool, out: &mut Outbox) {
        let mut pong = Message { token, ..signal::signal(signal::PONG) };
        if has_custody {
            pong.add(signal::CUSTODY, &[]);
        }
        self.send(peer, &pong, out);
    }

    fn stream_request(&mut self, now: Now, peer: Peer, mut request: Message, out: &mut Outbox) {
        let Some(c) = self.peers.get_mut(&peer) else { return };
        let mut id = c.next_id();
        // One that takes very long keeps its own.
        while c.exchanges.open(id).is_some() {
            id = c.next_id();
        }
        (request.kind, request.id) = (Kind::Con, id);
        c.exchanges.hold(&request);
        if let Err(response) = self.begin(now, peer, request, out) {
            self.answer(now, peer, id, response, out);
        }
    }

    /// Sends the answer to the request with this message id; false if it was answered already.
    pub(crate) fn stream_answer(
        &mut self,
        now: Now,
        peer: Peer,
        id: u16,
        response: Response,
        out: &mut Outbox,
    ) -> bool {
        let Some(c) = self.peers.get_mut(&peer) else { return false };
        let Some(exchange) = c.exchanges.release(id) else { return false };
        let response = self.fit(now, peer, exchange.asked(), response);
        let mut answer =
            Message { code: response.code, token: exchange.token, ..Message::empty(Kind::Ack, id) };
        response.options.iter().for_each(|(number, value)| answer.add(*number, value));
        answer.payload = response.payload.into();
        self.send(peer, &answer, out);
        self.close_if_done(peer, out);
        true
    }

    /// Does what waits for the last request to be answered.
    fn close_if_done(&mut self, peer: Peer, out: &mut Outbox) {
        let (Some(stream), Some(c)) = (&mut self.stream, self.peers.get(&peer)) else { return };
        if c.exchanges.len() > 0 {
            return;
        }
        if stream.is_released && !stream.is_closing {
            stream.is_closing = true;
            out.act(Action::Close(peer, Close::Goodbye));
        }
        if let Some(token) = stream.custody.take() {
            self.pong(peer, token, true, out);
        }
    }

    /// Says why the connection cannot go on (RFC 8323, 5.6); the error ends it.
    fn abort(
        &mut self,
        peer: Peer,
        bad_csm_option: Option<u16>,
        text: &str,
        why: Close,
        out: &mut Outbox,
    ) -> Result<(), Close> {
        self.send(peer, &signal::abort(bad_csm_option, text), out);
        if let Some(stream) = &mut self.stream {
            stream.is_closing = true;
        }
        Err(why)
    }

    /// The driver ends the conversation: an orderly end where the peer may come again (RFC 8323, 5.5).
    pub(crate) fn farewell(&mut self, peer: Peer, why: Stop, out: &mut Outbox) {
        let message = match why {
            Stop::ShuttingDown => signal::signal(signal::RELEASE),
            Stop::TakenOver => signal::abort(None, "the session goes on in another connection"),
            Stop::Kicked => signal::abort(None, "ended by the operator"),
            Stop::RateLimited => signal::abort(None, "too fast"),
            Stop::SlowPeer => signal::abort(None, "too slow"),
        };
        self.send(peer, &message, out);
    }

    /// When a stream is to be looked at for itself.
    pub(crate) fn stream_due(&self, seen: Instant) -> Instant {
        self.stream.as_ref().map_or(Instant::NEVER, |s| s.due(seen, self.config.ping_interval))
    }

    /// Finds out whether somebody is there still (RFC 8323, 5.4), and ends the connection if nobody is.
    pub(crate) fn is_stream_ended(&mut self, now: Now, peer: Peer, out: &mut Outbox) -> bool {
        let interval = self.config.ping_interval;
        let Some(seen) = self.peers.get(&peer).map(|c| c.seen) else { return false };
        let Some(stream) = &mut self.stream else { return false };
        if stream.is_closing || stream.due(seen, interval) > now.instant {
            return stream.is_closing;
        }
        if stream.is_ready && stream.pinged.is_none() {
            stream.pinged = Some(now.instant);
            self.send(peer, &signal::signal(signal::PING), out);
            return false;
        }
        let (text, why) = match stream.is_ready {
            true => ("a Ping was not answered", Close::KeepAlive),
            false => ("no CSM came", Close::ConnectTimeout),
        };
        if let Err(why) = self.abort(peer, None, text, why, out) {
            out.act(Action::Close(peer, why));
        }
        true
    }
}

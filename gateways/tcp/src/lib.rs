//! Private protocols over TCP, TLS, UDP and DTLS: a listener names a codec, which knows the devices' language, and
//! everything else is the same for every device.
//!
//! ```text
//! bytes -> codec -> Login      -> session                 -> answer, or refusal and the end
//!                   Data       -> {device}/up/{kind}      -> answer when it is published and kept
//!                   Reply      -> {device}/up/reply       what came of a command
//!                   Heartbeat                             -> answer
//! {device}/dn/{kind} -> codec -> bytes
//! ```
//!
//! One [`Tcp`] serves a stream, or all peers of a datagram socket; a peer's conversation is the same for both.

mod answers;
mod command;
pub mod config;
mod conversation;
mod language;
mod login;
mod naming;
mod read;
mod script;
mod ticket;
mod topics;
mod up;

use std::collections::HashMap;
use std::sync::Arc;

use bytes::BytesMut;
use codecs::{Library, hex};
use gateway::{
    Action, Answer, Close, Deadlines, Deliver, Direction, Factory, Facts, Flow, Gateway, Instant, Now,
    Outbox, Peer, Settle, Stop, Ticket, Transport,
};

pub use config::Config;
pub use naming::Naming;
pub use topics::Topics;

use conversation::{Conversation, Phase};
use login::unsaid;
use ticket::Asked;
use up::Step;

/// The system's randomness: fills the buffer, false if it cannot. For tokens that nobody can guess.
pub type Random = Arc<dyn Fn(&mut [u8]) -> bool + Send + Sync>;

/// Makes machines for a listener.
pub struct TcpFactory(Arc<Site>);

/// What all machines of a listener share.
pub(crate) struct Site {
    pub(crate) config: Config,
    pub(crate) library: Arc<Library>,
    random: Random,
}

impl TcpFactory {
    /// Machines with this configuration, codecs and randomness.
    pub fn new(config: Config, library: Arc<Library>, random: Random) -> TcpFactory {
        TcpFactory(Arc::new(Site { config, library, random }))
    }
}

impl Factory for TcpFactory {
    fn build(&self) -> Box<dyn Gateway> {
        Box::new(Tcp::new(self.0.clone()))
    }
}

/// See the module.
pub struct Tcp {
    site: Arc<Site>,
    peers: HashMap<Peer, Box<Conversation>>,
    deadlines: Deadlines<Peer>,
    token: Token,
}

/// What the next device gets that is to be issued something; None if there is no randomness.
type Token = Option<[u8; 16]>;

/// What every step of a conversation is handed.
pub(crate) struct Turn<'a> {
    pub(crate) now: Now,
    pub(crate) peer: Peer,
    pub(crate) out: &'a mut Outbox,
    pub(crate) site: &'a Site,
    token: &'a mut Token,
}

impl<'a> Turn<'a> {
    pub(crate) fn config(&self) -> &'a Config {
        &self.site.config
    }

    /// For a device that is to be issued something.
    pub(crate) fn token(&self) -> &str {
        self.token.as_ref().and_then(|t| std::str::from_utf8(t).ok()).unwrap_or_default()
    }

    /// The token is somebody's.
    pub(crate) fn take_token(&mut self) -> Option<Box<str>> {
        let taken: Option<Box<str>> = Some(self.token()).filter(|t| !t.is_empty()).map(Into::into);
        *self.token = self.site.token();
        taken
    }

    /// The one place where bytes leave.
    pub(crate) fn send(&mut self, bytes: &[u8], line: impl FnOnce() -> String) {
        if bytes.is_empty() {
            return;
        }
        self.out.send(self.peer).extend_from_slice(bytes);
        self.out.trace(self.peer, Direction::Out, line);
    }
}

impl Site {
    fn token(&self) -> Token {
        let mut bytes = [0; 8];
        if !(self.random)(&mut bytes) {
            return None;
        }
        hex::encode(&bytes).into_bytes().try_into().ok()
    }
}

impl Tcp {
    fn new(site: Arc<Site>) -> Tcp {
        let token = site.token();
        Tcp { site, peers: HashMap::new(), deadlines: Deadlines::default(), token }
    }

    /// One step of a peer's conversation, and then the time of its next look.
    fn step<T>(
        &mut self,
        now: Now,
        peer: Peer,
        out: &mut Outbox,
        step: impl FnOnce(&mut Conversation, &mut Turn<'_>) -> T,
    ) -> Option<T> {
        let c = self.peers.get_mut(&peer)?;
        let mut turn = Turn { now, peer, out, site: &self.site, token: &mut self.token };
        let result = step(c, &mut turn);
        let due = c.due(&self.site.config);
        if due < c.scheduled {
            self.deadlines.cancel(c.scheduled, peer);
            c.scheduled = due;
            self.deadlines.set(due, peer);
        }
        Some(result)
    }
}

impl Conversation {
    /// As [`Gateway::input`].
    fn input(&mut self, t: &mut Turn<'_>, bytes: &mut BytesMut) -> Result<Step, Close> {
        self.seen = t.now.instant;
        if self.is_datagram {
            let datagram = bytes.split();
            if !datagram.is_empty() {
                self.keep_datagram(t, datagram);
            }
        } else if self.language.pause().is_some() {
            return self.pieces(t, bytes);
        }
        self.pump(t, bytes)
    }

    /// Of a stream whose frames end with a pause: as much as can wait here, and the rest where it is.
    fn pieces(&mut self, t: &mut Turn<'_>, bytes: &mut BytesMut) -> Result<Step, Close> {
        loop {
            let before = bytes.len();
            self.gather(t, bytes);
            let step = self.pump(t, bytes)?;
            if step == Step::Wait || bytes.is_empty() || bytes.len() == before {
                return Ok(step);
            }
        }
    }

    /// Goes on after an answer or a pause: nobody is there to be told an error but the driver.
    fn go_on(&mut self, t: &mut Turn<'_>) {
        if let Err(why) = self.pump(t, &mut BytesMut::new()) {
            self.close(t, why);
        }
    }

    /// Anybody can write the address of a datagram: who is nobody, and does not become somebody, takes no place.
    fn leave_if_nobody(&mut self, t: &mut Turn<'_>) {
        let is_nobody = self.phase == Phase::Stranger && self.facts.transport == Transport::Udp;
        if is_nobody && self.is_idle() {
            self.close(t, Close::Idle);
        }
    }

    /// The time of something has come.
    fn look(&mut self, t: &mut Turn<'_>) {
        let now = t.now.instant;
        if self.end(t.config()) <= now {
            let why = match self.phase {
                Phase::Open => Close::KeepAlive,
                _ if self.is_datagram => Close::Idle,
                _ => Close::ConnectTimeout,
            };
            return self.close(t, why);
        }
        self.repeat_commands(t);
        let was_busy = self.call_at.take_if(|at| *at <= now).is_some();
        self.end_of_pause(t);
        self.go_on(t);
        // Nothing is asked again where the script is no more: no answer will end the stream's pause.
        if was_busy && !self.is_datagram && self.call.is_none() && self.phase != Phase::Closing {
            t.out.act(Action::Resume(t.peer));
        }
    }
}

impl Gateway for Tcp {
    fn opened(&mut self, now: Now, peer: Peer, facts: &Facts, out: &mut Outbox) {
        self.peers.insert(peer, Box::new(Conversation::new(now.instant, facts)));
        self.step(now, peer, out, |c, t| {
            c.language.refresh(t.config(), &t.site.library, None, c.is_datagram);
            if matches!(c.language.kind, language::Kind::Missing) {
                return c.close(t, Close::NoCodec);
            }
            let naming = &t.config().device;
            match naming.known(facts) {
                Some(name) => c.open(t, unsaid(name), None),
                None if naming.is_of_connection() => c.close(t, Close::NotAuthorised),
                None => {}
            }
        });
    }

    fn input(&mut self, now: Now, peer: Peer, bytes: &mut BytesMut, out: &mut Outbox) -> Result<Flow, Close> {
        let step = |c: &mut Conversation, t: &mut Turn<'_>| {
            let step = c.input(t, bytes);
            c.leave_if_nobody(t);
            step
        };
        let step = self.step(now, peer, out, step).unwrap_or(Ok(Step::GoOn))?;
        let is_stream = self.peers.get(&peer).is_some_and(|c| !c.is_datagram);
        Ok(if is_stream && step == Step::Wait { Flow::Pause } else { Flow::Continue })
    }

    fn deliver(&mut self, now: Now, peer: Peer, deliver: &Deliver<'_>, out: &mut Outbox) {
        self.step(now, peer, out, |c, t| match deliver {
            Deliver::Message(d) => {
                c.deliver(t, d);
                c.go_on(t);
            }
            // What the session has of a client of another protocol is not this device's.
            Deliver::Release(id) => t.out.act(Action::Settle(t.peer, *id, Settle::Done)),
            Deliver::Nothing => {}
        });
    }

    fn reply(&mut self, now: Now, peer: Peer, ticket: Ticket, answer: Answer, out: &mut Outbox) {
        self.step(now, peer, out, |c, t| {
            match (ticket::asked(ticket), answer) {
                (Some((Asked::Session, _)), answer) => c.opened(t, &answer),
                (Some((Asked::Token, _)), answer) => c.kept_token(t, &answer),
                (Some((Asked::Publish, seq)), answer) => c.published(t, seq, &answer),
                (Some((Asked::Call, number)), Answer::Called(results)) => c.called(t, number, results),
                (Some((Asked::Commands, _)), Answer::Subscribed(results)) => {
                    if let Some(Err(why)) = results.first() {
                        t.out.trace(peer, Direction::Out, || format!("it gets no commands: {why:?}"));
                    }
                }
                _ => {}
            }
            c.go_on(t);
            c.leave_if_nobody(t);
        });
    }

    fn stop(&mut self, _: Now, _: Peer, _: Stop, _: &mut Outbox) {
        // Codecs have no word for it: devices see the end of the connection, or of the answers.
    }

    fn closed(&mut self, _: Now, peer: Peer, _: &mut Outbox) {
        if let Some(c) = self.peers.remove(&peer) {
            self.deadlines.cancel(c.scheduled, peer);
        }
    }

    fn timeout(&mut self, now: Now, out: &mut Outbox) {
        while let Some(peer) = self.deadlines.pop(now.instant) {
            if let Some(c) = self.peers.get_mut(&peer) {
                c.scheduled = Instant::NEVER;
            }
            self.step(now, peer, out, Conversation::look);
        }
    }

    fn next_timeout(&self) -> Option<(Instant, &'static str)> {
        self.deadlines.next().map(|at| (at, "tcp"))
    }

    fn describe(&self, peer: Peer, into: &mut Vec<(&'static str, String)>) {
        let Some(c) = self.peers.get(&peer) else { return };
        into.push(("codec", c.language.describe(&self.site.config)));
        into.push(("device", c.name().unwrap_or_default().to_owned()));
        into.push(("state", format!("{:?}", c.phase).to_lowercase()));
        into.push(("commands", c.commands.len().to_string()));
        into.push(("unanswered_frames", c.answers.len().to_string()));
    }
}

#[cfg(test)]
mod tests;

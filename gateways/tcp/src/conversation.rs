//! What is known of one peer.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use codecs::{Frame, Up};
use gateway::{Action, Close, Drop, Facts, Instant};

use crate::Turn;
use crate::answers::{Answers, Seq};
use crate::command::Commands;
use crate::config::Config;
use crate::language::Language;
use crate::login::Opening;
use crate::script::Call;

/// How far the device's session is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// It has none.
    Stranger,
    /// The driver was asked for it, or to keep its token.
    Opening,
    /// It has one.
    Open,
    /// Its end was asked for.
    Closing,
}

/// A device with a session.
pub(crate) struct Device {
    pub(crate) login: codecs::Login,
    /// What all topics of its commands begin with.
    pub(crate) down: Box<str>,
}

/// Bad frames in a row after which a peer is closed, of strangers and of devices.
const MOST_BAD: (u32, u32) = (100, 1000);

/// One peer.
pub(crate) struct Conversation {
    pub(crate) is_datagram: bool,
    pub(crate) facts: Facts,
    /// When it may be asked to say who it is.
    pub(crate) begun: Instant,
    pub(crate) seen: Instant,
    pub(crate) scheduled: Instant,
    pub(crate) phase: Phase,
    pub(crate) opening: Option<Box<Opening>>,
    /// What the current frame's answer issues.
    pub(crate) issued: Option<Box<str>>,
    pub(crate) device: Option<Box<Device>>,
    /// The frame by which it came in, until that is answered.
    pub(crate) greeting: Option<Seq>,
    pub(crate) language: Language,
    /// What came of a frame that ends with a pause.
    pub(crate) gathered: BytesMut,
    /// Datagrams, and frames that ended with a pause.
    pub(crate) datagrams: VecDeque<BytesMut>,
    /// The datagram that is being read, or what a script has not taken of a stream.
    pub(crate) buffer: BytesMut,
    /// Bytes of `buffer` that the script has seen, and could take nothing of.
    pub(crate) refused: usize,
    /// Frames for a script that takes payloads.
    pub(crate) payloads: VecDeque<Bytes>,
    /// Frames that were read, and not carried out.
    pub(crate) frames: VecDeque<Frame>,
    /// What is left of the frame that is being carried out.
    pub(crate) current: Option<(Seq, VecDeque<Up>)>,
    pub(crate) answers: Answers,
    /// It goes on when all frames before the current one are answered.
    pub(crate) drains: bool,
    pub(crate) commands: Commands,
    pub(crate) call: Option<Call>,
    pub(crate) last_call: u32,
    /// A call is tried again then.
    pub(crate) call_at: Option<Instant>,
    /// Bad frames in a row.
    pub(crate) bad: u32,
}

impl Conversation {
    pub(crate) fn new(now: Instant, facts: &Facts) -> Conversation {
        Conversation {
            is_datagram: facts.transport.is_datagram(),
            facts: facts.clone(),
            begun: now,
            seen: now,
            scheduled: Instant::NEVER,
            phase: Phase::Stranger,
            opening: None,
            issued: None,
            device: None,
            greeting: None,
            language: Language::default(),
            gathered: BytesMut::new(),
            datagrams: VecDeque::new(),
            buffer: BytesMut::new(),
            refused: 0,
            payloads: VecDeque::new(),
            frames: VecDeque::new(),
            current: None,
            answers: Answers::default(),
            drains: false,
            commands: Commands::default(),
            call: None,
            last_call: 0,
            call_at: None,
            bad: 0,
        }
    }

    /// The device's name, if it has a session.
    pub(crate) fn name(&self) -> Option<&str> {
        self.device.as_deref().map(|d| &*d.login.device)
    }

    /// Whether nothing can be carried out before the driver has answered something.
    pub(crate) fn is_waiting(&self) -> bool {
        let is_full = self.current.is_none() && self.answers.is_full();
        self.phase == Phase::Opening || is_full || self.drains && self.answers.len() > 1
    }

    /// Whether nothing of it is left to be done.
    pub(crate) fn is_idle(&self) -> bool {
        let is_read = self.buffer.is_empty() && self.datagrams.is_empty() && self.payloads.is_empty();
        let is_done = self.current.is_none() && self.frames.is_empty() && self.answers.len() == 0;
        is_read && is_done && self.call.is_none() && self.call_at.is_none()
    }

    /// Whether it has the answer to its login: before that it expects nothing else.
    pub(crate) fn is_greeted(&self) -> bool {
        self.greeting.is_none()
    }

    /// Sends the answers whose turn it is, and what has waited for them.
    pub(crate) fn answer(&mut self, t: &mut Turn<'_>) {
        self.answers.send(t);
        self.greeting.take_if(|seq| !self.answers.has(*seq));
        self.say_waiting(t);
    }

    /// A frame that is none, or may not be said now.
    pub(crate) fn reject(&mut self, t: &mut Turn<'_>, why: Drop) -> Result<(), Close> {
        t.out.act(Action::Drop(t.peer, why));
        self.bad += 1;
        let most = if self.device.is_some() { MOST_BAD.1 } else { MOST_BAD.0 };
        if self.bad >= most { Err(Close::Malformed) } else { Ok(()) }
    }

    /// Ends it, when what was sent is written.
    pub(crate) fn close(&mut self, t: &mut Turn<'_>, why: Close) {
        if self.phase != Phase::Closing {
            self.phase = Phase::Closing;
            t.out.act(Action::Close(t.peer, why));
        }
    }

    /// When something has to be done.
    pub(crate) fn due(&self, config: &Config) -> Instant {
        let pause = self.language.pause().filter(|_| !self.gathered.is_empty());
        [Some(self.end(config)), self.call_at, pause.map(|pause| self.seen + pause), self.commands.due()]
            .into_iter()
            .flatten()
            .min()
            .unwrap_or(Instant::NEVER)
    }

    /// When it is lost if nothing is heard of it.
    pub(crate) fn end(&self, config: &Config) -> Instant {
        match self.phase {
            Phase::Closing | Phase::Opening => Instant::NEVER,
            Phase::Stranger => self.begun + config.login_timeout,
            Phase::Open if config.keep_alive == Duration::ZERO => Instant::NEVER,
            Phase::Open => self.seen + config.keep_alive,
        }
    }
}

//! From bytes to frames.

use bytes::BytesMut;
use codecs::{Context, Costs, Fault, Frame, Shape, hex};
use gateway::{Action, Close, Direction, Drop};

use crate::Turn;
use crate::conversation::Conversation;
use crate::language::Kind;
use crate::login::is_secret;

/// Datagrams of a peer that may wait for what was asked before.
const MOST_DATAGRAMS: usize = 64;
/// Most bytes that a script is handed, where the listener says nothing of it.
const MAX_FRAME: usize = 65_536;
/// Bytes of a frame that a trace shows.
const SHOWN: usize = 256;

/// What came of looking for a frame.
pub(crate) enum Next {
    /// This one.
    Frame(Frame),
    /// A step was made: there may be one now.
    Again,
    /// There may be one when the driver has answered.
    Wait,
    /// More bytes have to come.
    Nothing,
}

impl Conversation {
    /// Keeps a datagram until it is its turn.
    pub(crate) fn keep_datagram(&mut self, t: &mut Turn<'_>, datagram: BytesMut) {
        if self.datagrams.len() >= MOST_DATAGRAMS {
            return t.out.act(Action::Drop(t.peer, Drop::ExchangesFull));
        }
        self.datagrams.push_back(datagram);
    }

    /// Keeps what came until nothing more has come for a while, or there is too much of it; leaves what has no room.
    pub(crate) fn gather(&mut self, t: &mut Turn<'_>, bytes: &mut BytesMut) {
        let most = self.max_frame(t);
        while !bytes.is_empty() && self.datagrams.len() < MOST_DATAGRAMS {
            let room = most.saturating_sub(self.gathered.len()).max(1);
            self.gathered.extend_from_slice(&bytes.split_to(room.min(bytes.len())));
            if self.gathered.len() >= most {
                let frame = self.gathered.split();
                self.keep_datagram(t, frame);
            }
        }
    }

    /// What came before a pause is a frame.
    pub(crate) fn end_of_pause(&mut self, t: &mut Turn<'_>) {
        let is_over = |pause| self.seen + pause <= t.now.instant;
        if !self.gathered.is_empty() && self.language.pause().is_none_or(is_over) {
            let frame = self.gathered.split();
            self.keep_datagram(t, frame);
        }
    }

    /// The next frame, of `bytes` where a stream is read as it comes.
    pub(crate) fn next(&mut self, t: &mut Turn<'_>, bytes: &mut BytesMut) -> Result<Next, Close> {
        let device = self.device.as_deref().map(|d| &*d.login.device);
        self.language.refresh(t.config(), &t.site.library, device, self.is_datagram);
        match self.language.kind {
            Kind::Missing => Err(Close::NoCodec),
            Kind::Inline(..) => {
                self.take_over_from_script(t);
                match self.is_cut() {
                    true => self.next_of_datagram(t),
                    false if self.buffer.is_empty() => self.next_of_stream(t, bytes),
                    false => self.next_of_buffer(t, bytes),
                }
            }
            Kind::Script(program, shape) => {
                match shape {
                    Shape::Payload => self.take_payloads(t, bytes)?,
                    Shape::Stream => self.take_stream(t, bytes)?,
                }
                Ok(self.call_next(t, program, shape))
            }
        }
    }

    /// Whether frames come one by one: as datagrams, or with a pause behind each.
    pub(crate) fn is_cut(&self) -> bool {
        self.is_datagram || self.language.pause().is_some()
    }

    /// What codecs here make of the front of `bytes`; None is no whole frame.
    fn decode(&mut self, t: &mut Turn<'_>, bytes: &mut BytesMut) -> Result<Option<Frame>, Fault> {
        let Kind::Inline(codec, _) = &mut self.language.kind else { return Ok(None) };
        let before = bytes.len();
        let shown = t.out.is_traced.then(|| hex::encode(&bytes[..before.min(SHOWN)]));
        let device = self.device.as_deref().map(|d| &*d.login.device);
        let cx = Context { wall_ms: t.now.wall_ms, device, token: t.token() };
        let mut result = codec.decode(&cx, bytes);
        let taken = before - bytes.len().min(before);
        if taken == 0 && !matches!(result, Ok(None)) {
            // It would go on for ever.
            let why = match result {
                Err(fault) => fault.why,
                Ok(_) => "a frame without bytes".into(),
            };
            result = Err(Fault::stream(0, why));
        }
        if let Some(mut shown) = shown {
            shown.truncate(2 * taken);
            let dots = if taken > SHOWN { "…" } else { "" };
            match &result {
                Ok(None) => {}
                Ok(Some(frame)) if is_secret(frame) => {}
                Ok(Some(_)) => t.out.trace(t.peer, Direction::In, || format!("{shown}{dots}")),
                Err(Fault { at, why, .. }) => {
                    t.out.trace(t.peer, Direction::In, || format!("bad at byte {at}: {why}: {shown}{dots}"));
                }
            }
        }
        result
    }

    fn next_of_stream(&mut self, t: &mut Turn<'_>, bytes: &mut BytesMut) -> Result<Next, Close> {
        if bytes.is_empty() {
            return Ok(Next::Nothing);
        }
        match self.decode(t, bytes) {
            Ok(Some(frame)) => Ok(Next::Frame(frame)),
            Ok(None) if bytes.len() > self.max_frame(t) => Err(Close::TooLarge),
            Ok(None) => Ok(Next::Nothing),
            Err(Fault { costs: Costs::Frame, .. }) => self.reject(t, Drop::CodecFrame).map(|()| Next::Again),
            Err(Fault { costs: Costs::Stream, .. }) => Err(Close::Malformed),
        }
    }

    /// Of what a script has left, which was here before.
    fn next_of_buffer(&mut self, t: &mut Turn<'_>, bytes: &mut BytesMut) -> Result<Next, Close> {
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.extend_from_slice(&bytes.split());
        let result = self.next_of_stream(t, &mut buffer);
        self.buffer = buffer;
        result
    }

    fn next_of_datagram(&mut self, t: &mut Turn<'_>) -> Result<Next, Close> {
        if self.buffer.is_empty() {
            let Some(datagram) = self.datagrams.pop_front() else { return Ok(Next::Nothing) };
            self.buffer = datagram;
        }
        let mut buffer = std::mem::take(&mut self.buffer);
        let result = self.decode(t, &mut buffer);
        let is_over = !matches!(result, Ok(Some(_)) | Err(Fault { costs: Costs::Frame, .. }));
        if !is_over {
            self.buffer = buffer;
        }
        match result {
            Ok(Some(frame)) => Ok(Next::Frame(frame)),
            // What is left of it is no frame.
            Ok(None) | Err(_) => self.reject(t, Drop::CodecFrame).map(|()| Next::Again),
        }
    }

    /// Most bytes that are kept until a frame is whole.
    pub(crate) fn max_frame(&self, t: &Turn<'_>) -> usize {
        let options = &t.config().options;
        match (&self.language.kind, &options.framing, options.max_frame) {
            (Kind::Inline(codec, _), ..) => codec.max_frame(),
            (_, Some(framing), _) => framing.max_frame(),
            (_, None, 0) => MAX_FRAME,
            (_, None, most) => most,
        }
    }
}

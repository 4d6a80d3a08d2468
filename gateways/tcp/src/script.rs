//! Frames and commands that are read and written by programs outside the process: one call at a time, whose answer
//! comes later.

use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use codecs::called::Decoded;
use codecs::{Costs, Data, Frame, Shape, Up, hex};
use gateway::{Action, CallFailure, Calls, Close, Direction, Drop, Function, ProgramId};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::Turn;
use crate::conversation::Conversation;
use crate::language::Kind;
use crate::login::is_secret;
use crate::naming::Naming;
use crate::read::Next;
use crate::ticket::{Asked, ticket};

/// Most payloads of one call, and most bytes of them.
const MOST_PAYLOADS: (usize, usize) = (64, 65_536);
/// How long a call waits where too many others do.
const BUSY: Duration = Duration::from_millis(100);

/// A call that was not answered.
pub(crate) struct Call {
    number: u32,
    program: u64,
    what: What,
}

#[derive(Clone, Copy)]
enum What {
    /// Of so many payloads.
    Payloads,
    /// Of a stream's bytes.
    Stream,
    /// Of the commands that waited.
    Commands,
}

/// What comes of a payload.
#[derive(Deserialize)]
struct Uplink<'a> {
    #[serde(borrow, default)]
    data: Option<&'a RawValue>,
    #[serde(borrow, default)]
    normalized: Option<&'a RawValue>,
    #[serde(default)]
    warnings: Vec<String>,
}

impl Conversation {
    /// Cuts payloads off what came, about as many as one call takes.
    pub(crate) fn take_payloads(&mut self, t: &mut Turn<'_>, bytes: &mut BytesMut) -> Result<(), Close> {
        let framing = t.config().options.framing.as_ref();
        while self.payloads.len() < MOST_PAYLOADS.0 {
            let is_cut = self.is_cut();
            let result = match (framing, is_cut) {
                (Some(framing), false) => framing.cut(bytes),
                (None, false) => return Ok(()),
                (framing, true) => {
                    if self.buffer.is_empty() {
                        let Some(datagram) = self.datagrams.pop_front() else { return Ok(()) };
                        self.buffer = datagram;
                    }
                    match framing {
                        None => Ok(Some(self.buffer.split().freeze())),
                        Some(framing) => match framing.cut(&mut self.buffer) {
                            Ok(None) => framing.rest(&mut self.buffer),
                            result => result,
                        },
                    }
                }
            };
            match result {
                Ok(Some(payload)) => self.payloads.push_back(payload),
                Ok(None) if is_cut => self.buffer.clear(),
                Ok(None) => return Ok(()),
                Err(fault) => {
                    let at = fault.at;
                    t.out.trace(t.peer, Direction::In, || format!("bad at byte {at}: {}", fault.why));
                    match fault.costs {
                        Costs::Stream if !is_cut => return Err(Close::Malformed),
                        Costs::Stream => self.buffer.clear(),
                        Costs::Frame => {}
                    }
                    self.reject(t, Drop::CodecFrame)?;
                }
            }
        }
        Ok(())
    }

    /// Keeps bytes of a stream until the program has taken them.
    pub(crate) fn take_stream(&mut self, t: &mut Turn<'_>, bytes: &mut BytesMut) -> Result<(), Close> {
        if self.call.is_some() {
            return Ok(());
        }
        if self.is_cut() {
            if self.buffer.is_empty()
                && let Some(datagram) = self.datagrams.pop_front()
            {
                self.buffer = datagram;
            }
            return Ok(());
        }
        let room = self.max_frame(t).saturating_sub(self.buffer.len());
        if room == 0 && self.refused == self.buffer.len() {
            return Err(Close::TooLarge);
        }
        self.buffer.extend_from_slice(&bytes.split_to(room.min(bytes.len())));
        Ok(())
    }

    /// A codec that runs here is in the script's place: it reads the stream on, and says what the script has not.
    pub(crate) fn take_over_from_script(&mut self, t: &mut Turn<'_>) {
        self.refused = 0;
        self.say_waiting(t);
        if self.call.is_none() {
            // They are no frames to it.
            for _ in self.payloads.drain(..) {
                t.out.act(Action::Drop(t.peer, Drop::ScriptFailed));
            }
        }
    }

    /// Calls the program if there is something for it, and nothing that it works on.
    pub(crate) fn call_next(&mut self, t: &mut Turn<'_>, program: u64, shape: Shape) -> Next {
        if self.call.is_some() || self.call_at.is_some() {
            return Next::Wait;
        }
        if let Some(commands) = self.commands.inputs().filter(|_| self.is_greeted()) {
            let function = match shape {
                Shape::Payload => Function::EncodeDownlink,
                Shape::Stream => Function::Encode,
            };
            return self.call(t, program, What::Commands, function, commands);
        }
        match shape {
            Shape::Payload if self.payloads.is_empty() => Next::Nothing,
            Shape::Payload if self.device.is_none() && t.config().device == Naming::FirstFrame => {
                let value = self.payloads.pop_front().unwrap_or_default();
                let name = Data { kind: "data".into(), value, is_json: false };
                Next::Frame(Frame { up: vec![Up::Data(name)], ..Frame::default() })
            }
            Shape::Payload => {
                let mut room = MOST_PAYLOADS.1;
                let inputs = self.payloads.iter().take(MOST_PAYLOADS.0).take_while(|payload| {
                    let fits = room > 0;
                    room = room.saturating_sub(payload.len());
                    fits
                });
                let inputs = inputs.cloned().collect();
                self.call(t, program, What::Payloads, Function::DecodeUplink, inputs)
            }
            Shape::Stream if self.buffer.is_empty() => Next::Nothing,
            Shape::Stream if self.buffer.len() == self.refused => self.give_up_datagram(t),
            Shape::Stream => {
                let input = Bytes::copy_from_slice(&self.buffer);
                self.call(t, program, What::Stream, Function::Decode, vec![input])
            }
        }
    }

    /// The program waits for more: of a datagram nothing more comes.
    fn give_up_datagram(&mut self, t: &mut Turn<'_>) -> Next {
        if !self.is_cut() {
            return Next::Nothing;
        }
        self.buffer.clear();
        self.refused = 0;
        t.out.act(Action::Drop(t.peer, Drop::CodecFrame));
        Next::Again
    }

    fn call(
        &mut self,
        t: &mut Turn<'_>,
        program: u64,
        what: What,
        function: Function,
        inputs: Vec<Bytes>,
    ) -> Next {
        self.last_call = self.last_call.wrapping_add(1);
        self.call = Some(Call { number: self.last_call, program, what });
        let calls = Calls {
            program: ProgramId(program),
            function,
            device: self.name().unwrap_or_default().into(),
            port: t.config().port,
            wall_ms: t.now.wall_ms,
            inputs,
        };
        t.out.act(Action::Call(t.peer, ticket(Asked::Call, self.last_call), calls));
        Next::Wait
    }

    /// What has come of the call of this number.
    pub(crate) fn called(&mut self, t: &mut Turn<'_>, number: u32, results: Vec<Result<Bytes, CallFailure>>) {
        let Some(call) = self.call.take_if(|call| call.number == number) else { return };
        if results.is_empty() {
            self.call_at = Some(t.now.instant + BUSY);
        }
        for result in results {
            let is_over = match result {
                Err(CallFailure::Busy) => {
                    self.call_at = Some(t.now.instant + BUSY);
                    false
                }
                // It was replaced meanwhile: the new one is asked, and nothing is lost.
                Err(CallFailure::Unknown) if self.is_replaced(t, call.program) => false,
                Ok(value) => {
                    self.succeeded(t, call.what, &value);
                    true
                }
                Err(failure) => {
                    self.failed(t, call.what, &failure);
                    true
                }
            };
            if !is_over {
                return;
            }
        }
    }

    fn is_replaced(&mut self, t: &Turn<'_>, program: u64) -> bool {
        let device = self.device.as_deref().map(|d| &*d.login.device);
        self.language.refresh(t.config(), &t.site.library, device, self.is_datagram);
        !matches!(self.language.kind, Kind::Script(now, _) if now == program)
    }

    fn succeeded(&mut self, t: &mut Turn<'_>, what: What, value: &[u8]) {
        match what {
            What::Payloads => {
                let payload = self.payloads.pop_front().unwrap_or_default();
                t.out.trace(t.peer, Direction::In, || hex::encode(&payload));
                match uplink(t, value) {
                    Ok(frame) => self.frames.push_back(frame),
                    Err(why) => self.complain(t, Drop::ScriptFailed, &why),
                }
            }
            What::Stream => self.decoded(t, value),
            What::Commands => self.encoded(t, value),
        }
    }

    fn failed(&mut self, t: &mut Turn<'_>, what: What, failure: &CallFailure) {
        let (drop, why) = match failure {
            CallFailure::Program(why) => (Drop::ScriptFailed, &**why),
            CallFailure::Limit(why) => (Drop::ScriptLimit, &**why),
            CallFailure::Suspended => (Drop::ScriptLimit, "it is suspended, for it was stopped too often"),
            CallFailure::Unknown | CallFailure::Busy => (Drop::ScriptFailed, "there is no such version"),
        };
        match what {
            What::Payloads => {
                let payload = self.payloads.pop_front().unwrap_or_default();
                t.out.trace(t.peer, Direction::In, || hex::encode(&payload));
            }
            What::Stream => {
                self.buffer.clear();
                self.refused = 0;
            }
            What::Commands => self.unsaid(t, why),
        }
        self.complain(t, drop, why);
    }

    /// Counts what a script has failed on, and shows why.
    fn complain(&mut self, t: &mut Turn<'_>, drop: Drop, why: &str) {
        t.out.act(Action::Drop(t.peer, drop));
        t.out.trace(t.peer, Direction::In, || format!("script: {why}"));
    }

    /// Frames of a stream.
    fn decoded(&mut self, t: &mut Turn<'_>, value: &[u8]) {
        let decoded: Decoded<'_> = match serde_json::from_slice(value) {
            Ok(decoded) => decoded,
            Err(e) => {
                self.buffer.clear();
                self.refused = 0;
                return self.complain(t, Drop::ScriptFailed, &e.to_string());
            }
        };
        let mut taken = decoded.consumed.min(self.buffer.len());
        for frame in decoded.frames {
            match frame.read() {
                Ok(frame) => self.frames.push_back(frame),
                Err(why) => self.complain(t, Drop::ScriptFailed, &why),
            }
        }
        if let Some(failed) = decoded.error {
            let end = failed.at.saturating_add(failed.costs(self.buffer.len()));
            taken = taken.max(end.min(self.buffer.len()));
            self.complain(t, Drop::ScriptFailed, &format!("at byte {}: {}", failed.at, failed.why));
        }
        let is_shown = !self.frames.iter().any(is_secret);
        if t.out.is_traced && taken > 0 && is_shown {
            let shown = hex::encode(&self.buffer[..taken]);
            t.out.trace(t.peer, Direction::In, || shown);
        }
        self.buffer.advance(taken);
        self.refused = if taken == 0 { self.buffer.len() } else { 0 };
    }
}

/// The frame that a payload is.
fn uplink(t: &mut Turn<'_>, value: &[u8]) -> Result<Frame, String> {
    let uplink: Uplink<'_> = serde_json::from_slice(value).map_err(|e| e.to_string())?;
    for warning in &uplink.warnings {
        t.out.trace(t.peer, Direction::In, || format!("script warns: {warning}"));
    }
    let up = |kind: &'static str, value: Option<&RawValue>| {
        let value = Bytes::copy_from_slice(value?.get().as_bytes());
        Some(Up::Data(Data { kind: kind.into(), value, is_json: true }))
    };
    let ups = [up("data", uplink.data), up("normalized", uplink.normalized)];
    Ok(Frame { up: ups.into_iter().flatten().collect(), ..Frame::default() })
}

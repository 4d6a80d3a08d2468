//! A script as a codec like any other, for who may wait for each call: examples, and `tidegate codec try`.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::{Bytes, BytesMut};
use codecs::called::{Decoded, Encoded};
use codecs::{Build, Codec, Context, Data, Down, Expect, Fault, Frame, Framing, Options, Shape, Up};
use gateway::{CallFailure, Calls, Function, ProgramId};
use serde_json::{Value, json};

use crate::pipe::Request;

/// Asks for one input of a program and waits for what it brings. The outer error is that of who was asked.
pub type Ask = dyn FnMut(Request) -> Result<Result<Bytes, CallFailure>, String> + Send;

/// A program that is loaded somewhere else.
#[derive(Clone)]
pub struct Remote {
    ask: Arc<Mutex<Box<Ask>>>,
    program: ProgramId,
    shape: Shape,
}

/// See [`Remote`]: a connection's.
struct Connection {
    remote: Remote,
    framing: Option<Framing>,
    max_frame: usize,
    /// What the last call has brought beyond its first frame.
    ready: VecDeque<Ready>,
}

/// Bytes of the stream, and what they mean.
struct Ready(usize, Result<Frame, String>);

impl Remote {
    /// The program of this number.
    pub fn new(program: ProgramId, shape: Shape, ask: Box<Ask>) -> Remote {
        Remote { ask: Arc::new(Mutex::new(ask)), program, shape }
    }

    /// What it understands.
    pub fn shape(&self) -> Shape {
        self.shape
    }

    pub(crate) fn program(&self) -> ProgramId {
        self.program
    }

    /// What came of it, or why nothing, in words.
    pub(crate) fn ask(&self, request: Request) -> Result<Bytes, String> {
        let mut ask = self.ask.lock().unwrap_or_else(PoisonError::into_inner);
        (**ask)(request)?.map_err(|failure| match failure {
            CallFailure::Program(why) | CallFailure::Limit(why) => why.into_string(),
            other => format!("{other:?}"),
        })
    }

    fn call(&self, function: Function, cx: &Context<'_>, input: Bytes) -> Result<Bytes, String> {
        let device = cx.device.unwrap_or_default().into();
        let calls = Calls {
            program: self.program,
            function,
            device,
            port: 1,
            wall_ms: cx.wall_ms,
            inputs: vec![input],
        };
        self.ask(Request::Calls { seq: 0, calls })
    }
}

impl Build for Remote {
    fn build(&self, options: &Options) -> Box<dyn Codec> {
        let framing = options.framing.clone();
        let largest = framing.as_ref().map_or(MAX_FRAME, Framing::max_frame);
        let max_frame = if options.max_frame == 0 { largest } else { options.max_frame };
        Box::new(Connection { remote: self.clone(), framing, max_frame, ready: VecDeque::new() })
    }
}

/// Most bytes that are kept for a script to take, if nothing else is said.
const MAX_FRAME: usize = 65_536;

impl Codec for Connection {
    fn decode(&mut self, cx: &Context<'_>, buf: &mut BytesMut) -> Result<Option<Frame>, Fault> {
        if self.ready.is_empty() && !buf.is_empty() {
            match self.remote.shape {
                Shape::Payload => return self.payload(cx, buf),
                Shape::Stream => self.read(cx, buf),
            }
        }
        let Some(Ready(length, result)) = self.ready.pop_front() else { return Ok(None) };
        let _ = buf.split_to(length.min(buf.len()));
        result.map(Some).map_err(|why| Fault::frame(0, why))
    }

    fn encode(&mut self, cx: &Context<'_>, down: &Down<'_>, into: &mut Vec<u8>) -> Result<Expect, Fault> {
        let value: Value = serde_json::from_slice(down.value)
            .map_err(|e| Fault::frame(0, format!("the payload is no JSON: {e}")))?;
        let command = Bytes::from(json!({"kind": down.kind, "value": value}).to_string());
        let function = match self.remote.shape {
            Shape::Payload => Function::EncodeDownlink,
            Shape::Stream => Function::Encode,
        };
        let encoded = self.remote.call(function, cx, command).map_err(|why| Fault::frame(0, why))?;
        let (bytes, expect) = Encoded::read(&encoded).map_err(|why| Fault::frame(0, why))?;
        match (&self.framing, self.remote.shape) {
            (Some(framing), Shape::Payload) => framing.wrap(&bytes, into)?,
            _ => into.extend_from_slice(&bytes),
        }
        Ok(expect)
    }

    fn max_frame(&self) -> usize {
        self.max_frame
    }
}

impl Connection {
    /// One payload, which framing cuts off; without framing it is all that came.
    fn payload(&mut self, cx: &Context<'_>, buf: &mut BytesMut) -> Result<Option<Frame>, Fault> {
        let payload = match &self.framing {
            Some(framing) => framing.cut(buf)?,
            None => Some(buf.split().freeze()),
        };
        let Some(payload) = payload else { return Ok(None) };
        let bad = |why: String| Fault::frame(0, why);
        let decoded = self.remote.call(Function::DecodeUplink, cx, payload).map_err(bad)?;
        let decoded: Value = serde_json::from_slice(&decoded).map_err(|e| bad(e.to_string()))?;
        let up = [("data", decoded.get("data")), ("normalized", decoded.get("normalized"))];
        let up = up.into_iter().filter_map(|(kind, value)| Some(Up::Data(Data::json(kind, value?))));
        Ok(Some(Frame { up: up.collect(), ..Frame::default() }))
    }

    /// All frames of a stream that came.
    fn read(&mut self, cx: &Context<'_>, buf: &BytesMut) {
        let input = Bytes::copy_from_slice(buf);
        let decoded = match self.remote.call(Function::Decode, cx, input) {
            Ok(decoded) => decoded,
            Err(why) => return self.ready.push_back(Ready(buf.len(), Err(why))),
        };
        let decoded: Decoded<'_> = match serde_json::from_slice(&decoded) {
            Ok(decoded) => decoded,
            Err(error) => return self.ready.push_back(Ready(buf.len(), Err(error.to_string()))),
        };
        for frame in &decoded.frames {
            let Some(consumed) = frame.consumed else {
                let why = "a frame without the number of its bytes".to_owned();
                return self.ready.push_back(Ready(buf.len(), Err(why)));
            };
            self.ready.push_back(Ready(consumed, frame.read()));
        }
        if let Some(error) = decoded.error {
            self.ready.push_back(Ready(error.costs(buf.len()), Err(error.why)));
        }
    }
}

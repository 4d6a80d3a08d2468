//! One connection's instance of a module.

use std::sync::Arc;

use bytes::BytesMut;
use wasmi::{Error, Extern, Memory, Store, TrapCode, TypedFunc};

use super::host::{Host, range};
use super::result::{command, decoded, encoded};
use super::{ABI, Program};
use crate::{Codec, Context, Down, Expect, Fault, Frame, Framing, Options};

/// Most bytes of what a call returns.
const MAX_RESULT: usize = 1 << 20;
/// So much of what waits is handed over at first: of many small frames each would else cost a copy of all that
/// follow it.
const WINDOW: usize = 8 << 10;
/// So many stops in a row are forgiven; after them it is not run for a while, twice as long each time.
const FORGIVEN: u32 = 2;
const FIRST_PAUSE_MS: u64 = 100;
const LONGEST_PAUSE_MS: u64 = 10_000;

pub(super) struct Instance {
    program: Arc<Program>,
    options: Options,
    /// None before the first call, and after one that has ended badly: what its memory is worth then nobody knows.
    running: Option<Running>,
    /// How often in a row it was stopped.
    stops: u32,
    /// Until when it is not run, in milliseconds since 1970.
    paused_until: u64,
}

struct Running {
    store: Store<Host>,
    memory: Memory,
    alloc: TypedFunc<u32, u32>,
    decode: TypedFunc<(u32, u32), u64>,
    /// `decode`'s again if it exports none, which is seen to before a call.
    encode: TypedFunc<(u32, u32), u64>,
}

/// Which function is called.
#[derive(Clone, Copy)]
enum Call {
    Decode,
    Encode,
}

impl Instance {
    pub(super) fn new(program: Arc<Program>, options: Options) -> Instance {
        Instance { program, options, running: None, stops: 0, paused_until: 0 }
    }

    /// Whether one starts, and says that it is written for this ABI.
    pub(super) fn try_out(program: &Program) -> Result<(), String> {
        Running::start(program).map(|_| ())
    }

    /// What the function returns of `input`, read by `read`; None is the short answer 0.
    fn call<T>(
        &mut self,
        cx: &Context<'_>,
        call: Call,
        input: &[u8],
        read: impl FnOnce(&[u8]) -> Result<T, String>,
    ) -> Result<Option<T>, String> {
        let left = self.paused_until.saturating_sub(cx.wall_ms);
        // A clock that was set back must not make the pause longer.
        if left > 0 && left <= LONGEST_PAUSE_MS {
            return Err(format!("was not run: it was stopped {} times in a row", self.stops));
        }
        let result = self.run(cx, call, input, read);
        if let Err((true, _)) = result {
            self.stops = self.stops.saturating_add(1);
            if let Some(doublings) = self.stops.checked_sub(FORGIVEN + 1) {
                let pause = FIRST_PAUSE_MS.saturating_mul(1 << doublings.min(16)).min(LONGEST_PAUSE_MS);
                self.paused_until = cx.wall_ms.saturating_add(pause);
            }
        } else {
            self.stops = 0;
        }
        result.map_err(|(_, why)| why)
    }

    /// As `call`, and with an error whether it was stopped.
    fn run<T>(
        &mut self,
        cx: &Context<'_>,
        call: Call,
        input: &[u8],
        read: impl FnOnce(&[u8]) -> Result<T, String>,
    ) -> Result<Option<T>, (bool, String)> {
        let running = match self.running.take() {
            Some(running) => running,
            None => Running::start(&self.program).map_err(|why| (true, why))?,
        };
        let running = self.running.insert(running);
        running.store.data_mut().begin(cx);
        match running.call(call, input, self.program.limits.fuel) {
            Ok(None) => Ok(None),
            Ok(Some(range)) => {
                let result = running.memory.data(&running.store).get(range).unwrap_or_default();
                let read = read(result).map(Some);
                read.map_err(|why| (false, running.store.data().with_lines(&why)))
            }
            Err(e) => {
                let why = running.store.data().with_lines(&words(&e));
                self.running = None;
                Err((true, why))
            }
        }
    }
}

impl Running {
    fn start(program: &Program) -> Result<Running, String> {
        let mut store = Store::new(&program.engine, Host::new(program.limits.memory));
        store.limiter(|host| &mut host.limits);
        Running::link(store, program).map_err(|e| words(&e))
    }

    fn link(mut store: Store<Host>, program: &Program) -> Result<Running, Error> {
        store.set_fuel(program.limits.fuel)?;
        let instance = program.linker.instantiate_and_start(&mut store, &program.module)?;
        let memory = instance.get_export(&store, "memory").and_then(Extern::into_memory);
        let memory = memory.ok_or_else(|| Error::new("exports no memory"))?;
        let alloc = instance.get_typed_func(&store, "alloc")?;
        let decode = instance.get_typed_func(&store, "decode")?;
        let encode = match instance.get_func(&store, "encode") {
            Some(encode) => encode.typed(&store)?,
            None => decode,
        };
        let abi = instance.get_typed_func::<(), u32>(&store, "tidegate_abi")?.call(&mut store, ())?;
        if abi != ABI {
            return Err(Error::new(format!(
                "is written for version {abi} of the ABI; this is version {ABI}"
            )));
        }
        Ok(Running { store, memory, alloc, decode, encode })
    }

    /// Where what the function returned lies; None is the short answer 0.
    fn call(&mut self, call: Call, input: &[u8], fuel: u64) -> Result<Option<std::ops::Range<usize>>, Error> {
        let function = match call {
            Call::Decode => self.decode,
            Call::Encode => self.encode,
        };
        let len = u32::try_from(input.len()).map_err(|_| Error::new("is handed too much"))?;
        self.store.set_fuel(fuel)?;
        let at = self.alloc.call(&mut self.store, len)?;
        let place = range(at, len).and_then(|r| self.memory.data_mut(&mut self.store).get_mut(r));
        let place =
            place.ok_or_else(|| Error::new(format!("`alloc` returned {at}, where no {len} bytes are")))?;
        place.copy_from_slice(input);
        let result = function.call(&mut self.store, (at, len))?;
        if result == 0 {
            return Ok(None);
        }
        let (at, len) = ((result >> 32) as u32, result as u32);
        let outside = || Error::new(format!("returned {len} bytes at {at}, which are outside of its memory"));
        let range =
            range(at, len).filter(|r| r.end <= self.memory.data_size(&self.store)).ok_or_else(outside)?;
        if range.len() > MAX_RESULT {
            return Err(Error::new(format!("returned {len} bytes; {MAX_RESULT} are allowed")));
        }
        Ok(Some(range))
    }
}

/// Why the module was stopped, for an operator.
fn words(e: &Error) -> String {
    match e.as_trap_code() {
        Some(TrapCode::OutOfFuel) => "was stopped: it took more steps than a call may take".to_owned(),
        Some(TrapCode::UnreachableCodeReached) => {
            "stopped itself (`unreachable`: a panic or an abort)".to_owned()
        }
        _ => e.to_string(),
    }
}

impl Instance {
    /// A frame from the front of a stream.
    fn next_of_stream(&mut self, cx: &Context<'_>, buf: &mut BytesMut) -> Result<Option<Frame>, Fault> {
        let max_frame = self.max_frame();
        let most = buf.len().min(max_frame);
        let mut len = most.min(WINDOW);
        loop {
            match self.call(cx, Call::Decode, &buf[..len], |json| decoded(json, len)) {
                Ok(None | Some((0, _))) if len < most => len = most.min(len.saturating_mul(4)),
                Ok(None | Some((0, _))) if len < max_frame => return Ok(None),
                Ok(None | Some((0, _))) => return Err(Fault::stream(0, format!("no frame in {len} bytes"))),
                Ok(Some((consumed, frame))) => {
                    let _ = buf.split_to(consumed);
                    return frame.map(Some);
                }
                // Where the next frame begins only the module could have said.
                Err(why) => {
                    buf.clear();
                    return Err(Fault::frame(0, why));
                }
            }
        }
    }

    /// The first frame in these bytes, after which no more will come, and how many bytes it is.
    fn first(&mut self, cx: &Context<'_>, bytes: &[u8]) -> (usize, Result<Option<Frame>, Fault>) {
        match self.call(cx, Call::Decode, bytes, |json| decoded(json, bytes.len())) {
            Ok(None | Some((0, _))) => {
                (bytes.len(), Err(Fault::frame(bytes.len(), "the bytes end within a frame")))
            }
            Ok(Some((consumed, frame))) => (consumed, frame.map(Some)),
            Err(why) => (bytes.len(), Err(Fault::frame(0, why))),
        }
    }

    /// What framing cuts off.
    fn next_of_framing(
        &mut self,
        cx: &Context<'_>,
        framing: &Framing,
        buf: &mut BytesMut,
    ) -> Result<Option<Frame>, Fault> {
        let payload = match framing.cut(buf)? {
            None if self.options.is_whole => framing.rest(buf)?,
            payload => payload,
        };
        payload.map_or(Ok(None), |payload| self.first(cx, &payload).1)
    }
}

impl Codec for Instance {
    fn decode(&mut self, cx: &Context<'_>, buf: &mut BytesMut) -> Result<Option<Frame>, Fault> {
        if buf.is_empty() {
            return Ok(None);
        }
        if let Some(framing) = self.options.framing.take() {
            let frame = self.next_of_framing(cx, &framing, buf);
            self.options.framing = Some(framing);
            return frame;
        }
        if self.options.is_whole {
            let (consumed, frame) = self.first(cx, buf);
            let _ = buf.split_to(consumed);
            return frame;
        }
        self.next_of_stream(cx, buf)
    }

    fn encode(&mut self, cx: &Context<'_>, down: &Down<'_>, into: &mut Vec<u8>) -> Result<Expect, Fault> {
        if self.program.module.get_export("encode").is_none() {
            return Err(Fault::frame(0, "the module has no commands: it exports no `encode`"));
        }
        let input = command(cx, down);
        match self.call(cx, Call::Encode, &input, encoded) {
            Ok(Some((bytes, expect))) => {
                match &self.options.framing {
                    Some(framing) => framing.wrap(&bytes, into)?,
                    None => into.extend_from_slice(&bytes),
                }
                Ok(expect)
            }
            Ok(None) => Err(Fault::frame(0, "the module knows no such command")),
            Err(why) => Err(Fault::frame(0, why)),
        }
    }

    fn max_frame(&self) -> usize {
        match (&self.options.framing, self.options.max_frame) {
            (Some(framing), _) => framing.max_frame(),
            (None, 0) => self.program.limits.max_frame,
            (None, said) => said,
        }
    }
}

//! A program in its own QuickJS runtime: made once, called often, stopped when it takes too much.
//!
//! The script is compiled once, as the body of a function that is called before each call of one of the script's own. So
//! what it declares outside its functions is as the script says it is, every time: what it has kept of one device
//! cannot get into the message of another. Of a script that declares functions and constants alone these are kept, and
//! frozen ([`crate::survey`]). Variables that it has forgotten to declare are gone after each call. A runtime that a script has brought to one of its
//! limits is thrown away.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use codecs::Shape;
use gateway::{CallFailure, Function as Called};
use nix::time::{ClockId, clock_gettime};
use rquickjs::context::EvalOptions;
use rquickjs::object::Filter;
use rquickjs::{Array, Atom, Context, Ctx, Function, Object, Persistent, Runtime, Value};

use crate::json::Keys;
use crate::pipe::{Convention, Limits};
use crate::scope::{KeptWords, Scope, Stop, Thrown, thrown};
use crate::survey::Survey;

/// Most bytes of a script.
pub const MAX_SOURCE: usize = 4 * 1024 * 1024;
/// Most bytes of what a call brings.
pub(crate) const MAX_RESULT: usize = 1024 * 1024;
/// Most lines that a call may log, and the bytes of each.
const LOG: (usize, usize) = (32, 1024);
/// What stands before a script in its first line, so that it is the body of a function.
pub(crate) const BEFORE: &str = "(function ($want) { ";
/// As long, before one that is only read.
const ALONE: &str = "throw null;         ";
const PRELUDE: &str = include_str!("prelude.js");

/// The functions that a script may have. The older conventions are those of The Things Network V2 and ChirpStack V3.
pub(crate) const NAMES: [&str; 10] = [
    "decodeUplink",
    "Decoder",
    "Decode",
    "encodeDownlink",
    "Encoder",
    "Encode",
    "decodeDownlink",
    "normalizeUplink",
    "decode",
    "encode",
];

/// A script that is ready to be called.
pub struct Program {
    name: String,
    source: String,
    survey: Survey,
    limits: Limits,
    has: [bool; NAMES.len()],
    /// None after a limit was reached, until [`Program::renew`] or the next call.
    engine: Option<Engine>,
    is_spent: bool,
}

/// The time of a call and what it was for.
pub struct Call<'a> {
    /// The device, if it is known.
    pub device: &'a str,
    /// LoRaWAN's FPort.
    pub port: u8,
    /// Milliseconds since 1970 in UTC.
    pub wall_ms: u64,
}

/// Fields are dropped in this order: a runtime must outlive its values.
struct Engine {
    entry: Persistent<Function<'static>>,
    /// What the entry gives, where that is the same each time.
    kept: Option<Persistent<Array<'static>>>,
    globals: Globals,
    tools: Persistent<Object<'static>>,
    words: KeptWords,
    keys: Keys,
    context: Context,
    runtime: Runtime,
    watch: Rc<Watch>,
}

/// What a call may leave behind in the global object.
enum Globals {
    Nothing,
    /// Variables that were given a value and never declared. What the engine and the prelude have put there is not enumerable.
    Enumerable,
    /// Anything beside these names.
    All(Vec<String>),
}

/// What a running script is held to, and what it has logged.
#[derive(Default)]
struct Watch {
    /// The earliest moment at which it can be late.
    until: Cell<Option<Instant>>,
    time: Cell<Duration>,
    /// What this thread had computed when the engine first asked, which it does after some thousand steps.
    computed: Cell<Option<Duration>>,
    is_late: Cell<bool>,
    log: RefCell<Vec<String>>,
}

#[expect(clippy::disallowed_methods, reason = "the limit of a call is kept in the process that runs it")]
fn now() -> Instant {
    Instant::now()
}

/// Processor time of this thread; that of a system without such a clock is its wall clock's.
fn computed() -> Duration {
    let clock =
        clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).or_else(|_| clock_gettime(ClockId::CLOCK_MONOTONIC));
    clock.map(Duration::from).unwrap_or_default()
}

impl Watch {
    fn begin(&self, time: Duration) {
        self.until.set(now().checked_add(time));
        self.time.set(time);
        self.computed.set(None);
        self.is_late.set(false);
        self.log.borrow_mut().clear();
    }

    /// Whether to stop: once late, always, so that a `finally` does not go on.
    fn is_over(&self) -> bool {
        if self.is_late.get() {
            return true;
        }
        // A script is not to blame for a machine that is busy with something else.
        let before = self.computed.get().unwrap_or_else(computed);
        self.computed.set(Some(before));
        let may_be_late = self.until.get().is_some_and(|until| now() >= until);
        self.is_late.set(may_be_late && computed().saturating_sub(before) >= self.time.get());
        self.is_late.get()
    }

    fn write(&self, mut line: String) {
        let mut log = self.log.borrow_mut();
        if log.len() < LOG.0 {
            line.truncate(line.floor_char_boundary(LOG.1));
            log.push(line);
        }
    }
}

impl Engine {
    fn scope<'a, 'js>(&'a self, ctx: &Ctx<'js>, program: &'a Program) -> Result<Scope<'a, 'js>, Stop> {
        let kept = self.kept.clone().map(|kept| kept.restore(ctx)).transpose()?;
        Ok(Scope {
            ctx: ctx.clone(),
            tools: &self.tools,
            words: self.words.restore(ctx)?,
            keys: &self.keys,
            entry: &self.entry,
            kept,
            has: program.has,
            name: &program.name,
        })
    }

    /// A variable that the script forgot to declare is a property of the global object. The next call, of another
    /// device, must not find it.
    fn forget_variables(&self) {
        if matches!(self.globals, Globals::Nothing) {
            return;
        }
        self.context.with(|ctx| {
            let globals = ctx.globals();
            let mut left: Vec<Atom<'_>> = globals.own_keys(assigned()).flatten().collect();
            if let Globals::All(known) = &self.globals {
                // A name that is no Unicode was not there before.
                let is_new = |name: &Atom<'_>| name.to_string().map_or(true, |name| !known.contains(&name));
                left.extend(globals.own_keys::<Atom<'_>>(all()).flatten().filter(is_new));
            }
            for name in left {
                if globals.remove(name).is_err() {
                    ctx.catch();
                }
            }
        });
    }
}

impl Program {
    /// Compiles `source` and runs what stands outside its functions. `name` is for messages.
    pub fn load(name: &str, source: &[u8], limits: Limits) -> Result<Program, String> {
        if source.len() > MAX_SOURCE {
            return Err(format!("a script has at most {MAX_SOURCE} bytes"));
        }
        let source = std::str::from_utf8(source).map_err(|e| format!("it is no UTF-8: {e}"))?;
        let source = source.strip_prefix('\u{feff}').unwrap_or(source);
        let mut program = Program {
            name: name.to_owned(),
            source: source.to_owned(),
            survey: Survey::of(source),
            limits,
            has: [false; NAMES.len()],
            engine: None,
            is_spent: false,
        };
        let engine = program.make()?;
        program.engine = Some(engine);
        program.has = program.survey()?;
        if program.shape_or_none().is_none() {
            return Err(
                "it has no function of any convention: decodeUplink, decode and their like".to_owned()
            );
        }
        Ok(program)
    }

    /// What it understands. A payload codec may well have a helper of the name `decode`.
    pub fn shape(&self) -> Shape {
        self.shape_or_none().unwrap_or(Shape::Payload)
    }

    fn shape_or_none(&self) -> Option<Shape> {
        let is_payload = self.has[..7].contains(&true);
        let is_stream = self.has[8..].contains(&true);
        is_payload.then_some(Shape::Payload).or(is_stream.then_some(Shape::Stream))
    }

    /// What a call with this input brings, and what the script has logged: see [`crate::pipe::Request::Calls`].
    pub fn call(
        &mut self,
        function: Called,
        call: &Call<'_>,
        input: &[u8],
    ) -> (Result<Bytes, CallFailure>, Vec<String>) {
        self.run(|scope| match function {
            Called::DecodeUplink => scope.decode_uplink(call, input),
            Called::EncodeDownlink => scope.encode_downlink(call, input),
            Called::Decode => scope.decode(call, input),
            Called::Encode => scope.encode(call, input),
        })
    }

    /// What a function gives for the value of an example: see [`crate::pipe::Request::Example`].
    pub fn example(
        &mut self,
        function: Convention,
        input: &[u8],
    ) -> (Result<Bytes, CallFailure>, Vec<String>) {
        self.run(|scope| scope.example(function, input))
    }

    /// Whether a limit was reached since it was made ready.
    pub fn is_spent(&self) -> bool {
        self.is_spent
    }

    /// Makes it ready again after a limit was reached; the next call does that too. Apart from the call since what the
    /// engine does with an exhausted runtime may take long, or end the process.
    pub fn renew(&mut self) {
        if self.is_spent {
            self.is_spent = false;
            self.engine = None;
        }
        if self.engine.is_none() {
            self.engine = self.make().ok();
        }
    }

    fn survey(&mut self) -> Result<[bool; NAMES.len()], String> {
        let mut has = [false; NAMES.len()];
        let (surveyed, _) = self.run(|scope| {
            let all: Vec<Value<'_>> = scope.entry()?.call((NAMES.len(),))?;
            Ok(all.iter().map(|value| u8::from(value.is_function())).collect())
        });
        let surveyed = surveyed.map_err(|failure| match failure {
            CallFailure::Program(why) | CallFailure::Limit(why) => why.into_string(),
            other => format!("{other:?}"),
        })?;
        has.iter_mut().zip(&surveyed).for_each(|(has, is)| *has = *is == 1);
        Ok(has)
    }

    fn run(
        &mut self,
        job: impl FnOnce(&Scope<'_, '_>) -> Result<Vec<u8>, Stop>,
    ) -> (Result<Bytes, CallFailure>, Vec<String>) {
        self.renew();
        let Some(engine) = &self.engine else {
            return (Err(CallFailure::Limit("it could not be loaded again".into())), Vec::new());
        };
        let watch = Rc::clone(&engine.watch);
        watch.begin(self.limits.time);
        let result = engine.context.with(|ctx| {
            let done = engine.scope(&ctx, self).and_then(|scope| job(&scope));
            done.map_err(|stop| thrown(&ctx, stop, &self.name))
        });
        // Promises that nobody waits for; they are the call's own time.
        while !watch.is_late.get() && matches!(engine.runtime.execute_pending_job(), Ok(true) | Err(_)) {
            if watch.is_over() {
                break;
            }
        }
        engine.forget_variables();
        let log = std::mem::take(&mut *watch.log.borrow_mut());
        let result = match result {
            _ if watch.is_late.get() => {
                self.is_spent = true;
                let time = self.limits.time.as_millis();
                Err(CallFailure::Limit(format!("it took longer than {time} ms").into()))
            }
            Ok(bytes) => Ok(bytes.into()),
            Err(thrown) if thrown.is_memory => {
                self.is_spent = true;
                let memory = self.limits.memory / 1024;
                Err(CallFailure::Limit(format!("it took more than {memory} KiB").into()))
            }
            Err(thrown) => Err(CallFailure::Program(thrown.told(&self.name).into())),
        };
        (result, log)
    }

    fn make(&self) -> Result<Engine, String> {
        let watch = Rc::new(Watch::default());
        watch.begin(self.limits.time);
        let runtime = Runtime::new().map_err(|e| e.to_string())?;
        runtime.set_memory_limit(self.limits.memory);
        runtime.set_max_stack_size(self.limits.stack);
        let handler = Rc::clone(&watch);
        runtime.set_interrupt_handler(Some(Box::new(move || handler.is_over())));
        let context = Context::full(&runtime).map_err(|e| format!("no context: {e}"))?;
        let made = context.with(|ctx| {
            let made = self.evaluate(&ctx, &watch);
            made.map_err(|stop| match thrown(&ctx, stop, &self.name) {
                thrown if thrown.is_syntax => self.mistake(&ctx, thrown),
                thrown => thrown.told(&self.name),
            })
        });
        let (entry, kept, tools, words, globals) = made.map_err(|why| match watch.is_late.get() {
            true => format!("it took longer than {} ms to load", self.limits.time.as_millis()),
            false => why,
        })?;
        Ok(Engine { entry, kept, globals, tools, words, keys: Keys::default(), context, runtime, watch })
    }

    fn evaluate<'js>(&self, ctx: &Ctx<'js>, watch: &Rc<Watch>) -> Result<Made, Stop> {
        let prelude: Function<'js> = ctx.eval_with_options(PRELUDE, options("prelude"))?;
        let log = Rc::clone(watch);
        let write = Function::new(ctx.clone(), move |line: String| log.write(line))?;
        let tools: Object<'js> = prelude.call((write,))?;
        let entry: Function<'js> = ctx.eval_with_options(self.wrapped(), options(&self.name))?;
        let globals = match self.survey.may_leave_variables {
            false => Globals::Nothing,
            true if self.source.contains("definePropert") => {
                Globals::All(ctx.globals().own_keys(all()).collect::<Result<_, _>>()?)
            }
            true => Globals::Enumerable,
        };
        let kept = match self.survey.kept {
            Some(_) => {
                let all: Array<'js> = entry.call((NAMES.len(),))?;
                let all: Array<'js> = tools.get::<_, Function<'js>>("freeze")?.call((all,))?;
                Some(Persistent::save(ctx, all))
            }
            None => None,
        };
        let words = KeptWords::of(ctx, &tools)?;
        Ok((Persistent::save(ctx, entry), kept, Persistent::save(ctx, tools), words, globals))
    }

    /// What is wrong with a script that is no JavaScript. One with a bracket too few, or too many, is found out only behind
    /// its end, or in the middle of a function that is right: by itself it is wrong where its author would say so.
    fn mistake(&self, ctx: &Ctx<'_>, found: Thrown) -> String {
        // It is read to its end before anything of it would run, and nothing does.
        let alone = format!("{}{}", ALONE, self.source);
        let alone = ctx.eval_with_options::<(), _>(alone, options(&self.name)).err();
        let alone = alone.map(|error| thrown(ctx, error.into(), &self.name));
        // What is right in a function only is no mistake here.
        let alone = alone.filter(|alone| alone.is_syntax && !alone.why.contains("return"));
        match alone {
            Some(alone) if alone.place < found.place => alone.told(&self.name),
            _ => found.told(&self.name),
        }
    }

    /// The script as a function that gives one of its own by its place in [`NAMES`], or all, and all else that is to be
    /// kept. Nothing comes before the script's first line, so that the lines in messages are its own.
    fn wrapped(&self) -> String {
        let pick = |name: &str| format!("typeof {name} === 'function' ? {name} : module.exports?.{name}");
        let cases: String =
            NAMES.iter().enumerate().map(|(i, n)| format!("case {i}: return {};", pick(n))).collect();
        let kept = self.survey.kept.iter().flatten().cloned();
        let all: Vec<String> = NAMES.iter().map(|name| pick(name)).chain(kept).collect();
        let all = all.join(",");
        format!("{BEFORE}{}\n;switch ($want) {{ {cases} default: return [{all}]; }}}})", self.source)
    }
}

/// As the fields of [`Engine`]: entry, kept, tools, words, globals.
type Made = (
    Persistent<Function<'static>>,
    Option<Persistent<Array<'static>>>,
    Persistent<Object<'static>>,
    KeptWords,
    Globals,
);

/// Names of all properties, also of those that are not enumerable.
fn all() -> Filter {
    Filter::new().string()
}

/// Of properties that are as an assignment makes them.
fn assigned() -> Filter {
    Filter::new().string().symbol().enum_only()
}

fn options(name: &str) -> EvalOptions {
    let mut options = EvalOptions::default();
    options.strict = false;
    options.filename = Some(name.to_owned());
    options
}

#[cfg(test)]
mod tests;

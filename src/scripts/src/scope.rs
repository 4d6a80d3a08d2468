//! What the code of a call works with: the script's functions, and values of the engine read with care. Every property that
//! is read may be a getter of the script, every value a Proxy; what these throw is the script's own error.

use rquickjs::atom::PredefinedAtom;
use rquickjs::function::Args;
use rquickjs::{Array, Atom, Ctx, Function, IntoJs, Object, Persistent, Value};

use crate::engine::{BEFORE, MAX_RESULT, NAMES};
use crate::json::{self, Keys, Written};

/// Most characters of an error.
const MAX_WHY: usize = 1000;
/// Most bytes of a frame that a script makes.
const MAX_BYTES: f64 = 65536.0;
/// Most bytes that become a list as arguments of a function: a fraction of what setting one after the other takes.
const MAX_ARGS: usize = 1024;
/// Most warnings and errors of a call.
const MAX_TEXTS: usize = 16;

/// Why a call brings nothing.
pub(crate) enum Stop {
    /// The engine says so: mostly an exception.
    Js(rquickjs::Error),
    /// What came of it is nothing that the convention knows.
    Bad(String),
}

impl From<rquickjs::Error> for Stop {
    fn from(error: rquickjs::Error) -> Stop {
        Stop::Js(error)
    }
}

/// What has been thrown.
pub(crate) struct Thrown {
    pub(crate) why: String,
    /// Bytes of the stream that it names as spoilt.
    pub(crate) skip: Option<u64>,
    /// There was no memory.
    pub(crate) is_memory: bool,
    /// The script is no JavaScript.
    pub(crate) is_syntax: bool,
    /// Where in the script it was, if the engine knows.
    pub(crate) place: Option<Place>,
}

/// A line of the script's file and a place in that line, both from one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    pub(crate) line: u32,
    pub(crate) column: u32,
}

impl Thrown {
    /// Without a place.
    fn new(why: String) -> Thrown {
        Thrown { why, skip: None, is_memory: false, is_syntax: false, place: None }
    }

    /// For who has written the script of this name.
    pub(crate) fn told(self, name: &str) -> String {
        match self.place {
            Some(Place { line, column }) => format!("{} ({name}:{line}:{column})", self.why),
            None => self.why,
        }
    }
}

/// What each call needs of the prelude and of the engine's names, so that it looks up none of them by text.
pub(crate) struct Words<'js> {
    /// The prelude's functions of these names.
    pub(crate) list: Function<'js>,
    pub(crate) uplink: Function<'js>,
    /// `Object.prototype`.
    pub(crate) plain: Object<'js>,
    pub(crate) data: Atom<'js>,
    pub(crate) warnings: Atom<'js>,
}

/// [`Words`] between two calls.
pub(crate) struct KeptWords {
    list: Persistent<Function<'static>>,
    uplink: Persistent<Function<'static>>,
    plain: Persistent<Object<'static>>,
    data: Persistent<Atom<'static>>,
    warnings: Persistent<Atom<'static>>,
}

impl KeptWords {
    pub(crate) fn of<'js>(ctx: &Ctx<'js>, tools: &Object<'js>) -> Result<KeptWords, Stop> {
        Ok(KeptWords {
            list: Persistent::save(ctx, tools.get::<_, Function<'js>>("list")?),
            uplink: Persistent::save(ctx, tools.get::<_, Function<'js>>("uplink")?),
            plain: Persistent::save(ctx, tools.get::<_, Object<'js>>("plain")?),
            data: Persistent::save(ctx, Atom::from_str(ctx.clone(), "data")?),
            warnings: Persistent::save(ctx, Atom::from_str(ctx.clone(), "warnings")?),
        })
    }

    pub(crate) fn restore<'js>(&self, ctx: &Ctx<'js>) -> Result<Words<'js>, Stop> {
        Ok(Words {
            list: self.list.clone().restore(ctx)?,
            uplink: self.uplink.clone().restore(ctx)?,
            plain: self.plain.clone().restore(ctx)?,
            data: self.data.clone().restore(ctx)?,
            warnings: self.warnings.clone().restore(ctx)?,
        })
    }
}

/// See the module.
pub(crate) struct Scope<'a, 'js> {
    pub(crate) ctx: Ctx<'js>,
    pub(crate) tools: &'a Persistent<Object<'static>>,
    pub(crate) words: Words<'js>,
    pub(crate) keys: &'a Keys,
    pub(crate) entry: &'a Persistent<Function<'static>>,
    /// The script's functions, if they are the same in each call.
    pub(crate) kept: Option<Array<'js>>,
    pub(crate) has: [bool; NAMES.len()],
    pub(crate) name: &'a str,
}

impl<'js> Scope<'_, 'js> {
    /// The first of these functions that the script has, and its name.
    pub(crate) fn function(&self, names: &[&'static str]) -> Result<(&'static str, Function<'js>), Stop> {
        let place = |name: &&'static str| {
            let place = NAMES.iter().position(|known| known == name);
            place.filter(|at| self.has[*at]).map(|at| (at, *name))
        };
        let Some((at, name)) = names.iter().find_map(place) else {
            return Err(Stop::Bad(format!("it has no function {}", names.join(" or "))));
        };
        let function: Value<'js> = match &self.kept {
            Some(kept) => kept.get(at)?,
            None => self.entry()?.call((at,))?,
        };
        let function = function.into_function();
        Ok((name, function.ok_or_else(|| Stop::Bad(format!("{name} is no function any more")))?))
    }

    /// Whether the script has it.
    pub(crate) fn has_function(&self, name: &str) -> bool {
        NAMES.iter().zip(self.has).any(|(known, has)| has && *known == name)
    }

    /// A function of the prelude.
    pub(crate) fn tool(&self, name: &str) -> Result<Function<'js>, Stop> {
        Ok(self.tools.clone().restore(&self.ctx)?.get(name)?)
    }

    /// What evaluates the script.
    pub(crate) fn entry(&self) -> Result<Function<'js>, Stop> {
        Ok(self.entry.clone().restore(&self.ctx)?)
    }

    /// A list of numbers, which is what TS013 calls bytes.
    pub(crate) fn list(&self, bytes: &[u8]) -> Result<Array<'js>, Stop> {
        if bytes.len() <= MAX_ARGS {
            let mut args = Args::new(self.ctx.clone(), bytes.len());
            args.push_args(bytes.iter().copied())?;
            return Ok(args.apply(&self.words.list)?);
        }
        let list = Array::new(self.ctx.clone())?;
        for (at, byte) in bytes.iter().enumerate() {
            list.set(at, *byte)?;
        }
        Ok(list)
    }

    /// What TS013 gives to `decodeUplink`.
    pub(crate) fn uplink(&self, bytes: &[u8], port: u8, wall_ms: u64) -> Result<Value<'js>, Stop> {
        // A list too long for arguments takes the place of an empty one.
        let (bytes, list) = if bytes.len() <= MAX_ARGS { (bytes, &[][..]) } else { (&[][..], bytes) };
        let mut args = Args::new(self.ctx.clone(), bytes.len() + 2);
        args.push_arg(port)?;
        args.push_arg(wall_ms as f64)?;
        args.push_args(bytes.iter().copied())?;
        let input: Object<'js> = args.apply(&self.words.uplink)?;
        if !list.is_empty() {
            self.set(&input, "bytes", self.list(list)?)?;
        }
        Ok(input.into_value())
    }

    /// A value of JSON.
    pub(crate) fn parse(&self, json: &[u8]) -> Result<Value<'js>, Stop> {
        Ok(self.ctx.json_parse(json)?)
    }

    /// As `parse`, which must give an object.
    pub(crate) fn parse_object(&self, json: &[u8]) -> Result<Object<'js>, Stop> {
        let value = self.parse(json)?;
        value.into_object().ok_or_else(|| Stop::Bad("the input is no JSON object".to_owned()))
    }

    /// Appends the value in JSON; false of what JSON has no word for.
    pub(crate) fn json(&self, value: &Value<'js>, into: &mut Vec<u8>) -> Result<bool, Stop> {
        let begin = into.len();
        match json::write(value, &self.words.plain, self.keys, into)? {
            Written::Json => {}
            Written::Nothing => return Ok(false),
            Written::NotPlain => match self.ctx.json_stringify(value.clone())? {
                Some(text) => into.extend(text.to_string()?.into_bytes()),
                None => return Ok(false),
            },
        }
        let length = into.len() - begin;
        if length > MAX_RESULT {
            return Err(Stop::Bad(format!("it gave {length} bytes, more than {MAX_RESULT}")));
        }
        Ok(true)
    }

    /// Bytes as scripts say them: a list of numbers, or a Uint8Array.
    pub(crate) fn bytes(&self, what: &str, value: &Value<'js>) -> Result<Vec<u8>, Stop> {
        let bad = |why: String| Err(Stop::Bad(format!("{what} must be bytes: {why}")));
        let Some(list) = value.as_object() else { return bad(format!("this is {}", value.type_name())) };
        let length: Value<'js> = list.get(PredefinedAtom::Length)?;
        let Some(length) = length.as_number().filter(|n| (0.0..=MAX_BYTES).contains(n)) else {
            return bad(format!("it has no length up to {MAX_BYTES}"));
        };
        let mut bytes = Vec::new();
        for at in 0..length as u32 {
            let byte: Value<'js> = list.get(at)?;
            let Some(byte) = byte.as_number().filter(|n| (0.0..=255.0).contains(n) && n.fract() == 0.0)
            else {
                return bad(format!("byte {at} is {}", self.shown(&byte)));
            };
            bytes.push(byte as u8);
        }
        Ok(bytes)
    }

    /// Warnings and errors: a list of texts, or one text.
    pub(crate) fn texts(&self, value: &Value<'js>) -> Result<Vec<String>, Stop> {
        if value.is_undefined() || value.is_null() {
            return Ok(Vec::new());
        }
        if value.is_string() {
            return Ok(vec![self.shown(value)]);
        }
        let Some(list) = value.as_object() else { return Ok(vec![self.shown(value)]) };
        let length: Value<'js> = list.get(PredefinedAtom::Length)?;
        let length = length.as_number().unwrap_or_default().clamp(0.0, MAX_TEXTS as f64);
        let text = |at: u32| Ok(self.shown(&list.get::<_, Value<'js>>(at)?));
        (0..length as u32).map(text).collect()
    }

    /// A value for people.
    fn shown(&self, value: &Value<'js>) -> String {
        if let Some(text) = value.as_string().and_then(|text| text.to_string().ok()) {
            return short(text);
        }
        let json = self.ctx.json_stringify(value.clone()).ok().flatten();
        if json.is_none() {
            // An exception of a toJSON is not the one that is to be told.
            self.ctx.catch();
        }
        short(json.and_then(|text| text.to_string().ok()).unwrap_or_else(|| value.type_name().to_owned()))
    }

    /// Sets a property of an object that was made here.
    pub(crate) fn set(&self, object: &Object<'js>, key: &str, value: impl IntoJs<'js>) -> Result<(), Stop> {
        Ok(object.set(key, value)?)
    }
}

fn short(mut text: String) -> String {
    text.truncate(text.floor_char_boundary(MAX_WHY));
    text
}

/// What has been thrown, and with it taken from the context.
pub(crate) fn thrown(ctx: &Ctx<'_>, stop: Stop, name: &str) -> Thrown {
    let error = match stop {
        Stop::Bad(why) => return Thrown::new(why),
        Stop::Js(error) => error,
    };
    let plain = |why: String| Thrown::new(short(why));
    match error {
        rquickjs::Error::Exception => {}
        rquickjs::Error::Allocation => {
            return Thrown { is_memory: true, ..plain("out of memory".to_owned()) };
        }
        other => return plain(other.to_string()),
    }
    let value = ctx.catch();
    if value.is_null() {
        // The engine throws this when there is no memory for an error.
        return Thrown { is_memory: true, ..plain("out of memory".to_owned()) };
    }
    if let Some(text) = value.as_string() {
        return plain(text.to_string().unwrap_or_default());
    }
    let Some(object) = value.as_object() else { return plain(format!("it threw {}", value.type_name())) };
    // Each of these may be a getter, and throw again.
    let text = |key: &str| {
        let value: Option<Value<'_>> = object.get(key).map_err(|_| ctx.catch()).ok();
        value.and_then(|value| value.as_string()?.to_string().ok())
    };
    let skip: Option<Value<'_>> = object.get("skip").map_err(|_| ctx.catch()).ok();
    let skip = skip.and_then(|skip| skip.as_number()).filter(|n| (1.0..=MAX_BYTES * 16.0).contains(n));
    let (message, kind) = (text("message"), text("name"));
    let is_memory = message.as_deref() == Some("out of memory") && kind.as_deref() == Some("InternalError");
    let is_syntax = kind.as_deref() == Some("SyntaxError");
    let place = text("stack").and_then(|stack| place_in(&stack, name));
    let why = match (kind, message) {
        (Some(kind), Some(message)) if kind != "Error" => format!("{kind}: {message}"),
        (_, Some(message)) => message,
        (_, None) => {
            let json = ctx.json_stringify(value.clone()).map_err(|_| ctx.catch()).ok().flatten();
            json.and_then(|text| text.to_string().ok()).unwrap_or_else(|| "it threw an object".to_owned())
        }
    };
    Thrown { skip: skip.map(|n| n as u64), is_memory, is_syntax, place, ..plain(why) }
}

/// The place in the innermost frame that is the script's own: `at f (NAME:12:5)`.
fn place_in(stack: &str, name: &str) -> Option<Place> {
    let (_, after) = stack.split_once(&format!("{name}:"))?;
    let mut numbers = after.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    let (line, column) = (numbers.next()?.ok()?, numbers.next()?.ok()?);
    // What the engine has before the script's first line is not its author's.
    let column = if line == 1 { u32::saturating_sub(column, BEFORE.len() as u32).max(1) } else { column };
    Some(Place { line, column })
}

//! What the code of a call works with: the script's functions, and values of the engine read with care. Every property that
//! is read may be a getter of the script, every value a Proxy; what these throw is the script's own error.

use rquickjs::{Array, Ctx, Function, IntoJs, Object, Value};

use crate::engine::{MAX_RESULT, NAMES};
use crate::json;

/// Most characters of an error.
const MAX_WHY: usize = 1000;
/// Most bytes of a frame that a script makes.
const MAX_BYTES: f64 = 65536.0;
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
}

/// See the module.
pub(crate) struct Scope<'a, 'js> {
    pub(crate) ctx: Ctx<'js>,
    pub(crate) tools: Object<'js>,
    pub(crate) entry: Function<'js>,
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
            None => self.entry.call((at,))?,
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
        Ok(self.tools.get(name)?)
    }

    /// A list of numbers, which is what TS013 calls bytes.
    pub(crate) fn list(&self, bytes: &[u8]) -> Result<Array<'js>, Stop> {
        let list = Array::new(self.ctx.clone())?;
        for (at, byte) in bytes.iter().enumerate() {
            list.set(at, *byte)?;
        }
        Ok(list)
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

    /// The value in JSON; None of what JSON has no word for.
    pub(crate) fn json(&self, value: &Value<'js>) -> Result<Option<Vec<u8>>, Stop> {
        if value.is_undefined() {
            return Ok(None);
        }
        let json = match json::write(&self.ctx, value)? {
            Some(json) => json,
            None => match self.ctx.json_stringify(value.clone())? {
                Some(text) => text.to_string()?.into_bytes(),
                None => return Ok(None),
            },
        };
        if json.len() > MAX_RESULT {
            return Err(Stop::Bad(format!("it gave {} bytes, more than {MAX_RESULT}", json.len())));
        }
        Ok(Some(json))
    }

    /// Bytes as scripts say them: a list of numbers, or a Uint8Array.
    pub(crate) fn bytes(&self, what: &str, value: &Value<'js>) -> Result<Vec<u8>, Stop> {
        let bad = |why: String| Err(Stop::Bad(format!("{what} must be bytes: {why}")));
        let Some(list) = value.as_object() else { return bad(format!("this is {}", value.type_name())) };
        let length: Value<'js> = list.get("length")?;
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
        let length: Value<'js> = list.get("length")?;
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
        Stop::Bad(why) => return Thrown { why, skip: None, is_memory: false },
        Stop::Js(error) => error,
    };
    let plain = |why: String| Thrown { why: short(why), skip: None, is_memory: false };
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
    let line = text("stack").and_then(|stack| line_in(&stack, name));
    let mut why = match (kind, message) {
        (Some(kind), Some(message)) if kind != "Error" => format!("{kind}: {message}"),
        (_, Some(message)) => message,
        (_, None) => {
            let json = ctx.json_stringify(value.clone()).map_err(|_| ctx.catch()).ok().flatten();
            json.and_then(|text| text.to_string().ok()).unwrap_or_else(|| "it threw an object".to_owned())
        }
    };
    why = short(why);
    if let Some(line) = line {
        why.push_str(&format!(" ({name}, line {line})"));
    }
    Thrown { why, skip: skip.map(|n| n as u64), is_memory }
}

/// The line of the script in the innermost frame that is the script's own: `at f (NAME:12:5)`.
fn line_in(stack: &str, name: &str) -> Option<u32> {
    let (_, after) = stack.split_once(&format!("{name}:"))?;
    let digits = after.split(|c: char| !c.is_ascii_digit()).next()?;
    digits.parse().ok()
}

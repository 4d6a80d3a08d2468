//! Stream codecs: `decode(buffer, context)`, which says how much it has taken and what that means, and
//! `encode({kind, value, device})`.

use rquickjs::{Function, Object, TypedArray, Value};

use crate::engine::{Call, MAX_RESULT};
use crate::scope::{Scope, Stop, thrown};

impl<'js> Scope<'_, 'js> {
    /// Bytes of a stream: frames for as long as `decode` takes something. What it throws ends them, and costs no frame before.
    pub(crate) fn decode(&self, call: &Call<'_>, buffer: &[u8]) -> Result<Vec<u8>, Stop> {
        let (_, decode) = self.function(&["decode"])?;
        let device = (!call.device.is_empty()).then_some(call.device);
        let context: Value<'js> = self.tool("context")?.call((device, call.port, call.wall_ms as f64))?;
        let view = self.tool("view")?;
        let bytes = TypedArray::new_copy(self.ctx.clone(), buffer)?;
        let mut frames = Vec::new();
        let mut at = 0;
        let mut error = None;
        while at < buffer.len() {
            match self.frame(&decode, &context, view.call((bytes.clone(), at))?, buffer.len() - at) {
                Ok(None) => break,
                Ok(Some((consumed, frame))) => {
                    if !frames.is_empty() {
                        frames.push(b',');
                    }
                    frames.extend(frame);
                    at += consumed;
                }
                Err(stop) => {
                    let thrown = thrown(&self.ctx, stop, self.name);
                    if thrown.is_memory {
                        return Err(Stop::Js(rquickjs::Error::Allocation));
                    }
                    error = Some(thrown);
                    break;
                }
            }
            if frames.len() > MAX_RESULT {
                break;
            }
        }
        let mut out = format!("{{\"consumed\":{at},\"frames\":[").into_bytes();
        out.extend(frames);
        out.push(b']');
        if let Some(error) = error {
            let skip = error.skip.map(|skip| format!(",\"skip\":{skip}")).unwrap_or_default();
            let why = serde_json::to_string(&error.told(self.name)).unwrap_or_else(|_| "\"\"".to_owned());
            out.extend(format!(",\"error\":{{\"at\":{at},\"why\":{why}{skip}}}").bytes());
        }
        out.push(b'}');
        Ok(out)
    }

    /// One call of `decode`: how many bytes it took, and the frame in JSON; None if it waits for more.
    fn frame(
        &self,
        decode: &Function<'js>,
        context: &Value<'js>,
        rest: Value<'js>,
        length: usize,
    ) -> Result<Option<(usize, Vec<u8>)>, Stop> {
        let output: Value<'js> = decode.call((rest, context.clone()))?;
        if output.is_undefined() || output.is_null() {
            return Ok(None);
        }
        let Some(output) = output.as_object() else {
            return Err(Stop::Bad(format!("decode gave {}", output.type_name())));
        };
        let consumed: Value<'js> = output.get("consumed")?;
        let consumed = match consumed.as_number() {
            None if consumed.is_undefined() || consumed.is_null() => return Ok(None),
            Some(0.0) => return Ok(None),
            Some(n) if n.fract() == 0.0 && n > 0.0 && n <= length as f64 => n as usize,
            Some(n) => return Err(Stop::Bad(format!("decode says that it took {n} of {length} bytes"))),
            None => return Err(Stop::Bad(format!("`consumed` is {}", consumed.type_name()))),
        };
        let up: Value<'js> = output.get("up")?;
        let is_list = up.is_array();
        let mut json = Vec::new();
        let is_any = self.json(&up, &mut json)? && json != b"null";
        let mut frame = format!("{{\"consumed\":{consumed},\"up\":").into_bytes();
        match is_any {
            false => frame.extend_from_slice(b"[]"),
            true if is_list => frame.extend(json),
            true => {
                frame.push(b'[');
                frame.extend(json);
                frame.push(b']');
            }
        }
        for (key, name) in [("answer", "answer"), ("refuse", "refusal")] {
            let value: Value<'js> = output.get(key)?;
            if !value.is_undefined() && !value.is_null() {
                let bytes = self.bytes(&format!("`{key}`"), &value)?;
                frame.extend(format!(",\"{name}\":\"{}\"", codecs::hex::encode(&bytes)).bytes());
            }
        }
        frame.push(b'}');
        Ok(Some((consumed, frame)))
    }

    /// A command, `{"kind": …, "value": …}`: `{"hex": "…", "key": 7}`.
    pub(crate) fn encode(&self, call: &Call<'_>, command: &[u8]) -> Result<Vec<u8>, Stop> {
        let (_, encode) = self.function(&["encode"])?;
        let command: Object<'js> = self.parse_object(command)?;
        self.set(&command, "device", (!call.device.is_empty()).then_some(call.device))?;
        let output: Value<'js> = encode.call((command,))?;
        let inner: Option<Value<'js>> = match output.as_object().filter(|_| !output.is_array()) {
            None => None,
            Some(object) => Some(object.get("bytes")?).filter(|bytes: &Value<'js>| !bytes.is_undefined()),
        };
        let Some(inner) = inner else {
            let bytes = self.bytes("what encode gives", &output)?;
            return Ok(format!("{{\"hex\":\"{}\"}}", codecs::hex::encode(&bytes)).into_bytes());
        };
        let bytes = self.bytes("`bytes`", &inner)?;
        let key: Value<'js> = match output.as_object() {
            Some(object) => object.get("key")?,
            None => Value::new_undefined(self.ctx.clone()),
        };
        let key = match key.as_number() {
            None if key.is_undefined() || key.is_null() => String::new(),
            // Numbers of the engine are exact up to 2^53.
            Some(n) if n.fract() == 0.0 && (0.0..=9_007_199_254_740_991.0).contains(&n) => {
                format!(",\"key\":{n}")
            }
            _ => return Err(Stop::Bad("`key` must be a whole number from 0 to 2^53".to_owned())),
        };
        Ok(format!("{{\"hex\":\"{}\"{key}}}", codecs::hex::encode(&bytes)).into_bytes())
    }
}

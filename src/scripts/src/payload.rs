//! Payload codecs, in the convention of the LoRa Alliance (TS013) that The Things Stack and ChirpStack share, and in the older
//! ones of both.

use rquickjs::atom::PredefinedAtom;
use rquickjs::{Function, Object, Value};

use crate::engine::Call;
use crate::pipe::Convention;
use crate::scope::{Scope, Stop};

const DECODE: [&str; 3] = ["decodeUplink", "Decoder", "Decode"];
const ENCODE: [&str; 3] = ["encodeDownlink", "Encoder", "Encode"];

impl<'js> Scope<'_, 'js> {
    /// A payload: `{"data": …, "normalized": …, "warnings": […]}`.
    pub(crate) fn decode_uplink(&self, call: &Call<'_>, payload: &[u8]) -> Result<Vec<u8>, Stop> {
        let (name, decode) = self.function(&DECODE)?;
        if name != "decodeUplink" {
            let bytes = self.list(payload)?;
            let data = match name {
                "Decoder" => decode.call((bytes, call.port))?,
                _ => decode.call((call.port, bytes, Object::new(self.ctx.clone())?))?,
            };
            return self.data(&data, &[], None);
        }
        let input = self.uplink(payload, call.port, call.wall_ms)?;
        let output: Value<'js> = decode.call((input,))?;
        let Some(output) = output.as_object() else {
            return Err(Stop::Bad(format!("decodeUplink gave {}", output.type_name())));
        };
        self.no_errors(output)?;
        let mut warnings = self.texts(&output.get(self.words.warnings.clone())?)?;
        let data: Value<'js> = output.get(self.words.data.clone())?;
        let normalized =
            if self.has_function("normalizeUplink") { self.normalize(output, &mut warnings)? } else { None };
        self.data(&data, &warnings, normalized)
    }

    /// A command, `{"kind": …, "value": …}`: `{"hex": "…", "port": 1}`.
    pub(crate) fn encode_downlink(&self, call: &Call<'_>, command: &[u8]) -> Result<Vec<u8>, Stop> {
        let (name, encode) = self.function(&ENCODE)?;
        let command = self.parse_object(command)?;
        let data: Value<'js> = command.get("value")?;
        let output: Value<'js> = match name {
            "Encoder" => encode.call((data, call.port))?,
            "Encode" => encode.call((call.port, data, Object::new(self.ctx.clone())?))?,
            _ => {
                let input = Object::new(self.ctx.clone())?;
                self.set(&input, "data", data)?;
                self.set(&input, "fPort", call.port)?;
                self.set(&input, "kind", command.get::<_, Value<'js>>("kind")?)?;
                self.set(&input, "variables", Object::new(self.ctx.clone())?)?;
                encode.call((input,))?
            }
        };
        let mut port = call.port;
        let bytes = match output.as_object().filter(|_| name == "encodeDownlink") {
            None => self.bytes(&format!("what {name} gives"), &output)?,
            Some(output) => {
                self.no_errors(output)?;
                let own: Value<'js> = output.get("fPort")?;
                port = match own.as_number() {
                    None => port,
                    Some(own) if (1.0..=255.0).contains(&own) && own.fract() == 0.0 => own as u8,
                    Some(own) => return Err(Stop::Bad(format!("fPort is {own}"))),
                };
                self.bytes("`bytes`", &output.get("bytes")?)?
            }
        };
        Ok(format!("{{\"hex\":\"{}\",\"port\":{port}}}", codecs::hex::encode(&bytes)).into_bytes())
    }

    /// What a function gives for an example, as it is.
    pub(crate) fn example(&self, function: Convention, input: &[u8]) -> Result<Vec<u8>, Stop> {
        let input = self.parse_object(input)?;
        let bytes: Value<'js> = input.get("bytes")?;
        if let Some(hex) = bytes.as_string() {
            let bytes = codecs::hex::decode(&hex.to_string()?).map_err(Stop::Bad)?;
            self.set(&input, "bytes", self.list(&bytes)?)?;
        }
        let time: Value<'js> = input.get("recvTime")?;
        if !time.is_undefined() {
            let time: Value<'js> = self.tool("time")?.call((time,))?;
            self.set(&input, "recvTime", time)?;
        }
        let names: &[&str] = match function {
            Convention::DecodeUplink => &DECODE,
            Convention::EncodeDownlink => &ENCODE,
            Convention::DecodeDownlink => &["decodeDownlink"],
            Convention::NormalizeUplink => &["normalizeUplink"],
        };
        let (name, function) = self.function(names)?;
        let output = self.called_for_example(name, &function, input)?;
        let mut out = Vec::new();
        if !self.json(&output, &mut out)? {
            out.extend_from_slice(b"null");
        }
        Ok(out)
    }

    /// The older conventions give what stands in `data` or `bytes` of TS013.
    fn called_for_example(
        &self,
        name: &str,
        function: &Function<'js>,
        input: Object<'js>,
    ) -> Result<Value<'js>, Stop> {
        let field = |key: &str| input.get::<_, Value<'js>>(key);
        let variables = Object::new(self.ctx.clone())?;
        let (key, value): (&str, Value<'js>) = match name {
            "Decoder" => ("data", function.call((field("bytes")?, field("fPort")?))?),
            "Decode" => ("data", function.call((field("fPort")?, field("bytes")?, variables))?),
            "Encoder" => ("bytes", function.call((field("data")?, field("fPort")?))?),
            "Encode" => ("bytes", function.call((field("fPort")?, field("data")?, variables))?),
            _ => return Ok(function.call((input,))?),
        };
        let output = Object::new(self.ctx.clone())?;
        self.set(&output, key, value)?;
        Ok(output.into_value())
    }

    /// What `normalizeUplink` makes of the output of `decodeUplink`. If it cannot, what was decoded is as good as before.
    fn normalize(
        &self,
        decoded: &Object<'js>,
        warnings: &mut Vec<String>,
    ) -> Result<Option<Value<'js>>, Stop> {
        let (_, normalize) = self.function(&["normalizeUplink"])?;
        let output: Value<'js> = normalize.call((decoded.clone(),))?;
        let Some(output) = output.as_object() else { return Ok(None) };
        let errors = self.texts(&output.get(PredefinedAtom::Errors)?)?;
        if !errors.is_empty() {
            warnings.extend(errors.into_iter().map(|error| format!("normalizeUplink: {error}")));
            return Ok(None);
        }
        warnings.extend(self.texts(&output.get(self.words.warnings.clone())?)?);
        Ok(Some(output.get(self.words.data.clone())?))
    }

    fn no_errors(&self, output: &Object<'js>) -> Result<(), Stop> {
        let errors = self.texts(&output.get(PredefinedAtom::Errors)?)?;
        if errors.is_empty() { Ok(()) } else { Err(Stop::Bad(errors.join("; "))) }
    }

    fn data(
        &self,
        data: &Value<'js>,
        warnings: &[String],
        normalized: Option<Value<'js>>,
    ) -> Result<Vec<u8>, Stop> {
        let mut out = Vec::with_capacity(256);
        out.extend_from_slice(b"{\"data\":");
        if !self.json(data, &mut out)? {
            return Err(Stop::Bad("it gave neither data nor errors".to_owned()));
        }
        if let Some(normalized) = normalized {
            let before = out.len();
            out.extend_from_slice(b",\"normalized\":");
            if !self.json(&normalized, &mut out)? {
                out.truncate(before);
            }
        }
        if !warnings.is_empty() {
            out.extend_from_slice(b",\"warnings\":");
            out.extend(serde_json::to_vec(warnings).unwrap_or_else(|_| b"[]".to_vec()));
        }
        out.push(b'}');
        Ok(out)
    }
}

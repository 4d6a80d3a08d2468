//! Examples that an operator puts beside a codec, `NAME.yaml`: bytes and what they mean, commands and their bytes.
//! `codecs/README.md` has the form. A codec that does not keep to its examples is not taken.

use bytes::BytesMut;
use serde::Deserialize;
use serde_json::Value;

use crate::{Build, Codec, Context, Down, Expect, Options, hex};

/// More frames than a person would write down.
const MAX_FRAMES: usize = 1000;
/// When examples take place, in milliseconds since 1970, if they do not say: 2026-01-01T00:00:00Z.
const NEW_YEAR: u64 = 1_767_225_600_000;

/// What a file says of a stream codec; what else stands in it is for others.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default)]
pub struct Examples {
    stream: List<Bytes>,
    commands: List<Command>,
}

#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
struct List<T> {
    examples: Vec<T>,
}

impl<T> Default for List<T> {
    fn default() -> List<T> {
        List { examples: Vec::new() }
    }
}

/// Bytes from a device that has just connected.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
struct Bytes {
    #[serde(default)]
    description: String,
    hex: String,
    #[serde(default)]
    wall_ms: Option<u64>,
    /// What all frames in them say, in order.
    #[serde(default)]
    up: Vec<Value>,
    /// What is sent back for all of them.
    #[serde(default)]
    answer: Option<String>,
    /// What is said of the first bad frame, or a part of it.
    #[serde(default)]
    error: Option<String>,
}

#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
struct Command {
    #[serde(default)]
    description: String,
    kind: String,
    #[serde(default)]
    value: Value,
    #[serde(default)]
    hex: Option<String>,
    /// By what the device's answer is known.
    #[serde(default)]
    key: Option<u64>,
    #[serde(default)]
    error: Option<String>,
}

impl Examples {
    /// Reads a file.
    pub fn from_yaml(text: &str) -> Result<Examples, String> {
        yaml(text)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.stream.examples.len() + self.commands.examples.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What the codec does not do as the examples say, in words; each example has a connection of its own.
    pub fn check(&self, codec: &dyn Build, options: &Options) -> Vec<String> {
        let named = |description: &str, at: usize, of: &str| {
            if description.is_empty() { format!("{of} {}", at + 1) } else { format!("{description:?}") }
        };
        let stream = self.stream.examples.iter().enumerate().filter_map(|(at, e)| {
            let why = e.check(&mut *codec.build(options)).err()?;
            Some(format!("example {}: {why}", named(&e.description, at, "stream")))
        });
        let commands = self.commands.examples.iter().enumerate().filter_map(|(at, e)| {
            let why = e.check(&mut *codec.build(options)).err()?;
            Some(format!("example {}: {why}", named(&e.description, at, "commands")))
        });
        stream.chain(commands).collect()
    }
}

impl Bytes {
    fn check(&self, codec: &mut dyn Codec) -> Result<(), String> {
        let mut buf = BytesMut::from(&hex::decode(&self.hex)?[..]);
        let (mut up, mut answer, mut error) = (Vec::new(), Vec::new(), None);
        let mut device: Option<Box<str>> = None;
        for _ in 0..MAX_FRAMES {
            let wall_ms = self.wall_ms.unwrap_or(NEW_YEAR);
            let cx = Context { wall_ms, device: device.as_deref(), token: "token" };
            match codec.decode(&cx, &mut buf) {
                Ok(None) => break,
                Ok(Some(frame)) => {
                    for said in &frame.up {
                        if let crate::Up::Login(login) = said {
                            device = Some(login.device.clone());
                        }
                        up.push(serde_json::from_str(&said.to_json()).unwrap_or(Value::Null));
                    }
                    answer.extend_from_slice(&frame.answer);
                }
                Err(fault) => {
                    error.get_or_insert(fault.why.into_owned());
                    if fault.costs == crate::Costs::Stream {
                        buf.clear();
                    }
                }
            }
        }
        agree_on_error(self.error.as_deref(), error.as_deref())?;
        if !buf.is_empty() {
            return Err(format!("{} bytes are left over: {}", buf.len(), hex::encode(&buf)));
        }
        if !same(&Value::from(self.up.clone()), &Value::from(up.clone())) {
            return Err(expected(&Value::from(self.up.clone()), &Value::from(up)));
        }
        match &self.answer {
            Some(wanted) if hex::decode(wanted)? != answer => {
                Err(format!("the answer should be {wanted} and is {}", hex::encode(&answer)))
            }
            _ => Ok(()),
        }
    }
}

impl Command {
    fn check(&self, codec: &mut dyn Codec) -> Result<(), String> {
        let value = self.value.to_string();
        let cx = Context { wall_ms: NEW_YEAR, device: Some("example"), token: "token" };
        let mut bytes = Vec::new();
        let result = codec.encode(&cx, &Down { kind: &self.kind, value: value.as_bytes() }, &mut bytes);
        agree_on_error(self.error.as_deref(), result.as_ref().err().map(|fault| &*fault.why))?;
        let wanted = self.hex.as_deref().unwrap_or_default();
        if hex::decode(wanted)? != bytes {
            return Err(format!("the bytes should be {wanted:?} and are {:?}", hex::encode(&bytes)));
        }
        match (self.key, result) {
            (Some(key), Ok(expect)) if expect != Expect::Reply(key) => {
                Err(format!("the key should be {key}, and the codec says {expect:?}"))
            }
            _ => Ok(()),
        }
    }
}

fn agree_on_error(wanted: Option<&str>, found: Option<&str>) -> Result<(), String> {
    match (wanted, found) {
        (None, Some(found)) => Err(found.to_owned()),
        (Some(wanted), None) => Err(format!("should fail with {wanted:?} and does not")),
        (Some(wanted), Some(found)) if !found.contains(wanted) => {
            Err(format!("should fail with {wanted:?} and fails with {found:?}"))
        }
        _ => Ok(()),
    }
}

fn expected(wanted: &Value, found: &Value) -> String {
    format!("\n  expected {wanted}\n  found    {found}")
}

/// What a file of examples says, by YAML 1.2: `on` and `yes` are text, as they are to those who publish codecs.
pub fn yaml<T: serde::de::DeserializeOwned>(text: &str) -> Result<T, String> {
    let options = serde_saphyr::options! { strict_booleans: true };
    serde_saphyr::from_str_with_options(text, options).map_err(|e| e.to_string())
}

/// Whether two values are the same to who reads JSON: 1 and 1.0 are, and members have no order.
pub fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => {
            a == b || a.is_f64() | b.is_f64() && near(a.as_f64(), b.as_f64())
        }
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(name, a)| b.get(name).is_some_and(|b| same(a, b)))
        }
        _ => a == b,
    }
}

/// Whether two numbers are the same but for their last bits, in which those who read decimal digits differ.
fn near(a: Option<f64>, b: Option<f64>) -> bool {
    a.zip(b).is_some_and(|(a, b)| (a - b).abs() <= a.abs() * (4.0 * f64::EPSILON))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Data, Fault, Frame, Up};

    /// A language of one byte a frame: a digit is a value, `!` is wrong, `?` ends the stream, others wait.
    struct Digits;

    impl Codec for Digits {
        fn decode(&mut self, _: &Context<'_>, buf: &mut BytesMut) -> Result<Option<Frame>, Fault> {
            let Some(first) = buf.first().copied() else { return Ok(None) };
            match first {
                b'0'..=b'9' => {
                    let up = vec![Up::Data(Data::json("digit", &(first - b'0')))];
                    let _ = buf.split_to(1);
                    Ok(Some(Frame { up, answer: vec![first].into(), ..Frame::default() }))
                }
                b'!' => {
                    let _ = buf.split_to(1);
                    Err(Fault::frame(0, "a mark is no digit"))
                }
                b'?' => Err(Fault::stream(0, "lost")),
                _ => Ok(None),
            }
        }

        fn encode(&mut self, _: &Context<'_>, down: &Down<'_>, into: &mut Vec<u8>) -> Result<Expect, Fault> {
            if down.kind != "say" {
                return Err(Fault::frame(0, "no such command"));
            }
            into.extend_from_slice(down.value);
            Ok(Expect::Reply(7))
        }

        fn max_frame(&self) -> usize {
            1
        }
    }

    fn check(yaml: &str) -> Vec<String> {
        let build = |_: &Options| -> Box<dyn Codec> { Box::new(Digits) };
        Examples::from_yaml(yaml).unwrap().check(&build, &Options::default())
    }

    #[test]
    fn a_codec_that_keeps_to_its_examples_passes() {
        let yaml = r#"
            uplinkDecoder: {fileName: other.js}
            stream:
              examples:
                - description: two digits
                  hex: "31 32"
                  up: [{kind: digit, data: 1.0}, {kind: digit, data: 2}]
                  answer: "3132"
                - {hex: "21", error: no digit}
                - {hex: "3f", error: lost}
            commands:
              examples:
                - {kind: say, value: {a: [1, "x"]}, hex: "7b2261223a5b312c2278225d7d", key: 7}
                - {kind: shout, value: 1, error: no such}
        "#;
        assert_eq!(Examples::from_yaml(yaml).map(|e| e.len()), Ok(5));
        assert_eq!(check(yaml), Vec::<String>::new());
    }

    #[test]
    fn what_a_codec_does_otherwise_is_told() {
        for (yaml, why) in [
            (
                r#"stream: {examples: [{description: d, hex: "31", up: []}]}"#,
                "example \"d\": \n  expected []",
            ),
            (r#"stream: {examples: [{hex: "31", up: [{kind: digit, data: 2}]}]}"#, "example stream 1: "),
            (r#"stream: {examples: [{hex: "78"}]}"#, "1 bytes are left over: 78"),
            (r#"stream: {examples: [{hex: "21"}]}"#, "a mark is no digit"),
            (r#"stream: {examples: [{hex: "21", error: x!}]}"#, "should fail with \"x!\" and fails with"),
            (r#"stream: {examples: [{hex: "", error: x}]}"#, "should fail with \"x\" and does not"),
            (r#"stream: {examples: [{hex: "xx"}]}"#, "hexadecimal"),
            (
                r#"stream: {examples: [{hex: "31", up: [{kind: digit, data: 1}], answer: "32"}]}"#,
                "the answer should be 32 and is 31",
            ),
            (
                r#"commands: {examples: [{kind: say, value: 1, hex: "32"}]}"#,
                "should be \"32\" and are \"31\"",
            ),
            (r#"commands: {examples: [{kind: say, value: 1, hex: "31", key: 8}]}"#, "the key should be 8"),
            (r#"commands: {examples: [{kind: shout}]}"#, "example commands 1: no such command"),
        ] {
            let failures = check(yaml);
            assert!(failures.len() == 1 && failures[0].contains(why), "{yaml}: {failures:?}");
        }
    }

    #[test]
    fn only_true_and_false_are_booleans() {
        let read: Value = yaml("{on: On, no: no, yes: true}").unwrap();
        assert_eq!(read, serde_json::json!({"on": "On", "no": "no", "yes": true}));
    }

    #[test]
    fn a_file_that_is_wrong_is_refused() {
        for (yaml, why) in [("stream: {examples: [{hexx: a}]}", "hexx"), ("stream: [", ""), ("a: b: c", "")] {
            let error = Examples::from_yaml(yaml).unwrap_err();
            assert!(error.contains(why), "{error}");
        }
        assert!(Examples::from_yaml("uplinkDecoder: 1").is_ok_and(|e| e.is_empty()));
    }
}

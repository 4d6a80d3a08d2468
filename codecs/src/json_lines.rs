//! A line is a value in JSON. What is an object of one member named `login`, `reply`, `heartbeat` or `logout` is what
//! [`Up`]'s own JSON form says; everything else is data as it stands on the line, whose kind its member `kind` or `type`
//! says.
//!
//! ```text
//! device                                   gateway
//! {"login":{"device":"d1","password":"p"}}
//!                                          {"login":{"ok":true}}
//! {"kind":"climate","celsius":21.5}
//!                                          {"kind":"interval","value":{"id":7,"seconds":60}}
//! {"reply":{"key":7,"ok":true}}
//! ```

use std::borrow::Cow;
use std::collections::HashMap;

use bytes::{Bytes, BytesMut};
use serde_json::value::RawValue;

use crate::framing::{Frames, Framing};
use crate::{Codec, Context, Data, Def, Down, DownSample, Expect, Fault, Frame, Sample, Up};

pub(crate) const DEF: Def = Def {
    name: "json-lines",
    about: "JSON, one value a line",
    build: |options| Box::new(JsonLines(Frames::new(options, Some(Framing::lines())))),
    samples: &[
        Sample {
            about: "A login: {\"login\":{\"device\":\"d1\"}}",
            hex: "7b226c6f67696e223a7b22646576696365223a226431227d7d 0a",
            up: &[r#"{"login": {"device": "d1"}}"#],
            answer: "7b226c6f67696e223a7b226f6b223a747275657d7d 0a",
        },
        Sample {
            about: "Data of a kind: {\"type\":\"climate\",\"c\":21.50}",
            hex: "7b2274797065223a22636c696d617465222c2263223a32312e35307d 0d0a",
            up: &[r#"{"kind": "climate", "data": {"type": "climate", "c": 21.50}}"#],
            answer: "",
        },
        Sample {
            about: "Data that is no object, and an answer to the command 7: {\"reply\":{\"key\":7}}",
            hex: "5b312c325d 0a 7b227265706c79223a7b226b6579223a377d7d 0a",
            up: &[r#"{"kind": "data", "data": [1,2]}"#, r#"{"reply": {"key": 7, "ok": true}}"#],
            answer: "",
        },
    ],
    downs: &[
        // {"kind":"interval","value":60}
        DownSample {
            kind: "interval",
            value: "60",
            hex: "7b226b696e64223a22696e74657276616c222c2276616c7565223a36307d 0a",
        },
        // {"kind":"led","value":{"id":7,"on":"a b"}}
        DownSample {
            kind: "led",
            value: "{ \"id\": 7,\n  \"on\": \"a b\" }",
            hex: "7b226b696e64223a226c6564222c2276616c7565223a7b226964223a372c226f6e223a22612062227d7d 0a",
        },
    ],
};

/// Objects of one such member say what [`Up::from_json`] reads.
const SAYINGS: [&str; 4] = ["login", "reply", "heartbeat", "logout"];

struct JsonLines(Frames);

impl Codec for JsonLines {
    fn decode(&mut self, _: &Context<'_>, buf: &mut BytesMut) -> Result<Option<Frame>, Fault> {
        let Some(line) = self.0.next(buf)? else { return Ok(None) };
        let up = read(&line).map_err(|f| Fault { at: self.0.payload_at() + f.at, ..f })?;
        let (answer, refusal) = match &up {
            Up::Login(_) => (r#"{"login":{"ok":true}}"#, r#"{"login":{"ok":false}}"#),
            Up::Heartbeat if !line.is_empty() => (r#"{"heartbeat":{}}"#, ""),
            _ => ("", ""),
        };
        let framed = |text: &str| -> Result<Bytes, Fault> {
            let mut into = Vec::new();
            if !text.is_empty() {
                self.0.wrap(text.as_bytes(), &mut into)?;
            }
            Ok(into.into())
        };
        Ok(Some(Frame { answer: framed(answer)?, refusal: framed(refusal)?, up: vec![up] }))
    }

    fn encode(&mut self, _: &Context<'_>, down: &Down<'_>, into: &mut Vec<u8>) -> Result<Expect, Fault> {
        let value = json(down.value)?;
        let kind = serde_json::to_string(down.kind).map_err(|e| Fault::frame(0, e.to_string()))?;
        let mut line = format!("{{\"kind\":{kind},\"value\":").into_bytes();
        compact(value.get(), &mut line);
        line.push(b'}');
        self.0.wrap(&line, into)?;
        let members = serde_json::from_str::<Members<'_>>(value.get()).unwrap_or_default();
        let id = members.get("id").and_then(|id| serde_json::from_str(id.get()).ok());
        Ok(id.map_or(Expect::Nothing, Expect::Reply))
    }

    fn max_frame(&self) -> usize {
        self.0.max_frame()
    }
}

type Members<'a> = HashMap<Cow<'a, str>, &'a RawValue>;

fn read(line: &Bytes) -> Result<Up, Fault> {
    if line.iter().all(u8::is_ascii_whitespace) {
        return Ok(Up::Heartbeat);
    }
    let value = json(line)?;
    let members = serde_json::from_str::<Members<'_>>(value.get()).unwrap_or_default();
    if members.len() == 1 && SAYINGS.iter().any(|name| members.contains_key(*name)) {
        return Up::from_json(value.get().as_bytes()).map_err(|bad| Fault::frame(0, bad.0));
    }
    let said = members.get("kind").or_else(|| members.get("type"));
    let said = said.and_then(|kind| serde_json::from_str::<String>(kind.get()).ok()).filter(|k| is_kind(k));
    let kind = said.map_or(Cow::Borrowed("data"), Cow::Owned);
    let value = line.slice_ref(value.get().as_bytes());
    Ok(Up::Data(Data { kind, value, is_json: true }))
}

/// The value that `bytes` are, without white space around it.
fn json(bytes: &[u8]) -> Result<&RawValue, Fault> {
    serde_json::from_slice(bytes).map_err(|e| {
        let lines = bytes.split_inclusive(|b| *b == b'\n').take(e.line().saturating_sub(1));
        let before: usize = lines.map(<[u8]>::len).sum();
        let at = (before + e.column().saturating_sub(1)).min(bytes.len());
        let text = e.to_string();
        let why = text.split_once(" at line").map_or(&*text, |(why, _)| why);
        Fault::frame(at, format!("not JSON: {why}"))
    })
}

/// Whether this can be a level of a topic, or several.
fn is_kind(kind: &str) -> bool {
    kind.len() <= 256 && !kind.contains(['+', '#', '\0']) && kind.split('/').all(|level| !level.is_empty())
}

/// `json` without the white space between its parts; numbers and text stay as they are written.
fn compact(json: &str, into: &mut Vec<u8>) {
    let (mut is_text, mut is_escaped) = (false, false);
    for byte in json.bytes() {
        if is_text || !byte.is_ascii_whitespace() {
            into.push(byte);
        }
        (is_text, is_escaped) = match byte {
            _ if is_escaped => (is_text, false),
            b'\\' => (is_text, is_text),
            b'"' => (!is_text, false),
            _ => (is_text, false),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Options;

    fn decode(line: &str) -> Result<Frame, Fault> {
        let cx = Context { wall_ms: 0, device: None, token: "" };
        let mut buf = BytesMut::from(format!("{line}\n").as_bytes());
        (DEF.build)(&Options::default()).decode(&cx, &mut buf).map(Option::unwrap)
    }

    fn up(line: &str) -> String {
        decode(line).unwrap().up[0].to_json()
    }

    #[test]
    fn what_is_data_stays_as_it_stands_on_the_line() {
        let line = r#"{"n": 12345678901234567890.10, "kind": "a/b", "kind2": 1}"#;
        assert_eq!(up(line), format!(r#"{{"kind":"a/b","data":{line}}}"#));
        assert_eq!(
            up(r#" {"login":{"device":"d"},"x":1} "#),
            r#"{"kind":"data","data":{"login":{"device":"d"},"x":1}}"#
        );
    }

    #[test]
    fn a_kind_that_is_no_topic_level_is_only_data() {
        for line in
            [r#"{"kind":"a/#"}"#, r#"{"kind":"a//b"}"#, r#"{"kind":""}"#, r#"{"kind":3}"#, "7", "null"]
        {
            assert_eq!(up(line), format!(r#"{{"kind":"data","data":{line}}}"#));
        }
    }

    #[test]
    fn what_is_not_json_is_a_bad_frame_at_its_column() {
        for (line, at) in [(r#"{"a":1,}"#, 7), ("{'a':1}", 1), ("nul", 2), (r#"{"a":1} {"#, 8)] {
            assert_eq!(decode(line).unwrap_err().at, at, "{line}: {:?}", decode(line));
        }
        let fault = decode(r#"{"login":{"password":"p"}}"#).unwrap_err();
        assert!(fault.why.starts_with("missing field `device`"), "{fault:?}");
    }

    #[test]
    fn a_heartbeat_is_answered_and_an_empty_line_is_one() {
        assert_eq!(decode(r#"{"heartbeat":{}}"#).unwrap().answer, "{\"heartbeat\":{}}\n");
        let empty = decode("").unwrap();
        assert_eq!((&empty.up[..], empty.answer.len()), (&[Up::Heartbeat][..], 0));
    }

    #[test]
    fn a_command_with_a_number_is_answered_with_it() {
        let cx = Context { wall_ms: 0, device: None, token: "" };
        let mut codec = (DEF.build)(&Options::default());
        let mut encode = |value: &str| {
            let mut into = Vec::new();
            let expect = codec.encode(&cx, &Down { kind: "k", value: value.as_bytes() }, &mut into)?;
            Ok::<_, Fault>((expect, String::from_utf8(into).unwrap()))
        };
        let line = "{\"kind\":\"k\",\"value\":{\"id\":7,\"t\":\"\\\" x\"}}\n".to_owned();
        assert_eq!(encode("{\"id\" : 7, \"t\": \"\\\" x\"}"), Ok((Expect::Reply(7), line)));
        assert_eq!(encode("{\"id\":\"x\"}").map(|(expect, _)| expect), Ok(Expect::Nothing));
        assert_eq!(encode("{\n\n x}").map_err(|f| f.at), Err(4));
    }
}

//! What `decode` and `encode` of a module return, in JSON.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::{BadUp, Context, Down, Expect, Fault, Frame, Up, hex};

/// What `decode` returns.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Decoded<'a> {
    /// Bytes that it has taken off the front.
    consumed: Option<usize>,
    #[serde(borrow, default)]
    up: Vec<&'a RawValue>,
    #[serde(borrow, default)]
    answer: Cow<'a, str>,
    #[serde(borrow, default)]
    refusal: Cow<'a, str>,
    #[serde(borrow, default)]
    error: Option<Mistake<'a>>,
}

/// What is wrong with a frame.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Mistake<'a> {
    #[serde(default)]
    at: usize,
    #[serde(borrow)]
    why: Cow<'a, str>,
}

/// The bytes that were taken, and what they mean. Zero bytes: there is no whole frame yet.
pub(super) type Taken = (usize, Result<Frame, Fault>);

/// Reads what `decode` returned of `len` bytes. An error is the module's own mistake, in words.
pub(super) fn decoded(json: &[u8], len: usize) -> Result<Taken, String> {
    let d: Decoded<'_> = serde_json::from_slice(json).map_err(|e| format!("`decode` returned {e}"))?;
    if let Some(consumed) = d.consumed.filter(|c| *c > len) {
        return Err(format!("`decode` says that it has consumed {consumed} bytes of {len}"));
    }
    if let Some(error) = d.error {
        let consumed = d.consumed.filter(|c| *c > 0).unwrap_or(len);
        return Ok((consumed, Err(Fault::frame(error.at.min(len), error.why.into_owned()))));
    }
    let up = |json: &RawValue| {
        Up::from_json(json.get().as_bytes()).map_err(|BadUp(why)| format!("`up` of `decode`: {why}"))
    };
    let frame = Frame {
        up: d.up.iter().map(|json| up(json)).collect::<Result<_, _>>()?,
        answer: hex::decode(&d.answer).map_err(|why| format!("`answer` of `decode`: {why}"))?.into(),
        refusal: hex::decode(&d.refusal).map_err(|why| format!("`refusal` of `decode`: {why}"))?.into(),
    };
    let consumed = d.consumed.unwrap_or(0);
    if consumed == 0 && frame != Frame::default() {
        return Err("`decode` has made something of nothing: `consumed` is 0".to_owned());
    }
    Ok((consumed, Ok(frame)))
}

/// What `encode` is handed; `hex` is a payload that is no JSON.
#[derive(Serialize)]
struct Command<'a> {
    kind: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    device: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hex: Option<String>,
}

/// The input of `encode`.
pub(super) fn command(cx: &Context<'_>, down: &Down<'_>) -> Vec<u8> {
    let value: Option<&RawValue> = serde_json::from_slice(down.value).ok();
    let hex = value.is_none().then(|| hex::encode(down.value));
    // Text and what was JSON before can always be written.
    serde_json::to_vec(&Command { kind: down.kind, device: cx.device, value, hex }).unwrap_or_default()
}

/// What `encode` returns.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Encoded<'a> {
    #[serde(borrow, default)]
    hex: Option<Cow<'a, str>>,
    #[serde(default)]
    key: Option<u64>,
    #[serde(borrow, default)]
    error: Option<Mistake<'a>>,
}

/// Reads what `encode` returned. An error is why there is no frame, in words.
pub(super) fn encoded(json: &[u8]) -> Result<(Vec<u8>, Expect), String> {
    let e: Encoded<'_> = serde_json::from_slice(json).map_err(|e| format!("`encode` returned {e}"))?;
    match e {
        Encoded { error: Some(error), .. } => Err(error.why.into_owned()),
        Encoded { hex: Some(text), key, error: None } => {
            let bytes = hex::decode(&text).map_err(|why| format!("`hex` of `encode`: {why}"))?;
            Ok((bytes, key.map_or(Expect::Nothing, Expect::Reply)))
        }
        Encoded { hex: None, .. } => Err("`encode` returned neither `hex` nor `error`".to_owned()),
    }
}

//! Requests to devices and their answers as JSON objects, the same on the admin socket and in MQTT messages.
//!
//! ```text
//! {"method": "PUT", "path": "/led", "query": ["k=v"], "format": 50, "accept": 50, "payload": "{}", "timeout": 10}
//! {"code": "2.05", "format": 50, "options": {"ETag": "aabb"}, "payload": "{}"}   or   {"error": "…", "reason": "timeout"}
//! ```
//!
//! A payload that is not UTF-8 is `payload_base64` instead.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use gateway::config::parse_duration;
use gateway::{Failure, Method, Outcome, Request};
use serde_json::{Map, Value};

/// How long a request waits that does not say it.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Least and most that it may say.
const TIMEOUTS: std::ops::RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(600);
/// Keys of a request.
const KEYS: &[&str] =
    &["method", "path", "query", "format", "accept", "payload", "payload_base64", "timeout"];

/// Reads a request; `also` are keys that are for somebody else.
pub(crate) fn decode(request: &Value, also: &[&str]) -> Result<Request, String> {
    let fields = request.as_object().ok_or("the request is not a JSON object")?;
    let is_known = |k: &&String| KEYS.contains(&k.as_str()) || also.contains(&k.as_str());
    if let Some(key) = fields.keys().find(|k| !is_known(k)) {
        return Err(format!("`{key}` is not known; a request has {}", KEYS.join(", ")));
    }
    let field = |key: &str| fields.get(key).filter(|v| !v.is_null());
    let method = field("method").map_or(Some(Method::Get), |v| Method::parse(v.as_str()?));
    let method = method.ok_or("`method` is GET, POST, PUT, DELETE, FETCH, PATCH or iPATCH")?;
    let path = field("path").and_then(Value::as_str).ok_or("`path` must be there, and be text")?;
    let number = |key: &str| match field(key) {
        None => Ok(None),
        Some(v) => match v.as_u64().and_then(|n| u16::try_from(n).ok()) {
            Some(n) => Ok(Some(n)),
            None => Err(format!("`{key}` is the number of a CoAP Content-Format, such as 50 for JSON")),
        },
    };
    let payload = match (field("payload"), field("payload_base64")) {
        (None, None) => Vec::new(),
        (Some(Value::String(text)), None) => text.clone().into_bytes(),
        (None, Some(Value::String(text))) => {
            BASE64.decode(text).map_err(|e| format!("`payload_base64`: {e}"))?
        }
        (Some(_), Some(_)) => return Err("`payload` and `payload_base64` are one too many".to_owned()),
        _ => return Err("the payload must be text".to_owned()),
    };
    Ok(Request {
        method,
        path: path.into(),
        query: query(field("query"))?,
        format: number("format")?,
        accept: number("accept")?,
        payload: payload.into(),
        timeout: timeout(field("timeout"))?,
    })
}

fn query(value: Option<&Value>) -> Result<Vec<Box<str>>, String> {
    let wrong = || "`query` is a list of texts such as \"k=v\"".to_owned();
    let Some(value) = value else { return Ok(Vec::new()) };
    let list = value.as_array().ok_or_else(wrong)?;
    list.iter().map(|q| q.as_str().map(Into::into).ok_or_else(wrong)).collect()
}

fn timeout(value: Option<&Value>) -> Result<Duration, String> {
    let parsed = match value {
        None => Some(TIMEOUT),
        Some(Value::String(text)) => parse_duration(text),
        Some(value) => value.as_f64().and_then(|s| Duration::try_from_secs_f64(s).ok()),
    };
    let wrong = || "`timeout` is seconds, or a time such as \"10 s\", of 0.1 s to 10 min".to_owned();
    parsed.filter(|t| TIMEOUTS.contains(t)).ok_or_else(wrong)
}

/// Writes what came of a request.
pub(crate) fn encode(outcome: &Outcome) -> Map<String, Value> {
    let response = match outcome {
        Ok(response) => response,
        Err(why) => return failure(*why),
    };
    let mut fields = Map::new();
    fields.insert("code".into(), (*response.code).into());
    if let Some(format) = response.format {
        fields.insert("format".into(), format.into());
    }
    let mut options = Map::new();
    for (name, value) in &response.options {
        // Location-Path comes as often as it has levels.
        match options.get_mut(&**name) {
            Some(Value::Array(list)) => list.push((**value).into()),
            Some(first) => *first = vec![first.take(), (**value).into()].into(),
            None => drop(options.insert(name.as_ref().into(), (**value).into())),
        }
    }
    if !options.is_empty() {
        fields.insert("options".into(), options.into());
    }
    match std::str::from_utf8(&response.payload) {
        Ok(text) => fields.insert("payload".into(), text.into()),
        Err(_) => fields.insert("payload_base64".into(), BASE64.encode(&response.payload).into()),
    };
    fields
}

fn failure(why: Failure) -> Map<String, Value> {
    let mut fields = Map::new();
    fields.insert("error".into(), why.text().into());
    fields.insert("reason".into(), why.label().into());
    fields
}

#[cfg(test)]
mod tests {
    use gateway::request::Response;
    use serde_json::json;

    use super::*;

    #[test]
    fn a_request_says_only_what_differs_from_a_plain_get() {
        let request = decode(&json!({"path": "/t", "id": 7}), &["id"]).unwrap();
        assert_eq!((request.method, &*request.path, request.timeout), (Method::Get, "/t", TIMEOUT));
        let request = decode(
            &json!({"method": "ipatch", "path": "a/b", "query": ["k=v"], "format": 50, "accept": 60,
                    "payload_base64": "AP8=", "timeout": "2 s"}),
            &[],
        )
        .unwrap();
        assert_eq!((request.method, &request.payload[..]), (Method::Ipatch, &b"\0\xff"[..]));
        assert_eq!((request.format, request.accept), (Some(50), Some(60)));
        assert_eq!((&*request.query[0], request.timeout), ("k=v", Duration::from_secs(2)));
    }

    #[test]
    fn what_is_wrong_with_a_request_is_said() {
        for (request, word) in [
            (json!([]), "object"),
            (json!({"method": "GET"}), "path"),
            (json!({"path": "/", "metod": "PUT"}), "metod"),
            (json!({"path": "/", "method": "STEAL"}), "method"),
            (json!({"path": "/", "query": "a"}), "query"),
            (json!({"path": "/", "format": 65536}), "format"),
            (json!({"path": "/", "payload": 1}), "text"),
            (json!({"path": "/", "payload": "", "payload_base64": ""}), "too many"),
            (json!({"path": "/", "payload_base64": "?"}), "payload_base64"),
            (json!({"path": "/", "timeout": 0}), "timeout"),
            (json!({"path": "/", "timeout": 1e300}), "timeout"),
            (json!({"path": "/", "timeout": -1}), "timeout"),
        ] {
            let error = decode(&request, &[]).unwrap_err();
            assert!(error.contains(word), "{request}: {error}");
        }
    }

    #[test]
    fn an_option_that_comes_again_becomes_a_list() {
        let option = |value: &str| ("Location-Path".into(), value.into());
        let response = Response {
            code: "2.01".into(),
            is_success: true,
            format: None,
            options: vec![option("a"), option("b"), option("c")],
            payload: b"\xff".to_vec().into(),
        };
        let written = Value::from(encode(&Ok(Box::new(response))));
        assert_eq!(
            written,
            json!({"code": "2.01", "options": {"Location-Path": ["a", "b", "c"]}, "payload_base64": "/w=="})
        );
        assert_eq!(encode(&Err(Failure::Timeout))["reason"], "timeout");
    }
}

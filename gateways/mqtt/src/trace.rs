//! Packets as `tidegate trace` shows them.

use crate::frame::{Frame, find, kind};
use wire::Reader;

/// Longest part of a name or payload that is shown.
const SHOWN: usize = 64;

/// One packet in words.
pub fn describe(first: u8, body: &[u8]) -> String {
    let flags = first & 15;
    let id = |body: &[u8]| Reader::new(body).u16().map_or_else(|_| "?".to_owned(), |id| id.to_string());
    let (name, detail) = match first >> 4 {
        kind::CONNECT => ("CONNECT", connect(body)),
        kind::CONNACK => ("CONNACK", code(body, 1)),
        kind::PUBLISH => ("PUBLISH", publish(flags, body)),
        kind::PUBACK => ("PUBACK", format!("id={}{}", id(body), code(body, 2))),
        kind::PUBREC => ("PUBREC", format!("id={}{}", id(body), code(body, 2))),
        kind::PUBREL => ("PUBREL", format!("id={}{}", id(body), code(body, 2))),
        kind::PUBCOMP => ("PUBCOMP", format!("id={}{}", id(body), code(body, 2))),
        kind::SUBSCRIBE => {
            ("SUBSCRIBE", format!("id={} {}", id(body), printable(body.get(2..).unwrap_or_default())))
        }
        kind::SUBACK => ("SUBACK", format!("id={}", id(body))),
        kind::UNSUBSCRIBE => {
            ("UNSUBSCRIBE", format!("id={} {}", id(body), printable(body.get(2..).unwrap_or_default())))
        }
        kind::UNSUBACK => ("UNSUBACK", format!("id={}", id(body))),
        kind::PINGREQ => ("PINGREQ", String::new()),
        kind::PINGRESP => ("PINGRESP", String::new()),
        kind::DISCONNECT => ("DISCONNECT", code(body, 0)),
        kind::AUTH => ("AUTH", code(body, 0)),
        _ => ("RESERVED", String::new()),
    };
    format!("{name} {} ({} bytes)", detail.trim(), body.len())
}

/// All packets in `bytes`, which the machine itself has written.
pub fn describe_all(bytes: &[u8]) -> Vec<String> {
    let mut at = 0;
    let mut lines = Vec::new();
    while let Ok(Some(Frame { first, body, end })) = find(&bytes[at..], usize::MAX, false) {
        lines.push(describe(first, &bytes[at + body..at + end]));
        at += end;
    }
    lines
}

fn code(body: &[u8], at: usize) -> String {
    body.get(at).map_or_else(String::new, |code| format!(" code=0x{code:02x}"))
}

/// Client id and keep-alive; never the password.
fn connect(body: &[u8]) -> String {
    let mut r = Reader::new(body);
    let mut read = || -> Result<String, wire::Short> {
        r.prefixed16()?;
        let (level, flags, keep_alive) = (r.u8()?, r.u8()?, r.u16()?);
        let id = if level < 5 { format!(" client={}", printable(r.prefixed16()?)) } else { String::new() };
        Ok(format!("level={level} flags=0x{flags:02x} keepalive={keep_alive}{id}"))
    };
    read().unwrap_or_else(|_| "incomplete".to_owned())
}

fn publish(flags: u8, body: &[u8]) -> String {
    let mut r = Reader::new(body);
    let topic = r.prefixed16().unwrap_or_default();
    let qos = flags >> 1 & 3;
    let id = if qos > 0 {
        r.u16().map_or_else(|_| String::new(), |id| format!(" id={id}"))
    } else {
        String::new()
    };
    let (dup, retain) = (flags >> 3 & 1, flags & 1);
    format!("topic={} qos={qos} dup={dup} retain={retain}{id} {}", printable(topic), printable(r.rest()))
}

fn printable(bytes: &[u8]) -> String {
    let shown = &bytes[..bytes.len().min(SHOWN)];
    let more = if bytes.len() > SHOWN { "..." } else { "" };
    format!("\"{}\"{more}", shown.escape_ascii())
}

//! Packets as `tidegate trace` shows them: one line each, with names, codes and properties, without secrets.

use std::fmt::Write;

use wire::Reader;

use crate::frame::{Fault, Frame, find, kind, text};
use crate::property::{Properties, Value, id};

/// Longest part of a name or payload that is shown.
const SHOWN: usize = 64;

/// Packet types by their number (2.1.2).
const NAMES: [&str; 16] = [
    "RESERVED",
    "CONNECT",
    "CONNACK",
    "PUBLISH",
    "PUBACK",
    "PUBREC",
    "PUBREL",
    "PUBCOMP",
    "SUBSCRIBE",
    "SUBACK",
    "UNSUBSCRIBE",
    "UNSUBACK",
    "PINGREQ",
    "PINGRESP",
    "DISCONNECT",
    "AUTH",
];

/// Properties by their number (2.2.2.2).
const PROPERTIES: [(u8, &str); 27] = [
    (id::PAYLOAD_FORMAT, "payload-format"),
    (id::MESSAGE_EXPIRY, "message-expiry"),
    (id::CONTENT_TYPE, "content-type"),
    (id::RESPONSE_TOPIC, "response-topic"),
    (id::CORRELATION_DATA, "correlation-data"),
    (id::SUBSCRIPTION_ID, "subscription-identifier"),
    (id::SESSION_EXPIRY, "session-expiry"),
    (id::ASSIGNED_CLIENT_ID, "assigned-client-identifier"),
    (id::SERVER_KEEP_ALIVE, "server-keep-alive"),
    (id::AUTHENTICATION_METHOD, "authentication-method"),
    (id::AUTHENTICATION_DATA, "authentication-data"),
    (id::REQUEST_PROBLEM_INFORMATION, "request-problem-information"),
    (id::WILL_DELAY, "will-delay"),
    (id::REQUEST_RESPONSE_INFORMATION, "request-response-information"),
    (id::RESPONSE_INFORMATION, "response-information"),
    (id::SERVER_REFERENCE, "server-reference"),
    (id::REASON_STRING, "reason"),
    (id::RECEIVE_MAXIMUM, "receive-maximum"),
    (id::TOPIC_ALIAS_MAXIMUM, "topic-alias-maximum"),
    (id::TOPIC_ALIAS, "topic-alias"),
    (36, "maximum-qos"),
    (37, "retain-available"),
    (id::USER, "user"),
    (id::MAXIMUM_PACKET_SIZE, "maximum-packet-size"),
    (40, "wildcard-available"),
    (41, "subscription-identifier-available"),
    (42, "shared-available"),
];

/// One packet in words, as far as it can be read. `is_5` says which version was agreed on; a CONNECT says it itself.
pub fn describe(is_5: bool, first: u8, body: &[u8]) -> String {
    let mut line = NAMES[usize::from(first >> 4)].to_owned();
    let mut r = Reader::new(body);
    let read = match first >> 4 {
        kind::CONNECT => connect(&mut line, &mut r),
        kind::CONNACK => connack(&mut line, &mut r, is_5),
        kind::PUBLISH => publish(&mut line, &mut r, is_5, first & 15),
        kind::PUBACK..=kind::PUBCOMP => number(&mut line, &mut r).and_then(|()| code(&mut line, &mut r)),
        kind::SUBSCRIBE => filters(&mut line, &mut r, is_5, true),
        kind::UNSUBSCRIBE => filters(&mut line, &mut r, is_5, false),
        kind::SUBACK | kind::UNSUBACK => codes(&mut line, &mut r, is_5),
        kind::DISCONNECT | kind::AUTH => code(&mut line, &mut r),
        _ => Ok(()),
    };
    if read.is_err() {
        line += " (not readable further)";
    }
    let _ = write!(line, " ({} bytes)", body.len());
    line
}

/// All packets in `bytes`, which the machine itself has written.
pub fn describe_all(is_5: bool, bytes: &[u8]) -> Vec<String> {
    let mut at = 0;
    let mut lines = Vec::new();
    while let Ok(Some(Frame { first, body, end })) = find(&bytes[at..], usize::MAX, false) {
        lines.push(describe(is_5, first, &bytes[at + body..at + end]));
        at += end;
    }
    lines
}

/// Never the password, nor what proves something.
fn connect(line: &mut String, r: &mut Reader<'_>) -> Result<(), Fault> {
    r.prefixed16()?;
    let (level, flags, keep_alive) = (r.u8()?, r.u8()?, r.u16()?);
    let _ = write!(line, " level={level} clean={} keep-alive={keep_alive}", flags >> 1 & 1);
    if level == 5 {
        properties(line, r)?;
    }
    let _ = write!(line, " client={}", printable(r.prefixed16()?));
    if flags & 4 != 0 {
        let _ = write!(line, " will-qos={} will-retain={}", flags >> 3 & 3, flags >> 5 & 1);
        if level == 5 {
            properties(line, r)?;
        }
        let (topic, payload) = (r.prefixed16()?, r.prefixed16()?);
        let _ = write!(line, " will-topic={} will-payload={}", printable(topic), printable(payload));
    }
    if flags & 0x80 != 0 {
        let _ = write!(line, " user={}", printable(r.prefixed16()?));
    }
    if flags & 0x40 != 0 {
        *line += " password";
    }
    Ok(())
}

fn connack(line: &mut String, r: &mut Reader<'_>, is_5: bool) -> Result<(), Fault> {
    let _ = write!(line, " session-present={} code={:#04x}", r.u8()?, r.u8()?);
    if is_5 { properties(line, r) } else { Ok(()) }
}

fn publish(line: &mut String, r: &mut Reader<'_>, is_5: bool, flags: u8) -> Result<(), Fault> {
    let qos = flags >> 1 & 3;
    let _ = write!(line, " qos={qos} dup={} retain={}", flags >> 3, flags & 1);
    let topic = r.prefixed16()?;
    if qos > 0 {
        number(line, r)?;
    }
    let _ = write!(line, " topic={}", printable(topic));
    if is_5 {
        properties(line, r)?;
    }
    let _ = write!(line, " payload={}", printable(r.take_rest()));
    Ok(())
}

fn filters(line: &mut String, r: &mut Reader<'_>, is_5: bool, has_options: bool) -> Result<(), Fault> {
    number(line, r)?;
    if is_5 {
        properties(line, r)?;
    }
    while !r.is_empty() {
        let _ = write!(line, " {}", printable(text(r)?.as_bytes()));
        if has_options {
            let options = r.u8()?;
            let _ = write!(line, " qos={}", options & 3);
            if is_5 {
                let (no_local, as_published) = (options >> 2 & 1, options >> 3 & 1);
                let handling = options >> 4 & 3;
                let _ = write!(line, " nl={no_local} rap={as_published} rh={handling}");
            }
        }
    }
    Ok(())
}

fn codes(line: &mut String, r: &mut Reader<'_>, is_5: bool) -> Result<(), Fault> {
    number(line, r)?;
    if is_5 {
        properties(line, r)?;
    }
    for code in r.take_rest() {
        let _ = write!(line, " {code:#04x}");
    }
    Ok(())
}

/// Packet identifier.
fn number(line: &mut String, r: &mut Reader<'_>) -> Result<(), Fault> {
    let _ = write!(line, " id={}", r.u16()?);
    Ok(())
}

/// Reason code and properties, which may both be left out.
fn code(line: &mut String, r: &mut Reader<'_>) -> Result<(), Fault> {
    if r.is_empty() {
        return Ok(());
    }
    let _ = write!(line, " code={:#04x}", r.u8()?);
    if r.is_empty() { Ok(()) } else { properties(line, r) }
}

fn properties(line: &mut String, r: &mut Reader<'_>) -> Result<(), Fault> {
    let mut properties = Properties::decode(r)?;
    while let Some((of, value)) = properties.any()? {
        let name = PROPERTIES.iter().find(|(id, _)| *id == of).map_or("", |(_, name)| name);
        let _ = match value {
            Value::Data(data) if of == id::AUTHENTICATION_DATA => {
                write!(line, " {name}={} bytes", data.len())
            }
            Value::Number(n) => write!(line, " {name}={n}"),
            Value::Text(t) => write!(line, " {name}={}", printable(t.as_bytes())),
            Value::Data(data) => write!(line, " {name}={}", printable(data)),
            Value::Pair(k, v) => {
                write!(line, " {name}={}:{}", printable(k.as_bytes()), printable(v.as_bytes()))
            }
        };
    }
    Ok(())
}

fn printable(bytes: &[u8]) -> String {
    let shown = &bytes[..bytes.len().min(SHOWN)];
    let more = if bytes.len() > SHOWN { "..." } else { "" };
    match std::str::from_utf8(shown) {
        Ok(text) if bytes.len() <= SHOWN => format!("{text:?}"),
        _ => format!("\"{}\"{more}", shown.escape_ascii()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_is_shown_with_its_fields_and_without_its_secrets() {
        let connect = b"\0\x04MQTT\x05\xC2\0\x3C\x09\x11\0\0\0\x0A\x16\0\x01s\0\x01c\0\x01u\0\x06secret";
        assert_eq!(
            describe(false, 0x10, connect),
            "CONNECT level=5 clean=1 keep-alive=60 session-expiry=10 authentication-data=1 bytes client=\"c\" user=\"u\" \
             password (34 bytes)"
        );
        assert_eq!(
            describe(true, 0x3B, b"\0\x03a/b\0\x07\x09\x23\0\x01\x0B\x05\x0B\x06\x01\x01\xFF"),
            "PUBLISH qos=1 dup=1 retain=1 id=7 topic=\"a/b\" topic-alias=1 subscription-identifier=5 \
             subscription-identifier=6 payload-format=1 payload=\"\\xff\" (18 bytes)"
        );
        assert_eq!(
            describe(true, 0x82, b"\0\x01\0\0\x01a\x2E"),
            "SUBSCRIBE id=1 \"a\" qos=2 nl=1 rap=1 rh=2 (7 bytes)"
        );
        assert_eq!(describe(false, 0x90, b"\0\x01\x01\x80"), "SUBACK id=1 0x01 0x80 (4 bytes)");
        assert_eq!(describe(true, 0xE0, b"\x8B"), "DISCONNECT code=0x8b (1 bytes)");
        assert_eq!(describe(true, 0xD0, b""), "PINGRESP (0 bytes)");
    }

    #[test]
    fn what_cannot_be_read_is_shown_as_far_as_it_can() {
        assert_eq!(
            describe(false, 0x30, b"\0\x09a"),
            "PUBLISH qos=0 dup=0 retain=0 (not readable further) (3 bytes)"
        );
        assert_eq!(
            describe(false, 0x82, b"\0\x01\0\x01a"),
            "SUBSCRIBE id=1 \"a\" (not readable further) (5 bytes)"
        );
    }

    #[test]
    fn a_long_payload_is_shown_in_part() {
        let body = [&b"\0\x01t"[..], &[b'x'; 100]].concat();
        assert!(
            describe(false, 0x30, &body).contains(&format!("payload=\"{}\"... (103 bytes)", "x".repeat(64)))
        );
    }
}

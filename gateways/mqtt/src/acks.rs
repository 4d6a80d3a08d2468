//! PUBACK, PUBREC, PUBREL, PUBCOMP (MQTT 5.0, 3.4–3.7), DISCONNECT (3.14) and AUTH (3.15).

use wire::{Reader, Writer};

use crate::frame::{Fault, kind, packet, packet_id};
use crate::property::{Properties, Value, id, put_bytes, put_properties};

/// Reason codes that a client may use in PUBACK and PUBREC (MQTT-3.4.2-1, 3.5.2-1).
const RECEIVED: [u8; 9] = [0x00, 0x10, 0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99];
/// The same for PUBREL and PUBCOMP (MQTT-3.6.2-1, 3.7.2-1).
const COMPLETED: [u8; 2] = [0x00, 0x92];
/// The same for DISCONNECT (MQTT-3.14.2-1).
const GOODBYE: [u8; 14] =
    [0x00, 0x04, 0x80, 0x81, 0x82, 0x83, 0x90, 0x93, 0x94, 0x95, 0x96, 0x97, 0x98, 0x99];

/// Reads packet identifier and reason code of an acknowledgement of this `kind`.
pub fn decode(is_5: bool, kind: u8, body: &[u8]) -> Result<(u16, u8), Fault> {
    let mut r = Reader::new(body);
    let id = packet_id(&mut r)?;
    let mut reason = 0;
    if is_5 && !r.is_empty() {
        reason = r.u8()?;
        if !r.is_empty() {
            let mut p = Properties::decode(&mut r)?;
            while p.next(&[id::REASON_STRING, id::USER])?.is_some() {}
        }
    }
    let known: &[u8] = if matches!(kind, kind::PUBACK | kind::PUBREC) { &RECEIVED } else { &COMPLETED };
    if !r.is_empty() {
        return Err(Fault::MALFORMED);
    }
    if known.contains(&reason) { Ok((id, reason)) } else { Err(Fault::PROTOCOL) }
}

/// Appends an acknowledgement with first byte `first`; reason code 0 takes no byte, and MQTT 3 has no other.
pub fn encode(out: &mut Vec<u8>, first: u8, id: u16, reason: u8) {
    let [high, low] = id.to_be_bytes();
    if reason == 0 {
        out.put(&[first, 2, high, low]);
    } else {
        out.put(&[first, 3, high, low, reason]);
    }
}

/// A client's DISCONNECT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Goodbye {
    /// Reason code; only zero drops the will (MQTT-3.14.4-3).
    pub reason: u8,
    /// Session Expiry Interval in seconds.
    pub session_expiry: Option<u32>,
}

/// Reads the body of a DISCONNECT.
pub fn decode_disconnect(is_5: bool, body: &[u8]) -> Result<Goodbye, Fault> {
    let mut r = Reader::new(body);
    let mut goodbye = Goodbye { reason: 0, session_expiry: None };
    if is_5 && !r.is_empty() {
        goodbye.reason = r.u8()?;
        if !r.is_empty() {
            let mut p = Properties::decode(&mut r)?;
            while let Some((id, value)) = p.next(&[id::SESSION_EXPIRY, id::REASON_STRING, id::USER])? {
                if let (id::SESSION_EXPIRY, Value::Number(n)) = (id, value) {
                    goodbye.session_expiry = Some(n);
                }
            }
        }
    }
    if !r.is_empty() {
        return Err(Fault::MALFORMED);
    }
    if GOODBYE.contains(&goodbye.reason) { Ok(goodbye) } else { Err(Fault::PROTOCOL) }
}

/// Appends a DISCONNECT with a reason code.
pub fn disconnect(out: &mut Vec<u8>, reason: u8) {
    out.put(&[kind::DISCONNECT << 4, 1, reason]);
}

/// A client's AUTH.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Auth<'a> {
    /// Reason code.
    pub reason: u8,
    /// Authentication Method.
    pub method: Option<&'a str>,
    /// Authentication Data.
    pub data: &'a [u8],
}

/// Reads the body of an AUTH.
pub fn decode_auth(body: &[u8]) -> Result<Auth<'_>, Fault> {
    let mut r = Reader::new(body);
    let mut auth = Auth { reason: 0, method: None, data: &[] };
    if r.is_empty() {
        return Ok(auth);
    }
    auth.reason = r.u8()?;
    const ALLOWED: [u8; 4] =
        [id::AUTHENTICATION_METHOD, id::AUTHENTICATION_DATA, id::REASON_STRING, id::USER];
    let mut p = Properties::decode(&mut r)?;
    while let Some((id, value)) = p.next(&ALLOWED)? {
        match (id, value) {
            (id::AUTHENTICATION_METHOD, Value::Text(t)) => auth.method = Some(t),
            (id::AUTHENTICATION_DATA, Value::Data(d)) => auth.data = d,
            _ => {}
        }
    }
    if r.is_empty() { Ok(auth) } else { Err(Fault::MALFORMED) }
}

/// Appends an AUTH.
pub fn auth(out: &mut Vec<u8>, reason: u8, method: &str, data: &[u8]) {
    packet(out, kind::AUTH << 4, |out| {
        out.put_u8(reason);
        put_properties(out, |out| {
            put_bytes(out, id::AUTHENTICATION_METHOD, method.as_bytes());
            if !data.is_empty() {
                put_bytes(out, id::AUTHENTICATION_DATA, data);
            }
        });
    });
}

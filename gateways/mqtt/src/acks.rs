//! PUBACK, PUBREC, PUBREL and PUBCOMP (MQTT 5.0, 3.4–3.7): a packet identifier, in 5.0 with a reason code and properties.

use wire::{Reader, Writer};

use crate::frame::{Fault, kind, packet, packet_id};
use crate::property::{Properties, id, put_bytes, put_properties};

/// Reason codes of PUBACK and PUBREC (MQTT-3.4.2-1, 3.5.2-1).
pub const RECEIVED: [u8; 9] = [0x00, 0x10, 0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99];
/// The same for PUBREL and PUBCOMP (MQTT-3.6.2-1, 3.7.2-1).
const COMPLETED: [u8; 2] = [0x00, 0x92];
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

/// Appends an acknowledgement with first byte `first`; reason code 0 takes no byte, and MQTT 3 has no other. `words` are
/// the Reason String that goes with a refusal.
pub fn encode(out: &mut Vec<u8>, first: u8, id: u16, reason: u8, words: Option<&str>) {
    let [high, low] = id.to_be_bytes();
    match words {
        _ if reason == 0 => out.put(&[first, 2, high, low]),
        None => out.put(&[first, 3, high, low, reason]),
        Some(words) => packet(out, first, |out| {
            out.put(&[high, low, reason]);
            put_properties(out, |out| put_bytes(out, id::REASON_STRING, words.as_bytes()));
        }),
    }
}

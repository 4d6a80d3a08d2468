//! DISCONNECT (MQTT 5.0, 3.14) and every other end of a connection.

use std::time::Duration;

use gateway::{Action, Close, Disconnect, Outbox};
use wire::{Reader, Writer};

use crate::connect::{self, Version};
use crate::frame::{Fault, kind};
use crate::property::{Properties, Value, id};
use crate::{Mqtt, Phase};

/// Reason codes that a client may use in DISCONNECT (MQTT-3.14.2-1).
const GOODBYE: [u8; 14] =
    [0x00, 0x04, 0x80, 0x81, 0x82, 0x83, 0x90, 0x93, 0x94, 0x95, 0x96, 0x97, 0x98, 0x99];

/// A client's DISCONNECT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Goodbye {
    /// Reason code; only zero drops the will (MQTT-3.14.4-3).
    pub reason: u8,
    /// Session Expiry Interval in seconds.
    pub session_expiry: Option<u32>,
}

/// Reads the body of a DISCONNECT.
pub fn decode(is_5: bool, body: &[u8]) -> Result<Goodbye, Fault> {
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
pub fn encode(out: &mut Vec<u8>, reason: u8) {
    out.put(&[kind::DISCONNECT << 4, 1, reason]);
}

impl Mqtt {
    pub(crate) fn disconnect(&mut self, flags: u8, body: &[u8], out: &mut Outbox) -> Result<(), Fault> {
        if flags != 0 {
            return Err(Fault::MALFORMED);
        }
        let how = decode(self.is_5(), body)?;
        if let Some(seconds) = how.session_expiry {
            // A session that was to end with its connection cannot be kept afterwards (3.14.2.2.2).
            if self.extra().session_expiry == 0 && seconds > 0 {
                return Err(Fault::PROTOCOL);
            }
        }
        let most = self.config.max_session_expiry;
        let expiry: Option<Duration> = how.session_expiry.map(|s| connect::expiry(s).min(most));
        self.phase = Phase::Closed;
        out.act(Action::Disconnect(self.peer, Disconnect { with_will: how.reason != 0, expiry }));
        out.act(Action::Close(self.peer, Close::Goodbye));
        Ok(())
    }

    /// Says why, and asks for the end.
    pub(crate) fn end(&mut self, out: &mut Outbox, fault: Fault) {
        self.say_goodbye(out, fault.reason);
        out.act(Action::Close(self.peer, fault.close));
    }

    pub(crate) fn say_goodbye(&mut self, out: &mut Outbox, reason: u8) {
        if self.is_5() && self.phase == Phase::Open {
            self.send(out, |wire| encode(wire, reason));
        } else if self.is_5() && self.phase == Phase::Connecting {
            // What a DISCONNECT may say and a CONNACK may not (MQTT 5.0, 3.2.2.2): the end of the server has a code of its
            // own there; who was taken over or ended before it was let in is just closed.
            let reason = match reason {
                0x8B => Some(0x88),
                0x8D | 0x8E | 0x93 | 0x94 | 0x96 | 0x98 => None,
                other => Some(other),
            };
            if let Some(reason) = reason {
                self.send(out, |wire| connect::refuse(wire, Version::V5, reason, None, None));
            }
        }
        self.phase = Phase::Closed;
    }
}

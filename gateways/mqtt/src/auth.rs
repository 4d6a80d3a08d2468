//! AUTH (MQTT 5.0, 3.15) and enhanced authentication (4.12): for CONNECT, and again within the session.

use bytes::Bytes;
use gateway::{Action, Answer, Flow, Outbox};
use wire::{Reader, Writer};

use crate::frame::{Fault, kind, packet};
use crate::property::{Properties, Value, id, put_bytes, put_properties};
use crate::{Mqtt, Phase, reason, ticket};

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
pub fn decode(body: &[u8]) -> Result<Auth<'_>, Fault> {
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
pub fn encode(out: &mut Vec<u8>, reason: u8, method: &str, data: &[u8]) {
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

impl Mqtt {
    /// AUTH from the client (4.12).
    pub(crate) fn auth(&mut self, flags: u8, body: &[u8], out: &mut Outbox) -> Result<Flow, Fault> {
        if flags != 0 {
            return Err(Fault::MALFORMED);
        }
        let auth = decode(body)?;
        let known = self.extra().method.clone();
        // The method is that of CONNECT, and without one there is no AUTH (MQTT-4.12.0-5, -7; 4.12.1-1).
        if known.is_none() || known.as_deref() != auth.method {
            return Err(Fault::PROTOCOL);
        }
        let ticket = ticket::new(if self.phase == Phase::Open { ticket::AUTH } else { ticket::CONNECT }, 0);
        let data = Bytes::copy_from_slice(auth.data);
        match auth.reason {
            // To go on, something must have begun: CONNECT, or 0x19.
            0x18 if self.phase == Phase::Connecting || self.extra().is_proving => {
                self.ask(out, Action::Exchange(self.peer, ticket, data));
            }
            0x19 if self.phase == Phase::Open => {
                let method = known.unwrap_or_default();
                self.extra().is_proving = true;
                self.ask(out, Action::Reauthenticate(self.peer, ticket, method, data));
            }
            _ => return Err(Fault::PROTOCOL),
        }
        // While connecting nothing may be read before the answer.
        Ok(if self.phase == Phase::Open { Flow::Continue } else { Flow::Pause })
    }

    pub(crate) fn send_auth(&mut self, out: &mut Outbox, reason: u8, data: &[u8]) {
        let method = self.extra().method.clone().unwrap_or_default();
        self.send(out, |wire| encode(wire, reason, &method, data));
    }

    pub(crate) fn answer_auth(&mut self, answer: Answer, out: &mut Outbox) {
        match answer {
            Answer::Challenge(data) => self.send_auth(out, 0x18, &data),
            Answer::Authenticated(data) => {
                self.extra().is_proving = false;
                self.send_auth(out, 0, &data);
            }
            // A client that fails to prove itself again is let go (4.12.1); of the codes DISCONNECT may carry, Not
            // authorized says it.
            Answer::Refused(why) => self.end(out, Fault { reason: 0x87, close: reason::close(why) }),
            _ => {}
        }
    }
}

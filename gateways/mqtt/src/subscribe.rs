//! SUBSCRIBE and UNSUBSCRIBE (MQTT 5.0, 3.8 and 3.10).

use gateway::{Action, Filter, Outbox, Qos, Refusal, Subscribe};
use wire::{Reader, Writer};

use crate::frame::{Fault, kind, packet, packet_id, text};
use crate::property::{Properties, Value, id};
use crate::{Extra, Mqtt, reason, ticket};

/// Reason codes of refusals in SUBACK (MQTT-3.9.3-1); the first five are also those of UNSUBACK (3.11.3).
const REFUSED: [u8; 7] = [0x80, 0x83, 0x87, 0x8F, 0x91, 0x97, 0x9E];

/// A packet's filters: those that can be, with their options, and a reason code for each that cannot.
pub struct Filters<T> {
    /// Packet identifier.
    pub id: u16,
    /// Filters that can be.
    pub good: Vec<T>,
    /// For each filter of the packet, in order: None if it is among the good ones.
    pub bad: Vec<Option<u8>>,
}

impl<T> Filters<T> {
    /// A filter that cannot be is refused alone: the others of its packet may be needed all the more.
    fn add(&mut self, text: &str, make: impl FnOnce(Filter) -> Result<T, Fault>) -> Result<(), Fault> {
        match Filter::parse(text) {
            Ok(filter) => {
                self.good.push(make(filter)?);
                self.bad.push(None);
            }
            Err(_) => self.bad.push(Some(0x8F)),
        }
        Ok(())
    }
}

/// Reads the body of a SUBSCRIBE.
pub fn decode_subscribe(is_5: bool, body: &[u8]) -> Result<Filters<Subscribe>, Fault> {
    let mut r = Reader::new(body);
    let mut list = Filters { id: packet_id(&mut r)?, good: Vec::new(), bad: Vec::new() };
    let mut identifier = 0;
    if is_5 {
        let mut p = Properties::decode(&mut r)?;
        while let Some((id, value)) = p.next(&[id::SUBSCRIPTION_ID, id::USER])? {
            match (id, value) {
                // Zero is a protocol error (3.8.2.1.2).
                (id::SUBSCRIPTION_ID, Value::Number(0)) => return Err(Fault::PROTOCOL),
                (id::SUBSCRIPTION_ID, Value::Number(n)) => identifier = n,
                _ => {}
            }
        }
    }
    // At least one filter (MQTT-3.8.3-2).
    if r.is_empty() {
        return Err(Fault::PROTOCOL);
    }
    while !r.is_empty() {
        let filter = text(&mut r)?;
        let options = r.u8()?;
        let qos = Qos::from_u8(options & 3).ok_or(Fault::PROTOCOL)?;
        let (no_local, retain_as_published) = (options & 4 != 0, options & 8 != 0);
        let retain_handling = options >> 4 & 3;
        // Reserved bits (MQTT-3.8.3-5; 3.1.1: MQTT-3.8.3-4).
        if options & 0xC0 != 0 || (!is_5 && options & 0xFC != 0) {
            return Err(Fault::MALFORMED);
        }
        if retain_handling == 3 {
            return Err(Fault::PROTOCOL);
        }
        list.add(filter, |filter| {
            // No Local on a shared subscription (MQTT-3.8.3-4).
            if no_local && filter.group().is_some() {
                return Err(Fault::PROTOCOL);
            }
            Ok(Subscribe { filter, qos, no_local, retain_as_published, retain_handling, identifier })
        })?;
    }
    Ok(list)
}

/// Reads the body of an UNSUBSCRIBE.
pub fn decode_unsubscribe(is_5: bool, body: &[u8]) -> Result<Filters<Filter>, Fault> {
    let mut r = Reader::new(body);
    let mut list = Filters { id: packet_id(&mut r)?, good: Vec::new(), bad: Vec::new() };
    if is_5 {
        let mut p = Properties::decode(&mut r)?;
        while p.next(&[id::USER])?.is_some() {}
    }
    // At least one filter (MQTT-3.10.3-2).
    if r.is_empty() {
        return Err(Fault::PROTOCOL);
    }
    while !r.is_empty() {
        let filter = text(&mut r)?;
        list.add(filter, Ok)?;
    }
    Ok(list)
}

/// The codes of a packet's filters in its order: `bad` ones as they are (MQTT 3 knows only 0x80), the others from
/// `results`.
pub fn merge(bad: &[Option<u8>], is_5: bool, results: impl IntoIterator<Item = u8>) -> Vec<u8> {
    let mut results = results.into_iter();
    bad.iter()
        .map(|bad| match bad {
            Some(code) => {
                if is_5 {
                    *code
                } else {
                    0x80
                }
            }
            None => results.next().unwrap_or(0x80),
        })
        .collect()
}

impl Mqtt {
    pub(crate) fn subscribe(&mut self, flags: u8, body: &[u8], out: &mut Outbox) -> Result<(), Fault> {
        // MQTT-3.8.1-1.
        if !self.is_flagged(flags) {
            return Err(Fault::MALFORMED);
        }
        let list = decode_subscribe(self.is_5(), body)?;
        self.remember_bad(list.id, list.bad);
        let ticket = ticket::new(ticket::SUBSCRIBE, list.id);
        self.ask(out, Action::Subscribe(self.peer, ticket, list.good));
        Ok(())
    }

    pub(crate) fn unsubscribe(&mut self, flags: u8, body: &[u8], out: &mut Outbox) -> Result<(), Fault> {
        // MQTT-3.10.1-1.
        if !self.is_flagged(flags) {
            return Err(Fault::MALFORMED);
        }
        let list = decode_unsubscribe(self.is_5(), body)?;
        self.remember_bad(list.id, list.bad);
        let ticket = ticket::new(ticket::UNSUBSCRIBE, list.id);
        self.ask(out, Action::Unsubscribe(self.peer, ticket, list.good));
        Ok(())
    }

    pub(crate) fn answer_subscribe(&mut self, out: &mut Outbox, id: u16, results: Vec<Result<Qos, Refusal>>) {
        let code = |r: Result<Qos, Refusal>| match r {
            Ok(qos) => qos as u8,
            Err(why) if self.is_5() => reason::reason_of(why, &REFUSED),
            Err(_) => 0x80,
        };
        let codes = results.into_iter().map(code).collect();
        self.answer_filters(out, kind::SUBACK, id, codes);
    }

    pub(crate) fn answer_unsubscribe(
        &mut self,
        out: &mut Outbox,
        id: u16,
        results: Vec<Result<bool, Refusal>>,
    ) {
        let code = |r: Result<bool, Refusal>| match r {
            Ok(true) => 0,
            Ok(false) => 0x11,
            Err(why) => reason::reason_of(why, &REFUSED[..5]),
        };
        let codes = results.into_iter().map(code).collect();
        self.answer_filters(out, kind::UNSUBACK, id, codes);
    }

    fn answer_filters(&mut self, out: &mut Outbox, kind: u8, id: u16, codes: Vec<u8>) {
        let is_5 = self.is_5();
        let is_next = |e: &&mut Extra| e.bad.front().is_some_and(|(of, _)| *of == id);
        let bad = self.extra.as_deref_mut().filter(is_next).and_then(|e| e.bad.pop_front());
        let codes = match bad {
            Some((_, bad)) => merge(&bad, is_5, codes),
            None => codes,
        };
        self.send(out, |wire| {
            packet(wire, kind << 4, |wire| {
                wire.put_u16(id);
                if is_5 {
                    wire.put_u8(0);
                }
                // UNSUBACK had no codes before 5.0.
                if is_5 || kind == kind::SUBACK {
                    wire.put(&codes);
                }
            });
        });
    }

    /// Until the answer to the other filters of the packet; nearly always there is nothing to remember.
    fn remember_bad(&mut self, id: u16, bad: Vec<Option<u8>>) {
        if bad.iter().any(Option::is_some) {
            self.extra().bad.push_back((id, bad));
        }
    }
}

//! SUBSCRIBE and UNSUBSCRIBE (MQTT 5.0, 3.8 and 3.10).

use gateway::{Filter, Qos, Subscribe};
use wire::Reader;

use crate::frame::{Fault, packet_id, text};
use crate::property::{Properties, Value, id};

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

//! PUBLISH both ways (MQTT 5.0, 3.3): the hot path, read from and written to borrowed buffers.

use std::time::Duration;

use bytes::Bytes;
use gateway::topic::check_name;
use gateway::{Delivery, Message, Now, Properties as Said, Qos};
use wire::{Reader, Writer};

use crate::connect::say;
use crate::frame::{Fault, kind, packet_id, put_variable, text, variable_size};
use crate::property::{Properties, Size, Value, id, put_bytes, put_four, put_pair, put_two};

/// A PUBLISH from a client.
pub struct Published {
    /// The message.
    pub message: Message,
    /// Packet identifier, for QoS 1 and 2.
    pub id: Option<u16>,
}

/// Topic aliases that a client has set.
#[derive(Debug, Default)]
pub struct Aliases {
    /// Most that it was told it may use.
    most: u16,
    /// By alias - 1. Most clients use none, and then nothing is kept.
    names: Vec<Option<Box<str>>>,
}

impl Aliases {
    /// At most so many.
    pub fn new(most: u16) -> Aliases {
        Aliases { most, names: Vec::new() }
    }

    /// The name that a PUBLISH with this Topic Alias means, which it sets if it has a `topic` of its own (3.3.2.3.4).
    fn resolve(&mut self, alias: u16, topic: &str) -> Result<&str, Fault> {
        if alias == 0 || alias > self.most {
            return Err(Fault::ALIAS);
        }
        let at = usize::from(alias) - 1;
        if !topic.is_empty() {
            check_name(topic).map_err(|_| Fault::TOPIC)?;
            if self.names.len() <= at {
                self.names.resize(at + 1, None);
            }
            self.names[at] = Some(topic.into());
        }
        // An alias that was never set.
        self.names.get(at).and_then(Option::as_deref).ok_or(Fault::PROTOCOL)
    }
}

/// Reads the variable header and payload of a PUBLISH with the fixed header's `flags`; without `aliases` it is MQTT 3.
/// With `shared`, which holds `body`, a large payload is not copied.
pub fn decode(
    now: Now,
    flags: u8,
    body: &[u8],
    shared: Option<&Bytes>,
    aliases: Option<&mut Aliases>,
) -> Result<Published, Fault> {
    let qos = Qos::from_u8(flags >> 1 & 3).ok_or(Fault::MALFORMED)?;
    // DUP with QoS 0 (MQTT-3.3.1-2).
    if qos == Qos::AtMostOnce && flags & 8 != 0 {
        return Err(Fault::MALFORMED);
    }
    let mut r = Reader::new(body);
    let topic = text(&mut r)?;
    let id = if qos == Qos::AtMostOnce { None } else { Some(packet_id(&mut r)?) };
    let (mut said, mut expiry, mut alias) = (None, None, None);
    if aliases.is_some() {
        (said, expiry) = read_properties(&mut r, &mut alias)?;
    }
    let named = match (aliases, alias) {
        (Some(aliases), Some(alias)) => aliases.resolve(alias, topic)?,
        // No name and no alias (3.3.2.1).
        (Some(_), None) if topic.is_empty() => return Err(Fault::PROTOCOL),
        _ => {
            check_name(topic).map_err(|_| Fault::TOPIC)?;
            topic
        }
    };
    let payload = r.take_rest();
    if said.as_ref().is_some_and(|s: &Said| s.utf8_payload) && std::str::from_utf8(payload).is_err() {
        return Err(Fault::PAYLOAD_FORMAT);
    }
    let message = match shared {
        Some(shared) => Message::from_slice(now, named, shared.slice_ref(payload)),
        None => Message::new(now, named, payload),
    };
    // What nothing was said of is left as it is: most messages have none of it, and there are many.
    let mut message = if qos == Qos::AtMostOnce { message } else { message.with_qos(qos) };
    if flags & 1 != 0 {
        message = message.with_retain(true);
    }
    if expiry.is_some() {
        message = message.with_expiry(expiry);
    }
    if let Some(said) = said {
        message = message.with_properties(said);
    }
    Ok(Published { message, id })
}

fn read_properties(
    r: &mut Reader<'_>,
    alias: &mut Option<u16>,
) -> Result<(Option<Said>, Option<Duration>), Fault> {
    const ALLOWED: [u8; 7] = [
        id::PAYLOAD_FORMAT,
        id::MESSAGE_EXPIRY,
        id::TOPIC_ALIAS,
        id::RESPONSE_TOPIC,
        id::CORRELATION_DATA,
        id::USER,
        id::CONTENT_TYPE,
    ];
    let mut p = Properties::decode(r)?;
    let (mut said, mut expiry) = (None, None);
    while let Some((id, value)) = p.next(&ALLOWED)? {
        match (id, value) {
            (id::MESSAGE_EXPIRY, Value::Number(n)) => expiry = Some(Duration::from_secs(n.into())),
            (id::TOPIC_ALIAS, Value::Number(n)) => *alias = u16::try_from(n).ok(),
            _ => say(said.get_or_insert_default(), id, value)?,
        }
    }
    Ok((said, expiry))
}

/// How a delivery names its topic to an MQTT 5.0 client.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Naming {
    /// Topic Alias; zero is none.
    pub alias: u16,
    /// The client knows the alias: the name is left out.
    pub is_known: bool,
}

/// Appends the PUBLISH that hands `d` over. MQTT 5.0 if `naming` is given. Returns false, and appends nothing, if it would
/// be larger than `most` bytes (MQTT-3.1.2-24).
pub fn encode(out: &mut Vec<u8>, now: Now, d: &Delivery<'_>, naming: Option<Naming>, most: usize) -> bool {
    let message = d.message;
    let topic = if naming.is_some_and(|n| n.is_known) { "" } else { d.topic };
    let payload = message.payload();
    let first = kind::PUBLISH << 4 | u8::from(d.duplicate) << 3 | (d.qos as u8) << 1 | u8::from(d.retain);
    let mut length = 2 + topic.len() + 2 * usize::from(d.id.is_some()) + payload.len();
    let mut properties = Size(0);
    if let Some(naming) = naming {
        put(&mut properties, now, d, naming);
        length += variable_size(properties.0) + properties.0;
    }
    if 1 + variable_size(length) + length > most {
        return false;
    }
    out.reserve(5 + length);
    out.put_u8(first);
    put_variable(out, length as u32);
    out.put_prefixed16(topic.as_bytes());
    if let Some(id) = d.id {
        out.put_u16(id.0);
    }
    if let Some(naming) = naming {
        put_variable(out, properties.0 as u32);
        put(out, now, d, naming);
    }
    out.put(payload);
    true
}

fn put(out: &mut impl Writer, now: Now, d: &Delivery<'_>, naming: Naming) {
    if let Some(left) = d.message.remaining(now.instant) {
        // Rounded up: a message that lives for half a second more does not live for zero (MQTT-3.3.2-6).
        let seconds = left.as_secs() + u64::from(left.subsec_nanos() > 0);
        put_four(out, id::MESSAGE_EXPIRY, u32::try_from(seconds).unwrap_or(u32::MAX));
    }
    if naming.alias > 0 {
        put_two(out, id::TOPIC_ALIAS, naming.alias);
    }
    for &identifier in d.subscriptions {
        out.put_u8(id::SUBSCRIPTION_ID);
        put_variable(out, identifier);
    }
    let Some(said) = d.message.properties() else { return };
    if said.utf8_payload {
        out.put(&[id::PAYLOAD_FORMAT, 1]);
    }
    if let Some(t) = &said.content_type {
        put_bytes(out, id::CONTENT_TYPE, t.as_bytes());
    }
    if let Some(t) = &said.response_topic {
        put_bytes(out, id::RESPONSE_TOPIC, t.as_bytes());
    }
    if let Some(d) = &said.correlation_data {
        put_bytes(out, id::CORRELATION_DATA, d);
    }
    for (name, value) in &said.user {
        put_pair(out, name, value);
    }
}

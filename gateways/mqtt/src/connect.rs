//! CONNECT (MQTT 5.0 and 3.1.1, 3.1) and CONNACK (3.2).

use std::time::Duration;

use bytes::Bytes;
use gateway::topic::check_name;
use gateway::{Connect, Message, Now, Properties as Said, Qos, Will};
use wire::{Reader, Writer};

use crate::config::Config;
use crate::frame::{Fault, kind, packet, text};
use crate::property::{Properties, Value, id, put_bytes, put_four, put_properties, put_two};

/// Protocol levels (3.1.2.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Version {
    /// MQTT 3.1, `MQIsdp`.
    V31 = 3,
    /// MQTT 3.1.1.
    V311 = 4,
    /// MQTT 5.0.
    V5 = 5,
}

impl Version {
    /// For listings.
    pub fn name(self) -> &'static str {
        match self {
            Version::V31 => "MQTT 3.1",
            Version::V311 => "MQTT 3.1.1",
            Version::V5 => "MQTT 5.0",
        }
    }
}

/// What a CONNECT said, beside what becomes a [`Connect`].
#[derive(Clone, Debug)]
pub struct Request {
    /// Version.
    pub version: Version,
    /// Seconds; zero is none.
    pub keep_alive: u16,
    /// Session Expiry Interval in seconds.
    pub session_expiry: u32,
    /// Maximum Packet Size of the client.
    pub max_packet: u32,
    /// Topic Alias Maximum of the client.
    pub alias_maximum: u16,
    /// Whether Reason Strings and User Properties may be sent beyond the packets that always may (MQTT-3.1.2-29).
    pub wants_problems: bool,
    /// Whether Response Information is wanted.
    pub wants_response: bool,
    /// For the driver.
    pub connect: Box<Connect>,
}

/// Why a CONNECT is answered with a refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// No CONNACK can be sent: the connection is just closed.
    Silent(Fault),
    /// The version is not served: 0x01 to MQTT 3, 0x84 to later ones.
    Version(u8),
    /// MQTT 3 return code (3.2.2.3).
    Code(u8, Fault),
    /// MQTT 5.0 reason code.
    Reason(Fault),
}

impl From<Fault> for Refused {
    fn from(fault: Fault) -> Self {
        Refused::Silent(fault)
    }
}

impl From<wire::Short> for Refused {
    fn from(_: wire::Short) -> Self {
        Refused::Silent(Fault::MALFORMED)
    }
}

const CLIENT_ID: Fault = Fault { reason: 0x85, close: gateway::Close::ClientId };

/// Reads the body of a CONNECT.
pub fn decode(now: Now, flags: u8, body: &[u8], config: &Config) -> Result<Request, Refused> {
    let mut r = Reader::new(body);
    let name = r.prefixed16()?;
    let level = r.u8()?;
    let version = match (name, level) {
        (b"MQIsdp", 3) => Version::V31,
        (b"MQTT", 4) => Version::V311,
        (b"MQTT", 5) => Version::V5,
        // The bridge flag of some brokers, or a version to come (MQTT-3.1.2-2).
        (b"MQTT" | b"MQIsdp", _) => return Err(Refused::Version(level)),
        // Not MQTT at all (MQTT-3.1.2-1).
        _ => return Err(Fault::PROTOCOL.into()),
    };
    if !config.versions.contains(&version) {
        return Err(Refused::Version(level));
    }
    read(now, flags, version, r, config).map_err(|refused| match refused {
        Refused::Silent(fault) if version == Version::V5 => Refused::Reason(fault),
        other => other,
    })
}

fn read(
    now: Now,
    flags: u8,
    version: Version,
    mut r: Reader<'_>,
    config: &Config,
) -> Result<Request, Refused> {
    if flags != 0 {
        return Err(Fault::MALFORMED.into());
    }
    let is_5 = version == Version::V5;
    let connect_flags = r.u8()?;
    let has = |bit: u8| connect_flags & bit != 0;
    let will_qos = connect_flags >> 3 & 3;
    // The reserved flag (MQTT-3.1.2-3), will flags without a will (MQTT-3.1.2-11, -13), will QoS 3 (MQTT-3.1.2-12).
    if has(1) || (!has(4) && connect_flags & 0x38 != 0) || will_qos == 3 {
        return Err(Fault::MALFORMED.into());
    }
    // A password needs a user name before 5.0 (3.1.1: MQTT-3.1.2-22).
    if !is_5 && has(0x40) && !has(0x80) {
        return Err(Fault::MALFORMED.into());
    }
    let keep_alive = r.u16()?;
    let mut request = Request {
        version,
        keep_alive,
        session_expiry: if has(2) { 0 } else { u32::MAX },
        max_packet: u32::MAX,
        alias_maximum: 0,
        wants_problems: true,
        wants_response: false,
        connect: Box::new(Connect {
            clean_start: has(2),
            keep_alive,
            ..Connect::new("", version.name(), config.max_inflight)
        }),
    };
    if is_5 {
        request.session_expiry = 0;
        read_properties(&mut r, &mut request, config)?;
    }
    request.connect.expiry = expiry(request.session_expiry).min(config.max_session_expiry);
    let client_id = text(&mut r)?;
    request.connect.client_id = client_id.into();
    if has(4) {
        let qos = Qos::from_u8(will_qos).unwrap_or_default();
        request.connect.will = Some(read_will(now, is_5, qos, has(0x20), &mut r)?);
    }
    // In 3.1 what was announced may be missing all the same (3.1, 3.1).
    let may_miss = version == Version::V31;
    if has(0x80) && !(may_miss && r.is_empty()) {
        request.connect.username = Some(text(&mut r)?.into());
    }
    if has(0x40) && !(may_miss && r.is_empty()) {
        request.connect.password = Some(Bytes::copy_from_slice(r.prefixed16()?));
    }
    if !r.is_empty() {
        return Err(Fault::MALFORMED.into());
    }
    // 3.1: 1 to 23 characters, which nobody keeps to; 3.1.1: none needs a clean session (MQTT-3.1.3-8).
    let is_bad = client_id.len() > config.max_client_id
        || (client_id.is_empty() && (version == Version::V31 || (!is_5 && !has(2))));
    if is_bad {
        return Err(if is_5 { Refused::Reason(CLIENT_ID) } else { Refused::Code(2, CLIENT_ID) });
    }
    Ok(request)
}

fn read_properties(r: &mut Reader<'_>, request: &mut Request, config: &Config) -> Result<(), Fault> {
    const ALLOWED: [u8; 9] = [
        id::SESSION_EXPIRY,
        id::RECEIVE_MAXIMUM,
        id::MAXIMUM_PACKET_SIZE,
        id::TOPIC_ALIAS_MAXIMUM,
        id::REQUEST_RESPONSE_INFORMATION,
        id::REQUEST_PROBLEM_INFORMATION,
        id::USER,
        id::AUTHENTICATION_METHOD,
        id::AUTHENTICATION_DATA,
    ];
    let mut p = Properties::decode(r)?;
    let (mut method, mut data) = (None, None);
    while let Some((id, value)) = p.next(&ALLOWED)? {
        match (id, value) {
            (id::SESSION_EXPIRY, Value::Number(n)) => request.session_expiry = n,
            (id::RECEIVE_MAXIMUM | id::MAXIMUM_PACKET_SIZE, Value::Number(0)) => return Err(Fault::PROTOCOL),
            (id::RECEIVE_MAXIMUM, Value::Number(n)) => {
                request.connect.credit = config.max_inflight.min(u16::try_from(n).unwrap_or(u16::MAX));
            }
            (id::MAXIMUM_PACKET_SIZE, Value::Number(n)) => request.max_packet = n,
            (id::TOPIC_ALIAS_MAXIMUM, Value::Number(n)) => {
                request.alias_maximum = u16::try_from(n).unwrap_or(u16::MAX);
            }
            (id::REQUEST_RESPONSE_INFORMATION | id::REQUEST_PROBLEM_INFORMATION, Value::Number(2..)) => {
                return Err(Fault::PROTOCOL);
            }
            (id::REQUEST_RESPONSE_INFORMATION, Value::Number(n)) => request.wants_response = n == 1,
            (id::REQUEST_PROBLEM_INFORMATION, Value::Number(n)) => request.wants_problems = n == 1,
            (id::AUTHENTICATION_METHOD, Value::Text(t)) => method = Some(t),
            (id::AUTHENTICATION_DATA, Value::Data(d)) => data = Some(d),
            _ => {}
        }
    }
    match (method, data) {
        (None, Some(_)) => Err(Fault::PROTOCOL),
        (None, None) => Ok(()),
        (Some(method), data) => {
            let data = Bytes::copy_from_slice(data.unwrap_or_default());
            request.connect.method = Some((method.into(), data));
            Ok(())
        }
    }
}

fn read_will(now: Now, is_5: bool, qos: Qos, retain: bool, r: &mut Reader<'_>) -> Result<Box<Will>, Fault> {
    let (mut said, mut delay, mut expiry) = (Said::default(), Duration::ZERO, None);
    if is_5 {
        const ALLOWED: [u8; 7] = [
            id::WILL_DELAY,
            id::PAYLOAD_FORMAT,
            id::MESSAGE_EXPIRY,
            id::CONTENT_TYPE,
            id::RESPONSE_TOPIC,
            id::CORRELATION_DATA,
            id::USER,
        ];
        let mut p = Properties::decode(r)?;
        while let Some((id, value)) = p.next(&ALLOWED)? {
            match (id, value) {
                (id::WILL_DELAY, Value::Number(n)) => delay = Duration::from_secs(n.into()),
                (id::MESSAGE_EXPIRY, Value::Number(n)) => expiry = Some(Duration::from_secs(n.into())),
                _ => say(&mut said, id, value)?,
            }
        }
    }
    let topic = text(r)?;
    let payload = r.prefixed16()?;
    check_name(topic).map_err(|_| Fault::TOPIC)?;
    if said.utf8_payload && std::str::from_utf8(payload).is_err() {
        return Err(Fault::PAYLOAD_FORMAT);
    }
    let message = Message::new(now, topic, payload)
        .with_qos(qos)
        .with_retain(retain)
        .with_expiry(expiry)
        .with_properties(said);
    Ok(Box::new(Will { message, delay }))
}

/// Takes up a property that goes with a message (3.3.2.3).
pub fn say(said: &mut Said, id: u8, value: Value<'_>) -> Result<(), Fault> {
    match (id, value) {
        (id::PAYLOAD_FORMAT, Value::Number(2..)) => return Err(Fault::PROTOCOL),
        (id::PAYLOAD_FORMAT, Value::Number(n)) => said.utf8_payload = n == 1,
        (id::CONTENT_TYPE, Value::Text(t)) => said.content_type = Some(t.into()),
        (id::RESPONSE_TOPIC, Value::Text(t)) => {
            // A Response Topic is a topic name (MQTT-3.3.2-14).
            check_name(t).map_err(|_| Fault::PROTOCOL)?;
            said.response_topic = Some(t.into());
        }
        (id::CORRELATION_DATA, Value::Data(d)) => said.correlation_data = Some(Bytes::copy_from_slice(d)),
        (id::USER, Value::Pair(name, value)) => said.user.push((name.into(), value.into())),
        _ => {}
    }
    Ok(())
}

/// A Session Expiry Interval; 0xFFFFFFFF never expires (3.1.2.11.2).
pub fn expiry(seconds: u32) -> Duration {
    if seconds == u32::MAX { Duration::MAX } else { Duration::from_secs(seconds.into()) }
}

/// What an accepting CONNACK tells an MQTT 5.0 client.
pub struct Accepted<'a> {
    /// Session Present.
    pub session_present: bool,
    /// The client id, if it was assigned.
    pub assigned: Option<&'a str>,
    /// Session Expiry Interval, if it is not what was asked for.
    pub session_expiry: Option<u32>,
    /// Server Keep Alive, if it is not what was asked for.
    pub keep_alive: Option<u16>,
    /// Whether Response Information is wanted.
    pub wants_response: bool,
    /// Authentication Method and Data.
    pub authentication: Option<(&'a str, &'a [u8])>,
}

/// Appends CONNACK with reason code 0.
pub fn accept(out: &mut Vec<u8>, version: Version, config: &Config, a: &Accepted<'_>) {
    // 3.1 has no Session Present.
    let present = u8::from(a.session_present && version != Version::V31);
    packet(out, kind::CONNACK << 4, |out| {
        out.put(&[present, 0]);
        if version < Version::V5 {
            return;
        }
        put_properties(out, |out| {
            if let Some(seconds) = a.session_expiry {
                put_four(out, id::SESSION_EXPIRY, seconds);
            }
            if config.receive_maximum != u16::MAX {
                put_two(out, id::RECEIVE_MAXIMUM, config.receive_maximum);
            }
            put_four(out, id::MAXIMUM_PACKET_SIZE, config.max_packet_size as u32);
            if let Some(assigned) = a.assigned {
                put_bytes(out, id::ASSIGNED_CLIENT_ID, assigned.as_bytes());
            }
            if config.topic_alias_maximum > 0 {
                put_two(out, id::TOPIC_ALIAS_MAXIMUM, config.topic_alias_maximum);
            }
            if let Some(seconds) = a.keep_alive {
                put_two(out, id::SERVER_KEEP_ALIVE, seconds);
            }
            if let (true, Some(text)) = (a.wants_response, &config.response_information) {
                put_bytes(out, id::RESPONSE_INFORMATION, text.as_bytes());
            }
            if let Some((method, data)) = a.authentication {
                put_bytes(out, id::AUTHENTICATION_METHOD, method.as_bytes());
                if !data.is_empty() {
                    put_bytes(out, id::AUTHENTICATION_DATA, data);
                }
            }
        });
    });
}

/// Appends CONNACK with a reason code and an optional text for people, or reference to another server.
pub fn refuse(out: &mut Vec<u8>, version: Version, code: u8, text: Option<&str>, reference: Option<&str>) {
    packet(out, kind::CONNACK << 4, |out| {
        out.put(&[0, code]);
        if version == Version::V5 {
            put_properties(out, |out| {
                if let Some(reference) = reference {
                    put_bytes(out, id::SERVER_REFERENCE, reference.as_bytes());
                }
                if let Some(text) = text {
                    put_bytes(out, id::REASON_STRING, text.as_bytes());
                }
            });
        }
    });
}

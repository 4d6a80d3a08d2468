//! Reads what a server sent, strictly: whatever the standard lets no server send is a mistake here, so every case checks
//! it with every packet: reserved bits, lengths that add up, minimal Variable Byte Integers (MQTT-1.5.5-1), well-formed
//! UTF-8 (MQTT-1.5.4-1, -2), reason codes of the packet's table (MQTT-3.2.2-8, MQTT-3.4.2-1, …), properties that the
//! packet may have and only once, packet identifiers that are not zero, topic names without wildcards.

use crate::property::{self, Kind};
use wire::Reader;

/// Value of a field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// A number or a flag.
    Number(u64),
    /// Text or binary data.
    Bytes(Vec<u8>),
    /// A user property.
    Pair(Vec<u8>, Vec<u8>),
}

/// A packet by the names of its fields; properties are fields under their own names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    /// `connack`, `publish`, ….
    pub kind: &'static str,
    /// In the order of the packet; `codes` and some properties repeat.
    pub fields: Vec<(&'static str, Value)>,
}

impl Packet {
    /// All values of one field.
    pub fn values<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Value> {
        self.fields.iter().filter(move |(field, _)| *field == name).map(|(_, value)| value)
    }

    /// The number in a field.
    pub fn number(&self, name: &str) -> Option<u64> {
        match self.values(name).next() {
            Some(Value::Number(number)) => Some(*number),
            _ => None,
        }
    }
}

/// Length of the first packet in `bytes`, header included, once its header is there.
pub fn length(bytes: &[u8]) -> Result<Option<usize>, String> {
    let mut reader = Reader::new(bytes);
    if reader.u8().is_err() {
        return Ok(None);
    }
    match variable(&mut reader)? {
        Some(length) => Ok(Some(bytes.len() - reader.remaining() + length as usize)),
        None => Ok(None),
    }
}

/// Decodes one whole packet of a server to a client of `level`.
pub fn decode(bytes: &[u8], level: u8) -> Result<Packet, String> {
    let mut reader = Reader::new(bytes);
    let first = reader.u8().map_err(short)?;
    variable(&mut reader)?;
    let mut packet = Body { reader, level, fields: Vec::new(), kind: "" };
    packet.kind = match first >> 4 {
        2 => "connack",
        3 => "publish",
        4 => "puback",
        5 => "pubrec",
        6 => "pubrel",
        7 => "pubcomp",
        9 => "suback",
        11 => "unsuback",
        13 => "pingresp",
        14 if level == 5 => "disconnect",
        15 if level == 5 => "auth",
        _ => return Err(format!("a server does not send packets that begin with {first:#04x}")),
    };
    let flags = first & 15;
    let reserved = if packet.kind == "pubrel" { 2 } else { 0 };
    if packet.kind != "publish" && flags != reserved {
        return Err(format!("{} has flags {flags:#x}", packet.kind));
    }
    packet.body(flags)?;
    if !packet.reader.is_empty() {
        return Err(format!("{} has {} bytes too many", packet.kind, packet.reader.remaining()));
    }
    Ok(Packet { kind: packet.kind, fields: packet.fields })
}

struct Body<'a> {
    reader: Reader<'a>,
    level: u8,
    kind: &'static str,
    fields: Vec<(&'static str, Value)>,
}

impl Body<'_> {
    fn body(&mut self, flags: u8) -> Result<(), String> {
        match self.kind {
            "connack" => self.connack(),
            "publish" => self.publish(flags),
            "suback" => {
                self.id()?;
                self.properties()?;
                self.codes()
            }
            "unsuback" => {
                self.id()?;
                self.properties()?;
                if self.level == 5 { self.codes() } else { Ok(()) }
            }
            "pingresp" => Ok(()),
            "disconnect" | "auth" => self.optional_code(),
            _ => {
                self.id()?;
                if self.level == 5 { self.optional_code() } else { Ok(()) }
            }
        }
    }

    fn connack(&mut self) -> Result<(), String> {
        let flags = self.reader.u8().map_err(short)?;
        let code = self.reader.u8().map_err(short)?;
        let most = if self.level == 3 { 0 } else { 1 };
        if flags > most {
            return Err(format!("connack has flags {flags:#x}"));
        }
        if code != 0 && flags != 0 {
            return Err("connack refuses and says that a session is present".into());
        }
        if self.level > 3 {
            self.push("session", flags.into());
        }
        self.code("code", code)?;
        self.properties()
    }

    fn publish(&mut self, flags: u8) -> Result<(), String> {
        let qos = flags >> 1 & 3;
        if qos == 3 || (qos == 0 && flags & 8 != 0) {
            return Err(format!("publish has flags {flags:#x}"));
        }
        self.push("dup", (flags >> 3).into());
        self.push("qos", qos.into());
        self.push("retain", (flags & 1).into());
        let topic = self.text()?;
        if topic.iter().any(|b| b"+#".contains(b)) {
            return Err("the topic of a publish has a wildcard".into());
        }
        if topic.is_empty() && self.level < 5 {
            return Err("the topic of a publish is empty".into());
        }
        let is_empty = topic.is_empty();
        self.fields.push(("topic", Value::Bytes(topic)));
        if qos > 0 {
            self.id()?;
        }
        self.properties()?;
        if is_empty && !self.fields.iter().any(|(name, _)| *name == "topic-alias") {
            return Err("a publish has neither topic nor alias".into());
        }
        let payload = self.reader.take_rest().to_vec();
        self.fields.push(("payload", Value::Bytes(payload)));
        Ok(())
    }

    fn id(&mut self) -> Result<(), String> {
        match self.reader.u16().map_err(short)? {
            0 => Err(format!("{} has packet identifier 0", self.kind)),
            id => {
                self.push("id", id.into());
                Ok(())
            }
        }
    }

    fn optional_code(&mut self) -> Result<(), String> {
        let code = if self.reader.is_empty() { 0 } else { self.reader.u8().map_err(short)? };
        self.code("code", code)?;
        if self.reader.is_empty() { Ok(()) } else { self.properties() }
    }

    fn codes(&mut self) -> Result<(), String> {
        if self.reader.is_empty() {
            return Err(format!("{} has no reason code", self.kind));
        }
        while !self.reader.is_empty() {
            let code = self.reader.u8().map_err(short)?;
            self.code("codes", code)?;
        }
        Ok(())
    }

    fn code(&mut self, field: &'static str, code: u8) -> Result<(), String> {
        if !allowed(self.kind, self.level).contains(&code) {
            return Err(format!("{} has reason code {code:#04x}", self.kind));
        }
        self.push(field, code.into());
        Ok(())
    }

    fn properties(&mut self) -> Result<(), String> {
        if self.level < 5 {
            return Ok(());
        }
        let length = variable(&mut self.reader)?.ok_or("the property length is missing")?;
        let mut inner = Reader::new(self.reader.take(length as usize).map_err(short)?);
        std::mem::swap(&mut inner, &mut self.reader);
        while !self.reader.is_empty() {
            self.property()?;
        }
        self.reader = inner;
        Ok(())
    }

    fn property(&mut self) -> Result<(), String> {
        let id = self.reader.u8().map_err(short)?;
        let property = property::by_id(id).ok_or_else(|| format!("no property has number {id:#x}"))?;
        if !property.from_server.contains(&self.kind) {
            return Err(format!("{} has property {}", self.kind, property.name));
        }
        let may_repeat = matches!(property.name, "user-property" | "subscription-identifier");
        if !may_repeat && self.fields.iter().any(|(name, _)| *name == property.name) {
            return Err(format!("{} has property {} twice", self.kind, property.name));
        }
        let value = match property.kind {
            Kind::Byte => Value::Number(self.reader.u8().map_err(short)?.into()),
            Kind::Two => Value::Number(self.reader.u16().map_err(short)?.into()),
            Kind::Four => Value::Number(self.reader.u32().map_err(short)?.into()),
            Kind::Variable => Value::Number(variable(&mut self.reader)?.ok_or("a property is cut off")?),
            Kind::Binary => Value::Bytes(self.reader.prefixed16().map_err(short)?.to_vec()),
            Kind::Text => Value::Bytes(self.text()?),
            Kind::Pair => Value::Pair(self.text()?, self.text()?),
        };
        self.fields.push((property.name, value));
        Ok(())
    }

    fn text(&mut self) -> Result<Vec<u8>, String> {
        let bytes = self.reader.prefixed16().map_err(short)?;
        if std::str::from_utf8(bytes).is_err() || bytes.contains(&0) {
            return Err(format!("{} has a text that is not well-formed UTF-8", self.kind));
        }
        Ok(bytes.to_vec())
    }

    fn push(&mut self, field: &'static str, value: u64) {
        self.fields.push((field, Value::Number(value)));
    }
}

/// Reason codes that a server may send, by the tables of MQTT 5.0, 3.x.2; return codes before that.
fn allowed(kind: &str, level: u8) -> &'static [u8] {
    match (kind, level) {
        ("connack", 5) => &[
            0x00, 0x80, 0x81, 0x82, 0x83, 0x84, 0x85, 0x86, 0x87, 0x88, 0x89, 0x8a, 0x8c, 0x90, 0x95, 0x97,
            0x99, 0x9a, 0x9b, 0x9c, 0x9d, 0x9f,
        ],
        ("connack", _) => &[0, 1, 2, 3, 4, 5],
        ("puback" | "pubrec", _) => &[0x00, 0x10, 0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99],
        ("pubrel" | "pubcomp", _) => &[0x00, 0x92],
        ("suback", 5) => &[0, 1, 2, 0x80, 0x83, 0x87, 0x8f, 0x91, 0x97, 0x9e, 0xa1, 0xa2],
        ("suback", _) => &[0, 1, 2, 0x80],
        ("unsuback", _) => &[0x00, 0x11, 0x80, 0x83, 0x87, 0x8f, 0x91],
        ("auth", _) => &[0x00, 0x18],
        ("disconnect", _) => &[
            0x00, 0x80, 0x81, 0x82, 0x83, 0x87, 0x89, 0x8b, 0x8c, 0x8d, 0x8e, 0x8f, 0x90, 0x93, 0x94, 0x95,
            0x96, 0x97, 0x98, 0x99, 0x9a, 0x9b, 0x9c, 0x9d, 0x9e, 0x9f, 0xa0, 0xa1, 0xa2,
        ],
        _ => &[],
    }
}

fn short(error: wire::Short) -> String {
    error.to_string()
}

/// MQTT 5.0, 1.5.5: none while bytes are missing; more bytes than needed are a mistake.
fn variable(reader: &mut Reader<'_>) -> Result<Option<u64>, String> {
    let mut value = 0;
    for at in 0..4 {
        let Ok(byte) = reader.u8() else { return Ok(None) };
        value |= u64::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            let is_minimal = at == 0 || byte != 0;
            return if is_minimal {
                Ok(Some(value))
            } else {
                Err("a variable byte integer is too long".into())
            };
        }
    }
    Err("a variable byte integer has more than four bytes".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_publish_is_read_field_by_field() {
        let packet = decode(b"\x33\x0a\0\x01t\0\x05\x02\x0b\x09xy", 5).unwrap();
        assert_eq!(packet.number("id"), Some(5));
        assert_eq!((packet.number("retain"), packet.number("qos")), (Some(1), Some(1)));
        assert_eq!(packet.number("subscription-identifier"), Some(9));
        assert_eq!(packet.values("payload").next(), Some(&Value::Bytes(b"xy".to_vec())));
    }

    #[test]
    fn what_no_server_may_send_is_a_mistake() {
        let wrong: [(&[u8], u8, &str); 12] = [
            (b"\x20\x02\x02\x00", 4, "reserved connack flag (MQTT-3.2.2-1)"),
            (b"\x20\x02\x01\x05", 4, "session present with a refusal (MQTT-3.2.2-6)"),
            (b"\x20\x03\x00\x8e\x00", 5, "a code of another packet (MQTT-3.2.2-8)"),
            (b"\x90\x03\0\x01\x03", 4, "a reserved suback code (MQTT-3.9.3-2)"),
            (b"\x36\x05\0\x01t\0\x01", 4, "QoS 3 (MQTT-3.3.1-4)"),
            (b"\x38\x03\0\x01t", 4, "DUP with QoS 0 (MQTT-3.3.1-2)"),
            (b"\x30\x03\0\x01#", 4, "a wildcard in a topic name (MQTT-3.3.2-2)"),
            (b"\x30\x04\0\x02\xc3\x28", 4, "ill-formed UTF-8 (MQTT-1.5.4-1)"),
            (b"\x32\x05\0\x01t\0\0", 4, "packet identifier 0 (MQTT-2.2.1-4)"),
            (b"\x60\x02\0\x01", 4, "flags of pubrel (MQTT-3.6.1-1)"),
            (b"\x20\x08\0\0\x05\x11\0\0\0\x01\0", 5, "a length that does not add up"),
            (b"\xe0\x07\x81\x05\x11\0\0\0\x01", 5, "session expiry from the server (MQTT-3.14.2-2)"),
        ];
        for (bytes, level, what) in wrong {
            assert!(decode(bytes, level).is_err(), "{what}");
        }
    }

    #[test]
    fn the_length_is_known_when_the_header_is_there() {
        assert_eq!(length(b""), Ok(None));
        assert_eq!(length(b"\x30\x80"), Ok(None));
        assert_eq!(length(b"\x30\x80\x01"), Ok(Some(131)));
        assert!(length(b"\x30\x80\x00").is_err(), "not minimal (MQTT-1.5.5-1)");
        assert!(length(b"\x30\xff\xff\xff\xff\x01").is_err());
    }
}

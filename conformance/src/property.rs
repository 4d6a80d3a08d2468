//! The properties of MQTT 5.0 (2.2.2.2): number, name as the cases spell it, type, and the packets that may carry it.

/// How a property's value stands on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// One byte.
    Byte,
    /// Two bytes.
    Two,
    /// Four bytes.
    Four,
    /// Variable Byte Integer.
    Variable,
    /// Binary Data.
    Binary,
    /// UTF-8 Encoded String.
    Text,
    /// UTF-8 String Pair, written `key:value` in cases.
    Pair,
}

/// One row of the table.
#[derive(Clone, Copy, Debug)]
pub struct Property {
    /// Property Identifier.
    pub id: u8,
    /// Its name in lower case with dashes.
    pub name: &'static str,
    /// Type of the value.
    pub kind: Kind,
    /// Packets that a server may send it in.
    pub from_server: &'static [&'static str],
}

const ACKS: [&str; 9] =
    ["connack", "puback", "pubrec", "pubrel", "pubcomp", "suback", "unsuback", "disconnect", "auth"];
const USER: [&str; 10] = [
    "connack",
    "publish",
    "puback",
    "pubrec",
    "pubrel",
    "pubcomp",
    "suback",
    "unsuback",
    "disconnect",
    "auth",
];

const fn row(id: u8, name: &'static str, kind: Kind, from_server: &'static [&'static str]) -> Property {
    Property { id, name, kind, from_server }
}

/// MQTT 5.0, table 2-4.
pub const PROPERTIES: [Property; 27] = [
    row(0x01, "payload-format-indicator", Kind::Byte, &["publish"]),
    row(0x02, "message-expiry-interval", Kind::Four, &["publish"]),
    row(0x03, "content-type", Kind::Text, &["publish"]),
    row(0x08, "response-topic", Kind::Text, &["publish"]),
    row(0x09, "correlation-data", Kind::Binary, &["publish"]),
    row(0x0b, "subscription-identifier", Kind::Variable, &["publish"]),
    row(0x11, "session-expiry-interval", Kind::Four, &["connack"]),
    row(0x12, "assigned-client-identifier", Kind::Text, &["connack"]),
    row(0x13, "server-keep-alive", Kind::Two, &["connack"]),
    row(0x15, "authentication-method", Kind::Text, &["connack", "auth"]),
    row(0x16, "authentication-data", Kind::Binary, &["connack", "auth"]),
    row(0x17, "request-problem-information", Kind::Byte, &[]),
    row(0x18, "will-delay-interval", Kind::Four, &[]),
    row(0x19, "request-response-information", Kind::Byte, &[]),
    row(0x1a, "response-information", Kind::Text, &["connack"]),
    row(0x1c, "server-reference", Kind::Text, &["connack", "disconnect"]),
    row(0x1f, "reason-string", Kind::Text, &ACKS),
    row(0x21, "receive-maximum", Kind::Two, &["connack"]),
    row(0x22, "topic-alias-maximum", Kind::Two, &["connack"]),
    row(0x23, "topic-alias", Kind::Two, &["publish"]),
    row(0x24, "maximum-qos", Kind::Byte, &["connack"]),
    row(0x25, "retain-available", Kind::Byte, &["connack"]),
    row(0x26, "user-property", Kind::Pair, &USER),
    row(0x27, "maximum-packet-size", Kind::Four, &["connack"]),
    row(0x28, "wildcard-subscription-available", Kind::Byte, &["connack"]),
    row(0x29, "subscription-identifiers-available", Kind::Byte, &["connack"]),
    row(0x2a, "shared-subscription-available", Kind::Byte, &["connack"]),
];

/// The property with this name.
pub fn by_name(name: &str) -> Option<&'static Property> {
    PROPERTIES.iter().find(|p| p.name == name)
}

/// The property with this identifier.
pub fn by_id(id: u8) -> Option<&'static Property> {
    PROPERTIES.iter().find(|p| p.id == id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_ascend_and_names_differ() {
        assert!(PROPERTIES.windows(2).all(|pair| pair[0].id < pair[1].id));
        assert!(PROPERTIES.iter().all(|p| by_name(p.name).is_some_and(|found| found.id == p.id)));
    }
}

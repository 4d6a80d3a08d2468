//! How a device is known whose language has no login.

use gateway::Facts;
use serde_json::value::RawValue;

/// Longest name of a device in bytes.
const MAX_NAME: usize = 255;

/// Where the name of a device comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Naming {
    /// It says so itself, as its codec reads it.
    Login,
    /// The first frame is the name, and nothing else.
    FirstFrame,
    /// Its IP address.
    Address,
    /// Its IP address and port.
    AddressAndPort,
    /// Common name of its certificate.
    Certificate,
    /// The client of its pre-shared key.
    Psk,
    /// A field of the JSON that its codec makes, by the names of the objects around it and its own.
    Json(Vec<Box<str>>),
}

impl Naming {
    /// As configuration writes it.
    pub fn parse(text: &str) -> Option<Naming> {
        Some(match text {
            "login" => Naming::Login,
            "first-frame" => Naming::FirstFrame,
            "address" => Naming::Address,
            "address-port" => Naming::AddressAndPort,
            "certificate" => Naming::Certificate,
            "psk" => Naming::Psk,
            _ => {
                let path: Vec<Box<str>> = text.strip_prefix("json:")?.split('.').map(Into::into).collect();
                Naming::Json(path).filter_empty()?
            }
        })
    }

    fn filter_empty(self) -> Option<Naming> {
        match &self {
            Naming::Json(path) if path.iter().any(|name| name.is_empty()) => None,
            _ => Some(self),
        }
    }

    /// The name that is known before the device has said anything.
    pub(crate) fn known(&self, facts: &Facts) -> Option<Box<str>> {
        let own = || facts.client_id.as_deref().map(Box::from);
        match self {
            Naming::Address => Some(facts.address.ip().to_string().into()),
            Naming::AddressAndPort => Some(facts.address.to_string().into()),
            Naming::Certificate => own().or_else(|| facts.certificate.as_ref()?.common_name.clone()),
            Naming::Psk => own().or_else(|| facts.psk.as_deref().map(Box::from)),
            Naming::Login | Naming::FirstFrame | Naming::Json(_) => None,
        }
    }

    /// Whether the peer is a device before it has said anything.
    pub(crate) fn is_of_connection(&self) -> bool {
        !matches!(self, Naming::Login | Naming::FirstFrame | Naming::Json(_))
    }

    /// The name in a value that is JSON.
    pub(crate) fn in_json(&self, value: &[u8]) -> Option<Box<str>> {
        let Naming::Json(path) = self else { return None };
        let mut found: &RawValue = serde_json::from_slice(value).ok()?;
        for name in path {
            let mut object: std::collections::HashMap<std::borrow::Cow<'_, str>, &RawValue> =
                serde_json::from_str(found.get()).ok()?;
            found = object.remove(&**name)?;
        }
        match serde_json::from_str(found.get()).ok()? {
            serde_json::Value::String(text) => Some(text.into()),
            number @ serde_json::Value::Number(_) => Some(number.to_string().into()),
            _ => None,
        }
    }
}

/// Whether this can be one level of a topic, and a client id.
pub(crate) fn is_name(text: &str) -> bool {
    let is_bad = |c: char| matches!(c, '/' | '+' | '#') || c.is_control();
    !text.is_empty() && text.len() <= MAX_NAME && !text.starts_with('$') && !text.contains(is_bad)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_of_json_names_the_device() {
        let of = |path: &str, json: &str| Naming::parse(path).unwrap().in_json(json.as_bytes());
        assert_eq!(of("json:id", r#"{"id":"d1","t":1}"#).as_deref(), Some("d1"));
        assert_eq!(of("json:dev.sn", r#"{"dev":{"sn":4711}}"#).as_deref(), Some("4711"));
        assert_eq!(of("json:id", r#"{"id":[1]}"#), None);
        assert_eq!(of("json:id", "not json"), None);
        assert_eq!(of("json:a.b", r#"{"a":1}"#), None);
        assert_eq!(Naming::parse("json:"), None);
        assert_eq!(Naming::parse("json:a..b"), None);
        assert_eq!(Naming::parse("serial"), None);
    }

    #[test]
    fn a_name_is_one_level_of_a_topic() {
        assert!(is_name("860-A:1"));
        for bad in ["", "a/b", "+", "a#", "a\nb", "$SYS", &"x".repeat(256)] {
            assert!(!is_name(bad), "{bad:?}");
        }
    }
}

//! `[mqtt]`: limits and manners of the MQTT gateway. The keys are described in `config.example.toml`.

use std::time::Duration;

use gateway::config::{Kind, Section};

use crate::connect::Version;

/// What happens when a client publishes where it may not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnDeny {
    /// The message is dropped. MQTT 5.0 is told by the acknowledgement; MQTT 3 has no words for it and is acknowledged.
    Ignore,
    /// The connection is closed.
    Disconnect,
}

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Longest wait for CONNECT and for what belongs to it.
    pub connect_timeout: Duration,
    /// Largest packet, in bytes.
    pub max_packet_size: usize,
    /// Most QoS 1 and 2 deliveries in flight to one client.
    pub max_inflight: u16,
    /// Most QoS 1 and 2 messages in flight from one client (Receive Maximum).
    pub receive_maximum: u16,
    /// Topic aliases a client may use, and that are used towards it.
    pub topic_alias_maximum: u16,
    /// Longest keep-alive in seconds; zero leaves it to clients, who may have none.
    pub max_keep_alive: u16,
    /// Longest session expiry.
    pub max_session_expiry: Duration,
    /// Longest client id in bytes.
    pub max_client_id: usize,
    /// Versions served.
    pub versions: Vec<Version>,
    /// See [`OnDeny`].
    pub deny: OnDeny,
    /// Response Information for clients that ask.
    pub response_information: Option<String>,
    /// Send every client to this server instead (Server Reference).
    pub redirect: Option<String>,
    /// Whether the redirection is for good (0x9D) or for now (0x9C).
    pub is_moved: bool,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            connect_timeout: Duration::from_secs(10),
            max_packet_size: 1 << 20,
            max_inflight: 1024,
            receive_maximum: 1024,
            topic_alias_maximum: 16,
            max_keep_alive: 0,
            max_session_expiry: Duration::MAX,
            max_client_id: 512,
            versions: vec![Version::V31, Version::V311, Version::V5],
            deny: OnDeny::Ignore,
            response_information: None,
            redirect: None,
            is_moved: false,
        }
    }
}

impl Config {
    /// Reads the section `[mqtt]` but for its listeners.
    pub fn read(s: &mut Section<'_>) -> Config {
        let d = Config::default();
        let hour = Duration::from_secs(3600);
        Config {
            connect_timeout: s.duration(
                "connect_timeout",
                d.connect_timeout,
                Duration::from_millis(100)..=hour,
            ),
            max_packet_size: s.size("max_packet_size", d.max_packet_size, 128..=268_435_460),
            max_inflight: s.number("max_inflight", d.max_inflight, 1..=u16::MAX),
            receive_maximum: s.number("receive_maximum", d.receive_maximum, 1..=u16::MAX),
            topic_alias_maximum: s.number("topic_alias_maximum", d.topic_alias_maximum, 0..=1024),
            max_keep_alive: s.number("max_keep_alive", d.max_keep_alive, 0..=u16::MAX),
            max_session_expiry: s.duration(
                "max_session_expiry",
                d.max_session_expiry,
                Duration::ZERO..=Duration::MAX,
            ),
            max_client_id: s.number("max_client_id", d.max_client_id as u32, 23..=65_535) as usize,
            versions: s.read("versions", read_versions).unwrap_or(d.versions),
            deny: s.choice("deny", d.deny, &[("ignore", OnDeny::Ignore), ("disconnect", OnDeny::Disconnect)]),
            response_information: s.text("response_information"),
            redirect: s.text("redirect"),
            is_moved: s.flag("redirect_for_good", d.is_moved),
        }
    }
}

fn read_versions(kind: &Kind) -> Result<Vec<Version>, String> {
    let wrong = || "must be a list of versions such as [\"3.1\", \"3.1.1\", \"5.0\"]".to_owned();
    let Kind::List(list) = kind else { return Err(wrong()) };
    let versions: Option<Vec<Version>> = list
        .iter()
        .map(|v| match &v.kind {
            Kind::Text(t) if t == "3.1" => Some(Version::V31),
            Kind::Text(t) if t == "3.1.1" => Some(Version::V311),
            Kind::Text(t) if t == "5.0" => Some(Version::V5),
            _ => None,
        })
        .collect();
    versions.filter(|v| !v.is_empty()).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;
    use gateway::config::{Place, Value};
    use toml::de::{DeTable, DeValue};

    fn value(toml: &DeValue<'_>) -> Value {
        let kind = match toml {
            DeValue::Boolean(b) => Kind::Bool(*b),
            DeValue::Integer(n) => Kind::Integer(n.as_str().parse().unwrap()),
            DeValue::String(t) => Kind::Text(t.to_string()),
            DeValue::Array(list) => Kind::List(list.iter().map(|v| value(v.get_ref())).collect()),
            DeValue::Table(table) => table_of(table),
            other => panic!("{other:?} is no value of ours"),
        };
        Value { kind, place: Place::default() }
    }

    fn table_of(table: &DeTable<'_>) -> Kind {
        Kind::Table(table.iter().map(|(k, v)| (k.get_ref().to_string(), value(v.get_ref()))).collect())
    }

    fn read(text: &str) -> (Config, Vec<String>) {
        let whole = DeTable::parse(text).unwrap();
        let mut mistakes = Vec::new();
        let mut s = Section::new("mqtt", value(whole.get_ref()["mqtt"].get_ref()), &mut mistakes);
        let config = Config::read(&mut s);
        s.finish();
        (config, mistakes.iter().map(ToString::to_string).collect())
    }

    const EXAMPLE: &str = include_str!("../config.example.toml");

    #[test]
    fn the_example_is_what_holds_without_it() {
        assert_eq!(read(EXAMPLE), (Config::default(), Vec::new()));
    }

    #[test]
    fn every_key_of_the_example_can_be_set() {
        let keys = ["max_session_expiry", "response_information", "redirect"];
        let text = keys
            .iter()
            .fold(EXAMPLE.to_owned(), |t, k| t.replace(&format!("\n# {k} ="), &format!("\n{k} =")));
        let (config, mistakes) = read(&text);
        assert_eq!(mistakes, [""; 0]);
        assert_eq!(config.max_session_expiry, Duration::from_secs(7 * 86_400));
        assert_eq!(config.response_information.as_deref(), Some("answers/"));
        assert_eq!(config.redirect.as_deref(), Some("other.example.org:1883"));
    }

    #[test]
    fn a_value_out_of_its_range_is_a_mistake_and_the_default_holds() {
        let (config, mistakes) = read("[mqtt]\nmax_inflight = 0\nversions = []\ndeny = \"close\"\n");
        assert_eq!((config, mistakes.len()), (Config::default(), 3));
    }
}

//! The section `[mqtt_sn]`.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::time::Duration;

use gateway::config::Section;
use gateway::topic::check_name;

use crate::frame;
pub use crate::predefined::Predefined;

/// Who may take a session along to another address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rebind {
    /// Whoever says the client id.
    Any,
    /// From the same host.
    SameIp,
    /// Only who has proven who it is.
    Dtls,
}

/// The topic id in the SUBACK to a short topic name, of which the specification says that it is not relevant (5.4.16).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShortTopicId {
    /// The two letters, with which PUBLISH will come.
    Name,
    /// 0x0000.
    Zero,
}

/// What the section says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// First wait for an answer, and each one after it.
    pub retry_interval: Duration,
    /// How often a message is sent again.
    pub max_retries: u32,
    /// How long a session without CleanSession outlives its client's silence, and most silence of who has no keep alive.
    pub session_expiry: Duration,
    /// A peer that is in the middle of connecting, or only publishes with QoS -1, is forgotten after so long.
    pub idle_timeout: Duration,
    /// Largest message to a client.
    pub max_packet_size: usize,
    /// Most topic ids of a client.
    pub max_topics: usize,
    /// See [`Rebind`].
    pub rebind: Rebind,
    /// See [`ShortTopicId`].
    pub short_topic_id: ShortTopicId,
    /// Whether QoS -1 is taken from who is not connected.
    pub qos_minus_one: bool,
    /// This gateway's number.
    pub gateway_id: u8,
    /// Seconds between two ADVERTISE messages; none is never.
    pub advertise: Option<u16>,
    /// Where they go.
    pub advertise_to: SocketAddr,
    /// What clients that are not proven by DTLS come in with; `%c` is the client id.
    pub credentials: Credentials,
    /// The same for who publishes with QoS -1 without a connection.
    pub anonymous: Credentials,
    /// Topics that both sides know beforehand.
    pub predefined: Predefined,
}

/// A user name and password.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Credentials {
    /// None is nobody.
    pub username: Option<String>,
    /// None is none.
    pub password: Option<String>,
}

const REBIND: &[(&str, Rebind)] =
    &[("any", Rebind::Any), ("same-ip", Rebind::SameIp), ("dtls", Rebind::Dtls)];

const SHORT_TOPIC_ID: &[(&str, ShortTopicId)] = &[("name", ShortTopicId::Name), ("zero", ShortTopicId::Zero)];

impl Default for Config {
    fn default() -> Self {
        Config {
            retry_interval: Duration::from_secs(10),
            max_retries: 3,
            session_expiry: Duration::from_secs(7 * 86_400),
            idle_timeout: Duration::from_secs(60),
            max_packet_size: 1024,
            max_topics: 1000,
            rebind: Rebind::Any,
            short_topic_id: ShortTopicId::Name,
            qos_minus_one: true,
            gateway_id: 1,
            advertise: None,
            advertise_to: SocketAddr::from(([224, 0, 0, 1], 1884)),
            credentials: Credentials::default(),
            anonymous: Credentials::default(),
            predefined: Predefined::default(),
        }
    }
}

impl Config {
    /// Reads the section `[mqtt_sn]` but for its listeners.
    pub fn read(s: &mut Section<'_>) -> Config {
        let d = Config::default();
        let (ms, second, day) =
            (Duration::from_millis(100), Duration::from_secs(1), Duration::from_secs(86_400));
        let config = Config {
            retry_interval: s.duration("retry_interval", d.retry_interval, ms..=300 * second),
            max_retries: s.number("max_retries", d.max_retries, 0..=20),
            session_expiry: s.duration("session_expiry", d.session_expiry, second..=365 * day),
            idle_timeout: s.duration("idle_timeout", d.idle_timeout, second..=day),
            max_packet_size: s.size("max_packet_size", d.max_packet_size, 32..=65_000),
            max_topics: s.number("max_topics", d.max_topics as u32, 1..=65_534) as usize,
            rebind: s.choice("rebind", d.rebind, REBIND),
            short_topic_id: s.choice("short_topic_id", d.short_topic_id, SHORT_TOPIC_ID),
            qos_minus_one: s.flag("qos_minus_one", d.qos_minus_one),
            gateway_id: s.number("gateway_id", d.gateway_id, 0..=255),
            credentials: credentials(s.section("credentials")),
            anonymous: credentials(s.section("qos_minus_one_credentials")),
            predefined: predefined(s, Predefined::default()),
            ..d
        };
        let mut a = s.section("advertise");
        // The message holds its duration in 16 bits (5.4.1).
        let duration = a.duration("duration", Duration::ZERO, Duration::ZERO..=65_535 * second);
        let to = a.parsed("to", "an address such as \"224.0.0.1:1884\"");
        a.finish();
        let advertise = u16::try_from(duration.as_secs()).ok().filter(|n| *n > 0);
        Config { advertise, advertise_to: to.unwrap_or(config.advertise_to), ..config }
    }

    /// The same for one listener: what its section says comes before what is said for all of them.
    pub fn at(&self, s: &mut Section<'_>) -> Config {
        let mut config = self.clone();
        config.rebind = s.choice("rebind", config.rebind, REBIND);
        config.short_topic_id = s.choice("short_topic_id", config.short_topic_id, SHORT_TOPIC_ID);
        config.qos_minus_one = s.flag("qos_minus_one", config.qos_minus_one);
        let (is_said, said) = (s.has("credentials"), credentials(s.section("credentials")));
        if is_said {
            config.credentials = said;
        }
        let key = "qos_minus_one_credentials";
        let (is_said, said) = (s.has(key), credentials(s.section(key)));
        if is_said {
            config.anonymous = said;
        }
        config.predefined = predefined(s, config.predefined);
        config
    }

    /// Whether a client can be sent a REGISTER of this name: the names that are kept of clients have a bound.
    pub(crate) fn can_tell(&self, name: &str) -> bool {
        frame::size(name.len() + 4) <= self.max_packet_size
    }
}

fn credentials(mut s: Section<'_>) -> Credentials {
    let of = Credentials { username: s.text("username"), password: s.text("password") };
    let place = s.place().clone();
    match (&of.username, &of.password) {
        (Some(_), None) => s.mistake(place, "password", "is missing: the password of `username`"),
        (None, Some(_)) => s.mistake(place, "username", "is missing: whose `password` it is"),
        _ => {}
    }
    s.finish();
    of
}

/// Adds what `[[predefined]]` says to what is known; an id that is known already is another topic's from now on.
fn predefined(s: &mut Section<'_>, mut all: Predefined) -> Predefined {
    let mut said = HashSet::new();
    s.list("predefined", |mut s| {
        let place = s.place().clone();
        // 0x0000 and 0xFFFF are reserved (5.3.11).
        let has_id = s.has("id");
        let id = s.number("id", 0, 1..=65_534);
        let (topic, client) = (s.text("topic").unwrap_or_default(), s.text("client").unwrap_or_default());
        if !has_id {
            s.mistake(place.clone(), "id", "is missing: a number from 1 to 65534");
        } else if id > 0 && !said.insert((client.clone(), id)) {
            s.mistake(place.clone(), "id", format!("{id} has a topic already"));
        }
        if check_name(&topic).is_err() {
            s.mistake(place, "topic", "is missing, or no topic such as \"plant/temperature\"");
        }
        s.finish();
        if id > 0 {
            all.put(&client, id, &topic);
        }
    });
    all
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use gateway::config::{Kind, Place, Value};

    use super::*;

    fn value(kind: Kind) -> Value {
        Value { kind, place: Place::default() }
    }

    fn text(text: &str) -> Value {
        value(Kind::Text(text.into()))
    }

    fn section<const N: usize>(entries: [(&str, Value); N]) -> Value {
        let entries: BTreeMap<_, _> = entries.into_iter().map(|(k, v)| (k.to_owned(), v)).collect();
        value(Kind::Table(entries))
    }

    fn topic(id: i64, name: &str, client: &str) -> Value {
        section([("id", value(Kind::Integer(id))), ("topic", text(name)), ("client", text(client))])
    }

    fn read<T>(value: Value, read: impl FnOnce(&mut Section<'_>) -> T) -> (T, Vec<String>) {
        let mut mistakes = Vec::new();
        let mut section = Section::new("mqtt_sn", value, &mut mistakes);
        let found = read(&mut section);
        section.finish();
        (found, mistakes.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn what_a_listener_says_comes_before_what_is_said_for_all_of_them() {
        let list = value(Kind::List(vec![topic(1, "all/1", ""), topic(2, "all/2", "")]));
        let user = section([("username", text("sensors")), ("password", text("secret"))]);
        let (all, mistakes) = read(section([("predefined", list), ("credentials", user)]), Config::read);
        assert_eq!(mistakes, [""; 0]);
        let (same, _) = read(section([]), |s| all.at(s));
        assert_eq!(same, all);
        let list = value(Kind::List(vec![topic(2, "here/2", ""), topic(3, "here/3", "a")]));
        let said = section([
            ("predefined", list),
            ("credentials", section([("username", text("%c")), ("password", text("own"))])),
            (
                "qos_minus_one_credentials",
                section([("username", text("beacons")), ("password", text("own"))]),
            ),
            ("qos_minus_one", value(Kind::Bool(false))),
            ("rebind", text("dtls")),
            ("short_topic_id", text("zero")),
        ]);
        let (here, mistakes) = read(said, |s| all.at(s));
        assert_eq!(mistakes, [""; 0]);
        let named = |name: &str| Credentials { username: Some(name.into()), password: Some("own".into()) };
        assert_eq!((&here.credentials, &here.anonymous), (&named("%c"), &named("beacons")));
        assert_eq!((here.qos_minus_one, here.rebind), (false, Rebind::Dtls));
        assert_eq!(here.short_topic_id, ShortTopicId::Zero);
        let names = [1, 2, 3].map(|id| here.predefined.name("a", id));
        assert_eq!(names, [Some("all/1"), Some("here/2"), Some("here/3")]);
        assert_eq!(all.predefined.name("a", 2), Some("all/2"), "elsewhere it is as it was");
    }

    #[test]
    fn credentials_are_a_name_and_a_password() {
        for (key, missing) in [("username", "password"), ("password", "username")] {
            let half = section([("credentials", section([(key, text("x"))]))]);
            let (_, mistakes) = read(half, Config::read);
            assert!(
                mistakes[0].contains(&format!("mqtt_sn.credentials.{missing}: is missing")),
                "{mistakes:?}"
            );
        }
    }

    #[test]
    fn the_duration_of_advertise_fits_its_16_bits() {
        for (said, kept) in [("0 s", None), ("1 s", Some(1)), ("65535 s", Some(u16::MAX)), ("65536 s", None)]
        {
            let advertise = section([("duration", text(said))]);
            let (config, mistakes) = read(section([("advertise", advertise)]), Config::read);
            assert_eq!((config.advertise, mistakes.len()), (kept, usize::from(said == "65536 s")), "{said}");
        }
    }

    #[test]
    fn mistakes_in_predefined_topics_are_told_by_their_place() {
        let list = [
            topic(1, "a", ""),
            topic(1, "b", ""),
            topic(1, "c", "x"),
            topic(0, "d", ""),
            topic(2, "a/#", ""),
        ];
        let (_, mistakes) = read(section([("predefined", value(Kind::List(list.into())))]), Config::read);
        assert_eq!(mistakes.len(), 3, "{mistakes:?}");
        assert!(mistakes[0].contains("predefined[1].id: 1 has a topic already"), "{mistakes:?}");
        assert!(mistakes[1].contains("predefined[3].id: must be a whole number"), "{mistakes:?}");
        assert!(mistakes[2].contains("predefined[4].topic: is missing, or no topic"), "{mistakes:?}");
    }
}

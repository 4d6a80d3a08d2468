//! `$SYS/brokers/{node}/…`: who the node is, its figures, and who comes and goes.
//!
//! | topic below the node's | payload |
//! |---|---|
//! | `version`, `sysdescr`, `uptime` (seconds), `datetime` (RFC 3339) | text |
//! | `stats/…`, `metrics/…` | a number as text |
//! | `store/state` | `ok`, or `failing` while the store cannot write; told when it changes |
//! | `clients/{clientid}/connected`, `clients/{clientid}/disconnected` | JSON; not retained |

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use gateway::time::datetime;
use gateway::{Close, Message, Now};
use serde_json::json;

use crate::house::House;
use crate::metrics::{Snapshot, StoreState};

/// A client that comes or goes.
#[derive(Clone, Copy, Debug)]
pub struct Who<'a> {
    /// Client id.
    pub client_id: &'a str,
    /// User name.
    pub username: Option<&'a str>,
    /// Protocol and version, such as `MQTT 5.0`.
    pub protocol: &'a str,
    /// The client's address.
    pub address: SocketAddr,
}

/// A client came in.
pub fn connected(now: Now, node: &str, who: &Who<'_>, keep_alive: u16) -> Message {
    let body = json!({
        "clientid": who.client_id,
        "username": who.username,
        "protocol": who.protocol,
        "address": who.address.to_string(),
        "keepalive": keep_alive,
        "ts": now.wall_ms,
    });
    presence(now, node, who, "connected", &body)
}

/// A client has gone.
pub fn disconnected(now: Now, node: &str, who: &Who<'_>, why: Close) -> Message {
    let body = json!({
        "clientid": who.client_id,
        "username": who.username,
        "protocol": who.protocol,
        "address": who.address.to_string(),
        "reason": why.label(),
        "ts": now.wall_ms,
    });
    presence(now, node, who, "disconnected", &body)
}

fn presence(now: Now, node: &str, who: &Who<'_>, event: &str, body: &serde_json::Value) -> Message {
    let head = format!("$SYS/brokers/{node}/clients/");
    let escaped = escape(who.client_id);
    // No topic is longer than 65,535 bytes (MQTT 5.0, 1.5.4); a client id that is nearly as long loses its end here, not
    // in the body.
    let room = usize::from(u16::MAX).saturating_sub(head.len() + 1 + event.len());
    let topic = format!("{head}{}/{event}", &escaped[..escaped.floor_char_boundary(room)]);
    Message::new(now, &topic, body.to_string().as_bytes())
}

/// A client id as one level of a topic: what would end the level or be a wildcard is percent-escaped, and `%` too, so
/// that two ids never look alike.
pub fn escape(client_id: &str) -> String {
    let mut escaped = String::with_capacity(client_id.len());
    for c in client_id.chars() {
        match c {
            '/' => escaped.push_str("%2F"),
            '+' => escaped.push_str("%2B"),
            '#' => escaped.push_str("%23"),
            '%' => escaped.push_str("%25"),
            c => escaped.push(c),
        }
    }
    escaped
}

/// Publishes all figures, now and at every interval, until the task is ended.
pub async fn publish_every(house: Arc<House>, interval: Duration) {
    let mut ticks = tokio::time::interval(interval);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let snapshot = Snapshot::take(&house);
        for message in messages(house.clock.now(), &house.node, &snapshot) {
            house.publish(message);
        }
    }
}

/// One message a figure. They are retained: who subscribes sees the last round at once.
pub fn messages(now: Now, node: &str, s: &Snapshot) -> Vec<Message> {
    let mut topics: Vec<(String, String)> = vec![
        ("version".into(), env!("CARGO_PKG_VERSION").into()),
        ("sysdescr".into(), "Tidegate IoT gateway".into()),
        ("uptime".into(), s.uptime.to_string()),
        ("datetime".into(), datetime(now.wall_ms)),
    ];
    if let Some(store) = &s.store {
        topics.push(("store/state".into(), store_word(store.is_working).into()));
    }
    let mut number = |topic: String, value: u64| topics.push((topic, value.to_string()));
    let r = &s.router;
    number("stats/connections/count".into(), s.open.iter().map(|(_, _, n)| n).sum());
    number("stats/clients/count".into(), s.clients());
    number("stats/sessions/count".into(), r.sessions as u64);
    number("stats/subscriptions/count".into(), r.subscriptions as u64);
    number("stats/subscriptions/shared/count".into(), r.shared as u64);
    number("stats/topics/count".into(), r.filters as u64);
    number("stats/retained/count".into(), r.retained as u64);
    number("stats/retained/bytes".into(), r.retained_bytes as u64);
    number("stats/delayed/count".into(), r.delayed as u64);
    number("stats/delayed/bytes".into(), r.delayed_bytes as u64);
    number("metrics/bytes/received".into(), s.bytes_in);
    number("metrics/bytes/sent".into(), s.bytes_out);
    number("metrics/messages/received".into(), s.received.iter().sum());
    number("metrics/messages/sent".into(), s.sent.iter().sum());
    for qos in 0..3 {
        number(format!("metrics/messages/qos{qos}/received"), s.received[qos]);
        number(format!("metrics/messages/qos{qos}/sent"), s.sent[qos]);
    }
    number("metrics/connections/accepted".into(), s.accepted);
    number("metrics/connections/accept_errors".into(), s.accept_failed);
    number("metrics/clients/connected".into(), s.connected);
    number("metrics/clients/disconnected".into(), s.disconnected);
    number("metrics/clients/rested".into(), s.rested);
    for (what, counts) in [("drops", &s.dropped), ("closes", &s.closed), ("login_refusals", &s.refused)] {
        number(format!("metrics/{what}/count"), counts.iter().map(|(_, n)| n).sum());
        for (reason, n) in counts {
            number(format!("metrics/{what}/reason/{reason}"), *n);
        }
    }
    if let Some(StoreState { figures, .. }) = &s.store {
        number("stats/store/messages/count".into(), figures.messages);
        number("stats/store/messages/bytes".into(), figures.bytes);
        number("metrics/store/commits".into(), figures.commits);
        number("metrics/store/records".into(), figures.records);
        number("metrics/store/failures".into(), figures.failures);
    }
    topics.into_iter().map(|(topic, text)| own(now, node, &topic, &text)).collect()
}

/// The store has begun, or ceased, to fail.
pub fn store_state(now: Now, node: &str, is_working: bool) -> Message {
    own(now, node, "store/state", store_word(is_working))
}

fn store_word(is_working: bool) -> &'static str {
    if is_working { "ok" } else { "failing" }
}

fn own(now: Now, node: &str, topic: &str, text: &str) -> Message {
    Message::new(now, &format!("$SYS/brokers/{node}/{topic}"), text.as_bytes()).with_retain(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn who(client_id: &str) -> Who<'_> {
        Who { client_id, username: Some("ann"), protocol: "MQTT 5.0", address: "[::1]:99".parse().unwrap() }
    }

    #[test]
    fn presence_says_who_why_and_when() {
        let now = Now { wall_ms: 1234, ..Now::default() };
        let m = connected(now, "n1", &who("dev"), 60);
        assert_eq!(m.topic(), "$SYS/brokers/n1/clients/dev/connected");
        let body: serde_json::Value = serde_json::from_slice(m.payload()).unwrap();
        let expected = json!({"clientid": "dev", "username": "ann", "protocol": "MQTT 5.0", "address": "[::1]:99",
            "keepalive": 60, "ts": 1234});
        assert_eq!(body, expected);
        let m = disconnected(now, "n1", &who("dev"), Close::KeepAlive);
        assert_eq!(m.topic(), "$SYS/brokers/n1/clients/dev/disconnected");
        let body: serde_json::Value = serde_json::from_slice(m.payload()).unwrap();
        assert_eq!((&body["reason"], &body["ts"]), (&json!("keep_alive"), &json!(1234)));
        assert!(!m.retain());
    }

    #[test]
    fn any_client_id_is_one_level_and_two_never_look_alike() {
        let ids = ["a/b", "a%2Fb", "+", "#", "%", "ü", "a b"];
        let escaped: Vec<String> = ids.iter().map(|id| escape(id)).collect();
        assert_eq!(escaped, ["a%2Fb", "a%252Fb", "%2B", "%23", "%25", "ü", "a b"]);
        for id in ids {
            let message = connected(Now::default(), "n", &who(id), 0);
            assert!(gateway::topic::check_name(message.topic()).is_ok());
            assert_eq!(message.topic().split('/').count(), 6);
        }
    }

    #[test]
    fn a_client_id_of_full_length_makes_no_topic_that_is_too_long() {
        let message = connected(Now::default(), "n", &who(&"/ü".repeat(20_000)), 0);
        assert!(message.topic().len() <= 65_535 && message.topic().ends_with("/connected"));
        assert!(gateway::topic::check_name(message.topic()).is_ok());
    }

    #[test]
    fn figures_are_retained_under_the_nodes_topic_each_once() {
        let s = Snapshot { uptime: 5, received: [1, 2, 3], dropped: vec![("acl", 4)], ..Snapshot::default() };
        let all = messages(Now::default(), "n", &s);
        let value = |topic: &str| {
            let mut found = all.iter().filter(|m| m.topic() == format!("$SYS/brokers/n/{topic}"));
            let message = found.next().unwrap();
            assert!(found.next().is_none() && message.retain());
            String::from_utf8(message.payload().to_vec()).unwrap()
        };
        assert_eq!(value("uptime"), "5");
        assert_eq!(value("datetime"), "1970-01-01T00:00:00Z");
        assert_eq!(value("metrics/messages/received"), "6");
        assert_eq!(value("metrics/messages/qos2/received"), "3");
        assert_eq!(value("metrics/drops/reason/acl"), "4");
        assert_eq!(value("version"), env!("CARGO_PKG_VERSION"));
    }
}

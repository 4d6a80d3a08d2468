//! From a request's options to what is asked for: the resources `/ps`, `/mqtt` and `/.well-known/core`.

use std::time::Duration;

use gateway::topic::{check_filter, check_name};
use gateway::{Filter, Qos};

use crate::block::Block;
use crate::frame::{Code, Kind, Message};
use crate::options::{self, BLOCK2, URI_PATH, URI_QUERY};

/// Who a request says it is from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Identity {
    /// `c`, `clientid`.
    pub(crate) client_id: Option<String>,
    /// `u`, `username`.
    pub(crate) username: Option<String>,
    /// `p`, `password`.
    pub(crate) password: Option<String>,
    /// `t`, `token`.
    pub(crate) token: Option<String>,
}

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    /// Publish the payload; an empty one with `retain` clears (DELETE).
    Publish { topic: String, qos: Qos, retain: bool, expiry: Option<Duration>, is_delete: bool },
    /// The retained value.
    Read { topic: String },
    /// Observe 0.
    Observe { filter: Filter, qos: Qos, no_local: bool, wants_retained: bool },
    /// Observe 1.
    Cancel { topic: String },
    /// Open a named session.
    Connect { keep_alive: Duration },
    /// Keep it.
    Heartbeat,
    /// Close it.
    Disconnect,
    /// `/.well-known/core`, with the query's name and value.
    Discover { query: Option<(String, String)> },
}

impl Operation {
    /// Whether it does nothing that somebody else at the client's address could not do as well: reading what is served,
    /// and ending an observation, for which a Reset is enough.
    pub(crate) fn is_harmless(&self) -> bool {
        matches!(self, Operation::Discover { .. } | Operation::Cancel { .. })
    }
}

/// A refusal with its words.
pub(crate) type Refused = (Code, &'static str);

/// Reads a request whose options were checked.
pub(crate) fn read(
    request: &Message,
    default_keep_alive: Duration,
) -> Result<(Operation, Identity), Refused> {
    let path = texts(request, URI_PATH)?;
    if path.iter().any(|p| p.contains('/')) {
        return Err((Code::BAD_REQUEST, "a path option holds a slash"));
    }
    let query = texts(request, URI_QUERY)?;
    let query: Vec<(&str, &str)> = query.iter().map(|q| q.split_once('=').unwrap_or((*q, ""))).collect();
    let path: Vec<&str> = path.iter().map(|p| &**p).collect();
    match path.as_slice() {
        [".well-known", "core"] if request.code == Code::GET => {
            let query = query.first().map(|(n, v)| ((*n).to_owned(), (*v).to_owned()));
            Ok((Operation::Discover { query }, Identity::default()))
        }
        [".well-known", "core"] => Err((Code::METHOD_NOT_ALLOWED, "only GET")),
        ["mqtt", "connection"] => connection(request, &query, default_keep_alive),
        ["ps" | "mqtt", topic @ ..] => topics(request, &topic.join("/"), topic.is_empty(), &query),
        _ => Err((Code::NOT_FOUND, "no such resource")),
    }
}

fn texts(request: &Message, number: u16) -> Result<Vec<&str>, Refused> {
    request
        .all(number)
        .map(|v| std::str::from_utf8(v).map_err(|_| (Code::BAD_REQUEST, "an option is not UTF-8")))
        .collect()
}

fn identity(name: &str, value: &str, into: &mut Identity) -> bool {
    let place = match name {
        "c" | "clientid" => &mut into.client_id,
        "u" | "username" => &mut into.username,
        "p" | "password" => &mut into.password,
        "t" | "token" => &mut into.token,
        _ => return false,
    };
    *place = Some(value.to_owned());
    true
}

fn connection(
    request: &Message,
    query: &[(&str, &str)],
    default_keep_alive: Duration,
) -> Result<(Operation, Identity), Refused> {
    let (mut who, mut keep_alive) = (Identity::default(), default_keep_alive);
    for (name, value) in query {
        if identity(name, value, &mut who) {
            continue;
        }
        match (*name, value.parse::<u16>()) {
            ("keepalive", Ok(seconds)) if seconds > 0 => keep_alive = Duration::from_secs(seconds.into()),
            _ => return Err((Code::BAD_REQUEST, "bad query")),
        }
    }
    if who.client_id.as_deref().is_none_or(str::is_empty) {
        return Err((Code::BAD_REQUEST, "clientid is missing"));
    }
    let needs_token =
        || if who.token.is_some() { Ok(()) } else { Err((Code::UNAUTHORIZED, "token is missing")) };
    let operation = match request.code {
        Code::POST => Operation::Connect { keep_alive },
        Code::PUT => {
            needs_token()?;
            Operation::Heartbeat
        }
        Code::DELETE => {
            needs_token()?;
            Operation::Disconnect
        }
        _ => return Err((Code::METHOD_NOT_ALLOWED, "POST, PUT or DELETE")),
    };
    Ok((operation, who))
}

fn topics(
    request: &Message,
    topic: &str,
    is_none: bool,
    query: &[(&str, &str)],
) -> Result<(Operation, Identity), Refused> {
    // Without a word, a Confirmable request is QoS 1.
    let mut qos = if request.kind == Kind::Con { Qos::AtLeastOnce } else { Qos::AtMostOnce };
    let (mut who, mut retain, mut expiry) = (Identity::default(), false, None);
    let (mut no_local, mut wants_retained) = (false, true);
    for (name, value) in query {
        if identity(name, value, &mut who) {
            continue;
        }
        let is_right = match *name {
            "q" | "qos" => value.parse().ok().and_then(Qos::from_u8).map(|q| qos = q).is_some(),
            "r" | "retain" => flag(value).map(|f| retain = f).is_some(),
            "expiry" => {
                value.parse().ok().map(|s: u32| expiry = Some(Duration::from_secs(s.into()))).is_some()
            }
            "nl" => flag(value).map(|f| no_local = f).is_some(),
            "rh" => {
                matches!(*value, "0" | "1" | "2") && {
                    wants_retained = *value != "2";
                    true
                }
            }
            _ => false,
        };
        if !is_right {
            return Err((Code::BAD_REQUEST, "bad query"));
        }
    }
    if is_none {
        return Err((Code::BAD_REQUEST, "no topic"));
    }
    let is_part = Block::of(request, BLOCK2).is_some_and(|b| b.number > 0);
    let named = || check_name(topic).map_err(|_| (Code::BAD_REQUEST, "this is no topic name"));
    let operation = match (request.code, options::observe(request)) {
        (Code::PUT | Code::POST, _) => {
            named()?;
            Operation::Publish { topic: topic.to_owned(), qos, retain, expiry, is_delete: false }
        }
        (Code::DELETE, _) => {
            named()?;
            Operation::Publish { topic: topic.to_owned(), qos, retain: true, expiry: None, is_delete: true }
        }
        // Only the first part belongs to an observation (RFC 7959, 2.6), and only that of a filter has no topic's name.
        (Code::GET, observe) if is_part && observe != Some(1) => {
            check_filter(topic).map_err(|_| (Code::BAD_REQUEST, "this is no topic filter"))?;
            Operation::Read { topic: topic.to_owned() }
        }
        (Code::GET, Some(0)) => {
            let filter = Filter::parse(topic).map_err(|_| (Code::BAD_REQUEST, "this is no topic filter"))?;
            Operation::Observe { filter, qos, no_local, wants_retained }
        }
        (Code::GET, Some(1)) => {
            check_filter(topic).map_err(|_| (Code::BAD_REQUEST, "this is no topic filter"))?;
            Operation::Cancel { topic: topic.to_owned() }
        }
        (Code::GET, _) => {
            named()?;
            Operation::Read { topic: topic.to_owned() }
        }
        _ => return Err((Code::METHOD_NOT_ALLOWED, "GET, PUT, POST or DELETE")),
    };
    Ok((operation, who))
}

fn flag(value: &str) -> Option<bool> {
    match value {
        "" | "1" | "true" => Some(true),
        "0" | "false" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(code: Code, path: &[&str], query: &[&str]) -> Message {
        let mut m = Message { code, ..Message::empty(Kind::Con, 1) };
        path.iter().for_each(|p| m.add(URI_PATH, p.as_bytes()));
        query.iter().for_each(|q| m.add(URI_QUERY, q.as_bytes()));
        m
    }

    fn run(m: &Message) -> Result<Operation, Code> {
        read(m, Duration::from_secs(60)).map(|(o, _)| o).map_err(|(c, _)| c)
    }

    #[test]
    fn a_put_publishes_with_what_its_query_says() {
        let m = request(Code::PUT, &["ps", "a", "b"], &["qos=2", "retain", "expiry=9"]);
        let expiry = Some(Duration::from_secs(9));
        let topic = "a/b".to_owned();
        assert_eq!(
            run(&m),
            Ok(Operation::Publish { topic, qos: Qos::ExactlyOnce, retain: true, expiry, is_delete: false })
        );
    }

    #[test]
    fn empty_levels_are_levels() {
        let m = request(Code::GET, &["ps", "", "a", "", "b", ""], &[]);
        assert_eq!(run(&m), Ok(Operation::Read { topic: "/a//b/".to_owned() }));
    }

    #[test]
    fn what_cannot_be_is_refused_with_its_code() {
        for (m, code) in [
            (request(Code::PUT, &["ps"], &[]), Code::BAD_REQUEST),
            (request(Code::PUT, &["ps", "+"], &[]), Code::BAD_REQUEST),
            (request(Code::GET, &["ps", "+"], &[]), Code::BAD_REQUEST),
            (request(Code::PUT, &["ps", "a/b"], &[]), Code::BAD_REQUEST),
            (request(Code::PUT, &["ps", "a"], &["qos=3"]), Code::BAD_REQUEST),
            (request(Code::PUT, &["ps", "a"], &["colour=red"]), Code::BAD_REQUEST),
            (request(Code(5), &["ps", "a"], &[]), Code::METHOD_NOT_ALLOWED),
            (request(Code::GET, &["nothing"], &[]), Code::NOT_FOUND),
            (request(Code::POST, &["mqtt", "connection"], &[]), Code::BAD_REQUEST),
            (request(Code::PUT, &["mqtt", "connection"], &["c=a"]), Code::UNAUTHORIZED),
        ] {
            assert_eq!(run(&m), Err(code), "{m:?}");
        }
    }
}

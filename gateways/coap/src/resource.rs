//! Operations on topics, and how the router's answers become responses.

use std::fmt::Write;
use std::time::Duration;

use bytes::Bytes;
use gateway::topic::check_name;
use gateway::{
    Action, Answer, Disconnect, Filter, Message as Published, Now, Outbox, Peer, Properties, Publish, Refusal,
};

use crate::block::Block;
use crate::blockwise::{Resource, etag, payload};
use crate::conversation::{Phase, Step};
use crate::frame::{Code, Message};
use crate::kept::hex;
use crate::options::{ACCEPT, BLOCK2, CONTENT_FORMAT, ETAG, MAX_AGE, content_format, content_type};
use crate::request::{Identity, Operation};
use crate::{Coap, Response, code};

impl Coap {
    /// Carries out an operation in the peer's session.
    pub(crate) fn perform(
        &mut self,
        now: Now,
        peer: Peer,
        mut request: Message,
        operation: Operation,
        out: &mut Outbox,
    ) {
        let id = request.id;
        match operation {
            Operation::Publish { topic, qos, retain, expiry, is_delete } => {
                let body = if is_delete { Ok(Bytes::new()) } else { self.body(now, peer, &mut request) };
                let body = match body {
                    Ok(body) => body,
                    Err(response) => return self.answer(now, peer, id, response, out),
                };
                let format = request.uint(CONTENT_FORMAT).and_then(|f| u16::try_from(f).ok());
                let properties = Properties {
                    content_type: format.map(|f| content_type(f).into()),
                    ..Properties::default()
                };
                let message = Published::from_slice(now, &topic, body)
                    .with_qos(qos)
                    .with_retain(retain)
                    .with_expiry(expiry)
                    .with_properties(properties);
                let ticket = self.ticket(peer, id, Step::Publish { is_delete });
                out.act(Action::Publish(peer, Publish { message, ticket: Some(ticket), once: None }));
            }
            Operation::Read { topic } => self.read(now, peer, &request, topic, out),
            Operation::Observe { filter, qos, no_local, wants_retained } => {
                self.observe(now, peer, &request, filter, qos, (no_local, wants_retained), out);
            }
            Operation::Cancel { topic } => {
                self.cancel(peer, request.token, out);
                // Answered as a plain GET (RFC 7641, 3.6); a filter has no value of its own.
                if check_name(&topic).is_ok() {
                    self.read(now, peer, &request, topic, out);
                } else {
                    self.answer(now, peer, id, Response::new(Code::NOT_FOUND), out);
                }
            }
            Operation::Heartbeat => self.answer(now, peer, id, Response::new(Code::CHANGED), out),
            Operation::Disconnect => {
                let expiry = Some(Duration::ZERO);
                out.act(Action::Disconnect(peer, Disconnect { with_will: false, expiry }));
                self.end_observations(peer, Code::UNAUTHORIZED, out);
                self.forget_name(peer);
                if let Some(c) = self.peers.get_mut(&peer) {
                    c.phase = Phase::Without;
                    c.token = None;
                    c.who = Identity::default();
                    c.is_kept = false;
                }
                self.answer(now, peer, id, Response::new(Code::DELETED), out);
            }
            Operation::Discover { query } => {
                let links = Resource::Links(query.clone());
                if let Some(response) = self.later_part(now, peer, &request, &links, out) {
                    return self.answer(now, peer, id, response, out);
                }
                let limit = self.config.max_discovered;
                let Ok(everything) = Filter::parse("#") else { return };
                let ticket = self.ticket(peer, id, Step::Discover { query });
                out.act(Action::Retained(peer, ticket, everything, limit));
            }
            // Its session is open by its credential. What it is given opens that one over other transports too, if the
            // credential is that of a user.
            Operation::Connect { .. } => match self.random::<16>() {
                Some(token) => self.keep_token(peer, id, &hex(&token), out),
                None => self.answer(now, peer, id, Response::new(Code::UNAVAILABLE), out),
            },
        }
    }

    fn read(&mut self, now: Now, peer: Peer, request: &Message, topic: String, out: &mut Outbox) {
        let (id, accept) = (request.id, request.uint(ACCEPT));
        let resource = Resource::Topic(topic);
        if let Some(response) = self.later_part(now, peer, request, &resource, out) {
            return self.answer(now, peer, id, response, out);
        }
        let Resource::Topic(topic) = resource else { return };
        let Some(filter) = Filter::parse(&topic).ok().filter(|_| check_name(&topic).is_ok()) else {
            let response = Response::error(Code::BAD_REQUEST, "this is no topic name");
            return self.answer(now, peer, id, response, out);
        };
        // Parts are told apart by the tag, they are not validated with it.
        let is_part = Block::of(request, BLOCK2).is_some_and(|b| b.number > 0);
        let etags = request.all(ETAG).filter(|_| !is_part).map(<[u8]>::to_vec).collect();
        let ticket = self.ticket(peer, id, Step::Read { topic, accept, etags });
        out.act(Action::Retained(peer, ticket, filter, 1));
    }

    /// The answer of the driver to a step.
    pub(crate) fn answered(
        &mut self,
        now: Now,
        peer: Peer,
        id: u16,
        step: Step,
        answer: Answer,
        out: &mut Outbox,
    ) {
        let response = match (step, answer) {
            (Step::Publish { is_delete }, Answer::Published(_)) => {
                Response::new(if is_delete { Code::DELETED } else { Code::CHANGED })
            }
            (Step::Read { topic, accept, etags }, Answer::Retained(found)) => {
                let mut response = self.value(now, found.first(), accept);
                response.resource = Some(Resource::Topic(topic));
                if_changed(response, &etags)
            }
            (Step::Subscribe { token }, Answer::Subscribed(results)) => {
                return self.subscribed(now, peer, id, token, results.first().copied(), out);
            }
            (Step::First { token, is_wanted }, Answer::Retained(found)) => {
                return self.first(now, peer, id, token, if is_wanted { &found } else { &[] }, out);
            }
            (Step::Discover { query }, Answer::Retained(found)) => {
                self.links(found.iter().map(|(topic, m)| (&**topic, m)), query.as_ref())
            }
            (Step::Token(token), Answer::Saved) => {
                Response { payload: token.into(), ..Response::new(Code::CREATED) }
            }
            (Step::Nothing, _) => return,
            (_, Answer::Refused(why)) => {
                // It ended with the login that was to replace it, which the store could not keep: the next request opens one.
                if let Some(c) = self.peers.get_mut(&peer).filter(|_| why == Refusal::NoSession) {
                    c.phase = if c.phase == Phase::Open { Phase::Without } else { c.phase };
                }
                Response::error(code(why), "refused")
            }
            _ => Response::new(Code::INTERNAL),
        };
        self.answer(now, peer, id, response, out);
    }

    /// A value as a response, if there is one, it fits, and its format is acceptable.
    pub(crate) fn value(
        &self,
        now: Now,
        found: Option<&(Box<str>, Published)>,
        accept: Option<u32>,
    ) -> Response {
        let Some((_, message)) = found else { return Response::new(Code::NOT_FOUND) };
        let format = format_of(message);
        if let (Some(accept), Some(format)) = (accept, format)
            && accept != u32::from(format)
        {
            return Response::new(Code::NOT_ACCEPTABLE);
        }
        if message.payload().len() > self.config.max_body_size {
            return Response::error(Code::NOT_IMPLEMENTED, "the value is too large");
        }
        let mut response = represent(now, message);
        response.options.push((ETAG, etag(&response)));
        response
    }

    /// `/.well-known/core` (RFC 6690).
    pub(crate) fn links<'a>(
        &self,
        topics: impl Iterator<Item = (&'a str, &'a Published)>,
        query: Option<&(String, String)>,
    ) -> Response {
        let mut links = vec![
            ("</ps>".to_owned(), "rt=\"core.ps\";ct=40".to_owned()),
            ("</mqtt/connection>".to_owned(), "rt=\"tidegate.connection\"".to_owned()),
        ];
        for (topic, message) in topics {
            let format = format_of(message).map(|f| format!("ct={f};")).unwrap_or_default();
            links.push((format!("</ps/{}>", escape(topic)), format!("{format}rt=\"tidegate.topic\";obs")));
        }
        let mut text = String::new();
        for (target, attributes) in links.iter().filter(|(t, a)| query.is_none_or(|q| is_asked_for(t, a, q)))
        {
            let comma = if text.is_empty() { "" } else { "," };
            // Writing to a String cannot fail.
            let _ = write!(text, "{comma}{target};{attributes}");
        }
        let options = vec![(CONTENT_FORMAT, vec![40])];
        let resource = Some(Resource::Links(query.cloned()));
        Response { code: Code::CONTENT, options, payload: text.into(), resource }
    }
}

/// 2.03 in place of a value that the client has (RFC 7252, 5.10.6.2).
fn if_changed(response: Response, etags: &[Vec<u8>]) -> Response {
    let tag = response.options.iter().find(|(number, tag)| *number == ETAG && etags.contains(tag));
    match tag.cloned() {
        Some(tag) => Response { options: vec![tag], ..Response::new(Code::VALID) },
        None => response,
    }
}

/// A value, whole.
pub(crate) fn represent(now: Now, message: &Published) -> Response {
    let options = value_options(now, message);
    Response { options, payload: payload(message), ..Response::new(Code::CONTENT) }
}

/// Options that go with a value.
pub(crate) fn value_options(now: Now, message: &Published) -> Vec<(u16, Vec<u8>)> {
    let mut options = Vec::new();
    if let Some(format) = format_of(message) {
        options.push((CONTENT_FORMAT, uint(format.into())));
    }
    if let Some(left) = message.remaining(now.instant) {
        options.push((MAX_AGE, uint(u32::try_from(left.as_secs()).unwrap_or(u32::MAX))));
    }
    options
}

/// A number in as few bytes as it needs (RFC 7252, 3.2).
pub(crate) fn uint(value: u32) -> Vec<u8> {
    let bytes = value.to_be_bytes();
    bytes.into_iter().skip_while(|b| *b == 0).collect()
}

pub(crate) fn format_of(message: &Published) -> Option<u16> {
    content_format(message.properties()?.content_type.as_deref()?)
}

/// Whether a link answers a query such as `rt=core.ps` or `href=/ps/*` (RFC 6690, 4.1).
fn is_asked_for(target: &str, attributes: &str, (name, value): &(String, String)) -> bool {
    let matches = |have: &str| match value.strip_suffix('*') {
        Some(prefix) => have.starts_with(prefix),
        None => have == value,
    };
    if name == "href" {
        return matches(target.trim_matches(['<', '>']));
    }
    attributes
        .split(';')
        .map(|a| a.split_once('=').unwrap_or((a, "")))
        .any(|(n, v)| n == name && v.trim_matches('"').split(' ').any(matches))
}

/// A topic as the path of a link: what may not stand in one as it is becomes `%XX` (RFC 3986, 3.3).
fn escape(topic: &str) -> String {
    let mut text = String::new();
    for byte in topic.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~/!$&'()*+;=:@".contains(&byte) {
            text.push(byte.into());
        } else {
            // Writing to a String cannot fail.
            let _ = write!(text, "%{byte:02X}");
        }
    }
    text
}

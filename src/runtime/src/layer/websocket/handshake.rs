//! The HTTP request that becomes a WebSocket (RFC 6455, 4.2), and what is answered when it does not.

use gateway::Close;
use tungstenite::Error;
use tungstenite::error::ProtocolError;
use tungstenite::handshake::machine::TryParse;
use tungstenite::handshake::server;
use tungstenite::http::header::{self, HeaderMap, HeaderName, HeaderValue};

use crate::config;
use crate::layer::Learnt;

use super::REQUEST;

/// Subprotocols of MQTT (MQTT-6.0.0-3), the preferred one first; `mqttv3.1` is what 3.1 clients use.
const MQTT: [&str; 2] = ["mqtt", "mqttv3.1"];

/// What the request must ask for.
pub(super) struct Request {
    path: Box<str>,
    allowed_origins: Box<[String]>,
    protocol: &'static str,
}

/// A refusal: status with its phrase, a line for people, more header lines.
type Refusal = (&'static str, &'static str, &'static str);

const BAD: Refusal = ("400 Bad Request", "This is not a WebSocket request (RFC 6455, 4.2.1).", "");
const NO_PROTOCOL: Refusal =
    ("400 Bad Request", "Sec-WebSocket-Protocol offers none of the subprotocols served here.", "");
const ORIGIN: Refusal = ("403 Forbidden", "Pages of this origin may not connect.", "");
const PATH: Refusal = ("404 Not Found", "There is no WebSocket at this path.", "");
const METHOD: Refusal = ("405 Method Not Allowed", "A WebSocket is asked for by GET.", "Allow: GET\r\n");
const UPGRADE: Refusal = (
    "426 Upgrade Required",
    "Here is a WebSocket of version 13.",
    "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n",
);
const LONG: Refusal = ("431 Request Header Fields Too Large", "The request is too long.", "");
const VERSION: Refusal = ("505 HTTP Version Not Supported", "HTTP/1.1 is needed.", "");

impl Request {
    pub(super) fn new(setup: &config::WebSocket, protocol: &'static str) -> Request {
        let allowed_origins = setup.allowed_origins.clone().into_boxed_slice();
        Request { path: setup.path.as_str().into(), allowed_origins, protocol }
    }

    /// Answers the request if it is complete: gives its length, zero if it is not, and an error if it was refused.
    pub(super) fn answer(
        &self,
        wire: &[u8],
        reply: &mut Vec<u8>,
        facts: &mut Learnt,
    ) -> Result<usize, Close> {
        self.accept(wire, reply, facts).map_err(|(status, text, fields)| {
            let head = format!(
                "HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n",
                text.len() + 1
            );
            reply.extend_from_slice(format!("{head}{fields}Connection: close\r\n\r\n{text}\n").as_bytes());
            Close::WebSocket
        })
    }

    fn accept(&self, wire: &[u8], reply: &mut Vec<u8>, facts: &mut Learnt) -> Result<usize, Refusal> {
        let within = &wire[..wire.len().min(REQUEST)];
        let Some((length, request)) = server::Request::try_parse(within).map_err(|e| refusal(&e))? else {
            return if wire.len() >= REQUEST { Err(LONG) } else { Ok(0) };
        };
        let (uri, fields) = (request.uri(), request.headers());
        if uri.path() != &*self.path {
            return Err(PATH);
        }
        let mut response = server::create_response(&request).map_err(|e| refusal(&e))?;
        let origin = text(fields, &header::ORIGIN);
        if let Some(origin) = origin
            && !self.allowed_origins.is_empty()
            && !self.allowed_origins.iter().any(|o| o == origin)
        {
            return Err(ORIGIN);
        }
        let protocol = self.choose(fields).ok_or(NO_PROTOCOL)?;
        response.headers_mut().insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(protocol));
        server::write_response(&mut *reply, &response).map_err(|e| refusal(&e))?;
        facts.path = Some(uri.path_and_query().map_or(uri.path(), |p| p.as_str()).into());
        facts.subprotocol = Some(protocol.into());
        facts.origin = origin.map(Box::from);
        facts.forwarded = fields.keys().any(is_forwarding);
        Ok(length)
    }

    /// The subprotocol that is offered and served; with several the server's choice.
    fn choose(&self, fields: &HeaderMap) -> Option<&'static str> {
        let offered: Vec<&str> = fields
            .get_all(header::SEC_WEBSOCKET_PROTOCOL)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(',').map(str::trim))
            .collect();
        let served = if self.protocol == "mqtt" { &MQTT[..] } else { std::slice::from_ref(&self.protocol) };
        served.iter().find(|s| offered.contains(s)).copied()
    }
}

fn text<'a>(fields: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    // What is no text is an origin too, one that is not in any list.
    fields.get(name).map(|value| value.to_str().unwrap_or("?"))
}

/// Fields that HTTP proxies add.
fn is_forwarding(name: &HeaderName) -> bool {
    let name = name.as_str();
    name.starts_with("x-forwarded-")
        || ["forwarded", "via", "x-real-ip", "x-client-ip", "true-client-ip", "cf-connecting-ip"]
            .contains(&name)
}

fn refusal(error: &Error) -> Refusal {
    use ProtocolError as P;
    match error {
        Error::Protocol(P::WrongHttpMethod) => METHOD,
        Error::Protocol(P::WrongHttpVersion) => VERSION,
        Error::Protocol(
            P::MissingConnectionUpgradeHeader
            | P::MissingUpgradeWebSocketHeader
            | P::MissingSecWebSocketVersionHeader,
        ) => UPGRADE,
        _ => BAD,
    }
}

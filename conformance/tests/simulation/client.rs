//! A client that keeps its session as MQTT asks: sends again what was not acknowledged, answers every packet once.

use std::collections::BTreeSet;

use conformance::packet::{self, Context};
use conformance::read::{self, Packet, Value};
use conformance::text;

/// A message on its way to the server.
struct Sending {
    id: u16,
    qos: u8,
    payload: String,
    is_sent: bool,
    is_received: bool,
}

/// See the module.
pub(crate) struct Client {
    name: &'static str,
    level: u8,
    subscribes: bool,
    is_subscribed: bool,
    has_session: bool,
    is_connected: bool,
    input: Vec<u8>,
    output: Vec<u8>,
    sending: Vec<Sending>,
    last_id: u16,
    incoming: BTreeSet<u16>,
    /// Payloads in the order in which they came.
    pub(crate) got: Vec<String>,
}

impl Client {
    pub(crate) fn new(name: &'static str, level: u8, subscribes: bool) -> Client {
        Client {
            name,
            level,
            subscribes,
            is_subscribed: false,
            has_session: false,
            is_connected: false,
            input: Vec::new(),
            output: Vec::new(),
            sending: Vec::new(),
            last_id: 0,
            incoming: BTreeSet::new(),
            got: Vec::new(),
        }
    }

    /// Wants to publish.
    pub(crate) fn publish(&mut self, qos: u8, payload: String) {
        self.last_id += 1;
        self.sending.push(Sending { id: self.last_id, qos, payload, is_sent: false, is_received: false });
    }

    /// Whether all is acknowledged, and its subscription made.
    pub(crate) fn is_done(&self) -> bool {
        self.sending.is_empty() && self.is_subscribed == self.subscribes
    }

    /// Whether its subscription is made.
    pub(crate) fn is_subscribed(&self) -> bool {
        self.is_subscribed
    }

    /// A new connection.
    pub(crate) fn connect(&mut self) {
        self.input.clear();
        self.output.clear();
        self.is_connected = false;
        let expiry = if self.level == 5 { " session-expiry-interval=1000" } else { "" };
        self.say(&format!("connect id={}{expiry}", self.name));
    }

    /// What it has to say.
    pub(crate) fn output(&mut self) -> Vec<u8> {
        if self.is_connected {
            for at in 0..self.sending.len() {
                if !std::mem::replace(&mut self.sending[at].is_sent, true) {
                    self.send(at, false);
                }
            }
        }
        std::mem::take(&mut self.output)
    }

    fn send(&mut self, at: usize, again: bool) {
        let Sending { id, qos, payload, is_received, .. } = &self.sending[at];
        let line = match is_received {
            true => format!("pubrel id={id}"),
            false => format!(
                "publish topic=t qos={qos} id={id} payload={payload}{}",
                if again { " dup" } else { "" }
            ),
        };
        self.say(&line);
    }

    fn say(&mut self, line: &str) {
        let words: Vec<_> = text::words(line).unwrap().iter().map(|word| text::word(word)).collect();
        let context = Context { level: self.level, unique: "", bound: &|_| None };
        self.output.extend(packet::encode(&words[0].key, &words[1..], context).unwrap());
    }

    /// Bytes of the server come.
    pub(crate) fn feed(&mut self, bytes: &[u8]) {
        self.input.extend_from_slice(bytes);
        while let Some(length) =
            read::length(&self.input).unwrap().filter(|length| *length <= self.input.len())
        {
            let rest = self.input.split_off(length);
            let whole = std::mem::replace(&mut self.input, rest);
            let packet =
                read::decode(&whole, self.level).unwrap_or_else(|why| panic!("{}: {why}", self.name));
            self.take(&packet);
        }
    }

    fn take(&mut self, packet: &Packet) {
        let id = packet.number("id").unwrap_or_default() as u16;
        match packet.kind {
            "connack" => self.connected(packet),
            "suback" => self.is_subscribed = true,
            "publish" => self.delivered(packet, id),
            "puback" | "pubcomp" => self.sending.retain(|sending| sending.id != id),
            "pubrec" => {
                if let Some(at) = self.sending.iter().position(|sending| sending.id == id) {
                    self.sending[at].is_received = true;
                    self.send(at, false);
                }
            }
            "pubrel" => {
                self.incoming.remove(&id);
                self.say(&format!("pubcomp id={id}"));
            }
            other => panic!("{} got {other}", self.name),
        }
    }

    fn connected(&mut self, packet: &Packet) {
        self.is_connected = true;
        assert_eq!(packet.number("code"), Some(0));
        let present = packet.number("session").is_none_or(|present| present == 1);
        assert!(present || !self.has_session, "{}: the server has lost the session", self.name);
        self.has_session = true;
        if self.subscribes && !self.is_subscribed {
            self.say("subscribe id=60000 filter=t qos=2");
        }
        for at in 0..self.sending.len() {
            if self.sending[at].is_sent {
                self.send(at, true);
            }
        }
    }

    fn delivered(&mut self, packet: &Packet, id: u16) {
        let Some(Value::Bytes(payload)) = packet.values("payload").next() else { panic!("no payload") };
        let payload = String::from_utf8(payload.clone()).unwrap();
        match packet.number("qos") {
            Some(1) => {
                self.got.push(payload);
                self.say(&format!("puback id={id}"));
            }
            Some(2) => {
                if self.incoming.insert(id) {
                    self.got.push(payload);
                }
                self.say(&format!("pubrec id={id}"));
            }
            _ => panic!("{} got a message of QoS 0", self.name),
        }
    }
}

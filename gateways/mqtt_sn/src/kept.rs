//! What is kept with the session of a client without CleanSession, so that it goes on after the gateway was started again:
//! topic ids, the will, and how the client is.

use std::net::IpAddr;
use std::time::Duration;

use bytes::Bytes;
use gateway::topic::check_name;
use gateway::{Action, Found, Message, Now, OnlyIf, Outbox, Peer, Qos, Will};
use wire::{Reader, Writer};

use crate::MqttSn;
use crate::config::Rebind;
use crate::conversation::{Client, Conversation, tolerated};
use crate::ticket::{Asked, ticket};
use crate::topics::Topics;

/// Where the names of these facts begin.
pub(crate) const FACTS: &str = "sn/";
const STATE: &str = "sn/state";
const WILL: &str = "sn/will";
const TOPIC: &str = "sn/t/";
const VERSION: u8 = 1;

/// What facts say.
#[derive(Default)]
pub(crate) struct Loaded {
    /// Keep-alive and sleep duration; none if this was no client of MQTT-SN.
    pub(crate) state: Option<(u16, u16)>,
    pub(crate) will: Option<Box<Will>>,
    pub(crate) topics: Topics,
}

/// Reads the facts that came with a session; what cannot be read is left out.
pub(crate) fn load(now: Now, facts: &[(Box<str>, Bytes)]) -> Loaded {
    let mut loaded = Loaded::default();
    for (name, value) in facts {
        let mut r = Reader::new(value);
        if r.u8() != Ok(VERSION) {
            continue;
        }
        match &**name {
            // Where it was is compared as it is.
            STATE => loaded.state = r.u16().ok().zip(r.u16().ok()),
            WILL => loaded.will = will(now, &mut r),
            name => {
                let id = name.strip_prefix(TOPIC).and_then(|id| u16::from_str_radix(id, 16).ok());
                let is_known = r.u8();
                if let (Some(id @ 1..=0xFFFE), Ok(is_known), Ok(topic)) =
                    (id, is_known, std::str::from_utf8(r.take_rest()))
                {
                    loaded.topics.put(id, topic, is_known == 1);
                }
            }
        }
    }
    loaded
}

fn will(now: Now, r: &mut Reader<'_>) -> Option<Box<Will>> {
    let (qos, retain) = (Qos::from_u8(r.u8().ok()?)?, r.u8().ok()? == 1);
    let topic = std::str::from_utf8(r.prefixed16().ok()?).ok()?;
    check_name(topic).ok()?;
    Some(make_will(now, topic, r.take_rest(), qos, retain))
}

/// A will that is published at once when its client is lost.
pub(crate) fn make_will(now: Now, topic: &str, data: &[u8], qos: Qos, retain: bool) -> Box<Will> {
    let message = Message::new(now, topic, data).with_qos(qos).with_retain(retain);
    Box::new(Will { message, delay: Duration::ZERO })
}

fn save(peer: Peer, client: &Client, name: &str, value: Option<Vec<u8>>, out: &mut Outbox) {
    if !client.is_clean {
        let nobody_waits = ticket(Asked::Nothing, 0, 0);
        out.act(Action::Save(peer, nobody_waits, name.into(), value.map(Bytes::from)));
    }
}

/// What is kept of where a client is, where it may not go on from everywhere: its host, and its port too where only an
/// association moves; of who has proven itself there is only that.
pub(crate) fn place(rebind: Rebind, c: &Conversation) -> Box<[u8]> {
    let mut place = vec![u8::from(c.is_sealed)];
    match (rebind, c.is_sealed) {
        (Rebind::Any, _) => return Box::default(),
        (_, true) => {}
        (Rebind::SameIp, false) => place.put(&ip(c)),
        (Rebind::Dtls, false) => {
            place.put(&ip(c));
            place.put_u16(c.address.port());
        }
    }
    place.into()
}

fn ip(c: &Conversation) -> Vec<u8> {
    match c.address.ip() {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    }
}

/// The sleep duration and the place that are kept; no duration is awake, or no client of MQTT-SN.
fn sleeper(fact: Option<&[u8]>) -> (u16, &[u8]) {
    match fact {
        Some([VERSION, _, _, a, b, place @ ..]) => (u16::from_be_bytes([*a, *b]), place),
        _ => (0, &[]),
    }
}

/// What has to be so of a session that goes on without CONNECT: it is the one of a sleeper that may be here.
pub(crate) fn only_sleeper(rebind: Rebind, c: &Conversation) -> OnlyIf {
    let is_so: fn(Found<'_>, &[u8]) -> bool = if c.is_sealed {
        |found, _| found.fact.is_some()
    } else {
        |found, here| {
            let (sleep, place) = sleeper(found.fact);
            sleep > 0 && (here.is_empty() || place == here)
        }
    };
    OnlyIf { fact: STATE, is_so, with: place(rebind, c) }
}

/// What has to be so of a session that is opened: it is not the one of a sleeper that may not be here. One that was lost
/// while the gateway was not running is none any more.
pub(crate) fn not_anothers(now: Now, rebind: Rebind, c: &Conversation) -> Option<OnlyIf> {
    if rebind == Rebind::Any || c.is_sealed {
        return None;
    }
    let is_so: fn(Found<'_>, &[u8]) -> bool = |found, with| {
        let Some((uptime, here)) = with.split_first_chunk() else { return false };
        let (sleep, place) = sleeper(found.fact);
        let is_lost = || tolerated(sleep) < Duration::from_micros(u64::from_be_bytes(*uptime));
        sleep == 0 || place.is_empty() || place == here || (!found.is_connected && is_lost())
    };
    let mut with = now.instant.as_micros().to_be_bytes().to_vec();
    with.put(&place(rebind, c));
    Some(OnlyIf { fact: STATE, is_so, with: with.into() })
}

/// Keeps how the client is.
pub(crate) fn keep_state(peer: Peer, client: &Client, out: &mut Outbox) {
    let mut value = vec![VERSION];
    value.put_u16(client.keep_alive);
    value.put_u16(client.sleep);
    value.put(&client.place);
    save(peer, client, STATE, Some(value), out);
}

/// Keeps the will, or that there is none.
pub(crate) fn keep_will(peer: Peer, client: &Client, out: &mut Outbox) {
    let value = client.will.as_ref().map(|w| {
        let mut value = vec![VERSION, w.message.qos() as u8, u8::from(w.message.retain())];
        value.put_prefixed16(w.message.topic().as_bytes());
        value.put(w.message.payload());
        value
    });
    save(peer, client, WILL, value, out);
}

/// Keeps a topic id; the answer is for `asked`.
pub(crate) fn keep_topic(peer: Peer, client: &Client, id: u16, asked: (Asked, u16), out: &mut Outbox) {
    let Some(topic) = client.topics.name(id).filter(|_| !client.is_clean) else { return };
    let mut value = vec![VERSION, u8::from(client.topics.is_known(id))];
    value.put(topic.as_bytes());
    let name = format!("{TOPIC}{id:04x}");
    out.act(Action::Save(peer, ticket(asked.0, id, asked.1), name.into(), Some(value.into())));
}

impl MqttSn {
    /// Keeps everything of a client whose session was to end with its connection, and now is not.
    pub(crate) fn keep_all(&self, peer: Peer, out: &mut Outbox) {
        let Some(client) = self.peers.get(peer).and_then(|c| c.client.as_deref()) else { return };
        keep_state(peer, client, out);
        keep_will(peer, client, out);
        for (id, _) in client.topics.iter() {
            keep_topic(peer, client, id, (Asked::Topic, 0), out);
        }
    }
}

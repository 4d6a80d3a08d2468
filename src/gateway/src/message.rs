//! A message on its way from a publisher to its subscribers, the same for every protocol.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::time::{Instant, Now};

/// Quality of service (MQTT 5.0, 4.3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Qos {
    /// At most once.
    #[default]
    AtMostOnce = 0,
    /// At least once.
    AtLeastOnce = 1,
    /// Exactly once.
    ExactlyOnce = 2,
}

impl Qos {
    /// The level with this number.
    pub fn from_u8(n: u8) -> Option<Qos> {
        match n {
            0 => Some(Qos::AtMostOnce),
            1 => Some(Qos::AtLeastOnce),
            2 => Some(Qos::ExactlyOnce),
            _ => None,
        }
    }
}

/// What MQTT 5.0 lets a publisher say about a message beside topic and payload (3.3.2.3). Other protocols map theirs
/// onto these: CoAP's Content-Format and STOMP's content-type are `content_type`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Properties {
    /// Payload Format Indicator 1: the payload is UTF-8.
    pub utf8_payload: bool,
    /// Content Type.
    pub content_type: Option<Box<str>>,
    /// Response Topic.
    pub response_topic: Option<Box<str>>,
    /// Correlation Data.
    pub correlation_data: Option<Bytes>,
    /// User Properties, in the publisher's order.
    pub user: Vec<(Box<str>, Box<str>)>,
}

impl Properties {
    /// Whether nothing is said.
    pub fn is_empty(&self) -> bool {
        *self == Properties::default()
    }

    /// Bytes these cost beside the struct itself.
    pub fn size(&self) -> usize {
        let text = |t: &Option<Box<str>>| t.as_ref().map_or(0, |t| t.len());
        text(&self.content_type)
            + text(&self.response_topic)
            + self.correlation_data.as_ref().map_or(0, Bytes::len)
            + self
                .user
                .iter()
                .map(|(k, v)| k.len() + v.len() + size_of::<(Box<str>, Box<str>)>())
                .sum::<usize>()
    }
}

/// Who published: a number that no other session of this process has or had. The gateway itself is [`Publisher::NONE`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Publisher(pub u64);

impl Publisher {
    /// No client: the gateway's own messages.
    pub const NONE: Publisher = Publisher(0);
}

/// Payloads up to this many bytes are copied beside their topic; larger ones keep a slice of the receive buffer, which
/// for them holds little else. So a queued 20-byte value never pins 64 KiB.
const COPY_AT_MOST: usize = 4096;

/// One message. Cloning counts a reference.
#[derive(Clone, Debug)]
pub struct Message(Arc<Inner>);

#[derive(Clone, Debug)]
struct Inner {
    /// Topic, then payload when it was copied.
    head: Box<[u8]>,
    topic: u16,
    payload: Option<Bytes>,
    qos: Qos,
    retain: bool,
    publisher: Publisher,
    published: Now,
    expiry: Option<Duration>,
    properties: Option<Box<Properties>>,
}

impl Message {
    /// A message as its publisher's gateway read it at `now`. `topic` was checked ([`crate::topic::check_name`]).
    pub fn new(now: Now, topic: &str, payload: &[u8]) -> Message {
        Message::build(now, topic, payload, None)
    }

    /// The same; a large payload is kept as the slice it is.
    pub fn from_slice(now: Now, topic: &str, payload: Bytes) -> Message {
        if payload.len() <= COPY_AT_MOST {
            Message::build(now, topic, &payload, None)
        } else {
            Message::build(now, topic, &[], Some(payload))
        }
    }

    fn build(now: Now, topic: &str, copied: &[u8], payload: Option<Bytes>) -> Message {
        let mut head = Vec::with_capacity(topic.len() + copied.len());
        head.extend_from_slice(topic.as_bytes());
        head.extend_from_slice(copied);
        Message(Arc::new(Inner {
            head: head.into_boxed_slice(),
            topic: u16::try_from(topic.len()).unwrap_or(u16::MAX),
            payload,
            qos: Qos::AtMostOnce,
            retain: false,
            publisher: Publisher::NONE,
            published: now,
            expiry: None,
            properties: None,
        }))
    }

    fn edit(&mut self) -> &mut Inner {
        Arc::make_mut(&mut self.0)
    }

    /// With this quality of service (QoS 0 otherwise).
    #[must_use]
    pub fn with_qos(mut self, qos: Qos) -> Message {
        self.edit().qos = qos;
        self
    }

    /// With the RETAIN flag as published.
    #[must_use]
    pub fn with_retain(mut self, retain: bool) -> Message {
        self.edit().retain = retain;
        self
    }

    /// With a Message Expiry Interval, counted from when it was published.
    #[must_use]
    pub fn with_expiry(mut self, expiry: Option<Duration>) -> Message {
        self.edit().expiry = expiry;
        self
    }

    /// With properties; empty ones cost nothing.
    #[must_use]
    pub fn with_properties(mut self, properties: Properties) -> Message {
        self.edit().properties = (!properties.is_empty()).then(|| Box::new(properties));
        self
    }

    /// With its publisher: the router says who, not the gateway.
    #[must_use]
    pub fn with_publisher(mut self, publisher: Publisher) -> Message {
        self.edit().publisher = publisher;
        self
    }

    /// With the moment it counts as published (a delayed message is published when its delay is over).
    #[must_use]
    pub fn with_published(mut self, now: Now) -> Message {
        self.edit().published = now;
        self
    }

    /// The same message under another topic (rewrite rules, mountpoints).
    #[must_use]
    pub fn with_topic(&self, topic: &str) -> Message {
        let copied = if self.0.payload.is_some() { &[][..] } else { self.payload() };
        let mut other = Message::build(self.0.published, topic, copied, self.0.payload.clone());
        let inner = other.edit();
        inner.qos = self.0.qos;
        inner.retain = self.0.retain;
        inner.publisher = self.0.publisher;
        inner.expiry = self.0.expiry;
        inner.properties.clone_from(&self.0.properties);
        other
    }

    /// The topic name, with the mountpoint of its publisher.
    pub fn topic(&self) -> &str {
        // Only `build` makes `head`, from a `&str`; the check costs less than keeping a second copy would.
        std::str::from_utf8(&self.0.head[..usize::from(self.0.topic)]).unwrap_or_default()
    }

    /// The payload.
    pub fn payload(&self) -> &[u8] {
        match &self.0.payload {
            Some(slice) => slice,
            None => &self.0.head[usize::from(self.0.topic)..],
        }
    }

    /// The QoS it was published with.
    pub fn qos(&self) -> Qos {
        self.0.qos
    }

    /// The RETAIN flag as published.
    pub fn retain(&self) -> bool {
        self.0.retain
    }

    /// Who published it.
    pub fn publisher(&self) -> Publisher {
        self.0.publisher
    }

    /// When it was published.
    pub fn published(&self) -> Now {
        self.0.published
    }

    /// What the publisher said beside topic and payload.
    pub fn properties(&self) -> Option<&Properties> {
        self.0.properties.as_deref()
    }

    /// When it expires, if it does.
    pub fn expires(&self) -> Option<Instant> {
        self.0.expiry.map(|d| self.0.published.instant + d)
    }

    /// Whether it has expired (MQTT-3.3.2-5: it is then not delivered).
    pub fn is_expired(&self, now: Instant) -> bool {
        self.expires().is_some_and(|at| at <= now)
    }

    /// Expiry that is left (MQTT-3.3.2-6: what is forwarded), None if it never expires.
    pub fn remaining(&self, now: Instant) -> Option<Duration> {
        // Another driver's turn may have begun before the message was published: it never has more left than it had.
        self.0.expiry.map(|d| (self.0.published.instant + d).since(now).min(d))
    }

    /// Bytes this message keeps in memory, about, whoever else refers to it.
    pub fn size(&self) -> usize {
        size_of::<Inner>()
            + self.0.head.len()
            + self.0.payload.as_ref().map_or(0, Bytes::len)
            + self.0.properties.as_ref().map_or(0, |p| p.size() + size_of::<Properties>())
    }

    /// A number that differs between messages that are in memory at the same time.
    pub fn identity(&self) -> usize {
        Arc::as_ptr(&self.0) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_payload_does_not_pin_its_receive_buffer() {
        let buffer = Bytes::from(vec![7; 65_536]);
        let m = Message::from_slice(Now::default(), "a/b", buffer.slice(10..30));
        assert_eq!((m.topic(), m.payload()), ("a/b", &[7; 20][..]));
        assert!(m.size() < 300);
        let large = Message::from_slice(Now::default(), "a/b", buffer.clone());
        assert_eq!(large.payload().as_ptr(), buffer.as_ptr());
    }

    #[test]
    fn expiry_counts_from_publication() {
        let m = Message::new(Now::from_micros(1_000_000), "t", b"").with_expiry(Some(Duration::from_secs(5)));
        assert_eq!(m.remaining(Instant::from_micros(3_000_000)), Some(Duration::from_secs(3)));
        assert_eq!(
            m.remaining(Instant::from_micros(999_000)),
            Some(Duration::from_secs(5)),
            "a turn begun earlier"
        );
        assert!(m.is_expired(Instant::from_micros(6_000_000)));
        assert!(!m.is_expired(Instant::from_micros(5_999_999)));
    }

    #[test]
    fn another_topic_keeps_the_rest() {
        let m = Message::new(Now::default(), "a", b"x").with_qos(Qos::ExactlyOnce).with_retain(true);
        let n = m.with_topic("b/c");
        assert_eq!((n.topic(), n.payload(), n.qos(), n.retain()), ("b/c", &b"x"[..], Qos::ExactlyOnce, true));
    }
}

//! What is kept of sessions and messages, as bytes. A change of anything here is another format of the store
//! (`store::FORMAT`).
//!
//! ```text
//! message  = flags wall:u64 publisher:u64 [expiry:u64] topic:16 [properties] payload
//! place    = flags size:u32 [ids] [via:16]              in a session's queue; then the message, unless it is shared
//! flight   = state sequence:u64                         a delivery that was not settled, by packet id
//! session  = flags expiry:u64 since:u64 namespace:16 mount:16 client:16 [principal:16] [delay:u64 will]
//! options  = flags identifier:u32 [filter]              of a subscription, by filter; with it if the key does not hold it
//! delayed  = due:u64 message
//! ```
//! Times are microseconds; `wall`, `since` and `due` milliseconds since 1970; `:16` is a length of two bytes and so many
//! bytes; numbers are big-endian.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use gateway::{Filter, Message, Now, Properties, Publisher, Qos, Subscribe, Will};
use wire::{Reader, Short, Writer};

use crate::queue::Entry;

/// A record that is not what it should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Damaged;

impl From<Short> for Damaged {
    fn from(_: Short) -> Damaged {
        Damaged
    }
}

const RETAIN: u8 = 4;
const EXPIRES: u8 = 8;
const SAID: u8 = 16;

/// Appends a message.
pub(crate) fn encode_message(out: &mut Vec<u8>, message: &Message) {
    let flag = |is: bool, flag: u8| if is { flag } else { 0 };
    let left = message.remaining(message.published().instant);
    let said = message.properties();
    out.reserve(32 + message.topic().len() + message.payload().len());
    out.put_u8(
        message.qos() as u8
            | flag(message.retain(), RETAIN)
            | flag(left.is_some(), EXPIRES)
            | flag(said.is_some(), SAID),
    );
    put_u64(out, message.published().wall_ms);
    put_u64(out, message.publisher().0);
    if let Some(left) = left {
        put_time(out, left);
    }
    out.put_prefixed16(message.topic().as_bytes());
    if let Some(said) = said {
        encode_properties(out, said);
    }
    out.put(message.payload());
}

fn encode_properties(out: &mut Vec<u8>, said: &Properties) {
    let parts = [
        said.utf8_payload,
        said.content_type.is_some(),
        said.response_topic.is_some(),
        said.correlation_data.is_some(),
    ];
    out.put_u8(parts.iter().rev().fold(0, |bits, &is| bits << 1 | u8::from(is)));
    if let Some(t) = &said.content_type {
        put_long(out, t.as_bytes());
    }
    if let Some(t) = &said.response_topic {
        put_long(out, t.as_bytes());
    }
    if let Some(d) = &said.correlation_data {
        put_long(out, d);
    }
    out.put_u32(said.user.len() as u32);
    for (name, value) in &said.user {
        put_long(out, name.as_bytes());
        put_long(out, value.as_bytes());
    }
}

/// Reads a message that takes all the rest. What was left of its expiry when it was published has gone on running by the
/// wall clock, which is all there is between two runs; a clock that went back adds nothing.
pub(crate) fn decode_message(now: Now, bytes: &[u8]) -> Result<Message, Damaged> {
    let mut r = Reader::new(bytes);
    let flags = r.u8()?;
    let qos = Qos::from_u8(flags & 3).ok_or(Damaged)?;
    let (wall_ms, publisher) = (r.u64()?, Publisher(r.u64()?));
    let expiry = if flags & EXPIRES != 0 { Some(time(&mut r)?) } else { None };
    let topic = text(r.prefixed16()?)?;
    let said = if flags & SAID != 0 { Some(decode_properties(&mut r)?) } else { None };
    let gone = Duration::from_millis(now.wall_ms.saturating_sub(wall_ms));
    // From here on what is left counts from now, also if it is written down again.
    let published = Now { instant: now.instant, wall_ms: wall_ms.max(now.wall_ms) };
    let mut message = Message::from_slice(published, topic, Bytes::copy_from_slice(r.take_rest()))
        .with_qos(qos)
        .with_retain(flags & RETAIN != 0)
        .with_publisher(publisher);
    if let Some(left) = expiry {
        message = message.with_expiry(Some(left.saturating_sub(gone)));
    }
    if let Some(said) = said {
        message = message.with_properties(said);
    }
    Ok(message)
}

fn decode_properties(r: &mut Reader<'_>) -> Result<Properties, Damaged> {
    let parts = r.u8()?;
    let mut optional = |bit: u8| if parts & bit != 0 { long(r).map(Some) } else { Ok(None) };
    let (content_type, response_topic, correlation_data) = (optional(2)?, optional(4)?, optional(8)?);
    let boxed = |t: Option<&[u8]>| t.map(|t| text(t).map(Box::from)).transpose();
    let mut user = Vec::new();
    for _ in 0..r.u32()? {
        user.push((text(long(r)?)?.into(), text(long(r)?)?.into()));
    }
    Ok(Properties {
        utf8_payload: parts & 1 != 0,
        content_type: boxed(content_type)?,
        response_topic: boxed(response_topic)?,
        correlation_data: correlation_data.map(Bytes::copy_from_slice),
        user,
    })
}

const IDS: u8 = 8;
const VIA: u8 = 16;

/// What is a session's own of a message in its queue.
pub(crate) fn encode_place(entry: &Entry) -> Vec<u8> {
    let flag = |is: bool, flag: u8| if is { flag } else { 0 };
    let mut out = Vec::with_capacity(16);
    out.put_u8(
        entry.qos as u8
            | flag(entry.retain, RETAIN)
            | flag(entry.ids.is_some(), IDS)
            | flag(entry.via.is_some(), VIA),
    );
    out.put_u32(u32::try_from(entry.message.size()).unwrap_or(u32::MAX));
    if let Some(ids) = &entry.ids {
        out.put_u16(ids.len().min(usize::from(u16::MAX)) as u16);
        ids.iter().take(usize::from(u16::MAX)).for_each(|&id| out.put_u32(id));
    }
    if let Some(via) = &entry.via {
        out.put_prefixed16(via.as_bytes());
    }
    out
}

/// A message's place in a queue, without the message.
pub(crate) struct Place {
    pub(crate) qos: Qos,
    pub(crate) retain: bool,
    /// Bytes the message takes in memory.
    pub(crate) size: usize,
    pub(crate) ids: Option<Arc<[u32]>>,
    pub(crate) via: Option<Arc<str>>,
}

/// Reads a place and leaves what follows it.
pub(crate) fn decode_place(bytes: &[u8]) -> Result<(Place, &[u8]), Damaged> {
    let mut r = Reader::new(bytes);
    let flags = r.u8()?;
    let qos = Qos::from_u8(flags & 3).ok_or(Damaged)?;
    let size = r.u32()? as usize;
    let mut ids = None;
    if flags & IDS != 0 {
        let n = r.u16()?;
        ids = Some((0..n).map(|_| r.u32()).collect::<Result<Arc<[u32]>, Short>>()?);
    }
    let via = if flags & VIA != 0 { Some(text(r.prefixed16()?)?.into()) } else { None };
    Ok((Place { qos, retain: flags & RETAIN != 0, size, ids, via }, r.take_rest()))
}

/// A delivery that was not settled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Flown {
    /// The client has received it (PUBREC); only its release is kept.
    pub(crate) is_received: bool,
    /// Its place in the queue, by which deliveries are in order.
    pub(crate) sequence: u64,
}

impl Flown {
    pub(crate) fn encode(self) -> Vec<u8> {
        let mut out = vec![u8::from(self.is_received)];
        put_u64(&mut out, self.sequence);
        out
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Flown, Damaged> {
        let mut r = Reader::new(bytes);
        let state = r.u8()?;
        let sequence = r.u64()?;
        if state > 1 { Err(Damaged) } else { Ok(Flown { is_received: state == 1, sequence }) }
    }
}

/// A session without its subscriptions and messages.
#[derive(Clone, Debug)]
pub(crate) struct Kept {
    pub(crate) namespace: Box<str>,
    pub(crate) mount: Box<str>,
    pub(crate) client_id: Box<str>,
    pub(crate) principal: Option<Arc<str>>,
    pub(crate) expiry: Duration,
    /// Wall time in milliseconds since when it has no connection; None while it has one.
    pub(crate) absent_since: Option<u64>,
    pub(crate) will: Option<Box<Will>>,
}

const OWNED: u8 = 1;
const ABSENT: u8 = 2;
const WILL: u8 = 4;

/// What [`decode_session`] reads.
pub(crate) struct SessionParts<'a> {
    pub(crate) namespace: &'a str,
    pub(crate) mount: &'a str,
    pub(crate) client_id: &'a str,
    pub(crate) principal: Option<&'a str>,
    pub(crate) expiry: Duration,
    pub(crate) absent_since: Option<u64>,
    pub(crate) will: Option<&'a Will>,
}

pub(crate) fn encode_session(s: &SessionParts<'_>) -> Vec<u8> {
    let mut out = Vec::with_capacity(64);
    let flag = |is: bool, flag: u8| if is { flag } else { 0 };
    out.put_u8(
        flag(s.principal.is_some(), OWNED)
            | flag(s.absent_since.is_some(), ABSENT)
            | flag(s.will.is_some(), WILL),
    );
    put_time(&mut out, s.expiry);
    put_u64(&mut out, s.absent_since.unwrap_or(0));
    put_long(&mut out, s.namespace.as_bytes());
    put_long(&mut out, s.mount.as_bytes());
    put_long(&mut out, s.client_id.as_bytes());
    if let Some(principal) = s.principal {
        put_long(&mut out, principal.as_bytes());
    }
    if let Some(will) = s.will {
        put_time(&mut out, will.delay);
        encode_message(&mut out, &will.message);
    }
    out
}

pub(crate) fn decode_session(now: Now, bytes: &[u8]) -> Result<Kept, Damaged> {
    let mut r = Reader::new(bytes);
    let flags = r.u8()?;
    let expiry = time(&mut r)?;
    let since = r.u64()?;
    let (namespace, mount, client_id) = (long(&mut r)?, long(&mut r)?, long(&mut r)?);
    let principal = if flags & OWNED != 0 { Some(text(long(&mut r)?)?.into()) } else { None };
    let will = if flags & WILL != 0 {
        let delay = time(&mut r)?;
        // A will's expiry counts from when it is published, which it is not yet: nothing of it has gone.
        let unborn = Now { wall_ms: 0, ..now };
        Some(Box::new(Will { message: decode_message(unborn, r.take_rest())?, delay }))
    } else {
        None
    };
    Ok(Kept {
        namespace: text(namespace)?.into(),
        mount: text(mount)?.into(),
        client_id: text(client_id)?.into(),
        principal,
        expiry,
        absent_since: (flags & ABSENT != 0).then_some(since),
        will,
    })
}

const NO_LOCAL: u8 = 8;

fn encode_options(s: &Subscribe) -> Vec<u8> {
    let flag = |is: bool, flag: u8| if is { flag } else { 0 };
    let mut out = Vec::with_capacity(5);
    out.put_u8(s.qos as u8 | flag(s.retain_as_published, RETAIN) | flag(s.no_local, NO_LOCAL));
    out.put_u32(s.identifier);
    out
}

/// The options of a subscription to `filter` as they are kept.
pub(crate) fn encode_subscription(filter: &Filter, s: &Subscribe) -> Vec<u8> {
    let mut out = encode_options(s);
    if store::Key::is_long(filter.as_str().as_bytes()) {
        out.put(filter.as_str().as_bytes());
    }
    out
}

pub(crate) fn decode_options(filter: &[u8], bytes: &[u8]) -> Result<Subscribe, Damaged> {
    let mut r = Reader::new(bytes);
    let (flags, identifier, whole) = (r.u8()?, r.u32()?, r.take_rest());
    let filter = if whole.is_empty() { filter } else { whole };
    Ok(Subscribe {
        filter: Filter::parse(text(filter)?).map_err(|_| Damaged)?,
        qos: Qos::from_u8(flags & 3).ok_or(Damaged)?,
        no_local: flags & NO_LOCAL != 0,
        retain_as_published: flags & RETAIN != 0,
        retain_handling: 2,
        identifier,
    })
}

pub(crate) fn encode_delayed(due_ms: u64, message: &Message) -> Vec<u8> {
    let mut out = Vec::new();
    put_u64(&mut out, due_ms);
    encode_message(&mut out, message);
    out
}

/// When it is due by the wall clock, and the message: its expiry counts from then.
pub(crate) fn decode_delayed(now: Now, bytes: &[u8]) -> Result<(u64, Message), Damaged> {
    let mut r = Reader::new(bytes);
    let due = r.u64()?;
    Ok((due, decode_message(Now { wall_ms: 0, ..now }, r.take_rest())?))
}

fn put_u64(out: &mut Vec<u8>, n: u64) {
    out.put(&n.to_be_bytes());
}

fn put_time(out: &mut Vec<u8>, time: Duration) {
    put_u64(out, u64::try_from(time.as_micros()).unwrap_or(u64::MAX));
}

fn time(r: &mut Reader<'_>) -> Result<Duration, Damaged> {
    let micros = r.u64()?;
    Ok(if micros == u64::MAX { Duration::MAX } else { Duration::from_micros(micros) })
}

fn put_long(out: &mut Vec<u8>, bytes: &[u8]) {
    out.put_u32(bytes.len() as u32);
    out.put(bytes);
}

fn long<'a>(r: &mut Reader<'a>) -> Result<&'a [u8], Damaged> {
    let len = r.u32()? as usize;
    Ok(r.take(len)?)
}

fn text(bytes: &[u8]) -> Result<&str, Damaged> {
    std::str::from_utf8(bytes).map_err(|_| Damaged)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn properties() -> Properties {
        Properties {
            utf8_payload: true,
            content_type: Some("application/json".into()),
            response_topic: Some("answers".into()),
            correlation_data: Some(Bytes::from_static(&[0, 1, 2])),
            user: vec![("a".into(), "1".into()), ("a".into(), "2".into())],
        }
    }

    fn encoded(message: &Message) -> Vec<u8> {
        let mut out = Vec::new();
        encode_message(&mut out, message);
        out
    }

    #[test]
    fn a_message_comes_back_with_all_that_was_said() {
        let published = Now { wall_ms: 1_000_000, ..Now::default() };
        let m = Message::new(published, "a/b", &[7; 5000])
            .with_qos(Qos::ExactlyOnce)
            .with_retain(true)
            .with_publisher(Publisher(9))
            .with_expiry(Some(Duration::from_secs(60)))
            .with_properties(properties());
        let later = Now { instant: gateway::Instant::from_micros(5), wall_ms: 1_010_000 };
        let n = decode_message(later, &encoded(&m)).unwrap();
        assert_eq!((n.topic(), n.payload(), n.qos(), n.retain()), (m.topic(), m.payload(), m.qos(), true));
        assert_eq!((n.publisher(), n.properties()), (m.publisher(), m.properties()));
        assert_eq!(n.remaining(later.instant), Some(Duration::from_secs(50)));
        let earlier = Now { wall_ms: 500, ..later };
        let n = decode_message(earlier, &encoded(&m)).unwrap();
        assert_eq!(n.remaining(later.instant), Some(Duration::from_secs(60)), "a clock that was set back");
    }

    #[test]
    fn a_session_comes_back_and_its_will_has_all_its_time() {
        let message = Message::new(Now::default(), "w", b"gone").with_expiry(Some(Duration::from_secs(5)));
        let will = Will { message, delay: Duration::from_secs(30) };
        let parts = SessionParts {
            namespace: "n",
            mount: "m/",
            client_id: "c",
            principal: Some("user:u"),
            expiry: Duration::MAX,
            absent_since: Some(77),
            will: Some(&will),
        };
        let kept =
            decode_session(Now { wall_ms: 99_000, ..Now::default() }, &encode_session(&parts)).unwrap();
        assert_eq!((&*kept.namespace, &*kept.mount, &*kept.client_id), ("n", "m/", "c"));
        assert_eq!((kept.principal.as_deref(), kept.expiry), (Some("user:u"), Duration::MAX));
        assert_eq!(kept.absent_since, Some(77));
        let will = kept.will.unwrap();
        assert_eq!(will.delay, Duration::from_secs(30));
        assert_eq!(will.message.remaining(gateway::Instant::default()), Some(Duration::from_secs(5)));
    }

    #[test]
    fn a_subscription_comes_back() {
        let subscribe = Subscribe {
            filter: Filter::parse("$share/g/a/+").unwrap(),
            qos: Qos::AtLeastOnce,
            no_local: true,
            retain_as_published: true,
            retain_handling: 2,
            identifier: 268_435_455,
        };
        assert_eq!(decode_options(b"$share/g/a/+", &encode_options(&subscribe)).unwrap(), subscribe);
    }

    proptest! {
        #[test]
        fn whatever_the_disk_has_is_read_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode_message(Now::default(), &bytes);
            let _ = decode_place(&bytes);
            let _ = Flown::decode(&bytes);
            let _ = decode_session(Now::default(), &bytes);
            let _ = decode_options(&bytes, &bytes);
            let _ = decode_delayed(Now::default(), &bytes);
        }

        #[test]
        fn a_message_that_is_cut_short_is_damaged_or_shorter(cut in 0..60usize) {
            let m = Message::new(Now::default(), "topic", b"0123456789").with_properties(properties());
            let bytes = encoded(&m);
            let at = bytes.len().saturating_sub(cut);
            if let Ok(n) = decode_message(Now::default(), &bytes[..at]) {
                prop_assert!(m.payload().starts_with(n.payload()));
            }
        }
    }
}

//! Messages on the wire (MQTT-SN 1.2, 5): one datagram is one message.

use gateway::Qos;
use wire::{Reader, Writer};

/// Message types (5.2.2).
pub mod kind {
    #![allow(missing_docs, reason = "the names are the specification's")]
    pub const ADVERTISE: u8 = 0x00;
    pub const SEARCHGW: u8 = 0x01;
    pub const GWINFO: u8 = 0x02;
    pub const CONNECT: u8 = 0x04;
    pub const CONNACK: u8 = 0x05;
    pub const WILLTOPICREQ: u8 = 0x06;
    pub const WILLTOPIC: u8 = 0x07;
    pub const WILLMSGREQ: u8 = 0x08;
    pub const WILLMSG: u8 = 0x09;
    pub const REGISTER: u8 = 0x0A;
    pub const REGACK: u8 = 0x0B;
    pub const PUBLISH: u8 = 0x0C;
    pub const PUBACK: u8 = 0x0D;
    pub const PUBCOMP: u8 = 0x0E;
    pub const PUBREC: u8 = 0x0F;
    pub const PUBREL: u8 = 0x10;
    pub const SUBSCRIBE: u8 = 0x12;
    pub const SUBACK: u8 = 0x13;
    pub const UNSUBSCRIBE: u8 = 0x14;
    pub const UNSUBACK: u8 = 0x15;
    pub const PINGREQ: u8 = 0x16;
    pub const PINGRESP: u8 = 0x17;
    pub const DISCONNECT: u8 = 0x18;
    pub const WILLTOPICUPD: u8 = 0x1A;
    pub const WILLTOPICRESP: u8 = 0x1B;
    pub const WILLMSGUPD: u8 = 0x1C;
    pub const WILLMSGRESP: u8 = 0x1D;
    pub const ENCAPSULATED: u8 = 0xFE;
}

/// Bytes that are no message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

impl From<wire::Short> for Malformed {
    fn from(_: wire::Short) -> Self {
        Malformed
    }
}

/// Return codes (5.3.10).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Code {
    /// Accepted.
    Accepted = 0,
    /// Rejected: congestion.
    Congestion = 1,
    /// Rejected: invalid topic id.
    InvalidTopicId = 2,
    /// Rejected: not supported.
    NotSupported = 3,
}

impl Code {
    /// The code of this number; reserved ones say no without a reason.
    pub fn of(number: u8) -> Code {
        match number {
            0 => Code::Accepted,
            1 => Code::Congestion,
            2 => Code::InvalidTopicId,
            _ => Code::NotSupported,
        }
    }
}

/// The Flags octet (5.3.4).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags(pub u8);

impl Flags {
    const DUP: u8 = 0x80;
    const RETAIN: u8 = 0x10;
    const WILL: u8 = 0x08;
    const CLEAN_SESSION: u8 = 0x04;

    /// Flags of a message of this quality.
    pub fn of(qos: Qos, is_dup: bool, is_retained: bool) -> Flags {
        let dup = if is_dup { Flags::DUP } else { 0 };
        let retain = if is_retained { Flags::RETAIN } else { 0 };
        Flags(dup | (qos as u8) << 5 | retain)
    }

    /// With this kind of topic id.
    #[must_use]
    pub fn with_topic_type(self, topic_type: u8) -> Flags {
        Flags(self.0 & !3 | topic_type & 3)
    }

    /// Sent again.
    pub fn is_dup(self) -> bool {
        self.0 & Flags::DUP != 0
    }

    /// The QoS; None is -1.
    pub fn qos(self) -> Option<Qos> {
        Qos::from_u8(self.0 >> 5 & 3)
    }

    /// To be retained.
    pub fn is_retained(self) -> bool {
        self.0 & Flags::RETAIN != 0
    }

    /// CONNECT: a will follows when asked for.
    pub fn has_will(self) -> bool {
        self.0 & Flags::WILL != 0
    }

    /// CONNECT: nothing of an earlier session goes on.
    pub fn is_clean(self) -> bool {
        self.0 & Flags::CLEAN_SESSION != 0
    }

    /// TopicIdType.
    pub fn topic_type(self) -> u8 {
        self.0 & 3
    }
}

/// A topic by its number, which means nothing without its type (5.3.11).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TopicId {
    /// Registered, of this client alone.
    Normal(u16),
    /// Known to both sides beforehand.
    Predefined(u16),
    /// The two octets are the topic's name.
    Short([u8; 2]),
}

impl TopicId {
    fn decode(topic_type: u8, id: u16) -> Result<TopicId, Malformed> {
        match topic_type {
            0 => Ok(TopicId::Normal(id)),
            1 => Ok(TopicId::Predefined(id)),
            2 => Ok(TopicId::Short(id.to_be_bytes())),
            _ => Err(Malformed),
        }
    }

    /// TopicIdType.
    pub fn topic_type(self) -> u8 {
        match self {
            TopicId::Normal(_) => 0,
            TopicId::Predefined(_) => 1,
            TopicId::Short(_) => 2,
        }
    }

    /// The two octets.
    pub fn number(self) -> u16 {
        match self {
            TopicId::Normal(id) | TopicId::Predefined(id) => id,
            TopicId::Short(name) => u16::from_be_bytes(name),
        }
    }
}

/// What SUBSCRIBE and UNSUBSCRIBE name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TopicRef<'a> {
    /// A name, which may have wildcards.
    Name(&'a str),
    /// Predefined or short.
    Id(TopicId),
}

/// A message that a client, or another gateway, sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the fields are the specification's, 5.4")]
pub enum Message<'a> {
    Advertise {
        gateway: u8,
        duration: u16,
    },
    SearchGw {
        radius: u8,
    },
    GwInfo {
        gateway: u8,
    },
    Connect {
        flags: Flags,
        protocol: u8,
        duration: u16,
        client_id: &'a str,
    },
    /// None is the empty one, which deletes the will.
    WillTopic(Option<(Flags, &'a str)>),
    WillMsg(&'a [u8]),
    Register {
        msg_id: u16,
        name: &'a str,
    },
    RegAck {
        topic: u16,
        msg_id: u16,
        code: Code,
    },
    Publish {
        flags: Flags,
        topic: TopicId,
        msg_id: u16,
        data: &'a [u8],
    },
    PubAck {
        topic: u16,
        msg_id: u16,
        code: Code,
    },
    PubComp(u16),
    PubRec(u16),
    PubRel(u16),
    Subscribe {
        flags: Flags,
        msg_id: u16,
        topic: TopicRef<'a>,
    },
    Unsubscribe {
        msg_id: u16,
        topic: TopicRef<'a>,
    },
    PingReq {
        client_id: &'a str,
    },
    PingResp,
    Disconnect {
        duration: Option<u16>,
    },
    WillTopicUpd(Option<(Flags, &'a str)>),
    WillMsgUpd(&'a [u8]),
    /// One that only gateways send to clients.
    Other(u8),
}

/// Length and type of the message at the front (5.2.1), and the rest of the bytes.
fn header(bytes: &[u8]) -> Result<(usize, u8, Reader<'_>), Malformed> {
    let mut r = Reader::new(bytes);
    let length = match r.u8()? {
        // The form of three octets; the length counts all of itself.
        1 => r.u16()?.into(),
        short => usize::from(short),
    };
    Ok((length, r.u8()?, r))
}

/// The octets of a forwarder encapsulation (5.5) and the message within; None if it is none.
pub fn unwrap(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    // Its length is one octet (5.5); then its type, control, and at least one octet of a node.
    let is_one = matches!(bytes, [4..=255, kind::ENCAPSULATED, ..]);
    is_one.then(|| bytes.split_at_checked(bytes[0].into())).flatten()
}

/// What tells the node of an encapsulation's octets from others: they without the radius, which may be another each time.
pub fn node(wrapping: &[u8]) -> &[u8] {
    header(wrapping).map_or(&[], |(_, _, r)| r.rest().get(1..).unwrap_or_default())
}

impl<'a> Message<'a> {
    /// Reads the one message that the bytes are.
    pub fn decode(bytes: &'a [u8]) -> Result<Message<'a>, Malformed> {
        let (length, kind, mut r) = header(bytes)?;
        if length != bytes.len() {
            return Err(Malformed);
        }
        let r = &mut r;
        let message = match kind {
            kind::ADVERTISE => Message::Advertise { gateway: r.u8()?, duration: r.u16()? },
            kind::SEARCHGW => Message::SearchGw { radius: r.u8()? },
            kind::GWINFO => {
                let gateway = r.u8()?;
                r.take_rest();
                Message::GwInfo { gateway }
            }
            kind::CONNECT => {
                let flags = Flags(r.u8()?);
                let protocol = r.u8()?;
                Message::Connect { flags, protocol, duration: r.u16()?, client_id: text(r)? }
            }
            kind::WILLTOPIC => Message::WillTopic(will_topic(r)?),
            kind::WILLTOPICUPD => Message::WillTopicUpd(will_topic(r)?),
            kind::WILLMSG => Message::WillMsg(r.take_rest()),
            kind::WILLMSGUPD => Message::WillMsgUpd(r.take_rest()),
            kind::REGISTER => {
                // The topic id is not relevant from a client (5.4.10).
                r.u16()?;
                Message::Register { msg_id: r.u16()?, name: text(r)? }
            }
            kind::REGACK => Message::RegAck { topic: r.u16()?, msg_id: r.u16()?, code: Code::of(r.u8()?) },
            kind::PUBACK => Message::PubAck { topic: r.u16()?, msg_id: r.u16()?, code: Code::of(r.u8()?) },
            kind::PUBLISH => {
                let flags = Flags(r.u8()?);
                let topic = TopicId::decode(flags.topic_type(), r.u16()?)?;
                Message::Publish { flags, topic, msg_id: r.u16()?, data: r.take_rest() }
            }
            kind::PUBCOMP => Message::PubComp(r.u16()?),
            kind::PUBREC => Message::PubRec(r.u16()?),
            kind::PUBREL => Message::PubRel(r.u16()?),
            kind::SUBSCRIBE => {
                let flags = Flags(r.u8()?);
                Message::Subscribe { flags, msg_id: r.u16()?, topic: topic_ref(flags, r)? }
            }
            kind::UNSUBSCRIBE => {
                let flags = Flags(r.u8()?);
                Message::Unsubscribe { msg_id: r.u16()?, topic: topic_ref(flags, r)? }
            }
            kind::PINGREQ => Message::PingReq { client_id: text(r)? },
            kind::PINGRESP => Message::PingResp,
            kind::DISCONNECT if r.is_empty() => Message::Disconnect { duration: None },
            kind::DISCONNECT => Message::Disconnect { duration: Some(r.u16()?) },
            kind::CONNACK
            | kind::WILLTOPICREQ
            | kind::WILLMSGREQ
            | kind::SUBACK
            | kind::UNSUBACK
            | kind::WILLTOPICRESP
            | kind::WILLMSGRESP => {
                r.take_rest();
                Message::Other(kind)
            }
            _ => return Err(Malformed),
        };
        if r.is_empty() { Ok(message) } else { Err(Malformed) }
    }
}

fn text<'a>(r: &mut Reader<'a>) -> Result<&'a str, Malformed> {
    std::str::from_utf8(r.take_rest()).map_err(|_| Malformed)
}

fn will_topic<'a>(r: &mut Reader<'a>) -> Result<Option<(Flags, &'a str)>, Malformed> {
    if r.is_empty() {
        return Ok(None);
    }
    let flags = Flags(r.u8()?);
    Ok(Some((flags, text(r)?)))
}

fn topic_ref<'a>(flags: Flags, r: &mut Reader<'a>) -> Result<TopicRef<'a>, Malformed> {
    match flags.topic_type() {
        0 => text(r).map(TopicRef::Name),
        kind => Ok(TopicRef::Id(TopicId::decode(kind, r.u16()?)?)),
    }
}

/// Octets of a message whose variable part has so many.
pub fn size(variable: usize) -> usize {
    let n = variable + 2;
    if n > 255 { n + 2 } else { n }
}

/// Appends a message whose variable part `write` appends; false, and nothing, if it is longer than a length can say.
pub fn encode(into: &mut Vec<u8>, kind: u8, write: impl FnOnce(&mut Vec<u8>)) -> bool {
    let begin = into.len();
    into.put(&[0, kind]);
    write(into);
    let length = into.len() - begin;
    if let Some(octet) = u8::try_from(length).ok().filter(|n| *n > 1) {
        into[begin] = octet;
        return true;
    }
    // The form of three octets is two longer, and counts itself (5.2.1).
    let Ok(length) = u16::try_from(length + 2) else {
        into.truncate(begin);
        return false;
    };
    into[begin] = 1;
    into.splice(begin + 1..begin + 1, length.to_be_bytes());
    true
}

/// The name of a message type, for traces.
pub fn name(kind: u8) -> &'static str {
    match kind {
        kind::ADVERTISE => "ADVERTISE",
        kind::SEARCHGW => "SEARCHGW",
        kind::GWINFO => "GWINFO",
        kind::CONNECT => "CONNECT",
        kind::CONNACK => "CONNACK",
        kind::WILLTOPICREQ => "WILLTOPICREQ",
        kind::WILLTOPIC => "WILLTOPIC",
        kind::WILLMSGREQ => "WILLMSGREQ",
        kind::WILLMSG => "WILLMSG",
        kind::REGISTER => "REGISTER",
        kind::REGACK => "REGACK",
        kind::PUBLISH => "PUBLISH",
        kind::PUBACK => "PUBACK",
        kind::PUBCOMP => "PUBCOMP",
        kind::PUBREC => "PUBREC",
        kind::PUBREL => "PUBREL",
        kind::SUBSCRIBE => "SUBSCRIBE",
        kind::SUBACK => "SUBACK",
        kind::UNSUBSCRIBE => "UNSUBSCRIBE",
        kind::UNSUBACK => "UNSUBACK",
        kind::PINGREQ => "PINGREQ",
        kind::PINGRESP => "PINGRESP",
        kind::DISCONNECT => "DISCONNECT",
        kind::WILLTOPICUPD => "WILLTOPICUPD",
        kind::WILLTOPICRESP => "WILLTOPICRESP",
        kind::WILLMSGUPD => "WILLMSGUPD",
        kind::WILLMSGRESP => "WILLMSGRESP",
        _ => "?",
    }
}

/// A message for `tidegate trace`: its type, length and the numbers it begins with.
pub fn describe(bytes: &[u8]) -> String {
    let Ok((length, kind, r)) = header(bytes) else { return format!("? ({} bytes)", bytes.len()) };
    let head: String = r.rest().iter().take(5).map(|b| format!("{b:02x}")).collect();
    format!("{} {head} ({length} bytes)", name(kind))
}

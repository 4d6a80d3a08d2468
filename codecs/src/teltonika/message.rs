//! Codec 12, 13 and 14: text or bytes between the server and the device, or something that is wired to the device.

use bytes::Bytes;
use serde::Serialize;
use wire::calendar;

use crate::read::Reader;
use crate::{Data, Fault, Reply, Up};

pub(super) const CODEC_12: u8 = 0x0c;
pub(super) const CODEC_13: u8 = 0x0d;
pub(super) const CODEC_14: u8 = 0x0e;

/// From the server.
pub(super) const COMMAND: u8 = 0x05;
/// From the device.
const RESPONSE: u8 = 0x06;
/// From the device: the IMEI in a command with Codec 14 is not its own.
const NACK: u8 = 0x11;

#[derive(Debug)]
pub(super) struct Message {
    codec: u8,
    kind: u8,
    timestamp: Option<String>,
    imei: Option<String>,
    bytes: Bytes,
}

/// As it is published.
#[derive(Serialize)]
struct Form<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    codec: Option<u8>,
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    kind: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    timestamp: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    imei: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hex: Option<String>,
}

impl Message {
    /// Codec id, count, messages, count.
    pub(super) fn decode(r: &mut Reader<'_>) -> Result<Vec<Message>, Fault> {
        let codec = r.u8()?;
        let count = r.u8()?;
        let messages = (0..count).map(|_| Message::read(codec, r)).collect::<Result<_, _>>()?;
        let at = r.at();
        if r.u8()? != count || r.left() != 0 {
            return Err(Fault::frame(at, format!("after {count} messages comes their number, and the end")));
        }
        Ok(messages)
    }

    fn read(codec: u8, r: &mut Reader<'_>) -> Result<Message, Fault> {
        let kind = r.u8()?;
        let size = r.u32()? as usize;
        let (mut timestamp, mut imei) = (None, None);
        if codec == CODEC_13 && r.left() > size + 4 {
            // The time in seconds is not counted in the size by some devices.
            timestamp = Some(calendar::Calendar::at(u64::from(r.u32()?) * 1000).to_string());
        }
        let mut content = Reader::new(r.take(size)?, r.at() - size);
        match codec {
            CODEC_13 if timestamp.is_none() => timestamp = Some(time(&mut content)?),
            CODEC_14 => imei = Some(crate::hex::encode(content.take(8)?).trim_start_matches('0').to_owned()),
            _ => {}
        }
        Ok(Message { codec, kind, timestamp, imei, bytes: Bytes::copy_from_slice(content.rest()) })
    }

    /// Whether it may be the answer to a command.
    pub(super) fn is_reply(&self) -> bool {
        self.codec != CODEC_13 && (self.kind == RESPONSE || self.kind == NACK)
    }

    /// As the answer to a command.
    pub(super) fn reply(&self, key: u64) -> Up {
        let is_ok = self.kind == RESPONSE;
        // Whose IMEI it is matters when it was the wrong one.
        let imei = self.imei.as_deref().filter(|_| !is_ok);
        let form = Form { codec: None, kind: None, timestamp: None, imei, ..self.form() };
        Up::Reply(Reply { key, is_ok, value: Data::json("reply", &form).value })
    }

    /// As something that the device says of its own accord.
    pub(super) fn data(&self) -> Up {
        Up::Data(Data::json("message", &self.form()))
    }

    fn form(&self) -> Form<'_> {
        let text = std::str::from_utf8(&self.bytes).ok();
        let text = text.filter(|t| !t.chars().any(|c| c.is_control() && !"\r\n\t".contains(c)));
        Form {
            codec: Some(self.codec),
            kind: Some(self.kind),
            timestamp: self.timestamp.as_deref(),
            imei: self.imei.as_deref(),
            text,
            hex: text.is_none().then(|| crate::hex::encode(&self.bytes)),
        }
    }
}

/// A time within the content: milliseconds in eight bytes, or seconds in four. Eight bytes begin with less than 65,536 for
/// the next 8,000 years, and not with zero since 1970; a clock that was never set is zero in four bytes.
fn time(content: &mut Reader<'_>) -> Result<String, Fault> {
    match content.clone().u32()? {
        1..0x1_0000 if content.left() >= 8 => Ok(calendar::to_text_ms(content.u64()?)),
        _ => Ok(calendar::Calendar::at(u64::from(content.u32()?) * 1000).to_string()),
    }
}

/// An IMEI as Codec 14 has it: two digits a byte, with a zero before the first.
pub(super) fn imei(device: Option<&str>) -> Result<[u8; 8], Fault> {
    let digits = device.filter(|d| d.len() == 15 && d.bytes().all(|b| b.is_ascii_digit()));
    let bytes = digits.and_then(|d| crate::hex::decode(&format!("0{d}")).ok());
    let bytes = bytes.and_then(|b| <[u8; 8]>::try_from(b).ok());
    bytes.ok_or_else(|| Fault::frame(0, "codec 14 needs a device with an IMEI of 15 digits"))
}

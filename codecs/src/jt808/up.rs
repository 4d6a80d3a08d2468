//! What terminals say besides their location: each message as JSON (JT/T 808-2013, 8; JT/T 808-2019, 8).

use std::borrow::Cow;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::location::Location;
use super::{params, text};
use crate::read::Reader;
use crate::{Data, Fault, Reply, Up, hex};

/// What a message is answered with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// 0x8001.
    General,
    /// 0x8100, with a token.
    Register,
    /// 0x8004.
    Time,
    /// 0x8800, of this picture or sound.
    Media(u32),
    /// It is an answer itself.
    Nothing,
}

/// A message's meaning. What answers a command says which one in [`Said::answers`].
#[derive(Debug)]
pub(super) struct Said {
    pub(super) up: Vec<Up>,
    pub(super) answer: Answer,
    pub(super) answers: Option<Answered>,
}

/// An answer to a command.
#[derive(Debug)]
pub(super) struct Answered {
    /// The command's serial number; some answers lack it.
    pub(super) serial: Option<u16>,
    pub(super) is_ok: bool,
    pub(super) value: Vec<u8>,
}

impl Answered {
    pub(super) fn into_up(self, serial: u16) -> Up {
        Up::Reply(Reply { key: serial.into(), is_ok: self.is_ok, value: self.value.into() })
    }
}

impl Said {
    fn value(kind: impl Into<Cow<'static, str>>, value: &Value) -> Said {
        Said::ups(vec![Up::Data(Data::json(kind, value))])
    }

    fn ups(up: Vec<Up>) -> Said {
        Said { up, answer: Answer::General, answers: None }
    }

    /// An answer with something in it, which is published too when `kind` says as what.
    fn reply(serial: Option<u16>, kind: Option<&'static str>, value: Vec<u8>) -> Said {
        let up = kind.map(|kind| data(kind, value.clone()));
        let answers = Some(Answered { serial, is_ok: true, value });
        Said { up: up.into_iter().collect(), answer: Answer::General, answers }
    }

    fn answered_by(self, answer: Answer) -> Said {
        Said { answer, ..self }
    }
}

fn data(kind: &'static str, value: Vec<u8>) -> Up {
    Up::Data(Data { kind: kind.into(), value: value.into(), is_json: true })
}

fn bytes_of(value: &Value) -> Vec<u8> {
    value.to_string().into_bytes()
}

/// A message that is not understood, as it is.
pub(super) fn raw(msg_id: u16, encryption: u8, body: &[u8]) -> Said {
    let mut value = json!({"msg_id": msg_id, "body_hex": hex::encode(body)});
    if encryption != 0 {
        value["encryption"] = encryption.into();
    }
    Said::value("raw", &value)
}

/// Reads a body. Register and authentication are the login's: see [`super::Jt808`].
pub(super) fn decode(msg_id: u16, is_2019: bool, mut body: Reader<'_>) -> Result<Said, Fault> {
    let f = &mut body;
    Ok(match msg_id {
        0x0001 => general(f)?,
        0x0002 => Said::ups(vec![Up::Heartbeat]),
        0x0003 => Said::ups(vec![Up::Logout]),
        0x0004 => Said::ups(vec![Up::Heartbeat]).answered_by(Answer::Time),
        0x0100 => register(f, is_2019)?.answered_by(Answer::Register),
        0x0104 => {
            let serial = f.u16()?;
            let value = json!({"params": params::decode(f)?});
            Said::reply(Some(serial), Some("params"), bytes_of(&value))
        }
        0x0107 => Said::reply(None, Some("attributes"), bytes_of(&attributes(f, is_2019)?)),
        0x0108 => {
            let (kind, result) = (f.u8()?, f.u8()?);
            let result = name(result, &["done", "failed", "cancelled"]);
            Said::value("upgrade", &json!({"type": kind, "result": result}))
        }
        0x0200 => Said::ups(vec![data("location", Location::decode(f, is_2019)?.to_json())]),
        0x0201 | 0x0500 => {
            let serial = f.u16()?;
            Said::reply(Some(serial), Some("location"), Location::decode(f, is_2019)?.to_json())
        }
        0x0301 => Said::value("event", &json!({"id": f.u8()?})),
        0x0302 => {
            let serial = f.u16()?;
            Said::reply(Some(serial), Some("answer"), bytes_of(&json!({"serial": serial, "id": f.u8()?})))
        }
        0x0303 => Said::value("info_demand", &json!({"type": f.u8()?, "is_demanded": f.u8()? == 1})),
        0x0608 => {
            let (kind, count) = (f.u8()?, f.u32()?);
            let value = json!({"type": kind, "count": count, "hex": hex::encode(f.rest())});
            Said::reply(None, Some("areas"), bytes_of(&value))
        }
        0x0700 => {
            let serial = f.u16()?;
            let value = json!({"command": f.u8()?, "hex": hex::encode(f.rest())});
            Said::reply(Some(serial), Some("recorder"), bytes_of(&value))
        }
        0x0701 => {
            let length = f.u32()?;
            Said::value("waybill", &json!({"length": length, "base64": STANDARD.encode(f.rest())}))
        }
        0x0702 => Said::reply(None, Some("driver"), bytes_of(&driver(f, is_2019)?)),
        0x0704 => batch(f, is_2019)?,
        0x0705 => Said::value("can", &can(f)?),
        0x0800 => Said::value("media_event", &media(f)?),
        0x0801 => {
            let value = media_data(f, is_2019)?;
            let id = value["id"].as_u64().and_then(|id| u32::try_from(id).ok()).unwrap_or_default();
            Said::value("media", &value).answered_by(Answer::Media(id))
        }
        0x0802 => {
            let serial = f.u16()?;
            let mut found = Vec::new();
            for _ in 0..f.u16()? {
                let id = f.u32()?;
                let (kind, channel, event) = (f.u8()?, f.u8()?, f.u8()?);
                let mut place = Reader::new(f.take(28)?, 0);
                let location = Location::decode(&mut place, is_2019)?;
                let kind = name(kind, &MEDIA);
                found.push(json!({
                    "id": id, "type": kind, "channel": channel, "event": event, "location": location,
                }));
            }
            Said::reply(Some(serial), Some("media_found"), bytes_of(&json!({"media": found})))
        }
        0x0805 => {
            let (serial, result) = (f.u16()?, f.u8()?);
            let count = if result == 0 { f.u16()? } else { 0 };
            let ids = (0..count).map(|_| f.u32()).collect::<Result<Vec<u32>, Fault>>()?;
            let value = json!({"result": name(result, &["ok", "failed", "no_channel"]), "ids": ids});
            let mut said = Said::reply(Some(serial), None, bytes_of(&value));
            if let Some(answers) = &mut said.answers {
                answers.is_ok = result == 0;
            }
            said
        }
        0x0900 => {
            let kind = f.u8()?;
            let bytes = f.rest();
            let mut value = json!({"type": kind, "base64": STANDARD.encode(bytes)});
            // Most of what comes this way is text of a serial line.
            if let Ok(text) = std::str::from_utf8(bytes)
                && !text.chars().any(|c| c.is_control() && !c.is_ascii_whitespace())
            {
                value["text"] = text.into();
            }
            Said::value("transparent", &value)
        }
        0x0901 => {
            let length = f.u32()?;
            Said::value("compressed", &json!({"length": length, "base64": STANDARD.encode(f.rest())}))
        }
        0x0a00 => Said::value("rsa_key", &json!({"e": f.u32()?, "n": hex::encode(f.take(128)?)})),
        _ => raw(msg_id, 0, f.rest()),
    })
}

/// A name for a number, or the number.
fn name(n: u8, names: &[&str]) -> Value {
    names.get(usize::from(n)).map_or_else(|| n.into(), |name| (*name).into())
}

/// 0x0001: what the terminal made of a command.
fn general(f: &mut Reader<'_>) -> Result<Said, Fault> {
    let (serial, msg_id, result) = (f.u16()?, f.u16()?, f.u8()?);
    let words = name(result, &["ok", "failed", "wrong_message", "not_supported"]);
    let value = bytes_of(&json!({"msg_id": msg_id, "result": words}));
    let answers = Some(Answered { serial: Some(serial), is_ok: result == 0, value });
    Ok(Said { up: Vec::new(), answer: Answer::Nothing, answers })
}

/// 0x0100. Widths grew with each text of the standard: the model had 8 bytes in 2011.
fn register(f: &mut Reader<'_>, is_2019: bool) -> Result<Said, Fault> {
    let (maker, model, id) = match f.left() {
        _ if is_2019 => (11, 30, 30),
        37.. => (5, 20, 7),
        _ => (5, 8, 7),
    };
    let (province, city) = (f.u16()?, f.u16()?);
    let (maker, model, id) = (f.take(maker)?, f.take(model)?, f.take(id)?);
    let colour = f.u8()?;
    let value = json!({
        "province": province, "city": city, "manufacturer": text::id(maker), "model": text::id(model),
        "terminal_id": text::id(id), "plate_colour": colour, "plate": text::gbk(f.rest()),
    });
    Ok(Said::value("register", &value))
}

/// 0x0102: the code, and what the terminal adds since 2019.
pub(super) fn authenticate<'a>(f: &mut Reader<'a>, is_2019: bool) -> Result<(&'a [u8], Option<Up>), Fault> {
    if !is_2019 {
        return Ok((f.rest(), None));
    }
    let length = f.u8()?;
    let code = f.take(length.into())?;
    // What is missing behind the code is no reason to let nobody in.
    if f.left() < 15 + 20 {
        return Ok((code, None));
    }
    let (imei, version) = (f.take(15)?, f.take(20)?);
    let value = json!({"imei": text::id(imei), "software_version": text::gbk(version)});
    Ok((code, Some(Up::Data(Data::json("auth", &value)))))
}

/// 0x0107.
fn attributes(f: &mut Reader<'_>, is_2019: bool) -> Result<Value, Fault> {
    let kind = f.u16()?;
    let maker = f.take(5)?;
    let (model, id) = if is_2019 { (f.take(30)?, f.take(30)?) } else { (f.take(20)?, f.take(7)?) };
    let iccid = text::digits(f.take(10)?);
    let length = f.u8()?;
    let hardware = f.take(length.into())?;
    let length = f.u8()?;
    let firmware = f.take(length.into())?;
    let (gnss, link) = (f.u8()?, f.u8()?);
    Ok(json!({
        "type": kind, "manufacturer": text::id(maker), "model": text::id(model), "terminal_id": text::id(id),
        "iccid": iccid,
        "hardware": text::gbk(hardware), "firmware": text::gbk(firmware), "gnss": gnss, "link": link,
    }))
}

/// 0x0702: a driver's card has been put in or taken out.
fn driver(f: &mut Reader<'_>, is_2019: bool) -> Result<Value, Fault> {
    let status = f.u8()?;
    let time = text::time(f.array()?);
    let status_name = match status {
        1 => json!("inserted"),
        2 => json!("removed"),
        n => n.into(),
    };
    let mut value = json!({"status": status_name, "time": time});
    if status != 1 || f.left() == 0 {
        return Ok(value);
    }
    let result = f.u8()?;
    value["card"] = name(result, &["ok", "not_authenticated", "locked", "removed", "bad_check"]);
    if result == 0 && f.left() > 20 {
        let length = f.u8()?;
        value["name"] = text::gbk(f.take(length.into())?).into();
        value["certificate"] = text::gbk(f.take(20)?).into();
        let length = f.u8()?;
        value["organisation"] = text::gbk(f.take(length.into())?).into();
        // Some makes leave out, or cut short, what follows.
        if f.left() >= 4 {
            value["expires"] = text::digits(f.take(4)?).into();
        }
        if is_2019 && f.left() >= 20 {
            value["id_card"] = text::gbk(f.take(20)?).into();
        }
    }
    Ok(value)
}

/// 0x0704: locations that were kept, each as if it came by itself.
fn batch(f: &mut Reader<'_>, is_2019: bool) -> Result<Said, Fault> {
    let (count, kind) = (f.u16()?, f.u8()?);
    let why = if kind == 1 { "blind" } else { "normal" };
    let mut up = Vec::with_capacity(usize::from(count).min(f.left() / 30));
    for _ in 0..count {
        let length = f.u16()?;
        let at = f.at();
        let mut one = Reader::new(f.take(length.into())?, at);
        let mut location = Location::decode(&mut one, is_2019)?;
        location.batch = Some(why);
        up.push(data("location", location.to_json()));
    }
    Ok(Said::ups(up))
}

/// 0x0705.
fn can(f: &mut Reader<'_>) -> Result<Value, Fault> {
    let count = f.u16()?;
    let time = text::time_of_day(f.array()?);
    let mut frames = Vec::with_capacity(usize::from(count).min(f.left() / 12));
    for _ in 0..count {
        let id = f.u32()?;
        frames.push(json!({
            "id": id & 0x1fff_ffff, "channel": id >> 31,
            "is_extended": id & 1 << 30 != 0, "is_average": id & 1 << 29 != 0,
            "hex": hex::encode(f.take(8)?),
        }));
    }
    Ok(json!({"time": time, "frames": frames}))
}

const MEDIA: [&str; 3] = ["image", "audio", "video"];
const FORMATS: [&str; 5] = ["jpeg", "tif", "mp3", "wav", "wmv"];

/// What 0x0800 and 0x0801 begin with.
fn media(f: &mut Reader<'_>) -> Result<Value, Fault> {
    let id = f.u32()?;
    let (kind, format, event, channel) = (f.u8()?, f.u8()?, f.u8()?, f.u8()?);
    let (kind, format) = (name(kind, &MEDIA), name(format, &FORMATS));
    Ok(json!({"id": id, "type": kind, "format": format, "event": event, "channel": channel}))
}

/// 0x0801.
fn media_data(f: &mut Reader<'_>, is_2019: bool) -> Result<Value, Fault> {
    let mut value = media(f)?;
    let at = f.at();
    let location = Location::decode(&mut Reader::new(f.take(28)?, at), is_2019)?;
    let location = serde_json::to_value(location).unwrap_or_default();
    value["location"] = location;
    value["base64"] = STANDARD.encode(f.rest()).into();
    Ok(value)
}

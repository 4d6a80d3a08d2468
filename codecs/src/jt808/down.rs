//! Commands (JT/T 808, 8): what is published below `dn/` as a message of the platform.

mod areas;
mod media;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::{params, text};
use crate::{Down, hex};
use areas::{circles, ids, polygon, rectangles};
use media::{Audio, One, Transparent, Upload, command_and_bytes, photo, search, vehicle};

/// A command to send.
pub(super) struct Message {
    pub(super) id: u16,
    pub(super) body: Vec<u8>,
}

/// The message that tells more of a command's outcome than 0x0001, if there is one.
pub(super) fn answer_of(msg_id: u16) -> Option<u16> {
    Some(match msg_id {
        0x8104 | 0x8106 => 0x0104,
        0x8107 => 0x0107,
        0x8201 => 0x0201,
        0x8302 => 0x0302,
        0x8500 => 0x0500,
        0x8608 => 0x0608,
        0x8700 => 0x0700,
        0x8702 => 0x0702,
        0x8801 => 0x0805,
        0x8802 => 0x0802,
        _ => return None,
    })
}

/// Whether terminals answer it at all: they do not answer answers.
pub(super) fn is_answered(msg_id: u16) -> bool {
    !matches!(msg_id, 0x8001 | 0x8003 | 0x8004 | 0x8100 | 0x8800)
}

/// Makes a command's message.
pub(super) fn encode(down: &Down<'_>, is_2019: bool) -> Result<Message, String> {
    let (id, body) = match down.kind {
        "raw" => raw(down.json()?)?,
        "text" => (0x8300, text_message(down.json()?, is_2019)?),
        "set_params" => (0x8103, set_params(&down.json::<SetParams>()?.params)?),
        "query_params" => query_params(&down.json()?)?,
        "attributes" => nothing(down, 0x8107)?,
        "control" => (0x8105, control(&down.json()?)?),
        "query_location" => nothing(down, 0x8201)?,
        "track" => {
            let Track { interval, seconds } = down.json()?;
            (0x8202, [&interval.to_be_bytes()[..], &seconds.to_be_bytes()].concat())
        }
        "confirm_alarm" => {
            let ConfirmAlarm { serial, alarms } = down.json()?;
            (0x8203, [&serial.to_be_bytes()[..], &alarms.to_be_bytes()].concat())
        }
        "link_test" => nothing(down, 0x8204)?,
        "events" => (0x8301, list_of_texts(down.json()?)?),
        "question" => (0x8302, question(down.json()?)?),
        "menu" => (0x8303, menu(down.json()?)?),
        "info" => (0x8304, info(&down.json()?)?),
        "call" => {
            let Call { phone, is_listening } = down.json()?;
            (0x8400, [&[u8::from(is_listening)], text::to_gbk(&phone)?.as_ref()].concat())
        }
        "vehicle" => (0x8500, vehicle(&down.json()?, is_2019)?),
        "circles" => (0x8600, circles(&down.json()?, is_2019)?),
        "delete_circles" => (0x8601, ids(&down.json()?)?),
        "rectangles" => (0x8602, rectangles(&down.json()?, is_2019)?),
        "delete_rectangles" => (0x8603, ids(&down.json()?)?),
        "polygon" => (0x8604, polygon(&down.json()?, is_2019)?),
        "delete_polygons" => (0x8605, ids(&down.json()?)?),
        "delete_routes" => (0x8607, ids(&down.json()?)?),
        "recorder" => (0x8700, command_and_bytes(&down.json()?)?),
        "recorder_params" => (0x8701, command_and_bytes(&down.json()?)?),
        "driver" => nothing(down, 0x8702)?,
        "photo" => (0x8801, photo(&down.json()?)),
        "search_media" => (0x8802, search(&down.json()?, None)?),
        "upload_media" => {
            let Upload { search: what, delete } = down.json()?;
            (0x8803, search(&what, Some(delete))?)
        }
        "record_audio" => {
            let Audio { start, seconds, keep, rate } = down.json()?;
            let [high, low] = seconds.to_be_bytes();
            (0x8804, vec![u8::from(start), high, low, u8::from(keep), rate])
        }
        "upload_one" => {
            let One { id, delete } = down.json()?;
            (0x8805, [&id.to_be_bytes()[..], &[u8::from(delete)]].concat())
        }
        "transparent" => {
            let Transparent { kind, base64, hex, text } = down.json()?;
            (0x8900, [&[kind], &bytes(base64.as_deref(), hex.as_deref(), text.as_deref())?[..]].concat())
        }
        other => return Err(format!("jt808 has no command {other:?}; any message can be sent with `raw`")),
    };
    Ok(Message { id, body })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Empty {}

fn nothing(down: &Down<'_>, id: u16) -> Result<(u16, Vec<u8>), String> {
    down.json::<Empty>().map(|Empty {}| (id, Vec::new()))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    msg_id: u16,
    #[serde(default)]
    body_hex: String,
}

fn raw(raw: Raw) -> Result<(u16, Vec<u8>), String> {
    Ok((raw.msg_id, hex::decode(&raw.body_hex)?))
}

fn bytes(base64: Option<&str>, hex: Option<&str>, text: Option<&str>) -> Result<Vec<u8>, String> {
    match (base64, hex, text) {
        (Some(base64), None, None) => STANDARD.decode(base64).map_err(|e| e.to_string()),
        (None, Some(hex), None) => hex::decode(hex),
        (None, None, Some(text)) => text::to_gbk(text).map(std::borrow::Cow::into_owned),
        _ => Err("needs exactly one of `base64`, `hex` and `text`".to_owned()),
    }
}

fn byte(length: usize, of: &str) -> Result<u8, String> {
    u8::try_from(length).map_err(|_| format!("more than 255 {of}"))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Text {
    text: String,
    /// Table 36; display and loudspeaker if not said.
    #[serde(default = "display_and_speak")]
    flag: u8,
    /// 2019: 1 notice, 2 service.
    #[serde(default = "one", rename = "type")]
    kind: u8,
}

fn display_and_speak() -> u8 {
    1 << 2 | 1 << 3
}

fn one() -> u8 {
    1
}

fn text_message(message: Text, is_2019: bool) -> Result<Vec<u8>, String> {
    let mut body = vec![message.flag];
    if is_2019 {
        body.push(message.kind);
    }
    body.extend_from_slice(&text::to_gbk(&message.text)?);
    Ok(body)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SetParams {
    params: Map<String, Value>,
}

fn set_params(map: &Map<String, Value>) -> Result<Vec<u8>, String> {
    let mut body = Vec::new();
    params::encode(map, &mut body)?;
    Ok(body)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct QueryParams {
    params: Option<Vec<String>>,
}

fn query_params(query: &QueryParams) -> Result<(u16, Vec<u8>), String> {
    let Some(names) = &query.params else { return Ok((0x8104, Vec::new())) };
    let mut body = vec![byte(names.len(), "parameters")?];
    for name in names {
        body.extend_from_slice(&params::id(name)?.to_be_bytes());
    }
    Ok((0x8106, body))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Control {
    command: Value,
    #[serde(default)]
    param: String,
}

/// Table 17, from one.
const CONTROLS: [&str; 7] = ["upgrade", "connect", "off", "reset", "factory_reset", "data_off", "radio_off"];

fn control(control: &Control) -> Result<Vec<u8>, String> {
    let named = |name: &str| CONTROLS.iter().zip(1u8..).find(|(known, _)| **known == name).map(|(_, n)| n);
    let number = |value: &Value| value.as_u64().and_then(|n| u8::try_from(n).ok());
    let command = number(&control.command).or_else(|| control.command.as_str().and_then(named));
    let command = command.ok_or_else(|| format!("`command` is a number or one of {CONTROLS:?}"))?;
    Ok([&[command], text::to_gbk(&control.param)?.as_ref()].concat())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Track {
    /// Seconds; zero ends it.
    interval: u16,
    /// How long.
    #[serde(default)]
    seconds: u32,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ConfirmAlarm {
    serial: u16,
    alarms: u32,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Texts {
    /// Table 38: 0 deletes all, 1 replaces, 2 adds, 3 changes, 4 deletes these.
    #[serde(rename = "type")]
    kind: u8,
    #[serde(default)]
    events: Vec<Item>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Item {
    id: u8,
    #[serde(default)]
    text: String,
}

fn list_of_texts(texts: Texts) -> Result<Vec<u8>, String> {
    let mut body = vec![texts.kind];
    if texts.kind != 0 {
        body.push(byte(texts.events.len(), "events")?);
    }
    for event in &texts.events {
        let text = text::to_gbk(&event.text)?;
        body.extend_from_slice(&[event.id, byte(text.len(), "bytes of text")?]);
        body.extend_from_slice(&text);
    }
    Ok(body)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Question {
    /// Bit 0 urgent, 3 loudspeaker, 4 advertising screen.
    #[serde(default = "speak")]
    flag: u8,
    text: String,
    answers: Vec<Item>,
}

fn speak() -> u8 {
    1 << 3
}

fn question(question: Question) -> Result<Vec<u8>, String> {
    let text = text::to_gbk(&question.text)?;
    let mut body = vec![question.flag, byte(text.len(), "bytes of text")?];
    body.extend_from_slice(&text);
    for answer in &question.answers {
        let text = text::to_gbk(&answer.text)?;
        let length = u16::try_from(text.len()).map_err(|_| "an answer is too long".to_owned())?;
        body.push(answer.id);
        body.extend_from_slice(&length.to_be_bytes());
        body.extend_from_slice(&text);
    }
    Ok(body)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Menu {
    /// 0 deletes all, 1 replaces, 2 adds, 3 changes.
    #[serde(rename = "type")]
    kind: u8,
    #[serde(default)]
    items: Vec<Item>,
}

fn menu(menu: Menu) -> Result<Vec<u8>, String> {
    let mut body = vec![menu.kind];
    if menu.kind != 0 {
        body.push(byte(menu.items.len(), "items")?);
    }
    for item in &menu.items {
        let text = text::to_gbk(&item.text)?;
        let length = u16::try_from(text.len()).map_err(|_| "an item is too long".to_owned())?;
        body.push(item.id);
        body.extend_from_slice(&length.to_be_bytes());
        body.extend_from_slice(&text);
    }
    Ok(body)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Info {
    #[serde(rename = "type")]
    kind: u8,
    text: String,
}

fn info(info: &Info) -> Result<Vec<u8>, String> {
    let text = text::to_gbk(&info.text)?;
    let length = u16::try_from(text.len()).map_err(|_| "the text is too long".to_owned())?;
    Ok([&[info.kind], &length.to_be_bytes()[..], &text].concat())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Call {
    phone: String,
    #[serde(default)]
    is_listening: bool,
}

//! Commands: parameters (0x80 and 0x81) and control (0x82) of annex B.3.6.

use serde::Deserialize;
use serde_json::{Map, Value};

use super::frame::Text;
use super::text_of;
use crate::read::Reader;
use crate::{Down, Fault, hex};

/// How a parameter is written.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Byte,
    Word,
    /// A word in 2016, a byte in 2025.
    Shrunk,
    /// Five characters.
    Version,
    /// As long as the parameter before it says.
    Domain,
}

use Kind::{Byte, Domain, Shrunk, Version, Word};

/// Table B.10. Of a domain, its length is the parameter before.
const PARAMS: [(u8, &str, Kind); 14] = [
    (0x01, "store_interval_ms", Word),
    (0x02, "report_interval", Shrunk),
    (0x03, "alarm_report_interval", Shrunk),
    (0x05, "platform", Domain),
    (0x06, "platform_port", Word),
    (0x07, "hardware", Version),
    (0x08, "firmware", Version),
    (0x09, "heartbeat_interval", Byte),
    (0x0a, "terminal_timeout", Word),
    (0x0b, "platform_timeout", Word),
    (0x0c, "login_interval_minutes", Byte),
    (0x0e, "public_platform", Domain),
    (0x0f, "public_platform_port", Word),
    (0x10, "is_sampled", Byte),
];

/// How many, and each with its identifier. What comes after one that nobody knows is `rest`.
pub(super) fn params(text: Text, r: &mut Reader<'_>) -> Result<Map<String, Value>, Fault> {
    let mut params = Map::new();
    let mut length = 0;
    for _ in 0..r.u8()? {
        let id = r.u8()?;
        if matches!(id, 0x04 | 0x0d) {
            length = r.u8()?;
            continue;
        }
        let Some((_, name, kind)) = PARAMS.iter().find(|(known, _, _)| *known == id) else {
            let rest = [&[id], r.rest()].concat();
            params.insert("rest".to_owned(), hex::encode(&rest).into());
            break;
        };
        let value = match kind {
            Word => r.u16()?.into(),
            Shrunk if text == Text::Of2016 => r.u16()?.into(),
            Byte | Shrunk => r.u8()?.into(),
            Version => text_of(r.take(5)?).into(),
            Domain => text_of(r.take(length.into())?).into(),
        };
        params.insert((*name).to_owned(), value);
    }
    Ok(params)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Query {
    params: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Set {
    params: Map<String, Value>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Control {
    command: Value,
    /// Of an alarm (0x06).
    level: Option<u8>,
    #[serde(default)]
    text: String,
    hex: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Activation {
    is_activated: bool,
    #[serde(default)]
    info: u8,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    command: u8,
    #[serde(default)]
    body_hex: String,
}

/// Table B.12, from one.
const CONTROLS: [&str; 7] = ["upgrade", "off", "reset", "factory_reset", "disconnect", "alarm", "sampling"];

/// A command and its data unit.
pub(super) fn encode(down: &Down<'_>, text: Text, now: [u8; 6]) -> Result<(u8, Vec<u8>), String> {
    let mut unit = now.to_vec();
    let command = match down.kind {
        "query" => {
            query(&down.json::<Query>()?, &mut unit)?;
            0x80
        }
        "set" => {
            set(&down.json::<Set>()?.params, text, &mut unit)?;
            0x81
        }
        "control" => {
            control(&down.json()?, &mut unit)?;
            0x82
        }
        "activation" => {
            let Activation { is_activated, info } = down.json()?;
            unit = vec![if is_activated { 1 } else { 2 }, info];
            0x0a
        }
        "raw" => {
            let Raw { command, body_hex } = down.json()?;
            unit = hex::decode(&body_hex)?;
            command
        }
        other => return Err(format!("gbt32960 has no command {other:?}; any packet can be sent with `raw`")),
    };
    Ok((command, unit))
}

fn find(name: &str) -> Result<(u8, Kind), String> {
    let found = PARAMS.iter().find(|(_, known, _)| *known == name);
    found.map(|(id, _, kind)| (*id, *kind)).ok_or_else(|| format!("no parameter is called {name:?}"))
}

fn query(query: &Query, unit: &mut Vec<u8>) -> Result<(), String> {
    let mut ids = Vec::new();
    for name in &query.params {
        let (id, kind) = find(name)?;
        if kind == Domain {
            ids.push(id - 1);
        }
        ids.push(id);
    }
    unit.push(count(ids.len())?);
    unit.extend(ids);
    Ok(())
}

/// The largest count that is one (table B.9).
fn count(n: usize) -> Result<u8, String> {
    u8::try_from(n).ok().filter(|n| *n <= 252).ok_or_else(|| "more than 252 parameters at once".to_owned())
}

fn set(params: &Map<String, Value>, text: Text, unit: &mut Vec<u8>) -> Result<(), String> {
    let mut number = 0;
    let mut body = Vec::new();
    for (name, value) in params {
        let (id, kind) = find(name)?;
        let bad = |what: &str| format!("{name} {what}");
        let words = || value.as_str().ok_or_else(|| bad("needs text"));
        let number_of =
            |most: u64| value.as_u64().filter(|n| *n <= most).ok_or_else(|| bad("needs a number"));
        match kind {
            Word | Shrunk if kind == Word || text == Text::Of2016 => {
                let n = u16::try_from(number_of(0xfffd)?).unwrap_or_default();
                body.push(id);
                body.extend_from_slice(&n.to_be_bytes());
            }
            Version => {
                let words = words()?;
                let bytes: [u8; 5] = words.as_bytes().try_into().map_err(|_| bad("needs five characters"))?;
                body.push(id);
                body.extend_from_slice(&bytes);
            }
            Domain => {
                let words = words()?;
                let length = u8::try_from(words.len()).map_err(|_| bad("is too long"))?;
                body.extend_from_slice(&[id - 1, length, id]);
                body.extend_from_slice(words.as_bytes());
                number += 1;
            }
            _ => body.extend_from_slice(&[id, u8::try_from(number_of(0xfd)?).unwrap_or_default()]),
        }
        number += 1;
    }
    unit.push(count(number)?);
    unit.extend(body);
    Ok(())
}

fn control(control: &Control, unit: &mut Vec<u8>) -> Result<(), String> {
    let named = |name: &str| CONTROLS.iter().zip(1u8..).find(|(known, _)| **known == name).map(|(_, n)| n);
    let number = control.command.as_u64().and_then(|n| u8::try_from(n).ok());
    let command = number.or_else(|| control.command.as_str().and_then(named));
    let command = command.ok_or_else(|| format!("`command` is a number or one of {CONTROLS:?}"))?;
    unit.push(command);
    if command == 6 && control.level.is_none() && control.hex.is_none() {
        return Err("an alarm needs its `level`".to_owned());
    }
    unit.extend(control.level);
    unit.extend_from_slice(control.text.as_bytes());
    if let Some(digits) = &control.hex {
        unit.extend(hex::decode(digits)?);
    }
    Ok(())
}

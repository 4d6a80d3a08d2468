//! Parameters of a terminal (JT/T 808-2013, table 12; JT/T 808-2019, table 11): 0x8103 sets them, 0x0104 tells
//! them.

use serde_json::{Map, Value};

use super::text;
use crate::Fault;
use crate::hex;
use crate::read::Reader;

/// How the value is written.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Byte,
    Word,
    Dword,
    Text,
}

use Kind::{Byte, Dword, Text, Word};

/// Identifier, name in JSON and kind, in the standard's order.
const PARAMS: [(u32, &str, Kind); 80] = [
    (0x0001, "heartbeat_interval", Dword),
    (0x0002, "tcp_timeout", Dword),
    (0x0003, "tcp_retries", Dword),
    (0x0004, "udp_timeout", Dword),
    (0x0005, "udp_retries", Dword),
    (0x0006, "sms_timeout", Dword),
    (0x0007, "sms_retries", Dword),
    (0x0010, "apn", Text),
    (0x0011, "apn_user", Text),
    (0x0012, "apn_password", Text),
    (0x0013, "server", Text),
    (0x0014, "backup_apn", Text),
    (0x0015, "backup_apn_user", Text),
    (0x0016, "backup_apn_password", Text),
    (0x0017, "backup_server", Text),
    (0x0018, "tcp_port", Dword),
    (0x0019, "udp_port", Dword),
    (0x001a, "ic_server", Text),
    (0x001b, "ic_tcp_port", Dword),
    (0x001c, "ic_udp_port", Dword),
    (0x001d, "ic_backup_server", Text),
    (0x0020, "report_strategy", Dword),
    (0x0021, "report_scheme", Dword),
    (0x0022, "no_driver_report_interval", Dword),
    (0x0027, "sleep_report_interval", Dword),
    (0x0028, "alarm_report_interval", Dword),
    (0x0029, "report_interval", Dword),
    (0x002c, "report_distance", Dword),
    (0x002d, "no_driver_report_distance", Dword),
    (0x002e, "sleep_report_distance", Dword),
    (0x002f, "alarm_report_distance", Dword),
    (0x0030, "turn_angle", Dword),
    (0x0031, "fence_radius", Word),
    (0x0040, "platform_phone", Text),
    (0x0041, "reset_phone", Text),
    (0x0042, "factory_reset_phone", Text),
    (0x0043, "sms_phone", Text),
    (0x0044, "sms_alarm_phone", Text),
    (0x0045, "answer_strategy", Dword),
    (0x0046, "call_seconds", Dword),
    (0x0047, "month_call_seconds", Dword),
    (0x0048, "listen_phone", Text),
    (0x0049, "privileged_sms_phone", Text),
    (0x0050, "alarm_mask", Dword),
    (0x0051, "alarm_sms", Dword),
    (0x0052, "alarm_photo", Dword),
    (0x0053, "alarm_photo_keep", Dword),
    (0x0054, "key_alarms", Dword),
    (0x0055, "max_speed", Dword),
    (0x0056, "overspeed_seconds", Dword),
    (0x0057, "driving_limit", Dword),
    (0x0058, "daily_driving_limit", Dword),
    (0x0059, "rest_seconds", Dword),
    (0x005a, "parking_limit", Dword),
    (0x005b, "overspeed_warning", Word),
    (0x005c, "fatigue_warning", Word),
    (0x005d, "collision", Word),
    (0x005e, "rollover_angle", Word),
    (0x0064, "photo_by_time", Dword),
    (0x0065, "photo_by_distance", Dword),
    (0x0070, "image_quality", Dword),
    (0x0071, "brightness", Dword),
    (0x0072, "contrast", Dword),
    (0x0073, "saturation", Dword),
    (0x0074, "chroma", Dword),
    (0x0080, "odometer", Dword),
    (0x0081, "province", Word),
    (0x0082, "city", Word),
    (0x0083, "plate", Text),
    (0x0084, "plate_colour", Byte),
    (0x0090, "gnss_mode", Byte),
    (0x0091, "gnss_baud", Byte),
    (0x0092, "gnss_output_rate", Byte),
    (0x0093, "gnss_sample_interval", Dword),
    (0x0094, "gnss_upload_mode", Byte),
    (0x0095, "gnss_upload_setting", Dword),
    (0x0100, "can1_interval", Dword),
    (0x0101, "can1_upload_interval", Word),
    (0x0102, "can2_interval", Dword),
    (0x0103, "can2_upload_interval", Word),
];

/// The identifier of a parameter that is named, or written `0x0029`.
pub(super) fn id(name: &str) -> Result<u32, String> {
    let known = PARAMS.iter().find(|(_, known, _)| *known == name).map(|(id, _, _)| *id);
    let number = || u32::from_str_radix(name.strip_prefix("0x")?, 16).ok();
    known
        .or_else(number)
        .ok_or_else(|| format!("no parameter is called {name:?}; one may be written as 0x0029"))
}

/// A list with its length before it, as name and value.
pub(super) fn decode(fields: &mut Reader<'_>) -> Result<Map<String, Value>, Fault> {
    let mut params = Map::new();
    for _ in 0..fields.u8()? {
        let id = fields.u32()?;
        let length = fields.u8()?;
        let value = fields.take(length.into())?;
        let known = PARAMS.iter().find(|(known, _, _)| *known == id);
        let name = known.map_or_else(|| format!("0x{id:04x}"), |(_, name, _)| (*name).to_owned());
        let number = || value.iter().fold(0u32, |n, byte| n << 8 | u32::from(*byte)).into();
        let value = match (known.map(|(_, _, kind)| kind), value.len()) {
            (Some(Byte), 1) | (Some(Word), 2) | (Some(Dword), 4) => number(),
            (Some(Text), _) => text::gbk(value).into(),
            _ => serde_json::json!({"hex": hex::encode(value)}),
        };
        params.insert(name, value);
    }
    Ok(params)
}

/// The list that [`decode`] reads. What is no known number or text is `{"hex": "…"}`.
pub(super) fn encode(params: &Map<String, Value>, into: &mut Vec<u8>) -> Result<(), String> {
    let count = u8::try_from(params.len()).map_err(|_| "more than 255 parameters at once".to_owned())?;
    into.push(count);
    for (name, value) in params {
        let id = id(name)?;
        let kind = PARAMS.iter().find(|(known, _, _)| *known == id).map(|(_, _, kind)| *kind);
        let bytes = one(kind, value).map_err(|why| format!("{name}: {why}"))?;
        let length = u8::try_from(bytes.len()).map_err(|_| format!("{name} is longer than 255 bytes"))?;
        into.extend_from_slice(&id.to_be_bytes());
        into.push(length);
        into.extend_from_slice(&bytes);
    }
    Ok(())
}

fn one(kind: Option<Kind>, value: &Value) -> Result<Vec<u8>, String> {
    if let Some(digits) = value.get("hex").and_then(Value::as_str) {
        return hex::decode(digits);
    }
    let number = || value.as_u64().and_then(|n| u32::try_from(n).ok()).ok_or("needs a number below 2^32");
    let kind = kind.ok_or("is not known, and needs its value as {\"hex\": \"…\"}")?;
    Ok(match kind {
        Byte => vec![u8::try_from(number()?).map_err(|_| "is more than 255")?],
        Word => u16::try_from(number()?).map_err(|_| "is more than 65535")?.to_be_bytes().to_vec(),
        Dword => number()?.to_be_bytes().to_vec(),
        Text => text::to_gbk(value.as_str().ok_or("needs text")?)?.into_owned(),
    })
}

//! Realtime information: blocks of what is measured, each after its type (GB/T 32960.3-2016, 7.2; 2025, 7.2.4).

use serde_json::{Map, Value, json};

use super::frame::Text;
use super::time;
use crate::read::Reader;
use crate::{Fault, hex};

/// How a number is written. The two largest that its bytes can hold say that it is wrong, and that there is none.
#[derive(Clone, Copy)]
enum Kind {
    /// Bytes, parts of a unit, and what is taken off.
    Number(usize, u16, i64),
    /// A byte, and names from this number on.
    Named(u8, &'static [&'static str]),
    /// Gear, with whether there is driving and braking force (annex A.1).
    Gear,
}

use Kind::{Gear, Named, Number};

/// Name and kind of each field of a block, in order.
type Fields = &'static [(&'static str, Kind)];

const ON_OFF: Kind = Named(1, &["on", "off"]);
const CELSIUS: Kind = Number(1, 1, 40);
const BYTE: Kind = Number(1, 1, 0);
const WORD: Kind = Number(2, 1, 0);
const TENTHS: Kind = Number(2, 10, 0);
const VOLTS: Kind = Number(2, 1000, 0);

const VEHICLE: [(&str, Kind); 6] = [
    ("state", Named(1, &["started", "off", "other"])),
    ("charging", Named(1, &["parked", "driving", "not_charging", "charged"])),
    ("mode", Named(1, &["electric", "hybrid", "fuel"])),
    ("speed", TENTHS),
    ("mileage_km", Number(4, 10, 0)),
    ("voltage", TENTHS),
];

/// 2016, table 9.
const VEHICLE_2016: Fields = &[
    ("current", Number(2, 10, 1000)),
    ("soc", BYTE),
    ("dc_dc", ON_OFF),
    ("gear", Gear),
    ("insulation_kohm", WORD),
    ("accelerator", BYTE),
    ("brake", BYTE),
];

/// 2025, table 10.
const VEHICLE_2025: Fields = &[
    ("current", Number(2, 10, 3000)),
    ("soc", BYTE),
    ("dc_dc", ON_OFF),
    ("gear", Gear),
    ("insulation_kohm", WORD),
];

const MOTOR_STATE: Kind = Named(1, &["consuming", "generating", "off", "ready"]);

/// 2016, table 11.
const MOTOR_2016: Fields = &[
    ("id", BYTE),
    ("state", MOTOR_STATE),
    ("controller_temperature", CELSIUS),
    ("rpm", Number(2, 1, 20_000)),
    ("torque", Number(2, 10, 2000)),
    ("temperature", CELSIUS),
    ("controller_voltage", TENTHS),
    ("controller_current", Number(2, 10, 1000)),
];

/// 2025, table 16.
const MOTOR_2025: Fields = &[
    ("id", BYTE),
    ("state", MOTOR_STATE),
    ("controller_temperature", CELSIUS),
    ("rpm", Number(2, 1, 32_000)),
    ("torque", Number(4, 10, 20_000)),
    ("temperature", CELSIUS),
];

/// 2016, table 12, before and after the probes.
const FUEL_CELL_2016: Fields =
    &[("voltage", TENTHS), ("current", TENTHS), ("kg_per_100km", Number(2, 100, 0))];
const HYDROGEN_2016: Fields = &[
    ("hydrogen_temperature", Number(2, 10, 40)),
    ("hydrogen_temperature_probe", BYTE),
    ("hydrogen_mg_per_kg", WORD),
    ("hydrogen_sensor", BYTE),
    ("hydrogen_mpa", TENTHS),
    ("hydrogen_pressure_sensor", BYTE),
    ("dc_dc", ON_OFF),
];

/// 2025, 7.2.4.5.
const HYDROGEN_2025: Fields = &[
    ("hydrogen_temperature", Number(2, 1, 40)),
    ("hydrogen_temperature_probe", BYTE),
    ("hydrogen_concentration", Number(2, 10_000, 0)),
    ("hydrogen_sensor", BYTE),
    ("hydrogen_mpa", TENTHS),
    ("hydrogen_pressure_sensor", BYTE),
    ("dc_dc", ON_OFF),
    ("hydrogen_left", BYTE),
    ("dc_dc_temperature", CELSIUS),
];

/// 2025, 7.2.4.6, before the temperatures.
const STACK: Fields = &[
    ("id", BYTE),
    ("voltage", TENTHS),
    ("current", TENTHS),
    ("hydrogen_kpa", Number(2, 10, 100)),
    ("air_kpa", Number(2, 10, 100)),
    ("air_temperature", CELSIUS),
];

/// 2016, table 13.
const ENGINE_2016: Fields = &[("state", ON_OFF), ("rpm", WORD), ("litres_per_100km", Number(2, 100, 0))];
/// 2025, table 20.
const ENGINE_2025: Fields = &[("rpm", WORD)];

/// 2016, table 16.
const EXTREMES: Fields = &[
    ("highest_voltage_pack", BYTE),
    ("highest_voltage_cell", BYTE),
    ("highest_voltage", VOLTS),
    ("lowest_voltage_pack", BYTE),
    ("lowest_voltage_cell", BYTE),
    ("lowest_voltage", VOLTS),
    ("highest_temperature_pack", BYTE),
    ("highest_temperature_probe", BYTE),
    ("highest_temperature", CELSIUS),
    ("lowest_temperature_pack", BYTE),
    ("lowest_temperature_probe", BYTE),
    ("lowest_temperature", CELSIUS),
];

/// 2025, 7.2.4.13.
const CAPACITOR_EXTREMES: Fields = &[
    ("highest_voltage_system", BYTE),
    ("highest_voltage_cell", WORD),
    ("highest_voltage", VOLTS),
    ("lowest_voltage_system", BYTE),
    ("lowest_voltage_cell", WORD),
    ("lowest_voltage", VOLTS),
    ("highest_temperature_system", BYTE),
    ("highest_temperature_probe", WORD),
    ("highest_temperature", CELSIUS),
    ("lowest_temperature_system", BYTE),
    ("lowest_temperature_probe", WORD),
    ("lowest_temperature", CELSIUS),
];

/// Names of the bits of the alarms (2016, table 18; 2025, table 24 from 19 on).
const ALARMS: [&str; 28] = [
    "temperature_difference",
    "battery_hot",
    "pack_overvoltage",
    "pack_undervoltage",
    "soc_low",
    "cell_overvoltage",
    "cell_undervoltage",
    "soc_high",
    "soc_jump",
    "pack_mismatch",
    "cell_inconsistency",
    "insulation",
    "dc_dc_hot",
    "brakes",
    "dc_dc",
    "motor_controller_hot",
    "high_voltage_interlock",
    "motor_hot",
    "overcharge",
    "motor_overspeed",
    "motor_overcurrent",
    "capacitor_hot",
    "capacitor_pressure",
    "thermal_event",
    "hydrogen_leak",
    "hydrogen_pressure",
    "hydrogen_temperature",
    "stack_hot",
];

/// Time and blocks (7.2.1, table 7).
pub(super) fn decode(text: Text, r: &mut Reader<'_>) -> Result<Value, Fault> {
    let mut all = Map::new();
    all.insert("time".to_owned(), time(r.array()?));
    let mut custom = Vec::new();
    while r.left() > 0 {
        let id = r.u8()?;
        let (name, value) = match (id, text) {
            (0x01, _) => ("vehicle", vehicle(text, r)?),
            (0x02, Text::Of2016) => ("motors", list(r, MOTOR_2016)?),
            (0x02, Text::Of2025) => ("motors", list(r, MOTOR_2025)?),
            (0x03, Text::Of2016) => ("fuel_cell", fuel_cell(r)?),
            (0x03, Text::Of2025) => ("fuel_cell", block(r, HYDROGEN_2025)?.into()),
            (0x04, Text::Of2016) => ("engine", block(r, ENGINE_2016)?.into()),
            (0x04, Text::Of2025) => ("engine", block(r, ENGINE_2025)?.into()),
            (0x05, _) => ("position", position(text, r)?),
            (0x06, Text::Of2016) => ("extremes", block(r, EXTREMES)?.into()),
            (0x07, Text::Of2016) | (0x06, Text::Of2025) => ("alarms", alarms(text, r)?),
            (0x08, Text::Of2016) | (0x07, Text::Of2025) => ("voltages", voltages(text, r)?),
            (0x09, Text::Of2016) | (0x08, Text::Of2025) => ("temperatures", temperatures(r)?),
            (0x30, Text::Of2025) => ("stacks", stacks(r)?),
            (0x31, Text::Of2025) => ("capacitor", capacitor(r)?),
            (0x32, Text::Of2025) => ("capacitor_extremes", block(r, CAPACITOR_EXTREMES)?.into()),
            (0xff, Text::Of2025) => ("signature", signature(r)?),
            (0x80..=0xfe, _) => {
                let length = r.u16()?;
                custom.push(json!({"id": id, "hex": hex::encode(r.take(length.into())?)}));
                continue;
            }
            // Nobody can say how long it is.
            _ => ("rest", json!({"id": id, "hex": hex::encode(r.rest())})),
        };
        all.insert(name.to_owned(), value);
    }
    if !custom.is_empty() {
        all.insert("custom".to_owned(), custom.into());
    }
    Ok(all.into())
}

/// A number; null if it is one of the two that say that there is none.
fn number(r: &mut Reader<'_>, bytes: usize, parts: u16, offset: i64) -> Result<Value, Fault> {
    let n = r.uint(bytes)?;
    let largest = u64::MAX >> (64 - 8 * bytes);
    if n >= largest - 1 {
        return Ok(Value::Null);
    }
    // At most four bytes: exact in both.
    let n = i64::try_from(n).unwrap_or_default() - offset * i64::from(parts);
    Ok(if parts == 1 { n.into() } else { (n as f64 / f64::from(parts)).into() })
}

fn field(r: &mut Reader<'_>, kind: Kind) -> Result<Value, Fault> {
    match kind {
        Number(bytes, parts, offset) => number(r, bytes, parts, offset),
        Named(first, names) => {
            let n = r.u8()?;
            let name = n.checked_sub(first).and_then(|n| names.get(usize::from(n)));
            Ok(match (name, n) {
                (Some(name), _) => (*name).into(),
                (None, 0xfe | 0xff) => Value::Null,
                (None, n) => n.into(),
            })
        }
        Gear => {
            let n = r.u8()?;
            let gear = match n & 15 {
                0 => json!("N"),
                13 => json!("R"),
                14 => json!("D"),
                15 => json!("P"),
                n => n.into(),
            };
            Ok(json!({"gear": gear, "is_driving": n & 1 << 5 != 0, "is_braking": n & 1 << 4 != 0}))
        }
    }
}

fn block(r: &mut Reader<'_>, fields: Fields) -> Result<Map<String, Value>, Fault> {
    fields.iter().map(|(name, kind)| Ok(((*name).to_owned(), field(r, *kind)?))).collect()
}

/// How many there are, and as many blocks. The two counts that say that there is no count are none.
fn list(r: &mut Reader<'_>, fields: Fields) -> Result<Value, Fault> {
    let count = count(r.u8()?);
    (0..count)
        .map(|_| Ok(Value::Object(block(r, fields)?)))
        .collect::<Result<Vec<_>, Fault>>()
        .map(Value::from)
}

fn count(n: u8) -> u8 {
    if n >= 0xfe { 0 } else { n }
}

fn numbers(r: &mut Reader<'_>, count: usize, bytes: usize, parts: u16, offset: i64) -> Result<Value, Fault> {
    // A count is worth nothing until as many bytes are there.
    if r.left() < count * bytes {
        r.take(count * bytes)?;
    }
    let all = (0..count).map(|_| number(r, bytes, parts, offset));
    all.collect::<Result<Vec<_>, Fault>>().map(Value::from)
}

/// As many degrees as the two bytes before them say.
fn degrees(r: &mut Reader<'_>) -> Result<Value, Fault> {
    let n = r.u16()?;
    numbers(r, if n >= 0xfffe { 0 } else { n.into() }, 1, 1, 40)
}

fn vehicle(text: Text, r: &mut Reader<'_>) -> Result<Value, Fault> {
    let mut all = Map::new();
    for (name, kind) in VEHICLE.iter().chain(if text == Text::Of2016 { VEHICLE_2016 } else { VEHICLE_2025 }) {
        all.insert((*name).to_owned(), field(r, *kind)?);
    }
    Ok(all.into())
}

fn fuel_cell(r: &mut Reader<'_>) -> Result<Value, Fault> {
    let mut all = block(r, FUEL_CELL_2016)?;
    all.insert("temperatures".to_owned(), degrees(r)?);
    all.extend(block(r, HYDROGEN_2016)?);
    Ok(all.into())
}

/// 2016, table 14; 2025 says which system of coordinates it is (table 21).
fn position(text: Text, r: &mut Reader<'_>) -> Result<Value, Fault> {
    let state = r.u8()?;
    let system = if text == Text::Of2025 { Some(r.u8()?) } else { None };
    let mut degrees = |is_negative: bool| {
        let n = r.u32()?;
        let degrees = f64::from(n) / 1e6;
        let sign = if is_negative { -1.0 } else { 1.0 };
        Ok::<Value, Fault>(if n >= 0xffff_fffe { Value::Null } else { (sign * degrees).into() })
    };
    let lon = degrees(state & 1 << 2 != 0)?;
    let lat = degrees(state & 1 << 1 != 0)?;
    let mut value = json!({"is_valid": state & 1 == 0, "lat": lat, "lon": lon});
    if let Some(system) = system {
        let name = system.checked_sub(1).and_then(|n| ["wgs84", "gcj02", "other"].get(usize::from(n)));
        value["system"] = name.map_or_else(|| system.into(), |name| (*name).into());
    }
    Ok(value)
}

/// 2016, table 17; 2025, table 23.
fn alarms(text: Text, r: &mut Reader<'_>) -> Result<Value, Fault> {
    let level = number(r, 1, 1, 0)?;
    let flags = r.u32()?;
    let names: Vec<&str> =
        ALARMS.iter().enumerate().filter(|(bit, _)| flags & 1 << bit != 0).map(|(_, name)| *name).collect();
    let mut all = json!({"level": level, "flags": flags, "alarms": names});
    for name in ["battery_faults", "motor_faults", "engine_faults", "other_faults"] {
        let count = count(r.u8()?);
        let codes: Result<Vec<u32>, Fault> = (0..count).map(|_| r.u32()).collect();
        all[name] = codes?.into();
    }
    if text == Text::Of2025 {
        let count = count(r.u8()?);
        let levels: Result<Vec<Value>, Fault> = (0..count)
            .map(|_| {
                let (alarm, level) = (r.u8()?, r.u8()?);
                let name = ALARMS.get(usize::from(alarm)).map_or_else(|| alarm.into(), |name| json!(name));
                Ok(json!({"alarm": name, "level": level}))
            })
            .collect();
        all["levels"] = levels?.into();
    }
    Ok(all)
}

/// 2016, annex B, table B.6; 2025, table 12.
fn voltages(text: Text, r: &mut Reader<'_>) -> Result<Value, Fault> {
    let packs = count(r.u8()?);
    let pack = |r: &mut Reader<'_>| {
        let offset = if text == Text::Of2016 { 1000 } else { 3000 };
        let (id, voltage) = (number(r, 1, 1, 0)?, number(r, 2, 10, 0)?);
        let current = number(r, 2, 10, offset)?;
        let total = r.u16()?;
        let mut all = json!({"pack": id, "voltage": voltage, "current": current});
        let here = if text == Text::Of2016 {
            all["cells"] = total.into();
            all["first"] = r.u16()?.into();
            count(r.u8()?).into()
        } else if total >= 0xfffe {
            0
        } else {
            total.into()
        };
        all["voltages"] = numbers(r, here, 2, 1000, 0)?;
        Ok(all)
    };
    (0..packs).map(|_| pack(r)).collect::<Result<Vec<Value>, Fault>>().map(Value::from)
}

/// 2016, annex B, table B.8; 2025, table 14.
fn temperatures(r: &mut Reader<'_>) -> Result<Value, Fault> {
    let packs = count(r.u8()?);
    let mut pack = || Ok(json!({"pack": number(r, 1, 1, 0)?, "temperatures": degrees(r)?}));
    (0..packs).map(|_| pack()).collect::<Result<Vec<Value>, Fault>>().map(Value::from)
}

fn stacks(r: &mut Reader<'_>) -> Result<Value, Fault> {
    let count = count(r.u8()?);
    let stack = |r: &mut Reader<'_>| {
        let mut all = block(r, STACK)?;
        all.insert("temperatures".to_owned(), degrees(r)?);
        Ok(all.into())
    };
    (0..count).map(|_| stack(r)).collect::<Result<Vec<Value>, Fault>>().map(Value::from)
}

/// 2025, 7.2.4.12.
fn capacitor(r: &mut Reader<'_>) -> Result<Value, Fault> {
    let (id, voltage, current) = (number(r, 1, 1, 0)?, number(r, 2, 10, 0)?, number(r, 2, 10, 3000)?);
    let cells = r.u16()?;
    let voltages = numbers(r, if cells >= 0xfffe { 0 } else { cells.into() }, 2, 1000, 0)?;
    let temperatures = degrees(r)?;
    Ok(json!({"system": id, "voltage": voltage, "current": current, "voltages": voltages,
        "temperatures": temperatures}))
}

/// 2025, 7.2.3.
pub(super) fn signature(r: &mut Reader<'_>) -> Result<Value, Fault> {
    let kind = r.u8()?;
    let length = r.u16()?;
    let first = hex::encode(r.take(length.into())?);
    let length = r.u16()?;
    Ok(json!({"type": kind, "r": first, "s": hex::encode(r.take(length.into())?)}))
}

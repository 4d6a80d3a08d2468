//! Where a vehicle is and how it does (JT/T 808-2013, 8.18 and 8.19; JT/T 808-2019, 8.18): 28 bytes, and items
//! after them.

use serde::ser::{Serialize, SerializeMap, SerializeSeq, Serializer};

use super::text;
use crate::Fault;
use crate::hex;
use crate::read::Reader;

/// A report, whose JSON is made from the bytes with nothing in between: it is most of what terminals send.
#[derive(Clone, Copy, Debug)]
pub(super) struct Location<'a> {
    alarm: u32,
    status: u32,
    latitude: u32,
    longitude: u32,
    altitude: i16,
    speed: u16,
    heading: u16,
    time: [u8; 6],
    items: &'a [u8],
    is_2019: bool,
    /// Why it came in a batch, if it did.
    pub(super) batch: Option<&'static str>,
}

/// Names of the bits of the alarms, by bit (table 24; 2019: table 23).
const ALARMS: [&str; 32] = [
    "sos",
    "overspeed",
    "fatigue",
    "danger",
    "gnss_fault",
    "gnss_antenna_open",
    "gnss_antenna_short",
    "power_low",
    "power_lost",
    "display_fault",
    "tts_fault",
    "camera_fault",
    "ic_card_fault",
    "overspeed_warning",
    "fatigue_warning",
    "unlawful_driving",
    "tire_pressure",
    "blind_zone",
    "daily_driving_exceeded",
    "parking_exceeded",
    "area_crossed",
    "route_crossed",
    "segment_time",
    "route_left",
    "vss_fault",
    "fuel_abnormal",
    "stolen",
    "unlawful_ignition",
    "unlawful_move",
    "collision",
    "rollover",
    "unlawful_door",
];

/// Names of the bits of the status that are no fields of their own, by bit (table 25; 2019: table 24). Bits 8 and
/// 9 are the load.
const STATES: [&str; 23] = [
    "",
    "",
    "",
    "",
    "out_of_service",
    "encrypted",
    "forward_collision_warning",
    "lane_departure_warning",
    "",
    "",
    "fuel_cut",
    "power_cut",
    "locked",
    "door_1",
    "door_2",
    "door_3",
    "door_4",
    "door_5",
    "gps",
    "beidou",
    "glonass",
    "galileo",
    "moving",
];

/// Bits that were reserved before 2019: who sets them there means something of their own.
const NEW_ALARMS: u32 = 0b111 << 15;
const NEW_STATES: u32 = 0b11 << 6 | 1 << 22;

/// Signals of the vehicle, by bit (table 31).
const SIGNALS: [&str; 15] = [
    "low_beam",
    "high_beam",
    "right_turn",
    "left_turn",
    "brake",
    "reverse",
    "fog",
    "side_marker",
    "horn",
    "air_conditioner",
    "neutral",
    "retarder",
    "abs",
    "heater",
    "clutch",
];

impl<'a> Location<'a> {
    /// Reads all that is left.
    pub(super) fn decode(fields: &mut Reader<'a>, is_2019: bool) -> Result<Location<'a>, Fault> {
        let alarm = fields.u32()?;
        let status = fields.u32()?;
        let latitude = fields.u32()?;
        let longitude = fields.u32()?;
        // Metres; the text calls it a WORD. Nothing drives higher than 32,767 m, but below the sea some do.
        let altitude = fields.u16()?.cast_signed();
        let speed = fields.u16()?;
        let heading = fields.u16()?;
        let time = fields.array()?;
        let items = fields.rest();
        Ok(Location {
            alarm,
            status,
            latitude,
            longitude,
            altitude,
            speed,
            heading,
            time,
            items,
            is_2019,
            batch: None,
        })
    }

    /// The JSON.
    pub(super) fn to_json(self) -> Vec<u8> {
        let mut json = Vec::with_capacity(512);
        // Text, numbers and lists: there is nothing in it that could not be written.
        let _ = serde_json::to_writer(&mut json, &self);
        json
    }

    fn items(&self) -> Items<'a> {
        Items(self.items)
    }
}

impl Serialize for Location<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        // Bits 2 and 3: south and west.
        let degrees = |millionths: u32, is_negative: bool| {
            let degrees = f64::from(millionths) / 1e6;
            if is_negative && millionths > 0 { -degrees } else { degrees }
        };
        let names = if self.is_2019 { (!0, !0) } else { (!NEW_ALARMS, !NEW_STATES) };
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("time", &text::time(self.time))?;
        map.serialize_entry("lat", &degrees(self.latitude, self.status & 1 << 2 != 0))?;
        map.serialize_entry("lon", &degrees(self.longitude, self.status & 1 << 3 != 0))?;
        map.serialize_entry("altitude", &self.altitude)?;
        map.serialize_entry("speed", &tenths(self.speed.into()))?;
        map.serialize_entry("heading", &self.heading)?;
        map.serialize_entry("positioned", &(self.status & 1 << 1 != 0))?;
        map.serialize_entry("acc", &(self.status & 1 != 0))?;
        map.serialize_entry("load", ["empty", "half", "reserved", "full"][(self.status >> 8 & 3) as usize])?;
        map.serialize_entry("alarm", &self.alarm)?;
        map.serialize_entry("alarms", &Bits(self.alarm & names.0, &ALARMS))?;
        map.serialize_entry("status", &self.status)?;
        map.serialize_entry("states", &Bits(self.status & names.1, &STATES))?;
        if let Some(batch) = self.batch {
            map.serialize_entry("batch", batch)?;
        }
        let (mut seen, mut is_all) = (0, true);
        let mut items = self.items();
        for (id, value) in items.by_ref() {
            match known(id, value, self.is_2019, seen) {
                Some(known) => {
                    known.write(&mut map)?;
                    seen |= 1u64 << id;
                }
                None => is_all = false,
            }
        }
        if !is_all {
            map.serialize_entry("items", &Others(self))?;
        }
        if !items.0.is_empty() {
            map.serialize_entry("rest", &hex::encode(items.0))?;
        }
        map.end()
    }
}

/// Identifier and value of each item (8.18, table 26). What it leaves is no whole item: some makes put text of
/// theirs there.
struct Items<'a>(&'a [u8]);

impl<'a> Iterator for Items<'a> {
    type Item = (u8, &'a [u8]);

    fn next(&mut self) -> Option<(u8, &'a [u8])> {
        let (id, rest) = self.0.split_first()?;
        let (length, rest) = rest.split_first()?;
        let (value, rest) = rest.split_at_checked(usize::from(*length))?;
        self.0 = rest;
        Some((*id, value))
    }
}

/// An item that the standard describes (tables 27 to 31; JT/T 1078-2016, table 13).
enum Known<'a> {
    Tenths(&'static str, u32),
    Number(&'static str, u32),
    Celsius(i32),
    Pressures(&'a [u8]),
    Area(&'static str, Area),
    Segment { id: u32, seconds: u16, result: u8 },
    Names(&'static str, u32, &'static [&'static str]),
    Analog([u16; 2]),
}

/// What was crossed, or where it was too fast.
#[derive(serde::Serialize)]
struct Area {
    area: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    direction: Option<&'static str>,
}

/// None for an item that the standard does not know, that has another length than there, or that came before: a
/// key is there once.
fn known<'a>(id: u8, value: &'a [u8], is_2019: bool, seen: u64) -> Option<Known<'a>> {
    if id >= 64 || seen & 1 << id != 0 {
        return None;
    }
    let number = || value.iter().fold(0, |n, byte| n << 8 | u32::from(*byte));
    let area =
        |kind: u8| ["none", "circle", "rectangle", "polygon", "segment"].get(usize::from(kind)).copied();
    Some(match (id, value) {
        (0x01, [_, _, _, _]) => Known::Tenths("mileage_km", number()),
        (0x02, [_, _]) => Known::Tenths("fuel_l", number()),
        (0x03, [_, _]) => Known::Tenths("recorder_speed", number()),
        (0x04, [_, _]) => Known::Number("alarm_event", number()),
        (0x05, _) if is_2019 && value.len() == 30 => Known::Pressures(value),
        (0x06, [high, low]) if is_2019 => Known::Celsius(celsius([*high, *low])),
        (0x11, [0]) => Known::Area("overspeed", Area { area: "none", id: None, direction: None }),
        (0x11, [kind, id @ ..]) if id.len() == 4 => {
            let id = Some(number_of(id));
            Known::Area("overspeed", Area { area: area(*kind)?, id, direction: None })
        }
        (0x12, [kind, id @ .., direction]) if id.len() == 4 => {
            let direction = Some(if *direction == 0 { "in" } else { "out" });
            Known::Area("crossing", Area { area: area(*kind)?, id: Some(number_of(id)), direction })
        }
        (0x13, [a, b, c, d, high, low, result]) => Known::Segment {
            id: u32::from_be_bytes([*a, *b, *c, *d]),
            seconds: u16::from_be_bytes([*high, *low]),
            result: *result,
        },
        (0x14, [_, _, _, _]) => Known::Number("video_alarm", number()),
        (0x15, [_, _, _, _]) => Known::Number("video_lost", number()),
        (0x16, [_, _, _, _]) => Known::Number("video_covered", number()),
        (0x17, [_, _]) => Known::Number("storage_fault", number()),
        (0x25, [_, _, _, _]) => Known::Names("signals", number(), &SIGNALS),
        (0x2a, [_, _]) => Known::Names("io", number(), &["deep_sleep", "sleep"]),
        (0x2b, [high1, low1, high0, low0]) => {
            Known::Analog([u16::from_be_bytes([*high0, *low0]), u16::from_be_bytes([*high1, *low1])])
        }
        (0x30, [_]) => Known::Number("signal", number()),
        (0x31, [_]) => Known::Number("satellites", number()),
        _ => return None,
    })
}

fn number_of(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0, |n, byte| n << 8 | u32::from(*byte))
}

fn tenths(n: u32) -> f64 {
    f64::from(n) / 10.0
}

/// From -32,767 to 32,767, and the highest bit says that it is below zero (2019, table 27). Makers read that
/// either as a sign beside the amount or as two's complement; no vehicle is so cold that the two could be mistaken
/// for each other.
fn celsius(bytes: [u8; 2]) -> i32 {
    let n = i32::from(u16::from_be_bytes(bytes));
    match n {
        0x8000..0xc000 => 0x8000 - n,
        0xc000.. => n - 0x1_0000,
        _ => n,
    }
}

impl Known<'_> {
    fn write<M: SerializeMap>(&self, map: &mut M) -> Result<(), M::Error> {
        match self {
            Known::Tenths(key, n) => map.serialize_entry(key, &tenths(*n)),
            Known::Number(key, n) => map.serialize_entry(key, n),
            Known::Celsius(degrees) => map.serialize_entry("carriage_temperature", degrees),
            Known::Pressures(bytes) => {
                // Wheels from the front, from left to right; 0xff is a place where there is none.
                let end = bytes.iter().rposition(|b| *b != 0xff).map_or(0, |n| n + 1);
                let wheels: Vec<Option<u8>> =
                    bytes[..end].iter().map(|b| (*b != 0xff).then_some(*b)).collect();
                map.serialize_entry("tire_pressures", &wheels)
            }
            Known::Area(key, area) => map.serialize_entry(key, area),
            Known::Segment { id, seconds, result } => {
                let result = if *result == 0 { "too_short" } else { "too_long" };
                map.serialize_entry(
                    "segment_time",
                    &serde_json::json!({"id": id, "seconds": seconds, "result": result}),
                )
            }
            Known::Names(key, bits, names) => map.serialize_entry(key, &Bits(*bits, names)),
            Known::Analog(values) => map.serialize_entry("analog", values),
        }
    }
}

/// Items as they came, which the standard does not know: most makers have some.
struct Others<'a>(&'a Location<'a>);

impl Serialize for Others<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut list = serializer.serialize_seq(None)?;
        let mut seen = 0;
        for (id, value) in self.0.items() {
            if known(id, value, self.0.is_2019, seen).is_some() {
                seen |= 1u64 << id;
            } else {
                list.serialize_element(&Other { id, hex: hex::encode(value) })?;
            }
        }
        list.end()
    }
}

#[derive(serde::Serialize)]
struct Other {
    id: u8,
    hex: String,
}

/// The names of the bits that are set.
struct Bits(u32, &'static [&'static str]);

impl Serialize for Bits {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut list = serializer.serialize_seq(None)?;
        let mut bits = self.0;
        while bits != 0 {
            let bit = bits.trailing_zeros() as usize;
            bits &= bits - 1;
            match self.1.get(bit) {
                Some(name) if !name.is_empty() => list.serialize_element(name)?,
                _ => {}
            }
        }
        list.end()
    }
}

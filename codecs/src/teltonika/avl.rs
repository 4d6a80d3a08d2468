//! AVL records: where the device was, and what its inputs and sensors said.

use std::collections::BTreeMap;

use serde::Serialize;
use wire::calendar;

use crate::read::Reader;
use crate::{Data, Fault, Up};

/// What a packet holds.
pub(super) struct Records {
    pub(super) count: u8,
    pub(super) up: Vec<Up>,
}

/// One record as it is published.
#[derive(Serialize)]
struct Record {
    timestamp: String,
    priority: u8,
    gps: Gps,
    /// The id of what made the device record it; 0 is time or distance.
    event: u16,
    /// Codec 16's generation type.
    #[serde(skip_serializing_if = "Option::is_none")]
    generation: Option<u8>,
    io: BTreeMap<u16, Io>,
}

#[derive(Serialize)]
struct Gps {
    lat: f64,
    lon: f64,
    /// Metres.
    altitude: i16,
    /// Degrees from north.
    angle: u16,
    satellites: u8,
    /// Kilometres an hour.
    speed: u16,
    /// Without satellites the place is an older one, or nothing.
    valid: bool,
}

/// A value of an IO element. Which are signed says the device's own list of ids.
#[derive(Serialize)]
#[serde(untagged)]
enum Io {
    Number(u64),
    /// Digits of a number that not every JSON reader keeps.
    Text(String),
    Bytes {
        hex: String,
    },
}

/// Above this a double, and with it JavaScript, loses digits.
const MAX_SAFE: u64 = (1 << 53) - 1;

/// How wide the numbers of an IO element are, in bytes.
struct Widths {
    id: usize,
    count: usize,
    has_generation: bool,
    /// Whether there are elements of sixteen bytes, with a count of their own: some models have, and no page says so.
    has_sixteen: bool,
    has_variable: bool,
}

impl Widths {
    /// Of Codec 8, 8 Extended and 16.
    fn of(codec: u8) -> Option<Widths> {
        let (has_generation, has_variable) = (codec == 0x10, codec == 0x8e);
        let (id, count) = match codec {
            0x08 => (1, 1),
            0x8e => (2, 2),
            0x10 => (2, 1),
            _ => return None,
        };
        Some(Widths { id, count, has_generation, has_sixteen: false, has_variable })
    }
}

/// Codec id, count, records, count.
pub(super) fn decode(r: &mut Reader<'_>) -> Result<Records, Fault> {
    let at = r.at();
    let codec = r.u8()?;
    let widths =
        Widths::of(codec).ok_or_else(|| Fault::frame(at, format!("there is no codec {codec:#04x}")))?;
    // All counts have to be right, which they are not in a form that is not the packet's.
    records(&mut r.clone(), &widths)
        .or_else(|fault| records(r, &Widths { has_sixteen: true, ..widths }).map_err(|_| fault))
}

fn records(r: &mut Reader<'_>, widths: &Widths) -> Result<Records, Fault> {
    counted(r, |r| record(r, widths))
}

/// Count, records, count.
pub(super) fn counted<'a, T: Serialize>(
    r: &mut Reader<'a>,
    mut record: impl FnMut(&mut Reader<'a>) -> Result<T, Fault>,
) -> Result<Records, Fault> {
    let count = r.u8()?;
    let mut up = Vec::with_capacity(usize::from(count).min(64));
    for _ in 0..count {
        up.push(Up::Data(Data::json("location", &record(r)?)));
    }
    // The device wants an answer to nothing too.
    if count == 0 {
        up.push(Up::Heartbeat);
    }
    let at = r.at();
    if r.u8()? != count || r.left() != 0 {
        return Err(Fault::frame(at, format!("after {count} records comes their number, and the end")));
    }
    Ok(Records { count, up })
}

fn record(r: &mut Reader<'_>, widths: &Widths) -> Result<Record, Fault> {
    let timestamp = calendar::to_text_ms(r.u64()?);
    let priority = r.u8()?;
    let degrees = |n: u32| f64::from(n.cast_signed()) / 1e7;
    let (lon, lat) = (degrees(r.u32()?), degrees(r.u32()?));
    let altitude = r.u16()?.cast_signed();
    let angle = r.u16()?;
    let satellites = r.u8()?;
    let speed = r.u16()?;
    let gps = Gps { lat, lon, altitude, angle, satellites, speed, valid: satellites > 0 };
    let event = id(r, widths)?;
    let generation = if widths.has_generation { Some(r.u8()?) } else { None };
    Ok(Record { timestamp, priority, gps, event, generation, io: elements(r, widths)? })
}

/// How many there are, and then groups of elements with one, two, four and eight bytes, each with its own count.
fn elements(r: &mut Reader<'_>, widths: &Widths) -> Result<BTreeMap<u16, Io>, Fault> {
    let at = r.at();
    let all = r.uint(widths.count)?;
    let (mut io, mut found) = (BTreeMap::new(), 0);
    for bytes in [1, 2, 4, 8] {
        let count = r.uint(widths.count)?;
        found += count;
        for _ in 0..count {
            let id = id(r, widths)?;
            io.insert(id, number(r.uint(bytes)?));
        }
    }
    if widths.has_sixteen {
        let count = r.uint(widths.count)?;
        found += count;
        for _ in 0..count {
            let id = id(r, widths)?;
            io.insert(id, Io::Bytes { hex: crate::hex::encode(r.take(16)?) });
        }
    }
    if widths.has_variable {
        let count = r.uint(widths.count)?;
        found += count;
        for _ in 0..count {
            let id = id(r, widths)?;
            let bytes = usize::from(r.u16()?);
            io.insert(id, Io::Bytes { hex: crate::hex::encode(r.take(bytes)?) });
        }
    }
    if found != all {
        return Err(Fault::frame(at, format!("{all} elements are announced, and {found} there")));
    }
    Ok(io)
}

fn id(r: &mut Reader<'_>, widths: &Widths) -> Result<u16, Fault> {
    if widths.id == 1 { r.u8().map(u16::from) } else { r.u16() }
}

fn number(n: u64) -> Io {
    if n <= MAX_SAFE { Io::Number(n) } else { Io::Text(n.to_string()) }
}

//! Codec 7: the records of the GH series, in which masks say what there is.
//!
//! ```text
//! priority (2 bits) and seconds since 2007 (30 bits), global mask
//! global 0  location mask: 0 latitude, longitude  1 altitude  2 angle  3 speed  4 satellites  5 cell  6 signal  7 operator
//! global 1  elements of one byte: their number, and of each id and value;  2 of two bytes;  3 of four
//! ```

use std::collections::BTreeMap;

use serde::Serialize;
use wire::calendar;

use super::avl::{Records, counted};
use crate::Fault;
use crate::read::Reader;

pub(super) const CODEC_7: u8 = 0x07;

/// 2007-01-01T00:00:00Z.
const EPOCH: u64 = 1_167_609_600;

/// One record as it is published.
#[derive(Default, Serialize)]
struct Record {
    timestamp: String,
    priority: u8,
    #[serde(skip_serializing_if = "Option::is_none")]
    gps: Option<Gps>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cell: Option<Cell>,
    /// Of the network.
    #[serde(skip_serializing_if = "Option::is_none")]
    signal: Option<u8>,
    /// Country and network in one number.
    #[serde(skip_serializing_if = "Option::is_none")]
    operator: Option<u32>,
    io: BTreeMap<u8, u64>,
}

#[derive(Default, Serialize)]
struct Gps {
    #[serde(skip_serializing_if = "Option::is_none")]
    lat: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    lon: Option<f64>,
    /// Metres.
    #[serde(skip_serializing_if = "Option::is_none")]
    altitude: Option<i16>,
    /// Degrees from north.
    #[serde(skip_serializing_if = "Option::is_none")]
    angle: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    satellites: Option<u8>,
    /// Kilometres an hour.
    #[serde(skip_serializing_if = "Option::is_none")]
    speed: Option<u8>,
    valid: bool,
}

#[derive(Serialize)]
struct Cell {
    lac: u16,
    cell_id: u16,
}

/// Codec id, count, records, count.
pub(super) fn decode(r: &mut Reader<'_>) -> Result<Records, Fault> {
    r.u8()?;
    counted(r, record)
}

fn record(r: &mut Reader<'_>) -> Result<Record, Fault> {
    let time = r.u32()?;
    let timestamp = calendar::to_text_ms((EPOCH + u64::from(time & 0x3fff_ffff)) * 1000);
    let mut record = Record { timestamp, priority: (time >> 30) as u8, ..Record::default() };
    let mask = r.u8()?;
    if mask & 1 != 0 {
        location(&mut record, r)?;
    }
    for (bit, bytes) in [(1, 1), (2, 2), (3, 4)] {
        if mask & 1 << bit != 0 {
            for _ in 0..r.u8()? {
                let id = r.u8()?;
                record.io.insert(id, r.uint(bytes)?);
            }
        }
    }
    Ok(record)
}

fn location(record: &mut Record, r: &mut Reader<'_>) -> Result<(), Fault> {
    let mask = r.u8()?;
    let has = |bit: u8| mask & 1 << bit != 0;
    let mut gps = Gps::default();
    if has(0) {
        let at = r.at();
        let (lat, lon) = (f32::from_bits(r.u32()?), f32::from_bits(r.u32()?));
        if !(lat.abs() <= 90.0 && lon.abs() <= 180.0) {
            return Err(Fault::frame(at, "no position on earth"));
        }
        // Seven places are more than such a number has.
        let degrees = |n: f32| (f64::from(n) * 1e7).round() / 1e7;
        (gps.lat, gps.lon) = (Some(degrees(lat)), Some(degrees(lon)));
    }
    if has(1) {
        gps.altitude = Some(r.u16()?.cast_signed());
    }
    if has(2) {
        gps.angle = Some((f64::from(r.u8()?) * 3600.0 / 256.0).round() / 10.0);
    }
    if has(3) {
        gps.speed = Some(r.u8()?);
    }
    if has(4) {
        gps.satellites = Some(r.u8()?);
    }
    gps.valid = gps.lat.is_some() && gps.satellites.is_none_or(|n| n > 0);
    record.gps = (mask & 0x1f != 0).then_some(gps);
    if has(5) {
        record.cell = Some(Cell { lac: r.u16()?, cell_id: r.u16()? });
    }
    if has(6) {
        record.signal = Some(r.u8()?);
    }
    if has(7) {
        record.operator = Some(r.u32()?);
    }
    Ok(())
}

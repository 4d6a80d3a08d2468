//! What the content of a packet says, by its protocol number.

use serde::Serialize;
use wire::calendar::Calendar;

use super::{HEARTBEAT, INFORMATION, PASS_THROUGH, Packet, STATUS, STRING};
use crate::read::Reader;
use crate::{Data, Fault};

/// A position, an alarm or a status as it is published.
#[derive(Default, Serialize)]
struct Report {
    #[serde(skip_serializing_if = "Option::is_none")]
    timestamp: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    gps: Option<Gps>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cell: Option<Cell>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    cells: Vec<Cell>,
    #[serde(skip_serializing_if = "Option::is_none")]
    timing_advance: Option<u8>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    wifi: Vec<Wifi>,
    /// The ignition.
    #[serde(skip_serializing_if = "Option::is_none")]
    acc: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    upload_mode: Option<u8>,
    /// Whether it was kept while there was no connection.
    #[serde(skip_serializing_if = "Option::is_none")]
    reuploaded: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mileage: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    terminal: Option<Terminal>,
    /// 0 (none) to 6 (full).
    #[serde(skip_serializing_if = "Option::is_none")]
    voltage_level: Option<u8>,
    /// Volts.
    #[serde(skip_serializing_if = "Option::is_none")]
    voltage: Option<f64>,
    /// 0 (none) to 4 (strong).
    #[serde(skip_serializing_if = "Option::is_none")]
    gsm: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    alarm: Option<Alarm>,
    /// 1 is Chinese, 2 English.
    #[serde(skip_serializing_if = "Option::is_none")]
    language: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    fence: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    phone: Option<String>,
    /// What no document explains, in hexadecimal.
    #[serde(skip_serializing_if = "Option::is_none")]
    rest: Option<String>,
}

#[derive(Serialize)]
struct Gps {
    lat: f64,
    lon: f64,
    /// Degrees from north.
    angle: u16,
    satellites: u8,
    /// Kilometres an hour.
    speed: u8,
    valid: bool,
}

#[derive(Serialize)]
struct Cell {
    mcc: u16,
    mnc: u16,
    lac: u64,
    cell_id: u64,
    /// dBm.
    #[serde(skip_serializing_if = "Option::is_none")]
    rssi: Option<i16>,
}

#[derive(Serialize)]
struct Wifi {
    mac: String,
    /// dBm.
    rssi: i16,
}

impl Gps {
    /// Vendors have put fields of their own before a position, in packets of the same numbers: then this is none.
    fn is_on_earth(&self) -> bool {
        self.lat.abs() <= 90.0 && self.lon.abs() <= 180.0 && self.angle <= 360
    }
}

/// The byte "terminal information".
#[derive(Serialize)]
struct Terminal {
    /// Oil and electricity are cut off.
    cut_off: bool,
    /// GPS is on.
    gps_on: bool,
    charging: bool,
    acc: bool,
    armed: bool,
    /// What there is to be alarmed about, also where no alarm is sent for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    alarm: Option<Alarm>,
}

#[derive(Serialize)]
struct Alarm {
    code: u8,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'static str>,
}

/// Text of the device, or bytes that are none.
#[derive(Serialize)]
pub(super) struct Text<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hex: Option<String>,
}

impl<'a> Text<'a> {
    pub(super) fn of(bytes: &'a [u8]) -> Text<'a> {
        let text = std::str::from_utf8(bytes)
            .ok()
            .filter(|t| !t.chars().any(|c| c.is_control() && !"\r\n\t".contains(c)));
        Text { text, hex: text.is_none().then(|| crate::hex::encode(bytes)) }
    }
}

/// How wide a cell's numbers are, in bytes: 2G and 3G, and 4G.
#[derive(Clone, Copy)]
enum Width {
    Narrow,
    /// The network and the number of the cell are.
    Wide,
    Lte,
}

/// What the packet says. Content that is not as its number promises is published as it came: the device would not send
/// anything else if it were refused.
pub(super) fn decode(p: &Packet<'_>, zone_minutes: i32) -> Data {
    let mut r = Reader::new(p.content, p.at);
    let found = match p.number {
        // In a long packet these numbers are another vendor's.
        _ if p.is_long && !matches!(p.number, INFORMATION | PASS_THROUGH) => return other(p),
        0x10 => position(&mut r, zone_minutes, None),
        0x11 => position(&mut r, zone_minutes, Some(Width::Wide)),
        // Of the vendors with wide cells: its length tells.
        0x31 if r.left() == 37 => {
            position(&mut r, zone_minutes, Some(Width::Wide)).and_then(|report| upload(report, &mut r))
        }
        0x12 | 0x2d | 0x31 | 0x37 => position(&mut r, zone_minutes, Some(Width::Narrow)),
        0x22 => position(&mut r, zone_minutes, Some(Width::Narrow)).and_then(|report| upload(report, &mut r)),
        0xa0 => position(&mut r, zone_minutes, Some(Width::Lte)).and_then(|report| upload(report, &mut r)),
        0x16 | 0x26 | 0x32 => alarm(&mut r, zone_minutes, Width::Narrow, false),
        0x27 => alarm(&mut r, zone_minutes, Width::Narrow, true),
        0xa3 => alarm(&mut r, zone_minutes, Width::Lte, true),
        0xa4 => alarm(&mut r, zone_minutes, Width::Lte, true),
        0x18 | 0x24 | 0x28 | 0x2e => cells(&mut r, zone_minutes, Width::Narrow, false),
        0x2c => cells(&mut r, zone_minutes, Width::Narrow, true),
        0xa1 => cells(&mut r, zone_minutes, Width::Lte, false),
        0xa2 => cells(&mut r, zone_minutes, Width::Lte, true),
        0x1a | 0x2a => address_request(&mut r, zone_minutes),
        STATUS => status(&mut r),
        HEARTBEAT => heartbeat(&mut r),
        INFORMATION => return information(p).unwrap_or_else(|| other(p)),
        PASS_THROUGH => return pass_through(p).unwrap_or_else(|| other(p)),
        _ => return other(p),
    };
    let Ok(mut report) = found else { return other(p) };
    if r.left() == 4 && report.mileage.is_none() {
        report.mileage = r.uint(4).ok();
    }
    report.rest = (r.left() > 0).then(|| crate::hex::encode(r.rest()));
    Data::json(kind(p.number), &report)
}

fn kind(number: u8) -> &'static str {
    match number {
        0x16 | 0x26 | 0x27 | 0x32 | 0xa3 | 0xa4 => "alarm",
        0x18 | 0x24 | 0x28 | 0x2e | 0x2c | 0xa1 | 0xa2 => "cells",
        0x1a | 0x2a => "address-request",
        STATUS | HEARTBEAT => "status",
        _ => "location",
    }
}

/// A packet that nothing here knows, as it came.
pub(super) fn other(p: &Packet<'_>) -> Data {
    #[derive(Serialize)]
    struct Other {
        protocol: u8,
        hex: String,
    }
    Data::json("other", &Other { protocol: p.number, hex: crate::hex::encode(p.content) })
}

/// Six bytes of the device's calendar, in its time zone.
fn timestamp(r: &mut Reader<'_>, zone_minutes: i32) -> Result<Option<String>, Fault> {
    // Without a fix the clock of some devices has never been set.
    let Some(local) = Calendar::from_bytes(r.array()?) else { return Ok(None) };
    let zone_ms = u64::from(zone_minutes.unsigned_abs()) * 60_000;
    let utc = if zone_minutes < 0 { local.to_ms() + zone_ms } else { local.to_ms().saturating_sub(zone_ms) };
    Ok(Some(Calendar::at(utc).to_string()))
}

fn position(r: &mut Reader<'_>, zone_minutes: i32, cell_width: Option<Width>) -> Result<Report, Fault> {
    let timestamp = timestamp(r, zone_minutes)?;
    // The high half is the length of this very information.
    let satellites = r.u8()? & 0x0f;
    let (lat, lon, speed, course) = (r.u32()?, r.u32()?, r.u8()?, r.u16()?);
    // In 1/30,000 of a minute: half a millionth of a degree, which seven places show. The course has south and west.
    let degrees = |n: u32| (f64::from(n) * 50.0 / 9.0).round() / 1e7;
    let lat = if course & 0x0400 == 0 { -degrees(lat) } else { degrees(lat) };
    let lon = if course & 0x0800 == 0 { degrees(lon) } else { -degrees(lon) };
    let gps = Gps { lat, lon, angle: course & 0x03ff, satellites, speed, valid: course & 0x1000 != 0 };
    if !gps.is_on_earth() {
        return Err(Fault::frame(r.at(), "no position of the documents"));
    }
    // With bit 14 some devices say that bit 15 is the ignition.
    let acc = (course & 0x4000 != 0).then_some(course & 0x8000 != 0);
    let cell = cell_width.map(|width| cell(r, width)).transpose()?;
    Ok(Report { timestamp, gps: Some(gps), cell, acc, ..Report::default() })
}

/// Country and network; the network has two bytes if the country's highest bit says so.
fn network(r: &mut Reader<'_>) -> Result<(u16, u16), Fault> {
    let mcc = r.u16()?;
    let mnc = if mcc & 0x8000 == 0 { r.u8()?.into() } else { r.u16()? };
    Ok((mcc & 0x7fff, mnc))
}

fn cell(r: &mut Reader<'_>, width: Width) -> Result<Cell, Fault> {
    let (mcc, mnc) = if matches!(width, Width::Wide) { (r.u16()?, r.u16()?) } else { network(r)? };
    let (lac, cell_id) = area(r, width)?;
    Ok(Cell { mcc, mnc, lac, cell_id, rssi: None })
}

fn area(r: &mut Reader<'_>, width: Width) -> Result<(u64, u64), Fault> {
    Ok(match width {
        Width::Narrow => (r.uint(2)?, r.uint(3)?),
        Width::Wide => (r.uint(2)?, r.uint(4)?),
        Width::Lte => (r.uint(4)?, r.uint(8)?),
    })
}

/// Ignition, why it was sent, and whether it was kept meanwhile.
fn upload(mut report: Report, r: &mut Reader<'_>) -> Result<Report, Fault> {
    if r.left() >= 3 {
        report.acc = Some(r.u8()? != 0);
        report.upload_mode = Some(r.u8()?);
        report.reuploaded = Some(r.u8()? != 0);
    }
    Ok(report)
}

/// A position, the cell with its length before, and the status.
fn alarm(r: &mut Reader<'_>, zone_minutes: i32, width: Width, has_fence: bool) -> Result<Report, Fault> {
    let mut report = position(r, zone_minutes, None)?;
    // The length counts itself; that of some vendors does not, whose cells are wide without a country that says so.
    let length = usize::from(r.u8()?);
    let is_wide = matches!(width, Width::Narrow) && length == 10 && r.clone().u16()? & 0x8000 == 0;
    let (width, length) = if is_wide { (Width::Wide, length) } else { (width, length.saturating_sub(1)) };
    let mut lbs = Reader::new(r.take(length)?, r.at());
    if lbs.left() > 0 {
        let cell = cell(&mut lbs, width)?;
        report.cell = (cell.lac > 0 || cell.cell_id > 0).then_some(cell);
    }
    let mut report = terminal(report, r)?;
    if has_fence && r.left() > 0 {
        report.fence = Some(r.u8()?);
    }
    Ok(report)
}

/// Terminal information, voltage level, strength of the network, alarm and language.
fn terminal(mut report: Report, r: &mut Reader<'_>) -> Result<Report, Fault> {
    report.terminal = Some(Terminal::of(r.u8()?));
    report.voltage_level = Some(r.u8()?);
    report.gsm = Some(r.u8()?);
    report.alarm = Some(Alarm::of(r.u8()?));
    report.language = Some(r.u8()?.into());
    Ok(report)
}

fn status(r: &mut Reader<'_>) -> Result<Report, Fault> {
    // Longer ones are other vendors', each with its own fields.
    if r.left() > 9 {
        return Err(Fault::frame(r.at(), "no status of the documents"));
    }
    terminal(Report::default(), r)
}

fn heartbeat(r: &mut Reader<'_>) -> Result<Report, Fault> {
    let mut report = Report { terminal: Some(Terminal::of(r.u8()?)), ..Report::default() };
    report.voltage = Some(f64::from(r.u16()?) / 100.0);
    report.gsm = Some(r.u8()?);
    if r.left() >= 2 {
        report.language = Some(r.u16()?);
    }
    Ok(report)
}

/// Seven cells with their strengths, the time that a signal takes, and stations of WiFi.
fn cells(r: &mut Reader<'_>, zone_minutes: i32, width: Width, has_wifi: bool) -> Result<Report, Fault> {
    let mut report = Report { timestamp: timestamp(r, zone_minutes)?, ..Report::default() };
    let (mcc, mnc) = network(r)?;
    for _ in 0..7 {
        let (lac, cell_id) = area(r, width)?;
        let rssi = Some(-i16::from(r.u8()?));
        // Places for cells that the device does not see are zero.
        if lac > 0 || cell_id > 0 {
            report.cells.push(Cell { mcc, mnc, lac, cell_id, rssi });
        }
    }
    report.timing_advance = Some(r.u8()?);
    if has_wifi {
        for _ in 0..r.u8()? {
            let mac: [String; 6] = r.array::<6>()?.map(|b| format!("{b:02x}"));
            report.wifi.push(Wifi { mac: mac.join(":"), rssi: -i16::from(r.u8()?) });
        }
    } else if r.left() >= 2 {
        report.language = Some(r.u16()?);
    }
    Ok(report)
}

/// The device asks for the address of where it is, for a telephone.
fn address_request(r: &mut Reader<'_>, zone_minutes: i32) -> Result<Report, Fault> {
    let mut report = position(r, zone_minutes, None)?;
    let phone = r.take(21)?;
    report.phone = Some(phone.iter().take_while(|b| **b != 0).map(|b| char::from(*b)).collect());
    report.language = Some(r.u16()?);
    Ok(report)
}

/// The server flag and the text of 0x15 and 0x21.
pub(super) fn text(p: &Packet<'_>) -> Option<(u32, Vec<u8>)> {
    let mut r = Reader::new(p.content, p.at);
    if p.number == STRING {
        let length = usize::from(r.u8().ok()?);
        let flag = r.u32().ok()?;
        // Padded with zeros by some devices, of which some say no length: the language is behind it.
        let length = if length == 0 { r.left().checked_sub(2)? } else { length.checked_sub(4)? };
        let text = r.take(length).ok()?;
        let end = text.iter().rposition(|b| *b != 0).map_or(0, |n| n + 1);
        return Some((flag, text[..end].to_vec()));
    }
    let flag = r.u32().ok()?;
    // 1 is ASCII, 2 UTF-16.
    if r.u8().ok()? == 1 {
        return Some((flag, r.rest().to_vec()));
    }
    let units = r.rest().chunks_exact(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]]));
    let text: String = char::decode_utf16(units).map(|c| c.unwrap_or(char::REPLACEMENT_CHARACTER)).collect();
    Some((flag, text.into_bytes()))
}

/// 0x94: a byte says which of several things.
fn information(p: &Packet<'_>) -> Option<Data> {
    #[derive(Default, Serialize)]
    struct Information<'a> {
        #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
        kind: Option<u8>,
        /// Volts, of the power from outside.
        #[serde(skip_serializing_if = "Option::is_none")]
        voltage: Option<f64>,
        #[serde(skip_serializing_if = "Option::is_none")]
        imei: Option<String>,
        #[serde(skip_serializing_if = "Option::is_none")]
        imsi: Option<String>,
        #[serde(skip_serializing_if = "Option::is_none")]
        iccid: Option<String>,
        #[serde(flatten)]
        text: Option<Text<'a>>,
    }
    let volts = |r: &mut Reader<'_>| r.u16().ok().map(|v| f64::from(v) / 100.0);
    let digits =
        |bytes: &[u8]| crate::hex::encode(bytes).trim_start_matches('0').trim_end_matches('f').to_owned();
    let mut r = Reader::new(p.content, p.at);
    if !p.is_long && p.content.len() == 2 {
        return Some(Data::json("info", &Information { voltage: volts(&mut r), ..Information::default() }));
    }
    let kind = Some(r.u8().ok()?);
    let information = match (kind, r.left()) {
        (Some(0x00), 2) => Information { kind, voltage: volts(&mut r), ..Information::default() },
        (Some(0x0a), 26) => Information {
            kind,
            imei: Some(digits(r.take(8).ok()?)),
            imsi: Some(digits(r.take(8).ok()?)),
            iccid: Some(digits(r.take(10).ok()?)),
            ..Information::default()
        },
        _ => Information { kind, text: Some(Text::of(r.rest())), ..Information::default() },
    };
    Some(Data::json("info", &information))
}

/// 0x9b: what is wired to the device says.
fn pass_through(p: &Packet<'_>) -> Option<Data> {
    #[derive(Serialize)]
    struct PassThrough<'a> {
        #[serde(rename = "type")]
        kind: u8,
        #[serde(flatten)]
        text: Text<'a>,
    }
    let (kind, bytes) = p.content.split_first()?;
    Some(Data::json("serial", &PassThrough { kind: *kind, text: Text::of(bytes) }))
}

impl Terminal {
    fn of(byte: u8) -> Terminal {
        let bit = |n: u8| byte & 1 << n != 0;
        let alarm = Alarm::of_bits(byte >> 3 & 7);
        Terminal { cut_off: bit(7), gps_on: bit(6), charging: bit(2), acc: bit(1), armed: bit(0), alarm }
    }
}

impl Alarm {
    /// Bits 3 to 5 of the terminal information; none is zero.
    fn of_bits(code: u8) -> Option<Alarm> {
        let name = match code {
            0 => return None,
            1 => Some("vibration"),
            2 => Some("power-cut"),
            3 => Some("low-battery"),
            4 => Some("sos"),
            _ => None,
        };
        Some(Alarm { code, name })
    }

    fn of(code: u8) -> Alarm {
        let name = match code {
            0x00 => "normal",
            0x01 => "sos",
            0x02 => "power-cut",
            0x03 => "vibration",
            0x04 => "fence-in",
            0x05 => "fence-out",
            0x06 => "over-speed",
            0x09 => "moved",
            0x0a => "blind-area-in",
            0x0b => "blind-area-out",
            0x0c => "power-on",
            0x0d => "first-fix",
            0x0e | 0x19 => "low-battery",
            0x0f => "low-battery-protection",
            0x10 => "sim-changed",
            0x11 => "power-off",
            0x12 => "flight-mode",
            0x13 => "removed",
            0x14 => "door",
            0x15 => "low-battery-off",
            0x16 => "sound",
            0x17 => "false-base-station",
            0x18 => "cover-opened",
            0x23 => "fallen",
            0x29 => "acceleration",
            0x2a => "turn-left",
            0x2b => "turn-right",
            0x2c => "collision",
            0x30 => "braking",
            _ => return Alarm { code, name: None },
        };
        Alarm { code, name: Some(name) }
    }
}

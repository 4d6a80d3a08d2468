//! Areas whose borders a terminal watches: 0x8600 to 0x8605 (JT/T 808-2013, 8.34 to 8.39; 2019 adds night and
//! name).

use serde::Deserialize;

use super::{byte, text};

/// What every area has (table 53). Which fields follow, its bits 0 and 1 say.
#[derive(Deserialize)]
struct Rules {
    id: u32,
    /// Bits 2 to 5: tell the driver and the platform of who enters and of who leaves; bits 8, 14 and 15: doors,
    /// modem, GNSS.
    #[serde(default = "tell_the_platform")]
    flag: u16,
    start: Option<String>,
    end: Option<String>,
    /// km/h.
    max_speed: Option<u16>,
    #[serde(default)]
    overspeed_seconds: u8,
    night_max_speed: Option<u16>,
    #[serde(default)]
    name: String,
}

fn tell_the_platform() -> u16 {
    1 << 3 | 1 << 5
}

#[derive(Deserialize)]
pub(super) struct Circle {
    #[serde(flatten)]
    rules: Rules,
    lat: f64,
    lon: f64,
    /// Metres.
    radius: u32,
}

#[derive(Deserialize)]
pub(super) struct Rectangle {
    #[serde(flatten)]
    rules: Rules,
    /// Latitude and longitude.
    top_left: (f64, f64),
    bottom_right: (f64, f64),
}

#[derive(Deserialize)]
pub(super) struct Polygon {
    #[serde(flatten)]
    rules: Rules,
    /// Latitudes and longitudes.
    points: Vec<(f64, f64)>,
}

/// A list of areas, and whether they replace (0), join (1) or change (2) those that there are.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Areas<T> {
    #[serde(default, rename = "type")]
    kind: u8,
    areas: Vec<T>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Ids {
    /// None is all.
    #[serde(default)]
    ids: Vec<u32>,
}

/// Bodies of 0x8601, 0x8603, 0x8605 and 0x8607.
pub(super) fn ids(list: &Ids) -> Result<Vec<u8>, String> {
    let mut body = vec![byte(list.ids.len(), "areas")?];
    body.extend(list.ids.iter().flat_map(|id| id.to_be_bytes()));
    Ok(body)
}

/// A body of 0x8600.
pub(super) fn circles(list: &Areas<Circle>, is_2019: bool) -> Result<Vec<u8>, String> {
    let mut body = vec![list.kind, byte(list.areas.len(), "areas")?];
    for circle in &list.areas {
        circle.rules.begin(&[(circle.lat, circle.lon)], &mut body)?;
        body.extend_from_slice(&circle.radius.to_be_bytes());
        circle.rules.limits(&mut body)?;
        circle.rules.end(is_2019, &mut body)?;
    }
    Ok(body)
}

/// A body of 0x8602.
pub(super) fn rectangles(list: &Areas<Rectangle>, is_2019: bool) -> Result<Vec<u8>, String> {
    let mut body = vec![list.kind, byte(list.areas.len(), "areas")?];
    for area in &list.areas {
        area.rules.begin(&[area.top_left, area.bottom_right], &mut body)?;
        area.rules.limits(&mut body)?;
        area.rules.end(is_2019, &mut body)?;
    }
    Ok(body)
}

/// A body of 0x8604. The points come after the limits.
pub(super) fn polygon(area: &Polygon, is_2019: bool) -> Result<Vec<u8>, String> {
    let mut body = area.rules.id.to_be_bytes().to_vec();
    let (flag, points) = area.rules.flag_and_points(&area.points)?;
    body.extend_from_slice(&flag.to_be_bytes());
    area.rules.limits(&mut body)?;
    let count = u16::try_from(area.points.len()).map_err(|_| "too many points".to_owned())?;
    body.extend_from_slice(&count.to_be_bytes());
    body.extend_from_slice(&points);
    area.rules.end(is_2019, &mut body)?;
    Ok(body)
}

impl Rules {
    /// Identifier, flag and points.
    fn begin(&self, points: &[(f64, f64)], body: &mut Vec<u8>) -> Result<(), String> {
        let (flag, points) = self.flag_and_points(points)?;
        body.extend_from_slice(&self.id.to_be_bytes());
        body.extend_from_slice(&flag.to_be_bytes());
        body.extend_from_slice(&points);
        Ok(())
    }

    /// Points are millionths of a degree without a sign: bits 6 and 7 say that all are in the south or in the
    /// west.
    fn flag_and_points(&self, points: &[(f64, f64)]) -> Result<(u16, Vec<u8>), String> {
        let is_south = points.iter().any(|(lat, _)| *lat < 0.0);
        let is_west = points.iter().any(|(_, lon)| *lon < 0.0);
        let mut bytes = Vec::with_capacity(points.len() * 8);
        for (lat, lon) in points {
            if (*lat > 0.0 && is_south) || (*lon > 0.0 && is_west) {
                return Err("an area cannot lie on both sides of the equator or of Greenwich".to_owned());
            }
            if !(lat.abs() <= 90.0 && lon.abs() <= 180.0) {
                return Err(format!("[{lat}, {lon}] is no latitude and longitude"));
            }
            for degrees in [lat, lon] {
                let millionths = (degrees.abs() * 1e6).round() as u32;
                bytes.extend_from_slice(&millionths.to_be_bytes());
            }
        }
        let bit = |is_set: bool, bit: u16| if is_set { 1 << bit } else { 0 };
        // These four bits are what the fields say.
        let flag = self.flag & !0b1100_0011
            | bit(self.start.is_some(), 0)
            | bit(self.max_speed.is_some(), 1)
            | bit(is_south, 6)
            | bit(is_west, 7);
        Ok((flag, bytes))
    }

    fn limits(&self, body: &mut Vec<u8>) -> Result<(), String> {
        match (&self.start, &self.end) {
            (Some(start), Some(end)) => {
                body.extend_from_slice(&text::to_time(start)?);
                body.extend_from_slice(&text::to_time(end)?);
            }
            (None, None) => {}
            _ => return Err("`start` and `end` come together".to_owned()),
        }
        if let Some(speed) = self.max_speed {
            body.extend_from_slice(&speed.to_be_bytes());
            body.push(self.overspeed_seconds);
        }
        Ok(())
    }

    fn end(&self, is_2019: bool, body: &mut Vec<u8>) -> Result<(), String> {
        if !is_2019 {
            return Ok(());
        }
        if let Some(speed) = self.max_speed {
            body.extend_from_slice(&self.night_max_speed.unwrap_or(speed).to_be_bytes());
        }
        let name = text::to_gbk(&self.name)?;
        let length = u16::try_from(name.len()).map_err(|_| "the name is too long".to_owned())?;
        body.extend_from_slice(&length.to_be_bytes());
        body.extend_from_slice(&name);
        Ok(())
    }
}

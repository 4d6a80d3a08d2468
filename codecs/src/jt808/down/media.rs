//! Pictures and sound, the recorder and the vehicle itself: 0x8500, 0x8700 and 0x8801 to 0x8900.

use serde::Deserialize;

use super::{byte, text};
use crate::hex;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Vehicle {
    lock: Option<bool>,
    /// 2019: others than the doors.
    #[serde(default)]
    controls: Vec<Control>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Control {
    id: u16,
    hex: String,
}

/// A body of 0x8500. In 2013 a flag whose bit 0 locks; in 2019 a list in which 1 is the doors, and one opens them.
pub(super) fn vehicle(vehicle: &Vehicle, is_2019: bool) -> Result<Vec<u8>, String> {
    if !is_2019 {
        let lock = vehicle.lock.ok_or("needs `lock`: the terminal speaks JT/T 808-2013")?;
        return Ok(vec![u8::from(lock)]);
    }
    let count = vehicle.controls.len() + usize::from(vehicle.lock.is_some());
    let mut body = u16::from(byte(count, "controls")?).to_be_bytes().to_vec();
    if let Some(lock) = vehicle.lock {
        body.extend_from_slice(&[0, 1, u8::from(!lock)]);
    }
    for control in &vehicle.controls {
        body.extend_from_slice(&control.id.to_be_bytes());
        body.extend_from_slice(&hex::decode(&control.hex)?);
    }
    Ok(body)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Recorder {
    command: u8,
    #[serde(default)]
    hex: String,
}

/// Bodies of 0x8700 and 0x8701.
pub(super) fn command_and_bytes(recorder: &Recorder) -> Result<Vec<u8>, String> {
    Ok([&[recorder.command], &hex::decode(&recorder.hex)?[..]].concat())
}

/// 0x8801 (8.51).
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Photo {
    #[serde(default = "one")]
    channel: u8,
    /// How many pictures; 0 stops, 65535 takes a film.
    #[serde(default = "one_picture")]
    count: u16,
    /// Seconds between them, or of the film.
    #[serde(default)]
    interval: u16,
    /// Kept there, and not sent.
    #[serde(default)]
    keep: bool,
    /// 1 is 320x240, 2 is 640x480, 3 is 800x600, 4 is 1024x768; 5 to 8 are smaller.
    #[serde(default = "one")]
    resolution: u8,
    /// 1 is the best, 10 the smallest.
    #[serde(default = "five")]
    quality: u8,
    #[serde(default = "middle")]
    brightness: u8,
    #[serde(default = "half")]
    contrast: u8,
    #[serde(default = "half")]
    saturation: u8,
    #[serde(default = "middle")]
    chroma: u8,
}

fn one() -> u8 {
    1
}

fn one_picture() -> u16 {
    1
}

fn five() -> u8 {
    5
}

fn middle() -> u8 {
    127
}

fn half() -> u8 {
    63
}

pub(super) fn photo(photo: &Photo) -> Vec<u8> {
    let [count_high, count_low] = photo.count.to_be_bytes();
    let [high, low] = photo.interval.to_be_bytes();
    vec![
        photo.channel,
        count_high,
        count_low,
        high,
        low,
        u8::from(photo.keep),
        photo.resolution,
        photo.quality,
        photo.brightness,
        photo.contrast,
        photo.saturation,
        photo.chroma,
    ]
}

/// 0x8802, and 0x8803 but for its last byte.
#[derive(Deserialize)]
pub(super) struct Search {
    /// 0 image, 1 audio, 2 video.
    #[serde(default, rename = "type")]
    kind: u8,
    /// 0 is every one.
    #[serde(default)]
    channel: u8,
    #[serde(default)]
    event: u8,
    start: Option<String>,
    end: Option<String>,
}

#[derive(Deserialize)]
pub(super) struct Upload {
    #[serde(flatten)]
    pub(super) search: Search,
    #[serde(default)]
    pub(super) delete: bool,
}

/// Without a time it is all times, which zeros say.
pub(super) fn search(search: &Search, delete: Option<bool>) -> Result<Vec<u8>, String> {
    let time = |text: &Option<String>| text.as_deref().map_or(Ok([0; 6]), text::to_time);
    let mut body = vec![search.kind, search.channel, search.event];
    body.extend_from_slice(&time(&search.start)?);
    body.extend_from_slice(&time(&search.end)?);
    body.extend(delete.map(u8::from));
    Ok(body)
}

/// 0x8804.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Audio {
    pub(super) start: bool,
    /// Zero goes on until it is stopped.
    #[serde(default)]
    pub(super) seconds: u16,
    #[serde(default)]
    pub(super) keep: bool,
    /// 0 is 8 kHz, 1 is 11, 2 is 23, 3 is 32.
    #[serde(default)]
    pub(super) rate: u8,
}

/// 0x8805.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct One {
    pub(super) id: u32,
    #[serde(default)]
    pub(super) delete: bool,
}

/// 0x8900.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Transparent {
    #[serde(rename = "type")]
    pub(super) kind: u8,
    pub(super) base64: Option<String>,
    pub(super) hex: Option<String>,
    pub(super) text: Option<String>,
}

//! Text in GBK, digits in BCD and times of the clock in China (JT/T 808, 4.2: BCD\[n\], STRING).

use std::borrow::Cow;
use std::fmt::Write;

use encoding_rs::GBK;

use wire::calendar::Calendar;

/// Text as it is sent, up to the first zero: shorter text is filled up with them.
pub(super) fn gbk(bytes: &[u8]) -> Cow<'_, str> {
    let end = memchr::memchr(0, bytes).unwrap_or(bytes.len());
    let (text, _) = GBK.decode_without_bom_handling(&bytes[..end]);
    match text {
        Cow::Borrowed(text) => Cow::Borrowed(text.trim()),
        Cow::Owned(text) => Cow::Owned(text.trim().to_owned()),
    }
}

/// An id, which makes fill up on either side; in hexadecimal if it is no text but a number in BCD.
pub(super) fn id(bytes: &[u8]) -> Cow<'_, str> {
    let bytes = bytes.trim_ascii();
    let start = bytes.iter().position(|b| *b != 0).unwrap_or(bytes.len());
    let end = bytes.iter().rposition(|b| *b != 0).map_or(start, |last| last + 1);
    match str::from_utf8(&bytes[start..end]) {
        Ok(text) if text.bytes().all(|b| b.is_ascii_graphic() || b == b' ') => Cow::Borrowed(text),
        _ => Cow::Owned(crate::hex::encode(bytes)),
    }
}

/// Text to send.
pub(super) fn to_gbk(text: &str) -> Result<Cow<'_, [u8]>, String> {
    let (bytes, _, has_failed) = GBK.encode(text);
    // What GBK lacks would be sent as a number of HTML.
    if has_failed { Err(format!("GBK has not all characters of {text:?}")) } else { Ok(bytes) }
}

/// Two decimal digits; None if they are not.
pub(super) fn bcd(byte: u8) -> Option<u8> {
    let (tens, ones) = (byte >> 4, byte & 15);
    (tens < 10 && ones < 10).then_some(tens * 10 + ones)
}

/// Eight hours ahead of UTC: all times are those of Beijing.
const ZONE: &str = "+08:00";

/// YY-MM-DD-hh-mm-ss in BCD as ISO 8601; None if it is no time, such as the zeros of a terminal that has none yet.
pub(super) fn time(bytes: [u8; 6]) -> Option<String> {
    let mut fields = [0; 6];
    for (field, byte) in fields.iter_mut().zip(bytes) {
        *field = bcd(byte)?;
    }
    let [_, month, day, hour, minute, second] = fields;
    let is_time =
        (1..=12).contains(&month) && (1..=31).contains(&day) && hour < 24 && minute < 60 && second < 61;
    is_time.then(|| {
        // Digit by digit from the bytes: this is done for every location.
        let mut text = String::with_capacity(25);
        text.push_str("20");
        for (byte, before) in bytes.into_iter().zip(["", "-", "-", "T", ":", ":"]) {
            text.push_str(before);
            text.push(char::from(b'0' + (byte >> 4)));
            text.push(char::from(b'0' + (byte & 15)));
        }
        text.push_str(ZONE);
        text
    })
}

/// A time to send: `2018-10-15T10:10:10`, with an offset of +08:00 or none, as YY-MM-DD-hh-mm-ss in BCD.
pub(super) fn to_time(text: &str) -> Result<[u8; 6], String> {
    let bad = || format!("{text:?} is no time like 2026-11-21T15:40:00");
    let local = text.strip_suffix(ZONE).unwrap_or(text);
    let bytes = local.as_bytes();
    let separators = [(4, b'-'), (7, b'-'), (10, b'T'), (13, b':'), (16, b':')];
    let is_alike = separators.iter().all(|(at, byte)| bytes.get(*at) == Some(byte));
    if bytes.len() != 19 || !is_alike || !local.starts_with("20") {
        return Err(bad());
    }
    let mut time = [0; 6];
    for (byte, at) in time.iter_mut().zip([2, 5, 8, 11, 14, 17]) {
        let digit = |at: usize| bytes.get(at).filter(|b| b.is_ascii_digit()).map(|b| b - b'0');
        *byte = digit(at).zip(digit(at + 1)).map(|(tens, ones)| tens << 4 | ones).ok_or_else(bad)?;
    }
    Ok(time)
}

/// Milliseconds since 1970 as YY-MM-DD-hh-mm-ss in BCD, in UTC (0x8004).
pub(super) fn utc(wall_ms: u64) -> [u8; 6] {
    let Calendar { year, month, day, hour, minute, second } = Calendar::at(wall_ms);
    let year = u8::try_from(year % 100).unwrap_or(0);
    [year, month, day, hour, minute, second].map(|n| ((n / 10) << 4) | (n % 10))
}

/// Digits of BCD, hexadecimal ones where they are no decimal ones.
pub(super) fn digits(bytes: &[u8]) -> String {
    crate::hex::encode(bytes)
}

/// hh-mm-ss and a part of a second of four digits, as CAN data has it (0x0705).
pub(super) fn time_of_day(bytes: [u8; 5]) -> Option<String> {
    for byte in bytes {
        bcd(byte)?;
    }
    let [hour, minute, second, high, low] = bytes;
    let mut text = String::with_capacity(13);
    write!(text, "{hour:02x}:{minute:02x}:{second:02x}.{high:02x}{low:02x}").ok()?;
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_that_cannot_be_is_none() {
        let at = |text: &str| time(crate::hex::decode(text).unwrap().try_into().unwrap());
        assert_eq!(at("181015101010").as_deref(), Some("2018-10-15T10:10:10+08:00"));
        for bad in
            ["000000000000", "18101510101a", "f81015101010", "181315101010", "181000101010", "181015241010"]
        {
            assert_eq!(at(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_time_is_sent_as_it_is_written() {
        let bytes = [0x18, 0x10, 0x15, 0x10, 0x10, 0x10];
        assert_eq!(to_time("2018-10-15T10:10:10"), Ok(bytes));
        assert_eq!(to_time("2018-10-15T10:10:10+08:00"), Ok(bytes));
        for bad in ["", "2018-10-15", "2018-10-15T10:10:10Z", "2018-1a-15T10:10:10", "1918-10-15T10:10:10"] {
            assert!(to_time(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_time_of_utc_knows_leap_years() {
        assert_eq!(utc(0), [0x70, 1, 1, 0, 0, 0]);
        assert_eq!(utc(1_582_934_400_000 + 86_399_999), [0x20, 2, 0x29, 0x23, 0x59, 0x59]);
        assert_eq!(utc(1_583_020_800_000), [0x20, 3, 1, 0, 0, 0]);
        assert_eq!(utc(4_107_542_400_000), [0, 3, 1, 0, 0, 0]);
    }

    #[test]
    fn text_is_gbk_both_ways() {
        assert_eq!(gbk(&[0xbe, 0xa9, b'A', b'1', 0, 0]), "京A1");
        assert_eq!(to_gbk("京A1").as_deref(), Ok(&[0xbe, 0xa9, b'A', b'1'][..]));
        assert!(to_gbk("😀").is_err());
        assert_eq!(id(&[0, 0, b'7', b'8', 0]), "78");
        assert_eq!(id(&[0, 0x94, 0x02, 0x78]), "00940278");
    }
}

//! Dates and times in UTC, for devices that tell or ask for them.

use std::fmt;
use std::ops::Range;
use std::str::FromStr;

/// A second of the calendar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Calendar {
    /// The year, such as 2024.
    pub year: u16,
    /// 1 to 12.
    pub month: u8,
    /// 1 to 31.
    pub day: u8,
    /// 0 to 23.
    pub hour: u8,
    /// 0 to 59.
    pub minute: u8,
    /// 0 to 59.
    pub second: u8,
}

const DAY_S: i64 = 86_400;

impl Calendar {
    /// The second in which `wall_ms` after 1970 is.
    pub fn at(wall_ms: u64) -> Calendar {
        // No device's clock goes beyond the year 9999; what claims so is held there.
        let seconds = i64::try_from(wall_ms / 1000).unwrap_or(i64::MAX).min(253_402_300_799);
        let (day, of_day) = (seconds / DAY_S, seconds % DAY_S);
        // Days counted in eras of 400 years that begin on the 1st of March of the year 0, 719,468 days before 1970:
        // February, and the leap day with it, is then the end of a year.
        let day = day + 719_468;
        let (era, day) = (day / 146_097, day % 146_097);
        let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
        let day = day - (365 * year + year / 4 - year / 100);
        let month = (5 * day + 2) / 153;
        let date = day - (153 * month + 2) / 5 + 1;
        let (month, next) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
        let small = |n: i64| u8::try_from(n).unwrap_or(0);
        Calendar {
            year: u16::try_from(era * 400 + year + next).unwrap_or(0),
            month: small(month),
            day: small(date),
            hour: small(of_day / 3600),
            minute: small(of_day / 60 % 60),
            second: small(of_day % 60),
        }
    }

    /// What six bytes of year since 2000, month, day, hour, minute and second say, if there is such a second.
    pub fn from_bytes([year, month, day, hour, minute, second]: [u8; 6]) -> Option<Calendar> {
        let said = Calendar { year: 2000 + u16::from(year), month, day, hour, minute, second };
        // A day or an hour that there is not comes out as another one.
        (Calendar::at(said.to_ms()) == said && (1..=12).contains(&month)).then_some(said)
    }

    /// Milliseconds since 1970; of a time before, zero.
    pub fn to_ms(self) -> u64 {
        let (year, month) = (i64::from(self.year), i64::from(self.month));
        let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
        let days =
            365 * year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + i64::from(self.day);
        let of_day = i64::from(self.hour) * 3600 + i64::from(self.minute) * 60 + i64::from(self.second);
        let seconds = (days - 1 - 719_468) * DAY_S + of_day;
        u64::try_from(seconds).unwrap_or(0) * 1000
    }
}

/// There is no such second, or it is not written as a [`Calendar`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoSuchSecond;

impl fmt::Display for NoSuchSecond {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("this is not a time such as 2026-12-01T00:00:00Z")
    }
}

impl std::error::Error for NoSuchSecond {}

/// What `Display` writes, from 1970 on, and nothing else.
impl FromStr for Calendar {
    type Err = NoSuchSecond;

    fn from_str(text: &str) -> Result<Calendar, NoSuchSecond> {
        fn number<T: FromStr>(text: &str, place: Range<usize>) -> Result<T, NoSuchSecond> {
            text.get(place).and_then(|digits| digits.parse().ok()).ok_or(NoSuchSecond)
        }
        let said = Calendar {
            year: number(text, 0..4)?,
            month: number(text, 5..7)?,
            day: number(text, 8..10)?,
            hour: number(text, 11..13)?,
            minute: number(text, 14..16)?,
            second: number(text, 17..19)?,
        };
        // A time before 1970, a day, an hour or a form that there is not comes out as another text.
        let read = Calendar::at(said.to_ms());
        if read.to_string() == text { Ok(read) } else { Err(NoSuchSecond) }
    }
}

/// RFC 3339, to the second.
impl fmt::Display for Calendar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Calendar { year, month, day, hour, minute, second } = self;
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
    }
}

/// RFC 3339, to the millisecond.
pub fn to_text_ms(wall_ms: u64) -> String {
    let text = Calendar::at(wall_ms).to_string();
    format!("{}.{:03}Z", text.trim_end_matches('Z'), wall_ms % 1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_know_leap_years() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_709_251_199, "2024-02-29T23:59:59Z"),
            (1_735_689_599, "2024-12-31T23:59:59Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(Calendar::at(seconds * 1000).to_string(), text);
            assert_eq!(Calendar::at(seconds * 1000).to_ms(), seconds * 1000);
            assert_eq!(text.parse(), Ok(Calendar::at(seconds * 1000)));
        }
        for wrong in [
            "",
            "2023-02-29T00:00:00Z",
            "2024-13-01T00:00:00Z",
            "2024-01-01 00:00:00Z",
            "2024-01-01T24:00:00Z",
            "2024-01-01T00:00:00+01:00",
            "1969-12-31T23:59:59Z",
            "+024-01-01T00:00:00Z",
            "2024-00-01T00:00:00Z",
            "2024-01-00T00:00:00Z",
        ] {
            assert_eq!(wrong.parse::<Calendar>(), Err(NoSuchSecond), "{wrong}");
        }
        assert_eq!(to_text_ms(1_560_161_086_007), "2019-06-10T10:04:46.007Z");
        assert_eq!(Calendar::at(u64::MAX).to_string(), "9999-12-31T23:59:59Z");
    }

    #[test]
    fn a_day_that_there_is_not_is_none() {
        assert_eq!(
            Calendar::from_bytes([24, 2, 29, 23, 59, 59]).map(|c| c.to_string()).as_deref(),
            Some("2024-02-29T23:59:59Z")
        );
        for wrong in [[23, 2, 29, 0, 0, 0], [23, 13, 1, 0, 0, 0], [23, 1, 0, 0, 0, 0], [23, 1, 1, 24, 0, 0]] {
            assert_eq!(Calendar::from_bytes(wrong), None, "{wrong:?}");
        }
        assert_eq!(Calendar::from_bytes([23, 0, 1, 0, 0, 0]), None);
        assert_eq!(Calendar::from_bytes([255; 6]), None);
    }
}

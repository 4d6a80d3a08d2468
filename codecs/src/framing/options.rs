//! What configuration says of framing, and what is wrong with it.

use std::time::Duration;

use super::checksum::{Checksum, NAMES};
use super::escape::Escape;
use super::{Cut, Framing, Length, MAX_FRAME, Sum};
use crate::hex;

/// The keys of a section `framing`, each as text: see [`FramingOptions::set`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FramingOptions {
    kind: Option<Kind>,
    size: Option<usize>,
    delimiter: Option<Vec<u8>>,
    escape: Option<Escape>,
    begin: Vec<u8>,
    end: Vec<u8>,
    offset: Option<usize>,
    length_size: Option<usize>,
    is_little: Option<bool>,
    adjust: Option<i64>,
    strip: Option<usize>,
    pause: Option<Duration>,
    max_frame: Option<usize>,
    checksum: Option<Checksum>,
    checksum_at: Option<usize>,
    checksum_from: Option<usize>,
    checksum_to: Option<i64>,
    is_checksum_little: Option<bool>,
    is_checksum_hex: Option<bool>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Fixed,
    Delimiter,
    Length,
    Line,
    Idle,
}

const KINDS: [(&str, Kind); 5] = [
    ("fixed", Kind::Fixed),
    ("delimiter", Kind::Delimiter),
    ("length", Kind::Length),
    ("line", Kind::Line),
    ("idle", Kind::Idle),
];
const ENDIANS: [(&str, bool); 2] = [("big", false), ("little", true)];
const FORMS: [(&str, bool); 2] = [("binary", false), ("hex", true)];

impl FramingOptions {
    /// Every key there is.
    pub const KEYS: &'static [&'static str] = &[
        "kind",
        "size",
        "delimiter",
        "escape",
        "begin",
        "end",
        "offset",
        "length_size",
        "endian",
        "adjust",
        "strip",
        "pause",
        "max_frame",
        "checksum",
        "checksum_at",
        "checksum_from",
        "checksum_to",
        "checksum_endian",
        "checksum_form",
    ];

    /// Sets a key from text; numbers as digits, bytes in hexadecimal. The error says what would be right.
    pub fn set(&mut self, key: &str, value: &str) -> Result<(), String> {
        match key {
            "kind" => self.kind = Some(choice(value, &KINDS)?),
            "size" => self.size = Some(number(value, 1, 1 << 24)?),
            "delimiter" => self.delimiter = Some(bytes(value)?),
            "escape" => self.escape = Some(Escape::read(value)?),
            "begin" => self.begin = bytes(value)?,
            "end" => self.end = bytes(value)?,
            "offset" => self.offset = Some(number(value, 0, 255)?),
            "length_size" => self.length_size = Some(number(value, 1, 4)?),
            "endian" => self.is_little = Some(choice(value, &ENDIANS)?),
            "adjust" => self.adjust = Some(number(value, -65_536, 65_536)?),
            "strip" => self.strip = Some(number(value, 0, 255)?),
            "pause" => self.pause = Some(pause(value)?),
            "max_frame" => self.max_frame = Some(number(value, 1, 1 << 24)?),
            "checksum" => self.checksum = Some(choice(value, &NAMES)?),
            "checksum_at" if value == "end" => self.checksum_at = None,
            "checksum_at" => self.checksum_at = Some(number(value, 0, 255)?),
            "checksum_from" => self.checksum_from = Some(number(value, 0, 255)?),
            "checksum_to" => self.checksum_to = Some(number(value, -255, 65_536)?),
            "checksum_endian" => self.is_checksum_little = Some(choice(value, &ENDIANS)?),
            "checksum_form" => self.is_checksum_hex = Some(choice(value, &FORMS)?),
            _ => return Err(format!("there is no such key; there are {}", Self::KEYS.join(", "))),
        }
        Ok(())
    }

    /// What the keys mean together.
    pub(super) fn build(&self) -> Result<Framing, String> {
        let kind = self.kind.ok_or_else(|| format!("needs `kind`: {}", names(&KINDS)))?;
        self.check_keys(kind)?;
        let cut = match kind {
            Kind::Fixed => Cut::Fixed(self.size.ok_or("kind \"fixed\" needs `size`")?),
            Kind::Line => Cut::Line,
            Kind::Idle => Cut::Idle(self.pause.ok_or("kind \"idle\" needs `pause`, such as \"50ms\"")?),
            Kind::Delimiter => {
                let delimiter = self.delimiter.as_deref().ok_or("kind \"delimiter\" needs `delimiter`")?;
                if let Some(escape) = &self.escape
                    && !matches!(delimiter, [byte] if escape.hides(*byte))
                {
                    return Err("`escape` must hide a `delimiter` of one byte".to_owned());
                }
                Cut::Delimiter(delimiter.into(), self.escape.clone())
            }
            Kind::Length => Cut::Length(Length {
                offset: self.offset.unwrap_or(0),
                size: self.length_size.ok_or("kind \"length\" needs `length_size`")?,
                is_little: self.is_little.unwrap_or(false),
                adjust: self.adjust.unwrap_or(0),
            }),
        };
        let header = match &cut {
            Cut::Length(l) => l.offset + l.size,
            _ => self.begin.len(),
        };
        let framing = Framing {
            begin: self.begin.clone().into(),
            end: self.end.clone().into(),
            strip: self.strip.unwrap_or(header),
            sum: self.checksum.map(|kind| self.sum(kind)),
            max_frame: self.max_frame.unwrap_or(MAX_FRAME.max(self.size.unwrap_or(0))),
            cut,
        };
        self.check_whole(&framing, header)?;
        Ok(framing)
    }

    fn sum(&self, kind: Checksum) -> Sum {
        let is_hex = self.is_checksum_hex.unwrap_or(false);
        let size = if is_hex { 2 * kind.size() } else { kind.size() };
        let end = i64::try_from(self.end.len() + if self.checksum_at.is_none() { size } else { 0 });
        Sum {
            kind,
            at: self.checksum_at,
            from: self.checksum_from.unwrap_or(self.checksum_at.map_or(0, |at| at + size)),
            to: self.checksum_to.unwrap_or(-end.unwrap_or(0)),
            is_little: self.is_checksum_little.or(self.is_little).unwrap_or(false),
            is_hex,
        }
    }

    /// Keys that mean nothing for this kind.
    fn check_keys(&self, kind: Kind) -> Result<(), String> {
        let of = [
            ("size", self.size.is_some(), &[Kind::Fixed][..]),
            ("delimiter", self.delimiter.is_some(), &[Kind::Delimiter]),
            ("escape", self.escape.is_some(), &[Kind::Delimiter]),
            ("offset", self.offset.is_some(), &[Kind::Length]),
            ("length_size", self.length_size.is_some(), &[Kind::Length]),
            ("adjust", self.adjust.is_some(), &[Kind::Length]),
            ("endian", self.is_little.is_some(), &[Kind::Length]),
            ("pause", self.pause.is_some(), &[Kind::Idle]),
            ("end", !self.end.is_empty(), &[Kind::Length, Kind::Fixed]),
        ];
        if let Some((key, ..)) = of.iter().find(|(_, is_set, kinds)| *is_set && !kinds.contains(&kind)) {
            let name = KINDS.iter().find(|(_, k)| *k == kind).map_or("", |(name, _)| name);
            return Err(format!("`{key}` means nothing for kind {name:?}"));
        }
        let sums = [
            ("checksum_at", self.checksum_at.is_some()),
            ("checksum_from", self.checksum_from.is_some()),
            ("checksum_to", self.checksum_to.is_some()),
            ("checksum_endian", self.is_checksum_little.is_some()),
            ("checksum_form", self.is_checksum_hex.is_some()),
        ];
        match sums.iter().find(|(_, is_set)| *is_set && self.checksum.is_none()) {
            Some((key, _)) => Err(format!("`{key}` means nothing without `checksum`")),
            None => Ok(()),
        }
    }

    fn check_whole(&self, framing: &Framing, header: usize) -> Result<(), String> {
        if let Cut::Length(l) = &framing.cut
            && self.begin.len() > l.offset
        {
            return Err("`begin` must not be longer than `offset`: the length comes after it".to_owned());
        }
        if framing.strip > header.max(self.begin.len()) {
            return Err(format!(
                "`strip` must not be more than what comes before the payload, {header} bytes"
            ));
        }
        if let Some(sum) = &framing.sum {
            check_sum(sum, self, &framing.cut)?;
        }
        let (least, most) = (framing.least(), framing.max_frame);
        match framing.cut {
            Cut::Fixed(size) if size < least => Err(format!("`size` must be at least {least}")),
            Cut::Fixed(size) if size > most => Err("`max_frame` must not be less than `size`".to_owned()),
            _ if most < least => Err(format!("`max_frame` must be at least {least}")),
            _ => Ok(()),
        }
    }
}

/// Whether the checksum lies where nothing else does, and does not cover itself.
fn check_sum(sum: &Sum, options: &FramingOptions, cut: &Cut) -> Result<(), String> {
    let to = usize::try_from(sum.to).ok().filter(|to| *to > 0);
    let Some(at) = sum.at else {
        let after = i64::try_from(sum.size() + options.end.len()).unwrap_or(i64::MAX);
        let is_left_out = sum.to <= -after;
        let why = "`checksum_to` must leave the checksum out: below zero it counts from the end";
        return if is_left_out { Ok(()) } else { Err(why.to_owned()) };
    };
    let end = at + sum.size();
    let is_on_length = |l: Length| at < l.offset + l.size && end > l.offset;
    match cut {
        _ if at < options.begin.len() => Err("`checksum_at` is within `begin`".to_owned()),
        Cut::Length(l) if is_on_length(*l) => Err("`checksum_at` is where the length is".to_owned()),
        _ if to.is_some_and(|to| to < sum.from) => Err("`checksum_to` is before `checksum_from`".to_owned()),
        _ if sum.from < end && to.is_none_or(|to| to > at) => {
            Err("`checksum_from` to `checksum_to` must leave the checksum out".to_owned())
        }
        _ => Ok(()),
    }
}

fn names<T>(of: &[(&str, T)]) -> String {
    of.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ")
}

fn choice<T: Copy>(value: &str, of: &[(&str, T)]) -> Result<T, String> {
    let found = of.iter().find(|(name, _)| *name == value).map(|(_, t)| *t);
    found.ok_or_else(|| format!("must be one of {}", names(of)))
}

fn number<T: std::str::FromStr + PartialOrd + std::fmt::Display>(
    value: &str,
    least: T,
    most: T,
) -> Result<T, String> {
    let read = value.parse().ok().filter(|n| *n >= least && *n <= most);
    read.ok_or_else(|| format!("must be a whole number from {least} to {most}"))
}

fn bytes(value: &str) -> Result<Vec<u8>, String> {
    let read = hex::decode(value)?;
    if (1..=16).contains(&read.len()) {
        Ok(read)
    } else {
        Err("must be 1 to 16 bytes in hexadecimal".to_owned())
    }
}

/// `50ms` or `2s`.
fn pause(value: &str) -> Result<Duration, String> {
    let (digits, unit) = value.split_at(value.find(|c: char| !c.is_ascii_digit()).unwrap_or(value.len()));
    let n = digits.parse().unwrap_or(0);
    let read = match unit {
        "ms" => Duration::from_millis(n),
        "s" => Duration::from_secs(n),
        _ => Duration::ZERO,
    };
    let is_in = (Duration::from_millis(1)..=Duration::from_secs(60)).contains(&read);
    if is_in { Ok(read) } else { Err("must be a time from \"1ms\" to \"60s\"".to_owned()) }
}
